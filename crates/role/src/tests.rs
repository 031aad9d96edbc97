use std::time::Duration;

use proptest::prelude::*;
use quorate_types::{Epoch, LeaderId, LogId, LogIndex, NodeId, Role, Term};

use crate::*;

mod series;

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const SERIES: Series = (8, 4);

fn leader(term: u64, node: NodeId) -> LeaderId {
    LeaderId {
        term: Term(term),
        node,
    }
}

fn log_id(leader: LeaderId, index: u64) -> LogId {
    LogId {
        leader,
        index: LogIndex(index),
    }
}

fn ms(ms: u64) -> Tick {
    Duration::from_millis(ms)
}

/// A machine with a scripted world around it: every story below speaks to it.
struct Node {
    machine: Machine,
    now: Tick,
    index: u64,
}

impl Node {
    fn new() -> Self {
        let machine = Machine::new(ME, Timing::default(), false);
        Self {
            machine,
            now: ms(1000),
            index: 10,
        }
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        self.now += ms(1);
        self.machine.step(self.now, input)
    }

    fn job(&self) -> (JobId, Job) {
        self.machine.job.expect("a job runs")
    }

    fn finish(&mut self, result: JobResult) -> Vec<Effect> {
        let (id, _) = self.job();
        self.step(Input::JobDone { id, result })
    }

    fn lead(&mut self, term: u64) -> Vec<Effect> {
        let own = leader(term, ME);
        self.step(Input::Raft {
            leader: Some(own),
            leading: Some(own),
        })
    }

    fn follow(&mut self, term: u64) -> Vec<Effect> {
        self.step(Input::Raft {
            leader: Some(leader(term, OTHER)),
            leading: None,
        })
    }

    /// The log takes a SetPrimary of `by`.
    fn apply(&mut self, by: LeaderId, node: Option<NodeId>) -> (LogId, Vec<Effect>) {
        self.index += 1;
        let id = log_id(by, self.index);
        let epoch = node.map(|node| (Epoch(id), node));
        let mut effects = self.step(Input::Proposed {
            leader: by,
            result: Proposal::Applied(id),
        });
        effects.extend(self.step(Input::Applied(Applied {
            set_primary: Some(id),
            epoch,
        })));
        (id, effects)
    }

    fn replica() -> Self {
        let mut node = Self::new();
        node.step(Input::Tick);
        node.finish(JobResult::Done);
        node
    }

    fn primary() -> (Self, Epoch) {
        let mut node = Self::replica();
        assert_eq!(node.lead(3), [propose(3, None)]);
        let (_, effects) = node.apply(leader(3, ME), None);
        assert_eq!(effects, [propose(3, Some(ME))]);
        let (id, effects) = node.apply(leader(3, ME), Some(ME));
        let epoch = Epoch(id);
        assert!(
            matches!(effects[..], [Effect::Start { job: Job::Promote { epoch: e }, .. }] if e == epoch)
        );
        assert_eq!(node.finish(JobResult::Done), [Effect::OpenGate { epoch }]);
        (node, epoch)
    }

    fn with_candidate(mut self) -> Self {
        self.step(Input::Peers(vec![Candidate {
            node: OTHER,
            healthy: true,
            behind: 0,
            series: SERIES,
        }]));
        self
    }
}

fn propose(term: u64, node: Option<NodeId>) -> Effect {
    Effect::Propose {
        leader: leader(term, ME),
        node,
    }
}

fn transfers(effects: &[Effect]) -> bool {
    effects
        .iter()
        .any(|effect| matches!(effect, Effect::Transfer { .. }))
}

fn starts(effects: &[Effect]) -> Option<Job> {
    effects.iter().find_map(|effect| match effect {
        Effect::Start { job, .. } => Some(*job),
        _ => None,
    })
}

