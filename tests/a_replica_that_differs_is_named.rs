//! Tables are compared between the servers while they are written to. A replica whose rows somebody
//! changed without a trace is named, in what the tool says, in the status and in the log. Whoever is
//! killed meanwhile leaves nothing behind, and nothing waits for a comparison.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quorate_tests::{Cluster, NodeProcess, Options, Sql, Writer, assert_servers_equal, wait_for};
use quorate_types::NodeId;
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const SOON: Duration = Duration::from_secs(60);
/// What makes a row's checksum take milliseconds: a column that is computed. It is added when the rows
/// are there, as it is computed for each row that is written too.
const SLOWLY: &str = "ALTER TABLE app.slow ADD COLUMN v CHAR(128) \
                      AS (SHA2(REPEAT(id, 200000), 512)) VIRTUAL";
const SLOW_ROWS: u32 = 5000;
/// Reading the slow table takes longer by far.
const AT_ONCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_differs_is_named() {
    let mut cluster = Cluster::start("verify", PROGRAM, Options::default()).await;
    let primary = cluster.wait_for_primary(SOON).await;
    let others = cluster.others(primary);
    let (node, other) = (others[0], others[1]);
    let ports = cluster.read_write_ports();
    let mut sql = Sql::port(ports[0]).await.expect("a session");
    for statement in [
        Writer::TABLE,
        "CREATE TABLE app.quiet (id INT PRIMARY KEY, w VARCHAR(100))",
        "INSERT INTO app.quiet VALUES (1, 'one'), (2, 'two')",
        "CREATE TABLE app.`odd name` (id INT PRIMARY KEY)",
        "CREATE TABLE app.keyless (a INT, b JSON, c DOUBLE, d INT AS (a + 1), e INT INVISIBLE)",
        "INSERT INTO app.keyless (a, b, c, e) VALUES (1, '{\"x\": 1}', 0.1, 2), (1, '[]', 1e9, 3)",
        "UPDATE app.keyless SET b = JSON_SET(b, '$.x', 2) WHERE e = 2",
    ] {
        sql.run(statement).await.expect(statement);
    }
    let writer = Writer::start(ports.clone(), 4);
    tokio::time::sleep(Duration::from_secs(1)).await;

    // Under load, the table that is written to included: all is compared, and equal.
    let all = "8 equal, 0 different, 0 not compared\n";
    let (equal, text) = verify(&cluster, primary, all).await;
    println!("{text}");
    assert!(equal && text == all);

    differences_are_named(&cluster, node, other).await;
    let rows = "INSERT INTO app.slow (id) WITH RECURSIVE n AS \
                (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i FROM n";
    let rows = rows.replace("{rows}", &SLOW_ROWS.to_string());
    let slow = "CREATE TABLE app.slow (id INT PRIMARY KEY)";
    for statement in ["SET cte_max_recursion_depth=100000", slow, &rows, SLOWLY] {
        sql.run(statement).await.expect(statement);
    }
    who_is_killed_leaves_nothing(&cluster, primary, node).await;
    a_change_of_a_table_does_not_wait(&cluster, primary, node, &mut sql).await;
    a_node_that_is_killed_ends_it_when_it_returns(&mut cluster, primary, node).await;
    sql.run("DROP TABLE app.slow").await.expect("drop it");
    // It was started again with the comparison in the background.
    cluster.wait_until_whole(SOON).await;
    let to = node.to_string();
    let switched = cluster.ask(primary, &["switchover", "--to", &to]).await;
    println!("{}", switched.expect("switch over"));
    the_background_finds_it_too(&cluster, other).await;

    let outcomes = writer.finish().await;
    let gap = outcomes.longest_gap();
    println!("longest time without a commit: {gap:?}");
    assert_servers_equal(&cluster.sockets(), SOON).await;
    for id in [primary, node, other] {
        assert_eq!(
            applier(cluster.node(id)).await,
            (id != node).then_some(true)
        );
    }
    // No table was ever said to differ that did not.
    let made = ["app.quiet", "app.odd name"];
    let loud = cluster.unexpected_log_lines(&made);
    let mut differs = loud.iter().filter(|line| line.contains("differs"));
    assert_eq!(differs.next(), None);
    cluster.stop().await;
}

