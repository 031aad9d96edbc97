//! What the nodes' Rafts say to each other, over gRPC.

mod client;
mod dialer;
mod identity;
mod piggyback;
mod server;

pub(crate) use client::{Network, ReadIndexAnswer};
pub use dialer::{Dial, SecureConnect};
pub(crate) use dialer::{Dialer, Line, MESSAGE_BYTES_MAX};
pub(crate) use identity::Peers;
pub use identity::{Identity, START_IDS, StartIds};
pub use server::Service;

use openraft::raft::AppendEntriesRequest;

use crate::types::{RaftLeaderId, RaftLogId, TypeConfig};

/// Whether the entries come from one log, and a leader of this vote can have it.
///
/// In openraft 0.10.0-alpha.37 a stream of a leader that is none any more may look at its log once more
/// when its pause after an error is cut short. If a new leader has replaced the log's end by then, its
/// entries would go out in the name of the old one, behind an entry that they do not follow; and a
/// follower that knows of the old one only would take them.
fn is_of_one_log(request: &AppendEntriesRequest<TypeConfig>) -> bool {
    let leader: RaftLeaderId = *request.vote.leader_id();
    let ids = request.entries.iter().map(|entry| entry.log_id);
    let mut before: Option<RaftLogId> = request.prev_log_id;
    for id in ids {
        let follows = before
            .is_none_or(|before| before.leader_id <= id.leader_id && before.index + 1 == id.index);
        if !follows {
            return false;
        }
        before = Some(id);
    }
    before.is_none_or(|last| last.leader_id <= leader)
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::vote::RaftLeaderId as _;

    use super::*;
    use crate::types::{RaftEntry, RaftVote};

    fn id((term, index): (u64, u64)) -> RaftLogId {
        RaftLogId::new(RaftLeaderId::new(term, 1), index)
    }

    /// Each entry by its term and index.
    fn request(
        term: u64,
        previous: Option<(u64, u64)>,
        entries: &[(u64, u64)],
    ) -> AppendEntriesRequest<TypeConfig> {
        let entry = |at: &(u64, u64)| RaftEntry {
            log_id: id(*at),
            payload: EntryPayload::Blank,
        };
        AppendEntriesRequest {
            vote: RaftVote::new_committed(term, 1),
            prev_log_id: previous.map(id),
            leader_commit: None,
            entries: entries.iter().map(entry).collect(),
        }
    }

    #[test]
    fn entries_of_another_leader_do_not_go_out_in_the_name_of_an_old_one() {
        let one_log = [
            request(3, None, &[]),
            request(3, None, &[(0, 0), (1, 1), (3, 2)]),
            request(3, Some((1, 171)), &[]),
            request(3, Some((1, 171)), &[(1, 172), (3, 173)]),
        ];
        assert!(one_log.iter().all(is_of_one_log));
        let of_two = [
            // A new leader's, of a later term.
            request(1, Some((1, 172)), &[(2, 173)]),
            request(1, Some((1, 172)), &[(1, 173), (2, 174)]),
            request(1, Some((2, 172)), &[]),
            // A new leader's, which it has from an earlier term.
            request(2, Some((2, 172)), &[(1, 173)]),
            request(2, Some((2, 172)), &[(2, 174)]),
            request(2, Some((2, 172)), &[(2, 172)]),
        ];
        for request in &of_two {
            assert!(!is_of_one_log(request), "{request}");
        }
    }
}
