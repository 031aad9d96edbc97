use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use quorate_net::{Endpoint, Net};

use super::StatusJson;

/// Why a node's status could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("connect to {at}")]
    Connect {
        at: Endpoint,
        source: std::io::Error,
    },
    #[error("ask {at} for its status")]
    Exchange {
        at: Endpoint,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{at} answered {status}: is this a node's HTTP address?")]
    Refused { at: Endpoint, status: StatusCode },
    #[error("{at} answered something that is no status: is this a node's HTTP address?")]
    Invalid {
        at: Endpoint,
        source: serde_json::Error,
    },
}

/// Far above the status of any cluster, so that a wrong address cannot fill the memory.
const STATUS_BYTES_MAX: usize = 16 << 20;

/// Reads `/api/status` of a node. It has no time limit of its own: the caller sets one.
pub async fn fetch_status<N: Net>(net: &N, at: &Endpoint) -> Result<StatusJson, FetchError> {
    let io = net
        .connect(at)
        .await
        .map_err(|source| FetchError::Connect {
            at: at.clone(),
            source,
        })?;
    let exchange = |source: Box<dyn std::error::Error + Send + Sync>| FetchError::Exchange {
        at: at.clone(),
        source,
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .map_err(|error| exchange(error.into()))?;
    let request = Request::get("/api/status")
        .header("host", at.to_string())
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| exchange(error.into()))?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| exchange(error.into()))?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Refused {
                at: at.clone(),
                status: response.status(),
            });
        }
        let body = Limited::new(response.into_body(), STATUS_BYTES_MAX);
        let body = body.collect().await.map_err(exchange)?.to_bytes();
        serde_json::from_slice(&body).map_err(|source| FetchError::Invalid {
            at: at.clone(),
            source,
        })
    };
    tokio::pin!(answer);
    // The connection only moves while it is polled; the answer ends first.
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => {
            ended.map_err(|error| exchange(error.into()))?;
            answer.await
        }
    }
}
