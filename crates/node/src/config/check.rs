//! From text to a checked [`Config`], with every finding and where it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_net::Endpoint;
use quorate_types::NodeId;
use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::finding::line_column;
use super::{
    Config, Dial, Finding, FlowControl, Listen, Log, Mysqld, Peer, ReadOnly, Repair, Retention,
    Timing, Tls, Verify,
};

/// The longest that a commit may be held back.
const HELD_BACK_MAX: Duration = Duration::from_secs(1);

/// The file as written, before addresses are parsed and values are judged together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    node: u64,
    dir: PathBuf,
    cluster_name: Option<String>,
    secrets: PathBuf,
    #[serde(default)]
    witness: bool,
    #[serde(default)]
    learner: bool,
    listen: Listen<String>,
    mysqld: Option<Mysqld>,
    #[serde(default)]
    peers: BTreeMap<String, Peer<String>>,
    tls: Option<Tls>,
    #[serde(default)]
    timing: Timing,
    #[serde(default)]
    read_only: ReadOnly,
    #[serde(default)]
    flow_control: FlowControl,
    #[serde(default)]
    repair: Repair,
    #[serde(default)]
    retention: Retention,
    #[serde(default)]
    verify: Verify,
    #[serde(default)]
    log: Log,
}

/// Collects findings; knows where each key is.
struct Check<'a> {
    text: &'a str,
    tree: DeTable<'a>,
    findings: Vec<Finding>,
}

pub(super) fn parse(text: &str, folder: &Path) -> Result<Config, Vec<Finding>> {
    let broken = |error: &toml::de::Error| {
        let at = error.span().map(|span| line_column(text, span.start));
        vec![Finding {
            at,
            key: String::new(),
            message: error.message().to_owned(),
        }]
    };
    let tree = DeTable::parse(text).map_err(|error| broken(&error))?;
    let raw: Raw = toml::from_str(text).map_err(|error| broken(&error))?;
    let mut check = Check {
        text,
        tree: tree.into_inner(),
        findings: Vec::new(),
    };
    let config = check.config(raw, folder);
    match config {
        Some(config) if check.findings.is_empty() => Ok(config),
        _ => Err(check.findings),
    }
}

