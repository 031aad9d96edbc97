use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use quorate_types::{
    AcceptErrant, BinlogSource, ClonePermit, Cloning, Command, Epoch, FRAGMENT_FIRST, Fragment,
    FragmentEnd, Gtid, GtidSet, Incarnation, LeaderId, LogId, LogIndex, Member, NodeId, Outcome,
    Rejection, Settings, SourceId, Tag, Term, Transaction, TransactionBatch, Uuid,
};

use super::*;

type Log = Vec<(LogId, Command)>;

/// One choice of the generator: what to append, and how to spoil it.
#[derive(Clone, Copy, Debug)]
struct Choice {
    kind: u8,
    spoil: u8,
    a: u8,
    b: u8,
}

fn choices() -> impl Strategy<Value = Vec<Choice>> {
    let choice = (0..19_u8, 0..24_u8, any::<u8>(), any::<u8>());
    let choice = choice.prop_map(|(kind, spoil, a, b)| Choice { kind, spoil, a, b });
    prop::collection::vec(choice, 0..80)
}

fn gtid(sequence: u64) -> Gtid {
    Gtid {
        source: SourceId {
            uuid: Uuid([7; 16]),
            tag: Tag::EMPTY,
        },
        sequence,
    }
}

fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId {
        leader: LeaderId {
            term: Term(term),
            node: NodeId(node),
        },
        index: LogIndex(index),
    }
}

fn source() -> BinlogSource {
    BinlogSource {
        file: Arc::from("binlog.000001"),
        format: Bytes::from_static(b"format"),
    }
}

fn batch(epoch: Epoch, first_number: u64, gtids: &[Gtid]) -> Command {
    let transactions = gtids.iter().map(|gtid| Transaction {
        gtid: *gtid,
        checksum: gtid.sequence as u32 ^ 0x55,
        events: Bytes::from_static(b"events"),
    });
    Command::Transactions(TransactionBatch {
        epoch,
        first_number,
        source: source(),
        transactions: transactions.collect(),
    })
}

fn fragment(epoch: Epoch, number: u64, gtid: Gtid, part: u32, end: Option<FragmentEnd>) -> Command {
    Command::Fragment(Fragment {
        epoch,
        number,
        gtid,
        part,
        end,
        source: source(),
        bytes: Bytes::from_static(b"piece"),
    })
}

/// What `parts` pieces add up to.
fn end_of(parts: u32) -> FragmentEnd {
    let bytes = b"piece".repeat(parts as usize);
    FragmentEnd {
        length: bytes.len() as u64,
        bytes_crc32: crc32fast::hash(&bytes),
        checksum: 0xabcd,
    }
}

/// Mostly the entry that the state waits for, sometimes spoilt: so that all rules come to bear.
fn next_command(state: &State, id: LogId, fresh: u64, choice: Choice) -> Command {
    let spoilt = |number| choice.spoil == number;
    let mut epoch = state.epoch().unwrap_or(Epoch(id));
    if spoilt(0) {
        epoch.0.index = LogIndex(epoch.0.index.0 + 1);
    }
    let number = state.next_number() + u64::from(spoilt(1));
    let taken = gtid(1 + u64::from(choice.b) % fresh);
    match choice.kind {
        0 => Command::SetPrimary { node: None },
        1 | 2 => Command::SetPrimary {
            node: Some(NodeId(
                id.leader.node.0 + u64::from(choice.spoil.is_multiple_of(4)),
            )),
        },
        3 => Command::Baseline {
            gtid_set: (fresh + 500..fresh + 503).map(gtid).collect(),
            checksum: choice.a.into(),
        },
        4 => Command::Purge {
            upto: LogIndex(choice.a.into()),
        },
        5 => Command::Members(
            [choice.a % 8, choice.b % 8]
                .map(|node| (NodeId(node.into()), Member::default()))
                .into(),
        ),
        16 | 17 => cloning(state, choice),
        18 => accept_errant(state, fresh, choice),
        6 => Command::Settings(Settings {
            apply_level: u32::from(choice.a % 3),
        }),
        7..=10 => {
            let count = u64::from(choice.a % 4);
            let mut gtids: Vec<Gtid> = (fresh..fresh + count).map(gtid).collect();
            if spoilt(2) || spoilt(3) {
                gtids.push(taken);
            }
            batch(epoch, number, &gtids)
        }
        _ => {
            let open = state.open.map_or((gtid(fresh), FRAGMENT_FIRST), |open| {
                (open.gtid, open.next_part)
            });
            let gtid = if spoilt(2) { taken } else { open.0 };
            let part = open.1 + u32::from(spoilt(3));
            let mut end = (choice.a.is_multiple_of(3)).then(|| end_of(part));
            if let Some(end) = &mut end {
                end.length += u64::from(spoilt(4));
                end.bytes_crc32 ^= u32::from(spoilt(5));
            }
            fragment(epoch, number, gtid, part, end)
        }
    }
}

