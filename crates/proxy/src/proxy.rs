use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use quorate_net::{BoxIo, Listener, Net, Tls};
use quorate_types::{Epoch, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::RoleWatch;
use crate::accept::serve_each;
use crate::dial::{GateDialer, OpenGate, OpenGateError};
use crate::error_packet;
use crate::framing::{Ending, Framing};
use crate::gate::GateHandle;
use crate::gate_protocol::Purpose;
use crate::hold::{Hold, Holding};
use crate::metrics::{Metrics, PortMetrics};
use crate::pump::{End, Watch, pump};
use crate::route::{Route, epoch_over};
use crate::{read_only, read_write};

/// How long a client may take to read a last word that was said to it.
const LAST_WORD_MAX: Duration = Duration::from_secs(1);

/// How the ports behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxySettings {
    /// How long a new connection waits for a server before it gets an error.
    pub wait_max: Duration,
    /// Replicas further behind get no new read-only session.
    pub max_lag_transactions: u64,
    /// Whether read-only sessions go to the primary if no replica is fit. It does not stop them
    /// from writing there.
    pub read_only_falls_back: bool,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            wait_max: Duration::from_secs(10),
            max_lag_transactions: 10_000,
            read_only_falls_back: true,
        }
    }
}

/// What the ports of a node are made of.
pub struct ProxyParts<N, R, D> {
    pub net: N,
    pub role: R,
    pub dialer: D,
    pub tls: Option<Tls>,
    /// This node.
    pub node: NodeId,
    /// Its gate: sessions that it serves itself need no network in between.
    pub own_gate: Option<GateHandle>,
    pub settings: ProxySettings,
    pub metrics: Metrics,
}

/// The two ports of a node for applications. It knows no password and ends no client's TLS.
pub struct Proxy<N, R, D> {
    pub(crate) parts: ProxyParts<N, R, D>,
    pub(crate) route: watch::Sender<Route>,
    pub(crate) holding: Holding,
    pub(crate) read_write: PortMetrics,
    pub(crate) read_only: PortMetrics,
    /// Read-only sessions from here, by the node that serves them. Never held across an await.
    from_here: Mutex<BTreeMap<NodeId, u64>>,
}

/// Steers a node's ports.
#[derive(Clone)]
pub struct ProxyHandle {
    holding: Holding,
    read_write: PortMetrics,
}

impl ProxyHandle {
    /// A switchover takes the primary of this epoch away: new read-write connections wait (as long
    /// as any may wait) until another epoch is known, the hold is released, or its time is up.
    pub fn hold(&self, epoch: Epoch, longest: Duration) {
        self.holding.begin(Hold::new(epoch, longest));
    }

    /// The switchover was given up: connections go to the epoch's primary again.
    pub fn release(&self, epoch: Epoch) {
        self.holding.end(epoch);
    }

    /// Open sessions of this node's read-write port.
    #[must_use]
    pub fn read_write_sessions(&self) -> u64 {
        self.read_write.open_sessions()
    }
}

impl<N: Net, R: RoleWatch, D: GateDialer> Proxy<N, R, D> {
    #[must_use]
    pub fn new(parts: ProxyParts<N, R, D>) -> (Arc<Self>, ProxyHandle) {
        let route = Route::of(
            &parts.role.view().borrow(),
            parts.settings.max_lag_transactions,
        );
        let holding = Holding::default();
        let proxy = Self {
            route: watch::Sender::new(route),
            holding: holding.clone(),
            read_write: parts.metrics.port("read_write"),
            read_only: parts.metrics.port("read_only"),
            from_here: Mutex::default(),
            parts,
        };
        let handle = ProxyHandle {
            holding,
            read_write: proxy.read_write.clone(),
        };
        (Arc::new(proxy), handle)
    }

    /// Serves both ports until dropped, which ends every session.
    pub async fn run(self: Arc<Self>, read_write: Listener, read_only: Listener) {
        let read_write = serve_each(read_write.incoming, "read_write", |client| {
            read_write::session(Arc::clone(&self), client)
        });
        let read_only = serve_each(read_only.incoming, "read_only", |client| {
            read_only::session(Arc::clone(&self), client)
        });
        tokio::select! {
            () = self.follow_view() => {}
            () = read_write => {}
            () = read_only => {}
        }
    }

    async fn follow_view(&self) {
        let mut view = self.parts.role.view();
        loop {
            let route = Route::of(
                &view.borrow_and_update(),
                self.parts.settings.max_lag_transactions,
            );
            self.route.send_if_modified(|known| {
                let changed = *known != route;
                *known = route;
                changed
            });
            if view.changed().await.is_err() {
                // The node is going down: the listeners go on until it drops this.
                return std::future::pending().await;
            }
        }
    }

