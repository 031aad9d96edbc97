use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

/// How often a waiting caller asks again. Polling, unlike a blocking `flock`, can be cancelled.
const RETRY: Duration = Duration::from_millis(100);

/// An exclusive lock of the machine, held until dropped or until the process ends.
///
/// The file stays when the lock goes: removing it would let two holders lock two files of one name.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock, or gives `None` if another process (or another open of it here) holds it.
    pub fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the lock without a bound; dropping the future gives up.
    pub async fn acquire(path: &Path) -> io::Result<Self> {
        loop {
            if let Some(lock) = Self::try_acquire(path)? {
                return Ok(lock);
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// The lock that tests and benchmarks with real servers share, so that only one cluster at a time
/// uses the machine.
///
/// Each user has a lock file of their own, since a file in the temp folder of another user could
/// not be opened.
pub async fn machine_lock() -> io::Result<FileLock> {
    FileLock::acquire(&machine_lock_path()).await
}

fn machine_lock_path() -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    std::env::temp_dir().join(format!("quorate-real-servers-{user}.lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = FileLock::acquire(&path).await.unwrap();
        assert!(FileLock::try_acquire(&path).unwrap().is_none());
        drop(held);
        assert!(FileLock::try_acquire(&path).unwrap().is_some());
    }
}
