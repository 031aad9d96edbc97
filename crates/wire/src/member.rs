use quorate_types::{Incarnation, Member, Members, NodeId};

use crate::{DecodeError, v1};

impl From<(NodeId, &Member)> for v1::Member {
    fn from((node, member): (NodeId, &Member)) -> Self {
        Self {
            node: node.0,
            incarnation: member.incarnation.0,
            server_uuid: member.server_uuid.map(Into::into),
            server_version: member.server_version.clone(),
            address: member.address.clone(),
            gate_address: member.gate_address.clone(),
            mysql_address: member.mysql_address.clone(),
            apply_level: member.apply_level,
        }
    }
}

impl From<v1::Member> for (NodeId, Member) {
    fn from(member: v1::Member) -> Self {
        let value = Member {
            incarnation: Incarnation(member.incarnation),
            server_uuid: member.server_uuid.map(Into::into),
            server_version: member.server_version,
            address: member.address,
            gate_address: member.gate_address,
            mysql_address: member.mysql_address,
            apply_level: member.apply_level,
        };
        (NodeId(member.node), value)
    }
}

impl From<&Members> for v1::MemberList {
    fn from(members: &Members) -> Self {
        let members = members.iter().map(|(node, member)| (*node, member).into());
        Self {
            members: members.collect(),
        }
    }
}

impl TryFrom<v1::MemberList> for Members {
    type Error = DecodeError;

    fn try_from(list: v1::MemberList) -> Result<Self, DecodeError> {
        let mut members = Self::new();
        for member in list.members {
            let (node, member) = member.into();
            if members.insert(node, member).is_some() {
                return Err(DecodeError::DuplicateNode(node));
            }
        }
        Ok(members)
    }
}
