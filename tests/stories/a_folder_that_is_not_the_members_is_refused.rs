//! Folders that are new, old or somebody else's: a node whose Raft folder they are takes no part, a
//! server whose data they are is not started, and no second cluster is founded over them. Each time
//! the node says why.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use quorate_tests::{Cluster, Options, Sql, SqlError, assert_servers_equal, eventually};
use quorate_types::NodeId;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");

fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .expect("run cp");
    assert!(copied.success(), "copy {}", from.display());
}

fn remove(folder: &Path) {
    std::fs::remove_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
}

/// Waits until a node's log has this after its first `from` bytes.
async fn says(cluster: &Cluster, id: NodeId, from: usize, text: &str) {
    one_says(cluster, &[(id, from)], text).await;
}

/// The same of one of several nodes: of whoever leads, which may change meanwhile.
async fn one_says(cluster: &Cluster, nodes: &[(NodeId, usize)], text: &str) {
    let said = eventually(Duration::from_secs(20), async || {
        nodes.iter().any(|(id, from)| {
            let log = std::fs::read(cluster.node(*id).log()).expect("read a log");
            String::from_utf8_lossy(&log[*from..]).contains(text)
        })
    });
    let dir = cluster.dir.display();
    assert!(said.await, "{nodes:?} never say `{text}`: see {dir}");
}

fn log_length(cluster: &Cluster, id: NodeId) -> usize {
    std::fs::read(cluster.node(id).log()).map_or(0, |log| log.len())
}

