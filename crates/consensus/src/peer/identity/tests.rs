use quorate_storage::{LogDisk, LogRead, MemoryDisk};

use super::*;
use crate::codec;
use crate::log::{Exec, LogStore};
use crate::metrics::Metrics;
use crate::types::{RaftLeaderId, RaftVote};

const OWN: Identity = Identity {
    cluster: ClusterId(7),
    node: NodeId(1),
    incarnation: Incarnation(11),
    start_counter: 1,
};

fn open(disk: &MemoryDisk) -> Peers {
    let starts = disk.reader().meta(MetaKey::PeerStarts).unwrap();
    let on_indexed = Box::new(|_| {});
    let log = LogStore::open(disk.clone(), Exec::Inline, on_indexed, Metrics::default()).unwrap();
    Peers::new(OWN, StartIds::default(), log.writer(), starts).unwrap()
}

/// How node 2 should introduce itself.
fn right() -> v1::Peer {
    v1::Peer {
        cluster_id: 7,
        from: 2,
        to: 1,
        incarnation: 22,
        start_counter: 5,
        start_ids: vec![55, 54, 53],
    }
}

/// The same node, so many starts later, with this history.
fn later(start_counter: u64, start_ids: &[u64]) -> v1::Peer {
    v1::Peer {
        start_counter,
        start_ids: start_ids.to_vec(),
        ..right()
    }
}

/// What is said to somebody who introduces himself so.
async fn refused(peers: &Peers, peer: v1::Peer) -> String {
    let checked = peers.check(Some(peer), Some(Incarnation(22))).await;
    checked.expect_err("it is refused").message().to_owned()
}

#[tokio::test]
async fn each_wrong_introduction_is_refused_and_said_to_be() {
    let peers = open(&MemoryDisk::new());
    let member = Some(Incarnation(22));
    assert_eq!(peers.check(Some(right()), member).await.unwrap(), NodeId(2));
    // Who is no member yet, or asks for something that any node may, has nothing registered.
    assert_eq!(peers.check(Some(right()), None).await.unwrap(), NodeId(2));
    let nobody = peers.check(None, member).await.unwrap_err();
    assert_eq!(nobody.message(), "the request names no peer");
    for (wrong, words) in [
        (
            v1::Peer {
                cluster_id: 8,
                ..right()
            },
            ["in cluster", "not in"],
        ),
        (v1::Peer { to: 3, ..right() }, ["node 1", "not node 3"]),
        (
            v1::Peer {
                incarnation: 21,
                ..right()
            },
            ["the folder of node 2", "the member's is"],
        ),
        (
            v1::Peer {
                start_counter: 4,
                ..right()
            },
            ["it started 4 times", "was put back"],
        ),
    ] {
        let said = refused(&peers, wrong).await;
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    assert_eq!(peers.check(Some(right()), member).await.unwrap(), NodeId(2));
}

#[tokio::test]
async fn an_answer_of_somebody_else_is_refused() {
    let peers = open(&MemoryDisk::new());
    let check = async |peer: v1::Peer, expected| {
        let mut answer = tonic::metadata::MetadataMap::new();
        let value = BinaryMetadataValue::from_bytes(&peer.encode_to_vec());
        answer.insert_bin(PEER_METADATA, value);
        let checked = peers.check_answer(&answer, NodeId(expected), Some(Incarnation(22)));
        checked.await.map_err(|status| status.message().to_owned())
    };
    check(right(), 2).await.unwrap();
    let other = check(right(), 3).await.unwrap_err();
    assert!(other.contains("this is node 2, not node 3"), "{other}");
    let wiped = v1::Peer {
        incarnation: 23,
        ..right()
    };
    assert!(check(wiped, 2).await.is_err());
    let empty = tonic::metadata::MetadataMap::new();
    let nobody = peers.check_answer(&empty, NodeId(2), None).await;
    assert_eq!(nobody.unwrap_err().message(), "the answer names no peer");
}

/// The highest start that was heard is written before the vote that the same request asks for, so
/// that a power loss after the vote keeps it.
#[tokio::test]
async fn the_highest_start_is_as_durable_as_the_vote_that_follows() {
    let disk = MemoryDisk::new();
    let peers = open(&disk);
    peers.check(Some(right()), None).await.unwrap();
    let vote = RaftVote {
        leader_id: RaftLeaderId {
            term: 3,
            node_id: 2,
        },
        committed: false,
    };
    let vote = Write::SetMeta(MetaKey::Vote, codec::vote_to_bytes(&vote));
    peers.writer.write_synced(vec![vote]).await.unwrap();
    disk.crash(0);
    let peers = open(&disk.reopen());
    let put_back = v1::Peer {
        start_counter: 4,
        ..right()
    };
    let said = refused(&peers, put_back).await;
    assert!(said.contains("it started 5 times"), "{said}");
    // A folder that was made anew counts from the beginning.
    let anew = v1::Peer {
        incarnation: 23,
        start_counter: 1,
        ..right()
    };
    let checked = peers.check(Some(anew), Some(Incarnation(23))).await;
    assert_eq!(checked.unwrap(), NodeId(2));
}

/// A folder from before its last start counts one more start, as often as the one that was lost.
#[tokio::test]
async fn a_folder_from_before_its_last_start_is_refused_however_often_it_started_since() {
    let disk = MemoryDisk::new();
    let peers = open(&disk);
    let member = Some(Incarnation(22));
    peers.check(Some(right()), member).await.unwrap();
    for put_back in [
        later(5, &[95, 54, 53]),
        later(6, &[96, 95, 54, 53]),
        later(7, &[97, 96, 95, 54]),
    ] {
        let said = refused(&peers, put_back).await;
        assert!(said.contains("was put back"), "{said}");
    }
    // What was heard is known after a restart too.
    let vote = Write::SetMeta(MetaKey::Vote, Bytes::new());
    peers.writer.write_synced(vec![vote]).await.unwrap();
    disk.crash(0);
    let peers = open(&disk.reopen());
    let said = refused(&peers, later(5, &[95, 54, 53])).await;
    assert!(said.contains("start number 5 was another one"), "{said}");
    // The right folder goes on, also after starts that this node did not hear of.
    peers.check(Some(right()), member).await.unwrap();
    let next = later(7, &[57, 56, 55, 54]);
    peers.check(Some(next.clone()), member).await.unwrap();
    peers.check(Some(next), member).await.unwrap();
    let said = refused(&peers, later(8, &[98, 96, 95])).await;
    assert!(said.contains("start number 7"), "{said}");
    // A history that does not reach back so far says nothing, nor does none.
    peers.check(Some(later(40, &[1, 2])), member).await.unwrap();
    peers.check(Some(later(41, &[])), member).await.unwrap();
}
