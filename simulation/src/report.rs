//! What runs came to, for people: one run's failure, the sum of many, a readable timeline.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::run::Report;

/// One run in short, as a process tells it to the one that started it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    pub seed: u64,
    pub simulated_ms: u64,
    pub committed: u64,
    pub read: u64,
    pub refused: u64,
    pub unknown: u64,
    pub partitions: u64,
    pub crashes: u64,
    pub server_faults: u64,
    pub slow: u64,
    pub orders: u64,
    pub stalls: u64,
    pub log_disks: u64,
    pub purges: u64,
    pub snapshots: u64,
    pub clones: u64,
    pub changes: u64,
    pub in_parts: u64,
    pub missing: u64,
    /// How long no gate passed writes, each time, in simulated milliseconds.
    pub pauses_ms: Vec<u64>,
    /// A number that two runs share if their traces are equal.
    pub trace_hash: u64,
    pub trace_lines: u64,
    pub violation: Option<String>,
    pub nodes: Vec<String>,
}

impl From<&Report> for Summary {
    fn from(report: &Report) -> Self {
        let ms = |time: &Duration| time.as_millis() as u64;
        Self {
            seed: report.seed,
            simulated_ms: ms(&report.simulated),
            committed: report.counts.committed,
            read: report.counts.read,
            refused: report.counts.refused,
            unknown: report.counts.unknown,
            partitions: report.faults.partitions,
            crashes: report.faults.crashes,
            server_faults: report.faults.server_faults,
            slow: report.faults.slow,
            orders: report.faults.orders,
            stalls: report.faults.stalls,
            log_disks: report.faults.log_disks,
            purges: report.rare.purges,
            snapshots: report.rare.snapshots,
            clones: report.rare.clones,
            changes: report.rare.changes,
            in_parts: report.rare.in_parts,
            missing: report.rare.missing,
            pauses_ms: report.pauses.iter().map(ms).collect(),
            trace_hash: hash(&report.trace),
            trace_lines: report.trace.len() as u64,
            violation: report.violation.as_ref().map(ToString::to_string),
            nodes: report.nodes.clone(),
        }
    }
}

/// FNV-1a: equal in every process and on every machine.
fn hash(lines: &[String]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in lines.iter().flat_map(|line| line.bytes().chain([b'\n'])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    hash
}

/// The sum of many runs.
#[derive(Clone, Debug, Default)]
pub struct Total {
    runs: Vec<Summary>,
}

impl Total {
    pub fn add(&mut self, run: Summary) {
        self.runs.push(run);
    }

    pub fn failed(&self) -> impl Iterator<Item = &Summary> {
        self.runs.iter().filter(|run| run.violation.is_some())
    }

    /// What runs must come to now and then, how often it did, and in how many runs.
    #[must_use]
    pub fn rare(&self) -> [(&'static str, u64, usize); 6] {
        type Count = fn(&Summary) -> u64;
        let kinds: [(&'static str, Count); 6] = [
            ("purges", |run| run.purges),
            ("snapshots taken over", |run| run.snapshots),
            ("clones", |run| run.clones),
            ("changes of members", |run| run.changes),
            ("transactions seen in parts", |run| run.in_parts),
            ("rows looked for in vain", |run| run.missing),
        ];
        kinds.map(|(what, of)| {
            let each = self.runs.iter().map(of);
            let runs = each.clone().filter(|times| *times > 0).count();
            (what, each.sum(), runs)
        })
    }

    /// The numbers, in lines.
    #[must_use]
    pub fn to_text(&self) -> String {
        let sum = |of: fn(&Summary) -> u64| self.runs.iter().map(of).sum::<u64>();
        let mut pauses: Vec<u64> = self
            .runs
            .iter()
            .flat_map(|run| run.pauses_ms.iter().copied())
            .collect();
        pauses.sort_unstable();
        let at = |part: f64| {
            let last = pauses.len().checked_sub(1);
            last.map_or(0, |last| pauses[(last as f64 * part).round() as usize])
        };
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{} seeds, {:.2} simulated hours: {} commits, {} reads, {} refused, {} of unknown outcome",
            self.runs.len(),
            sum(|run| run.simulated_ms) as f64 / 3_600_000.0,
            sum(|run| run.committed),
            sum(|run| run.read),
            sum(|run| run.refused),
            sum(|run| run.unknown),
        );
        let _ = writeln!(
            text,
            "faults: {} of links, {} crashes and losses of power, {} of servers, {} slow servers, {} of log \
             disks, {} machines that stood still; {} orders of an operator",
            sum(|run| run.partitions),
            sum(|run| run.crashes),
            sum(|run| run.server_faults),
            sum(|run| run.slow),
            sum(|run| run.log_disks),
            sum(|run| run.stalls),
            sum(|run| run.orders),
        );
        let rare = self
            .rare()
            .map(|(what, sum, runs)| format!("{sum} {what} (in {runs} seeds)"));
        let _ = writeln!(text, "came to: {}", rare.join(", "));
        let _ = writeln!(
            text,
            "times without a primary: {}; p50 {} ms, p90 {} ms, p99 {} ms, longest {} ms of simulated time",
            pauses.len(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0),
        );
        text
    }
}

/// A failure, with the one command that shows it again. `options` are the run's own.
#[must_use]
pub fn failure(run: &Summary, commit: &str, options: &str) -> String {
    let mut text = format!(
        "seed {} broke a promise: {}\nsource: commit {commit}\n",
        run.seed,
        run.violation.as_deref().unwrap_or("none")
    );
    for node in &run.nodes {
        let _ = writeln!(text, "  {node}");
    }
    let _ = writeln!(
        text,
        "again: cargo run --release -p quorate-simulation --bin sim -- replay {}{options}",
        run.seed
    );
    text
}

/// The trace as one page: faults, healing, changes of the primary, and clients in colours.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut page = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>Quorate simulation</title><style>\
         body{font:13px/1.4 monospace;margin:1em}div{white-space:pre-wrap}.fault{color:#b00}\
         .heal{color:#070}.serve{color:#00b;font-weight:bold}.client{color:#888}\
         .bad{background:#b00;color:#fff}</style>",
    );
    let _ = write!(page, "<h1>Seed {}</h1>", report.seed);
    if let Some(violation) = &report.violation {
        let _ = write!(page, "<div class=bad>{}</div>", escape(&violation.0));
    }
    for line in &report.trace {
        let class = match line.get(10..).unwrap_or_default() {
            text if text.starts_with("FAULT") => "fault",
            text if text.starts_with("HEAL") => "heal",
            text if text.contains("VIOLATION") => "bad",
            text if text.contains("serve") => "serve",
            text if text.starts_with("client") => "client",
            _ => "other",
        };
        let _ = write!(page, "<div class={class}>{}</div>", escape(line));
    }
    for node in &report.nodes {
        let _ = write!(page, "<div>{}</div>", escape(node));
    }
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_tells_the_quantiles_and_who_failed() {
        let mut total = Total::default();
        for seed in 1..=5 {
            total.add(Summary {
                seed,
                pauses_ms: vec![seed * 100],
                violation: (seed == 3).then(|| "lost".to_owned()),
                ..Summary::default()
            });
        }
        assert!(
            total.to_text().contains("p50 300 ms"),
            "{}",
            total.to_text()
        );
        let failed: Vec<u64> = total.failed().map(|run| run.seed).collect();
        assert_eq!(failed, [3]);
    }
}
