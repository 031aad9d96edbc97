//! One number for the content of a transaction, as the server wrote it that committed it first.
//!
//! Hashed are the types and bodies of all its events, and nothing of their headers and CRCs: so it
//! is the same in that server's binlog, in its dump, and in what is made of either.
//!
//! A replica that applies the transaction logs it anew, in whatever form its own settings say (full
//! rows where there was a part of a JSON document, all columns where there were some, compressed or
//! not), and that has another number. See [`crate::Group::is_original`].

use crc32fast::Hasher;

use crate::event::{Event, EventType};

/// Bytes at the head of an event's body that are enough to judge it by.
///
/// The longest heads are those of `Query` events: 64 KiB of status variables, then the schema and
/// the beginning of the statement.
pub const HEAD_BYTES: usize = 128 << 10;

/// Makes the content checksum of one transaction after the other, event by event.
#[derive(Clone, Debug, Default)]
pub struct Checksummer {
    hasher: Hasher,
    /// Whether what goes on is of the transaction.
    inside: bool,
}

impl Checksummer {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event of the transaction, from the GTID event to the last.
    pub fn update(&mut self, event: &Event) {
        self.start(event.event_type(), event.body());
    }

    /// Begins an event with some of its body, or all of it.
    pub fn start(&mut self, event_type: EventType, head: &[u8]) {
        self.inside = true;
        self.hasher.update(&[event_type.0]);
        self.hasher.update(head);
    }

    /// Goes on with the current event's body.
    pub fn go_on(&mut self, bytes: &[u8]) {
        if self.inside {
            self.hasher.update(bytes);
        }
    }

    /// The checksum of the events since the last call; the next event begins a transaction.
    pub fn finish(&mut self) -> u32 {
        self.inside = false;
        std::mem::take(&mut self.hasher).finalize()
    }
}
