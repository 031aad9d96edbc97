//! One run from one seed: a cluster comes up, is broken for a while, is healed, and must serve.

use std::time::Duration;

use crate::chaos::{Chaos, Faults};
use crate::cluster::{Cluster, Setup, Violation};
use crate::faults::Rare;
use crate::history::Counts;

/// After healing, elections, repairs and clones are over by then.
const CONVERGED: Duration = Duration::from_secs(20);
/// A run in which fewer transactions were committed shows nothing.
const COMMITS_MIN: u64 = 50;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    pub simulated: Duration,
    pub counts: Counts,
    pub faults: Faults,
    pub rare: Rare,
    /// How long no gate passed writes, each time.
    pub pauses: Vec<Duration>,
    pub violation: Option<Violation>,
    /// Each node at the end.
    pub nodes: Vec<String>,
    pub trace: Vec<String>,
}

/// Runs one seed with `chaos` of faults. To be called once per process.
#[must_use]
pub fn run(setup: &Setup, chaos: Duration) -> Report {
    let mut cluster = Cluster::new(&setup.varied());
    let mut faults = Chaos::new(setup.seed);
    let violation = all_of_it(&mut cluster, &mut faults, chaos).err();
    Report {
        seed: setup.seed,
        simulated: cluster.elapsed(),
        counts: cluster.counts(),
        faults: faults.faults,
        rare: cluster.rare(),
        pauses: cluster.oracle().pauses().to_vec(),
        nodes: cluster.describe(),
        trace: cluster.trace(),
        violation,
    }
}

fn all_of_it(cluster: &mut Cluster, faults: &mut Chaos, chaos: Duration) -> Result<(), Violation> {
    cluster.start()?;
    cluster.set_load(true);
    faults.run(cluster, chaos)?;
    cluster.must_converge(CONVERGED)?;
    let committed = cluster.counts().committed;
    match committed < COMMITS_MIN {
        true => Err(Violation(format!(
            "only {committed} transactions were committed: the run shows nothing"
        ))),
        false => Ok(()),
    }
}
