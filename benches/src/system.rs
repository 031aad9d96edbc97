use std::time::Duration;

use anyhow::{Context, bail};
use quorate_mysqld::{FileLock, default_cache, machine_lock, prepare_seed};
use quorate_tests::{Cluster, Options, Sql, Sysbench, SysbenchReport, free_ports, mysql, wait_for};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::server::Server;
use crate::versus::Peer;

/// A replica that is further behind is broken.
const CATCH_UP_MAX: Duration = Duration::from_secs(300);
const TABLES: u32 = 4;
const TABLE_ROWS: u32 = 10_000;
const GROUP: &str = "8a94f357-aab4-11df-86ab-c80aa9429562";

/// Three servers that were just started, with sysbench's tables.
pub(crate) struct System {
    sysbench: Sysbench,
    logs: TempDir,
    members: Members,
}

enum Members {
    Servers {
        servers: Vec<Server>,
        _machine: FileLock,
    },
    // Boxed: it is much larger than the other.
    Cluster(Box<Cluster>),
}

impl System {
    pub(crate) async fn start(peer: Peer) -> anyhow::Result<Self> {
        let (members, port) = match peer {
            Peer::Quorate => {
                let program = std::env::current_exe().context("find this program")?;
                let program = program.to_str().context("this program's path is no text")?;
                let options = Options {
                    relays: false,
                    ..Options::default()
                };
                let cluster = Cluster::start("versus", program, options).await;
                let primary = cluster.wait_for_primary(Duration::from_secs(10)).await;
                cluster.remember_app().await;
                let port = cluster.node(primary).ports.read_write;
                (Members::Cluster(Box::new(cluster)), port)
            }
            Peer::Semisync | Peer::SemisyncDurable | Peer::Gr => {
                let machine = machine_lock().await?;
                let servers = start_servers(peer).await?;
                let port = servers[0].port;
                let members = Members::Servers {
                    servers,
                    _machine: machine,
                };
                (members, port)
            }
        };
        let mut sysbench = Sysbench::port(port).await;
        (sysbench.tables, sysbench.table_size) = (TABLES, TABLE_ROWS);
        let system = Self {
            sysbench,
            logs: tempfile::tempdir().context("make a folder for logs")?,
            members,
        };
        let log = system.logs.path().join("prepare.log");
        system.sysbench.prepare("oltp_write_only", &log).await;
        Ok(system)
    }

    pub(crate) async fn measure(
        &self,
        script: &str,
        threads: u32,
        length: Duration,
    ) -> SysbenchReport {
        let mut sysbench = self.sysbench.clone();
        sysbench.threads = threads;
        let log = self.logs.path().join("run.log");
        let running = sysbench.run(script, length, &log);
        running.report(length + Duration::from_secs(60)).await
    }

    /// Waits until every replica has executed what the primary has now; how long that took. A
    /// primary that outruns its replicas is faster than the system is.
    pub(crate) async fn catch_up(&self) -> anyhow::Result<Duration> {
        let sockets = match &self.members {
            Members::Servers { servers, .. } => servers.iter().map(Server::socket).collect(),
            Members::Cluster(cluster) => cluster.sockets(),
        };
        let started = Instant::now();
        let mut executed = String::new();
        for socket in &sockets {
            let mut sql = Sql::socket(socket).await?;
            if sql.value("SELECT @@global.read_only").await? == "0" {
                executed = sql.value("SELECT @@global.gtid_executed").await?;
            }
        }
        let wait = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{executed}')");
        for socket in &sockets {
            let mut sql = Sql::socket(socket).await?;
            sql.run_within(&wait, CATCH_UP_MAX).await?;
        }
        Ok(started.elapsed())
    }

    /// The most memory that each sidecar ever had.
    pub(crate) fn peak_memory_kib(&self) -> Vec<u64> {
        let Members::Cluster(cluster) = &self.members else {
            return Vec::new();
        };
        let running = cluster.nodes.values().filter(|node| node.pid().is_some());
        running.map(|node| node.memory_kib("VmHWM")).collect()
    }

    pub(crate) async fn stop(self) {
        if let Members::Cluster(cluster) = self.members {
            cluster.stop().await;
        }
    }
}

