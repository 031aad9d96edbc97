//! The real role machine, with every state that it was ever in and every step that it made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_role::{
    Applied, Candidate, Defect, Effect, Input, JobId, JobResult, Machine, Phase, Proposal, Series,
    ServerEvent, Tick, Timing,
};
use quorate_types::{Epoch, LeaderId, LogId, NodeId};

/// An input, without the names of jobs and the words for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum In {
    Tick,
    Leading(Option<LeaderId>),
    Applied(Option<LogId>, Option<(Epoch, NodeId)>),
    /// The `SetPrimary` of this leader took effect.
    Proposed(LogId),
    Refused(LeaderId),
    JobDone,
    JobFailed,
    MustClone,
    CaptureStopped(Epoch),
    Exited,
    Errant,
    /// The healthy peers, and those of them that lack nothing, as bits.
    Peers(u8, u8),
    Switchover(u8),
}

/// One state of a machine.
struct Known {
    machine: Machine,
    /// Of its job. Machines that differ in nothing but the numbers of their jobs are one.
    job: Option<JobId>,
}

pub(super) struct Roles {
    known: Vec<Known>,
    by_text: BTreeMap<String, u32>,
    steps: BTreeMap<(u32, In), Made>,
}

/// The machine after a step, and what it orders.
type Made = (u32, Arc<[Effect]>);

/// There is no time: whatever waits for a moment may happen at once, or as late as the other steps
/// let it.
const NOW: Tick = Duration::ZERO;

const TIMELESS: Timing = Timing {
    lease: Duration::ZERO,
    transfer_interval: Duration::ZERO,
    serverless_transfer_interval: Duration::ZERO,
    repair_retry: Duration::ZERO,
    clone_retry: Duration::ZERO,
    promotion_stall: Duration::ZERO,
    limit_retry: Duration::ZERO,
    proposal_retry: Duration::ZERO,
    stop_bound: Duration::ZERO,
};

impl Roles {
    pub(super) fn new() -> Self {
        Self {
            known: Vec::new(),
            by_text: BTreeMap::new(),
            steps: BTreeMap::new(),
        }
    }

    /// The machine of a node that starts.
    pub(super) fn fresh(&mut self, node: usize) -> u32 {
        let machine = Machine::new(NodeId(node as u64 + 1), TIMELESS, false);
        self.intern(machine, None)
    }

    pub(super) fn phase(&self, machine: u32) -> &Phase {
        self.known[machine as usize].machine.phase()
    }

    pub(super) fn step(&mut self, from: u32, input: In) -> Made {
        if let Some(known) = self.steps.get(&(from, input)) {
            return known.clone();
        }
        let known = &self.known[from as usize];
        let (mut machine, mut job) = (known.machine.clone(), known.job);
        let effects = machine.step(NOW, real(input, job));
        if matches!(input, In::JobDone | In::JobFailed | In::MustClone) {
            job = None;
        }
        for effect in &effects {
            match effect {
                Effect::Start { id, .. } => job = Some(*id),
                Effect::Abort { .. } => job = None,
                _ => {}
            }
        }
        let to = self.intern(machine, job);
        let made = (to, Arc::from(effects));
        self.steps.insert((from, input), made.clone());
        made
    }

    fn intern(&mut self, machine: Machine, job: Option<JobId>) -> u32 {
        let text = essence(&format!("{machine:?}"));
        let next = u32::try_from(self.known.len()).expect("far fewer machines than that");
        let number = *self.by_text.entry(text).or_insert(next);
        if number == next {
            self.known.push(Known { machine, job });
        }
        number
    }
}

/// All that a machine is, but for two things that decide nothing: which number its jobs have (but
/// that none was begun yet), and what it would say to people.
fn essence(text: &str) -> String {
    let mut rest = text;
    let mut essence = String::with_capacity(text.len());
    while let Some(at) = ["JobId(", "message: \"", "why: \""]
        .iter()
        .filter_map(|mark| rest.find(mark).map(|at| at + mark.len()))
        .min()
    {
        let (before, after) = rest.split_at(at);
        essence.push_str(before);
        if before.ends_with("JobId(") {
            let end = after.find(')').unwrap_or(0);
            essence.push_str(if &after[..end] == "1" { "1" } else { "n" });
            rest = &after[end..];
        } else {
            rest = &after[after.find('"').unwrap_or(0)..];
        }
    }
    essence + rest
}

fn real(input: In, job: Option<JobId>) -> Input {
    let done = |result| Input::JobDone {
        // Nobody has a job of this number.
        id: job.unwrap_or(JobId(0)),
        result,
    };
    match input {
        In::Tick => Input::Tick,
        In::Leading(leading) => Input::Raft {
            leader: leading,
            leading,
        },
        In::Applied(set_primary, epoch) => Input::Applied(Applied { set_primary, epoch }),
        In::Proposed(id) => Input::Proposed {
            leader: id.leader,
            result: Proposal::Applied(id),
        },
        In::Refused(leader) => Input::Proposed {
            leader,
            result: Proposal::Refused,
        },
        In::JobDone => done(JobResult::Done),
        In::JobFailed => done(JobResult::Failed(String::new())),
        In::MustClone => done(JobResult::MustClone(Defect::Damaged, String::new())),
        In::CaptureStopped(epoch) => Input::CaptureStopped { epoch },
        In::Exited => Input::Server(ServerEvent::Exited),
        In::Errant => Input::Unmendable(Defect::Errant, String::new()),
        In::Peers(healthy, level) => {
            let peer = |node: u8| Candidate {
                node: NodeId(u64::from(node) + 1),
                healthy: true,
                behind: u64::from(level >> node & 1 == 0),
                series: Series::default(),
            };
            let healthy = (0..8).filter(|node| healthy >> node & 1 == 1);
            Input::Peers(healthy.map(peer).collect())
        }
        In::Switchover(to) => Input::Switchover {
            to: NodeId(u64::from(to) + 1),
        },
    }
}
