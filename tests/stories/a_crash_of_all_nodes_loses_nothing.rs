//! Story 4: all nodes die at the same instant under load; what was acknowledged is there when they
//! are started again, and also when one of them never is.

use std::path::PathBuf;
use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Reader, Signal, Sql, Writer, assert_rows_survived, assert_servers_equal,
    wait_for,
};
use quorate_types::NodeId;
use tokio::time::Instant;

const CLIENTS: u64 = 6;
const SERVE_MAX: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_all_nodes_loses_nothing() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let mut cluster = Cluster::start("crash-of-all", program, Options::default()).await;
    let read_write = cluster.read_write_ports();
    let mut sql = Sql::port(read_write[0]).await.expect("a session");
    sql.run(Writer::TABLE).await.expect("make the table");
    let ports = [read_write.clone(), cluster.read_only_ports()].concat();
    let reader = Reader::start(&ports, &cluster.sockets());
    let writer = Writer::start(read_write, CLIENTS);
    let nodes: Vec<NodeId> = cluster.nodes.keys().copied().collect();

    tokio::time::sleep(Duration::from_secs(2)).await;
    crash(&mut cluster);
    let moment = Instant::now();
    for id in &nodes {
        cluster.node_mut(*id).start(false);
    }
    serves_again(&writer, moment, "all three").await;
    cluster.wait_until_whole(SERVE_MAX).await;
    println!("whole again after {:?}", moment.elapsed());

    tokio::time::sleep(Duration::from_secs(2)).await;
    // The worst one to miss: it has what the others may not have executed.
    let missing = cluster.wait_for_primary(Duration::from_secs(10)).await;
    crash(&mut cluster);
    let moment = Instant::now();
    let returning = cluster.others(missing);
    for id in &returning {
        cluster.node_mut(*id).start(false);
    }
    serves_again(&writer, moment, "two of three").await;

    tokio::time::sleep(Duration::from_secs(1)).await;
    let outcomes = writer.finish().await;
    let seen = reader.finish().await;
    let sockets: Vec<PathBuf> = returning
        .iter()
        .map(|id| cluster.node(*id).socket())
        .collect();
    assert_servers_equal(&sockets, Duration::from_secs(30)).await;
    assert_rows_survived(&sockets, &outcomes, &seen).await;
    assert_eq!(cluster.unexpected_log_lines(&[]), [] as [String; 0]);
    cluster.stop().await;
}

/// Ends every process of the cluster before any of them can notice that another is gone.
fn crash(cluster: &mut Cluster) {
    for node in cluster.nodes.values() {
        node.signal(Signal::KILL);
    }
    for node in cluster.nodes.values() {
        node.signal_mysqld(Signal::KILL);
    }
    for node in cluster.nodes.values_mut() {
        node.kill();
    }
}

async fn serves_again(writer: &Writer, moment: Instant, who: &str) {
    let mut first = None;
    wait_for(SERVE_MAX, async || {
        first = writer.so_far().first_after(moment);
        first.is_some()
    })
    .await;
    let first = first.unwrap_or_else(|| panic!("{who} do not serve within {SERVE_MAX:?}"));
    println!("{who}: first new commit {first:?} after the start");
}
