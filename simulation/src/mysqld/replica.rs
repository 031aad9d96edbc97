//! The replica's side of replication: a receiver, and an applier that lags behind it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use quorate_binlog::build::EventBuilder;
use quorate_binlog::{
    Assembler, ChecksumAlgorithm, Event, EventHeader, EventType, GtidEvent, Step,
};
use quorate_mysql_wire::{
    ChecksumRequest, ConnectOptions, Connection, DumpPacket, ReplicaConnection, ReplicaOptions,
};
use quorate_net::{Endpoint, Net};
use quorate_types::Secret;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::binlog::change;
use super::engine::Change;
use super::process::Process;

/// `SOURCE_CONNECT_RETRY`.
const RETRY: Duration = Duration::from_secs(1);
/// `replica_net_timeout`.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Transactions that the receiver is ahead of the applier at most.
const RELAY_MAX: usize = 1000;
/// How often an applier that waits for something looks again.
const LOOK: Duration = Duration::from_millis(5);

/// Where a replica gets its transactions.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
}

/// A transaction of another server.
type Relayed = (GtidEvent, Vec<Change>);

/// The state of the one channel.
#[derive(Default)]
pub(crate) struct Replica {
    pub(crate) source: Option<Source>,
    pub(crate) receiving: bool,
    pub(crate) applying: bool,
    pub(crate) receive_error: String,
    pub(crate) apply_error: String,
    relay: VecDeque<Relayed>,
    arrived: Arc<Notify>,
    threads: Vec<AbortHandle>,
}

impl Process {
    pub(crate) fn start_replica(self: &Arc<Self>, user: String, password: String) {
        self.stop_replica();
        let source = self.volatile(|state| {
            let source = state.replica.source.as_mut()?;
            (source.user, source.password) = (user, password);
            Some(source.clone())
        });
        let Some(source) = source else { return };
        let (receiver, applier) = (self.clone(), self.clone());
        let threads = vec![
            self.spawn(async move { receiver.receive(source).await }),
            self.spawn(async move { applier.apply_all().await }),
        ];
        self.volatile(|state| {
            state.replica.threads = threads;
            state.replica.applying = true;
        });
    }

    /// What was received and not applied is forgotten: the relay log is not kept.
    pub(crate) fn stop_replica(&self) {
        self.volatile(|state| {
            for thread in state.replica.threads.drain(..) {
                thread.abort();
            }
            state.replica.relay.clear();
            state.replica.receiving = false;
            state.replica.applying = false;
            state.replica.apply_error.clear();
            state.replica.receive_error.clear();
        });
    }

