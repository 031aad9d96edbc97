//! Tables are compared between the servers while they are written to. A replica whose rows somebody
//! changed without a trace is named, in what the tool says, in the status and in the log. Whoever is
//! killed meanwhile leaves nothing behind, and nothing waits for a comparison.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quorate_tests::{
    Cluster, NodeProcess, Options, Sql, SqlError, Writer, assert_servers_equal, eventually,
    wait_for,
};
use quorate_types::NodeId;
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const SOON: Duration = Duration::from_secs(60);
/// Rows that take a server much longer to read than to write: all of them have the same value of 60 kB,
/// which is stored once, in the table's definition.
const SLOW_ROWS: u32 = 120_000;
/// Reading the slow table takes longer by far.
const AT_ONCE: Duration = Duration::from_secs(5);
/// A comparison holds writes up for 0.9 s at most; the rest is for a loaded machine.
const HELD_UP: Duration = Duration::from_millis(1800);
/// What MySQL itself gives as a checksum differs between equal servers for some of these.
const TABLES: [&str; 10] = [
    "CREATE TABLE IF NOT EXISTS app.quiet (id INT PRIMARY KEY, w VARCHAR(100))",
    "REPLACE INTO app.quiet VALUES (1, 'one'), (2, 'two')",
    "CREATE TABLE IF NOT EXISTS app.`odd 'name` (id INT PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS app.documents (id INT PRIMARY KEY, d JSON, \
     v INT AS (d->'$.a') VIRTUAL, s VARCHAR(99) AS (d->>'$.b') STORED, \
     KEY m ((CAST(d->'$.m' AS UNSIGNED ARRAY))))",
    "REPLACE INTO app.documents (id, d) VALUES (1, '{\"a\": 1, \"b\": \"some long text here\"}'), \
     (2, '{\"a\": 2.50, \"b\": \"x\", \"m\": [3]}'), (3, NULL), \
     (4, JSON_OBJECT('a', 9, 't', NOW(6), 'f', 0.1e0, 'n', 18446744073709551615))",
    "UPDATE app.documents SET d = JSON_REMOVE(d, '$.b') WHERE id = 2",
    "UPDATE app.documents SET d = JSON_SET(d, '$.g', ST_GeomFromText('POINT(1 2)')) WHERE id = 4",
    "CREATE TABLE IF NOT EXISTS app.keyless (a INT, f FLOAT, g DOUBLE, b BIT(9), p POINT, \
     ts TIMESTAMP(6) DEFAULT NOW(6), tx TEXT CHARACTER SET utf16, i INT INVISIBLE, \
     v VARCHAR(60) AS (ts) VIRTUAL)",
    "INSERT INTO app.keyless (a, f, g, b, p, tx, i) VALUES \
     (1, 16777217, 0.1, b'101', POINT(1, 2), 'ha', 5), (1, 0.1, -0.0, NULL, NULL, NULL, NULL)",
    "INSERT INTO app.keyless (a) VALUES (2), (2)",
];
/// As the server's own user, who may ask for this form of the binlog.
const PARTIAL: [&str; 4] = [
    "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'",
    "UPDATE app.documents SET d = JSON_SET(d, '$.b', 'short') WHERE id = 1",
    "UPDATE app.documents SET d = JSON_REPLACE(d, '$.a', 77) WHERE id = 1",
    "ALTER TABLE app.documents ENGINE = InnoDB, ALGORITHM = COPY",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_differs_is_named() {
    let mut cluster = Cluster::start("verify", PROGRAM, Options::default()).await;
    let began = Instant::now();
    let mut primary = cluster.wait_for_primary(SOON).await;
    run(&cluster, Writer::TABLE).await;
    for statement in TABLES {
        run(&cluster, statement).await;
    }
    let mut sql = Sql::socket(&cluster.node(primary).socket())
        .await
        .expect("root");
    for statement in PARTIAL {
        sql.run(statement).await.expect(statement);
    }
    let writer = Writer::start(cluster.read_write_ports(), 2);
    // Under load, the table that is written to included: all is compared, and equal.
    let all = "10 equal, 0 different, 0 not compared\n";
    let (equal, text) = verify(&cluster, primary, all).await;
    println!("{text}after {:?}", began.elapsed());
    assert!(equal && text == all);

    let others = cluster.others(primary);
    let (node, other) = (others[0], others[1]);
    differences_are_named(&cluster, node, other).await;
    a_transaction_that_lasts_holds_no_other_up(&cluster).await;

    a_replica_that_lags_holds_no_write_up_for_long(&cluster, primary, node).await;

    make_slow(&cluster).await;
    who_is_killed_leaves_nothing(&cluster, primary, node).await;
    nothing_waits_until_a_table_is_read(&cluster, primary, node).await;
    a_node_that_is_killed_ends_it_when_it_returns(&mut cluster, primary, node).await;
    run(&cluster, "DROP TABLE app.slow").await;
    // It was started again with the comparison in the background.
    cluster.wait_until_whole(SOON).await;
    primary = a_switchover_does_not_wait(&cluster, primary, node).await;
    the_background_finds_it_too(&cluster, primary, other).await;

    let outcomes = writer.finish().await;
    println!(
        "longest time without a commit: {:?}",
        outcomes.longest_gap()
    );
    assert_servers_equal(&cluster.sockets(), SOON).await;
    // No table was ever said to differ that did not.
    let made = ["app.quiet", "app.odd 'name"];
    let loud = cluster.unexpected_log_lines(&made);
    let mut differs = loud.iter().filter(|line| line.contains("differs"));
    assert_eq!(differs.next(), None);
    println!("all: {:?}", began.elapsed());
    cluster.stop().await;
}

async fn make_slow(cluster: &Cluster) {
    let began = Instant::now();
    run(cluster, "CREATE TABLE app.slow (id INT PRIMARY KEY)").await;
    // The hint goes with the statement, whichever session it comes to.
    let rows = format!(
        "INSERT /*+ SET_VAR(cte_max_recursion_depth=1000000) */ INTO app.slow \
         WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {SLOW_ROWS}) \
         SELECT i FROM n"
    );
    run(cluster, &rows).await;
    let wide = format!(
        "ALTER TABLE app.slow ADD COLUMN w VARCHAR(60000) CHARACTER SET latin1 NOT NULL \
         DEFAULT '{}', ALGORITHM = INSTANT",
        "x".repeat(60_000)
    );
    run(cluster, &wide).await;
    println!("the slow table: {:?}", began.elapsed());
}

/// Through the primary's port, by a session of its own: again if the session ended before the answer,
/// as it does when the primary changes or its lease ends for a moment. How long the last try took.
async fn run(cluster: &Cluster, statement: &str) -> Duration {
    let deadline = Instant::now() + SOON;
    loop {
        let primary = cluster.wait_for_primary(SOON).await;
        let port = cluster.node(primary).ports.read_write;
        let began = Instant::now();
        let ran = async { Sql::port(port).await?.run(statement).await };
        match ran.await {
            Ok(()) => return began.elapsed(),
            // Perhaps it took effect the first time: there already, or there no more.
            Err(SqlError::Server {
                code: 1050 | 1051 | 1060 | 1062,
                ..
            }) => return began.elapsed(),
            Err(SqlError::Unknown(why)) if Instant::now() < deadline => {
                println!("again, since {why}");
            }
            Err(error) => panic!("{error}: {:.200}", statement),
        }
    }
}

async fn differences_are_named(cluster: &Cluster, node: NodeId, other: NodeId) {
    let began = Instant::now();
    let changed = "UPDATE app.quiet SET w = 'other' WHERE id = 2";
    change(cluster.node(node), changed).await;
    change(cluster.node(other), "DROP TABLE app.`odd 'name`").await;
    // Any node may be asked.
    let (equal, text) = verify(cluster, other, " 2 different").await;
    println!("{text}");
    assert!(!equal);
    assert!(text.contains(&format!("node {node}, app.quiet: it holds 2 rows")));
    assert!(text.contains(&format!(
        "node {other}, app.odd 'name: it has no such table"
    )));
    status_names(cluster, node, &["app.quiet"]).await;
    status_names(cluster, other, &["app.odd 'name"]).await;

    let back = "UPDATE app.quiet SET w = 'two' WHERE id = 2";
    change(cluster.node(node), back).await;
    let back = "CREATE TABLE app.`odd 'name` (id INT PRIMARY KEY)";
    change(cluster.node(other), back).await;
    let (equal, text) = verify(cluster, node, " 0 different, 0 not compared").await;
    assert!(equal, "{text}");
    status_names(cluster, node, &[]).await;
    status_names(cluster, other, &[]).await;
    println!("differences: {:?}", began.elapsed());
}

/// Writes to a table wait until the replicas have its snapshot, but not for one that lags.
async fn a_replica_that_lags_holds_no_write_up_for_long(
    cluster: &Cluster,
    primary: NodeId,
    node: NodeId,
) {
    let began = Instant::now();
    let mut lags = Sql::socket(&cluster.node(node).socket())
        .await
        .expect("root");
    let lag = "FLUSH TABLES WITH READ LOCK";
    lags.run(lag).await.expect(lag);
    let mut asked = Asked::new(cluster, primary);
    // The first of the tables.
    let write = "REPLACE INTO app.documents (id, d) VALUES (9, '{}')";
    let mut longest = Duration::ZERO;
    while longest < Duration::from_millis(300) && began.elapsed() < SOON {
        asked.again_if_ended();
        longest = longest.max(run(cluster, write).await);
    }
    asked.kill();
    lags.run("UNLOCK TABLES").await.expect("let it go on");
    println!("a write beside a replica that lags took {longest:?}");
    assert!(longest >= Duration::from_millis(300), "nothing was held up");
    assert!(longest < HELD_UP, "a write took {longest:?}");
}

/// A comparison does not wait for long, and meanwhile others write.
async fn a_transaction_that_lasts_holds_no_other_up(cluster: &Cluster) {
    let began = Instant::now();
    for _ in 0..3 {
        let primary = cluster.wait_for_primary(SOON).await;
        let port = cluster.node(primary).ports.read_write;
        let mut holds = Sql::port(port).await.expect("a session");
        for statement in ["BEGIN", "UPDATE quiet SET w = 'held' WHERE id = 1"] {
            holds.run(statement).await.expect(statement);
        }
        let mut asked = tool(cluster, primary)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("run quorate");
        let (mut longest, mut written) = (Duration::ZERO, 0);
        while asked.try_wait().expect("ask for its end").is_none() {
            let write = format!("REPLACE INTO app.quiet VALUES (3, '{written}')");
            longest = longest.max(run(cluster, &write).await);
            written += 1;
        }
        let output = asked.wait_with_output().expect("what it said");
        let text = String::from_utf8_lossy(&output.stdout);
        if let Err(error) = holds.run("ROLLBACK").await {
            println!("again, since its session ended: {error}");
            continue;
        }
        if !text.contains(" different") {
            println!("again, since nothing was compared to its end: {text}");
            continue;
        }
        let expected = "app.quiet: not compared: a transaction holds it";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains(" 0 different"), "{text}");
        assert!(longest < HELD_UP, "a write took {longest:?}");
        let took = began.elapsed();
        println!("{written} writes beside it took {longest:?} at most; all: {took:?}");
        run(cluster, "DELETE FROM app.quiet WHERE id = 3").await;
        return;
    }
    panic!("no session lasts");
}

