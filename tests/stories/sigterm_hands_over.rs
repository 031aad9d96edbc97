//! Story: SIGTERM to the primary's node under load. Leadership goes first, then the server stops
//! in good order and the process ends with success; nothing acknowledged is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Signal, Sql, Writer, assert_rows_survived, assert_servers_equal, eventually,
};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(15);
const LOAD: Duration = Duration::from_secs(2);
const CLIENTS: u64 = 6;
/// How long mysqld waits for idle sessions at its end, unless somebody ends them before.
const SESSIONS_WAIT: Duration = Duration::from_secs(10);
/// What mysqld logs last when it ended in good order.
const ENDED_CLEANLY: &str = "Shutdown complete";
/// What InnoDB logs when it was killed before.
const RECOVERED: [&str; 2] = ["Starting crash recovery", "crash recovery finished"];

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_hands_over() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let mut cluster = Cluster::start("sigterm", program, Options::default()).await;
    let old = cluster.wait_for_primary(SOON).await;
    Sql::socket(&cluster.node(old).socket())
        .await
        .expect("root on the primary's socket")
        .run(Writer::TABLE)
        .await
        .expect("make the table");
    let mysqld_log = cluster.node(old).dir.join("mysqld.log");
    let log = || std::fs::read_to_string(&mysqld_log).expect("read mysqld's log");
    // Clients of the nodes that stay; those of the one that goes lose their port with it.
    let others = cluster.others(old);
    let ports = others.iter().map(|id| cluster.node(*id).ports.read_write);
    let writer = Writer::start(ports.collect(), CLIENTS);
    tokio::time::sleep(LOAD).await;

    let mut idle = Sql::socket(&cluster.node(old).socket())
        .await
        .expect("a session that nobody closes");
    let (before, asked) = (log().len(), Instant::now());
    cluster.node(old).signal(Signal::TERM);
    let mut new = None;
    let moved = eventually(SOON, async || {
        new = cluster.primary().await.filter(|id| *id != old);
        new.is_some()
    })
    .await;
    assert!(moved, "no other primary after SIGTERM");
    let handed_over = asked.elapsed();
    let success = cluster.node_mut(old).exited(Duration::from_secs(30)).await;
    let ended = asked.elapsed();
    assert_eq!(success, Some(true), "the process ends with success");
    assert!(ended < SESSIONS_WAIT, "it ended after {ended:?}");
    assert!(idle.value("SELECT 1").await.is_err(), "its server ended");
    assert_eq!(cluster.node(old).mysqld_pid(), None, "its mysqld ended too");
    let last_words = log().split_off(before);
    assert!(last_words.contains(ENDED_CLEANLY), "{last_words}");

    tokio::time::sleep(LOAD / 2).await;
    let stopped = log().len();
    cluster.node_mut(old).start(false);
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    let outcomes = writer.finish().await;
    let first_words = log().split_off(stopped);
    assert!(
        !RECOVERED.iter().any(|text| first_words.contains(text)),
        "it had been killed: {first_words}"
    );
    assert_ne!(
        cluster.primary().await,
        Some(old),
        "it came back as a replica"
    );
    assert_servers_equal(&cluster.sockets(), SOON).await;
    assert_rows_survived(&cluster.sockets(), &outcomes, &BTreeSet::new()).await;
    println!(
        "sigterm: another primary seen after {handed_over:?}, process ended after {ended:?}; {} acknowledged, \
         {} refused, {} unknown, longest pause {:?}",
        outcomes.acknowledged.len(),
        outcomes.refused.len(),
        outcomes.unknown.len(),
        outcomes.longest_gap()
    );
    // To requests of the new leader that came while the node's Raft stopped.
    let too_late = &["RaftCore stopped: raft stopped", "error: raft stopped"][..];
    let expected = [Cluster::PEER_LOST, too_late].concat();
    let unexpected = cluster.unexpected_log_lines_in_good_order(&expected);
    assert_eq!(unexpected, Vec::<String>::new());
    cluster.stop().await;
}
