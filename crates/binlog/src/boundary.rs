//! Where transactions begin and end in a stream of events.

use crate::body::Query;
use crate::event::{Event, EventError, EventHeader, EventType, FLAG_IGNORABLE};
use crate::gtid_event::GtidEvent;

/// Why a stream of events is no sequence of transactions that we can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error("transaction without a GTID: gtid_mode must be ON")]
    Anonymous,
    #[error("{0:?} event outside of a transaction")]
    Outside(EventType),
    #[error("{0:?} event in the middle of a transaction")]
    Inside(EventType),
    #[error("event of an unknown type, {0}, that cannot be left out")]
    Unknown(u8),
    #[error("the stream was broken by an earlier error")]
    Broken,
}

/// What one event does to the sequence of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It belongs to no transaction; its type says what it is for.
    Outside,
    /// The first event of a transaction.
    Begin(GtidEvent),
    /// In a transaction.
    Within,
    /// The last event of the transaction.
    End(Ending),
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `Xid` event: an engine with transactions committed rows.
    Xid,
    /// `COMMIT` without an xid: an engine without transactions, or nothing at all.
    Commit,
    /// `ROLLBACK` that had to be logged, since something in it cannot be rolled back.
    Rollback,
    /// One statement without `BEGIN`: DDL, account statements, FLUSH, XA COMMIT, XA ROLLBACK.
    Statement,
    /// First phase of an XA transaction.
    XaPrepare,
    /// One event that holds all the others, compressed.
    Payload,
    /// The server says that it lost events.
    Incident,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Outside,
    /// After the GTID event, or what belongs to a statement and precedes it.
    Begun,
    /// After `BEGIN` or `XA START`.
    Open,
    Broken,
}

/// Finds transactions in the events of a dump stream or a file, by the events alone.
///
/// It keeps one byte of state and no event: whoever feeds it decides what to buffer. After an
/// error it refuses everything, since what follows cannot be told apart any more.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    state: State,
}

impl Assembler {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a transaction has begun and not ended.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        matches!(self.state, State::Begun | State::Open)
    }

    /// # Errors
    /// If the event cannot follow those before it, or has no GTID.
    pub fn push(&mut self, event: &Event) -> Result<Step, AssembleError> {
        self.push_head(event.header(), event.body())
    }

    /// Like `push`, for an event that is too large to be held: the body may be cut off after
    /// [`crate::HEAD_BYTES`], which hold what tells a statement's kind.
    ///
    /// # Errors
    /// If the event cannot follow those before it, or has no GTID.
    pub fn push_head(&mut self, header: &EventHeader, body: &[u8]) -> Result<Step, AssembleError> {
        let step = self.judge(header, body);
        self.state = match &step {
            Ok((_, next)) => *next,
            Err(_) => State::Broken,
        };
        step.map(|(step, _)| step)
    }

    fn judge(&self, header: &EventHeader, body: &[u8]) -> Result<(Step, State), AssembleError> {
        let state = self.state;
        let event_type = header.event_type;
        let end = |ending| Ok((Step::End(ending), State::Outside));
        let outside = Err(AssembleError::Outside(event_type));
        let inside = Err(AssembleError::Inside(event_type));
        match (event_type, state) {
            (_, State::Broken) => Err(AssembleError::Broken),
            // A sign of life may come anywhere and is not part of the binlog.
            (EventType::HEARTBEAT | EventType::HEARTBEAT_V2, _) => Ok((Step::Outside, state)),
            (EventType::ANONYMOUS_GTID, _) => Err(AssembleError::Anonymous),
            (EventType::GTID | EventType::GTID_TAGGED, State::Outside) => {
                let gtid = GtidEvent::parse_body(event_type, body)?;
                Ok((Step::Begin(gtid), State::Begun))
            }
            (EventType::GTID | EventType::GTID_TAGGED, _) => inside,
            (EventType::INCIDENT, State::Outside) => outside,
            (EventType::INCIDENT, _) => end(Ending::Incident),
            (
                EventType::ROTATE
                | EventType::FORMAT_DESCRIPTION
                | EventType::PREVIOUS_GTIDS
                | EventType::STOP,
                _,
            ) => match state {
                State::Outside => Ok((Step::Outside, state)),
                _ => inside,
            },
            (EventType::QUERY, State::Outside) => outside,
            (EventType::QUERY, _) => statement(Query::parse_body(body)?.text, state),
            (EventType::XID, State::Open) => end(Ending::Xid),
            (EventType::XA_PREPARE, State::Open) => end(Ending::XaPrepare),
            (EventType::TRANSACTION_PAYLOAD, State::Begun) => end(Ending::Payload),
            (EventType::XID | EventType::XA_PREPARE | EventType::TRANSACTION_PAYLOAD, _) => {
                if state == State::Outside {
                    outside
                } else {
                    inside
                }
            }
            // Rows and what else is only found between BEGIN and its end.
            (
                EventType::TABLE_MAP
                | EventType::BEGIN_LOAD_QUERY
                | EventType::EXECUTE_LOAD_QUERY
                | EventType::VIEW_CHANGE,
                State::Outside | State::Begun,
            ) => outside,
            (rows, State::Outside | State::Begun) if rows.is_rows() => outside,
            (EventType::INTVAR | EventType::RAND | EventType::USER_VAR, State::Outside) => outside,
            (known, State::Outside)
                if known.name().is_some() || header.flags & FLAG_IGNORABLE != 0 =>
            {
                Ok((Step::Outside, state))
            }
            (known, _) if known.name().is_some() || header.flags & FLAG_IGNORABLE != 0 => {
                Ok((Step::Within, state))
            }
            (EventType(code), _) => Err(AssembleError::Unknown(code)),
        }
    }
}

fn statement(text: &[u8], state: State) -> Result<(Step, State), AssembleError> {
    let end = |ending| Ok((Step::End(ending), State::Outside));
    let begins = text == b"BEGIN" || starts_with(text, b"XA START");
    match state {
        State::Begun if begins => Ok((Step::Within, State::Open)),
        State::Open if begins => Err(AssembleError::Inside(EventType::QUERY)),
        // An XA transaction that was not prepared ends with this.
        State::Open if text == b"COMMIT" => end(Ending::Commit),
        State::Open if starts_with(text, b"XA ROLLBACK") => end(Ending::Rollback),
        State::Open if starts_with(text, b"ROLLBACK") && !starts_with(text, b"ROLLBACK TO ") => {
            end(Ending::Rollback)
        }
        State::Open => Ok((Step::Within, State::Open)),
        _ => end(Ending::Statement),
    }
}

fn starts_with(text: &[u8], upper: &[u8]) -> bool {
    text.get(..upper.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(upper))
}
