use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quorate_net::Tls;
use quorate_types::NodeId;
use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

/// One node: its folder, its ports, and its process while there is one.
#[derive(Debug)]
pub struct NodeProcess {
    pub id: NodeId,
    pub dir: PathBuf,
    pub ports: Ports,
    /// What its HTTP port wants to see, if anything.
    pub tls: Option<Tls>,
    /// Further environment of the sidecar, and of the server that it starts.
    pub environment: Vec<(String, String)>,
    program: PathBuf,
    child: Option<Child>,
}

/// How much of a sidecar's log a failure shows.
const LAST_LINES: usize = 8;
const LAST_CHARS: usize = 240;
/// How often, and how many times, it is looked whether a killed server is gone.
const GONE_LOOK: Duration = Duration::from_millis(20);
const GONE_LOOKS: usize = 500;

/// DESIGN 9's ports of one node.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub read_write: u16,
    pub read_only: u16,
    pub feed: u16,
    pub grpc: u16,
    pub http: u16,
    pub mysql: u16,
    pub gate: u16,
}

impl Ports {
    pub const COUNT: usize = 7;

    #[must_use]
    pub fn new(ports: &[u16]) -> Self {
        let [read_write, read_only, feed, grpc, http, mysql, gate] = *ports else {
            panic!("a node has {} ports", Self::COUNT)
        };
        Self {
            read_write,
            read_only,
            feed,
            grpc,
            http,
            mysql,
            gate,
        }
    }
}

impl NodeProcess {
    /// A line of the sidecar's `/proc/PID/status`, in KiB.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn memory_kib(&self, name: &str) -> u64 {
        let pid = self.pid().expect("the sidecar runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("read status");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
        value
            .and_then(|value| value.parse().ok())
            .expect("a number of KiB")
    }

    #[must_use]
    pub fn new(id: NodeId, dir: PathBuf, ports: Ports, program: PathBuf) -> Self {
        Self {
            id,
            dir,
            ports,
            tls: None,
            environment: Vec::new(),
            program,
            child: None,
        }
    }

    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("mysql.sock")
    }

    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("quorate.log")
    }

    /// Starts the sidecar.
    ///
    /// # Panics
    /// If it runs, or cannot be started.
    pub fn start(&mut self, bootstrap: bool) {
        assert!(self.child.is_none(), "node {} runs", self.id);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("open log");
        let mut command = Command::new(&self.program);
        command.arg("node").arg("--config").arg(self.config());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if bootstrap {
            command.arg("--bootstrap");
        }
        command.arg("--own-session");
        let output = |log: &File| Stdio::from(log.try_clone().expect("a second handle"));
        command
            .stdin(Stdio::null())
            .stdout(output(&log))
            .stderr(output(&log));
        self.child = Some(command.spawn().expect("start the program under test"));
    }

    /// The sidecar's process id, while it was started and not reaped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The server's process id, from its pid file.
    #[must_use]
    pub fn mysqld_pid(&self) -> Option<u32> {
        self.pid_in("mysqld.pid")
    }

    /// Of a server that runs a clone, or looks at its outcome.
    #[must_use]
    pub fn cloning_mysqld_pid(&self) -> Option<u32> {
        let files = ["mysql.scratch.pid", "mysql.cloned.pid"];
        files.into_iter().find_map(|file| self.pid_in(file))
    }

    fn pid_in(&self, file: &str) -> Option<u32> {
        let pid = std::fs::read_to_string(self.dir.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        // The file outlives the process: make sure that the id is still this server's.
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).into_owned();
        command.contains(self.dir.to_str()?).then_some(pid)
    }

    /// Sends a signal to the sidecar.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid().expect("the sidecar runs");
        signal_pid(pid, signal);
    }

    /// Sends a signal to the server.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal_mysqld(&self, signal: Signal) {
        signal_pid(self.mysqld_pid().expect("mysqld runs"), signal);
    }

    /// The same, unless none runs.
    pub fn try_signal_mysqld(&self, signal: Signal) {
        if let Some(pid) = self.mysqld_pid() {
            signal_pid(pid, signal);
        }
    }

    /// kill -9 of the sidecar, reaped before this returns.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// For whoever reads a failure: the sidecar's threads, or that it ended, and what it said last.
    #[must_use]
    pub fn last_words(&self) -> String {
        let mut text = match self.pid() {
            None => format!("node {} was not started\n", self.id),
            Some(pid) => format!("node {}: {}\n", self.id, threads(pid).join(", ")),
        };
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
            let cut: String = line.chars().take(LAST_CHARS).collect();
            text += &format!("  {cut}\n");
        }
        text
    }

    /// Waits for the sidecar to end by itself; whether it did so with success.
    pub async fn exited(&mut self, bound: Duration) -> Option<bool> {
        let deadline = tokio::time::Instant::now() + bound;
        loop {
            let status = self.child.as_mut()?.try_wait().expect("wait for a child");
            if let Some(status) = status {
                self.child = None;
                return Some(status.success());
            }
            if tokio::time::Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The value of a metric without labels, if the sidecar answers and has it.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.http_get("/metrics").await?;
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(found, _)| *found == name)
            .and_then(|(_, value)| value.trim().parse().ok())
    }

    /// What its HTTP port answers, if it does so in a second.
    pub async fn http_get(&self, path: &str) -> Option<String> {
        let tls = self.tls.as_ref().map(|tls| (tls, self.id));
        crate::cluster::http_get(self.ports.http, path, tls).await
    }

    /// Like [`Self::http_get`], with the certificates of somebody else, or none.
    pub async fn http_get_as(&self, tls: Option<&Tls>, path: &str) -> Option<String> {
        let tls = tls.map(|tls| (tls, self.id));
        crate::cluster::http_get(self.ports.http, path, tls).await
    }

    /// Whether the folder belongs to this node: guards whatever deletes below it.
    #[must_use]
    pub fn owns(&self, path: &Path) -> bool {
        path.starts_with(&self.dir)
    }
}

/// Name, state (Z: it ended) and system call of each of a process's threads.
fn threads(pid: u32) -> Vec<String> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return vec!["it is gone".to_owned()];
    };
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    tasks
        .flatten()
        .map(|task| {
            let stat = read(task.path().join("stat"));
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.get(..1));
            let call = read(task.path().join("syscall"));
            format!(
                "{} {} {}",
                read(task.path().join("comm")).trim(),
                state.unwrap_or("?"),
                call.split_once(' ')
                    .map_or(call.trim(), |(number, _)| number)
            )
        })
        .collect()
}

fn signal_pid(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process id");
    // It may be gone already, which is what a kill wants.
    let _ = kill_process(pid, signal);
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // A stopped process acts on SIGKILL too.
        self.kill();
        // They use its folder until they are gone.
        for _ in 0..GONE_LOOKS {
            let servers = [self.mysqld_pid(), self.cloning_mysqld_pid()];
            if servers == [None, None] {
                break;
            }
            for pid in servers.into_iter().flatten() {
                signal_pid(pid, Signal::KILL);
            }
            std::thread::sleep(GONE_LOOK);
        }
    }
}
