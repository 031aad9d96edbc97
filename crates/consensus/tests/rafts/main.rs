//! Three Rafts and more, over real sockets. One program: each would be built with all of openraft.

#[path = "../harness/mod.rs"]
mod harness;

mod cluster;
mod members;
mod promises;
mod purge;
