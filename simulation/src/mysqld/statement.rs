//! The statements that the sidecar, its capture, replicas and the workload say.

use std::sync::Arc;
use std::time::Duration;

use quorate_mysql_wire::{Row, ServerError};
use quorate_types::{GtidSet, Secret};
use tokio::time::{Instant, timeout, timeout_at};

use super::engine::Change;
use super::process::Process;
use super::replica::Source;
use super::session::Session;

pub(crate) enum Answer {
    Ok,
    Rows {
        columns: Vec<String>,
        rows: Vec<Row>,
    },
    Error(ServerError),
}

impl Answer {
    /// One row; its columns have no names that matter.
    fn row(values: impl IntoIterator<Item = String>) -> Self {
        let row: Vec<String> = values.into_iter().collect();
        let columns = (0..row.len()).map(|i| format!("c{i}")).collect();
        let rows = vec![Row::from_iter(row.into_iter().map(Some))];
        Self::Rows { columns, rows }
    }

    fn table(columns: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self::Rows {
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            rows: rows
                .into_iter()
                .map(|row| Row::from_iter(row.into_iter().map(Some)))
                .collect(),
        }
    }

    fn error(code: u16, text: impl Into<String>) -> Self {
        Self::Error(ServerError::new(code, "HY000", text))
    }
}

impl From<Result<(), ServerError>> for Answer {
    fn from(result: Result<(), ServerError>) -> Self {
        match result {
            Ok(()) => Self::Ok,
            Err(error) => Self::Error(error),
        }
    }
}

/// Runs one statement to its end.
pub(crate) async fn run(process: &Arc<Process>, session: &mut Session, sql: &str) -> Answer {
    let sql = sql.trim().trim_end_matches(';');
    let word = sql.split_whitespace().next().unwrap_or_default();
    match word.to_ascii_uppercase().as_str() {
        "SELECT" => select(process, sql).await,
        "INSERT" | "UPDATE" => match changes(sql) {
            Some(changes) => process.commit(session.id, changes).await.into(),
            None => unknown(sql),
        },
        "SET" => set(process, session, sql).await,
        "SHOW" => show(process, sql),
        "KILL" => kill(process, sql),
        "STOP" | "RESET" | "START" | "CHANGE" => replication(process, sql).await,
        "CREATE" | "GRANT" => Answer::Ok,
        "ALTER" => alter_user(process, sql),
        "CLONE" => super::host::clone_instance(process, sql).await,
        "SIM" => super::host::snapshot(process, &session.user).await,
        _ => unknown(sql),
    }
}

fn unknown(sql: &str) -> Answer {
    Answer::error(1064, format!("the simulated server does not know: {sql}"))
}