#[test]
fn the_first_job_may_adopt_and_a_later_repair_may_not() {
    let mut node = Node::new();
    assert_eq!(
        starts(&node.step(Input::Tick)),
        Some(Job::Repair { adopt: true })
    );
    node.finish(JobResult::Failed("no leader".to_owned()));
    node.now += ms(2000);
    assert_eq!(
        starts(&node.step(Input::Tick)),
        Some(Job::Repair { adopt: false })
    );
}

#[test]
fn a_leader_ends_the_old_epoch_first_even_without_a_server() {
    let mut node = Node::new();
    node.step(Input::Tick);
    assert_eq!(node.lead(3), [propose(3, None)]);
    let (_, effects) = node.apply(leader(3, ME), None);
    assert_eq!(
        effects,
        [],
        "nothing to promote while the server is being repaired"
    );
    assert_eq!(node.finish(JobResult::Done), [propose(3, Some(ME))]);
}

#[test]
fn a_dead_server_moves_leadership_at_once_and_is_repaired() {
    let (node, epoch) = Node::primary();
    let mut node = node.with_candidate();
    let effects = node.step(Input::Server(ServerEvent::Exited));
    assert_eq!(effects[0], Effect::CloseGate);
    assert!(transfers(&effects), "{effects:?}");
    assert_eq!(starts(&effects), Some(Job::Repair { adopt: false }));
    assert!(node.machine.is_over(epoch));
}

#[test]
fn a_replica_of_rows_that_met_statements_begins_anew() {
    let mut node = Node::replica();
    let effects = node.step(Input::Server(ServerEvent::MetStatements));
    assert_eq!(starts(&effects), Some(Job::Repair { adopt: false }));
    node.finish(JobResult::Done);
    assert_eq!(node.machine.phase(), &Phase::Replica);
}

#[test]
fn a_promotion_that_met_statements_ends_its_epoch_and_comes_again() {
    let mut node = Node::replica();
    node.lead(3);
    node.apply(leader(3, ME), None);
    let (_, effects) = node.apply(leader(3, ME), Some(ME));
    assert!(matches!(starts(&effects), Some(Job::Promote { .. })));
    let effects = node.step(Input::Server(ServerEvent::MetStatements));
    assert_eq!(starts(&effects), Some(Job::Repair { adopt: false }));
    assert!(effects.contains(&propose(3, None)), "{effects:?}");
    node.apply(leader(3, ME), None);
    assert_eq!(node.finish(JobResult::Done), [propose(3, Some(ME))]);
}

#[test]
fn leadership_that_comes_back_to_a_dead_server_is_given_away_again_soon() {
    let (node, _) = Node::primary();
    let mut node = node.with_candidate();
    assert!(transfers(&node.step(Input::Server(ServerEvent::Exited))));
    node.follow(4);
    assert!(!transfers(&node.lead(5)), "not in a hot loop");
    node.now += node.machine.timing.serverless_transfer_interval;
    assert!(transfers(&node.step(Input::Tick)));
}

#[test]
fn a_dead_server_without_a_candidate_ends_its_epoch_and_returns_by_way_of_a_repair() {
    let (mut node, _) = Node::primary();
    let effects = node.step(Input::Server(ServerEvent::Exited));
    assert!(effects.contains(&propose(3, None)), "{effects:?}");
    node.apply(leader(3, ME), None);
    assert_eq!(node.finish(JobResult::Done), [propose(3, Some(ME))]);
}

#[test]
fn a_deposed_primary_closes_its_gate_before_anything_else() {
    let (mut node, epoch) = Node::primary();
    let effects = node.follow(4);
    assert_eq!(effects[0], Effect::CloseGate);
    assert_eq!(starts(&effects), Some(Job::EndWrites { epoch }));
    assert_eq!(
        node.finish(JobResult::Done),
        [],
        "the end of the epoch is not applied yet"
    );
    let (_, effects) = node.apply(leader(4, OTHER), None);
    assert_eq!(starts(&effects), Some(Job::Demote { epoch }));
    node.finish(JobResult::Done);
    assert_eq!(node.machine.phase(), &Phase::Replica);
}

