//! One node put together: configuration, wiring, and what it shows of itself over HTTP.
//!
//! # Invariants
//! - A configuration that loaded was checked as a whole: nothing later finds a port that may not be
//!   open to the network, or timings that cannot elect a leader.
//! - Nothing here prints a [`quorate_types::Secret`].

pub mod config;
pub mod http;
pub mod telemetry;
