use quorate_types::{ClonePermit, Cloning, LogIndex, Members};

/// Permits to clone: at most one is open, so that servers give up their data one at a time (A4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permits {
    /// Of the last permit that was given, open or not.
    pub last_sequence: u64,
    pub open: Option<ClonePermit>,
}

impl Permits {
    /// The open permit with its sequence.
    #[must_use]
    pub fn current(&self) -> Option<(u64, ClonePermit)> {
        self.open.map(|permit| (self.last_sequence, permit))
    }

    pub(super) fn pinned(&self) -> Option<LogIndex> {
        self.open.map(|permit| permit.pinned)
    }

    /// Whether the command took effect.
    pub(super) fn apply(&mut self, cloning: Cloning, members: &Members) -> bool {
        let Some(permit) = cloning.permit else {
            // The end of another permit than the open one comes late.
            let ends = self.open.is_some() && cloning.sequence == self.last_sequence;
            if ends {
                self.open = None;
            }
            return ends;
        };
        let next = self.last_sequence.checked_add(1) == Some(cloning.sequence);
        let recipient = members.get(&permit.recipient);
        let known = recipient.is_some_and(|member| member.incarnation == permit.incarnation);
        let donor = permit.donor != permit.recipient && members.contains_key(&permit.donor);
        if self.open.is_some() || !next || !known || !donor {
            return false;
        }
        *self = Self {
            last_sequence: cloning.sequence,
            open: Some(permit),
        };
        true
    }
}