#[test]
fn a_primary_that_cannot_end_its_writes_is_killed_and_repaired() {
    let (mut node, _) = Node::primary();
    node.follow(4);
    let effects = node.finish(JobResult::Failed("commits wait".to_owned()));
    assert_eq!(starts(&effects), Some(Job::Repair { adopt: false }));
}

#[test]
fn capture_lost_ends_the_epoch_though_the_node_goes_on_leading() {
    let (mut node, epoch) = Node::primary();
    let effects = node.step(Input::CaptureStopped { epoch });
    assert_eq!(effects[0], Effect::CloseGate);
    assert_eq!(starts(&effects), Some(Job::EndWrites { epoch }));
    assert!(effects.contains(&propose(3, None)));
    node.apply(leader(3, ME), None);
    let effects = node.finish(JobResult::Done);
    assert_eq!(starts(&effects), Some(Job::Demote { epoch }));
    assert_eq!(node.finish(JobResult::Done), [propose(3, Some(ME))]);
}

#[test]
fn a_switchover_ends_writes_and_the_epoch_before_leadership_goes() {
    let (node, epoch) = Node::primary();
    let mut node = node.with_candidate();
    let effects = node.step(Input::Switchover { to: OTHER });
    assert_eq!(effects[0], Effect::Hold { epoch });
    assert_eq!(starts(&effects), Some(Job::Drain { epoch }));
    assert_eq!(effects.len(), 2, "the gate stays open: {effects:?}");
    assert_eq!(node.machine.role(true), quorate_types::Role::Primary);
    let effects = node.finish(JobResult::Done);
    assert_eq!(effects[0], Effect::CloseGate);
    assert_eq!(starts(&effects), Some(Job::EndWrites { epoch }));
    assert!(
        !effects.contains(&propose(3, None)),
        "waiting commits may still be accepted"
    );
    assert!(!transfers(&effects));
    let effects = node.finish(JobResult::Done);
    assert!(
        effects.contains(&propose(3, None)) && !transfers(&effects),
        "{effects:?}"
    );
    let (_, effects) = node.apply(leader(3, ME), None);
    assert!(transfers(&effects), "{effects:?}");
}

#[test]
fn a_switchover_whose_node_falls_ill_while_transactions_end_is_given_up() {
    let (node, epoch) = Node::primary();
    let mut node = node.with_candidate();
    node.step(Input::Switchover { to: OTHER });
    let (id, _) = node.job();
    let third = Candidate {
        node: NodeId(3),
        healthy: true,
        behind: 0,
        series: SERIES,
    };
    let effects = node.step(Input::Peers(vec![third]));
    assert_eq!(effects, [Effect::Abort { id }, Effect::Release { epoch }]);
    assert_eq!(node.machine.phase(), &Phase::Primary { epoch });
    assert_eq!(node.step(Input::Tick), []);
}

#[test]
fn a_primary_that_is_deposed_while_transactions_end_closes_its_gate_at_once() {
    let (node, epoch) = Node::primary();
    let mut node = node.with_candidate();
    node.step(Input::Switchover { to: OTHER });
    let effects = node.follow(4);
    assert_eq!(effects[0], Effect::CloseGate);
    assert_eq!(starts(&effects), Some(Job::EndWrites { epoch }));
}

#[test]
fn commits_that_pass_the_log_end_the_epoch_once_the_gate_is_closed() {
    let (node, epoch) = Node::primary();
    let mut node = node.with_candidate();
    let why = "rpl_semi_sync_source_enabled is OFF".to_owned();
    let effects = node.step(Input::Bypassed {
        epoch,
        why: why.clone(),
    });
    assert_eq!(effects[0], Effect::CloseGate);
    assert_eq!(starts(&effects), Some(Job::Salvage { epoch }));
    assert!(
        !effects.contains(&propose(3, None)) && !transfers(&effects),
        "what was answered may still become accepted: {effects:?}"
    );
    assert_eq!(node.machine.message(), why);
    let effects = node.finish(JobResult::Done);
    assert!(transfers(&effects), "{effects:?}");
    assert_eq!(starts(&effects), Some(Job::Repair { adopt: false }));
    assert!(node.machine.is_over(epoch));
}

