//! Two servers that must be cloned take turns; one whose node dies in its turn keeps the other
//! waiting for half a minute and no longer.

use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Sql, TAKES_WRITES, Writer, assert_nothing_beside, assert_rows_survived,
    assert_servers_equal, make_errant,
};
use tokio::time::Instant;

/// What the faults of this story make the sidecars say.
const EXPECTED: &[&str] = &[
    TAKES_WRITES,
    "this server must be cloned: ",
    "the server must be cloned",
    // On a loaded machine there may be an election, and a donor that is promoted ends the clone.
    "the clone failed: a copy of node ",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_replicas_are_cloned_one_after_the_other() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    // So slow that the first still holds its permit when the second asks.
    let options = Options::with_slow_clones();
    let mut cluster = Cluster::start("both-cloned", program, options).await;
    let ports = cluster.read_write_ports();
    let mut sql = Sql::port(ports[0]).await.expect("a session");
    sql.run(Writer::TABLE).await.expect("make the table");
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let others = cluster.others(primary);
    let (first, second) = (others[0], others[1]);
    let writer = Writer::start(vec![cluster.node(primary).ports.read_write], 2);

    // What is last in a binlog would be cut, and nothing cloned.
    writer
        .wait_for_more_than(100, Duration::from_secs(20))
        .await;
    make_errant(cluster.node(first)).await;
    let bound = Duration::from_secs(30);
    cluster
        .wait_for_role(first, "cloning", "a server that clones", bound)
        .await;
    make_errant(cluster.node(second)).await;
    let text = format!("node {first} is being cloned: one at a time");
    cluster.wait_for_role(second, "cloning", &text, bound).await;
    cluster.node_mut(first).kill();
    let moment = Instant::now();
    let bound = Duration::from_secs(60);
    let text = format!("from node {primary}");
    cluster.wait_for_role(second, "cloning", &text, bound).await;
    println!(
        "the permit of a dead node ended after {:?}",
        moment.elapsed()
    );
    cluster.wait_for_role(second, "replica", "", bound).await;

    cluster.node_mut(first).start(false);
    cluster.wait_until_whole(2 * bound).await;
    for node in others {
        assert_nothing_beside(cluster.node(node));
    }
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
