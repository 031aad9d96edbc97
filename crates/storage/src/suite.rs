//! What every log's disk must do, as one suite of tests.
//!
//! [`run`] panics at the first promise that is not kept. It is slow only as far as the store is.

mod random;

use std::ops::Range;

use bytes::Bytes;
use quorate_types::LogIndex;

use crate::{Error, LogDisk, LogRead, MetaKey, Record, Write};

/// The machine around a store: what survives when the process that had it open is gone.
pub trait Machine {
    type Disk: LogDisk;

    /// Opens the store on what is there; the first time, on nothing.
    fn open(&mut self) -> Self::Disk;

    /// Ends the process at once. What was not synced may be lost, as `seed` chooses.
    fn crash(&mut self, disk: Self::Disk, seed: u64);
}

/// Runs every test, each on a machine of its own; `cases` is how many random histories to try.
pub fn run<M: Machine>(cases: u32, make: impl Fn() -> M) {
    an_empty_store_has_nothing(make());
    what_was_written_is_read_back(make());
    reads_keep_their_budget(make());
    a_gap_is_refused(make());
    a_truncated_tail_is_gone_and_can_be_written_again(make());
    a_purged_beginning_is_gone(make());
    an_empty_log_begins_anywhere(make());
    accepted_records_are_their_own_index(make());
    meta_values_of_any_size_are_whole(make());
    what_was_synced_survives_every_crash(make());
    random::a_store_behaves_as_its_model(cases, make);
}

const ALL: Range<LogIndex> = LogIndex(0)..LogIndex(u64::MAX);

pub(crate) fn record(index: u64, bytes: usize) -> Record {
    let content = (0..bytes).map(|at| (at as u64 ^ index.wrapping_mul(131)) as u8);
    Record {
        index: LogIndex(index),
        bytes: content.collect(),
    }
}

pub(crate) fn records(range: Range<u64>, bytes: usize) -> Vec<Record> {
    range.map(|index| record(index, bytes)).collect()
}

fn write(disk: &mut impl LogDisk, writes: impl Into<Vec<Write>>) {
    disk.write(writes.into()).expect("write");
}

fn log(disk: &impl LogDisk) -> Vec<Record> {
    let reader = disk.reader();
    match reader.bounds().expect("bounds") {
        Some((first, last)) => reader.read(first..last.next(), usize::MAX).expect("read"),
        None => Vec::new(),
    }
}

fn accepted(disk: &impl LogDisk) -> Vec<Record> {
    disk.reader()
        .read_accepted(ALL, usize::MAX)
        .expect("read accepted")
}

fn bounds(disk: &impl LogDisk) -> Option<(u64, u64)> {
    disk.reader()
        .bounds()
        .expect("bounds")
        .map(|(first, last)| (first.0, last.0))
}

fn an_empty_store_has_nothing<M: Machine>(mut machine: M) {
    let disk = machine.open();
    assert_eq!(bounds(&disk), None);
    assert_eq!(disk.reader().read(ALL, usize::MAX).expect("read"), []);
    assert_eq!(accepted(&disk), []);
    assert_eq!(disk.reader().meta(MetaKey::Vote).expect("meta"), None);
    disk.disk_bytes().expect("disk bytes");
}

fn what_was_written_is_read_back<M: Machine>(mut machine: M) {
    let mut disk = machine.open();
    let mut written = Vec::new();
    let reader = disk.reader();
    for (from, bytes) in [
        (1, 0),
        (4, 300),
        (7, 70_000),
        (10, 1),
        (13, 65_536),
        (16, 3 << 20),
    ] {
        let group = records(from..from + 3, bytes);
        write(&mut disk, [Write::Append(group.clone())]);
        written.extend(group);
        assert_eq!(log(&disk), written);
    }
    for from in 1..=18 {
        let expected: Vec<_> = written[from as usize - 1..]
            .iter()
            .take(4)
            .cloned()
            .collect();
        let range = LogIndex(from)..LogIndex((from + 4).min(19));
        assert_eq!(reader.read(range, usize::MAX).expect("read"), expected);
    }
    assert_eq!(bounds(&disk), Some((1, 18)));
    assert_eq!(reader.read(LogIndex(0)..LogIndex(5), 9).expect("read"), []);
    assert_eq!(
        reader.read(LogIndex(19)..LogIndex(25), 9).expect("read"),
        []
    );
}

