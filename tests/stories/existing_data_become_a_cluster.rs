//! A source with a replica becomes a cluster, which is founded on the data of the replica: the source
//! serves until the switch, every node gets the data, the log goes on from what the replica executed, and
//! nothing of before is ever fed again. The old source follows the cluster's feed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quorate_mysqld::{default_cache, prepare_seed};
use quorate_node::config::Secrets;
use quorate_tests::{Cluster, Options, Sql, assert_servers_equal, eventually, free_ports, mysql};
use quorate_types::{GtidSet, NodeId};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(20);

/// What `app.parent` holds in the end: the trigger marks what came after it was made.
const ALL_WORDS: &str = "one,three,late!,first!,four!,five!";
/// What the source is filled with.
const HISTORY: &[&str] = &[
    "CREATE DATABASE app",
    "CREATE USER app@'%' IDENTIFIED BY 'app'",
    "GRANT ALL ON app.* TO app@'%'",
    "CREATE USER repl@'%' IDENTIFIED BY 'repl'",
    "GRANT REPLICATION SLAVE ON *.* TO repl@'%'",
    "CREATE TABLE app.parent (id INT PRIMARY KEY AUTO_INCREMENT, w VARCHAR(100))",
    "CREATE TABLE app.child (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) \
     REFERENCES app.parent (id) ON DELETE CASCADE)",
    "INSERT INTO app.parent (w) VALUES ('one'), ('two'), ('three')",
    "INSERT INTO app.child VALUES (1, 1), (2, 2), (3, 3)",
    "SET SESSION gtid_next='AUTOMATIC:before'",
    "DELETE FROM app.parent WHERE id = 2",
    "SET SESSION gtid_next='AUTOMATIC'",
    "CREATE TABLE app.large (id INT PRIMARY KEY, w LONGBLOB)",
    "INSERT INTO app.large VALUES (1, REPEAT('x', 30000000))",
    "FLUSH BINARY LOGS",
    "CREATE VIEW app.v AS SELECT id FROM app.parent",
    "CREATE TRIGGER app.t BEFORE INSERT ON app.parent FOR EACH ROW SET NEW.w = CONCAT(NEW.w, '!')",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn existing_data_become_a_cluster() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let mut cluster = Cluster::lay_out("existing-data", program, Options::default()).await;
    let first = NodeId(1);
    let data = cluster.node(first).dir.join("mysql");
    let mut source = Alone::plant(&cluster.dir.join("source"), 5).await;
    for statement in HISTORY {
        source.run(statement).await;
    }
    let mut replica = Alone::plant(&data, 6).await;
    replica.follow(source.port, "repl", "repl").await;
    replica.run("START REPLICA").await;
    replica.wait_for(source.executed().await).await;

    replica = refused_while_it_is_not_closed(&mut cluster, replica).await;
    let before = switch(&mut cluster, &source, replica).await;
    for id in cluster.others(first) {
        cluster.node_mut(id).start(false);
    }
    cluster.wait_until_whole(Duration::from_secs(90)).await;
    assert_servers_equal(&cluster.sockets(), SOON).await;
    let init = cluster.node(first).dir.join("mysql/quorate.init.sql");
    assert!(!init.exists());
    for socket in cluster.sockets() {
        let mut sql = Sql::socket(&socket).await.expect("root");
        let executed = executed(&mut sql).await;
        assert!(executed.contains_set(&before), "{executed}");
        assert_eq!(words(&mut sql).await, "one,three,late!,first!");
    }

    let primary = cluster.wait_for_primary(SOON).await;
    assert_eq!(primary, first, "it alone had the data");
    let other = cluster.others(primary)[0];
    it_fails_over(&mut cluster, primary, other).await;
    let mut sql = Sql::socket(&cluster.node(primary).socket())
        .await
        .expect("root");
    assert_eq!(words(&mut sql).await, ALL_WORDS);
    let after = executed(&mut sql).await;
    the_old_source_follows(&cluster, &mut source, other, after.clone()).await;
    never_fed_again(&cluster, program, other, &before, after);
    let expected = [
        // An empty server cannot be fed what is in no log.
        "this server must be cloned",
        "waiting for a donor",
        "'repl'@'%' has REPLICATION SLAVE",
    ];
    assert_eq!(cluster.unexpected_log_lines(&expected), [] as [String; 0]);
    cluster.stop().await;
}

/// The source, which went on meanwhile, takes no more writes, and the founder does; what the source
/// had by then.
async fn switch(cluster: &mut Cluster, source: &Alone, mut replica: Alone) -> GtidSet {
    let first = NodeId(1);
    source
        .run("INSERT INTO app.parent (w) VALUES ('late')")
        .await;
    source.run("SET GLOBAL super_read_only=ON").await;
    let begun = Instant::now();
    let before = source.executed().await;
    println!("the source has {before}");
    replica.wait_for(before.clone()).await;
    for statement in ["STOP REPLICA", "RESET REPLICA ALL"] {
        replica.run(statement).await;
    }
    replica.end(false).await;
    killed_while_it_founds(cluster).await;
    it_dies_before_the_folder_is_its_own(cluster).await;
    cluster.node_mut(first).start(false);
    serves(cluster, first).await;
    println!(
        "writes paused for {:?}, two deaths among it",
        begun.elapsed()
    );
    before
}

