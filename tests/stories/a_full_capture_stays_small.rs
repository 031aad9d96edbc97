//! Clients on the primary's own socket commit 256 MiB at once. With no follower in reach capture
//! stops reading when it holds enough; with all of them it passes. No sidecar grows without bound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_tests::{
    Cluster, NodeProcess, Options, Sql, SqlError, assert_servers_equal, eventually,
};
use quorate_types::NodeId;
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const SESSIONS: usize = 64;
/// Bytes of each session's one row, so of its transaction.
const ROW_BYTES: usize = 4 << 20;
/// Of a sidecar while all it has waits.
const GROWTH_MAX_KIB: u64 = 100 << 10;
/// Of one through which it passes: what capture holds, the log's tail, sled's cache and buffers.
const PASSING_MAX_KIB: u64 = 256 << 10;
const MIB: u64 = 1 << 20;
/// Of captured bytes: with that much capture was near full.
const CAPTURED_MIN: u64 = 16 * MIB;
/// Within which they are there: nothing is captured before all is on the primary's disk.
const CAPTURED_WITHIN: Duration = Duration::from_secs(30);
/// A server that writes 256 MiB at once may be slow to answer, and is no hung one.
const SLOW_SERVER: &str = "probe_timeout_ms = 20000\n";

/// Who cannot reach whom while the sessions commit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    Nobody,
    Primary,
    Everybody,
}

/// A cluster whose sessions have inserted and not committed.
struct Story {
    cluster: Cluster,
    primary: NodeId,
    start: Arc<Barrier>,
    sessions: Vec<JoinHandle<Result<(), SqlError>>>,
    /// How many of them were answered OK so far.
    accepted: Arc<AtomicUsize>,
    captured_before: u64,
    /// Of each sidecar, in KiB, before they commit.
    before: BTreeMap<NodeId, u64>,
}

impl Story {
    async fn begin(name: &str, options: Options) -> Self {
        let cluster = Cluster::start(name, PROGRAM, options).await;
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
        let start = Arc::new(Barrier::new(SESSIONS + 1));
        let accepted = Arc::new(AtomicUsize::new(0));
        let sessions = open_sessions(node, &start, &accepted).await;
        let captured_before = captured_bytes(node).await;
        let nodes = cluster.nodes.values();
        let before = nodes
            .map(|node| (node.id, node.memory_kib("VmRSS")))
            .collect();
        Self {
            cluster,
            primary,
            start,
            sessions,
            accepted,
            captured_before,
            before,
        }
    }

    /// All commit at once, after the cut.
    async fn commit(&self, cut: Cut) {
        for id in self.cluster.nodes.keys() {
            if cut == Cut::Everybody || cut == Cut::Primary && *id == self.primary {
                self.cluster.links.isolate(*id, true);
            }
        }
        self.start.wait().await;
    }

