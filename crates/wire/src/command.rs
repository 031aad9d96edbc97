use bytes::Bytes;
use prost::Message;
use quorate_types::{
    AcceptErrant, BinlogSource, ClonePermit, Cloning, Command, Fragment, FragmentEnd, GtidSet,
    Incarnation, LogIndex, NodeId, Settings, Transaction, TransactionBatch,
};
use v1::payload::Kind;

use crate::{DecodeError, required, v1};

/// The command as the log holds it, in one allocation of its size.
#[must_use]
pub fn encode_command(command: &Command) -> Bytes {
    Bytes::from(v1::Payload::from(command).encode_to_vec())
}

/// The length of what [`encode_command`] would give; copies no event.
#[must_use]
pub fn encoded_len(command: &Command) -> usize {
    v1::Payload::from(command).encoded_len()
}

/// Reads what [`encode_command`] wrote. Events stay slices of `bytes`.
///
/// # Errors
/// [`DecodeError::UnknownPayload`] for a kind that a newer version brought: stop before applying
/// it. Anything else is damage.
pub fn decode_command(bytes: Bytes) -> Result<Command, DecodeError> {
    v1::Payload::decode(bytes)?.try_into()
}

impl From<&Command> for v1::Payload {
    fn from(command: &Command) -> Self {
        let kind = match command {
            Command::SetPrimary { node } => Kind::SetPrimary(v1::SetPrimary {
                node: node.map(|node| node.0),
            }),
            Command::Baseline { gtid_set, checksum } => Kind::Baseline(v1::Baseline {
                gtid_set: gtid_set.to_wire().into(),
                checksum: *checksum,
            }),
            Command::Cloning(cloning) => Kind::Cloning(cloning.into()),
            Command::AcceptErrant(errant) => Kind::AcceptErrant(v1::AcceptErrant {
                node: errant.node.0,
                incarnation: errant.incarnation.0,
                executed_gtid_set: errant.executed.to_wire().into(),
            }),
            Command::Purge { upto } => Kind::Purge(v1::Purge { upto: upto.0 }),
            Command::Transactions(batch) => Kind::Transactions(batch.into()),
            Command::Fragment(fragment) => Kind::Fragment(fragment.into()),
            Command::Members(members) => Kind::Members(members.into()),
            Command::Settings(settings) => Kind::Settings(v1::Settings {
                apply_level: settings.apply_level,
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::Payload> for Command {
    type Error = DecodeError;

    fn try_from(payload: v1::Payload) -> Result<Self, DecodeError> {
        // An unknown field number leaves the choice empty.
        Ok(match payload.kind.ok_or(DecodeError::UnknownPayload)? {
            Kind::SetPrimary(set) => Self::SetPrimary {
                node: set.node.map(NodeId),
            },
            Kind::Baseline(baseline) => Self::Baseline {
                gtid_set: GtidSet::try_from_wire(&baseline.gtid_set)?,
                checksum: baseline.checksum,
            },
            Kind::Cloning(cloning) => Self::Cloning(cloning.into()),
            Kind::AcceptErrant(errant) => Self::AcceptErrant(AcceptErrant {
                node: NodeId(errant.node),
                incarnation: Incarnation(errant.incarnation),
                executed: GtidSet::try_from_wire(&errant.executed_gtid_set)?,
            }),
            Kind::Purge(purge) => Self::Purge {
                upto: LogIndex(purge.upto),
            },
            Kind::Transactions(batch) => Self::Transactions(batch.try_into()?),
            Kind::Fragment(fragment) => Self::Fragment(fragment.try_into()?),
            Kind::Members(list) => Self::Members(list.try_into()?),
            Kind::Settings(settings) => Self::Settings(Settings {
                apply_level: settings.apply_level,
            }),
        })
    }
}

impl From<&Cloning> for v1::Cloning {
    fn from(cloning: &Cloning) -> Self {
        Self {
            sequence: cloning.sequence,
            permit: cloning.permit.map(|permit| v1::ClonePermit {
                recipient: permit.recipient.0,
                incarnation: permit.incarnation.0,
                donor: permit.donor.0,
                pinned_index: permit.pinned.0,
            }),
        }
    }
}

impl From<v1::Cloning> for Cloning {
    fn from(cloning: v1::Cloning) -> Self {
        Self {
            sequence: cloning.sequence,
            permit: cloning.permit.map(|permit| ClonePermit {
                recipient: NodeId(permit.recipient),
                incarnation: Incarnation(permit.incarnation),
                donor: NodeId(permit.donor),
                pinned: LogIndex(permit.pinned_index),
            }),
        }
    }
}

impl From<&TransactionBatch> for v1::TransactionBatch {
    fn from(batch: &TransactionBatch) -> Self {
        Self {
            epoch: Some(batch.epoch.into()),
            first_number: batch.first_number,
            source: Some((&batch.source).into()),
            transactions: batch.transactions.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::TransactionBatch> for TransactionBatch {
    type Error = DecodeError;

    fn try_from(batch: v1::TransactionBatch) -> Result<Self, DecodeError> {
        let transactions = batch.transactions.into_iter().map(TryInto::try_into);
        Ok(Self {
            epoch: required(batch.epoch, "transactions.epoch")?.into(),
            first_number: batch.first_number,
            source: required(batch.source, "transactions.source")?.into(),
            transactions: transactions.collect::<Result<_, DecodeError>>()?,
        })
    }
}

impl From<&Transaction> for v1::Transaction {
    fn from(transaction: &Transaction) -> Self {
        Self {
            gtid: Some(transaction.gtid.into()),
            checksum: transaction.checksum,
            events: transaction.events.clone(),
        }
    }
}

impl TryFrom<v1::Transaction> for Transaction {
    type Error = DecodeError;

    fn try_from(transaction: v1::Transaction) -> Result<Self, DecodeError> {
        Ok(Self {
            gtid: required(transaction.gtid, "transaction.gtid")?.try_into()?,
            checksum: transaction.checksum,
            events: transaction.events,
        })
    }
}

impl From<&Fragment> for v1::Fragment {
    fn from(fragment: &Fragment) -> Self {
        Self {
            epoch: Some(fragment.epoch.into()),
            number: fragment.number,
            gtid: Some(fragment.gtid.into()),
            part: fragment.part,
            end: fragment.end.map(Into::into),
            source: Some((&fragment.source).into()),
            bytes: fragment.bytes.clone(),
        }
    }
}

impl TryFrom<v1::Fragment> for Fragment {
    type Error = DecodeError;

    fn try_from(fragment: v1::Fragment) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: required(fragment.epoch, "fragment.epoch")?.into(),
            number: fragment.number,
            gtid: required(fragment.gtid, "fragment.gtid")?.try_into()?,
            part: fragment.part,
            end: fragment.end.map(Into::into),
            source: required(fragment.source, "fragment.source")?.into(),
            bytes: fragment.bytes,
        })
    }
}

impl From<FragmentEnd> for v1::FragmentEnd {
    fn from(end: FragmentEnd) -> Self {
        Self {
            length: end.length,
            checksum: end.checksum,
            bytes_crc32: end.bytes_crc32,
        }
    }
}

impl From<v1::FragmentEnd> for FragmentEnd {
    fn from(end: v1::FragmentEnd) -> Self {
        Self {
            length: end.length,
            bytes_crc32: end.bytes_crc32,
            checksum: end.checksum,
        }
    }
}

impl From<&BinlogSource> for v1::BinlogSource {
    fn from(source: &BinlogSource) -> Self {
        Self {
            file: source.file.as_ref().to_owned(),
            format: source.format.clone(),
        }
    }
}

impl From<v1::BinlogSource> for BinlogSource {
    fn from(source: v1::BinlogSource) -> Self {
        Self {
            file: source.file.into(),
            format: source.format,
        }
    }
}

#[cfg(test)]
mod tests;
