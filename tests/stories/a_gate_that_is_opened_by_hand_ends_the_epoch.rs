//! Story: somebody changes by hand what makes commits wait. The primary is fenced, killed and
//! repaired, another takes over, and no row that a client was told of is lost, not even one on the
//! server's own socket; so nothing is left to clone away. A setting that is wrong elsewhere is said
//! in the status.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_mysql_wire::{
    ChecksumRequest, ConnectOptions, Connection, ReplicaConnection, ReplicaOptions,
};
use quorate_net::{Endpoint, Net, TokioNet};
use quorate_tests::{
    Cluster, Options, Sql, Writer, assert_rows_survived, assert_servers_equal, eventually,
};
use quorate_types::{GtidSet, NodeId, Uuid};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const SOON: Duration = Duration::from_secs(20);
const LOAD: Duration = Duration::from_secs(1);
const CLIENTS: u64 = 4;
/// No statement, but somebody whose ACK would count as much as the sidecar's.
const SECOND_REPLICA: &str = "a second semi-sync replica";
const PAST_THE_GATE: &str = "CREATE TABLE app.past_the_gate (id INT PRIMARY KEY)";
/// What the old primary says of it, and of its way back.
const EXPECTED: &[&str] = &[
    "rpl_semi_sync_source_enabled is 0, not ON",
    "rpl_semi_sync_source_timeout is 1000, not 1000000000000000000",
    // Who looks at the status may come first, and so may who looks at all settings.
    "semi-sync is off",
    "mysqld runs with rpl_semi_sync_source_",
    "a second semi-sync replica is attached",
    "cut what was never acknowledged",
    // A server that switches semi-sync off holds its variables for a second; the rows are looked for.
    "commits may still be on their way when the server is killed",
    "mysqld runs with binlog_row_image=MINIMAL",
    "message: \"no answer in time\"",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_is_opened_by_hand_ends_the_epoch() {
    let cluster = Cluster::start("gate-by-hand", PROGRAM, Options::default()).await;
    let first = cluster.wait_for_primary(SOON).await;
    root(&cluster, first, Writer::TABLE).await;
    root(&cluster, first, PAST_THE_GATE).await;
    let mut past_the_gate = Vec::new();
    let ports = cluster.nodes.values().map(|node| node.ports.read_write);
    let writer = Writer::start(ports.collect(), CLIENTS);

    let changes = [
        "SET GLOBAL rpl_semi_sync_source_enabled=OFF",
        "SET GLOBAL rpl_semi_sync_source_timeout=1000",
        SECOND_REPLICA,
    ];
    for (round, change) in changes.into_iter().enumerate() {
        let old = cluster.wait_for_primary(SOON).await;
        tokio::time::sleep(LOAD).await;
        let pid = cluster.node(old).mysqld_pid();
        let client = write_past_the_gate(&cluster, old, round).await;
        let until_closed = ask_until_closed(&cluster, old).await;
        let changed = Instant::now();
        let attached = match change {
            SECOND_REPLICA => Some(attach_second_replica(&cluster, old).await),
            change => {
                root(&cluster, old, change).await;
                None
            }
        };
        let moved = eventually(SOON, async || {
            cluster.primary().await.is_some_and(|now| now != old)
        })
        .await;
        assert!(moved, "{change}: node {old} is still primary");
        let pause = changed.elapsed();
        cluster.wait_until_whole(Duration::from_secs(60)).await;
        assert_ne!(cluster.node(old).mysqld_pid(), pid, "{change}: not killed");
        if let Some(attached) = attached {
            let ended = tokio::time::timeout(SOON, attached).await;
            ended.expect("its server is gone").expect("no panic");
        }
        let written = client.await.expect("no panic");
        let closed = until_closed.await.expect("no panic") - changed;
        println!(
            "gate by hand: {change}: closed after {closed:?}, another primary seen after \
             {pause:?}, {} rows past the gate",
            written.len(),
        );
        past_the_gate.extend(written);
    }
    a_wrong_setting_is_said(&cluster).await;

    let outcomes = writer.finish().await;
    assert_servers_equal(&cluster.sockets(), SOON).await;
    assert_rows_survived(&cluster.sockets(), &outcomes, &BTreeSet::new()).await;
    let there = rows_past_the_gate(&cluster, first).await;
    let lost = past_the_gate.iter().filter(|id| !there.contains(id));
    let lost = lost.collect::<Vec<_>>();
    assert!(
        lost.is_empty(),
        "answered past the gate, and lost: {lost:?}"
    );
    println!(
        "gate by hand: {} acknowledged, {} refused, {} unknown",
        outcomes.acknowledged.len(),
        outcomes.refused.len(),
        outcomes.unknown.len(),
    );
    assert_eq!(cluster.unexpected_log_lines(EXPECTED), Vec::<String>::new());
    cluster.stop().await;
}

/// One row after the other on the server's own socket, until one fails; those that were answered.
async fn write_past_the_gate(
    cluster: &Cluster,
    node: NodeId,
    round: usize,
) -> JoinHandle<Vec<usize>> {
    let socket = cluster.node(node).socket();
    let mut root = Sql::socket(&socket).await.expect("root on the socket");
    let first = round * 1_000_000;
    tokio::spawn(async move {
        let mut written = Vec::new();
        for id in first.. {
            let insert = format!("INSERT INTO app.past_the_gate VALUES ({id})");
            if root.run_within(&insert, SOON).await.is_err() {
                break;
            }
            written.push(id);
        }
        written
    })
}

/// Asks the server through its gate until that is closed, and gives the time of that.
async fn ask_until_closed(cluster: &Cluster, node: NodeId) -> JoinHandle<Instant> {
    let port = cluster.node(node).ports.read_write;
    let mut client = Sql::port(port).await.expect("a session");
    tokio::spawn(async move {
        while client.run_within("DO 1", SOON).await.is_ok() {}
        Instant::now()
    })
}

async fn rows_past_the_gate(cluster: &Cluster, node: NodeId) -> BTreeSet<usize> {
    let socket = cluster.node(node).socket();
    let mut root = Sql::socket(&socket).await.expect("root on the socket");
    let rows = root.rows("SELECT id FROM app.past_the_gate").await;
    let rows = rows.expect("its rows").into_iter().flatten();
    rows.map(|id| id.parse().expect("a number")).collect()
}

/// Stays until its connection ends.
async fn attach_second_replica(cluster: &Cluster, node: NodeId) -> JoinHandle<()> {
    let socket = Endpoint::Unix(cluster.node(node).socket());
    let io = TokioNet
        .connect(&socket)
        .await
        .expect("the server's socket");
    let root = ConnectOptions {
        user: "root".to_owned(),
        ..ConnectOptions::default()
    };
    let mut connection = Connection::connect(io, &root).await.expect("root");
    let executed = connection.query("SELECT @@GLOBAL.gtid_executed").await;
    let executed = executed.expect("its transactions").scalar();
    let executed: GtidSet = executed.unwrap_or_default().parse().expect("a GTID set");
    let options = ReplicaOptions {
        server_id: 4_000_000_002,
        server_uuid: Uuid([9; 16]),
        heartbeat_period: Duration::from_secs(1),
        checksum: ChecksumRequest::AsSource,
        semi_sync: true,
    };
    let replica = ReplicaConnection::prepare(connection, &options).await;
    let dump = replica.expect("a replica").dump_gtid(&executed).await;
    let (mut events, acks) = dump.expect("a dump");
    tokio::spawn(async move {
        while events.next().await.is_ok() {}
        drop(acks);
    })
}

/// One that opens no gate ends nothing: the node says it, and is no candidate until it is right.
async fn a_wrong_setting_is_said(cluster: &Cluster) {
    let primary = cluster.wait_for_primary(SOON).await;
    let replica = cluster.others(primary)[0];
    root(cluster, replica, "SET GLOBAL binlog_row_image=MINIMAL").await;
    let said = async || {
        let status = cluster.statuses().await.remove(&replica)?;
        let nodes = status["nodes"].as_array()?;
        let own = nodes.iter().find(|node| node["id"] == replica.0)?.clone();
        let message = own["message"].as_str().unwrap_or_default().to_owned();
        (own["healthy"] == false).then_some(message)
    };
    let named = eventually(SOON, async || {
        said()
            .await
            .is_some_and(|message| message.contains("binlog_row_image=MINIMAL"))
    })
    .await;
    assert!(named, "node {replica} does not say what is wrong");
    root(cluster, replica, "SET GLOBAL binlog_row_image=FULL").await;
    let well = eventually(SOON, async || said().await.is_none()).await;
    assert!(well, "node {replica} stays unfit: {:?}", said().await);
}

async fn root(cluster: &Cluster, node: NodeId, sql: &str) {
    let mut root = Sql::socket(&cluster.node(node).socket())
        .await
        .expect("root on the socket");
    root.run(sql).await.expect(sql);
}
