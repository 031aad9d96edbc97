//! Two servers and a witness, which votes and has no server: the kill of the primary, of the witness,
//! and a restart of all are survived, and the witness never stays leader.

use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Signal, Sql, Writer, assert_rows_survived, assert_servers_equal, eventually,
};
use quorate_types::NodeId;
use tokio::time::Instant;

const CLIENTS: u64 = 4;
const WITNESS: NodeId = NodeId(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_and_a_witness_survive_the_loss_of_any_one() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let options = Options {
        witness: Some(WITNESS.0),
        ..Options::default()
    };
    let mut cluster = Cluster::start("witness", program, options).await;
    assert_eq!(cluster.node(WITNESS).mysqld_pid(), None);
    // Its ports lead to the others.
    let ports = cluster.read_write_ports();
    let mut sql = Sql::port(cluster.node(WITNESS).ports.read_write)
        .await
        .expect("a session");
    sql.run(Writer::TABLE).await.expect("make the table");
    // The replica has the user a little later than the witness has it in its log.
    let reads = eventually(Duration::from_secs(20), async || {
        let reads = Sql::port(cluster.node(WITNESS).ports.read_only).await;
        match reads {
            Ok(mut reads) => reads.run("SELECT 1").await.is_ok(),
            Err(_) => false,
        }
    });
    assert!(reads.await, "nobody can read");
    let writer = Writer::start(ports, CLIENTS);

    kill_primaries(&mut cluster, &writer).await;
    // Without the witness the two go on, and with it again it is no leader.
    cluster.node_mut(WITNESS).kill();
    let moment = Instant::now();
    let goes_on = eventually(Duration::from_secs(10), async || {
        writer.so_far().first_after(moment).is_some()
    });
    assert!(goes_on.await, "no commit");
    cluster.node_mut(WITNESS).start(false);
    cluster.wait_until_whole(Duration::from_secs(60)).await;

    restart_all(&mut cluster).await;
    let statuses = cluster.statuses().await;
    assert!(
        statuses
            .values()
            .all(|status| status["leader"] != WITNESS.0)
    );

    // A witness too many would leave too few copies.
    let list = cluster
        .ask(WITNESS, &["members", "list"])
        .await
        .expect("a list");
    println!("{list}");
    assert!(list.contains("voter (witness)"), "{list}");
    let refused = cluster.ask(NodeId(1), &["switchover", "--to", "3"]).await;
    assert!(refused.unwrap_err().contains("no healthy replica"));
    let outcomes = writer.finish().await;
    println!(
        "longest time without a commit: {:?}",
        outcomes.longest_gap()
    );
    assert_eq!(cluster.sockets().len(), 2);
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(30)).await;
    assert_rows_survived(&cluster.sockets(), &outcomes, &outcomes.acknowledged).await;
    assert_eq!(cluster.unexpected_log_lines(&[]), [] as [String; 0]);
    cluster.stop().await;
}

async fn kill_primaries(cluster: &mut Cluster, writer: &Writer) {
    for round in 1..=3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let old = cluster.wait_for_primary(Duration::from_secs(10)).await;
        let moment = Instant::now();
        cluster.node(old).signal(Signal::KILL);
        cluster.node(old).signal_mysqld(Signal::KILL);
        cluster.node_mut(old).kill();
        let mut first = None;
        eventually(Duration::from_secs(30), async || {
            first = writer.so_far().first_after(moment);
            first.is_some()
        })
        .await;
        println!("round {round}: node {old} killed, first new commit after {first:?}");
        let first = first.expect("a new commit in 30 s");
        assert!(first < Duration::from_secs(5), "{first:?}");
        let new = cluster.wait_for_primary(Duration::from_secs(10)).await;
        assert!(new != old && new != WITNESS, "node {new} is primary");
        cluster.node_mut(old).start(false);
        cluster.wait_until_whole(Duration::from_secs(60)).await;
    }
}

/// All at once: whoever is elected first, a server leads in the end.
async fn restart_all(cluster: &mut Cluster) {
    for id in [1, 2, 3].map(NodeId) {
        cluster.node(id).signal(Signal::KILL);
        if id != WITNESS {
            cluster.node(id).signal_mysqld(Signal::KILL);
        }
        cluster.node_mut(id).kill();
    }
    for id in [WITNESS, NodeId(1), NodeId(2)] {
        cluster.node_mut(id).start(false);
    }
    cluster.wait_until_whole(Duration::from_secs(60)).await;
}
