//! Somebody wrote on every server behind the sidecars' backs, so none is left to clone from. The nodes
//! name the way out; one server is chosen, and what it has becomes accepted.

use std::time::Duration;

use quorate_tests::{
    Cluster, Options, Sql, Writer, assert_nothing_beside, assert_rows_survived,
    assert_servers_equal, eventually,
};
use quorate_types::NodeId;
use tokio::time::Instant;

/// What the faults of this story make the sidecars say.
const EXPECTED: &[&str] = &[
    "this server must be cloned: it has transactions that were never accepted",
    "this server must be cloned: it is too old",
    "it is too old: repairing",
    "errant transactions were accepted by order",
    "what it has is accepted by now: repairing",
    // On a loaded machine there may be an election, and a donor that is promoted ends the clone.
    "the clone failed: a copy of node ",
    // The own server of a node that was cut off is told so by its feed.
    "1236",
];
/// What an operator reads who has to ask once more.
const TRANSIENT: &[&str] = &[
    "is being cloned",
    "no node leads now",
    "this node no longer leads",
    "there is no quorum",
];
const BOUND: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_is_errant_until_one_is_chosen() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let mut cluster = Cluster::start("all-errant", program, Options::default()).await;
    let mut sql = Sql::port(cluster.read_write_ports()[0])
        .await
        .expect("a session");
    sql.run(Writer::TABLE).await.expect("make the table");
    sql.run("CREATE TABLE app.by_hand (node INT PRIMARY KEY, turn INT)")
        .await
        .expect("make the table");
    drop(sql);
    let outcomes = {
        let writer = Writer::start(cluster.read_write_ports(), 2);
        tokio::time::sleep(Duration::from_secs(1)).await;
        writer.finish().await
    };
    assert!(!outcomes.acknowledged.is_empty(), "nothing was written");

    let primary = cluster.wait_for_primary(BOUND).await;
    let chosen = cluster.others(primary)[0];
    every_server_is_errant(&mut cluster, primary, chosen).await;
    assert_rows_survived(&cluster.sockets(), &outcomes, &outcomes.acknowledged).await;
    one_server_is_whole_and_out_of_reach(&mut cluster).await;

    assert_eq!(cluster.unexpected_log_lines(EXPECTED), [] as [String; 0]);
    cluster.stop().await;
}

async fn every_server_is_errant(cluster: &mut Cluster, primary: NodeId, chosen: NodeId) {
    let left = recover(cluster, chosen, chosen, &["--yes"]).await;
    let left = left.expect_err("there is a primary");
    assert!(
        left.contains(&format!("node {primary} is the primary")),
        "{left}"
    );

    let all: Vec<NodeId> = cluster.nodes.keys().copied().collect();
    assert_servers_equal(&cluster.sockets(), BOUND).await;
    write_by_hand(cluster, &all, 1).await;
    for node in &all {
        let text = "never accepted";
        cluster.wait_for_role(*node, "cloning", text, BOUND).await;
    }
    for node in &all {
        let way_out = "recover --accept-errant ID";
        cluster
            .wait_for_role(*node, "cloning", way_out, BOUND)
            .await;
    }
    assert_eq!(cluster.primary().await, None, "nobody serves");

    let unknown = recover_when_idle(cluster, primary, NodeId(9), &["--yes"]).await;
    let unknown = unknown.expect_err("there is no such node");
    assert!(unknown.contains("node 9 is no member"), "{unknown}");
    let only_shown = recover_when_idle(cluster, chosen, chosen, &[]).await;
    let only_shown = only_shown.expect_err("nothing was confirmed");
    assert!(only_shown.contains("nothing was changed"), "{only_shown}");
    cluster
        .wait_for_role(chosen, "cloning", "never accepted", BOUND)
        .await;

    // Now: its server is restarted once it was chosen.
    let uuid = cluster.server_uuid(chosen).await;
    let moment = Instant::now();
    let done = recover_when_idle(cluster, primary, chosen, &["--yes"]).await;
    let said = done.expect("the way out");
    println!("{said}");
    assert!(
        said.contains(&format!("become accepted:\n  {uuid}:")),
        "{said}"
    );
    assert_eq!(said.matches("LOST: ").count(), all.len() - 1, "{said}");
    // In the middle of what follows.
    cluster.node_mut(chosen).kill();
    cluster.node_mut(chosen).start(false);
    // Whatever became of it by now, no second server's transactions are accepted too.
    let again = recover(cluster, primary, primary, &["--yes", "--do-not-wait"]).await;
    println!("a second choice: {}", again.expect_err("one was chosen"));
    whole_with(cluster, &[(chosen, 1)]).await;
    println!("whole after {:?}", moment.elapsed());
}

