use std::time::Duration;

use serde::Deserialize;

/// How much of the log is kept, the same on all nodes: the one that leads goes by its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Above so many bytes of entries the oldest go, once enough servers have executed them; 0 is
    /// no limit. Default: 4294967296 (4 GiB).
    pub log_bytes: u64,
    /// What is older goes too; 0 is no limit. Default: 604800 (7 days).
    #[serde(rename = "log_age_s", deserialize_with = "seconds")]
    pub log_age: Duration,
    /// At 80 % of so many bytes of entries the primary takes no writes, below 70 % it does again.
    /// A transaction has at most an eighth of it. The files take up to three times as much.
    /// Default: 17179869184 (16 GiB).
    pub budget_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            log_bytes: 4 << 30,
            log_age: Duration::from_secs(7 * 24 * 3600),
            budget_bytes: 16 << 30,
        }
    }
}

pub(super) fn seconds<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    u64::deserialize(input).map(Duration::from_secs)
}

/// Two transactions in one entry each, and what stands beside them.
const LOG_BYTES_MIN: u64 = 1 << 20;
/// An eighth of it is the largest transaction.
const BUDGET_BYTES_MIN: u64 = 8 << 20;

impl Retention {
    /// At so many bytes of entries writes stop.
    #[must_use]
    pub fn full_bytes(&self) -> u64 {
        self.budget_bytes / 5 * 4
    }

    /// Below so many they go on.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        self.budget_bytes / 10 * 7
    }

    /// The largest transaction that the servers take.
    #[must_use]
    pub fn transaction_bytes_max(&self) -> u64 {
        // The server wants a multiple of its block size.
        self.budget_bytes / 8 / 4096 * 4096
    }

    /// What is wrong with it, by key.
    pub(super) fn findings(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if self.budget_bytes < BUDGET_BYTES_MIN {
            let message = format!(
                "is {}, less than 8 MiB: a transaction has at most an eighth of it",
                self.budget_bytes
            );
            found.push(("retention.budget_bytes", message));
        }
        if (1..LOG_BYTES_MIN).contains(&self.log_bytes) {
            let message = format!("is {}, less than 1 MiB, two log entries", self.log_bytes);
            found.push(("retention.log_bytes", message));
        }
        if self.log_bytes > self.budget_bytes / 2 {
            let message = format!(
                "is {}, more than half of retention.budget_bytes ({}): writes would stop before \
                 much is purged",
                self.log_bytes, self.budget_bytes
            );
            found.push(("retention.log_bytes", message));
        }
        if self.log_bytes == 0 && self.log_age.is_zero() {
            let message = "is 0, as is retention.log_age_s: nothing would ever be purged, and at \
                           80 % of the budget writes would stop for good";
            found.push(("retention.log_bytes", message.to_owned()));
        }
        found
    }
}
