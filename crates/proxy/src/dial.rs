use std::time::Duration;

use quorate_net::{BoxIo, Endpoint, Net, Tls, node_server_name};
use quorate_types::{ClusterId, Epoch, NodeId};
use tokio::time::timeout;

use crate::gate::GateHandle;
use crate::gate_protocol::{Answer, HandshakeError, Hello, Purpose, Refusal};

/// A member that does not even accept a connection within this is looked for elsewhere.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// On top of the time that the gate may wait: it connects to its mysqld, and answers.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Where a node's gate is dialled: the configuration's override, else what the view says.
pub trait GateDialer: Send + Sync + 'static {
    fn endpoint_of(&self, node: NodeId) -> Option<Endpoint>;
}

impl<F: Fn(NodeId) -> Option<Endpoint> + Send + Sync + 'static> GateDialer for F {
    fn endpoint_of(&self, node: NodeId) -> Option<Endpoint> {
        self(node)
    }
}

/// Why a node's gate did not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenGateError {
    #[error("node {0} has no known gate address")]
    NoAddress(NodeId),
    #[error("node {node} cannot be reached at {endpoint}: {source}")]
    Connect {
        node: NodeId,
        endpoint: Endpoint,
        source: std::io::Error,
    },
    #[error("node {node} does not answer at {endpoint}")]
    NoAnswer { node: NodeId, endpoint: Endpoint },
    #[error("the gate of node {node} ended the handshake: {source}")]
    Handshake {
        node: NodeId,
        source: HandshakeError,
    },
    #[error("{}", .0.text)]
    Refused(Refusal),
}

/// Whose gate, for what, and how long it may wait.
pub(crate) struct OpenGate<'a, N> {
    pub(crate) net: &'a N,
    pub(crate) tls: Option<&'a Tls>,
    /// This process's own gate, if that is the one to open.
    pub(crate) own: Option<&'a GateHandle>,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) cluster: ClusterId,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) purpose: Purpose,
    pub(crate) wait: Duration,
}

impl<N: Net> OpenGate<'_, N> {
    /// The open way to the node's mysqld, and the epoch that it lives with, if it does.
    pub(crate) async fn open(self) -> Result<(BoxIo, Option<Epoch>), OpenGateError> {
        let node = self.to;
        let endpoint = self.endpoint.ok_or(OpenGateError::NoAddress(node))?;
        let no_answer = |_| OpenGateError::NoAnswer {
            node,
            endpoint: endpoint.clone(),
        };
        let failed = |source| OpenGateError::Connect {
            node,
            endpoint: endpoint.clone(),
            source,
        };
        let connect = async {
            if let Some(own) = self.own {
                return own.connect().await;
            }
            let io = self.net.connect(&endpoint).await?;
            match self.tls {
                Some(tls) => tls.connect(io, &node_server_name(node)).await,
                None => Ok(io),
            }
        };
        let mut io = timeout(CONNECT_MAX, connect)
            .await
            .map_err(no_answer)?
            .map_err(failed)?;
        let hello = Hello {
            cluster: self.cluster,
            from: self.from,
            to: node,
            purpose: self.purpose,
            wait_ms: u32::try_from(self.wait.as_millis()).unwrap_or(u32::MAX),
        };
        let exchange = async {
            hello.write(&mut io).await?;
            Answer::read(&mut io).await
        };
        let answer = timeout(self.wait + ANSWER_MAX, exchange)
            .await
            .map_err(no_answer)?
            .map_err(|source| OpenGateError::Handshake { node, source })?;
        match answer {
            Answer::Open { epoch } => Ok((io, epoch)),
            Answer::Refused(refusal) => Err(OpenGateError::Refused(refusal)),
        }
    }
}
