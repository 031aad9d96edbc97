//! The log keeps within its limits. While nobody but the primary has executed what is in it, nothing
//! goes, and near its budget writes stop; once it may go it goes and writes go on. Who was away for
//! longer than that is cloned, who comes with nothing is refused, and a restart of all loses nothing.

use std::path::Path;
use std::time::Duration;

use quorate_node::config::Secrets;
use quorate_tests::{
    Cluster, NodeProcess, Options, Signal, Sql, SqlError, Writer, assert_rows_survived,
    assert_servers_equal, eventually,
};
use quorate_types::NodeId;
use serde_json::Value;
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");

const LOG_BYTES: u64 = 2 << 20;
const BUDGET_BYTES: u64 = 16 << 20;

/// What this story makes the sidecars say.
const EXPECTED: &[&str] = &[
    "% of its budget: the primary takes no writes",
    "the primary takes no writes: its log is near its budget",
    "this server must be cloned: it is too old",
];

fn options() -> Options {
    let config = format!(
        "[retention]\nlog_bytes = {LOG_BYTES}\nlog_age_s = 0\nbudget_bytes = {BUDGET_BYTES}\n"
    );
    Options {
        config,
        ..Options::default()
    }
}

/// Rows of 64 KiB; the error of the first that is refused.
async fn fill(sql: &mut Sql, from: u64, rows: u64) -> Result<(), SqlError> {
    for id in from..from + rows {
        // Random, so that nothing makes it smaller on its way.
        let row = format!(
            "INSERT INTO app.bulk SELECT {id}, GROUP_CONCAT(HEX(RANDOM_BYTES(1024)) SEPARATOR '') \
             FROM (WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 32) \
             SELECT i FROM n) many"
        );
        sql.run_within(&row, Duration::from_secs(20)).await?;
    }
    Ok(())
}

/// A lease that ended for a moment costs a session.
async fn anew_if_ended(answer: &Result<(), SqlError>, sql: &mut Sql, node: &NodeProcess) {
    if let Err(SqlError::Unknown(why)) = answer {
        println!("another session: {why}");
        *sql = Sql::port(node.ports.read_write).await.expect("a session");
    }
}

