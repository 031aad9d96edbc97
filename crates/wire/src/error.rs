use quorate_types::{GtidParseError, GtidWireError, NodeId};

/// Why bytes, or a generated message, are no value of the domain.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not a message of the protocol")]
    Protobuf(#[from] prost::DecodeError),
    /// Written by a newer version: whoever applies the log stops before this entry.
    #[error("log payload of a kind that this version does not know")]
    UnknownPayload,
    #[error("field `{0}` is missing")]
    Missing(&'static str),
    #[error("field `{field}` has the illegal value {value}")]
    Value { field: &'static str, value: u64 },
    #[error("node {0} is listed twice")]
    DuplicateNode(NodeId),
    #[error("not a GTID")]
    Gtid(#[from] GtidParseError),
    #[error("not a GTID set")]
    GtidSet(#[from] GtidWireError),
}

impl DecodeError {
    /// Whether a newer version of this program would read the bytes.
    #[must_use]
    pub fn is_unknown_payload(&self) -> bool {
        matches!(self, Self::UnknownPayload)
    }
}
