use std::io::Result;
use std::time::Duration;

use futures_util::stream;
use quorate_net::{BoxIo, Endpoint, Listener, Net};
use turmoil::net::{TcpListener, TcpStream};

/// The simulated network and clock of the host that uses it. Endpoints are `HOST:PORT` with the
/// names of simulated hosts; there are no unix sockets.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimulatedNet;

fn address(endpoint: &Endpoint) -> Result<&str> {
    match endpoint {
        Endpoint::Tcp(address) => Ok(address),
        Endpoint::Unix(_) => Err(std::io::ErrorKind::Unsupported.into()),
    }
}

impl Net for SimulatedNet {
    async fn connect(&self, to: &Endpoint) -> Result<BoxIo> {
        Ok(BoxIo::new(TcpStream::connect(address(to)?).await?))
    }

    async fn listen(&self, at: &Endpoint) -> Result<Listener> {
        // A simulated host has one address: only the port matters.
        let port = at.port().unwrap_or_default();
        address(at)?;
        let listener = TcpListener::bind(("0.0.0.0", port)).await?;
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

    fn boot_time(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_default()
    }
}
