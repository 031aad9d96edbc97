//! Servers that a service manager runs: the sidecar orders each start, and none happens without.
//!
//! # Invariants
//! - An order starts one server at most: it is removed under the data folder's lock.
//! - An order counts only while somebody waits for what it starts: its writer holds a lock on it, and
//!   the system gives that back whatever ends the writer.
//! - Who takes an order back and then finds the data folder free knows that nothing will start: who
//!   takes an order has the folder's lock before.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::process::Child;
use tokio::time::Instant;

use crate::binlog_files::unless_gone;
use crate::exec_server;
use crate::host::{Host, HostError, Signal};
use crate::local_host::{LocalHost, SERVER_LOCK, at};
use crate::process::ServerProcess;
use crate::settings::Settings;

/// From the command until there is a process; how long the server then starts is not in it.
const PROCESS_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// No path, number or option has this byte.
const END_OF_WORD: u8 = 0;

/// Who runs servers in the sidecar's place, by commands: each a program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceManager {
    /// Makes the manager run [`exec_ordered_server`] with the two paths of this host.
    pub start: Vec<String>,
    /// In place of SIGTERM, if any.
    pub stop: Option<Vec<String>>,
    /// Besides SIGKILL, if any: alone where this process may not send one.
    pub kill: Option<Vec<String>>,
    /// Where orders are written; in a folder of the sidecar.
    pub order_file: PathBuf,
}

/// Why a service manager did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum ServiceManagerError {
    #[error("run `{command}`")]
    Run { command: String, source: io::Error },
    #[error("`{command}` failed ({status}); its own output says why")]
    Failed { command: String, status: ExitStatus },
    #[error(
        "`{command}` started no server within {PROCESS_MAX:?}: what it starts must be \
         `quorate mysqld --config FILE`, with this node's file and as its user"
    )]
    Late { command: String },
    #[error("`{command}` still runs, and might end the next server: end it")]
    Endless { command: String },
    #[error(
        "the server that `{command}` started ended at once; the service manager's log says why"
    )]
    Ended { command: String },
}

impl ServiceManager {
    fn command_for(&self, signal: Signal) -> Option<&[String]> {
        match signal {
            Signal::Terminate => self.stop.as_deref(),
            Signal::Kill => self.kill.as_deref(),
        }
    }
}

/// A server that is to be started, until this is dropped.
struct Order {
    path: PathBuf,
    /// Locked: that is what makes the order count.
    _file: File,
}

impl Order {
    fn place(path: &Path, argv: &[OsString]) -> io::Result<Self> {
        let mut bytes = Vec::new();
        for word in argv {
            bytes.extend_from_slice(word.as_bytes());
            bytes.push(END_OF_WORD);
        }
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.write_all(&bytes)?;
        std::fs::rename(&new, path)?;
        Ok(Self {
            path: path.to_owned(),
            _file: file,
        })
    }

    fn is_taken(&self) -> bool {
        !self.path.exists()
    }

    /// The order that somebody waits for now.
    fn open(path: &Path) -> io::Result<File> {
        let none = || {
            io::Error::other(
                "no node asks for its server to run: a node with mysqld.start starts it itself, \
                 after it has looked at the data folder",
            )
        };
        let file = unless_gone(File::open(path))?.ok_or_else(none)?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(file),
            // Its writer is gone, and so is what it knew of the data folder.
            Ok(()) => Err(none()),
            Err(error) => Err(error.into()),
        }
    }

    /// The words of the order that counts now. Nobody else gets them.
    fn take(path: &Path) -> io::Result<Vec<OsString>> {
        let mut bytes = Vec::new();
        Self::open(path)?.read_to_end(&mut bytes)?;
        std::fs::remove_file(path)?;
        let words = bytes.split(|byte| *byte == END_OF_WORD);
        let mut words: Vec<OsString> = words.map(|word| OsString::from_vec(word.into())).collect();
        // Every word ends with the byte, so what is behind the last one is empty.
        words.pop();
        Ok(words)
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        if let Err(error) = unless_gone(std::fs::remove_file(&self.path)) {
            // It no longer counts all the same.
            tracing::warn!(path = %self.path.display(), %error, "an old order stays");
        }
    }
}

