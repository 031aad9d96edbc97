//! One test per rule of acceptance.

use super::*;

const OK: Outcome = Outcome::Transactions {
    accepted: 1,
    rejected: None,
};
const PART: Outcome = Outcome::Transactions {
    accepted: 0,
    rejected: None,
};

fn rejected(accepted: u32, reason: Rejection) -> Outcome {
    Outcome::Transactions {
        accepted,
        rejected: Some(reason),
    }
}

/// A state in the epoch of node 1, begun by entry 2 of term 1.
fn in_epoch() -> (State, Epoch) {
    let mut state = State::default();
    let id = log_id(1, 1, 2);
    let node = Some(NodeId(1));
    state.apply(id, &Command::SetPrimary { node });
    assert_eq!((state.epoch(), state.primary()), (Some(Epoch(id)), node));
    (state, Epoch(id))
}

fn apply(state: &mut State, index: u64, command: &Command) -> Outcome {
    state.apply(log_id(1, 1, index), command).0
}

#[test]
fn a_primary_is_set_only_by_the_leader_that_it_names() {
    let (mut state, epoch) = in_epoch();
    let before = state.clone();
    let node = Some(NodeId(1));
    let outcome = state.apply(log_id(2, 2, 3), &Command::SetPrimary { node });
    assert_eq!(outcome.0, Outcome::Ignored);
    assert_eq!(state, before);
    assert_eq!(state.epoch(), Some(epoch));

    // Any leader ends the epoch.
    let outcome = state.apply(log_id(2, 2, 4), &Command::SetPrimary { node: None });
    assert_eq!(outcome.0, Outcome::PrimarySet { epoch: None });
    assert_eq!((state.epoch(), state.primary()), (None, None));
}

#[test]
fn a_transaction_of_another_epoch_or_leader_is_rejected() {
    let (mut state, epoch) = in_epoch();
    let other = Epoch(log_id(1, 1, 1));
    let wrong = rejected(0, Rejection::WrongEpoch);
    assert_eq!(apply(&mut state, 3, &batch(other, 1, &[gtid(1)])), wrong);
    let late = state.apply(log_id(2, 1, 4), &batch(epoch, 1, &[gtid(1)]));
    assert_eq!(late, (wrong, None));
    let late = state.apply(log_id(1, 2, 5), &fragment(epoch, 1, gtid(1), 1, None));
    assert_eq!(late, (wrong, None));
    assert_eq!(state, in_epoch().0);
}

#[test]
fn a_later_proposal_never_overtakes_a_failed_one() {
    let (mut state, epoch) = in_epoch();
    let order = |expected| rejected(0, Rejection::OutOfOrder { expected });
    assert_eq!(apply(&mut state, 3, &batch(epoch, 2, &[gtid(2)])), order(1));
    assert_eq!(apply(&mut state, 4, &batch(epoch, 1, &[gtid(1)])), OK);
    assert_eq!(apply(&mut state, 5, &batch(epoch, 2, &[gtid(2)])), OK);
    assert_eq!(apply(&mut state, 6, &batch(epoch, 2, &[gtid(3)])), order(3));
    assert_eq!(
        apply(&mut state, 7, &batch(epoch, u64::MAX, &[gtid(3)])),
        order(3)
    );
}

#[test]
fn a_batch_stops_at_its_first_collision() {
    let (mut state, epoch) = in_epoch();
    let gtids = [gtid(1), gtid(2), gtid(1), gtid(3)];
    let (outcome, record) = state.apply(log_id(1, 1, 3), &batch(epoch, 1, &gtids));
    assert_eq!(outcome, rejected(2, Rejection::Collision { gtid: gtid(1) }));
    let places: Vec<_> = record
        .unwrap()
        .transactions
        .iter()
        .map(|item| (item.gtid, item.place))
        .collect();
    let place = |position| Place::Entry { position };
    assert_eq!(places, [(gtid(1), place(0)), (gtid(2), place(1))]);
    assert_eq!(state.next_number(), 3);
    assert_eq!(
        *state.accepted(),
        gtids[..2].iter().copied().collect::<GtidSet>()
    );
}

