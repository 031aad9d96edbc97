//! The way out when no server is left to clone from: what one server executed becomes accepted, and
//! all others are cloned from it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use quorate_consensus::ProposalFate;
use quorate_consensus::apply::ACCEPT_ERRANT_LEVEL;
use quorate_types::{
    AcceptErrant, Command, GtidSet, Incarnation, LeaderId, Member, Members, NodeId, Outcome,
    Settings, Standing,
};
use quorate_wire::v1::{
    AcceptErrantReply, AcceptErrantRequest, JudgeServerReply, JudgeServerRequest, ReplacedServer,
    ServerCondition,
};
use tokio::time::timeout;
use tonic::Status;

use crate::admin::AdminService;

/// A node judges its own server within a bound of its own.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How long one step may take: it needs a quorum, and that may be gone.
const STEP_MAX: Duration = Duration::from_secs(10);

/// What a node said of its server, or why it said nothing.
type Answers = BTreeMap<NodeId, Result<Judgement, String>>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Judgement {
    condition: ServerCondition,
    why: String,
    executed: Option<GtidSet>,
    /// Why its errant transactions cannot be accepted.
    unfit: Option<String>,
}

/// What would be done.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    executed: GtidSet,
    /// Of these, what becomes accepted.
    errant: GtidSet,
    /// All other servers: why they are cloned, and what is gone with their data, if that is known.
    replaced: BTreeMap<NodeId, (String, Option<GtidSet>)>,
}

impl AdminService {
    /// Carries it out if this node leads, else passes it on.
    pub(crate) async fn accept(
        &self,
        request: AcceptErrantRequest,
    ) -> Result<AcceptErrantReply, Status> {
        let refused = |why: String| AcceptErrantReply {
            text: why,
            leader: self.hint(),
            ..AcceptErrantReply::default()
        };
        match self.leads_elsewhere() {
            Ok(None) => {}
            Ok(Some(mut leader)) => {
                return Ok(leader.accept_errant(request).await?.into_inner());
            }
            Err(why) => return Ok(refused(why)),
        }
        let expected = request.executed_gtid_set.as_deref();
        let expected = expected.map(GtidSet::try_from_wire).transpose();
        let expected = expected.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let done = self
            .look_and_accept(NodeId(request.node), request.do_not_wait, expected)
            .await;
        Ok(done.unwrap_or_else(refused))
    }

    async fn look_and_accept(
        &self,
        chosen: NodeId,
        do_not_wait: bool,
        expected: Option<GtidSet>,
    ) -> Result<AcceptErrantReply, String> {
        let view = self.consensus.view().borrow().clone();
        let leader = view.leader.filter(|_| view.is_leader);
        let leader = leader.ok_or("this node no longer leads")?;
        // A new leader may not have applied what a former one did.
        let barrier = timeout(STEP_MAX, self.consensus.barrier()).await;
        if !matches!(barrier, Ok(Ok(_))) {
            return Err("there is no quorum".to_owned());
        }
        let state = self.consensus.applied_state().borrow().clone();
        if let Some(primary) = state.primary {
            return Err(format!("node {primary} is the primary"));
        }
        if let Some((_, permit)) = state.permits.current() {
            let (recipient, donor) = (permit.recipient, permit.donor);
            return Err(format!(
                "node {recipient} is being cloned from node {donor}"
            ));
        }
        all_know_how(&state.members)?;
        let prepare = expected.is_some().then_some(chosen);
        let answers = self.judgements(&state.members, prepare).await;
        let plan = decide(chosen, do_not_wait, &state.accepted, &answers)?;
        let Some(expected) = expected else {
            return Ok(plan.reply(String::new()));
        };
        if plan.executed != expected {
            return Err(format!(
                "node {chosen}'s server has other transactions than were shown: look again"
            ));
        }
        if state.settings.apply_level < ACCEPT_ERRANT_LEVEL {
            let apply_level = ACCEPT_ERRANT_LEVEL;
            let settings = Command::Settings(Settings { apply_level });
            self.commit(leader, settings).await?;
        }
        let incarnation = state.members.get(&chosen).map(|member| member.incarnation);
        let errant = AcceptErrant {
            node: chosen,
            incarnation: incarnation.unwrap_or_default(),
            executed: plan.executed.clone(),
        };
        self.commit(leader, Command::AcceptErrant(errant)).await?;
        let set = &plan.errant;
        tracing::warn!(node = %chosen, errant = %set, "errant transactions were accepted by order");
        Ok(plan.reply(format!(
            "What node {chosen}'s server has is accepted. It is started again, and the others are \
             cloned from it: see `quorate status`."
        )))
    }

    async fn commit(&self, leader: LeaderId, command: Command) -> Result<(), String> {
        let fate = async { self.consensus.propose(leader, command).await.await };
        match timeout(STEP_MAX, fate).await {
            Ok(Ok(ProposalFate::Applied {
                outcome: Outcome::Done,
                ..
            })) => Ok(()),
            Ok(Ok(ProposalFate::Applied { .. } | ProposalFate::Refused)) => {
                Err("something changed meanwhile, and nothing was accepted: look again".to_owned())
            }
            Ok(Ok(ProposalFate::Unknown) | Err(_)) | Err(_) => {
                Err("it may have been accepted or not: look again, which tells".to_owned())
            }
        }
    }

