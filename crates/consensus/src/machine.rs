//! The state machine as openraft wants it: owns `apply`'s state, publishes what it became, and
//! keeps the index of accepted transactions.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, alias};
use quorate_storage::{LogRead, MetaKey, Record, Write};
use quorate_types::{
    Command, Epoch, GtidSet, LogId, LogIndex, Members, NodeId, Outcome, Rule, Settings,
};
use tokio::sync::watch;

use crate::accepted::AcceptedIndex;
use crate::apply::{AcceptedItem, AcceptedRecord, Permits, Place, Snapshot, SnapshotRecord, State};
use crate::log::{Done, LogReader, Request, Writer};
use crate::snapshot::{self, SnapshotBytes};
use crate::types::{
    Applied, RaftEntry, RaftLogId, RaftSnapshotMeta, RaftStoredMembership, TypeConfig, log_id,
};

/// Entries that are published together at most; their outcomes wait for it.
const PUBLISH_MAX: usize = 256;

type RaftSnapshot = alias::SnapshotOf<TypeConfig, SnapshotBytes>;

/// What this node applied, as of one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedState {
    /// The last applied entry; none before the first.
    pub last: Option<LogId>,
    pub accepted: Arc<GtidSet>,
    pub epoch: Option<Epoch>,
    /// The current epoch's node.
    pub primary: Option<NodeId>,
    /// The last `SetPrimary` that took effect, whether it began an epoch or only ended one.
    pub set_primary: Option<LogId>,
    /// Of the next transaction that the epoch can bring.
    pub next_number: u64,
    pub members: Arc<Members>,
    pub settings: Settings,
    /// Of the data that the first server brought, if it brought any.
    pub baseline_checksum: Option<u64>,
    /// The first part of a fragmented transaction that is not complete.
    pub open_since: Option<LogIndex>,
    pub purged: LogIndex,
    pub permits: Permits,
}

impl AppliedState {
    /// Of the last applied entry.
    #[must_use]
    pub fn index(&self) -> LogIndex {
        self.last.map_or(LogIndex::ZERO, |last| last.index)
    }
}

/// What follows the applied state.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) state: watch::Receiver<Arc<AppliedState>>,
    pub(crate) index: watch::Receiver<LogIndex>,
    pub(crate) set_primary: watch::Receiver<Option<LogId>>,
}

pub(crate) struct Machine {
    state: State,
    last: Option<RaftLogId>,
    membership: RaftStoredMembership,
    log: LogReader,
    writer: Writer,
    accepted: AcceptedIndex,
    published: Arc<GtidSet>,
    members: Arc<Members>,
    to_state: watch::Sender<Arc<AppliedState>>,
    to_index: watch::Sender<LogIndex>,
    to_set_primary: watch::Sender<Option<LogId>>,
}

