//! What the other nodes say of themselves, asked again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use quorate_net::{BoxIo, Endpoint, Net, Tls, node_server_name};
use quorate_types::NodeId;
use quorate_wire::NodeReport;
use quorate_wire::v1::NodeStatusRequest;
use quorate_wire::v1::admin_client::AdminClient;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

use crate::addresses::AddressBook;
use crate::admin::Forward;

/// Between two questions to a peer.
const ASK: Duration = Duration::from_millis(100);
/// A peer that does not answer within this is asked again.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// A connection on which nothing comes back is given up after twice this, and another one opened:
/// TCP alone would try for a quarter of an hour.
const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// After so many questions without an answer in a row the node is looked for elsewhere.
const UNANSWERED_MAX: u32 = 10;
/// Between two looks for nodes that are new.
const LOOK: Duration = Duration::from_millis(200);
/// A report older than this says nothing any more.
pub(crate) const REPORT_MAX: Duration = Duration::from_secs(2);

/// A client of a node's admin service.
pub type AdminConnection = AdminClient<Channel>;

/// What a peer said last, and when.
pub(crate) type Reports = BTreeMap<NodeId, (NodeReport, Instant)>;

/// A client of a node's admin service; it connects when it is used.
pub fn admin_client<N: Net>(
    net: &N,
    tls: Option<&Tls>,
    node: NodeId,
    endpoint: &Endpoint,
) -> AdminConnection {
    let endpoint = endpoint.clone();
    following_client(net, tls, node, move || Some(endpoint.clone()))
}

/// A client of a node's admin service; it connects when it is used, to where the node is then.
pub(crate) fn following_client<N: Net>(
    net: &N,
    tls: Option<&Tls>,
    node: NodeId,
    endpoint: impl Fn() -> Option<Endpoint> + Clone + Send + Sync + 'static,
) -> AdminClient<Channel> {
    let (net, tls) = (net.clone(), tls.cloned());
    let connect = tower::service_fn(move |_: http::Uri| {
        let (net, tls, endpoint) = (net.clone(), tls.clone(), endpoint());
        async move {
            let endpoint = endpoint.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
            let io: BoxIo = net.connect(&endpoint).await?;
            let io = match tls {
                Some(tls) => tls.connect(io, &node_server_name(node)).await?,
                None => io,
            };
            Ok::<_, std::io::Error>(TokioIo::new(io))
        }
    });
    let channel = tonic::transport::Endpoint::from_static("http://quorate")
        .connect_timeout(ANSWER_MAX)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .connect_with_connector_lazy(connect);
    AdminClient::new(channel)
}

/// Asks every other node of the book, those too that come later.
pub(crate) async fn ask_peers(
    book: Arc<AddressBook>,
    forward: Forward,
    reports: Arc<watch::Sender<Reports>>,
) {
    // Dropped with this future, and so ended with it.
    let mut asking: BTreeMap<NodeId, JoinSet<()>> = BTreeMap::new();
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        let nodes = book.nodes();
        asking.retain(|node, _| nodes.contains(node));
        if reports.borrow().keys().any(|node| !nodes.contains(node)) {
            reports.send_modify(|reports| reports.retain(|node, _| nodes.contains(node)));
        }
        for node in nodes {
            if asking.contains_key(&node) {
                continue;
            }
            if let Some(client) = forward(node) {
                let mut task = JoinSet::new();
                task.spawn(ask_peer(node, client, book.clone(), reports.clone()));
                asking.insert(node, task);
            }
        }
    }
}

/// Asks one peer for as long as it is polled.
async fn ask_peer(
    node: NodeId,
    mut client: AdminClient<Channel>,
    book: Arc<AddressBook>,
    reports: Arc<watch::Sender<Reports>>,
) {
    let mut ask = tokio::time::interval(ASK);
    ask.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut unanswered = 0;
    loop {
        ask.tick().await;
        let answer = timeout(ANSWER_MAX, client.node_status(NodeStatusRequest {})).await;
        unanswered += 1;
        if unanswered % UNANSWERED_MAX == 0 {
            book.turn(node);
        }
        let Ok(Ok(answer)) = answer else { continue };
        match NodeReport::try_from(answer.into_inner()) {
            Ok(report) if report.node == node => {
                unanswered = 0;
                reports.send_modify(|reports| {
                    reports.insert(node, (report, Instant::now()));
                });
            }
            Ok(report) => {
                tracing::warn!(peer = %node, says = %report.node, "a peer's address answers as another node");
            }
            Err(error) => {
                tracing::debug!(peer = %node, %error, "a peer's report is not understood")
            }
        }
    }
}
