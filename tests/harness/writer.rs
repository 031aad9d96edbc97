use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::machine::eventually;
use crate::sql::{Sql, SqlError};

/// What clients were told, and when the first answer after a moment came.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    pub acknowledged: BTreeSet<u64>,
    /// Neither OK nor an error of the server: it may be there or not.
    pub unknown: BTreeSet<u64>,
    pub refused: BTreeSet<u64>,
    /// When each acknowledgement came, in order.
    pub acknowledged_at: Vec<Instant>,
    /// When the statement of each of them was sent.
    pub sent_at: Vec<Instant>,
    pub reconnects: u64,
}

impl Outcomes {
    /// The longest time between two acknowledgements.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let pairs = self.acknowledged_at.windows(2);
        pairs
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or_default()
    }

    /// How long after `moment` the first commit that began after it was acknowledged.
    #[must_use]
    pub fn first_after(&self, moment: Instant) -> Option<Duration> {
        let mut commits = self.sent_at.iter().zip(&self.acknowledged_at);
        let (_, acknowledged) = commits.find(|(sent, _)| **sent > moment)?;
        Some(*acknowledged - moment)
    }
}

/// More than a client writes in any story, so that a reader can ask for each one's new rows.
const IDS_PER_CLIENT: u64 = 1_000_000;
/// How far a reader looks back: a row whose client was left without an answer may come late.
const LOOK_BACK_IDS: u64 = 20;

