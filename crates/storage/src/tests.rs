mod damage;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_types::LogIndex;
use tempfile::TempDir;

use crate::suite::{Machine, record, records, run};
use crate::{Error, LogDisk, LogRead, MemoryDisk, MetaKey, Options, SledDisk, Write};

struct MemoryMachine(MemoryDisk);

impl Machine for MemoryMachine {
    type Disk = MemoryDisk;

    fn open(&mut self) -> MemoryDisk {
        self.0.reopen()
    }

    fn crash(&mut self, _disk: MemoryDisk, seed: u64) {
        self.0.crash(seed);
    }
}

/// A process that dies: what it wrote to its files stays, what it had in memory does not.
struct SledMachine(TempDir);

impl Machine for SledMachine {
    type Disk = SledDisk;

    fn open(&mut self) -> SledDisk {
        SledDisk::open(self.0.path(), &Options::default()).unwrap()
    }

    fn crash(&mut self, disk: SledDisk, _seed: u64) {
        let left = tempfile::tempdir().unwrap();
        copy(self.0.path(), left.path());
        drop(disk);
        self.0 = left;
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn sled_in(dir: &Path) -> Result<SledDisk, Error> {
    SledDisk::open(dir, &Options::default())
}

#[test]
fn memory_keeps_the_contract() {
    run(256, || MemoryMachine(MemoryDisk::new()));
}

#[test]
fn sled_keeps_the_contract() {
    run(32, || SledMachine(tempfile::tempdir().unwrap()));
}

#[test]
fn a_crash_loses_nothing_everything_or_some_of_what_was_not_synced() {
    let lengths = (0..64).map(|seed| {
        let mut disk = MemoryDisk::new();
        disk.write(vec![Write::Append(records(1..3, 10))]).unwrap();
        disk.sync().unwrap();
        disk.write(vec![
            Write::Append(records(3..6, 10)),
            Write::Append(records(6..9, 10)),
        ])
        .unwrap();
        disk.crash(seed);
        assert!(
            disk.write(Vec::new()).is_err(),
            "a handle from before the crash"
        );
        disk.reopen().reader().bounds().unwrap().unwrap().1.0
    });
    let lengths: std::collections::BTreeSet<_> = lengths.collect();
    assert!(
        lengths.contains(&2) && lengths.contains(&5) && lengths.contains(&8),
        "{lengths:?}"
    );
    assert!(
        lengths.contains(&6) || lengths.contains(&7),
        "no append was torn: {lengths:?}"
    );
}

#[test]
fn a_failed_sync_is_final() {
    let mut disk = MemoryDisk::new();
    disk.write(vec![Write::Append(records(1..3, 10))]).unwrap();
    disk.fail_next_sync();
    disk.sync().unwrap_err();
    disk.sync().unwrap_err();
    disk.crash(0);
    disk.reopen().sync().unwrap();
}

#[test]
fn a_write_that_is_to_fail_takes_nothing() {
    let mut disk = MemoryDisk::new();
    disk.fail_next_write();
    disk.write(vec![Write::Append(records(1..3, 10))])
        .unwrap_err();
    assert_eq!(disk.reader().bounds().unwrap(), None);
    disk.set_bytes_max(Some(100));
    disk.write(vec![Write::Append(records(1..3, 60))])
        .unwrap_err();
    disk.write(vec![Write::Append(records(1..3, 50))]).unwrap();
}

#[test]
fn a_folder_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = sled_in(dir.path()).unwrap();
    let refused = sled_in(dir.path()).unwrap_err();
    assert!(matches!(refused, Error::InUse { .. }), "{refused}");
    drop(first);
    sled_in(dir.path()).unwrap();
}

#[test]
fn no_size_makes_sled_keep_a_value_in_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = sled_in(dir.path()).unwrap();
    for index in 1..80 {
        let write = Write::Append(vec![record(index, 65_520 + (index as usize % 7) * 9_000)]);
        disk.write(vec![write, Write::PutAccepted(vec![record(index, 65_000)])])
            .unwrap();
    }
    disk.sync().unwrap();
    let blobs = dir.path().join("blobs");
    assert!(!blobs.exists() || std::fs::read_dir(blobs).unwrap().next().is_none());
    std::fs::create_dir_all(dir.path().join("blobs")).unwrap();
    drop(disk);
    std::fs::write(dir.path().join("blobs/1"), b"").unwrap();
    let refused = sled_in(dir.path()).unwrap_err();
    assert!(matches!(refused, Error::Corrupt { .. }), "{refused}");
}

