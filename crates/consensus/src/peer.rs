//! What the nodes' Rafts say to each other, over gRPC.

mod client;
mod dialer;
mod identity;
mod server;

pub(crate) use client::{Network, ReadIndexAnswer};
pub use dialer::{Dial, SecureConnect};
pub(crate) use dialer::{Dialer, Line, MESSAGE_BYTES_MAX};
pub use identity::Identity;
pub(crate) use identity::Peers;
pub use server::Service;
