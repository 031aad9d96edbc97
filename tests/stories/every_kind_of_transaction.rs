//! Story: whatever MySQL lets a client write arrives on every server as it was written, before and
//! after a failover, and what could not be safe is refused.

mod kinds;

use std::path::Path;
use std::time::Duration;

use kinds::{AS_STATEMENTS, DEFINITIONS, KINDS, Kind, REFUSED};
use quorate_tests::{Cluster, Options, Signal, Sql, SqlError, assert_servers_equal, eventually};
use quorate_types::NodeId;

const SOON: Duration = Duration::from_secs(30);
/// Of the transaction with the most statements.
const STATEMENTS: u32 = 3000;

/// What the killed server makes the sidecars say.
const EXPECTED: &[&str] = &[
    // Whoever may do everything may pass the log.
    "preflight: 'admin'@'%' has REPLICATION SLAVE",
    MET_STATEMENTS,
];
/// A replica takes rows only, until it meets something else.
const MET_STATEMENTS: &str = "a transaction was logged as statements";

async fn admin(port: u16) -> Sql {
    let session = Sql::port_as(port, "admin", Some("admin"), Some("kinds")).await;
    session.expect("a session through the read-write port")
}

async fn make_schema(cluster: &Cluster, primary: NodeId) {
    let socket = cluster.node(primary).socket();
    let mut root = Sql::socket(&socket).await.expect("root on the socket");
    for statement in [
        "CREATE USER admin@'%' IDENTIFIED BY 'admin'",
        "GRANT ALL ON *.* TO admin@'%' WITH GRANT OPTION",
        "CREATE DATABASE kinds",
    ] {
        root.run(statement).await.expect(statement);
    }
}

async fn write(kind: &Kind, port: u16) {
    let mut sql = admin(port).await;
    for statement in kind.statements {
        let written = sql.run_within(statement, SOON).await;
        written.unwrap_or_else(|error| panic!("{}: {statement:.90}: {error}", kind.name));
    }
}

async fn write_many_statements(port: u16) {
    let mut sql = admin(port).await;
    let table = "CREATE TABLE many (id INT PRIMARY KEY)";
    sql.run(table).await.expect(table);
    sql.run("BEGIN").await.expect("begin");
    for id in 0..STATEMENTS {
        let statement = format!("INSERT INTO many VALUES ({id})");
        sql.run_within(&statement, SOON).await.expect("a statement");
    }
    sql.run_within("COMMIT", SOON).await.expect("commit");
}

/// Whether a session may choose how it is logged; MySQL means to take that away.
async fn write_as_statements(port: u16) -> bool {
    let mut sql = admin(port).await;
    let table = "CREATE TABLE stated (id INT AUTO_INCREMENT PRIMARY KEY, v TEXT)";
    sql.run(table).await.expect(table);
    for format in ["STATEMENT", "MIXED"] {
        let ask = format!("SET SESSION binlog_format = '{format}'");
        match sql.run(&ask).await {
            Ok(()) => {}
            Err(SqlError::Server { code: 1193, .. }) => return false,
            Err(error) => panic!("{format}: {error}"),
        }
        for statement in AS_STATEMENTS {
            let written = sql.run_within(statement, SOON).await;
            written.unwrap_or_else(|error| panic!("{format}: {statement}: {error}"));
        }
    }
    true
}

async fn replicas_begin_anew(cluster: &Cluster, primary: NodeId) {
    for replica in cluster.others(primary) {
        let log = cluster.node(replica).log();
        let said = eventually(SOON, async || {
            let log = std::fs::read_to_string(&log).expect("the sidecar's log");
            log.contains(MET_STATEMENTS)
        });
        assert!(said.await, "node {replica} met no statements");
    }
    cluster.wait_until_whole(2 * SOON).await;
}

/// It runs once and is dropped: killed in between, the next primary would run it again.
async fn wait_for_the_event(port: u16) {
    let mut sql = admin(port).await;
    let is_over = eventually(SOON, async || {
        let left = "SELECT COUNT(*) FROM information_schema.events WHERE event_name = 'tick'";
        sql.value(left).await.is_ok_and(|count| count == "0")
    });
    assert!(is_over.await, "the event does not run");
}

async fn is_refused(port: u16) {
    let mut sql = admin(port).await;
    for (statement, expected) in REFUSED {
        match sql.run_within(statement, SOON).await {
            Err(SqlError::Server { code, .. }) if code == *expected => {}
            other => panic!("{statement}: {other:?}"),
        }
    }
}