/// What a node says of the cluster.
async fn status(node: &NodeProcess) -> Value {
    let text = node.http_get("/api/status").await.unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// A node's log, as it describes it itself.
async fn log_of(node: &NodeProcess) -> Value {
    let status = status(node).await;
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    let own = nodes.into_iter().find(|one| one["id"] == node.id.0);
    own.map(|own| own["log"].clone()).unwrap_or_default()
}

/// What a consumer with nothing is told by a feed.
async fn read_from_the_beginning(dir: &Path, node: &NodeProcess) -> (bool, String) {
    let secrets = Secrets::load(&dir.join("secrets.toml")).expect("load secrets");
    let mut command = quorate_tests::mysql().await.tool("mysqlbinlog");
    command
        .args(["--no-defaults", "--host=127.0.0.1", "--to-last-log"])
        .arg("--read-from-remote-source=BINLOG-DUMP-GTIDS")
        .args([
            format!("--port={}", node.ports.feed),
            "--user=quorate_feed".into(),
        ])
        .arg(format!("--password={}", secrets.feed.expose()))
        .arg("quorate.000000");
    let output = command.output().expect("run mysqlbinlog");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

async fn on_server(node: &NodeProcess, statement: &str) {
    let mut sql = Sql::socket(&node.socket()).await.expect("root");
    sql.run(statement).await.expect(statement);
}

/// A transaction that the log would not take does not reach the binlog. The session goes on.
async fn too_large_for_the_log_is_refused(sql: &mut Sql) {
    // Twice what the server is set to take, in many rows: it counts before an event, not behind it.
    let rows = BUDGET_BYTES / 4 / 65536;
    let large = format!(
        "INSERT INTO app.bulk SELECT i, REPEAT('x', 65536) FROM (WITH RECURSIVE n AS \
         (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i FROM n) many"
    );
    let answer = sql.run(&large).await;
    let refused = matches!(answer, Err(SqlError::Server { code: 1197, .. }));
    assert!(refused, "{answer:?}");
    let rows = sql.value("SELECT COUNT(*) FROM app.bulk").await;
    assert_eq!(rows.expect("it goes on"), "0");
}

/// A replica takes what a primary with a larger budget took.
async fn only_the_primary_limits_transactions(cluster: &Cluster, primary: NodeId) {
    for (id, node) in &cluster.nodes {
        let mut sql = Sql::socket(&node.socket()).await.expect("root");
        let limit = sql.value("SELECT @@GLOBAL.max_binlog_cache_size").await;
        let expected = if *id == primary {
            BUDGET_BYTES / 8
        } else {
            2 << 30
        };
        assert_eq!(limit.expect("a limit"), expected.to_string(), "node {id}");
    }
}

/// Only the primary executes: nothing of that goes, and writes stop before the budget is used up.
async fn near_the_budget_writes_stop_and_go_on(cluster: &Cluster, primary: NodeId) -> u64 {
    let replicas = cluster.others(primary);
    for replica in &replicas {
        on_server(cluster.node(*replica), "STOP REPLICA SQL_THREAD").await;
    }
    let mut sql = Sql::port(cluster.node(primary).ports.read_write)
        .await
        .expect("a session");
    let mut rows = 0;
    let refused = loop {
        match fill(&mut sql, rows, 10).await {
            Ok(()) => rows += 10,
            Err(error) => break error,
        }
        assert!(rows < 1000, "writes never stop");
    };
    let stopped = matches!(refused, SqlError::Server { code: 1290, .. });
    assert!(stopped, "writes stop with {refused}");
    let read = sql.value("SELECT COUNT(*) FROM app.bulk").await;
    let written: u64 = read.expect("reads go on").parse().expect("a count");
    println!("writes stopped after {written} rows");
    let mut retention = Value::Null;
    let named = eventually(Duration::from_secs(10), async || {
        retention = status(cluster.node(primary)).await["retention"].clone();
        let held_by = retention["held_by"].as_array().cloned().unwrap_or_default();
        let ids: Vec<_> = held_by
            .iter()
            .filter_map(|one| one["id"].as_u64())
            .collect();
        ids == replicas.iter().map(|node| node.0).collect::<Vec<_>>()
    });
    assert!(named.await, "who holds the log: {retention}");
    println!("{retention}");
    let purged = retention["purged"].as_u64().expect("an index");
    let mut log = Value::Null;
    let full = eventually(Duration::from_secs(10), async || {
        log = log_of(cluster.node(primary)).await;
        // What the replicas had executed before may go. Each row has an entry of its own, as each was
        // accepted before the next was written.
        let is_kept = Some(purged + written) <= log["last"].as_u64();
        is_kept && log["full"] == true
    });
    assert!(full.await, "purged up to {purged}, {log}");
    println!("{log}");
    let bytes = log["bytes"].as_u64().expect("a number");
    assert!(
        (BUDGET_BYTES / 5 * 4..BUDGET_BYTES).contains(&bytes),
        "{log}"
    );

    for replica in &replicas {
        on_server(cluster.node(*replica), "START REPLICA SQL_THREAD").await;
    }
    let moment = Instant::now();
    let mut id = 10_000;
    let resumed = eventually(Duration::from_secs(60), async || {
        let answer = fill(&mut sql, id, 1).await;
        id += 1;
        anew_if_ended(&answer, &mut sql, cluster.node(primary)).await;
        answer.is_ok()
    });
    assert!(resumed.await, "writes do not go on");
    println!("writes went on after {:?}", moment.elapsed());
    let still = cluster.wait_for_primary(Duration::from_secs(10)).await;
    assert_eq!(still, primary, "nobody took over");
    rows
}

/// Writes until every node's log begins behind the entry.
async fn purge_past(cluster: &Cluster, nodes: &[NodeId], sql: &mut Sql, past: u64) {
    let mut id = 20_000;
    let purged = eventually(Duration::from_secs(120), async || {
        // Small as it is, the budget is soon used while the log catches up with being purged.
        let answer = fill(sql, id, 20).await;
        anew_if_ended(&answer, sql, cluster.node(nodes[0])).await;
        match answer {
            Ok(()) | Err(SqlError::Server { code: 1290, .. } | SqlError::Unknown(_)) => id += 20,
            Err(error) => panic!("writes go on: {error}"),
        }
        let mut firsts = Vec::new();
        for node in nodes {
            firsts.push(log_of(cluster.node(*node)).await["first"].as_u64());
        }
        firsts.iter().all(|first| *first > Some(past))
    });
    assert!(purged.await, "the log is not purged past {past}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_purged_is_cloned_or_refused() {
    let mut cluster = Cluster::start("purged", PROGRAM, options()).await;
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let mut sql = Sql::port(cluster.node(primary).ports.read_write)
        .await
        .expect("a session");
    sql.run("SET SESSION group_concat_max_len = 1000000")
        .await
        .expect("set");
    for table in [
        Writer::TABLE,
        "CREATE TABLE app.bulk (id INT PRIMARY KEY, body MEDIUMTEXT)",
    ] {
        sql.run(table).await.expect(table);
    }
    on_server(
        cluster.node(primary),
        "SET GLOBAL group_concat_max_len = 1000000",
    )
    .await;
    too_large_for_the_log_is_refused(&mut sql).await;
    only_the_primary_limits_transactions(&cluster, primary).await;
    near_the_budget_writes_stop_and_go_on(&cluster, primary).await;
    cluster.wait_until_whole(Duration::from_secs(60)).await;

    let away = cluster.others(primary)[1];
    let last = log_of(cluster.node(away)).await["last"].as_u64();
    cluster.node(away).signal(Signal::TERM);
    cluster.node_mut(away).exited(Duration::from_secs(30)).await;
    let writer = Writer::start(vec![cluster.node(primary).ports.read_write], 2);
    let here = cluster.others(away);
    purge_past(&cluster, &here, &mut sql, last.expect("a number")).await;
    for node in &here {
        let (served, said) = read_from_the_beginning(&cluster.dir, cluster.node(*node)).await;
        assert!(!served && said.contains("no longer has"), "{said}");
        println!("{}", said.trim());
    }
    cluster.node_mut(away).start(false);
    let moment = Instant::now();
    let bound = Duration::from_secs(60);
    cluster
        .wait_for_role(away, "cloning", "it is too old", bound)
        .await;
    cluster.wait_until_whole(2 * bound).await;
    println!("cloned and whole after {:?}", moment.elapsed());
    let outcomes = writer.finish().await;
    assert_servers_equal(&cluster.sockets(), bound).await;

    for node in cluster.nodes.values_mut() {
        node.kill();
    }
    for node in cluster.nodes.values_mut() {
        node.start(false);
    }
    cluster.wait_until_whole(2 * bound).await;
    let mut sql = Sql::port(cluster.read_write_ports()[0])
        .await
        .expect("a session");
    sql.run("SET SESSION group_concat_max_len = 1000000")
        .await
        .expect("set");
    fill(&mut sql, 90_000, 3).await.expect("it serves");
    let primary = cluster.wait_for_primary(bound).await;
    only_the_primary_limits_transactions(&cluster, primary).await;
    assert_servers_equal(&cluster.sockets(), bound).await;
    assert_rows_survived(&cluster.sockets(), &outcomes, &outcomes.acknowledged).await;
    for node in cluster.nodes.values() {
        let (served, said) = read_from_the_beginning(&cluster.dir, node).await;
        assert!(!served && said.contains("no longer has"), "{said}");
        println!("node {}: {}", node.id, log_of(node).await);
    }
    assert_eq!(cluster.unexpected_log_lines(EXPECTED), [] as [String; 0]);
    cluster.stop().await;
}
