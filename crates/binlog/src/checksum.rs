//! One number for the content of a transaction, equal on every server that has it.
//!
//! A replica writes the transactions that it applies to its own binlog anew: other positions,
//! table ids, xids, thread ids, clocks, commit times, status variables, row events of another
//! length. What stays, and is hashed, in the order of the events:
//!
//! - GTID event: source, tag, sequence number, and the time of the first commit.
//! - Query: schema and text; of `BEGIN` and `COMMIT` nothing, of XA statements the text.
//! - Rows: for each run of row events of one kind, table and set of columns: the kind, the table's
//!   schema, name, column types and their metadata, the columns, then the rows themselves, then
//!   the number of their bytes. Where one event of the run ends and the next begins is not
//!   hashed, so a run that is split otherwise gives the same number.
//! - `XA_PREPARE`: all of its body (the client's XA id).
//! - Transaction payload: its uncompressed size and the compressed bytes as they are. A server
//!   that compresses otherwise, or not at all, gives another number: a known limit. (A replica
//!   passes a payload on as it came.)
//! - Any other event, but those of the list below: type and body.
//!
//! Nothing is hashed of: headers, CRCs, `Xid`, `Rows_query`, ignorable events, table maps without
//! rows, null bitmaps and optional metadata of table maps, extra data and flags of row events.

use crc32fast::Hasher;

use crate::body::{PayloadHeader, Query};
use crate::cursor::Cursor;
use crate::event::{Event, EventError, EventType};
use crate::gtid_event::GtidEvent;

/// Bytes at the head of an event's body that are enough to tell what of it is content.
///
/// The longest heads are those of row events: 64 KiB of extra data and two sets of columns.
pub const HEAD_BYTES: usize = 128 << 10;

const STATEMENT_END: u16 = 1;

/// What a run of row events has in common, and how many bytes of rows it had so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Run {
    kind: u8,
    table: u64,
    columns: u32,
}

/// Makes the content checksum of one transaction after the other, event by event.
///
/// It allocates only when a statement maps more tables than any before it.
#[derive(Clone, Debug, Default)]
pub struct Checksummer {
    hasher: Hasher,
    /// The mapped tables of the statement: id and digest, sorted by id.
    tables: Vec<(u64, u64)>,
    run: Option<(Run, u64)>,
    /// Whether the rest of the current event is content, and of a run.
    rest: Rest,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rest {
    #[default]
    Skipped,
    Hashed,
    Rows,
}

impl Checksummer {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event of the transaction, from the GTID event to the last.
    ///
    /// # Errors
    /// If the event is malformed, or has rows of a table that was not mapped.
    pub fn update(&mut self, event: &Event) -> Result<(), EventError> {
        self.start(event.event_type(), event.body())
    }

    /// The checksum of the events since the last call; the next event begins a transaction.
    pub fn finish(&mut self) -> u32 {
        self.end_run();
        self.tables.clear();
        self.rest = Rest::Skipped;
        std::mem::take(&mut self.hasher).finalize()
    }

    /// Begins an event with the first [`HEAD_BYTES`] of its body, or all of it.
    ///
    /// # Errors
    /// If the event is malformed, or has rows of a table that was not mapped.
    pub fn start(&mut self, event_type: EventType, head: &[u8]) -> Result<(), EventError> {
        self.rest = Rest::Skipped;
        match event_type {
            EventType::XID | EventType::ROWS_QUERY | EventType::IGNORABLE => Ok(()),
            EventType::TABLE_MAP => self.map_table(head),
            EventType::GTID | EventType::GTID_TAGGED => {
                let gtid = GtidEvent::parse_body(event_type, head)?;
                self.add_gtid(&gtid);
                Ok(())
            }
            EventType::QUERY => self.add_query(head),
            EventType::TRANSACTION_PAYLOAD => {
                let header = PayloadHeader::parse_body(head)?;
                self.end_run();
                self.hasher.update(&[event_type.0]);
                self.hasher.update(&header.uncompressed_bytes.to_le_bytes());
                self.hash(&head[header.payload_at..]);
                Ok(())
            }
            rows if rows.is_rows() => self.add_rows(rows, head),
            other => {
                self.end_run();
                self.hasher.update(&[other.0]);
                self.hash(head);
                Ok(())
            }
        }
    }

