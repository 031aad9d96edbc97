use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use quorate_tests::SysbenchReport;
use tokio::signal::unix::{SignalKind, signal};

use crate::machine;
use crate::system::System;
use crate::table;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Peer {
    /// A source and two replicas, `AFTER_SYNC`, one ACK.
    Semisync,
    /// The same, with replicas that sync what they acknowledge (`sync_relay_log=1`), as Quorate does.
    SemisyncDurable,
    /// Single-primary group replication of three.
    Gr,
    /// Three nodes, through the read-write port of the primary's node.
    Quorate,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Semisync => "semisync",
            Self::SemisyncDurable => "semisync-durable",
            Self::Gr => "gr",
            Self::Quorate => "quorate",
        })
    }
}

/// Runs the same sysbench against each system, three fresh servers each, in alternating order, and
/// prints throughput, latencies, and Quorate's ratio to each peer.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long, value_delimiter = ',', default_value = "semisync,gr,quorate")]
    peers: Vec<Peer>,
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    threads: Vec<u32>,
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "oltp_insert,oltp_write_only"
    )]
    scripts: Vec<String>,
    /// Length of each run.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// How often each system is started fresh and measured. Fewer than three say little.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// One run of sysbench.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) round: usize,
    pub(crate) peer: Peer,
    pub(crate) script: String,
    pub(crate) threads: u32,
    pub(crate) report: SysbenchReport,
    pub(crate) length: Duration,
    /// How long the replicas took after the run to execute all of it.
    pub(crate) caught_up_after: Duration,
}

impl Run {
    pub(crate) fn per_second(&self) -> f64 {
        self.report.transactions_per_second
    }

    /// What the system as a whole took: until the last replica had it all.
    pub(crate) fn per_second_everywhere(&self) -> f64 {
        let length = self.length.as_secs_f64();
        self.per_second() * length / (length + self.caught_up_after.as_secs_f64())
    }
}

/// The benchmark's `main`.
#[must_use]
pub fn versus() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = runtime
        .context("start the runtime")
        .and_then(|runtime| runtime.block_on(compare_until_told_to_end(&args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("versus: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The servers have sessions of their own, so that no signal of a terminal reaches them: they end with
/// what holds them.
async fn compare_until_told_to_end(args: &Args) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    tokio::select! {
        done = compare(args) => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminated.recv() => bail!("told to end"),
    }
}

async fn compare(args: &Args) -> anyhow::Result<()> {
    println!("{}", machine::describe()?);
    let mut runs = Vec::new();
    let mut memory_kib = Vec::new();
    for round in 0..args.rounds {
        // Whoever is first has the cooler machine: let that be another one each time.
        let mut order = args.peers.clone();
        if !order.is_empty() {
            let by = round % order.len();
            order.rotate_left(by);
        }
        for peer in order {
            println!("round {}: {peer} ({})", round + 1, machine::load());
            let system = System::start(peer).await?;
            for script in &args.scripts {
                for threads in &args.threads {
                    let length = Duration::from_secs(args.seconds);
                    let report = system.measure(script, *threads, length).await;
                    // The next run does not begin with this one's backlog either.
                    let caught_up_after = system.catch_up().await?;
                    let run = Run {
                        round,
                        peer,
                        script: script.clone(),
                        threads: *threads,
                        report,
                        length,
                        caught_up_after,
                    };
                    println!("  {}", table::line(&run));
                    runs.push(run);
                }
            }
            memory_kib.extend(system.peak_memory_kib());
            system.stop().await;
        }
    }
    println!("\n{}", table::throughput(&runs));
    println!("{}", table::ratios(&runs, Run::per_second));
    println!("until the last replica has executed it all:");
    println!("{}", table::ratios(&runs, Run::per_second_everywhere));
    if let Some(peak) = memory_kib.iter().max() {
        println!("peak memory of a sidecar: {} MiB (VmHWM)", peak >> 10);
    }
    println!("at the end: {}", machine::load());
    Ok(())
}
