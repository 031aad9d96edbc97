use super::*;

/// Accepts whatever comes until the transaction with this number is whole; gives its parts.
async fn parts_of(script: &Script, sequence: u64) -> Vec<Fragment> {
    let mut parts: Vec<Fragment> = Vec::new();
    while parts.last().is_none_or(|part| part.end.is_none()) {
        let (command, answer) = script.next().await;
        let Command::Fragment(part) = command else {
            panic!("{command:?}");
        };
        assert_eq!(part.gtid.sequence, sequence);
        answer.send(accepted(part.end.is_some().into())).unwrap();
        parts.push(part);
    }
    parts
}

fn content_checksum(mut events: Bytes) -> u32 {
    let mut checksummer = Checksummer::new();
    while !events.is_empty() {
        let header = EventHeader::parse(&events).unwrap();
        let bytes = events.split_to(header.event_size as usize);
        let event = Event::parse(bytes, ChecksumAlgorithm::Crc32).unwrap();
        checksummer.update(&event);
    }
    checksummer.finish()
}

/// What a transaction of one row of this length becomes, between two small ones.
async fn fragmented(row: usize) {
    let script = Script::default();
    let options = CaptureOptions {
        entry_bytes_max: 100_000,
        ..CaptureOptions::default()
    };
    let (capture, mut primary) = released(&script, options).await;
    let write = async {
        primary.insert(1, 10).await;
        let bytes = primary.insert(2, row).await;
        primary.insert(3, 10).await;
        primary.flush().await;
        (primary, bytes)
    };
    let read = async {
        accept(script.next().await);
        let parts = parts_of(&script, 2).await;
        let after = script.next().await;
        assert_eq!((first_number(&after.0), sequences(&after.0)), (3, vec![3]));
        accept(after);
        parts
    };
    let ((mut primary, bytes), parts) = tokio::join!(write, read);
    let mut whole = BytesMut::new();
    for (at, part) in parts.iter().enumerate() {
        assert_eq!((part.part as usize, part.number), (at + 1, 2));
        assert!(part.bytes.len() <= 100_000 && !part.bytes.is_empty());
        assert_eq!(part.end.is_some(), at + 1 == parts.len());
        whole.extend_from_slice(&part.bytes);
    }
    assert!(whole == bytes, "the parts are not the transaction");
    let end = parts.last().unwrap().end.unwrap();
    assert_eq!(end.length, bytes.len() as u64);
    assert_eq!(end.bytes_crc32, hash(&bytes));
    assert_eq!(end.checksum, content_checksum(bytes));
    while primary.ack().await.0 < primary.position {}
    assert_eq!(*capture.ended().borrow(), None);
}

#[tokio::test]
async fn a_transaction_above_the_entry_limit_becomes_contiguous_parts() {
    fragmented(250_000).await;
}

#[tokio::test]
async fn an_event_that_comes_in_chunks_becomes_contiguous_parts() {
    fragmented(3 << 20).await;
}

#[tokio::test]
async fn an_event_that_fills_its_frames_exactly_passes() {
    // The packet is the event with three bytes before it; around the row there are 40.
    let events = builder().insert(gtid(2), 2, 2, &[]);
    let around = events[3].len() + 3;
    for bytes in [0xff_ffff - 1, 0xff_ffff, 0xff_ffff + 1] {
        fragmented(bytes - around).await;
    }
}

#[tokio::test]
async fn positions_go_on_in_the_file_that_the_source_names() {
    let script = Script::default();
    let (_capture, mut primary) = released(&script, CaptureOptions::default()).await;
    primary.insert(1, 10).await;
    primary.flush().await;
    let first = script.next().await;
    primary
        .event(&builder().rotate("binlog.000002"), false)
        .await;
    primary.begin_file("binlog.000002").await;
    primary.insert(2, 10).await;
    primary.flush().await;
    let second = script.next().await;
    let files = [&first, &second].map(|(command, _)| match command {
        Command::Transactions(batch) => batch.source.file.to_string(),
        other => panic!("{other:?}"),
    });
    assert_eq!(files, ["binlog.000001", "binlog.000002"]);
    accept(first);
    assert_eq!(primary.ack().await.1, "binlog.000001");
    accept(second);
    let position = primary.position;
    assert_eq!(primary.ack().await, (position, "binlog.000002".to_owned()));
}

