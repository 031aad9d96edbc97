//! The step between the sidecar and mysqld: a session of its own, and the data folder's lock.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::FdFlags;

/// The hidden subcommand that product binaries must pass on to [`exec_server`].
pub const EXEC_SERVER: &str = "exec-server";

/// What the sidecar runs: `LAUNCHER exec-server LOCK_FILE SIDECAR_PID PROGRAM ARGUMENT…`.
pub(crate) fn command(launcher: &Path, lock: &Path, argv: &[OsString]) -> Command {
    let mut command = Command::new(launcher);
    command
        .arg(EXEC_SERVER)
        .arg(lock)
        .arg(std::process::id().to_string())
        .args(argv)
        // A service manager's own variables would make mysqld speak to it.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("MYSQLD_PARENT_PID");
    command
}

/// Becomes the server that `args` (what follows the subcommand) name. Returns only if that fails.
///
/// The server runs in a session of its own, so that no signal to the sidecar's terminal or group
/// reaches it. It inherits the lock of its data folder, which is free again exactly when it is
/// gone; not even its last thread can write after that.
pub fn exec_server(args: impl IntoIterator<Item = OsString>) -> io::Error {
    exec(prepare(args))
}

/// Returns only if that fails.
pub(crate) fn exec(prepared: io::Result<Command>) -> io::Error {
    let left = prepared.and_then(|command| leave_session().map(|()| command));
    match left {
        Ok(mut command) => command.exec(),
        Err(error) => error,
    }
}

/// Tries for a while: who asks whether a server runs has the lock for a moment.
fn take(lock: &File) -> io::Result<()> {
    for _ in 0..100 {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(20)),
            result => return Ok(result?),
        }
    }
    Err(io::Error::other(
        "a server of this data folder runs already",
    ))
}

/// Takes the lock for this process and what it becomes, until that is gone.
pub(crate) fn hold_lock(path: &OsStr) -> io::Result<()> {
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    take(&lock)?;
    rustix::io::fcntl_setfd(&lock, FdFlags::empty())?;
    // Only `exec` closes it from here on, and it does not, as just asked.
    std::mem::forget(lock);
    Ok(())
}

/// Out of reach of what is sent to the terminal or the group of whoever started this.
fn leave_session() -> io::Result<()> {
    match rustix::process::setsid() {
        // It leads one already.
        Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn prepare(args: impl IntoIterator<Item = OsString>) -> io::Result<Command> {
    let mut args = args.into_iter();
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "usage: LOCK PID PROGRAM …");
    let lock = args.next().ok_or_else(missing)?;
    let parent = args.next().ok_or_else(missing)?;
    let program = args.next().ok_or_else(missing)?;

    hold_lock(&lock)?;
    // A sidecar that died before the lock was taken may have a successor that cuts the binlog now.
    let parent_now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if parent_now.as_deref() != parent.to_str() {
        return Err(io::Error::other("the sidecar that started this is gone"));
    }
    let mut command = Command::new(program);
    command.args(args);
    Ok(command)
}