/// A healthy server that does not hear of it would go on without what was accepted meanwhile.
async fn one_server_is_whole_and_out_of_reach(cluster: &mut Cluster) {
    let before = by_hand(cluster, *cluster.nodes.keys().next().expect("a node")).await;
    let primary = cluster.wait_for_primary(BOUND).await;
    let others = cluster.others(primary);
    let (replica, away) = (others[0], others[1]);
    assert_servers_equal(&cluster.sockets(), BOUND).await;
    cluster.links.isolate(away, true);
    write_by_hand(cluster, &[primary, replica], 2).await;
    for node in [primary, replica] {
        let way_out = "recover --accept-errant ID";
        cluster.wait_for_role(node, "cloning", way_out, BOUND).await;
    }
    let waits = recover_when_idle(cluster, replica, primary, &["--yes"]).await;
    let waits = waits.expect_err("a server may be left");
    let why = format!("node {away}'s server may turn out to be whole");
    assert!(waits.contains(&why), "{waits}");
    let moment = Instant::now();
    let done = recover_when_idle(cluster, replica, primary, &["--yes", "--do-not-wait"]).await;
    println!("{}", done.expect("the way out"));
    cluster.links.heal();
    cluster
        .wait_for_role(away, "cloning", "it is too old", BOUND)
        .await;
    println!("the server that was away: {:?}", moment.elapsed());
    // That clones end whole was seen above.
    assert_eq!(cluster.wait_for_primary(BOUND).await, primary);
    let port = cluster.node(primary).ports.read_write;
    let mut sql = Sql::port(port).await.expect("a session");
    sql.run("INSERT INTO app.afterwards VALUES ()")
        .await
        .expect("a commit");
    let mut with: Vec<(NodeId, u64)> = before
        .into_iter()
        .filter(|(node, _)| *node != primary)
        .collect();
    with.push((primary, 2));
    with.sort_unstable();
    assert_eq!(by_hand(cluster, primary).await, with);
    println!("serves after {:?}", moment.elapsed());
}

async fn recover(
    cluster: &Cluster,
    at: NodeId,
    chosen: NodeId,
    more: &[&str],
) -> Result<String, String> {
    let chosen = chosen.to_string();
    let words = [&["recover", "--accept-errant", &chosen], more].concat();
    cluster.ask(at, &words).await
}

/// A donor that is found errant itself ends the clone that was just begun from it, and after a restart
/// of two nodes of three there may be an election more.
async fn recover_when_idle(
    cluster: &Cluster,
    at: NodeId,
    chosen: NodeId,
    more: &[&str],
) -> Result<String, String> {
    let mut said = None;
    eventually(BOUND, async || {
        let now = recover(cluster, at, chosen, more).await;
        let waits = matches!(&now, Err(why) if TRANSIENT.iter().any(|text| why.contains(text)));
        said = Some(now);
        !waits
    })
    .await;
    said.expect("it was asked")
}

/// While no sidecar looks: one row on each of the servers, which are replicas afterwards, whatever they
/// were. A primary's commit would wait for its ACK, so it is no semi-sync source any more.
async fn write_by_hand(cluster: &mut Cluster, nodes: &[NodeId], turn: u64) {
    for node in nodes {
        cluster.node_mut(*node).kill();
    }
    for node in nodes {
        let mut sql = Sql::socket(&cluster.node(*node).socket())
            .await
            .expect("root on the socket");
        for statement in [
            "SET GLOBAL rpl_semi_sync_source_enabled=OFF",
            "SET GLOBAL read_only=OFF",
            &format!("REPLACE INTO app.by_hand VALUES ({node}, {turn})"),
            "SET GLOBAL super_read_only=ON",
        ] {
            sql.run(statement).await.expect(statement);
        }
    }
    for node in nodes {
        cluster.node_mut(*node).start(false);
    }
}

async fn by_hand(cluster: &Cluster, node: NodeId) -> Vec<(NodeId, u64)> {
    let mut sql = Sql::socket(&cluster.node(node).socket())
        .await
        .expect("root on the socket");
    let rows = sql
        .rows("SELECT node, turn FROM app.by_hand ORDER BY node")
        .await;
    let rows = rows.expect("the rows").into_iter();
    rows.map(|row| {
        let number = |text: &str| text.parse().expect("a number");
        (NodeId(number(&row[0])), number(&row[1]))
    })
    .collect()
}

/// All servers are equal, have these rows that were written by hand, and take writes.
async fn whole_with(cluster: &Cluster, expected: &[(NodeId, u64)]) {
    cluster.wait_until_whole(2 * BOUND).await;
    let mut sql = Sql::port(cluster.read_write_ports()[0])
        .await
        .expect("a session");
    sql.run("CREATE TABLE IF NOT EXISTS app.afterwards (id INT PRIMARY KEY AUTO_INCREMENT)")
        .await
        .expect("a commit");
    sql.run("INSERT INTO app.afterwards VALUES ()")
        .await
        .expect("a commit");
    assert_servers_equal(&cluster.sockets(), BOUND).await;
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    for node in cluster.nodes.keys() {
        assert_eq!(by_hand(cluster, *node).await, expected, "on node {node}");
        assert_nothing_beside(cluster.node(*node));
    }
}
