use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn nothing_is_proposed_before_release() {
    let script = Script::default();
    let (mut capture, mut primary) = attach(&script, CaptureOptions::default()).await;
    primary.insert(1, 10).await;
    primary.flush().await;
    assert!(timeout(SOON, capture.attached()).await.unwrap());
    script.nothing_comes().await;
    capture.release();
    assert_eq!(sequences(&script.next().await.0), [1]);
}

#[tokio::test(start_paused = true)]
async fn what_arrived_together_is_one_proposal_and_gets_one_ack() {
    let script = Script::default();
    let (mut capture, mut primary) = attach(&script, CaptureOptions::default()).await;
    for sequence in 1..=50 {
        primary.insert(sequence, 10).await;
    }
    primary.flush().await;
    assert!(timeout(SOON, capture.attached()).await.unwrap());
    tokio::time::sleep(A_WHILE).await;
    capture.release();
    let proposal = script.next().await;
    assert_eq!(sequences(&proposal.0), (1..=50).collect::<Vec<_>>());
    assert_eq!(first_number(&proposal.0), 1);
    primary.no_ack().await;
    accept(proposal);
    let position = primary.position;
    assert_eq!(primary.ack().await, (position, "binlog.000001".to_owned()));
    primary.no_ack().await;
}

#[tokio::test]
async fn several_are_in_flight_and_an_ack_never_passes_what_is_accepted() {
    let script = Script::default();
    let (capture, mut primary) = released(&script, CaptureOptions::default()).await;
    let mut in_flight = VecDeque::new();
    let mut ends = Vec::new();
    for sequence in 1..=3 {
        primary.insert(sequence, 10).await;
        primary.flush().await;
        ends.push(primary.position);
        let proposal = script.next().await;
        assert_eq!(first_number(&proposal.0), sequence);
        in_flight.push_back(proposal);
    }
    // The second is accepted first: what is behind an open one is not ACKed.
    let third = in_flight.pop_back().unwrap();
    let second = in_flight.pop_back().unwrap();
    accept(second);
    primary.no_ack().await;
    accept(in_flight.pop_back().unwrap());
    // One or two ACKs, the last of which covers both.
    let mut highest = 0;
    while highest < ends[1] {
        let (position, _) = primary.ack().await;
        assert!(position > highest && position <= ends[1]);
        highest = position;
    }
    primary.no_ack().await;
    accept(third);
    assert_eq!(primary.ack().await.0, ends[2]);
    assert_eq!(*capture.ended().borrow(), None);
}

#[tokio::test]
async fn going_back_after_a_refusal_keeps_order_and_numbers() {
    let script = Script::default();
    let (capture, mut primary) = released(&script, CaptureOptions::default()).await;
    let mut proposals = Vec::new();
    for sequence in 1..=4 {
        primary.insert(sequence, 10).await;
        primary.flush().await;
        proposals.push(script.next().await);
    }
    let mut proposals = proposals.into_iter();
    accept(proposals.next().unwrap());
    let first = primary.ack().await.0;
    proposals.next().unwrap().1.send(Fate::Refused).unwrap();
    // Behind it: one that made it into the log and was rejected for order, one that did not.
    let out_of_order = rejected(Rejection::OutOfOrder { expected: 2 });
    proposals.next().unwrap().1.send(out_of_order).unwrap();
    script.nothing_comes().await;
    proposals.next().unwrap().1.send(Fate::Refused).unwrap();
    for number in 2..=4 {
        let again = script.next().await;
        assert_eq!(first_number(&again.0), number);
        assert_eq!(sequences(&again.0), [number]);
        accept(again);
    }
    let mut last = first;
    while last < primary.position {
        last = primary.ack().await.0;
    }
    assert_eq!(last, primary.position);
    primary.insert(5, 10).await;
    primary.flush().await;
    assert_eq!(first_number(&script.next().await.0), 5);
    assert_eq!(*capture.ended().borrow(), None);
}

/// How capture ends when its first proposal has this fate.
async fn end_by(fate: Option<Fate>) -> CaptureEnd {
    let script = Script::default();
    let (capture, mut primary) = released(&script, CaptureOptions::default()).await;
    primary.insert(1, 10).await;
    primary.flush().await;
    let (_, answer) = script.next().await;
    match fate {
        Some(fate) => answer.send(fate).unwrap(),
        None => drop(answer),
    }
    let end = end_of(&capture).await;
    // It stopped: whatever comes is neither proposed nor ACKed.
    primary.no_ack().await;
    script.nothing_comes().await;
    end
}

#[tokio::test]
async fn an_unknown_fate_ends_it() {
    let over = |end| matches!(end, CaptureEnd::EpochOver(_));
    assert!(over(end_by(Some(Fate::Unknown)).await));
    assert!(over(end_by(None).await));
    assert!(over(end_by(Some(rejected(Rejection::WrongEpoch))).await));
    let out_of_order = Rejection::OutOfOrder { expected: 7 };
    assert!(over(end_by(Some(rejected(out_of_order))).await));
    assert!(over(
        end_by(Some(rejected(Rejection::BrokenFragment))).await
    ));
    let done = Fate::Applied {
        index: LogIndex(1),
        outcome: Outcome::Done,
    };
    assert!(over(end_by(Some(done)).await));
}

