//! What breaks, when and for how long; all of it follows from the seed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use quorate_tests::{Cluster, Flow, NodeProcess, Signal, SmallDisk, wait_for};
use quorate_types::{NodeId, SplitMix64};
use tokio::time::Instant;

use crate::checks::Violation;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    KillSidecar,
    KillServer,
    KillNode,
    StopSidecar,
    StopServer,
    StopNode,
    TermSidecar,
    TermServer,
    KillAll,
    KillAllSidecars,
    Isolate,
    HoldOutward,
    HoldInward,
    CutPair,
    SlowLinks,
    WipeData,
    WipeNode,
    Switchover,
    FullDisk,
}

/// The oftener, the more often.
const COMMON: &[Kind] = &[
    Kind::KillSidecar,
    Kind::KillServer,
    Kind::KillNode,
    Kind::KillNode,
    Kind::StopSidecar,
    Kind::StopServer,
    Kind::StopNode,
    Kind::TermSidecar,
    Kind::TermServer,
    Kind::KillAll,
    Kind::KillAllSidecars,
    Kind::Isolate,
    Kind::Isolate,
    Kind::HoldOutward,
    Kind::HoldInward,
    Kind::CutPair,
    Kind::SlowLinks,
    Kind::Switchover,
];

/// Only at the beginning of a round: all other copies are whole then, and nothing else is removed
/// before they are whole again.
const WIPES: &[Kind] = &[Kind::WipeData, Kind::WipeNode];
const WIPE_ONE_ROUND_IN: u64 = 3;
/// Where logs are on disks that can be full.
const FULL_ONE_FAULT_IN: u64 = 5;
/// The log is kept at 32 MiB, and sled gives nothing back.
const DISK_MIB: u32 = 2048;

#[derive(Clone, Copy, Debug)]
struct Fault {
    kind: Kind,
    node: NodeId,
    other: NodeId,
    /// Of the node's server when the fault began.
    server: Option<u32>,
}

/// The faults so far.
pub(crate) struct Faults {
    random: SplitMix64,
    began: Instant,
    pub(crate) counts: BTreeMap<Kind, u64>,
    /// Whether this round sent SIGTERM to a server. One that waits for ACKs commits then, and shows
    /// it to whoever comes past the gate: that is not promised, and repaired afterwards.
    pub(crate) a_server_was_asked_to_end: bool,
    /// Those of the logs, if they are such.
    pub(crate) disks: BTreeMap<NodeId, SmallDisk>,
    /// When a primary was struck, and by what.
    pub(crate) primaries_struck: Vec<(Instant, Kind)>,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: SplitMix64::new(seed),
            began: Instant::now(),
            counts: BTreeMap::new(),
            a_server_was_asked_to_end: false,
            disks: BTreeMap::new(),
            primaries_struck: Vec::new(),
        }
    }

    pub(crate) fn say(&self, what: &str) {
        println!("{:8.2} s  {what}", self.began.elapsed().as_secs_f64());
    }

    fn between(&mut self, least_ms: u64, most_ms: u64) -> Duration {
        Duration::from_millis(least_ms + self.random.below(most_ms - least_ms))
    }

    /// Breaks things for a while. What was struck last may still be broken afterwards.
    pub(crate) async fn round(
        &mut self,
        cluster: &mut Cluster,
        lasts: Duration,
    ) -> Result<(), Violation> {
        let end = Instant::now() + lasts;
        self.a_server_was_asked_to_end = false;
        if self.random.below(WIPE_ONE_ROUND_IN) == 0 {
            let kind = WIPES[self.random.below(WIPES.len() as u64) as usize];
            self.episode(cluster, kind).await?;
        }
        while Instant::now() < end {
            tokio::time::sleep(self.between(300, 3000)).await;
            let kind = self.draw();
            self.episode(cluster, kind).await?;
        }
        Ok(())
    }

    fn draw(&mut self) -> Kind {
        if !self.disks.is_empty() && self.random.below(FULL_ONE_FAULT_IN) == 0 {
            return Kind::FullDisk;
        }
        COMMON[self.random.below(COMMON.len() as u64) as usize]
    }

    pub(crate) async fn put_logs_on_small_disks(&mut self, cluster: &mut Cluster) {
        let ids: Vec<NodeId> = cluster.nodes.keys().copied().collect();
        for id in ids {
            cluster.node(id).signal(Signal::TERM);
            let node = cluster.node_mut(id);
            node.exited(Duration::from_secs(30)).await;
            let disk = SmallDisk::put_under(&node.dir.join("raft"), DISK_MIB);
            self.disks.insert(id, disk);
            node.start(false);
            cluster.wait_until_whole(Duration::from_secs(120)).await;
        }
    }

    /// One fault, or two that overlap, until they are over.
    async fn episode(&mut self, cluster: &mut Cluster, kind: Kind) -> Result<(), Violation> {
        let mut faults = vec![self.strike(cluster, kind).await?];
        let mut lasts = self.between(200, 6000);
        if self.random.below(4) == 0 {
            tokio::time::sleep(self.between(0, 800)).await;
            let second = self.draw();
            faults.push(self.strike(cluster, second).await?);
            // More than a minority may be broken now: not for long.
            lasts = lasts.min(Duration::from_secs(2));
        }
        tokio::time::sleep(lasts).await;
        if self.random.below(2) == 0 {
            faults.reverse();
        }
        for fault in faults.into_iter().flatten() {
            relieve(cluster, &self.disks, fault).await?;
        }
        self.say("over");
        Ok(())
    }

    async fn strike(
        &mut self,
        cluster: &mut Cluster,
        kind: Kind,
    ) -> Result<Option<Fault>, Violation> {
        let ids: Vec<NodeId> = cluster.nodes.keys().copied().collect();
        let primary = cluster.primary().await;
        // Drawn in any case, so that what comes later depends on the seed alone.
        let (any, next, prefer) = (
            self.random.below(3),
            1 + self.random.below(2),
            self.random.below(2),
        );
        let any = ids[any as usize % ids.len()];
        let node = if prefer == 0 {
            primary.unwrap_or(any)
        } else {
            any
        };
        let at = ids.iter().position(|id| *id == node).unwrap_or(0);
        let other = ids[(at + next as usize) % ids.len()];
        if cluster.node(node).pid().is_none() {
            return Ok(None);
        }
        let fault = Fault {
            kind,
            node,
            other,
            server: cluster.node(node).mysqld_pid(),
        };
        let role = if primary == Some(node) {
            " (primary)"
        } else {
            ""
        };
        self.say(&format!("{kind:?} of node {node}{role}, other {other}"));
        *self.counts.entry(kind).or_default() += 1;
        self.a_server_was_asked_to_end |= kind == Kind::TermServer;
        let before = Instant::now();
        carry_out(cluster, &self.disks, fault).await?;
        let ends_a_primary = !matches!(
            kind,
            Kind::CutPair | Kind::SlowLinks | Kind::Switchover | Kind::TermSidecar
        );
        if ends_a_primary
            && (primary == Some(node) || matches!(kind, Kind::KillAll | Kind::KillAllSidecars))
        {
            self.primaries_struck.push((before, kind));
        }
        Ok(Some(fault))
    }

    /// Ends whatever is still broken.
    pub(crate) async fn heal(&mut self, cluster: &mut Cluster) {
        cluster.links.heal();
        self.disks.values().for_each(|disk| disk.grow(DISK_MIB));
        for node in cluster.nodes.values_mut() {
            if node.pid().is_none() {
                node.start(false);
            }
            node.signal(Signal::CONT);
            node.try_signal_mysqld(Signal::CONT);
        }
        self.say("healed");
    }
}

