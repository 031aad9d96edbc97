//! Breadth first through every state of a model, then backwards from the good ones.
//!
//! stateright does the first half. It keeps no edges, and its `eventually` is about the end of a
//! path; that a good state can be *reached* from every state needs all edges at once.

use std::hash::{DefaultHasher, Hash, Hasher};

/// What can be searched through.
pub(super) trait Model {
    type State: Clone + Eq + Hash;

    fn initial(&mut self) -> Self::State;
    /// Every step out of `state`.
    fn steps(&mut self, state: &Self::State, steps: &mut Vec<Step<Self::State>>);
    /// What must not be, and is.
    fn violation(&mut self, state: &Self::State) -> Option<String>;
    /// What must be reachable from everywhere by steps that are no faults.
    fn is_good(&mut self, state: &Self::State) -> bool;
    /// For people.
    fn describe(&mut self, from: &Self::State, step: &Step<Self::State>) -> String;
}

/// One step, by its name as the model has it.
#[derive(Clone, Debug)]
pub(super) struct Step<S> {
    pub(super) action: super::Action,
    /// Nobody may count on it.
    pub(super) fault: bool,
    pub(super) state: S,
}

/// What a search says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every state was seen, each is safe, and from each a good one can be reached.
    Holds,
    /// There are more states than the search was allowed to keep; those seen are safe.
    TooMany,
    /// The shortest way to a state that breaks a promise.
    Unsafe { what: String, schedule: Vec<String> },
    /// So many states lead to no good one any more, with the shortest way to one of them.
    Stuck {
        states: usize,
        schedule: Vec<String>,
    },
}

/// The states that were seen, found by their content.
struct Seen<S> {
    states: Vec<S>,
    /// By which state each was reached first.
    parents: Vec<u32>,
    /// Numbers of states plus one, in open addressing; a power of two of them.
    slots: Vec<u32>,
}

impl<S: Clone + Eq + Hash> Seen<S> {
    fn new(initial: S) -> Self {
        let mut seen = Self {
            states: Vec::new(),
            parents: Vec::new(),
            slots: vec![0; 1 << 16],
        };
        seen.number(initial, 0);
        seen
    }

    /// The state's number, and whether it is new.
    fn number(&mut self, state: S, parent: u32) -> (u32, bool) {
        if self.states.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let slot = self.slot(&state);
        if self.slots[slot] != 0 {
            return (self.slots[slot] - 1, false);
        }
        let number = u32::try_from(self.states.len()).expect("the limit is below it");
        self.slots[slot] = number + 1;
        self.states.push(state);
        self.parents.push(parent);
        (number, true)
    }

    /// Where the state is, or would be.
    fn slot(&self, state: &S) -> usize {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        let mask = self.slots.len() - 1;
        let mut slot = hasher.finish() as usize & mask;
        while self.slots[slot] != 0 && self.states[self.slots[slot] as usize - 1] != *state {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        self.slots = vec![0; self.slots.len() * 4];
        for number in 0..self.states.len() {
            let slot = self.slot(&self.states[number]);
            self.slots[slot] = u32::try_from(number).expect("as it was counted") + 1;
        }
    }

    /// The steps from the first state to this one.
    fn schedule<M: Model<State = S>>(&self, model: &mut M, to: u32) -> Vec<String> {
        let mut way = vec![to];
        while let Some(&first) = way.last()
            && first != 0
        {
            way.push(self.parents[first as usize]);
        }
        way.reverse();
        let mut steps = Vec::new();
        way.windows(2)
            .map(|pair| {
                let (from, to) = (
                    &self.states[pair[0] as usize],
                    &self.states[pair[1] as usize],
                );
                steps.clear();
                model.steps(from, &mut steps);
                let step = steps.iter().find(|step| step.state == *to);
                let step = step.expect("it was found by this step");
                model.describe(from, step)
            })
            .collect()
    }
}

/// Searches until something is wrong, everything was seen, or `limit` states were.
pub(super) fn search<M: Model>(model: &mut M, limit: usize) -> (usize, Verdict) {
    let mut seen = Seen::new(model.initial());
    // Of each state, in order: where its edges begin. Faults are no edges.
    let mut edges: Vec<u32> = Vec::new();
    let mut begins = Vec::new();
    let mut steps = Vec::new();
    let mut next = 0;
    while next < seen.states.len() {
        if seen.states.len() > limit {
            return (seen.states.len(), Verdict::TooMany);
        }
        let from = seen.states[next].clone();
        let number = u32::try_from(next).expect("the limit is below it");
        if let Some(what) = model.violation(&from) {
            let schedule = seen.schedule(model, number);
            return (seen.states.len(), Verdict::Unsafe { what, schedule });
        }
        begins.push(edges.len());
        steps.clear();
        model.steps(&from, &mut steps);
        for step in steps.drain(..) {
            let (to, _) = seen.number(step.state, number);
            if !step.fault && to != number {
                edges.push(to);
            }
        }
        next += 1;
    }
    begins.push(edges.len());
    let mut good: Vec<bool> = Vec::with_capacity(seen.states.len());
    for state in &seen.states {
        good.push(model.is_good(state));
    }
    spread(&mut good, &edges, &begins);
    let verdict = match good.iter().position(|good| !good) {
        None => Verdict::Holds,
        Some(first) => Verdict::Stuck {
            states: good.iter().filter(|good| !**good).count(),
            schedule: seen.schedule(model, u32::try_from(first).expect("as it was counted")),
        },
    };
    (seen.states.len(), verdict)
}

/// Marks every state from which a marked one can be reached. Most edges lead to later states, so
/// going backwards a few rounds are enough.
fn spread(good: &mut [bool], edges: &[u32], begins: &[usize]) {
    loop {
        let mut changed = false;
        for state in (0..good.len()).rev() {
            let mut out = edges[begins[state]..begins[state + 1]].iter();
            if !good[state] && out.any(|to| good[*to as usize]) {
                good[state] = true;
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}
