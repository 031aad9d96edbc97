//! Runs simulations: many seeds, one seed again, named stories, rules left out on purpose.

use std::path::PathBuf;
use std::process::{Command as Process, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use quorate_simulation::Setup;
use quorate_simulation::model::{self, Verdict};
use quorate_simulation::mutation::{self, MUTATIONS};
use quorate_simulation::report::{Summary, Total, failure, html};
use quorate_simulation::run::{Report, run};
use quorate_simulation::scenarios::{self, SCENARIOS};

/// Whole clusters of Quorate in one process and in simulated time, broken on purpose.
#[derive(Parser)]
#[command(name = "sim")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds, each in a process of its own, and sums them up.
    Run {
        /// How many.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 1)]
        from: u64,
        #[command(flatten)]
        options: Options,
    },
    /// Runs one seed again and prints what happened.
    Replay {
        seed: u64,
        /// Writes it as a page too.
        #[arg(long)]
        html: Option<PathBuf>,
        #[command(flatten)]
        options: Options,
    },
    /// Runs seed after seed for a while.
    Soak {
        #[arg(long)]
        minutes: u64,
        /// The first one. Default: a different one each day.
        #[arg(long)]
        from: Option<u64>,
        #[command(flatten)]
        options: Options,
    },
    /// Runs a named story, or `all`, or tells which there are: `list`.
    Scenario {
        name: String,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Leaves a rule out: see `mutations`.
        #[arg(long)]
        mutation: Option<String>,
    },
    /// Leaves rules out, one after the other: each must be missed within its number of seeds.
    Mutations {
        /// One of them; default: all.
        name: Option<String>,
    },
    /// Searches through every state of the model of the rules, and through those with a rule left out.
    Model {
        /// Larger bounds, with all rules: minutes, and gigabytes of memory.
        #[arg(long)]
        large: bool,
    },
    /// What every change is checked with: determinism, stories, mutations, 270 seeds.
    Ci,
    /// One seed, for the process that sums up.
    #[command(hide = true)]
    One {
        seed: u64,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Args, Clone)]
struct Options {
    /// Simulated seconds of faults before everything is healed.
    #[arg(long, default_value_t = 30)]
    chaos: u64,
    /// How many nodes a cluster has.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=7))]
    nodes: u64,
    /// Leaves a rule out: see `mutations`.
    #[arg(long)]
    mutation: Option<String>,
    /// Tells this story instead of faults by chance.
    #[arg(long, hide = true)]
    scenario: Option<String>,
    /// Processes at once. Default: one for each core.
    #[arg(long)]
    jobs: Option<usize>,
}

impl Options {
    /// Of runs that nothing is said about but how long faults last, in seconds.
    const fn of_chaos(chaos: u64) -> Self {
        Self {
            chaos,
            nodes: 3,
            mutation: None,
            scenario: None,
            jobs: None,
        }
    }

    fn setup(&self, seed: u64) -> anyhow::Result<Setup> {
        let mut setup = Setup {
            seed,
            nodes: self.nodes,
            ..Setup::default()
        };
        if let Some(name) = &self.mutation {
            mutation::find(name)
                .with_context(|| format!("no mutation is called `{name}`"))?
                .apply(&mut setup);
        }
        Ok(setup)
    }

    fn run(&self, seed: u64) -> anyhow::Result<Summary> {
        let setup = self.setup(seed)?;
        let Some(name) = &self.scenario else {
            return Ok(Summary::from(&run(&setup, self.chaos())));
        };
        let story = scenarios::find(name).context("no such scenario")?;
        let told = story.run(&setup);
        Ok(Summary {
            seed,
            violation: told.violation.map(|violation| violation.to_string()),
            nodes: told.nodes,
            ..Summary::default()
        })
    }

    fn chaos(&self) -> Duration {
        Duration::from_secs(self.chaos)
    }

    fn to_args(&self) -> Vec<String> {
        let mut args = vec!["--chaos".to_owned(), self.chaos.to_string()];
        if self.nodes != 3 {
            args.extend(["--nodes".to_owned(), self.nodes.to_string()]);
        }
        if let Some(name) = &self.mutation {
            args.extend(["--mutation".to_owned(), name.clone()]);
        }
        if let Some(name) = &self.scenario {
            args.extend(["--scenario".to_owned(), name.clone()]);
        }
        args
    }

    fn jobs(&self) -> usize {
        self.jobs.unwrap_or_else(cores).max(1)
    }
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "off".into()))
        .without_time()
        .with_writer(std::io::stderr)
        .init();
    match carry_out(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Run {
            seeds,
            from,
            options,
        } => run_seeds(&options, from, |done| done < seeds),
        Command::Soak {
            minutes,
            from,
            options,
        } => {
            let until = std::time::Duration::from_secs(minutes * 60);
            let started = now()?;
            let from = from.unwrap_or(started.as_secs() / 86_400 * 1_000_000);
            run_seeds(&options, from, |_| {
                now().is_ok_and(|now| now < started + until)
            })
        }
        Command::Replay {
            seed,
            html: page,
            options,
        } => replay(seed, page, &options),
        Command::One { seed, options } => {
            let summary = options.run(seed)?;
            println!("{}", serde_json::to_string(&summary)?);
            Ok(true)
        }
        Command::Scenario {
            name,
            seed,
            mutation,
        } => scenario(&name, seed, mutation),
        Command::Mutations { name } => mutations(name.as_deref()),
        Command::Model { large } => Ok(model(large)),
        Command::Ci => ci(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "it bounds how long this tool runs; nothing simulated sees it"
)]
fn now() -> anyhow::Result<Duration> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.context("read the clock")
}

