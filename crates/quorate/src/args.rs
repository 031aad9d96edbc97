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
    /// Show and change the members of a cluster.
    #[command(subcommand)]
    Members(MembersCommand),
    Check(CheckArgs),
    /// Compare the tables of all replicas with the primary's, now.
    ///
    /// One table after the other, each at one moment of the log: writes to it wait until all have a
    /// snapshot, a second at most. The exit code is 1 if a table differs, or could not be compared.
    Verify(Address),
    /// Look at binlogs.
    #[command(subcommand)]
    Binlog(BinlogCommand),
    Recover(RecoverArgs),
    Certs(CertsArgs),
    /// Look after a node's log.
    #[command(subcommand)]
    Log(LogCommand),
    Mysqld(MysqldArgs),
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
    /// List the nodes with what they are meant to be and their part in Raft.
    List(Address),
    Add(AddArgs),
    Promote(MemberArgs),
    Remove(MemberArgs),
}

/// Let a new node come, as a learner.
///
/// Start it afterwards, with a configuration that names some of the others. It gets the log and the
/// data, serves reads, and has no vote until `quorate members promote`. Nodes that the leader's
/// configuration names need not be added: they come by themselves.
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// The new node's number. A node that was removed may be added again.
    #[arg(long, value_name = "ID")]
    pub(crate) id: u64,
    /// Its gRPC address, as the other nodes reach it.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) grpc: Endpoint,
    /// Its gate's address, as the other nodes reach it.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) gate: Endpoint,
    #[command(flatten)]
    pub(crate) at: Address,
}

/// Give a learner a vote (promote), or take a node out (remove).
///
/// One change at a time. Refused if another is under way, if the voters that there would be have no
/// quorum that answers, if too few of them have data, or if the learner has not caught up. A primary
/// that is removed hands over first. A node that was removed serves nothing any more, and is not
/// taken in again unless it is added.
#[derive(Debug, clap::Args)]
pub(crate) struct MemberArgs {
    /// The node's number.
    #[arg(long, value_name = "ID")]
    pub(crate) id: u64,
    #[command(flatten)]
    pub(crate) at: Address,
}

/// Last resort: make a new cluster of one survivor, or choose one of several errant servers.
///
/// --force-new-cluster is for when a majority of the voters is lost for good, or a learner elsewhere is
/// all that is left. The node must not run. It keeps its log and its data, gets a new cluster id and is
/// the only member. Acknowledged commits that it does not have are lost. Refused if another node of the
/// configuration answers.
///
/// --accept-errant is for when the nodes run and every server must be cloned, so that nobody is left to
/// clone from. What the chosen server has becomes accepted, and the others are cloned from it. No
/// acknowledged commit is lost: the chosen server must have them all. Without --yes nothing is changed,
/// and what would be is said.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("how").required(true).args(["force_new_cluster", "accept_errant"]))]
pub(crate) struct RecoverArgs {
    /// Make a new cluster of this node.
    #[arg(long, requires = "config", conflicts_with = "addr")]
    pub(crate) force_new_cluster: bool,
    /// The survivor's configuration.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Accept what this node's server has and nobody accepted.
    #[arg(long, value_name = "ID", requires = "addr", conflicts_with = "config")]
    pub(crate) accept_errant: Option<u64>,
    /// Any node's gRPC address; in the demo, port BASE_PORT + 10*i + 3.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) addr: Option<Endpoint>,
    /// For a cluster with TLS: a folder as `quorate certs` makes it.
    #[arg(long, value_name = "DIR", requires = "addr")]
    pub(crate) certs: Option<PathBuf>,
    /// Yes, accept the errant transactions that are shown, and throw away the other servers' data.
    #[arg(long, requires = "accept_errant")]
    pub(crate) yes: bool,
    /// Accept them though a node does not answer, or is still being repaired: its server might have
    /// been whole, and is cloned too.
    #[arg(long, requires = "accept_errant")]
    pub(crate) do_not_wait: bool,
    /// Yes, carry it out: the other nodes are lost, and will never run again. Without this nothing
    /// is changed, and what would be is said.
    #[arg(long, requires = "force_new_cluster")]
    pub(crate) the_others_are_lost: bool,
}

/// Look for what speaks against starting a node, or against its server, and say what to set.
///
/// It reads the configuration, looks at the data folder, at the server if it runs, and compares it
/// with those of the peers that answer. Nothing is changed. The exit code is 1 if a start is
/// forbidden.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The node's configuration.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// Become the server that a running node has ordered. For the unit of a service manager.
///
/// A node with `mysqld.start` in its configuration looks at the data folder first, then orders one
/// start of its server. Without an order this ends at once: run by hand, at boot, or after a crash, it
/// starts nothing. In systemd it is the unit's ExecStart, with Restart=no and KillSignal=SIGKILL.
#[derive(Debug, clap::Args)]
pub(crate) struct MysqldArgs {
    /// The node's configuration.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BinlogCommand {
    Inspect(InspectArgs),
    Export(ExportArgs),
}

/// Write the accepted transactions that a node still has into binlog files, for mysqlbinlog.
///
/// It ends with what the node knows to be accepted. The names are in order in binlog.index.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) at: Address,
    /// A folder that is new or empty.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Leave out these transactions.
    #[arg(long, value_name = "GTID_SET", default_value = "")]
    pub(crate) without: String,
}

/// Show what a server's binlog holds, and what a repair would cut off it. Nothing is changed.
///
/// Without --addr or --accepted every whole transaction counts as accepted, so that only damage
/// shows.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// A node's folder, or a server's data folder.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Ask this node (its gRPC address) what the cluster accepted; best the one that leads.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) addr: Option<Endpoint>,
    /// With --addr, for a cluster with TLS: as in `quorate status`.
    #[arg(long, value_name = "DIR", requires = "addr")]
    pub(crate) certs: Option<PathBuf>,
    /// The accepted transactions, as a GTID set.
    #[arg(long, value_name = "GTID_SET", conflicts_with = "addr")]
    pub(crate) accepted: Option<String>,
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
