//! Story: both replicas need 20 ms for the sync of a group, so they cannot follow their primary. It holds
//! its commits back, as little as keeps the replicas near, and no longer once they are fast again.

use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Sql, Writer, assert_rows_survived, assert_servers_equal, eventually,
};
use quorate_types::NodeId;
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const SOON: Duration = Duration::from_secs(30);
const CLIENTS: u64 = 8;
/// Of the nodes here; a commit that is held back for so long leaves 40 per second, and a replica that
/// is slowed down as here executes 50 at least.
const MAX_BEHIND: u64 = 100;
const DELAY_MAX_MS: u64 = 200;
/// Where the delay is at its largest, and what a primary gets ahead until it knows.
const NEAR: u64 = 2 * MAX_BEHIND + 300;

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_waits_for_replicas_that_cannot_follow() {
    let options = Options {
        config: format!(
            "[flow_control]\nmax_behind_transactions = {MAX_BEHIND}\ndelay_max_ms = {DELAY_MAX_MS}\n"
        ),
        ..Options::default()
    };
    let cluster = Cluster::start("flow-control", PROGRAM, options).await;
    let primary = cluster.wait_for_primary(SOON).await;
    let mut sql = Sql::port(cluster.node(primary).ports.read_write)
        .await
        .expect("a session");
    sql.run(Writer::TABLE).await.expect("a table");
    let port = cluster.node(primary).ports.read_write;
    let writer = Writer::start(vec![port], CLIENTS);
    let fast = rate(&writer, Duration::from_secs(3)).await;

    slow_down(&cluster, primary, 20_000).await;
    let held = eventually(SOON, async || delay(&cluster, primary).await > 0.0).await;
    assert!(held, "nothing is held back");
    // What they were behind when it began is executed first, and what came before the delay was full.
    let settled = eventually(SOON, async || {
        for _ in 0..20 {
            if behind(&cluster, primary).await > NEAR {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        true
    });
    assert!(settled.await, "{} behind", behind(&cluster, primary).await);
    let (mut furthest, mut most) = (0, 0.0_f64);
    let since = Instant::now();
    let before = writer.so_far().acknowledged.len();
    while since.elapsed() < Duration::from_secs(6) {
        furthest = furthest.max(behind(&cluster, primary).await);
        most = most.max(delay(&cluster, primary).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let slow = (writer.so_far().acknowledged.len() - before) as f64 / since.elapsed().as_secs_f64();
    println!(
        "{fast:.0} commits per second, then {slow:.0}, held back for {:.0} ms at most, {furthest} behind",
        most * 1000.0
    );
    assert!(furthest <= NEAR, "{furthest} behind");
    assert!(most <= DELAY_MAX_MS as f64 / 1000.0, "{most} s");
    assert!(slow > 0.0, "it stands");

    slow_down(&cluster, primary, 0).await;
    let over = eventually(SOON, async || delay(&cluster, primary).await == 0.0).await;
    assert!(over, "held back without a reason");
    println!("{:.0} again", rate(&writer, Duration::from_secs(3)).await);
    let outcomes = writer.finish().await;
    assert_servers_equal(&cluster.sockets(), SOON).await;
    assert_rows_survived(&cluster.sockets(), &outcomes, &outcomes.acknowledged).await;
    assert_eq!(cluster.wait_for_primary(SOON).await, primary);
    let unexpected = cluster.unexpected_log_lines_in_good_order(&[]);
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    cluster.stop().await;
}

/// Commits per second from now on.
async fn rate(writer: &Writer, length: Duration) -> f64 {
    let before = writer.so_far().acknowledged.len();
    let since = Instant::now();
    tokio::time::sleep(length).await;
    (writer.so_far().acknowledged.len() - before) as f64 / since.elapsed().as_secs_f64()
}

/// The replicas wait so many microseconds before each sync of their binlogs.
async fn slow_down(cluster: &Cluster, primary: NodeId, micros: u32) {
    for replica in cluster.others(primary) {
        let mut sql = Sql::socket(&cluster.node(replica).socket())
            .await
            .expect("root");
        let set = format!("SET GLOBAL binlog_group_commit_sync_delay = {micros}");
        sql.run(&set).await.expect("a setting");
    }
}

/// How long the primary holds a commit back now, in seconds.
async fn delay(cluster: &Cluster, primary: NodeId) -> f64 {
    let delay = cluster.node(primary).metric("quorate_ack_delay_seconds");
    delay.await.unwrap_or_default()
}

/// By how many transactions the replica that is the furthest is behind, as the primary sees it.
async fn behind(cluster: &Cluster, primary: NodeId) -> u64 {
    let statuses = cluster.statuses().await;
    let nodes = statuses
        .get(&primary)
        .and_then(|status| status["nodes"].as_array());
    let replicas = nodes
        .into_iter()
        .flatten()
        .filter(|node| node["role"] == "replica")
        .filter_map(|node| node["lag_transactions"].as_u64());
    replicas.min().unwrap_or_default()
}
