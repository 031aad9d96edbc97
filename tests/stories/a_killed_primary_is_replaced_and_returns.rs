//! Story 3: whatever kills or stops a primary, another takes over with every acknowledged row, no
//! row that anybody ever saw vanishes, and the old node comes back without an operator.

use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Reader, Signal, Sql, Writer, assert_rows_survived, assert_servers_equal,
    undisturbed, wait_for, written_rows,
};
use quorate_types::NodeId;
use tokio::time::Instant;

const CLIENTS: u64 = 6;
/// The bound for a new commit after the kill; its goal is a third of it.
const FAILOVER_MAX: Duration = Duration::from_secs(3);

/// Under load there is always something under way.
const LAG_MAX: u64 = 50;

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillSidecar,
    KillMysqld,
    KillBoth,
    StopSidecar,
    StopMysqld,
}

const FAULTS: [Fault; 5] = [
    Fault::KillSidecar,
    Fault::KillMysqld,
    Fault::KillBoth,
    Fault::StopSidecar,
    Fault::StopMysqld,
];

#[test]
fn a_killed_primary_is_replaced_and_returns() {
    undisturbed(each_fault);
}

async fn each_fault() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let options = Options::with_shipped_timing();
    let mut cluster = Cluster::start("killed-primary", program, options).await;
    let read_write = cluster.read_write_ports();
    let mut sql = Sql::port(read_write[0]).await.expect("a session");
    sql.run(Writer::TABLE).await.expect("make the table");
    let ports = [read_write.clone(), cluster.read_only_ports()].concat();
    let reader = Reader::start(&ports, &cluster.sockets());
    let writer = Writer::start(read_write, CLIENTS);

    for fault in FAULTS {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let old = cluster.wait_for_primary(Duration::from_secs(10)).await;
        let stopped = cluster.node(old).mysqld_pid();
        let acknowledged = writer.so_far().acknowledged;
        strike(&mut cluster, old, fault);
        // Not before: the old primary may still answer while its process is looked for.
        let moment = Instant::now();

        let mut first = None;
        wait_for(Duration::from_secs(30), async || {
            first = writer.so_far().first_after(moment);
            first.is_some()
        })
        .await;
        let first = first.unwrap_or_else(|| panic!("{fault:?}: no new commit in 30 s"));
        println!("{fault:?} of node {old}: first new commit after {first:?}");
        assert!(first < FAILOVER_MAX, "{fault:?}: {first:?}");
        let new = cluster.wait_for_primary(Duration::from_secs(5)).await;
        assert_ne!(new, old, "{fault:?}: a commit elsewhere");
        let mut sql = Sql::socket(&cluster.node(new).socket())
            .await
            .expect("the new primary");
        let rows = written_rows(&mut sql)
            .await
            .expect("the new primary's rows");
        let lost: Vec<_> = acknowledged.difference(&rows).collect();
        assert!(lost.is_empty(), "{fault:?}: lost at failover: {lost:?}");

        tokio::time::sleep(Duration::from_secs(1)).await;
        let moment = Instant::now();
        relieve(&mut cluster, old, fault, stopped);
        cluster.wait_until_whole(Duration::from_secs(60)).await;
        println!(
            "{fault:?}: node {old} was back after {:?}",
            moment.elapsed()
        );
        wait_until_caught_up(&cluster).await;
    }

    let outcomes = writer.finish().await;
    let seen = reader.finish().await;
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(30)).await;
    assert_rows_survived(&cluster.sockets(), &outcomes, &seen).await;
    assert!(seen.len() > 100, "the readers saw the load");
    assert_eq!(cluster.unexpected_log_lines(&[]), [] as [String; 0]);
    cluster.stop().await;
}

/// A replica that was away has a backlog to execute; a fault then would measure that.
async fn wait_until_caught_up(cluster: &Cluster) {
    let caught_up = wait_for(Duration::from_secs(30), async || {
        let statuses = cluster.statuses().await;
        let mut nodes = statuses
            .values()
            .filter_map(|status| status["nodes"].as_array())
            .flatten();
        nodes.all(|node| {
            node["lag_transactions"]
                .as_u64()
                .is_some_and(|lag| lag < LAG_MAX)
        })
    })
    .await;
    assert!(caught_up, "a replica does not catch up under load");
}

fn strike(cluster: &mut Cluster, node: NodeId, fault: Fault) {
    let node = cluster.node_mut(node);
    match fault {
        Fault::KillSidecar => node.kill(),
        Fault::KillMysqld => node.signal_mysqld(Signal::KILL),
        Fault::KillBoth => {
            node.signal(Signal::KILL);
            node.signal_mysqld(Signal::KILL);
            node.kill();
        }
        Fault::StopSidecar => node.signal(Signal::STOP),
        Fault::StopMysqld => node.signal_mysqld(Signal::STOP),
    }
}

/// Starts or continues what the fault ended; the rest is the node's own work.
fn relieve(cluster: &mut Cluster, node: NodeId, fault: Fault, stopped: Option<u32>) {
    let node = cluster.node_mut(node);
    match fault {
        Fault::KillSidecar | Fault::KillBoth => node.start(false),
        Fault::KillMysqld => {}
        Fault::StopSidecar => node.signal(Signal::CONT),
        // The sidecar may have killed it and started another by now.
        Fault::StopMysqld => {
            if node.mysqld_pid() == stopped && stopped.is_some() {
                node.signal_mysqld(Signal::CONT);
            }
        }
    }
}
