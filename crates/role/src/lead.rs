//! What a leader owes the log: the end of the old epoch, a new one, or another leader.

use quorate_types::{LeaderId, LogId, NodeId};

use crate::input::{Candidate, Effect, Job, Tick};
use crate::machine::{Machine, Phase};

/// A `SetPrimary` in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proposing {
    pub(crate) leader: LeaderId,
    /// The entry that it became, once that is known.
    pub(crate) applied_as: Option<LogId>,
}

/// An attempt to give leadership away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    /// The leadership that is being given away.
    leader: LeaderId,
    to: NodeId,
    at: Tick,
    second: bool,
}

impl Machine {
    pub(crate) fn lead(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        self.forget_old_transfers(effects);
        let Some(leader) = self.leading else { return };
        self.watch_transfer(now, effects);
        self.consider_transfer(now, leader, effects);
        if self.proposing.is_some_and(|proposing| {
            proposing
                .applied_as
                .is_some_and(|id| self.applied.set_primary >= Some(id))
        }) {
            self.proposing = None;
        }
        if self.proposing.is_none() && now >= self.propose_at {
            self.consider_proposal(now, leader, effects);
        }
    }

    fn forget_old_transfers(&mut self, effects: &mut Vec<Effect>) {
        if self
            .transfer
            .is_some_and(|transfer| self.leading != Some(transfer.leader))
        {
            self.transfer = None;
        }
        if self.leading.is_none() {
            self.switchover = None;
        }
        // A silent leader speaks again once another term is known.
        if self.heartbeats_off && self.transfer.is_none() {
            self.heartbeats_off = false;
            effects.push(Effect::Heartbeats(true));
        }
    }

    /// Whether leadership was given away in the term that this node still leads.
    pub(crate) fn gave_away(&self) -> bool {
        self.transfer.is_some()
    }

    /// Whether a stopping node should wait with its server until somebody else leads.
    pub(crate) fn must_hand_over(&self) -> bool {
        self.leading.is_some() && !self.heartbeats_off && self.nearest(None).is_some()
    }

    /// A transfer that does not come about within two leases is tried with the next candidate
    /// once; then this leader falls silent, since a leader cannot step down (second review, 3).
    fn watch_transfer(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let Some(transfer) = self.transfer else {
            return;
        };
        if now < transfer.at + self.timing.lease * 2 || self.heartbeats_off {
            return;
        }
        match self.nearest(Some(transfer.to)) {
            Some(next) if !transfer.second => {
                self.transfer = Some(Transfer {
                    to: next.node,
                    at: now,
                    second: true,
                    ..transfer
                });
                effects.push(Effect::Transfer {
                    leader: transfer.leader,
                    to: next.node,
                });
            }
            _ => {
                self.heartbeats_off = true;
                effects.push(Effect::Heartbeats(false));
            }
        }
    }

    fn consider_transfer(&mut self, now: Tick, leader: LeaderId, effects: &mut Vec<Effect>) {
        if self.transfer.is_some() {
            return;
        }
        let ordered = self.is_ordered();
        let to = match &self.phase {
            // While writes end in good order, the epoch's own leader must still commit them.
            Phase::Promoting { epoch, .. } if ordered && !self.is_over(*epoch) => None,
            Phase::Primary { epoch }
            | Phase::Draining { epoch }
            | Phase::Bypassed { epoch, .. }
            | Phase::EndingWrites { epoch }
            | Phase::EndingEpoch { epoch }
                if !self.is_over(*epoch) =>
            {
                None
            }
            Phase::Promoting { advanced_at, .. } => {
                // Only to a node that is strictly nearer than this one, which is not there yet.
                let stalled = now >= *advanced_at + self.timing.promotion_stall;
                self.nearest(None)
                    .filter(|nearest| stalled && nearest.behind == 0)
            }
            Phase::Replica if !ordered && self.replica_healthy && !self.yields(now) => None,
            _ => self.nearest(None),
        };
        let to = match self.switchover {
            Some(chosen) => to.map(|nearest| {
                let healthy = self
                    .peers
                    .iter()
                    .find(|peer| peer.node == chosen && peer.healthy);
                healthy.copied().unwrap_or(nearest)
            }),
            None => to,
        };
        let Some(Candidate { node: to, .. }) = to else {
            // Nobody is left to switch over to: this node goes on.
            if self.nearest(None).is_none() {
                self.switchover = None;
            }
            return;
        };
        // A server that lags gets nearer by itself while leadership stays: moving it around gains
        // nothing. One that is down may take long, and whoever is healthy serves at once.
        let interval = match self.phase {
            Phase::Repairing { .. } | Phase::MustClone { .. } | Phase::Witness => {
                self.timing.serverless_transfer_interval
            }
            _ => self.timing.transfer_interval,
        };
        let too_soon = self.last_transfer_at.is_some_and(|at| now < at + interval);
        if too_soon && !ordered {
            return;
        }
        self.transfer = Some(Transfer {
            leader,
            to,
            at: now,
            second: false,
        });
        self.last_transfer_at = Some(now);
        effects.push(Effect::Transfer { leader, to });
    }

