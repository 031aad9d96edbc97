//! One node put together: configuration, wiring, admin service, HTTP, and the jobs that carry out
//! what role control decides. Generic over network, server and disk, so that the simulation runs it.
//!
//! # Invariants
//! - A configuration that loaded was checked as a whole: nothing later finds a port that may not be
//!   open to the network, or timings that cannot elect a leader.
//! - Nothing here prints a [`quorate_types::Secret`].
//! - mysqld is changed by jobs only, one at a time, and never before the gate is closed; what is
//!   beside them looks, or ends the writes of a server that must be cloned.
//! - `super_read_only` goes off only after the marker file names the epoch, synced.

mod accepting;
mod adapters;
mod addresses;
mod admin;
mod checking;
mod cloning;
mod cluster_id;
pub mod config;
mod driver;
mod errant;
mod existing;
mod export;
mod flow;
mod grpc;
mod guard;
mod holding;
pub mod http;
mod identity;
mod inert;
mod jobs;
mod joining;
mod kept_cuts;
mod lost_sessions;
mod member_changes;
mod membership;
mod node;
mod part;
mod parts;
mod peers;
mod permit_client;
mod preflight;
mod probe;
mod recent;
mod recover;
mod retention;
mod roles;
mod series;
mod server;
mod status;
pub mod telemetry;
mod verify;
mod waiting;
mod watchers;
mod wiring;

pub use cluster_id::BootstrapError;
pub use existing::ExistingError;
pub use identity::{Identity, IdentityError};
pub use node::{Node, NodeFailure, StartError};
pub use parts::{OpenLog, Parts};
pub use peers::{AdminConnection, admin_client};
pub use preflight::preflight;
pub use probe::Probe;
pub use quorate_replication::CaptureOptions;
pub use recover::{ForceError, Forced, force_new_cluster};
