use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::gtid::Uuid;

fn gtid() -> impl Strategy<Value = Gtid> {
    let tag = prop_oneof![
        Just(Tag::EMPTY),
        Just("a".parse().unwrap()),
        Just("b_1".parse().unwrap())
    ];
    (0..3u8, tag, 1..40u64).prop_map(|(uuid, tag, sequence)| Gtid {
        source: SourceId {
            uuid: Uuid([uuid; 16]),
            tag,
        },
        sequence,
    })
}

fn gtids() -> impl Strategy<Value = BTreeSet<Gtid>> {
    proptest::collection::btree_set(gtid(), 0..60)
}

fn set(gtids: &BTreeSet<Gtid>) -> GtidSet {
    gtids.iter().copied().collect()
}

proptest! {
    #[test]
    fn the_algebra_is_that_of_plain_sets(a in gtids(), b in gtids(), probe in gtid()) {
        let (left, right) = (set(&a), set(&b));
        let mut both = left.clone();
        both.union(&right);
        prop_assert_eq!(&both, &set(&a.union(&b).copied().collect()));
        prop_assert_eq!(left.difference(&right), set(&a.difference(&b).copied().collect()));
        prop_assert_eq!(left.intersection(&right), set(&a.intersection(&b).copied().collect()));
        prop_assert_eq!(left.contains_set(&right), b.is_subset(&a));
        prop_assert_eq!(left.contains(probe), a.contains(&probe));
        prop_assert_eq!(left.count(), a.len() as u64);
    }

    #[test]
    fn text_and_wire_come_back(a in gtids()) {
        let set = set(&a);
        prop_assert_eq!(&set.to_string().parse::<GtidSet>().unwrap(), &set);
        prop_assert_eq!(&GtidSet::try_from_wire(&set.to_wire()).unwrap(), &set);
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = GtidSet::try_from_wire(&bytes);
    }

    #[test]
    fn hostile_changes_of_real_bytes_never_panic(a in gtids(), at in any::<usize>(), byte in any::<u8>()) {
        let mut bytes = set(&a).to_wire();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = GtidSet::try_from_wire(&bytes);
        let _ = GtidSet::try_from_wire(&bytes[..at]);
    }

    #[test]
    fn hostile_text_never_panics(text in "[0-9a-f:,\\- _]{0,80}") {
        let _ = text.parse::<GtidSet>();
    }
}

#[test]
fn mysqls_own_text_is_understood() {
    let text = "3E11FA47-71CA-11E1-9E33-C80AA9429562:1-3:11:47-49:Tag_1:5,\n 00000000-0000-0000-0000-000000000001:1";
    let set: GtidSet = text.parse().unwrap();
    assert_eq!(
        set.to_string(),
        "00000000-0000-0000-0000-000000000001:1,3e11fa47-71ca-11e1-9e33-c80aa9429562:1-3:11:47-49:tag_1:5"
    );
    assert_eq!(set.count(), 9);
}

#[test]
fn what_mysql_refuses_is_refused() {
    for text in [
        "x",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:0",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-9223372036854775807",
    ] {
        assert!(text.parse::<GtidSet>().is_err(), "{text}");
    }
}
