//! The admin service: what nodes and people ask over gRPC.

use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::Consensus;
use quorate_proxy::{ProxyHandle, RoleWatch};
use quorate_role::Input;
use quorate_types::{ClusterId, GtidSet, Incarnation, Member, Members, NodeId, NodeView, Role};
use quorate_wire::NodeReport;
use quorate_wire::v1::admin_server::Admin;
use quorate_wire::v1::{
    AcceptErrantReply, AcceptErrantRequest, ChangeMemberReply, ChangeMemberRequest, CheckReply,
    CheckRequest, ChecksumTableRequest, CloneReply, CloneRequest, ExportRequest, HoldReply,
    HoldRequest, JoinReply, JoinRequest, JudgeServerReply, JudgeServerRequest, LeaderHint,
    MembersReply, MembersRequest, NodeStatusReply, NodeStatusRequest, StatusReply, StatusRequest,
    SwitchoverReply, SwitchoverRequest, VerdictReply, VerdictRequest, VerifyRequest,
};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::addresses::AddressBook;
use crate::checking::Check;
use crate::cloning::{Ask, ClonePermits, PermitError};
use crate::errant::JudgeOwn;
use crate::export::{Export, Exported};
use crate::membership::{JoinError, Membership};
use crate::node::AdminChannel;
use crate::roles::Roles;
use crate::series;
use crate::verify::{Checksummed, Verified};

/// How long a switchover may take until the new primary serves.
const SWITCHOVER_MAX: Duration = Duration::from_secs(20);
/// A node's own description of itself, made when it is asked for.
pub(crate) type OwnReport = Arc<dyn Fn() -> NodeReport + Send + Sync>;
/// The admin service of another node, if it is known where that is.
pub(crate) type Forward = Arc<dyn Fn(NodeId) -> Option<AdminChannel> + Send + Sync>;

pub(crate) struct AdminService {
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) consensus: Consensus,
    pub(crate) roles: Roles,
    pub(crate) membership: Arc<Membership>,
    pub(crate) permits: Arc<ClonePermits>,
    pub(crate) own_report: OwnReport,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) forward: Forward,
    pub(crate) book: Arc<AddressBook>,
    pub(crate) proxy: ProxyHandle,
    pub(crate) questions: Questions,
}

/// What concerns the own server only, and has nothing to do with the rest of the service.
pub(crate) struct Questions {
    pub(crate) export: Export,
    pub(crate) check: Check,
    pub(crate) verify: Arc<dyn Fn() -> ReceiverStream<Verified> + Send + Sync>,
    pub(crate) checksum:
        Arc<dyn Fn(ChecksumTableRequest) -> ReceiverStream<Checksummed> + Send + Sync>,
    pub(crate) verdict: Arc<dyn Fn(VerdictRequest) + Send + Sync>,
    pub(crate) judge: JudgeOwn,
}

