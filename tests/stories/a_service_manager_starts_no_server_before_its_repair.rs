//! Service managers run the servers, and start them again as fast as they can whatever ended them:
//! none starts before its sidecar has cut what nobody accepted, and everything goes on as with servers
//! that a sidecar starts itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Signal, Sql, assert_servers_equal, binlog_comes_to_hold, eventually,
    wait_until_server_ended,
};
use quorate_types::NodeId;

const SOON: Duration = Duration::from_secs(20);
const ROW: &str = "a row that nobody accepted";

/// The managers start servers without being told; that they were told is written down. They end them
/// as a real one does.
const COMMANDS: &str = r#"
start = ["sh", "-c", "echo start >> $UNIT/commands"]
stop = ["sh", "-c", "echo stop >> $UNIT/commands; kill -TERM $(cat $UNIT/main.pid)"]
kill = ["sh", "-c", "echo kill >> $UNIT/commands; kill -KILL $(cat $UNIT/main.pid)"]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_manager_starts_no_server_before_its_repair() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let options = Options {
        mysqld_lines: COMMANDS.to_owned(),
        ..Options::default()
    };
    let mut cluster = Cluster::lay_out("service-manager", program, options).await;
    let mut units = BTreeMap::new();
    // Beside the cluster's folder, which is removed while the units still try.
    let folder = Cluster::story_folder("service-manager-units");
    for (id, node) in &mut cluster.nodes {
        let unit = Unit::start(program, &node.dir, folder.join(id.to_string()));
        let variable = ("UNIT".to_owned(), unit.dir.display().to_string());
        node.environment.push(variable);
        units.insert(*id, unit);
    }
    let refused = eventually(SOON, async || {
        units
            .values()
            .all(|unit| unit.log().contains("no node asks"))
    });
    assert!(refused.await, "a unit starts a server without a sidecar");
    cluster.start_all().await;
    cluster.make_app().await;
    for (id, unit) in &units {
        assert_eq!(unit.pid(), cluster.node(*id).mysqld_pid(), "node {id}");
    }

    let old = cluster.wait_for_primary(SOON).await;
    a_tail_is_cut_before_the_unit_gets_its_server(&mut cluster, &units, old).await;

    // A replica's sidecar dies: the server is adopted. Then only a primary's: its server is killed.
    let primary = cluster.wait_for_primary(SOON).await;
    let replica = cluster.others(primary)[0];
    let server = cluster.node(replica).mysqld_pid();
    cluster.node_mut(replica).kill();
    cluster.node_mut(replica).start(false);
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    assert_eq!(cluster.node(replica).mysqld_pid(), server, "adopted");
    let primary = cluster.wait_for_primary(SOON).await;
    let server = cluster.node(primary).mysqld_pid();
    cluster.node_mut(primary).kill();
    cluster.node_mut(primary).start(false);
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    assert_ne!(cluster.node(primary).mysqld_pid(), server, "killed");
    assert!(units[&primary].commands().contains("kill"), "by command");
    assert_servers_equal(&cluster.sockets(), SOON).await;

    let expected = [
        "leadership could not be given away",
        "the mysqld that runs is no replica that takes no writes",
        "cut what was never acknowledged off the binlog",
        // The server is gone when its kill command is at it.
        "a command to end mysqld",
    ];
    assert_eq!(cluster.unexpected_log_lines(&expected), [] as [String; 0]);
    let replica = cluster.others(cluster.wait_for_primary(SOON).await)[0];
    a_replica_ends_in_good_order(&mut cluster, &units[&replica], replica).await;
    cluster.stop().await;
    drop(units);
    std::fs::remove_dir_all(folder).expect("remove the units' folder");
}

