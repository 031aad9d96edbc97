//! Story: FLUSH and REPAIR on a replica's own socket give it transactions that nobody accepted
//! and that change nothing. It goes on serving reads, is adopted and repaired as it is, and as the
//! next primary it gives them to all servers.

use std::time::Duration;

use quorate_tests::{Cluster, Options, Signal, Sql, Writer, assert_servers_equal, eventually};
use quorate_types::{GtidSet, NodeId};
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const SOON: Duration = Duration::from_secs(20);
const WHOLE: Duration = Duration::from_secs(60);
const BY_HAND: &[&str] = &["FLUSH TABLES", "REPAIR TABLE app.written"];
const EXPECTED: &[&str] = &[
    "mysqld exited: repairing",
    "mysqld exited",
    "message: \"no answer in time\"",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_by_hand_leaves_a_replica_what_it_is() {
    let mut cluster = Cluster::start("flush-by-hand", PROGRAM, Options::default()).await;
    let first = cluster.wait_for_primary(SOON).await;
    let replica = cluster.others(first)[0];
    run(&cluster, first, &[Writer::TABLE]).await;
    assert_servers_equal(&cluster.sockets(), SOON).await;

    run(&cluster, replica, BY_HAND).await;
    assert!(!more(&cluster, replica, first).await.is_empty(), "logged");
    serves_reads(&cluster, replica).await;

    // Its sidecar alone: the next one finds it running, and keeps it.
    let pid = cluster.node(replica).mysqld_pid();
    cluster.node_mut(replica).kill();
    cluster.node_mut(replica).start(false);
    cluster.wait_until_whole(WHOLE).await;
    assert_eq!(cluster.node(replica).mysqld_pid(), pid, "it was adopted");
    serves_reads(&cluster, replica).await;

    // Its server: the next one's binlog is read before it starts.
    cluster.node(replica).signal_mysqld(Signal::KILL);
    let gone = eventually(SOON, async || {
        let now = cluster.node(replica).mysqld_pid();
        now.is_some() && now != pid
    })
    .await;
    assert!(gone, "the server was not started again");
    cluster.wait_until_whole(WHOLE).await;
    run(&cluster, replica, BY_HAND).await;
    serves_reads(&cluster, replica).await;
    let inert = more(&cluster, replica, first).await;
    assert!(inert.count() >= 3, "it still has them: {inert}");

    switch_to(&cluster, replica).await;
    run(
        &cluster,
        replica,
        &["INSERT INTO app.written VALUES (1, 'after')"],
    )
    .await;
    assert_servers_equal(&cluster.sockets(), SOON).await;
    assert_eq!(more(&cluster, replica, first).await, GtidSet::new());

    // What every server has now it has as an empty transaction, and its own binlog as it wrote it.
    switch_to(&cluster, first).await;
    cluster.node(replica).signal_mysqld(Signal::KILL);
    cluster.wait_until_whole(WHOLE).await;
    run(
        &cluster,
        first,
        &["INSERT INTO app.written VALUES (2, 'last')"],
    )
    .await;
    assert_servers_equal(&cluster.sockets(), SOON).await;
    assert_eq!(cluster.unexpected_log_lines(EXPECTED), Vec::<String>::new());
    cluster.stop().await;
}

async fn run(cluster: &Cluster, node: NodeId, statements: &[&str]) {
    let mut root = Sql::socket(&cluster.node(node).socket())
        .await
        .expect("root on the socket");
    for sql in statements {
        root.run(sql).await.expect(sql);
    }
}

async fn executed(cluster: &Cluster, node: NodeId) -> GtidSet {
    let mut root = Sql::socket(&cluster.node(node).socket())
        .await
        .expect("root on the socket");
    let set = root.value("SELECT @@global.gtid_executed").await;
    set.expect("its set").parse().expect("a GTID set")
}

/// What `node` has beyond `other`.
async fn more(cluster: &Cluster, node: NodeId, other: NodeId) -> GtidSet {
    let own = executed(cluster, node).await;
    own.difference(&executed(cluster, other).await)
}

/// For longer than any look at the server takes: it is a healthy replica and serves its port.
async fn serves_reads(cluster: &Cluster, node: NodeId) {
    let (began, mut looks) = (Instant::now(), 0);
    while looks < 10 {
        assert!(began.elapsed() < SOON, "it answers nobody");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let statuses = cluster.statuses().await;
        // One that takes a second to answer is busy.
        let Some(status) = statuses.get(&node) else {
            continue;
        };
        looks += 1;
        let nodes = status["nodes"].as_array().expect("a list of nodes");
        let own = nodes
            .iter()
            .find(|own| own["id"] == node.0)
            .expect("itself");
        assert_eq!(own["role"], "replica", "{own}");
        assert_eq!(own["healthy"], true, "{own}");
    }
    let mut reader = Sql::port(cluster.node(node).ports.read_only)
        .await
        .expect("its read-only port");
    let port = reader.value("SELECT @@port").await.expect("its port");
    assert_eq!(port, cluster.node(node).ports.mysql.to_string());
}

async fn switch_to(cluster: &Cluster, to: NodeId) {
    let address = format!("127.0.0.1:{}", cluster.node(to).ports.grpc);
    let command = move || {
        std::process::Command::new(PROGRAM)
            .args(["switchover", "--to", &to.to_string(), "--addr", &address])
            .output()
            .expect("run the program under test")
    };
    let answer = tokio::task::spawn_blocking(command)
        .await
        .expect("the command ran");
    let text = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert!(answer.status.success(), "switchover to {to}: {text}");
    cluster.wait_until_whole(WHOLE).await;
}
