//! `quorate node`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use quorate_mysqld::{
    FindOptions, Host, Installation, LocalHost, LocalHostOptions, NoServer, Seed, Settings,
    default_cache, find_or_fetch, prepare_seed,
};
use quorate_net::TokioNet;
use quorate_node::config::{Config, Secrets};
use quorate_node::{Node, Parts};
use quorate_storage::{Options, SledDisk};
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::NodeArgs;

/// Before others on the machine, as far as it is allowed: every commit waits for the sidecars, a
/// lease ends when heartbeats are late, and what they need of a processor is little.
const NICE: i32 = -10;

/// How long the ports' sessions may take to end with the process.
const DRAIN: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &NodeArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let secrets = Secrets::load(&config.secrets)?;
    quorate_node::telemetry::init(&config.log)?;
    let main = Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .thread_name("quorate")
        .build()?;
    if args.own_session {
        // Fails where it leads a group of processes, so where a service manager or a shell gave it
        // what it needs.
        let _ = rustix::process::setsid();
    }
    prefer_session();
    let raft = RaftThread::start()?;
    let result = main.block_on(serve(config, secrets, args.bootstrap, &raft.handle));
    raft.stop();
    main.shutdown_timeout(DRAIN);
    result
}

/// Threads that serve clients and replicas: as many as half of the processors. The rest are for the
/// server, and each of these that is woken wakes another to look for more to do.
fn workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors.div_ceil(2)
}

/// Linux shares processors out between sessions first (`sched_autogroup_enabled`), and between their
/// threads then. A session that others may be in is left as it is.
fn prefer_session() {
    if std::fs::read_to_string("/proc/self/stat").is_ok_and(|stat| leads_session(&stat)) {
        // Not allowed, or no such thing here: nothing but time depends on it.
        let _ = std::fs::write("/proc/self/autogroup", NICE.to_string());
    }
}

/// Whether a process leads its session, from its line in `/proc` (`proc_pid_stat(5)`). The session
/// is 0 for one that was begun outside of the container, which `rustix`'s `getsid` panics at.
fn leads_session(stat: &str) -> bool {
    // The name between may hold anything, also brackets and spaces.
    let ends = (stat.split_once(" ("), stat.rsplit_once(") "));
    let (Some((id, _)), Some((_, rest))) = ends else {
        return false;
    };
    rest.split(' ').nth(3) == Some(id)
}

/// Raft's runtime: one thread, so that its tasks wake each other without a system call.
struct RaftThread {
    handle: Handle,
    stop: tokio::sync::oneshot::Sender<()>,
    ended: std::thread::JoinHandle<()>,
}

impl RaftThread {
    fn start() -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name("raft-blocking")
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let ended = std::thread::Builder::new()
            .name("raft".to_owned())
            .spawn(move || {
                // Of this thread and those that it starts. Again, nothing but time depends on it.
                let _ = rustix::process::setpriority_process(None, NICE);
                // A sender that is gone ends it too.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_timeout(DRAIN);
            })?;
        Ok(Self {
            handle,
            stop,
            ended,
        })
    }

    fn stop(self) {
        drop(self.stop);
        if self.ended.join().is_err() {
            tracing::error!("Raft's thread panicked");
        }
    }
}

async fn serve(
    config: Config,
    secrets: Secrets,
    bootstrap: bool,
    raft: &Handle,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let start = start(config, secrets, bootstrap, raft);
    let mut node = tokio::select! {
        biased;
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
        node = start => node?,
    };
    tokio::select! {
        biased;
        fatal = node.failed() => Err(fatal).context("this node can no longer keep its promises"),
        _ = terminate.recv() => {
            tracing::info!("asked to stop");
            node.stop().await;
            Ok(())
        }
        _ = interrupt.recv() => {
            tracing::info!("interrupted");
            node.stop().await;
            Ok(())
        }
    }
}

async fn start(
    config: Config,
    secrets: Secrets,
    bootstrap: bool,
    raft: &Handle,
) -> anyhow::Result<Node> {
    // What both need is the same type with another host in it.
    let started = match config.witness {
        true => {
            let parts = witness_parts(&config, raft)?;
            Box::pin(Node::start(config, secrets, parts, bootstrap)).await
        }
        false => {
            let parts = server_parts(&config, raft).await?;
            Box::pin(Node::start(config, secrets, parts, bootstrap)).await
        }
    };
    started.context("start the node")
}

/// What a command works with that needs a node's folders while the node does not run.
pub(crate) async fn offline_parts(
    config: &Config,
) -> anyhow::Result<Parts<TokioNet, LocalHost, SledDisk>> {
    server_parts(config, &Handle::current()).await
}

/// The real network and disk, and no server.
fn witness_parts(
    config: &Config,
    raft: &Handle,
) -> anyhow::Result<Parts<TokioNet, NoServer, SledDisk>> {
    let host = NoServer::new(config.mysql_dir());
    let settings = Settings::new(server_id(config), 0, config.mysqld.socket.clone());
    let parts = parts(config, raft, host, settings, String::new())?;
    Ok(Parts {
        disk_probe: None,
        ..parts
    })
}

