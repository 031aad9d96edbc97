//! What speaks against starting a node: its configuration, its folder, its server, its peers.

use std::time::Duration;

use quorate_mysqld::{CheckFinding, Facts, Host, Severity, compare_facts};
use quorate_net::{Endpoint, Net, Tls};
use quorate_types::{ClusterId, NodeId, chain};
use quorate_wire::NodeReport;
use quorate_wire::v1::{CheckRequest, NodeStatusRequest};
use tokio::time::timeout;

use crate::checking::from_reply;
use crate::config::{Config, Secrets};
use crate::peers::admin_client;
use crate::server::Logins;

const ANSWER_MAX: Duration = Duration::from_secs(2);
/// It looks at all of its server's tables.
const CHECK_MAX: Duration = Duration::from_secs(40);

/// Looks at everything that can be looked at now, and changes nothing. The worst comes first.
///
/// `host` is the node's own machine, if a mysqld was found there; `own` is what is known of the
/// server without asking it.
pub async fn preflight<N: Net, H: Host>(
    net: &N,
    config: &Config,
    secrets: &Secrets,
    host: Option<&H>,
    own: Facts,
) -> Vec<CheckFinding> {
    let mut check = Check {
        net,
        config,
        tls: None,
        facts: own,
        cluster: None,
        findings: Vec::new(),
    };
    match crate::node::closed_doors(config) {
        Ok(tls) => check.tls = tls,
        Err(error) => check.find(
            Severity::Forbids,
            chain(&error),
            "correct [tls] or [listen] in the configuration",
        ),
    }
    let runs = check.own_node(&config.listen.grpc).await;
    if !runs {
        check.listeners().await;
        if let Some(host) = host {
            check.data_folder(host).await;
        }
        check.own_server(secrets).await;
    }
    check.peers().await;
    check.findings.sort();
    check.findings
}

struct Check<'a, N> {
    net: &'a N,
    config: &'a Config,
    tls: Option<Tls>,
    /// Of the own server.
    facts: Facts,
    /// The first one that anybody is in.
    cluster: Option<(NodeId, ClusterId)>,
    findings: Vec<CheckFinding>,
}

