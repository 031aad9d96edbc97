//! The ports for applications (read-write, read-only), and the gate: the only way from a proxy to a
//! node's mysqld.
//!
//! # Invariants
//! - Bytes pass untouched: nothing here needs a password or ends a client's TLS.
//! - The gate asks [`RoleWatch::may_serve`] for every chunk after it was received from the client
//!   and before it is written to mysqld (DESIGN 6, A17, A19).
//! - A proxy never connects to another node's mysqld, a gate never forwards to another gate.

mod contract;

pub use contract::RoleWatch;
