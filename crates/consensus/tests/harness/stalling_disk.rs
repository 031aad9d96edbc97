use std::sync::{Arc, Condvar, Mutex, PoisonError};

use quorate_storage::{Error, LogDisk, MemoryDisk, Write};

/// Says whether syncs hang.
#[derive(Clone, Default)]
pub(crate) struct Stall(Arc<(Mutex<bool>, Condvar)>);

impl Stall {
    pub(crate) fn set(&self, stalled: bool) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = stalled;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let stalled = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = self.0.1.wait_while(stalled, |stalled| *stalled);
        drop(passed.unwrap_or_else(PoisonError::into_inner));
    }
}

/// A disk whose syncs can be made to hang, as those of a dying device do.
pub(crate) struct StallingDisk {
    pub(crate) disk: MemoryDisk,
    pub(crate) stall: Stall,
}

impl LogDisk for StallingDisk {
    type Reader = <MemoryDisk as LogDisk>::Reader;

    fn write(&mut self, writes: Vec<Write>) -> Result<(), Error> {
        self.disk.write(writes)
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.stall.wait();
        self.disk.sync()
    }

    fn reader(&self) -> Self::Reader {
        self.disk.reader()
    }

    fn disk_bytes(&self) -> Result<u64, Error> {
        self.disk.disk_bytes()
    }
}
