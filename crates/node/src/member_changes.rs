//! Changes of members that somebody asks for, at whatever node.

use std::time::Duration;

use quorate_types::{NodeId, chain};
use quorate_wire::v1::change_member_request::Change;
use quorate_wire::v1::{ChangeMemberReply, ChangeMemberRequest};
use tokio::time::timeout;
use tonic::Status;

use crate::admin::AdminService;
use crate::membership::Refused;

/// How long the new leader of a switchover may take to be known.
const HANDED_OVER_MAX: Duration = Duration::from_secs(10);

impl AdminService {
    /// Carries a change out if this node leads, else passes it on.
    pub(crate) async fn change(
        &self,
        request: ChangeMemberRequest,
    ) -> Result<ChangeMemberReply, Status> {
        let change = request
            .change
            .clone()
            .ok_or_else(|| Status::invalid_argument("no change"))?;
        match self.leads_elsewhere() {
            Ok(None) => {}
            Ok(Some(mut leader)) => return Ok(leader.change_member(request).await?.into_inner()),
            Err(why) => return Ok(self.reply(Err(why))),
        }
        let done = match change {
            Change::Add(add) => {
                let node = NodeId(add.node);
                self.membership
                    .add(node, add.address, add.gate_address)
                    .await
            }
            Change::Promote(node) => self.membership.promote(NodeId(node)).await,
            Change::Remove(node) => self.membership.remove(NodeId(node)).await,
        };
        match done {
            Err(Refused::Leads(_)) => self.hand_over_and_pass_on(request).await,
            done => Ok(self.reply(done.map_err(|refused| chain(&refused)))),
        }
    }

    /// The leader is to be removed: another takes over first, and removes it.
    async fn hand_over_and_pass_on(
        &self,
        request: ChangeMemberRequest,
    ) -> Result<ChangeMemberReply, Status> {
        let to = match self.choose(None) {
            Ok(to) => to,
            Err(why) => return Ok(self.reply(Err(format!("nobody can take over: {why}")))),
        };
        let switched = self.switch(to).await.into_inner();
        if !switched.accepted {
            let why = format!("it leads, and could not hand over: {}", switched.reason);
            return Ok(self.reply(Err(why)));
        }
        let mut view = self.consensus.view();
        let another = view.wait_for(|view| {
            let leader = view.leader.map(|leader| leader.node);
            leader.is_some_and(|leader| leader != self.node)
        });
        let _ = timeout(HANDED_OVER_MAX, another).await;
        match self.leads_elsewhere() {
            Ok(Some(mut leader)) => Ok(leader.change_member(request).await?.into_inner()),
            Ok(None) => Ok(self.reply(Err("no other node leads now".to_owned()))),
            Err(why) => Ok(self.reply(Err(why))),
        }
    }

    fn reply(&self, done: Result<String, String>) -> ChangeMemberReply {
        ChangeMemberReply {
            accepted: done.is_ok(),
            text: done.unwrap_or_else(|why| why),
            leader: self.hint(),
        }
    }
}
