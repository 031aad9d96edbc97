//! Whether this node takes part in its cluster, as far as it knows.

use std::sync::atomic::{AtomicBool, Ordering};

/// What the parts of a node that ask and those that show tell each other.
#[derive(Default)]
pub(crate) struct Part {
    removed: AtomicBool,
    heard: AtomicBool,
    left_out: AtomicBool,
}

impl Part {
    /// Its leader says that it was removed: it serves nothing, and stands for no election.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Gives what it was before.
    pub(crate) fn set_removed(&self, removed: bool) -> bool {
        self.removed.swap(removed, Ordering::AcqRel)
    }

    /// A leader is heard that has this node among its members.
    pub(crate) fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Acquire)
    }

    pub(crate) fn set_heard(&self, heard: bool) {
        self.heard.store(heard, Ordering::Release);
    }

    /// A leader is heard whose members this node is not among: it was removed, or has yet to come.
    pub(crate) fn is_left_out(&self) -> bool {
        self.left_out.load(Ordering::Acquire)
    }

    pub(crate) fn set_left_out(&self, left_out: bool) {
        self.left_out.store(left_out, Ordering::Release);
    }
}