/// Where to look for a mysqld.
pub(crate) fn find_options(config: &Config) -> FindOptions {
    let named = config.mysqld.program.clone();
    FindOptions {
        explicit: named.or_else(|| std::env::var_os("QUORATE_MYSQLD").map(PathBuf::from)),
        cache: default_cache(),
    }
}

/// This machine, with the node's folders.
pub(crate) fn host(
    config: &Config,
    installation: Installation,
    seed: Seed,
) -> anyhow::Result<LocalHost> {
    Ok(LocalHost::new(LocalHostOptions {
        installation,
        seed,
        launcher: std::env::current_exe().context("find this program's own file")?,
        data_folder: config.mysql_dir(),
        cut_folder: config.dir.join("cut"),
        log_file: config.dir.join("mysqld.log"),
        pid_file: config.mysqld_pid_file(),
        manager: config.service_manager(),
    }))
}

/// The real network, server and disk.
async fn server_parts(
    config: &Config,
    raft: &Handle,
) -> anyhow::Result<Parts<TokioNet, LocalHost, SledDisk>> {
    let cache = default_cache();
    let find = find_options(config);
    let installation = find_or_fetch(&find, &|what| tracing::info!("{what}")).await?;
    let seed = prepare_seed(&installation, &cache).await?;
    let server_version = installation.version.to_string();
    let host = host(config, installation, seed)?;
    let mut settings = Settings::new(
        server_id(config),
        config.mysqld.port,
        config.mysqld.socket.clone(),
    );
    settings.buffer_pool_bytes = bytes(&config.mysqld.buffer_pool)?;
    settings.replica_parallel_workers = config.mysqld.parallel_workers();
    settings.extra.clone_from(&config.mysqld.extra);
    if let Some(refused) = settings.refused_extra() {
        anyhow::bail!("mysqld.extra: {refused} is what Quorate decides");
    }
    parts(config, raft, host, settings, server_version)
}

fn parts<H: Host>(
    config: &Config,
    raft: &Handle,
    host: H,
    settings: Settings,
    server_version: String,
) -> anyhow::Result<Parts<TokioNet, H, SledDisk>> {
    let raft_dir = config.raft_dir();
    let options = Options {
        cache_bytes: config.log.cache_bytes,
        ..Options::default()
    };
    std::fs::create_dir_all(&raft_dir).with_context(|| format!("make {}", raft_dir.display()))?;
    Ok(Parts {
        net: TokioNet,
        host,
        open_log: Box::new(move || SledDisk::open(&raft_dir, &options)),
        exec: quorate_consensus::Exec::WriterThread,
        raft: raft.clone(),
        seed: seed_of_the_system()?,
        settings,
        server_version,
        wall_clock: Arc::new(wall_clock),
        capture: quorate_node::CaptureOptions::default(),
        left_out: None,
        disk_probe: Some(config.dir.join("disk-probe")),
    })
}

/// Unlike every other node's; the low numbers are left to servers that exist.
pub(crate) fn server_id(config: &Config) -> u32 {
    1000 + config.node.0 as u32
}

#[expect(
    clippy::disallowed_methods,
    reason = "the binary is where the real clock comes in"
)]
fn wall_clock() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn seed_of_the_system() -> anyhow::Result<u64> {
    use std::io::Read;
    let mut seed = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut seed))
        .context("read /dev/urandom")?;
    Ok(u64::from_le_bytes(seed))
}

/// A number with K, M or G, as MySQL writes sizes.
fn bytes(text: &str) -> anyhow::Result<u64> {
    let (number, unit) = match text.to_ascii_uppercase().chars().last() {
        Some('K') => (&text[..text.len() - 1], 1 << 10),
        Some('M') => (&text[..text.len() - 1], 1 << 20),
        Some('G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = number
        .parse()
        .with_context(|| format!("mysqld.buffer_pool: `{text}` is no size"))?;
    Ok(number * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leads_a_session_is_read_from_its_line() {
        let own = [
            "12 (quorate) S 1 12 12 34816 12",
            "12 (a) S (b) S 1 12 12 0 -1",
        ];
        let not = [
            "12 (quorate) S 1 12 7 34816 12",
            "12 (of a session outside) S 0 0 0 0 -1",
            "12 (1 1 12 12) S 1 12 7 0 -1",
            "12 (torn) S 1",
            "12",
            "",
        ];
        assert!(own.iter().all(|stat| leads_session(stat)));
        assert!(!not.iter().any(|stat| leads_session(stat)));
    }

    #[test]
    fn the_line_of_a_real_leader_is_understood() {
        let output = std::process::Command::new("setsid")
            .args(["--wait", "cat", "/proc/self/stat"])
            .output()
            .expect("run setsid");
        let stat = String::from_utf8_lossy(&output.stdout);
        assert!(leads_session(&stat), "{stat}");
    }
}
