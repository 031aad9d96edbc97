//! At no instant do the gates of two nodes pass writes.

use std::time::Duration;

use quorate_types::{Epoch, NodeId};

use crate::cluster::Violation;

#[derive(Default)]
pub(super) struct Watch {
    serving: Option<(NodeId, Epoch)>,
    /// Since when none serves, once one did.
    none_since: Option<Duration>,
    pauses: Vec<Duration>,
}

impl Watch {
    /// A line to note if the gate that serves is another now.
    pub(super) fn look(
        &mut self,
        serving: &[(NodeId, Epoch)],
        now: Duration,
    ) -> Result<Option<String>, Violation> {
        if let [(a, one), (b, other), ..] = serving {
            return Err(Violation(format!(
                "the gates of node {a} (epoch {one}) and node {b} (epoch {other}) both serve at {now:?}"
            )));
        }
        let next = serving.first().copied();
        if next == self.serving {
            return Ok(None);
        }
        match (self.serving, next) {
            (Some(_), None) => self.none_since = Some(now),
            (None, Some(_)) => {
                let since = self.none_since.take();
                self.pauses
                    .extend(since.map(|since| now.saturating_sub(since)));
            }
            _ => {}
        }
        self.serving = next;
        Ok(Some(match next {
            Some((node, epoch)) => format!("n{node} serves epoch {epoch}"),
            None => "no gate serves".to_owned(),
        }))
    }

    pub(super) fn serving(&self) -> Option<NodeId> {
        self.serving.map(|(node, _)| node)
    }

    pub(super) fn pauses(&self) -> &[Duration] {
        &self.pauses
    }
}
