use std::sync::Arc;

use proptest::prelude::*;
use quorate_types::{
    Epoch, Gtid, Incarnation, Interval, LeaderId, LogId, Member, SourceId, Standing, Tag, Term,
    Uuid,
};

use super::*;

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<[u8; 16]>().prop_map(Uuid)
}

fn tag() -> impl Strategy<Value = Tag> {
    prop_oneof![
        2 => Just(Tag::EMPTY),
        1 => "[a-z_][a-z0-9_]{0,31}".prop_map(|text| text.parse().unwrap()),
    ]
}

fn gtid() -> impl Strategy<Value = Gtid> {
    (uuid(), tag(), 1..=Gtid::SEQUENCE_LAST).prop_map(|(uuid, tag, sequence)| Gtid {
        source: SourceId { uuid, tag },
        sequence,
    })
}

fn gtid_set() -> impl Strategy<Value = GtidSet> {
    prop::collection::vec((gtid(), 0..1000_u64), 0..6).prop_map(|starts| {
        let mut set = GtidSet::new();
        for (gtid, more) in starts {
            let start = gtid.sequence;
            let end = (start + 1 + more).min(Gtid::SEQUENCE_LAST + 1);
            set.insert_interval(gtid.source, Interval { start, end });
        }
        set
    })
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<(u64, u64, u64)>().prop_map(|(term, node, index)| {
        Epoch(LogId {
            leader: LeaderId {
                term: Term(term),
                node: NodeId(node),
            },
            index: LogIndex(index),
        })
    })
}

fn bytes(len_max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..len_max).prop_map(Bytes::from)
}

fn source() -> impl Strategy<Value = BinlogSource> {
    (".{0,20}", bytes(150)).prop_map(|(file, format)| BinlogSource {
        file: Arc::from(file),
        format,
    })
}

fn transaction() -> impl Strategy<Value = Transaction> {
    (gtid(), any::<u32>(), bytes(300)).prop_map(|(gtid, checksum, events)| Transaction {
        gtid,
        checksum,
        events,
    })
}

fn member() -> impl Strategy<Value = Member> {
    let texts = (".{0,8}", ".{0,8}", ".{0,8}", ".{0,8}");
    let standing =
        prop::sample::select(vec![Standing::Voter, Standing::Learner, Standing::Removed]);
    let numbers = (any::<u64>(), any::<u32>());
    let part = (standing, any::<bool>());
    (numbers, prop::option::of(uuid()), texts, part).prop_map(
        |(
            (incarnation, apply_level),
            server_uuid,
            (version, address, gate, mysql),
            (standing, witness),
        )| Member {
            incarnation: Incarnation(incarnation),
            server_uuid,
            server_version: version,
            address,
            gate_address: gate,
            mysql_address: mysql,
            apply_level,
            standing,
            witness,
        },
    )
}

fn batch() -> impl Strategy<Value = TransactionBatch> {
    let transactions = prop::collection::vec(transaction(), 0..5);
    (epoch(), any::<u64>(), source(), transactions).prop_map(
        |(epoch, first_number, source, transactions)| TransactionBatch {
            epoch,
            first_number,
            source,
            transactions,
        },
    )
}

fn fragment() -> impl Strategy<Value = Fragment> {
    let end = prop::option::of(any::<(u64, u32, u32)>().prop_map(
        |(length, bytes_crc32, checksum)| FragmentEnd {
            length,
            bytes_crc32,
            checksum,
        },
    ));
    let head = (epoch(), any::<u64>(), gtid(), any::<u32>());
    (head, end, source(), bytes(300)).prop_map(
        |((epoch, number, gtid, part), end, source, bytes)| Fragment {
            epoch,
            number,
            gtid,
            part,
            end,
            source,
            bytes,
        },
    )
}

fn cloning() -> impl Strategy<Value = Cloning> {
    let permit =
        any::<(u64, u64, u64, u64)>().prop_map(|(recipient, incarnation, donor, pinned)| {
            ClonePermit {
                recipient: NodeId(recipient),
                incarnation: Incarnation(incarnation),
                donor: NodeId(donor),
                pinned: LogIndex(pinned),
            }
        });
    (any::<u64>(), prop::option::of(permit))
        .prop_map(|(sequence, permit)| Cloning { sequence, permit })
}

