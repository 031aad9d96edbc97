//! `mysqlbinlog` and python-mysql-replication follow the feed of the primary, lose it when that
//! node is killed, go on by GTID at another node's, and have every row event once and in order: the
//! same as in the binlogs of the two primaries.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use quorate_mysqld::Installation;
use quorate_node::config::Secrets;
use quorate_tests::{
    Cluster, NodeProcess, Options, Outcomes, Signal, Sql, Writer, assert_servers_equal, mysql,
    python_mysql_replication,
};
use quorate_types::{Gtid, GtidSet, NodeId};
use tokio::process::{Child, Command};
use tokio::sync::watch;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const FOLLOW: &str = include_str!("feed_consumers/follow.py");
/// The name under which a feed has everything from the beginning.
const FIRST_FILE: &str = "quorate.000000";
/// The last row of the story.
const END: u64 = u64::MAX / 2;

/// A transaction as a consumer saw it: the kind and the row's id of each row event of `app.written`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    gtid: Gtid,
    rows: Vec<(String, u64)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_consumers_see_what_the_primaries_have_in_their_binlogs() {
    let python = python_mysql_replication().await;
    let installation = mysql().await;
    let mut cluster = Cluster::start("feed_consumers", PROGRAM, Options::default()).await;
    let primary = cluster.wait_for_primary(Duration::from_secs(5)).await;
    let others = cluster.others(primary);
    let password = Secrets::load(&cluster.dir.join("secrets.toml")).expect("read the secrets");
    let password = password.feed.expose().to_owned();

    let mut sql = Sql::port(cluster.node(primary).ports.read_write)
        .await
        .expect("a session");
    sql.run(Writer::TABLE).await.expect("make the table");
    let log = cluster.dir.join("mysqlbinlog-1.txt");
    let mysqlbinlog = feed_with_mysqlbinlog(
        &installation,
        cluster.node(primary),
        &password,
        &[
            "--stop-never".to_owned(),
            "--connection-server-id=900002".to_owned(),
        ],
        &log,
    );
    let feeds = [primary, others[0], others[1]].map(|id| cluster.node(id).ports.feed);
    let mut follow = follow_with_python(&python, &cluster.dir, &feeds, &password);
    let outcomes = write_across_a_failover(&mut cluster, primary).await;

    let new = cluster.wait_for_primary(Duration::from_secs(5)).await;
    let replica = *others.iter().find(|id| **id != new).expect("another one");
    let own = own_binlog(&installation, cluster.node(new)).await;
    let of_old = own_binlog(&installation, cluster.node(primary)).await;
    assert_same("the old primary's binlog", &of_old, &own);
    let from_mysqlbinlog = the_rest_of_mysqlbinlog(
        &installation,
        mysqlbinlog,
        &log,
        cluster.node(replica),
        &password,
    )
    .await;
    let ended = tokio::time::timeout(Duration::from_secs(120), follow.wait()).await;
    let error = read(&cluster.dir.join("follow.err"));
    let status = ended.unwrap_or_else(|_| panic!("python does not see the end: {error}"));
    assert!(status.expect("wait for a child").success(), "{error}");
    let from_python = read_json(&cluster.dir.join("follow.json"));

    assert_same("mysqlbinlog", &from_mysqlbinlog, &own);
    assert_same("python-mysql-replication", &from_python, &own);
    assert_acknowledged_are_there(&outcomes, &own);
    println!(
        "{} transactions with {} row events; {} rows acknowledged, {} unknown\n{error}",
        own.len(),
        own.iter().map(|seen| seen.rows.len()).sum::<usize>(),
        outcomes.acknowledged.len(),
        outcomes.unknown.len(),
    );
    assert!(
        error.contains("lost the feed"),
        "python never lost the feed"
    );
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(30)).await;
    cluster.stop().await;
}