async fn differences_are_named(cluster: &Cluster, node: NodeId, other: NodeId) {
    let began = Instant::now();
    let changed = "UPDATE app.quiet SET w = 'other' WHERE id = 2";
    change(cluster.node(node), changed).await;
    change(cluster.node(other), "DROP TABLE app.`odd name`").await;
    // Any node may be asked.
    let (equal, text) = verify(cluster, other, " 2 different").await;
    println!("{text}");
    assert!(!equal);
    assert!(text.contains(&format!("node {node}, app.quiet: its checksum is")));
    assert!(text.contains(&format!("node {other}, app.odd name: it has no such table")));
    status_names(cluster, node, &["app.quiet"]).await;
    status_names(cluster, other, &["app.odd name"]).await;

    let back = "UPDATE app.quiet SET w = 'two' WHERE id = 2";
    change(cluster.node(node), back).await;
    let back = "CREATE TABLE app.`odd name` (id INT PRIMARY KEY)";
    change(cluster.node(other), back).await;
    let (equal, text) = verify(cluster, node, " 0 different, 0 not compared").await;
    assert!(equal, "{text}");
    status_names(cluster, node, &[]).await;
    status_names(cluster, other, &[]).await;
    println!("differences: {:?}", began.elapsed());
}

/// Nobody asks: the primary compares by itself.
async fn the_background_finds_it_too(cluster: &Cluster, other: NodeId) {
    let began = Instant::now();
    change(cluster.node(other), "DELETE FROM app.quiet WHERE id = 1").await;
    status_names(cluster, other, &["app.quiet"]).await;
    let named = std::fs::read_to_string(cluster.node(other).log()).expect("its log");
    assert!(named.contains("a table differs from the primary's"));
    let back = "INSERT INTO app.quiet VALUES (1, 'one')";
    change(cluster.node(other), back).await;
    status_names(cluster, other, &[]).await;
    println!("in the background: {:?}", began.elapsed());
}

/// The tool is killed while both servers read.
async fn who_is_killed_leaves_nothing(cluster: &Cluster, primary: NodeId, node: NodeId) {
    let began = Instant::now();
    let mut asked = ask(cluster, node);
    let both = [cluster.node(primary), cluster.node(node)];
    let mut reading = Vec::new();
    for server in both {
        reading.push((server, checksums(server).await));
    }
    asked.kill().expect("kill the tool");
    asked.wait().expect("it ends");
    for (server, ids) in &reading {
        gone(server, ids).await;
    }
    println!("the tool killed: {:?}", began.elapsed());
}

/// Neither on the primary nor in a replica's applier.
async fn a_change_of_a_table_does_not_wait(
    cluster: &Cluster,
    primary: NodeId,
    node: NodeId,
    sql: &mut Sql,
) {
    let began = Instant::now();
    let mut asked = ask(cluster, primary);
    checksums(cluster.node(primary)).await;
    checksums(cluster.node(node)).await;
    // By hand, so that only the replica's own look can see it.
    let alter = "ALTER TABLE app.slow COMMENT = 'by hand'";
    let altered = tokio::time::timeout(AT_ONCE, change(cluster.node(node), alter)).await;
    altered.expect("a change on a replica waits");
    println!("a change on a replica took {:?}", began.elapsed());
    checksums(cluster.node(primary)).await;
    let changing = Instant::now();
    let alter = "ALTER TABLE app.slow ADD COLUMN more INT";
    sql.run_within(alter, AT_ONCE).await.expect(alter);
    println!("a change on the primary took {:?}", changing.elapsed());
    let column = "SELECT COUNT(*) FROM information_schema.COLUMNS \
                  WHERE TABLE_NAME = 'slow' AND COLUMN_NAME = 'more'";
    let mut replica = Sql::socket(&cluster.node(node).socket())
        .await
        .expect("root");
    let applied = wait_for(AT_ONCE, async || {
        replica.value(column).await.is_ok_and(|count| count == "1")
    });
    assert!(applied.await, "the applier waits");
    println!("and in the applier: {:?}", changing.elapsed());
    asked.kill().expect("kill the tool");
    asked.wait().expect("it ends");
    println!("a change of a table: {:?}", began.elapsed());
}

