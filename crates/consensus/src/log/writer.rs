//! The only writer of the log's disk: what arrives together is written and synced together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::storage::IOFlushed;
use quorate_storage::{LogDisk, Record, Write};
use quorate_types::LogIndex;
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::types::TypeConfig;

/// Requests that are synced together at most. A group's acknowledgements wait for its one sync, so
/// a bound keeps the first from waiting for the encoding of ever more.
const GROUP_MAX: usize = 1024;

/// Requests that may wait for the writer. The bytes behind them are bounded where they come in
/// (proposals by capture, entries of a leader by the transport), so this is never reached unless
/// that bound is broken.
const QUEUE_MAX: usize = 65_536;

/// How much of what nobody waits for may wait for something to go along with.
const LAZY_MAX: usize = 4096;
const LAZY_BYTES_MAX: u64 = 256 << 10;

/// Where writes happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exec {
    /// On a thread of their own, in production: a sync blocks.
    WriterThread,
    /// Where they are asked for, in tests.
    Inline,
    /// In a task of the runtime, in the simulation, whose order threads would break: a sync takes as
    /// long as the disk says.
    Task,
}

/// Why the log can no longer be written. The process must stop: durability is unknown.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    #[error("write the log")]
    Disk(#[source] Arc<quorate_storage::Error>),
    #[error("the log is closed")]
    Closed,
}

impl From<WriteError> for std::io::Error {
    fn from(error: WriteError) -> Self {
        Self::other(error)
    }
}

/// Whom to tell when a request is done.
pub(crate) enum Done {
    /// Nobody: it is written, and becomes durable, with whatever is synced next.
    Lazy,
    /// Nobody, but it is written at once: it makes room.
    Soon,
    /// The index of accepted transactions: its records up to this one can be read from the disk.
    Indexed(LogIndex),
    /// openraft, and whoever counts appends (see `Tail`).
    Append {
        flushed: IOFlushed<TypeConfig>,
        append: u64,
        at: Instant,
    },
    Synced(oneshot::Sender<Result<(), WriteError>>),
}

pub(crate) struct Request {
    pub(crate) writes: Vec<Write>,
    pub(crate) done: Done,
}

/// Called with the last record of the index of accepted transactions that can be read.
pub(crate) type OnIndexed = Box<dyn Fn(LogIndex) + Send>;

/// Whom to tell of progress that nobody waits for.
pub(crate) struct Hooks {
    /// Called with the number of an append that was synced.
    pub(crate) on_synced: Box<dyn Fn(u64) + Send>,
    pub(crate) on_indexed: OnIndexed,
}

/// The way to the writer.
#[derive(Clone)]
pub(crate) struct Writer {
    to: Target,
    failed: watch::Receiver<Option<WriteError>>,
}

#[derive(Clone)]
enum Target {
    Thread(Thread),
    Inline(Arc<Mutex<Option<Box<dyn Groups>>>>),
}

/// The queue of the writer's thread or task. What nobody waits for does not wake it: it goes along with
/// what comes next.
#[derive(Clone)]
struct Thread {
    queue: mpsc::Sender<Message>,
    lazy: Arc<Mutex<Lazy>>,
}

#[derive(Default)]
struct Lazy {
    requests: Vec<Request>,
    bytes: u64,
}

enum Message {
    Requests(Vec<Request>),
    Close,
}

trait Groups: Send {
    fn run(&mut self, group: Vec<Request>);
}

impl Writer {
    pub(crate) fn start<D: LogDisk>(
        disk: D,
        exec: Exec,
        hooks: Hooks,
        metrics: Metrics,
    ) -> std::io::Result<Self> {
        let (fail, failed) = watch::channel(None);
        let mut owner = Owner {
            disk,
            hooks,
            metrics,
            fail,
        };
        let to = match exec {
            Exec::Inline => Target::Inline(Arc::new(Mutex::new(Some(Box::new(owner))))),
            Exec::WriterThread => {
                let (thread, mut requests) = Thread::new();
                std::thread::Builder::new()
                    .name("log-writer".into())
                    .spawn(move || serve(&mut owner, &mut requests))?;
                Target::Thread(thread)
            }
            Exec::Task => {
                let (thread, requests) = Thread::new();
                tokio::spawn(serve_in_task(owner, requests));
                Target::Thread(thread)
            }
        };
        Ok(Self { to, failed })
    }

