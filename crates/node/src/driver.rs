//! Carries out what the role machine decides, one effect after the other.

use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::{AppliedState, ChangeError, Consensus, ProposalFate, RaftView};
use quorate_mysqld::Host;
use quorate_net::Net;
use quorate_proxy::GateHandle;
use quorate_role::{Applied, Effect, Input, JobId, JobResult, Machine, Phase, Proposal, Tick};
use quorate_types::{Command, Epoch, LeaderId, LogId, NodeId, Outcome, Rule};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until};

use crate::holding::Holding;
use crate::jobs::JobContext;
use crate::recent::Recent;
use crate::roles::Roles;

/// How often the machine looks at the time, while it waits for something.
const TICK: Duration = Duration::from_millis(10);
/// The same where all is well.
const TICK_SETTLED: Duration = Duration::from_millis(50);

/// What the driver knows, for whoever shows it.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub(crate) phase: Phase,
    pub(crate) role_without_lease: quorate_types::Role,
    pub(crate) role_with_lease: quorate_types::Role,
    pub(crate) message: String,
    pub(crate) stopped: bool,
}

impl Control {
    pub(crate) fn of(machine: &Machine, stopped: bool) -> Self {
        Self {
            phase: machine.phase().clone(),
            role_without_lease: machine.role(false),
            role_with_lease: machine.role(true),
            message: machine.message().to_owned(),
            stopped,
        }
    }
}

/// Owns the machine and the running job.
pub(crate) struct Driver<N: Net, H: Host> {
    pub(crate) machine: Machine,
    pub(crate) jobs: Arc<JobContext<N, H>>,
    pub(crate) net: N,
    pub(crate) consensus: Consensus,
    pub(crate) roles: Roles,
    pub(crate) gate: GateHandle,
    pub(crate) holding: Holding,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) control: watch::Sender<Control>,
    pub(crate) recent: Recent,
    pub(crate) job: Option<(JobId, JoinHandle<()>)>,
}

/// The end of a job, of which it told before, unless it panicked.
async fn ended(job: &mut Option<(JobId, JoinHandle<()>)>) -> Result<(), JoinError> {
    let Some((_, running)) = job else {
        return std::future::pending().await;
    };
    let end = running.await;
    *job = None;
    end
}

