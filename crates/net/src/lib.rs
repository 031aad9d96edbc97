//! The network and the clock as the rest of Quorate sees them: production uses tokio's sockets and
//! the kernel's clock, the simulation its own.
//!
//! # Invariants
//! - No other crate names `tokio::net` or reads a clock of the operating system.
//! - With [`Tls`], both ends of a connection have proved that they hold a certificate of the
//!   cluster's authority before a byte of theirs is read.
//! - A connection of [`TokioNet`] has `TCP_NODELAY` set: an ACK leaves in one write, at once.

mod endpoint;
mod io;
mod tls;
mod tokio_net;
mod unix_io;

pub use endpoint::Endpoint;
pub use io::{BoxIo, Io};
pub use tls::{
    ExposedListener, PeerCertificate, Tls, TlsError, node_server_name, require_tls_or_loopback,
};
pub use tokio_net::TokioNet;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;

/// Connections as they arrive. An item's error concerns that connection only.
pub type Incoming = Pin<Box<dyn Stream<Item = std::io::Result<BoxIo>> + Send>>;

/// A bound listener; dropping `incoming` frees the port.
pub struct Listener {
    /// What was bound, with the port that the system chose if port 0 was asked for.
    pub local: Endpoint,
    pub incoming: Incoming,
}

/// A machine's network and clock.
pub trait Net: Clone + Send + Sync + 'static {
    /// Opens a stream. It has no time limit of its own: the caller sets one.
    fn connect(&self, to: &Endpoint) -> impl Future<Output = std::io::Result<BoxIo>> + Send;

    /// Binds at once; a port in use is an error here, not later.
    fn listen(&self, at: &Endpoint) -> impl Future<Output = std::io::Result<Listener>> + Send;

    /// Time since the machine started, suspended time included (`CLOCK_BOOTTIME`).
    ///
    /// Leases are judged by it: the monotonic clock stops while a machine is suspended, and a
    /// resumed leader would believe in a lease that ended (DESIGN 4, A16).
    fn boot_time(&self) -> Duration;
}