/// Prepared, and left to whoever comes next.
async fn leave_prepared(port: u16) {
    let mut sql = admin(port).await;
    for statement in [
        "XA START 'pending', 'over a failover'",
        "INSERT INTO xa VALUES (5)",
        "XA END 'pending', 'over a failover'",
        "XA PREPARE 'pending', 'over a failover'",
    ] {
        sql.run_within(statement, SOON).await.expect(statement);
    }
}

async fn commit_prepared(port: u16) {
    let mut last = String::new();
    let committed = eventually(SOON, async || {
        let statement = "XA COMMIT 'pending', 'over a failover'";
        match admin(port).await.run_within(statement, SOON).await {
            Ok(()) => true,
            Err(error) => {
                last = error.to_string();
                false
            }
        }
    });
    assert!(committed.await, "{last}");
}

/// It still knows all that it executed: it is neither cloned nor given anything twice.
async fn kill_a_replica(cluster: &Cluster) {
    let primary = cluster.wait_for_primary(SOON).await;
    let replica = cluster.node(cluster.others(primary)[0]);
    let killed = replica.mysqld_pid().expect("a server");
    replica.signal_mysqld(Signal::KILL);
    let started = eventually(SOON, async || {
        replica.mysqld_pid().is_some_and(|pid| pid != killed)
    });
    assert!(started.await, "its server is not started again");
    cluster.wait_until_whole(2 * SOON).await;
    assert_servers_equal(&cluster.sockets(), SOON).await;
}

async fn shows(socket: &Path, query: &str) -> Result<Vec<Vec<String>>, SqlError> {
    let mut sql = Sql::socket(socket).await?;
    sql.run("USE kinds").await?;
    sql.rows(query).await
}

async fn assert_all_shown(cluster: &Cluster) {
    assert_servers_equal(&cluster.sockets(), SOON).await;
    let sockets = cluster.sockets();
    for kind in KINDS {
        for (query, expected) in kind.shows {
            for socket in &sockets {
                let rows = shows(socket, query).await.expect(query);
                assert_eq!(rows, [[(*expected).to_owned()]], "{}: {query}", kind.name);
            }
        }
    }
    for query in DEFINITIONS {
        let first = shows(&sockets[0], query).await.expect(query);
        assert!(!first.is_empty(), "nothing to compare: {query}");
        for socket in &sockets[1..] {
            let other = shows(socket, query).await.expect(query);
            assert_eq!(other, first, "{}: {query}", socket.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_transaction() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let cluster = Cluster::start("every-kind", program, Options::default()).await;
    let old = cluster.wait_for_primary(SOON).await;
    make_schema(&cluster, old).await;
    let ports = cluster.read_write_ports();
    for (kind, port) in KINDS.iter().zip(ports.iter().cycle()) {
        write(kind, *port).await;
    }
    write_many_statements(ports[0]).await;
    if write_as_statements(ports[1]).await {
        replicas_begin_anew(&cluster, old).await;
    } else {
        println!("no session may log statements");
    }
    is_refused(ports[2]).await;
    wait_for_the_event(ports[0]).await;
    leave_prepared(ports[0]).await;

    cluster.node(old).signal_mysqld(Signal::KILL);
    let moved = eventually(SOON, async || {
        cluster
            .primary()
            .await
            .is_some_and(|primary| primary != old)
    });
    assert!(moved.await, "nobody takes over");
    cluster.wait_until_whole(2 * SOON).await;
    for port in cluster.read_write_ports() {
        let prepared = admin(port).await.rows("XA RECOVER").await.expect("ask");
        assert_eq!(prepared.len(), 1, "{prepared:?}");
    }
    commit_prepared(cluster.read_write_ports()[0]).await;
    assert_all_shown(&cluster).await;
    for socket in cluster.sockets() {
        let left = shows(&socket, "XA RECOVER").await.expect("ask");
        assert_eq!(left, [] as [Vec<String>; 0], "{}", socket.display());
    }

    // What came from another server is as usable as what was written here.
    let mut sql = admin(cluster.read_write_ports()[0]).await;
    for statement in [
        "CALL make('again', 2)",
        "UPDATE documents SET d = JSON_SET(d, '$.again', 1)",
        "DELETE FROM keyless WHERE a IS NULL",
        "INSERT INTO exchanged VALUES (25, 5, 'later')",
        "DROP USER kinds_a@'%'",
    ] {
        let written = sql.run_within(statement, SOON).await;
        written.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    assert_servers_equal(&cluster.sockets(), SOON).await;
    kill_a_replica(&cluster).await;
    assert_eq!(cluster.unexpected_log_lines(EXPECTED), [] as [String; 0]);
    cluster.stop().await;
}
