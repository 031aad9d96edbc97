use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use quorate_net::{BoxIo, Listener};
use tokio::task::JoinSet;

use super::StatusJson;

/// Where HTTP gets its answers from. Asked once per request, so it must be cheap and never block.
pub trait StatusSource: Send + Sync + 'static {
    fn status(&self) -> StatusJson;

    /// Whether this node does its part; else why not, in words.
    fn healthy(&self) -> Result<(), String>;
}

/// Connections at once: people and monitoring, not applications. More wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// A client that sends no complete header for so long is let go: it would hold one of the places.
const HEADER_WAIT: Duration = Duration::from_secs(10);

pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes; `registry` holds the metrics of every crate.
pub fn router(source: Arc<dyn StatusSource>, registry: Arc<Registry>) -> Router {
    let metrics = move || async move {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &registry) {
            Ok(()) => ([(CONTENT_TYPE, METRICS_CONTENT_TYPE)], text).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    };
    Router::new()
        .route("/", get(|| async { Html(include_str!("dashboard.html")) }))
        .route("/api/status", get(status))
        .route("/healthz", get(health))
        .with_state(source)
        .route("/metrics", get(metrics))
}

async fn status(State(source): State<Arc<dyn StatusSource>>) -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-store")], Json(source.status()))
}

async fn health(State(source): State<Arc<dyn StatusSource>>) -> impl IntoResponse {
    match source.healthy() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    }
}

/// Serves until the future is dropped, which closes every connection. Boxed here, so that it is
/// compiled here and not in each crate that names a network.
pub fn serve(listener: Listener, router: Router) -> BoxFuture<'static, ()> {
    Box::pin(serve_on(listener.incoming, router))
}

/// The same for connections that are somebody else's afterwards.
pub(crate) async fn serve_on(incoming: impl Stream<Item = std::io::Result<BoxIo>>, router: Router) {
    let mut incoming = std::pin::pin!(incoming);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            next = incoming.next(), if connections.len() < CONNECTIONS_MAX => match next {
                Some(Ok(io)) => {
                    connections.spawn(connection(io, router.clone()));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "accept an HTTP connection");
                    // Such as too many open files: at once it would only fail again.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                None => return,
            },
        }
    }
}

async fn connection(io: BoxIo, router: Router) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WAIT)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "serve an HTTP connection");
    }
}