/// The first is the primary.
async fn start_servers(peer: Peer) -> anyhow::Result<Vec<Server>> {
    let installation = mysql().await;
    let seed = prepare_seed(&installation, &default_cache()).await?;
    let ports = free_ports(6);
    let (ports, group_ports) = ports.split_at(3);
    let mut servers = Vec::new();
    for (number, port) in ports.iter().enumerate() {
        let more = match peer {
            Peer::Gr => group_options(number, group_ports),
            _ if number == 0 => vec!["--rpl-semi-sync-source-enabled=ON".to_owned()],
            _ => vec![
                "--plugin-load-add=semisync_replica.so".to_owned(),
                "--rpl-semi-sync-replica-enabled=ON".to_owned(),
                "--super-read-only=ON".to_owned(),
                match peer {
                    Peer::SemisyncDurable => "--sync-relay-log=1".to_owned(),
                    // MySQL's default, which leaves it to the operating system.
                    _ => "--sync-relay-log=10000".to_owned(),
                },
            ],
        };
        let id = number as u32 + 1;
        servers.push(Server::start(&installation, &seed, id, *port, &more).await?);
    }
    match peer {
        Peer::Gr => join_group(&servers).await?,
        _ => follow(&servers).await?,
    }
    servers[0]
        .run(&words(&[
            "CREATE DATABASE app",
            "CREATE USER app@'%' IDENTIFIED BY 'app'",
            "GRANT ALL ON app.* TO app@'%'",
        ]))
        .await?;
    // Without TLS sysbench's client library logs in only with a password that the server remembers.
    drop(Sql::port(servers[0].port).await?);
    Ok(servers)
}

fn words(statements: &[&str]) -> Vec<String> {
    statements.iter().map(|&text| text.to_owned()).collect()
}

/// The account that replicas log in with, not replicated, since each has its own.
fn account() -> Vec<String> {
    words(&[
        "SET sql_log_bin = 0",
        "CREATE USER repl@'%' IDENTIFIED BY 'repl'",
        "GRANT REPLICATION SLAVE, CONNECTION_ADMIN, BACKUP_ADMIN ON *.* TO repl@'%'",
        "SET sql_log_bin = 1",
    ])
}

async fn follow(servers: &[Server]) -> anyhow::Result<()> {
    // Before there is an ACK nothing commits: this must not wait for one.
    servers[0].run(&account()).await?;
    for replica in &servers[1..] {
        let change = format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {}, \
             SOURCE_USER = 'repl', SOURCE_PASSWORD = 'repl', SOURCE_AUTO_POSITION = 1, \
             SOURCE_SSL = 0, GET_SOURCE_PUBLIC_KEY = 1, SOURCE_CONNECT_RETRY = 1",
            servers[0].port
        );
        replica.run(&[change, "START REPLICA".to_owned()]).await?;
    }
    let clients = "SELECT variable_value FROM performance_schema.global_status \
                   WHERE variable_name = 'Rpl_semi_sync_source_clients'";
    let mut count = String::new();
    let joined = wait_for(Duration::from_secs(30), async || {
        count = servers[0].value(clients).await.unwrap_or_default();
        count == "2"
    })
    .await;
    if !joined {
        bail!("the source has {count} semi-sync replicas");
    }
    Ok(())
}

fn group_options(number: usize, ports: &[u16]) -> Vec<String> {
    let seeds: Vec<String> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    vec![
        "--plugin-load-add=group_replication.so".to_owned(),
        "--report-host=127.0.0.1".to_owned(),
        format!("--loose-group-replication-group-name={GROUP}"),
        format!("--loose-group-replication-local-address={}", seeds[number]),
        format!("--loose-group-replication-group-seeds={}", seeds.join(",")),
        "--loose-group-replication-start-on-boot=OFF".to_owned(),
        "--loose-group-replication-single-primary-mode=ON".to_owned(),
        "--loose-group-replication-recovery-get-public-key=ON".to_owned(),
    ]
}

async fn join_group(servers: &[Server]) -> anyhow::Result<()> {
    let channel = "CHANGE REPLICATION SOURCE TO SOURCE_USER = 'repl', SOURCE_PASSWORD = 'repl' \
                   FOR CHANNEL 'group_replication_recovery'";
    for (number, server) in servers.iter().enumerate() {
        let mut statements = account();
        statements.push(channel.to_owned());
        let start = "START GROUP_REPLICATION";
        let bootstrap = "SET GLOBAL group_replication_bootstrap_group";
        if number == 0 {
            statements.push(format!("{bootstrap} = ON"));
            statements.push(start.to_owned());
            statements.push(format!("{bootstrap} = OFF"));
        } else {
            statements.push(start.to_owned());
        }
        server.run(&statements).await?;
    }
    let online = "SELECT COUNT(*) FROM performance_schema.replication_group_members \
                  WHERE member_state = 'ONLINE'";
    let mut count = String::new();
    let whole = wait_for(Duration::from_secs(60), async || {
        count = servers[0].value(online).await.unwrap_or_default();
        count == servers.len().to_string()
    })
    .await;
    if !whole {
        bail!("{count} members of the group are online");
    }
    Ok(())
}