impl<N: Net> Check<'_, N> {
    fn find(&mut self, severity: Severity, what: impl Into<String>, advice: impl Into<String>) {
        self.findings
            .push(CheckFinding::new(severity, what, advice));
    }

    /// What the node says of its server, if it runs.
    async fn own_node(&mut self, grpc: &Endpoint) -> bool {
        let node = self.config.node;
        let Some(report) = self.report(node, grpc).await else {
            return false;
        };
        if report.node != node {
            // Said again when the port is looked at.
            return false;
        }
        self.note_cluster(&report);
        match self.asked(node, grpc).await {
            Ok((facts, findings)) => {
                self.facts.extend(facts);
                self.findings.extend(findings);
            }
            Err(why) => self.find(
                Severity::Notes,
                format!("the node runs, and its server cannot be looked at ({why})"),
                "look at the node's status",
            ),
        }
        true
    }

    async fn listeners(&mut self) {
        let mysqld = Endpoint::Tcp(format!("127.0.0.1:{}", self.config.mysqld.port));
        let listen = self.config.listen.each();
        let named = listen
            .iter()
            .map(|(name, endpoint)| (format!("listen.{name}"), (*endpoint).clone()));
        let all: Vec<(String, Endpoint)> = named.collect();
        for (name, endpoint) in all {
            if let Err(error) = self.net.listen(&endpoint).await {
                self.find(
                    Severity::Forbids,
                    format!("{name} {endpoint} cannot be opened ({error})"),
                    "choose another port, or stop what uses it",
                );
            }
        }
        if let Err(error) = self.net.listen(&mysqld).await {
            let advice = "if it is this node's own mysqld that was left running, a start takes it \
                          over; else choose another port";
            let what = format!("mysqld.port {mysqld} cannot be opened ({error})");
            self.find(Severity::Warns, what, advice);
        }
    }

    async fn data_folder<H: Host>(&mut self, host: &H) {
        if !host.data_folder_exists() {
            let what = "there is no data folder yet";
            self.find(Severity::Notes, what, "nothing to do: a start makes one");
            return;
        }
        let folder = host.data_folder().display().to_string();
        match host.read_marker() {
            Ok(Some(marker)) if marker.node != self.config.node => self.find(
                Severity::Forbids,
                format!("the data folder {folder} is node {}'s", marker.node),
                "correct `dir` or `node`, or move the folder away: the server is then cloned",
            ),
            Ok(Some(marker)) => {
                self.cluster
                    .get_or_insert((self.config.node, marker.cluster));
            }
            Ok(None) => self.find(
                Severity::Warns,
                format!("the data folder {folder} has no marker: it holds data of somebody else"),
                "found a cluster on them with `quorate node --bootstrap`, or move the folder away",
            ),
            Err(error) => self.find(
                Severity::Forbids,
                format!(
                    "the data folder {folder} cannot be judged ({})",
                    chain(&error)
                ),
                "see whether the files are this user's",
            ),
        }
        let ours = host.adopt().await.is_ok_and(|process| process.is_some());
        if !ours && host.data_folder_is_free().is_ok_and(|free| !free) {
            self.find(
                Severity::Forbids,
                format!("another process uses the data folder {folder}"),
                "stop it, and see that no service manager starts it again",
            );
        }
    }

    /// A server that runs without its node.
    async fn own_server(&mut self, secrets: &Secrets) {
        let logins = Logins {
            socket: Endpoint::Unix(self.config.mysqld.socket.clone()),
            control: secrets.control.clone(),
            capture: secrets.capture.clone(),
        };
        let look = async {
            let mut session = logins.control(self.net).await.ok()?;
            let facts = session.facts().await.ok()?;
            Some((facts, session.preflight().await.ok()?))
        };
        match timeout(CHECK_MAX, look).await {
            Ok(Some((facts, findings))) => {
                self.facts.extend(facts);
                self.findings.extend(findings);
            }
            Ok(None) | Err(_) => self.find(
                Severity::Notes,
                "its server does not run",
                "nothing to do: it is looked at when it is started; check again then",
            ),
        }
    }

    async fn peers(&mut self) {
        let peers: Vec<_> = self.config.peers.iter().collect();
        for (node, peer) in peers {
            let (node, at) = (*node, peer.dial_grpc());
            let key = format!("peers.{node}.grpc");
            let Some(report) = self.report(node, at).await else {
                self.find(
                    Severity::Warns,
                    format!("node {node} at {at} does not answer"),
                    format!("start it, or correct {key}"),
                );
                continue;
            };
            if report.node != node {
                self.find(
                    Severity::Forbids,
                    format!("{at} answers as node {}, not {node}", report.node),
                    format!("correct {key}"),
                );
                continue;
            }
            self.note_cluster(&report);
            match self.asked(node, at).await {
                Ok((theirs, _)) => {
                    let other = format!("node {node}");
                    let findings = compare_facts(&self.facts, &other, &theirs);
                    self.findings.extend(findings);
                }
                Err(why) => self.find(
                    Severity::Notes,
                    format!("node {node}'s server cannot be compared ({why})"),
                    "check again when it runs",
                ),
            }
        }
    }

    fn note_cluster(&mut self, report: &NodeReport) {
        let Some(cluster) = report.cluster else {
            return;
        };
        let (first, known) = *self.cluster.get_or_insert((report.node, cluster));
        if known != cluster {
            self.find(
                Severity::Forbids,
                format!(
                    "node {first} is of cluster {known}, node {} of cluster {cluster}",
                    report.node
                ),
                "correct the peers' addresses; two clusters cannot be joined",
            );
        }
    }

    async fn report(&self, node: NodeId, at: &Endpoint) -> Option<NodeReport> {
        let mut client = admin_client(self.net, self.tls.as_ref(), node, at);
        let answer = timeout(ANSWER_MAX, client.node_status(NodeStatusRequest {})).await;
        NodeReport::try_from(answer.ok()?.ok()?.into_inner()).ok()
    }

    async fn asked(
        &self,
        node: NodeId,
        at: &Endpoint,
    ) -> Result<(Facts, Vec<CheckFinding>), String> {
        let mut client = admin_client(self.net, self.tls.as_ref(), node, at);
        let answer = timeout(CHECK_MAX, client.check(CheckRequest {})).await;
        let answer = answer.map_err(|_| "no answer".to_owned())?;
        let reply = answer.map_err(|status| status.message().to_owned())?;
        Ok(from_reply(reply.into_inner()))
    }
}
