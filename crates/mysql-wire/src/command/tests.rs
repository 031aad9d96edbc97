use proptest::prelude::*;

use super::*;

/// From a replica of MySQL 9.7.4.
const REGISTER: &[u8] = b"\x15\x02\x00\x00\x00\x00\x00\x00\xa2\x0f\x00\x00\x00\x00\x00\x00\x00\x00";
const DUMP: &[u8] = b"\x1e\x02\x00\x02\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

fn set() -> GtidSet {
    "2afd0cd9-e529-11f1-a6e9-02fc00000001:1-5:9,30b06607-e52b-11f1-b1db-02fc00000001:tag:3"
        .parse()
        .unwrap()
}

#[test]
fn a_registration_is_the_bytes_of_a_real_replica() {
    let register = RegisterReplica {
        server_id: 2,
        host: String::new(),
        port: 4002,
    };
    assert_eq!(register.to_payload(), REGISTER);
    let parsed = Command::parse(&Bytes::from_static(REGISTER)).unwrap();
    assert_eq!(parsed, Command::RegisterReplica(register));
}

#[test]
fn a_dump_request_is_the_bytes_of_a_real_replica() {
    let dump = BinlogDumpGtid {
        flags: DUMP_HEARTBEAT_V2,
        server_id: 2,
        file: String::new(),
        position: 4,
        executed: GtidSet::new(),
    };
    assert_eq!(dump.to_payload(), DUMP);
    let parsed = Command::parse(&Bytes::from_static(DUMP)).unwrap();
    assert_eq!(parsed, Command::BinlogDumpGtid(dump));
}

#[test]
fn a_dump_request_carries_its_set() {
    let dump = BinlogDumpGtid {
        flags: DUMP_NON_BLOCK,
        server_id: 7,
        file: "binlog.000001".into(),
        position: 4,
        executed: set(),
    };
    let parsed = Command::parse(&dump.to_payload().into()).unwrap();
    assert_eq!(parsed, Command::BinlogDumpGtid(dump));
}

#[test]
fn other_commands_are_told_apart() {
    for (bytes, expected) in [
        (&b"\x03SELECT 1"[..], Command::Query("SELECT 1".into())),
        (b"\x02t", Command::InitDb("t".into())),
        (b"\x0e", Command::Ping),
        (b"\x01", Command::Quit),
        (b"\x16SELECT ?", Command::Other(0x16)),
        (
            b"\x12\x04\0\0\0\x01\0\x09\0\0\0log.1",
            Command::BinlogDump(BinlogDump {
                flags: 1,
                server_id: 9,
                file: "log.1".into(),
                position: 4,
            }),
        ),
    ] {
        assert_eq!(
            Command::parse(&Bytes::from_static(bytes)).unwrap(),
            expected
        );
    }
    assert!(Command::parse(&Bytes::new()).is_err());
}

#[test]
fn a_dump_request_with_hostile_counts_is_refused() {
    let head = b"\x1e\x02\x00\x02\x00\x00\x00";
    for tail in [
        // A name of 4 GiB.
        &b"\xff\xff\xff\xff\0\0\0\0"[..],
        // A set of 4 GiB.
        b"\0\0\0\0\x04\0\0\0\0\0\0\0\xff\xff\xff\xff",
        // 2^56 - 1 sources in eight bytes.
        b"\0\0\0\0\x04\0\0\0\0\0\0\0\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\0",
    ] {
        let packet = Bytes::from([&head[..], tail].concat());
        assert!(Command::parse(&packet).is_err(), "{packet:?}");
    }
}

proptest! {
    #[test]
    fn mutated_commands_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        len in any::<prop::sample::Index>(),
        which in 0..3_usize,
    ) {
        let dump = BinlogDumpGtid { flags: 0, server_id: 1, file: "f".into(), position: 4, executed: set() };
        let mut bytes = [REGISTER.to_vec(), DUMP.to_vec(), dump.to_payload()][which].clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(len.index(bytes.len() + 1));
        let _ = Command::parse(&bytes.into());
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..96)) {
        let _ = Command::parse(&bytes.into());
    }
}
