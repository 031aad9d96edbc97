use quorate_types::{Epoch, LeaderId, NodeId, Role};

use crate::input::{
    Applied, Candidate, Defect, Effect, Input, Job, JobId, JobResult, Proposal, Series,
    ServerEvent, Tick, Timing,
};
use crate::lead::{Proposing, Transfer};
use crate::limit::Limit;

/// What the server is, as far as this node brought it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is known of it, or it is down, or being mended. `retry_at` while no job runs.
    Repairing {
        retry_at: Option<Tick>,
        message: String,
    },
    /// Only a clone can mend it. `retry_at` while no job runs.
    MustClone {
        retry_at: Tick,
        defect: Defect,
        message: String,
    },
    Replica,
    Promoting {
        epoch: Epoch,
        advanced_at: Tick,
    },
    Primary {
        epoch: Epoch,
    },
    /// Still primary, with the gate open for those who are in: what they began may end. Nobody
    /// else is let in, since leadership is about to be given away by order.
    Draining {
        epoch: Epoch,
    },
    /// Commits were answered without the log. The gate is closed; what was executed may still
    /// become accepted before the server is killed.
    Bypassed {
        epoch: Epoch,
        why: String,
    },
    /// Waiting for `super_read_only=ON`.
    EndingWrites {
        epoch: Epoch,
    },
    /// Writes ended; the epoch's end is not applied yet.
    EndingEpoch {
        epoch: Epoch,
    },
    /// Becoming a replica.
    Demoting {
        epoch: Epoch,
    },
    /// The process is ending and the server is stopped or being stopped.
    Stopping,
    /// This node has no server.
    Witness,
}

/// The role machine of one node.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(crate) node: NodeId,
    pub(crate) timing: Timing,
    pub(crate) phase: Phase,
    pub(crate) leader: Option<LeaderId>,
    pub(crate) leading: Option<LeaderId>,
    pub(crate) applied: Applied,
    pub(crate) peers: Vec<Candidate>,
    /// Of this node's server, once it is known.
    pub(crate) series: Option<Series>,
    pub(crate) replica_healthy: bool,
    pub(crate) job: Option<(JobId, Job)>,
    pub(crate) next_job: JobId,
    /// The `SetPrimary` in flight.
    pub(crate) proposing: Option<Proposing>,
    pub(crate) propose_at: Tick,
    pub(crate) transfer: Option<Transfer>,
    pub(crate) last_transfer_at: Option<Tick>,
    pub(crate) heartbeats_off: bool,
    pub(crate) switchover: Option<NodeId>,
    /// By when a stopping node ends, in good order or not.
    pub(crate) stop_by: Option<Tick>,
    pub(crate) gate: Option<Epoch>,
    /// Epochs at or before this one are over for this node, whatever the log says.
    pub(crate) over: Option<Epoch>,
    /// Whether a server that must be cloned is, or waits as it is for somebody to look at it.
    clones: bool,
    pub(crate) limit: Limit,
    stopped: bool,
}

impl Machine {
    #[must_use]
    pub fn new(node: NodeId, timing: Timing, witness: bool) -> Self {
        let phase = if witness {
            Phase::Witness
        } else {
            Phase::Repairing {
                retry_at: Some(Tick::ZERO),
                message: "starting".to_owned(),
            }
        };
        Self {
            node,
            timing,
            phase,
            leader: None,
            leading: None,
            applied: Applied::default(),
            peers: Vec::new(),
            series: None,
            replica_healthy: false,
            job: None,
            next_job: JobId(1),
            proposing: None,
            propose_at: Tick::ZERO,
            transfer: None,
            last_transfer_at: None,
            heartbeats_off: false,
            switchover: None,
            stop_by: None,
            gate: None,
            over: None,
            clones: true,
            limit: Limit::default(),
            stopped: false,
        }
    }

