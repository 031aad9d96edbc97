use std::io::Result;
use std::time::Duration;

use futures_util::stream;
use quorate_net::{BoxIo, Endpoint, Listener, Net};
use quorate_types::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turmoil::net::{TcpListener, TcpStream};

use crate::stall::{Stall, Stalling};

/// The simulated network and clock of the host that uses it. Endpoints are `HOST:PORT` with the
/// names of simulated hosts; there are no unix sockets.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimulatedNet;

/// The server's port on loopback, as the configuration has it.
pub(crate) const SERVER_PORT: u16 = 3306;
/// Stands for the server's unix socket.
pub(crate) const SOCKET_PORT: u16 = 3305;
/// Stands for the socket of a server that clones or is looked at.
pub(crate) const CLONE_SOCKET_PORT: u16 = 3307;
/// The file name of that socket.
pub(crate) const CLONE_SOCKET: &str = "clone.sock";

/// What one node's machine sees: its sidecar, which may crash, and its server, which then runs on,
/// are two simulated hosts that nothing ever parts.
#[derive(Clone, Debug)]
pub struct MachineNet {
    node: NodeId,
    clock: Clock,
    stall: Stall,
}

/// The machine's clock (`Net::boot_time`): it may run fast or slow, or stand still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// In millionths.
    pub drift: i32,
    /// It stops some seconds after the start: leases judged by it never end.
    pub stands_still: bool,
}

/// A cluster has come up by then.
const STOPS_AT: Duration = Duration::from_secs(4);

impl Clock {
    pub(crate) fn read(self, now: Duration) -> Duration {
        if self.stands_still && now > STOPS_AT {
            return STOPS_AT;
        }
        let drift = now.as_secs_f64() * f64::from(self.drift) / 1e6;
        Duration::from_secs_f64(now.as_secs_f64() + drift)
    }
}

/// The simulated host of a node's sidecar.
#[must_use]
pub(crate) fn sidecar_host(node: NodeId) -> String {
    format!("n{node}")
}

/// The simulated host of a node's server.
#[must_use]
pub(crate) fn server_host(node: NodeId) -> String {
    format!("m{node}")
}

/// The address of a node's sidecar. It looks like loopback, so that no certificates are wanted.
#[must_use]
pub(crate) fn address(node: NodeId, port: u16) -> String {
    format!("127.0.1.{node}:{port}")
}

impl MachineNet {
    pub(crate) fn new(node: NodeId) -> Self {
        Self {
            node,
            clock: Clock::default(),
            stall: Stall::default(),
        }
    }

    /// Whether the machine's processes run.
    pub(crate) fn is_running(&self) -> bool {
        self.stall.since().is_none()
    }

    /// Lets the machine stand still since `since`, or go on.
    pub(crate) fn set_stall(&self, since: Option<Duration>) {
        self.stall.set(since);
    }

    /// The machine's clock. To whoever stands still no time passes; afterwards all of it did.
    pub(crate) fn time(&self, now: Duration) -> Duration {
        self.clock.read(self.stall.since().unwrap_or(now))
    }

    #[must_use]
    pub(crate) fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    fn resolve(&self, endpoint: &Endpoint) -> Result<(String, u16)> {
        let address = match endpoint {
            Endpoint::Unix(path) if path.ends_with(CLONE_SOCKET) => {
                return Ok((server_host(self.node), CLONE_SOCKET_PORT));
            }
            Endpoint::Unix(_) => return Ok((server_host(self.node), SOCKET_PORT)),
            Endpoint::Tcp(address) => address,
        };
        let unknown = || std::io::Error::other(format!("no such simulated address: {address}"));
        let (host, port) = address.rsplit_once(':').ok_or_else(unknown)?;
        let port: u16 = port.parse().map_err(|_| unknown())?;
        if let Some(node) = host.strip_prefix("127.0.1.") {
            let node = node.parse().map_err(|_| unknown())?;
            return Ok((sidecar_host(NodeId(node)), port));
        }
        match port {
            SERVER_PORT => Ok((server_host(self.node), port)),
            _ => Ok((sidecar_host(self.node), port)),
        }
    }
}

impl Net for MachineNet {
    async fn connect(&self, to: &Endpoint) -> Result<BoxIo> {
        let (host, port) = self.resolve(to)?;
        self.stall.ended().await;
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        connected(self.stall.wrap(stream)).await
    }

    async fn listen(&self, at: &Endpoint) -> Result<Listener> {
        listen(at, at.port().unwrap_or_default(), &self.stall).await
    }

    fn boot_time(&self) -> Duration {
        self.time(turmoil::sim_elapsed().unwrap_or_default())
    }
}

fn host_and_port(endpoint: &Endpoint) -> Result<&str> {
    match endpoint {
        Endpoint::Tcp(address) => Ok(address),
        Endpoint::Unix(_) => Err(std::io::ErrorKind::Unsupported.into()),
    }
}

/// The answer to a connection: turmoil's own handshake takes no way over the network, and would
/// open one from which nothing ever comes back.
const HERE: u8 = 6;

async fn connected(mut stream: Stalling) -> Result<BoxIo> {
    match stream.read_u8().await? {
        HERE => Ok(BoxIo::new(stream)),
        _ => Err(std::io::ErrorKind::InvalidData.into()),
    }
}

async fn accepted(listener: &TcpListener, stall: &Stall) -> Result<BoxIo> {
    let (stream, _) = listener.accept().await?;
    let mut stream = stall.wrap(stream);
    stream.write_u8(HERE).await?;
    Ok(BoxIo::new(stream))
}

/// A simulated host has one address: only the port matters.
async fn listen(at: &Endpoint, port: u16, stall: &Stall) -> Result<Listener> {
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    let local = match port {
        0 => Endpoint::Tcp(format!("127.0.0.1:{}", listener.local_addr()?.port())),
        _ => at.clone(),
    };
    let incoming = stream::unfold((listener, stall.clone()), |(listener, stall)| async move {
        Some((accepted(&listener, &stall).await, (listener, stall)))
    });
    Ok(Listener {
        local,
        incoming: Box::pin(incoming),
    })
}

impl Net for SimulatedNet {
    async fn connect(&self, to: &Endpoint) -> Result<BoxIo> {
        let stream = TcpStream::connect(host_and_port(to)?).await?;
        connected(Stall::default().wrap(stream)).await
    }

    async fn listen(&self, at: &Endpoint) -> Result<Listener> {
        host_and_port(at)?;
        listen(at, at.port().unwrap_or_default(), &Stall::default()).await
    }

    fn boot_time(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_default()
    }
}
