//! `quorate status`.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use anyhow::Context;
use quorate_node::http::StatusJson;
use quorate_wire::v1::StatusRequest;

use crate::admin;
use crate::args::{Address, StatusArgs};

/// A node answers at once or not at all.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: StatusArgs) -> anyhow::Result<()> {
    loop {
        let text = match fetch(&args.at).await {
            Ok(status) if args.json => serde_json::to_string(&status)? + "\n",
            Ok(status) => table(&status),
            // Whoever watches wants to see it come back.
            Err(error) if args.watch => {
                eprintln!("quorate: {error:#}");
                String::new()
            }
            Err(error) => return Err(error),
        };
        let mut out = std::io::stdout().lock();
        if args.watch && !args.json && out.is_terminal() {
            // Clear the screen, go to its top.
            write!(out, "\x1b[2J\x1b[H")?;
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        drop(out);
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// A node's status, or an error that says which node did not answer.
pub(crate) async fn fetch(at: &Address) -> anyhow::Result<StatusJson> {
    let ask = async {
        let mut client = admin::connect(at).await?;
        let reply = client
            .status(StatusRequest {})
            .await
            .map_err(|refused| admin::refusal(at, &refused))?;
        let view = quorate_wire::cluster_view(reply.into_inner())
            .with_context(|| format!("understand what {} answered", at.addr))?;
        Ok(StatusJson::from_view(&view))
    };
    let limit = ANSWER_WAIT.as_secs();
    tokio::time::timeout(ANSWER_WAIT, ask)
        .await
        .with_context(|| format!("{} did not answer within {limit} s", at.addr))?
}

fn table(status: &StatusJson) -> String {
    let mut text = String::new();
    let known = |id: Option<u64>| id.map_or("none".to_owned(), |id| format!("node {id}"));
    let cluster = if status.cluster.is_empty() {
        "none yet"
    } else {
        &status.cluster
    };
    let epoch = status.epoch.as_deref().unwrap_or("none");
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "cluster {cluster}   primary: {}   leader: {}   term {}   epoch {epoch}   committed {}\n",
        known(status.primary),
        known(status.leader),
        status.term,
        status.committed.index
    );
    let rows = status.nodes.iter().map(|node| {
        [
            node.id.to_string(),
            node.role.clone(),
            if node.healthy { "yes" } else { "no" }.to_owned(),
            node.raft.to_string(),
            node.lag_transactions.to_string(),
            node.mysql.clone(),
            node.message.clone(),
        ]
    });
    let mut text = text
        + &columns(
            ["NODE", "ROLE", "HEALTHY", "RAFT", "LAG", "MYSQLD", ""],
            rows,
        );
    for node in &status.nodes {
        if !node.differs.is_empty() {
            let (id, tables) = (node.id, node.differs.join(", "));
            let _ = writeln!(text, "node {id} differs from the primary in {tables}");
        }
        for cut in &node.kept_cuts {
            let (id, name, bytes) = (node.id, &cut.name, cut.bytes);
            let _ = writeln!(
                text,
                "node {id} keeps cut/{name}, {bytes} bytes that a repair cut off its binlog"
            );
        }
    }
    log_table(status, &mut text);
    text
}

/// How large each node's log is, and what keeps it from being purged.
fn log_table(status: &StatusJson, text: &mut String) {
    let logs = status.nodes.iter().filter_map(|node| {
        let log = node.log.as_ref()?;
        let percent = log.bytes / (log.budget_bytes / 100).max(1);
        Some([
            node.id.to_string(),
            format!("{}-{}", log.first, log.last),
            size(log.bytes),
            format!("{percent} %"),
            size(log.disk_bytes),
            age(log.age_s),
            if log.full { "takes no writes" } else { "" }.to_owned(),
        ])
    });
    let rows: Vec<_> = logs.collect();
    if rows.is_empty() {
        return;
    }
    text.push('\n');
    let head = ["LOG", "ENTRIES", "BYTES", "BUDGET", "FILES", "AGE", ""];
    text.push_str(&columns(head, rows.into_iter()));
    let retention = &status.retention;
    if retention.wanted > retention.purged {
        let _ = writeln!(
            text,
            "purged up to {}, wanted up to {}",
            retention.purged, retention.wanted
        );
    }
    for holder in &retention.held_by {
        let _ = writeln!(text, "kept for node {}: it {}", holder.id, holder.why);
    }
}

pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{}.{} GiB", bytes >> 30, ((bytes & 0x3fff_ffff) * 10) >> 30),
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Left-aligned columns, each as wide as its longest cell.
pub(crate) fn columns<const N: usize>(
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned))
        .chain(rows)
        .collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use quorate_node::http::{HolderJson, LogJson, NodeJson, RaftJson, RetentionJson, StatusJson};

    use super::table;

    #[test]
    fn the_table_names_the_primary_and_why_a_node_is_not_healthy() {
        let status = StatusJson {
            primary: Some(2),
            nodes: vec![NodeJson {
                id: 1,
                role: "repairing".to_owned(),
                message: "waits for a donor".to_owned(),
                mysql: "127.0.0.1:7015".to_owned(),
                raft: RaftJson::Learner,
                ..NodeJson::default()
            }],
            ..StatusJson::default()
        };
        let text = table(&status);
        assert!(text.contains("primary: node 2"), "{text}");
        let row = "1     repairing  no       learner  0    127.0.0.1:7015  waits for a donor";
        assert!(text.lines().any(|line| line == row), "{text}");
    }

    #[test]
    fn the_log_is_shown_with_who_holds_it() {
        let status = StatusJson {
            nodes: vec![NodeJson {
                id: 1,
                log: Some(LogJson {
                    first: 5,
                    last: 900,
                    bytes: 85 << 20,
                    disk_bytes: 3 << 30,
                    budget_bytes: 100 << 20,
                    age_s: 7300,
                    full: true,
                }),
                ..NodeJson::default()
            }],
            retention: RetentionJson {
                purged: 4,
                wanted: 800,
                held_by: vec![HolderJson {
                    id: 3,
                    why: "is down".to_owned(),
                }],
            },
            ..StatusJson::default()
        };
        let text = table(&status);
        for line in [
            "1    5-900    85 MiB  85 %    3.0 GiB  2 h  takes no writes",
            "purged up to 4, wanted up to 800",
            "kept for node 3: it is down",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