fn reads_keep_their_budget<M: Machine>(mut machine: M) {
    let mut disk = machine.open();
    write(&mut disk, [Write::Append(records(5..25, 100))]);
    write(&mut disk, [Write::PutAccepted(records(5..25, 100))]);
    let reader = disk.reader();
    for (bytes_max, count) in [(0, 1), (99, 1), (100, 1), (199, 1), (200, 2), (10_000, 16)] {
        let range = LogIndex(9)..LogIndex(25);
        let expected = records(9..9 + count, 100);
        assert_eq!(
            reader.read(range.clone(), bytes_max).expect("read"),
            expected
        );
        assert_eq!(
            reader.read_accepted(range, bytes_max).expect("read"),
            expected
        );
    }
}

fn a_gap_is_refused<M: Machine>(mut machine: M) {
    let mut disk = machine.open();
    write(&mut disk, [Write::Append(records(3..5, 10))]);
    for wrong in [
        records(6..7, 10),
        records(4..6, 10),
        vec![record(5, 1), record(7, 1)],
    ] {
        let group = vec![
            Write::SetMeta(MetaKey::Vote, Bytes::new()),
            Write::Append(wrong),
        ];
        let refused = disk.write(group).expect_err("a gap");
        assert!(matches!(refused, Error::Gap { .. }), "{refused}");
    }
    assert_eq!(log(&disk), records(3..5, 10));
    assert_eq!(disk.reader().meta(MetaKey::Vote).expect("meta"), None);
}

fn a_truncated_tail_is_gone_and_can_be_written_again<M: Machine>(mut machine: M) {
    let mut disk = machine.open();
    write(
        &mut disk,
        [
            Write::Append(records(1..11, 100)),
            Write::Append(records(11..14, 99_000)),
        ],
    );
    write(
        &mut disk,
        [
            Write::TruncateFrom(LogIndex(13)),
            Write::TruncateFrom(LogIndex(20)),
        ],
    );
    assert_eq!(bounds(&disk), Some((1, 12)));
    write(
        &mut disk,
        [
            Write::TruncateFrom(LogIndex(6)),
            Write::Append(records(6..8, 7)),
        ],
    );
    let expected = [records(1..6, 100), records(6..8, 7)].concat();
    assert_eq!(log(&disk), expected);
    disk.sync().expect("sync");
    machine.crash(disk, 1);
    let mut disk = machine.open();
    assert_eq!(log(&disk), expected);
    write(
        &mut disk,
        [
            Write::TruncateFrom(LogIndex(0)),
            Write::Append(records(4..6, 8)),
        ],
    );
    assert_eq!(log(&disk), records(4..6, 8));
}

fn a_purged_beginning_is_gone<M: Machine>(mut machine: M) {
    let mut disk = machine.open();
    let groups = (0..600).map(|group| Write::Append(records(group * 4..group * 4 + 4, 20)));
    write(&mut disk, groups.collect::<Vec<_>>());
    for purged in [0, 1, 5, 7, 1200, 3] {
        write(&mut disk, [Write::PurgeTo(LogIndex(purged))]);
        let first = purged.max(disk.reader().bounds().expect("bounds").expect("some").0.0 - 1) + 1;
        assert_eq!(bounds(&disk), Some((first, 2399)));
        assert_eq!(log(&disk), records(first..2400, 20));
        let before = LogIndex(first - 1)..LogIndex(2400);
        assert_eq!(disk.reader().read(before, usize::MAX).expect("read"), []);
    }
    disk.sync().expect("sync");
    machine.crash(disk, 2);
    let disk = machine.open();
    assert_eq!(log(&disk), records(1201..2400, 20));
}

fn an_empty_log_begins_anywhere<M: Machine>(mut machine: M) {
    let mut disk = machine.open();
    let groups = (0..400).map(|index| Write::Append(vec![record(100 + index, 20)]));
    write(&mut disk, groups.collect::<Vec<_>>());
    write(&mut disk, [Write::PurgeTo(LogIndex(1000))]);
    assert_eq!(bounds(&disk), None);
    write(&mut disk, [Write::Append(records(2000..2003, 5))]);
    assert_eq!(log(&disk), records(2000..2003, 5));
    write(
        &mut disk,
        [
            Write::PurgeTo(LogIndex(2002)),
            Write::Append(records(50..52, 6)),
        ],
    );
    assert_eq!(log(&disk), records(50..52, 6));
    disk.sync().expect("sync");
    machine.crash(disk, 3);
    let disk = machine.open();
    assert_eq!(log(&disk), records(50..52, 6));
}

