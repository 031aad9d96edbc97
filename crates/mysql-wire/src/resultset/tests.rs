use proptest::prelude::*;

use super::*;
use crate::ServerError;

#[test]
fn the_answers_of_a_real_source_are_understood() {
    let column = b"\x03def\x00\x00\x00\x10UNIX_TIMESTAMP()\x00\x0c?\x00\x15\x00\x00\x00\x08\x81\x00\x00\x00\x00";
    assert_eq!(
        column_name(&Bytes::from_static(column)).unwrap(),
        "UNIX_TIMESTAMP()"
    );
    let row = Row::parse(&Bytes::from_static(b"\n1795210922"), 1).unwrap();
    assert_eq!(row.text(0).as_deref(), Some("1795210922"));
    assert!(is_eof(b"\xfe\x00\x00\x02\x00\x00\x00"));
    let ok = OkPacket::parse(&Bytes::from_static(b"\x00\x00\x00\x02\x00\x00\x00")).unwrap();
    assert_eq!(
        ok,
        OkPacket {
            affected_rows: 0,
            last_insert_id: 0,
            status: 2
        }
    );
}

#[test]
fn an_error_is_shortened_between_characters_and_understood_again() {
    let error = ServerError::new(1236, "HY000", "é".repeat(400));
    let parsed = ServerError::parse(&error.to_payload().into()).unwrap();
    assert_eq!((parsed.code, parsed.state.as_str()), (1236, "HY000"));
    assert_eq!(parsed.message, "é".repeat(255));
}

#[test]
fn an_error_before_the_handshake_has_no_state() {
    let error = ServerError::new(1040, "08004", "Too many connections");
    assert_eq!(
        &error.to_frame_before_handshake()[..],
        b"\x17\0\0\0\xff\x10\x04Too many connections"
    );
    assert_eq!(
        &error.to_frame(3)[..],
        b"\x1d\0\0\x03\xff\x10\x04#08004Too many connections"
    );
}

proptest! {
    #[test]
    fn rows_survive_the_round_trip(
        values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..300)), 1..8),
    ) {
        let row: Row = values.into_iter().collect();
        prop_assert_eq!(Row::parse(&row.to_payload().into(), row.0.len()).unwrap(), row);
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), columns in 0..9_usize) {
        let bytes = Bytes::from(bytes);
        let _ = Row::parse(&bytes, columns);
        let _ = OkPacket::parse(&bytes);
        let _ = column_name(&bytes);
        let _ = eof_status(&bytes);
        let _ = ServerError::parse(&bytes);
    }
}
