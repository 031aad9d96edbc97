use bytes::Bytes;
use quorate_types::{Gtid, LogIndex};

use super::codec::{CodecError, Reader, put_gtid, put_number};

/// What the index of accepted transactions has for one log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedRecord {
    /// Of the entry; for a fragmented transaction, of its last part.
    pub index: LogIndex,
    pub transactions: Vec<AcceptedItem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedItem {
    pub gtid: Gtid,
    pub checksum: u32,
    pub place: Place,
}

/// Where an accepted transaction's events are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the record's entry: which of its transactions, from 0.
    Entry { position: u32 },
    /// In the fragments with its GTID from `first` to the record's entry. Between them there may
    /// be rejected ones, which a reader tells by their part numbers.
    Parts {
        first: LogIndex,
        /// Bytes of all parts together.
        length: u64,
    },
    /// In no entry of this node's log: a snapshot of another node brought the record.
    Nowhere,
}

impl AcceptedItem {
    /// Whether a log that begins with `first` has the events.
    #[must_use]
    pub fn is_in_log_from(&self, first: LogIndex) -> bool {
        match self.place {
            // Who has the record has its entry.
            Place::Entry { .. } => true,
            Place::Parts { first: begin, .. } => begin >= first,
            Place::Nowhere => false,
        }
    }
}

const PLACE_ENTRY: u8 = 0;
const PLACE_PARTS: u8 = 1;
const PLACE_NOWHERE: u8 = 2;

impl AcceptedRecord {
    /// The record without its index, under which the caller keeps it.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        let mut source = None;
        for item in &self.transactions {
            put_gtid(&mut out, &mut source, item.gtid);
            out.extend_from_slice(&item.checksum.to_le_bytes());
            match item.place {
                Place::Entry { position } => {
                    out.push(PLACE_ENTRY);
                    put_number(&mut out, position.into());
                }
                Place::Parts { first, length } => {
                    out.push(PLACE_PARTS);
                    put_number(&mut out, first.0);
                    put_number(&mut out, length);
                }
                Place::Nowhere => out.push(PLACE_NOWHERE),
            }
        }
        out.into()
    }

    /// # Errors
    /// If the bytes are not what [`AcceptedRecord::encode`] gives.
    pub fn decode(index: LogIndex, bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader { rest: bytes };
        let mut source = None;
        let mut transactions = Vec::new();
        while !reader.rest.is_empty() {
            let gtid = reader.gtid(&mut source)?;
            let checksum = reader.u32()?;
            let place = match reader.array()? {
                [PLACE_ENTRY] => {
                    let position = u32::try_from(reader.number()?);
                    Place::Entry {
                        position: position.map_err(|_| CodecError::Illegal("position"))?,
                    }
                }
                [PLACE_PARTS] => Place::Parts {
                    first: LogIndex(reader.number()?),
                    length: reader.number()?,
                },
                [PLACE_NOWHERE] => Place::Nowhere,
                _ => return Err(CodecError::Illegal("place")),
            };
            transactions.push(AcceptedItem {
                gtid,
                checksum,
                place,
            });
        }
        Ok(Self {
            index,
            transactions,
        })
    }
}
