#![expect(
    clippy::disallowed_types,
    reason = "the one place that names tokio's sockets, together with `unix_io`"
)]

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use futures_util::stream;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::unix_io::UnixIo;
use crate::{BoxIo, Endpoint, Listener, Net};

/// A peer that is gone without a word is noticed after 30 s: its machine lost its power, or something on
/// the way forgot the connection. Else a client that vanished amid a transaction would keep
/// its locks for mysqld's `wait_timeout`, as only this end knows that it came over a network.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_PROBES: u32 = 4;

/// The operating system's sockets and clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioNet;

impl Net for TokioNet {
    async fn connect(&self, to: &Endpoint) -> Result<BoxIo> {
        match to {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await?;
                set_options(&stream)?;
                Ok(BoxIo::new(stream))
            }
            Endpoint::Unix(path) => Ok(BoxIo::new(UnixIo::connect(path).await?)),
        }
    }

    async fn listen(&self, at: &Endpoint) -> Result<Listener> {
        let in_use = |error: Error| match error.kind() {
            ErrorKind::AddrInUse => Error::new(
                ErrorKind::AddrInUse,
                format!("{at} is in use by another process"),
            ),
            kind => Error::new(kind, format!("listen on {at}: {error}")),
        };
        match at {
            Endpoint::Tcp(address) => {
                let listener = TcpListener::bind(address.as_str()).await.map_err(in_use)?;
                let local = Endpoint::Tcp(listener.local_addr()?.to_string());
                let incoming = stream::unfold(listener, |listener| async move {
                    let next = accept_tcp(&listener).await;
                    Some((next, listener))
                });
                Ok(Listener {
                    local,
                    incoming: Box::pin(incoming),
                })
            }
            Endpoint::Unix(path) => {
                let listener = UnixListener::bind(path).map_err(in_use)?;
                let incoming = stream::unfold(listener, |listener| async move {
                    let next = listener
                        .accept()
                        .await
                        .map(|(stream, _)| BoxIo::new(stream));
                    Some((next, listener))
                });
                Ok(Listener {
                    local: at.clone(),
                    incoming: Box::pin(incoming),
                })
            }
        }
    }

    fn boot_time(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec as u32)
    }
}

async fn accept_tcp(listener: &TcpListener) -> Result<BoxIo> {
    let (stream, _) = listener.accept().await?;
    set_options(&stream)?;
    Ok(BoxIo::new(stream))
}

/// Messages leave at once, and a silent peer is asked whether it is there.
fn set_options(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEP_ALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEP_ALIVE_PROBES)?;
    Ok(())
}
