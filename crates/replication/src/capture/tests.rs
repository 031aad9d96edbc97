use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use crc32fast::hash;
use quorate_binlog::build::EventBuilder;
use quorate_binlog::{
    ChecksumAlgorithm, Checksummer, Event, EventHeader, EventType, fake_rotate, heartbeat_v2,
    rewrite,
};
use quorate_mysql_wire::{
    ChecksumRequest, Command as Packet, CommandReader, ConnectOptions, Connection, EventChunk,
    EventWriter, ReplicaOptions, Row, ServerConnection, ServerOptions,
};
use quorate_net::BoxIo;
use quorate_types::{
    Command, Fragment, LeaderId, LogId, LogIndex, NodeId, Outcome, Rejection, Secret, Term,
};
use tokio::io::duplex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;
use crate::contract::{Fate, PendingFate};

mod pieces;
mod proposals;

const SERVER: &str = "30b06607-e52b-11f1-b1db-02fc00000001";
/// Long enough for a loaded machine.
const SOON: Duration = Duration::from_secs(10);
/// Long enough for what must not happen to happen.
const A_WHILE: Duration = Duration::from_millis(60);

fn gtid(sequence: u64) -> Gtid {
    format!("{SERVER}:{sequence}").parse().unwrap()
}

fn epoch() -> Epoch {
    Epoch(LogId {
        leader: LeaderId {
            term: Term(3),
            node: NodeId(1),
        },
        index: LogIndex(30),
    })
}

fn builder() -> EventBuilder {
    EventBuilder::new(1)
}

/// A log that says what the test says.
#[derive(Clone, Default)]
struct Script {
    shared: Arc<Mutex<Shared>>,
    came: Arc<tokio::sync::Notify>,
}

#[derive(Default)]
struct Shared {
    proposals: VecDeque<(Command, oneshot::Sender<Fate>)>,
}

impl Propose for Script {
    async fn propose(&self, command: Command) -> PendingFate {
        let (tx, rx) = oneshot::channel();
        let mut shared = self.shared.lock().unwrap();
        shared.proposals.push_back((command, tx));
        drop(shared);
        self.came.notify_one();
        rx.into()
    }
}

impl Script {
    /// The next proposal.
    async fn next(&self) -> (Command, oneshot::Sender<Fate>) {
        let wait = async {
            loop {
                let next = self.shared.lock().unwrap().proposals.pop_front();
                match next {
                    Some(next) => return next,
                    None => self.came.notified().await,
                }
            }
        };
        timeout(SOON, wait).await.expect("nothing is proposed")
    }

    async fn nothing_comes(&self) {
        tokio::time::sleep(A_WHILE).await;
        assert!(self.shared.lock().unwrap().proposals.is_empty());
    }
}

fn accepted(count: u32) -> Fate {
    Fate::Applied {
        index: LogIndex(1),
        outcome: Outcome::Transactions {
            accepted: count,
            rejected: None,
        },
    }
}

fn rejected(rejection: Rejection) -> Fate {
    Fate::Applied {
        index: LogIndex(1),
        outcome: Outcome::Transactions {
            accepted: 0,
            rejected: Some(rejection),
        },
    }
}

fn accept(proposal: (Command, oneshot::Sender<Fate>)) {
    let count = sequences(&proposal.0).len() as u32;
    proposal.1.send(accepted(count)).unwrap();
}

fn sequences(command: &Command) -> Vec<u64> {
    match command {
        Command::Transactions(batch) => {
            let all = batch.transactions.iter();
            all.map(|transaction| transaction.gtid.sequence).collect()
        }
        Command::Fragment(part) => vec![part.gtid.sequence],
        other => panic!("{other:?}"),
    }
}

fn first_number(command: &Command) -> u64 {
    match command {
        Command::Transactions(batch) => batch.first_number,
        Command::Fragment(part) => part.number,
        other => panic!("{other:?}"),
    }
}

/// A primary with its binlog in memory, as far as capture sees one.
struct Primary {
    events: EventWriter,
    commands: CommandReader,
    position: u64,
}

impl Primary {
    async fn begin_file(&mut self, name: &str) {
        let rotate = fake_rotate(name, 4, 1, ChecksumAlgorithm::Crc32);
        self.raw(&rotate, false).await;
        self.position = 4;
        let format = builder().format_description("9.7.4", 0);
        self.event(&format, false).await;
    }

