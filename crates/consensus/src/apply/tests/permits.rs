//! Permits to clone.

use super::*;

fn members() -> State {
    let mut state = State::default();
    assert_eq!(apply(&mut state, 1, &three_members()), Outcome::Done);
    state
}

fn apply(state: &mut State, index: u64, command: &Command) -> Outcome {
    state.apply(log_id(1, 1, index), command).0
}

fn permit(recipient: u64, donor: u64) -> ClonePermit {
    ClonePermit {
        recipient: NodeId(recipient),
        incarnation: Incarnation(recipient),
        donor: NodeId(donor),
        pinned: LogIndex(5),
    }
}

fn begin(sequence: u64, permit: ClonePermit) -> Command {
    Command::Cloning(Cloning {
        sequence,
        permit: Some(permit),
    })
}

fn end(sequence: u64) -> Command {
    Command::Cloning(Cloning {
        sequence,
        permit: None,
    })
}

#[test]
fn one_member_clones_at_a_time() {
    let mut state = members();
    let first = permit(3, 2);
    assert_eq!(apply(&mut state, 2, &begin(1, first)), Outcome::Done);
    assert_eq!(state.permits().current(), Some((1, first)));
    assert_eq!(
        apply(&mut state, 3, &begin(2, permit(2, 1))),
        Outcome::Ignored
    );
    assert_eq!(state.permits().current(), Some((1, first)));

    assert_eq!(apply(&mut state, 4, &end(1)), Outcome::Done);
    assert_eq!(apply(&mut state, 5, &begin(2, permit(2, 1))), Outcome::Done);
    assert_eq!(state.permits().current(), Some((2, permit(2, 1))));
}

#[test]
fn a_late_or_repeated_command_changes_no_other_permit() {
    let mut state = members();
    apply(&mut state, 2, &begin(1, permit(3, 2)));
    apply(&mut state, 3, &end(1));
    // What was proposed once and given up may come all the same.
    assert_eq!(
        apply(&mut state, 4, &begin(1, permit(3, 2))),
        Outcome::Ignored
    );
    assert_eq!(apply(&mut state, 5, &end(1)), Outcome::Ignored);
    apply(&mut state, 6, &begin(2, permit(3, 1)));
    assert_eq!(apply(&mut state, 7, &end(1)), Outcome::Ignored);
    assert_eq!(state.permits().current(), Some((2, permit(3, 1))));
}

#[test]
fn a_permit_is_for_a_member_as_it_is_registered_and_names_another_as_donor() {
    let mut state = members();
    let stranger = permit(4, 2);
    let anew = ClonePermit {
        incarnation: Incarnation(8),
        ..permit(3, 2)
    };
    for wrong in [stranger, anew, permit(3, 3), permit(3, 4)] {
        let outcome = apply(&mut state, 2, &begin(1, wrong));
        assert_eq!(outcome, Outcome::Ignored, "{wrong:?}");
    }
    assert_eq!(apply(&mut state, 2, &begin(1, permit(3, 2))), Outcome::Done);
}

#[test]
fn nothing_after_the_pin_is_purged_while_a_permit_is_open() {
    let mut state = members();
    apply(&mut state, 20, &begin(1, permit(3, 2)));
    let purge = Command::Purge { upto: LogIndex(15) };
    assert_eq!(apply(&mut state, 21, &purge), Outcome::Done);
    assert_eq!(state.purged(), LogIndex(5));
    assert_eq!(apply(&mut state, 22, &purge), Outcome::Ignored);
    apply(&mut state, 23, &end(1));
    assert_eq!(apply(&mut state, 24, &purge), Outcome::Done);
    assert_eq!(state.purged(), LogIndex(15));
}
