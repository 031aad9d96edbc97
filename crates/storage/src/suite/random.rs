//! Random histories, against a model that is a list of what was written.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use quorate_types::LogIndex;

use super::{Machine, accepted, log, record, records};
use crate::{LogDisk, LogRead, MetaKey, Record, Write};

#[derive(Clone, Debug)]
enum Step {
    Append { count: u64, bytes: usize },
    Truncate { back: u64 },
    Purge { ahead: u64 },
    SetMeta { key: MetaKey, bytes: usize },
    PutAccepted { skip: u64, count: u64, bytes: usize },
    PurgeAccepted { index: u64 },
    ClearAccepted,
    Sync,
    Reopen { seed: u64 },
}

/// Everything a store holds, in the simplest form that can be compared.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    first: u64,
    log: Vec<Bytes>,
    accepted: BTreeMap<u64, Bytes>,
    meta: BTreeMap<MetaKey, Bytes>,
}

/// One record or one value: what a crash may end behind.
#[derive(Clone, Debug)]
enum Change {
    Append(Record),
    Truncate(u64),
    Purge(u64),
    SetMeta(MetaKey, Bytes),
    Put(Record),
    PurgeAccepted(u64),
    ClearAccepted,
}

pub(super) fn a_store_behaves_as_its_model<M: Machine>(cases: u32, make: impl Fn() -> M) {
    let config = Config {
        failure_persistence: None,
        cases,
        ..Config::default()
    };
    let history = prop::collection::vec(step(), 1..60);
    let outcome = TestRunner::new(config).run(&history, |history| {
        replay(make(), &history);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

fn step() -> impl Strategy<Value = Step> {
    let bytes =
        || prop_oneof![8 => 0..400_usize, 2 => 30_000..70_000_usize, 1 => 150_000..200_000_usize];
    let key = prop::sample::select(vec![MetaKey::Vote, MetaKey::Committed, MetaKey::Snapshot]);
    prop_oneof![
        8 => (1..8_u64, bytes()).prop_map(|(count, bytes)| Step::Append { count, bytes }),
        2 => (0..9_u64).prop_map(|back| Step::Truncate { back }),
        2 => (0..12_u64).prop_map(|ahead| Step::Purge { ahead }),
        3 => (key, bytes()).prop_map(|(key, bytes)| Step::SetMeta { key, bytes }),
        3 => (0..3_u64, 1..4_u64, bytes())
            .prop_map(|(skip, count, bytes)| Step::PutAccepted { skip, count, bytes }),
        1 => (0..40_u64).prop_map(|index| Step::PurgeAccepted { index }),
        1 => Just(Step::ClearAccepted),
        4 => Just(Step::Sync),
        2 => any::<u64>().prop_map(|seed| Step::Reopen { seed }),
    ]
}

fn replay<M: Machine>(mut machine: M, history: &[Step]) {
    let mut disk = machine.open();
    let mut now = Model::default();
    // What the store may hold after a crash: as of the last sync, and after each change since.
    let mut possible = vec![now.clone()];
    for step in history {
        match step {
            Step::Sync => {
                disk.sync().expect("sync");
                possible = vec![now.clone()];
            }
            Step::Reopen { seed } => {
                machine.crash(disk, *seed);
                disk = machine.open();
                now = seen(&disk);
                assert!(
                    possible.contains(&now),
                    "no prefix of the writes is what was found"
                );
                possible = vec![now.clone()];
            }
            step => {
                let (write, changes) = now.plan(step);
                disk.write(vec![write]).expect("write");
                for change in changes {
                    now.change(change);
                    possible.push(now.clone());
                }
                assert!(
                    seen(&disk) == now,
                    "after {step:?} readers see something else"
                );
            }
        }
    }
}

fn seen(disk: &impl LogDisk) -> Model {
    let reader = disk.reader();
    let log = log(disk);
    let mut model = Model {
        first: log.first().map_or(0, |first| first.index.0),
        ..Model::default()
    };
    model.log = log.into_iter().map(|record| record.bytes).collect();
    model.accepted = accepted(disk)
        .into_iter()
        .map(|record| (record.index.0, record.bytes))
        .collect();
    for key in [MetaKey::Vote, MetaKey::Committed, MetaKey::Snapshot] {
        if let Some(value) = reader.meta(key).expect("meta") {
            model.meta.insert(key, value);
        }
    }
    model
}

impl Model {
    fn next(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// A step as the store is given it, and as the changes it is made of.
    fn plan(&self, step: &Step) -> (Write, Vec<Change>) {
        match *step {
            Step::Append { count, bytes } => {
                let records = records(self.next()..self.next() + count, bytes);
                let changes = records.iter().cloned().map(Change::Append).collect();
                (Write::Append(records), changes)
            }
            Step::Truncate { back } => {
                let index = self.next().saturating_sub(back);
                (
                    Write::TruncateFrom(LogIndex(index)),
                    vec![Change::Truncate(index)],
                )
            }
            Step::Purge { ahead } => {
                let index = self.first + ahead;
                (Write::PurgeTo(LogIndex(index)), vec![Change::Purge(index)])
            }
            Step::SetMeta { key, bytes } => {
                let value = record(self.next(), bytes).bytes;
                (
                    Write::SetMeta(key, value.clone()),
                    vec![Change::SetMeta(key, value)],
                )
            }
            Step::PutAccepted { skip, count, bytes } => {
                let last = self.accepted.last_key_value().map_or(0, |(last, _)| *last);
                let indexes = (1..=count).map(|number| last + number * (skip + 1));
                let records: Vec<_> = indexes.map(|index| record(index, bytes)).collect();
                let changes = records.iter().cloned().map(Change::Put).collect();
                (Write::PutAccepted(records), changes)
            }
            Step::PurgeAccepted { index } => (
                Write::PurgeAcceptedTo(LogIndex(index)),
                vec![Change::PurgeAccepted(index)],
            ),
            Step::ClearAccepted => (Write::ClearAccepted, vec![Change::ClearAccepted]),
            Step::Sync | Step::Reopen { .. } => unreachable!("no write"),
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Append(record) => {
                if self.log.is_empty() {
                    self.first = record.index.0;
                }
                self.log.push(record.bytes);
            }
            Change::Truncate(index) => {
                let kept = index.saturating_sub(self.first) as usize;
                self.log.truncate(kept);
            }
            Change::Purge(index) => {
                let gone = (index + 1)
                    .saturating_sub(self.first)
                    .min(self.log.len() as u64);
                self.log.drain(..gone as usize);
                self.first += gone;
            }
            Change::SetMeta(key, value) => {
                self.meta.insert(key, value);
            }
            Change::Put(record) => {
                self.accepted.insert(record.index.0, record.bytes);
            }
            Change::PurgeAccepted(index) => self.accepted.retain(|at, _| *at > index),
            Change::ClearAccepted => self.accepted.clear(),
        }
        if self.log.is_empty() {
            self.first = 0;
        }
    }
}
