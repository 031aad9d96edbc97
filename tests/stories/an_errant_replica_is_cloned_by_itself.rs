//! A replica on which somebody wrote leaves the read-only port, says so, and gets its data anew from
//! another server, while the others serve.

use std::time::Duration;

use quorate_tests::{
    Cluster, ERRANT_ID, Options, Sql, TAKES_WRITES, Writer, assert_nothing_beside,
    assert_rows_survived, assert_servers_equal, make_errant,
};
use quorate_types::NodeId;
use tokio::time::Instant;

const CLIENTS: u64 = 4;
/// No commit waits for a clone; on a loaded machine there may be an election.
const GAP_MAX: Duration = Duration::from_secs(5);

/// What the faults of this story make the sidecars say.
const EXPECTED: &[&str] = &[
    TAKES_WRITES,
    "this server must be cloned: it has transactions that were never accepted",
    "this server must be cloned: it cannot apply an accepted transaction",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_errant_replica_is_cloned_by_itself() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let cluster = Cluster::start("errant-replica", program, Options::default()).await;
    let ports = cluster.read_write_ports();
    let mut sql = Sql::port(ports[0]).await.expect("a session");
    sql.run(Writer::TABLE).await.expect("make the table");
    let writer = Writer::start(ports, CLIENTS);
    tokio::time::sleep(Duration::from_secs(1)).await;

    let mut cloned: Option<NodeId> = None;
    for what in ["an INSERT", "an XA COMMIT"] {
        let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
        let replicas = cluster.others(primary);
        let fresh = replicas.iter().find(|node| Some(**node) != cloned);
        let node = *fresh.expect("two replicas");
        cloned = Some(node);
        let uuid = cluster.registered_uuid(node).await;
        let moment = Instant::now();
        match what {
            "an INSERT" => make_errant(cluster.node(node)).await,
            _ => commit_xa_alone(&cluster, primary, node).await,
        }
        let bound = Duration::from_secs(20);
        let message = cluster
            .wait_for_role(node, "cloning", "never accepted", bound)
            .await;
        let named = message.contains(&uuid);
        assert!(named, "the message names the transaction: {message}");
        println!(
            "{what}: node {node} was cloning after {:?}: {message}",
            moment.elapsed()
        );
        cluster.wait_until_whole(Duration::from_secs(60)).await;
        println!("{what}: all was whole after {:?}", moment.elapsed());
        assert_eq!(
            cluster.server_uuid(node).await,
            uuid,
            "it is the same server"
        );
        assert_nothing_beside(cluster.node(node));
    }

    let outcomes = writer.finish().await;
    println!(
        "longest time without a commit: {:?}",
        outcomes.longest_gap()
    );
    assert!(
        outcomes.longest_gap() < GAP_MAX,
        "{:?}",
        outcomes.longest_gap()
    );
    println!("{} sessions for {CLIENTS} clients", outcomes.reconnects);
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(30)).await;
    assert!(!outcomes.acknowledged.contains(&ERRANT_ID));
    assert_rows_survived(&cluster.sockets(), &outcomes, &outcomes.acknowledged).await;
    assert_eq!(cluster.unexpected_log_lines(EXPECTED), [] as [String; 0]);
    cluster.stop().await;
}

/// `super_read_only` does not stop it: a transaction that was prepared on the primary commits on
/// one replica alone, and is rolled back everywhere else.
async fn commit_xa_alone(cluster: &Cluster, primary: NodeId, replica: NodeId) {
    let mut sql = Sql::socket(&cluster.node(primary).socket())
        .await
        .expect("the primary");
    for statement in [
        "XA START 'alone'",
        "INSERT INTO app.written VALUES (999000001, 'prepared')",
        "XA END 'alone'",
        "XA PREPARE 'alone'",
    ] {
        sql.run(statement).await.expect(statement);
    }
    let mut there = Sql::socket(&cluster.node(replica).socket())
        .await
        .expect("the replica");
    let bound = Duration::from_secs(10);
    let prepared =
        quorate_tests::wait_for(bound, async || there.run("XA COMMIT 'alone'").await.is_ok());
    assert!(prepared.await, "the replica has no prepared transaction");
    sql.run("XA ROLLBACK 'alone'").await.expect("roll it back");
}