impl Check<'_> {
    fn find(&mut self, key: &str, message: impl Into<String>) {
        let at = self
            .offset(key)
            .map(|offset| line_column(self.text, offset));
        self.findings.push(Finding {
            at,
            key: key.to_owned(),
            message: message.into(),
        });
    }

    /// Where the key, or else the nearest table around it, starts.
    fn offset(&self, key: &str) -> Option<usize> {
        let mut table = &self.tree;
        let mut offset = None;
        for part in key.split('.') {
            let Some((name, value)) = table.get_key_value(part) else {
                break;
            };
            offset = Some(name.span().start);
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                _ => break,
            }
        }
        offset
    }

    /// What can be judged without the others.
    fn values(&mut self, raw: &Raw) {
        self.timing(&raw.timing);
        if raw.verify.table_max.is_zero() {
            self.find("verify.table_max_s", "is 0: no table could be read");
        }
        if raw.flow_control.delay_max > HELD_BACK_MAX {
            self.find(
                "flow_control.delay_max_ms",
                "is more than 1000: clients would take their primary for gone",
            );
        }
        for (key, message) in raw.retention.findings() {
            self.find(key, message);
        }
        if raw.log.cache_bytes < 1 << 20 {
            self.find("log.cache_bytes", "is less than 1 MiB, two log entries");
        }
        if let Err(error) = crate::telemetry::parse_filter(&raw.log.filter) {
            self.find("log.filter", format!("is no filter: {error}"));
        }
    }

    fn config(&mut self, raw: Raw, folder: &Path) -> Option<Config> {
        if raw.node == 0 {
            self.find("node", "is 0, but nodes are numbered from 1");
        }
        let listen = self.listen(&raw.listen);
        let peers = self.peers(&raw.peers, raw.node);
        match (&raw.mysqld, raw.witness) {
            (Some(mysqld), false) => self.mysqld(mysqld, listen.as_ref()),
            (None, false) => self.find("mysqld", "is missing: only a witness has no server"),
            (Some(_), true) => self.find("mysqld", "is there, but a witness has no server"),
            (None, true) => {}
        }
        self.values(&raw);
        if raw.tls.is_none() {
            self.loopback(listen.as_ref(), &peers);
        }
        let dir = folder.join(raw.dir);
        let mut mysqld = raw.mysqld.unwrap_or_default();
        let (key, socket) = match mysqld.socket.as_os_str().is_empty() {
            true => ("dir", dir.join("mysql.sock")),
            false => ("mysqld.socket", folder.join(&mysqld.socket)),
        };
        mysqld.socket = socket;
        if mysqld.socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            self.find(
                key,
                format!(
                    "makes the socket `{}`, and a unix socket's path has at most \
                     {SOCKET_PATH_BYTES_MAX} bytes: choose a shorter one",
                    mysqld.socket.display()
                ),
            );
        }
        mysqld.program = mysqld.program.map(|program| folder.join(program));
        Some(Config {
            node: NodeId(raw.node),
            cluster_name: raw.cluster_name,
            secrets: folder.join(raw.secrets),
            witness: raw.witness,
            learner: raw.learner,
            listen: listen?,
            mysqld,
            peers,
            tls: raw.tls.map(|tls| Tls {
                ca: folder.join(tls.ca),
                cert: folder.join(tls.cert),
                key: folder.join(tls.key),
            }),
            timing: raw.timing,
            read_only: raw.read_only,
            flow_control: raw.flow_control,
            repair: raw.repair,
            retention: raw.retention,
            verify: raw.verify,
            log: Log {
                file: raw.log.file.map(|file| folder.join(file)),
                ..raw.log
            },
            dir,
        })
    }

    fn endpoint(&mut self, key: &str, text: &str) -> Option<Endpoint> {
        match text.parse() {
            Ok(Endpoint::Unix(_)) => {
                self.find(key, format!("is `{text}`, but must be HOST:PORT"));
                None
            }
            Ok(endpoint) => Some(endpoint),
            Err(_) => {
                let example = "for example 127.0.0.1:7003";
                self.find(
                    key,
                    format!("is `{text}`, but must be HOST:PORT, {example}"),
                );
                None
            }
        }
    }

    fn listen(&mut self, raw: &Listen<String>) -> Option<Listen> {
        let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, address) in raw.each() {
            // Port 0 lets the system choose, so two of them are two ports.
            if address.ends_with(":0") {
                continue;
            }
            if let Some(other) = taken.insert(address, name) {
                let message = format!("is `{address}`, which `listen.{other}` has already");
                self.find(&format!("listen.{name}"), message);
            }
        }
        // All are parsed before any is missed, so that every wrong one is found.
        let [read_write, read_only, feed, grpc, http, gate] = raw
            .each()
            .map(|(name, address)| self.endpoint(&format!("listen.{name}"), address));
        Some(Listen {
            read_write: read_write?,
            read_only: read_only?,
            feed: feed?,
            grpc: grpc?,
            http: http?,
            gate: gate?,
        })
    }

    fn peers(&mut self, raw: &BTreeMap<String, Peer<String>>, own: u64) -> BTreeMap<NodeId, Peer> {
        let mut peers = BTreeMap::new();
        for (id, peer) in raw {
            let key = format!("peers.{id}");
            let number = match id.parse::<u64>() {
                Ok(number) if number > 0 => number,
                _ => {
                    self.find(&key, "must be named by the node's number, as in [peers.2]");
                    continue;
                }
            };
            let grpc = self.endpoint(&format!("{key}.grpc"), &peer.grpc);
            let gate = self.endpoint(&format!("{key}.gate"), &peer.gate);
            let dial = peer.dial.as_ref().map(|dial| Dial {
                grpc: dial
                    .grpc
                    .as_ref()
                    .and_then(|text| self.endpoint(&format!("{key}.dial.grpc"), text)),
                gate: dial
                    .gate
                    .as_ref()
                    .and_then(|text| self.endpoint(&format!("{key}.dial.gate"), text)),
            });
            if let (Some(grpc), Some(gate), false) = (grpc, gate, number == own) {
                peers.insert(NodeId(number), Peer { grpc, gate, dial });
            }
        }
        peers
    }

    fn mysqld(&mut self, mysqld: &Mysqld, listen: Option<&Listen>) {
        if mysqld.port == 0 {
            self.find(
                "mysqld.port",
                "is 0, but peers must know the port: choose one",
            );
        }
        for (name, endpoint) in listen.iter().flat_map(|listen| listen.each()) {
            if endpoint.port() == Some(mysqld.port) && mysqld.port != 0 {
                let message = format!("is {}, which `listen.{name}` has already", mysqld.port);
                self.find("mysqld.port", message);
            }
        }
        let digits = mysqld.buffer_pool.trim_end_matches(['K', 'M', 'G']);
        if mysqld.buffer_pool.len() - digits.len() > 1 || digits.parse::<u64>().is_err() {
            let message = format!(
                "is `{}`, but must be a number with K, M or G, for example 128M",
                mysqld.buffer_pool
            );
            self.find("mysqld.buffer_pool", message);
        }
        // MySQL's own limits.
        if mysqld
            .replica_parallel_workers
            .is_some_and(|workers| !(1..=1024).contains(&workers))
        {
            self.find("mysqld.replica_parallel_workers", "must be from 1 to 1024");
        }
        self.service_manager(mysqld);
        for option in &mysqld.extra {
            if !option.starts_with("--") {
                let message = format!("has `{option}`, but an option starts with `--`");
                self.find("mysqld.extra", message);
                continue;
            }
            if quorate_mysqld::is_owned(option) {
                let message = format!(
                    "has `{option}`, but this option is the sidecar's own: replication or \
                     durability depends on it"
                );
                self.find("mysqld.extra", message);
            }
        }
    }

    fn service_manager(&mut self, mysqld: &Mysqld) {
        let commands = [
            ("mysqld.start", &mysqld.start),
            ("mysqld.stop", &mysqld.stop),
            ("mysqld.kill", &mysqld.kill),
        ];
        for (key, command) in commands {
            match command.as_ref().map(|words| words.first()) {
                Some(None) => self.find(key, "is empty, but names a program and its arguments"),
                Some(Some(_)) if mysqld.start.is_none() => {
                    self.find(
                        key,
                        "is for a server that `mysqld.start` starts, which is missing",
                    );
                }
                _ => {}
            }
        }
    }

    fn timing(&mut self, timing: &Timing) {
        if timing.heartbeat.is_zero() {
            self.find("timing.heartbeat_ms", "is 0, which would never rest");
        }
        if timing.election_min < timing.heartbeat * 2 {
            let message = format!(
                "is {}, less than two heartbeats of {} ms: one late heartbeat would start an \
                 election",
                timing.election_min.as_millis(),
                timing.heartbeat.as_millis()
            );
            self.find("timing.election_min_ms", message);
        }
        if timing.election_max <= timing.election_min {
            let message = format!(
                "is {}, not more than election_min_ms ({}): nodes would stand at the same moment",
                timing.election_max.as_millis(),
                timing.election_min.as_millis()
            );
            self.find("timing.election_max_ms", message);
        }
        // The lease is as long as the longest timeout, and openraft wants both to be over.
        if timing.quorum_loss_probe < timing.election_max * 2 {
            let message = format!(
                "is {}, less than twice election_max_ms ({}): a leader would doubt itself before \
                 its followers do",
                timing.quorum_loss_probe.as_millis(),
                timing.election_max.as_millis()
            );
            self.find("timing.quorum_loss_probe_ms", message);
        }
        if timing.probe_timeout < timing.probe_interval {
            let message = "is less than probe_interval_ms: probes would overlap";
            self.find("timing.probe_timeout_ms", message);
        }
        let at_least = [
            ("probe_interval_ms", timing.probe_interval, 10),
            ("demote_bound_ms", timing.demote_bound, 1000),
        ];
        for (name, value, least) in at_least {
            if value < Duration::from_millis(least) {
                let message = format!("is {}, less than {least}", value.as_millis());
                self.find(&format!("timing.{name}"), message);
            }
        }
    }

    /// Without TLS nothing proves who a peer is, so only this machine may reach what trusts peers.
    /// The application ports carry MySQL's own TLS and logins, so they may be open.
    fn loopback(&mut self, listen: Option<&Listen>, peers: &BTreeMap<NodeId, Peer>) {
        let why = "but without a [tls] section only loopback is allowed (`quorate certs` makes \
                   the files)";
        for (name, endpoint) in listen.iter().flat_map(|listen| listen.each()) {
            if !matches!(name, "read_write" | "read_only") && !endpoint.is_local() {
                self.find(&format!("listen.{name}"), format!("is `{endpoint}`, {why}"));
            }
        }
        for (id, peer) in peers {
            for (name, endpoint) in [("grpc", &peer.grpc), ("gate", &peer.gate)] {
                if !endpoint.is_local() {
                    let key = format!("peers.{id}.{name}");
                    self.find(&key, format!("is `{endpoint}`, {why}"));
                }
            }
        }
    }
}

/// What the kernel takes (108 with the closing zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;
