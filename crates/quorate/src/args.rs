//! What can be said on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use quorate_net::Endpoint;

/// A group of MySQL servers that behave as one strongly consistent database.
///
/// Start with `quorate demo`: it runs three nodes on this machine, each with its own MySQL.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(DemoArgs),
    Node(NodeArgs),
    Status(StatusArgs),
    Switchover(SwitchoverArgs),
    /// Show the members of a cluster.
    #[command(subcommand)]
    Members(MembersCommand),
    Certs(CertsArgs),
    /// Look after a node's log.
    #[command(subcommand)]
    Log(LogCommand),
    /// Become a server process. For the sidecar itself.
    #[command(hide = true, name = quorate_mysqld::EXEC_SERVER)]
    ExecServer {
        /// The server's lock, program and options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

/// Run a whole cluster on this machine, until Ctrl-C.
///
/// Finds a MySQL server, or fetches one into the cache folder the first time. Then starts the nodes,
/// each as a process of its own, and prints where to connect. The data stays for the next time.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// How many nodes; a majority of them must run. Odd numbers make sense.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) nodes: u16,
    /// Where everything is kept [default: quorate/demo in $XDG_STATE_HOME or ~/.local/state].
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Node i uses the ports from BASE_PORT + 10*i: +0 read-write, +1 read-only, +2 feed, +3 gRPC,
    /// +4 HTTP, +5 mysqld, +6 gate.
    #[arg(long, default_value_t = 7000, value_parser = clap::value_parser!(u16).range(1..=65000))]
    pub(crate) base_port: u16,
    /// The mysqld to run [default: the first in PATH, the cache folder; else one is fetched].
    #[arg(long, env = "QUORATE_MYSQLD", value_name = "PATH")]
    pub(crate) mysqld: Option<PathBuf>,
    /// Delete the data of an earlier demo in this folder first.
    #[arg(long)]
    pub(crate) fresh: bool,
}

/// Run one node: the sidecar of one MySQL server.
///
/// It starts the server, replicates what it commits, and fails over. SIGTERM hands leadership to
/// another node first, then stops the server cleanly.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// The node's configuration, in TOML. Every mistake in it is reported with its line.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Found a new cluster with this node as its first member: once, on one node only.
    #[arg(long)]
    pub(crate) bootstrap: bool,
    /// Run in a session of its own: nodes that share a machine then share its processors as
    /// services do, and a terminal's signals do not reach them.
    #[arg(long)]
    pub(crate) own_session: bool,
}

/// Show the nodes, their roles and how far they are.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) at: Address,
    /// Print JSON for scripts, on one line; its fields stay as they are.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print it again each second, until Ctrl-C.
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Make another node the primary, without losing a commit.
///
/// New connections wait, running transactions get a moment to end, then the node takes over: writes
/// pause for less than a second.
#[derive(Debug, clap::Args)]
pub(crate) struct SwitchoverArgs {
    /// The node to become primary.
    #[arg(long, value_name = "ID")]
    pub(crate) to: u64,
    #[command(flatten)]
    pub(crate) at: Address,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MembersCommand {
    /// List the nodes with their part in Raft.
    List(Address),
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    Compact(CompactArgs),
}

/// Give the room of what was purged back to the disk, while the node is stopped.
///
/// The log's files keep the size that they once needed. This writes what is in them into new ones,
/// compares, and puts those in their place in one step: it can be interrupted at any moment. Needs
/// room for the copy.
#[derive(Debug, clap::Args)]
pub(crate) struct CompactArgs {
    /// The node's configuration.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Address {
    /// Any node's gRPC address; in the demo, port BASE_PORT + 10*i + 3.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) addr: Endpoint,
    /// For a cluster with TLS: a folder with ca.pem, and a node's certificate and key as
    /// `quorate certs` names them (node-N.pem, node-N-key.pem).
    #[arg(long, value_name = "DIR")]
    pub(crate) certs: Option<PathBuf>,
}

/// Make certificates and passwords for a new cluster.
///
/// Writes ca.pem, ca-key.pem, node-N.pem and node-N-key.pem for each node, and secrets.toml. Copy
/// ca.pem, secrets.toml and a node's own two files to that node; keep ca-key.pem elsewhere.
#[derive(Debug, clap::Args)]
pub(crate) struct CertsArgs {
    /// A folder that is new or has none of the files.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The nodes' host names or IP addresses, separated by commas: the first is node 1.
    #[arg(long, value_name = "HOSTS", value_delimiter = ',', required = true)]
    pub(crate) nodes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_option_is_explained() {
        let mut command = super::Args::command();
        command.build();
        command.clone().debug_assert();
        let mut open = vec![command];
        while let Some(command) = open.pop() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                let explained = argument.get_help().is_some();
                assert!(explained, "{} {}", command.get_name(), argument.get_id());
            }
            open.extend(command.get_subcommands().cloned());
        }
    }
}
