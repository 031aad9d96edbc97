//! Story 5: what a cut-off primary wrote to its binlog and nobody accepted is gone after it was
//! killed and has rejoined; without the cut before recovery, MySQL brings it to light.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quorate_mysqld::{FindOptions, Settings, default_cache, find_or_fetch};
use quorate_tests::{
    Cluster, Options, Signal, Sql, SqlError, assert_servers_equal, binlog_comes_to_hold,
    copy_folder, eventually, free_ports, wait_until_server_ended,
};
use tokio::task::JoinHandle;

const ROW: &str = "a row that nobody accepted";
const TABLE: &str = "a_table_that_nobody_accepted";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unacknowledged_tail_is_nowhere_after_a_rejoin() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let mut cluster = Cluster::start("tail", program, Options::default()).await;
    let old = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let mut sql = Sql::port(cluster.node(old).ports.read_write)
        .await
        .expect("a session");
    for statement in [
        "CREATE TABLE app.kept (id INT PRIMARY KEY, note VARCHAR(64))",
        "INSERT INTO app.kept VALUES (1, 'a row that was accepted')",
    ] {
        sql.run(statement).await.expect(statement);
    }

    // Two transactions that reach the primary's binlog and no other node.
    let (socket, data) = (
        cluster.node(old).socket(),
        cluster.node(old).dir.join("mysql"),
    );
    let sessions = [
        Sql::socket(&socket).await.expect("a session"),
        Sql::socket(&socket).await.expect("a session"),
    ];
    cluster.links.isolate(old, true);
    let [first, second] = sessions;
    let insert = hang(first, format!("INSERT INTO app.kept VALUES (2, '{ROW}')"));
    assert!(
        binlog_comes_to_hold(&data, ROW).await,
        "no insert in the binlog"
    );
    let create = hang(
        second,
        format!("CREATE TABLE app.{TABLE} (id INT PRIMARY KEY)"),
    );
    assert!(
        binlog_comes_to_hold(&data, TABLE).await,
        "no table in the binlog"
    );

    // The others go on without them.
    let survivor = cluster.others(old)[0];
    let mut sql = Sql::port(cluster.node(survivor).ports.read_write)
        .await
        .expect("a session elsewhere");
    sql.run("INSERT INTO app.kept VALUES (3, 'a row of the next primary')")
        .await
        .expect("a commit elsewhere");
    assert!(!insert.is_finished() && !create.is_finished(), "an answer");

    let node = cluster.node_mut(old);
    node.signal(Signal::KILL);
    node.signal_mysqld(Signal::KILL);
    node.kill();
    for hung in [insert, create] {
        let outcome = hung.await.expect("the session does not panic");
        assert!(matches!(outcome, Err(SqlError::Unknown(_))), "{outcome:?}");
    }
    let copy = cluster.dir.join("copy");
    wait_until_server_ended(&data).await;
    copy_folder(&data, &copy);
    cluster.links.heal();
    cluster.node_mut(old).start(false);
    cluster.wait_until_whole(Duration::from_secs(60)).await;

    assert_servers_equal(&cluster.sockets(), Duration::from_secs(30)).await;
    assert_only_accepted(&cluster).await;
    assert_eq!(cluster.unexpected_log_lines(&[]), [] as [String; 0]);

    // The same folder, had nobody cut it.
    let server = Uncut::start(&copy).await;
    let (rows, tables) = contents(&server.socket).await;
    assert_eq!(rows, "1,2", "recovery commits the row");
    assert_eq!(tables, format!("{TABLE},kept"), "recovery makes the table");
    drop(server);
    cluster.stop().await;
}

async fn assert_only_accepted(cluster: &Cluster) {
    for socket in cluster.sockets() {
        let (rows, tables) = contents(&socket).await;
        assert_eq!(
            (rows.as_str(), tables.as_str()),
            ("1,3", "kept"),
            "{}",
            socket.display()
        );
    }
}

fn hang(mut session: Sql, statement: String) -> JoinHandle<Result<(), SqlError>> {
    tokio::spawn(async move { session.run(&statement).await })
}

async fn contents(socket: &Path) -> (String, String) {
    let mut sql = Sql::socket(socket).await.expect("root on the socket");
    let rows = sql
        .value("SELECT GROUP_CONCAT(id ORDER BY id) FROM app.kept")
        .await;
    let tables = sql
        .value(
            "SELECT GROUP_CONCAT(table_name ORDER BY table_name) FROM information_schema.tables \
             WHERE table_schema = 'app'",
        )
        .await;
    (rows.expect("rows"), tables.expect("tables"))
}

/// A stock server on a folder as it is.
struct Uncut {
    child: Child,
    socket: PathBuf,
}

impl Uncut {
    async fn start(data: &Path) -> Self {
        let find = FindOptions {
            explicit: std::env::var_os("QUORATE_MYSQLD").map(PathBuf::from),
            cache: default_cache(),
        };
        let installation = find_or_fetch(&find, &|_| {}).await.expect("a MySQL");
        let socket = data.with_extension("sock");
        let settings = Settings::new(99, free_ports(1)[0], socket.clone());
        let log = std::fs::File::create(data.with_extension("log")).expect("make a log");
        let mut command = Command::new(installation.executable());
        command
            .args(&installation.mysqld[1..])
            .arg("--no-defaults")
            .args(&installation.options)
            .args(settings.argv(installation.version, data))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        if rustix::process::geteuid().is_root() {
            command.arg("--user=root");
        }
        let server = Self {
            child: command.spawn().expect("start mysqld"),
            socket,
        };
        let up = eventually(Duration::from_secs(60), async || {
            Sql::socket(&server.socket).await.is_ok()
        })
        .await;
        assert!(up, "mysqld did not start on {}", data.display());
        server
    }
}

impl Drop for Uncut {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