/// Starts the node with `--bootstrap`, and expects it to refuse with these words.
async fn bootstrap_is_refused(cluster: &Cluster, id: NodeId, words: &[&str]) {
    let output = tokio::process::Command::new(PROGRAM)
        .arg("node")
        .arg("--bootstrap")
        .arg("--config")
        .arg(cluster.node(id).config())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(20), output).await;
    let output = output.expect("it ends by itself").expect("it was started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "a second cluster was founded");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_second_cluster_is_founded_over_a_first_one() {
    let mut cluster = Cluster::start("second_bootstrap", PROGRAM, Options::default()).await;
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let id = cluster.others(primary)[0];
    cluster.kill_node(id).await;
    let dir = cluster.node(id).dir.clone();
    let [raft, mysql] = ["raft", "mysql"].map(|name| dir.join(name));
    let [raft_aside, mysql_aside] = ["raft-aside", "mysql-aside"].map(|name| dir.join(name));

    // Nothing is left on this machine, but the peers answer.
    rename(&raft, &raft_aside);
    rename(&mysql, &mysql_aside);
    let in_cluster = ["is in cluster", "without --bootstrap"];
    bootstrap_is_refused(&cluster, id, &in_cluster).await;
    // Nobody answers, but the data folder has a marker.
    for node in cluster.nodes.keys() {
        cluster.links.isolate(*node, true);
    }
    rename(&mysql_aside, &mysql);
    let marked = [
        "has a marker",
        "without --bootstrap",
        "take the folder away",
    ];
    bootstrap_is_refused(&cluster, id, &marked).await;
    // Nor does a folder that is in a cluster found another.
    remove(&raft);
    rename(&raft_aside, &raft);
    bootstrap_is_refused(&cluster, id, &in_cluster).await;

    // None of that harmed the node.
    cluster.links.heal();
    cluster.node_mut(id).start(false);
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(20)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raft_folder_that_was_put_back_takes_no_part_and_says_so() {
    let mut cluster = Cluster::start("raft_put_back", PROGRAM, Options::default()).await;
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let [id, third] = cluster.others(primary)[..] else {
        panic!("three nodes")
    };
    let raft = cluster.node(id).dir.join("raft");
    let [old, before, newest] =
        ["raft-old", "raft-before", "raft-newest"].map(|name| raft.with_file_name(name));
    cluster.kill_node(id).await;
    copy(&raft, &old);
    for round in 0..2 {
        if round == 1 {
            copy(&raft, &before);
        }
        cluster.node_mut(id).start(false);
        cluster.wait_until_whole(Duration::from_secs(60)).await;
        cluster.kill_node(id).await;
    }
    rename(&raft, &newest);
    rename(&old, &raft);
    let others = |cluster: &Cluster| [primary, third].map(|id| (id, log_length(cluster, id)));
    let from = others(&cluster);
    cluster.node_mut(id).start(false);
    one_says(&cluster, &from, "its Raft folder was put back").await;

    // One from just before its last start counts as many starts, and then one more.
    for _ in 0..2 {
        cluster.kill_node(id).await;
        if before.exists() {
            remove(&raft);
            rename(&before, &raft);
        }
        let from = others(&cluster);
        cluster.node_mut(id).start(false);
        let another = "was another one: its Raft folder was put back";
        one_says(&cluster, &from, another).await;
    }

    // With the other one cut off there is a quorum only with this one, so there is none.
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let mut sql = Sql::socket(&cluster.node(primary).socket())
        .await
        .expect("root on the socket");
    let beside = cluster
        .others(primary)
        .into_iter()
        .find(|other| *other != id);
    cluster.links.isolate(beside.expect("three nodes"), true);
    let create = "CREATE TABLE app.no_quorum (id INT PRIMARY KEY)";
    let outcome = sql.run_within(create, Duration::from_secs(4)).await;
    assert!(matches!(outcome, Err(SqlError::Unknown(_))), "{outcome:?}");
    cluster.links.heal();

    // The folder as it was last is taken again.
    cluster.kill_node(id).await;
    remove(&raft);
    rename(&newest, &raft);
    cluster.node_mut(id).start(false);
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(20)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_folder_that_does_not_go_with_the_raft_folder_is_not_started() {
    // Else it would be cloned, which is another story.
    let options = Options {
        config: "[repair]\nerrant = \"stop\"\n".to_owned(),
        ..Options::default()
    };
    let mut cluster = Cluster::start("data_put_back", PROGRAM, options).await;
    let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
    let [id, third] = cluster.others(primary)[..] else {
        panic!("three nodes")
    };
    let data = cluster.node(id).dir.join("mysql");
    let [image, right] = ["mysql-image", "mysql-right"].map(|name| data.with_file_name(name));
    cluster.kill_node(id).await;
    copy(&data, &image);
    cluster.node_mut(id).start(false);
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    cluster.kill_node(id).await;
    rename(&data, &right);

    // Another node's folder.
    cluster.kill_node(third).await;
    copy(&cluster.node(third).dir.join("mysql"), &data);
    cluster.node_mut(third).start(false);
    let from = log_length(&cluster, id);
    cluster.node_mut(id).start(false);
    let whose = format!("the data folder is a copy of node {third}'s");
    says(&cluster, id, from, &whose).await;
    assert_eq!(cluster.node(id).mysqld_pid(), None, "its server runs");
    cluster.kill_node(id).await;
    remove(&data);

    // The right one as it was before its last start, which the marker in it does not know of.
    rename(&image, &data);
    let from = log_length(&cluster, id);
    cluster.node_mut(id).start(false);
    says(&cluster, id, from, "it may be restored from an image").await;
    cluster.kill_node(id).await;

    // A member whose Raft folder is new is taken in anew, and its data are not what goes with it.
    remove(&data);
    rename(&right, &data);
    remove(&cluster.node(id).dir.join("raft"));
    let from = log_length(&cluster, id);
    let others = [primary, third].map(|other| (other, log_length(&cluster, other)));
    cluster.node_mut(id).start(false);
    let anew = "a member came back with a new Raft folder";
    one_says(&cluster, &others, anew).await;
    says(
        &cluster,
        id,
        from,
        "is not the one that goes with the Raft folder",
    )
    .await;
    cluster.stop().await;
}
