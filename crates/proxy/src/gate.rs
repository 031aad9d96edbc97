use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use quorate_net::{BoxIo, Endpoint, Listener, Net, Tls};
use quorate_types::{Epoch, NodeId, Rule};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::accept::serve_each;
use crate::gate_protocol::{Answer, Hello, Purpose, Refusal, RefusalReason};
use crate::greeting::Greeting;
use crate::metrics::{Metrics, PortMetrics};
use crate::pump::{End, Watch, pump};
use crate::{RoleWatch, ServerSessions};

/// TLS and the hello together; a member needs one or two round trips.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// mysqld listens on this machine: it answers at once or not at all.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// The longest that a hello may ask the gate to wait for its node.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// What may be on its way between this node's own proxy and its gate, in each direction.
const IN_PROCESS_BYTES: usize = 16 * 1024;
/// Connections from this process that the gate has not taken yet.
const CONNECTING_MAX: usize = 64;
/// How often a gate that waits, or that serves reads, asks again what no channel announces.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long sessions wait for a lease that ended to come back, and no byte of a client passes. A machine
/// that is busy otherwise loses one for moments.
const LEASE_BACK_MAX: Duration = Duration::from_millis(200);
/// How often held bytes ask whether it is back.
const LEASE_BACK_LOOK: Duration = Duration::from_millis(5);
/// A server's session whose client is gone ends by itself within this, if it is idle. What others
/// execute is stopped.
const ENDS_ITSELF: Duration = Duration::from_millis(50);
/// How long a gate whose lease came back waits for the server's sessions of clients that lost theirs with it,
/// before others begin under the same epoch. What such a client sent may still be executed, and
/// whoever looks for it next shall find it. Those that cannot commit any more are waited for no longer: a
/// rollback may take as long as what it undoes.
const LEFT_MAX: Duration = Duration::from_secs(1);

/// Whether a node is a member of the cluster, learners included.
pub type IsMember = Arc<dyn Fn(NodeId) -> bool + Send + Sync>;

/// Whether a permit is open by which the node may clone this gate's server.
pub type MayClone = Arc<dyn Fn(NodeId) -> bool + Send + Sync>;

/// What a gate is made of.
pub struct GateParts<N, R> {
    pub net: N,
    pub role: R,
    pub tls: Option<Tls>,
    /// This node. The cluster's id is taken from the view, since a node may learn it late.
    pub node: NodeId,
    pub is_member: IsMember,
    pub may_clone: MayClone,
    /// This node's mysqld: its unix socket, or a loopback port.
    pub server: Endpoint,
    pub server_sessions: Arc<dyn ServerSessions>,
    pub metrics: Metrics,
    /// For the simulation only.
    pub left_out: Option<Rule>,
}

/// The member-only way to this node's mysqld.
///
/// What a client sends is written to mysqld only while [`RoleWatch::may_serve`] says so, asked
/// after it was received. When the epoch is no longer served both directions stop at once.
pub struct Gate<N, R> {
    parts: Arc<GateParts<N, R>>,
    sessions: Arc<Sessions>,
    metrics: PortMetrics,
    from_here: mpsc::Receiver<BoxIo>,
}

/// Tells how far a gate is closed.
#[derive(Clone)]
pub struct GateHandle {
    sessions: Arc<Sessions>,
    to_gate: mpsc::Sender<BoxIo>,
    serving: watch::Receiver<Option<Epoch>>,
}

impl GateHandle {
    /// Resolves when no session of an epoch that is not served now can write to its client any
    /// more. The caller has made [`RoleWatch::serving`] none before: then every byte that mysqld
    /// writes after this goes nowhere, and mysqld may be killed (DESIGN 4, A2).
    pub async fn closed(&self) {
        let over = |open: &BTreeMap<Epoch, u64>| {
            let served = *self.serving.borrow();
            open.keys().all(|epoch| Some(*epoch) == served)
        };
        // The sender lives in `self.sessions`.
        let _ = self.sessions.open.subscribe().wait_for(over).await;
    }

    /// A connection from inside this process, which needs no network and no TLS.
    ///
    /// # Errors
    /// If the gate is gone.
    pub(crate) async fn connect(&self) -> std::io::Result<BoxIo> {
        let (ours, theirs) = tokio::io::duplex(IN_PROCESS_BYTES);
        match self.to_gate.send(BoxIo::new(theirs)).await {
            Ok(()) => Ok(BoxIo::new(ours)),
            Err(_) => Err(std::io::ErrorKind::ConnectionRefused.into()),
        }
    }