/// Writes before, during and after a kill of the primary, then the last row; returns what clients
/// were told, when the cluster is whole again.
async fn write_across_a_failover(cluster: &mut Cluster, primary: NodeId) -> Outcomes {
    let others = cluster.others(primary);
    let ports: Vec<u16> = cluster
        .nodes
        .values()
        .map(|node| node.ports.read_write)
        .collect();
    let writer = Writer::start(ports, 4);
    let (stop, stopped) = watch::channel(false);
    let changer = tokio::spawn(change_rows(
        cluster.node(others[0]).ports.read_write,
        stopped,
    ));
    tokio::time::sleep(Duration::from_secs(4)).await;

    cluster.node(primary).signal_mysqld(Signal::KILL);
    cluster.node_mut(primary).kill();
    let before = writer.so_far().acknowledged.len();
    writer
        .wait_for_more_than(before + 200, Duration::from_secs(20))
        .await;
    cluster.node_mut(primary).start(false);
    let outcomes = writer.finish().await;
    stop.send_replace(true);
    changer.await.expect("the changer does not panic");
    let mut sql = Sql::port(cluster.node(others[0]).ports.read_write)
        .await
        .expect("a session");
    let end = format!("INSERT INTO app.written VALUES ({END}, 'end')");
    sql.run(&end).await.expect("write the last row");
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    outcomes
}

fn assert_acknowledged_are_there(outcomes: &Outcomes, own: &[Seen]) {
    let inserted = own.iter().flat_map(|seen| &seen.rows);
    let inserted: Vec<u64> = inserted
        .filter(|(kind, _)| kind == "INSERT")
        .map(|(_, id)| *id)
        .collect();
    for id in &outcomes.acknowledged {
        assert!(inserted.contains(id), "acknowledged row {id} is not there");
    }
}

fn assert_same(consumer: &str, found: &[Seen], wanted: &[Seen]) {
    for (at, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert_eq!(found, wanted, "{consumer}, transaction {at}");
    }
    assert_eq!(
        found.len(),
        wanted.len(),
        "{consumer} ends at {:?}, the server at {:?}",
        found.last(),
        wanted.last()
    );
}

/// Transactions of several statements, which update and delete too.
async fn change_rows(port: u16, stopped: watch::Receiver<bool>) {
    // Far from the ids of the writers.
    let mut ids = (1u64 << 40..).step_by(10);
    while !*stopped.borrow() {
        let Ok(mut sql) = Sql::port(port).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let id = ids.next().expect("ids without end");
        let (last, range) = (id + 1, format!("id BETWEEN {id} AND {}", id + 5));
        for statement in [
            "BEGIN".to_owned(),
            format!("INSERT INTO app.written VALUES ({id}, 'a'), ({last}, 'b')"),
            format!("UPDATE app.written SET note = 'c' WHERE {range}"),
            format!("DELETE FROM app.written WHERE id = {id}"),
            "COMMIT".to_owned(),
        ] {
            let done = sql.run_within(&statement, Duration::from_secs(20)).await;
            if done.is_err() {
                break;
            }
        }
    }
}

fn follow_with_python(python: &Path, dir: &Path, feeds: &[u16], password: &str) -> Child {
    let script = dir.join("follow.py");
    std::fs::write(&script, FOLLOW).expect("write the script");
    let errors = std::fs::File::create(dir.join("follow.err")).expect("make a log");
    Command::new(python)
        .arg(&script)
        .arg(dir.join("follow.json"))
        .args(["written".to_owned(), END.to_string()])
        .args(feeds.iter().map(u16::to_string))
        .env("FEED_PASSWORD", password)
        .stdin(Stdio::null())
        .stderr(errors)
        .kill_on_drop(true)
        .spawn()
        .expect("start python")
}

/// Reads a feed from the beginning into `log`.
fn feed_with_mysqlbinlog(
    installation: &Installation,
    node: &NodeProcess,
    password: &str,
    more: &[String],
    log: &Path,
) -> Child {
    let mut options = vec![
        "--host=127.0.0.1".to_owned(),
        format!("--port={}", node.ports.feed),
        "--user=quorate_feed".to_owned(),
        format!("--password={password}"),
    ];
    options.extend_from_slice(more);
    mysqlbinlog(installation, &options, FIRST_FILE, log)
}

fn mysqlbinlog(installation: &Installation, options: &[String], file: &str, log: &Path) -> Child {
    let output = std::fs::File::create(log).expect("make a log");
    let errors = std::fs::File::create(log.with_extension("err")).expect("make a log");
    let mut command = installation.tool("mysqlbinlog");
    command
        .arg("--no-defaults")
        .arg("--read-from-remote-source=BINLOG-DUMP-GTIDS")
        .args(["--verify-binlog-checksum", "-v"])
        .arg("--base64-output=DECODE-ROWS")
        .args(options)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors);
    Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .expect("start mysqlbinlog")
}