    /// By how much the primary's sidecar grew at most, watched for a while and until capture was near
    /// full. Nobody is answered OK meanwhile.
    async fn peak_growth_kib(&self, watched: Duration) -> u64 {
        let node = self.cluster.node(self.primary);
        let began = tokio::time::Instant::now();
        let (mut peak, mut captured) = (0, 0);
        while began.elapsed() < watched
            || captured < CAPTURED_MIN && began.elapsed() < CAPTURED_WITHIN
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
            peak = peak.max(node.memory_kib("VmRSS"));
            if began.elapsed() >= watched {
                captured = captured_bytes(node).await - self.captured_before;
            }
        }
        println!(
            "captured {} MiB of {} MiB",
            captured / MIB,
            (SESSIONS * ROW_BYTES) as u64 / MIB,
        );
        assert!(captured >= CAPTURED_MIN, "capture was never near full");
        let accepted = self.accepted.load(Ordering::Relaxed);
        assert_eq!(accepted, 0, "an OK without a follower");
        peak.saturating_sub(self.before[&self.primary])
    }

    /// Waits for the sessions' ends and for equal servers, and asserts that no sidecar ever grew
    /// too much; how many commits were answered OK.
    async fn end(self, growth_max_kib: u64) -> usize {
        let cluster = self.cluster;
        let from = tokio::time::Instant::now();
        let (accepted, ended) = outcomes(self.sessions).await;
        let took = from.elapsed();
        println!("{} accepted, {ended} ended, after {took:?}", accepted.len());
        cluster.wait_until_whole(Duration::from_secs(90)).await;
        assert_servers_equal(&cluster.sockets(), Duration::from_secs(60)).await;
        let socket = cluster.node(self.primary).socket();
        let mut sql = Sql::socket(&socket).await.expect("root on the socket");
        let rows = sql.rows("SELECT id FROM app.big").await;
        let rows = rows.expect("read the ids");
        for id in &accepted {
            assert!(
                rows.contains(&vec![id.to_string()]),
                "row {id} was acknowledged"
            );
        }
        for node in cluster.nodes.values() {
            let (before, peak) = (self.before[&node.id], node.memory_kib("VmHWM"));
            println!(
                "node {}: {} MiB before, {} MiB at most",
                node.id,
                before >> 10,
                peak >> 10
            );
            assert!(
                peak - before < growth_max_kib,
                "node {}'s sidecar grew from {before} KiB to {peak} KiB",
                node.id
            );
        }
        cluster.stop().await;
        accepted.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sidecar_grows_by_less_than_100_mib_while_256_mib_wait() {
    let story = Story::begin("full_capture", with_a_slow_server()).await;
    story.commit(Cut::Everybody).await;
    let grown = story.peak_growth_kib(Duration::from_secs(10)).await;
    assert!(grown < GROWTH_MAX_KIB, "the sidecar grew by {grown} KiB");
    story.cluster.links.heal();
    // Whether it passes then or is cut is a matter of who is elected.
    story.end(PASSING_MAX_KIB).await;
}

/// The others elect a new primary, so the old one's server is killed with what it has and is
/// repaired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sidecar_stays_small_when_it_alone_is_cut_off() {
    let story = Story::begin("full_capture_alone", with_a_slow_server()).await;
    story.commit(Cut::Primary).await;
    let grown = story.peak_growth_kib(Duration::from_secs(6)).await;
    assert!(grown < GROWTH_MAX_KIB, "the sidecar grew by {grown} KiB");
    let others = story.cluster.others(story.primary);
    let moved = eventually(Duration::from_secs(10), async || {
        let primary = story.cluster.primary_among(&others).await;
        primary.is_some()
    });
    assert!(moved.await, "no other primary");
    story.cluster.links.heal();
    story.end(GROWTH_MAX_KIB).await;
}

/// Nobody is cut off: the same passes through to followers, disks and feeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sidecars_stay_small_while_256_mib_pass() {
    // A busy machine is to change no leader here, or nothing would pass.
    let patient = "election_min_ms = 2000\nelection_max_ms = 4000\nquorum_loss_probe_ms = 8000\n";
    let options = Options {
        timing: format!("{patient}{SLOW_SERVER}"),
        ..Options::default()
    };
    let story = Story::begin("full_capture_passes", options).await;
    story.commit(Cut::Nobody).await;
    let accepted = story.end(PASSING_MAX_KIB).await;
    assert_eq!(accepted, SESSIONS, "not everything passed");
}

fn with_a_slow_server() -> Options {
    let mut options = Options::default();
    options.timing += SLOW_SERVER;
    options
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
    accepted: &Arc<AtomicUsize>,
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
        let (start, accepted) = (start.clone(), accepted.clone());
        sessions.push(tokio::spawn(async move {
            start.wait().await;
            let answer = sql.run_within("COMMIT", Duration::from_secs(120)).await;
            accepted.fetch_add(usize::from(answer.is_ok()), Ordering::Relaxed);
            answer
        }));
    }
    sessions
}

async fn captured_bytes(node: &NodeProcess) -> u64 {
    let mut bytes = None;
    eventually(Duration::from_secs(5), async || {
        bytes = node.metric("quorate_captured_bytes_total").await;
        bytes.is_some()
    })
    .await;
    bytes.expect("the sidecar counts captured bytes") as u64
}
