//! Which sets of voters a change may lead to.

use std::collections::BTreeMap;

use quorate_types::NodeId;

/// A voter, as the rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Voter {
    /// It was heard lately.
    pub(crate) answers: bool,
    /// It has a server; a witness has none.
    pub(crate) has_data: bool,
    /// Its server is a healthy replica or the primary.
    pub(crate) promotable: bool,
}

pub(crate) type Voters = BTreeMap<NodeId, Voter>;

/// Why a change is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the last voter cannot be removed")]
    NoVoter,
    #[error(
        "it would lose the quorum: {answering} of the {voters} voters that there would be answer, and \
         {needed} are needed"
    )]
    NoQuorum {
        answering: usize,
        voters: usize,
        needed: usize,
    },
    #[error(
        "{data} of the {voters} voters would have data, and {needed} must, so that what is \
         acknowledged survives as many failures as the voters do"
    )]
    TooFewCopies {
        data: usize,
        voters: usize,
        needed: usize,
    },
    #[error("none of the voters that there would be has a server that could be primary now")]
    NoServer,
}

/// Whether these may be the voters: a majority answers, and enough of them have data. With f failures
/// that the voters survive, f + 1 must have a server: a log may be purged of what f + 1 servers have.
pub(crate) fn judge(after: &Voters) -> Result<(), Refusal> {
    let voters = after.len();
    if voters == 0 {
        return Err(Refusal::NoVoter);
    }
    let count = |wanted: fn(&Voter) -> bool| after.values().filter(|voter| wanted(voter)).count();
    let needed = voters / 2 + 1;
    let answering = count(|voter| voter.answers);
    if answering < needed {
        return Err(Refusal::NoQuorum {
            answering,
            voters,
            needed,
        });
    }
    let needed = (voters - 1) / 2 + 1;
    let data = count(|voter| voter.has_data);
    if data < needed {
        return Err(Refusal::TooFewCopies {
            data,
            voters,
            needed,
        });
    }
    Ok(())
}

/// Whether the voters that stay can do without the one that goes.
pub(crate) fn judge_removal(after: &Voters) -> Result<(), Refusal> {
    judge(after)?;
    match after
        .values()
        .any(|voter| voter.has_data && voter.promotable)
    {
        true => Ok(()),
        false => Err(Refusal::NoServer),
    }
}

/// Whether the other voters are a quorum without `node`, which lost its folder.
pub(crate) fn judge_replacement(before: &Voters, node: NodeId) -> Result<(), Refusal> {
    let voters = before.len();
    let needed = voters / 2 + 1;
    let others = before.iter().filter(|(id, _)| **id != node);
    let answering = others.filter(|(_, voter)| voter.answers).count();
    match answering >= needed || !before.contains_key(&node) {
        true => Ok(()),
        false => Err(Refusal::NoQuorum {
            answering,
            voters,
            needed,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One letter a voter: `d` data, `w` witness; a capital one does not answer; `s` is a server that
    /// cannot be primary.
    fn voters(text: &str) -> Voters {
        let voter = |letter: char| Voter {
            answers: letter.is_lowercase(),
            has_data: !letter.eq_ignore_ascii_case(&'w'),
            promotable: letter == 'd',
        };
        (1..).map(NodeId).zip(text.chars().map(voter)).collect()
    }

    #[test]
    fn a_change_that_loses_the_quorum_or_the_copies_is_refused() {
        for allowed in [
            "d", "dd", "ddd", "ddw", "dw", "dddd", "dDd", "dddww", "ddDDd",
        ] {
            assert_eq!(judge(&voters(allowed)), Ok(()), "{allowed}");
        }
        assert_eq!(judge(&voters("")), Err(Refusal::NoVoter));
        for refused in ["dD", "dDD", "ddDD", "D", "DW", "dW"] {
            let judged = judge(&voters(refused));
            assert!(matches!(judged, Err(Refusal::NoQuorum { .. })), "{refused}");
        }
        for refused in ["w", "dww", "ww", "ddwww"] {
            let judged = judge(&voters(refused));
            let few = matches!(judged, Err(Refusal::TooFewCopies { .. }));
            assert!(few, "{refused}: {judged:?}");
        }
    }

    #[test]
    fn a_removal_leaves_a_server_that_can_be_primary() {
        assert_eq!(judge_removal(&voters("ds")), Ok(()));
        for refused in ["s", "sw", "ssw"] {
            let judged = judge_removal(&voters(refused));
            assert_eq!(judged, Err(Refusal::NoServer), "{refused}");
        }
    }

    #[test]
    fn a_member_is_replaced_only_if_the_others_are_a_quorum() {
        assert_eq!(judge_replacement(&voters("ddd"), NodeId(3)), Ok(()));
        assert_eq!(judge_replacement(&voters("ddD"), NodeId(3)), Ok(()));
        assert!(judge_replacement(&voters("dDd"), NodeId(3)).is_err());
        assert!(judge_replacement(&voters("dd"), NodeId(2)).is_err());
        // It has no vote to lose.
        assert_eq!(judge_replacement(&voters("dd"), NodeId(3)), Ok(()));
    }
}