fn command() -> impl Strategy<Value = Command> {
    let node = any::<u64>().prop_map(NodeId);
    prop_oneof![
        prop::option::of(node.clone()).prop_map(|node| Command::SetPrimary { node }),
        (gtid_set(), any::<u64>())
            .prop_map(|(gtid_set, checksum)| Command::Baseline { gtid_set, checksum }),
        any::<u64>().prop_map(|upto| Command::Purge {
            upto: LogIndex(upto)
        }),
        cloning().prop_map(Command::Cloning),
        (any::<(u64, u64)>(), gtid_set()).prop_map(|((node, incarnation), executed)| {
            Command::AcceptErrant(AcceptErrant {
                node: NodeId(node),
                incarnation: Incarnation(incarnation),
                executed,
            })
        }),
        batch().prop_map(Command::Transactions),
        fragment().prop_map(Command::Fragment),
        prop::collection::btree_map(node, member(), 0..5).prop_map(Command::Members),
        any::<u32>().prop_map(|apply_level| Command::Settings(Settings { apply_level })),
    ]
}

proptest! {
    #[test]
    fn a_decoded_command_is_the_encoded_one(command in command()) {
        let bytes = encode_command(&command);
        prop_assert_eq!(bytes.len(), encoded_len(&command));
        prop_assert_eq!(decode_command(bytes).unwrap(), command);
    }

    #[test]
    fn damaged_bytes_give_a_command_or_an_error(
        command in command(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode_command(&command).to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = value;
            bytes.truncate(keep.index(bytes.len()) + 1);
        }
        if let Ok(command) = decode_command(bytes.into()) {
            // What was read at all can be written and is the same again.
            prop_assert_eq!(decode_command(encode_command(&command)).unwrap(), command);
        }
    }

    #[test]
    fn arbitrary_bytes_give_a_command_or_an_error(bytes in bytes(400)) {
        let _ = decode_command(bytes);
    }
}

#[test]
fn decoding_copies_no_event() {
    let command = sample("transactions");
    let bytes = encode_command(&command);
    let Command::Transactions(batch) = decode_command(bytes.clone()).unwrap() else {
        panic!("a batch was encoded");
    };
    for transaction in batch.transactions {
        assert!(
            bytes
                .as_ptr_range()
                .contains(&transaction.events.as_ptr_range().start),
            "events lie outside the buffer that was decoded"
        );
    }
}

#[test]
fn a_payload_of_an_unknown_kind_is_told_from_damage() {
    // Fields 15 and 100, and nothing at all.
    for bytes in [&[0x7a, 0x02, 0x08, 0x01][..], &[0xa2, 0x06, 0x00], &[]] {
        let error = decode_command(Bytes::copy_from_slice(bytes)).unwrap_err();
        assert!(error.is_unknown_payload(), "{error}");
    }
    let error = decode_command(Bytes::from_static(&[0x0a, 0x05])).unwrap_err();
    assert!(!error.is_unknown_payload(), "{error}");
}

#[test]
fn values_outside_their_range_are_refused() {
    let gtid = |tag: &str, sequence| v1::Gtid {
        uuid: Some(v1::Uuid { high: 1, low: 2 }),
        tag: tag.to_owned(),
        sequence,
    };
    assert!(Gtid::try_from(gtid("blue", 1)).is_ok());
    for wrong in [
        gtid("", 0),
        gtid("", u64::MAX),
        gtid("Blue", 1),
        gtid("1", 1),
    ] {
        assert!(Gtid::try_from(wrong.clone()).is_err(), "{wrong:?}");
    }
    let twice = v1::MemberList {
        members: vec![v1::Member::default(), v1::Member::default()],
    };
    assert!(quorate_types::Members::try_from(twice).is_err());
}

fn sample_cloning(begins: bool) -> Command {
    let permit = ClonePermit {
        recipient: NodeId(3),
        incarnation: Incarnation(0xfeed),
        donor: NodeId(2),
        pinned: LogIndex(299),
    };
    Command::Cloning(Cloning {
        sequence: 5,
        permit: begins.then_some(permit),
    })
}

