//! The example of `simulation/README.md`, as it stands there.

use std::time::Duration;

use quorate_simulation::scenarios::tell;
use quorate_simulation::{Cluster, Setup, Violation};

/// The primary is cut off and its server killed; the others must serve within three seconds.
fn mine(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = cluster.primary().expect("it serves");
    cluster.isolate(old);
    cluster.run_for(Duration::from_millis(50))?;
    cluster.kill_server(old);
    cluster.run_until("another node serves", Duration::from_secs(3), |cluster| {
        cluster.primary().is_some_and(|now| now != old)
    })
}

#[test]
fn my_story() {
    assert_eq!(tell(&Setup::default(), mine).violation, None);
}