#[test]
fn what_was_seen_of_another_epoch_says_nothing() {
    let (mut node, _) = Node::primary();
    let epoch = Epoch(log_id(leader(2, ME), 4));
    let why = String::new();
    assert_eq!(node.step(Input::Bypassed { epoch, why }), []);
}

#[test]
fn a_full_log_stops_writes_within_the_epoch_and_room_resumes_them() {
    let (mut node, epoch) = Node::primary();
    let stop = |stop| Some(Job::LimitWrites { epoch, stop });
    assert_eq!(starts(&node.step(Input::LogFull(true))), stop(true));
    assert!(starts(&node.finish(JobResult::Done)).is_none());
    assert_eq!(node.step(Input::LogFull(true)), []);
    assert_eq!(node.machine.role(true), Role::Primary);
    // One that failed is tried again, not in a hot loop.
    assert_eq!(starts(&node.step(Input::LogFull(false))), stop(false));
    node.finish(JobResult::Failed("no answer".to_owned()));
    assert_eq!(node.step(Input::Tick), []);
    node.now += ms(1000);
    assert_eq!(starts(&node.step(Input::Tick)), stop(false));
    assert!(starts(&node.finish(JobResult::Done)).is_none());
    assert_eq!(node.step(Input::Tick), []);
}

#[test]
fn what_an_interrupted_stop_of_writes_left_is_set_right() {
    let (mut node, epoch) = Node::primary();
    node = node.with_candidate();
    node.step(Input::LogFull(true));
    let effects = node.step(Input::Switchover { to: OTHER });
    assert_eq!(starts(&effects), Some(Job::Drain { epoch }));
    node.step(Input::LogFull(false));
    // The switchover is given up, and nobody knows whether the server takes writes.
    let effects = node.step(Input::Peers(Vec::new()));
    let resume = Job::LimitWrites { epoch, stop: false };
    assert_eq!(starts(&effects), Some(resume));
    let effects = node.step(Input::CaptureStopped { epoch });
    assert_eq!(starts(&effects), Some(Job::EndWrites { epoch }));
}

#[test]
fn a_failed_transfer_is_tried_once_more_and_then_the_leader_falls_silent() {
    let (node, _) = Node::primary();
    let mut node = node.with_candidate();
    node.step(Input::Peers(vec![
        Candidate {
            node: OTHER,
            healthy: true,
            behind: 0,
            series: SERIES,
        },
        Candidate {
            node: NodeId(3),
            healthy: true,
            behind: 1,
            series: SERIES,
        },
    ]));
    assert!(transfers(&node.step(Input::Server(ServerEvent::Exited))));
    node.now += ms(600);
    assert!(node.step(Input::Tick).contains(&Effect::Transfer {
        leader: leader(3, ME),
        to: NodeId(3)
    }));
    node.now += ms(600);
    assert!(node.step(Input::Tick).contains(&Effect::Heartbeats(false)));
    assert!(node.follow(4).contains(&Effect::Heartbeats(true)));
}

#[test]
fn a_stop_hands_over_then_stops_the_server_cleanly() {
    let (node, _) = Node::primary();
    let mut node = node.with_candidate();
    assert!(matches!(
        starts(&node.step(Input::Stop)),
        Some(Job::Drain { .. })
    ));
    node.finish(JobResult::Done);
    node.finish(JobResult::Done);
    let (_, effects) = node.apply(leader(3, ME), None);
    assert!(transfers(&effects) || starts(&effects).is_some());
    node.finish(JobResult::Done);
    let effects = node.follow(4);
    assert_eq!(starts(&effects), Some(Job::StopServer { clean: true }));
    assert_eq!(node.finish(JobResult::Done), [Effect::Stopped]);
}

