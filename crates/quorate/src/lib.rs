//! The command line: runs a node, a demo cluster on this machine, and asks running nodes.
//!
//! # Invariants
//! - The demo deletes a folder only if its own marker file is in it, and ends only processes that it
//!   started.
//! - Files that hold a key or a password are created with mode 0600, never loosened or replaced.

mod admin;
mod args;
mod binlog;
mod certs;
mod check;
mod compact;
mod demo;
mod members;
mod mysqld;
mod node;
mod recover;
mod status;
mod switchover;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use args::{Args, BinlogCommand, Command, LogCommand};

/// The whole program: what `main` of every binary that is the product calls.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the command that `args` (the program's name first) ask for. Errors are printed.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are "errors" that belong on standard output; clap knows.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    match execute(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quorate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Node(args) => node::run(&args),
        Command::Binlog(BinlogCommand::Inspect(args)) => block_on(binlog::inspect(args)),
        Command::Binlog(BinlogCommand::Export(args)) => block_on(binlog::export(args)),
        Command::Check(args) => block_on(check::run(&args)),
        Command::Verify(args) => block_on(verify::run(&args)),
        Command::Certs(args) => certs::run(&args),
        Command::Log(LogCommand::Compact(args)) => compact::run(&args),
        Command::ExecServer { words } => {
            Err(quorate_mysqld::exec_server(words)).context("become the server")
        }
        Command::Mysqld(args) => mysqld::run(&args),
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Status(args) => block_on(status::run(args)),
        Command::Switchover(args) => block_on(switchover::run(&args)),
        Command::Recover(args) => block_on(recover::run(&args)),
        Command::Members(command) => block_on(members::run(command)),
    }
}

/// For the commands that only wait; a node makes its own runtimes.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
