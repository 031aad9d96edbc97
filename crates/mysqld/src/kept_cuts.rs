//! What repairs cut off is kept for a while.

use quorate_types::KeptCut;

use crate::host::{BinlogFiles, Host};

/// Removes the kept cuts of before `since_ms` (milliseconds since 1970), and lists the others,
/// oldest first.
///
/// # Errors
/// The folder's; what could not be removed is tried again next time.
pub async fn prune_kept_cuts<H: Host>(host: &H, since_ms: u64) -> std::io::Result<Vec<KeptCut>> {
    host.with_binlogs(move |binlogs| {
        let mut kept = binlogs.kept()?;
        for cut in kept.extract_if(.., |cut| cut.at_ms < since_ms) {
            binlogs.forget_kept(&cut.name)?;
            tracing::info!(cut = cut.name, "removed what a repair cut off long ago");
        }
        kept.sort();
        Ok(kept)
    })
    .await
}