/// Nobody asks: the primary compares by itself.
async fn the_background_finds_it_too(cluster: &Cluster, primary: NodeId, other: NodeId) {
    let began = Instant::now();
    assert_ne!(primary, other);
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
    let mut asked = Asked::new(cluster, node);
    let both = [cluster.node(primary), cluster.node(node)];
    let reading = asked.reads(&both).await;
    asked.kill();
    for (server, ids) in both.into_iter().zip(&reading) {
        gone(server, ids).await;
    }
    println!("the tool killed: {:?}", began.elapsed());
}

/// While both servers read the table, it is written to, and that does not end the reading; a change of
/// its definition does, by hand on a replica, on the primary, and in the replica's applier.
async fn nothing_waits_until_a_table_is_read(cluster: &Cluster, primary: NodeId, node: NodeId) {
    let began = Instant::now();
    let both = [cluster.node(primary), cluster.node(node)];
    let mut asked = Asked::new(cluster, primary);
    let reading = asked.reads(&both).await;
    let took = run(cluster, "INSERT INTO app.slow (id) VALUES (0)").await;
    assert!(took < HELD_UP, "a write took {took:?}");
    for (server, reading) in both.into_iter().zip(&reading) {
        let mut replica = Sql::socket(&server.socket()).await.expect("root");
        let applied = wait_for(AT_ONCE, async || {
            let row = replica
                .value("SELECT COUNT(*) FROM app.slow WHERE id = 0")
                .await;
            row.is_ok_and(|count| count == "1")
        });
        assert!(applied.await, "a write waits on node {}", server.id);
        let now = sessions(&mut replica).await;
        assert_eq!(&now, reading, "node {} reads no more", server.id);
    }
    println!("a write took {took:?}, after {:?}", began.elapsed());

    // By hand, so that only the replica's own look can see it.
    let changing = Instant::now();
    let alter = "ALTER TABLE app.slow COMMENT = 'by hand'";
    let altered = tokio::time::timeout(AT_ONCE, change(both[1], alter)).await;
    altered.expect("a change on a replica waits");
    println!("a change on a replica took {:?}", changing.elapsed());
    asked.reads(&both[..1]).await;
    let changing = Instant::now();
    let took = run(cluster, "ALTER TABLE app.slow ADD COLUMN more INT").await;
    assert!(took < AT_ONCE, "a change on the primary took {took:?}");
    let column = "SELECT COUNT(*) FROM information_schema.COLUMNS \
                  WHERE TABLE_NAME = 'slow' AND COLUMN_NAME = 'more'";
    let mut replica = Sql::socket(&both[1].socket()).await.expect("root");
    let applied = wait_for(AT_ONCE, async || {
        replica.value(column).await.is_ok_and(|count| count == "1")
    });
    assert!(applied.await, "the applier waits");
    println!(
        "a change on the primary took {took:?}, in the applier {:?}",
        changing.elapsed()
    );
    asked.kill();
    println!("writes and changes: {:?}", began.elapsed());
}

