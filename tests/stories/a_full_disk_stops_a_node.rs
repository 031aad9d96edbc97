//! The disk under a node's log is full: the node stops and says so, the others go on, and it returns
//! when there is room.

use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Signal, SmallDisk, Sql, Writer, assert_rows_survived, assert_servers_equal,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");

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
    cluster.node_mut(full).exited(Duration::from_secs(30)).await;
    let disk = SmallDisk::put_under(&cluster.node(full).dir.join("raft"), 64);
    cluster.node_mut(full).start(false);
    let bound = Duration::from_secs(60);
    cluster.wait_until_whole(bound).await;

    let writer = Writer::start(vec![port], 1);
    let mut rows = 0;
    let ended = loop {
        for _ in 0..10 {
            let row = format!("INSERT INTO app.bulk VALUES ({rows}, REPEAT(UUID(), 4000))");
            let bound = Duration::from_secs(20);
            sql.run_within(&row, bound)
                .await
                .expect("the others commit");
            rows += 1;
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
    cluster.stop().await;
}
