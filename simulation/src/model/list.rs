use std::fmt;

/// A few transactions in order, small enough to copy. A transaction is known by its content here,
/// which is a number below 7; its GTID is another matter.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct List {
    /// Content plus one, three bits each, the first one lowest.
    bits: u32,
}

impl List {
    const WIDTH: u32 = 3;

    pub(super) fn len(self) -> u8 {
        ((32 - self.bits.leading_zeros()).div_ceil(Self::WIDTH)) as u8
    }

    pub(super) fn is_empty(self) -> bool {
        self.bits == 0
    }

    pub(super) fn get(self, at: u8) -> Option<u8> {
        let one = self.bits >> (u32::from(at) * Self::WIDTH) & 7;
        (one as u8).checked_sub(1)
    }

    /// This list with one more behind it.
    pub(super) fn with(self, content: u8) -> Self {
        let at = u32::from(self.len()) * Self::WIDTH;
        Self {
            bits: self.bits | (u32::from(content) + 1) << at,
        }
    }

    /// This list with the others behind it.
    pub(super) fn and(self, others: Self) -> Self {
        others.iter().fold(self, Self::with)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = u8> {
        (0..self.len()).filter_map(move |at| self.get(at))
    }

    pub(super) fn contains(self, content: u8) -> bool {
        self.iter().any(|one| one == content)
    }

    /// As bits of a set.
    pub(super) fn set(self) -> u8 {
        self.iter().fold(0, |set, one| set | 1 << one)
    }

    /// Those of which `keep` says so.
    pub(super) fn filter(self, keep: impl Fn(u8) -> bool) -> Self {
        let kept = self.iter().filter(|one| keep(*one));
        kept.fold(Self::default(), Self::with)
    }

    /// Without its first `count`.
    pub(super) fn skip(self, count: u8) -> Self {
        Self {
            bits: self.bits >> (u32::from(count) * Self::WIDTH),
        }
    }

    pub(super) fn starts_with(self, beginning: Self) -> bool {
        beginning
            .iter()
            .eq(self.iter().take(beginning.len().into()))
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
