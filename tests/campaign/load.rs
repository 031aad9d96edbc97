//! Clients that write and read while everything breaks, and note what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_tests::{Outcomes, Sql, SqlError};
use quorate_types::SplitMix64;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::checks::Presence;
use crate::registers::{Done, Operation};

const CLIENTS: u64 = 8;
pub(crate) const ACCOUNTS: u64 = 20;
const ACCOUNT_BEGINS_WITH: i64 = 1000;
pub(crate) const TOTAL: i64 = ACCOUNTS as i64 * ACCOUNT_BEGINS_WITH;
const REGISTERS: u64 = 4;
/// Longer than any fault lasts, so that few answers are given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many of the newest rows a reader looks at.
const LOOK_BACK_ROWS: u64 = 30;

/// Everything that clients were told since the campaign began.
#[derive(Default)]
pub(crate) struct Notes {
    next_id: u64,
    pub(crate) rows: Outcomes,
    /// Ids that a reader saw through an application port.
    pub(crate) seen: BTreeSet<u64>,
    /// Those that one saw on a server's own socket in this round.
    pub(crate) seen_on_sockets: BTreeSet<u64>,
    pub(crate) registers: Vec<Operation>,
    pub(crate) tables: BTreeMap<String, Presence>,
    /// What a reader saw that never may be.
    pub(crate) wrong: Vec<String>,
    pub(crate) large: u64,
}

#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Notes>>);

impl Shared {
    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_id(&self) -> u64 {
        let mut notes = self.notes();
        notes.next_id += 1;
        notes.next_id
    }

    fn end_row(&self, id: u64, sent: Instant, fate: Fate) {
        let rows = &mut self.notes().rows;
        match fate {
            Fate::Acknowledged => {
                rows.acknowledged.insert(id);
                rows.sent_at.push(sent);
                rows.acknowledged_at.push(Instant::now());
            }
            Fate::Refused => drop(rows.refused.insert(id)),
            Fate::Unknown => drop(rows.unknown.insert(id)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    /// For certain: the server said so, or COMMIT was never sent.
    Refused,
    Unknown,
}

impl From<Result<(), SqlError>> for Fate {
    fn from(result: Result<(), SqlError>) -> Self {
        match result {
            Ok(()) => Self::Acknowledged,
            Err(SqlError::Server { .. }) => Self::Refused,
            Err(SqlError::Unknown(_)) => Self::Unknown,
        }
    }
}

/// Makes the tables, anew if somebody began to.
pub(crate) async fn prepare(sql: &mut Sql) -> Result<(), SqlError> {
    let rows =
        |count: u64, row: &dyn Fn(u64) -> String| (0..count).map(row).collect::<Vec<_>>().join(",");
    let accounts = rows(ACCOUNTS, &|id| format!("({id},{ACCOUNT_BEGINS_WITH})"));
    let registers = rows(REGISTERS, &|id| format!("({id},0,0)"));
    for statement in [
        "DROP TABLE IF EXISTS inserted, accounts, registers, large",
        // No unique key: a row that came twice would be there twice.
        "CREATE TABLE inserted (seq BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, id BIGINT UNSIGNED NOT NULL, KEY (id))",
        "CREATE TABLE accounts (id BIGINT UNSIGNED PRIMARY KEY, balance BIGINT NOT NULL)",
        "CREATE TABLE registers (id BIGINT UNSIGNED PRIMARY KEY, version BIGINT UNSIGNED, value BIGINT UNSIGNED)",
        "CREATE TABLE large (seq BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, id BIGINT UNSIGNED NOT NULL, \
         parts INT NOT NULL, body MEDIUMTEXT)",
        &format!("INSERT INTO accounts VALUES {accounts}"),
        &format!("INSERT INTO registers VALUES {registers}"),
    ] {
        sql.run_within(statement, PATIENCE).await?;
    }
    Ok(())
}

/// Running clients and readers.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(
        shared: &Shared,
        read_write: &[u16],
        read_only: &[u16],
        sockets: &[PathBuf],
        seed: u64,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut seeds = SplitMix64::new(seed);
        let mut session = |home: u64| Session {
            ports: read_write.to_vec(),
            at: home as usize,
            open: None,
            random: SplitMix64::new(seeds.next_u64()),
            stopped: stopped.clone(),
            shared: shared.clone(),
        };
        let mut tasks: Vec<_> = (0..CLIENTS)
            .map(|home| tokio::spawn(session(home).mix()))
            .collect();
        tasks.push(tokio::spawn(session(0).change_tables()));
        tasks.push(tokio::spawn(session(1).write_large()));
        let ports = read_write
            .iter()
            .chain(read_only)
            .map(|port| Place::Port(*port));
        let places = ports.chain(sockets.iter().cloned().map(Place::Socket));
        tasks.extend(
            places.map(|place| tokio::spawn(watch(place, shared.clone(), stopped.clone()))),
        );
        Self { stop, tasks }
    }

    /// Lets every client finish its statement.
    pub(crate) async fn finish(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.expect("no client panics");
        }
    }
}

