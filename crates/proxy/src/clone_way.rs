//! The recipient's end of a clone: a port on loopback that leads to the donor's server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use quorate_net::{BoxIo, Endpoint, Listener, Net, Tls};
use quorate_types::{ClusterId, NodeId};

use crate::accept::serve_each;
use crate::dial::OpenGate;
use crate::gate_protocol::Purpose;
use crate::pump::{Watch, pump};

/// The donor may learn of the permit a little later than the recipient.
const GATE_WAIT: Duration = Duration::from_secs(5);

/// Whose server is cloned, and how its gate is reached.
#[derive(Clone)]
pub struct CloneWay<N> {
    pub net: N,
    pub tls: Option<Tls>,
    pub cluster: ClusterId,
    /// This node, which has the permit.
    pub recipient: NodeId,
    pub donor: NodeId,
    /// Of the donor's gate.
    pub gate: Option<Endpoint>,
    /// Bytes that came from the donor; whoever shows progress reads it.
    pub received: Arc<AtomicU64>,
    /// Why the donor's gate did not open, the last time it did not.
    pub failure: Arc<Mutex<Option<String>>>,
}

impl<N: Net> CloneWay<N> {
    /// Leads every connection to the donor's server, until dropped. The listener must be on
    /// loopback: whoever reaches it reaches the donor's login, as on the donor's own machine.
    pub async fn run(self, listener: Listener) {
        serve_each(listener.incoming, "clone", |io| {
            let way = self.clone();
            async move { way.session(io).await }
        })
        .await;
    }

    async fn session(self, mut client: BoxIo) {
        let open = OpenGate {
            net: &self.net,
            tls: self.tls.as_ref(),
            own: None,
            endpoint: self.gate.clone(),
            cluster: self.cluster,
            from: self.recipient,
            to: self.donor,
            purpose: Purpose::Clone,
            wait: GATE_WAIT,
        };
        match open.open().await {
            Ok((mut gate, _)) => {
                let mut count = Count(&self.received);
                pump(&mut client, &mut gate, &mut count).await;
            }
            // The server that clones says that it could not connect; here is why.
            Err(error) => {
                tracing::info!(donor = %self.donor, %error, "no way to the donor");
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                *failure = Some(error.to_string());
            }
        }
    }
}

struct Count<'a>(&'a AtomicU64);

impl Watch for Count<'_> {
    /// The donor's gate asks.
    fn poll_pass(&mut self, _: &mut Context<'_>) -> Poll<bool> {
        Poll::Ready(true)
    }

    fn passed_to_server(&mut self, _: &[u8]) {}

    fn passed_to_client(&mut self, bytes: &[u8]) {
        self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}
