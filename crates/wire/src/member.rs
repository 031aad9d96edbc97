use quorate_types::{Incarnation, Member, Members, NodeId, Standing};

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
            standing: v1::Standing::from(member.standing).into(),
            witness: member.witness,
        }
    }
}

impl From<Standing> for v1::Standing {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Voter => Self::Voter,
            Standing::Learner => Self::Learner,
            Standing::Removed => Self::Removed,
        }
    }
}

/// # Errors
/// For a number that this version does not know: what it means for votes is not known either.
fn standing(number: i32) -> Result<Standing, DecodeError> {
    match v1::Standing::try_from(number) {
        Ok(v1::Standing::Voter) => Ok(Standing::Voter),
        Ok(v1::Standing::Learner) => Ok(Standing::Learner),
        Ok(v1::Standing::Removed) => Ok(Standing::Removed),
        Err(_) => Err(DecodeError::Value {
            field: "member.standing",
            value: u64::from(number.cast_unsigned()),
        }),
    }
}

impl TryFrom<v1::Member> for (NodeId, Member) {
    type Error = DecodeError;

    fn try_from(member: v1::Member) -> Result<Self, DecodeError> {
        let value = Member {
            incarnation: Incarnation(member.incarnation),
            server_uuid: member.server_uuid.map(Into::into),
            server_version: member.server_version,
            address: member.address,
            gate_address: member.gate_address,
            mysql_address: member.mysql_address,
            apply_level: member.apply_level,
            standing: standing(member.standing)?,
            witness: member.witness,
        };
        Ok((NodeId(member.node), value))
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
            let (node, member) = member.try_into()?;
            if members.insert(node, member).is_some() {
                return Err(DecodeError::DuplicateNode(node));
            }
        }
        Ok(members)
    }
}
