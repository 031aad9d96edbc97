use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Mutex;

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::host::Signal;

/// A server's process, held by a pidfd: whatever happens, it names this process and no later one.
#[derive(Debug)]
pub struct ServerProcess {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    /// If we started it, we are who reaps it.
    child: Mutex<Option<Child>>,
}

impl ServerProcess {
    pub(crate) fn of_child(child: Child) -> io::Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the child has no process id"))?;
        Self::open(pid, Some(child))
    }

    #[expect(
        deprecated,
        reason = "an OwnedFd stays the same file; the successor is unsafe"
    )]
    fn open(pid: Pid, child: Option<Child>) -> io::Result<Self> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self {
            pid,
            pidfd: AsyncFd::with_interest(pidfd, Interest::READABLE)?,
            child: Mutex::new(child),
        })
    }

    /// For people and pid files; nothing may be done to a process by its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// A process that ended already is no error.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let signal = match signal {
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        };
        match pidfd_send_signal(self.pidfd.get_ref(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns when the process is gone with all its threads, and reaped if it was our child.
    pub(crate) async fn exited(&self) {
        // An error here would mean that the runtime is shutting down.
        let _ = self.pidfd.readable().await;
        self.reap();
    }

    /// Whether it ended, without waiting.
    pub(crate) fn has_exited(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut poll_fd = [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)];
        let now = rustix::event::Timespec::default();
        let ended = poll(&mut poll_fd, Some(&now)).is_ok_and(|ready| ready > 0);
        if ended {
            self.reap();
        }
        ended
    }

    fn reap(&self) {
        let child = self
            .child
            .lock()
            .expect("no panic while the lock is held")
            .take();
        if let Some(mut child) = child {
            // It ended, so this returns at once.
            if let Ok(status) = child.wait() {
                tracing::info!(pid = self.pid(), %status, "mysqld ended");
            }
        }
    }
}

/// Finds the running server of `data_folder`. `hint` is a process id that a file names; it is
/// believed only if that process is the server.
pub(crate) fn find(
    hint: Option<i32>,
    executable: &Path,
    data_folder: &Path,
) -> io::Result<Option<ServerProcess>> {
    let executable = std::fs::canonicalize(executable)?;
    let all = std::fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for pid in hint.into_iter().chain(all).filter_map(Pid::from_raw) {
        if !is_server(pid, &executable, data_folder) {
            continue;
        }
        let process = match ServerProcess::open(pid, None) {
            Ok(process) => process,
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        // The number may have passed to another process before the pidfd was opened: look again,
        // and see that the process that the pidfd names lived through it.
        if is_server(pid, &executable, data_folder) && !process.has_exited() {
            return Ok(Some(process));
        }
    }
    Ok(None)
}

fn is_server(pid: Pid, executable: &Path, data_folder: &Path) -> bool {
    let folder = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let Ok(running) = std::fs::read_link(folder.join("exe")) else {
        return false;
    };
    // An upgrade replaces the file under a running server.
    let running = running.to_string_lossy();
    let running = running.strip_suffix(" (deleted)").unwrap_or(&running);
    if Path::new(running) != executable {
        return false;
    }
    let option = crate::seed::path_option("datadir", data_folder);
    std::fs::read(folder.join("cmdline")).is_ok_and(|line| {
        let mut arguments = line.split(|byte| *byte == 0);
        arguments.any(|argument| argument == option.as_encoded_bytes())
    })
}
