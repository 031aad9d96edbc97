//! A simulated MySQL server that speaks the real protocol: binlog of real events, semi-sync
//! waiting, recovery by the server's rules, an applier with lag, clone.
//!
//! What a real server does is in the tests of `tests/`, which run the same production code against
//! one; where this one differs it knows less SQL, never other rules.

pub(crate) mod binlog;
mod dump;
mod engine;
pub(crate) mod host;
pub(crate) mod machine;
pub(crate) mod process;
mod replica;
mod session;
mod statement;

pub(crate) use binlog::captured;
pub use engine::{Change, Engine};
pub use host::SimulatedHost;
pub use machine::{BrokenRules, Machine, Pace, Visible};
pub use process::Process;
pub(crate) use session::{APP_PASSWORD, APP_USER};
