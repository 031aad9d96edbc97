//! A stock mysqld as a replica, and `mysqlbinlog`, read the feed of what capture took from another
//! stock mysqld: whatever a server writes gets through both ends as it is.
#![expect(unreachable_pub, reason = "the modules of a test are its own")]

mod log;
mod server;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use log::Log;
use quorate_mysql_wire::{ChecksumRequest, Connection, ReplicaConnection, ReplicaOptions};
use quorate_mysqld::{FindOptions, default_cache, find_or_fetch, machine_lock, prepare_seed};
use quorate_net::{Endpoint, Net, TokioNet};
use quorate_replication::{
    AckDelay, Capture, CaptureMetrics, CaptureOptions, CommittedLog, Feed, FeedMetrics,
    FeedOptions, START_FILE, stable_identity,
};
use quorate_types::{ClusterId, Epoch, GtidSet, LeaderId, LogId, LogIndex, NodeId, Secret, Term};
use server::Server;

const SOURCE: &[&str] = &["--plugin-load-add=semisync_source.so"];
const REPLICA: &[&str] = &["--super-read-only=ON", "--replica-parallel-workers=4"];

/// Statements that make every kind of transaction that a source writes.
const STORY: &[&str] = &[
    "CREATE DATABASE app",
    "CREATE TABLE app.t (id INT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT)",
    "INSERT INTO app.t (v) VALUES ('one'), ('two')",
    "UPDATE app.t SET v = CONCAT(v, v)",
    "CREATE TABLE app.copy AS SELECT * FROM app.t",
    "XA START 'x'",
    "INSERT INTO app.t (v) VALUES ('in xa')",
    "XA END 'x'",
    "XA PREPARE 'x'",
    "XA COMMIT 'x'",
    "FLUSH BINARY LOGS",
    "SET SESSION binlog_transaction_compression = ON",
    "INSERT INTO app.t (v) VALUES (REPEAT('compressed', 1000))",
    "SET SESSION binlog_transaction_compression = OFF",
    "ANALYZE TABLE app.t",
    // An event of more than a packet; one of more than a chunk; many of a few.
    "INSERT INTO app.t (v) VALUES (REPEAT(UUID(), 600000))",
    "INSERT INTO app.t (v) VALUES (REPEAT(UUID(), 60000))",
    "INSERT INTO app.t (v) SELECT REPEAT(v, 3000) FROM app.copy, (SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3) AS x",
    "CREATE USER somebody IDENTIFIED BY 'word'",
    "DELETE FROM app.t WHERE id = 1",
];

fn epoch(term: u64) -> Epoch {
    Epoch(LogId {
        leader: LeaderId {
            term: Term(term),
            node: NodeId(1),
        },
        index: LogIndex(term * 10),
    })
}

async fn run(connection: &mut Connection, sql: &str) -> Result<String> {
    let result = connection
        .query(sql)
        .await
        .with_context(|| sql.to_owned())?;
    Ok(result.scalar().unwrap_or_default())
}

async fn attach(source: &Server, log: &Log, epoch: Epoch) -> Result<Capture> {
    let options = ReplicaOptions {
        server_id: 4_000_000_001,
        server_uuid: "30b06607-e52b-81f1-b1db-02fc00000001".parse()?,
        heartbeat_period: Duration::from_secs(1),
        checksum: ChecksumRequest::AsSource,
        semi_sync: true,
    };
    let connection = ReplicaConnection::prepare(source.connect().await, &options).await?;
    let mut capture = Capture::start(
        connection,
        epoch,
        &log.accepted(),
        log.clone(),
        CaptureOptions::default(),
        AckDelay::default(),
        Arc::new(CaptureMetrics::default()),
    )
    .await?;
    ensure!(capture.attached().await, "capture is not attached");
    capture.release();
    Ok(capture)
}

/// Serves the log; gives the port.
async fn serve(log: &Log, version: &str) -> Result<String> {
    let (server_uuid, server_id) = stable_identity(ClusterId(7));
    let options = FeedOptions {
        server_version: version.to_owned(),
        server_uuid,
        server_id,
        tls: None,
        accounts: Arc::new(|user| (user == "repl").then(|| Secret::new("secret".to_owned()))),
        unix_seconds: Arc::new(|| 1_795_210_922),
        inert: Arc::new(GtidSet::new),
        parallel_max: 4,
        seed: 1,
    };
    let at = Endpoint::Tcp("127.0.0.1:0".to_owned());
    let listener = TokioNet.listen(&at).await?;
    let local = listener.local.to_string();
    let feed = Feed::new(log.clone(), options, Arc::new(FeedMetrics::default()));
    tokio::spawn(feed.run(listener));
    let (_, port) = local.rsplit_once(':').context("a port")?;
    Ok(port.to_owned())
}

