//! Story: somebody changes by hand what makes commits wait. The primary is fenced, killed and
//! repaired, another takes over, and no row that a client was told of is lost. A setting that is
//! wrong elsewhere is said in the status.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Sql, Writer, assert_rows_survived, assert_servers_equal, wait_for,
};
use quorate_types::NodeId;
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const SOON: Duration = Duration::from_secs(20);
const LOAD: Duration = Duration::from_secs(1);
const CLIENTS: u64 = 4;
/// What the old primary says of it, and of its way back.
const EXPECTED: &[&str] = &[
    "rpl_semi_sync_source_enabled is 0, not ON",
    "rpl_semi_sync_source_timeout is 1000, not 1000000000000000000",
    "cut what was never acknowledged",
    "mysqld runs with binlog_row_image=MINIMAL",
    "message: \"no answer in time\"",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_is_opened_by_hand_ends_the_epoch() {
    let cluster = Cluster::start("gate-by-hand", PROGRAM, Options::default()).await;
    let first = cluster.wait_for_primary(SOON).await;
    root(&cluster, first, Writer::TABLE).await;
    let ports = cluster.nodes.values().map(|node| node.ports.read_write);
    let writer = Writer::start(ports.collect(), CLIENTS);

    for change in [
        "SET GLOBAL rpl_semi_sync_source_enabled=OFF",
        "SET GLOBAL rpl_semi_sync_source_timeout=1000",
    ] {
        let old = cluster.wait_for_primary(SOON).await;
        tokio::time::sleep(LOAD).await;
        let pid = cluster.node(old).mysqld_pid();
        let changed = Instant::now();
        root(&cluster, old, change).await;
        let moved = wait_for(SOON, async || {
            cluster.primary().await.is_some_and(|now| now != old)
        })
        .await;
        assert!(moved, "{change}: node {old} is still primary");
        let pause = changed.elapsed();
        cluster.wait_until_whole(Duration::from_secs(60)).await;
        assert_ne!(cluster.node(old).mysqld_pid(), pid, "{change}: not killed");
        println!("gate by hand: {change}: another primary seen after {pause:?}");
    }
    a_wrong_setting_is_said(&cluster).await;

    let outcomes = writer.finish().await;
    assert_servers_equal(&cluster.sockets(), SOON).await;
    assert_rows_survived(&cluster.sockets(), &outcomes, &BTreeSet::new()).await;
    println!(
        "gate by hand: {} acknowledged, {} refused, {} unknown",
        outcomes.acknowledged.len(),
        outcomes.refused.len(),
        outcomes.unknown.len(),
    );
    let expected = [Cluster::PEER_LOST, EXPECTED].concat();
    assert_eq!(
        cluster.unexpected_log_lines(&expected),
        Vec::<String>::new()
    );
    cluster.stop().await;
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
    let named = wait_for(SOON, async || {
        said()
            .await
            .is_some_and(|message| message.contains("binlog_row_image=MINIMAL"))
    })
    .await;
    assert!(named, "node {replica} does not say what is wrong");
    root(cluster, replica, "SET GLOBAL binlog_row_image=FULL").await;
    let well = wait_for(SOON, async || said().await.is_none()).await;
    assert!(well, "node {replica} stays unfit: {:?}", said().await);
}

async fn root(cluster: &Cluster, node: NodeId, sql: &str) {
    let mut root = Sql::socket(&cluster.node(node).socket())
        .await
        .expect("root on the socket");
    root.run(sql).await.expect(sql);
}