/// A permit while none is open, else its end; sometimes the other way round, or out of turn.
fn cloning(state: &State, choice: Choice) -> Command {
    let spoilt = |number| choice.spoil == number;
    let begins = state.permits.open.is_none() != spoilt(0);
    let mut members = state.members.iter();
    let mut member = || members.next().map_or(NodeId(9), |(node, _)| *node);
    let permit = ClonePermit {
        recipient: member(),
        incarnation: Incarnation(u64::from(spoilt(1))),
        donor: member(),
        pinned: LogIndex(choice.a.into()),
    };
    Command::Cloning(Cloning {
        sequence: state.permits.last_sequence + u64::from(begins) + u64::from(spoilt(2)),
        permit: begins.then_some(permit),
    })
}

/// Mostly of a member that has everything and more.
fn accept_errant(state: &State, fresh: u64, choice: Choice) -> Command {
    let spoilt = |number| choice.spoil == number;
    let mut executed = state.accepted().clone();
    if spoilt(1) {
        executed = GtidSet::new();
    }
    if !spoilt(2) {
        executed.insert(gtid(fresh));
    }
    let first = state.members.keys().next();
    Command::AcceptErrant(AcceptErrant {
        node: first.copied().unwrap_or(NodeId(9)),
        incarnation: Incarnation(u64::from(spoilt(0))),
        executed,
    })
}

fn make_log(choices: &[Choice]) -> Log {
    let mut state = State::default();
    let mut log = Vec::new();
    let (mut term, mut node) = (1, 1);
    for (index, choice) in (1..).zip(choices) {
        if choice.spoil == 23 {
            (term, node) = (term + 1, u64::from(choice.b % 3) + 1);
        }
        let id = log_id(term, node, index);
        let command = next_command(&state, id, index * 10, *choice);
        state.apply(id, &command);
        log.push((id, command));
    }
    log
}

fn run(snapshot: &mut Snapshot, log: &[(LogId, Command)]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (id, command) in log {
        let (outcome, record) = snapshot.state.apply(*id, command);
        snapshot.records.extend(record.as_ref().map(Into::into));
        outcomes.push(outcome);
    }
    outcomes
}