async fn wait_for_set(replica: &Server, wanted: &GtidSet) -> Result<()> {
    let mut sql = replica.connect().await;
    for _ in 0..600 {
        let executed: GtidSet = run(&mut sql, "SELECT @@GLOBAL.gtid_executed")
            .await?
            .parse()?;
        if executed.contains_set(wanted) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = sql.query("SHOW REPLICA STATUS").await?;
    anyhow::bail!(
        "the replica does not follow: {:?} {:?}\n{}",
        status.named("Last_IO_Error"),
        status.named("Last_SQL_Error"),
        replica.log()
    )
}

async fn tables(server: &Server) -> Result<Vec<String>> {
    let mut sql = server.connect().await;
    let mut sums = Vec::new();
    for table in ["app.t", "app.copy"] {
        let result = sql.query(&format!("CHECKSUM TABLE {table}")).await?;
        sums.push(format!("{:?}", result.rows));
    }
    Ok(sums)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_and_mysqlbinlog_read_what_capture_took() -> Result<()> {
    let _machine = machine_lock().await?;
    let find = FindOptions {
        explicit: None,
        cache: default_cache(),
    };
    let installation = find_or_fetch(&find, &|text| println!("{text}")).await?;
    let seed = prepare_seed(&installation, &find.cache).await?;
    let (source, replica) = tokio::join!(
        Server::start(&installation, &seed, 1, SOURCE),
        Server::start(&installation, &seed, 2, REPLICA),
    );
    let log = Log::new();
    let mut sql = source.connect().await;
    let version = run(&mut sql, "SELECT VERSION()").await?;
    for setting in [
        "timeout = 1000000000000",
        "wait_no_replica = ON",
        "enabled = ON",
    ] {
        run(
            &mut sql,
            &format!("SET GLOBAL rpl_semi_sync_source_{setting}"),
        )
        .await?;
    }
    let port = serve(&log, &version).await?;

    // The replica is there before there is anything.
    let mut replica_sql = replica.connect().await;
    run(
        &mut replica_sql,
        &format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, \
             SOURCE_USER = 'repl', SOURCE_PASSWORD = 'secret', SOURCE_AUTO_POSITION = 1, \
             SOURCE_SSL = 0, SOURCE_CONNECT_RETRY = 1, SOURCE_HEARTBEAT_PERIOD = 0.1"
        ),
    )
    .await?;
    run(&mut replica_sql, "START REPLICA").await?;

    for term in 1..=2 {
        let capture = attach(&source, &log, epoch(term)).await?;
        if term == 2 {
            run(&mut sql, "DROP DATABASE app").await?;
            run(&mut sql, "DROP USER somebody").await?;
        }
        for statement in STORY {
            run(&mut sql, statement).await?;
        }
        // Idle for some heartbeats, in the middle of a file.
        wait_for_set(&replica, &log.accepted()).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        run(&mut sql, "INSERT INTO app.t (v) VALUES ('after')").await?;
        wait_for_set(&replica, &log.accepted()).await?;
        assert_eq!(tables(&source).await?, tables(&replica).await?);
        assert_eq!(*capture.ended().borrow(), None);
        drop(capture);
        // The next epoch's capture would not get what waits for this one's ACK, so nothing does.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(log.parts() > 40, "nothing was fragmented");
    let executed: GtidSet = run(&mut sql, "SELECT @@GLOBAL.gtid_executed")
        .await?
        .parse()?;
    assert_eq!(executed, *log.accepted());
    let status = replica_sql.query("SHOW REPLICA STATUS").await?;
    assert_eq!(status.named("Replica_IO_Running").as_deref(), Some("Yes"));
    assert_eq!(status.named("Last_IO_Error").as_deref(), Some(""));
    println!("{:?}", status.named("Source_Log_File"));

    read_with_mysqlbinlog(&installation, &port, &log, &source)?;
    Ok(())
}

/// Every transaction once and in order, and the checksums verified.
fn read_with_mysqlbinlog(
    installation: &quorate_mysqld::Installation,
    port: &str,
    log: &Log,
    server: &Server,
) -> Result<()> {
    let output = installation
        .tool("mysqlbinlog")
        .arg("--no-defaults")
        .args([
            "--read-from-remote-source=BINLOG-DUMP-GTIDS",
            "--host=127.0.0.1",
        ])
        .args([
            &format!("--port={port}"),
            "--user=repl",
            "--password=secret",
        ])
        .args(["--verify-binlog-checksum", "--to-last-log", "-vv"])
        .arg("--base64-output=DECODE-ROWS")
        .arg(START_FILE)
        .current_dir(server.folder())
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "mysqlbinlog failed: {error}");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut found = GtidSet::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("SET @@SESSION.GTID_NEXT= '") else {
            continue;
        };
        let Some((gtid, _)) = rest.split_once('\'') else {
            continue;
        };
        if gtid != "AUTOMATIC" {
            assert!(found.insert(gtid.parse()?), "{gtid} came twice");
        }
    }
    assert_eq!(found, *log.accepted(), "{error}");
    assert_eq!(text.matches("### INSERT INTO `app`.`copy`").count(), 4);
    Ok(())
}