    /// Whether a server of an older series should be primary instead of this one: that one may not be
    /// able to apply what this one writes, but this one can apply what it writes. Leadership that
    /// comes back soon stays, so that the cluster serves also if the other one cannot be elected.
    fn yields(&self, now: Tick) -> bool {
        let came_back = self
            .last_transfer_at
            .is_some_and(|at| now < at + self.timing.transfer_interval);
        !came_back
            && self
                .nearest(None)
                .is_some_and(|nearest| Some(nearest.series) < self.series)
    }

    /// Whether a node's server would, as primary, give leadership to one of an older series.
    pub(crate) fn is_newer(&self, node: NodeId) -> bool {
        let healthy = self.peers.iter().filter(|peer| peer.healthy);
        let oldest = healthy.map(|peer| peer.series).chain(self.series).min();
        let peer = self.peers.iter().find(|peer| peer.node == node);
        peer.is_some_and(|peer| Some(peer.series) > oldest)
    }

    fn nearest(&self, except: Option<NodeId>) -> Option<Candidate> {
        let others = self.peers.iter();
        Candidate::nearest(others.filter(|peer| Some(peer.node) != except))
    }

    fn consider_proposal(&mut self, now: Tick, leader: LeaderId, effects: &mut Vec<Effect>) {
        let ended_the_old = self
            .applied
            .set_primary
            .is_some_and(|id| id.leader == leader);
        let current = self
            .applied
            .epoch
            .filter(|(epoch, node)| *node == self.node && epoch.0.leader == leader);
        let node = match (ended_the_old, current) {
            // The first entry of every leader, whatever its server is (second review, 1).
            (false, _) => None,
            (true, Some((epoch, _))) => match self.phase {
                Phase::Replica if self.over < Some(epoch) && !self.is_leaving() => {
                    self.phase = Phase::Promoting {
                        epoch,
                        advanced_at: now,
                    };
                    self.name_older(effects);
                    self.start(Job::Promote { epoch }, effects);
                    return;
                }
                // Its commits are being answered: their epoch lasts until they are.
                Phase::Promoting { .. }
                | Phase::Primary { .. }
                | Phase::Draining { .. }
                | Phase::Bypassed { .. } => return,
                Phase::EndingWrites { epoch: ending }
                    if ending == epoch && self.over < Some(epoch) =>
                {
                    return;
                }
                _ => None,
            },
            (true, None) => {
                let promotable =
                    self.phase == Phase::Replica && self.replica_healthy && !self.yields(now);
                if !promotable || self.is_leaving() {
                    return;
                }
                Some(self.node)
            }
        };
        self.proposing = Some(Proposing {
            leader,
            applied_as: None,
        });
        effects.push(Effect::Propose { leader, node });
    }

    fn name_older(&self, effects: &mut Vec<Effect>) {
        let Some(own) = self.series else { return };
        for peer in self.peers.iter().filter(|peer| peer.series < own) {
            effects.push(Effect::Report(format!(
                "a server of MySQL {}.{} becomes primary, and node {} runs {}.{}, which may not be able to \
                 apply what it writes",
                own.0, own.1, peer.node, peer.series.0, peer.series.1
            )));
        }
    }
}