fn sample_errant(uuid: Uuid) -> Command {
    Command::AcceptErrant(AcceptErrant {
        node: NodeId(2),
        incarnation: Incarnation(0xfeed),
        executed: format!("{uuid}:1-5:7:blue:1-3").parse().unwrap(),
    })
}

fn sample_members(uuid: Uuid) -> Command {
    let member = Member {
        incarnation: Incarnation(0xfeed),
        server_uuid: Some(uuid),
        server_version: "9.7.4".to_owned(),
        address: "127.0.0.1:7023".to_owned(),
        gate_address: "127.0.0.1:7026".to_owned(),
        mysql_address: "127.0.0.1:7025".to_owned(),
        apply_level: 1,
        ..Member::default()
    };
    Command::Members([(NodeId(2), member)].into())
}

/// One command of each kind, with every field set, for the golden files.
fn sample(kind: &str) -> Command {
    let epoch = Epoch(LogId {
        leader: LeaderId {
            term: Term(4),
            node: NodeId(2),
        },
        index: LogIndex(300),
    });
    let uuid: Uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562".parse().unwrap();
    let source = BinlogSource {
        file: Arc::from("binlog.000007"),
        format: Bytes::from_static(b"format"),
    };
    let gtid = |text: &str| format!("{uuid}:{text}").parse::<Gtid>().unwrap();
    let transaction = |text, events: &'static [u8]| Transaction {
        gtid: gtid(text),
        checksum: 0xcbf4_3926,
        events: Bytes::from_static(events),
    };
    match kind {
        "set_primary" => Command::SetPrimary {
            node: Some(NodeId(2)),
        },
        "set_primary_none" => Command::SetPrimary { node: None },
        "baseline" => Command::Baseline {
            gtid_set: format!("{uuid}:1-5:7:blue:1-3").parse().unwrap(),
            checksum: 0x0123_4567_89ab_cdef,
        },
        "cloning" => sample_cloning(true),
        "cloning_end" => sample_cloning(false),
        "accept_errant" => sample_errant(uuid),
        "purge" => Command::Purge {
            upto: LogIndex(299),
        },
        "transactions" => Command::Transactions(TransactionBatch {
            epoch,
            first_number: 11,
            source,
            transactions: vec![transaction("8", b"first"), transaction("blue:4", b"second")],
        }),
        "fragment" => Command::Fragment(Fragment {
            epoch,
            number: 13,
            gtid: gtid("9"),
            part: 2,
            end: Some(FragmentEnd {
                length: 600_000,
                bytes_crc32: 0xcbf4_3926,
                checksum: 0x1122_3344,
            }),
            source,
            bytes: Bytes::from_static(b"rest"),
        }),
        "members" => sample_members(uuid),
        "settings" => Command::Settings(Settings { apply_level: 1 }),
        other => panic!("no sample of kind {other}"),
    }
}

const GOLDEN: [(&str, &str); 11] = [
    (
        "set_primary",
        include_str!("../../testdata/set_primary.hex"),
    ),
    (
        "set_primary_none",
        include_str!("../../testdata/set_primary_none.hex"),
    ),
    ("baseline", include_str!("../../testdata/baseline.hex")),
    ("cloning", include_str!("../../testdata/cloning.hex")),
    (
        "cloning_end",
        include_str!("../../testdata/cloning_end.hex"),
    ),
    (
        "accept_errant",
        include_str!("../../testdata/accept_errant.hex"),
    ),
    ("purge", include_str!("../../testdata/purge.hex")),
    (
        "transactions",
        include_str!("../../testdata/transactions.hex"),
    ),
    ("fragment", include_str!("../../testdata/fragment.hex")),
    ("members", include_str!("../../testdata/members.hex")),
    ("settings", include_str!("../../testdata/settings.hex")),
];

#[test]
fn the_bytes_of_each_kind_of_payload_never_change() {
    for (kind, golden) in GOLDEN {
        let command = sample(kind);
        let bytes = encode_command(&command);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden.trim(), "testdata/{kind}.hex");
        assert_eq!(decode_command(bytes).unwrap(), command, "{kind}");
    }
}
