//! `LOAD DATA` through a read-write port makes one transaction of a whole file, in many entries of the
//! log. Servers are equal afterwards, and no sidecar holds it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use quorate_tests::{Cluster, Options, Sql, SqlError, assert_servers_equal, eventually, wait_for};
use quorate_types::NodeId;
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
/// Overrides how large the file is, in MiB. With 1900 it takes minutes, and 28 GiB of the disk.
const SIZE: &str = "QUORATE_LOAD_MIB";
const SIZE_MIB: u64 = 256;
/// Of one sidecar: what capture holds, the log's tail, sled's cache and buffers. The file comes on top of
/// that where it is held.
const GROWTH_MAX_KIB: u64 = 320 << 10;
/// How often it is tried: a machine that is busy otherwise may lose a lease in the middle.
const ATTEMPTS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_loaded_is_one_transaction() {
    let mib = match std::env::var(SIZE) {
        Ok(text) => text.parse().expect("a number of MiB"),
        Err(_) => SIZE_MIB,
    };
    let options = Options {
        mysqld_extra: vec!["--local-infile=ON".to_owned()],
        ..Options::default()
    };
    let cluster = Cluster::start("loaded-file", PROGRAM, options).await;
    let primary = cluster.wait_for_primary(Duration::from_secs(5)).await;
    let before = peaks(&cluster);
    let mut sql = Sql::port(cluster.read_write_ports()[0])
        .await
        .expect("a session");
    sql.run("CREATE TABLE loaded (id INT PRIMARY KEY AUTO_INCREMENT, v MEDIUMTEXT)")
        .await
        .expect("make the table");
    let executed = gtids(&cluster, primary).await;

    let from = Instant::now();
    let mut tried = 0;
    while let Err(why) = load(&mut sql, mib).await {
        tried += 1;
        println!("after {:?}: {why}", from.elapsed());
        assert!(
            matches!(why, SqlError::Unknown(_)) && tried < ATTEMPTS,
            "{why}"
        );
        let bound = Duration::from_secs(60 + mib);
        cluster.wait_until_whole(bound).await;
        assert!(
            wait_for(bound, async || !is_still_loading(&cluster).await).await,
            "a server loads or commits for {bound:?}"
        );
        sql = Sql::port(cluster.read_write_ports()[0])
            .await
            .expect("a session");
        let rows = count(&cluster).await;
        assert!(rows == 0 || rows == mib, "{rows} rows of {mib}");
        if rows == mib {
            break;
        }
    }
    println!("{mib} MiB: acknowledged after {:?}", from.elapsed());
    let bound = Duration::from_secs(60 + mib);
    assert_servers_equal(&cluster.sockets(), bound).await;
    println!("equal everywhere after {:?}", from.elapsed());

    assert_eq!(count(&cluster).await, mib);
    let now = gtids(&cluster, primary).await;
    assert_eq!(now, executed + 1, "it is one transaction");
    for (node, peak) in peaks(&cluster) {
        let before = before[&node];
        println!(
            "node {node}: {} MiB before, {} MiB at most",
            before >> 10,
            peak >> 10
        );
        assert!(
            peak - before < GROWTH_MAX_KIB,
            "node {node}'s sidecar grew from {before} KiB to {peak} KiB"
        );
    }
    assert_eq!(cluster.unexpected_log_lines(&[]), [] as [String; 0]);
    cluster.stop().await;
}

/// Whether a session loads or commits a file. That of a client whose connection ended goes on with its
/// commit, and where the primary is the same as before nothing else says when its outcome is final.
/// Or cannot say: it may be killed and repaired meanwhile.
async fn is_still_loading(cluster: &Cluster) -> bool {
    for socket in cluster.sockets() {
        let asked = async {
            let mut sql = Sql::socket(&socket).await?;
            sql.rows("SHOW PROCESSLIST").await
        };
        let Ok(sessions) = asked.await else {
            return true;
        };
        if sessions.iter().any(|row| row[7].starts_with("LOAD DATA")) {
            return true;
        }
    }
    false
}

async fn load(sql: &mut Sql, mib: u64) -> Result<(), SqlError> {
    let line: Bytes = [&vec![b'x'; (1 << 20) - 1][..], b"\n"].concat().into();
    let lines = (0..mib).map(move |_| line.clone());
    let load = "LOAD DATA LOCAL INFILE 'rows' INTO TABLE loaded (v)";
    sql.load(load, stream::iter(lines)).await
}

/// By sessions of its own, since a lease may end for a moment.
async fn count(cluster: &Cluster) -> u64 {
    let mut rows = String::new();
    let counted = eventually(Duration::from_secs(60), async || {
        let Ok(mut sql) = Sql::port(cluster.read_write_ports()[0]).await else {
            return false;
        };
        let answer = sql.value("SELECT COUNT(*) FROM loaded").await;
        answer.is_ok_and(|count| {
            rows = count;
            true
        })
    });
    assert!(counted.await, "nobody counts the rows");
    rows.parse().expect("a number")
}

/// The most memory that each sidecar ever had, in KiB.
fn peaks(cluster: &Cluster) -> BTreeMap<NodeId, u64> {
    let nodes = cluster.nodes.values();
    nodes
        .map(|node| (node.id, node.memory_kib("VmHWM")))
        .collect()
}

/// How many transactions a server executed.
async fn gtids(cluster: &Cluster, node: NodeId) -> u64 {
    let mut sql = Sql::socket(&cluster.node(node).socket())
        .await
        .expect("root on the socket");
    let set = sql
        .value("SELECT @@GLOBAL.gtid_executed")
        .await
        .expect("the set");
    let set: quorate_types::GtidSet = set.parse().expect("a GTID set");
    set.count()
}
