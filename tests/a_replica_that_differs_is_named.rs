//! Tables are compared between the servers while they are written to. A replica whose rows somebody
//! changed without a trace is named, in what the tool says, in the status and in the log.

use std::process::Command;
use std::time::Duration;

use quorate_tests::{Cluster, NodeProcess, Options, Sql, Writer, assert_servers_equal, wait_for};
use quorate_types::NodeId;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_differs_is_named() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let options = Options {
        config: "[verify]\nevery_s = 5\n".to_owned(),
        ..Options::default()
    };
    let cluster = Cluster::start("verify", program, options).await;
    let primary = cluster.wait_for_primary(SOON).await;
    let others = cluster.others(primary);
    let (node, other) = (others[0], others[1]);
    let ports = cluster.read_write_ports();
    let mut sql = Sql::port(ports[0]).await.expect("a session");
    for statement in [
        Writer::TABLE,
        "CREATE TABLE app.quiet (id INT PRIMARY KEY, w VARCHAR(100))",
        "INSERT INTO app.quiet VALUES (1, 'one'), (2, 'two')",
        "CREATE TABLE app.`odd ``name` (id INT PRIMARY KEY)",
    ] {
        sql.run(statement).await.expect(statement);
    }
    let writer = Writer::start(ports, 4);
    tokio::time::sleep(Duration::from_secs(1)).await;

    // Under load, the table that is written to included: nothing differs.
    let (equal, text) = verify(program, &cluster, primary, "6 equal, 0 different").await;
    println!("{text}");
    assert!(equal && text.contains("6 equal, 0 different"), "{text}");

    change(
        cluster.node(node),
        "UPDATE app.quiet SET w = 'other' WHERE id = 2",
    )
    .await;
    // Any node may be asked.
    let (equal, text) = verify(program, &cluster, other, " 1 different").await;
    println!("{text}");
    assert!(
        !equal && text.contains(&format!("node {node}, app.quiet: its checksum")),
        "{text}"
    );
    assert!(text.contains(" 1 different"), "{text}");
    status_names(&cluster, node, &["app.quiet"]).await;

    change(
        cluster.node(node),
        "UPDATE app.quiet SET w = 'two' WHERE id = 2",
    )
    .await;
    // Nobody asks now: the primary compares by itself.
    status_names(&cluster, node, &[]).await;
    change(cluster.node(other), "DELETE FROM app.quiet WHERE id = 1").await;
    status_names(&cluster, other, &["app.quiet"]).await;
    let named = std::fs::read_to_string(cluster.node(other).log()).expect("its log");
    assert!(
        named.contains("a table differs from the primary's"),
        "{named}"
    );
    change(
        cluster.node(other),
        "INSERT INTO app.quiet VALUES (1, 'one')",
    )
    .await;

    let outcomes = writer.finish().await;
    println!(
        "longest time without a commit: {:?}",
        outcomes.longest_gap()
    );
    assert_servers_equal(&cluster.sockets(), SOON).await;
    // No table was ever said to differ that did not.
    let loud = cluster.unexpected_log_lines(&["table=app.quiet ", "table=\"app.quiet\""]);
    let mut differs = loud.iter().filter(|line| line.contains("differs"));
    assert_eq!(differs.next(), None);
    cluster.stop().await;
}

/// What a person with too many rights does: a change that is in no binlog.
async fn change(node: &NodeProcess, statement: &str) {
    let mut sql = Sql::socket(&node.socket()).await.expect("root");
    for statement in [
        "SET SESSION sql_log_bin=0",
        "SET GLOBAL read_only=OFF",
        statement,
        "SET GLOBAL super_read_only=ON",
    ] {
        sql.run(statement).await.expect(statement);
    }
}

/// Whether nothing differs, and what is said, asked again until it has `text`: one comparison runs at
/// a time, and a replica that lags by most of a second, or was changed by hand just now, is left out.
async fn verify(program: &str, cluster: &Cluster, node: NodeId, text: &str) -> (bool, String) {
    let addr = format!("127.0.0.1:{}", cluster.node(node).ports.grpc);
    let mut said = (false, String::new());
    wait_for(Duration::from_secs(60), async || {
        let output = Command::new(program)
            .args(["verify", "--addr", &addr])
            .output();
        let output = output.expect("run quorate");
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        said = (output.status.success(), format!("{words}{errors}"));
        said.1.contains(text)
    })
    .await;
    said
}

async fn status_names(cluster: &Cluster, node: NodeId, tables: &[&str]) {
    let mut last = Vec::new();
    let named = wait_for(SOON, async || {
        let statuses = cluster.statuses().await;
        let Some(status) = statuses.values().next() else {
            return false;
        };
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let own = nodes.into_iter().find(|one| one["id"] == node.0);
        let differs = own.and_then(|own| own["differs"].as_array().cloned());
        last = differs.unwrap_or_default();
        last == tables
    });
    assert!(named.await, "node {node}: {last:?}, not {tables:?}");
}
