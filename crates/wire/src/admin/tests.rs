use proptest::prelude::*;
use quorate_types::{Epoch, LeaderId, LogId, LogState, Retention};

use super::*;

const ROLES: [Role; 9] = [
    Role::Primary,
    Role::Replica,
    Role::Promoting,
    Role::Fenced,
    Role::Demoting,
    Role::Repairing,
    Role::Cloning,
    Role::Witness,
    Role::Down,
];

fn node_view(role: Role) -> NodeView {
    NodeView {
        role,
        healthy: role == Role::Replica,
        message: format!("is {role}"),
        gate_address: "127.0.0.1:7016".to_owned(),
        mysql_address: "127.0.0.1:7015".to_owned(),
        executed: "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5".parse().unwrap(),
        lag_transactions: 3,
        server_version: "9.7.4".to_owned(),
        learner: role == Role::Cloning,
        sessions: 12,
        kept_cuts: vec![KeptCut {
            at_ms: 1_700_000_000_000,
            name: "17-3".to_owned(),
            bytes: 4096,
        }],
        log: LogState {
            first: LogIndex(4),
            last: LogIndex(90),
            bytes: 5000,
            disk_bytes: 9000,
            budget_bytes: 6000,
            age_ms: 77,
            is_full: true,
        },
        differs: vec!["app.t".to_owned()],
    }
}

fn view() -> ClusterView {
    let leader = LeaderId {
        term: Term(4),
        node: NodeId(1),
    };
    let index = LogIndex(17);
    ClusterView {
        cluster: Some(ClusterId(7)),
        term: Term(4),
        leader: Some(NodeId(1)),
        epoch: Some(Epoch(LogId { leader, index })),
        primary: Some(NodeId(1)),
        applied: LogIndex(123),
        accepted: "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-8".parse().unwrap(),
        nodes: (1..).map(NodeId).zip(ROLES.map(node_view)).collect(),
        retention: Retention {
            purged: LogIndex(3),
            wanted: LogIndex(40),
            held_by: [(NodeId(3), "is down".to_owned())].into(),
        },
    }
}

#[test]
fn a_view_survives_the_way_over_the_wire() {
    for view in [view(), ClusterView::default()] {
        let bytes = crate::encode_message(&status_reply(NodeId(3), &view));
        let reply = crate::decode_message(bytes).unwrap();
        assert_eq!(cluster_view(reply).unwrap(), view);
    }
}

#[test]
fn a_report_survives_the_way_over_the_wire() {
    let full = NodeReport {
        cluster: Some(ClusterId(7)),
        node: NodeId(2),
        view: node_view(Role::Cloning),
        raft: RaftRole::Learner,
        incarnation: Incarnation(5),
        server_uuid: Some(Uuid([9; 16])),
        term: Term(4),
        leader: Some(NodeId(1)),
        last: LogIndex(20),
        applied: LogIndex(19),
        apply_level: 1,
        members: [NodeId(1), NodeId(2)].into(),
    };
    for report in [full, NodeReport::default()] {
        let reply = v1::NodeStatusReply::from(&report);
        assert_eq!(NodeReport::try_from(reply).unwrap(), report);
    }
}

#[test]
fn a_role_that_this_version_does_not_know_is_an_error() {
    let mut reply = status_reply(NodeId(1), &view());
    reply.nodes[0].role = 99;
    let error = cluster_view(reply).unwrap_err();
    assert_eq!(error.to_string(), "field `role` has the illegal value 99");
}

proptest! {
    #[test]
    fn arbitrary_replies_give_a_view_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Ok(reply) = crate::decode_message::<v1::StatusReply>(bytes.clone().into()) {
            let _ = cluster_view(reply);
        }
        if let Ok(reply) = crate::decode_message::<v1::NodeStatusReply>(bytes.into()) {
            let _ = NodeReport::try_from(reply);
        }
    }
}
