//! A simulated machine as the sidecar controls it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_mysql_wire::{ConnectOptions, Connection, Row};
use quorate_mysqld::{Beside, Host, HostError, Marker, Settings, Signal};
use quorate_net::{Endpoint, Net};
use quorate_types::{Gtid, Secret, Uuid};

use super::binlog::SimulatedBinlogs;
use super::engine::{Change, Engine};
use super::machine::{Folder, Machine};
use super::process::Process;
use super::statement::Answer;

const PLANT: Duration = Duration::from_millis(20);
/// Copying takes as long as this for each thousand rows.
const COPY: Duration = Duration::from_millis(30);

/// The machine under one start of its sidecar. What that start locked is free once it is gone.
#[derive(Clone, Debug)]
pub struct SimulatedHost {
    machine: Machine,
    sidecar: u64,
    folder: PathBuf,
}

impl SimulatedHost {
    /// For a sidecar that starts now.
    pub(crate) fn new(machine: &Machine) -> Self {
        let sidecar = machine.with(|state| {
            state.sidecar += 1;
            state.sidecar
        });
        Self {
            machine: machine.clone(),
            sidecar,
            folder: machine.data_folder(),
        }
    }

    fn with_folder<T>(&self, use_it: impl FnOnce(&mut Folder) -> T) -> Result<T, HostError> {
        let missing = || HostError::Files {
            what: "open",
            path: self.folder.clone(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        let found = self
            .machine
            .with(|state| Some(use_it(state.folders.get_mut(&self.folder)?)));
        found.ok_or_else(missing)
    }

    fn replaced(&self) -> PathBuf {
        self.folder.with_extension("replaced")
    }
}

impl Host for SimulatedHost {
    type Process = Arc<Process>;
    type Binlogs = SimulatedBinlogs;

    async fn start(&self, settings: &Settings) -> Result<Arc<Process>, HostError> {
        if !self.data_folder_is_free()? {
            return Err(HostError::InUse);
        }
        let process = Process::new(self.machine.clone(), self.folder.clone(), settings.clone());
        self.with_folder(|folder| folder.process = Some(process.clone()))?;
        self.machine.run(process.clone());
        Ok(process)
    }

    async fn adopt(&self) -> Result<Option<Arc<Process>>, HostError> {
        Ok(self.machine.process_of(&self.folder))
    }

    fn signal(&self, process: &Arc<Process>, signal: Signal) -> Result<(), HostError> {
        let terminate = self.machine.rules().terminate_instead_of_kill;
        match signal {
            Signal::Kill if !terminate => process.kill(),
            Signal::Kill | Signal::Terminate => process.ask_to_stop(),
        }
        Ok(())
    }

    async fn exited(&self, process: &Arc<Process>) {
        let mut alive = process.alive.subscribe();
        // The sender is in the process that is held here.
        let _ = alive.wait_for(|alive| !*alive).await;
    }

    fn data_folder_exists(&self) -> bool {
        self.machine
            .with(|state| state.folders.contains_key(&self.folder))
    }

    fn data_folder_is_free(&self) -> Result<bool, HostError> {
        Ok(self.machine.process_of(&self.folder).is_none())
    }

    fn claim(&self) -> Result<bool, HostError> {
        self.with_folder(|folder| {
            // An older start's lock went with it.
            let free = folder.claimed_by.is_none_or(|by| by <= self.sidecar);
            if free {
                folder.claimed_by = Some(self.sidecar);
            }
            free
        })
    }

    async fn plant(&self) -> Result<(), HostError> {
        tokio::time::sleep(PLANT).await;
        self.machine.with(|state| {
            let mut uuid = [0; 16];
            uuid[..8].copy_from_slice(&state.random.next_u64().to_be_bytes());
            uuid[8..].copy_from_slice(&state.random.next_u64().to_be_bytes());
            let folder = Folder {
                uuid: Uuid(uuid),
                claimed_by: Some(self.sidecar),
                ..Folder::default()
            };
            state.folders.insert(self.folder.clone(), folder);
        });
        Ok(())
    }

    async fn wipe(&self) -> Result<(), HostError> {
        if !self.data_folder_is_free()? {
            return Err(HostError::InUse);
        }
        self.machine
            .with(|state| state.folders.remove(&self.folder));
        Ok(())
    }

    fn data_folder(&self) -> &Path {
        &self.folder
    }

    fn beside(&self, which: Beside) -> Self {
        let extension = match which {
            Beside::Scratch => "scratch",
            Beside::Cloned => "cloned",
        };
        Self {
            folder: self.machine.data_folder().with_extension(extension),
            ..self.clone()
        }
    }

    async fn replace_by(&self, cloned: &Self) -> Result<(), HostError> {
        self.machine.with(|state| {
            if let Some(old) = state.folders.remove(&self.folder) {
                state.folders.insert(self.replaced(), old);
            }
        });
        // A crash here leaves no data folder.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.machine.with(|state| {
            if let Some(new) = state.folders.remove(&cloned.folder) {
                state.folders.insert(self.folder.clone(), new);
                state.clones += 1;
            }
        });
        Ok(())
    }

    fn finish_replacement(&self) -> Result<(), HostError> {
        let cloned = self.beside(Beside::Cloned).folder;
        self.machine.with(|state| {
            let begun = state.folders.contains_key(&self.replaced());
            if begun
                && !state.folders.contains_key(&self.folder)
                && let Some(new) = state.folders.remove(&cloned)
            {
                state.folders.insert(self.folder.clone(), new);
                state.clones += 1;
            }
        });
        Ok(())
    }

