//! A client whose machine lost its power says nothing more: its transaction is rolled back all the
//! same.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use quorate_tests::{Cluster, Options, Sql, python_mysql_replication, run_as_root};
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const SOON: Duration = Duration::from_secs(15);
/// A silent peer is gone after 30 s; mysqld waits for a lock for 50 s, and for a client for 8 hours.
const LET_GO: Duration = Duration::from_secs(45);
/// Earlier only who was told that the client is gone.
const SILENT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanished_keeps_no_lock() {
    let python = python_mysql_replication().await;
    let cluster = Cluster::start("vanished", PROGRAM, Options::default()).await;
    let primary = cluster.wait_for_primary(SOON).await;
    // Through a node that is not the primary: two connections of a network are on the way.
    let port = cluster.node(cluster.others(primary)[0]).ports.read_write;
    let mut sql = Sql::port(port).await.expect("a session");
    for statement in [
        "CREATE TABLE app.held (id INT PRIMARY KEY, v INT NOT NULL)",
        "INSERT INTO app.held VALUES (1, 0)",
    ] {
        sql.run(statement).await.expect(statement);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("stories/vanished_client/vanish.py");
    run_as_root(Command::new(python).arg(script).arg(port.to_string()));

    let vanished = Instant::now();
    let update = "UPDATE app.held SET v = 2 WHERE id = 1";
    sql.run_within(update, LET_GO).await.expect(update);
    let waited = vanished.elapsed();
    println!("the lock of a client that vanished was free after {waited:?}");
    assert!(waited > SILENT, "it did not vanish: {waited:?}");
    assert_eq!(cluster.unexpected_log_lines(&[]), [] as [String; 0]);
    cluster.stop().await;
}
