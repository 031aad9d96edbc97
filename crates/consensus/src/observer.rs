//! Tasks beside openraft: they turn its metrics into our view, keep the lease's leader and
//! voters, and let the node stand for election once it sat out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::WatchReceiver;
use quorate_types::NodeId;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::consensus::Raft;
use crate::error::FatalError;
use crate::lease::Lease;
use crate::log::WriteError;
use crate::types::{RaftMetrics, RaftServerMetrics, TypeConfig};
use crate::view::RaftView;

/// How late a view may be about the log's progress. A busy log moves thousands of times a second,
/// and each view wakes other threads.
const PROGRESS: Duration = Duration::from_millis(25);

type View = watch::Receiver<Arc<RaftView>>;
type Fatal = watch::Receiver<Option<FatalError>>;

/// Follows openraft until it is gone, which is fatal unless it was asked to stop.
pub(crate) fn spawn(
    raft: &Raft,
    lease: Arc<Lease>,
    mut failed: watch::Receiver<Option<WriteError>>,
    asked_to_stop: Arc<AtomicBool>,
) -> (View, Fatal) {
    let mut metrics = raft.metrics();
    let mut server = raft.server_metrics();
    let first = observe(&metrics.borrow_watched(), &lease);
    let (to_view, view) = watch::channel(Arc::new(first));
    let (to_fatal, fatal) = watch::channel(None);
    let to_fatal = Arc::new(to_fatal);
    let log_fatal = to_fatal.clone();
    let log_failed = failed.clone();
    tokio::spawn(async move {
        if let Ok(error) = failed.wait_for(Option::is_some).await {
            log_fatal.send_replace(error.clone().map(FatalError::Log));
        }
    });
    tokio::spawn(async move {
        while changed(&mut metrics, &mut server).await {
            let metrics = metrics.borrow_watched().clone();
            let view = observe(&metrics, &lease);
            to_view.send_if_modified(|old| {
                let differs = **old != view;
                if differs {
                    *old = Arc::new(view);
                }
                differs
            });
        }
        lease.set_leader(None);
        if asked_to_stop.load(Ordering::Acquire) {
            return;
        }
        // The log tells of its failure before openraft can end by it.
        let of_the_log = log_failed.borrow().clone().map(FatalError::Log);
        // Here and not above: openraft lets go with its last word, so that is no change that is seen.
        let why = || match &metrics.borrow_watched().running_state {
            Err(error) => error.to_string(),
            Ok(()) => "its task panicked".to_owned(),
        };
        to_fatal.send_replace(of_the_log.or_else(|| Some(FatalError::Raft(why()))));
    });
    (view, fatal)
}

/// Waits for the next view, which is soon for what a role follows from, and not for each entry for
/// the rest; false when openraft is gone.
///
/// openraft tells of its server a moment before of everything: what is missed so comes with the
/// rest.
async fn changed(
    metrics: &mut WatchReceiverOf<TypeConfig, RaftMetrics>,
    server: &mut WatchReceiverOf<TypeConfig, RaftServerMetrics>,
) -> bool {
    tokio::select! {
        biased;
        alive = server.changed() => alive.is_ok(),
        alive = metrics.changed() => {
            if alive.is_err() {
                return false;
            }
            tokio::select! {
                biased;
                alive = server.changed() => alive.is_ok(),
                () = tokio::time::sleep(PROGRESS) => true,
            }
        }
    }
}

fn observe(metrics: &RaftMetrics, lease: &Lease) -> RaftView {
    let view = RaftView::new(metrics);
    let configs = metrics.membership_config.get_joint_config().iter();
    lease.set_voters(
        configs
            .map(|ids| ids.iter().copied().map(NodeId).collect())
            .collect(),
    );
    lease.set_leader(view.leader.filter(|_| view.is_leader));
    view
}

/// Applies what is sent here to openraft, but not before the node sat out.
pub(crate) fn spawn_elections(
    raft: Raft,
    sits_out_until: Option<Instant>,
) -> Arc<watch::Sender<bool>> {
    let (sender, mut wanted) = watch::channel(true);
    tokio::spawn(async move {
        if let Some(until) = sits_out_until {
            tokio::time::sleep_until(until).await;
        }
        loop {
            let enabled = *wanted.borrow_and_update();
            raft.runtime_config().elect(enabled);
            if wanted.changed().await.is_err() {
                break;
            }
        }
    });
    Arc::new(sender)
}