    /// Open sessions that read from this node as a replica.
    #[must_use]
    pub fn read_only_sessions(&self) -> u64 {
        *self.sessions.reading.borrow()
    }

    /// From now on no session begins under this epoch; those that are open go on. None: they begin
    /// again. Connections that come meanwhile wait as long as their hello says.
    pub fn hold(&self, epoch: Option<Epoch>) {
        self.sessions.held.send_replace(epoch);
    }

    /// Open sessions under an epoch.
    #[must_use]
    pub fn primary_sessions(&self) -> u64 {
        self.sessions.open.borrow().values().sum()
    }
}

/// The sessions that may write to their client.
struct Sessions {
    open: watch::Sender<BTreeMap<Epoch, u64>>,
    reading: watch::Sender<u64>,
    /// The epoch under which no session begins any more.
    held: watch::Sender<Option<Epoch>>,
    /// The server's sessions that go on without their clients, as these lost theirs with a lease.
    left: watch::Sender<BTreeMap<Epoch, u64>>,
    /// [`RoleWatch::may_serve_reads`], asked on behalf of all sessions.
    fit_for_reads: watch::Sender<bool>,
}

fn count_in(counts: &watch::Sender<BTreeMap<Epoch, u64>>, epoch: Epoch) {
    counts.send_modify(|counts| *counts.entry(epoch).or_default() += 1);
}

fn count_out(counts: &watch::Sender<BTreeMap<Epoch, u64>>, epoch: Epoch) {
    counts.send_modify(|counts| {
        if let Some(count) = counts.get_mut(&epoch) {
            *count -= 1;
        }
        counts.retain(|_, count| *count > 0);
    });
}

impl Sessions {
    fn note_fitness(&self, fit: bool) {
        self.fit_for_reads.send_if_modified(|known| {
            let changed = *known != fit;
            *known = fit;
            changed
        });
    }
}

/// Under what a session is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grant {
    Epoch(Epoch),
    Reads,
    /// A permit of this node's. No lease and no epoch concerns it: what is copied is judged by
    /// the recipient, against the log.
    Clone(NodeId),
}

/// Counts a session until it is dropped, which comes after its last write.
struct Entered {
    sessions: Arc<Sessions>,
    grant: Grant,
}

impl Entered {
    fn new(sessions: &Arc<Sessions>, grant: Grant) -> Self {
        match grant {
            Grant::Epoch(epoch) => count_in(&sessions.open, epoch),
            Grant::Reads => sessions.reading.send_modify(|count| *count += 1),
            Grant::Clone(_) => {}
        }
        Self {
            sessions: Arc::clone(sessions),
            grant,
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        match self.grant {
            Grant::Epoch(epoch) => count_out(&self.sessions.open, epoch),
            Grant::Reads => self.sessions.reading.send_modify(|count| *count -= 1),
            Grant::Clone(_) => {}
        }
    }
}

/// Keeps new sessions of its epoch out until it is dropped, which comes when the server's session is
/// over, or was waited for long enough.
struct Left {
    sessions: Arc<Sessions>,
    epoch: Epoch,
}

impl Left {
    fn new(sessions: &Arc<Sessions>, epoch: Epoch) -> Self {
        count_in(&sessions.left, epoch);
        Self {
            sessions: Arc::clone(sessions),
            epoch,
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        count_out(&self.sessions.left, self.epoch);
    }
}

impl<N: Net, R: RoleWatch> Gate<N, R> {
    #[must_use]
    pub fn new(parts: GateParts<N, R>) -> (Self, GateHandle) {
        let sessions = Arc::new(Sessions {
            open: watch::Sender::default(),
            reading: watch::Sender::default(),
            held: watch::Sender::default(),
            left: watch::Sender::default(),
            fit_for_reads: watch::Sender::new(parts.role.may_serve_reads()),
        });
        let (to_gate, from_here) = mpsc::channel(CONNECTING_MAX);
        let handle = GateHandle {
            sessions: Arc::clone(&sessions),
            to_gate,
            serving: parts.role.serving(),
        };
        let gate = Self {
            metrics: parts.metrics.port("gate"),
            parts: Arc::new(parts),
            sessions,
            from_here,
        };
        (gate, handle)
    }

