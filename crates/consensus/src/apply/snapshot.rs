use bytes::Bytes;
use quorate_types::{
    ClonePermit, Command, Epoch, Gtid, GtidSet, Incarnation, LeaderId, LogId, LogIndex, NodeId,
    Term,
};

use super::codec::{CodecError, Reader, put_bytes, put_gtid, put_number};
use super::permit::Permits;
use super::record::AcceptedRecord;
use super::state::{Baseline, CurrentEpoch, OpenTransaction, State};

/// Everything that a node needs to go on from a log entry without those before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub state: State,
    /// The index of accepted transactions after the purge mark, ascending.
    pub records: Vec<SnapshotRecord>,
}

/// The index's part for one log entry, without places: who gets it does not have the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRecord {
    pub index: LogIndex,
    /// With their checksums.
    pub transactions: Vec<(Gtid, u32)>,
}

impl From<&AcceptedRecord> for SnapshotRecord {
    fn from(record: &AcceptedRecord) -> Self {
        let items = record.transactions.iter();
        Self {
            index: record.index,
            transactions: items.map(|item| (item.gtid, item.checksum)).collect(),
        }
    }
}

/// The last byte is the version.
const MAGIC: [u8; 8] = *b"QRTSNAP\x02";

impl Snapshot {
    /// Equal snapshots have equal bytes, on every node.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = MAGIC.to_vec();
        put_state(&mut out, &self.state);
        put_number(&mut out, self.records.len() as u64);
        let mut source = None;
        for record in &self.records {
            put_number(&mut out, record.index.0);
            put_number(&mut out, record.transactions.len() as u64);
            for (gtid, checksum) in &record.transactions {
                put_gtid(&mut out, &mut source, *gtid);
                out.extend_from_slice(&checksum.to_le_bytes());
            }
        }
        let crc32 = crc32fast::hash(&out);
        out.extend_from_slice(&crc32.to_le_bytes());
        out.into()
    }

    /// # Errors
    /// If the bytes are no snapshot of this version, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (body, crc32) = bytes.split_last_chunk().ok_or(CodecError::Short)?;
        let body_crc32 = crc32fast::hash(body);
        let rest = body.strip_prefix(&MAGIC).ok_or(CodecError::Version)?;
        if body_crc32 != u32::from_le_bytes(*crc32) {
            return Err(CodecError::Checksum);
        }
        let mut reader = Reader { rest };
        let state = read_state(&mut reader)?;
        let mut records: Vec<SnapshotRecord> = Vec::new();
        let mut source = None;
        // Counts are not trusted: each turn consumes bytes or fails, and nothing is reserved.
        for _ in 0..reader.number()? {
            let index = LogIndex(reader.number()?);
            if records.last().is_some_and(|last| last.index >= index) {
                return Err(CodecError::Illegal("order of records"));
            }
            let mut transactions = Vec::new();
            for _ in 0..reader.number()? {
                transactions.push((reader.gtid(&mut source)?, reader.u32()?));
            }
            records.push(SnapshotRecord {
                index,
                transactions,
            });
        }
        reader.end()?;
        Ok(Self { state, records })
    }
}

fn put_state(out: &mut Vec<u8>, state: &State) {
    put_bytes(out, &state.accepted.to_wire());
    match state.epoch {
        None => out.push(0),
        Some(CurrentEpoch { epoch, node }) => {
            out.push(1);
            put_log_id(out, epoch.0);
            put_number(out, node.0);
        }
    }
    match state.set_primary {
        None => out.push(0),
        Some(id) => {
            out.push(1);
            put_log_id(out, id);
        }
    }
    put_number(out, state.next_number);
    match state.open {
        None => out.push(0),
        Some(open) => {
            out.push(1);
            put_gtid(out, &mut None, open.gtid);
            put_number(out, open.first.0);
            put_number(out, open.next_part.into());
            put_number(out, open.length);
            out.extend_from_slice(&open.crc32.to_le_bytes());
        }
    }
    match state.baseline {
        Baseline::Open => out.push(0),
        Baseline::None => out.push(1),
        Baseline::Set { checksum } => {
            out.push(2);
            out.extend_from_slice(&checksum.to_le_bytes());
        }
    }
    // The log's own encoding, which is pinned and has one form for each value.
    for command in [
        Command::Members(state.members.clone()),
        Command::Settings(state.settings.clone()),
    ] {
        put_bytes(out, &quorate_wire::encode_command(&command));
    }
    put_number(out, state.purged.0);
    put_permits(out, state.permits);
}

