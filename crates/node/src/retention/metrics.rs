use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use quorate_types::{LogIndex, LogState};

/// The first entry that is retained, and the last one.
const FIRST_INDEX: &str = "quorate_log_first_index";
const LAST_INDEX: &str = "quorate_log_last_index";
/// Up to where the log agreed to be purged.
const PURGED_INDEX: &str = "quorate_log_purged_index";
/// Bytes of the retained entries.
const RETAINED: &str = "quorate_log_retained";
/// Bytes that the log's files take.
const DISK: &str = "quorate_log_disk";
/// Bytes that their file system has left.
const FREE: &str = "quorate_log_free";
/// Near so many retained bytes writes stop.
const BUDGET: &str = "quorate_log_budget";
/// How old the first retained entry is at least.
const AGE: &str = "quorate_log_age";
/// 1 while the log is near its budget.
const FULL: &str = "quorate_log_full";

#[derive(Clone, Debug, Default)]
pub(crate) struct LogMetrics(Arc<Gauges>);

#[derive(Debug, Default)]
struct Gauges {
    first: Gauge<i64, AtomicI64>,
    last: Gauge<i64, AtomicI64>,
    purged: Gauge<i64, AtomicI64>,
    retained: Gauge<i64, AtomicI64>,
    disk: Gauge<i64, AtomicI64>,
    free: Gauge<i64, AtomicI64>,
    budget: Gauge<i64, AtomicI64>,
    age: Gauge<i64, AtomicI64>,
    full: Gauge<i64, AtomicI64>,
}

impl LogMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let gauges = &self.0;
        for (name, help, gauge) in [
            (FIRST_INDEX, "First retained entry", &gauges.first),
            (LAST_INDEX, "Last entry", &gauges.last),
            (PURGED_INDEX, "Agreed to be purged up to", &gauges.purged),
            (FULL, "Whether writes stop for want of room", &gauges.full),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, unit, gauge) in [
            (
                RETAINED,
                "Of retained entries",
                Unit::Bytes,
                &gauges.retained,
            ),
            (DISK, "Of the log's files", Unit::Bytes, &gauges.disk),
            (
                FREE,
                "Left on the file system of the log",
                Unit::Bytes,
                &gauges.free,
            ),
            (BUDGET, "Of entries, at most", Unit::Bytes, &gauges.budget),
            (AGE, "Of the first entry", Unit::Seconds, &gauges.age),
        ] {
            registry.register_with_unit(name, help, unit, gauge.clone());
        }
    }

    /// Nothing where that is not known, or the log is on no file system.
    pub(super) fn set_free(&self, bytes: Option<u64>) {
        if let Some(bytes) = bytes {
            self.0.free.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn set(&self, log: &LogState, purged: LogIndex) {
        let gauges = &self.0;
        for (gauge, value) in [
            (&gauges.first, log.first.0),
            (&gauges.last, log.last.0),
            (&gauges.purged, purged.0),
            (&gauges.retained, log.bytes),
            (&gauges.disk, log.disk_bytes),
            (&gauges.budget, log.budget_bytes),
            (&gauges.age, log.age_ms / 1000),
            (&gauges.full, log.is_full.into()),
        ] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}
