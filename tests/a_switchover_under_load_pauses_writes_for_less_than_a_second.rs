//! Story: a planned change of primary, there and back, under load. Nothing acknowledged is lost,
//! and clients wait for less than a second.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::Duration;

use quorate_tests::{Cluster, Options, Sql, Writer, assert_rows_survived, assert_servers_equal};
use quorate_types::NodeId;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const SOON: Duration = Duration::from_secs(15);
const LOAD: Duration = Duration::from_secs(2);
const CLIENTS: u64 = 6;
/// A machine that runs three servers under load answers late now and then; what must not happen
/// is that a leader changes for it, and that would be logged otherwise.
const HEARTBEAT_LATE: &[&str] = &["message: \"no answer in time\""];
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_under_load_pauses_writes_for_less_than_a_second() {
    let cluster = Cluster::start("switchover", PROGRAM, Options::default()).await;
    let first = cluster.wait_for_primary(SOON).await;
    let other = cluster.others(first)[0];
    Sql::socket(&cluster.node(first).socket())
        .await
        .expect("root on the primary's socket")
        .run(Writer::TABLE)
        .await
        .expect("make the table");
    let ports = cluster.nodes.values().map(|node| node.ports.read_write);
    let writer = Writer::start(ports.collect(), CLIENTS);

    for to in [other, first] {
        tokio::time::sleep(LOAD).await;
        let before = writer.so_far().acknowledged.len();
        // Asked of every node in turn: whoever does not lead says who does.
        let answer = switchover(&cluster, to, cluster.others(to)[1]).await;
        let text = String::from_utf8_lossy(&answer.stdout).into_owned()
            + &String::from_utf8_lossy(&answer.stderr);
        assert!(answer.status.success(), "switchover to {to}: {text}");
        assert_eq!(cluster.wait_for_primary(SOON).await, to, "{text}");
        tokio::time::sleep(LOAD / 2).await;
        assert!(writer.so_far().acknowledged.len() > before, "writes go on");
    }
    let outcomes = writer.finish().await;

    assert_servers_equal(&cluster.sockets(), SOON).await;
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
        cluster.unexpected_log_lines(HEARTBEAT_LATE),
        Vec::<String>::new()
    );
    cluster.stop().await;
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
