//! SIGTERM makes a primary commit what waits, accepted or not. No cut undoes that: the server is
//! cloned.

use std::time::Duration;

use quorate_tests::{
    Cluster, ERRANT_ID, Options, Signal, Sql, Writer, assert_nothing_beside, assert_servers_equal,
    eventually, wait_for, written_rows,
};

/// What the faults of this story make the sidecars say.
const EXPECTED: &[&str] = &[
    "this server must be cloned: it has transactions that were never accepted",
    "the server must be cloned",
    // The sidecar stood still while it looked.
    "the server's disk does not answer",
];

/// It waits so long for its sessions before it ends them.
const SHUTDOWN_MAX: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sigterm_committed_is_cloned_away() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let options = Options::default();
    let cluster = Cluster::start("sigterm-waiting", program, options).await;
    let ports = cluster.read_write_ports();
    let mut sql = Sql::port(ports[0]).await.expect("a session");
    sql.run(Writer::TABLE).await.expect("make the table");
    let old = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let mut waiting = Sql::socket(&cluster.node(old).socket())
        .await
        .expect("a session");

    cluster.links.isolate(old, true);
    let insert = format!("INSERT INTO app.written VALUES ({ERRANT_ID}, 'nobody accepted it')");
    let waiting = tokio::spawn(async move { waiting.run(&insert).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished(), "it waits for its ACK");
    // It would kill the server as soon as that no longer answers.
    cluster.node(old).signal(Signal::STOP);
    let pid = cluster.node(old).mysqld_pid();
    cluster.node(old).signal_mysqld(Signal::TERM);
    let survivor = cluster.others(old)[0];
    let port = cluster.node(survivor).ports.read_write;
    let elsewhere = eventually(Duration::from_secs(20), async || {
        let Ok(mut sql) = Sql::port(port).await else {
            return false;
        };
        let write = "REPLACE INTO app.written VALUES (1, 'accepted')";
        sql.run_within(write, Duration::from_secs(5)).await.is_ok()
    });
    assert!(elsewhere.await, "no commit elsewhere");
    let ended = wait_for(SHUTDOWN_MAX, async || cluster.node(old).mysqld_pid() != pid).await;
    assert!(ended, "mysqld does not end");
    println!(
        "the client was told {:?}",
        waiting.await.expect("no panic").map_err(|e| e.to_string())
    );

    cluster.links.heal();
    cluster.node(old).signal(Signal::CONT);
    let bound = Duration::from_secs(30);
    cluster
        .wait_for_role(old, "cloning", "never accepted", bound)
        .await;
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(30)).await;
    let mut there = Sql::socket(&cluster.node(old).socket())
        .await
        .expect("the old primary");
    let rows = written_rows(&mut there).await.expect("its rows");
    assert_eq!(rows.into_iter().collect::<Vec<_>>(), [1]);
    assert_nothing_beside(cluster.node(old));
    assert_eq!(cluster.unexpected_log_lines(EXPECTED), [] as [String; 0]);
    cluster.stop().await;
}
