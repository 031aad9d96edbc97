use quorate_types::{
    Epoch, Gtid, GtidParseError, LeaderId, LogId, LogIndex, NodeId, SourceId, Tag, Term, Uuid,
};

use crate::{DecodeError, required, v1};

impl From<LogId> for v1::LogId {
    fn from(id: LogId) -> Self {
        Self {
            term: id.leader.term.0,
            node: id.leader.node.0,
            index: id.index.0,
        }
    }
}

impl From<v1::LogId> for LogId {
    fn from(id: v1::LogId) -> Self {
        Self {
            leader: LeaderId {
                term: Term(id.term),
                node: NodeId(id.node),
            },
            index: LogIndex(id.index),
        }
    }
}

impl From<Epoch> for v1::LogId {
    fn from(epoch: Epoch) -> Self {
        epoch.0.into()
    }
}

impl From<v1::LogId> for Epoch {
    fn from(id: v1::LogId) -> Self {
        Self(id.into())
    }
}

impl From<Uuid> for v1::Uuid {
    fn from(uuid: Uuid) -> Self {
        let number = u128::from_be_bytes(uuid.0);
        Self {
            high: (number >> 64) as u64,
            low: number as u64,
        }
    }
}

impl From<v1::Uuid> for Uuid {
    fn from(uuid: v1::Uuid) -> Self {
        let number = u128::from(uuid.high) << 64 | u128::from(uuid.low);
        Self(number.to_be_bytes())
    }
}

impl From<Gtid> for v1::Gtid {
    fn from(gtid: Gtid) -> Self {
        Self {
            uuid: Some(gtid.source.uuid.into()),
            tag: gtid.source.tag.as_str().to_owned(),
            sequence: gtid.sequence,
        }
    }
}

impl TryFrom<v1::Gtid> for Gtid {
    type Error = DecodeError;

    fn try_from(gtid: v1::Gtid) -> Result<Self, DecodeError> {
        if !(1..=Self::SEQUENCE_LAST).contains(&gtid.sequence) {
            return Err(DecodeError::Value {
                field: "gtid.sequence",
                value: gtid.sequence,
            });
        }
        let tag = if gtid.tag.is_empty() {
            Tag::EMPTY
        } else {
            gtid.tag.parse::<Tag>()?
        };
        // Parsing folds case, but one GTID has one encoding.
        if tag.as_str() != gtid.tag {
            return Err(GtidParseError::Tag(gtid.tag).into());
        }
        let uuid = required(gtid.uuid, "gtid.uuid")?.into();
        Ok(Self {
            source: SourceId { uuid, tag },
            sequence: gtid.sequence,
        })
    }
}
