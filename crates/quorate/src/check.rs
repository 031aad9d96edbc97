//! `quorate check`.

use anyhow::bail;
use quorate_mysqld::{CheckFinding, Facts, Seed, Severity, find_installed};
use quorate_net::TokioNet;
use quorate_node::config::{Config, Secrets};
use quorate_storage::{folder_bytes, free_bytes};

use crate::args::CheckArgs;
use crate::node;
use crate::status::size;

pub(crate) async fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let secrets = Secrets::load(&config.secrets)?;
    let options = node::find_options(&config);
    let mut findings = Vec::new();
    let mut facts = Facts::new();
    let host = match find_installed(&options).await {
        Ok(Some(installation)) => {
            let version = installation.version;
            println!("mysqld {version}: {}", installation.executable().display());
            let series = format!("{}.{}", version.major, version.minor);
            facts.insert("release series".to_owned(), series);
            // No server is made here.
            let seed = Seed::at(options.cache.join(format!("seed-{version}")));
            Some(node::host(&config, installation, seed)?)
        }
        Ok(None) => {
            findings.push(CheckFinding::new(
                Severity::Notes,
                "there is no mysqld on PATH or in the cache folder",
                "set mysqld.program, or let a start fetch one",
            ));
            None
        }
        Err(error) => {
            findings.push(CheckFinding::new(
                Severity::Forbids,
                error.to_string(),
                "set mysqld.program to MySQL 8.0.26 or later",
            ));
            None
        }
    };
    findings.extend(room(&config));
    facts.insert("server_id".to_owned(), node::server_id(&config).to_string());
    if let Some(uuid) = server_uuid(&config) {
        facts.insert("server_uuid".to_owned(), uuid);
    }
    let found = quorate_node::preflight(&TokioNet, &config, &secrets, host.as_ref(), facts).await;
    findings.extend(found);
    findings.sort();
    report(&findings)
}

/// The log's files may take so many times the budget of its entries.
const FILES_PER_BUDGET: u64 = 3;

fn room(config: &Config) -> Option<CheckFinding> {
    let raft = config.raft_dir();
    let there = raft.ancestors().find(|dir| dir.exists())?;
    let free = free_bytes(there).ok()?;
    // Nothing if there is no log yet.
    let taken = folder_bytes(&raft).unwrap_or(0);
    short_of_room(config.retention.budget_bytes, taken, free)
}

fn short_of_room(budget: u64, taken: u64, free: u64) -> Option<CheckFinding> {
    let needed = budget.saturating_mul(FILES_PER_BUDGET);
    let room = taken.saturating_add(free);
    (room < needed).then(|| {
        CheckFinding::new(
            Severity::Notes,
            format!(
                "the log's files may take {}, and there is room for {}",
                size(needed),
                size(room)
            ),
            "make room, or lower retention.budget_bytes on all nodes: a full disk ends the node",
        )
    })
}

/// As the server has it that was there last.
fn server_uuid(config: &Config) -> Option<String> {
    let text = std::fs::read_to_string(config.mysql_dir().join("auto.cnf")).ok()?;
    let uuid = text
        .lines()
        .find_map(|line| line.strip_prefix("server-uuid="));
    uuid.map(|uuid| uuid.trim().to_owned())
}

fn report(findings: &[CheckFinding]) -> anyhow::Result<()> {
    for finding in findings {
        let what = match finding.severity {
            Severity::Forbids => "FORBIDS A START",
            Severity::Warns => "WARNING",
            Severity::Notes => "NOTE",
        };
        println!("{what}: {}\n    {}", finding.what, finding.advice);
    }
    let forbidding = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Forbids)
        .count();
    match forbidding {
        0 => {
            println!("nothing forbids a start");
            Ok(())
        }
        count => bail!("{count} of {} findings forbid a start", findings.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_the_budget_may_fill_is_named() {
        const GIB: u64 = 1 << 30;
        // What the log has already counts as room.
        assert_eq!(short_of_room(16 * GIB, 8 * GIB, 40 * GIB), None);
        let found = short_of_room(16 * GIB, 8 * GIB, 40 * GIB - 1).expect("a byte too few");
        assert_eq!(found.severity, Severity::Notes);
        assert_eq!(
            found.what,
            "the log's files may take 48.0 GiB, and there is room for 47.9 GiB"
        );
        assert!(short_of_room(u64::MAX, 0, u64::MAX - 1).is_some());
    }
}