    /// Serves until dropped, which ends every session.
    pub async fn run(mut self, listener: Listener) {
        let (_, none) = mpsc::channel(1);
        let mut from_here = std::mem::replace(&mut self.from_here, none);
        let from_here = stream::poll_fn(move |cx| from_here.poll_recv(cx).map(|io| io.map(Ok)));
        // Without anyone who could connect from here the gate serves on.
        let from_here = Box::pin(from_here.chain(stream::pending()));
        let gate = Arc::new(self);
        let serve = |incoming, tls: Option<Tls>| {
            let gate = &gate;
            serve_each(incoming, "gate", move |io| {
                let (gate, tls) = (Arc::clone(gate), tls.clone());
                async move { gate.session(io, tls).await }
            })
        };
        let sessions = serve(listener.incoming, gate.parts.tls.clone());
        let sessions_from_here = serve(from_here, None);
        tokio::select! {
            () = sessions => {}
            () = sessions_from_here => {}
            () = gate.watch_reads() => {}
        }
    }

    async fn watch_reads(&self) {
        loop {
            self.sessions
                .note_fitness(self.parts.role.may_serve_reads());
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn session(&self, io: BoxIo, tls: Option<Tls>) {
        let greeted = timeout(HANDSHAKE_MAX, self.greet(io, tls)).await;
        let Ok(Some((mut client, hello))) = greeted else {
            self.metrics.refused("handshake");
            return;
        };
        let refusal = match self.admit(&hello).await {
            Ok(entered) => match self.serve(client, entered).await {
                Ok(()) => return,
                Err((returned, refusal)) => {
                    client = returned;
                    refusal
                }
            },
            Err(refusal) => refusal,
        };
        self.metrics.refused(refusal.reason.label());
        let _ = timeout(HANDSHAKE_MAX, async {
            Answer::Refused(refusal).write(&mut client).await?;
            client.shutdown().await
        })
        .await;
    }

    /// TLS and the hello; none for a stranger, who is told nothing.
    async fn greet(&self, io: BoxIo, tls: Option<Tls>) -> Option<(BoxIo, Hello)> {
        let (mut client, certificate) = match tls {
            Some(tls) => match tls.accept(io).await {
                Ok((client, certificate)) => (client, Some(certificate)),
                Err(error) => {
                    tracing::info!(%error, "refused a connection to the gate: TLS");
                    return None;
                }
            },
            None => (io, None),
        };
        let hello = match Hello::read(&mut client).await {
            Ok(hello) => hello,
            Err(error) => {
                tracing::info!(%error, "refused a connection to the gate");
                return None;
            }
        };
        if certificate.is_some_and(|certificate| !certificate.is_node(hello.from)) {
            tracing::info!(from = %hello.from, "refused a connection to the gate: the certificate is another node's");
            return None;
        }
        Some((client, hello))
    }

    /// Whether and under what this connection may be served; waits as long as the hello says.
    async fn admit(&self, hello: &Hello) -> Result<Entered, Refusal> {
        let node = self.parts.node;
        let refuse = |reason, text: String| Err(Refusal { reason, text });
        let cluster = self.parts.role.view().borrow().cluster;
        if cluster != Some(hello.cluster) {
            let text = format!("node {node} is not of cluster {}", hello.cluster);
            return refuse(RefusalReason::WrongCluster, text);
        }
        if hello.to != node {
            let text = format!("this is node {node}, not node {}", hello.to);
            return refuse(RefusalReason::WrongNode, text);
        }
        if !(self.parts.is_member)(hello.from) {
            let text = format!("node {} is not a member of the cluster", hello.from);
            return refuse(RefusalReason::NotAMember, text);
        }
        let wait = Duration::from_millis(hello.wait_ms.into()).min(WAIT_MAX);
        match timeout(wait, self.granted(hello)).await {
            Ok(entered) => Ok(entered),
            Err(_) => {
                let from = hello.from;
                let waits = self.parts.role.serving().borrow().is_some();
                let text = match hello.purpose {
                    Purpose::ReadWrite if waits && !self.sessions.left.borrow().is_empty() => {
                        format!(
                            "node {node} waits for commits of sessions that were lost with its \
                             lease"
                        )
                    }
                    Purpose::ReadWrite => format!("node {node} is not a primary with a lease"),
                    Purpose::ReadOnly => {
                        format!("node {node} is neither a fit replica nor a primary with a lease")
                    }
                    Purpose::Clone => {
                        format!("no permit is open by which node {from} may clone node {node}")
                    }
                };
                refuse(RefusalReason::NotServing, text)
            }
        }
    }

    async fn granted(&self, hello: &Hello) -> Entered {
        let purpose = hello.purpose;
        if purpose == Purpose::Clone {
            while !(self.parts.may_clone)(hello.from) {
                sleep(LOOK_AGAIN).await;
            }
            return Entered::new(&self.sessions, Grant::Clone(hello.from));
        }
        let role = &self.parts.role;
        let mut serving = role.serving();
        let mut held = self.sessions.held.subscribe();
        let mut left = self.sessions.left.subscribe();
        loop {
            if purpose == Purpose::ReadOnly && role.may_serve_reads() {
                self.sessions.note_fitness(true);
                return Entered::new(&self.sessions, Grant::Reads);
            }
            let held_epoch = *held.borrow_and_update();
            let served = serving
                .borrow_and_update()
                .filter(|epoch| Some(*epoch) != held_epoch);
            if let Some(epoch) = served {
                // Counted first: whoever closes the gate after the second look waits for us.
                let entered = Entered::new(&self.sessions, Grant::Epoch(epoch));
                let still = *serving.borrow_and_update() == Some(epoch);
                if still && role.may_serve(epoch, self.parts.net.boot_time()) {
                    // After the lease was seen: who lost a session with it was counted before.
                    let obeys = self.parts.left_out != Some(Rule::LostSessionsEndFirst);
                    if !(obeys && left.borrow_and_update().contains_key(&epoch)) {
                        return entered;
                    }
                }
            }
            tokio::select! {
                _ = serving.changed() => {}
                _ = held.changed() => {}
                _ = left.changed() => {}
                () = sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// The session itself. Gives the client back if mysqld cannot be reached.
    async fn serve(&self, mut client: BoxIo, entered: Entered) -> Result<(), (BoxIo, Refusal)> {
        let parts = &self.parts;
        let grant = entered.grant;
        let mut checked = Checked {
            role: &parts.role,
            net: &parts.net,
            may_clone: &parts.may_clone,
            grant,
            metrics: &self.metrics,
            greeting: Greeting::default(),
            next_look: None,
        };
        let mut server = None;
        let session = async {
            let connected = timeout(CONNECT_MAX, parts.net.connect(&parts.server)).await;
            let server = match connected {
                Ok(Ok(connected)) => server.insert(connected),
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err("no answer".to_owned()),
            };
            let epoch = match grant {
                Grant::Epoch(epoch) => Some(epoch),
                Grant::Reads | Grant::Clone(_) => None,
            };
            let open = Answer::Open { epoch };
            if open.write(&mut client).await.is_err() {
                return Ok(End::ClientClosed);
            }
            let _open = self.metrics.open();
            let end = pump(&mut client, server, &mut checked).await;
            if matches!(end, End::ServerClosed) {
                let _ = timeout(CONNECT_MAX, client.shutdown()).await;
            }
            Ok(end)
        };
        let mut left = None;
        let ended = tokio::select! {
            biased;
            by_lease = self.revoked(grant) => {
                left = by_lease;
                Ok(End::Barred)
            }
            ended = session => ended,
        };
        match ended {
            Ok(end) => {
                self.metrics.closed(match end {
                    End::ClientClosed => "client",
                    End::ServerClosed => "server",
                    End::Barred => "fenced",
                });
                // In this order: no longer counted means closed.
                drop(client);
                drop(entered);
                if let (Some(left), Some(server)) = (left, server) {
                    self.see_end(left, server, checked.greeting.session_id())
                        .await;
                }
                Ok(())
            }
            Err(why) => {
                let text = format!("the server of node {} is down: {why}", parts.node);
                let reason = RefusalReason::ServerDown;
                Err((client, Refusal { reason, text }))
            }
        }
    }

    /// Resolves when the grant has ended. With what keeps others out, if only its lease did.
    async fn revoked(&self, grant: Grant) -> Option<Left> {
        // A sender that is gone will never grant anything again.
        match grant {
            Grant::Epoch(epoch) => {
                let mut opened = self.parts.role.opened();
                tokio::select! {
                    _ = opened.wait_for(|opened| *opened != Some(epoch)) => None,
                    left = self.lease_stays_away(epoch) => Some(left),
                }
            }
            Grant::Reads => {
                let mut fit = self.sessions.fit_for_reads.subscribe();
                let _ = fit.wait_for(|fit| !fit).await;
                None
            }
            Grant::Clone(from) => {
                while (self.parts.may_clone)(from) {
                    sleep(LOOK_AGAIN).await;
                }
                None
            }
        }
    }

    /// Resolves when the epoch's lease ended and did not come back soon.
    async fn lease_stays_away(&self, epoch: Epoch) -> Left {
        let mut serving = self.parts.role.serving();
        loop {
            let _ = serving.wait_for(|served| *served != Some(epoch)).await;
            let back = serving.wait_for(|served| *served == Some(epoch));
            if !matches!(timeout(LEASE_BACK_MAX, back).await, Ok(Ok(_))) {
                // Counted before the last look: whoever finds the lease back later finds this too.
                let left = Left::new(&self.sessions, epoch);
                if *serving.borrow() != Some(epoch) {
                    return left;
                }
            }
        }
    }

    /// Stops what a session of mysqld does whose client is gone, and waits until it is over or can
    /// commit nothing any more. A commit that waits for its ACK ends with that.
    async fn see_end(&self, left: Left, mut server: BoxIo, id: Option<u32>) {
        let role = &self.parts.role;
        let (mut opened, mut serving) = (role.opened(), role.serving());
        let over = async {
            server.shutdown().await?;
            tokio::io::copy(&mut server, &mut tokio::io::sink()).await
        };
        let sessions = &self.parts.server_sessions;
        // Again and again: it may have been between two statements.
        let stopping = async {
            // One that was not greeted yet does nothing.
            let Some(id) = id else {
                return std::future::pending().await;
            };
            loop {
                sleep(ENDS_ITSELF).await;
                sessions.stop_statement(id).await;
            }
        };
        let powerless = async {
            let _ = serving.wait_for(|served| *served == Some(left.epoch)).await;
            sleep(LEFT_MAX).await;
            while let Some(id) = id
                && sessions.may_commit(id).await
            {
                sleep(LOOK_AGAIN).await;
            }
        };
        tokio::select! {
            _ = over => {}
            // Nobody begins under this epoch any more.
            _ = opened.wait_for(|opened| *opened != Some(left.epoch)) => {}
            () = stopping => {}
            () = powerless => tracing::info!(
                epoch = %left.epoch,
                "a session whose client lost it with the lease is still being ended by mysqld"
            ),
        }
    }
}

/// Asks for every chunk of a client, and counts.
struct Checked<'a, N, R> {
    role: &'a R,
    net: &'a N,
    may_clone: &'a MayClone,
    grant: Grant,
    metrics: &'a PortMetrics,
    greeting: Greeting,
    /// While the lease is gone and the client's bytes are held: the next look. Whoever revokes the
    /// grant ends that.
    next_look: Option<Pin<Box<Sleep>>>,
}

impl<N: Net, R: RoleWatch> Watch for Checked<'_, N, R> {
    fn poll_pass(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let epoch = match self.grant {
            Grant::Epoch(epoch) => epoch,
            Grant::Reads => return Poll::Ready(self.role.may_serve_reads()),
            Grant::Clone(from) => return Poll::Ready((self.may_clone)(from)),
        };
        while !self.role.may_serve(epoch, self.net.boot_time()) {
            let look = self
                .next_look
                .get_or_insert_with(|| Box::pin(sleep(LEASE_BACK_LOOK)));
            ready!(look.as_mut().poll(cx));
            look.as_mut().reset(Instant::now() + LEASE_BACK_LOOK);
        }
        self.next_look = None;
        Poll::Ready(true)
    }

    fn passed_to_server(&mut self, bytes: &[u8]) {
        self.metrics.to_server.inc_by(bytes.len() as u64);
    }

    fn passed_to_client(&mut self, bytes: &[u8]) {
        self.greeting.server_sent(bytes);
        self.metrics.to_client.inc_by(bytes.len() as u64);
    }
}

#[cfg(test)]
mod tests;
