//! Transactions that the own server has beyond the accepted set, and that change nothing.

use std::sync::{Arc, Mutex, PoisonError};

use quorate_mysqld::{Host, RepairError, inert_groups};
use quorate_types::GtidSet;

/// What was found out about the server's own transactions, so that its binlog is read only when
/// there is something new. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnGroups {
    judged: Arc<Mutex<Judged>>,
}

#[derive(Debug, Default)]
struct Judged {
    inert: GtidSet,
    errant: GtidSet,
}

impl OwnGroups {
    /// Another data folder, or one that was cut: nothing is known of it.
    pub(crate) fn forget(&self) {
        self.with(|judged| *judged = Judged::default());
    }

    pub(crate) fn note_inert(&self, inert: &GtidSet) {
        self.with(|judged| judged.inert.union(inert));
    }

    /// Those that a feed must not hold against the server.
    pub(crate) fn inert(&self) -> GtidSet {
        self.with(|judged| judged.inert.clone())
    }

    /// The errant ones among transactions that the server executed and nobody accepted.
    pub(crate) async fn errant<H: Host>(
        &self,
        host: &H,
        more: &GtidSet,
    ) -> Result<GtidSet, RepairError> {
        let unknown = self.with(|judged| more.difference(&judged.inert).difference(&judged.errant));
        if !unknown.is_empty() {
            let inert = inert_groups(host, unknown.clone()).await?;
            if !inert.is_empty() {
                tracing::info!(%inert, "the server has transactions of its own that change nothing");
            }
            self.with(|judged| {
                judged.errant.union(&unknown.difference(&inert));
                judged.inert.union(&inert);
            });
        }
        Ok(self.with(|judged| more.difference(&judged.inert)))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Judged) -> T) -> T {
        work(&mut self.judged.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
