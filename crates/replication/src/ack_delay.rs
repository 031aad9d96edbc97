use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

pub const ACK_DELAY: &str = "quorate_ack_delay";

/// How long capture holds an ACK back after the transaction was accepted; nothing by default. It
/// slows a primary down that its replicas cannot follow. All clones are one.
#[derive(Clone, Debug, Default)]
pub struct AckDelay(Gauge<f64, AtomicU64>);

impl AckDelay {
    /// From the next ACK on; one that is held back already comes when it was to come.
    pub fn set(&self, delay: Duration) {
        self.0.set(delay.as_secs_f64());
    }

    #[must_use]
    pub fn get(&self) -> Duration {
        Duration::try_from_secs_f64(self.0.get()).unwrap_or_default()
    }

    pub fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            ACK_DELAY,
            "How long each commit is held back since the replicas are behind",
            Unit::Seconds,
            self.0.clone(),
        );
    }
}
