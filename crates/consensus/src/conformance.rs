//! openraft's own tests of log stores and state machines, on both of our disks.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use quorate_storage::{MemoryDisk, Options, SledDisk};
use tempfile::TempDir;

use crate::accepted::AcceptedIndex;
use crate::log::{Exec, LogStore};
use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::types::TypeConfig;

struct InMemory(Exec);
struct OnSled(Exec);

fn open<D: quorate_storage::LogDisk>(disk: D, exec: Exec) -> (LogStore, Machine) {
    let index = AcceptedIndex::default();
    let indexed = index.clone();
    let on_indexed = Box::new(move |last| indexed.on_indexed(last));
    let store = LogStore::open(disk, exec, on_indexed, Metrics::default()).expect("open");
    let (machine, _) = Machine::open(store.reader(), store.writer(), index, None).expect("open");
    (store, machine)
}

impl StoreBuilder<TypeConfig, LogStore, Machine> for InMemory {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError<TypeConfig>> {
        let (store, machine) = open(MemoryDisk::new(), self.0);
        Ok(((), store, machine))
    }
}

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for OnSled {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = TempDir::new().expect("a folder");
        let disk = SledDisk::open(dir.path(), &Options::default()).expect("open");
        let (store, machine) = open(disk, self.0);
        Ok((dir, store, machine))
    }
}

#[tokio::test]
async fn the_memory_disk_inline_passes_openrafts_suite() {
    Suite::test_all(InMemory(Exec::Inline)).await.expect("pass");
}

#[tokio::test]
async fn the_memory_disk_with_a_task_passes_openrafts_suite() {
    Suite::test_all(InMemory(Exec::Task)).await.expect("pass");
}

#[tokio::test]
async fn the_memory_disk_with_a_writer_thread_passes_openrafts_suite() {
    Suite::test_all(InMemory(Exec::WriterThread))
        .await
        .expect("pass");
}

#[tokio::test]
async fn sled_with_a_writer_thread_passes_openrafts_suite() {
    Suite::test_all(OnSled(Exec::WriterThread))
        .await
        .expect("pass");
}
