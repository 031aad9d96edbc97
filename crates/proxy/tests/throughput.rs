//! The whole way over real sockets: what arrives, and how fast beside a direct connection.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step is the test's failure; clippy allows it in test functions only"
)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt, ready};
use quorate_net::{BoxIo, Endpoint, Listener, Net, TokioNet};
use quorate_proxy::{
    Gate, GateParts, Metrics, Proxy, ProxyParts, ProxySettings, RoleWatch, ServerSessions,
};
use quorate_types::{ClusterId, ClusterView, Epoch, LeaderId, LogId, LogIndex, NodeId, Term};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;

const BULK_BYTES: usize = 128 << 20;
const ROUND_TRIPS: u32 = 5000;
const QUESTION: [u8; 100] = [7; 100];
/// What the server answers to the question `BULK`.
const BULK: [u8; 100] = [9; 100];

/// Its lease never ends.
struct NothingToEnd;

impl ServerSessions for NothingToEnd {
    fn stop_statement(&self, _: u32) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }

    fn may_commit(&self, _: u32) -> BoxFuture<'_, bool> {
        ready(false).boxed()
    }
}

#[derive(Clone)]
struct AlwaysPrimary {
    view: Arc<watch::Sender<Arc<ClusterView>>>,
    serving: Arc<watch::Sender<Option<Epoch>>>,
}

impl RoleWatch for AlwaysPrimary {
    fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.view.subscribe()
    }

    fn opened(&self) -> watch::Receiver<Option<Epoch>> {
        self.serving.subscribe()
    }

    fn serving(&self) -> watch::Receiver<Option<Epoch>> {
        self.serving.subscribe()
    }

    fn may_serve(&self, epoch: Epoch, now: Duration) -> bool {
        *self.serving.borrow() == Some(epoch) && now < Duration::MAX
    }

    fn may_serve_reads(&self) -> bool {
        false
    }
}

async fn listen() -> Listener {
    let any = Endpoint::Tcp("127.0.0.1:0".to_owned());
    TokioNet.listen(&any).await.unwrap()
}

/// Echoes questions, and answers `BULK` with as many bytes as were agreed on.
async fn answer(mut listener: Listener) {
    while let Some(Ok(mut io)) = listener.incoming.next().await {
        tokio::spawn(async move {
            let mut question = [0; QUESTION.len()];
            let chunk = vec![1; 64 << 10];
            while io.read_exact(&mut question).await.is_ok() {
                if question == BULK {
                    for _ in 0..BULK_BYTES / chunk.len() {
                        io.write_all(&chunk).await.unwrap();
                    }
                } else {
                    io.write_all(&question).await.unwrap();
                }
            }
        });
    }
}

/// Starts a gate before the server and a port before the gate: the port's address.
async fn start(server: Endpoint) -> Endpoint {
    let leader = LeaderId {
        term: Term(1),
        node: NodeId(1),
    };
    let epoch = Epoch(LogId {
        leader,
        index: LogIndex(5),
    });
    let view = ClusterView {
        cluster: Some(ClusterId(1)),
        primary: Some(NodeId(1)),
        epoch: Some(epoch),
        ..ClusterView::default()
    };
    let role = AlwaysPrimary {
        view: Arc::new(watch::Sender::new(Arc::new(view))),
        serving: Arc::new(watch::Sender::new(Some(epoch))),
    };
    let (gate, _) = Gate::new(GateParts {
        net: TokioNet,
        role: role.clone(),
        tls: None,
        node: NodeId(1),
        is_member: Arc::new(|_| true),
        may_clone: Arc::new(|_| false),
        server,
        server_sessions: Arc::new(NothingToEnd),
        metrics: Metrics::default(),
        left_out: None,
    });
    let listener = listen().await;
    let gate_address = listener.local.clone();
    tokio::spawn(gate.run(listener));
    let (proxy, _) = Proxy::new(ProxyParts {
        net: TokioNet,
        role,
        dialer: move |_| Some(gate_address.clone()),
        tls: None,
        node: NodeId(1),
        own_gate: None,
        settings: ProxySettings::default(),
        metrics: Metrics::default(),
    });
    let (read_write, read_only) = (listen().await, listen().await);
    let port = read_write.local.clone();
    tokio::spawn(proxy.run(read_write, read_only));
    port
}

async fn measure(what: &str, mut io: BoxIo) {
    let mut answer = [0; QUESTION.len()];
    let begin = Instant::now();
    for _ in 0..ROUND_TRIPS {
        io.write_all(&QUESTION).await.unwrap();
        io.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, QUESTION);
    }
    let per_second = f64::from(ROUND_TRIPS) / begin.elapsed().as_secs_f64();

    io.write_all(&BULK).await.unwrap();
    let mut chunk = vec![0; 64 << 10];
    let (mut total, begin) = (0, Instant::now());
    while total < BULK_BYTES {
        let count = io.read(&mut chunk).await.unwrap();
        assert!(count > 0 && chunk[..count].iter().all(|byte| *byte == 1));
        total += count;
    }
    assert_eq!(total, BULK_BYTES);
    let megabytes = (total >> 20) as f64 / begin.elapsed().as_secs_f64();
    println!("{what}: {per_second:.0} round trips/s, {megabytes:.0} MiB/s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_arrives_through_port_and_gate_and_the_speed_is_printed() {
    let server = listen().await;
    let address = server.local.clone();
    tokio::spawn(answer(server));
    let port = start(address.clone()).await;
    for _ in 0..2 {
        measure("direct", TokioNet.connect(&address).await.unwrap()).await;
        measure("port and gate", TokioNet.connect(&port).await.unwrap()).await;
    }
}
