//! The accepted transactions leave a node as binlog files, which MySQL's own tool reads; and what a
//! repair would cut off a killed primary is shown before it is cut, and kept afterwards.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use quorate_tests::{Cluster, Options, Signal, Sql, assert_servers_equal, eventually, mysql};
use quorate_types::GtidSet;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binlogs_are_inspected_and_exported() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let mut cluster = Cluster::start("inspect-export", program, Options::default()).await;
    let primary = cluster.wait_for_primary(SOON).await;
    fill(&cluster, primary).await;
    let others = cluster.others(primary);
    assert_servers_equal(&cluster.sockets(), SOON).await;

    let out = cluster.dir.join("exported");
    let addr = format!("127.0.0.1:{}", cluster.node(others[0]).ports.grpc);
    let said = quorate(
        program,
        &["binlog", "export", "--addr", &addr, "--out"],
        &out,
    );
    println!("{said}");
    assert_eq!(
        gtids_of_the_tool(&out).await,
        gtids_of_a_server(&cluster).await
    );
    let said = quorate(program, &["binlog", "inspect"], &out);
    println!("{said}");
    assert!(said.contains("a repair would change nothing"), "{said}");

    // Nobody takes what the primary writes: it hangs, and is killed.
    cluster.links.isolate(primary, true);
    let mut hanging = Sql::socket(&cluster.node(primary).socket())
        .await
        .expect("root");
    let insert = "INSERT INTO app.t VALUES (4, 'never')";
    assert!(
        hanging
            .run_within(insert, Duration::from_secs(2))
            .await
            .is_err()
    );
    let node = cluster.node_mut(primary);
    node.signal(Signal::KILL);
    node.signal_mysqld(Signal::KILL);
    node.kill();
    let dir = node.dir.clone();
    let said = quorate(program, &["binlog", "inspect", "--addr", &addr], &dir);
    println!("{said}");
    assert!(
        said.contains("a repair would cut binlog.") && said.contains(": rows"),
        "{said}"
    );
    assert!(!dir.join("cut").exists(), "it was only looked at");

    cluster
        .wait_for_primary_among(&cluster.others(primary), SOON)
        .await;
    cluster.links.heal();
    cluster.node_mut(primary).start(false);
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    let kept = kept_cuts(&cluster, primary.0).await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    let kept = dir.join("cut").join(&kept[0]).join("repair.txt");
    let described = std::fs::read_to_string(kept).expect("what was cut is described");
    assert!(
        described.contains(": rows") || described.contains(", rows"),
        "{described}"
    );
    assert_servers_equal(&cluster.sockets(), SOON).await;
    let expected = ["cut what was never acknowledged off the binlog"];
    assert_eq!(cluster.unexpected_log_lines(&expected), [] as [String; 0]);
    cluster.stop().await;
}

/// Rows, compressed and not, small and larger than a packet.
async fn fill(cluster: &Cluster, primary: quorate_types::NodeId) {
    // An application's account may not ask for compression.
    let mut sql = Sql::socket(&cluster.node(primary).socket())
        .await
        .expect("root");
    for statement in [
        "CREATE TABLE app.t (id INT PRIMARY KEY, w LONGTEXT)",
        "INSERT INTO app.t VALUES (1, 'one')",
        "SET SESSION binlog_transaction_compression=ON",
        "INSERT INTO app.t VALUES (2, REPEAT('two', 1000000))",
        "SET SESSION binlog_transaction_compression=OFF",
        "INSERT INTO app.t VALUES (3, REPEAT('three', 4000000))",
    ] {
        sql.run(statement).await.expect(statement);
    }
}

fn quorate(program: &str, words: &[&str], dir: &Path) -> String {
    let output = Command::new(program)
        .args(words)
        .arg(dir)
        .output()
        .expect("run quorate");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {text}{errors}");
    text
}

/// The GTIDs that mysqlbinlog reads in the exported files, each once, and with right checksums.
async fn gtids_of_the_tool(out: &Path) -> GtidSet {
    let index = std::fs::read_to_string(out.join("binlog.index")).expect("an index");
    let mut tool = mysql().await.tool("mysqlbinlog");
    tool.args(["--verify-binlog-checksum", "--base64-output=DECODE-ROWS"]);
    let files = index.lines().map(|line| out.join(line));
    let output = tool.args(files).output().expect("run mysqlbinlog");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut set = GtidSet::new();
    for line in text.lines() {
        let gtid = line
            .split("GTID_NEXT= '")
            .nth(1)
            .and_then(|rest| rest.split('\'').next());
        if let Some(gtid) = gtid.filter(|gtid| *gtid != "AUTOMATIC") {
            let new = set.insert(gtid.parse().expect("a GTID"));
            assert!(new, "{gtid} comes twice");
        }
    }
    set
}

async fn gtids_of_a_server(cluster: &Cluster) -> GtidSet {
    let mut sql = Sql::socket(&cluster.sockets()[0]).await.expect("root");
    let set = sql.value("SELECT @@GLOBAL.gtid_executed").await;
    set.expect("its set")
        .replace('\n', "")
        .parse()
        .expect("a set")
}

async fn kept_cuts(cluster: &Cluster, node: u64) -> Vec<String> {
    let mut kept = Vec::new();
    eventually(SOON, async || {
        let statuses = cluster.statuses().await;
        let Some(status) = statuses.values().next() else {
            return false;
        };
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let own = nodes.iter().find(|one| one["id"] == node);
        let cuts = own.and_then(|own| own["kept_cuts"].as_array().cloned());
        let names = cuts.unwrap_or_default();
        kept = names
            .iter()
            .filter_map(|cut| cut["name"].as_str().map(str::to_owned))
            .collect();
        !kept.is_empty()
    })
    .await;
    kept
}
