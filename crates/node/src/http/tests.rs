use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use quorate_net::{Endpoint, Net, TokioNet};
use quorate_types::{
    ClusterId, ClusterView, Epoch, LeaderId, LogId, LogIndex, LogState, NodeId, NodeView,
};
use quorate_types::{Retention, Role, Term};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{RecentEvent, StatusJson, StatusSource, fetch_status, router, serve};

struct Fake {
    view: ClusterView,
    sick: Option<String>,
}

impl StatusSource for Fake {
    fn status(&self) -> StatusJson {
        let mut status = StatusJson::from_view(&self.view);
        status.recent.push(RecentEvent {
            at_ms: 7,
            what: "node 1 became primary".to_owned(),
        });
        status
    }

    fn healthy(&self) -> Result<(), String> {
        self.sick.clone().map_or(Ok(()), Err)
    }
}

fn view() -> ClusterView {
    let term = Term(4);
    let leader = LeaderId {
        term,
        node: NodeId(1),
    };
    let node = |role, healthy, learner| NodeView {
        role,
        healthy,
        learner,
        mysql_address: "127.0.0.1:7015".to_owned(),
        message: if healthy {
            String::new()
        } else {
            "cutting".to_owned()
        },
        ..NodeView::default()
    };
    ClusterView {
        cluster: Some(ClusterId(0xab)),
        term,
        leader: Some(NodeId(1)),
        epoch: Some(Epoch(LogId {
            leader,
            index: LogIndex(17),
        })),
        primary: Some(NodeId(1)),
        applied: LogIndex(123),
        accepted: "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5".parse().unwrap(),
        nodes: [
            (NodeId(1), node(Role::Primary, true, false)),
            (NodeId(2), node(Role::Repairing, false, true)),
        ]
        .into(),
        retention: Retention::default(),
    }
}

async fn started(sick: Option<&str>) -> Endpoint {
    let at = "127.0.0.1:0".parse().unwrap();
    let listener = TokioNet.listen(&at).await.unwrap();
    let local = listener.local.clone();
    let mut registry = Registry::default();
    let commits = Counter::<u64, AtomicU64>::default();
    commits.inc_by(3);
    registry.register("quorate_commits", "Commits", commits);
    let source = Arc::new(Fake {
        view: view(),
        sick: sick.map(str::to_owned),
    });
    tokio::spawn(serve(listener, router(source, Arc::new(registry))));
    local
}

async fn get(at: &Endpoint, path: &str) -> String {
    let mut io = TokioNet.connect(at).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    io.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn the_status_says_how_large_the_log_is_and_who_holds_it() {
    let mut view = view();
    let own = view.nodes.get_mut(&NodeId(1)).unwrap();
    own.log = LogState {
        first: LogIndex(5),
        last: LogIndex(123),
        bytes: 7000,
        disk_bytes: 20_000,
        budget_bytes: 100_000,
        age_ms: 61_500,
        is_full: false,
    };
    view.retention = Retention {
        purged: LogIndex(4),
        wanted: LogIndex(50),
        held_by: [(NodeId(2), "is repairing".to_owned())].into(),
    };
    let json = serde_json::to_value(StatusJson::from_view(&view)).unwrap();
    let log = serde_json::json!({
        "first": 5, "last": 123, "bytes": 7000, "disk_bytes": 20000, "budget_bytes": 100000,
        "age_s": 61, "full": false,
    });
    assert_eq!(json["nodes"][0]["log"], log);
    assert!(json["nodes"][1]["log"].is_null());
    let retention = serde_json::json!({
        "purged": 4, "wanted": 50, "held_by": [{"id": 2, "why": "is repairing"}],
    });
    assert_eq!(json["retention"], retention);
}

#[test]
fn the_status_has_exactly_the_fields_that_scripts_rely_on() {
    let json = serde_json::to_value(StatusJson::from_view(&view())).unwrap();
    let expected = serde_json::json!({
        "cluster": "00000000000000ab", "term": 4, "leader": 1, "epoch": "4-17", "primary": 1,
        "committed": {"index": 123, "gtid_set": "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"},
        "nodes": [
            {"id": 1, "role": "primary", "healthy": true, "mysql": "127.0.0.1:7015",
             "executed_gtid_set": "", "lag_transactions": 0, "raft": "leader"},
            {"id": 2, "role": "repairing", "healthy": false, "message": "cutting",
             "mysql": "127.0.0.1:7015", "executed_gtid_set": "", "lag_transactions": 0,
             "raft": "learner"},
        ],
        "recent": [],
        "retention": {"purged": 0, "wanted": 0, "held_by": []},
    });
    assert_eq!(json, expected);
}

#[test]
fn a_node_without_a_cluster_has_a_status_too() {
    let json = serde_json::to_value(StatusJson::from_view(&ClusterView::default())).unwrap();
    assert_eq!(json["cluster"], "");
    assert_eq!(json["primary"], serde_json::Value::Null);
}

#[tokio::test]
async fn the_client_reads_what_the_server_tells() {
    let at = started(None).await;
    let status = fetch_status(&TokioNet, &at).await.unwrap();
    assert_eq!(status.nodes.len(), 2);
    assert_eq!(status.recent[0].what, "node 1 became primary");
}

#[tokio::test]
async fn health_is_503_with_the_reason() {
    let ok = get(&started(None).await, "/healthz").await;
    assert!(ok.starts_with("HTTP/1.1 200"), "{ok}");
    let sick = get(&started(Some("no leader")).await, "/healthz").await;
    assert!(sick.starts_with("HTTP/1.1 503"), "{sick}");
    assert!(sick.ends_with("no leader\n"), "{sick}");
}

#[tokio::test]
async fn metrics_are_in_the_text_format_that_monitoring_reads() {
    let text = get(&started(None).await, "/metrics").await;
    assert!(text.contains("application/openmetrics-text"), "{text}");
    assert!(text.contains("quorate_commits_total 3"), "{text}");
    assert!(text.trim_end().ends_with("# EOF"), "{text}");
}

#[tokio::test]
async fn the_dashboard_needs_nothing_from_elsewhere() {
    let page = get(&started(None).await, "/").await;
    assert!(page.contains("<title>"), "{page}");
    for foreign in ["https://", "http://", "src=", "@import"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[tokio::test]
async fn idle_connections_do_not_keep_others_out_for_ever() {
    let at = started(None).await;
    let mut idle = Vec::new();
    for _ in 0..80 {
        idle.push(TokioNet.connect(&at).await.unwrap());
    }
    drop(idle.split_off(10));
    assert!(get(&at, "/healthz").await.starts_with("HTTP/1.1 200"));
}
