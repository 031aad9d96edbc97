use quorate_role::Phase;

use super::cluster::Cluster;
use super::list::List;
use super::search::{Model, Step, search};
use super::*;

fn holds(bounds: &Bounds) {
    let checked = check(bounds, None);
    println!("{bounds}: {checked}");
    assert_eq!(checked.verdict, Verdict::Holds, "{bounds}: {checked:#}");
}

#[test]
fn every_state_is_safe_and_leads_to_one_that_serves() {
    for bounds in SMALL {
        holds(bounds);
    }
}

/// By hand: `cargo test --release -p quorate-simulation --lib model -- --ignored --nocapture`.
#[test]
#[ignore = "minutes and gigabytes"]
fn every_state_of_larger_bounds_is_safe_and_leads_to_one_that_serves() {
    for bounds in LARGE {
        holds(bounds);
    }
}

#[test]
fn each_rule_that_is_left_out_is_missed() {
    for (omission, bounds) in LEFT_OUT {
        let with_all_rules = check(bounds, None);
        assert_eq!(with_all_rules.verdict, Verdict::Holds, "{bounds}");
        let without = check(bounds, Some(*omission));
        println!("without {omission:?}, {bounds}: {without}");
        assert!(without.is_broken(), "without {omission:?}: {without}");
    }
}

#[test]
fn no_schedule_needs_the_rule_that_a_gtid_is_accepted_once() {
    let (omission, bounds) = NOT_MISSED;
    let checked = check(&bounds, Some(omission));
    assert_eq!(checked.verdict, Verdict::Holds, "{checked:#}");
}

/// Without faults something happens: a search that sees nothing finds nothing wrong.
#[test]
fn a_primary_serves_a_write_that_a_replica_then_shows() {
    let mut cluster = Cluster::<2>::new(SMALL[0].faults, None);
    let mut world = cluster.first();
    for _ in 0..40 {
        let mut steps = Vec::new();
        cluster.steps(&world, &mut steps);
        let write = |step: &&Step<_>| matches!(step.action, Action::Write { .. });
        let quiet = |step: &&Step<_>| !step.fault;
        let next = steps.iter().find(write).or(steps.iter().find(quiet));
        let Some(next) = next else { break };
        assert_eq!(cluster.violation(&next.state), None);
        world = next.state;
    }
    let [primary, replica] = world.nodes;
    let phase = cluster.roles.phase(primary.machine);
    assert!(matches!(phase, Phase::Primary { .. }), "{phase:?}");
    assert!(cluster.is_good(&world), "{world:?}");
    assert_eq!(world.told, 1);
    assert_eq!(replica.server.engine, List::default().with(0));
}

/// Up and down between 0 and 9, where a fault leads to 20 and 20 to 21 and back.
struct Stairs {
    stuck: bool,
}

impl Model for Stairs {
    type State = u32;

    fn initial(&mut self) -> u32 {
        5
    }

    fn steps(&mut self, state: &u32, steps: &mut Vec<Step<u32>>) {
        let (to, back): (&[u32], _) = match *state {
            0 => (&[1], 0),
            9 => (&[8], 20),
            20 => (&[21], if self.stuck { 21 } else { 0 }),
            21 => (&[20], 21),
            state => (&[state - 1, state + 1], state),
        };
        let step = |state, fault| Step {
            action: Action::Tick { node: 0 },
            fault,
            state,
        };
        steps.extend(to.iter().map(|to| step(*to, false)));
        steps.push(step(back, *state == 9));
    }

    fn violation(&mut self, state: &u32) -> Option<String> {
        (*state > 30).then(|| "too high".to_owned())
    }

    fn is_good(&mut self, state: &u32) -> bool {
        *state == 3
    }

    fn describe(&mut self, from: &u32, step: &Step<u32>) -> String {
        format!("{from} to {}", step.state)
    }
}

#[test]
fn a_state_without_a_way_back_is_found_with_the_shortest_way_there() {
    assert_eq!(
        search(&mut Stairs { stuck: false }, 100),
        (12, Verdict::Holds)
    );
    let way = ["5 to 6", "6 to 7", "7 to 8", "8 to 9", "9 to 20"];
    let stuck = Verdict::Stuck {
        states: 2,
        schedule: way.map(str::to_owned).to_vec(),
    };
    assert_eq!(search(&mut Stairs { stuck: true }, 100), (12, stuck));
    assert_eq!(search(&mut Stairs { stuck: true }, 6).1, Verdict::TooMany);
}
