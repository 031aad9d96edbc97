use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::versus::{Peer, Run};

/// A median with the lowest and the highest.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => *sorted.get(middle)?,
            _ => (sorted.get(middle.checked_sub(1)?)? + sorted.get(middle)?) / 2.0,
        };
        Some(Self {
            low: *sorted.first()?,
            median,
            high: *sorted.last()?,
        })
    }
}

pub(crate) fn line(run: &Run) -> String {
    let report = &run.report;
    format!(
        "{:<16} {:>3} threads {:>8.0}/s   p50 {:>7.2}  p95 {:>7.2}  p99 {:>7.2} ms   replicas done {:>5.1} s later",
        run.script,
        run.threads,
        report.transactions_per_second,
        report.percentile_ms(50.0),
        report.percentile_ms(95.0),
        report.percentile_ms(99.0),
        run.caught_up_after.as_secs_f64(),
    )
}

/// What a row of a table is about.
type Case = (String, u32);

fn cases(runs: &[Run]) -> BTreeMap<Case, Vec<&Run>> {
    let mut cases: BTreeMap<Case, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        let case = (run.script.clone(), run.threads);
        cases.entry(case).or_default().push(run);
    }
    cases
}

fn peers(runs: &[&Run]) -> Vec<Peer> {
    let mut peers: Vec<Peer> = runs.iter().map(|run| run.peer).collect();
    peers.sort_unstable();
    peers.dedup();
    peers
}

/// Of every system: the median of its rounds, with the lowest and the highest throughput.
pub(crate) fn throughput(runs: &[Run]) -> String {
    let mut text = format!(
        "{:<16} {:>7} {:<16} {:>8} {:>19} {:>8} {:>8} {:>8}\n",
        "script", "threads", "system", "per s", "lowest .. highest", "p50 ms", "p95 ms", "p99 ms"
    );
    for ((script, threads), runs) in cases(runs) {
        for peer in peers(&runs) {
            let of = |value: &dyn Fn(&Run) -> f64| {
                let values: Vec<f64> = runs
                    .iter()
                    .filter(|run| run.peer == peer)
                    .map(|run| value(run))
                    .collect();
                Spread::of(&values).expect("a peer of these runs has one")
            };
            let rate = of(&|run| run.report.transactions_per_second);
            let percentile = |percent| of(&|run| run.report.percentile_ms(percent)).median;
            let _ = writeln!(
                text,
                "{script:<16} {threads:>7} {peer:<16} {:>8.0} {:>8.0} .. {:>7.0} {:>8.2} {:>8.2} {:>8.2}",
                rate.median,
                rate.low,
                rate.high,
                percentile(50.0),
                percentile(95.0),
                percentile(99.0),
            );
        }
    }
    text
}

/// Quorate's throughput by each peer's, of the same round.
pub(crate) fn ratios(runs: &[Run], value: fn(&Run) -> f64) -> String {
    let mut text = String::new();
    for ((script, threads), runs) in cases(runs) {
        let rate = |peer: Peer, round: usize| {
            runs.iter()
                .find(|run| run.peer == peer && run.round == round)
                .map(|run| value(run))
        };
        for peer in peers(&runs) {
            if peer == Peer::Quorate {
                continue;
            }
            let rounds = runs.iter().filter(|run| run.peer == peer);
            let values: Vec<f64> = rounds
                .filter_map(|run| Some((run, rate(Peer::Quorate, run.round)?)))
                .map(|(run, ours)| ours / value(run))
                .collect();
            if let Some(ratio) = Spread::of(&values) {
                let _ = writeln!(
                    text,
                    "{script:<16} {threads:>7} quorate / {peer:<16} {:.2} ({:.2} .. {:.2}, {} rounds)",
                    ratio.median,
                    ratio.low,
                    ratio.high,
                    values.len(),
                );
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = |values: &[f64]| Spread::of(values).map(|s| (s.low, s.median, s.high));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[2.0]), Some((2.0, 2.0, 2.0)));
        assert_eq!(spread(&[3.0, 1.0]), Some((1.0, 2.0, 3.0)));
        assert_eq!(spread(&[3.0, 9.0, 1.0]), Some((1.0, 3.0, 9.0)));
    }
}
