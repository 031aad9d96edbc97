//! With no follower in reach, clients on the primary's own socket commit 256 MiB: capture stops
//! reading when it holds enough, and the sidecar's memory stays within bounds.

use std::sync::Arc;
use std::time::Duration;

use quorate_tests::{Cluster, NodeProcess, Options, Sql, SqlError, assert_servers_equal, wait_for};
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const SESSIONS: usize = 64;
/// Bytes of each session's one row, so of its transaction.
const ROW_BYTES: usize = 4 << 20;
const GROWTH_MAX_KIB: u64 = 100 << 10;
const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sidecar_grows_by_less_than_100_mib_while_256_mib_wait() {
    let cluster = Cluster::start("full_capture", PROGRAM, Options::default()).await;
    let primary = cluster.wait_for_primary(Duration::from_secs(5)).await;
    let node = cluster.node(primary);
    let mut sql = Sql::socket(&node.socket())
        .await
        .expect("root on the socket");
    for statement in [
        "CREATE TABLE app.big (id INT PRIMARY KEY, v LONGTEXT)",
        // Or the server would write no more than a few of them before the first is answered.
        "SET GLOBAL binlog_group_commit_sync_delay = 1000000",
    ] {
        sql.run(statement).await.expect(statement);
    }

    // Each has its row ready; then there is nobody to replicate to; then all commit at once.
    let start = Arc::new(Barrier::new(SESSIONS + 1));
    let sessions = open_sessions(node, &start).await;
    let captured_before = captured_bytes(node).await;
    let before = memory_kib(node, "VmRSS");
    for id in cluster.nodes.keys() {
        cluster.links.isolate(*id, true);
    }
    start.wait().await;
    let mut peak = before;
    let mut captured = 0;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        peak = peak.max(memory_kib(node, "VmRSS"));
        captured = captured_bytes(node).await - captured_before;
    }
    println!(
        "before {} MiB, peak while cut off {} MiB, captured {} MiB of {} MiB",
        before >> 10,
        peak >> 10,
        captured / MIB,
        (SESSIONS * ROW_BYTES) as u64 / MIB,
    );
    assert!(captured > 16 * MIB, "capture was never near full");
    assert!(
        peak - before < GROWTH_MAX_KIB,
        "the sidecar grew from {before} KiB to {peak} KiB"
    );
    assert!(
        sessions.iter().all(|session| !session.is_finished()),
        "an OK without a follower"
    );

    cluster.links.heal();
    let healed = tokio::time::Instant::now();
    let (accepted, ended) = outcomes(sessions).await;
    println!(
        "{} accepted, {ended} ended, {:?} after healing; VmHWM {} MiB",
        accepted.len(),
        healed.elapsed(),
        memory_kib(node, "VmHWM") >> 10,
    );
    cluster.wait_until_whole(Duration::from_secs(90)).await;
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(60)).await;
    let mut sql = Sql::socket(&node.socket())
        .await
        .expect("root on the socket");
    let rows = sql
        .rows("SELECT id FROM app.big")
        .await
        .expect("read the ids");
    for id in accepted {
        assert!(
            rows.contains(&vec![id.to_string()]),
            "row {id} was acknowledged"
        );
    }
    cluster.stop().await;
}

/// Whose commit was answered OK, and how many ended without an answer.
async fn outcomes(sessions: Vec<JoinHandle<Result<(), SqlError>>>) -> (Vec<usize>, usize) {
    let (mut accepted, mut ended) = (Vec::new(), 0);
    for (id, session) in sessions.into_iter().enumerate() {
        match session.await.expect("no session panics") {
            Ok(()) => accepted.push(id),
            Err(SqlError::Unknown(_)) => ended += 1,
            Err(error @ SqlError::Server { .. }) => panic!("session {id}: {error}"),
        }
    }
    (accepted, ended)
}

/// Sessions that have inserted their row, and commit after the barrier.
async fn open_sessions(
    node: &NodeProcess,
    start: &Arc<Barrier>,
) -> Vec<JoinHandle<Result<(), SqlError>>> {
    let mut sessions = Vec::new();
    for id in 0..SESSIONS {
        let mut sql = Sql::socket(&node.socket())
            .await
            .expect("root on the socket");
        sql.run("BEGIN").await.expect("begin");
        let insert = format!(
            "INSERT INTO app.big VALUES ({id}, REPEAT(UUID(), {}))",
            ROW_BYTES / 36
        );
        sql.run(&insert).await.expect("insert a row");
        let start = start.clone();
        sessions.push(tokio::spawn(async move {
            start.wait().await;
            sql.run_within("COMMIT", Duration::from_secs(120)).await
        }));
    }
    sessions
}

/// A line of the sidecar's `/proc/PID/status`, in KiB.
fn memory_kib(node: &NodeProcess, name: &str) -> u64 {
    let pid = node.pid().expect("the sidecar runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("read status");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    value
        .and_then(|value| value.parse().ok())
        .expect("a number of KiB")
}

async fn captured_bytes(node: &NodeProcess) -> u64 {
    let mut bytes = None;
    wait_for(Duration::from_secs(5), async || {
        bytes = node.metric("quorate_captured_bytes_total").await;
        bytes.is_some()
    })
    .await;
    bytes.expect("the sidecar counts captured bytes") as u64
}
