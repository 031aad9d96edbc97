//! The way out when no server is left to clone from.

use super::*;

const UPTO: u64 = 5;

/// Member 1 was primary, and no epoch is open.
fn idle() -> State {
    let mut state = State::default();
    let settings = Command::Settings(Settings {
        apply_level: ACCEPT_ERRANT_LEVEL,
    });
    assert_eq!(apply(&mut state, 1, &settings), Outcome::Done);
    assert_eq!(apply(&mut state, 2, &three_members()), Outcome::Done);
    begin(&mut state, 3);
    let gtids: Vec<Gtid> = (1..=UPTO).map(gtid).collect();
    let epoch = state.epoch().unwrap();
    apply(&mut state, 4, &batch(epoch, 1, &gtids));
    apply(&mut state, 5, &Command::SetPrimary { node: None });
    assert_eq!(state.accepted().count(), UPTO);
    state
}

fn begin(state: &mut State, index: u64) {
    let node = Some(NodeId(1));
    apply(state, index, &Command::SetPrimary { node });
}

fn apply(state: &mut State, index: u64, command: &Command) -> Outcome {
    state.apply(log_id(1, 1, index), command).0
}

/// What `node`'s server has: everything accepted, and one of its own.
fn errant(node: u64) -> AcceptErrant {
    AcceptErrant {
        node: NodeId(node),
        incarnation: Incarnation(node),
        executed: (1..=UPTO).chain([100 * node]).map(gtid).collect(),
    }
}

#[track_caller]
fn is_ignored(mut state: State, errant: AcceptErrant) {
    let before = state.clone();
    let outcome = apply(&mut state, 9, &Command::AcceptErrant(errant));
    assert_eq!((outcome, state), (Outcome::Ignored, before));
}

#[test]
fn one_server_s_errant_transactions_become_accepted_and_no_other_s_after_them() {
    let mut state = idle();
    let command = Command::AcceptErrant(errant(2));
    assert_eq!(apply(&mut state, 6, &command), Outcome::Done);
    assert_eq!(*state.accepted(), errant(2).executed);
    // Said twice, and of a server that was judged before.
    is_ignored(state.clone(), errant(2));
    is_ignored(state.clone(), errant(3));
    // An epoch goes on as after any other, and what was accepted so is not accepted again.
    begin(&mut state, 7);
    let epoch = state.epoch().unwrap();
    let again = apply(&mut state, 8, &batch(epoch, 1, &[gtid(6), gtid(200)]));
    let collision = Some(Rejection::Collision { gtid: gtid(200) });
    let expected = Outcome::Transactions {
        accepted: 1,
        rejected: collision,
    };
    assert_eq!(again, expected);
}

#[test]
fn errant_transactions_are_not_accepted_while_there_may_be_another_way_out() {
    let mut serving = idle();
    begin(&mut serving, 6);
    is_ignored(serving, errant(2));

    let mut cloning = idle();
    let permit = ClonePermit {
        recipient: NodeId(3),
        incarnation: Incarnation(3),
        donor: NodeId(1),
        pinned: LogIndex(4),
    };
    let begin = Command::Cloning(Cloning {
        sequence: 1,
        permit: Some(permit),
    });
    assert_eq!(apply(&mut cloning, 6, &begin), Outcome::Done);
    is_ignored(cloning, errant(2));
}

#[test]
fn a_set_that_was_judged_before_something_was_accepted_makes_nothing_accepted() {
    let mut state = idle();
    begin(&mut state, 6);
    let epoch = state.epoch().unwrap();
    apply(&mut state, 7, &batch(epoch, 1, &[gtid(UPTO + 1)]));
    apply(&mut state, 8, &Command::SetPrimary { node: None });
    is_ignored(state, errant(2));
}

#[test]
fn only_a_member_as_it_is_can_be_chosen_and_only_from_the_level_on_that_knows_it() {
    is_ignored(
        idle(),
        AcceptErrant {
            incarnation: Incarnation(7),
            ..errant(2)
        },
    );
    is_ignored(
        idle(),
        AcceptErrant {
            node: NodeId(4),
            ..errant(2)
        },
    );
    for spoil in [
        |member: &mut Member| member.standing = quorate_types::Standing::Removed,
        |member: &mut Member| member.witness = true,
    ] {
        let mut state = idle();
        spoil(state.members.get_mut(&NodeId(2)).unwrap());
        is_ignored(state, errant(2));
    }
    let mut older = idle();
    older.settings.apply_level = ACCEPT_ERRANT_LEVEL - 1;
    is_ignored(older, errant(2));
}
