//! A writer is killed at random, again and again; whatever it knew to be durable must be there.

#![expect(clippy::unwrap_used, reason = "a test, its child process included")]

mod workload;
mod writer;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use quorate_storage::{LogDisk, LogRead, MemoryDisk, MetaKey, Options, Record, SledDisk, SyncMode};
use quorate_types::LogIndex;

use crate::workload::{Random, cut};
use crate::writer::{Machine, Writer};

const BLOCK_BYTES: usize = 4096;

#[derive(Debug, PartialEq)]
struct Contents {
    log: Vec<Record>,
    accepted: Vec<Record>,
    meta: Vec<Option<Bytes>>,
}

fn contents(reader: &impl LogRead) -> Result<Contents, String> {
    let text = |error: quorate_storage::Error| error.to_string();
    let log = match reader.bounds().map_err(text)? {
        Some((first, last)) => reader.read(first..last.next(), usize::MAX).map_err(text)?,
        None => Vec::new(),
    };
    let all = LogIndex(0)..LogIndex(u64::MAX);
    let accepted = reader.read_accepted(all, usize::MAX).map_err(text)?;
    let keys = [MetaKey::Vote, MetaKey::Committed, MetaKey::Snapshot];
    let meta = keys.map(|key| reader.meta(key).map_err(text));
    Ok(Contents {
        log,
        accepted,
        meta: meta.into_iter().collect::<Result<_, _>>()?,
    })
}

/// Opens what a crash left and looks for everything that was synced, and for nothing that is not
/// the beginning of what came after. Says what it found wrong.
fn check(dir: &Path, writer: &Writer) -> Result<u64, String> {
    let synced = writer.synced();
    let disk = SledDisk::open(dir, &Options::default()).map_err(|error| error.to_string())?;
    let found = contents(&disk.reader())?;
    let mut expected = MemoryDisk::new();
    let mut workload = writer.workload();
    for writes in workload.by_ref().take(synced as usize) {
        expected.write(writes).unwrap();
        expected.sync().unwrap();
    }
    if contents(&expected.reader())? == found {
        return Ok(synced);
    }
    for write in workload.next().unwrap().into_iter().flat_map(cut) {
        expected.write(vec![write]).unwrap();
        if contents(&expected.reader())? == found {
            return Ok(synced);
        }
    }
    let last = found.log.last().map(|last| last.index);
    Err(format!(
        "after {synced} synced groups something else was found, up to {last:?}"
    ))
}

/// Of what was written and not synced, a disk may have any blocks: takes a half of them.
fn tear(writer: &Writer, random: &mut Random) -> u64 {
    let files = ["db", "journal"].into_iter();
    files.map(|name| tear_file(name, writer, random)).sum()
}

fn tear_file(name: &str, writer: &Writer, random: &mut Random) -> u64 {
    let Ok(live) = fs::read(writer.live().join(name)) else {
        return 0;
    };
    let path = writer.durable().join(name);
    let durable = fs::read(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let mut torn = 0;
    for (number, block) in live.chunks(BLOCK_BYTES).enumerate() {
        let at = number * BLOCK_BYTES;
        let old = durable
            .get(at..durable.len().min(at + BLOCK_BYTES))
            .unwrap_or_default();
        if old != block && random.below(2) == 0 {
            file.write_all_at(block, at as u64).unwrap();
            torn += 1;
        }
    }
    torn
}

#[test]
fn what_was_synced_survives_kill_9() {
    let mut groups = 0;
    for round in 0..10 {
        let mut writer = Writer::start(round, SyncMode::Fdatasync, Machine::Kernel);
        writer.kill_after(Duration::from_millis(Random::new(round).below(600)));
        groups +=
            check(&writer.live(), &writer).unwrap_or_else(|why| panic!("round {round}: {why}"));
        check(&writer.live(), &writer).expect("it opens again");
    }
    println!("kill -9: 10 rounds, {groups} synced groups, none lost");
}

#[test]
fn what_was_synced_survives_a_power_loss() {
    let (mut groups, mut blocks) = (0, 0);
    for round in 0..12 {
        let mut random = Random::new(round + 100);
        let mut writer = Writer::start(round, SyncMode::Fdatasync, Machine::Power { room: None });
        writer.kill_after(Duration::from_millis(random.below(2_000)));
        if round % 2 == 1 {
            blocks += tear(&writer, &mut random);
        }
        let kept = check(&writer.durable(), &writer);
        groups += kept.unwrap_or_else(|why| panic!("round {round}: {why}"));
        check(&writer.durable(), &writer).expect("it opens again");
    }
    println!("power loss: 12 rounds, {groups} synced groups, {blocks} torn blocks, none lost");
}

#[test]
fn without_our_own_sync_a_power_loss_is_noticed() {
    let mut lost = 0;
    for round in 0..4 {
        let mut writer = Writer::start(round, SyncMode::FlushOnly, Machine::Power { room: None });
        writer.kill_after(Duration::from_millis(200));
        if let Err(why) = check(&writer.durable(), &writer) {
            println!("round {round}: {why}");
            lost += 1;
        }
    }
    println!("sled's own flush: 4 rounds, {lost} with losses");
    assert!(lost > 0, "the test of power losses cannot fail");
}

#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    for room in [1 << 20, 9 << 20, 30 << 20] {
        let machine = Machine::Power { room: Some(room) };
        let mut writer = Writer::start(room, SyncMode::Fdatasync, machine);
        writer.fills_its_disk();
        let groups = check(&writer.durable(), &writer).unwrap_or_else(|why| panic!("{why}"));
        println!("full after {room} bytes: {groups} synced groups, none lost");
    }
}
