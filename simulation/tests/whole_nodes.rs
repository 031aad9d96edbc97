//! Whole clusters give the same trace for the same seed, and lose nothing.

use std::process::Command;

use quorate_simulation::report::Summary;

fn run(seed: u64) -> Summary {
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["one", &seed.to_string(), "--chaos", "8"])
        .output()
        .expect("run the simulation that was built with this test");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let errors = String::from_utf8_lossy(&output.stderr);
        panic!("seed {seed}: {error}: {errors}")
    })
}

fn trace(seed: u64) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["replay", &seed.to_string(), "--chaos", "8"])
        .output()
        .expect("run the simulation that was built with this test");
    output.stdout
}

#[test]
fn the_same_seed_gives_the_same_trace_of_whole_nodes() {
    for seed in [3, 4] {
        let summary = run(seed);
        assert_eq!(summary.violation, None, "seed {seed}");
        assert!(summary.committed > 100, "seed {seed}: {summary:?}");
        let (first, second) = (trace(seed), trace(seed));
        assert!(first.len() > 10_000, "seed {seed}: {} bytes", first.len());
        assert!(first == second, "seed {seed} gave two traces");
    }
    assert!(trace(3) != trace(4));
}
