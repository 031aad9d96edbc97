//! Connections to peers: one of each kind to each node, dialled when needed, dropped when broken.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use quorate_net::{BoxIo, Endpoint, Net};
use quorate_types::NodeId;
use quorate_wire::v1::raft_client::RaftClient;
use tonic::transport::Channel;

/// Where to dial a node instead of its member's address, if anywhere.
pub type Dial = Arc<dyn Fn(NodeId) -> Option<Endpoint> + Send + Sync>;

type Opening = Pin<Box<dyn Future<Output = io::Result<BoxIo>> + Send>>;

/// Makes a connection to a node secure; the identity of the other side is checked there.
pub type SecureConnect = Arc<dyn Fn(NodeId, BoxIo) -> Opening + Send + Sync>;

/// What fits into one message with room to spare: an append of 1 MiB, a piece of a snapshot.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Bytes of a stream that may be under way unread. It bounds what a slow receiver holds.
const WINDOW_BYTES: u32 = 4 << 20;

/// What a connection is for. Each has its own, so that nothing small waits behind large entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    Log,
    Heartbeat,
    Snapshot,
    /// Votes, transfers, read indexes.
    Control,
}

/// Opens connections and keeps them.
pub(crate) struct Dialer {
    connect: Arc<dyn Fn(NodeId, Endpoint) -> Opening + Send + Sync>,
    dial: Dial,
    /// Half an election: a dead connection is found out in the time of one.
    keep_alive: Duration,
    open: Mutex<BTreeMap<(NodeId, Line), (Endpoint, Channel)>>,
}

impl Dialer {
    pub(crate) fn new<N: Net>(
        net: N,
        dial: Dial,
        secure: Option<SecureConnect>,
        election_timeout: Duration,
    ) -> Self {
        let connect = move |node, endpoint: Endpoint| -> Opening {
            let (net, secure) = (net.clone(), secure.clone());
            Box::pin(async move {
                let opening = async {
                    let plain = net.connect(&endpoint).await?;
                    match secure {
                        Some(secure) => secure(node, plain).await,
                        None => Ok(plain),
                    }
                };
                tokio::time::timeout(election_timeout, opening)
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            })
        };
        Self {
            connect: Arc::new(connect),
            dial,
            keep_alive: election_timeout / 2,
            open: Mutex::default(),
        }
    }

    /// A client on the connection of this kind to `node`, whose member's address is `address`.
    pub(crate) fn client(
        &self,
        node: NodeId,
        address: &str,
        line: Line,
    ) -> io::Result<RaftClient<Channel>> {
        let endpoint = match (self.dial)(node) {
            Some(endpoint) => endpoint,
            None => address
                .parse()
                .map_err(|error: String| io::Error::new(io::ErrorKind::InvalidInput, error))?,
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match open.get(&(node, line)) {
            Some((known, channel)) if *known == endpoint => channel.clone(),
            _ => {
                let channel = self.channel(node, endpoint.clone());
                open.insert((node, line), (endpoint, channel.clone()));
                channel
            }
        };
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// The next call dials anew: what failed may hang in a connection that is dead.
    pub(crate) fn forget(&self, node: NodeId, line: Line) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&(node, line));
    }

    fn channel(&self, node: NodeId, endpoint: Endpoint) -> Channel {
        let connect = self.connect.clone();
        // The URI is a formality: the connector knows where to go.
        tonic::transport::Endpoint::from_static("http://peer.quorate")
            .http2_keep_alive_interval(self.keep_alive)
            .keep_alive_timeout(self.keep_alive)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
                let opening = connect(node, endpoint.clone());
                async move { opening.await.map(TokioIo::new) }
            }))
    }
}
