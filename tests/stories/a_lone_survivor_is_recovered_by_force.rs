//! Two of three nodes are lost for good: the third becomes a new cluster with all that it had, by an
//! offline command that wants to be told twice, and the others come back with empty folders only.

use std::process::Stdio;
use std::time::Duration;

use quorate_tests::{Cluster, Options, Sql, assert_servers_equal, eventually};
use quorate_types::NodeId;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");

/// What the faults of this story make the sidecars say.
const EXPECTED: &[&str] = &["nothing counts between this node and a peer"];

/// Runs `quorate recover` on the node's configuration: whether it succeeded, and what it said.
async fn recover(cluster: &Cluster, id: NodeId, sure: bool) -> (bool, String) {
    let mut command = tokio::process::Command::new(PROGRAM);
    command
        .arg("recover")
        .arg("--config")
        .arg(cluster.node(id).config())
        .arg("--force-new-cluster");
    if sure {
        command.arg("--the-others-are-lost");
    }
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(60), output).await;
    let output = output.expect("it ends").expect("it was started");
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    println!("recover node {id}: {said}");
    (output.status.success(), said)
}

async fn cluster_id(cluster: &Cluster, id: NodeId) -> String {
    let mut name = String::new();
    let said = eventually(Duration::from_secs(20), async || {
        let status = cluster.node(id).http_get("/api/status").await;
        let status = status.and_then(|text| serde_json::from_str(&text).ok());
        let status: serde_json::Value = status.unwrap_or_default();
        name = status["cluster"].as_str().unwrap_or_default().to_owned();
        !name.is_empty()
    });
    assert!(said.await, "node {id} names no cluster");
    name
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_survivor_goes_on_as_a_new_cluster() {
    let mut cluster = Cluster::start("lone-survivor", PROGRAM, Options::default()).await;
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let old_id = cluster_id(&cluster, primary).await;
    let mut sql = Sql::socket(&cluster.node(primary).socket())
        .await
        .expect("root");
    sql.run("CREATE TABLE app.kept (id INT PRIMARY KEY)")
        .await
        .expect("make it");
    sql.run("INSERT INTO app.kept VALUES (1), (2), (3)")
        .await
        .expect("acknowledged");
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(20)).await;
    let [survivor, lost] = cluster.others(primary)[..] else {
        panic!("three nodes")
    };

    force(&mut cluster, survivor, primary, lost).await;
    let mut gone: Vec<_> = [primary, lost]
        .map(|id| cluster.nodes.remove(&id).expect("it was there"))
        .into();
    cluster.node_mut(survivor).start(false);
    let bound = Duration::from_secs(30);
    cluster.wait_for_role(survivor, "primary", "", bound).await;
    let new_id = cluster_id(&cluster, survivor).await;
    assert_ne!(new_id, old_id);
    let port = cluster.node(survivor).ports.read_write;
    let mut sql = Sql::port(port).await.expect("a session");
    sql.run("INSERT INTO app.kept VALUES (4)")
        .await
        .expect("it takes writes");

    // A node of the old cluster has no part in the new one, whatever it holds.
    for mut node in gone.drain(..) {
        let id = node.id;
        node.start(false);
        cluster.nodes.insert(id, node);
    }
    let foreign = eventually(Duration::from_secs(20), async || {
        // Whichever of them leads the other asks the survivor for its vote or sends it entries.
        [primary, lost].iter().any(|id| {
            let log = std::fs::read(cluster.node(*id).log()).unwrap_or_default();
            String::from_utf8_lossy(&log).contains("in cluster")
        })
    });
    assert!(foreign.await, "the old nodes are not told");
    assert_eq!(cluster_id(&cluster, lost).await, old_id);
    sql.run("INSERT INTO app.kept VALUES (5)")
        .await
        .expect("it goes on");

    // With empty folders they come.
    for id in [primary, lost] {
        cluster.kill_node(id).await;
    }
    for id in [primary, lost] {
        for folder in ["raft", "mysql"] {
            let folder = cluster.node(id).dir.join(folder);
            std::fs::remove_dir_all(&folder).expect("remove a folder");
        }
        cluster.node_mut(id).start(false);
    }
    cluster.wait_until_whole(Duration::from_secs(90)).await;
    assert_eq!(cluster_id(&cluster, lost).await, new_id);
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(30)).await;
    // From the first voter to the third no session had to end.
    let rows = sql
        .rows("SELECT id FROM app.kept ORDER BY id")
        .await
        .expect("rows");
    let expected: Vec<Vec<String>> = (1..=5).map(|id| vec![id.to_string()]).collect();
    assert_eq!(rows, expected);
    assert_eq!(cluster.unexpected_log_lines(EXPECTED), [] as [String; 0]);
    cluster.stop().await;
}

/// Kills all, and makes a new cluster of the survivor, as soon as nothing speaks against it.
async fn force(cluster: &mut Cluster, survivor: NodeId, primary: NodeId, lost: NodeId) {
    // While it runs, and while another answers, nothing is done.
    let (done, said) = recover(cluster, survivor, true).await;
    assert!(
        !done && said.contains("does the node's sidecar run?"),
        "{said}"
    );
    cluster.kill_node(survivor).await;
    let (done, said) = recover(cluster, survivor, true).await;
    assert!(
        !done && said.contains("answers and is in cluster"),
        "{said}"
    );
    cluster.kill_node(primary).await;
    cluster.kill_node(lost).await;
    let (done, said) = recover(cluster, survivor, false).await;
    assert!(!done && said.contains("nothing was changed"), "{said}");
    assert!(said.contains("WARNING"), "{said}");
    let (done, said) = recover(cluster, survivor, true).await;
    assert!(done, "{said}");
    // Killed half way or not, it can be run again.
    let (done, said) = recover(cluster, survivor, true).await;
    assert!(done, "{said}");
}
