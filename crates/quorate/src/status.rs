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
    text += &columns(
        ["NODE", "ROLE", "HEALTHY", "RAFT", "LAG", "MYSQLD", ""],
        rows,
    );
    for node in &status.nodes {
        for cut in &node.kept_cuts {
            let (id, name, bytes) = (node.id, &cut.name, cut.bytes);
            let _ = writeln!(
                text,
                "node {id} keeps cut/{name}, {bytes} bytes that a repair cut off its binlog"
            );
        }
    }
    text
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
    use quorate_node::http::{NodeJson, RaftJson, StatusJson};

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
}
