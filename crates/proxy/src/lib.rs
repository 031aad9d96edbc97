//! The ports for applications (read-write, read-only), and the gate: the only way from a proxy to a
//! node's mysqld.
//!
//! # Invariants
//! - Bytes pass untouched: nothing here needs a password or ends a client's TLS.
//! - The gate asks [`RoleWatch::may_serve`] for every chunk after it was received from the client
//!   and before it is written to mysqld (DESIGN 6, A17, A19).
//! - A session that is no longer counted by [`GateHandle::closed`] writes nothing to its client any
//!   more (A2).
//! - A client is told why its connection ends wherever its protocol's state allows.
//! - A proxy never connects to another node's mysqld, a gate never forwards to another gate.

mod accept;
mod clone_way;
mod contract;
mod dial;
mod error_packet;
mod framing;
mod gate;
mod gate_protocol;
mod greeting;
mod hold;
mod metrics;
mod proxy;
mod pump;
mod read_only;
mod read_write;
mod route;

pub use clone_way::CloneWay;
pub use contract::{RoleWatch, ServerSessions};
pub use dial::GateDialer;
pub use gate::{Gate, GateHandle, GateParts, IsMember, MayClone};
pub use metrics::{BYTES_TO_CLIENT, BYTES_TO_SERVER, CLOSES, Metrics, REFUSALS, SESSIONS};
pub use proxy::{Proxy, ProxyHandle, ProxyParts, ProxySettings};

#[cfg(test)]
mod testing;
