//! The demo's node processes: started here, watched, stopped in order.

use std::fs::OpenOptions;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use super::folder::Folder;

/// A node hands over and stops its server cleanly in this time, or is killed.
const STOP_WAIT: Duration = Duration::from_secs(20);

struct Process {
    id: u16,
    child: Child,
    ended: Option<ExitStatus>,
}

pub(super) struct Nodes {
    processes: Vec<Process>,
}

impl Nodes {
    /// Starts every node as a process of its own; with `bootstrap` the first founds the cluster.
    pub(super) fn start(folder: &Folder, ids: &[u16], bootstrap: bool) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program's own file")?;
        // On an error half way, dropping the value ends what was started.
        let mut nodes = Self {
            processes: Vec::new(),
        };
        for id in ids {
            let home = folder.node(*id);
            let log = home.join("quorate.log");
            let out = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&log)
                .with_context(|| format!("open {}", log.display()))?;
            let mut command = Command::new(&program);
            command
                .arg("node")
                .arg("--config")
                .arg(home.join("node.toml"));
            if bootstrap && *id == ids[0] {
                command.arg("--bootstrap");
            }
            // Ctrl-C then reaches the demo only, which stops them; and the processors are shared
            // between them as between machines.
            command.arg("--own-session");
            let child = command
                .stdin(Stdio::null())
                .stdout(out.try_clone()?)
                .stderr(out)
                .spawn()
                .with_context(|| format!("start node {id}"))?;
            nodes.processes.push(Process {
                id: *id,
                child,
                ended: None,
            });
        }
        Ok(nodes)
    }

    /// Nodes whose end is new since the last call.
    pub(super) fn newly_ended(&mut self) -> Vec<(u16, ExitStatus)> {
        let mut ended = Vec::new();
        for process in self
            .processes
            .iter_mut()
            .filter(|process| process.ended.is_none())
        {
            // An error would mean that somebody else reaped it; it is then gone from here too.
            if let Ok(Some(status)) = process.child.try_wait() {
                process.ended = Some(status);
                ended.push((process.id, status));
            }
        }
        ended
    }

    pub(super) fn first_exit(&mut self) -> Option<(u16, ExitStatus)> {
        self.newly_ended().into_iter().next()
    }

    /// Stops them one after the other, the last first: so that leadership moves towards node 1
    /// and not in a circle. What does not stop in time is killed.
    pub(super) async fn stop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            if process.ended.is_some() {
                continue;
            }
            signal(&process.child, Signal::TERM);
            let deadline = tokio::time::Instant::now() + STOP_WAIT;
            loop {
                if let Ok(Some(status)) = process.child.try_wait() {
                    println!("  node {} stopped ({status})", process.id);
                    process.ended = Some(status);
                    break;
                }
                if tokio::time::Instant::now() > deadline {
                    println!("  node {} did not stop in time: killing it", process.id);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for process in self
            .processes
            .iter_mut()
            .filter(|process| process.ended.is_none())
        {
            // Our own child, not reaped yet: the id cannot belong to another process.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(id) = id {
        // It may have ended a moment ago; it is reaped next.
        let _ = kill_process(id, signal);
    }
}
