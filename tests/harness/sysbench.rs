use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use quorate_mysqld::PackageTree;
use tokio::time::Instant;

use crate::tools;

/// How sysbench reaches the server, and what it works on.
#[derive(Clone, Debug)]
pub struct Sysbench {
    tree: PackageTree,
    /// `--mysql-…` options.
    connect: Vec<String>,
    pub tables: u32,
    pub table_size: u32,
    pub threads: u32,
}

/// What a run printed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SysbenchReport {
    pub transactions: u64,
    pub transactions_per_second: f64,
    /// Statements that failed and were let pass, a lost connection among them.
    pub errors_ignored: u64,
    pub reconnects: u64,
    /// Upper bounds in milliseconds with how many transactions took so long, ascending.
    pub latencies: Vec<(f64, u64)>,
}

impl SysbenchReport {
    /// The latency in milliseconds that so many of a hundred transactions did not exceed.
    #[must_use]
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        let total: u64 = self.latencies.iter().map(|(_, count)| count).sum();
        let wanted = total as f64 * percent / 100.0;
        let mut seen = 0;
        for (milliseconds, count) in &self.latencies {
            seen += count;
            if seen as f64 >= wanted {
                return *milliseconds;
            }
        }
        0.0
    }

    /// Reads what sysbench prints at the end of a run.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut report = Self::default();
        for line in text.lines() {
            let line = line.trim();
            if let Some((milliseconds, rest)) = line.split_once(" |") {
                let count = rest.trim_start_matches(['*', ' ']).parse();
                if let (Ok(milliseconds), Ok(count)) = (milliseconds.trim().parse(), count) {
                    report.latencies.push((milliseconds, count));
                }
                continue;
            }
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let first = value.split_whitespace().next().unwrap_or_default();
            match name {
                "transactions" => {
                    report.transactions = first.parse().unwrap_or_default();
                    let rate = value
                        .split_once('(')
                        .and_then(|(_, rate)| rate.split_whitespace().next());
                    report.transactions_per_second =
                        rate.and_then(|rate| rate.parse().ok()).unwrap_or_default();
                }
                "ignored errors" => report.errors_ignored = first.parse().unwrap_or_default(),
                "reconnects" => report.reconnects = first.parse().unwrap_or_default(),
                _ => {}
            }
        }
        report
    }
}

impl Sysbench {
    async fn new(connect: Vec<String>) -> Self {
        Self {
            tree: tools::debian_tool("sysbench").await,
            connect,
            tables: 4,
            table_size: 1000,
            threads: 8,
        }
    }

    /// Through a port of loopback, as the user `app` in the database `app`.
    pub async fn port(port: u16) -> Self {
        Self::new(vec![
            "--mysql-host=127.0.0.1".to_owned(),
            format!("--mysql-port={port}"),
            "--mysql-user=app".to_owned(),
            "--mysql-password=app".to_owned(),
            "--mysql-db=app".to_owned(),
        ])
        .await
    }

    /// Runs `step` (prepare, run) of `script` with its output in `log`.
    ///
    /// # Panics
    /// If sysbench cannot be started.
    pub fn start(&self, script: &str, step: &str, more: &[String], log: &Path) -> Running {
        let file = File::create(log).expect("make the log of sysbench");
        let mut command: Command = self.tree.tool("sysbench");
        command
            // By name it would look in the folder that the package is usually installed in.
            .arg(
                self.tree
                    .root()
                    .join("usr/share/sysbench")
                    .join(format!("{script}.lua")),
            )
            .args(&self.connect)
            .args([
                format!("--tables={}", self.tables),
                format!("--table-size={}", self.table_size),
                format!("--threads={}", self.threads),
            ])
            .args(more)
            .arg(step)
            .stdin(Stdio::null())
            .stdout(Stdio::from(file.try_clone().expect("a second handle")))
            .stderr(Stdio::from(file));
        let child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .expect("start sysbench");
        Running {
            child,
            log: log.to_owned(),
        }
    }

