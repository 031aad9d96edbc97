//! What a node says of its own server, when no server may be left to clone from.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use quorate_consensus::Consensus;
use quorate_mysqld::Host;
use quorate_net::Net;
use quorate_role::{Defect, Input, Phase};
use quorate_types::{ClusterView, GtidSet, Incarnation, Role, chain};
use quorate_wire::v1::{JudgeServerReply, ServerCondition};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::driver::Control;
use crate::server::{Logins, Running, ServerError};

/// Between two looks at whether they are accepted by now, which somebody must have asked for.
const LOOK: Duration = Duration::from_millis(500);
/// For a look at all settings, and for what a session holds up that ends its writes.
const JUDGE_MAX: Duration = Duration::from_secs(10);
const LOCK_WAIT_S: u32 = 3;

/// Judges the own server; `true` ends its writes first.
pub(crate) type JudgeOwn = Arc<dyn Fn(bool) -> BoxFuture<'static, JudgeServerReply> + Send + Sync>;

pub(crate) struct OwnErrant<N, H: Host> {
    pub(crate) net: N,
    pub(crate) logins: Logins,
    pub(crate) running: watch::Receiver<Option<Running<H>>>,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) consensus: Consensus,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) incarnation: Incarnation,
}

impl<N: Net, H: Host> OwnErrant<N, H> {
    /// Tells role control when all that its errant server executed is accepted.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.unfit().is_some() {
                continue;
            }
            let executed = timeout(JUDGE_MAX, self.executed()).await;
            let Ok(Ok(executed)) = executed else { continue };
            let accepted = self.consensus.applied_state().borrow().accepted.clone();
            // Meanwhile a clone may have begun, with which it has nothing to do.
            if self.unfit().is_none() && accepted.contains_set(&executed) {
                let _ = self.inputs.send(Input::Absolved).await;
            }
        }
    }

    pub(crate) fn judge_own(self: &Arc<Self>) -> JudgeOwn {
        let own = self.clone();
        Arc::new(move |prepare| {
            let own = own.clone();
            async move { own.judge(prepare).await }.boxed()
        })
    }

    async fn judge(&self, prepare: bool) -> JudgeServerReply {
        let control = self.control.borrow().clone();
        let condition = condition(&control.phase);
        let mut reply = JudgeServerReply {
            incarnation: self.incarnation.0,
            condition: condition.into(),
            why: match control.message.is_empty() {
                true => control.role_with_lease.to_string(),
                false => control.message,
            },
            ..JudgeServerReply::default()
        };
        reply.unfit = self.unfit().unwrap_or_default();
        if condition != ServerCondition::MustClone || self.running.borrow().is_none() {
            return reply;
        }
        // One that is no choice is only looked at.
        match timeout(JUDGE_MAX, self.look(prepare && reply.unfit.is_empty())).await {
            Ok(Ok((executed, wrong))) => {
                reply.executed_gtid_set = Some(executed.to_wire().into());
                if reply.unfit.is_empty() {
                    reply.unfit = wrong.unwrap_or_default();
                }
            }
            Ok(Err(error)) => reply.unfit = chain(&error),
            Err(_) => reply.unfit = "its server does not answer".to_owned(),
        }
        reply
    }

    /// Why its transactions cannot be accepted, as far as that is known without asking the server.
    fn unfit(&self) -> Option<String> {
        let Phase::MustClone {
            defect: Defect::Errant,
            ..
        } = self.control.borrow().phase
        else {
            return Some("errant transactions are not what is wrong with it".to_owned());
        };
        let runs = self.running.borrow().is_some();
        (!runs).then(|| "its server does not run".to_owned())
    }

    async fn executed(&self) -> Result<GtidSet, ServerError> {
        let mut session = self.logins.control(&self.net).await?;
        Ok(session.gtid_executed().await?)
    }

    /// What it executed, and what else is wrong with it.
    async fn look(&self, prepare: bool) -> Result<(GtidSet, Option<String>), ServerError> {
        let mut session = self.logins.control(&self.net).await?;
        if prepare {
            // Its success proves that no commit is on its way.
            session.set_read_only(LOCK_WAIT_S).await?;
            // A commit is in the binlog's file before it is durable in the engine, and until all is
            // accepted a repair would cut it off there. LOCAL: the statement is not logged.
            let what = "make what it executed durable";
            session.run(what, "FLUSH LOCAL ENGINE LOGS").await?;
        }
        let executed = session.gtid_executed().await?;
        let mut wrong = session
            .check_settings()
            .await?
            .first()
            .map(|finding| format!("mysqld runs with {finding}"));
        if prepare && !session.is_safe_replica().await? {
            wrong = Some("it takes writes, or is a semi-sync source".to_owned());
        }
        let status = session.replication_status().await?;
        if !status.applying && !status.apply_error.is_empty() {
            wrong = Some(format!(
                "it cannot apply an accepted transaction: {}",
                status.apply_error
            ));
        }
        Ok((executed, wrong))
    }
}

/// Why a server that has these must be cloned.
pub(crate) fn never_accepted(errant: &GtidSet) -> String {
    format!("it has transactions that were never accepted: {errant}")
}

fn condition(phase: &Phase) -> ServerCondition {
    match phase {
        Phase::MustClone { .. } => ServerCondition::MustClone,
        Phase::Repairing { .. } | Phase::Stopping => ServerCondition::Repairing,
        _ => ServerCondition::Whole,
    }
}

/// The reason for which the own server must be cloned; with the way out, if no other is left that it
/// could be cloned from.
pub(crate) fn name_way_out(message: String, phase: &Phase, view: &ClusterView) -> String {
    let may_be_donor = |role: Role| {
        !matches!(
            role,
            Role::Cloning | Role::Repairing | Role::Down | Role::Witness
        )
    };
    let left = view.nodes.values().any(|node| may_be_donor(node.role));
    match phase {
        Phase::MustClone { .. } if !left => format!(
            "{message}; no server is left to clone from: if that stays so, `quorate recover \
             --accept-errant ID` is the way out"
        ),
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{NodeId, NodeView};

    use super::*;

    fn view(roles: &[Role]) -> ClusterView {
        let node = |(id, role): (u64, &Role)| {
            let view = NodeView {
                role: *role,
                ..NodeView::default()
            };
            (NodeId(id), view)
        };
        ClusterView {
            nodes: (1..).zip(roles).map(node).collect(),
            ..ClusterView::default()
        }
    }

    #[test]
    fn the_way_out_is_named_only_where_nobody_is_left_to_clone_from() {
        let must_clone = Phase::MustClone {
            retry_at: Duration::ZERO,
            defect: Defect::Errant,
            message: String::new(),
        };
        let named = |phase: &Phase, roles: &[Role]| {
            let message = name_way_out("why".to_owned(), phase, &view(roles));
            assert!(message.starts_with("why"), "{message}");
            message.contains("--accept-errant")
        };
        let lost = [Role::Cloning, Role::Repairing, Role::Down, Role::Witness];
        assert!(named(&must_clone, &lost));
        for left in [Role::Primary, Role::Replica, Role::Promoting, Role::Fenced] {
            assert!(!named(&must_clone, &[Role::Cloning, left]));
        }
        assert!(!named(&Phase::Replica, &lost));
    }
}
