//! `quorate mysqld`: what a service manager runs in place of mysqld.

use anyhow::Context;
use quorate_mysqld::exec_ordered_server;
use quorate_node::config::Config;

use crate::args::MysqldArgs;

/// Returns only with an error: else this process is the server.
pub(crate) fn run(args: &MysqldArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    anyhow::ensure!(
        config.mysqld.start.is_some(),
        "{} has no mysqld.start: its node runs the server by itself",
        args.config.display()
    );
    let error = exec_ordered_server(&config.mysqld_order_file(), &config.mysql_dir());
    Err(error).context("become the server")
}
