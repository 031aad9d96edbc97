//! `quorate demo`: a whole cluster on this machine, in the foreground.

mod folder;
mod nodes;
mod report;

use std::time::Duration;

use anyhow::{Context, bail};
use quorate_mysql_wire::{ConnectOptions, Connection};
use quorate_mysqld::{FindOptions, default_cache, find_or_fetch};
use quorate_net::{Endpoint, Net, TokioNet};

use crate::args::DemoArgs;
use folder::Folder;
use nodes::Nodes;
use report::Progress;

/// How long the cluster may take to come up: a slow machine makes data folders first.
const START_WAIT: Duration = Duration::from_secs(180);
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Where node `id` has its ports. The order is what scripts rely on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    first: u16,
}

impl Ports {
    fn of(base: u16, id: u16) -> Self {
        Self {
            first: base + 10 * id,
        }
    }

    pub(crate) fn at(self, purpose: Port) -> String {
        format!("127.0.0.1:{}", self.number(purpose))
    }

    pub(crate) fn number(self, purpose: Port) -> u16 {
        self.first + purpose as u16
    }
}

/// What a port is for, as an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    ReadWrite = 0,
    ReadOnly = 1,
    Feed = 2,
    Grpc = 3,
    Http = 4,
    Mysqld = 5,
    Gate = 6,
}

impl Port {
    const ALL: [Self; 7] = [
        Self::ReadWrite,
        Self::ReadOnly,
        Self::Feed,
        Self::Grpc,
        Self::Http,
        Self::Mysqld,
        Self::Gate,
    ];
}

pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let ids: Vec<u16> = (1..=args.nodes).collect();
    let folder = Folder::open(args.dir.as_deref(), args.fresh)?;
    let new = folder.is_new();
    ports_are_free(args.base_port, &ids, &folder).await?;
    let mut progress = Progress::new();

    let options = FindOptions {
        explicit: args.mysqld.clone(),
        cache: default_cache(),
    };
    let installation = find_or_fetch(&options, &|line| println!("  {line}"))
        .await
        .context("get a MySQL server")?;
    println!(
        "MySQL {} in {}",
        installation.version,
        installation.executable().display()
    );
    folder.write_configs(args.base_port, &ids, args.mysqld.as_deref())?;

    println!(
        "Starting {} nodes in {}",
        ids.len(),
        folder.path().display()
    );
    let mut nodes = Nodes::start(&folder, &ids, new)?;
    let ended = tokio::select! {
        biased;
        signal = stop_signal() => signal,
        ended = bring_up_and_watch(&args, &folder, &mut nodes, &mut progress) => ended,
    };
    println!("\nStopping the cluster …");
    nodes.stop().await;
    ended
}

async fn stop_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        biased;
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = term.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

async fn bring_up_and_watch(
    args: &DemoArgs,
    folder: &Folder,
    nodes: &mut Nodes,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + START_WAIT;
    let primary = loop {
        if let Some((id, status)) = nodes.first_exit() {
            let log = folder.node(id).join("quorate.log");
            bail!(
                "node {id} ended ({status}) while the cluster came up: see {}",
                log.display()
            );
        }
        let views = report::ask_all(args.base_port, args.nodes).await;
        progress.show(&views);
        if let Some(primary) = report::all_up(&views) {
            break primary;
        }
        if tokio::time::Instant::now() > deadline {
            let wait = START_WAIT.as_secs();
            bail!(
                "the cluster did not come up in {wait} s: see {}",
                folder.path().display()
            );
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    };
    progress.done();
    create_app(&folder.node(primary).join("mysql.sock")).await?;
    report::print_endpoints(args.base_port, args.nodes, folder.path());
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        for (id, status) in nodes.newly_ended() {
            let config = folder.node(id).join("node.toml");
            println!("Node {id} ended ({status}). The demo does not restart it; to do so:");
            println!("  quorate node --config {}", config.display());
        }
        progress.show_changes(&report::ask_all(args.base_port, args.nodes).await);
    }
}

/// The demo's database and user, made on the primary so that they are replicated. In a demo that
/// was started before they are there already.
async fn create_app(socket: &std::path::Path) -> anyhow::Result<()> {
    let work = async {
        let io = TokioNet.connect(&Endpoint::Unix(socket.to_owned())).await?;
        let options = ConnectOptions {
            user: "root".to_owned(),
            secure_transport: true,
            ..ConnectOptions::default()
        };
        let mut connection = Connection::connect(io, &options).await?;
        for statement in [
            "CREATE DATABASE IF NOT EXISTS app",
            "CREATE USER IF NOT EXISTS app@'%' IDENTIFIED BY 'app'",
            "GRANT ALL ON app.* TO app@'%'",
        ] {
            connection.execute(statement).await?;
        }
        connection.close().await?;
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), work)
        .await
        .context("no majority took the demo's user within 30 s")?
        .context("make the database and the user `app`")
}

/// Every port is tried before anything is started: half a cluster would be worse than none.
async fn ports_are_free(base: u16, ids: &[u16], folder: &Folder) -> anyhow::Result<()> {
    let mut taken = Vec::new();
    for id in ids {
        for purpose in Port::ALL {
            // A server outlives a node that was killed; the node adopts or ends it.
            if purpose == Port::Mysqld && folder.server_runs(*id) {
                continue;
            }
            let address = Ports::of(base, *id).at(purpose);
            if let Err(error) = TokioNet.listen(&Endpoint::Tcp(address)).await {
                taken.push(format!("  node {id}, {purpose:?}: {error}"));
            }
        }
    }
    if !taken.is_empty() {
        bail!(
            "these ports cannot be used:\n{}\nIs another demo running? Else choose others with \
             --base-port.",
            taken.join("\n")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use quorate_net::{Net, TokioNet};

    use super::{Folder, Port, Ports, ports_are_free};

    #[test]
    fn ports_are_where_scripts_expect_them() {
        let node_2 = Ports::of(7000, 2);
        let numbers = Port::ALL.map(|purpose| node_2.number(purpose));
        assert_eq!(numbers, [7020, 7021, 7022, 7023, 7024, 7025, 7026]);
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let held = TokioNet
            .listen(&"127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let port = held.local.port().unwrap();
        // The held port is then node 1's read-write port.
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(Some(home.path()), false).unwrap();
        let error = ports_are_free(port - 10, &[1], &folder)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("127.0.0.1:{port} is in use")),
            "{error}"
        );
    }
}