    pub(crate) async fn open_gate(
        &self,
        to: NodeId,
        purpose: Purpose,
        wait: Duration,
    ) -> Result<(BoxIo, Option<Epoch>), OpenGateError> {
        // A node without a cluster knows no other node either.
        let cluster = self.parts.role.view().borrow().cluster.unwrap_or_default();
        OpenGate {
            net: &self.parts.net,
            tls: self.parts.tls.as_ref(),
            own: self
                .parts
                .own_gate
                .as_ref()
                .filter(|_| to == self.parts.node),
            endpoint: self.parts.dialer.endpoint_of(to),
            cluster,
            from: self.parts.node,
            to,
            purpose,
            wait,
        }
        .open()
        .await
    }

    pub(crate) fn sessions_from_here(&self, node: NodeId) -> u64 {
        let counts = self
            .from_here
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counts.get(&node).copied().unwrap_or(0)
    }

    /// Counts a read-only session that goes to a node, until dropped.
    pub(crate) fn count_from_here(&self, node: NodeId) -> impl Drop + Send + '_ {
        let change = move |by: i64| {
            let mut counts = self
                .from_here
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(node).or_default();
            *count = count.saturating_add_signed(by);
        };
        change(1);
        OnDrop(Some(move || change(-1)))
    }

    /// Passes a session's bytes until it ends, and says why where it can.
    pub(crate) async fn pass(
        &self,
        port: &PortMetrics,
        mut client: BoxIo,
        mut gate: BoxIo,
        served_by: ServedBy,
    ) {
        let mut followed = Followed {
            framing: Framing::default(),
            port,
        };
        let open = port.open();
        let end = tokio::select! {
            biased;
            () = self.served_no_more(served_by) => None,
            end = pump(&mut client, &mut gate, &mut followed) => Some(end),
        };
        drop((gate, open));
        let reason = match (&end, served_by) {
            (Some(End::ClientClosed | End::Barred), _) => "client",
            (Some(End::ServerClosed), _) => "server",
            (None, ServedBy::Epoch(_)) => "primary_changed",
            (None, ServedBy::Replica(_)) => "replica_unfit",
        };
        port.closed(reason);
        let text = match (end, served_by) {
            (Some(End::ClientClosed | End::Barred), _) => return,
            (_, ServedBy::Epoch(_)) => {
                "Quorate: this connection's primary changed, lost its lease or ended it. A commit \
                 that was not answered may or may not have happened, or may happen yet: check it. \
                 Connect again."
            }
            (_, ServedBy::Replica(_)) => {
                "Quorate: the replica that served this connection became unfit or ended it. \
                 Connect again."
            }
        };
        match followed.framing.ending() {
            Ending::InsteadOfGreeting => {
                last_word(client, &error_packet::instead_of_greeting(text)).await;
            }
            Ending::Packet(sequence) => {
                last_word(client, &error_packet::connection_ends(sequence, text)).await;
            }
            Ending::Silent => {}
        }
    }

    async fn served_no_more(&self, served_by: ServedBy) {
        match served_by {
            ServedBy::Epoch(epoch) => epoch_over(self.route.subscribe(), epoch).await,
            ServedBy::Replica(node) => {
                // A sender that is gone means the same: nobody vouches for the replica.
                let unfit = |route: &Route| !route.fit.contains(&node);
                let _ = self.route.subscribe().wait_for(unfit).await;
            }
        }
    }
}

/// What a session lives with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServedBy {
    Epoch(Epoch),
    Replica(NodeId),
}

/// Tells a client without a session why it gets none, then closes.
pub(crate) async fn refuse(client: BoxIo, text: &str) {
    last_word(client, &error_packet::instead_of_greeting(text)).await;
}

/// Writes and closes, then reads what is still on its way: a close with unread bytes would be a
/// reset, which can overtake the packet.
async fn last_word(mut client: BoxIo, packet: &[u8]) {
    let _ = timeout(LAST_WORD_MAX, async {
        client.write_all(packet).await?;
        client.shutdown().await?;
        let mut ignored = [0; 256];
        while client.read(&mut ignored).await? > 0 {}
        std::io::Result::Ok(())
    })
    .await;
}

/// Follows the packets, and counts.
struct Followed<'a> {
    framing: Framing,
    port: &'a PortMetrics,
}

impl Watch for Followed<'_> {
    fn poll_pass(&mut self, _: &mut Context<'_>) -> Poll<bool> {
        Poll::Ready(true)
    }

    fn passed_to_server(&mut self, bytes: &[u8]) {
        self.framing.client_sent(bytes);
        self.port.to_server.inc_by(bytes.len() as u64);
    }

    fn passed_to_client(&mut self, bytes: &[u8]) {
        self.framing.server_sent(bytes);
        self.port.to_client.inc_by(bytes.len() as u64);
    }
}

struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(last) = self.0.take() {
            last();
        }
    }
}

#[cfg(test)]
mod tests;
