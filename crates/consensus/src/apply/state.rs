use quorate_types::{
    AcceptErrant, Command, Epoch, FRAGMENT_FIRST, Fragment, Gtid, GtidSet, LogId, LogIndex,
    Members, NodeId, Outcome, Rejection, Rule, Settings, Standing, Transaction, TransactionBatch,
};

use super::permit::Permits;
use super::record::{AcceptedItem, AcceptedRecord, Place};

/// The highest apply level whose rules are in this program.
pub const APPLY_LEVEL: u32 = 2;

/// The apply level from which on [`AcceptErrant`] counts.
pub const ACCEPT_ERRANT_LEVEL: u32 = 2;

/// Everything that decides what the next entry does. Equal logs give equal states; a snapshot is
/// this and the index of accepted transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub(super) accepted: GtidSet,
    pub(super) epoch: Option<CurrentEpoch>,
    /// The last `SetPrimary` that took effect, with a node or none: all epochs before it are over.
    pub(super) set_primary: Option<LogId>,
    /// Of the next transaction that can be accepted; 1 at the start of an epoch.
    pub(super) next_number: u64,
    pub(super) open: Option<OpenTransaction>,
    pub(super) baseline: Baseline,
    pub(super) members: Members,
    pub(super) settings: Settings,
    pub(super) purged: LogIndex,
    pub(super) permits: Permits,
    /// A rule that is not obeyed, for a simulation: no part of the state.
    pub(super) left_out: Option<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CurrentEpoch {
    pub(super) epoch: Epoch,
    pub(super) node: NodeId,
}

/// A fragmented transaction of which the last part is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenTransaction {
    pub(super) gtid: Gtid,
    pub(super) first: LogIndex,
    pub(super) next_part: u32,
    /// Of the parts so far.
    pub(super) length: u64,
    pub(super) crc32: u32,
}

/// The data that the first server brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Baseline {
    /// May still come.
    Open,
    /// An epoch began without one.
    None,
    Set {
        checksum: u64,
    },
}

impl Default for State {
    fn default() -> Self {
        Self {
            accepted: GtidSet::new(),
            epoch: None,
            set_primary: None,
            next_number: 1,
            open: None,
            baseline: Baseline::Open,
            members: Members::new(),
            settings: Settings::default(),
            purged: LogIndex::ZERO,
            permits: Permits::default(),
            left_out: None,
        }
    }
}