async fn carry_out(
    cluster: &mut Cluster,
    disks: &BTreeMap<NodeId, SmallDisk>,
    fault: Fault,
) -> Result<(), Violation> {
    let (node, other) = (fault.node, fault.other);
    let others = cluster.others(node);
    match fault.kind {
        Kind::KillSidecar => cluster.node_mut(node).kill(),
        Kind::KillServer => cluster.node(node).try_signal_mysqld(Signal::KILL),
        Kind::KillNode => kill_node(cluster, node),
        Kind::StopSidecar => cluster.node(node).signal(Signal::STOP),
        Kind::StopServer => cluster.node(node).try_signal_mysqld(Signal::STOP),
        Kind::StopNode => {
            cluster.node(node).signal(Signal::STOP);
            cluster.node(node).try_signal_mysqld(Signal::STOP);
        }
        Kind::TermSidecar => cluster.node(node).signal(Signal::TERM),
        Kind::TermServer => cluster.node(node).try_signal_mysqld(Signal::TERM),
        Kind::KillAll => {
            // All at once: nobody notices that another is gone.
            for node in cluster.nodes.values() {
                if node.pid().is_some() {
                    node.signal(Signal::KILL);
                }
                node.try_signal_mysqld(Signal::KILL);
            }
            cluster.nodes.values_mut().for_each(|node| node.kill());
        }
        Kind::KillAllSidecars => {
            for node in cluster.nodes.values().filter(|node| node.pid().is_some()) {
                node.signal(Signal::KILL);
            }
            cluster.nodes.values_mut().for_each(|node| node.kill());
        }
        Kind::Isolate => cluster.links.isolate(node, true),
        Kind::HoldOutward => hold(cluster, &others, node, true, Flow::Hold),
        Kind::HoldInward => hold(cluster, &others, node, false, Flow::Hold),
        Kind::CutPair => cluster.links.cut(node, other, true),
        Kind::SlowLinks => {
            let slow = Flow::Delay(Duration::from_millis(40));
            hold(cluster, &others, node, true, slow);
            hold(cluster, &others, node, false, slow);
        }
        Kind::WipeData | Kind::WipeNode => {
            wipe(cluster, node, fault.kind == Kind::WipeNode).await?
        }
        Kind::FullDisk => disks[&node].fill(),
        Kind::Switchover => {
            let to = node.to_string();
            // It may be refused, and another may be primary by then.
            let answer = cluster.ask(other, &["switchover", "--to", &to]).await;
            if let Err(why) = answer {
                println!("            refused: {}", why.trim());
            }
        }
    }
    Ok(())
}