fn replay(seed: u64, page: Option<PathBuf>, options: &Options) -> anyhow::Result<bool> {
    let report: Report = run(&options.setup(seed)?, options.chaos());
    for line in &report.trace {
        println!("{line}");
    }
    let summary = Summary::from(&report);
    if let Some(page) = page {
        std::fs::write(&page, html(&report))
            .with_context(|| format!("write {}", page.display()))?;
    }
    let mut total = Total::default();
    total.add(summary);
    print!("{}", total.to_text());
    print_failures(&total, options);
    Ok(report.violation.is_none())
}

/// The options that are not the default ones, as they are written.
fn extra(options: &Options) -> String {
    let args = options.to_args();
    args.iter().map(|arg| format!(" {arg}")).collect()
}

fn commit() -> String {
    let output = Process::new("git")
        .args(["describe", "--always", "--dirty"])
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// One seed in a process of its own.
fn one(seed: u64, options: &Options) -> anyhow::Result<Summary> {
    let program = std::env::current_exe().context("find this program")?;
    let output = Process::new(program)
        .arg("one")
        .arg(seed.to_string())
        .args(options.to_args())
        .stdin(Stdio::null())
        .output()
        .context("start a simulation")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match serde_json::from_str(text.trim()) {
        Ok(summary) => Ok(summary),
        // It panicked: that is a finding as well.
        Err(_) => Ok(Summary {
            seed,
            violation: Some(format!(
                "the simulation ended with {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            )),
            ..Summary::default()
        }),
    }
}

/// Runs seeds from `from` on, while `more` says so of the number that was begun; all went well?
fn run_seeds(
    options: &Options,
    from: u64,
    more: impl Fn(u64) -> bool + Sync,
) -> anyhow::Result<bool> {
    let total = each(options, from, &more, |_| false)?;
    print!("{}", total.to_text());
    Ok(print_failures(&total, options) == 0)
}

/// Prints what failed and how it is run again; how many failed?
fn print_failures(total: &Total, options: &Options) -> u64 {
    let mut failed = 0;
    for run in total.failed() {
        failed += 1;
        print!("{}", failure(run, &commit(), &extra(options)));
    }
    failed
}

/// As cargo's own tests say it, so that whoever counts tests counts these. Did all pass?
fn verdict(what: &str, passed: u64, failed: u64) -> bool {
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed; {what}");
    failed == 0
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does the same work in several threads, until each says that there is no more.
fn beside_each_other(
    jobs: usize,
    work: impl Fn() -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(&work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => bail!("a worker panicked"),
            }
        }
        Ok(())
    })
}

/// Runs seeds, several processes at once, until `enough` says so of one.
fn each(
    options: &Options,
    from: u64,
    more: &(impl Fn(u64) -> bool + Sync),
    enough: impl Fn(&Summary) -> bool + Sync,
) -> anyhow::Result<Total> {
    let begun = AtomicU64::new(0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let total = Mutex::new(Total::default());
    let work = || -> anyhow::Result<()> {
        loop {
            let number = begun.fetch_add(1, Ordering::Relaxed);
            if !more(number) || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let summary = one(from + number, options)?;
            if enough(&summary) {
                stop.store(true, Ordering::Relaxed);
            }
            total
                .lock()
                .expect("no panic while it is held")
                .add(summary);
        }
    };
    beside_each_other(options.jobs(), work)?;
    Ok(total.into_inner().expect("no panic while it was held"))
}

fn scenario(name: &str, seed: u64, mutation: Option<String>) -> anyhow::Result<bool> {
    if name == "list" {
        for story in SCENARIOS {
            println!("{:<48} {}", story.name, story.answers);
        }
        return Ok(true);
    }
    if name != "all" {
        let story = scenarios::find(name)
            .with_context(|| format!("no scenario is called `{name}`: try `list`"))?;
        let options = Options {
            mutation,
            ..Options::of_chaos(0)
        };
        let told = story.run(&options.setup(seed)?);
        for line in &told.trace {
            println!("{line}");
        }
        for line in &told.nodes {
            println!("  {line}");
        }
        match &told.violation {
            None => println!("{name}: as it should be"),
            Some(violation) => println!("{name}: {violation}"),
        }
        return Ok(told.violation.is_none());
    }
    all_scenarios(seed)
}

/// Each in a process of its own.
fn all_scenarios(seed: u64) -> anyhow::Result<bool> {
    let program = std::env::current_exe().context("find this program")?;
    let mut failed = 0;
    for story in SCENARIOS {
        let output = Process::new(&program)
            .args(["scenario", story.name, "--seed", &seed.to_string()])
            .output()
            .context("start a scenario")?;
        let well = output.status.success();
        println!(
            "{} {} ({})",
            if well { "ok    " } else { "FAILED" },
            story.name,
            story.answers
        );
        if !well {
            failed += 1;
            let text = String::from_utf8_lossy(&output.stdout);
            let last: Vec<&str> = text.lines().rev().take(8).collect();
            for line in last.iter().rev() {
                println!("    {line}");
            }
            println!(
                "    again: cargo run --release -p quorate-simulation --bin sim -- scenario {} --seed {seed}",
                story.name
            );
        }
    }
    let passed = SCENARIOS.len() as u64 - failed;
    Ok(verdict("scenarios", passed, failed))
}

/// Whether every mutation, or the one named, is found.
fn mutations(name: Option<&str>) -> anyhow::Result<bool> {
    let chosen: Vec<_> = MUTATIONS
        .iter()
        .filter(|mutation| name.is_none_or(|name| mutation.name == name))
        .collect();
    if chosen.is_empty() {
        bail!("there is no such mutation");
    }
    let (next, missed) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || -> anyhow::Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed) as usize;
            let Some(mutation) = chosen.get(number) else {
                return Ok(());
            };
            if !is_found(mutation)? {
                missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    // One seed of each at a time: mostly the first one finds it.
    beside_each_other(cores(), work)?;
    let missed = missed.into_inner();
    Ok(verdict("mutations", chosen.len() as u64 - missed, missed))
}

/// Whether the oracle misses the rule within the mutation's number of seeds.
fn is_found(mutation: &mutation::Mutation) -> anyhow::Result<bool> {
    let options = Options {
        mutation: Some(mutation.name.to_owned()),
        scenario: mutation.scenario.map(str::to_owned),
        jobs: Some(1),
        ..Options::of_chaos(mutation.chaos_s)
    };
    let enough = |run: &Summary| run.violation.is_some();
    let more = |done| done < mutation.seeds;
    let total = each(&options, mutation.from, &more, enough)?;
    let found = total.failed().min_by_key(|run| run.seed);
    match found {
        Some(run) => {
            let what = run.violation.as_deref().unwrap_or_default();
            let what: String = what.chars().take(160).collect();
            println!("found  {} by seed {}: {what}", mutation.name, run.seed);
        }
        None => println!(
            "MISSED {} in {} seeds: {}",
            mutation.name, mutation.seeds, mutation.leaves_out
        ),
    }
    Ok(found.is_some())
}

/// Every seed's trace twice, each in a new process.
fn determinism(seeds: std::ops::Range<u64>) -> anyhow::Result<bool> {
    let options = Options::of_chaos(10);
    let count = seeds.end - seeds.start;
    let (mut same, from) = (0, seeds.start);
    for seed in seeds {
        let (first, second) = (one(seed, &options)?, one(seed, &options)?);
        if (first.trace_hash, first.trace_lines) == (second.trace_hash, second.trace_lines)
            && first.trace_lines > 0
        {
            same += 1;
        } else {
            println!(
                "seed {seed} gave two traces: {} and {} lines",
                first.trace_lines, second.trace_lines
            );
        }
    }
    let what = format!("seeds from {from} run twice");
    Ok(verdict(&what, same, count - same))
}

/// Whether every search says what it should.
fn model(large: bool) -> bool {
    let (mut passed, mut failed) = (0, 0);
    let mut count = |well: bool| if well { passed += 1 } else { failed += 1 };
    for bounds in if large { model::LARGE } else { model::SMALL } {
        let checked = model::check(bounds, None);
        println!("{bounds}: {checked:#}");
        count(checked.verdict == Verdict::Holds);
    }
    for (omission, bounds) in model::LEFT_OUT.iter().filter(|_| !large) {
        let checked = model::check(bounds, Some(*omission));
        println!("without {omission:?}, {bounds}: {checked:#}");
        count(checked.is_broken());
    }
    verdict("searches", passed, failed)
}

fn ci() -> anyhow::Result<bool> {
    let mut well = determinism(1..4)?;
    well &= all_scenarios(1)?;
    well &= mutations(None)?;
    // Short runs meet every kind of fault; what takes several in a row needs longer ones.
    for (from, seeds, nodes, chaos) in [(1, 200, 3, 10), (1_001, 50, 3, 30), (2_001, 20, 5, 30)] {
        let options = Options {
            nodes,
            ..Options::of_chaos(chaos)
        };
        let total = each(&options, from, &|done| done < seeds, |_| false)?;
        print!("{}", total.to_text());
        let failed = print_failures(&total, &options);
        let what = format!("seeds of {nodes} nodes with {chaos} s of faults");
        well &= verdict(&what, seeds - failed, failed);
        for (what, times, _) in total.rare() {
            if times == 0 {
                println!("no {what} in {seeds} seeds: they show nothing of it");
                well = false;
            }
        }
    }
    Ok(well)
}
