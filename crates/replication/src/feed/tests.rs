use bytes::{Bytes, BytesMut};
use quorate_binlog::build::EventBuilder;
use quorate_binlog::{
    ChecksumAlgorithm, Event, EventType, FormatDescription, GtidEvent, Heartbeat, Rotate,
    previous_gtids,
};
use quorate_mysql_wire::{
    ConnectOptions, Connection, DumpPacket, DumpReader, PacketStream, ServerError,
};
use quorate_net::{BoxIo, Endpoint};
use quorate_types::{BinlogSource, Epoch, Gtid, GtidSet, LeaderId, LogId, LogIndex, NodeId, Term};
use tokio::io::duplex;
use tokio::sync::mpsc;

use super::*;
use fake_log::FakeLog;

mod consumer;
mod fake_log;
mod refusals;
mod stream;

const SERVER: &str = "30b06607-e52b-11f1-b1db-02fc00000001";

pub(super) fn options() -> FeedOptions {
    FeedOptions {
        server_version: "9.7.4".to_owned(),
        server_uuid: "30b06607-e52b-81f1-b1db-02fc00000009".parse().unwrap(),
        server_id: 99,
        tls: None,
        accounts: Arc::new(|user| match user {
            "repl" => Some(Secret::new("secret".to_owned())),
            "open" => Some(Secret::default()),
            _ => None,
        }),
        unix_seconds: Arc::new(|| 1_700_000_000),
        inert: Arc::new(GtidSet::new),
        parallel_max: 16,
        seed: 1,
    }
}

fn epoch(term: u64, index: u64) -> Epoch {
    Epoch(LogId {
        leader: LeaderId {
            term: Term(term),
            node: NodeId(1),
        },
        index: LogIndex(index),
    })
}

fn gtid(sequence: u64) -> Gtid {
    format!("{SERVER}:{sequence}").parse().unwrap()
}

fn set(text: &str) -> GtidSet {
    if text.is_empty() {
        return GtidSet::new();
    }
    format!("{SERVER}:{text}").parse().unwrap()
}

fn builder(algorithm: ChecksumAlgorithm) -> EventBuilder {
    EventBuilder {
        algorithm,
        ..EventBuilder::new(7)
    }
}

fn source(file: &str) -> BinlogSource {
    source_of(file, ChecksumAlgorithm::Crc32)
}

fn source_of(file: &str, algorithm: ChecksumAlgorithm) -> BinlogSource {
    BinlogSource {
        file: file.into(),
        format: builder(algorithm).format_description("9.7.4", 1),
    }
}

fn joined(events: &[Bytes]) -> Bytes {
    let mut bytes = BytesMut::new();
    for event in events {
        bytes.extend_from_slice(event);
    }
    bytes.freeze()
}

/// An insert whose row is `bytes` long.
fn insert_of(sequence: u64, bytes: usize) -> (Gtid, Bytes) {
    let row: Vec<u8> = (0..bytes).map(|at| (at as u64 * sequence) as u8).collect();
    let events = builder(ChecksumAlgorithm::Crc32);
    let events = events.insert(gtid(sequence), sequence as i64, sequence, &row);
    (gtid(sequence), joined(&events))
}

fn insert(sequence: u64) -> (Gtid, Bytes) {
    insert_of(sequence, 10)
}

/// A feed over connections in memory.
struct TestFeed {
    connect: mpsc::UnboundedSender<std::io::Result<BoxIo>>,
    metrics: Arc<FeedMetrics>,
    _task: JoinSet<()>,
}

impl TestFeed {
    fn start(log: &FakeLog) -> Self {
        let (connect, incoming) = mpsc::unbounded_channel();
        let incoming = futures_util::stream::unfold(incoming, |mut incoming| async move {
            let io = incoming.recv().await?;
            Some((io, incoming))
        });
        let listener = Listener {
            local: Endpoint::Tcp("127.0.0.1:1".to_owned()),
            incoming: Box::pin(incoming),
        };
        let metrics = Arc::new(FeedMetrics::default());
        let feed = Feed::new(log.clone(), options(), metrics.clone());
        let mut task = JoinSet::new();
        task.spawn(feed.run(listener));
        Self {
            connect,
            metrics,
            _task: task,
        }
    }

    fn dial(&self, buffer: usize) -> BoxIo {
        let (ours, theirs) = duplex(buffer);
        self.connect.send(Ok(BoxIo::new(theirs))).unwrap();
        BoxIo::new(ours)
    }

    async fn login(&self) -> Connection {
        let io = self.dial(64 << 10);
        let options = ConnectOptions {
            user: "repl".to_owned(),
            password: Secret::new("secret".to_owned()),
            ..ConnectOptions::default()
        };
        Connection::connect(io, &options).await.unwrap()
    }
}

#[test]
fn the_identity_is_the_cluster_s_and_no_server_s() {
    let (uuid, server_id) = stable_identity(ClusterId(0x1234));
    assert_eq!(stable_identity(ClusterId(0x1234)), (uuid, server_id));
    assert_ne!(stable_identity(ClusterId(0x1235)).0, uuid);
    assert_ne!(stable_identity(ClusterId(0x1235)).1, server_id);
    assert_eq!(&uuid.to_string()[14..15], "8");
    assert!(server_id >= 1 << 31);
    // Another release must say the same.
    assert_eq!(uuid.to_string(), "da0faab6-21dc-82e0-a0ac-bf65a301f7ba");
}