fn kill_node(cluster: &mut Cluster, node: NodeId) {
    let node = cluster.node_mut(node);
    node.signal(Signal::KILL);
    node.try_signal_mysqld(Signal::KILL);
    node.kill();
}

fn hold(cluster: &Cluster, others: &[NodeId], node: NodeId, outward: bool, flow: Flow) {
    for other in others {
        let (from, to) = if outward {
            (node, *other)
        } else {
            (*other, node)
        };
        cluster.links.flow(from, to, flow);
    }
}

/// Removes what a node has, as if its disk had been replaced.
async fn wipe(cluster: &mut Cluster, id: NodeId, with_log: bool) -> Result<(), Violation> {
    kill_node(cluster, id);
    let node = cluster.node_mut(id);
    let gone = wait_for(Duration::from_secs(10), async || {
        node.mysqld_pid().is_none()
    })
    .await;
    if !gone {
        return Err(Violation(format!(
            "the server of node {id} outlives a kill -9"
        )));
    }
    let folders: &[&str] = if with_log {
        &["mysql", "raft"]
    } else {
        &["mysql"]
    };
    for folder in folders.iter().map(|name| node.dir.join(name)) {
        assert!(node.owns(&folder), "{} is not the node's", folder.display());
        empty(&folder).expect("remove what a folder of the node has");
    }
    Ok(())
}

/// As an operator does, whether or not the node has noticed by now.
fn make_room(node: &mut NodeProcess, disk: &SmallDisk) {
    disk.grow(DISK_MIB);
    let log = std::fs::read_to_string(node.log()).unwrap_or_default();
    let said = log.matches("is full: make room").count();
    println!(
        "            node {} said {said} times so far that its disk is full",
        node.id
    );
    node.kill();
    node.start(false);
}

/// A folder may be a disk of its own, which stays.
fn empty(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    // Nothing is left of one that is none.
    match std::fs::remove_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Ok(()),
        removed => removed,
    }
}

/// Ends a fault. What the node does then is its own affair.
async fn relieve(
    cluster: &mut Cluster,
    disks: &BTreeMap<NodeId, SmallDisk>,
    fault: Fault,
) -> Result<(), Violation> {
    let node = fault.node;
    match fault.kind {
        Kind::KillServer | Kind::TermServer | Kind::Switchover => {}
        Kind::FullDisk => make_room(cluster.node_mut(node), &disks[&node]),
        Kind::KillSidecar | Kind::KillNode | Kind::WipeData | Kind::WipeNode => {
            start(cluster, node)
        }
        Kind::KillAll | Kind::KillAllSidecars => {
            let ids: Vec<NodeId> = cluster.nodes.keys().copied().collect();
            ids.into_iter().for_each(|node| start(cluster, node));
        }
        Kind::StopSidecar => go_on(cluster, node),
        Kind::StopServer => go_on_server(cluster, fault),
        Kind::StopNode => {
            go_on_server(cluster, fault);
            go_on(cluster, node);
        }
        Kind::TermSidecar => {
            // It may have been stopped or killed as well.
            go_on(cluster, node);
            let is_running = cluster.node(node).pid().is_some();
            // Its server may take a minute for a clean end.
            let bound = Duration::from_secs(90);
            if is_running && cluster.node_mut(node).exited(bound).await.is_none() {
                return Err(Violation(format!(
                    "node {node} does not end within {bound:?} of SIGTERM"
                )));
            }
            start(cluster, node);
        }
        Kind::Isolate => cluster.links.isolate(node, false),
        Kind::CutPair => cluster.links.cut(node, fault.other, false),
        Kind::HoldOutward | Kind::HoldInward | Kind::SlowLinks => {
            for other in cluster.others(node) {
                cluster.links.flow(node, other, Flow::Pass);
                cluster.links.flow(other, node, Flow::Pass);
            }
        }
    }
    Ok(())
}

fn start(cluster: &mut Cluster, node: NodeId) {
    let node = cluster.node_mut(node);
    if node.pid().is_none() {
        node.start(false);
    }
}

fn go_on(cluster: &Cluster, node: NodeId) {
    if cluster.node(node).pid().is_some() {
        cluster.node(node).signal(Signal::CONT);
    }
}

/// The sidecar may have killed it and started another by now.
fn go_on_server(cluster: &Cluster, fault: Fault) {
    if fault.server.is_some() && cluster.node(fault.node).mysqld_pid() == fault.server {
        cluster.node(fault.node).try_signal_mysqld(Signal::CONT);
    }
}
