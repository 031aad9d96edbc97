//! Rounds of faults under load; after each everything is healed and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use futures_util::FutureExt;
use quorate_tests::{
    Cluster, Options, PacketFilter, Sql, SqlError, assert_servers_equal, mysql, wait_for,
};
use quorate_types::{NodeId, SplitMix64};
use tokio::time::Instant;

use crate::checks::{Facts, Violation, judge_rows, judge_tables, judge_wholeness};
use crate::faults::{Faults, Kind};
use crate::load::{self, Load, Shared, TOTAL};
use crate::registers;

/// Breaks a cluster of real servers at random, heals it, and checks what clients were promised.
#[derive(Debug, Parser)]
#[command(name = "campaign")]
struct Args {
    /// For how long; a round that has begun is finished.
    #[arg(long, default_value_t = 1)]
    minutes: u64,
    /// The same in seconds, instead.
    #[arg(long, conflicts_with = "minutes")]
    seconds: Option<u64>,
    /// What is broken when follows from it; what that leads to depends on the machine too.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Put each log on a small disk, and have it full at times. Needs root.
    #[arg(long)]
    full_disks: bool,
    /// Lose the packets of links that are cut, in a network of its own, instead of holding their
    /// bytes in relays. Needs root.
    #[arg(long)]
    lose_packets: bool,
    /// How long a healed cluster may take to serve, to be whole and to be equal, in seconds each.
    #[arg(long, default_value_t = 180)]
    patience: u64,
}

const PATIENCE: Duration = Duration::from_secs(20);
/// Small, so that the log is purged all the time and who was away for long is cloned.
const RETENTION: &str =
    "[retention]\nlog_bytes = 33554432\nlog_age_s = 0\nbudget_bytes = 2147483648\n";

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let lasts = Duration::from_secs(args.seconds.unwrap_or(args.minutes * 60));
        // The harness asserts what it promises; a panic has been printed when it arrives here.
        let campaign = AssertUnwindSafe(run(&args, lasts)).catch_unwind();
        let reason = tokio::select! {
            ended = campaign => match ended {
                Ok(Ok(())) => return ExitCode::SUCCESS,
                Ok(Err(Violation(reason))) => reason,
                Err(panic) => panic_text(panic.as_ref()),
            },
            _ = tokio::signal::ctrl_c() => "interrupted".to_owned(),
        };
        println!(
            "\nVIOLATION, seed {}: {reason}\nlogs and data: {}",
            args.seed,
            Cluster::story_folder(&story(args.seed)).display()
        );
        ExitCode::FAILURE
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("see the panic above").to_owned()
}

fn story(seed: u64) -> String {
    format!("campaign-{seed}")
}

struct Campaign {
    cluster: Cluster,
    shared: Shared,
    faults: Faults,
    random: SplitMix64,
    rounds: u64,
    patience: Duration,
}

async fn run(args: &Args, lasts: Duration) -> Result<(), Violation> {
    let program = std::env::current_exe().expect("this program has a path");
    let program = program.to_str().expect("and it is text");
    let mut filter = None;
    if args.lose_packets {
        // Before: it could not be fetched from inside.
        mysql().await;
        filter = Some(PacketFilter::enter().await);
    }
    let options = Options {
        config: RETENTION.to_owned(),
        patience: Duration::from_secs(args.patience),
        ..Options::with_shipped_timing()
    };
    let mut cluster = Cluster::start(&story(args.seed), program, options).await;
    if let Some(filter) = filter {
        cluster.links.lose_packets(filter);
    }
    let mut random = SplitMix64::new(args.seed);
    let mut faults = Faults::new(random.next_u64());
    if args.full_disks {
        faults.put_logs_on_small_disks(&mut cluster).await;
    }
    let mut campaign = Campaign {
        cluster,
        shared: Shared::default(),
        faults,
        random,
        rounds: 0,
        patience: Duration::from_secs(args.patience),
    };
    campaign.until_done(load::prepare).await?;
    let end = Instant::now() + lasts;
    while Instant::now() < end {
        campaign.round().await?;
    }
    campaign.report();
    // They are unmounted as soon as the nodes let go of them.
    campaign.faults.disks.clear();
    campaign.cluster.stop().await;
    Ok(())
}

impl Campaign {
    async fn round(&mut self) -> Result<(), Violation> {
        let (read_write, read_only) = (
            self.cluster.read_write_ports(),
            self.cluster.read_only_ports(),
        );
        let sockets = self.cluster.sockets();
        let load = Load::start(
            &self.shared,
            &read_write,
            &read_only,
            &sockets,
            self.random.next_u64(),
        );
        let lasts = Duration::from_millis(20_000 + self.random.below(10_000));
        let broken = self.faults.round(&mut self.cluster, lasts).await;
        self.faults.heal(&mut self.cluster).await;
        let healed = Instant::now();
        broken?;
        let serves = wait_for(self.patience, async || self.first_after(healed).is_some()).await;
        if !serves {
            return Err(Violation(format!(
                "no commit within {:?} of healing: {}",
                self.patience,
                self.states().await
            )));
        }
        let serves = healed.elapsed();
        self.cluster.wait_until_whole(self.patience).await;
        let whole = healed.elapsed();
        load.finish().await;
        assert_servers_equal(&sockets, self.patience).await;
        self.check().await?;
        self.rounds += 1;
        let rows = self.shared.notes().rows.acknowledged.len();
        self.faults.say(&format!(
            "round {} is right: served after {serves:.1?}, whole after {whole:.1?}, {rows} rows acknowledged so far",
            self.rounds
        ));
        // What was large has been compared; a loaded machine may change its leader even now.
        self.until_done(async |sql| sql.run_within("TRUNCATE TABLE large", PATIENCE).await)
            .await
    }