fn accepted_records_are_their_own_index<M: Machine>(mut machine: M) {
    let mut disk = machine.open();
    let sparse = vec![
        record(3, 10),
        record(9, 150_000),
        record(10, 0),
        record(40, 65_536),
    ];
    write(
        &mut disk,
        [
            Write::PutAccepted(sparse.clone()),
            Write::PutAccepted(sparse[1..].into()),
        ],
    );
    assert_eq!(accepted(&disk), sparse);
    let part = disk
        .reader()
        .read_accepted(LogIndex(4)..LogIndex(40), usize::MAX);
    assert_eq!(part.expect("read"), sparse[1..3]);

    write(
        &mut disk,
        [
            Write::PurgeAcceptedTo(LogIndex(9)),
            Write::TruncateFrom(LogIndex(0)),
        ],
    );
    assert_eq!(accepted(&disk), sparse[2..]);
    write(&mut disk, [Write::PutAccepted(sparse[1..2].into())]);
    assert_eq!(accepted(&disk), sparse[1..]);

    write(&mut disk, [Write::ClearAccepted]);
    assert_eq!(accepted(&disk), []);
    write(&mut disk, [Write::PutAccepted(sparse[..1].into())]);
    assert_eq!(accepted(&disk), sparse[..1]);
    disk.sync().expect("sync");
    machine.crash(disk, 4);
    assert_eq!(accepted(&machine.open()), sparse[..1]);
}

fn meta_values_of_any_size_are_whole<M: Machine>(mut machine: M) {
    let mut disk = machine.open();
    for bytes in [0, 40, 65_000, 65_536, 5 << 20, 3 << 20, 10, 1 << 20] {
        let value = record(bytes as u64, bytes).bytes;
        write(
            &mut disk,
            [Write::SetMeta(MetaKey::Snapshot, value.clone())],
        );
        write(
            &mut disk,
            [Write::SetMeta(MetaKey::Vote, Bytes::from_static(b"other"))],
        );
        assert_eq!(
            disk.reader().meta(MetaKey::Snapshot).expect("meta"),
            Some(value)
        );
    }
    let old = disk.reader().meta(MetaKey::Snapshot).expect("meta");
    disk.sync().expect("sync");
    let new = record(7, 2 << 20).bytes;
    for seed in 0..8 {
        write(&mut disk, [Write::SetMeta(MetaKey::Snapshot, new.clone())]);
        machine.crash(disk, seed);
        disk = machine.open();
        let found = disk.reader().meta(MetaKey::Snapshot).expect("meta");
        assert!(
            found == old || found.as_ref() == Some(&new),
            "a value torn in two"
        );
    }
}

fn what_was_synced_survives_every_crash<M: Machine>(mut machine: M) {
    let mut next = 1;
    let mut disk = machine.open();
    for seed in 0..12 {
        let synced = next + 3;
        let vote = Bytes::from(seed.to_string());
        write(&mut disk, [Write::Append(records(next..synced, 200))]);
        write(&mut disk, [Write::SetMeta(MetaKey::Vote, vote.clone())]);
        disk.sync().expect("sync");
        write(
            &mut disk,
            [Write::Append(records(synced..synced + 3, 100_000))],
        );
        machine.crash(disk, seed);

        disk = machine.open();
        let (first, last) = bounds(&disk).expect("something was synced");
        assert_eq!(first, 1);
        assert!((synced - 1..synced + 3).contains(&last), "last is {last}");
        let found = disk
            .reader()
            .read(LogIndex(next)..LogIndex(synced), usize::MAX);
        assert_eq!(found.expect("read"), records(next..synced, 200));
        assert_eq!(disk.reader().meta(MetaKey::Vote).expect("meta"), Some(vote));
        write(&mut disk, [Write::TruncateFrom(LogIndex(synced))]);
        next = synced;
    }
}
