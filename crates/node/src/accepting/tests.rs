use super::*;

const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

fn set(text: &str) -> GtidSet {
    format!("{UUID}:{text}").parse().unwrap()
}

fn judged(condition: ServerCondition, executed: &str) -> Result<Judgement, String> {
    Ok(Judgement {
        condition,
        why: "the reason".to_owned(),
        executed: Some(set(executed)),
        unfit: None,
    })
}

/// 1 to 10 are accepted; each of three servers has one of its own behind them, and the third lacks one.
fn answers() -> Answers {
    let must_clone = |executed| judged(ServerCondition::MustClone, executed);
    [
        (NodeId(1), must_clone("1-10:101")),
        (NodeId(2), must_clone("1-10:102")),
        (NodeId(3), must_clone("1-9:103")),
    ]
    .into()
}

fn decided(chosen: u64, answers: &Answers) -> Result<Plan, String> {
    decide(NodeId(chosen), false, &set("1-10"), answers)
}

#[track_caller]
fn is_refused(chosen: u64, answers: &Answers, reason: &str) {
    let why = decided(chosen, answers).unwrap_err();
    assert!(why.contains(reason), "{why}");
}

#[test]
fn what_becomes_accepted_and_what_is_lost_is_said() {
    let why = || "the reason".to_owned();
    let expected = Plan {
        executed: set("1-10:102"),
        errant: set("102"),
        replaced: [
            (NodeId(1), (why(), Some(set("101")))),
            (NodeId(3), (why(), Some(set("103")))),
        ]
        .into(),
    };
    assert_eq!(decided(2, &answers()), Ok(expected.clone()));
    let reply = expected.reply(String::new());
    assert!(reply.accepted && reply.replaced.len() == 2);
    let errant = GtidSet::try_from_wire(&reply.errant_gtid_set);
    assert_eq!(errant.unwrap(), set("102"));
}

#[test]
fn nothing_is_accepted_while_a_server_is_left_whatever_is_said() {
    let mut answers = answers();
    answers.insert(NodeId(3), judged(ServerCondition::Whole, "1-9"));
    is_refused(2, &answers, "node 3's server is left");
    let why = decide(NodeId(2), true, &set("1-10"), &answers).unwrap_err();
    assert!(why.contains("node 3's server is left"), "{why}");
    is_refused(3, &answers, "node 3's server is left");
}

#[test]
fn a_server_that_may_turn_out_to_be_whole_is_waited_for_unless_that_is_not_wanted() {
    for unknown in [
        judged(ServerCondition::Repairing, "1-9"),
        Err("it does not answer".to_owned()),
    ] {
        let mut answers = answers();
        answers.insert(NodeId(3), unknown.clone());
        is_refused(2, &answers, "node 3's server may turn out to be whole");
        let plan = decide(NodeId(2), true, &set("1-10"), &answers).unwrap();
        assert!(plan.replaced.contains_key(&NodeId(3)));
        // The chosen one itself must be known.
        answers.insert(NodeId(2), unknown);
        let chosen = answers.get_mut(&NodeId(2)).unwrap();
        if let Ok(judgement) = chosen {
            judgement.unfit = Some("errant transactions are not what is wrong".to_owned());
        }
        let why = decide(NodeId(2), true, &set("1-10"), &answers).unwrap_err();
        assert!(why.contains("node 2 cannot be chosen"), "{why}");
    }
}

#[test]
fn a_server_that_lacks_something_accepted_or_has_another_fault_is_not_chosen() {
    is_refused(3, &answers(), "it lacks what is accepted");
    is_refused(4, &answers(), "node 4 is no member with a server");
    type Spoil = fn(&mut Judgement);
    let spoil: [(Spoil, &str); 3] = [
        (
            |judgement| judgement.unfit = Some("its server does not run".to_owned()),
            "its server does not run",
        ),
        (|judgement| judgement.executed = None, "does not answer"),
        (
            |judgement| judgement.executed = Some(set("1-10")),
            "nothing that is not accepted",
        ),
    ];
    for (spoil, reason) in spoil {
        let mut answers = answers();
        spoil(answers.get_mut(&NodeId(2)).unwrap().as_mut().unwrap());
        is_refused(2, &answers, reason);
    }
}

#[test]
fn another_folder_s_answer_and_one_that_is_not_understood_make_nobody_a_choice() {
    let reply = JudgeServerReply {
        incarnation: 7,
        condition: ServerCondition::MustClone.into(),
        ..JudgeServerReply::default()
    };
    assert!(judgement(reply.clone(), Incarnation(7)).is_ok());
    assert!(judgement(reply.clone(), Incarnation(8)).is_err());
    let newer = JudgeServerReply {
        condition: 99,
        ..reply
    };
    let judged = judgement(newer, Incarnation(7)).unwrap();
    let mut answers = answers();
    answers.insert(NodeId(3), Ok(judged));
    let why = decide(NodeId(2), true, &set("1-10"), &answers).unwrap_err();
    assert!(why.contains("node 3's server is left"), "{why}");
}

#[test]
fn a_member_with_an_older_program_would_stop_so_it_is_waited_for() {
    let member = |incarnation, apply_level| Member {
        incarnation: Incarnation(incarnation),
        apply_level,
        ..Member::default()
    };
    let members = |second| Members::from([(NodeId(1), member(1, 2)), (NodeId(2), second)]);
    assert!(all_know_how(&members(member(1, 2))).is_ok());
    assert!(all_know_how(&members(member(1, 1))).is_err());
    assert!(all_know_how(&members(member(0, 0))).is_ok());
    let removed = Member {
        standing: Standing::Removed,
        ..member(1, 1)
    };
    assert!(all_know_how(&members(removed)).is_ok());
}
