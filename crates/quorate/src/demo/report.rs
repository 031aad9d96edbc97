//! What the demo tells: progress while the cluster comes up, then what changes.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use quorate_net::{Endpoint, TokioNet};
use quorate_node::http::{StatusJson, fetch_status};

use super::{Port, Ports};
use crate::status::columns;

/// Polled four times a second, so a node that hangs must not hold the others up.
const ANSWER_WAIT: Duration = Duration::from_millis(500);

/// What each node answered, by id; none if it did not.
pub(super) type Views = BTreeMap<u16, Option<StatusJson>>;

/// Asks every node for its status at the same time.
pub(super) async fn ask_all(base: u16, nodes: u16) -> Views {
    let mut asked = tokio::task::JoinSet::new();
    for id in 1..=nodes {
        let at = Endpoint::Tcp(Ports::of(base, id).at(Port::Http));
        asked.spawn(async move {
            let answer = tokio::time::timeout(ANSWER_WAIT, fetch_status(&TokioNet, &at)).await;
            (id, answer.ok().and_then(Result::ok))
        });
    }
    asked.join_all().await.into_iter().collect()
}

/// The primary, if there is one, every node answers, and each says of itself that it is well.
pub(super) fn all_up(views: &Views) -> Option<u16> {
    let mut primary = None;
    for (id, view) in views {
        let status = view.as_ref()?;
        let own = status.nodes.iter().find(|node| node.id == u64::from(*id))?;
        if !own.healthy || !matches!(own.role.as_str(), "primary" | "replica" | "witness") {
            return None;
        }
        if own.role == "primary" {
            primary = Some(*id);
        }
    }
    primary
}

/// What node `id` does, by its own word.
fn doing(id: u16, view: Option<&StatusJson>) -> String {
    let Some(status) = view else {
        return "starting".to_owned();
    };
    match status.nodes.iter().find(|node| node.id == u64::from(id)) {
        None => "joining".to_owned(),
        Some(node) if node.healthy => node.role.clone(),
        Some(node) if node.message.is_empty() => format!("{} …", node.role),
        // The first sentence: what follows counts attempts, and would be news each second.
        Some(node) => format!(
            "{}: {}",
            node.role,
            node.message.split(". ").next().unwrap_or_default()
        ),
    }
}

/// Lines that are rewritten in place on a terminal, and printed once per change elsewhere.
pub(super) struct Progress {
    terminal: bool,
    shown: BTreeMap<u16, String>,
    primary: Option<u64>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            terminal: std::io::stdout().is_terminal(),
            shown: BTreeMap::new(),
            primary: None,
        }
    }

    pub(super) fn show(&mut self, views: &Views) {
        let now: BTreeMap<u16, String> = views
            .iter()
            .map(|(id, view)| (*id, doing(*id, view.as_ref())))
            .collect();
        if now == self.shown {
            return;
        }
        if self.terminal && !self.shown.is_empty() {
            // Up to the first of the lines printed before.
            print!("\x1b[{}A", self.shown.len());
        }
        for (id, text) in &now {
            if self.terminal {
                println!("\x1b[2K  node {id}: {text}");
            } else if self.shown.get(id) != Some(text) {
                println!("  node {id}: {text}");
            }
        }
        let _ = std::io::stdout().flush();
        self.shown = now;
    }

    /// From here on, changes are lines below each other.
    pub(super) fn done(&mut self) {
        self.terminal = false;
    }

    pub(super) fn show_changes(&mut self, views: &Views) {
        let newest = views
            .values()
            .flatten()
            .max_by_key(|status| status.committed.index);
        if let Some(primary) = newest.and_then(|status| status.primary)
            && self
                .primary
                .replace(primary)
                .is_some_and(|before| before != primary)
        {
            println!("Node {primary} is the primary now.");
        }
        self.show(views);
    }
}

pub(super) fn print_endpoints(base: u16, nodes: u16, folder: &Path) {
    let rows = (1..=nodes).map(|id| {
        let ports = Ports::of(base, id);
        [
            id.to_string(),
            ports.at(Port::ReadWrite),
            ports.at(Port::ReadOnly),
            ports.at(Port::Feed),
            ports.at(Port::Grpc),
            format!("http://{}/", ports.at(Port::Http)),
        ]
    });
    println!("\nThe cluster is up. Any node's read-write port leads to the primary.\n");
    let head = [
        "NODE",
        "READ-WRITE",
        "READ-ONLY",
        "FEED",
        "GRPC",
        "DASHBOARD",
    ];
    print!("{}", columns(head, rows));
    let first = Ports::of(base, 1);
    println!("\nUser app, password app, database app. Try:");
    let write = first.number(Port::ReadWrite);
    println!("  mysql -h 127.0.0.1 -P {write} -u app -papp app");
    println!("  quorate status --addr {}", first.at(STATUS_PORT));
    println!("Kill a node and watch another take over:");
    println!("  kill -9 $(cat {}/n1/quorate.pid)", folder.display());
    println!(
        "Ctrl-C stops all of it; the data stays in {}.\n",
        folder.display()
    );
}

/// Where `quorate status` asks.
const STATUS_PORT: Port = Port::Grpc;

#[cfg(test)]
mod tests {
    use quorate_node::http::{NodeJson, StatusJson};

    use super::{Views, all_up, doing};

    fn views(roles: [&str; 2], healthy: bool) -> Views {
        let nodes: Vec<NodeJson> = (1..)
            .zip(roles)
            .map(|(id, role)| NodeJson {
                id,
                role: role.to_owned(),
                healthy,
                ..NodeJson::default()
            })
            .collect();
        let status = StatusJson {
            nodes,
            ..StatusJson::default()
        };
        [(1, Some(status.clone())), (2, Some(status))].into()
    }

    #[test]
    fn the_cluster_is_up_only_with_a_primary_and_every_node_well() {
        assert_eq!(all_up(&views(["replica", "primary"], true)), Some(2));
        assert_eq!(all_up(&views(["replica", "primary"], false)), None);
        assert_eq!(all_up(&views(["replica", "replica"], true)), None);
        assert_eq!(all_up(&views(["promoting", "primary"], true)), None);
        let mut silent = views(["replica", "primary"], true);
        silent.insert(1, None);
        assert_eq!(all_up(&silent), None);
        assert_eq!(doing(1, None), "starting");
    }
}
