//! A primary's disk stops answering, or fails a sync: another node takes over, nothing acknowledged
//! is lost, and the node returns when its disk does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Writer, assert_rows_survived, assert_servers_equal, eventually, wait_for,
};
use quorate_types::NodeId;
use std::collections::BTreeSet;
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
/// Past this the fault would not have been noticed: a disk gets 4 s, and is looked at each second.
const MOVED_MAX: Duration = Duration::from_secs(15);

fn build_shim(folder: &Path) -> PathBuf {
    let shim = folder.join("shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("disk_faults/shim.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&shim, &source])
        .arg("-ldl")
        .status();
    assert!(built.expect("run cc").success(), "cc builds the shim");
    shim
}

/// A cluster under load whose primary's disk gets a fault, until a commit that began afterwards
/// succeeded elsewhere.
struct Story {
    cluster: Cluster,
    primary: NodeId,
    writer: Writer,
    fault: PathBuf,
    _shim: tempfile::TempDir,
}

impl Story {
    async fn begin(name: &str, fault: &str) -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let shim = build_shim(folder.path());
        let options = Options {
            environment: vec![
                ("LD_PRELOAD".to_owned(), shim.display().to_string()),
                ("FAULTS_IN".to_owned(), format!("/stories/{name}/")),
            ],
            ..Options::default()
        };
        let cluster = Cluster::start(name, PROGRAM, options).await;
        let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
        let mut sql = quorate_tests::Sql::port(cluster.node(primary).ports.read_write)
            .await
            .expect("a session");
        sql.run(Writer::TABLE).await.expect("make the table");
        let ports = cluster.others(primary).into_iter();
        let ports = ports.map(|id| cluster.node(id).ports.read_write).collect();
        let writer = Writer::start(ports, 4);
        writer
            .wait_for_more_than(100, Duration::from_secs(10))
            .await;
        let fault = cluster.node(primary).dir.join(fault);
        std::fs::write(&fault, "").expect("make the fault");
        let from = Instant::now();
        let others = cluster.others(primary);
        let moved = wait_for(MOVED_MAX, async || {
            cluster.primary_among(&others).await.is_some()
        });
        assert!(moved.await, "no other primary within {MOVED_MAX:?}");
        let since = Instant::now();
        let wrote = eventually(Duration::from_secs(5), async || {
            writer.so_far().first_after(since).is_some()
        });
        assert!(wrote.await, "no commit at the new primary");
        println!("{fault:?}: another primary after {:?}", since - from);
        Self {
            cluster,
            primary,
            writer,
            fault,
            _shim: folder,
        }
    }

    async fn end(self) {
        self.cluster.wait_until_whole(Duration::from_secs(60)).await;
        let outcomes = self.writer.finish().await;
        let sockets = self.cluster.sockets();
        assert_servers_equal(&sockets, Duration::from_secs(20)).await;
        assert_rows_survived(&sockets, &outcomes, &BTreeSet::new()).await;
        self.cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_whose_disk_hangs_is_replaced_and_returns_when_it_goes_on() {
    let story = Story::begin("disk_hangs", "hang").await;
    std::fs::remove_file(&story.fault).expect("end the fault");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_log_cannot_be_synced_stops_and_returns() {
    let mut story = Story::begin("disk_fails", "fail").await;
    let node = story.cluster.node_mut(story.primary);
    let ended = node.exited(Duration::from_secs(10)).await;
    assert_eq!(ended, Some(false), "it must end, and not with success");
    let log = std::fs::read_to_string(node.log()).expect("read the log");
    assert!(log.contains("the log cannot be written; the node must stop"));
    std::fs::remove_file(&story.fault).expect("end the fault");
    story.cluster.node_mut(story.primary).start(false);
    story.end().await;
}
