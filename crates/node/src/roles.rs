//! What the ports ask: who is primary, and may this chunk pass.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_consensus::{Consensus, Lease};
use quorate_net::Net;
use quorate_proxy::RoleWatch;
use quorate_types::{ClusterView, Epoch, Rule};
use tokio::sync::watch;

/// How often a lease that ended is looked for. The gate itself asks for every chunk; this only decides
/// how soon idle connections are closed, and new ones let in again.
const LEASE_LOOK: Duration = Duration::from_millis(10);
/// The longest between two looks at a lease that holds: after a suspension it is over sooner than a
/// timer says.
const LEASE_LOOK_MAX: Duration = Duration::from_millis(50);

/// The node's answers to its ports. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Roles {
    consensus: Consensus,
    lease: Arc<Lease>,
    view: watch::Sender<Arc<ClusterView>>,
    /// The epoch for which role control opened the gate.
    open: watch::Sender<Option<Epoch>>,
    /// The same while the lease holds.
    serving: watch::Sender<Option<Epoch>>,
    /// The epoch whose lease ended while the gate was open, and when that was seen.
    ended: Arc<Mutex<Option<(Epoch, Duration)>>>,
    reads: Arc<AtomicBool>,
    left_out: Option<Rule>,
}

impl Roles {
    pub(crate) fn new(consensus: Consensus, left_out: Option<Rule>) -> Self {
        Self {
            lease: consensus.lease(),
            consensus,
            view: watch::Sender::default(),
            open: watch::Sender::default(),
            serving: watch::Sender::default(),
            ended: Arc::default(),
            reads: Arc::default(),
            left_out,
        }
    }

    pub(crate) fn publish(&self, view: ClusterView) {
        self.view.send_if_modified(|known| {
            let changed = **known != view;
            if changed {
                *known = Arc::new(view);
            }
            changed
        });
    }

    pub(crate) fn set_reads(&self, fit: bool) {
        self.reads.store(fit, Ordering::Release);
    }

    pub(crate) fn open_gate(&self, epoch: Epoch, now: Duration) {
        self.open.send_replace(Some(epoch));
        self.look(now);
    }

    /// After this no chunk passes; the gate's own handle tells when the last write is done.
    pub(crate) fn close_gate(&self) {
        self.open.send_replace(None);
        self.serving.send_replace(None);
    }

    pub(crate) fn lease_holds(&self, now: Duration) -> bool {
        let view = self.consensus.view().borrow().clone();
        view.is_leader
            && view
                .leader
                .is_some_and(|leader| self.lease.is_valid(leader, now))
    }

    /// Closes what a lease that ended leaves open, and opens it again if the lease comes back.
    pub(crate) async fn watch_lease<N: Net>(self, net: N) {
        let mut open = self.open.subscribe();
        loop {
            let opened = *open.borrow_and_update();
            if let Some(epoch) = opened {
                let now = net.boot_time();
                self.look(now);
                let end = self.lease.valid_until(epoch.0.leader, now);
                let left = end.map_or(Duration::ZERO, |end| end.saturating_sub(now));
                tokio::time::sleep(match left {
                    Duration::ZERO => LEASE_LOOK,
                    left => left.min(LEASE_LOOK_MAX),
                })
                .await;
            } else if open.changed().await.is_err() {
                return;
            }
        }
    }

    /// With what tells a link that is down from a node, or this one, that has no time.
    fn say_that_it_ended(&self, now: Duration) {
        let answered = self.lease.answered();
        let silent_for: BTreeMap<_, _> = answered
            .into_iter()
            .map(|(node, at)| (node.0, now.saturating_sub(at)))
            .collect();
        tracing::warn!(
            ?silent_for,
            "the lease ended: this node's read-write sessions wait, and end if no majority answers soon"
        );
    }

    fn lets_pass(&self, epoch: Epoch, now: Duration) -> bool {
        self.lease.is_valid(epoch.0.leader, now) || self.left_out == Some(Rule::GateNeedsLease)
    }

    fn look(&self, now: Duration) {
        let (mut open, mut before, mut next) = (None, None, None);
        // Looked at together: an order to close must not be overtaken by a look begun before it.
        let changed = self.serving.send_if_modified(|serving| {
            open = *self.open.borrow();
            next = open.filter(|epoch| self.lets_pass(*epoch, now));
            before = std::mem::replace(serving, next);
            before != next
        });
        if !changed {
            return;
        }
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if next.is_none() && before == open {
            *ended = before.map(|epoch| (epoch, now));
            self.say_that_it_ended(now);
        } else if let Some((of, at)) = ended.take()
            && next == Some(of)
        {
            let after = now.saturating_sub(at);
            tracing::info!(?after, "the lease is back: this node serves again");
        }
    }
}

impl RoleWatch for Roles {
    fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.view.subscribe()
    }

    fn opened(&self) -> watch::Receiver<Option<Epoch>> {
        self.open.subscribe()
    }

    fn serving(&self) -> watch::Receiver<Option<Epoch>> {
        self.serving.subscribe()
    }

    fn may_serve(&self, epoch: Epoch, now: Duration) -> bool {
        let may = *self.open.borrow() == Some(epoch) && self.lets_pass(epoch, now);
        if !may {
            // Whoever sees the end first says so: the watcher may miss a moment.
            self.look(now);
        }
        may
    }

    fn may_serve_reads(&self) -> bool {
        self.reads.load(Ordering::Acquire)
    }
}
