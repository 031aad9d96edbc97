//! What repairs cut off is listed in the status, and removed when it is old.

use std::sync::Arc;
use std::time::Duration;

use quorate_mysqld::{Host, prune_kept_cuts};
use quorate_types::KeptCut;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::server::Running;

/// Between two looks, if no server is started meanwhile: only a repair before a start cuts.
const LOOK: Duration = Duration::from_secs(600);

pub(crate) struct KeptCuts<H: Host> {
    pub(crate) host: H,
    pub(crate) running: watch::Receiver<Option<Running<H>>>,
    pub(crate) wall_clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub(crate) keep: Duration,
    pub(crate) kept: watch::Sender<Vec<KeptCut>>,
}

impl<H: Host> KeptCuts<H> {
    pub(crate) async fn run(mut self) {
        let keep_ms = u64::try_from(self.keep.as_millis()).unwrap_or(u64::MAX);
        loop {
            self.running.mark_unchanged();
            let since_ms = (self.wall_clock)().saturating_sub(keep_ms);
            match prune_kept_cuts(&self.host, since_ms).await {
                Ok(kept) => {
                    self.kept.send_if_modified(|known| {
                        let changed = *known != kept;
                        *known = kept;
                        changed
                    });
                }
                Err(error) => tracing::warn!(%error, "what repairs cut off cannot be looked at"),
            }
            if let Ok(Err(_)) = timeout(LOOK, self.running.changed()).await {
                return;
            }
        }
    }
}