/// Becomes the server of `data_folder` that the sidecar ordered in `order_file`. Returns only if
/// that fails, at once if there is no order.
///
/// As with [`crate::exec_server`], the server inherits the lock of its data folder.
pub fn exec_ordered_server(order_file: &Path, data_folder: &Path) -> io::Error {
    let prepare = || {
        // A manager that tries again and again must not hold the lock that a repair looks at.
        Order::open(order_file)?;
        exec_server::hold_lock(data_folder.join(SERVER_LOCK).as_os_str())?;
        let words = Order::take(order_file)?;
        let (program, arguments) = words.split_first().ok_or_else(|| {
            io::Error::other(format!("the order in {} is empty", order_file.display()))
        })?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(data_folder);
        Ok(command)
    };
    exec_server::exec(prepare())
}

impl LocalHost {
    /// Orders a server, has the manager start one, and waits for the process.
    pub(crate) async fn order(
        &self,
        manager: &ServiceManager,
        settings: &Settings,
    ) -> Result<ServerProcess, HostError> {
        self.commands_ended().await?;
        let path = &manager.order_file;
        let order =
            Order::place(path, &self.argv(settings)).map_err(at("order a server in", path))?;
        let mut running = Running::run(&manager.start)?;
        let deadline = Instant::now() + PROCESS_MAX;
        loop {
            if let Some(process) = self.find()? {
                tracing::info!(pid = process.pid(), "the service manager started mysqld");
                return Ok(process);
            }
            // Whoever took the order holds the lock for as long as it lives.
            if order.is_taken() && self.data_folder_is_free()? {
                let command = running.command;
                return Err(ServiceManagerError::Ended { command }.into());
            }
            running.check()?;
            if Instant::now() >= deadline {
                let command = running.command;
                return Err(ServiceManagerError::Late { command }.into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Sends the signal by the manager's command where there is one.
    pub(crate) fn signal_by(
        &self,
        manager: &ServiceManager,
        process: &ServerProcess,
        signal: Signal,
    ) -> Result<(), HostError> {
        let to_process = || process.signal(signal);
        let Some(command) = manager.command_for(signal) else {
            return to_process().map_err(at("signal the server of", self.data_folder()));
        };
        let told = match Running::run(command) {
            Ok(running) => {
                self.remember(running);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "mysqld is ended without its command");
                false
            }
        };
        let signalled = match (signal, told) {
            (Signal::Terminate, true) => Ok(()),
            (Signal::Terminate, false) => to_process(),
            // What kills must not depend on a command that works.
            (Signal::Kill, told) => match to_process() {
                Err(error) if told && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                sent => sent,
            },
        };
        signalled.map_err(at("signal the server of", self.data_folder()))
    }

    fn remember(&self, command: Running) {
        let mut commands = self.commands.lock().expect("no panic while it is held");
        commands.push(command);
    }

    /// One that ends a server must not end the next one.
    async fn commands_ended(&self) -> Result<(), HostError> {
        let deadline = Instant::now() + PROCESS_MAX;
        loop {
            {
                let mut commands = self.commands.lock().expect("no panic while it is held");
                commands.retain_mut(Running::is_under_way);
                match commands.first() {
                    None => return Ok(()),
                    Some(command) if Instant::now() >= deadline => {
                        let command = command.command.clone();
                        return Err(ServiceManagerError::Endless { command }.into());
                    }
                    Some(_) => {}
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A manager's command under way. It may outlive this, and is reaped all the same.
#[derive(Debug)]
pub(crate) struct Running {
    command: String,
    child: Option<Child>,
}

impl Running {
    fn run(words: &[String]) -> Result<Self, ServiceManagerError> {
        let command = words.join(" ");
        let (program, arguments) = match words.split_first() {
            Some((program, arguments)) => (OsStr::new(program), arguments),
            None => (OsStr::new(""), words),
        };
        let child = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Ok(Self {
                command,
                child: Some(child),
            }),
            Err(source) => Err(ServiceManagerError::Run { command, source }),
        }
    }

    fn check(&mut self) -> Result<(), ServiceManagerError> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        let command = || self.command.clone();
        match child.try_wait() {
            Ok(None) => return Ok(()),
            Ok(Some(status)) if status.success() => {}
            Ok(Some(status)) => {
                let command = command();
                return Err(ServiceManagerError::Failed { command, status });
            }
            Err(source) => {
                let command = command();
                return Err(ServiceManagerError::Run { command, source });
            }
        }
        self.child = None;
        Ok(())
    }

    /// That it failed is said, and is no error: the server may have ended before.
    fn is_under_way(&mut self) -> bool {
        if let Err(error) = self.check() {
            tracing::warn!(%error, "a command to end mysqld");
            self.child = None;
        }
        self.child.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_host::LocalHostOptions;

    fn words() -> Vec<OsString> {
        // An option may be empty, and a path need not be UTF-8.
        vec![
            "mysqld".into(),
            OsString::new(),
            OsString::from_vec(vec![b'-', 0xff, b'\n']),
        ]
    }

    #[test]
    fn an_order_starts_one_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("order");
        assert!(Order::take(&path).is_err(), "there is none");
        let order = Order::place(&path, &words()).unwrap();
        assert!(!order.is_taken());
        assert_eq!(Order::take(&path).unwrap(), words());
        assert!(order.is_taken());
        assert!(Order::take(&path).is_err(), "it was taken");
    }

    #[test]
    fn an_order_that_was_taken_back_starts_nothing_and_a_new_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("order");
        drop(Order::place(&path, &words()).unwrap());
        assert!(Order::take(&path).is_err());
        let again = Order::place(&path, &words()).unwrap();
        assert_eq!(Order::take(&path).unwrap(), words());
        drop(again);
    }

    /// As after a power loss, or a kill: the file is there, and nobody holds it.
    #[test]
    fn an_order_whose_writer_is_gone_starts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("order");
        let order = Order::place(&path, &words()).unwrap();
        let left = folder.path().join("left");
        std::fs::copy(&path, &left).unwrap();
        drop(order);
        std::fs::rename(&left, &path).unwrap();
        let refused = Order::take(&path).unwrap_err().to_string();
        assert!(refused.contains("no node asks"), "{refused}");
        let order = Order::place(&path, &words()).unwrap();
        assert_eq!(Order::take(&path).unwrap(), words());
        drop(order);
    }

    #[tokio::test]
    async fn a_server_ends_also_if_its_manager_s_command_cannot_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let missing = vec!["/nowhere/systemctl".to_owned()];
        let manager = ServiceManager {
            start: missing.clone(),
            stop: Some(missing.clone()),
            kill: Some(missing),
            order_file: folder.path().join("order"),
        };
        let mut options = LocalHostOptions::unused(folder.path());
        options.manager = Some(manager);
        let host = LocalHost::new(options);
        for signal in [Signal::Terminate, Signal::Kill] {
            let child = Command::new("sleep").arg("60").spawn().unwrap();
            let process = ServerProcess::of_child(child).unwrap();
            host.signal(&process, signal).unwrap();
            host.exited(&process).await;
        }
    }

    /// One that would end a server late holds the next start up, and is not taken for it.
    #[tokio::test]
    async fn a_command_that_ends_a_server_is_over_before_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let done = folder.path().join("done");
        let slow = format!("sleep 0.2; touch {}", done.display());
        let host = LocalHost::new(LocalHostOptions::unused(folder.path()));
        host.remember(Running::run(&["sh".into(), "-c".into(), slow]).unwrap());
        host.commands_ended().await.unwrap();
        assert!(done.exists());
    }

    #[tokio::test]
    async fn a_command_that_is_missing_or_fails_is_named() {
        let missing = Running::run(&["/nowhere/systemctl".into(), "start".into()]);
        let text = missing.err().unwrap().to_string();
        assert!(text.contains("/nowhere/systemctl start"), "{text}");
        let mut failing = Running::run(&["false".into()]).unwrap();
        let failed = loop {
            if let Err(error) = failing.check() {
                break error.to_string();
            }
            tokio::time::sleep(LOOK).await;
        };
        assert!(failed.contains("`false` failed"), "{failed}");
    }
}