#[test]
fn an_errant_replica_is_cloned_again_and_again_until_it_is_and_then_started() {
    let mut node = Node::replica();
    let message = || "it has more".to_owned();
    let effects = node.step(Input::Unmendable(Defect::Damaged, message()));
    assert_eq!(starts(&effects), Some(Job::Clone));
    assert_eq!(node.machine.role(true), quorate_types::Role::Cloning);
    assert_eq!(starts(&node.lead(3)), None);
    let (_, effects) = node.apply(leader(3, ME), None);
    assert_eq!(effects, [], "it is not promoted");

    assert_eq!(
        starts(&node.finish(JobResult::Failed("no donor".to_owned()))),
        None
    );
    assert_eq!(node.machine.message(), message());
    node.now += node.machine.timing.clone_retry;
    assert_eq!(starts(&node.step(Input::Tick)), Some(Job::Clone));
    let effects = node.finish(JobResult::Done);
    assert_eq!(starts(&effects), Some(Job::Repair { adopt: false }));
}

#[test]
fn a_server_that_must_be_cloned_waits_as_it_is_where_that_is_wanted() {
    let mut node = Node::replica();
    node.machine.stop_instead_of_cloning();
    let message = "it has more".to_owned();
    let effects = node.step(Input::Unmendable(Defect::Errant, message));
    assert_eq!(starts(&effects), None);
    node.now += ms(60_000);
    assert_eq!(node.step(Input::Tick), []);
    assert_eq!(node.machine.role(true), quorate_types::Role::Repairing);

    let mut node = Node::replica();
    node.machine.stop_instead_of_cloning();
    let effects = node.step(Input::Unmendable(
        Defect::Behind,
        "it lacks some".to_owned(),
    ));
    assert_eq!(
        starts(&effects),
        Some(Job::Clone),
        "there is nothing to look at"
    );
}

#[test]
fn a_server_whose_errant_transactions_are_accepted_is_repaired_and_not_cloned() {
    for clones in [true, false] {
        let mut node = Node::replica();
        if !clones {
            node.machine.stop_instead_of_cloning();
        }
        assert_eq!(
            node.step(Input::Absolved),
            [],
            "it has nothing to be absolved of"
        );
        let message = "it has more".to_owned();
        node.step(Input::Unmendable(Defect::Errant, message));
        let effects = node.step(Input::Absolved);
        assert_eq!(starts(&effects), Some(Job::Repair { adopt: false }));
        assert_eq!(
            effects
                .iter()
                .any(|effect| matches!(effect, Effect::Abort { .. })),
            clones
        );
        node.finish(JobResult::Done);
        assert_eq!(node.machine.role(true), quorate_types::Role::Replica);
    }
    for defect in [Defect::Damaged, Defect::Behind] {
        let mut node = Node::replica();
        node.step(Input::Unmendable(defect, "another fault".to_owned()));
        assert_eq!(node.step(Input::Absolved), [], "{defect:?}");
    }
}

#[test]
fn a_refused_proposal_is_made_again_but_not_in_a_hot_loop() {
    let mut node = Node::replica();
    assert_eq!(node.lead(3), [propose(3, None)]);
    assert_eq!(
        node.step(Input::Proposed {
            leader: leader(3, ME),
            result: Proposal::Refused
        }),
        []
    );
    assert_eq!(node.step(Input::Tick), []);
    node.now += ms(20);
    assert_eq!(node.step(Input::Tick), [propose(3, None)]);
}

fn input() -> impl Strategy<Value = Choice> {
    prop_oneof![
        4 => (0..400u64).prop_map(Choice::Wait),
        2 => Just(Choice::Lead),
        1 => Just(Choice::Follow),
        1 => Just(Choice::NoLeader),
        6 => any::<bool>().prop_map(Choice::Propose),
        6 => Just(Choice::JobDone),
        2 => Just(Choice::JobFailed),
        1 => Just(Choice::CaptureStopped),
        1 => Just(Choice::Exited),
        1 => Just(Choice::Errant),
        1 => Just(Choice::Bypassed),
        1 => any::<bool>().prop_map(Choice::Health),
        1 => any::<bool>().prop_map(Choice::Peers),
        1 => Just(Choice::Switchover),
        1 => Just(Choice::OtherLog),
        1 => any::<bool>().prop_map(Choice::LogFull),
    ]
}