    /// An event at its place in the file.
    async fn event(&mut self, event: &Bytes, ack_wanted: bool) -> Bytes {
        self.position += event.len() as u64;
        let header = EventHeader::parse(event).unwrap();
        let event = match header.event_type {
            EventType::FORMAT_DESCRIPTION => event.clone(),
            _ => {
                let event = Event::parse(event.clone(), ChecksumAlgorithm::Crc32).unwrap();
                rewrite(&event, self.position, ChecksumAlgorithm::Crc32)
            }
        };
        self.raw(&event, ack_wanted).await;
        event
    }

    async fn raw(&mut self, event: &Bytes, ack_wanted: bool) {
        let prefix = Bytes::copy_from_slice(&[0xef, ack_wanted.into()]);
        self.events.event(&[prefix, event.clone()]).await.unwrap();
    }

    /// A transaction whose row is so long; its bytes. It leaves with the next flush.
    async fn insert(&mut self, sequence: u64, row: usize) -> Bytes {
        let row = vec![sequence as u8; row];
        let events = builder().insert(gtid(sequence), sequence as i64, sequence, &row);
        let mut bytes = BytesMut::new();
        for (at, event) in events.iter().enumerate() {
            let is_last = at + 1 == events.len();
            bytes.extend_from_slice(&self.event(event, is_last).await);
        }
        bytes.freeze()
    }

    async fn flush(&mut self) {
        self.events.flush().await.unwrap();
    }

    /// The next ACK: position and file.
    async fn ack(&mut self) -> (u64, String) {
        let packet = timeout(SOON, self.commands.next()).await;
        let packet = packet.expect("no ACK comes").unwrap();
        assert_eq!(packet[0], 0xef);
        let position = u64::from_le_bytes(packet[1..9].try_into().unwrap());
        (position, String::from_utf8(packet[9..].to_vec()).unwrap())
    }

    async fn no_ack(&mut self) {
        assert!(timeout(A_WHILE, self.commands.next()).await.is_err());
    }
}

async fn answer(mut server: ServerConnection) -> (CommandReader, EventWriter) {
    loop {
        match server.next_command().await.unwrap() {
            Packet::Query(sql) if sql.starts_with("SELECT") => {
                let row = Row::from_iter([Some("1")]);
                server.rows(&["value"], &[row]).await.unwrap();
            }
            Packet::BinlogDumpGtid(_) => return server.split(),
            _ => server.ok().await.unwrap(),
        }
    }
}

async fn attach(script: &Script, options: CaptureOptions) -> (Capture, Primary) {
    attach_delayed(script, options, &AckDelay::default()).await
}

async fn attach_delayed(
    script: &Script,
    options: CaptureOptions,
    ack_delay: &AckDelay,
) -> (Capture, Primary) {
    let (ours, theirs) = duplex(1 << 16);
    let client = ConnectOptions {
        user: "repl".into(),
        ..ConnectOptions::default()
    };
    let server = ServerOptions {
        version: "9.7.4".into(),
        connection_id: 1,
        scramble: [b'x'; 20],
        tls: None,
        tls_required: false,
        authenticate: &|_| Some(Secret::default()),
    };
    let replica = ReplicaOptions {
        server_id: 2,
        server_uuid: SERVER.parse().unwrap(),
        heartbeat_period: Duration::from_secs(1),
        checksum: ChecksumRequest::AsSource,
        semi_sync: true,
    };
    let begin = async {
        let connection = Connection::connect(BoxIo::new(ours), &client)
            .await
            .unwrap();
        let connection = ReplicaConnection::prepare(connection, &replica)
            .await
            .unwrap();
        let metrics = Arc::new(CaptureMetrics::default());
        let executed = GtidSet::new();
        let capture = Capture::start(
            connection,
            epoch(),
            &executed,
            script.clone(),
            options,
            ack_delay.clone(),
            metrics,
        );
        capture.await.unwrap()
    };
    let serve = async {
        let server = ServerConnection::accept(BoxIo::new(theirs), &server).await;
        answer(server.unwrap()).await
    };
    let (capture, (commands, events)) = tokio::join!(begin, serve);
    let mut primary = Primary {
        events,
        commands,
        position: 0,
    };
    primary.begin_file("binlog.000001").await;
    (capture, primary)
}

/// Attached, and proposing.
async fn released(script: &Script, options: CaptureOptions) -> (Capture, Primary) {
    let (mut capture, mut primary) = attach(script, options).await;
    primary.flush().await;
    assert!(timeout(SOON, capture.attached()).await.unwrap());
    capture.release();
    (capture, primary)
}

async fn end_of(capture: &Capture) -> CaptureEnd {
    let mut ended = capture.ended();
    let end = timeout(SOON, ended.wait_for(Option::is_some)).await;
    end.expect("it goes on").unwrap().clone().unwrap()
}