    /// Goes on with the current event's body.
    pub fn go_on(&mut self, bytes: &[u8]) {
        match (self.rest, &mut self.run) {
            (Rest::Skipped, _) => return,
            (Rest::Rows, Some((_, len))) => *len += bytes.len() as u64,
            _ => {}
        }
        self.hasher.update(bytes);
    }

    fn hash(&mut self, bytes: &[u8]) {
        self.rest = Rest::Hashed;
        self.hasher.update(bytes);
    }

    pub(crate) fn add_gtid(&mut self, event: &GtidEvent) {
        self.end_run();
        let tag = event.gtid.source.tag;
        self.hasher.update(&event.gtid.source.uuid.0);
        self.hasher.update(&[tag.as_str().len() as u8]);
        self.hasher.update(tag.as_str().as_bytes());
        self.hasher.update(&event.gtid.sequence.to_le_bytes());
        self.hasher.update(&event.original_commit_us.to_le_bytes());
    }

    fn add_query(&mut self, head: &[u8]) -> Result<(), EventError> {
        let query = Query::parse_body(head)?;
        self.end_run();
        if !matches!(query.text, b"BEGIN" | b"COMMIT") {
            // A replica forgets it between the `START` and the `END`.
            let schema: &[u8] = match query.text.starts_with(b"XA ") {
                true => &[],
                false => query.schema,
            };
            self.hasher
                .update(&[EventType::QUERY.0, schema.len() as u8]);
            self.hasher.update(schema);
            self.hash(query.text);
        }
        Ok(())
    }

    fn map_table(&mut self, body: &[u8]) -> Result<(), EventError> {
        let mut cursor = Cursor::new(body);
        let id = cursor.uint(6)?;
        let _flags = cursor.u16()?;
        let described = cursor.rest();
        for _ in 0..2 {
            let len = cursor.u8()?;
            cursor.take(usize::from(len) + 1)?;
        }
        for _ in 0..2 {
            // The types of the columns, then what is needed to read their values.
            let len = usize::try_from(cursor.lenenc()?).map_err(|_| EventError::Short)?;
            cursor.take(len)?;
        }
        let described = &described[..described.len() - cursor.rest().len()];
        let digest = (described.len() as u64) << 32 | u64::from(crc32fast::hash(described));
        match self.tables.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => self.tables[at].1 = digest,
            Err(at) => self.tables.insert(at, (id, digest)),
        }
        Ok(())
    }

    fn add_rows(&mut self, event_type: EventType, head: &[u8]) -> Result<(), EventError> {
        let mut cursor = Cursor::new(head);
        let id = cursor.uint(6)?;
        let flags = cursor.u16()?;
        if event_type.0 >= EventType::WRITE_ROWS.0 {
            // The length counts itself.
            let extra = usize::from(cursor.u16()?).checked_sub(2);
            cursor.take(extra.ok_or(EventError::Malformed("extra data"))?)?;
        }
        let columns = usize::try_from(cursor.lenenc()?).map_err(|_| EventError::Short)?;
        let sets = match event_type {
            EventType::UPDATE_ROWS | EventType::UPDATE_ROWS_V1 | EventType::PARTIAL_UPDATE_ROWS => {
                2
            }
            _ => 1,
        };
        let bits = columns.div_ceil(8).checked_mul(sets);
        let used = cursor.take(bits.ok_or(EventError::Short)?)?;
        let rows = cursor.rest();
        // A dummy that only ends a statement, with a table id of its own, has no rows.
        if !rows.is_empty() {
            let table = self
                .tables
                .binary_search_by_key(&id, |(id, _)| *id)
                .map(|at| self.tables[at].1)
                .map_err(|_| EventError::Malformed("table id"))?;
            self.enter_run(Run {
                kind: event_type.0,
                table,
                columns: crc32fast::hash(used),
            });
            self.rest = Rest::Rows;
            self.go_on(rows);
        }
        if flags & STATEMENT_END != 0 {
            self.tables.clear();
        }
        Ok(())
    }

    fn enter_run(&mut self, run: Run) {
        if self.run.is_some_and(|(current, _)| current == run) {
            return;
        }
        self.end_run();
        self.hasher.update(&[run.kind]);
        self.hasher.update(&run.table.to_le_bytes());
        self.hasher.update(&run.columns.to_le_bytes());
        self.run = Some((run, 0));
    }

    fn end_run(&mut self) {
        if let Some((_, len)) = self.run.take() {
            self.hasher.update(&len.to_le_bytes());
        }
    }
}