    /// Makes and fills the tables.
    ///
    /// # Panics
    /// If that fails, with what sysbench printed.
    pub async fn prepare(&self, script: &str, log: &Path) {
        let one_per_table = Self {
            threads: self.tables,
            ..self.clone()
        };
        let running = one_per_table.start(script, "prepare", &[], log);
        let (status, text) = running.finish(Duration::from_secs(60)).await;
        // It ends with success when a thread of it failed.
        let fine = status.success() && !text.contains("FATAL");
        assert!(fine, "sysbench prepare: {text}");
    }

    /// Starts a run of so many seconds. It ends when a connection is lost.
    #[must_use]
    pub fn run(&self, script: &str, length: Duration, log: &Path) -> Running {
        let more = [
            format!("--time={}", length.as_secs()),
            "--events=0".to_owned(),
            "--histogram=on".to_owned(),
            "--report-interval=1".to_owned(),
        ];
        self.start(script, "run", &more, log)
    }

    /// Runs until `length` is over, and starts sysbench again whenever it ends before.
    ///
    /// It has an option to go on by itself (`--mysql-ignore-errors=all`), but with the client
    /// library that Debian gives it, it crashes when it connects again.
    ///
    /// # Panics
    /// If a run neither ends nor fails.
    pub async fn run_on(&self, script: &str, length: Duration, dir: &Path) -> GoneOn {
        let deadline = Instant::now() + length;
        let mut gone_on = GoneOn::default();
        loop {
            // A second would be rounded to none, which is without end.
            let left = deadline.saturating_duration_since(Instant::now());
            if left < Duration::from_secs(1) {
                return gone_on;
            }
            let log = dir.join(format!("sysbench-{}.log", gone_on.runs.len()));
            let running = self.run(script, left, &log);
            let (status, text) = running.finish(left + Duration::from_secs(30)).await;
            gone_on.runs.push((status.success(), written(&text)));
            if !status.success() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The transactions of a run by what it said every second, since one that fails says no more.
fn written(text: &str) -> f64 {
    text.lines()
        .filter_map(|line| line.split_once(" tps: "))
        .filter_map(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// The runs of a sysbench that was started again: whether each came to its end, and about how many
/// transactions it made.
#[derive(Clone, Debug, Default)]
pub struct GoneOn {
    pub runs: Vec<(bool, f64)>,
}

/// A sysbench that runs.
#[derive(Debug)]
pub struct Running {
    child: tokio::process::Child,
    log: PathBuf,
}

impl Running {
    /// Waits for its end; gives what it printed too.
    ///
    /// # Panics
    /// If it does not end within the bound.
    pub async fn finish(mut self, bound: Duration) -> (ExitStatus, String) {
        let waited = tokio::time::timeout(bound, self.child.wait()).await;
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        match waited {
            Ok(status) => (status.expect("wait for a child"), text),
            Err(_) => panic!("sysbench did not end within {bound:?}: {text}"),
        }
    }

    /// Waits for its end and reads the report.
    ///
    /// # Panics
    /// If it fails.
    pub async fn report(self, bound: Duration) -> SysbenchReport {
        let (status, text) = self.finish(bound).await;
        assert!(status.success(), "sysbench ended with {status}: {text}");
        SysbenchReport::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let text = "\
       value  ------------- distribution ------------- count
       2.482 |**                                       20
       4.910 |**************************************** 79
      11.000 |*                                        1

SQL statistics:
    transactions:                        100    (99.51 per sec.)
    ignored errors:                      8      (7.96 per sec.)
    reconnects:                          16     (15.92 per sec.)
";
        let report = SysbenchReport::parse(text);
        let wanted = SysbenchReport {
            transactions: 100,
            transactions_per_second: 99.51,
            errors_ignored: 8,
            reconnects: 16,
            latencies: vec![(2.482, 20), (4.910, 79), (11.0, 1)],
        };
        assert_eq!(report, wanted);
        assert_eq!(report.percentile_ms(50.0), 4.910);
        assert_eq!(report.percentile_ms(99.9), 11.0);
    }
}