#[test]
fn readers_never_see_a_hole_while_the_log_is_cut_at_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = sled_in(dir.path()).unwrap();
    let reader = disk.reader();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut reads = 0_u64;
            while !done.load(Ordering::Relaxed) {
                if let Some((first, last)) = reader.bounds().unwrap() {
                    reader.read(first..last.next(), 1 << 20).unwrap();
                    reader
                        .read(LogIndex(last.0.saturating_sub(1))..last.next(), 1 << 20)
                        .unwrap();
                }
                reader.meta(MetaKey::Snapshot).unwrap();
                reader
                    .read_accepted(LogIndex(0)..LogIndex(u64::MAX), 1 << 20)
                    .unwrap();
                reads += 1;
            }
            reads
        });
        let mut next = 1;
        for round in 0..300 {
            let bytes = [500, 80_000, 3_000][round as usize % 3];
            let snapshot = record(round, [10, 200_000][round as usize % 2]).bytes;
            let writes = vec![
                Write::TruncateFrom(LogIndex(next - round % 3)),
                Write::Append(records(next - round % 3..next + 5, bytes)),
                Write::SetMeta(MetaKey::Snapshot, snapshot),
                Write::PutAccepted(records(next..next + 5, bytes)),
                Write::PurgeTo(LogIndex(next.saturating_sub(20))),
                Write::PurgeAcceptedTo(LogIndex(next.saturating_sub(20))),
            ];
            next += 5;
            disk.write(writes).unwrap();
            disk.sync().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(reading.join().unwrap() > 10);
    });
}

#[test]
fn what_is_purged_makes_room_for_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = sled_in(dir.path()).unwrap();
    let mut largest = 0;
    for group in 0..600 {
        let from = 1 + group * 8;
        disk.write(vec![Write::Append(records(from..from + 8, 30_000))])
            .unwrap();
        disk.write(vec![Write::PurgeTo(LogIndex(from.saturating_sub(80)))])
            .unwrap();
        disk.sync().unwrap();
        largest = largest.max(disk.disk_bytes().unwrap());
    }
    assert!(
        largest < 100 << 20,
        "2.4 MB live in 144 MB written took {largest} bytes"
    );
}

/// As retention does it: what is beyond the limit goes in 64 steps, over and over.
#[test]
fn the_files_take_at_most_three_times_what_is_retained() {
    // sled keeps a few segments of 8 MiB in hand, however much it holds.
    const RETAINED: u64 = 128 << 20;
    const BYTES: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let mut disk = sled_in(dir.path()).unwrap();
    let (mut first, mut next, mut largest) = (1, 1, 0);
    while next * BYTES < 5 * RETAINED {
        let group = records(next..next + 8, BYTES as usize);
        let index = records(next..next + 8, 40);
        disk.write(vec![Write::Append(group), Write::PutAccepted(index)])
            .unwrap();
        disk.sync().unwrap();
        disk.tidy().unwrap();
        next += 8;
        let beyond = ((next - first) * BYTES).saturating_sub(RETAINED);
        if beyond > RETAINED / 64 {
            first += beyond / BYTES + 1;
            let writes = vec![
                Write::PurgeAcceptedTo(LogIndex(first - 1)),
                Write::PurgeTo(LogIndex(first - 1)),
            ];
            disk.write(writes).unwrap();
        }
        if next % 256 == 1 {
            largest = largest.max(disk.disk_bytes().unwrap());
        }
    }
    let ratio = largest as f64 / RETAINED as f64;
    println!("{RETAINED} bytes retained, {largest} on the disk at most: {ratio:.2} times");
    assert!(ratio < 3.0, "{ratio:.2} times what is retained");
}
