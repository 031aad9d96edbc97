#![expect(
    clippy::disallowed_types,
    reason = "the relay stands outside of what is tested"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_types::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::packet_filter::{PacketFilter, Way};

/// What a relay does with bytes that flow one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Pass,
    /// Bytes stay where they are, as behind a router that drops them.
    Hold,
    Delay(Duration),
}

#[derive(Clone, Copy, Debug)]
struct Mode {
    /// Connections are reset and new ones refused.
    cut: bool,
    /// From who dialled to who was dialled, and back.
    forth: Flow,
    back: Flow,
}

/// One directed peer link: a port that passes what it gets on to a target.
#[derive(Clone, Debug)]
pub struct Relay {
    port: u16,
    mode: watch::Sender<Mode>,
}

impl Relay {
    /// Listens on `port` of loopback and relays to `target` of loopback.
    ///
    /// # Panics
    /// If the port is taken.
    pub async fn start(port: u16, target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .expect("a free port");
        let (mode, _) = watch::channel(Mode {
            cut: false,
            forth: Flow::Pass,
            back: Flow::Pass,
        });
        let modes = mode.clone();
        tokio::spawn(async move {
            while let Ok((dialler, _)) = listener.accept().await {
                tokio::spawn(serve(dialler, target, modes.subscribe()));
            }
        });
        Self { port, mode }
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn cut(&self, cut: bool) {
        self.mode.send_modify(|mode| mode.cut = cut);
    }

    pub fn flow(&self, forth: Flow, back: Flow) {
        self.mode
            .send_modify(|mode| (mode.forth, mode.back) = (forth, back));
    }
}

async fn serve(dialler: TcpStream, target: u16, mut modes: watch::Receiver<Mode>) {
    let reset = |stream: &TcpStream| {
        // No farewell: the other side sees a reset, as after a cable was cut and the host gone.
        let _ = stream.set_zero_linger();
    };
    if modes.borrow().cut {
        reset(&dialler);
        return;
    }
    let Ok(target) = TcpStream::connect(("127.0.0.1", target)).await else {
        reset(&dialler);
        return;
    };
    let _ = (dialler.set_nodelay(true), target.set_nodelay(true));
    let mut cut = modes.clone();
    let (mut dialler, mut target) = (dialler, target);
    {
        let (dialler_read, dialler_write) = dialler.split();
        let (target_read, target_write) = target.split();
        let mut back_modes = modes.clone();
        tokio::select! {
            () = pump(dialler_read, target_write, &mut modes, |mode| mode.forth) => {}
            () = pump(target_read, dialler_write, &mut back_modes, |mode| mode.back) => {}
            _ = cut.wait_for(|mode| mode.cut) => {}
        }
    }
    if cut.borrow().cut {
        reset(&dialler);
        reset(&target);
    }
}

async fn pump(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    modes: &mut watch::Receiver<Mode>,
    flow: impl Fn(&Mode) -> Flow,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        // Bytes that were under way when the link was held are held too.
        let Ok(mode) = modes
            .wait_for(|mode| flow(mode) != Flow::Hold)
            .await
            .map(|mode| *mode)
        else {
            break;
        };
        if let Flow::Delay(delay) = flow(&mode) {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// All links between the nodes: for each ordered pair, the relays that the first dials.
#[derive(Clone, Debug, Default)]
pub struct Links {
    relays: Arc<BTreeMap<(NodeId, NodeId), Vec<Relay>>>,
    filter: Option<PacketFilter>,
}

impl Links {
    #[must_use]
    pub fn new(relays: BTreeMap<(NodeId, NodeId), Vec<Relay>>) -> Self {
        Self {
            relays: Arc::new(relays),
            filter: None,
        }
    }

    /// From now on what is cut or held loses its packets instead: nobody is told, and nothing waits
    /// in a relay.
    pub fn lose_packets(&mut self, filter: PacketFilter) {
        self.filter = Some(filter);
    }

    fn between(&self, a: NodeId, b: NodeId) -> impl Iterator<Item = (bool, &Relay)> {
        let pair = move |from, to| self.relays.get(&(from, to)).into_iter().flatten();
        pair(a, b)
            .map(|relay| (true, relay))
            .chain(pair(b, a).map(|relay| (false, relay)))
    }

    /// Resets and refuses every connection between the two.
    pub fn cut(&self, a: NodeId, b: NodeId, cut: bool) {
        self.cut_each(self.between(a, b).map(|(_, relay)| relay), cut);
    }

    /// Cuts a node off from all others.
    pub fn isolate(&self, node: NodeId, cut: bool) {
        let ends_there = |(from, to): &(NodeId, NodeId)| *from == node || *to == node;
        let pairs = self.relays.iter().filter(|(pair, _)| ends_there(pair));
        self.cut_each(pairs.flat_map(|(_, relays)| relays), cut);
    }

    fn cut_each<'a>(&self, relays: impl Iterator<Item = &'a Relay>, cut: bool) {
        match &self.filter {
            Some(filter) => filter.lose(relays.map(|relay| (Way::Both, relay.port)), cut),
            None => relays.for_each(|relay| relay.cut(cut)),
        }
    }

    /// Decides what happens to bytes that flow from `from` to `to`, whoever dialled.
    pub fn flow(&self, from: NodeId, to: NodeId, flow: Flow) {
        let is_lost = flow == Flow::Hold;
        let in_relay = if is_lost && self.filter.is_some() {
            Flow::Pass
        } else {
            flow
        };
        let mut packets = Vec::new();
        for (dialled_by_from, relay) in self.between(from, to) {
            relay.mode.send_modify(|mode| match dialled_by_from {
                true => mode.forth = in_relay,
                false => mode.back = in_relay,
            });
            let way = match dialled_by_from {
                true => Way::Forth,
                false => Way::Back,
            };
            packets.push((way, relay.port));
        }
        if let Some(filter) = &self.filter {
            filter.lose(packets, is_lost);
        }
    }

    /// All links pass everything again.
    pub fn heal(&self) {
        for relay in self.relays.values().flatten() {
            relay.cut(false);
            relay.flow(Flow::Pass, Flow::Pass);
        }
        if let Some(filter) = &self.filter {
            filter.lose_nothing();
        }
    }
}