impl State {
    /// Every GTID that was ever accepted, one by one, as baseline, or as somebody's errant ones.
    #[must_use]
    pub fn accepted(&self) -> &GtidSet {
        &self.accepted
    }

    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch.map(|current| current.epoch)
    }

    /// The last `SetPrimary` that took effect, whether it began an epoch or only ended one.
    #[must_use]
    pub fn set_primary(&self) -> Option<LogId> {
        self.set_primary
    }

    /// The current epoch's node.
    #[must_use]
    pub fn primary(&self) -> Option<NodeId> {
        self.epoch.map(|current| current.node)
    }

    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The first part of the open fragmented transaction: the log is kept from there on.
    #[must_use]
    pub fn open_since(&self) -> Option<LogIndex> {
        self.open.map(|open| open.first)
    }

    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Up to where the index of accepted transactions is trimmed, inclusive.
    #[must_use]
    pub fn purged(&self) -> LogIndex {
        self.purged
    }

    /// The open permit to clone with its sequence, and the sequence of the last one.
    #[must_use]
    pub fn permits(&self) -> Permits {
        self.permits
    }

    /// Of the data that the first server brought, if it brought any.
    #[must_use]
    pub fn baseline_checksum(&self) -> Option<u64> {
        match self.baseline {
            Baseline::Set { checksum } => Some(checksum),
            Baseline::Open | Baseline::None => None,
        }
    }

    /// Breaks a rule from now on, as a simulation wants it; of a state that came from a snapshot.
    pub(crate) fn leave_out(&mut self, rule: Option<Rule>) {
        self.left_out = rule;
        if rule == Some(Rule::SnapshotHasTheSet) {
            self.accepted = GtidSet::new();
        }
    }

    pub(crate) fn left_out(&self) -> Option<Rule> {
        self.left_out
    }

    /// Whether this program knows the rules that hold after `command`. A node stops before
    /// applying one that it does not understand: applying it by old rules would split the nodes.
    #[must_use]
    pub fn understands(command: &Command) -> bool {
        !matches!(command, Command::Settings(settings) if settings.apply_level > APPLY_LEVEL)
    }

    /// Applies the entry `id`. The record, if there is one, goes into the index of accepted
    /// transactions on disk, under the entry's index.
    pub fn apply(&mut self, id: LogId, command: &Command) -> (Outcome, Option<AcceptedRecord>) {
        let outcome = match command {
            Command::SetPrimary { node } => self.on_set_primary(id, *node),
            Command::Baseline { gtid_set, checksum } => self.on_baseline(gtid_set, *checksum),
            Command::Cloning(cloning) => match self.permits.apply(*cloning, &self.members) {
                true => Outcome::Done,
                false => Outcome::Ignored,
            },
            Command::AcceptErrant(errant) => self.on_accept_errant(errant),
            Command::Purge { upto } => self.on_purge(id, *upto),
            Command::Transactions(batch) => return self.on_transactions(id, batch),
            Command::Fragment(fragment) => return self.on_fragment(id, fragment),
            Command::Members(members) => {
                self.members.clone_from(members);
                Outcome::Done
            }
            Command::Settings(settings) => self.on_settings(settings),
        };
        (outcome, None)
    }

    fn on_set_primary(&mut self, id: LogId, node: Option<NodeId>) -> Outcome {
        // Only a leader makes itself primary; an entry that a former leader left, or that was
        // proposed elsewhere, must not begin an epoch.
        if node.is_some_and(|node| node != id.leader.node) {
            return Outcome::Ignored;
        }
        let epoch = node.map(|node| CurrentEpoch {
            epoch: Epoch(id),
            node,
        });
        if epoch.is_some() && self.baseline == Baseline::Open {
            self.baseline = Baseline::None;
        }
        self.epoch = epoch;
        self.set_primary = Some(id);
        self.next_number = 1;
        if self.left_out != Some(Rule::PartsEndWithTheEpoch) {
            self.open = None;
        }
        Outcome::PrimarySet {
            epoch: self.epoch(),
        }
    }

    fn on_baseline(&mut self, gtid_set: &GtidSet, checksum: u64) -> Outcome {
        if self.baseline != Baseline::Open {
            return Outcome::Ignored;
        }
        self.baseline = Baseline::Set { checksum };
        self.accepted.union(gtid_set);
        Outcome::Done
    }

    /// Sets only grow, so a set that holds everything accepted was judged by what is accepted now:
    /// neither a transaction nor another server's errant ones came between.
    fn on_accept_errant(&mut self, errant: &AcceptErrant) -> Outcome {
        let member = self.members.get(&errant.node);
        let known = member.is_some_and(|member| {
            let here = member.standing != Standing::Removed && !member.witness;
            here && member.incarnation == errant.incarnation
        });
        let more = errant.executed.contains_set(&self.accepted) && errant.executed != self.accepted;
        // A primary, or a server that is being cloned, would be another way out.
        let idle = self.epoch.is_none() && self.permits.open.is_none();
        let level = self.settings.apply_level >= ACCEPT_ERRANT_LEVEL;
        if !(known && more && idle && level) {
            return Outcome::Ignored;
        }
        if self.baseline == Baseline::Open {
            self.baseline = Baseline::None;
        }
        self.accepted.clone_from(&errant.executed);
        Outcome::Done
    }

    fn on_purge(&mut self, id: LogId, upto: LogIndex) -> Outcome {
        // What comes later, or is not whole yet, cannot have been executed by anybody.
        let before_open = self.open_since().map(|first| first.0.saturating_sub(1));
        let bound = before_open.unwrap_or(id.index.0).min(id.index.0);
        // A copy that is being made lacks what comes after the pin, and finds it in the log only.
        let bound = self.permits.pinned().map_or(bound, |pin| bound.min(pin.0));
        let upto = LogIndex(upto.0.min(bound));
        if upto <= self.purged {
            return Outcome::Ignored;
        }
        self.purged = upto;
        Outcome::Done
    }

    fn on_settings(&mut self, settings: &Settings) -> Outcome {
        // Entries that were applied by newer rules cannot be unapplied.
        if settings.apply_level < self.settings.apply_level {
            return Outcome::Ignored;
        }
        self.settings.clone_from(settings);
        Outcome::Done
    }

    fn on_transactions(
        &mut self,
        id: LogId,
        batch: &TransactionBatch,
    ) -> (Outcome, Option<AcceptedRecord>) {
        let mut items = Vec::new();
        let mut rejected = self.check_epoch(id, batch.epoch).err();
        if rejected.is_none() {
            for (position, transaction) in (0_u32..).zip(&batch.transactions) {
                let number = batch.first_number.checked_add(u64::from(position));
                // An open transaction owns the next number until its last part takes it.
                let verdict = self.check(number, transaction.gtid).and_then(|()| {
                    let free = self.open.is_none();
                    free.then_some(()).ok_or(Rejection::BrokenFragment)
                });
                if let Err(reason) = verdict {
                    rejected = Some(reason);
                    break;
                }
                self.accept(transaction.gtid);
                items.push(item(transaction, position));
            }
        }
        let (outcome, mut record) = verdict(id, items, rejected);
        if rejected.is_some() && self.left_out == Some(Rule::OnlyAcceptedIsIndexed) {
            let all = (0_u32..).zip(&batch.transactions);
            record = Some(AcceptedRecord {
                index: id.index,
                transactions: all.map(|(at, transaction)| item(transaction, at)).collect(),
            });
        }
        (outcome, record)
    }

    fn on_fragment(&mut self, id: LogId, fragment: &Fragment) -> (Outcome, Option<AcceptedRecord>) {
        let next = match self.check_fragment(id, fragment) {
            Ok(next) => next,
            Err(reason) => return verdict(id, Vec::new(), Some(reason)),
        };
        let Some(end) = fragment.end else {
            self.open = Some(next);
            return verdict(id, Vec::new(), None);
        };
        self.open = None;
        self.accept(fragment.gtid);
        let item = AcceptedItem {
            gtid: fragment.gtid,
            checksum: end.checksum,
            place: Place::Parts {
                first: next.first,
                length: next.length,
            },
        };
        verdict(id, vec![item], None)
    }

    /// The open transaction with this part, if the part may be taken.
    fn check_fragment(&self, id: LogId, fragment: &Fragment) -> Result<OpenTransaction, Rejection> {
        self.check_epoch(id, fragment.epoch)?;
        self.check(Some(fragment.number), fragment.gtid)?;
        let open = self.open.unwrap_or(OpenTransaction {
            gtid: fragment.gtid,
            first: id.index,
            next_part: FRAGMENT_FIRST,
            length: 0,
            crc32: 0,
        });
        if open.gtid != fragment.gtid || open.next_part != fragment.part {
            return Err(Rejection::BrokenFragment);
        }
        let mut hasher = crc32fast::Hasher::new_with_initial_len(open.crc32, open.length);
        hasher.update(&fragment.bytes);
        let crc32 = hasher.finalize();
        let length = open.length.checked_add(fragment.bytes.len() as u64);
        let length = length.ok_or(Rejection::BrokenFragment)?;
        let next_part = open.next_part.checked_add(1);
        let next_part = next_part.ok_or(Rejection::BrokenFragment)?;
        if let Some(end) = fragment.end
            && (end.length, end.bytes_crc32) != (length, crc32)
        {
            return Err(Rejection::BrokenFragment);
        }
        Ok(OpenTransaction {
            next_part,
            length,
            crc32,
            ..open
        })
    }

    /// Of the current epoch, and appended by the leader that began it: the entry of a later
    /// leader, though it names the epoch, was not proposed by its capture.
    fn check_epoch(&self, id: LogId, epoch: Epoch) -> Result<(), Rejection> {
        let current = self.epoch() == Some(epoch) && epoch.0.leader == id.leader;
        let current = current || self.left_out == Some(Rule::EpochOfTheCapture);
        current.then_some(()).ok_or(Rejection::WrongEpoch)
    }

    fn check(&self, number: Option<u64>, gtid: Gtid) -> Result<(), Rejection> {
        let in_order = number == Some(self.next_number);
        if !in_order && self.left_out != Some(Rule::OrderOfTheBinlog) {
            return Err(Rejection::OutOfOrder {
                expected: self.next_number,
            });
        }
        if self.accepted.contains(gtid) && self.left_out != Some(Rule::GtidOnce) {
            return Err(Rejection::Collision { gtid });
        }
        Ok(())
    }

    fn accept(&mut self, gtid: Gtid) {
        self.accepted.insert(gtid);
        // Capture counts from 1: the end of the numbers is never reached.
        self.next_number = self.next_number.saturating_add(1);
    }
}

fn item(transaction: &Transaction, position: u32) -> AcceptedItem {
    AcceptedItem {
        gtid: transaction.gtid,
        checksum: transaction.checksum,
        place: Place::Entry { position },
    }
}

fn verdict(
    id: LogId,
    items: Vec<AcceptedItem>,
    rejected: Option<Rejection>,
) -> (Outcome, Option<AcceptedRecord>) {
    let outcome = Outcome::Transactions {
        accepted: u32::try_from(items.len()).expect("positions in an entry are counted in 32 bits"),
        rejected,
    };
    let record = (!items.is_empty()).then_some(AcceptedRecord {
        index: id.index,
        transactions: items,
    });
    (outcome, record)
}
