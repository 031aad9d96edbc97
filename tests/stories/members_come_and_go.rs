//! A fourth node is added while clients write, is a learner, gets a vote; an old one is removed, with
//! kill -9 in the middle of each change, and the primary last. What was acknowledged is everywhere,
//! and who was removed serves nothing and disturbs nobody.

use std::time::Duration;

use quorate_tests::{
    Cluster, NodeProcess, Options, Signal, Sql, Writer, assert_rows_survived, assert_servers_equal,
    eventually,
};
use quorate_types::NodeId;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const CLIENTS: u64 = 4;
const NEW: NodeId = NodeId(4);
const PROMOTE: [&str; 4] = ["members", "promote", "--id", "4"];

/// What the faults of this story make the sidecars say.
const EXPECTED: &[&str] = &[
    "this node serves nothing any more",
    "nothing counts between this node and a peer: node",
    "nothing counts between this node and a peer: the folder of node",
    "no vote in this cluster",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_added_promoted_and_removed_under_load_and_kills() {
    let mut cluster = Cluster::start("members", PROGRAM, Options::default()).await;
    let ports = cluster.read_write_ports();
    let mut sql = Sql::port(ports[0]).await.expect("a session");
    sql.run(Writer::TABLE).await.expect("make the table");
    let writer = Writer::start(ports, CLIENTS);

    admit(&mut cluster).await;
    promote_amid_a_kill(&mut cluster).await;
    let mut gone = vec![remove_amid_a_kill(&mut cluster).await];

    // The new one moves. Only the log can tell the others where it is now.
    cluster.move_node(NEW);
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    let grpc = format!("127.0.0.1:{}", cluster.node(NEW).ports.grpc);
    let list = cluster.ask(NEW, &["members", "list"]).await;
    let list = list.expect("a list");
    assert!(list.contains(&grpc), "{grpc} in {list}");

    gone.push(remove_the_primary(&mut cluster).await);
    let outcomes = writer.finish().await;
    let longest = outcomes.longest_gap();
    println!("longest time without a commit: {longest:?}");
    assert_eq!(cluster.sockets().len(), 2);
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(30)).await;
    assert_rows_survived(&cluster.sockets(), &outcomes, &outcomes.acknowledged).await;

    // Who was removed is taken in again only by being added.
    let back = gone.remove(0);
    let id = back.id;
    cluster.nodes.insert(id, back);
    add(&cluster, NEW, id).await;
    cluster.learners.insert(id);
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    // It was away for up to 50,000 transactions, and applies some 1,700 a second on a busy machine.
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(120)).await;
    assert_eq!(cluster.unexpected_log_lines(EXPECTED), [] as [String; 0]);
    drop(gone);
    cluster.stop().await;
}

/// A node that nobody knows waits outside, and is a learner that serves reads once it was added.
async fn admit(cluster: &mut Cluster) {
    cluster.add_node(NEW);
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let asked = cluster.others(primary)[0];
    says(cluster, NEW, "nor was it added").await;
    let refused = cluster.ask(asked, &PROMOTE).await;
    let refused = refused.expect_err("nobody knows it");
    assert!(refused.contains("node 4 is no member"), "{refused}");
    add(cluster, asked, NEW).await;
    cluster.learners.insert(NEW);
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    assert_eq!(raft(cluster, NEW).await.as_deref(), Some("learner"));
    let port = cluster.node(NEW).ports.read_only;
    // It may lag: the user and the table come with what it applies.
    let mut row = Ok(());
    let reads = eventually(Duration::from_secs(20), async || {
        let session = Sql::port(port).await;
        row = match session {
            Ok(mut session) => session.run("SELECT COUNT(*) FROM app.written").await,
            Err(error) => Err(error),
        };
        row.is_ok()
    });
    assert!(reads.await, "{row:?}");
}

/// kill -9 of the leader in the middle of the change: asked again, it is done.
async fn amid_a_kill(cluster: &mut Cluster, asked: NodeId, words: &[&str], already: &str) {
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let (first, ()) = tokio::join!(cluster.ask(asked, words), async {
        tokio::time::sleep(Duration::from_millis(15)).await;
        cluster.node(primary).signal(Signal::KILL);
    });
    println!("{words:?} while node {primary} was killed: {first:?}");
    cluster.node_mut(primary).kill();
    cluster.node_mut(primary).start(false);
    let done = eventually(Duration::from_secs(60), async || {
        let answer = cluster.ask(asked, words).await;
        answer.is_ok() || answer.is_err_and(|why| why.contains(already))
    });
    assert!(done.await, "{words:?} is never done");
}