/// What the first run saw whole before its feed was killed, and what a second one at another node
/// has beyond that.
async fn the_rest_of_mysqlbinlog(
    installation: &Installation,
    mut first: Child,
    log: &Path,
    node: &NodeProcess,
    password: &str,
) -> Vec<Seen> {
    let ended = tokio::time::timeout(Duration::from_secs(60), first.wait()).await;
    let status = ended.expect("a lost feed ends mysqlbinlog");
    let error = read(&log.with_extension("err"));
    // It gives up with an error; at the end of a feed it would have gone on.
    assert!(!status.expect("wait for a child").success(), "{error}");
    let mut seen = read_text(log);
    assert!(seen.len() > 10, "mysqlbinlog had not followed: {error}");
    let mut known = GtidSet::new();
    for one in &seen {
        assert!(known.insert(one.gtid), "{} came twice", one.gtid);
    }
    let log = log.with_file_name("mysqlbinlog-2.txt");
    let more = [
        "--to-last-log".to_owned(),
        format!("--exclude-gtids={known}"),
    ];
    let second = feed_with_mysqlbinlog(installation, node, password, &more, &log);
    whole(second, &log).await;
    seen.extend(read_text(&log));
    seen
}

/// What the server has in its own binlog.
async fn own_binlog(installation: &Installation, node: &NodeProcess) -> Vec<Seen> {
    let mut sql = Sql::socket(&node.socket())
        .await
        .expect("root on the socket");
    let files = sql.rows("SHOW BINARY LOGS").await.expect("list binlogs");
    let log = node.dir.join("own.txt");
    let options = [
        "--protocol=socket".to_owned(),
        format!("--socket={}", node.socket().display()),
        "--user=root".to_owned(),
        "--to-last-log".to_owned(),
    ];
    let child = mysqlbinlog(installation, &options, &files[0][0], &log);
    whole(child, &log).await;
    read_text(&log)
}

async fn whole(mut child: Child, log: &Path) {
    let ended = tokio::time::timeout(Duration::from_secs(240), child.wait()).await;
    let status = ended.expect("mysqlbinlog comes to an end");
    let error = read(&log.with_extension("err"));
    assert!(status.expect("wait for a child").success(), "{error}");
}

fn read(path: &Path) -> String {
    let bytes = std::fs::read(path).expect("read what a consumer wrote");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whole transactions of `mysqlbinlog`'s text. One that the text ends in counts only if its COMMIT
/// is there.
fn read_text(path: &Path) -> Vec<Seen> {
    let mut all = Vec::new();
    let mut current: Option<Seen> = None;
    let mut rows_follow = false;
    let mut kind: Option<&str> = None;
    let text = read(path);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("SET @@SESSION.GTID_NEXT= '") {
            let (gtid, _) = rest.split_once('\'').expect("a closing quote");
            let Ok(gtid) = gtid.parse() else {
                continue; // AUTOMATIC
            };
            // A statement without BEGIN has no COMMIT: it is whole when the next one comes.
            let before = current.replace(Seen {
                gtid,
                rows: Vec::new(),
            });
            all.extend(before.filter(|_| !rows_follow));
            rows_follow = false;
        } else if line == "BEGIN" {
            rows_follow = true;
        } else if line.starts_with("COMMIT") {
            all.extend(current.take());
            rows_follow = false;
        } else if let Some(rest) = line.strip_prefix("### ") {
            if rest.ends_with("`app`.`written`") {
                kind = rest.split(' ').next();
            } else if let Some(value) = rest.strip_prefix("  @1=")
                && let Some(kind) = kind.take()
            {
                // Of an update the row before; the one after has no header of its own.
                let id = value.split(' ').next().and_then(|id| id.parse().ok());
                let seen = current.as_mut().expect("a row event within a transaction");
                seen.rows.push((kind.to_owned(), id.expect("a row's id")));
            }
        }
    }
    all
}

fn read_json(path: &Path) -> Vec<Seen> {
    let transaction = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let row = |row: &serde_json::Value| {
            let kind = row[0].as_str().expect("a kind").to_owned();
            (kind, row[1].as_u64().expect("a row's id"))
        };
        Seen {
            gtid: value["gtid"]
                .as_str()
                .and_then(|text| text.parse().ok())
                .expect("a GTID"),
            rows: value["rows"]
                .as_array()
                .expect("rows")
                .iter()
                .map(row)
                .collect(),
        }
    };
    read(path).lines().map(transaction).collect()
}
