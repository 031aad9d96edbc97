//! The source's side of replication.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_binlog::{
    ChecksumAlgorithm, Event, EventType, FLAG_BINLOG_IN_USE, GtidEvent, fake_rotate, heartbeat_v2,
};
use quorate_mysql_wire::{CommandReader, EventWriter, PacketError, ServerConnection};
use quorate_types::GtidSet;
use tokio::time::timeout;

use super::binlog::events;
use super::process::{Place, Process};

const HEARTBEAT: Duration = Duration::from_secs(1);
const SEMI_SYNC_MAGIC: u8 = 0xef;
const FIRST_EVENT: u64 = 4;
/// In an event's header.
const FLAGS_AT: usize = 17;

/// Counts a semi-sync replica until it leaves.
struct Attached<'a>(&'a Process);

impl<'a> Attached<'a> {
    fn new(process: &'a Process) -> Self {
        process.volatile(|state| state.semi_sync_clients += 1);
        Self(process)
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.0.volatile(|state| state.semi_sync_clients -= 1);
    }
}

/// Sends everything outside of `executed`, and what comes, until the replica leaves.
pub(crate) async fn run(
    process: &Arc<Process>,
    connection: ServerConnection,
    executed: GtidSet,
    semi_sync: bool,
) {
    let _attached = semi_sync.then(|| Attached::new(process));
    let (mut acks, writer) = connection.split();
    let dump = Dump {
        process,
        writer,
        executed,
        semi_sync,
        skipping: false,
    };
    tokio::select! {
        biased;
        _ = take_acks(process, &mut acks) => {}
        _ = dump.send_all() => {}
    }
}

async fn take_acks(process: &Process, acks: &mut CommandReader) -> Result<(), PacketError> {
    loop {
        let packet = acks.next().await?;
        process.unpaused().await;
        if let [SEMI_SYNC_MAGIC, rest @ ..] = &packet[..]
            && let Some((offset, file)) = rest.split_first_chunk()
        {
            let file = String::from_utf8_lossy(file).into_owned();
            process.acked((file, u64::from_le_bytes(*offset)));
        }
    }
}

/// A dump does not say that the file is in use.
fn as_sent(event: &Event) -> Bytes {
    if event.event_type() != EventType::FORMAT_DESCRIPTION {
        return event.bytes().clone();
    }
    let mut bytes = event.bytes().to_vec();
    bytes[FLAGS_AT] &= !(FLAG_BINLOG_IN_USE as u8);
    bytes.into()
}

struct Dump<'a> {
    process: &'a Arc<Process>,
    writer: EventWriter,
    executed: GtidSet,
    semi_sync: bool,
    /// Within a transaction that the replica has.
    skipping: bool,
}

impl Dump<'_> {
    async fn send_all(mut self) -> Result<(), PacketError> {
        let mut logged = self.process.logged.subscribe();
        let mut at: Option<Place> = None;
        loop {
            logged.borrow_and_update();
            while let Some((file, offset, bytes)) = self.next_bytes(at.as_ref()) {
                if at.as_ref().is_none_or(|(before, _)| *before != file) {
                    self.rotate(&file).await?;
                }
                let end = self.send(&file, offset, &bytes).await?;
                at = Some((file, end));
            }
            self.writer.flush().await?;
            if timeout(HEARTBEAT, logged.changed()).await.is_err()
                && let Some((file, end)) = &at
            {
                self.process.unpaused().await;
                let server_id = self.process.settings.server_id;
                let event = heartbeat_v2(file, *end, server_id, ChecksumAlgorithm::Crc32);
                self.event(0, event).await?;
                self.writer.flush().await?;
            }
        }
    }

    /// What follows a place: the rest of its file, or the next one.
    fn next_bytes(&self, at: Option<&Place>) -> Option<(String, u64, Vec<u8>)> {
        self.process.with_folder(|folder| {
            let mut files = folder.binlogs.files.keys();
            let rest = |file: &str, from: u64| {
                let bytes = folder.binlogs.synced_bytes(file).get(from as usize..)?;
                (!bytes.is_empty()).then(|| (file.to_owned(), from, bytes.to_vec()))
            };
            match at {
                None => rest(files.next()?, FIRST_EVENT),
                Some((file, end)) => rest(file, *end).or_else(|| {
                    let next = files.find(|next| *next > file)?;
                    rest(next, FIRST_EVENT)
                }),
            }
        })?
    }

    async fn rotate(&mut self, file: &str) -> Result<(), PacketError> {
        let server_id = self.process.settings.server_id;
        let event = fake_rotate(file, FIRST_EVENT, server_id, ChecksumAlgorithm::Crc32);
        self.event(0, event).await
    }

    /// Where the events end.
    async fn send(&mut self, file: &str, from: u64, bytes: &[u8]) -> Result<u64, PacketError> {
        let mut end = from;
        for event in events(bytes) {
            end += event.bytes().len() as u64;
            if self.skips(&event) {
                continue;
            }
            self.process.unpaused().await;
            let waits = event.event_type() == EventType::XID
                && self.process.is_waiting(&(file.to_owned(), end));
            self.event(waits.into(), as_sent(&event)).await?;
        }
        Ok(end)
    }

    fn skips(&mut self, event: &Event) -> bool {
        if let Ok(gtid) = GtidEvent::parse(event) {
            self.skipping = self.executed.contains(gtid.gtid);
        }
        let in_transaction = !matches!(
            event.event_type(),
            EventType::FORMAT_DESCRIPTION | EventType::PREVIOUS_GTIDS | EventType::ROTATE
        );
        self.skipping && in_transaction
    }

    async fn event(&mut self, flag: u8, event: Bytes) -> Result<(), PacketError> {
        match self.semi_sync {
            true => {
                let head = Bytes::copy_from_slice(&[SEMI_SYNC_MAGIC, flag]);
                self.writer.event(&[head, event]).await
            }
            false => self.writer.event(&[event]).await,
        }
    }
}
