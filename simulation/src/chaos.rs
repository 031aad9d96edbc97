//! Faults from a seed: what goes wrong, when, and when it is mended.

use std::time::Duration;

use quorate_types::NodeId;

use crate::cluster::{Cluster, Violation};
use crate::mysqld::Pace;
use crate::random::Random;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How many faults of each kind there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub partitions: u64,
    pub crashes: u64,
    pub server_faults: u64,
    pub slow: u64,
    pub orders: u64,
    pub stalls: u64,
    pub log_disks: u64,
}

/// What ends a fault, at its time.
#[derive(Clone, Copy, Debug)]
enum Mend {
    JoinAll,
    StartSidecar(NodeId),
    Resume(NodeId),
    Pace(NodeId),
    GoOn(NodeId),
    LogDisk(NodeId),
}

/// Faults that follow from a seed.
pub struct Chaos {
    random: Random,
    next: Duration,
    mends: Vec<(Duration, Mend)>,
    /// From when on an operator has a node that was removed come back.
    back: Option<Duration>,
    pub faults: Faults,
}

impl Chaos {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed ^ 0xc4a0_5eed),
            next: Duration::ZERO,
            mends: Vec::new(),
            back: None,
            faults: Faults::default(),
        }
    }

    /// Breaks and mends things for a while, and leaves some of them broken.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn run(&mut self, cluster: &mut Cluster, time: Duration) -> Result<(), Violation> {
        let until = cluster.elapsed() + time;
        self.next = cluster.elapsed() + self.random.between(ms(200), ms(2000));
        while cluster.elapsed() < until {
            let now = cluster.elapsed();
            let due: Vec<Mend> = self
                .mends
                .extract_if(.., |(at, _)| *at <= now)
                .map(|(_, mend)| mend)
                .collect();
            for mend in due {
                self.mend(cluster, mend);
            }
            self.restart_what_ended(cluster, now);
            if self.back.is_some_and(|back| back <= now) && cluster.put_members_back() {
                self.back = None;
            }
            if now >= self.next {
                self.break_something(cluster);
                self.next = now + self.random.between(ms(300), ms(4000));
            }
            cluster.run_for(ms(20))?;
        }
        Ok(())
    }

    fn mend(&mut self, cluster: &mut Cluster, mend: Mend) {
        match mend {
            Mend::JoinAll => cluster.join_all(),
            Mend::StartSidecar(node) => cluster.start_sidecar(node),
            Mend::Resume(node) => cluster.pause_server(node, false),
            Mend::Pace(node) => cluster.set_pace(node, Pace::default()),
            Mend::GoOn(node) => cluster.stand_still(node, false),
            Mend::LogDisk(node) => cluster.mend_log_disk(node),
        }
    }

    /// As a service manager does, for those that ended by themselves.
    fn restart_what_ended(&mut self, cluster: &mut Cluster, now: Duration) {
        for node in cluster.nodes() {
            let planned = self
                .mends
                .iter()
                .any(|(_, mend)| matches!(mend, Mend::StartSidecar(other) if *other == node));
            if cluster.is_ended(node) && !planned {
                let after = self.random.between(ms(50), ms(1500));
                self.mends.push((now + after, Mend::StartSidecar(node)));
            }
        }
    }

    fn break_something(&mut self, cluster: &mut Cluster) {
        let now = cluster.elapsed();
        let nodes = cluster.nodes();
        // The primary is where it hurts.
        let node = match (cluster.primary(), self.random.below(2)) {
            (Some(primary), 0) => primary,
            _ => *self.random.pick(&nodes),
        };
        let others = cluster.others(node);
        let other = *self.random.pick(&others);
        let lasting = now + self.random.between(ms(100), ms(4000));
        match self.random.below(21) {
            kind @ 0..=4 => {
                self.faults.partitions += 1;
                self.break_link(cluster, kind, node, other);
                self.mends.push((lasting, Mend::JoinAll));
            }
            5 => {
                self.faults.crashes += 1;
                cluster.kill_sidecar(node);
            }
            6 => {
                self.faults.crashes += 1;
                cluster.power_off(node);
            }
            7 => {
                self.faults.crashes += 1;
                let all = self.random.chance(4);
                let down = if all { nodes } else { vec![node, other] };
                for node in down {
                    cluster.power_off(node);
                }
            }
            8 => {
                self.faults.server_faults += 1;
                cluster.kill_server(node);
            }
            9 => {
                self.faults.server_faults += 1;
                cluster.pause_server(node, true);
                self.mends.push((lasting, Mend::Resume(node)));
            }
            kind => self.break_more(cluster, kind, node, other, lasting),
        }
    }

    fn break_more(
        &mut self,
        cluster: &mut Cluster,
        kind: u64,
        node: NodeId,
        other: NodeId,
        lasting: Duration,
    ) {
        match kind {
            10 => {
                self.faults.slow += 1;
                let pace = Pace {
                    sync_max: self.random.duration(ms(200)),
                    apply_max: self.random.duration(ms(100)),
                };
                cluster.set_pace(node, pace);
                self.mends.push((lasting, Mend::Pace(node)));
            }
            11 => {
                self.faults.server_faults += 1;
                cluster.kill_sessions(node);
            }
            // Whatever a primary executes is captured: only a replica can have more.
            12 if cluster.primary().is_some_and(|primary| primary != other) => {
                self.faults.server_faults += 1;
                cluster.make_errant(other);
            }
            12 => {}
            13 => {
                self.faults.orders += 1;
                cluster.switch_over(other);
            }
            14 => {
                self.faults.orders += 1;
                cluster.stop_sidecar(node);
            }
            15 | 16 => {
                self.faults.stalls += 1;
                cluster.stand_still(node, true);
                self.mends.push((lasting, Mend::GoOn(node)));
            }
            kind @ 17..=19 => {
                self.faults.log_disks += 1;
                match kind {
                    17 => cluster.slow_log_disk(node, self.random.between(ms(5), ms(150))),
                    18 => cluster.hang_log_disk(node),
                    _ => cluster.fail_log_disk(node),
                }
                self.mends.push((lasting, Mend::LogDisk(node)));
            }
            _ if self.back.is_none() => {
                self.faults.orders += 1;
                let through = *self.random.pick(&cluster.nodes());
                cluster.remove_member(through, node);
                self.back = Some(lasting);
            }
            _ => {}
        }
    }

    fn break_link(&mut self, cluster: &mut Cluster, kind: u64, node: NodeId, other: NodeId) {
        match kind {
            0 => cluster.cut(node, other),
            1 => cluster.cut_one_way(node, other),
            2 => cluster.isolate(node),
            3 => {
                // Heard by nobody, and hearing all; or the other way round.
                let heard = self.random.chance(2);
                for other in cluster.others(node) {
                    match heard {
                        true => cluster.cut_one_way(other, node),
                        false => cluster.cut_one_way(node, other),
                    }
                }
            }
            _ => match self.random.below(3) {
                0 => cluster.hold(node, other),
                1 => {
                    let longest = self.random.between(ms(5), ms(400));
                    cluster.slow_link(node, other, longest);
                }
                _ => {
                    let one_in = 20 + self.random.below(1000);
                    cluster.lossy_link(node, other, one_in);
                }
            },
        }
    }
}