/// What was applied and is not published yet.
#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    answers: Vec<(ApplyResponder<TypeConfig>, Applied)>,
    entries: usize,
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Machine {
    /// Starts from the newest snapshot on the disk; openraft applies the log after it again.
    pub(crate) fn open(
        log: LogReader,
        writer: Writer,
        accepted: AcceptedIndex,
        left_out: Option<Rule>,
    ) -> io::Result<(Self, Published)> {
        let mut meta = RaftSnapshotMeta::default();
        let mut state = State::default();
        let stored = log
            .disk()
            .meta(MetaKey::Snapshot)
            .map_err(io::Error::other)?;
        if let Some(bytes) = stored {
            let (found, bytes) = snapshot::from_disk(bytes).map_err(invalid)?;
            meta = found;
            state = Snapshot::decode(&bytes).map_err(invalid)?.state;
        }
        state.leave_out(left_out);
        if let Some(last) = meta.last_log_id {
            let first = log.first().max(state.purged().next());
            accepted.load(log.disk(), first, LogIndex(last.index), state.accepted())?;
        }
        let (to_state, state_changes) = watch::channel(Arc::default());
        let (to_index, index_changes) = watch::channel(LogIndex::ZERO);
        let (to_set_primary, set_primary_changes) = watch::channel(None);
        let members = Arc::new(state.members().clone());
        let mut machine = Self {
            state,
            last: meta.last_log_id,
            membership: meta.last_membership,
            log,
            writer,
            accepted,
            published: Arc::default(),
            members,
            to_state,
            to_index,
            to_set_primary,
        };
        machine.publish();
        let published = Published {
            state: state_changes,
            index: index_changes,
            set_primary: set_primary_changes,
        };
        Ok((machine, published))
    }

    async fn apply_entry(
        &mut self,
        entry: RaftEntry,
        responder: Option<ApplyResponder<TypeConfig>>,
        batch: &mut Batch,
    ) -> io::Result<()> {
        self.last = Some(entry.log_id);
        batch.entries += 1;
        let outcome = match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Membership(membership) => {
                self.membership = RaftStoredMembership::new(Some(entry.log_id), membership);
                None
            }
            EntryPayload::Normal(command) => Some(
                self.apply_command(log_id(entry.log_id), &command.command, batch)
                    .await?,
            ),
        };
        if let Some(responder) = responder {
            batch.answers.push((responder, Applied(outcome)));
        }
        Ok(())
    }

    async fn apply_command(
        &mut self,
        id: LogId,
        command: &Command,
        batch: &mut Batch,
    ) -> io::Result<Outcome> {
        if !State::understands(command) {
            return Err(invalid(format!(
                "entry {id} needs a newer program: its apply level is not known here"
            )));
        }
        let purged = self.state.purged();
        let (outcome, record) = self.state.apply(id, command);
        if let Some(record) = record {
            batch.records.push(Record {
                index: record.index,
                bytes: record.encode(),
            });
            self.accepted.push(Arc::new(record), self.state.accepted());
        }
        match command {
            // Its transactions are in no entry.
            Command::Baseline { gtid_set, .. } if outcome == Outcome::Done => {
                self.accepted.make_unreadable(gtid_set, None);
            }
            // Nor are these, and whoever has them has all that was accepted before.
            Command::AcceptErrant(_) if outcome == Outcome::Done => {
                self.accepted.begin_anew(self.state.accepted(), id.index);
            }
            Command::Members(_) => self.members = Arc::new(self.state.members().clone()),
            Command::Purge { .. } if self.state.purged() > purged => {
                self.trim(purged, batch).await?;
            }
            _ => {}
        }
        Ok(outcome)
    }

    /// Trims the index of accepted transactions up to the state's purge mark.
    async fn trim(&mut self, from: LogIndex, batch: &mut Batch) -> io::Result<()> {
        let upto = self.state.purged();
        let last = LogIndex(self.last.map_or(0, |last| last.index));
        self.put_records(batch).await?;
        let index = self.accepted.clone();
        let gtids = self
            .log
            .on_disk(move |disk| index.gtids_upto(disk, (from.next(), upto), last))
            .await??;
        // Before anything is gone: whoever asks now is refused, not given less.
        self.accepted.make_unreadable(&gtids, Some(upto));
        let write = Write::PurgeAcceptedTo(upto);
        Ok(self.writer.write_soon(vec![write]).await?)
    }

    /// Hands the records to the writer. They need no sync of their own: after a crash the entries
    /// are applied again from the last snapshot, and the records written again.
    async fn put_records(&self, batch: &mut Batch) -> io::Result<()> {
        let records = std::mem::take(&mut batch.records);
        let Some(last) = records.last().map(|record| record.index) else {
            return Ok(());
        };
        let request = Request {
            writes: vec![Write::PutAccepted(records)],
            done: Done::Indexed(last),
        };
        Ok(self.writer.send(request).await?)
    }

    /// Makes what was applied visible, then answers: who hears an outcome finds it published.
    async fn finish(&mut self, mut batch: Batch) -> io::Result<()> {
        self.put_records(&mut batch).await?;
        self.publish();
        for (responder, applied) in batch.answers {
            responder.send(applied);
        }
        Ok(())
    }

    fn publish(&mut self) {
        if *self.published != *self.state.accepted() {
            self.published = Arc::new(self.state.accepted().clone());
        }
        let state = AppliedState {
            last: self.last.map(log_id),
            accepted: self.published.clone(),
            epoch: self.state.epoch(),
            primary: self.state.primary(),
            set_primary: self.state.set_primary(),
            next_number: self.state.next_number(),
            members: self.members.clone(),
            settings: self.state.settings().clone(),
            baseline_checksum: self.state.baseline_checksum(),
            open_since: self.state.open_since(),
            purged: self.state.purged(),
            permits: self.state.permits(),
        };
        let (index, set_primary) = (state.index(), state.set_primary);
        self.to_state.send_replace(Arc::new(state));
        self.to_set_primary.send_if_modified(|known| {
            let changed = *known != set_primary;
            *known = set_primary;
            changed
        });
        self.to_index.send_replace(index);
    }

    fn meta(&self) -> RaftSnapshotMeta {
        RaftSnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
        }
    }
}

