//! What this crate measures, registered in a registry of the node's own.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// From an entry's append in memory to its sync on this node's disk.
pub const LOG_SYNCED: &str = "quorate_log_synced";
/// From the proposal of an entry by this node to its commit.
pub const LOG_COMMITTED: &str = "quorate_log_committed";
/// From the proposal of an entry by this node to the outcome of `apply`.
pub const LOG_APPLIED: &str = "quorate_log_applied";
/// Writing and syncing one group.
pub const LOG_SYNC: &str = "quorate_log_sync";
/// Requests that one sync made durable.
pub const LOG_GROUP: &str = "quorate_log_group_requests";

/// The histograms of one node's log. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Histograms>);

#[derive(Debug)]
struct Histograms {
    synced: Histogram,
    committed: Histogram,
    applied: Histogram,
    sync: Histogram,
    group: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        // 50 us to 0.8 s: from a fast disk's sync to what a client would call an outage.
        let seconds = || Histogram::new(exponential_buckets(50e-6, 2.0, 15));
        Self(Arc::new(Histograms {
            synced: seconds(),
            committed: seconds(),
            applied: seconds(),
            sync: seconds(),
            group: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
        }))
    }
}

impl Metrics {
    /// Registers the histograms; the registry appends the unit to the names of the timings.
    pub fn register(&self, registry: &mut Registry) {
        let timings = [
            (
                LOG_SYNCED,
                "From append to sync on this node",
                &self.0.synced,
            ),
            (LOG_COMMITTED, "From proposal to commit", &self.0.committed),
            (LOG_APPLIED, "From proposal to outcome", &self.0.applied),
            (LOG_SYNC, "One write and sync of the log", &self.0.sync),
        ];
        for (name, help, histogram) in timings {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        registry.register(LOG_GROUP, "Requests per sync", self.0.group.clone());
    }

    pub(crate) fn on_synced(&self, after: Duration) {
        self.0.synced.observe(after.as_secs_f64());
    }

    pub(crate) fn on_committed(&self, after: Duration) {
        self.0.committed.observe(after.as_secs_f64());
    }

    pub(crate) fn on_applied(&self, after: Duration) {
        self.0.applied.observe(after.as_secs_f64());
    }

    pub(crate) fn on_group(&self, requests: usize, took: Duration) {
        self.0.sync.observe(took.as_secs_f64());
        self.0.group.observe(requests as f64);
    }
}