    /// Works on a session of a cluster without a fault, again if it ends amid that.
    async fn until_done(
        &self,
        work: impl AsyncFn(&mut Sql) -> Result<(), SqlError>,
    ) -> Result<(), Violation> {
        let port = self.cluster.read_write_ports()[0];
        let mut last = None;
        let done = wait_for(self.patience, async || {
            let worked = async {
                let mut sql = Sql::port(port).await?;
                work(&mut sql).await
            };
            last = worked.await.err();
            last.is_none()
        });
        match done.await {
            true => Ok(()),
            false => Err(Violation(format!("a healthy cluster refuses: {last:?}"))),
        }
    }

    fn first_after(&self, moment: Instant) -> Option<Duration> {
        self.shared.notes().rows.first_after(moment)
    }

    async fn states(&self) -> String {
        format!("{:#?}", self.cluster.statuses().await)
    }

    async fn check(&mut self) -> Result<(), Violation> {
        let mut servers = BTreeMap::new();
        for (id, node) in &mut self.cluster.nodes {
            if node.exited(Duration::ZERO).await.is_some() {
                return Err(Violation(format!(
                    "the process of node {id} ended by itself"
                )));
            }
            let facts = facts(&node.socket(), &self.shared).await;
            let facts = facts
                .map_err(|error| Violation(format!("ask the server of node {id}: {error}")))?;
            servers.insert(format!("the server of node {id}"), facts);
            panicked(*id, &node.log())?;
        }
        let mut notes = self.shared.notes();
        let on_sockets = std::mem::take(&mut notes.seen_on_sockets);
        if !self.faults.a_server_was_asked_to_end {
            notes.seen.extend(on_sockets);
        }
        if let Some(wrong) = notes.wrong.first() {
            return Err(Violation(wrong.clone()));
        }
        judge_rows(&notes.rows, &notes.seen, &servers)?;
        judge_wholeness(TOTAL, &servers)?;
        judge_tables(&notes.tables, &servers)?;
        registers::judge(&notes.registers)
    }

    fn report(&self) {
        let notes = self.shared.notes();
        let rows = &notes.rows;
        let counts: Vec<_> = self
            .faults
            .counts
            .iter()
            .map(|(kind, count)| format!("{count} {kind:?}"))
            .collect();
        let faults: u64 = self.faults.counts.values().sum();
        println!(
            "\n{} rounds, {faults} faults: {}",
            self.rounds,
            counts.join(", ")
        );
        println!(
            "rows: {} acknowledged ({} large), {} unknown, {} refused, {} seen by readers; {} operations of registers; \
             {} tables and columns",
            rows.acknowledged.len(),
            notes.large,
            rows.unknown.len(),
            rows.refused.len(),
            notes.seen.len(),
            notes.registers.len(),
            notes.tables.len(),
        );
        let mut all = Vec::new();
        let mut by_kind: BTreeMap<Kind, Vec<Duration>> = BTreeMap::new();
        for (moment, kind) in &self.faults.primaries_struck {
            if let Some(took) = rows.first_after(*moment) {
                all.push(took);
                by_kind.entry(*kind).or_default().push(took);
            }
        }
        println!(
            "from a fault of the primary to the first new commit: {}",
            spread(all)
        );
        for (kind, times) in by_kind {
            println!("  {kind:?}: {}", spread(times));
        }
        println!(
            "longest time without a commit: {:.1?} (checks included)",
            rows.longest_gap()
        );
    }
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let Some(max) = times.last() else {
        return "none".to_owned();
    };
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    format!(
        "p50 {:.2?}, p90 {:.2?}, max {max:.2?} of {}",
        at(50),
        at(90),
        times.len()
    )
}

async fn facts(socket: &std::path::Path, shared: &Shared) -> Result<Facts, SqlError> {
    let mut sql = Sql::socket(socket).await?;
    sql.run("USE app").await?;
    let mut facts = Facts::default();
    for row in sql.rows("SELECT id FROM inserted").await? {
        *facts.rows.entry(number(&row[0])?).or_default() += 1;
    }
    facts.sum = number(&sql.value("SELECT SUM(balance) FROM accounts").await?)?;
    let torn = "SELECT COUNT(*) FROM (SELECT id FROM large GROUP BY id HAVING COUNT(*) <> MAX(parts) \
                OR id NOT IN (SELECT id FROM inserted)) AS torn";
    facts.torn = number(&sql.value(torn).await?)?;
    let columns = "SELECT table_name, column_name FROM information_schema.columns \
                   WHERE table_schema = 'app' AND table_name LIKE 'ddl\\_%'";
    let mut tables = BTreeSet::new();
    for row in sql.rows(columns).await? {
        if row[1] == "extra" {
            tables.insert(format!("{}.extra", row[0]));
        }
        tables.insert(row[0].clone());
    }
    facts.tables = tables;
    let registers = load::read_registers(&mut sql).await?;
    shared.notes().registers.extend(registers);
    Ok(facts)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, SqlError> {
    text.parse()
        .map_err(|_| SqlError::Unknown(format!("`{text}` is no number")))
}

fn panicked(id: NodeId, log: &std::path::Path) -> Result<(), Violation> {
    let log = std::fs::read(log).expect("read the log");
    let log = String::from_utf8_lossy(&log);
    match log.lines().find(|line| line.contains("panicked at")) {
        Some(line) => Err(Violation(format!("node {id}: {line}"))),
        None => Ok(()),
    }
}
