//! A simulated mysqld: starts, recovers, commits, and ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use quorate_binlog::build::EventBuilder;
use quorate_mysql_wire::ServerError;
use quorate_mysqld::Settings;
use quorate_net::{BoxIo, Endpoint};
use quorate_types::{Gtid, GtidSet, Uuid};
use tokio::sync::{Mutex as AsyncMutex, Notify, RwLock, oneshot, watch};
use tokio::task::AbortHandle;

use super::engine::Change;
use super::machine::{Folder, Machine, Visible};
use super::replica::Replica;
use crate::network::{CLONE_SOCKET, CLONE_SOCKET_PORT, SERVER_PORT, SOCKET_PORT};

/// What starting takes: reading files, recovering the engine.
const START: Duration = Duration::from_millis(40);
/// How long a server that is asked to stop waits for commits before it lets them go without an ACK.
const STOP_PATIENCE: Duration = Duration::from_secs(9);
const STOP: Duration = Duration::from_millis(20);

/// A place in the binlog: files in the order of their names.
pub(crate) type Place = (String, u64);

/// A commit that waits for its ACK.
struct Waiting {
    xid: u64,
    end: Place,
    done: oneshot::Sender<()>,
}

/// A commit that is prepared and waits for its turn to be logged.
struct Prepared {
    xid: u64,
    changes: Vec<Change>,
    done: oneshot::Sender<()>,
}

/// Another session of the server.
pub(crate) struct SessionEntry {
    pub(crate) user: String,
    pub(crate) killed: watch::Sender<bool>,
}

/// What a process forgets when it ends.
#[derive(Default)]
pub(crate) struct Volatile {
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) sessions: BTreeMap<u64, SessionEntry>,
    pub(crate) next_session: u64,
    /// Semi-sync replicas that are attached.
    pub(crate) semi_sync_clients: u64,
    pub(crate) replica: Replica,
    pub(crate) cloning: bool,
    /// The next group, in the order in which it will be logged.
    queue: Vec<Prepared>,
    /// In the order of the binlog.
    waiting: VecDeque<Waiting>,
    /// The highest position that was ACKed. The server believes any.
    acked: Place,
    /// Of the next transaction that this server begins.
    next_sequence: u64,
    /// Sessions between their first write and the end of their commit.
    pub(crate) open_transactions: BTreeSet<u64>,
}

/// A process, running or not.
pub struct Process {
    pub(crate) id: u64,
    pub(crate) machine: Machine,
    pub(crate) folder: PathBuf,
    pub(crate) settings: Settings,
    /// False once it ended.
    pub(crate) alive: watch::Sender<bool>,
    /// False while it is stopped by a signal.
    running: watch::Sender<bool>,
    stop_asked: Notify,
    tasks: Mutex<Vec<AbortHandle>>,
    volatile: Mutex<Volatile>,
    /// Held shared by whoever commits: the global read lock.
    pub(crate) commits: RwLock<()>,
    /// Held by whoever writes the binlog.
    pub(crate) log_stage: Arc<AsyncMutex<()>>,
    /// Changes with each transaction that dumps may send.
    pub(crate) logged: watch::Sender<u64>,
    /// Changes with each transaction that becomes visible.
    pub(crate) executed: watch::Sender<u64>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mysqld {} of node {}", self.id, self.machine.node)
    }
}

