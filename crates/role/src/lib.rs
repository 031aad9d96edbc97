//! What this node's mysqld should be: a pure state machine, inputs in, effects out.
//!
//! The machine knows no socket, no clock and no task. [`Machine::step`] takes what was observed and
//! the time, and answers with what to do; whoever drives it carries the effects out and reports
//! back. Leases are not its business: the gate judges them for every chunk that passes.
//!
//! # Invariants
//! - The gate is open only in `Primary` and `Draining`, under the epoch that is current in the log,
//!   while this node leads as the leader that began it; it never opens again in a term in which
//!   leadership was given away (A18).
//! - At most one job and one `SetPrimary` are under way.
//! - Whatever ends an epoch, the server is demoted or killed and repaired before it is a replica or
//!   a primary again, also when this node goes on leading (A1).
//! - `SetPrimary{self}` is proposed only for a healthy replica, after an entry of the same leader
//!   ended the epoch before it.
//! - Deliberately absent: a server that was primary is never promoted again without a demotion or a
//!   repair between.

mod input;
mod lead;
mod limit;
mod machine;

pub use input::{
    Applied, Candidate, Defect, Effect, Input, Job, JobId, JobResult, Proposal, Series,
    ServerEvent, Tick, Timing,
};
pub use machine::{Machine, Phase};

#[cfg(test)]
mod tests;