#[derive(Clone, Debug)]
enum Choice {
    Wait(u64),
    Lead,
    Follow,
    NoLeader,
    Propose(bool),
    JobDone,
    JobFailed,
    CaptureStopped,
    Exited,
    Errant,
    Bypassed,
    Health(bool),
    Peers(bool),
    Switchover,
    OtherLog,
    LogFull(bool),
}

/// What must hold whatever the world does, checked from the effects alone.
#[derive(Default)]
struct Rules {
    gate: Option<Epoch>,
    job: Option<JobId>,
    given_away: Option<LeaderId>,
    proposal: Option<(LeaderId, Option<NodeId>)>,
}

impl Rules {
    fn check(&mut self, machine: &Machine, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::OpenGate { epoch } => {
                    assert!(self.gate.is_none());
                    assert_eq!(machine.leading, Some(epoch.0.leader));
                    assert_eq!(machine.applied.epoch, Some((*epoch, ME)));
                    assert_ne!(
                        self.given_away,
                        Some(epoch.0.leader),
                        "opened after a transfer"
                    );
                    self.gate = Some(*epoch);
                }
                Effect::CloseGate => assert!(self.gate.take().is_some()),
                Effect::Start { id, job } => {
                    assert!(self.job.replace(*id).is_none(), "two jobs");
                    let harmless = matches!(
                        job,
                        Job::Promote { .. } | Job::Drain { .. } | Job::LimitWrites { .. }
                    );
                    let touches = !harmless;
                    assert!(
                        !touches || self.gate.is_none(),
                        "{job:?} behind an open gate"
                    );
                }
                Effect::Abort { id } => assert_eq!(self.job.take(), Some(*id)),
                Effect::Transfer { leader, .. } => {
                    assert!(self.gate.is_none(), "transfer behind an open gate");
                    assert_eq!(machine.leading, Some(*leader));
                    self.given_away = Some(*leader);
                }
                Effect::Propose { leader, node } => {
                    assert_eq!(machine.leading, Some(*leader));
                    let ended = machine
                        .applied
                        .set_primary
                        .is_some_and(|id| id.leader == *leader);
                    assert!(
                        node.is_none() || ended,
                        "began an epoch before ending the old one"
                    );
                    assert!(node.is_none() || *machine.phase() == Phase::Replica);
                    self.proposal = Some((*leader, *node));
                }
                Effect::Hold { epoch } => assert_eq!(self.gate, Some(*epoch)),
                Effect::Release { epoch } => {
                    assert_eq!(machine.phase(), &Phase::Primary { epoch: *epoch });
                }
                Effect::Heartbeats(_) | Effect::Report(_) | Effect::Stopped => {}
            }
        }
        if let Some(epoch) = self.gate {
            let serving = [Phase::Primary { epoch }, Phase::Draining { epoch }];
            assert!(serving.contains(machine.phase()), "{machine:?}");
            assert!(!machine.is_over(epoch));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_events_breaks_the_rules(choices in proptest::collection::vec(input(), 1..120)) {
        let mut node = Node::new();
        let mut rules = Rules::default();
        let mut term = 1;
        for choice in choices {
            let before = node.machine.job.map(|(id, _)| id);
            let input = match choice {
                Choice::Wait(wait) => {
                    node.now += ms(wait);
                    Input::Tick
                }
                Choice::Lead => {
                    term += 1;
                    let own = leader(term, ME);
                    Input::Raft { leader: Some(own), leading: Some(own) }
                }
                Choice::Follow => {
                    term += 1;
                    Input::Raft { leader: Some(leader(term, OTHER)), leading: None }
                }
                Choice::NoLeader => Input::Raft { leader: None, leading: None },
                Choice::Propose(takes) => match rules.proposal.take() {
                    Some((by, to)) if takes && node.machine.leading == Some(by) => {
                        node.index += 1;
                        let id = log_id(by, node.index);
                        rules.check(&node.machine, &[]);
                        let applied = Applied { set_primary: Some(id), epoch: to.map(|to| (Epoch(id), to)) };
                        let effects = node.step(Input::Applied(applied));
                        if effects.iter().any(|effect| matches!(effect, Effect::Start { .. } | Effect::Abort { .. })) {
                            rules.job = before;
                        }
                        rules.check(&node.machine, &effects);
                        Input::Proposed { leader: by, result: Proposal::Applied(id) }
                    }
                    Some((by, _)) => Input::Proposed { leader: by, result: Proposal::Refused },
                    None => Input::Tick,
                },
                Choice::JobDone | Choice::JobFailed => match before {
                    Some(id) => {
                        let failed = matches!(choice, Choice::JobFailed);
                        let result = if failed { JobResult::Failed("x".to_owned()) } else { JobResult::Done };
                        rules.job = None;
                        Input::JobDone { id, result }
                    }
                    None => Input::Tick,
                },
                Choice::CaptureStopped => match node.machine.applied.epoch {
                    Some((epoch, _)) => Input::CaptureStopped { epoch },
                    None => Input::Tick,
                },
                Choice::Errant => Input::Unmendable(Defect::Errant, "x".to_owned()),
                Choice::Bypassed => match node.machine.applied.epoch {
                    Some((epoch, _)) => Input::Bypassed { epoch, why: "x".to_owned() },
                    None => Input::Tick,
                },
                Choice::Exited => Input::Server(ServerEvent::Exited),
                Choice::Health(healthy) => Input::Server(ServerEvent::ReplicaHealth(healthy)),
                Choice::Peers(healthy) => Input::Peers(vec![Candidate { node: OTHER, healthy, behind: 0, series: SERIES }]),
                Choice::Switchover => Input::Switchover { to: OTHER },
                Choice::LogFull(full) => Input::LogFull(full),
                Choice::OtherLog => {
                    node.index += 1;
                    term += 1;
                    let id = log_id(leader(term, OTHER), node.index);
                    let effects = node.step(Input::Raft { leader: Some(id.leader), leading: None });
                    rules.check(&node.machine, &effects);
                    Input::Applied(Applied { set_primary: Some(id), epoch: None })
                }
            };
            let effects = node.step(input);
            rules.check(&node.machine, &effects);
        }
    }
}