#[tokio::test]
async fn transactions_of_two_files_never_share_a_proposal() {
    let script = Script::default();
    let (mut capture, mut primary) = attach(&script, CaptureOptions::default()).await;
    primary.insert(1, 10).await;
    primary.begin_file("binlog.000002").await;
    primary.insert(2, 10).await;
    primary.flush().await;
    assert!(timeout(SOON, capture.attached()).await.unwrap());
    tokio::time::sleep(A_WHILE).await;
    capture.release();
    assert_eq!(sequences(&script.next().await.0), [1]);
    assert_eq!(sequences(&script.next().await.0), [2]);
}

#[tokio::test]
async fn a_heartbeat_inside_of_a_transaction_is_not_part_of_it() {
    let script = Script::default();
    let (_capture, mut primary) = released(&script, CaptureOptions::default()).await;
    let mut expected = BytesMut::new();
    for event in builder().insert(gtid(1), 1, 1, b"row") {
        expected.extend_from_slice(&primary.event(&event, false).await);
        let crc = ChecksumAlgorithm::Crc32;
        let heartbeat = heartbeat_v2("binlog.000001", primary.position, 1, crc);
        primary.raw(&heartbeat, false).await;
    }
    primary.flush().await;
    let Command::Transactions(batch) = script.next().await.0 else {
        panic!("no transactions");
    };
    assert_eq!(batch.transactions[0].events, expected.freeze());
}

#[tokio::test]
async fn a_large_event_outside_of_transactions_changes_no_checksum() {
    let script = Script::default();
    let (_capture, mut primary) = released(&script, CaptureOptions::default()).await;
    let body = vec![7; 2 << 20];
    let previous = builder().event(EventType::PREVIOUS_GTIDS, 0x80, &body);
    primary.event(&previous, false).await;
    let bytes = primary.insert(1, 10).await;
    primary.flush().await;
    let Command::Transactions(batch) = script.next().await.0 else {
        panic!("no transactions");
    };
    assert_eq!(batch.transactions[0].events, bytes);
    assert_eq!(batch.transactions[0].checksum, content_checksum(bytes));
}

#[tokio::test]
async fn a_damaged_event_ends_it() {
    for row in [10, 2 << 20] {
        let script = Script::default();
        let (capture, mut primary) = released(&script, CaptureOptions::default()).await;
        let events = builder().insert(gtid(1), 1, 1, &vec![1; row]);
        let mut damaged = events[3].to_vec();
        let at = damaged.len() - 6;
        damaged[at] ^= 1;
        for event in &events[..3] {
            primary.event(event, false).await;
        }
        primary.raw(&damaged.into(), false).await;
        primary.flush().await;
        let CaptureEnd::Dump(text) = end_of(&capture).await else {
            panic!("another end");
        };
        assert!(text.contains("checksum"), "{text}");
    }
}

#[tokio::test]
async fn a_transaction_without_a_gtid_ends_it() {
    let script = Script::default();
    let (capture, mut primary) = released(&script, CaptureOptions::default()).await;
    let anonymous = builder().event(EventType::ANONYMOUS_GTID, 0, &[0; 42]);
    primary.event(&anonymous, false).await;
    primary.flush().await;
    assert!(matches!(end_of(&capture).await, CaptureEnd::Dump(_)));
    script.nothing_comes().await;
}

#[tokio::test]
async fn a_source_without_checksums_is_captured() {
    let off = ChecksumAlgorithm::Off;
    let metrics = Arc::new(CaptureMetrics::default());
    let mut assembly = assemble::Assembly::new(1 << 20, metrics);
    let builder = EventBuilder {
        algorithm: off,
        ..builder()
    };
    let mut events = vec![
        fake_rotate("binlog.000001", 4, 1, off),
        builder.format_description("9.7.4", 0),
    ];
    events.extend(builder.insert(gtid(1), 1, 1, b"row"));
    let mut ready = Vec::new();
    for bytes in events {
        let chunk = EventChunk {
            ack_wanted: false,
            first: true,
            last: true,
            bytes,
        };
        assembly.push(&chunk, &mut ready).unwrap();
    }
    let [piece] = &ready[..] else {
        panic!("{} pieces", ready.len());
    };
    assert_eq!(
        (piece.gtid, &*piece.source.file),
        (gtid(1), "binlog.000001")
    );
}
