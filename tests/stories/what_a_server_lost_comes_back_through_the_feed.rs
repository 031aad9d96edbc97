//! A server whose last transactions a loss of power took, engine and binlog alike, was their primary:
//! it gets them back through the feed, as any replica gets another's.

use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Sql, Writer, assert_rows_survived, assert_servers_equal, copy_folder,
    eventually, replace_folder,
};
use quorate_types::{GtidSet, NodeId};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const BOUND: Duration = Duration::from_secs(60);
const LOAD: Duration = Duration::from_secs(1);
/// In the data folder; the node counts its starts in it.
const MARKER: &str = "quorate.marker";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_lost_comes_back_through_the_feed() {
    let mut cluster = Cluster::start("lost-tail", PROGRAM, Options::default()).await;
    let first = cluster.wait_for_primary(BOUND).await;
    // A killed primary's folder would have a tail that nobody accepted.
    let node = cluster.others(first)[0];
    let mut sql = Sql::port(cluster.read_write_ports()[0])
        .await
        .expect("a session");
    sql.run(Writer::TABLE).await.expect("make the table");
    let writer = Writer::start(cluster.read_write_ports(), 2);
    tokio::time::sleep(LOAD).await;

    cluster.kill_node(node).await;
    let (data, image) = (
        cluster.node(node).dir.join("mysql"),
        cluster.dir.join("image"),
    );
    copy_folder(&data, &image);
    cluster.node_mut(node).start(false);
    cluster.wait_until_whole(BOUND).await;
    let before = own_transactions(&cluster, node).await;
    make_primary(&cluster, node).await;
    tokio::time::sleep(LOAD).await;
    let mut lost = 0;
    let wrote = eventually(BOUND, async || {
        lost = own_transactions(&cluster, node).await - before;
        lost > 0
    });
    assert!(wrote.await, "it was no primary");

    // An older folder is recognised by its marker, and this one is to be none.
    cluster.kill_node(node).await;
    let marker = std::fs::read(data.join(MARKER)).expect("read the marker");
    replace_folder(&image, &data);
    std::fs::write(data.join(MARKER), marker).expect("write the marker");
    cluster.node_mut(node).start(false);
    cluster.wait_until_whole(BOUND).await;
    println!("{lost} transactions of its own came back");

    let outcomes = writer.finish().await;
    assert_servers_equal(&cluster.sockets(), BOUND).await;
    assert_rows_survived(&cluster.sockets(), &outcomes, &outcomes.acknowledged).await;
    assert!(own_transactions(&cluster, node).await >= before + lost);
    // That it was cloned is not among them.
    assert_eq!(cluster.unexpected_log_lines(&[]), [] as [String; 0]);
    cluster.stop().await;
}

/// How many transactions of its own a server executed.
async fn own_transactions(cluster: &Cluster, node: NodeId) -> u64 {
    let mut sql = Sql::socket(&cluster.node(node).socket())
        .await
        .expect("root on the socket");
    let uuid = sql.value("SELECT @@server_uuid").await.expect("its uuid");
    let set = sql.value("SELECT @@GLOBAL.gtid_executed").await;
    let set: GtidSet = set.expect("the set").parse().expect("a GTID set");
    let own = set
        .iter()
        .filter(|(source, _)| source.uuid.to_string() == uuid);
    own.map(|(_, interval)| interval.end - interval.start).sum()
}

/// By switchovers, which another election may undo.
async fn make_primary(cluster: &Cluster, node: NodeId) {
    let to = node.to_string();
    let is_primary = eventually(BOUND, async || {
        // Refused if it is primary, or not fit yet.
        let _ = cluster.ask(node, &["switchover", "--to", &to]).await;
        cluster.primary().await == Some(node)
    })
    .await;
    assert!(is_primary, "node {node} does not become primary");
}