    async fn remove_replaced(&self) -> Result<(), HostError> {
        self.machine
            .with(|state| state.folders.remove(&self.replaced()));
        Ok(())
    }

    fn write_server_uuid(&self, uuid: Uuid) -> Result<(), HostError> {
        self.with_folder(|folder| folder.uuid = uuid)
    }

    fn read_marker(&self) -> Result<Option<Marker>, HostError> {
        self.with_folder(|folder| folder.marker.clone())
    }

    fn write_marker(&self, marker: &Marker) -> Result<(), HostError> {
        self.with_folder(|folder| folder.marker = Some(marker.clone()))
    }

    async fn with_binlogs<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SimulatedBinlogs) -> T + Send + 'static,
    ) -> T {
        let binlogs = SimulatedBinlogs {
            machine: self.machine.clone(),
            folder: self.folder.clone(),
        };
        work(&binlogs)
    }
}

/// What a donor tells of its data, as rows of text: it stands for the clone plugin's own protocol.
pub(crate) async fn snapshot(process: &Arc<Process>, user: &str) -> Answer {
    if user != quorate_mysqld::CLONE_USER {
        return Answer::Error(quorate_mysql_wire::ServerError::new(
            1227,
            "42000",
            "Access denied; you need BACKUP_ADMIN",
        ));
    }
    // A commit that waits for its ACK holds it up.
    let engine = {
        let _alone = process.commits.write().await;
        process.with_folder(|folder| folder.engine.clone())
    };
    let engine = engine.unwrap_or_default();
    tokio::time::sleep(COPY * (1 + engine.history.len() as u32 / 1000)).await;
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (gtid, changes) in &engine.history {
        let mut row = vec!["transaction".to_owned(), gtid.to_string()];
        row.extend(changes.iter().map(|change| match change {
            Change::Insert { key, value } => format!("t {key} {value}"),
            Change::Set { key, value } => format!("r {key} {value}"),
        }));
        rows.push(vec![row.join("\t")]);
    }
    for (user, password) in &engine.accounts {
        rows.push(vec![format!("account\t{user}\t{}", password.expose())]);
    }
    Answer::Rows {
        columns: vec!["copy".to_owned()],
        rows: rows
            .into_iter()
            .map(|row| Row::from_iter(row.into_iter().map(|text| Some(Bytes::from(text)))))
            .collect(),
    }
}

/// `CLONE INSTANCE FROM 'U'@'H':PORT IDENTIFIED BY 'P' DATA DIRECTORY = 'D'`
pub(crate) async fn clone_instance(process: &Arc<Process>, sql: &str) -> Answer {
    let failed = |text: String| {
        Answer::Error(quorate_mysql_wire::ServerError::new(
            3862,
            "HY000",
            format!("Clone Donor Error: {text}"),
        ))
    };
    let parts: Vec<&str> = sql.split('\'').collect();
    let [_, user, _, host, port, password, _, folder, ..] = parts[..] else {
        return failed("it is no statement".to_owned());
    };
    let port = port
        .trim_start_matches(':')
        .split_whitespace()
        .next()
        .unwrap_or_default();
    let donor = Endpoint::Tcp(format!("{host}:{port}"));
    process.volatile(|state| state.cloning = true);
    let copied = copy(process, &donor, user, password).await;
    process.volatile(|state| state.cloning = false);
    match copied {
        Ok(engine) => {
            let machine = &process.machine;
            machine.with(|state| {
                let mut uuid = [0; 16];
                uuid[..8].copy_from_slice(&state.random.next_u64().to_be_bytes());
                let folder_of_clone = Folder {
                    uuid: Uuid(uuid),
                    engine,
                    ..Folder::default()
                };
                state.folders.insert(folder.into(), folder_of_clone);
            });
            Answer::Ok
        }
        Err(text) => failed(text),
    }
}

async fn copy(
    process: &Arc<Process>,
    donor: &Endpoint,
    user: &str,
    password: &str,
) -> Result<Engine, String> {
    let io = process.machine.net().connect(donor).await;
    let options = ConnectOptions {
        user: user.to_owned(),
        password: Secret::new(password.to_owned()),
        secure_transport: true,
        ..ConnectOptions::default()
    };
    let io = io.map_err(|error| error.to_string())?;
    let connection = Connection::connect(io, &options).await;
    let mut connection = connection.map_err(|error| error.to_string())?;
    let answer = connection.query("SIM SNAPSHOT").await;
    let answer = answer.map_err(|error| error.to_string())?;
    let mut engine = Engine::default();
    for row in answer.rows {
        let text = row.text(0).unwrap_or_default();
        take_row(&mut engine, &text).ok_or_else(|| format!("a row is damaged: {text}"))?;
    }
    Ok(engine)
}

fn take_row(engine: &mut Engine, text: &str) -> Option<()> {
    let mut fields = text.split('\t');
    match fields.next()? {
        "account" => {
            let (user, password) = (fields.next()?, fields.next()?);
            let password = Secret::new(password.to_owned());
            engine.accounts.insert(user.to_owned(), password);
        }
        _ => {
            let gtid: Gtid = fields.next()?.parse().ok()?;
            let mut changes = Vec::new();
            for field in fields {
                let mut words = field.split(' ');
                let table = words.next()?;
                let (key, value) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                changes.push(match table {
                    "t" => Change::Insert { key, value },
                    _ => Change::Set { key, value },
                });
            }
            engine.make_visible(gtid, changes);
        }
    }
    Some(())
}
