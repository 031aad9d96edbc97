//! What the log means: the state machine that every node runs over the same entries.
//!
//! Pure and total: the same state and entry give the same outcome on every node, whatever the
//! entry holds. The rules change only with a committed apply level, see [`State::understands`].

mod codec;
mod permit;
mod record;
mod snapshot;
mod state;

pub use codec::CodecError;
pub use permit::Permits;
pub use record::{AcceptedItem, AcceptedRecord, Place};
pub use snapshot::{Snapshot, SnapshotRecord};
pub use state::{ACCEPT_ERRANT_LEVEL, APPLY_LEVEL, State};

#[cfg(test)]
mod tests;