#[tokio::test]
async fn a_collision_ends_it_and_says_which() {
    let collision = Rejection::Collision { gtid: gtid(1) };
    let end = end_by(Some(rejected(collision))).await;
    assert_eq!(end, CaptureEnd::Collision(gtid(1)));
}

#[tokio::test]
async fn an_acceptance_behind_a_refusal_ends_it_without_an_ack() {
    let script = Script::default();
    let (capture, mut primary) = released(&script, CaptureOptions::default()).await;
    let mut proposals = Vec::new();
    for sequence in 1..=2 {
        primary.insert(sequence, 10).await;
        primary.flush().await;
        proposals.push(script.next().await);
    }
    accept(proposals.pop().unwrap());
    proposals.pop().unwrap().1.send(Fate::Refused).unwrap();
    assert!(matches!(end_of(&capture).await, CaptureEnd::EpochOver(_)));
    primary.no_ack().await;
}

#[tokio::test]
async fn a_full_budget_stops_reading_until_something_is_accepted() {
    let script = Script::default();
    let options = CaptureOptions {
        memory_bytes_max: 64 << 10,
        ..CaptureOptions::default()
    };
    let (capture, mut primary) = released(&script, options).await;
    let total: u64 = 100;
    let write = async {
        for sequence in 1..=total {
            primary.insert(sequence, 16 << 10).await;
            primary.flush().await;
        }
        primary
    };
    let mut write = Box::pin(write);
    assert!(
        timeout(Duration::from_millis(300), &mut write)
            .await
            .is_err(),
        "it reads on"
    );
    let mut held = Vec::new();
    while let Some(proposal) = {
        let mut shared = script.shared.lock().unwrap();
        shared.proposals.pop_front()
    } {
        held.push(proposal);
    }
    let bytes: usize = held
        .iter()
        .map(|(command, _)| sequences(command).len())
        .sum();
    assert!(
        bytes * (16 << 10) <= 64 << 10,
        "more than the budget is held"
    );
    let mut last = 0;
    let accept_all = async {
        for proposal in held {
            last = *sequences(&proposal.0).last().unwrap();
            accept(proposal);
        }
        while last < total {
            let proposal = script.next().await;
            last = *sequences(&proposal.0).last().unwrap();
            accept(proposal);
        }
    };
    let (mut primary, ()) = tokio::join!(write, accept_all);
    while primary.ack().await.0 < primary.position {}
    assert_eq!(*capture.ended().borrow(), None);
}

#[tokio::test]
async fn a_piece_larger_than_the_budget_passes_alone() {
    let script = Script::default();
    let options = CaptureOptions {
        memory_bytes_max: 8 << 10,
        ..CaptureOptions::default()
    };
    let (_capture, mut primary) = released(&script, options).await;
    primary.insert(1, 40 << 10).await;
    primary.flush().await;
    accept(script.next().await);
    assert_eq!(primary.ack().await.0, primary.position);
}

#[tokio::test]
async fn a_lost_connection_ends_it() {
    let script = Script::default();
    let (capture, mut primary) = released(&script, CaptureOptions::default()).await;
    primary.insert(1, 10).await;
    primary.flush().await;
    drop(primary);
    assert!(matches!(end_of(&capture).await, CaptureEnd::Dump(_)));
}

#[tokio::test]
async fn a_source_that_ends_the_dump_ends_it_with_its_reason() {
    let script = Script::default();
    let (capture, mut primary) = released(&script, CaptureOptions::default()).await;
    let reason = ServerError::new(1236, "HY000", "purged");
    primary.events.err(&reason).await.unwrap();
    let CaptureEnd::Dump(text) = end_of(&capture).await else {
        panic!("another end");
    };
    assert!(text.contains("purged"), "{text}");
}

#[tokio::test]
async fn an_end_before_the_first_packet_is_no_attachment() {
    let script = Script::default();
    let (mut capture, primary) = attach(&script, CaptureOptions::default()).await;
    drop(primary);
    assert!(!timeout(SOON, capture.attached()).await.unwrap());
}

/// Held back, an ACK keeps no proposal waiting, and the next ones join it.
#[tokio::test(start_paused = true)]
async fn an_ack_that_is_held_back_comes_later_and_covers_what_was_accepted_meanwhile() {
    const HELD: Duration = Duration::from_millis(500);
    let script = Script::default();
    let ack_delay = AckDelay::default();
    ack_delay.set(HELD);
    let (mut capture, mut primary) =
        attach_delayed(&script, CaptureOptions::default(), &ack_delay).await;
    primary.flush().await;
    assert!(timeout(SOON, capture.attached()).await.unwrap());
    capture.release();
    let mut first_accepted = None;
    for sequence in 1..=3 {
        primary.insert(sequence, 10).await;
        primary.flush().await;
        accept(script.next().await);
        first_accepted.get_or_insert_with(Instant::now);
    }
    let end = primary.position;
    let (position, _) = primary.ack().await;
    let held = first_accepted.unwrap().elapsed();
    assert_eq!(position, end);
    assert!(held >= HELD, "{held:?}");
    primary.no_ack().await;
    // Over: the next one is written at once, though not before it is accepted.
    ack_delay.set(Duration::ZERO);
    primary.insert(4, 10).await;
    primary.flush().await;
    let proposal = script.next().await;
    primary.no_ack().await;
    let accepted = Instant::now();
    accept(proposal);
    assert_eq!(primary.ack().await.0, primary.position);
    assert!(accepted.elapsed() < HELD, "{:?}", accepted.elapsed());
}
