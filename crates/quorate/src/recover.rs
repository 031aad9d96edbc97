//! `quorate recover`.

use anyhow::bail;
use quorate_node::config::Config;
use quorate_node::force_new_cluster;

use crate::args::RecoverArgs;
use crate::node::offline_parts;

const WARNING: &str = "\
WARNING: this makes a new cluster of this one node. Commits that were acknowledged and that this node
does not have are LOST. If any other node of the old cluster still runs, or ever runs again, there
will be two databases that both take writes, and nothing can merge them. Do this only if the other
nodes are lost for good, on the survivor whose log is the longest.";

pub(crate) async fn run(args: &RecoverArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    eprintln!("{WARNING}\n");
    let parts = offline_parts(&config).await?;
    let forced = force_new_cluster(&config, parts, args.the_others_are_lost).await?;
    println!(
        "node {} of cluster {}: the log ends at {}, and was known to be committed up to {}",
        config.node,
        forced.before,
        forced.last,
        forced
            .committed
            .map_or("nothing".to_owned(), |committed| committed.to_string()),
    );
    if !args.the_others_are_lost {
        bail!("nothing was changed. To do it, say --the-others-are-lost");
    }
    println!(
        "It is now the only member of the new cluster {}. Start it as ever; other nodes come with new, \
         empty folders.",
        forced.after
    );
    Ok(())
}
