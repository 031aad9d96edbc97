//! What the log gives up, and who is told that it is gone.

use std::time::Duration;

use crate::harness::{Cluster, gtid, transactions};
use bytes::Bytes;
use quorate_consensus::apply::ACCEPT_ERRANT_LEVEL;
use quorate_consensus::{AcceptedLog, Consensus, ProposalFate, ReadError, TransactionBytes};
use quorate_types::{
    AcceptErrant, BinlogSource, Command, Epoch, FRAGMENT_FIRST, Fragment, FragmentEnd, GtidSet,
    Incarnation, LeaderId, LogIndex, Member, NodeId, Settings,
};

/// A leader's node in its epoch, and what was written so far.
struct Writer {
    node: Consensus,
    id: LeaderId,
    epoch: Epoch,
    /// Of the next transaction in this epoch; GTIDs go on over epochs.
    number: u64,
    next_gtid: u64,
}

impl Writer {
    async fn begin(cluster: &Cluster, next_gtid: u64) -> Self {
        let leader = cluster.leader().await;
        let (id, epoch) = cluster.begin_epoch(leader).await;
        Self {
            node: cluster.node(leader),
            id,
            epoch,
            number: 1,
            next_gtid,
        }
    }

    async fn propose(&self, command: Command) -> LogIndex {
        match self.node.propose(self.id, command).await.await {
            Ok(ProposalFate::Applied { index, .. }) => index,
            other => panic!("{other:?}"),
        }
    }

    /// One transaction; the index of its entry.
    async fn write(&mut self) -> LogIndex {
        let mut command = transactions(self.epoch, self.number, 1, 100);
        if let Command::Transactions(batch) = &mut command {
            batch.transactions[0].gtid = gtid(self.next_gtid);
        }
        self.took();
        self.propose(command).await
    }

    /// One transaction in so many parts; the indexes of the first and the last.
    async fn write_parts(&mut self, parts: u32) -> (LogIndex, LogIndex) {
        let mut indexes = Vec::new();
        let bytes = Bytes::from_static(b"a part of it");
        for part in 0..parts {
            let whole = bytes.repeat(parts as usize);
            let end = (part + 1 == parts).then(|| FragmentEnd {
                length: whole.len() as u64,
                bytes_crc32: crc32fast::hash(&whole),
                checksum: 7,
            });
            let fragment = Fragment {
                epoch: self.epoch,
                number: self.number,
                gtid: gtid(self.next_gtid),
                part: FRAGMENT_FIRST + part,
                end,
                source: BinlogSource {
                    file: "binlog.000001".into(),
                    format: Bytes::from_static(b"format"),
                },
                bytes: bytes.clone(),
            };
            indexes.push(self.propose(Command::Fragment(fragment)).await);
        }
        self.took();
        (indexes[0], indexes[indexes.len() - 1])
    }

    fn took(&mut self) {
        self.number += 1;
        self.next_gtid += 1;
    }

    async fn purge(&self, upto: LogIndex) -> LogIndex {
        self.propose(Command::Purge { upto }).await
    }
}

/// The first so many transactions.
fn first(count: u64) -> GtidSet {
    (1..=count).map(gtid).collect()
}

/// Everything that somebody with `executed` is given, down to the last part.
async fn given(log: &AcceptedLog, executed: &GtidSet) -> Result<GtidSet, ReadError> {
    let mut at = log.seek(executed).await?;
    let mut set = executed.clone();
    loop {
        let batch = log.read(at, 500).await?;
        for transaction in batch.entries.iter().flat_map(|entry| &entry.transactions) {
            if executed.contains(transaction.gtid) {
                continue;
            }
            if let TransactionBytes::Parts { first, last } = transaction.bytes {
                let mut part = first;
                while part <= last {
                    part = log.read_parts(transaction.gtid, part, last).await?.1;
                }
            }
            set.insert(transaction.gtid);
        }
        if batch.next <= at {
            return Ok(set);
        }
        at = batch.next;
    }
}

fn is_purged<T: std::fmt::Debug>(result: &Result<T, ReadError>) -> bool {
    matches!(result, Err(ReadError::Purged { .. }))
}

