use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use quorate_types::{ClusterView, Epoch};
use tokio::sync::watch;

/// What the ports know of the cluster, and the one question that decides what passes.
pub trait RoleWatch: Clone + Send + Sync + 'static {
    fn view(&self) -> watch::Receiver<Arc<ClusterView>>;

    /// The epoch for which this node's gate was opened, until it is closed by order.
    fn opened(&self) -> watch::Receiver<Option<Epoch>>;

    /// The epoch in which this node's gate is open for reading and writing, none while closed.
    /// It goes to none at once when the lease ends or the gate is closed by order.
    fn serving(&self) -> watch::Receiver<Option<Epoch>>;

    /// Whether at `now` (the gate's own `Net::boot_time`) this node is primary under `epoch` with
    /// a lease that a quorum confirmed recently enough. Cheap enough to be asked for every chunk.
    /// Who is told no finds that [`Self::serving`] has left the epoch.
    fn may_serve(&self, epoch: Epoch, now: Duration) -> bool;

    /// Whether this node's mysqld may serve read-only sessions: a healthy replica that is a member,
    /// not errant, and heard a leader lately.
    fn may_serve_reads(&self) -> bool;
}

/// The sessions of this node's mysqld, by the ids of their greetings.
pub trait ServerSessions: Send + Sync + 'static {
    /// Stops what a session executes, if it does: that is rolled back, except for a commit that is in
    /// the binlog or on its way there. Resolves when the server was told so; until then it tries. The
    /// session stays, so that the end of its connection is the end of all that it did.
    fn stop_statement(&self, id: u32) -> BoxFuture<'_, ()>;

    /// Whether a session has a transaction that is not being rolled back. Also true if
    /// the server does not say.
    fn may_commit(&self, id: u32) -> BoxFuture<'_, bool>;
}