/// A write, then one at another node after the primary was killed, which comes back.
async fn it_fails_over(cluster: &mut Cluster, primary: NodeId, other: NodeId) {
    let ports = cluster.read_write_ports();
    let mut sql = Sql::port(ports[2]).await.expect("the account that it had");
    sql.run("INSERT INTO parent (w) VALUES ('four')")
        .await
        .expect("a write");
    cluster.kill_node(primary).await;
    let took_over = eventually(SOON, async || {
        let Ok(mut sql) = Sql::port(cluster.node(other).ports.read_write).await else {
            return false;
        };
        sql.run("INSERT IGNORE INTO parent (id, w) VALUES (1000, 'five')")
            .await
            .is_ok()
    });
    assert!(took_over.await, "nobody takes over");
    cluster.node_mut(primary).start(false);
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    assert_servers_equal(&cluster.sockets(), SOON).await;
}

async fn words(sql: &mut Sql) -> String {
    let words = sql.value("SELECT GROUP_CONCAT(w ORDER BY id) FROM app.parent");
    words.await.expect("rows")
}

/// Founding is refused, and leaves everything as it was, while the server runs and after a kill.
async fn refused_while_it_is_not_closed(cluster: &mut Cluster, mut replica: Alone) -> Alone {
    let node = cluster.node_mut(NodeId(1));
    let data = node.dir.join("mysql");
    for why in ["still uses the data folder", "was not stopped cleanly"] {
        node.start(true);
        assert_eq!(node.exited(SOON).await, Some(false), "{why}");
        let log = std::fs::read_to_string(node.log()).expect("its log");
        assert!(log.contains(why), "{why}: {log}");
        assert!(!data.join("quorate.marker").exists());
        std::fs::remove_file(node.log()).expect("begin the log anew");
        if why.starts_with("still") {
            replica.end(true).await;
        }
    }
    replica.start_again().await;
    replica.run("START REPLICA").await;
    replica
}

/// The founder alone takes writes: the others have nothing yet, and do not run.
async fn serves(cluster: &Cluster, first: NodeId) {
    let port = cluster.node(first).ports.read_write;
    let took = eventually(Duration::from_secs(60), async || {
        let Ok(mut sql) = Sql::port(port).await else {
            return false;
        };
        let insert = "INSERT INTO parent (id, w) VALUES (5, 'first') ON DUPLICATE KEY UPDATE w = w";
        sql.run(insert).await.is_ok()
    });
    assert!(took.await, "the founder takes no write");
}

/// A way back: what was the source has all that the cluster accepted.
async fn the_old_source_follows(
    cluster: &Cluster,
    source: &mut Alone,
    node: NodeId,
    after: GtidSet,
) {
    let secrets = Secrets::load(&cluster.dir.join("secrets.toml")).expect("secrets");
    let feed = cluster.node(node).ports.feed;
    source
        .follow(feed, "quorate_feed", secrets.feed.expose())
        .await;
    source.run("START REPLICA").await;
    source.wait_for(after).await;
    let mut sql = Sql::socket(&source.socket).await.expect("root");
    assert_eq!(words(&mut sql).await, ALL_WORDS);
    source.run("STOP REPLICA").await;
}

/// The sidecar dies while its server runs on the data: it is founded all the same, the next time.
async fn killed_while_it_founds(cluster: &mut Cluster) {
    let node = cluster.node_mut(NodeId(1));
    node.start(true);
    let data = node.dir.join("mysql");
    let runs = eventually(SOON, async || {
        data.join("quorate.init.sql").exists() && node.mysqld_pid().is_some()
    });
    assert!(runs.await, "no server runs on the data");
    tokio::time::sleep(Duration::from_millis(300)).await;
    node.kill();
    println!("the server {:?} is left running", node.mysqld_pid());
    assert!(!data.join("quorate.marker").exists(), "it came too late");
}

/// The log has begun with the data when the marker cannot be written. The next start with
/// `--bootstrap` refuses, for the node is in a cluster; one without goes on where this one ended.
async fn it_dies_before_the_folder_is_its_own(cluster: &mut Cluster) {
    let node = cluster.node_mut(NodeId(1));
    let marker = node.dir.join("mysql/quorate.marker");
    let obstacle = node.dir.join("mysql/quorate.marker-new");
    std::fs::create_dir(&obstacle).expect("make a folder where the marker's file is to be");
    for why in ["write the marker", "is in cluster"] {
        node.start(true);
        assert_eq!(node.exited(SOON).await, Some(false), "{why}");
        let log = std::fs::read_to_string(node.log()).expect("its log");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains(why), "{log}");
        assert!(!marker.exists(), "{log}");
    }
    std::fs::remove_dir(&obstacle).expect("take it away");
}

