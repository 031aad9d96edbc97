//! `quorate node`.

use quorate_node::config::{Config, Secrets};

use crate::args::NodeArgs;

pub(crate) fn run(args: &NodeArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let secrets = Secrets::load(&config.secrets)?;
    quorate_node::telemetry::init(&config.log)?;
    start(config, secrets, args.bootstrap)
}

/// Where the node's wiring begins.
fn start(config: Config, _secrets: Secrets, _bootstrap: bool) -> anyhow::Result<()> {
    anyhow::bail!("node {} has no wiring in this build", config.node)
}
