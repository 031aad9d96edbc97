//! The bodies of the events that this crate looks into.

use quorate_types::GtidSet;

use crate::cursor::Cursor;
use crate::event::{Event, EventError, EventType};

/// Where the stream goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotate {
    pub position: u64,
    pub file: String,
}

impl Rotate {
    /// # Errors
    /// If the event is of another type or malformed.
    pub fn parse(event: &Event) -> Result<Self, EventError> {
        event.expect_type(EventType::ROTATE)?;
        let mut cursor = Cursor::new(event.body());
        Ok(Self {
            position: cursor.u64()?,
            file: file_name(cursor.rest())?,
        })
    }
}

/// A statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    pub thread_id: u32,
    pub error_code: u16,
    pub schema: &'a [u8],
    pub text: &'a [u8],
    /// Set on a statement that the engine commits or rolls back as a whole (atomic DDL).
    pub ddl_xid: Option<u64>,
}

impl<'a> Query<'a> {
    /// # Errors
    /// If the event is of another type or malformed.
    pub fn parse(event: &'a Event) -> Result<Self, EventError> {
        event.expect_type(EventType::QUERY)?;
        Self::parse_body(event.body())
    }

    /// Also takes a body that is cut off somewhere in the text.
    pub(crate) fn parse_body(body: &'a [u8]) -> Result<Self, EventError> {
        let mut cursor = Cursor::new(body);
        let thread_id = cursor.u32()?;
        let _seconds = cursor.u32()?;
        let schema_len = usize::from(cursor.u8()?);
        let error_code = cursor.u16()?;
        let variables_len = usize::from(cursor.u16()?);
        let variables = cursor.take(variables_len)?;
        let schema = cursor.take(schema_len)?;
        if cursor.u8()? != 0 {
            return Err(EventError::Malformed("schema name"));
        }
        Ok(Self {
            thread_id,
            error_code,
            schema,
            text: cursor.rest(),
            // What cannot be read is not there: without an xid a statement is not cut, but cloned.
            ddl_xid: ddl_xid(variables).unwrap_or(None),
        })
    }
}

/// Walks the status variables: a code, then a value whose length only the code tells.
fn ddl_xid(variables: &[u8]) -> Result<Option<u64>, EventError> {
    const DDL_LOGGED_WITH_XID: u8 = 17;
    const NAMES_LEFT_OUT: u8 = 254;
    let mut cursor = Cursor::new(variables);
    while !cursor.is_empty() {
        match cursor.u8()? {
            DDL_LOGGED_WITH_XID => return cursor.u64().map(Some),
            // Flags, auto increment, length in the source's binlog.
            0 | 3 | 10 => drop(cursor.take(4)?),
            // SQL mode, tables for update, commit timestamp.
            1 | 9 | 14 => drop(cursor.take(8)?),
            // Catalog in its old form, with a zero behind it.
            2 => {
                let len = cursor.u8()?;
                cursor.take(usize::from(len) + 1)?;
            }
            4 => drop(cursor.take(6)?),
            // Time zone, catalog.
            5 | 6 => skip_text(&mut cursor)?,
            // Names of the locale, collations.
            7 | 8 | 18 => drop(cursor.take(2)?),
            // Invoker: user and host.
            11 => {
                skip_text(&mut cursor)?;
                skip_text(&mut cursor)?;
            }
            12 => {
                let count = cursor.u8()?;
                for _ in 0..if count == NAMES_LEFT_OUT { 0 } else { count } {
                    while cursor.u8()? != 0 {}
                }
            }
            // Microseconds.
            13 => drop(cursor.take(3)?),
            // Defaults for timestamps, primary key required, default encryption.
            16 | 19 | 20 => drop(cursor.u8()?),
            _ => return Err(EventError::Malformed("status variable")),
        }
    }
    Ok(None)
}

fn skip_text(cursor: &mut Cursor<'_>) -> Result<(), EventError> {
    let len = cursor.u8()?;
    cursor.take(usize::from(len)).map(drop)
}

/// The set of a `Previous_gtids` event.
///
/// # Errors
/// If the event is of another type or holds no GTID set.
pub fn previous_gtids(event: &Event) -> Result<GtidSet, EventError> {
    event.expect_type(EventType::PREVIOUS_GTIDS)?;
    GtidSet::try_from_wire(event.body()).map_err(|_| EventError::Malformed("GTID set"))
}

/// The engine's transaction number in an `Xid` event.
///
/// # Errors
/// If the event is of another type or too short.
pub fn xid(event: &Event) -> Result<u64, EventError> {
    event.expect_type(EventType::XID)?;
    Cursor::new(event.body()).u64()
}

/// The end of the first phase of an XA transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XaPrepare<'a> {
    pub one_phase: bool,
    pub format_id: u32,
    pub global_id: &'a [u8],
    pub branch: &'a [u8],
}

impl<'a> XaPrepare<'a> {
    /// # Errors
    /// If the event is of another type or malformed.
    pub fn parse(event: &'a Event) -> Result<Self, EventError> {
        event.expect_type(EventType::XA_PREPARE)?;
        let mut cursor = Cursor::new(event.body());
        let one_phase = cursor.u8()? != 0;
        let format_id = cursor.u32()?;
        let (global, branch) = (cursor.u32()?, cursor.u32()?);
        Ok(Self {
            one_phase,
            format_id,
            global_id: cursor.take(global as usize)?,
            branch: cursor.take(branch as usize)?,
        })
    }
}

/// A sign of life: where the source is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    pub file: String,
    pub position: u64,
}

impl Heartbeat {
    /// Reads both forms; the first has the position in the header, in 32 bits.
    ///
    /// # Errors
    /// If the event is of another type or malformed.
    pub fn parse(event: &Event) -> Result<Self, EventError> {
        if event.event_type() == EventType::HEARTBEAT {
            return Ok(Self {
                file: file_name(event.body())?,
                position: u64::from(event.header().log_pos),
            });
        }
        event.expect_type(EventType::HEARTBEAT_V2)?;
        let mut cursor = Cursor::new(event.body());
        let mut heartbeat = Self::default();
        loop {
            let field = cursor.lenenc()?;
            if field == 0 {
                return Ok(heartbeat);
            }
            let len = usize::try_from(cursor.lenenc()?).map_err(|_| EventError::Short)?;
            let value = cursor.take(len)?;
            match field {
                1 => heartbeat.file = file_name(value)?,
                2 => heartbeat.position = Cursor::new(value).lenenc()?,
                _ => {}
            }
        }
    }
}

fn file_name(bytes: &[u8]) -> Result<String, EventError> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| EventError::Malformed("file name"))
}
