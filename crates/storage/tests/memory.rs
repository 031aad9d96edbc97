//! A log that is much larger than the cache is written and read in little memory.

use bytes::Bytes;
use quorate_storage::{LogDisk, LogRead, Options, Record, SledDisk, Write};
use quorate_types::LogIndex;

/// As large as the largest entries of a log.
const RECORD_BYTES: usize = 400 << 10;
const RECORDS: u64 = 1000;
const GROUP: u64 = 4;
const GROWTH_MAX: u64 = 128 << 20;

/// What this process has in memory, without the pages of files.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read the status");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("the status names it") << 10
}

#[test]
fn a_log_that_is_larger_than_the_cache_is_read_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = SledDisk::open(folder.path(), &Options::default()).unwrap();
    let begun_with = memory();
    for first in (1..=RECORDS).step_by(GROUP as usize) {
        let records = (first..first + GROUP).map(|index| Record {
            index: LogIndex(index),
            bytes: Bytes::from(vec![index as u8; RECORD_BYTES]),
        });
        disk.write(vec![Write::Append(records.collect())]).unwrap();
        disk.sync().unwrap();
        disk.tidy().unwrap();
    }
    let written = memory();
    let reader = disk.reader();
    let (mut next, mut most) = (LogIndex(1), 0);
    while next.0 <= RECORDS {
        let records = reader.read(next..LogIndex(RECORDS + 1), 1 << 20).unwrap();
        next = records.last().expect("there are more").index.next();
        most = most.max(memory());
    }
    let grown = |now: u64| now.saturating_sub(begun_with) >> 20;
    println!(
        "{} MiB written: {} MiB more; read again: {} MiB more at most",
        (RECORDS as usize * RECORD_BYTES) >> 20,
        grown(written),
        grown(most)
    );
    assert!(written < begun_with + GROWTH_MAX && most < begun_with + GROWTH_MAX);
}
