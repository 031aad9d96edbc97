//! What the nodes' Rafts say to each other, over gRPC.

mod client;
mod dialer;
mod identity;
mod piggyback;
mod server;

pub(crate) use client::{Network, ReadIndexAnswer};
pub use dialer::{Dial, SecureConnect};
pub(crate) use dialer::{Dialer, Line, MESSAGE_BYTES_MAX};
pub(crate) use identity::Peers;
pub use identity::{Identity, START_IDS, StartIds};
pub use server::Service;