/// Builds a snapshot of the state as it was when this was made.
pub(crate) struct Builder {
    meta: RaftSnapshotMeta,
    state: State,
    writer: Writer,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotBytes;

    /// Makes the state durable. The index of accepted transactions is not in it: its records up
    /// to here were handed to the same writer before, so they are on the disk when this is.
    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        let snapshot = Snapshot {
            state: self.state.clone(),
            records: Vec::new(),
        };
        let bytes = snapshot.encode();
        let write = Write::SetMeta(MetaKey::Snapshot, snapshot::to_disk(&self.meta, &bytes));
        self.writer.write_synced(vec![write]).await?;
        Ok(RaftSnapshot {
            meta: self.meta.clone(),
            snapshot: SnapshotBytes(bytes),
        })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotBytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, RaftStoredMembership)> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batch = Batch::default();
        while let Some((entry, responder)) = entries.try_next().await? {
            self.apply_entry(entry, responder, &mut batch).await?;
            if batch.entries >= PUBLISH_MAX {
                self.finish(std::mem::take(&mut batch)).await?;
            }
        }
        self.finish(batch).await
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            meta: self.meta(),
            state: self.state.clone(),
            writer: self.writer.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &RaftSnapshotMeta,
        data: SnapshotBytes,
    ) -> io::Result<()> {
        let Snapshot { mut state, records } = Snapshot::decode(&data.0).map_err(invalid)?;
        state.leave_out(self.state.left_out());
        let own = Snapshot {
            state: state.clone(),
            records: Vec::new(),
        };
        let records = records.into_iter().map(without_places).collect();
        let writes = vec![
            Write::ClearAccepted,
            Write::PutAccepted(records),
            Write::SetMeta(MetaKey::Snapshot, snapshot::to_disk(meta, &own.encode())),
        ];
        self.writer.write_synced(writes).await?;
        let last = meta.last_log_id.map_or(0, |last| last.index);
        self.accepted.replace(state.accepted(), LogIndex(last));
        self.members = Arc::new(state.members().clone());
        self.state = state;
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
        Ok(())
    }

    /// The snapshot on the disk, for a node that needs it: with the index, which it lacks there.
    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        let read = self.log.on_disk(|disk| {
            let stored = disk.meta(MetaKey::Snapshot).map_err(io::Error::other)?;
            let Some(bytes) = stored else {
                return Ok(None);
            };
            let (meta, bytes) = snapshot::from_disk(bytes).map_err(invalid)?;
            let mut snapshot = Snapshot::decode(&bytes).map_err(invalid)?;
            let last = LogIndex(meta.last_log_id.map_or(0, |last| last.index));
            let first = snapshot.state.purged().next();
            let records = &mut snapshot.records;
            crate::accepted::for_each_record(disk, first, last, |record| {
                records.push(SnapshotRecord::from(&record));
            })?;
            Ok(Some(RaftSnapshot {
                meta,
                snapshot: SnapshotBytes(snapshot.encode()),
            }))
        });
        read.await?
    }
}

/// A record of entries that this node does not have: the checksums count, the places lead nowhere.
fn without_places(record: SnapshotRecord) -> Record {
    let items = record.transactions.into_iter();
    let transactions = items.map(|(gtid, checksum)| AcceptedItem {
        gtid,
        checksum,
        place: Place::Nowhere,
    });
    let record = AcceptedRecord {
        index: record.index,
        transactions: transactions.collect(),
    };
    Record {
        index: record.index,
        bytes: record.encode(),
    }
}

#[cfg(test)]
mod tests {
    use quorate_storage::{LogDisk, MemoryDisk};
    use quorate_types::{Gtid, SourceId, Uuid};

    use super::*;
    use crate::log::DiskReader;

    /// A crash may come after a snapshot arrived and before the log that it replaces is gone.
    #[test]
    fn records_of_another_node_s_snapshot_are_never_readable() {
        let gtid = Gtid {
            source: SourceId::from(Uuid([1; 16])),
            sequence: 3,
        };
        let record = SnapshotRecord {
            index: LogIndex(7),
            transactions: vec![(gtid, 1)],
        };
        let mut disk = MemoryDisk::new();
        disk.write(vec![Write::PutAccepted(vec![without_places(record)])])
            .unwrap();
        let reader = DiskReader::new(disk.reader());
        let accepted: GtidSet = [gtid].into_iter().collect();
        let index = AcceptedIndex::default();
        index
            .load(&reader, LogIndex(1), LogIndex(9), &accepted)
            .unwrap();
        assert_eq!(*index.unreadable(), accepted);
    }
}