    /// Leaves a server that must be cloned as it is.
    pub fn stop_instead_of_cloning(&mut self) {
        self.clones = false;
    }

    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether nothing that this node waits for has a time soon: its ticks may be further apart.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let at_rest = match &self.phase {
            Phase::Primary { epoch } => self.leading == Some(epoch.0.leader),
            Phase::Replica | Phase::Witness => self.leading.is_none(),
            _ => false,
        };
        let waits = self.job.is_some()
            || self.proposing.is_some()
            || self.transfer.is_some()
            || self.switchover.is_some()
            || self.stop_by.is_some();
        at_rest && !waits
    }

    /// The role to show, given whether the lease holds now.
    #[must_use]
    pub fn role(&self, lease_holds: bool) -> Role {
        match &self.phase {
            Phase::Replica => Role::Replica,
            Phase::Promoting { .. } => Role::Promoting,
            Phase::Primary { .. } | Phase::Draining { .. }
                if lease_holds && self.gate.is_some() =>
            {
                Role::Primary
            }
            Phase::Primary { .. } | Phase::Draining { .. } | Phase::Bypassed { .. } => Role::Fenced,
            Phase::EndingWrites { .. } | Phase::EndingEpoch { .. } | Phase::Demoting { .. } => {
                Role::Demoting
            }
            Phase::MustClone { defect, .. } if self.may_clone(*defect) => Role::Cloning,
            Phase::Repairing { .. } | Phase::MustClone { .. } => Role::Repairing,
            Phase::Stopping => Role::Down,
            Phase::Witness => Role::Witness,
        }
    }

    /// Why the node is not what it should be, for people; empty if it is.
    #[must_use]
    pub fn message(&self) -> &str {
        match &self.phase {
            Phase::Repairing { message, .. }
            | Phase::MustClone { message, .. }
            | Phase::Bypassed { why: message, .. } => message,
            _ => "",
        }
    }

    /// The only mutator: the same state, time and input give the same effects.
    pub fn step(&mut self, now: Tick, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.observe(now, input, &mut effects);
        // What must end ends first; only then is anything begun.
        self.guard_gate(&mut effects);
        self.end_salvage(now, &mut effects);
        self.drain(&mut effects);
        self.end_epoch(&mut effects);
        self.advance_demotion(&mut effects);
        self.limit_writes(now, &mut effects);
        self.lead(now, &mut effects);
        self.repair(now, &mut effects);
        self.clone_server(now, &mut effects);
        self.stop(now, &mut effects);
        effects
    }

    fn observe(&mut self, now: Tick, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Tick => {}
            Input::Raft { leader, leading } => {
                self.leader = leader;
                self.leading = leading;
                // A SetPrimary of another leadership is no longer ours to wait for.
                self.proposing = self
                    .proposing
                    .filter(|proposing| leading == Some(proposing.leader));
            }
            Input::Applied(applied) => self.applied = applied,
            Input::Proposed { leader, result } => self.on_proposed(now, leader, result),
            Input::JobDone { id, result } => self.on_job_done(now, id, result, effects),
            Input::PromotionAdvanced { id } => {
                if let (Phase::Promoting { advanced_at, .. }, Some((current, _))) =
                    (&mut self.phase, self.job)
                    && current == id
                {
                    *advanced_at = now;
                }
            }
            Input::CaptureStopped { epoch } => self.over = self.over.max(Some(epoch)),
            Input::Server(event) => self.on_server(now, event, effects),
            // In any other phase it is judged on the way to the next.
            Input::Unmendable(defect, why) if self.phase == Phase::Replica => {
                self.must_clone(now, defect, why, effects);
            }
            Input::Unmendable(..) => {}
            Input::Absolved => self.on_absolved(now, effects),
            Input::Bypassed { epoch, why } => self.on_bypassed(epoch, why, effects),
            Input::Peers(peers) => self.peers = peers,
            Input::Series(series) => self.series = Some(series),
            Input::LogFull(full) => self.limit.full = full,
            Input::Switchover { to } => {
                let possible =
                    self.is_candidate(to) && !self.is_newer(to) && self.leading.is_some();
                self.switchover = possible.then_some(to);
            }
            Input::Stop => self.stop_by = self.stop_by.or(Some(now + self.timing.stop_bound)),
        }
    }

    fn on_proposed(&mut self, now: Tick, leader: LeaderId, result: Proposal) {
        let Some(proposing) = self
            .proposing
            .as_mut()
            .filter(|proposing| proposing.leader == leader)
        else {
            return;
        };
        match result {
            // The entry is known before its effect is observed here; until then it is in flight.
            Proposal::Applied(id) => proposing.applied_as = Some(id),
            Proposal::Refused | Proposal::Unknown => {
                self.proposing = None;
                self.propose_at = now + self.timing.proposal_retry;
            }
        }
    }

    fn on_server(&mut self, now: Tick, event: ServerEvent, effects: &mut Vec<Effect>) {
        let why = match event {
            ServerEvent::ReplicaHealth(healthy) => {
                self.replica_healthy = healthy;
                return;
            }
            ServerEvent::Exited => "mysqld exited",
            ServerEvent::Hung => "mysqld does not answer",
            ServerEvent::MetStatements => {
                "a transaction was logged as statements: replication begins anew, for any kind"
            }
        };
        // A repair starts the server itself and notices its end itself.
        if matches!(
            self.phase,
            Phase::Repairing { .. } | Phase::MustClone { .. } | Phase::Stopping | Phase::Witness
        ) {
            return;
        }
        self.begin_repair(now, why.to_owned(), effects);
    }

    /// What was answered wrongly cannot be taken back; what is executed already is better accepted
    /// than cut off. So the gate closes, and the epoch ends a moment later.
    fn on_bypassed(&mut self, epoch: Epoch, why: String, effects: &mut Vec<Effect>) {
        let serving = match self.phase {
            Phase::Primary { epoch: own } | Phase::Draining { epoch: own } => own == epoch,
            _ => false,
        };
        if !serving || self.is_over(epoch) {
            return;
        }
        self.close_gate(effects);
        self.abort(effects);
        effects.push(Effect::Report(why.clone()));
        self.phase = Phase::Bypassed { epoch, why };
        self.start(Job::Salvage { epoch }, effects);
    }

    fn on_job_done(&mut self, now: Tick, id: JobId, result: JobResult, effects: &mut Vec<Effect>) {
        let Some((_, job)) = self.job.take_if(|(current, _)| *current == id) else {
            return;
        };
        match (job, result) {
            (Job::StopServer { .. }, _) => {
                self.stopped = true;
                effects.push(Effect::Stopped);
            }
            // However it ended: what is left open now is cut off.
            (Job::Drain { epoch }, _) => self.end_writes(epoch, effects),
            (Job::LimitWrites { epoch, stop }, result) => {
                self.on_limited(now, (epoch, stop), result, effects);
            }
            (Job::Salvage { .. }, _) => {
                let message = self.message().to_owned();
                self.begin_repair(now, message, effects);
            }
            (_, JobResult::MustClone(defect, why)) => self.must_clone(now, defect, why, effects),
            (Job::Clone, JobResult::Failed(why)) => {
                effects.push(Effect::Report(format!("the clone failed: {why}")));
                if let Phase::MustClone { retry_at, .. } = &mut self.phase {
                    *retry_at = now + self.timing.clone_retry;
                }
            }
            (Job::Clone, JobResult::Done) => {
                self.phase = Phase::Repairing {
                    retry_at: Some(now),
                    message: "cloned, and to be started".to_owned(),
                };
            }
            (Job::Repair { .. }, JobResult::Failed(message)) => {
                effects.push(Effect::Report(format!("repair failed: {message}")));
                self.phase = Phase::Repairing {
                    retry_at: Some(now + self.timing.repair_retry),
                    message,
                };
            }
            (_, JobResult::Failed(message)) => self.begin_repair(now, message, effects),
            (Job::Repair { .. } | Job::Demote { .. }, JobResult::Done) => {
                self.phase = Phase::Replica;
                self.replica_healthy = true;
            }
            (Job::Promote { epoch }, JobResult::Done) => {
                self.phase = Phase::Primary { epoch };
                self.open_gate(epoch, effects);
            }
            (Job::EndWrites { epoch }, JobResult::Done) => {
                self.phase = Phase::EndingEpoch { epoch }
            }
        }
    }

    fn must_clone(
        &mut self,
        now: Tick,
        defect: Defect,
        message: String,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::Report(format!(
            "this server must be cloned: {message}"
        )));
        self.mark_over();
        self.replica_healthy = false;
        self.phase = Phase::MustClone {
            retry_at: now,
            defect,
            message,
        };
    }

    /// It is judged anew, on the way of every server: what else is wrong with it shows there.
    fn on_absolved(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if let Phase::MustClone {
            defect: Defect::Errant,
            ..
        } = self.phase
        {
            let why = "what it has is accepted by now".to_owned();
            self.begin_repair(now, why, effects);
        }
    }

    /// The gate opens here and nowhere else.
    fn open_gate(&mut self, epoch: Epoch, effects: &mut Vec<Effect>) {
        if !self.is_over(epoch) && !self.is_leaving() {
            self.gate = Some(epoch);
            effects.push(Effect::OpenGate { epoch });
        }
    }

    fn guard_gate(&mut self, effects: &mut Vec<Effect>) {
        let Some(epoch) = self.gate else { return };
        // While it drains it is leaving, and serves until that is done.
        let serving = match self.phase {
            Phase::Primary { epoch: own } => own == epoch,
            Phase::Draining { epoch: own } => own == epoch,
            _ => false,
        };
        if !serving || self.is_over(epoch) || self.gave_away() {
            self.close_gate(effects);
        }
    }

    fn close_gate(&mut self, effects: &mut Vec<Effect>) {
        if self.gate.take().is_some() {
            effects.push(Effect::CloseGate);
        }
    }

    /// Whether nothing may be served or proposed in this epoch any more.
    pub(crate) fn is_over(&self, epoch: Epoch) -> bool {
        self.over >= Some(epoch)
            || self.leading != Some(epoch.0.leader)
            || self
                .applied
                .epoch
                .is_none_or(|(current, _)| current != epoch)
    }

    /// Whether this node is giving leadership up, by order or because it must.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_ordered() || self.gave_away()
    }

    /// Whether somebody wants another primary, or this process to end.
    pub(crate) fn is_ordered(&self) -> bool {
        self.stop_by.is_some() || self.switchover.is_some()
    }

    fn is_candidate(&self, node: NodeId) -> bool {
        self.peers
            .iter()
            .any(|peer| peer.node == node && peer.healthy)
    }

    fn epoch(&self) -> Option<Epoch> {
        match self.phase {
            Phase::Promoting { epoch, .. }
            | Phase::Primary { epoch }
            | Phase::Draining { epoch }
            | Phase::Bypassed { epoch, .. }
            | Phase::EndingWrites { epoch }
            | Phase::EndingEpoch { epoch }
            | Phase::Demoting { epoch } => Some(epoch),
            _ => None,
        }
    }

    fn mark_over(&mut self) {
        self.over = self.over.max(self.epoch());
    }

    /// Kill and repair, from any phase.
    pub(crate) fn begin_repair(&mut self, now: Tick, message: String, effects: &mut Vec<Effect>) {
        self.close_gate(effects);
        self.mark_over();
        self.abort(effects);
        self.replica_healthy = false;
        effects.push(Effect::Report(format!("{message}: repairing")));
        self.phase = Phase::Repairing {
            retry_at: Some(now),
            message,
        };
    }

    fn abort(&mut self, effects: &mut Vec<Effect>) {
        if let Some((id, _)) = self.job.take() {
            effects.push(Effect::Abort { id });
        }
    }

    pub(crate) fn start(&mut self, job: Job, effects: &mut Vec<Effect>) {
        debug_assert!(self.job.is_none(), "one job at a time");
        let id = self.next_job;
        self.next_job = JobId(id.0 + 1);
        self.job = Some((id, job));
        effects.push(Effect::Start { id, job });
    }

    /// Leadership that is given away by order leaves nobody's transaction behind, within a bound.
    fn drain(&mut self, effects: &mut Vec<Effect>) {
        match self.phase {
            Phase::Primary { epoch } if self.is_ordered() && !self.is_over(epoch) => {
                self.abort(effects);
                self.phase = Phase::Draining { epoch };
                effects.push(Effect::Hold { epoch });
                self.start(Job::Drain { epoch }, effects);
            }
            Phase::Draining { epoch } if !self.is_over(epoch) => {
                // Nothing has happened yet that could not be left as it is.
                if self.switchover.is_some_and(|to| !self.is_candidate(to)) {
                    self.switchover = None;
                }
                if !self.is_ordered() {
                    self.abort(effects);
                    self.phase = Phase::Primary { epoch };
                    effects.push(Effect::Release { epoch });
                }
            }
            _ => {}
        }
    }

    /// A server that is, or is becoming, primary of an epoch that is over (or is to be given up)
    /// must become a replica first.
    fn end_epoch(&mut self, effects: &mut Vec<Effect>) {
        match self.phase {
            Phase::Primary { epoch } | Phase::Draining { epoch }
                if self.is_over(epoch) || self.gave_away() =>
            {
                self.end_writes(epoch, effects);
            }
            Phase::Promoting { epoch, .. } if self.is_over(epoch) || self.is_leaving() => {
                self.end_writes(epoch, effects);
            }
            _ => {}
        }
    }

    fn end_writes(&mut self, epoch: Epoch, effects: &mut Vec<Effect>) {
        self.abort(effects);
        self.close_gate(effects);
        self.phase = Phase::EndingWrites { epoch };
        self.start(Job::EndWrites { epoch }, effects);
    }

    /// The log has moved on: nothing more becomes accepted.
    fn end_salvage(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if let Phase::Bypassed { epoch, .. } = self.phase
            && self.is_over(epoch)
        {
            let message = self.message().to_owned();
            self.begin_repair(now, message, effects);
        }
    }

    fn advance_demotion(&mut self, effects: &mut Vec<Effect>) {
        let Phase::EndingEpoch { epoch } = self.phase else {
            return;
        };
        if self.applied.set_primary > Some(epoch.0) {
            self.phase = Phase::Demoting { epoch };
            self.start(Job::Demote { epoch }, effects);
        }
    }

    fn repair(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let Phase::Repairing { retry_at, .. } = &mut self.phase else {
            return;
        };
        if self.job.is_some() || self.stop_by.is_some() || retry_at.is_none_or(|at| at > now) {
            return;
        }
        *retry_at = None;
        // Only the first job of the process may find a server that is worth keeping.
        let adopt = self.next_job == JobId(1);
        self.start(Job::Repair { adopt }, effects);
    }

    /// What holds nothing wrong has nothing that anybody could want to look at.
    fn may_clone(&self, defect: Defect) -> bool {
        self.clones || defect == Defect::Behind
    }

    fn clone_server(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let Phase::MustClone {
            retry_at, defect, ..
        } = self.phase
        else {
            return;
        };
        if self.may_clone(defect) && self.job.is_none() && self.stop_by.is_none() && retry_at <= now
        {
            self.start(Job::Clone, effects);
        }
    }

    fn stop(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let Some(stop_by) = self.stop_by else { return };
        if self.stopped || self.phase == Phase::Stopping {
            return;
        }
        let late = now >= stop_by;
        if self.must_hand_over() && !late {
            return;
        }
        let clean = match self.phase {
            Phase::Witness => {
                self.stopped = true;
                effects.push(Effect::Stopped);
                return;
            }
            Phase::Replica => true,
            Phase::Repairing { .. } | Phase::MustClone { .. } => false,
            _ if late => false,
            _ => return,
        };
        self.close_gate(effects);
        self.abort(effects);
        self.phase = Phase::Stopping;
        self.start(Job::StopServer { clean }, effects);
    }
}