    /// Turns to something else than none when the log cannot be written any more.
    pub(crate) fn failed(&self) -> watch::Receiver<Option<WriteError>> {
        self.failed.clone()
    }

    /// Hands a request over; they take effect in the order of these calls.
    pub(crate) async fn send(&self, request: Request) -> Result<(), WriteError> {
        match &self.to {
            Target::Thread(thread) => thread.send(request).await.map_err(|_| self.why_closed()),
            Target::Inline(owner) => {
                let mut owner = owner.lock().unwrap_or_else(PoisonError::into_inner);
                match owner.as_mut() {
                    Some(owner) => owner.run(vec![request]),
                    None => return Err(WriteError::Closed),
                }
                Ok(())
            }
        }
    }

    /// Writes, and returns when it is durable.
    pub(crate) async fn write_synced(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        let (done, synced) = oneshot::channel();
        self.send(Request {
            writes,
            done: Done::Synced(done),
        })
        .await?;
        synced.await.unwrap_or_else(|_| Err(self.why_closed()))
    }

    /// Writes what may be lost in a crash.
    pub(crate) async fn write_lazily(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        self.send(Request {
            writes,
            done: Done::Lazy,
        })
        .await
    }

    /// Writes what makes room, soon.
    pub(crate) async fn write_soon(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        self.send(Request {
            writes,
            done: Done::Soon,
        })
        .await
    }

    /// Does what was asked before, then lets go of the disk; later requests fail.
    pub(crate) async fn close(&self) {
        match &self.to {
            Target::Thread(thread) => thread.close().await,
            Target::Inline(owner) => {
                owner.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
        }
    }

    fn why_closed(&self) -> WriteError {
        self.failed.borrow().clone().unwrap_or(WriteError::Closed)
    }
}

impl Thread {
    fn new() -> (Self, mpsc::Receiver<Message>) {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let lazy = Arc::default();
        (Self { queue, lazy }, requests)
    }

    async fn send(&self, request: Request) -> Result<(), SendError<()>> {
        let is_lazy = matches!(request.done, Done::Lazy | Done::Indexed(_));
        if is_lazy && self.keep(&request) {
            let mut lazy = self.lazy();
            lazy.bytes += request.bytes();
            lazy.requests.push(request);
            return Ok(());
        }
        self.send_now(Some(request)).await
    }

    /// Whether a lazy request may wait for another one.
    fn keep(&self, request: &Request) -> bool {
        let lazy = self.lazy();
        lazy.requests.len() < LAZY_MAX && lazy.bytes + request.bytes() < LAZY_BYTES_MAX
    }

    async fn send_now(&self, request: Option<Request>) -> Result<(), SendError<()>> {
        let room = self.queue.reserve().await?;
        // Both under the lock, or a later message could overtake what this one takes along.
        let mut lazy = self.lazy();
        let mut requests = std::mem::take(&mut *lazy).requests;
        requests.extend(request);
        room.send(Message::Requests(requests));
        Ok(())
    }

    async fn close(&self) {
        let sent = self.send_now(None).await;
        if sent.is_ok() && self.queue.send(Message::Close).await.is_ok() {
            self.queue.closed().await;
        }
    }

    fn lazy(&self) -> MutexGuard<'_, Lazy> {
        self.lazy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Request {
    fn bytes(&self) -> u64 {
        self.writes.iter().map(Write::bytes).sum()
    }
}

/// The writer thread's loop; it ends when nobody can ask any more, or by [`Writer::close`].
fn serve<D: LogDisk>(owner: &mut Owner<D>, requests: &mut mpsc::Receiver<Message>) {
    while let Some(Message::Requests(mut group)) = requests.blocking_recv() {
        let open = gather(&mut group, requests);
        owner.run(group);
        if !open {
            break;
        }
    }
}

/// The same in simulated time.
async fn serve_in_task<D: LogDisk>(mut owner: Owner<D>, mut requests: mpsc::Receiver<Message>) {
    while let Some(Message::Requests(mut group)) = requests.recv().await {
        let open = gather(&mut group, &mut requests);
        let written = owner.write(group);
        while !written.waiting.is_empty() {
            match owner.disk.sync_wait() {
                Duration::ZERO => break,
                wait => tokio::time::sleep(wait).await,
            }
        }
        owner.finish(written);
        if !open {
            break;
        }
    }
}

/// Adds to a group what waits already; whether more may come.
fn gather(group: &mut Vec<Request>, requests: &mut mpsc::Receiver<Message>) -> bool {
    while group.len() < GROUP_MAX {
        match requests.try_recv() {
            Ok(Message::Requests(mut more)) => group.append(&mut more),
            Ok(Message::Close) => return false,
            Err(_) => break,
        }
    }
    true
}

struct Owner<D> {
    disk: D,
    hooks: Hooks,
    metrics: Metrics,
    fail: watch::Sender<Option<WriteError>>,
}

/// A group that was written, and whom to tell once it is synced.
struct Written {
    start: Instant,
    result: Result<(), WriteError>,
    waiting: Vec<Done>,
    indexed: Option<LogIndex>,
}

impl<D: LogDisk> Owner<D> {
    /// A failed sync is final: whatever the disk would say now, the log has a hole.
    fn unless_failed(&self) -> Result<(), WriteError> {
        self.fail.borrow().clone().map_or(Ok(()), Err)
    }

