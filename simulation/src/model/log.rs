//! Every log that some node may have, as a tree of entries, and what the real `apply` makes of each.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_consensus::apply::State;
use quorate_role::Applied;
use quorate_types::{
    BinlogSource, Command, Gtid, LeaderId, LogId, LogIndex, NodeId, Outcome, Rejection, Tag,
    Transaction, TransactionBatch, Uuid,
};

use super::Omission;
use super::list::List;
use super::world::Era;

/// A transaction's name: its server, and the server's number for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name(pub(super) u8);

impl Name {
    const PER_NODE: u8 = 8;

    pub(super) fn new(node: usize, number: u8) -> Self {
        Self(node as u8 * Self::PER_NODE + number)
    }

    /// As a bit of a set.
    pub(super) fn bit(self) -> u32 {
        1 << self.0
    }

    fn gtid(self) -> Gtid {
        Gtid {
            source: Uuid([self.0 / Self::PER_NODE + 1; 16]).into(),
            sequence: u64::from(self.0 % Self::PER_NODE),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Payload {
    /// `SetPrimary`: of its leader, or of none.
    SetPrimary { begins: bool },
    Transaction {
        epoch: Era,
        number: u8,
        name: Name,
        content: u8,
    },
}

/// An entry of some log: its place in the tree stands for the whole log up to it.
pub(super) struct Place {
    parent: u32,
    pub(super) id: LogId,
    pub(super) payload: Option<Payload>,
    state: State,
    pub(super) outcome: Outcome,
    /// Contents in the order of their acceptance.
    pub(super) accepted: List,
    /// Their names.
    pub(super) names: u32,
    /// The epoch and number that were accepted last.
    last: Option<(Era, u8)>,
    /// A promise about the log that this entry breaks.
    pub(super) wrong: Option<&'static str>,
}

impl Place {
    pub(super) fn index(&self) -> u8 {
        self.id.index.0 as u8
    }

    pub(super) fn applied(&self) -> Applied {
        let epoch = self.state.epoch().zip(self.state.primary());
        Applied {
            set_primary: self.state.set_primary(),
            epoch,
        }
    }
}

pub(super) struct Log {
    places: Vec<Place>,
    children: BTreeMap<(u32, LeaderId, Payload), u32>,
    omission: Option<Omission>,
}

impl Log {
    pub(super) fn new(omission: Option<Omission>) -> Self {
        let root = Place {
            parent: 0,
            id: LogId::default(),
            payload: None,
            state: State::default(),
            outcome: Outcome::Done,
            accepted: List::default(),
            names: 0,
            last: None,
            wrong: None,
        };
        Self {
            places: vec![root],
            children: BTreeMap::new(),
            omission,
        }
    }

    pub(super) fn get(&self, place: u32) -> &Place {
        &self.places[place as usize]
    }

    /// The log up to `place` with one entry more.
    pub(super) fn append(&mut self, place: u32, leader: LeaderId, payload: Payload) -> u32 {
        if let Some(&known) = self.children.get(&(place, leader, payload)) {
            return known;
        }
        let new = self.apply(place, leader, payload);
        let number = u32::try_from(self.places.len()).expect("far fewer logs than that");
        self.places.push(new);
        self.children.insert((place, leader, payload), number);
        number
    }

    /// The entry `index` of the log up to `place`.
    pub(super) fn at(&self, mut place: u32, index: u8) -> u32 {
        while self.get(place).index() > index {
            place = self.get(place).parent;
        }
        place
    }

    /// Whether the log up to `long` begins with the one up to `short`.
    pub(super) fn extends(&self, long: u32, short: u32) -> bool {
        self.at(long, self.get(short).index()) == short
    }

    fn apply(&self, parent: u32, leader: LeaderId, payload: Payload) -> Place {
        let before = self.get(parent);
        let id = LogId {
            leader,
            index: before.id.index.next(),
        };
        let mut state = before.state.clone();
        let (mut id_applied, mut command) = (id, command(leader, payload));
        if let Command::Transactions(batch) = &mut command {
            self.omit(&state, &mut id_applied, batch);
        }
        let (outcome, _) = state.apply(id_applied, &command);
        let mut place = Place {
            parent,
            id,
            payload: Some(payload),
            state,
            outcome,
            accepted: before.accepted,
            names: before.names,
            last: before.last,
            wrong: before.wrong,
        };
        if place.state.set_primary() < before.state.set_primary() {
            place.wrong = Some("epochs go back");
        }
        if let (Payload::Transaction { .. }, Outcome::Transactions { accepted: 1, .. }) =
            (payload, outcome)
        {
            accept(&mut place, payload);
        }
        place
    }

    /// What a rule of `apply` would refuse is made such that it does not.
    fn omit(&self, state: &State, id: &mut LogId, batch: &mut TransactionBatch) {
        let once = batch.transactions[0].gtid;
        match (self.omission, state.epoch()) {
            (Some(Omission::AcceptsAnyEpoch), Some(epoch)) => {
                batch.epoch = epoch;
                id.leader = epoch.0.leader;
            }
            (Some(Omission::AcceptsAnyOrder), _) => batch.first_number = state.next_number(),
            (Some(Omission::AcceptsTwice), _) if state.accepted().contains(once) => {
                batch.transactions[0].gtid.source.tag = "again".parse::<Tag>().unwrap_or_default();
            }
            _ => {}
        }
    }
}

/// What the log promises by itself, judged apart from the rules that keep it.
fn accept(place: &mut Place, payload: Payload) {
    let Payload::Transaction {
        epoch,
        number,
        name,
        content,
    } = payload
    else {
        return;
    };
    let before = match place.last {
        Some((last, before)) if last == epoch => before,
        _ => 0,
    };
    if number > before + 1 {
        place.wrong = Some("accepted, though one before it in its binlog is not");
    }
    if place.names & name.bit() != 0 || place.accepted.contains(content) {
        place.wrong = Some("accepted twice");
    }
    place.last = Some((epoch, number));
    place.names |= name.bit();
    place.accepted = place.accepted.with(content);
}

fn command(leader: LeaderId, payload: Payload) -> Command {
    match payload {
        Payload::SetPrimary { begins } => Command::SetPrimary {
            node: begins.then_some(leader.node),
        },
        Payload::Transaction {
            epoch,
            number,
            name,
            content,
        } => Command::Transactions(TransactionBatch {
            epoch: epoch.epoch(),
            first_number: u64::from(number),
            source: BinlogSource {
                file: "binlog.000001".into(),
                format: Bytes::new(),
            },
            transactions: vec![Transaction {
                gtid: name.gtid(),
                checksum: u32::from(content),
                events: Bytes::new(),
            }],
        }),
    }
}

/// Whether only its place in the order spoke against it.
pub(super) fn is_out_of_order(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Transactions {
            accepted: 0,
            rejected: Some(Rejection::OutOfOrder { .. })
        }
    )
}

pub(super) fn is_accepted(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Transactions { accepted: 1, .. })
}

/// A leader as the log names it.
pub(super) fn leader(term: u8, node: usize) -> LeaderId {
    LeaderId {
        term: quorate_types::Term(u64::from(term)),
        node: NodeId(node as u64 + 1),
    }
}

/// For people.
pub(super) fn show(place: &Place) -> String {
    let LogIndex(index) = place.id.index;
    let term = place.id.leader.term;
    let what = match place.payload {
        None => "nothing".to_owned(),
        Some(Payload::SetPrimary { begins: false }) => "SetPrimary none".to_owned(),
        Some(Payload::SetPrimary { begins: true }) => {
            format!("SetPrimary n{}", place.id.leader.node)
        }
        Some(Payload::Transaction {
            epoch,
            number,
            content,
            ..
        }) => format!("t{content}, number {number} of epoch {}", epoch.epoch()),
    };
    format!("{index} of term {term} ({what})")
}