impl AdminService {
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.consensus
            .view()
            .borrow()
            .leader
            .map(|leader| leader.node)
    }

    /// The node that leads, to pass a request on to; none if this one does.
    pub(crate) fn leads_elsewhere(&self) -> Result<Option<AdminChannel>, String> {
        let leader = self.leader().ok_or("no node leads now")?;
        if leader == self.node {
            return Ok(None);
        }
        let client = (self.forward)(leader);
        let unknown = || format!("node {leader} leads and is not known here");
        client.map(Some).ok_or_else(unknown)
    }

    pub(crate) fn hint(&self) -> Option<LeaderHint> {
        let node = self.leader()?;
        Some(LeaderHint {
            node: node.0,
            address: self.book.for_people(node),
        })
    }

    fn must_be_ours(&self, cluster_id: u64) -> Result<(), Status> {
        match cluster_id == self.cluster.0 {
            true => Ok(()),
            false => {
                let reason = format!("this is cluster {}", self.cluster);
                Err(Status::failed_precondition(reason))
            }
        }
    }

    fn refuse(&self, reason: String) -> Response<SwitchoverReply> {
        Response::new(SwitchoverReply {
            reason,
            leader: self.hint(),
            ..SwitchoverReply::default()
        })
    }

    /// The node to switch to: the one asked for, else the healthy replica that is nearest.
    pub(crate) fn choose(&self, to: Option<u64>) -> Result<NodeId, String> {
        let view = self.roles.view().borrow().clone();
        let fit = |node: &NodeView| node.role == Role::Replica && node.healthy && !node.learner;
        if let Some(to) = to.map(NodeId) {
            let Some(node) = view.nodes.get(&to) else {
                return Err(format!("there is no node {to}"));
            };
            if node.role == Role::Primary {
                return Err(format!("node {to} is the primary already"));
            }
            if !fit(node) {
                let learner = if node.learner { " without a vote" } else { "" };
                return Err(format!(
                    "node {to} is no healthy replica that votes: {}{learner} {}",
                    node.role, node.message
                ));
            }
            return match series::older(&view, node) {
                Some(older) => Err(format!(
                    "node {to} runs MySQL {}, and node {older} an older series, which may not be able to apply \
                     what it writes: update node {older} first, or stop it",
                    node.server_version
                )),
                None => Ok(to),
            };
        }
        let replicas = view.nodes.iter().filter(|(_, node)| fit(node));
        let of_the_oldest = replicas.filter(|(_, node)| series::older(&view, node).is_none());
        let nearest = of_the_oldest.min_by_key(|(id, node)| (node.lag_transactions, **id));
        nearest.map(|(id, _)| *id).ok_or_else(|| {
            "there is no healthy replica, or only of a newer series of MySQL".to_owned()
        })
    }

    pub(crate) async fn switch(&self, to: NodeId) -> Response<SwitchoverReply> {
        let mut view: watch::Receiver<_> = self.roles.view();
        if self.inputs.send(Input::Switchover { to }).await.is_err() {
            return self.refuse("the node is stopping".to_owned());
        }
        let serves = |view: &Arc<quorate_types::ClusterView>| {
            view.primary == Some(to)
                && view
                    .nodes
                    .get(&to)
                    .is_some_and(|node| node.role == Role::Primary)
        };
        let done = match timeout(SWITCHOVER_MAX, view.wait_for(serves)).await {
            Ok(Ok(view)) => Some(view.epoch),
            _ => None,
        };
        match done {
            Some(epoch) => Response::new(SwitchoverReply {
                accepted: true,
                primary: Some(to.0),
                epoch: epoch.map(Into::into),
                leader: self.hint(),
                ..SwitchoverReply::default()
            }),
            None => self.refuse(format!(
                "node {to} did not become primary within {SWITCHOVER_MAX:?}"
            )),
        }
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let view = self.roles.view().borrow().clone();
        Ok(Response::new(quorate_wire::status_reply(self.node, &view)))
    }

    async fn node_status(
        &self,
        _: Request<NodeStatusRequest>,
    ) -> Result<Response<NodeStatusReply>, Status> {
        Ok(Response::new((&(self.own_report)()).into()))
    }

    async fn switchover(
        &self,
        request: Request<SwitchoverRequest>,
    ) -> Result<Response<SwitchoverReply>, Status> {
        let request = request.into_inner();
        match self.leads_elsewhere() {
            Ok(None) => {}
            Ok(Some(mut leader)) => return leader.switchover(request).await,
            Err(why) => return Ok(self.refuse(why)),
        }
        match self.choose(request.to) {
            Ok(to) => Ok(self.switch(to).await),
            Err(reason) => Ok(self.refuse(reason)),
        }
    }

    async fn hold(&self, request: Request<HoldRequest>) -> Result<Response<HoldReply>, Status> {
        let request = request.into_inner();
        let epoch = request
            .epoch
            .ok_or_else(|| Status::invalid_argument("no epoch"))?;
        crate::holding::obey(&self.proxy, epoch.into(), request.longest_ms);
        Ok(Response::new(HoldReply {}))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let request = request.into_inner();
        let reply = |accepted, reason: String| JoinReply {
            accepted,
            reason,
            leader: self.hint(),
            cluster_id: Some(self.cluster.0),
            removed: false,
        };
        if request.cluster_id.is_some_and(|id| id != self.cluster.0) {
            let reason = format!("this is cluster {}", self.cluster);
            return Ok(Response::new(reply(false, reason)));
        }
        let wire = request
            .member
            .ok_or_else(|| Status::invalid_argument("no member"))?;
        let joining: Result<(NodeId, Member), _> = wire.try_into();
        let (node, member) =
            joining.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let joined = self.membership.join(node, member).await;
        Ok(Response::new(match joined {
            Ok(()) => reply(true, String::new()),
            Err(error @ JoinError::Removed(_)) => JoinReply {
                removed: true,
                ..reply(false, error.to_string())
            },
            Err(JoinError::NotLeader) => reply(false, "this node does not lead".to_owned()),
            Err(error) => reply(false, quorate_types::chain(&error)),
        }))
    }

    async fn clone_server(
        &self,
        request: Request<CloneRequest>,
    ) -> Result<Response<CloneReply>, Status> {
        let request = request.into_inner();
        self.must_be_ours(request.cluster_id)?;
        let node = NodeId(request.node);
        let answer = match request.sequence {
            None => {
                let ask = Ask {
                    node,
                    incarnation: Incarnation(request.incarnation),
                    server_version: request.server_version,
                    not_from: request.not_from.into_iter().map(NodeId).collect(),
                };
                self.permits.ask(&ask).await.map(Some)
            }
            Some(sequence) => {
                let (progress, finished) = (request.progress, request.finished);
                self.permits
                    .report(node, sequence, progress, finished)
                    .await
            }
        };
        let reply = |granted: Option<crate::cloning::Granted>, reason: String| CloneReply {
            sequence: granted.map(|granted| granted.sequence),
            donor: granted.map_or(0, |granted| granted.donor.0),
            reason,
            leader: self.hint(),
        };
        match answer {
            Ok(granted) => Ok(Response::new(reply(granted, "no such permit".to_owned()))),
            Err(PermitError::NotLeader) => {
                Err(Status::unavailable(PermitError::NotLeader.to_string()))
            }
            Err(error) => Ok(Response::new(reply(None, error.to_string()))),
        }
    }

    type ExportBinlogStream = ReceiverStream<Exported>;

    async fn export_binlog(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<Self::ExportBinlogStream>, Status> {
        let executed = GtidSet::try_from_wire(&request.into_inner().executed_gtid_set)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new((self.questions.export)(executed)))
    }

    type VerifyStream = ReceiverStream<Verified>;
    type ChecksumTableStream = ReceiverStream<Checksummed>;

    async fn verify(
        &self,
        _: Request<VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        Ok(Response::new((self.questions.verify)()))
    }

    async fn checksum_table(
        &self,
        request: Request<ChecksumTableRequest>,
    ) -> Result<Response<Self::ChecksumTableStream>, Status> {
        Ok(Response::new((self.questions.checksum)(
            request.into_inner(),
        )))
    }

    async fn tell_verdict(
        &self,
        request: Request<VerdictRequest>,
    ) -> Result<Response<VerdictReply>, Status> {
        (self.questions.verdict)(request.into_inner());
        Ok(Response::new(VerdictReply {}))
    }

    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckReply>, Status> {
        Ok(Response::new((self.questions.check)().await?))
    }

    async fn change_member(
        &self,
        request: Request<ChangeMemberRequest>,
    ) -> Result<Response<ChangeMemberReply>, Status> {
        Ok(Response::new(self.change(request.into_inner()).await?))
    }

    async fn judge_server(
        &self,
        request: Request<JudgeServerRequest>,
    ) -> Result<Response<JudgeServerReply>, Status> {
        let request = request.into_inner();
        self.must_be_ours(request.cluster_id)?;
        Ok(Response::new((self.questions.judge)(request.prepare).await))
    }

    async fn accept_errant(
        &self,
        request: Request<AcceptErrantRequest>,
    ) -> Result<Response<AcceptErrantReply>, Status> {
        Ok(Response::new(self.accept(request.into_inner()).await?))
    }

    async fn members(&self, _: Request<MembersRequest>) -> Result<Response<MembersReply>, Status> {
        let members: Arc<Members> = self.consensus.applied_state().borrow().members.clone();
        let list = quorate_wire::v1::MemberList::from(&*members);
        Ok(Response::new(MembersReply {
            members: list.members,
        }))
    }
}
