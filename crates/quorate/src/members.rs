//! `quorate members list`, `add`, `promote` and `remove`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use quorate_types::{Incarnation, Member, NodeId};
use quorate_wire::v1::change_member_request::Change;
use quorate_wire::v1::{AddMember, ChangeMemberRequest, MembersRequest};

use crate::admin;
use crate::args::{Address, MembersCommand};
use crate::status::{columns, fetch};

/// A change takes several rounds of the log, and the removal of a primary a switchover.
const CHANGE_MAX: Duration = Duration::from_secs(60);

pub(crate) async fn run(command: MembersCommand) -> anyhow::Result<()> {
    match command {
        MembersCommand::List(at) => list(&at).await,
        MembersCommand::Add(args) => {
            let add = AddMember {
                node: args.id,
                address: args.grpc.to_string(),
                gate_address: args.gate.to_string(),
            };
            change(&args.at, Change::Add(add)).await
        }
        MembersCommand::Promote(args) => change(&args.at, Change::Promote(args.id)).await,
        MembersCommand::Remove(args) => change(&args.at, Change::Remove(args.id)).await,
    }
}

async fn change(at: &Address, change: Change) -> anyhow::Result<()> {
    let ask = async {
        let mut client = admin::connect(at).await?;
        let request = ChangeMemberRequest {
            change: Some(change),
        };
        let reply = client
            .change_member(request)
            .await
            .map_err(|refused| admin::refusal(at, &refused))?;
        anyhow::Ok(reply.into_inner())
    };
    let limit = CHANGE_MAX.as_secs();
    let reply = tokio::time::timeout(CHANGE_MAX, ask)
        .await
        .with_context(|| {
            format!(
                "{} did not answer within {limit} s: the change may have been made, see `quorate \
                 members list`",
                at.addr
            )
        })??;
    if !reply.accepted {
        bail!("refused: {}", reply.text);
    }
    println!("{}", reply.text);
    Ok(())
}

async fn list(at: &Address) -> anyhow::Result<()> {
    let status = fetch(at).await?;
    let mut client = admin::connect(at).await?;
    let reply = client
        .members(MembersRequest {})
        .await
        .map_err(|refused| admin::refusal(at, &refused))?;
    let members: Result<BTreeMap<NodeId, Member>, _> = reply
        .into_inner()
        .members
        .into_iter()
        .map(TryInto::try_into)
        .collect();
    let members = members.with_context(|| format!("understand what {} answered", at.addr))?;
    let rows = members.iter().map(|(id, member)| {
        let node = status.nodes.iter().find(|node| node.id == id.0);
        [
            id.to_string(),
            meant(member),
            node.map_or("-".to_owned(), |node| node.raft.to_string()),
            node.map_or("-".to_owned(), |node| node.role.clone()),
            member.address.clone(),
            member.gate_address.clone(),
            member.server_version.clone(),
            member
                .server_uuid
                .map_or("-".to_owned(), |uuid| uuid.to_string()),
        ]
    });
    let head = [
        "NODE",
        "MEANT TO BE",
        "RAFT",
        "ROLE",
        "GRPC",
        "GATE",
        "MYSQL",
        "SERVER UUID",
    ];
    print!("{}", columns(head, rows));
    Ok(())
}

/// What a member is meant to be, in a word or two.
fn meant(member: &Member) -> String {
    let kind = if member.witness { " (witness)" } else { "" };
    match member.incarnation == Incarnation::default() {
        true => format!("{}, to come", member.standing),
        false => format!("{}{kind}", member.standing),
    }
}
