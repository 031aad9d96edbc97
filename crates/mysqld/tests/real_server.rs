//! Stories with a real MySQL, which the first of them fetches.

mod story;

use std::time::Duration;

use quorate_mysql_wire::{
    ChecksumRequest, ConnectOptions, Connection, ReplicaConnection, ReplicaOptions,
};
use quorate_mysqld::{
    Accounts, CONTROL_USER, ControlError, Host, HostError, LocalHost, Marker, Repaired,
    ReplicationSource, Session, Signal, Stream, cut_tail, default_cache, ensure_stopped,
    fetch_debian_tool, kill_server,
};
use quorate_net::{Endpoint, Net, TokioNet};
use quorate_types::{BinlogPosition, ClusterId, Incarnation, NodeId, Secret, Uuid};
use story::{Accepted, Story, binlog_end, hangs_behind, launcher, mysql};
use tokio::time::{Instant, sleep, timeout};

#[tokio::test]
async fn tools_are_found_or_fetched() {
    let (installation, seed) = mysql().await;
    for tool in ["mysql", "mysqlbinlog", "mysqldump"] {
        let output = installation.tool(tool).arg("--version").output().unwrap();
        assert!(output.status.success(), "{tool}: {output:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    seed.plant(&folder.path().join("mysql")).unwrap();
    assert!(folder.path().join("mysql/ibdata1").is_file());
    assert!(!folder.path().join("mysql/auto.cnf").exists());
    let progress = |text: &str| eprintln!("{text}");
    let tree = fetch_debian_tool("sysbench", &default_cache(), &progress)
        .await
        .unwrap();
    let output = tree.tool("sysbench").arg("--version").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_server_whose_sidecar_is_gone_is_not_started_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("lock");
    let run = |parent: u32| {
        let mut command = std::process::Command::new(launcher());
        command
            .arg("exec-server")
            .arg(&lock)
            .arg(parent.to_string());
        command.args(["touch".as_ref(), folder.path().join("ran").as_os_str()]);
        command.status().unwrap().success()
    };
    assert!(!run(std::process::id() + 1));
    assert!(!folder.path().join("ran").exists());
    assert!(run(std::process::id()));
    assert!(folder.path().join("ran").exists());
}

#[tokio::test]
async fn a_new_server_is_a_safe_replica_that_is_adopted_and_controlled() {
    let story = Story::begin().await;
    let host = &story.host;
    host.plant().await.unwrap();
    assert!(host.data_folder_is_free().unwrap());
    let marker = Marker {
        cluster: ClusterId(1),
        node: NodeId(1),
        incarnation: Incarnation(2),
        start_counter: 1,
        last_epoch: None,
    };
    host.write_marker(&marker).unwrap();
    assert_eq!(host.read_marker().unwrap(), Some(marker));

    let started = Instant::now();
    let process = host.start(&story.settings).await.unwrap();
    let mut root = story.root(&process).await;
    eprintln!("started in {:?}", started.elapsed());
    assert!(!host.data_folder_is_free().unwrap());
    assert_eq!(root.check_settings().await.unwrap(), []);
    assert!(root.is_safe_replica().await.unwrap());
    assert!(root.gtid_executed().await.unwrap().is_empty());

    // A session of its own: what happens to ours does not reach it.
    let pid = rustix::process::Pid::from_raw(process.pid().try_into().unwrap()).unwrap();
    assert_eq!(rustix::process::getsid(Some(pid)).unwrap(), pid);
    // A server that was started without our lock is noticed by InnoDB's.
    std::fs::remove_file(host.options().data_folder.join("quorate.server-lock")).unwrap();
    assert!(!host.data_folder_is_free().unwrap());
    let second = host.start(&story.settings).await;
    assert!(matches!(second, Err(HostError::InUse)));

    // Another sidecar finds the same process, and a wrong pid file does not matter.
    std::fs::write(&host.options().pid_file, "1\n").unwrap();
    let other = LocalHost::new(host.options().clone());
    assert!(!other.claim().unwrap());
    let adopted = other.adopt().await.unwrap().expect("a server runs");
    assert_eq!(adopted.pid(), process.pid());
    other.signal(&adopted, Signal::Terminate).unwrap();
    timeout(Duration::from_secs(30), other.exited(&adopted))
        .await
        .unwrap();
    host.exited(&process).await;
    assert!(host.data_folder_is_free().unwrap());
    assert!(other.adopt().await.unwrap().is_none());
    host.wipe().await.unwrap();
    assert!(!host.data_folder_exists());
}

#[tokio::test]
async fn control_makes_its_accounts_follows_a_feed_and_switches_the_gate() {
    let story = Story::begin().await;
    let host = &story.host;
    host.plant().await.unwrap();
    let process = host.start(&story.settings).await.unwrap();
    let mut root = story.root(&process).await;
    let accounts = Accounts {
        control: Secret::new("it's \\ control".into()),
        capture: Secret::new("capture".into()),
        clone: Secret::new("clone".into()),
    };
    for _ in 0..2 {
        accounts.install(&mut root).await.unwrap();
    }
    assert!(root.gtid_executed().await.unwrap().is_empty());
    let mut control = story
        .session(CONTROL_USER, "it's \\ control")
        .await
        .unwrap();
    control.probe().await.unwrap();
    eprintln!("{:?}", control.identity().await.unwrap());

    let source = ReplicationSource {
        host: "127.0.0.1".into(),
        port: 1,
        user: "feed".into(),
        password: Secret::new("feed".into()),
    };
    for stream in [Stream::Rows, Stream::Rows, Stream::Any] {
        control.start_replication(&source, stream).await.unwrap();
    }
    let status = control.replication_status().await.unwrap();
    assert!(
        status.configured && status.applying && !status.receiving,
        "{status:?}"
    );
    control.stop_replication_and_reset().await.unwrap();
    assert!(!control.replication_status().await.unwrap().configured);

    while control.end_foreign_sessions(&[]).await.unwrap() > 0 {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(!root.probe().await.unwrap_err().session_is_usable());
    control.enable_semi_sync_source().await.unwrap();
    assert!(!control.is_safe_replica().await.unwrap());
    a_closed_gate_and_an_open_one_are_told_apart(&mut control).await;

    for (wanted, set) in [(1 << 20, 1 << 20), (u64::MAX, 2_u64 << 30)] {
        control.limit_transactions(wanted).await.unwrap();
        let limit = control.variable("max_binlog_cache_size").await.unwrap();
        assert_eq!(limit, Some(set.to_string()));
    }
    control.set_writable().await.unwrap();
    for sql in [
        "CREATE DATABASE app",
        "CREATE EVENT app.`a``b` ON SCHEDULE EVERY 1 DAY DO SELECT 1",
        "ALTER EVENT app.`a``b` DISABLE ON REPLICA",
    ] {
        let mut root = story.root(&process).await;
        root.run("prepare", sql).await.unwrap();
    }
    assert_eq!(control.enable_replica_events().await.unwrap(), 1);
    assert_eq!(control.enable_replica_events().await.unwrap(), 0);
    let definer = "SELECT DEFINER FROM information_schema.EVENTS";
    let definer = control.run("read", definer).await.unwrap().scalar();
    assert_eq!(definer.as_deref(), Some("root@localhost"));
    kill_server(host, &process).await.unwrap();
}

async fn a_closed_gate_and_an_open_one_are_told_apart(control: &mut Session) {
    let said = "the server answers";
    assert_eq!(control.find_bypass().await.expect(said), None);
    assert_eq!(control.find_bypass_by_status().await.expect(said), None);
    control.disable_semi_sync_source().await.expect("to be off");
    let open = control.find_bypass().await.expect(said);
    assert_eq!(
        open.as_deref(),
        Some("rpl_semi_sync_source_enabled is 0, not ON")
    );
    let open = control.find_bypass_by_status().await.expect(said);
    assert_eq!(open.as_deref(), Some("semi-sync is off"));
}

#[tokio::test]
async fn an_unacknowledged_insert_and_ddl_are_gone_after_kill_and_cut() {
    let story = Story::begin().await;
    let host = &story.host;
    let (process, mut root) = story
        .writable(&[
            "CREATE DATABASE app",
            "CREATE TABLE app.t (id INT PRIMARY KEY)",
            "INSERT INTO app.t VALUES (1)",
        ])
        .await;
    let accepted = root.gtid_executed().await.unwrap();
    root.enable_semi_sync_source().await.unwrap();
    // Each waits for ever; the session's task is dropped with it.
    let mut waiting = Vec::new();
    for sql in [
        "INSERT INTO app.t VALUES (2)",
        "CREATE TABLE app.phantom (id INT)",
    ] {
        let mut session = story.session("root", "").await.unwrap();
        let end = binlog_end(&mut root).await;
        waiting.push(tokio::spawn(async move {
            session.run("wait", sql).await.is_ok()
        }));
        hangs_behind(&mut root, end).await;
    }
    assert!(waiting.iter().all(|task| !task.is_finished()));
    assert!(matches!(
        root.set_read_only(1).await,
        Err(ControlError::InFlight)
    ));

    kill_server(host, &process).await.unwrap();
    for task in waiting {
        assert!(!task.await.unwrap(), "a client was told OK");
    }
    ensure_stopped(host).await.unwrap();
    let cut = |label: &str| cut_tail(host, label.into(), Accepted(accepted.clone()));
    let Repaired::MayStart(report) = cut("1").await.unwrap() else {
        panic!("clone")
    };
    assert_eq!(report.cut.expect("there is a tail").tail.len(), 2);
    assert_eq!(
        std::fs::read_dir(story.folder.path().join("cut"))
            .unwrap()
            .count(),
        1
    );
    let again = cut("2").await.unwrap();
    assert!(matches!(again, Repaired::MayStart(report) if report.cut.is_none()));

    let process = host.start(&story.settings).await.unwrap();
    let mut root = story.root(&process).await;
    assert_eq!(root.gtid_executed().await.unwrap(), accepted);
    let rows = root
        .run("count", "SELECT COUNT(*) FROM app.t")
        .await
        .unwrap();
    assert_eq!(rows.scalar().as_deref(), Some("1"));
    let tables = root.run("list", "SHOW TABLES FROM app").await.unwrap();
    assert_eq!(tables.rows.len(), 1);
    kill_server(host, &process).await.unwrap();
}

async fn waits_for_its_ack(root: &mut Session, id: &str) {
    let waits = format!(
        "SELECT COUNT(*) FROM performance_schema.processlist \
         WHERE ID = {id} AND STATE LIKE 'Waiting for semi-sync ACK%'"
    );
    let is_waiting = async {
        let count = async |root: &mut Session| root.run("look", &waits).await.expect("a count");
        while count(root).await.scalar().as_deref() != Some("1") {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), is_waiting)
        .await
        .expect("it waits for its ACK");
}

/// What the ACK rule stands on: the server believes any position, and only an ACK ends the wait.
#[tokio::test]
async fn a_kill_releases_no_commit_and_any_later_position_does() {
    let story = Story::begin().await;
    let host = &story.host;
    let (process, mut root) = story
        .writable(&[
            "CREATE DATABASE app",
            "CREATE TABLE app.t (id INT PRIMARY KEY)",
        ])
        .await;
    let executed = root.gtid_executed().await.unwrap();
    root.enable_semi_sync_source().await.unwrap();
    let mut session = story.session("root", "").await.unwrap();
    let id = session.run("ask", "SELECT CONNECTION_ID()").await.unwrap();
    let id = id.scalar().unwrap();
    let waiting = tokio::spawn(async move {
        session
            .run("wait", "INSERT INTO app.t VALUES (1)")
            .await
            .is_ok()
    });
    waits_for_its_ack(&mut root, &id).await;
    let number: u32 = id.parse().unwrap();
    root.stop_statement(number).await.unwrap();
    sleep(Duration::from_millis(1000)).await;
    waits_for_its_ack(&mut root, &id).await;
    root.run("kill", &format!("KILL {id}")).await.unwrap();
    sleep(Duration::from_millis(1000)).await;
    assert!(root.may_commit(number).await.unwrap(), "it waits on");
    let mut rows = async || {
        let rows = root.run("count", "SELECT COUNT(*) FROM app.t").await;
        rows.unwrap().scalar().unwrap()
    };
    assert_eq!(rows().await, "0", "a KILL made it visible");

    let options = ConnectOptions {
        user: "root".to_owned(),
        secure_transport: true,
        ..ConnectOptions::default()
    };
    let socket = Endpoint::Unix(story.settings.socket.clone());
    let io = TokioNet.connect(&socket).await.unwrap();
    let mut connection = Connection::connect(io, &options).await.unwrap();
    let file = connection.query("SHOW BINARY LOG STATUS").await.unwrap();
    let file = file.scalar().unwrap();
    let replica = ReplicaOptions {
        server_id: 4_000_000_003,
        server_uuid: Uuid([8; 16]),
        heartbeat_period: Duration::from_secs(1),
        checksum: ChecksumRequest::AsSource,
        semi_sync: true,
    };
    let replica = ReplicaConnection::prepare(connection, &replica)
        .await
        .unwrap();
    let (_events, mut acks) = replica.dump_gtid(&executed).await.unwrap();
    // No transaction ends there, nor will one ever.
    let position = BinlogPosition {
        file: file.into(),
        offset: 1 << 40,
    };
    acks.ack(&position).await.unwrap();
    for _ in 0..100 {
        if rows().await == "1" {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rows().await, "1", "a position was not believed");
    let _ = waiting.await;
    kill_server(host, &process).await.unwrap();
}

#[tokio::test]
async fn sysbench_logs_in_over_plain_tcp() {
    let story = Story::begin().await;
    let host = &story.host;
    let (process, mut root) = story
        .writable(&[
            "CREATE DATABASE app",
            "CREATE USER app@'%' IDENTIFIED BY 'app'",
            "GRANT ALL ON app.* TO app@'%'",
        ])
        .await;
    let progress = |text: &str| eprintln!("{text}");
    let tree = fetch_debian_tool("sysbench", &default_cache(), &progress)
        .await
        .unwrap();
    let output = tree
        .tool("sysbench")
        .args([
            "oltp_insert",
            "--mysql-host=127.0.0.1",
            "--mysql-user=app",
            "--mysql-password=app",
        ])
        .args(["--mysql-db=app", "--tables=1", "--table-size=10"])
        .arg(format!("--mysql-port={}", story.settings.port))
        .arg("prepare")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let encrypted = root
        .run("read", "SHOW GLOBAL STATUS LIKE 'Ssl_finished_accepts'")
        .await
        .unwrap();
    assert_eq!(encrypted.rows[0].text(1).as_deref(), Some("0"));
    kill_server(host, &process).await.unwrap();
}

#[tokio::test]
async fn a_newer_series_is_not_started_on_what_a_crash_left() {
    let story = Story::begin().await;
    let host = &story.host;
    let (process, _root) = story.writable(&["CREATE DATABASE app"]).await;
    kill_server(host, &process).await.unwrap();
    let data = &host.options().data_folder;
    let index = std::fs::read_to_string(data.join("binlog.index")).unwrap();
    let path = data.join(index.lines().last().expect("a binlog"));
    let whole = std::fs::read(&path).unwrap();
    let own = host.options().installation.version;

    let mut older = whole.clone();
    let text = format!("{}.{}.9", own.major - 1, own.minor);
    older[25..75].fill(0);
    older[25..25 + text.len()].copy_from_slice(text.as_bytes());
    std::fs::write(&path, &older).unwrap();
    let refused = host.start(&story.settings).await;
    match refused.map(drop) {
        Err(error @ HostError::UncleanUpgrade { .. }) => {
            let said = error.to_string();
            assert!(said.contains(&format!("data that MySQL {text}")), "{said}");
        }
        other => panic!("{other:?}"),
    }

    std::fs::write(&path, &whole).unwrap();
    let process = host.start(&story.settings).await.unwrap();
    story.root(&process).await.probe().await.unwrap();
    kill_server(host, &process).await.unwrap();
}
