//! A clone that is interrupted begins anew: after its recipient was killed, and from another donor
//! after its donor was.

use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Sql, TAKES_WRITES, Writer, assert_nothing_beside, assert_rows_survived,
    assert_servers_equal, make_errant,
};
use quorate_types::NodeId;

/// What the faults of this story make the sidecars say.
const EXPECTED: &[&str] = &[
    TAKES_WRITES,
    "this server must be cloned: ",
    "the server must be cloned",
    "the clone failed: a copy of node ",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_survives_its_recipient_and_its_donor() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    // So slow that there is a middle: an empty server has about 70 MiB.
    let options = Options::with_slow_clones();
    let mut cluster = Cluster::start("interrupted-clone", program, options).await;
    let ports = cluster.read_write_ports();
    let mut sql = Sql::port(ports[0]).await.expect("a session");
    sql.run(Writer::TABLE).await.expect("make the table");
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let others = cluster.others(primary);
    let (recipient, donor) = (others[0], others[1]);
    let writer = Writer::start(vec![cluster.node(primary).ports.read_write], 2);

    // What is last in a binlog would be cut, and nothing cloned.
    writer
        .wait_for_more_than(100, Duration::from_secs(20))
        .await;
    make_errant(cluster.node(recipient)).await;
    in_the_middle(&cluster, recipient, donor).await;
    cluster.node_mut(recipient).kill();
    let orphan = cluster.node(recipient).cloning_mysqld_pid();
    assert!(
        orphan.is_some(),
        "the server that clones outlives its sidecar"
    );
    cluster.node_mut(recipient).start(false);
    in_the_middle(&cluster, recipient, donor).await;
    assert_ne!(
        cluster.node(recipient).cloning_mysqld_pid(),
        orphan,
        "it began anew"
    );

    // No quorum is lost: the primary and the recipient vote.
    cluster.kill_node(donor).await;
    in_the_middle(&cluster, recipient, primary).await;
    let bound = Duration::from_secs(60);
    cluster.wait_for_role(recipient, "replica", "", bound).await;
    assert_nothing_beside(cluster.node(recipient));

    cluster.node_mut(donor).start(false);
    cluster.wait_until_whole(bound).await;
    let outcomes = writer.finish().await;
    println!(
        "longest time without a commit: {:?}",
        outcomes.longest_gap()
    );
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(30)).await;
    assert_rows_survived(&cluster.sockets(), &outcomes, &outcomes.acknowledged).await;
    assert_eq!(cluster.unexpected_log_lines(EXPECTED), [] as [String; 0]);
    cluster.stop().await;
}

/// Waits until some of the data has come from this donor, and not all.
async fn in_the_middle(cluster: &Cluster, recipient: NodeId, donor: NodeId) {
    let text = format!("cloning from node {donor}: ");
    let bound = Duration::from_secs(60);
    let message = cluster
        .wait_for_role(recipient, "cloning", &text, bound)
        .await;
    println!("node {recipient}: {message}");
}
