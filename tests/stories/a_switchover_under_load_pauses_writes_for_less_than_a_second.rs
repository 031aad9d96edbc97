//! Story: a planned change of primary, there and back, under load. Nothing acknowledged is lost,
//! and clients wait for less than a second. A transaction that runs when it begins may end, and a
//! connection that comes meanwhile waits for the new primary.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Sql, Writer, assert_rows_survived, assert_servers_equal, eventually,
    undisturbed,
};
use quorate_types::NodeId;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const SOON: Duration = Duration::from_secs(15);
const LOAD: Duration = Duration::from_secs(2);
const CLIENTS: u64 = 6;
/// A machine that runs three servers under load answers late now and then; what must not happen
/// is that a leader changes for it, and that would be logged otherwise.
const HEARTBEAT_LATE: &[&str] = &["message: \"no answer in time\""];
/// How long a transaction goes on after the switchover began, of the 500 ms that it may.
const OPEN_FOR: Duration = Duration::from_millis(100);
const OPEN_TABLE: &str = "CREATE TABLE app.open (node BIGINT UNSIGNED PRIMARY KEY)";
const EVENT: &str = "CREATE EVENT app.daily ON SCHEDULE EVERY 1 DAY DO SELECT 1";
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[test]
fn a_switchover_under_load_pauses_writes_for_less_than_a_second() {
    undisturbed(pauses_writes);
}

async fn pauses_writes() {
    let cluster = Cluster::start("switchover", PROGRAM, Options::default()).await;
    let first = cluster.wait_for_primary(SOON).await;
    let other = cluster.others(first)[0];
    let mut root = root_of(&cluster, first).await;
    for sql in [Writer::TABLE, OPEN_TABLE, EVENT] {
        root.run(sql).await.expect(sql);
    }
    let ports = cluster.nodes.values().map(|node| node.ports.read_write);
    let writer = Writer::start(ports.collect(), CLIENTS);

    for to in [other, first] {
        tokio::time::sleep(LOAD).await;
        let before = writer.so_far().acknowledged.len();
        let old = cluster.wait_for_primary(SOON).await;
        let third = cluster.others(to).into_iter().find(|id| *id != old);
        let third = third.expect("three nodes");
        let mut open = Sql::port(cluster.node(third).ports.read_write)
            .await
            .expect("a session through the third node");
        open.run("BEGIN").await.expect("begin");
        let row = format!("INSERT INTO app.open VALUES ({to})");
        open.run(&row).await.expect("a row of an open transaction");
        let drained = drains(&cluster, old);
        let meanwhile = async {
            let begun = eventually(SOON, async || drains(&cluster, old) > drained).await;
            assert!(begun, "no switchover began");
            let new = Sql::port(cluster.node(third).ports.read_write);
            let commit = async {
                tokio::time::sleep(OPEN_FOR).await;
                open.run("COMMIT").await
            };
            tokio::join!(new, commit)
        };
        // Asked of every node in turn: whoever does not lead says who does.
        let (answer, (new, committed)) =
            tokio::join!(switchover(&cluster, to, cluster.others(to)[1]), meanwhile);
        committed.expect("a transaction that ran when the switchover began");
        let mut new = new.expect("a connection that came during the switchover");
        let served_by = new.value("SELECT @@port").await.expect("its server's port");
        assert_eq!(served_by, cluster.node(to).ports.mysql.to_string());
        let text = String::from_utf8_lossy(&answer.stdout).into_owned()
            + &String::from_utf8_lossy(&answer.stderr);
        assert!(answer.status.success(), "switchover to {to}: {text}");
        assert_eq!(cluster.wait_for_primary(SOON).await, to, "{text}");
        runs_the_event_alone(&cluster, to).await;
        tokio::time::sleep(LOAD / 2).await;
        assert!(writer.so_far().acknowledged.len() > before, "writes go on");
    }
    let outcomes = writer.finish().await;

    assert_servers_equal(&cluster.sockets(), SOON).await;
    let mut root = root_of(&cluster, first).await;
    let kept = root.value("SELECT COUNT(*) FROM app.open").await;
    assert_eq!(kept.expect("the rows of open transactions"), "2");
    assert_rows_survived(&cluster.sockets(), &outcomes, &BTreeSet::new()).await;
    println!(
        "switchover: {} acknowledged, {} refused, {} unknown, {} connects, longest pause {:?}",
        outcomes.acknowledged.len(),
        outcomes.refused.len(),
        outcomes.unknown.len(),
        outcomes.reconnects,
        outcomes.longest_gap()
    );
    assert!(outcomes.longest_gap() < PAUSE_MAX, "writes paused too long");
    assert_eq!(
        cluster.unexpected_log_lines_in_good_order(HEARTBEAT_LATE),
        Vec::<String>::new()
    );
    cluster.stop().await;
}

async fn root_of(cluster: &Cluster, node: NodeId) -> Sql {
    let socket = cluster.node(node).socket();
    Sql::socket(&socket).await.expect("root on the socket")
}

/// Only the primary runs scheduled events.
async fn runs_the_event_alone(cluster: &Cluster, primary: NodeId) {
    let sql = "SELECT STATUS = 'ENABLED' FROM information_schema.EVENTS WHERE EVENT_NAME = 'daily'";
    for (id, node) in &cluster.nodes {
        let mut last = String::new();
        let right = eventually(SOON, async || {
            let mut root = Sql::socket(&node.socket()).await.expect("root");
            last = root.value(sql).await.expect("the event's status");
            last == u64::from(*id == primary).to_string()
        })
        .await;
        assert!(
            right,
            "node {id}, with primary {primary}: enabled is {last}"
        );
    }
}

/// How often this node let transactions end for a switchover.
fn drains(cluster: &Cluster, node: NodeId) -> usize {
    let log = std::fs::read_to_string(cluster.node(node).log()).expect("read the node's log");
    log.matches("letting running transactions end").count()
}

/// As an operator asks for it.
async fn switchover(cluster: &Cluster, to: NodeId, ask: NodeId) -> Output {
    let address = format!("127.0.0.1:{}", cluster.node(ask).ports.grpc);
    let command = move || {
        Command::new(PROGRAM)
            .args(["switchover", "--to", &to.to_string(), "--addr", &address])
            .output()
            .expect("run the program under test")
    };
    tokio::task::spawn_blocking(command)
        .await
        .expect("the command ran")
}
