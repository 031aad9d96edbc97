use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A commit's stages are all measured from the moment when its last event was read here.
fn stage() -> Histogram {
    // 50 µs to 1.6 s.
    Histogram::new(exponential_buckets(50e-6, 2.0, 16))
}

/// What capture counts and measures.
#[derive(Debug)]
pub struct CaptureMetrics {
    pub transactions: Counter,
    pub bytes: Counter,
    pub refused: Counter,
    pub proposed: Histogram,
    pub accepted: Histogram,
    pub acknowledged: Histogram,
}

impl Default for CaptureMetrics {
    fn default() -> Self {
        Self {
            transactions: Counter::default(),
            bytes: Counter::default(),
            refused: Counter::default(),
            proposed: stage(),
            accepted: stage(),
            acknowledged: stage(),
        }
    }
}

pub const CAPTURED_TRANSACTIONS: &str = "quorate_captured_transactions";
pub const CAPTURED: &str = "quorate_captured";
pub const PROPOSALS_REFUSED: &str = "quorate_proposals_refused";
pub const COMMIT_PROPOSED: &str = "quorate_commit_proposed";
pub const COMMIT_ACCEPTED: &str = "quorate_commit_accepted";
pub const COMMIT_ACKNOWLEDGED: &str = "quorate_commit_acknowledged";

impl CaptureMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            CAPTURED_TRANSACTIONS,
            "Transactions read from the primary",
            self.transactions.clone(),
        );
        registry.register_with_unit(
            CAPTURED,
            "Events read from the primary",
            Unit::Bytes,
            self.bytes.clone(),
        );
        registry.register(
            PROPOSALS_REFUSED,
            "Times that proposals were refused and made again",
            self.refused.clone(),
        );
        let mut stage = |name, help: &str, histogram: &Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        };
        stage(
            COMMIT_PROPOSED,
            "From capture of a transaction to its proposal",
            &self.proposed,
        );
        stage(
            COMMIT_ACCEPTED,
            "From capture of a transaction to its acceptance",
            &self.accepted,
        );
        stage(
            COMMIT_ACKNOWLEDGED,
            "From capture of a transaction to its ACK, written",
            &self.acknowledged,
        );
    }
}

/// What the feed counts.
#[derive(Debug, Default)]
pub struct FeedMetrics {
    pub consumers: Gauge,
    pub transactions: Counter,
    pub bytes: Counter,
    pub refused: Counter,
}

pub const FEED_CONSUMERS: &str = "quorate_feed_consumers";
pub const FEED_TRANSACTIONS: &str = "quorate_feed_transactions";
pub const FEED: &str = "quorate_feed";
pub const FEED_REFUSED: &str = "quorate_feed_refused";

impl FeedMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            FEED_CONSUMERS,
            "Consumers that read the feed now",
            self.consumers.clone(),
        );
        registry.register(
            FEED_TRANSACTIONS,
            "Transactions sent to consumers",
            self.transactions.clone(),
        );
        registry.register_with_unit(
            FEED,
            "Events sent to consumers",
            Unit::Bytes,
            self.bytes.clone(),
        );
        registry.register(FEED_REFUSED, "Consumers turned away", self.refused.clone());
    }
}
