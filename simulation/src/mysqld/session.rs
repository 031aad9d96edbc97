//! One client's session.

use std::sync::Arc;

use quorate_mysql_wire::{
    Command, CommandError, ServerConnection, ServerError, ServerOptions, clean_scramble,
};
use quorate_net::BoxIo;
use quorate_types::Secret;
use tokio::sync::watch;

use super::binlog::VERSION;
use super::dump;
use super::process::{Process, SessionEntry};
use super::statement::{self, Answer};

/// As which applications log in.
pub(crate) const APP_USER: &str = "app";
pub(crate) const APP_PASSWORD: &str = "app";

/// What a session remembers.
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) user: String,
    /// It said that commits should wait for its ACKs.
    pub(crate) semi_sync: bool,
    /// In seconds.
    pub(crate) lock_wait_timeout: u64,
}

/// Counts a session until it ends, however it ends.
struct Entered {
    process: Arc<Process>,
    id: u64,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.process
            .volatile(|state| state.sessions.remove(&self.id));
    }
}

/// Serves a client until it leaves or is killed. `is_socket`: it came over the server's own socket.
pub(crate) async fn serve(process: Arc<Process>, io: BoxIo, is_socket: bool) {
    process.unpaused().await;
    let killed = watch::Sender::new(false);
    let mut was_killed = killed.subscribe();
    let (id, scramble) = process.volatile(|state| {
        state.next_session += 1;
        let id = state.next_session;
        let user = "unauthenticated user".to_owned();
        state.sessions.insert(id, SessionEntry { user, killed });
        let number = process.machine.with(|state| state.random.next_u64());
        let mut scramble = [1; 20];
        scramble[..8].copy_from_slice(&number.to_le_bytes());
        (id, clean_scramble(scramble))
    });
    let entered = Entered {
        process: process.clone(),
        id,
    };
    let accounts = process.with_folder(|folder| folder.engine.accounts.clone());
    let accounts = accounts.unwrap_or_default();
    let authenticate = move |user: &str| match user {
        // A seed's root has no password, and no address but the socket.
        "root" => is_socket.then(Secret::default),
        APP_USER => Some(Secret::new(APP_PASSWORD.to_owned())),
        user => accounts.get(user).cloned(),
    };
    let options = ServerOptions {
        version: VERSION.to_owned(),
        connection_id: id as u32,
        scramble,
        tls: None,
        tls_required: false,
        authenticate: &authenticate,
    };
    let Ok(connection) = ServerConnection::accept(io, &options).await else {
        return;
    };
    let session = Session {
        id,
        user: connection.user().to_owned(),
        semi_sync: false,
        lock_wait_timeout: 31_536_000,
    };
    process.volatile(|state| {
        if let Some(entry) = state.sessions.get_mut(&id) {
            entry.user.clone_from(&session.user);
        }
    });
    answer_all(&process, connection, session, &mut was_killed).await;
    drop(entered);
}

async fn answer_all(
    process: &Arc<Process>,
    mut connection: ServerConnection,
    mut session: Session,
    killed: &mut watch::Receiver<bool>,
) {
    loop {
        // While a statement runs it is not looked at: a commit that waits cannot be killed.
        let command = tokio::select! {
            biased;
            _ = killed.wait_for(|killed| *killed) => return,
            command = connection.next_command() => command,
        };
        process.unpaused().await;
        let answered = match command {
            Ok(Command::Query(sql)) => {
                let answer = statement::run(process, &mut session, &sql).await;
                process.unpaused().await;
                match answer {
                    Answer::Ok => connection.ok().await,
                    Answer::Rows { columns, rows } => {
                        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
                        connection.rows(&columns, &rows).await
                    }
                    Answer::Error(error) => connection.err(&error).await,
                }
            }
            Ok(Command::RegisterReplica(_) | Command::Ping | Command::InitDb(_)) => {
                connection.ok().await
            }
            Ok(Command::BinlogDumpGtid(request)) => {
                let dump = dump::run(process, connection, request.executed, session.semi_sync);
                tokio::select! {
                    biased;
                    _ = killed.wait_for(|killed| *killed) => {}
                    () = dump => {}
                }
                return;
            }
            Ok(Command::Quit) | Err(CommandError::Packet(_)) => return,
            Ok(Command::BinlogDump(_) | Command::Other(_)) | Err(CommandError::Parse(_)) => {
                let error = ServerError::new(ServerError::UNKNOWN_COMMAND, "08S01", "Unknown");
                connection.err(&error).await
            }
        };
        if answered.is_err() {
            return;
        }
    }
}