struct Session {
    ports: Vec<u16>,
    at: usize,
    open: Option<Sql>,
    random: SplitMix64,
    stopped: watch::Receiver<bool>,
    shared: Shared,
}

impl Session {
    /// The open session, or a new one; none when the load ends.
    async fn take(&mut self) -> Option<Sql> {
        loop {
            if *self.stopped.borrow() {
                return None;
            }
            if let Some(sql) = self.open.take() {
                return Some(sql);
            }
            match Sql::port(self.ports[self.at % self.ports.len()]).await {
                Ok(sql) => return Some(sql),
                Err(_) => self.at += 1,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn pause(&mut self, max_ms: u64) {
        let pause = Duration::from_millis(self.random.below(max_ms));
        let _ = tokio::time::timeout(pause, self.stopped.wait_for(|stopped| *stopped)).await;
    }

    async fn mix(mut self) {
        while let Some(mut sql) = self.take().await {
            let went_well = match self.random.below(10) {
                0..5 => self.insert(&mut sql).await,
                5..7 => self.transfer(&mut sql).await,
                7 => self.set(&mut sql).await,
                _ => self.read(&mut sql).await,
            };
            // After any error a new session: what the old one left open is rolled back with it.
            self.open = went_well.then_some(sql);
            self.pause(20).await;
        }
    }

    async fn insert(&mut self, sql: &mut Sql) -> bool {
        let id = self.shared.next_id();
        let sent = Instant::now();
        let insert = format!("INSERT INTO inserted (id) VALUES ({id})");
        let fate = sql.run_within(&insert, PATIENCE).await.into();
        self.shared.end_row(id, sent, fate);
        fate == Fate::Acknowledged
    }

    /// Some statements and a row that tells of them, in one transaction.
    async fn transaction(&mut self, sql: &mut Sql, id: u64, statements: &[String]) -> bool {
        let insert = format!("INSERT INTO inserted (id) VALUES ({id})");
        let begin = "BEGIN".to_owned();
        let all = std::iter::once(&begin).chain(statements).chain([&insert]);
        for statement in all {
            if sql.run_within(statement, PATIENCE).await.is_err() {
                // COMMIT was never sent.
                self.shared.end_row(id, Instant::now(), Fate::Refused);
                return false;
            }
        }
        let sent = Instant::now();
        let fate = sql.run_within("COMMIT", PATIENCE).await.into();
        self.shared.end_row(id, sent, fate);
        fate == Fate::Acknowledged
    }

    async fn transfer(&mut self, sql: &mut Sql) -> bool {
        let id = self.shared.next_id();
        let (from, step) = (
            self.random.below(ACCOUNTS),
            1 + self.random.below(ACCOUNTS - 1),
        );
        let to = (from + step) % ACCOUNTS;
        let amount = self.random.below(50);
        let change = |account, sign| {
            format!("UPDATE accounts SET balance = balance {sign} {amount} WHERE id = {account}")
        };
        let mut statements = [(from, change(from, '-')), (to, change(to, '+'))];
        // In one order, so that few deadlock.
        statements.sort();
        self.transaction(sql, id, &statements.map(|(_, statement)| statement))
            .await
    }

    async fn set(&mut self, sql: &mut Sql) -> bool {
        let (register, value) = (self.random.below(REGISTERS), self.shared.next_id());
        let begun = Instant::now();
        let set = format!(
            "UPDATE registers SET version = LAST_INSERT_ID(version + 1), value = {value} WHERE id = {register}"
        );
        let result = match tokio::time::timeout(PATIENCE, sql.run_for_id(&set)).await {
            Ok(result) => result,
            Err(_) => Err(SqlError::Unknown("no answer".to_owned())),
        };
        let done = match &result {
            Err(SqlError::Server { .. }) => Done::Refused,
            Ok(version) => Done::Set {
                value,
                version: Some(*version),
            },
            Err(SqlError::Unknown(_)) => Done::Set {
                value,
                version: None,
            },
        };
        let is_known = !matches!(result, Err(SqlError::Unknown(_)));
        let operation = Operation {
            register,
            begun,
            ended: is_known.then(Instant::now),
            done,
        };
        self.shared.notes().registers.push(operation);
        result.is_ok()
    }

    async fn read(&mut self, sql: &mut Sql) -> bool {
        let register = self.random.below(REGISTERS);
        let begun = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, read_register(sql, register)).await;
        let Ok(Ok(done)) = answer else { return false };
        let operation = Operation {
            register,
            begun,
            ended: Some(Instant::now()),
            done,
        };
        self.shared.notes().registers.push(operation);
        true
    }

    async fn change_tables(mut self) {
        while let Some(mut sql) = self.take().await {
            let id = self.shared.next_id();
            let table = format!("ddl_{id}");
            let went_well = self.table_life(&mut sql, &table, id).await;
            self.open = went_well.then_some(sql);
            self.pause(1000).await;
        }
    }

    async fn table_life(&mut self, sql: &mut Sql, table: &str, id: u64) -> bool {
        let create = format!("CREATE TABLE {table} (id INT PRIMARY KEY, body VARCHAR(20))");
        let column = format!("{table}.extra");
        let alter = format!("ALTER TABLE {table} ADD COLUMN extra INT DEFAULT 7");
        for (name, statement) in [(table, create), (&column, alter)] {
            let fate = Fate::from(sql.run_within(&statement, PATIENCE).await);
            self.note_table(name, fate, Presence::There, Presence::Gone);
            if fate != Fate::Acknowledged {
                return false;
            }
        }
        if id.is_multiple_of(8) {
            return true;
        }
        self.pause(200).await;
        let drop = format!("DROP TABLE {table}");
        let fate = Fate::from(sql.run_within(&drop, PATIENCE).await);
        self.note_table(&column, fate, Presence::Gone, Presence::There);
        self.note_table(table, fate, Presence::Gone, Presence::There);
        fate == Fate::Acknowledged
    }

    fn note_table(&self, name: &str, fate: Fate, done: Presence, refused: Presence) {
        let presence = match fate {
            Fate::Acknowledged => done,
            Fate::Refused => refused,
            Fate::Unknown => Presence::Either,
        };
        self.shared.notes().tables.insert(name.to_owned(), presence);
    }

    async fn write_large(mut self) {
        while let Some(mut sql) = self.take().await {
            let id = self.shared.next_id();
            let parts = 4 + self.random.below(40);
            // 144 KB each.
            let part = format!(
                "INSERT INTO large (id, parts, body) VALUES ({id}, {parts}, REPEAT(UUID(), 4000))"
            );
            let went_well = self
                .transaction(&mut sql, id, &vec![part; parts as usize])
                .await;
            if went_well {
                self.shared.notes().large += 1;
            }
            self.open = went_well.then_some(sql);
            self.pause(6000).await;
        }
    }
}

pub(crate) async fn read_register(sql: &mut Sql, register: u64) -> Result<Done, SqlError> {
    let select = format!("SELECT version, value FROM registers WHERE id = {register}");
    let rows = sql.rows(&select).await?;
    let number = |column: usize| rows.first().and_then(|row| row.get(column)?.parse().ok());
    match (number(0), number(1)) {
        (Some(version), Some(value)) => Ok(Done::Read { value, version }),
        _ => Err(SqlError::Unknown(format!(
            "register {register} reads {rows:?}"
        ))),
    }
}

/// Reads every register on a server, as operations that took no time.
pub(crate) async fn read_registers(sql: &mut Sql) -> Result<Vec<Operation>, SqlError> {
    let mut operations = Vec::new();
    for register in 0..REGISTERS {
        let done = read_register(sql, register).await?;
        let now = Instant::now();
        operations.push(Operation {
            register,
            begun: now,
            ended: Some(now),
            done,
        });
    }
    Ok(operations)
}

#[derive(Clone, Debug)]
enum Place {
    Port(u16),
    Socket(PathBuf),
}

/// Looks at the newest rows and at the sum of all accounts, wherever somebody answers.
async fn watch(place: Place, shared: Shared, stopped: watch::Receiver<bool>) {
    let mut open = None;
    while !*stopped.borrow() {
        let sql = match (open.take(), &place) {
            (Some(sql), _) => Ok(sql),
            (None, Place::Port(port)) => Sql::port(*port).await,
            (None, Place::Socket(path)) => Sql::socket(path).await,
        };
        if let Ok(mut sql) = sql {
            let looked =
                tokio::time::timeout(Duration::from_secs(5), look(&mut sql, &place, &shared)).await;
            open = matches!(looked, Ok(Ok(()))).then_some(sql);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn look(sql: &mut Sql, place: &Place, shared: &Shared) -> Result<(), SqlError> {
    let newest = format!("SELECT id FROM app.inserted ORDER BY seq DESC LIMIT {LOOK_BACK_ROWS}");
    let rows = sql.rows(&newest).await?;
    let ids = rows.iter().filter_map(|row| row[0].parse::<u64>().ok());
    match place {
        Place::Port(_) => shared.notes().seen.extend(ids),
        Place::Socket(_) => shared.notes().seen_on_sockets.extend(ids),
    }
    let sum = sql.value("SELECT SUM(balance) FROM app.accounts").await?;
    // NULL: the table is there and its rows are not yet.
    if sum != TOTAL.to_string() && sum != "NULL" {
        let wrong = format!("{place:?} showed accounts with {sum} instead of {TOTAL}");
        shared.notes().wrong.push(wrong);
    }
    Ok(())
}