/// The log's own transactions are exactly those of after.
fn never_fed_again(
    cluster: &Cluster,
    program: &str,
    node: NodeId,
    before: &GtidSet,
    executed: GtidSet,
) {
    let out = cluster.dir.join("exported");
    let addr = format!("127.0.0.1:{}", cluster.node(node).ports.grpc);
    let export = |without: &str| {
        let mut command = Command::new(program);
        command.args([
            "binlog",
            "export",
            "--addr",
            &addr,
            "--without",
            without,
            "--out",
        ]);
        command.arg(&out).output().expect("run quorate")
    };
    let refused = export("");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && text.contains("no longer"),
        "{text}"
    );
    assert!(export(&before.to_string()).status.success());
    let output = Command::new(program)
        .args(["binlog", "inspect"])
        .arg(&out)
        .output();
    let text = String::from_utf8_lossy(&output.expect("run quorate").stdout).into_owned();
    println!("{text}");
    let mut fed = GtidSet::new();
    for line in text.lines().filter(|line| line.contains(" transactions: ")) {
        let set = line.split(" transactions: ").nth(1).expect("a set");
        fed.union(&set.parse().expect("a set"));
    }
    assert!(fed.intersection(before).is_empty(), "{fed}");
    assert_eq!(fed, executed.difference(before));
}

async fn executed(sql: &mut Sql) -> GtidSet {
    let set = sql.value("SELECT @@GLOBAL.gtid_executed").await;
    set.expect("its set")
        .replace('\n', "")
        .parse()
        .expect("a set")
}

/// A mysqld as a distribution runs it, with GTIDs, and no sidecar.
struct Alone {
    child: Child,
    data: PathBuf,
    socket: PathBuf,
    port: u16,
    server_id: u32,
}

impl Alone {
    /// A new server.
    async fn plant(data: &Path, server_id: u32) -> Self {
        let seed = prepare_seed(&mysql().await, &default_cache()).await;
        seed.expect("a seed")
            .plant(data)
            .expect("a new data folder");
        let port = free_ports(1)[0];
        let socket = data.with_file_name(format!("alone-{server_id}.sock"));
        let child = Self::start(data, &socket, port, server_id).await;
        Self {
            child,
            data: data.to_owned(),
            socket,
            port,
            server_id,
        }
    }

    async fn start(data: &Path, socket: &Path, port: u16, server_id: u32) -> Child {
        let installation = mysql().await;
        let (program, words) = installation.mysqld.split_first().expect("a program");
        let mut command = Command::new(program);
        command
            .args(words)
            .arg("--no-defaults")
            .args(&installation.options);
        command.arg("--user=root");
        let log = std::fs::File::create(socket.with_extension("log")).expect("a log");
        let child = command
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--port={port}"))
            .arg(format!("--server-id={server_id}"))
            .args([
                "--bind-address=127.0.0.1",
                "--gtid-mode=ON",
                "--enforce-gtid-consistency=ON",
                "--log-bin=mysql-bin",
                "--skip-replica-start=ON",
                "--mysqlx=OFF",
                "--secure-file-priv=NULL",
                "--innodb-buffer-pool-size=32M",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start mysqld");
        let up = eventually(Duration::from_secs(60), async || {
            Sql::socket(socket).await.is_ok()
        });
        assert!(up.await, "mysqld does not start");
        child
    }

    async fn start_again(&mut self) {
        self.child = Self::start(&self.data, &self.socket, self.port, self.server_id).await;
    }

    async fn run(&self, statement: &str) {
        let mut sql = Sql::socket(&self.socket).await.expect("root");
        sql.run(statement).await.expect(statement);
    }

    async fn executed(&self) -> GtidSet {
        executed(&mut Sql::socket(&self.socket).await.expect("root")).await
    }

    async fn follow(&self, port: u16, user: &str, password: &str) {
        self.run(&format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, \
             SOURCE_USER = '{user}', SOURCE_PASSWORD = '{password}', SOURCE_AUTO_POSITION = 1, \
             SOURCE_SSL = 0, GET_SOURCE_PUBLIC_KEY = 1"
        ))
        .await;
    }

    async fn wait_for(&self, set: GtidSet) {
        let has = eventually(SOON, async || self.executed().await.contains_set(&set));
        assert!(has.await, "server {} does not follow", self.server_id);
    }

    /// Ends it, by a kill or as it should be.
    async fn end(&mut self, kill: bool) {
        if kill {
            self.child.kill().expect("kill mysqld");
        } else if self.child.try_wait().expect("look at mysqld").is_none() {
            let mut sql = Sql::socket(&self.socket).await.expect("root");
            sql.run("SHUTDOWN").await.expect("shut down");
        }
        self.child.wait().expect("mysqld ends");
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
