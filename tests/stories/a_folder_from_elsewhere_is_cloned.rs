//! A data folder that is another node's, or an older one of the same node, is recognised before its
//! server starts, and replaced by a clone.

use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Sql, Writer, assert_nothing_beside, assert_rows_survived,
    assert_servers_equal, copy_folder, replace_folder,
};
use quorate_types::NodeId;

/// What the faults of this story make the sidecars say.
const EXPECTED: &[&str] = &[
    "this server must be cloned: the data folder is a copy of node ",
    "this server must be cloned: the data folder is not the one that goes with the Raft folder",
    // The leader may choose a donor of whose end it has not heard yet.
    "the clone failed: a copy of node ",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_from_elsewhere_is_cloned() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let mut cluster = Cluster::start("foreign-folder", program, Options::default()).await;
    let ports = cluster.read_write_ports();
    let mut sql = Sql::port(ports[0]).await.expect("a session");
    sql.run(Writer::TABLE).await.expect("make the table");
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let others = cluster.others(primary);
    let (node, other) = (others[0], others[1]);
    let uuid = cluster.registered_uuid(node).await;
    let writer = Writer::start(vec![cluster.node(primary).ports.read_write], 2);

    // An older folder of the same node, brought back after it has been used again.
    cluster.kill_node(node).await;
    let (data, image) = (
        cluster.node(node).dir.join("mysql"),
        cluster.dir.join("image"),
    );
    copy_folder(&data, &image);
    cluster.node_mut(node).start(false);
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    cluster.kill_node(node).await;
    replace_folder(&image, &data);
    start_and_see_it_cloned(
        &mut cluster,
        node,
        "not the one that goes with the Raft folder",
    )
    .await;

    // Another node's folder, as it was when that node ran.
    cluster.kill_node(node).await;
    cluster.kill_node(other).await;
    let copied = cluster.node(other).dir.join("mysql");
    replace_folder(&copied, &data);
    cluster.node_mut(other).start(false);
    start_and_see_it_cloned(&mut cluster, node, &format!("a copy of node {other}'s")).await;

    assert_eq!(
        cluster.server_uuid(node).await,
        uuid,
        "it has its own uuid again"
    );
    assert_ne!(cluster.server_uuid(other).await, uuid);
    let outcomes = writer.finish().await;
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(30)).await;
    assert_rows_survived(&cluster.sockets(), &outcomes, &outcomes.acknowledged).await;
    assert_eq!(cluster.unexpected_log_lines(EXPECTED), [] as [String; 0]);
    cluster.stop().await;
}

async fn start_and_see_it_cloned(cluster: &mut Cluster, node: NodeId, why: &str) {
    cluster.node_mut(node).start(false);
    let bound = Duration::from_secs(30);
    let message = cluster.wait_for_role(node, "cloning", why, bound).await;
    println!("node {node}: {message}");
    let lone = message.contains("no server is left");
    assert!(!lone, "the others are there: {message}");
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    assert_nothing_beside(cluster.node(node));
}
