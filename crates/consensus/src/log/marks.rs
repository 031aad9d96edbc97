use quorate_types::LogIndex;

/// Marks that are kept; past it every other one goes.
const MARKS_MAX: usize = 512;

const VERSION: u8 = 1;
const MARK_BYTES: usize = 24;

/// Before `next`, the entries that the log ever had took `bytes`; all of them were there at `at_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    next: LogIndex,
    bytes: u64,
    /// Milliseconds since 1970; [`UNKNOWN`] counts as just now.
    at_ms: u64,
}

const UNKNOWN: u64 = u64::MAX;

/// How large this node's log was when: what retention by size and by age goes by.
///
/// It is near the truth, and no rule of safety depends on it: it only says what is old or much
/// enough to be given up, if it may be. It survives a restart by the marks that were saved and the
/// entries behind the last of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogMarks {
    /// Ascending. The first is where counting began.
    marks: Vec<Mark>,
    /// After the last entry.
    next: LogIndex,
    bytes: u64,
}

/// How far apart marks are at least: the first of the two that is reached.
#[derive(Clone, Copy, Debug)]
pub struct MarkSpacing {
    pub bytes: u64,
    pub ms: u64,
}

impl LogMarks {
    /// Of a log that begins with the entry `first`, and of which nothing was counted yet.
    pub(crate) fn new(first: LogIndex) -> Self {
        let begin = Mark {
            next: first,
            bytes: 0,
            at_ms: UNKNOWN,
        };
        Self {
            marks: vec![begin],
            next: first,
            bytes: 0,
        }
    }

