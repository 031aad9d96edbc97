//! Waiting for a time that may never come.

use tokio::time::{Instant, sleep_until};

/// At that time; never if there is none.
pub(crate) async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