/// Clients that insert rows with known ids, one after the other each, and reconnect when they must.
pub struct Writer {
    outcomes: Arc<Mutex<Outcomes>>,
    stop: tokio::sync::watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writer {
    pub const TABLE: &str =
        "CREATE TABLE IF NOT EXISTS app.written (id BIGINT UNSIGNED PRIMARY KEY, note VARCHAR(64))";

    /// `clients` writers; the n-th uses the n-th of `ports`, and the next ones while that does not
    /// take it: so a port that hangs holds up only its own clients. Each counts up from an id of
    /// its own, so no two are equal.
    #[must_use]
    pub fn start(ports: Vec<u16>, clients: u64) -> Self {
        let outcomes = Arc::new(Mutex::new(Outcomes::default()));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let tasks = (0..clients)
            .map(|client| {
                let (ports, outcomes, stopped) = (ports.clone(), outcomes.clone(), stopped.clone());
                tokio::spawn(async move {
                    let ids = client * IDS_PER_CLIENT..(client + 1) * IDS_PER_CLIENT;
                    write(ports, client as usize, ids, &outcomes, &stopped).await;
                })
            })
            .collect();
        Self {
            outcomes,
            stop,
            tasks,
        }
    }

    #[must_use]
    pub fn so_far(&self) -> Outcomes {
        self.outcomes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until more rows than this were acknowledged, of all that it wrote.
    ///
    /// # Panics
    /// If that takes longer than the bound.
    pub async fn wait_for_more_than(&self, rows: usize, bound: Duration) {
        let wrote = eventually(bound, async || self.so_far().acknowledged.len() > rows);
        assert!(wrote.await, "no more than {rows} rows are acknowledged");
    }

    /// Lets every client finish its statement.
    ///
    /// # Panics
    /// If a client panicked.
    pub async fn finish(self) -> Outcomes {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.expect("no client panics");
        }
        Arc::into_inner(self.outcomes)
            .expect("all clients ended")
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write(
    ports: Vec<u16>,
    home: usize,
    ids: impl Iterator<Item = u64>,
    outcomes: &Mutex<Outcomes>,
    stopped: &tokio::sync::watch::Receiver<bool>,
) {
    let note = |change: &dyn Fn(&mut Outcomes)| {
        change(&mut outcomes.lock().unwrap_or_else(PoisonError::into_inner))
    };
    let mut session = None;
    let mut at = home;
    for id in ids {
        let mut sql = loop {
            if *stopped.borrow() {
                return;
            }
            if let Some(sql) = session.take() {
                break sql;
            }
            match Sql::port(ports[at % ports.len()]).await {
                Ok(sql) => {
                    note(&|outcomes| outcomes.reconnects += 1);
                    break sql;
                }
                Err(_) => at += 1,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let insert = format!("INSERT INTO app.written VALUES ({id}, 'row {id}')");
        let sent = Instant::now();
        match sql.run_within(&insert, Duration::from_secs(20)).await {
            Ok(()) => {
                note(&|outcomes| {
                    outcomes.acknowledged.insert(id);
                    outcomes.sent_at.push(sent);
                    outcomes.acknowledged_at.push(Instant::now());
                });
                session = Some(sql);
            }
            Err(SqlError::Server { .. }) => {
                note(&|outcomes| {
                    outcomes.refused.insert(id);
                });
                at = home;
            }
            Err(SqlError::Unknown(_)) => {
                note(&|outcomes| {
                    outcomes.unknown.insert(id);
                });
                at = home;
            }
        }
    }
}

/// Where a reader looks.
#[derive(Clone, Debug)]
enum Place {
    Port(u16),
    Socket(PathBuf),
}

/// Polls servers and ports and keeps every row id that it ever saw.
pub struct Reader {
    seen: Arc<Mutex<BTreeSet<u64>>>,
    stop: tokio::sync::watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Reader {
    #[must_use]
    pub fn start(ports: &[u16], sockets: &[PathBuf]) -> Self {
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let places = ports
            .iter()
            .copied()
            .map(Place::Port)
            .chain(sockets.iter().cloned().map(Place::Socket));
        let tasks = places
            .map(|place| tokio::spawn(read(place, seen.clone(), stopped.clone())))
            .collect();
        Self { seen, stop, tasks }
    }

    /// # Panics
    /// If a poller panicked.
    pub async fn finish(self) -> BTreeSet<u64> {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.expect("no poller panics");
        }
        Arc::into_inner(self.seen)
            .expect("all pollers ended")
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(
    place: Place,
    seen: Arc<Mutex<BTreeSet<u64>>>,
    stopped: tokio::sync::watch::Receiver<bool>,
) {
    let mut session: Option<Sql> = None;
    // Each client's highest id: only rows that came since the last look are asked for.
    let mut highest: Vec<u64> = Vec::new();
    while !*stopped.borrow() {
        let mut sql = match session.take() {
            Some(sql) => sql,
            None => {
                let opened = match &place {
                    Place::Port(port) => Sql::port(*port).await,
                    Place::Socket(path) => Sql::socket(path).await,
                };
                let Ok(sql) = opened else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                sql
            }
        };
        let select = new_rows(&highest);
        let answer = tokio::time::timeout(Duration::from_secs(5), sql.rows(&select)).await;
        if let Ok(Ok(rows)) = answer {
            let ids: Vec<u64> = rows.iter().filter_map(|row| row[0].parse().ok()).collect();
            for id in &ids {
                let client = (id / IDS_PER_CLIENT) as usize;
                if highest.len() <= client {
                    highest.resize(client + 1, 0);
                }
                highest[client] = highest[client].max(*id);
            }
            seen.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(ids);
            session = Some(sql);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks for the new rows of every client that is known, and for all of the others'.
fn new_rows(highest: &[u64]) -> String {
    use std::fmt::Write as _;
    let unknown = highest.len() as u64 * IDS_PER_CLIENT;
    let mut select = format!("SELECT id FROM app.written WHERE id >= {unknown}");
    for (client, highest) in (0u64..).zip(highest) {
        let first = client * IDS_PER_CLIENT;
        let from = first.max(highest.saturating_sub(LOOK_BACK_IDS));
        let end = first + IDS_PER_CLIENT;
        write!(select, " OR id >= {from} AND id < {end}").expect("a string takes everything");
    }
    select
}