/// Its server goes on without it, and is adopted.
async fn a_node_that_is_killed_ends_it_when_it_returns(
    cluster: &mut Cluster,
    primary: NodeId,
    node: NodeId,
) {
    let began = Instant::now();
    let mut asked = ask(cluster, primary);
    let reading = checksums(cluster.node(node)).await;
    let server = cluster.node(node).mysqld_pid();
    cluster.node_mut(node).kill();
    let config = cluster.node(node).config();
    let text = std::fs::read_to_string(&config).expect("its configuration");
    std::fs::write(&config, text + "\n[verify]\nevery_s = 2\n").expect("write it");
    cluster.node_mut(node).start(false);
    gone(cluster.node(node), &reading).await;
    assert_eq!(cluster.node(node).mysqld_pid(), server, "not adopted");
    asked.kill().expect("kill the tool");
    asked.wait().expect("it ends");
    println!("a node killed: {:?}", began.elapsed());
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

fn tool(cluster: &Cluster, node: NodeId) -> Command {
    let mut command = Command::new(PROGRAM);
    let addr = format!("127.0.0.1:{}", cluster.node(node).ports.grpc);
    command.args(["verify", "--addr", &addr]);
    command
}

fn ask(cluster: &Cluster, node: NodeId) -> Child {
    let mut command = tool(cluster, node);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("run quorate")
}

/// Whether it succeeded, and what it said, asked again until `text` is in it: a replica that was
/// changed by hand just now is left out.
async fn verify(cluster: &Cluster, node: NodeId, text: &str) -> (bool, String) {
    let mut said = (false, String::new());
    wait_for(Duration::from_secs(30), async || {
        let output = tool(cluster, node).output().expect("run quorate");
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        said = (output.status.success(), format!("{words}{errors}"));
        said.1.contains(text)
    })
    .await;
    said
}

/// The sessions that read the slow table now, of which there is one soon.
async fn checksums(node: &NodeProcess) -> Vec<String> {
    let mut sql = Sql::socket(&node.socket()).await.expect("root");
    let mut found = Vec::new();
    let reads = wait_for(Duration::from_secs(30), async || {
        found = sessions(&mut sql).await;
        !found.is_empty()
    });
    assert!(
        reads.await,
        "nothing reads the slow table on node {}",
        node.id
    );
    found
}

async fn sessions(sql: &mut Sql) -> Vec<String> {
    let rows = sql.rows("SHOW PROCESSLIST").await.expect("the sessions");
    let reads = |row: &&Vec<String>| row[7].starts_with("CHECKSUM TABLE `app`.`slow`");
    let reading = rows.iter().filter(reads);
    reading.map(|row| row[0].clone()).collect()
}

/// None of them is there any more at once, nor anybody who waits for what it held.
async fn gone(node: &NodeProcess, ids: &[String]) {
    let mut sql = Sql::socket(&node.socket()).await.expect("root");
    let mut left = Vec::new();
    let gone = wait_for(AT_ONCE, async || {
        let rows = sql.rows("SHOW PROCESSLIST").await.expect("the sessions");
        let in_the_way =
            |row: &Vec<String>| ids.contains(&row[0]) || row[6].starts_with("Waiting for table");
        left = rows.into_iter().filter(in_the_way).collect();
        left.is_empty()
    });
    assert!(gone.await, "node {}: {left:?} of {ids:?}", node.id);
}

/// Whether both threads run; none if there is no source.
async fn applier(node: &NodeProcess) -> Option<bool> {
    let mut sql = Sql::socket(&node.socket()).await.expect("root");
    let rows = sql.rows("SHOW REPLICA STATUS").await.expect("the threads");
    rows.first()
        .map(|status| [10, 11].iter().all(|column| status[*column] == "Yes"))
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