    /// What every member with a server says of it.
    async fn judgements(&self, members: &Members, prepare: Option<NodeId>) -> Answers {
        let has_server = |member: &Member| member.standing != Standing::Removed && !member.witness;
        let asked = members.iter().filter(|(_, member)| has_server(member));
        let answers = asked.map(|(id, member)| async move {
            let answer = timeout(ANSWER_MAX, self.ask_judgement(*id, prepare == Some(*id))).await;
            let answer = match answer {
                Ok(Ok(reply)) => judgement(reply, member.incarnation),
                Ok(Err(why)) => Err(why),
                Err(_) => Err("it does not answer".to_owned()),
            };
            (*id, answer)
        });
        join_all(answers).await.into_iter().collect()
    }

    async fn ask_judgement(&self, node: NodeId, prepare: bool) -> Result<JudgeServerReply, String> {
        if node == self.node {
            return Ok((self.questions.judge)(prepare).await);
        }
        let mut client = (self.forward)(node).ok_or("it is not known where it is")?;
        let request = JudgeServerRequest {
            cluster_id: self.cluster.0,
            prepare,
        };
        let reply = client.judge_server(request).await;
        let reply = reply.map_err(|status| format!("it does not answer: {}", status.message()))?;
        Ok(reply.into_inner())
    }
}

/// A member with an older program would stop at the entry. One that is still to come has none yet.
fn all_know_how(members: &Members) -> Result<(), String> {
    let older = members.iter().find(|(_, member)| {
        member.standing != Standing::Removed
            && member.incarnation != Incarnation::default()
            && member.apply_level < ACCEPT_ERRANT_LEVEL
    });
    match older {
        Some((node, _)) => Err(format!(
            "node {node} runs an older program, which does not know this"
        )),
        None => Ok(()),
    }
}

fn judgement(reply: JudgeServerReply, incarnation: Incarnation) -> Result<Judgement, String> {
    if reply.incarnation != incarnation.0 {
        return Err("its Raft folder is another than the member's".to_owned());
    }
    let executed = reply.executed_gtid_set.as_deref();
    let executed = executed.map(GtidSet::try_from_wire).transpose();
    Ok(Judgement {
        condition: reply.condition(),
        why: reply.why,
        executed: executed.map_err(|error| error.to_string())?,
        unfit: (!reply.unfit.is_empty()).then_some(reply.unfit),
    })
}

/// Whether the chosen server's transactions may become accepted: no server may be left that the others
/// could be cloned from, and the chosen one must have everything that is accepted. What it lacked
/// might not fit to what it has, and then nobody would be left at all.
fn decide(
    chosen: NodeId,
    do_not_wait: bool,
    accepted: &GtidSet,
    answers: &Answers,
) -> Result<Plan, String> {
    nobody_is_left(do_not_wait, answers)?;
    let own = answers.get(&chosen).ok_or_else(|| {
        let nodes: Vec<String> = answers.keys().map(ToString::to_string).collect();
        format!(
            "node {chosen} is no member with a server; those are: {}",
            nodes.join(", ")
        )
    })?;
    let own = own.as_ref();
    let own = own.map_err(|why| format!("node {chosen} cannot be chosen: {why}"))?;
    if let Some(unfit) = &own.unfit {
        return Err(format!(
            "node {chosen} cannot be chosen: {unfit} ({})",
            own.why
        ));
    }
    let executed = own.executed.clone();
    let executed = executed.ok_or_else(|| format!("node {chosen}'s server does not answer"))?;
    let lacks = accepted.difference(&executed);
    if !lacks.is_empty() {
        return Err(format!(
            "node {chosen} cannot be chosen: it lacks what is accepted ({lacks})"
        ));
    }
    let errant = executed.difference(accepted);
    if errant.is_empty() {
        return Err(format!(
            "node {chosen}'s server has nothing that is not accepted"
        ));
    }
    let others = answers.iter().filter(|(id, _)| **id != chosen);
    let replaced = others.map(|(id, answer)| {
        let (why, theirs) = match answer {
            Ok(judgement) => (judgement.why.clone(), judgement.executed.as_ref()),
            Err(why) => (why.clone(), None),
        };
        (
            *id,
            (why, theirs.map(|theirs| theirs.difference(&executed))),
        )
    });
    Ok(Plan {
        replaced: replaced.collect(),
        executed,
        errant,
    })
}

fn nobody_is_left(do_not_wait: bool, answers: &Answers) -> Result<(), String> {
    for (id, answer) in answers {
        let (condition, why) = match answer {
            Ok(judgement) => (judgement.condition, &judgement.why),
            Err(why) => (ServerCondition::Repairing, why),
        };
        match condition {
            ServerCondition::MustClone => {}
            ServerCondition::Repairing if do_not_wait => {}
            ServerCondition::Repairing => {
                return Err(format!(
                    "node {id}'s server may turn out to be whole ({why}): wait for it, or say that it \
                     is not to be waited for"
                ));
            }
            // Whoever says what is not known here may be whole.
            ServerCondition::Whole | ServerCondition::Unspecified => {
                return Err(format!(
                    "node {id}'s server is left ({why}): whoever needs it is cloned from it"
                ));
            }
        }
    }
    Ok(())
}

impl Plan {
    fn reply(&self, text: String) -> AcceptErrantReply {
        let replaced = self
            .replaced
            .iter()
            .map(|(id, (what, lost))| ReplacedServer {
                node: id.0,
                what: what.clone(),
                lost_gtid_set: lost.as_ref().map(|lost| lost.to_wire().into()),
            });
        AcceptErrantReply {
            accepted: true,
            text,
            leader: None,
            executed_gtid_set: self.executed.to_wire().into(),
            errant_gtid_set: self.errant.to_wire().into(),
            replaced: replaced.collect(),
        }
    }
}

#[cfg(test)]
mod tests;
