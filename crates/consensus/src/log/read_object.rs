use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use quorate_storage::{Error, LogRead, MetaKey, Record};
use quorate_types::LogIndex;

/// Any disk's reader, so that nothing above the log is generic over the disk.
#[derive(Clone)]
pub(crate) struct DiskReader(Arc<dyn Reads>);

impl DiskReader {
    pub(crate) fn new<R: LogRead>(reader: R) -> Self {
        Self(Arc::new(reader))
    }
}

trait Reads: Send + Sync {
    fn bounds(&self) -> Result<Option<(LogIndex, LogIndex)>, Error>;
    fn read(&self, range: Range<LogIndex>, bytes_max: usize) -> Result<Vec<Record>, Error>;
    fn read_accepted(&self, range: Range<LogIndex>, bytes_max: usize)
    -> Result<Vec<Record>, Error>;
    fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, Error>;
    fn disk_bytes(&self) -> Result<u64, Error>;
    fn free_bytes(&self) -> Result<Option<u64>, Error>;
}

impl<R: LogRead> Reads for R {
    fn bounds(&self) -> Result<Option<(LogIndex, LogIndex)>, Error> {
        LogRead::bounds(self)
    }

    fn read(&self, range: Range<LogIndex>, bytes_max: usize) -> Result<Vec<Record>, Error> {
        LogRead::read(self, range, bytes_max)
    }

    fn read_accepted(
        &self,
        range: Range<LogIndex>,
        bytes_max: usize,
    ) -> Result<Vec<Record>, Error> {
        LogRead::read_accepted(self, range, bytes_max)
    }

    fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, Error> {
        LogRead::meta(self, key)
    }

    fn disk_bytes(&self) -> Result<u64, Error> {
        LogRead::disk_bytes(self)
    }

    fn free_bytes(&self) -> Result<Option<u64>, Error> {
        LogRead::free_bytes(self)
    }
}

impl LogRead for DiskReader {
    fn bounds(&self) -> Result<Option<(LogIndex, LogIndex)>, Error> {
        self.0.bounds()
    }

    fn read(&self, range: Range<LogIndex>, bytes_max: usize) -> Result<Vec<Record>, Error> {
        self.0.read(range, bytes_max)
    }

    fn read_accepted(
        &self,
        range: Range<LogIndex>,
        bytes_max: usize,
    ) -> Result<Vec<Record>, Error> {
        self.0.read_accepted(range, bytes_max)
    }

    fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, Error> {
        self.0.meta(key)
    }

    fn disk_bytes(&self) -> Result<u64, Error> {
        self.0.disk_bytes()
    }

    fn free_bytes(&self) -> Result<Option<u64>, Error> {
        self.0.free_bytes()
    }
}