impl Process {
    pub(crate) fn new(machine: Machine, folder: PathBuf, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            id: machine.next_process(),
            machine,
            folder,
            settings,
            alive: watch::Sender::new(true),
            running: watch::Sender::new(true),
            stop_asked: Notify::new(),
            tasks: Mutex::default(),
            volatile: Mutex::default(),
            commits: RwLock::default(),
            log_stage: Arc::default(),
            logged: watch::Sender::default(),
            executed: watch::Sender::default(),
        })
    }

    pub(crate) fn volatile<T>(&self, use_it: impl FnOnce(&mut Volatile) -> T) -> T {
        use_it(&mut self.volatile.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The folder that it runs on.
    pub(crate) fn with_folder<T>(&self, use_it: impl FnOnce(&mut Folder) -> T) -> Option<T> {
        self.machine
            .with(|state| Some(use_it(state.folders.get_mut(&self.folder)?)))
    }

    /// A part of the process: it ends with it.
    pub(crate) fn spawn(&self, part: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        let handle = tokio::spawn(part).abort_handle();
        tasks.push(handle.clone());
        handle
    }

    /// To be called on the machine's own simulated host.
    pub(crate) fn begin(self: &Arc<Self>) {
        if *self.alive.borrow() {
            let (process, stopping) = (self.clone(), self.clone());
            self.spawn(async move { process.main().await });
            self.spawn(stopping.stop_in_good_order());
        }
    }

    /// Ends at once: nothing of it runs after this.
    pub(crate) fn kill(&self) {
        if !self.alive.send_replace(false) {
            return;
        }
        for task in std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner))
        {
            task.abort();
        }
        self.with_folder(|folder| {
            folder.process.take_if(|process| process.id == self.id);
        });
    }

    /// SIGTERM.
    pub(crate) fn ask_to_stop(&self) {
        self.stop_asked.notify_one();
    }

    /// As SIGTERM does: commits that wait are let go after a while, and their clients told OK.
    async fn stop_in_good_order(self: Arc<Self>) {
        self.stop_asked.notified().await;
        if self.volatile(|state| !state.waiting.is_empty()) {
            tokio::time::sleep(STOP_PATIENCE).await;
            self.release(None);
        }
        tokio::time::sleep(STOP).await;
        self.with_folder(|folder| {
            if folder.engine.prepared_xids().is_empty() {
                folder.binlogs.close();
            }
            folder.engine.sync_all();
        });
        self.kill();
    }

    /// As SIGSTOP and SIGCONT.
    pub(crate) fn pause(&self, paused: bool) {
        self.running.send_replace(!paused);
    }

    /// Returns when the process is not stopped.
    pub(crate) async fn unpaused(&self) {
        // The sender is this process's own.
        let _ = self.running.subscribe().wait_for(|running| *running).await;
    }

    async fn main(self: Arc<Self>) {
        tokio::time::sleep(START).await;
        self.unpaused().await;
        self.recover();
        let is_private = self.settings.socket.ends_with(CLONE_SOCKET);
        let ports: &[u16] = match is_private {
            true => &[CLONE_SOCKET_PORT],
            false => &[SOCKET_PORT, SERVER_PORT],
        };
        for port in ports {
            let process = self.clone();
            let port = *port;
            self.spawn(async move { process.accept(port).await });
        }
    }

    async fn accept(self: Arc<Self>, port: u16) {
        let net = self.machine.net();
        let at = Endpoint::Tcp(format!("127.0.0.1:{port}"));
        let mut listener = loop {
            match quorate_net::Net::listen(&net, &at).await {
                Ok(listener) => break listener,
                // The process before this one is just being cleared away.
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        let is_socket = port != SERVER_PORT;
        while let Some(io) = listener.incoming.next().await {
            if let Ok(io) = io {
                self.serve(io, is_socket);
            }
        }
    }

    fn serve(self: &Arc<Self>, io: BoxIo, is_socket: bool) {
        let process = self.clone();
        self.spawn(async move { super::session::serve(process, io, is_socket).await });
    }

    /// What is prepared and in the binlog becomes visible, the rest goes.
    fn recover(&self) {
        let server_id = self.settings.server_id;
        let (recovered, sequence) = self
            .with_folder(|folder| {
                let (logged, in_use) = folder.binlogs.recover();
                let mut recovered = Vec::new();
                if in_use {
                    // Nobody sees the steps; here they are taken in the binlog's order.
                    for (xid, gtid) in logged {
                        folder.engine.was_logged(xid, gtid);
                        recovered.extend(folder.engine.commit(xid));
                    }
                    for xid in folder.engine.prepared_xids() {
                        folder.engine.roll_back(xid);
                    }
                }
                folder.engine.sync_all();
                folder.binlogs.begin_file(server_id);
                let mut all = folder.engine.executed.clone();
                all.union(&folder.binlogs.gtids());
                let own = all.iter().filter(|(source, _)| source.uuid == folder.uuid);
                (recovered, own.map(|(_, interval)| interval.end).max())
            })
            .unwrap_or_default();
        self.note_visible(&recovered);
        let argv = self
            .settings
            .argv(quorate_mysqld::Version::new(9, 7, 4), &self.folder);
        self.volatile(|state| {
            state.next_sequence = sequence.unwrap_or(1);
            for option in argv {
                let option = option.to_string_lossy().into_owned();
                if let Some((name, value)) = option.trim_start_matches('-').split_once('=') {
                    state
                        .variables
                        .insert(name.replace('-', "_"), value.to_owned());
                }
            }
            for (name, value) in [
                ("log_bin", "ON"),
                ("binlog_format", "ROW"),
                ("binlog_encryption", "OFF"),
                ("innodb_force_recovery", "0"),
                ("read_only", "ON"),
            ] {
                state.variables.insert(name.to_owned(), value.to_owned());
            }
        });
    }

    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.volatile(|state| state.variables.get(name).cloned())
    }

    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.variable(name).is_some_and(|value| value == "ON")
    }

    pub(crate) fn executed_set(&self) -> GtidSet {
        self.with_folder(|folder| folder.engine.executed.clone())
            .unwrap_or_default()
    }

    /// Commits what a session wrote: prepare, binlog, wait for the ACK, engine.
    pub(crate) async fn commit(
        &self,
        session: u64,
        changes: Vec<Change>,
    ) -> Result<(), ServerError> {
        let _shared = self.commits.read().await;
        if self.is_on("read_only") {
            let text = "The MySQL server is running with the --super-read-only option so it cannot \
                        execute this statement";
            return Err(ServerError::new(1290, "HY000", text));
        }
        if let Some(key) = self.duplicate(&changes) {
            let text = format!("Duplicate entry '{key}' for key 't.PRIMARY'");
            return Err(ServerError::new(1062, "23000", text));
        }
        self.volatile(|state| state.open_transactions.insert(session));
        let done = self.log(changes).await;
        // None comes if the process ends, and then this does not run either.
        let _ = done.await;
        self.volatile(|state| state.open_transactions.remove(&session));
        self.unpaused().await;
        Ok(())
    }

    pub(crate) fn duplicate(&self, changes: &[Change]) -> Option<u64> {
        self.with_folder(|folder| {
            changes.iter().find_map(|change| match change {
                Change::Insert { key, .. } => {
                    folder.engine.inserted.contains_key(key).then_some(*key)
                }
                Change::Set { .. } => None,
            })
        })?
    }

    /// Up to the binlog's sync; what is returned comes when the transaction is visible.
    async fn log(&self, changes: Vec<Change>) -> oneshot::Receiver<()> {
        let xid = self.with_folder(|folder| folder.engine.prepare(&changes));
        let xid = xid.unwrap_or_default();
        self.machine.sync_disk().await;
        let (done, waiter) = oneshot::channel();
        self.volatile(|state| state.queue.push(Prepared { xid, changes, done }));
        let _stage = self.log_stage.lock().await;
        self.unpaused().await;
        // Whoever comes first logs for all; nothing is left for those behind it.
        let group = self.volatile(|state| std::mem::take(&mut state.queue));
        if !group.is_empty() {
            self.log_group(group).await;
        }
        waiter
    }

    async fn log_group(&self, group: Vec<Prepared>) {
        let events = EventBuilder::new(self.settings.server_id);
        let uuid = self.with_folder(|folder| folder.uuid).unwrap_or_default();
        let mut logged = VecDeque::new();
        for Prepared { xid, changes, done } in group {
            let gtid = self.next_gtid(uuid);
            let end = self.append_to_binlog(&events, gtid, xid, &changes);
            logged.push_back(Waiting { xid, end, done });
        }
        self.sync_binlog().await;
        self.volatile(|state| state.waiting.append(&mut logged));
        self.logged.send_modify(|count| *count += 1);
        match self.is_on("rpl_semi_sync_source_enabled") {
            true => self.release_acked(),
            false => self.release(None),
        }
    }

    /// The first one that was not executed: a server that was cloned gets transactions of its own
    /// uuid from its source.
    fn next_gtid(&self, uuid: Uuid) -> Gtid {
        let mut gtid = Gtid {
            source: uuid.into(),
            sequence: self.volatile(|state| state.next_sequence),
        };
        self.with_folder(|folder| {
            while folder.engine.executed.contains(gtid) {
                gtid.sequence += 1;
            }
        });
        self.volatile(|state| state.next_sequence = gtid.sequence + 1);
        gtid
    }

    /// To be called in the log stage, of a transaction that is prepared; where it ends.
    pub(crate) fn append_to_binlog(
        &self,
        events: &EventBuilder,
        gtid: Gtid,
        xid: u64,
        changes: &[Change],
    ) -> Place {
        let end = self.with_folder(|folder| {
            folder.engine.was_logged(xid, gtid);
            folder.binlogs.append(events, gtid, xid, changes)
        });
        end.unwrap_or_default()
    }

    /// To be called in the log stage, of what was appended in it.
    pub(crate) async fn sync_binlog(&self) {
        let commits = self.with_folder(|folder| folder.engine.commits());
        self.machine.sync_disk().await;
        self.unpaused().await;
        self.with_folder(|folder| {
            folder.binlogs.sync();
            // With the redo log that the prepares before it wait for.
            folder.engine.synced(commits.unwrap_or_default());
        });
    }

    /// An ACK of a semi-sync replica.
    pub(crate) fn acked(&self, place: Place) {
        self.volatile(|state| state.acked = place.max(state.acked.clone()));
        self.release_acked();
    }

    fn release_acked(&self) {
        let acked = self.volatile(|state| state.acked.clone());
        self.release(Some(acked));
    }

    /// Lets commits become visible, up to a place or all.
    pub(crate) fn release(&self, up_to: Option<Place>) {
        let mut visible = Vec::new();
        let released = self.volatile(|state| {
            let mut released = Vec::new();
            while let Some(first) = state.waiting.front() {
                if up_to.as_ref().is_some_and(|up_to| first.end > *up_to) {
                    break;
                }
                released.extend(state.waiting.pop_front());
            }
            released
        });
        for waiting in released {
            let gtid = self.with_folder(|folder| folder.engine.commit(waiting.xid));
            visible.extend(gtid.flatten());
            let _ = waiting.done.send(());
        }
        self.note_visible(&visible);
    }

    /// Whether the transaction that ends here waits for an ACK.
    pub(crate) fn is_waiting(&self, place: &Place) -> bool {
        self.is_on("rpl_semi_sync_source_enabled")
            && self.volatile(|state| state.waiting.iter().any(|waiting| waiting.end == *place))
    }

    pub(crate) fn note_visible(&self, gtids: &[Gtid]) {
        if gtids.is_empty() {
            return;
        }
        let node = self.machine.node;
        // A recovery shows what it recovered when the server answers, which is now.
        let at = turmoil::sim_elapsed().unwrap_or_default();
        self.machine.with(|state| {
            let visible = gtids.iter().map(|gtid| Visible {
                at,
                node,
                gtid: *gtid,
            });
            state.visible.extend(visible);
        });
        self.executed.send_modify(|count| *count += 1);
    }
}
