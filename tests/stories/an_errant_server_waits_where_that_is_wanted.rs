//! With `repair.errant = "stop"` a server on which somebody wrote serves nothing and stays as it is,
//! until the setting is changed.

use std::time::Duration;

use quorate_tests::{
    Cluster, ERRANT_ID, Options, Sql, TAKES_WRITES, Writer, assert_servers_equal, make_errant,
    written_rows,
};

/// What the faults of this story make the sidecars say.
const EXPECTED: &[&str] = &[
    TAKES_WRITES,
    "this server must be cloned: it has transactions that were never accepted",
];

const STOP: &str = "[repair]\nerrant = \"stop\"\n";
/// A clone would be over in this time.
const WAIT: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_errant_server_waits_where_that_is_wanted() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let options = Options {
        config: STOP.to_owned(),
        ..Options::default()
    };
    let mut cluster = Cluster::start("errant-stop", program, options).await;
    let ports = cluster.read_write_ports();
    let mut sql = Sql::port(ports[0]).await.expect("a session");
    sql.run(Writer::TABLE).await.expect("make the table");
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let node = cluster.others(primary)[0];
    make_errant(cluster.node(node)).await;

    let bound = Duration::from_secs(10);
    cluster
        .wait_for_role(node, "repairing", "never accepted", bound)
        .await;
    tokio::time::sleep(WAIT).await;
    cluster
        .wait_for_role(node, "repairing", "never accepted", bound)
        .await;
    let mut there = Sql::socket(&cluster.node(node).socket())
        .await
        .expect("it still runs");
    let rows = written_rows(&mut there).await.expect("its rows");
    assert!(
        rows.contains(&ERRANT_ID),
        "what was written is there to be looked at"
    );
    let mut reads = Sql::port(cluster.node(node).ports.read_only)
        .await
        .expect("another server");
    let rows = written_rows(&mut reads).await.expect("its rows");
    assert!(!rows.contains(&ERRANT_ID), "nobody reads it through a port");
    // A session of its own: one that was idle for so long may have ended with a lease.
    let mut sql = Sql::port(ports[0]).await.expect("a session");
    sql.run("INSERT INTO app.written VALUES (1, 'the others serve')")
        .await
        .expect("a commit");
    drop((there, reads));

    let config = cluster.node(node).config();
    let text = std::fs::read_to_string(&config).expect("read the configuration");
    std::fs::write(&config, text.replace(STOP, "")).expect("write the configuration");
    cluster.node_mut(node).kill();
    cluster.node_mut(node).start(false);
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(30)).await;
    assert_eq!(cluster.unexpected_log_lines(EXPECTED), [] as [String; 0]);
    cluster.stop().await;
}