async fn promote_amid_a_kill(cluster: &mut Cluster) {
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let asked = cluster.others(primary)[0];
    amid_a_kill(cluster, asked, &PROMOTE, "is a voter already").await;
    cluster.learners.clear();
    cluster.wait_until_whole(Duration::from_secs(60)).await;
}

/// An old replica goes, and stays away after a restart.
async fn remove_amid_a_kill(cluster: &mut Cluster) -> NodeProcess {
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let mut others = cluster.others(primary).into_iter();
    let old = others.find(|id| *id != NEW).expect("an old replica");
    let asked = others.next().expect("another");
    let id = old.to_string();
    let remove = ["members", "remove", "--id", &id];
    amid_a_kill(cluster, asked, &remove, "is no member").await;
    is_fenced(cluster, old).await;
    cluster.node_mut(old).kill();
    cluster.node_mut(old).start(false);
    is_fenced(cluster, old).await;
    let gone = cluster.nodes.remove(&old).expect("it was there");
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    gone
}

/// A primary hands over first.
async fn remove_the_primary(cluster: &mut Cluster) -> NodeProcess {
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let id = primary.to_string();
    let remove = ["members", "remove", "--id", &id];
    let done = cluster.ask(primary, &remove).await;
    println!("removal of the primary: {done:?}");
    assert!(done.is_ok(), "{done:?}");
    is_fenced(cluster, primary).await;
    let gone = cluster.nodes.remove(&primary).expect("it was there");
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    let left = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let list = cluster.ask(left, &["members", "list"]).await;
    let list = list.expect("a list");
    println!("{list}");
    assert_eq!(list.matches("removed").count(), 2, "{list}");
    gone
}

fn addresses(grpc: u16, gate: u16) -> (String, String) {
    (format!("127.0.0.1:{grpc}"), format!("127.0.0.1:{gate}"))
}

async fn add(cluster: &Cluster, at: NodeId, id: NodeId) {
    let ports = cluster.node(id).ports;
    let (grpc, gate) = addresses(ports.grpc, ports.gate);
    let number = id.to_string();
    let add = [
        "members", "add", "--id", &number, "--grpc", &grpc, "--gate", &gate,
    ];
    cluster.ask(at, &add).await.expect("added");
    let again = cluster.ask(at, &add).await;
    let again = again.expect_err("it is one");
    assert!(again.contains("is a member already"), "{again}");
}

/// Waits until a node's log has this.
async fn says(cluster: &Cluster, id: NodeId, text: &str) {
    let log = cluster.node(id).log();
    let said = eventually(Duration::from_secs(20), async || {
        let log = std::fs::read(&log).unwrap_or_default();
        String::from_utf8_lossy(&log).contains(text)
    });
    assert!(said.await, "node {id} never says `{text}`");
}

/// What a node's own status says of its part in Raft.
async fn raft(cluster: &Cluster, id: NodeId) -> Option<String> {
    let status = cluster.node(id).http_get("/api/status").await?;
    let status: serde_json::Value = serde_json::from_str(&status).ok()?;
    let nodes = status["nodes"].as_array()?;
    let own = nodes.iter().find(|node| node["id"] == id.0)?;
    Some(own["raft"].as_str()?.to_owned())
}

/// A node that was removed says so, and serves neither writes nor reads.
async fn is_fenced(cluster: &Cluster, id: NodeId) {
    let bound = Duration::from_secs(20);
    cluster
        .wait_for_role(id, "fenced", "it was removed from the cluster", bound)
        .await;
    let ports = cluster.node(id).ports;
    for port in [ports.read_write, ports.read_only] {
        let served = tokio::time::timeout(Duration::from_secs(15), async {
            Sql::port(port).await?.run("SELECT 1").await
        });
        let served = served.await;
        assert!(!matches!(served, Ok(Ok(_))), "node {id} serves: {served:?}");
    }
}
