//! What a node shows over HTTP: metrics, health, status, and a dashboard for people.

mod client;
mod serve;
mod status;
#[cfg(test)]
mod tests;

pub use client::{FetchError, fetch_status};
pub(crate) use serve::serve_on;
pub use serve::{METRICS_CONTENT_TYPE, StatusSource, router, serve};
pub use status::{
    Committed, HolderJson, LogJson, NodeJson, RaftJson, RecentEvent, RetentionJson, StatusJson,
};