/// The numbers in a text, in their order.
fn numbers(text: &str) -> Vec<u64> {
    let words = text.split(|c: char| !c.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}

/// What stands in single quotes, in its order. Backslashes are not looked at.
fn quoted(text: &str) -> Vec<String> {
    let parts = text.split('\'').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

/// `INSERT INTO t VALUES (k, v), …`, `UPDATE r SET v = V WHERE k = K`.
fn changes(sql: &str) -> Option<Vec<Change>> {
    let numbers = numbers(sql);
    let (pairs, rest) = numbers.as_chunks::<2>();
    match (&sql[..6], pairs) {
        _ if pairs.is_empty() || !rest.is_empty() => None,
        ("INSERT", pairs) => Some(
            pairs
                .iter()
                .map(|[key, value]| Change::Insert {
                    key: *key,
                    value: *value,
                })
                .collect(),
        ),
        ("UPDATE", [[value, key]]) => Some(vec![Change::Set {
            key: *key,
            value: *value,
        }]),
        _ => None,
    }
}

async fn select(process: &Arc<Process>, sql: &str) -> Answer {
    let lower = sql.to_ascii_lowercase();
    if lower == "select 1" || lower.starts_with("select unix_timestamp") {
        return Answer::row(["1".to_owned()]);
    }
    if lower.starts_with("select @source_binlog_checksum") {
        return Answer::row(["CRC32".to_owned()]);
    }
    if lower.starts_with("select wait_for_executed_gtid_set") {
        return wait_for_executed(process, sql).await;
    }
    if lower.contains("innodb_trx") {
        let of_one = lower.split_once("trx_mysql_thread_id = ");
        let id = of_one.and_then(|(_, rest)| numbers(rest).first().copied());
        let open = process.volatile(|state| match id {
            Some(id) => usize::from(state.open_transactions.contains(&id)),
            None => state.open_transactions.len(),
        });
        return Answer::row([open.to_string()]);
    }
    if let Some(answer) = looked_at(&lower) {
        return answer;
    }
    if lower.contains("information_schema.events") {
        return Answer::table(&["EVENT_SCHEMA", "EVENT_NAME", "DEFINER"], vec![]);
    }
    if lower.contains("clone_progress") {
        let stage = match process.volatile(|state| state.cloning) {
            true => "FILE COPY",
            false => "",
        };
        return Answer::row([stage, "0", "0"].map(str::to_owned));
    }
    if lower.starts_with("select v from r where k = ") {
        let key = numbers(sql).first().copied().unwrap_or_default();
        let value = process.with_folder(|folder| folder.engine.registers.get(&key).copied());
        return Answer::row([value.flatten().unwrap_or(0).to_string()]);
    }
    if lower.starts_with("select v from t where k = ") {
        let key = numbers(sql).first().copied().unwrap_or_default();
        let value = process.with_folder(|folder| folder.engine.inserted.get(&key).copied());
        let rows = value.flatten().map(|value| vec![value.to_string()]);
        return Answer::table(&["v"], rows.into_iter().collect());
    }
    if lower.starts_with("select @@global.") {
        return variables(process, &lower);
    }
    unknown(sql)
}

/// What a server is looked at for before it is taken in: nothing speaks against this one.
fn looked_at(lower: &str) -> Option<Answer> {
    if lower.contains("information_schema.plugins") {
        let active = |name: &str| vec![name.to_owned(), "ACTIVE".to_owned()];
        let rows = vec![active("clone"), active("rpl_semi_sync_source")];
        return Some(Answer::table(&["PLUGIN_NAME", "PLUGIN_STATUS"], rows));
    }
    if lower.contains("mysql.time_zone_name") {
        return Some(Answer::row(["1".to_owned()]));
    }
    let nothing = [
        "information_schema.user_privileges",
        "information_schema.tables",
        "replication_connection_configuration",
    ];
    let asked = nothing.iter().any(|table| lower.contains(table));
    asked.then(|| Answer::table(&["NAME", "VALUE"], vec![]))
}

fn variables(process: &Arc<Process>, lower: &str) -> Answer {
    let mut values = Vec::new();
    for name in lower["select ".len()..].split(',') {
        let name = name.trim().trim_start_matches("@@global.");
        match variable(process, name) {
            Some(value) => values.push(value),
            None => return Answer::error(1193, format!("Unknown system variable '{name}'")),
        }
    }
    Answer::row(values)
}

fn variable(process: &Arc<Process>, name: &str) -> Option<String> {
    match name {
        "gtid_executed" => Some(process.executed_set().to_string()),
        "server_uuid" => Some(process.with_folder(|folder| folder.uuid)?.to_string()),
        "version" => Some(process.machine.with(|state| state.version).to_owned()),
        "server_id" => Some(process.settings.server_id.to_string()),
        // As numbers, which is how MySQL shows what is on or off in a SELECT.
        name => Some(match process.variable(name)?.as_str() {
            "ON" => "1".to_owned(),
            "OFF" => "0".to_owned(),
            value => value.to_owned(),
        }),
    }
}

async fn wait_for_executed(process: &Arc<Process>, sql: &str) -> Answer {
    let set: Option<GtidSet> = quoted(sql).first().and_then(|set| set.parse().ok());
    let seconds = sql
        .rsplit(',')
        .next()
        .and_then(|last| last.trim().trim_end_matches(')').parse::<f64>().ok());
    let (Some(set), Some(seconds)) = (set, seconds) else {
        return unknown(sql);
    };
    let mut executed = process.executed.subscribe();
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    while !process.executed_set().contains_set(&set) {
        if timeout_at(until, executed.changed()).await.is_err() {
            return Answer::row(["1".to_owned()]);
        }
    }
    Answer::row(["0".to_owned()])
}

async fn set(process: &Arc<Process>, session: &mut Session, sql: &str) -> Answer {
    let lower = sql.to_ascii_lowercase();
    if let Some(rest) = lower.strip_prefix("set global ") {
        let Some((name, value)) = rest.split_once('=') else {
            return unknown(sql);
        };
        let value = value.trim().trim_matches('\'').to_ascii_uppercase();
        return set_global(process, session, name.trim(), value).await;
    }
    if let Some(value) = lower.strip_prefix("set session lock_wait_timeout=") {
        session.lock_wait_timeout = value.parse().unwrap_or(session.lock_wait_timeout);
    }
    if lower.contains("@rpl_semi_sync_replica = 1") {
        session.semi_sync = true;
    }
    Answer::Ok
}

async fn set_global(
    process: &Arc<Process>,
    session: &Session,
    name: &str,
    value: String,
) -> Answer {
    let put = |name: &str, value: &str| {
        process.volatile(|state| {
            state.variables.insert(name.to_owned(), value.to_owned());
        });
    };
    match (name, value.as_str()) {
        ("super_read_only", "ON") => {
            // It waits for commits, and new ones wait behind it.
            let bound = Duration::from_secs(session.lock_wait_timeout);
            let Ok(_alone) = timeout(bound, process.commits.write()).await else {
                return Answer::error(1205, "Lock wait timeout exceeded");
            };
            put("super_read_only", "ON");
            put("read_only", "ON");
        }
        ("read_only", "OFF") => {
            put("super_read_only", "OFF");
            put("read_only", "OFF");
        }
        ("rpl_semi_sync_source_enabled", "OFF") => {
            put(name, &value);
            process.release(None);
        }
        _ => put(name, &value),
    }
    Answer::Ok
}

fn show(process: &Arc<Process>, sql: &str) -> Answer {
    let lower = sql.to_ascii_lowercase();
    if lower == "show global variables" {
        let rows = process.volatile(|state| {
            let variables = state.variables.iter();
            variables
                .map(|(name, value)| vec![name.clone(), value.clone()])
                .collect()
        });
        return Answer::table(&["Variable_name", "Value"], rows);
    }
    if lower.starts_with("show global status ") {
        let status = |name: String| {
            let value = match name.as_str() {
                "innodb_redo_log_enabled" => "ON".to_owned(),
                "rpl_semi_sync_source_clients" => process
                    .volatile(|state| state.semi_sync_clients)
                    .to_string(),
                "rpl_semi_sync_source_status" => {
                    let on = process.is_on("rpl_semi_sync_source_enabled");
                    if on { "ON" } else { "OFF" }.to_owned()
                }
                _ => return None,
            };
            Some(vec![name, value])
        };
        let rows = quoted(&lower).into_iter().filter_map(status).collect();
        return Answer::table(&["Variable_name", "Value"], rows);
    }
    if lower == "show processlist" {
        let rows = process.volatile(|state| {
            let sessions = state.sessions.iter();
            sessions
                .map(|(id, entry)| vec![id.to_string(), entry.user.clone()])
                .collect()
        });
        return Answer::table(&["Id", "User"], rows);
    }
    if lower == "show replica status" {
        return replica_status(process);
    }
    unknown(sql)
}

fn replica_status(process: &Arc<Process>) -> Answer {
    let columns = [
        "Replica_IO_Running",
        "Replica_SQL_Running",
        "Last_IO_Error",
        "Last_SQL_Error",
    ];
    let yes = |yes: bool| if yes { "Yes" } else { "No" }.to_owned();
    let row = process.volatile(|state| {
        let replica = &state.replica;
        replica.source.as_ref()?;
        Some(vec![
            yes(replica.receiving),
            yes(replica.applying),
            replica.receive_error.clone(),
            replica.apply_error.clone(),
        ])
    });
    Answer::table(&columns, row.into_iter().collect())
}

fn kill(process: &Arc<Process>, sql: &str) -> Answer {
    let id = numbers(sql).first().copied().unwrap_or_default();
    // What runs is a commit, which cannot be stopped.
    let stays = sql.starts_with("KILL QUERY");
    let known = process.volatile(|state| {
        let entry = state.sessions.get(&id)?;
        entry.killed.send_if_modified(|killed| {
            *killed |= !stays;
            !stays
        });
        Some(())
    });
    match known {
        Some(()) => Answer::Ok,
        None => Answer::error(1094, format!("Unknown thread id: {id}")),
    }
}

async fn replication(process: &Arc<Process>, sql: &str) -> Answer {
    match sql {
        "STOP REPLICA" => {
            process.stop_replica();
            // The applier ends what it has begun.
            drop(process.log_stage.lock().await);
        }
        "RESET REPLICA ALL" => process.volatile(|state| state.replica.source = None),
        _ if sql.starts_with("CHANGE REPLICATION SOURCE TO") => {
            let port = sql.split_once("SOURCE_PORT=").map(|(_, rest)| rest);
            let port = port.and_then(|rest| numbers(rest).first().copied());
            let source = Source {
                host: quoted(sql).into_iter().next().unwrap_or_default(),
                port: port.unwrap_or_default() as u16,
                user: String::new(),
                password: String::new(),
            };
            process.volatile(|state| state.replica.source = Some(source));
        }
        _ if sql.starts_with("START REPLICA") => match &quoted(sql)[..] {
            [user, password] => process.start_replica(user.clone(), password.clone()),
            _ => return unknown(sql),
        },
        _ => return unknown(sql),
    }
    Answer::Ok
}

/// `ALTER USER 'U'@'H' IDENTIFIED BY 'P' …`
fn alter_user(process: &Arc<Process>, sql: &str) -> Answer {
    let [user, _, password] = &quoted(sql)[..] else {
        return unknown(sql);
    };
    let password = Secret::new(password.clone());
    process.with_folder(|folder| folder.engine.accounts.insert(user.clone(), password));
    Answer::Ok
}