proptest! {
    #[test]
    fn nodes_with_equal_logs_hold_equal_states_with_or_without_a_snapshot(
        choices in choices(),
        cut in any::<prop::sample::Index>(),
    ) {
        let log = make_log(&choices);
        let mut whole = Snapshot::default();
        run(&mut whole, &log);

        let (before, after) = log.split_at(cut.index(log.len() + 1));
        let mut first = Snapshot::default();
        run(&mut first, before);
        let bytes = first.encode();
        let mut second = Snapshot::decode(&bytes).unwrap();
        prop_assert_eq!(&second, &first);
        run(&mut second, after);
        prop_assert_eq!(&second, &whole);
        prop_assert_eq!(second.encode(), whole.encode());
    }

    #[test]
    fn only_what_is_accepted_changes_set_and_number(choices in choices()) {
        let mut state = State::default();
        for (id, command) in make_log(&choices) {
            let before = state.clone();
            let (outcome, record) = state.apply(id, &command);
            let mut expected = before.accepted.clone();
            if let (Command::Baseline { gtid_set, .. }, Outcome::Done) = (&command, outcome) {
                expected.union(gtid_set);
            }
            if let (Command::AcceptErrant(errant), Outcome::Done) = (&command, outcome) {
                prop_assert!(before.epoch.is_none() && before.permits.open.is_none());
                expected.union(&errant.executed);
            }
            let items = record.map(|record| record.transactions).unwrap_or_default();
            for item in &items {
                prop_assert!(expected.insert(item.gtid), "accepted twice: {}", item.gtid);
            }
            prop_assert_eq!(&state.accepted, &expected);
            match outcome {
                Outcome::Ignored => prop_assert_eq!(&state, &before),
                Outcome::PrimarySet { .. } => prop_assert_eq!(state.next_number, 1),
                Outcome::Done => prop_assert_eq!(state.next_number, before.next_number),
                Outcome::Transactions { accepted, rejected } => {
                    prop_assert_eq!(accepted as usize, items.len());
                    let number = before.next_number + u64::from(accepted);
                    prop_assert_eq!(state.next_number, number);
                    if accepted == 0 && rejected.is_some() {
                        prop_assert_eq!(&state, &before);
                    }
                }
            }
        }
    }

    #[test]
    fn records_survive_the_disk(choices in choices()) {
        let mut state = State::default();
        for (id, command) in make_log(&choices) {
            if let (_, Some(record)) = state.apply(id, &command) {
                let bytes = record.encode();
                prop_assert_eq!(AcceptedRecord::decode(id.index, &bytes).unwrap(), record);
            }
        }
    }

    #[test]
    fn hostile_bytes_give_a_value_or_an_error(
        choices in choices(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = AcceptedRecord::decode(LogIndex(1), &noise);
        let _ = Snapshot::decode(&noise);
        let mut snapshot = Snapshot::default();
        run(&mut snapshot, &make_log(&choices));
        let mut bytes = snapshot.encode().to_vec();
        let at = at.index(bytes.len());
        let damaged = bytes[at] != value;
        bytes[at] = value;
        prop_assert_eq!(Snapshot::decode(&bytes).is_err(), damaged);
        // With a checksum that fits, the parser itself is on its own.
        let body = bytes.len() - 4;
        let crc32 = crc32fast::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(&crc32.to_le_bytes());
        let _ = Snapshot::decode(&bytes);
        bytes.truncate(at);
        prop_assert!(Snapshot::decode(&bytes).is_err());
    }
}

#[test]
fn the_generator_reaches_every_outcome() {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    let mut number = 1_u32;
    let mut next = move |bound: u32| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((number >> 16) % bound) as u8
    };
    for _ in 0..1200 {
        let choices: Vec<Choice> = (0..60)
            .map(|_| Choice {
                kind: next(19),
                spoil: next(24),
                a: next(256),
                b: next(256),
            })
            .collect();
        let log = make_log(&choices);
        let outcomes = run(&mut Snapshot::default(), &log);
        for ((_, command), outcome) in log.iter().zip(outcomes) {
            let name = match (command, outcome) {
                (Command::Baseline { .. }, Outcome::Done) => "baseline",
                (Command::Baseline { .. }, Outcome::Ignored) => "late baseline",
                (Command::AcceptErrant(_), Outcome::Done) => "errant ones accepted",
                (Command::AcceptErrant(_), _) => "errant ones not accepted",
                (Command::Cloning(one), Outcome::Done) if one.permit.is_some() => "permit",
                (Command::Cloning(_), Outcome::Done) => "end of a permit",
                (Command::Cloning(_), _) => "permit out of turn",
                (Command::SetPrimary { .. }, Outcome::Ignored) => "foreign primary",
                (_, Outcome::PrimarySet { epoch: None }) => "no primary",
                (_, Outcome::PrimarySet { epoch: Some(_) }) => "primary",
                (_, Outcome::Ignored) => "ignored",
                (_, Outcome::Done) => "done",
                (Command::Fragment(part), Outcome::Transactions { rejected, .. }) => {
                    match (rejected, part.end) {
                        (None, None) => "part",
                        (None, Some(_)) => "last part",
                        (Some(Rejection::BrokenFragment), _) => "broken part",
                        (Some(Rejection::Collision { .. }), _) => "part collides",
                        (Some(_), _) => "part of another epoch or number",
                    }
                }
                (_, Outcome::Transactions { accepted, rejected }) => match rejected {
                    None => "whole batch",
                    Some(Rejection::WrongEpoch) => "wrong epoch",
                    Some(Rejection::OutOfOrder { .. }) => "out of order",
                    Some(Rejection::Collision { .. }) if accepted > 0 => "collision after some",
                    Some(Rejection::Collision { .. }) => "collision",
                    Some(Rejection::BrokenFragment) => "batch while a transaction is open",
                },
            };
            *seen.entry(name).or_default() += 1;
        }
    }
    assert_eq!(seen.len(), 23, "{seen:#?}");
}

/// Members 1 to 3; the incarnation of each is its number.
fn three_members() -> Command {
    let member = |node: u64| {
        let member = Member {
            incarnation: Incarnation(node),
            ..Member::default()
        };
        (NodeId(node), member)
    };
    Command::Members((1..=3).map(member).collect())
}

mod errant;
mod permits;
mod rules;