    fn write(&mut self, group: Vec<Request>) -> Written {
        let start = Instant::now();
        let mut writes = Vec::new();
        let mut waiting = Vec::new();
        let mut indexed = None;
        for request in group {
            join(&mut writes, request.writes);
            match request.done {
                Done::Lazy | Done::Soon => {}
                Done::Indexed(index) => indexed = indexed.max(Some(index)),
                done => waiting.push(done),
            }
        }
        let mut result = self.unless_failed();
        if result.is_ok() {
            result = self.disk.write(writes).map_err(|error| self.failed(error));
        }
        Written {
            start,
            result,
            waiting,
            indexed,
        }
    }

    /// Syncs a group if somebody waits for that, and tells whoever waits.
    fn finish(&mut self, written: Written) {
        let Written {
            start,
            mut result,
            waiting,
            indexed,
        } = written;
        if result.is_ok() && !waiting.is_empty() {
            result = self.disk.sync().map_err(|error| self.failed(error));
        }
        if !waiting.is_empty() {
            self.metrics.on_group(waiting.len(), start.elapsed());
        }
        if let (Ok(()), Some(index)) = (&result, indexed) {
            (self.hooks.on_indexed)(index);
        }
        for done in waiting {
            match done {
                Done::Lazy | Done::Soon | Done::Indexed(_) => {}
                Done::Synced(waiter) => {
                    // A waiter that went away no longer wants to know.
                    let _ = waiter.send(result.clone());
                }
                Done::Append {
                    flushed,
                    append,
                    at,
                } => {
                    if result.is_ok() {
                        (self.hooks.on_synced)(append);
                        self.metrics.on_synced(elapsed(at));
                    }
                    flushed.io_completed(result.clone().map_err(std::io::Error::from));
                }
            }
        }
        self.tidy();
    }

    /// After the answers: what the disk still has to do keeps nobody waiting.
    fn tidy(&mut self) {
        if self.fail.borrow().is_none()
            && let Err(error) = self.disk.tidy()
        {
            self.failed(error);
        }
    }

    fn failed(&self, error: quorate_storage::Error) -> WriteError {
        let error = WriteError::Disk(Arc::new(error));
        tracing::error!(%error, cause = ?error, "the log cannot be written; the node must stop");
        self.fail.send_replace(Some(error.clone()));
        error
    }
}

impl<D: LogDisk> Groups for Owner<D> {
    fn run(&mut self, group: Vec<Request>) {
        let written = self.write(group);
        self.finish(written);
    }
}

fn elapsed(since: Instant) -> Duration {
    Instant::now().saturating_duration_since(since)
}

/// Appends `more` to `writes`, appends that follow each other becoming one.
fn join(writes: &mut Vec<Write>, more: Vec<Write>) {
    for write in more {
        match (writes.last_mut(), write) {
            (Some(Write::Append(records)), Write::Append(mut next)) if follows(records, &next) => {
                records.append(&mut next);
            }
            (Some(Write::PutAccepted(records)), Write::PutAccepted(mut next)) => {
                records.append(&mut next);
            }
            (_, write) => writes.push(write),
        }
    }
}

fn follows(records: &[Record], next: &[Record]) -> bool {
    match (records.last(), next.first()) {
        (Some(last), Some(first)) => last.index.next() == first.index,
        _ => false,
    }
}
