//! sysbench writes through a read-write port and goes on after a failover, and a cluster that it
//! keeps busy does not change its leader without a fault.

use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Signal, Sql, Sysbench, SysbenchReport, assert_servers_equal, undisturbed,
    wait_for,
};
use quorate_types::{GtidSet, NodeId};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const SCRIPT: &str = "oltp_write_only";

/// The term that every node is in.
async fn terms(cluster: &Cluster) -> Vec<u64> {
    let statuses = cluster.statuses().await;
    assert_eq!(
        statuses.len(),
        cluster.nodes.len(),
        "a node does not answer"
    );
    let term = |status: &serde_json::Value| status["term"].as_u64().expect("a term");
    statuses.values().map(term).collect()
}

fn print(what: &str, report: &SysbenchReport) {
    println!(
        "{what}: {} transactions, {:.0}/s, p50 {} ms, p95 {} ms, p99 {} ms, {} errors ignored, {} reconnects",
        report.transactions,
        report.transactions_per_second,
        report.percentile_ms(50.0),
        report.percentile_ms(95.0),
        report.percentile_ms(99.0),
        report.errors_ignored,
        report.reconnects,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sysbench_goes_on_after_a_failover_in_the_middle() {
    const LENGTH: Duration = Duration::from_secs(60);
    let mut cluster =
        Cluster::start("sysbench_failover", PROGRAM, Options::with_shipped_timing()).await;
    let primary = cluster.wait_for_primary(Duration::from_secs(5)).await;
    // Through a node that stays: its proxy has to find the new primary.
    let through = cluster.others(primary)[0];
    cluster.remember_app().await;
    let sysbench = Sysbench::port(cluster.node(through).ports.read_write).await;
    sysbench
        .prepare(SCRIPT, &cluster.dir.join("prepare.log"))
        .await;

    let dir = cluster.dir.clone();
    let running = tokio::spawn(async move { sysbench.run_on(SCRIPT, LENGTH, &dir).await });
    tokio::time::sleep(LENGTH / 2).await;
    cluster.node(primary).signal_mysqld(Signal::KILL);
    cluster.node_mut(primary).kill();
    let new = new_primary(&cluster, primary).await;
    let before = executed(&cluster, new).await;
    // The killed one comes back into the running load.
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.node_mut(primary).start(false);
    let gone_on = running.await.expect("sysbench is run");
    println!(
        "with a failover, runs (came to the end, transactions): {:?}",
        gone_on.runs
    );

    let after = executed(&cluster, new).await;
    assert!(
        after.difference(&before).count() > 100,
        "sysbench did not go on on the new primary: {before} then {after}"
    );
    let (lost, last) = gone_on.runs.split_at(gone_on.runs.len() - 1);
    assert!(!lost.is_empty(), "no connection was lost");
    assert!(last[0].0, "the last run lost its connection too");
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(30)).await;
    cluster.stop().await;
}

async fn new_primary(cluster: &Cluster, old: NodeId) -> NodeId {
    let mut new = None;
    wait_for(Duration::from_secs(10), async || {
        new = cluster.primary().await.filter(|node| *node != old);
        new.is_some()
    })
    .await;
    new.expect("another node becomes primary")
}

async fn executed(cluster: &Cluster, node: NodeId) -> GtidSet {
    let socket = cluster.node(node).socket();
    let mut sql = Sql::socket(&socket).await.expect("root on the socket");
    let text = sql.value("SELECT @@global.gtid_executed").await;
    let text = text.expect("the server answers");
    text.parse().expect("a server's own set")
}

#[test]
fn a_busy_cluster_without_a_fault_keeps_its_leader() {
    undisturbed(keeps_its_leader);
}

async fn keeps_its_leader() {
    const LENGTH: Duration = Duration::from_secs(20);
    let options = Options::with_shipped_timing();
    let cluster = Cluster::start("sysbench_no_fault", PROGRAM, options).await;
    let primary = cluster.wait_for_primary(Duration::from_secs(5)).await;
    let through = cluster.others(primary)[0];
    cluster.remember_app().await;
    let sysbench = Sysbench::port(cluster.node(through).ports.read_write).await;
    sysbench
        .prepare(SCRIPT, &cluster.dir.join("prepare.log"))
        .await;

    let before = terms(&cluster).await;
    let log = cluster.dir.join("sysbench.log");
    // Nothing is let pass but what transactions do to one another: a lost connection ends it.
    let running = sysbench.run(SCRIPT, LENGTH, &log);
    let report = running.report(LENGTH + Duration::from_secs(30)).await;
    print("without a fault", &report);
    assert_eq!(terms(&cluster).await, before, "the leader changed");
    assert_eq!(cluster.primary().await, Some(primary));
    assert!(report.transactions > 100, "hardly anything was written");

    assert_servers_equal(&cluster.sockets(), Duration::from_secs(30)).await;
    assert_eq!(
        cluster.unexpected_log_lines_in_good_order(&[]),
        Vec::<String>::new()
    );
    cluster.stop().await;
}
