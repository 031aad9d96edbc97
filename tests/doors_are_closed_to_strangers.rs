//! Nothing that a stranger could reach is open without certificates, and with them only members
//! get in.

use std::process::{Command, Output};
use std::time::Duration;

use quorate_tests::{Cluster, Options, Sql, assert_servers_equal, free_ports};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(args)
        .output()
        .expect("run the program under test")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_open_its_doors_to_the_network_without_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let ports = free_ports(7);
    let secrets = dir.path().join("secrets.toml");
    quorate_node::config::Secrets::generate()
        .unwrap()
        .save(&secrets)
        .unwrap();
    for open in ["grpc", "gate", "feed", "http"] {
        let listen: String = ["read_write", "read_only", "feed", "grpc", "http", "gate"]
            .iter()
            .zip(&ports)
            .map(|(name, port)| {
                let host = if *name == open {
                    "0.0.0.0"
                } else {
                    "127.0.0.1"
                };
                format!("{name} = \"{host}:{port}\"\n")
            })
            .collect();
        let config = dir.path().join("node.toml");
        let text = format!(
            "node = 1\ndir = {:?}\nsecrets = {secrets:?}\n[listen]\n{listen}[mysqld]\nport = {}\n",
            dir.path().join("n1"),
            ports[6],
        );
        std::fs::write(&config, text).unwrap();
        let output = run(&["node", "--config", config.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{open}: {said}");
        assert!(
            said.contains(open) && said.contains("certs"),
            "{open}: {said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_certificates_works_and_answers_nobody_without_one() {
    let options = Options {
        certs: true,
        ..Options::default()
    };
    let cluster = Cluster::start("doors", PROGRAM, options).await;
    let primary = cluster.wait_for_primary(Duration::from_secs(20)).await;
    // Through another node: proxy and gate speak TLS to each other.
    let other = cluster.others(primary)[0];
    let mut sql = Sql::port(cluster.node(other).ports.read_write)
        .await
        .unwrap();
    sql.run("CREATE TABLE app.doors (id INT PRIMARY KEY)")
        .await
        .unwrap();
    sql.run("INSERT INTO app.doors VALUES (1), (2)")
        .await
        .unwrap();
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(20)).await;

    let at = format!("127.0.0.1:{}", cluster.node(other).ports.grpc);
    let stranger = run(&["status", "--addr", &at]);
    assert!(!stranger.status.success(), "a stranger was answered");
    let certs = cluster.dir.join("certs");
    let member = run(&["status", "--addr", &at, "--certs", certs.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&member.stdout).into_owned();
    assert!(
        member.status.success() && said.contains("primary"),
        "{said} {member:?}"
    );

    // A client that talks MySQL, or anything, to a gate gets nowhere.
    let gate = cluster.node(primary).ports.gate;
    assert!(Sql::port(gate).await.is_err());
    cluster.stop().await;
}
