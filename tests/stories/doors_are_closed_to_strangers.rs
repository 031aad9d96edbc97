//! Nothing that a stranger could reach is open without certificates, and with them only members
//! get in.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use quorate_net::{Endpoint, Net, Tls, TokioNet, node_server_name};
use quorate_node::config::Secrets;
use quorate_tests::{
    Cluster, NodeProcess, Options, Sql, Writer, assert_servers_equal, free_ports, make_certs,
    make_errant, member_tls,
};
use quorate_types::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
    Secrets::generate().unwrap().save(&secrets).unwrap();
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

    // Another authority's certificates, for the same names.
    let foreign = cluster.dir.join("foreign");
    make_certs(&foreign, PROGRAM, 3);
    let stranger = run(&[
        "status",
        "--addr",
        &at,
        "--certs",
        foreign.to_str().unwrap(),
    ]);
    assert!(!stranger.status.success(), "a foreign set was answered");
    let node = cluster.node(primary);
    let (member, foreigner) = (member_tls(&certs, other), member_tls(&foreign, other));
    http_answers_members_only(node, &member, &foreigner).await;
    gate_answers_members_only(node, other, &member, &foreigner).await;
    feed_answers_members_only(node, &certs, &foreign).await;
    root_stays_out(&cluster).await;
    a_member_is_cloned(&cluster).await;
    cluster.stop().await;
}

async fn http_answers_members_only(node: &NodeProcess, member: &Tls, foreigner: &Tls) {
    for path in ["/healthz", "/metrics", "/api/status", "/"] {
        let get = async |tls| node.http_get_as(tls, path).await;
        assert!(get(Some(member)).await.is_some(), "{path}: a member");
        assert_eq!(get(Some(foreigner)).await, None, "{path}: a foreign set");
        assert_eq!(get(None).await, None, "{path}: no certificate");
    }
}

/// The copy passes the donor's gate, which answers nobody without a certificate.
async fn a_member_is_cloned(cluster: &Cluster) {
    let primary = cluster.wait_for_primary(Duration::from_secs(20)).await;
    let replica = cluster.others(primary)[0];
    let mut sql = Sql::port(cluster.node(primary).ports.read_write)
        .await
        .expect("a session");
    sql.run(Writer::TABLE).await.expect("make the table");
    assert_servers_equal(&cluster.sockets(), Duration::from_secs(20)).await;
    make_errant(cluster.node(replica)).await;
    let bound = Duration::from_secs(20);
    cluster
        .wait_for_role(replica, "cloning", "never accepted", bound)
        .await;
    cluster.wait_until_whole(3 * bound).await;
    assert_servers_equal(&cluster.sockets(), bound).await;
}

/// What a gate says to a Hello that nothing is wrong with but the cluster in it: a member gets an
/// answer, whoever is none gets no byte.
async fn gate_answers_members_only(
    node: &NodeProcess,
    other: NodeId,
    member: &Tls,
    foreigner: &Tls,
) {
    assert!(Sql::port(node.ports.gate).await.is_err(), "a MySQL client");
    let exchange = async |tls: Option<&Tls>, from: NodeId| -> std::io::Result<Vec<u8>> {
        // Version 1, 29 bytes: cluster 0, from whom, and what does not matter then.
        let mut hello = b"QRGT\x01\x1d\x00".to_vec();
        hello.extend_from_slice(&[0; 8]);
        hello.extend_from_slice(&from.0.to_le_bytes());
        hello.extend_from_slice(&[0; 13]);
        let gate = Endpoint::Tcp(format!("127.0.0.1:{}", node.ports.gate));
        let mut io = TokioNet.connect(&gate).await?;
        if let Some(tls) = tls {
            io = tls.connect(io, &node_server_name(node.id)).await?;
        }
        io.write_all(&hello).await?;
        let mut answer = Vec::new();
        let _ = io.read_to_end(&mut answer).await;
        Ok(answer)
    };
    let answer = exchange(Some(member), other).await.expect("an answer");
    assert!(answer.starts_with(b"QRGT"), "{answer:?}");
    // The last one is a member that says it is another.
    for (tls, from) in [
        (Some(foreigner), other),
        (None, other),
        (Some(member), node.id),
    ] {
        let answer = exchange(tls, from).await.unwrap_or_default();
        assert!(!answer.starts_with(b"QRGT"), "{answer:?}");
    }
}

/// The feed has a password too. A consumer that knows it still needs a certificate.
async fn feed_answers_members_only(node: &NodeProcess, certs: &Path, foreign: &Path) {
    let secrets = Secrets::load(&certs.join("secrets.toml")).expect("load secrets");
    let installation = quorate_tests::mysql().await;
    let read = |tls: &[String]| {
        let mut command = installation.tool("mysqlbinlog");
        command
            .args(["--no-defaults", "--host=127.0.0.1", "--to-last-log"])
            .arg("--read-from-remote-source=BINLOG-DUMP-GTIDS")
            .args([
                format!("--port={}", node.ports.feed),
                "--user=quorate_feed".into(),
            ])
            .arg(format!("--password={}", secrets.feed.expose()))
            .args(tls)
            .arg("quorate.000000");
        let output = command.output().expect("run mysqlbinlog");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };
    let with = |set: &Path| {
        let file = |name: &str| set.join(name).display().to_string();
        [
            "--ssl-mode=REQUIRED".to_owned(),
            format!("--ssl-cert={}", file("node-2.pem")),
            format!("--ssl-key={}", file("node-2-key.pem")),
        ]
    };
    let (member, said) = read(&with(certs));
    assert!(member, "a member: {said}");
    for (who, tls) in [
        ("a foreign set", with(foreign).to_vec()),
        ("no certificate", vec!["--ssl-mode=REQUIRED".to_owned()]),
        ("no TLS", vec!["--ssl-mode=DISABLED".to_owned()]),
    ] {
        let (served, said) = read(&tls);
        assert!(!served, "{who} was served: {said}");
        println!("{who}: {}", said.trim());
    }
}

/// `root` has no password on the servers' own sockets, and is to be found nowhere else.
async fn root_stays_out(cluster: &Cluster) {
    let installation = quorate_tests::mysql().await;
    for node in cluster.nodes.values() {
        for port in [
            node.ports.read_write,
            node.ports.read_only,
            node.ports.mysql,
        ] {
            let tried = installation
                .tool("mysql")
                .args([
                    "--no-defaults",
                    "--protocol=TCP",
                    "--host=127.0.0.1",
                    "--user=root",
                ])
                .arg(format!("--port={port}"))
                .arg("--execute=SELECT CURRENT_USER()")
                .output()
                .expect("run mysql");
            let said = String::from_utf8_lossy(&tried.stderr).into_owned();
            assert!(!tried.status.success(), "root came in through {port}");
            assert!(
                said.contains("Access denied"),
                "root through {port}: {said}"
            );
        }
    }
}