    async fn receive(self: Arc<Self>, source: Source) {
        loop {
            let error = self.receive_once(&source).await;
            self.volatile(|state| {
                state.replica.receiving = false;
                state.replica.receive_error = error;
            });
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Until something goes wrong; what.
    async fn receive_once(&self, source: &Source) -> String {
        let attach = timeout(SILENCE_MAX, self.attach(source)).await;
        let mut reader = match attach {
            Ok(Ok(reader)) => reader,
            Ok(Err(error)) => return error,
            Err(_) => return "the source does not answer".to_owned(),
        };
        let mut assembly = Assembly::default();
        loop {
            let packet = match timeout(SILENCE_MAX, reader.next()).await {
                Ok(Ok(packet)) => packet,
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "the source is silent".to_owned(),
            };
            self.unpaused().await;
            let chunk = match packet {
                DumpPacket::Event(chunk) => chunk,
                DumpPacket::Eof => return "the source has no more".to_owned(),
                DumpPacket::Error(error) => return error.to_string(),
            };
            self.volatile(|state| {
                state.replica.receiving = true;
                state.replica.receive_error.clear();
            });
            match assembly.push(&chunk.bytes, chunk.first, chunk.last) {
                Ok(Some(transaction)) => self.relay(transaction).await,
                Ok(None) => {}
                Err(error) => return error,
            }
        }
    }

    async fn relay(&self, transaction: Relayed) {
        while self.volatile(|state| state.replica.relay.len() >= RELAY_MAX) {
            tokio::time::sleep(LOOK).await;
        }
        let arrived = self.volatile(|state| {
            state.replica.relay.push_back(transaction);
            state.replica.arrived.clone()
        });
        arrived.notify_one();
    }

    async fn attach(&self, source: &Source) -> Result<quorate_mysql_wire::DumpReader, String> {
        let endpoint = Endpoint::Tcp(format!("{}:{}", source.host, source.port));
        let io = self.machine.net().connect(&endpoint).await;
        let options = ConnectOptions {
            user: source.user.clone(),
            password: Secret::new(source.password.clone()),
            secure_transport: true,
            ..ConnectOptions::default()
        };
        let io = io.map_err(|error| error.to_string())?;
        let connection = Connection::connect(io, &options).await;
        let connection = connection.map_err(|error| error.to_string())?;
        let uuid = self.with_folder(|folder| folder.uuid);
        let options = ReplicaOptions {
            server_id: self.settings.server_id,
            server_uuid: uuid.unwrap_or_default(),
            heartbeat_period: Duration::from_secs(1),
            checksum: ChecksumRequest::AsSource,
            semi_sync: false,
        };
        let replica = ReplicaConnection::prepare(connection, &options).await;
        let replica = replica.map_err(|error| error.to_string())?;
        // The applier may be in the middle of its relay log.
        let mut received = self.executed_set();
        self.volatile(|state| {
            for (event, _) in &state.replica.relay {
                received.insert(event.gtid);
            }
        });
        let dump = replica.dump_gtid(&received).await;
        let (reader, _acks) = dump.map_err(|error| error.to_string())?;
        Ok(reader)
    }

    async fn apply_all(self: Arc<Self>) {
        let arrived = self.volatile(|state| state.replica.arrived.clone());
        loop {
            let next = self.volatile(|state| state.replica.relay.front().cloned());
            let Some(next) = next else {
                arrived.notified().await;
                continue;
            };
            self.machine.apply_pause().await;
            self.unpaused().await;
            // Its own commits would wait for an ACK.
            while self.is_on("rpl_semi_sync_source_enabled") {
                tokio::time::sleep(LOOK).await;
            }
            let stage = self.log_stage.clone().lock_owned().await;
            let (done, applied) = oneshot::channel();
            let applier = self.clone();
            // STOP REPLICA ends this thread, and not what it has begun.
            self.spawn(async move {
                let _ = done.send(applier.apply(next).await);
                drop(stage);
            });
            match applied.await {
                Ok(Ok(())) => {
                    self.volatile(|state| state.replica.relay.pop_front());
                }
                Ok(Err(duplicate)) => {
                    self.volatile(|state| {
                        state.replica.applying = false;
                        state.replica.apply_error =
                            format!("Duplicate entry '{duplicate}' for key 't.PRIMARY'");
                    });
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Logs it as a replica does, in a form of its own, and commits it. The key if it is there.
    async fn apply(&self, (event, changes): Relayed) -> Result<(), u64> {
        let gtid = event.gtid;
        if self.executed_set().contains(gtid) {
            return Ok(());
        }
        if let Some(key) = self.duplicate(&changes) {
            return Err(key);
        }
        let xid = self.with_folder(|folder| folder.engine.prepare(&changes));
        let xid = xid.unwrap_or_default();
        let events = EventBuilder {
            commit_us: event.original_commit_us + 1,
            original_commit_us: Some(event.original_commit_us),
            ..EventBuilder::new(self.settings.server_id)
        };
        self.append_to_binlog(&events, gtid, xid, &changes);
        self.sync_binlog().await;
        self.with_folder(|folder| folder.engine.commit(xid));
        self.logged.send_modify(|count| *count += 1);
        self.note_visible(&[gtid]);
        Ok(())
    }
}

/// Makes transactions of events.
#[derive(Default)]
struct Assembly {
    assembler: Assembler,
    algorithm: ChecksumAlgorithm,
    partial: BytesMut,
    open: Option<Relayed>,
}

impl Assembly {
    fn push(&mut self, bytes: &[u8], first: bool, last: bool) -> Result<Option<Relayed>, String> {
        if first {
            self.partial.clear();
        }
        self.partial.extend_from_slice(bytes);
        if !last {
            return Ok(None);
        }
        let bytes = self.partial.split().freeze();
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let header = EventHeader::parse(&bytes).map_err(|error| text(&error))?;
        if header.event_type == EventType::FORMAT_DESCRIPTION {
            let format = quorate_binlog::FormatDescription::parse(bytes.clone());
            self.algorithm = format.map_err(|error| text(&error))?.algorithm;
        }
        // The first one comes before anything says how events end, and says nothing of use here.
        if header.event_type == EventType::ROTATE {
            return Ok(None);
        }
        let event = Event::parse(bytes, self.algorithm).map_err(|error| text(&error))?;
        match self.assembler.push(&event).map_err(|error| text(&error))? {
            Step::Outside => {}
            Step::Begin(event) => self.open = Some((event, Vec::new())),
            Step::Within => {
                if let (Some((_, changes)), Some(change)) = (&mut self.open, change(&event)) {
                    changes.push(change);
                }
            }
            Step::End(_) => return Ok(self.open.take()),
        }
        Ok(None)
    }
}