fn put_permits(out: &mut Vec<u8>, permits: Permits) {
    put_number(out, permits.last_sequence);
    match permits.open {
        None => out.push(0),
        Some(permit) => {
            out.push(1);
            put_number(out, permit.recipient.0);
            out.extend_from_slice(&permit.incarnation.0.to_le_bytes());
            put_number(out, permit.donor.0);
            put_number(out, permit.pinned.0);
        }
    }
}

fn read_permits(reader: &mut Reader<'_>) -> Result<Permits, CodecError> {
    let last_sequence = reader.number()?;
    let open = match reader.array()? {
        [0] => None,
        [1] => Some(ClonePermit {
            recipient: NodeId(reader.number()?),
            incarnation: Incarnation(u64::from_le_bytes(reader.array()?)),
            donor: NodeId(reader.number()?),
            pinned: LogIndex(reader.number()?),
        }),
        _ => return Err(CodecError::Illegal("permit to clone")),
    };
    Ok(Permits {
        last_sequence,
        open,
    })
}

fn read_state(reader: &mut Reader<'_>) -> Result<State, CodecError> {
    let accepted = GtidSet::try_from_wire(reader.bytes()?)?;
    let epoch = match reader.array()? {
        [0] => None,
        [1] => Some(read_epoch(reader)?),
        _ => return Err(CodecError::Illegal("epoch")),
    };
    let set_primary = match reader.array()? {
        [0] => None,
        [1] => Some(read_log_id(reader)?),
        _ => return Err(CodecError::Illegal("last SetPrimary")),
    };
    let next_number = reader.number()?;
    let open = match reader.array()? {
        [0] => None,
        [1] => Some(read_open(reader)?),
        _ => return Err(CodecError::Illegal("open transaction")),
    };
    let baseline = match reader.array()? {
        [0] => Baseline::Open,
        [1] => Baseline::None,
        [2] => Baseline::Set {
            checksum: u64::from_le_bytes(reader.array()?),
        },
        _ => return Err(CodecError::Illegal("baseline")),
    };
    let Command::Members(members) = read_command(reader)? else {
        return Err(CodecError::Illegal("members"));
    };
    let Command::Settings(settings) = read_command(reader)? else {
        return Err(CodecError::Illegal("settings"));
    };
    Ok(State {
        accepted,
        epoch,
        set_primary,
        next_number,
        open,
        baseline,
        members,
        settings,
        purged: LogIndex(reader.number()?),
        permits: read_permits(reader)?,
        left_out: None,
    })
}

fn put_log_id(out: &mut Vec<u8>, id: LogId) {
    put_number(out, id.leader.term.0);
    put_number(out, id.leader.node.0);
    put_number(out, id.index.0);
}

fn read_log_id(reader: &mut Reader<'_>) -> Result<LogId, CodecError> {
    let leader = LeaderId {
        term: Term(reader.number()?),
        node: NodeId(reader.number()?),
    };
    let index = LogIndex(reader.number()?);
    Ok(LogId { leader, index })
}

fn read_epoch(reader: &mut Reader<'_>) -> Result<CurrentEpoch, CodecError> {
    Ok(CurrentEpoch {
        epoch: Epoch(read_log_id(reader)?),
        node: NodeId(reader.number()?),
    })
}

fn read_open(reader: &mut Reader<'_>) -> Result<OpenTransaction, CodecError> {
    let gtid = reader.gtid(&mut None)?;
    let first = LogIndex(reader.number()?);
    let next_part = u32::try_from(reader.number()?);
    Ok(OpenTransaction {
        gtid,
        first,
        next_part: next_part.map_err(|_| CodecError::Illegal("part"))?,
        length: reader.number()?,
        crc32: reader.u32()?,
    })
}

fn read_command(reader: &mut Reader<'_>) -> Result<Command, CodecError> {
    let bytes = Bytes::copy_from_slice(reader.bytes()?);
    Ok(quorate_wire::decode_command(bytes)?)
}
