//! `quorate check` names what speaks against a node or its server, with what to set, and its exit
//! code says whether a start is forbidden.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use quorate_tests::{Cluster, Options, Signal, Sql, assert_servers_equal};

/// What this story does by hand makes the sidecars say this.
const EXPECTED: &[&str] = &[
    "mysqld runs with sync_binlog=0",
    "preflight: 'helper'@'%' has",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_says_what_to_set() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let mut cluster = Cluster::start("check", program, Options::default()).await;
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let others = cluster.others(primary);
    let (node, peer) = (others[0], others[1]);
    let config = cluster.node(node).config();
    let (fine, text) = check(program, &config);
    println!("{text}");
    assert!(
        fine && text.contains("NOTE: the time zone tables are empty"),
        "{text}"
    );
    assert!(
        !text.contains("WARNING") && !text.contains("does not answer"),
        "{text}"
    );

    let mut sql = Sql::socket(&cluster.node(primary).socket())
        .await
        .expect("root");
    for statement in [
        "CREATE USER helper@'%' IDENTIFIED BY 'helper'",
        "GRANT REPLICATION SLAVE, SYSTEM_VARIABLES_ADMIN ON *.* TO helper@'%'",
        "CREATE TABLE app.keyless (a INT)",
    ] {
        sql.run(statement).await.expect(statement);
    }
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(10)).await;
    let mut sql = Sql::socket(&cluster.node(node).socket())
        .await
        .expect("root");
    changed_by_hand(program, &config, &mut sql).await;
    let (fine, text) = check(program, &config);
    println!("{text}");
    assert!(fine, "{text}");
    for expected in [
        "WARNING: 'helper'@'%' has REPLICATION SLAVE, SYSTEM_VARIABLES_ADMIN\n    REVOKE",
        "NOTE: tables without a primary key: app.keyless",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    a_node_that_is_down(&mut cluster, program, node, peer).await;
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    let log = std::fs::read_to_string(cluster.node(node).log()).expect("its log");
    assert!(
        log.contains("preflight: 'helper'@'%' has"),
        "said at the start too"
    );
    assert_eq!(cluster.unexpected_log_lines(EXPECTED), [] as [String; 0]);
    cluster.stop().await;
}

/// Settings of a server that runs, each found with what to set.
async fn changed_by_hand(program: &str, config: &Path, sql: &mut Sql) {
    for (statement, undo, forbids, expected) in [
        (
            "SET GLOBAL sync_binlog=0",
            "SET GLOBAL sync_binlog=1",
            true,
            "FORBIDS A START: mysqld runs with sync_binlog=0\n    set sync_binlog=1",
        ),
        (
            "SET GLOBAL sql_mode='ANSI'",
            "SET GLOBAL sql_mode=DEFAULT",
            false,
            "WARNING: sql_mode is `REAL_AS_FLOAT",
        ),
        (
            "SET GLOBAL binlog_order_commits=OFF",
            "SET GLOBAL binlog_order_commits=ON",
            false,
            "WARNING: binlog_order_commits=OFF\n    set binlog_order_commits=ON",
        ),
        (
            "SET GLOBAL transaction_isolation='READ-UNCOMMITTED'",
            "SET GLOBAL transaction_isolation=DEFAULT",
            false,
            "WARNING: transaction_isolation=READ-UNCOMMITTED",
        ),
    ] {
        sql.run(statement).await.expect(statement);
        let (fine, text) = check(program, config);
        assert_eq!(fine, !forbids, "{statement}: {text}");
        assert!(text.contains(expected), "{statement}: {text}");
        sql.run(undo).await.expect(undo);
    }
}

/// Its folder, its ports and what it would share with others.
async fn a_node_that_is_down(
    cluster: &mut Cluster,
    program: &str,
    node: quorate_types::NodeId,
    peer: quorate_types::NodeId,
) {
    let theirs = cluster.node(peer).dir.join("mysql");
    let down = cluster.node_mut(node);
    down.signal(Signal::TERM);
    assert_eq!(down.exited(Duration::from_secs(90)).await, Some(true));
    let (config, data) = (down.config(), down.dir.join("mysql"));
    let (fine, text) = check(program, &config);
    println!("{text}");
    assert!(
        fine && text.contains("NOTE: its server does not run"),
        "{text}"
    );

    let port = std::net::TcpListener::bind(("127.0.0.1", down.ports.feed)).expect("the port");
    let (fine, text) = check(program, &config);
    assert!(!fine && text.contains("listen.feed"), "{text}");
    drop(port);
    for (file, expected) in [
        ("auto.cnf", format!("is node {peer}'s too")),
        ("quorate.marker", format!("is node {peer}'s")),
    ] {
        let own = std::fs::read(data.join(file)).expect("its own");
        std::fs::copy(theirs.join(file), data.join(file)).expect("another's");
        let (fine, text) = check(program, &config);
        assert!(!fine && text.contains(&expected), "{file}: {text}");
        std::fs::write(data.join(file), own).expect("its own again");
    }
    cluster.node_mut(node).start(false);
}

/// Whether nothing forbids a start, and all that is said.
fn check(program: &str, config: &Path) -> (bool, String) {
    let mut command = Command::new(program);
    command.arg("check").arg("--config").arg(config);
    let output = command.output().expect("run quorate");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    (output.status.success(), format!("{text}{errors}"))
}