#[test]
fn a_transaction_in_parts_is_accepted_with_its_last_part() {
    let (mut state, epoch) = in_epoch();
    let part = |number, end| fragment(epoch, 1, gtid(1), number, end);
    let broken = rejected(0, Rejection::BrokenFragment);
    assert_eq!(apply(&mut state, 3, &part(2, None)), broken);
    assert_eq!(apply(&mut state, 4, &part(1, None)), PART);
    assert_eq!(state.open_since(), Some(LogIndex(4)));
    let open = state.clone();

    // None of these may move it: the same part, one too far, another GTID, whole transactions.
    assert_eq!(apply(&mut state, 5, &part(1, None)), broken);
    assert_eq!(apply(&mut state, 6, &part(3, None)), broken);
    assert_eq!(
        apply(&mut state, 7, &fragment(epoch, 1, gtid(2), 2, None)),
        broken
    );
    assert_eq!(apply(&mut state, 8, &batch(epoch, 1, &[gtid(2)])), broken);
    let order = rejected(0, Rejection::OutOfOrder { expected: 1 });
    assert_eq!(apply(&mut state, 9, &batch(epoch, 2, &[gtid(2)])), order);
    // A whole that does not add up.
    for wrong in [
        end_of(1),
        FragmentEnd {
            bytes_crc32: 0,
            ..end_of(2)
        },
    ] {
        assert_eq!(apply(&mut state, 10, &part(2, Some(wrong))), broken);
    }
    assert_eq!(state, open);

    let (outcome, record) = state.apply(log_id(1, 1, 11), &part(2, Some(end_of(2))));
    assert_eq!(outcome, OK);
    let place = Place::Parts {
        first: LogIndex(4),
        length: 10,
    };
    let item = AcceptedItem {
        gtid: gtid(1),
        checksum: 0xabcd,
        place,
    };
    assert_eq!(record.unwrap().transactions, [item]);
    assert_eq!((state.open_since(), state.next_number()), (None, 2));
}

#[test]
fn the_next_primary_drops_an_open_transaction() {
    let (mut state, epoch) = in_epoch();
    apply(&mut state, 3, &fragment(epoch, 1, gtid(1), 1, None));
    let node = Some(NodeId(1));
    apply(&mut state, 4, &Command::SetPrimary { node });
    assert_eq!(state.open_since(), None);
    let epoch = state.epoch().unwrap();
    let last = fragment(epoch, 1, gtid(1), 2, Some(end_of(2)));
    let broken = rejected(0, Rejection::BrokenFragment);
    assert_eq!(apply(&mut state, 5, &last), broken);
    assert_eq!(apply(&mut state, 6, &batch(epoch, 1, &[gtid(1)])), OK);
}

#[test]
fn a_baseline_counts_once_and_before_the_first_epoch() {
    let baseline = Command::Baseline {
        gtid_set: [gtid(9)].into_iter().collect(),
        checksum: 77,
    };
    let mut state = State::default();
    apply(&mut state, 1, &Command::SetPrimary { node: None });
    assert_eq!(apply(&mut state, 2, &baseline), Outcome::Done);
    assert!(state.accepted().contains(gtid(9)));
    assert_eq!(state.baseline_checksum(), Some(77));
    assert_eq!(apply(&mut state, 3, &baseline), Outcome::Ignored);

    let (mut state, _) = in_epoch();
    assert_eq!(apply(&mut state, 3, &baseline), Outcome::Ignored);
    assert!(state.accepted().is_empty());
}

#[test]
fn a_purge_never_goes_back_nor_past_an_open_transaction() {
    let (mut state, epoch) = in_epoch();
    let purge = |upto| Command::Purge {
        upto: LogIndex(upto),
    };
    assert_eq!(apply(&mut state, 9, &purge(5)), Outcome::Done);
    assert_eq!(apply(&mut state, 10, &purge(4)), Outcome::Ignored);
    apply(&mut state, 11, &fragment(epoch, 1, gtid(1), 1, None));
    assert_eq!(apply(&mut state, 12, &purge(100)), Outcome::Done);
    assert_eq!(state.purged(), LogIndex(10));
}

#[test]
fn a_newer_apply_level_is_not_understood() {
    let settings = |apply_level| Command::Settings(Settings { apply_level });
    assert!(State::understands(&settings(APPLY_LEVEL)));
    assert!(!State::understands(&settings(APPLY_LEVEL + 1)));
}