#[test]
fn a_witness_that_leads_ends_the_epoch_and_hands_over_again_and_again() {
    let mut node = Node::new();
    node.machine = Machine::new(ME, Timing::default(), true);
    assert_eq!(node.machine.role(true), quorate_types::Role::Witness);
    // Nobody can take over yet: the old epoch ends all the same, and repairs wait for that.
    assert_eq!(node.lead(3), [propose(3, None)]);
    let (_, effects) = node.apply(leader(3, ME), None);
    assert_eq!(effects, []);
    let transfer = |term, to| Effect::Transfer {
        leader: leader(term, ME),
        to,
    };
    let healthy = |node, behind| Candidate {
        node,
        healthy: true,
        behind,
        series: SERIES,
    };
    let peers = vec![healthy(NodeId(3), 5), healthy(OTHER, 0)];
    let effects = node.step(Input::Peers(peers));
    assert_eq!(effects, [transfer(3, OTHER)]);
    node.follow(4);
    // Elected again a moment later: no long wait between two transfers of one that cannot serve.
    node.now += ms(600);
    assert_eq!(node.lead(5), [transfer(5, OTHER), propose(5, None)]);
    // One that does not take it is passed over once, and then others elect.
    node.now += ms(700);
    assert_eq!(node.step(Input::Tick), [transfer(5, NodeId(3))]);
    node.now += ms(700);
    assert_eq!(node.step(Input::Tick), [Effect::Heartbeats(false)]);
    node.follow(6);
    // It has nothing to stop.
    assert_eq!(node.step(Input::Stop), [Effect::Stopped]);
}
