//! Runs simulations.

fn main() {
    let seed = std::env::args()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .without_time()
        .with_writer(std::io::stderr)
        .init();
    let setup = quorate_simulation::Setup {
        seed,
        ..Default::default()
    };
    let report = quorate_simulation::run::run(&setup, std::time::Duration::from_secs(30));
    for line in &report.trace {
        println!("{line}");
    }
    println!(
        "{:#?}",
        (
            report.seed,
            report.simulated,
            report.counts,
            report.faults,
            report.pauses,
            &report.violation,
            &report.nodes
        )
    );
}