async fn a_tail_is_cut_before_the_unit_gets_its_server(
    cluster: &mut Cluster,
    units: &BTreeMap<NodeId, Unit>,
    old: NodeId,
) {
    let mut sql = Sql::port(cluster.node(old).ports.read_write)
        .await
        .expect("a session");
    for statement in [
        "CREATE TABLE app.kept (id INT PRIMARY KEY, note VARCHAR(64))",
        "INSERT INTO app.kept VALUES (1, 'a row that was accepted')",
    ] {
        sql.run(statement).await.expect(statement);
    }
    let data = cluster.node(old).dir.join("mysql");
    let mut waiting = Sql::socket(&cluster.node(old).socket())
        .await
        .expect("a session");
    cluster.links.isolate(old, true);
    let insert = format!("INSERT INTO app.kept VALUES (2, '{ROW}')");
    let insert = tokio::spawn(async move { waiting.run(&insert).await });
    assert!(
        binlog_comes_to_hold(&data, ROW).await,
        "no insert in the binlog"
    );

    let node = cluster.node_mut(old);
    node.signal(Signal::KILL);
    node.signal_mysqld(Signal::KILL);
    node.kill();
    wait_until_server_ended(&data).await;
    assert!(insert.await.expect("no panic").is_err(), "an answer");
    // A server's first act is a new binlog.
    let files = binlogs(&data);
    let unit = &units[&old];
    let before = unit.attempts();
    let tried = eventually(SOON, async || unit.attempts() >= before + 10);
    assert!(tried.await, "the unit does not try");
    assert_eq!(
        binlogs(&data),
        files,
        "a server ran on a folder that was not repaired"
    );

    cluster
        .wait_for_primary_among(&cluster.others(old), SOON)
        .await;
    cluster.links.heal();
    cluster.node_mut(old).start(false);
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    assert_servers_equal(&cluster.sockets(), SOON).await;
    let mut sql = Sql::socket(&cluster.node(old).socket())
        .await
        .expect("root");
    let rows = sql.value("SELECT GROUP_CONCAT(id) FROM app.kept").await;
    assert_eq!(rows.expect("rows"), "1", "the tail is nowhere");
    assert_eq!(unit.pid(), cluster.node(old).mysqld_pid());
}

fn binlogs(data: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(data).expect("list the data folder");
    let names = files.map(|file| file.expect("an entry").file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with("binlog."))
        .collect()
}

/// SIGTERM to a replica's sidecar: its server is stopped by the manager's command, and stays so.
async fn a_replica_ends_in_good_order(cluster: &mut Cluster, unit: &Unit, replica: NodeId) {
    let node = cluster.node_mut(replica);
    node.signal(Signal::TERM);
    assert_eq!(node.exited(SOON).await, Some(true));
    wait_until_server_ended(&node.dir.join("mysql")).await;
    let commands = unit.commands();
    assert!(commands.ends_with("stop\n"), "{commands}");
    let starts = commands.matches("start").count();
    println!("{starts} starts ordered, {} tried", unit.attempts());
    let before = unit.attempts();
    let tried = eventually(SOON, async || unit.attempts() >= before + 10);
    assert!(tried.await, "the unit does not try");
    assert_eq!(cluster.node(replica).mysqld_pid(), None);
}

/// A unit that is started again whatever ended it, without a pause to speak of.
struct Unit {
    dir: PathBuf,
    ends: Arc<AtomicBool>,
    child: Arc<Mutex<Option<Child>>>,
    thread: Option<JoinHandle<()>>,
}

impl Unit {
    fn start(program: &str, node: &Path, dir: PathBuf) -> Self {
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("make the unit's folder");
        let (ends, child) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (config, program) = (node.join("node.toml"), program.to_owned());
        let thread = std::thread::Builder::new().spawn({
            let (dir, ends, child) = (dir.clone(), ends.clone(), Arc::clone(&child));
            move || {
                while !ends.load(Ordering::Relaxed) {
                    run_once(&program, &config, &dir, &child);
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        });
        Self {
            dir,
            ends,
            child,
            thread: Some(thread.expect("start a thread")),
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// What its commands were run for.
    fn commands(&self) -> String {
        std::fs::read_to_string(self.dir.join("commands")).unwrap_or_default()
    }

    fn attempts(&self) -> usize {
        self.log().matches("no node asks").count()
    }

    fn pid(&self) -> Option<u32> {
        let child = self.child.lock().expect("no panic");
        child.as_ref().map(Child::id)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(child) = &mut *self.child.lock().expect("no panic") {
            let _ = child.kill();
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run_once(program: &str, config: &Path, dir: &Path, child: &Mutex<Option<Child>>) {
    let mut log = OpenOptions::new();
    let log = log.create(true).append(true).open(dir.join("log"));
    let log: File = log.expect("open the unit's log");
    let started = Command::new(program)
        .args(["mysqld", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("run the program under test");
    std::fs::write(dir.join("main.pid"), started.id().to_string()).expect("write main.pid");
    *child.lock().expect("no panic") = Some(started);
    loop {
        let mut child = child.lock().expect("no panic");
        let running = child.as_mut().expect("it was put there");
        if running.try_wait().expect("wait for a child").is_some() {
            *child = None;
            return;
        }
        drop(child);
        std::thread::sleep(Duration::from_millis(5));
    }
}
