#![expect(
    clippy::disallowed_types,
    reason = "the one place that names tokio's sockets, together with `unix_io`"
)]

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use futures_util::stream;
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::unix_io::UnixIo;
use crate::{BoxIo, Endpoint, Listener, Net};

/// The operating system's sockets and clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioNet;

impl Net for TokioNet {
    async fn connect(&self, to: &Endpoint) -> Result<BoxIo> {
        match to {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await?;
                stream.set_nodelay(true)?;
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
    stream.set_nodelay(true)?;
    Ok(BoxIo::new(stream))
}
