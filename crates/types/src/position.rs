use std::fmt;
use std::sync::Arc;

/// A place in a server's binlog: after the event that ends at `offset` of `file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinlogPosition {
    pub file: Arc<str>,
    /// In bytes, 64 bits: the field in an event's header wraps at 4 GiB.
    pub offset: u64,
}

impl fmt::Display for BinlogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}