/// Has the node give back what was agreed to be purged, with a snapshot before.
pub(crate) async fn free(node: &Consensus) {
    let applied = node.applied_state().borrow().index();
    node.snapshot().await.expect("running");
    let mut view = node.view();
    let covered = view.wait_for(|view| view.snapshot.is_some_and(|at| at.index >= applied));
    let covered = tokio::time::timeout(Duration::from_secs(20), covered).await;
    covered.expect("a snapshot").expect("running");
    node.purge_log().await.expect("running");
    let purged = node.applied_state().borrow().purged;
    if purged == LogIndex::ZERO {
        return;
    }
    let freed = view.wait_for(|view| view.purged.is_some_and(|at| at.index >= purged));
    let freed = tokio::time::timeout(Duration::from_secs(20), freed).await;
    freed.expect("purged").expect("running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_purged_is_refused_and_never_left_out() {
    let mut cluster = Cluster::start(3).await;
    let mut writer = Writer::begin(&cluster, 1).await;
    let mut indexes = Vec::new();
    for _ in 0..40 {
        indexes.push(writer.write().await);
    }
    let all = first(40);
    writer.purge(indexes[19]).await;
    cluster.settled_states().await;
    // First the log is all there still, then it is not, then nodes start anew.
    for round in 0..3 {
        for id in cluster.ids() {
            let log = cluster.node(id).accepted_log();
            assert!(is_purged(&given(&log, &GtidSet::new()).await), "{round}");
            assert!(is_purged(&given(&log, &first(19)).await), "{round}");
            assert!(is_purged(&log.read(indexes[5], 1).await), "{round}");
            assert!(!log.can_serve(&first(19)) && log.can_serve(&first(20)));
            assert_eq!(given(&log, &first(20)).await.expect("is there"), all);
            let needed = log.first_needed(&first(25)).await.expect("is there");
            assert_eq!(needed, indexes[25]);
            assert_eq!(log.checksums().await.expect("read").len(), 20);
        }
        for id in cluster.ids() {
            if round == 0 {
                free(&cluster.node(id)).await;
                let (marks, begin) = cluster.node(id).marks();
                assert_eq!(begin, indexes[19].next());
                assert!(marks.retained(begin) > 0);
            } else {
                cluster.crash(id).await;
                cluster.restart(id).await;
            }
        }
        let states = cluster.settled_states().await;
        assert!(states.iter().all(|state| *state == states[0]));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_in_parts_is_needed_from_its_first_part_and_gone_with_it() {
    let mut cluster = Cluster::start(1).await;
    let mut writer = Writer::begin(&cluster, 1).await;
    writer.write().await;
    let (begin, end) = writer.write_parts(4).await;
    writer.write().await;
    let log = writer.node.accepted_log();
    assert_eq!(log.seek(&first(1)).await.expect("is there"), end);
    assert_eq!(log.first_needed(&first(1)).await.expect("is there"), begin);
    assert_eq!(given(&log, &first(1)).await.expect("is there"), first(3));

    writer.purge(LogIndex(begin.0 + 1)).await;
    for _ in 0..2 {
        let log = cluster.node(NodeId(1)).accepted_log();
        assert!(is_purged(&given(&log, &first(1)).await));
        assert_eq!(given(&log, &first(2)).await.expect("is there"), first(3));
        free(&cluster.node(NodeId(1))).await;
        cluster.crash(NodeId(1)).await;
        cluster.restart(NodeId(1)).await;
        cluster.leader().await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_behind_the_purge_point_gets_the_state_and_knows_what_it_lacks() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let away = cluster.others(leader)[0];
    let mut writer = Writer::begin(&cluster, 1).await;
    writer.write().await;
    cluster.settled_states().await;
    cluster.crash(away).await;
    let mut last = LogIndex::ZERO;
    for _ in 0..30 {
        last = writer.write().await;
    }
    writer.purge(last).await;
    for id in cluster.ids() {
        free(&cluster.node(id)).await;
    }
    writer.write().await;
    cluster.restart(away).await;
    for _ in 0..2 {
        let states = cluster.settled_states().await;
        assert!(states.iter().all(|state| *state == states[0]));
        assert_eq!(*states[0].accepted, first(32));
        let log = cluster.node(away).accepted_log();
        assert!(is_purged(&given(&log, &first(1)).await));
        assert_eq!(given(&log, &first(31)).await.expect("is there"), first(32));
        cluster.crash(away).await;
        cluster.restart(away).await;
    }
    cluster.stop().await;
}

/// The log has none of them, so whoever lacks them is refused, though it reads already and lacks nothing
/// else; and what comes after them is served to whoever has them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errant_transactions_that_were_accepted_are_needed_by_everybody_and_served_by_nobody() {
    let mut cluster = Cluster::start(3).await;
    let mut writer = Writer::begin(&cluster, 1).await;
    for _ in 0..10 {
        writer.write().await;
    }
    let member = Member {
        incarnation: Incarnation(7),
        ..Member::default()
    };
    let apply_level = ACCEPT_ERRANT_LEVEL;
    let mut executed = first(10);
    executed.insert(gtid(1000));
    for command in [
        Command::Settings(Settings { apply_level }),
        Command::Members([(NodeId(1), member)].into()),
        Command::SetPrimary { node: None },
    ] {
        writer.propose(command).await;
    }
    cluster.settled_states().await;
    let mut reading = Vec::new();
    for id in cluster.ids() {
        let log = cluster.node(id).accepted_log();
        reading.push((id, log.seek(&first(10)).await.expect("is there")));
    }
    let errant = AcceptErrant {
        node: NodeId(1),
        incarnation: Incarnation(7),
        executed: executed.clone(),
    };
    writer.propose(Command::AcceptErrant(errant)).await;
    let mut writer = Writer::begin(&cluster, 11).await;
    writer.write().await;
    cluster.settled_states().await;
    let mut all = executed.clone();
    all.insert(gtid(11));
    for (id, at) in reading {
        let log = cluster.node(id).accepted_log();
        assert!(is_purged(&log.read(at, 500).await), "it reads on");
    }
    for _ in 0..2 {
        for id in cluster.ids() {
            let log = cluster.node(id).accepted_log();
            assert!(is_purged(&given(&log, &first(10)).await));
            assert_eq!(given(&log, &executed).await.expect("is there"), all);
            // Repairs go on comparing what the log has.
            assert_eq!(log.checksums().await.expect("read").len(), 11);
        }
        for id in cluster.ids() {
            cluster.crash(id).await;
            cluster.restart(id).await;
        }
        let states = cluster.settled_states().await;
        assert!(states.iter().all(|state| *state.accepted == all));
    }
    cluster.stop().await;
}

/// Whatever is written, purged, saved, freed, and crashed in between: who asks is given all of the
/// rest, or an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_ever_given_less_than_what_was_accepted() {
    for seed in 1..=4_u64 {
        let mut state = seed;
        let mut draw = |bound: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(seed);
            (state >> 33) % bound
        };
        let mut cluster = Cluster::start(1).await;
        let mut writer = Writer::begin(&cluster, 1).await;
        let mut newest = LogIndex(1);
        for step in 0..40 {
            match draw(10) {
                0..=3 => newest = writer.write().await,
                4 | 5 => newest = writer.write_parts(2 + draw(4) as u32).await.1,
                6 | 7 => {
                    writer
                        .purge(LogIndex(newest.0.saturating_sub(draw(8))))
                        .await;
                }
                8 => free(&writer.node).await,
                _ => {
                    cluster.crash(NodeId(1)).await;
                    let none = Duration::from_millis(1);
                    cluster.restart_sitting_out(NodeId(1), none).await;
                    writer = Writer::begin(&cluster, writer.next_gtid).await;
                }
            }
            let log = writer.node.accepted_log();
            let all = first(writer.next_gtid - 1);
            let mut refused = 0;
            for count in 0..writer.next_gtid {
                let executed = first(count);
                match given(&log, &executed).await {
                    Ok(set) => assert_eq!(set, all, "seed {seed}, step {step}, {count}"),
                    Err(ReadError::Purged { .. }) => refused = count + 1,
                    Err(error) => panic!("seed {seed}, step {step}: {error}"),
                }
            }
            // Who has everything is never refused, nor who has more than another that is not.
            assert!(refused < writer.next_gtid, "seed {seed}, step {step}");
            for count in 0..refused {
                assert!(!log.can_serve(&first(count)), "seed {seed}, step {step}");
            }
        }
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_entry_that_makes_the_log_too_large_wakes_who_waits_for_that() {
    let cluster = Cluster::start(1).await;
    let mut writer = Writer::begin(&cluster, 1).await;
    let node = writer.node.clone();
    let size = || {
        let (marks, first) = node.marks();
        marks.retained(first)
    };
    let bound = Duration::from_secs(10);
    for _ in 0..2 {
        let wanted = size() + 1000;
        let waiter = node.clone();
        let told = tokio::spawn(async move { waiter.log_takes(wanted).await });
        while size() < wanted {
            assert!(!told.is_finished(), "told of {wanted} at {}", size());
            writer.write().await;
        }
        let told = tokio::time::timeout(bound, told).await;
        told.expect("told").expect("it ran");
        let at_once = node.log_takes(wanted);
        tokio::time::timeout(bound, at_once).await.expect("so");
        let applied = node.applied_state().borrow().index();
        writer.purge(applied).await;
        free(&node).await;
    }
    cluster.stop().await;
}