    /// The saved marks of a log whose last entry comes before `next`; none if they are not known to
    /// be of this log.
    pub(crate) fn decode(saved: &[u8], first: LogIndex, next: LogIndex) -> Option<Self> {
        let (version, rest) = saved.split_first()?;
        let (chunks, []) = rest.as_chunks::<MARK_BYTES>() else {
            return None;
        };
        let word = |chunk: &[u8; MARK_BYTES], at: usize| {
            let word = chunk[at..at + 8].try_into().expect("it has eight bytes");
            u64::from_le_bytes(word)
        };
        let marks = chunks.iter().map(|chunk| Mark {
            next: LogIndex(word(chunk, 0)),
            bytes: word(chunk, 8),
            at_ms: word(chunk, 16),
        });
        // What came after a truncation may not have been saved.
        let marks: Vec<Mark> = marks.take_while(|mark| mark.next <= next).collect();
        let ordered = marks
            .windows(2)
            .all(|pair| pair[0].next < pair[1].next && pair[0].bytes <= pair[1].bytes);
        let last = *marks.last()?;
        // All that was counted is gone.
        if *version != VERSION || !ordered || last.next < first {
            return None;
        }
        Some(Self {
            next: last.next,
            bytes: last.bytes,
            marks,
        })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for mark in &self.marks {
            for word in [mark.next.0, mark.bytes, mark.at_ms] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        out
    }

    /// Up to where entries are counted.
    pub(crate) fn next(&self) -> LogIndex {
        self.next
    }

    /// An entry of so many bytes was appended.
    pub(crate) fn append(&mut self, index: LogIndex, bytes: usize) {
        self.next = index.next();
        self.bytes += bytes as u64;
    }

    /// The entries from `from` on, with about so many bytes, are gone.
    pub(crate) fn truncate(&mut self, from: LogIndex, bytes: usize) {
        self.next = self.next.min(from);
        let begin = self.marks[0];
        self.marks.retain(|mark| mark.next <= from);
        if self.marks.is_empty() {
            self.marks.push(Mark {
                next: from,
                ..begin
            });
        }
        let counted = self.marks.last().map_or(0, |mark| mark.bytes);
        self.bytes = self.bytes.saturating_sub(bytes as u64).max(counted);
    }

    /// Forgets what is about entries before `first`.
    pub(crate) fn purge(&mut self, first: LogIndex) {
        let bytes = self.bytes_before(first);
        self.marks.retain(|mark| mark.next > first);
        let begin = Mark {
            next: first,
            bytes,
            at_ms: UNKNOWN,
        };
        self.marks.insert(0, begin);
        // A snapshot of another node is ahead of everything here.
        self.next = self.next.max(first);
    }

    /// Makes a mark if there is something new and the last one is far enough back; says whether.
    pub(crate) fn mark(&mut self, at_ms: u64, spacing: MarkSpacing) -> bool {
        let last = self.marks[self.marks.len() - 1];
        // Where counting began, nobody knows when that was written.
        let begun = last.at_ms == UNKNOWN;
        let far = self.bytes - last.bytes >= spacing.bytes
            || begun
            || at_ms.saturating_sub(last.at_ms) >= spacing.ms;
        if last.next >= self.next || !far {
            return false;
        }
        self.marks.push(Mark {
            next: self.next,
            bytes: self.bytes,
            at_ms,
        });
        if self.marks.len() > MARKS_MAX {
            let mut position = 0;
            self.marks.retain(|_| {
                position += 1;
                position % 2 == 1
            });
        }
        true
    }

    /// About how many bytes the entries before `index` took that the log ever had.
    fn bytes_before(&self, index: LogIndex) -> u64 {
        let after = self.marks.partition_point(|mark| mark.next <= index);
        let Some(from) = after.checked_sub(1).map(|at| self.marks[at]) else {
            return self.marks[0].bytes;
        };
        let (to, bytes) = match self.marks.get(after) {
            Some(mark) => (mark.next, mark.bytes),
            None => (self.next, self.bytes),
        };
        let entries = to.0.saturating_sub(from.next.0);
        if entries == 0 {
            return bytes;
        }
        let part = u128::from((index.0 - from.next.0).min(entries));
        let share = u128::from(bytes - from.bytes) * part / u128::from(entries);
        from.bytes + u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// About how many bytes the entries from `first` on take.
    #[must_use]
    pub fn retained(&self, first: LogIndex) -> u64 {
        self.bytes.saturating_sub(self.bytes_before(first))
    }

    /// Up to where entries can go so that those behind take at most `keep_bytes`; as little as
    /// possible, in steps of marks.
    #[must_use]
    pub fn beyond_size(&self, first: LogIndex, keep_bytes: u64) -> Option<LogIndex> {
        if self.retained(first) <= keep_bytes {
            return None;
        }
        let behind = |mark: &&Mark| mark.next > first && self.bytes - mark.bytes <= keep_bytes;
        let mark = self.marks.iter().find(behind)?;
        Some(LogIndex(mark.next.0 - 1))
    }

    /// Up to where entries are surely older than `before_ms`.
    #[must_use]
    pub fn beyond_age(&self, first: LogIndex, before_ms: u64) -> Option<LogIndex> {
        let old = |mark: &&Mark| mark.next > first && mark.at_ms <= before_ms;
        let mark = self.marks.iter().rfind(old)?;
        Some(LogIndex(mark.next.0 - 1))
    }

    /// When the entry `first` was surely there, in milliseconds since 1970.
    #[must_use]
    pub fn written_ms(&self, first: LogIndex) -> Option<u64> {
        let mark = self.marks.iter().find(|mark| mark.next > first)?;
        Some(mark.at_ms).filter(|at| *at != UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EACH: MarkSpacing = MarkSpacing { bytes: 1, ms: 1 };

    /// Entries 0 to 99 of 10 bytes each, a mark after each ten at 1000, 1010, …
    fn marks() -> LogMarks {
        let mut marks = LogMarks::new(LogIndex(0));
        for index in 0..100 {
            marks.append(LogIndex(index), 10);
            if index % 10 == 9 {
                assert!(marks.mark(1000 + index - 9, EACH));
            }
        }
        marks
    }

    #[test]
    fn what_is_beyond_a_limit_goes_in_steps_and_no_more_than_that() {
        let marks = marks();
        let all = LogIndex(0);
        assert_eq!(marks.retained(all), 1000);
        assert_eq!(marks.retained(LogIndex(25)), 750);
        assert_eq!(marks.beyond_size(all, 1000), None);
        assert_eq!(marks.beyond_size(all, 999), Some(LogIndex(9)));
        assert_eq!(marks.beyond_size(all, 900), Some(LogIndex(9)));
        assert_eq!(marks.beyond_size(all, 0), Some(LogIndex(99)));
        assert_eq!(marks.beyond_size(LogIndex(10), 900), None);
        assert_eq!(marks.beyond_age(all, 999), None);
        assert_eq!(marks.beyond_age(all, 1000), Some(LogIndex(9)));
        assert_eq!(marks.beyond_age(all, 1025), Some(LogIndex(29)));
        assert_eq!(marks.beyond_age(LogIndex(30), 1025), None);
        assert_eq!(marks.written_ms(LogIndex(15)), Some(1010));
    }

    #[test]
    fn what_nobody_saw_being_written_is_as_young_as_the_first_look_at_it() {
        let mut marks = LogMarks::new(LogIndex(5));
        marks.append(LogIndex(5), 100);
        assert_eq!(marks.beyond_age(LogIndex(5), u64::MAX - 1), None);
        assert_eq!(marks.written_ms(LogIndex(5)), None);
        assert!(marks.mark(
            7000,
            MarkSpacing {
                bytes: 1 << 30,
                ms: 1 << 30
            }
        ));
        assert_eq!(marks.written_ms(LogIndex(5)), Some(7000));
        assert_eq!(marks.beyond_age(LogIndex(5), 6999), None);
        assert_eq!(marks.beyond_age(LogIndex(5), 7000), Some(LogIndex(5)));
    }

    #[test]
    fn a_restart_and_a_purge_change_no_size() {
        let mut marks = marks();
        marks.purge(LogIndex(35));
        assert_eq!(marks.retained(LogIndex(35)), 650);
        let mut again = LogMarks::decode(&marks.encode(), LogIndex(35), LogIndex(100)).unwrap();
        assert_eq!(again, marks);
        // The log lost its end; then it grows again.
        again = LogMarks::decode(&marks.encode(), LogIndex(35), LogIndex(72)).unwrap();
        assert_eq!(again.next(), LogIndex(70));
        assert_eq!(again.retained(LogIndex(35)), 350);
        marks.truncate(LogIndex(72), 280);
        assert_eq!(marks.retained(LogIndex(35)), 370);
        // Another log.
        assert!(LogMarks::decode(&marks.encode(), LogIndex(200), LogIndex(300)).is_none());
        assert!(LogMarks::decode(&[9, 9], LogIndex(0), LogIndex(9)).is_none());
    }

    proptest! {
        #[test]
        fn sizes_add_up_whatever_happens(steps in prop::collection::vec((0..5_u8, 1..40_u64), 1..200)) {
            let mut marks = LogMarks::new(LogIndex(0));
            let (mut first, mut next, mut now) = (0, 0, 0);
            for (kind, amount) in steps {
                now += amount;
                match kind {
                    0 | 1 => for _ in 0..amount {
                        marks.append(LogIndex(next), 8);
                        next += 1;
                    },
                    2 => {
                        let from = (next - (amount % 4).min(next - first)).max(first);
                        marks.truncate(LogIndex(from), 8 * (next - from) as usize);
                        next = from;
                    }
                    3 => {
                        first = (first + amount).min(next);
                        marks.purge(LogIndex(first));
                    }
                    _ => {
                        marks.mark(now, EACH);
                    }
                }
                prop_assert_eq!(marks.retained(LogIndex(first)), 8 * (next - first));
                let saved = LogMarks::decode(&marks.encode(), LogIndex(first), LogIndex(next));
                prop_assert!(saved.is_some());
                if let Some(upto) = marks.beyond_size(LogIndex(first), 100) {
                    prop_assert!(8 * (next - upto.0 - 1) <= 100 && upto.0 >= first);
                }
            }
        }
    }
}
