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

#[test]
fn the_same_seed_gives_the_same_trace_of_whole_nodes() {
    for seed in [3, 4] {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first.violation, None, "seed {seed}");
        assert!(first.committed > 100, "seed {seed}: {first:?}");
        assert_eq!(
            (first.trace_hash, first.trace_lines),
            (second.trace_hash, second.trace_lines),
            "seed {seed}"
        );
    }
    assert_ne!(run(3).trace_hash, run(4).trace_hash);
}
