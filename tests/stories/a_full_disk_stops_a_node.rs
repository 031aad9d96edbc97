//! The disk under a node's log is full: the node stops and says so, the others go on, and it returns
//! when there is room.

use std::process::Command;
use std::time::Duration;

use quorate_tests::{
    Cluster, NodeProcess, Options, Signal, SmallDisk, Sql, SqlError, Writer, assert_rows_survived,
    assert_servers_equal, wait_for,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");

const DISK_MIB: u32 = 64;

/// What this story makes the sidecars say.
const EXPECTED: &[&str] = &[
    "the log cannot be written; the node must stop",
    "Raft did not stop cleanly",
    "openraft::",
    "sled::",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_a_node_and_it_returns_when_there_is_room() {
    let mut cluster = Cluster::start("full-disk", PROGRAM, Options::default()).await;
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let port = cluster.node(primary).ports.read_write;
    let mut sql = Sql::port(port).await.expect("a session");
    for table in [
        Writer::TABLE,
        "CREATE TABLE app.bulk (id INT PRIMARY KEY, body MEDIUMTEXT)",
    ] {
        sql.run(table).await.expect(table);
    }
    let full = cluster.others(primary)[0];
    cluster.node(full).signal(Signal::TERM);
    let ended = cluster.node_mut(full).exited(Duration::from_secs(90)).await;
    assert_eq!(ended, Some(true), "it ends in good order");
    let disk = SmallDisk::put_under(&cluster.node(full).dir.join("raft"), DISK_MIB);
    cluster.node_mut(full).start(false);
    let bound = Duration::from_secs(60);
    cluster.wait_until_whole(bound).await;
    little_room_is_said(cluster.node(full)).await;

    let writer = Writer::start(vec![port], 1);
    let (mut rows, mut ended_sessions) = (0, 0);
    let ended = loop {
        for _ in 0..10 {
            let row = format!("INSERT IGNORE INTO app.bulk VALUES ({rows}, REPEAT(UUID(), 4000))");
            match sql.run_within(&row, Duration::from_secs(20)).await {
                Ok(()) => rows += 1,
                // A lease that ended for a moment costs a session.
                Err(SqlError::Unknown(why)) => {
                    ended_sessions += 1;
                    assert!(ended_sessions < 5, "the others commit: {why}");
                    sql = Sql::port(port).await.expect("another session");
                }
                Err(error) => panic!("the others commit: {error}"),
            }
        }
        let ended = cluster
            .node_mut(full)
            .exited(Duration::from_millis(1))
            .await;
        if ended.is_some() {
            break ended;
        }
        assert!(rows < 4000, "the disk is never full");
    };
    println!("the node stopped after {rows} rows of 144 KB");
    assert_eq!(ended, Some(false), "it says that it failed");
    let log = std::fs::read_to_string(cluster.node(full).log()).expect("read the log");
    assert!(log.contains("is full: make room, then start the node again"));

    disk.grow(1024);
    cluster.node_mut(full).start(false);
    cluster.wait_until_whole(2 * bound).await;
    let outcomes = writer.finish().await;
    assert_servers_equal(&cluster.sockets(), bound).await;
    assert_rows_survived(&cluster.sockets(), &outcomes, &outcomes.acknowledged).await;
    assert_eq!(cluster.unexpected_log_lines(EXPECTED), [] as [String; 0]);
    cluster.end_nodes().await;
    // What something is mounted in cannot be removed.
    drop(disk);
    cluster.stop().await;
}

/// Before it is full: by a metric, and by a check of the node.
async fn little_room_is_said(node: &NodeProcess) {
    let small = 1.0..f64::from(DISK_MIB << 20);
    let measured = wait_for(Duration::from_secs(10), async || {
        let free = node.metric("quorate_log_free_bytes").await;
        free.is_some_and(|free| small.contains(&free))
    });
    assert!(measured.await, "the metric tells the room of that disk");
    let output = Command::new(PROGRAM)
        .args(["check", "--config"])
        .arg(node.config())
        .output()
        .expect("run the check");
    let said = String::from_utf8_lossy(&output.stdout);
    let note = said
        .lines()
        .find(|line| line.contains("the log's files may take"));
    println!("{note:?}");
    assert!(
        output.status.success() && note.is_some_and(|note| note.contains(" MiB")),
        "{said}"
    );
}