/// Writers that queue behind a comparison do not keep the primary from becoming a replica in time: its
/// server is not killed.
async fn a_switchover_does_not_wait(cluster: &Cluster, primary: NodeId, to: NodeId) -> NodeId {
    let began = Instant::now();
    let server = cluster.node(primary).mysqld_pid();
    let asked = Asked::new(cluster, primary);
    let switched = cluster
        .ask(primary, &["switchover", "--to", &to.to_string()])
        .await;
    println!("{}", switched.expect("switch over"));
    assert_eq!(
        cluster.node(primary).mysqld_pid(),
        server,
        "its server was killed"
    );
    asked.kill();
    println!("switchover: {:?}", began.elapsed());
    to
}

/// Its server goes on without it, and is adopted.
async fn a_node_that_is_killed_ends_it_when_it_returns(
    cluster: &mut Cluster,
    primary: NodeId,
    node: NodeId,
) {
    let began = Instant::now();
    let mut asked = Asked::new(cluster, primary);
    let reading = asked.reads(&[cluster.node(node)]).await.swap_remove(0);
    let server = cluster.node(node).mysqld_pid();
    cluster.node_mut(node).kill();
    let config = cluster.node(node).config();
    let text = std::fs::read_to_string(&config).expect("its configuration");
    std::fs::write(&config, text + "\n[verify]\nevery_s = 2\n").expect("write it");
    cluster.node_mut(node).start(false);
    gone(cluster.node(node), &reading).await;
    assert_eq!(cluster.node(node).mysqld_pid(), server, "not adopted");
    asked.kill();
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

/// A comparison that was asked for, by a tool of which nobody expects that it ends by itself.
struct Asked {
    command: Command,
    tool: Child,
}

impl Asked {
    fn new(cluster: &Cluster, node: NodeId) -> Self {
        let mut command = tool(cluster, node);
        let tool = command.spawn().expect("run quorate");
        Self { command, tool }
    }

    /// The sessions that read the slow table on each of these servers now, of which there is one soon. It
    /// is asked for again if it was refused: the one before it may still be under way, and a replica
    /// that was changed by hand just now is left out.
    async fn reads(&mut self, servers: &[&NodeProcess]) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        let reads = eventually(SOON, async || {
            self.again_if_ended();
            found.clear();
            for server in servers {
                let mut sql = Sql::socket(&server.socket()).await.expect("root");
                found.push(sessions(&mut sql).await);
            }
            found.iter().all(|sessions| !sessions.is_empty())
        });
        assert!(reads.await, "who reads the slow table: {found:?}");
        found
    }

    fn again_if_ended(&mut self) {
        if let Some(status) = self.tool.try_wait().expect("ask for its end") {
            println!("asked again, since the tool ended ({status})");
            self.tool = self.command.spawn().expect("run quorate");
        }
    }

    fn kill(mut self) {
        self.tool.kill().expect("kill the tool");
        self.tool.wait().expect("it ends");
    }
}

/// Whether it succeeded, and what it said, asked again until `text` is in it: a replica that was
/// changed by hand just now is left out.
async fn verify(cluster: &Cluster, node: NodeId, text: &str) -> (bool, String) {
    let mut said = (false, String::new());
    eventually(Duration::from_secs(30), async || {
        let output = tool(cluster, node).output().expect("run quorate");
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        said = (output.status.success(), format!("{words}{errors}"));
        said.1.contains(text)
    })
    .await;
    said
}

async fn sessions(sql: &mut Sql) -> Vec<String> {
    let rows = sql.rows("SHOW FULL PROCESSLIST").await;
    let rows = rows.expect("the sessions");
    let reads = |row: &&Vec<String>| {
        row[7].starts_with("SELECT /* compares") && row[7].ends_with("FROM `app`.`slow`")
    };
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

async fn status_names(cluster: &Cluster, node: NodeId, tables: &[&str]) {
    let mut last = Vec::new();
    let named = eventually(SOON, async || {
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