impl<N: Net, H: Host> Driver<N, H> {
    /// Until everything that a stop asked for is done.
    pub(crate) async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let started = Instant::now();
        let mut view = self.consensus.view();
        let mut set_primary = self.consensus.set_primary();
        view.mark_changed();
        set_primary.mark_changed();
        let mut ticked = started;
        // What was learned before this process is not a change of epoch.
        let mut seen = None;
        loop {
            let tick = match self.machine.is_settled() {
                true => TICK_SETTLED,
                false => TICK,
            };
            let input = tokio::select! {
                biased;
                Some(input) = inputs.recv() => input,
                Ok(()) = view.changed() => raft(&view.borrow_and_update()),
                Ok(()) = set_primary.changed() => {
                    let next = log(&self.consensus.applied_state().borrow());
                    if seen == Some(next) {
                        continue;
                    }
                    seen = Some(next);
                    Input::Applied(next)
                }
                end = ended(&mut self.job) => {
                    // It says nothing any more, and would be waited for.
                    if let Err(error) = end
                        && error.is_panic()
                    {
                        std::panic::resume_unwind(error.into_panic());
                    }
                    continue;
                }
                () = sleep_until(ticked + tick) => {
                    ticked = Instant::now();
                    Input::Tick
                }
            };
            // The machine's time starts above zero, so that "at once" is a time in the past.
            let now: Tick = started.elapsed() + TICK;
            let effects = self.machine.step(now, input);
            let mut stopped = false;
            for effect in effects {
                stopped |= effect == Effect::Stopped;
                self.carry_out(effect).await;
            }
            let control = Control::of(&self.machine, stopped);
            self.control.send_if_modified(|known| {
                let changed = (
                    &known.phase,
                    &known.message,
                    known.role_with_lease,
                    known.stopped,
                ) != (
                    &control.phase,
                    &control.message,
                    control.role_with_lease,
                    control.stopped,
                );
                *known = control;
                changed
            });
            if stopped {
                return;
            }
        }
    }

    async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::OpenGate { epoch } => {
                tracing::info!(%epoch, "this node is primary: its gate is open");
                self.recent.note(format!(
                    "node {} became primary (epoch {epoch})",
                    self.jobs.node
                ));
                self.roles.open_gate(epoch, self.net.boot_time());
                let jobs = self.jobs.clone();
                tokio::spawn(async move { jobs.enable_events(epoch).await });
            }
            Effect::CloseGate => {
                let leads = self.consensus.view().borrow().is_leader;
                if leads && !self.jobs.obeys(Rule::GateClosesBeforeTransfer) {
                    return;
                }
                self.roles.close_gate();
                self.gate.closed().await;
                tracing::info!("the gate is closed");
                self.recent
                    .note(format!("node {} closed its gate", self.jobs.node));
            }
            Effect::Hold { epoch } => self.holding.hold(epoch),
            Effect::Release { epoch } => {
                tracing::info!("the switchover was given up: this node goes on as primary");
                self.holding.release(epoch);
            }
            Effect::Start { id, job } => {
                tracing::debug!(?job, "job begins");
                let (jobs, inputs) = (self.jobs.clone(), self.inputs.clone());
                let run = async move {
                    let result = jobs.run(id, job).await;
                    if result != JobResult::Done {
                        tracing::debug!(?job, ?result, "job ended");
                    }
                    let _ = inputs.send(Input::JobDone { id, result }).await;
                };
                self.job = Some((id, tokio::spawn(run)));
            }
            Effect::Abort { id } => {
                if let Some((_, job)) = self.job.take_if(|(running, _)| *running == id) {
                    job.abort();
                    let _ = job.await;
                }
            }
            Effect::Propose { leader, node } => self.propose(leader, node).await,
            Effect::Transfer { to, .. } => {
                tracing::info!(%to, "giving leadership to another node");
                self.recent.note(format!(
                    "node {} gives leadership to node {to}",
                    self.jobs.node
                ));
                match self.consensus.transfer_leader(to).await {
                    // It is gone already, which is as good: the view follows.
                    Ok(()) | Err(ChangeError::NotLeader { .. }) => {}
                    Err(error) => {
                        tracing::warn!(%to, %error, "leadership could not be given away");
                    }
                }
            }
            Effect::Heartbeats(on) => self.consensus.set_heartbeat(on),
            Effect::Report(what) => {
                tracing::warn!("{what}");
                self.recent.note(format!("node {}: {what}", self.jobs.node));
            }
            Effect::Stopped => tracing::info!("the server is stopped"),
        }
    }

    async fn propose(&self, leader: LeaderId, node: Option<NodeId>) {
        let answer = self
            .consensus
            .propose(leader, Command::SetPrimary { node })
            .await;
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let result = match answer.await {
                Ok(ProposalFate::Applied {
                    index,
                    outcome: Outcome::PrimarySet { .. },
                }) => Proposal::Applied(LogId { leader, index }),
                Ok(ProposalFate::Applied { .. } | ProposalFate::Refused) => Proposal::Refused,
                Ok(ProposalFate::Unknown) | Err(_) => Proposal::Unknown,
            };
            let _ = inputs.send(Input::Proposed { leader, result }).await;
        });
    }
}

fn raft(view: &RaftView) -> Input {
    Input::Raft {
        leader: view.leader,
        leading: view.leader.filter(|_| view.is_leader),
    }
}

fn log(state: &AppliedState) -> Applied {
    let epoch: Option<(Epoch, NodeId)> = state.epoch.zip(state.primary);
    Applied {
        set_primary: state.set_primary,
        epoch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_job_is_seen_once_and_says_whether_it_panicked() {
        let mut job = Some((JobId(1), tokio::spawn(async { panic!("by a test") })));
        let error = ended(&mut job).await.expect_err("it panicked");
        assert!(error.is_panic() && job.is_none());

        let mut job = Some((JobId(2), tokio::spawn(async {})));
        ended(&mut job).await.expect("it ended");
        assert!(job.is_none());
    }
}
