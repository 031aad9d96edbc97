//! A cluster is founded on the data of a server that stood alone: every node gets them, the log goes
//! on from what that server executed, and nothing of before is ever fed again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quorate_mysqld::{default_cache, prepare_seed};
use quorate_tests::{
    Cluster, NodeProcess, Options, Signal, Sql, assert_servers_equal, mysql, wait_for,
};
use quorate_types::{GtidSet, NodeId};

const SOON: Duration = Duration::from_secs(20);

/// What the server that stands alone is filled with.
const HISTORY: &[&str] = &[
    "CREATE DATABASE app",
    "CREATE USER app@'%' IDENTIFIED BY 'app'",
    "GRANT ALL ON app.* TO app@'%'",
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
    let alone = Alone::fill(&cluster.node(first).dir.join("mysql")).await;
    let before = alone.executed.clone();
    println!("the server that stood alone has {before}");

    refused_while_it_is_not_closed(&mut cluster, alone).await;
    killed_while_it_founds(&mut cluster).await;
    cluster.start_all().await;
    assert_servers_equal(&cluster.sockets(), SOON).await;
    assert!(
        !cluster
            .node(first)
            .dir
            .join("mysql/quorate.init.sql")
            .exists()
    );
    for socket in cluster.sockets() {
        let mut sql = Sql::socket(&socket).await.expect("root");
        let executed = executed(&mut sql).await;
        assert!(executed.contains_set(&before), "{executed}");
        let rows = sql.rows("SELECT id, w FROM app.parent ORDER BY id").await;
        let expected = [["1", "one"], ["3", "three"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(rows.expect("rows"), expected);
    }

    let ports = cluster.read_write_ports();
    let mut sql = Sql::port(ports[2]).await.expect("the account that it had");
    sql.run("INSERT INTO parent (w) VALUES ('four')")
        .await
        .expect("a write");
    let primary = cluster.wait_for_primary(SOON).await;
    assert_eq!(primary, first, "it alone had the data");
    kill(&mut cluster, primary).await;
    let others = cluster.others(primary);
    let took_over = wait_for(SOON, async || {
        let Ok(mut sql) = Sql::port(cluster.node(others[0]).ports.read_write).await else {
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
    let mut sql = Sql::socket(&cluster.node(primary).socket())
        .await
        .expect("root");
    let rows = sql
        .value("SELECT GROUP_CONCAT(w ORDER BY id) FROM app.parent")
        .await;
    assert_eq!(rows.expect("rows"), "one,three,four!,five!");
    never_fed_again(
        &cluster,
        program,
        others[0],
        &before,
        executed(&mut sql).await,
    );
    let expected = [
        Cluster::PEER_LOST,
        // An empty server cannot be fed what is in no log.
        &["this server must be cloned", "waiting for a donor"],
    ]
    .concat();
    assert_eq!(cluster.unexpected_log_lines(&expected), [] as [String; 0]);
    cluster.stop().await;
}

/// Founding is refused, and leaves everything as it was, while the server runs and after a kill.
async fn refused_while_it_is_not_closed(cluster: &mut Cluster, mut alone: Alone) {
    let first = NodeId(1);
    for why in ["still uses the data folder", "was not stopped cleanly"] {
        let node = cluster.node_mut(first);
        node.start(true);
        assert_eq!(node.exited(SOON).await, Some(false), "{why}");
        let log = std::fs::read_to_string(node.log()).expect("its log");
        assert!(log.contains(why), "{why}: {log}");
        let data = node.dir.join("mysql");
        assert!(!data.join("quorate.marker").exists());
        std::fs::remove_file(node.log()).expect("begin the log anew");
        alone.end(why.starts_with("still")).await;
        if why.starts_with("still") {
            continue;
        }
        alone = Alone::start(&data).await;
        alone.end(false).await;
    }
}

/// The sidecar dies while its server runs on the data: it is founded all the same, the next time.
async fn killed_while_it_founds(cluster: &mut Cluster) {
    let node = cluster.node_mut(NodeId(1));
    node.start(true);
    let data = node.dir.join("mysql");
    let runs = wait_for(SOON, async || {
        data.join("quorate.init.sql").exists() && node.mysqld_pid().is_some()
    });
    assert!(runs.await, "no server runs on the data");
    tokio::time::sleep(Duration::from_millis(300)).await;
    node.kill();
    println!("the server {:?} is left running", node.mysqld_pid());
    assert!(!data.join("quorate.marker").exists(), "it came too late");
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

async fn kill(cluster: &mut Cluster, id: NodeId) {
    let node: &mut NodeProcess = cluster.node_mut(id);
    node.signal(Signal::KILL);
    node.signal_mysqld(Signal::KILL);
    node.kill();
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
    socket: PathBuf,
    executed: GtidSet,
}

impl Alone {
    async fn fill(data: &Path) -> Self {
        let seed = prepare_seed(&mysql().await, &default_cache()).await;
        seed.expect("a seed")
            .plant(data)
            .expect("a new data folder");
        let mut alone = Self::start(data).await;
        let mut sql = Sql::socket(&alone.socket).await.expect("root");
        for statement in HISTORY {
            sql.run(statement).await.expect(statement);
        }
        alone.executed = executed(&mut sql).await;
        alone
    }

    async fn start(data: &Path) -> Self {
        let installation = mysql().await;
        let (program, words) = installation.mysqld.split_first().expect("a program");
        let socket = data.with_file_name("alone.sock");
        let mut command = Command::new(program);
        command
            .args(words)
            .arg("--no-defaults")
            .args(&installation.options);
        command.arg("--user=root");
        let log = std::fs::File::create(data.with_file_name("alone.log")).expect("a log");
        let child = command
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg("--skip-networking")
            .args([
                "--gtid-mode=ON",
                "--enforce-gtid-consistency=ON",
                "--server-id=5",
            ])
            .args([
                "--log-bin=mysql-bin",
                "--mysqlx=OFF",
                "--secure-file-priv=NULL",
                "--innodb-buffer-pool-size=32M",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start mysqld");
        let up = wait_for(Duration::from_secs(60), async || {
            Sql::socket(&socket).await.is_ok()
        });
        assert!(up.await, "mysqld does not start");
        Self {
            child,
            socket,
            executed: GtidSet::new(),
        }
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
