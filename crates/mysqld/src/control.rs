//! What the sidecar says to its server in SQL.

use std::collections::BTreeMap;
use std::fmt;

use quorate_mysql_wire::{ConnectError, ConnectOptions, Connection, QueryError, QueryResult};
use quorate_net::{Endpoint, Net};
use quorate_types::{GtidSet, Secret, Uuid};

use crate::rules::{GATE, SEMI_SYNC, TRANSACTION_BYTES_MAX};
use crate::settings::{Finding, judge_variables};
use crate::version::{Version, VersionError};

const LOCK_WAIT_TIMEOUT: u16 = 1205;
const NO_SUCH_THREAD: u16 = 1094;
const UNKNOWN_VARIABLE: u16 = 1193;
/// "The query does not comply with variable require_row_format restrictions."
const NOT_ROWS: &str = "3944";
/// The first version that can do without positions beside its GTIDs.
const GTID_ONLY_SINCE: Version = Version::new(8, 0, 27);

/// Why a step of control failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("reach the server at {endpoint}")]
    Reach {
        endpoint: Endpoint,
        source: std::io::Error,
    },
    #[error("log in to the server at {endpoint}")]
    Login {
        endpoint: Endpoint,
        source: ConnectError,
    },
    #[error("{what}")]
    Query {
        what: &'static str,
        source: QueryError,
    },
    #[error("{what}: the server's answer is not understood")]
    Answer { what: &'static str },
    #[error("{variable} is {value}, not {wanted}")]
    Variable {
        variable: &'static str,
        value: String,
        wanted: &'static str,
    },
    #[error("super_read_only=ON waits behind something: commits may be in flight")]
    InFlight,
    #[error("the server is not supported")]
    Version(#[from] VersionError),
}

impl ControlError {
    /// Whether the session can still be used: the server answered, if only with a refusal.
    #[must_use]
    pub fn session_is_usable(&self) -> bool {
        match self {
            Self::Query { source, .. } => source.connection_is_usable(),
            Self::Reach { .. } | Self::Login { .. } => false,
            Self::Answer { .. } | Self::Variable { .. } | Self::InFlight | Self::Version(_) => true,
        }
    }

    pub(crate) fn server_code(&self) -> Option<u16> {
        match self {
            Self::Query { source, .. } => source.server().map(|error| error.code),
            _ => None,
        }
    }
}

/// Who a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uuid: Uuid,
    pub version: Version,
    /// As `@@version` says it.
    pub version_text: String,
}

/// Where a replica gets its transactions: its sidecar's feed.
#[derive(Clone, Debug)]
pub struct ReplicationSource {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Secret,
}

/// Which transactions a replica takes from its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Those that were logged as rows. The server then writes no positions beside its GTIDs, and
    /// applies a small transaction for three quarters of the processor time.
    Rows,
    Any,
}

/// How a replica's threads fare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicationStatus {
    /// False if no channel is configured.
    pub configured: bool,
    /// It has a connection to the source.
    pub receiving: bool,
    pub applying: bool,
    /// The receiver's and the applier's last error; empty if there is none.
    pub receive_error: String,
    pub apply_error: String,
    /// It stopped since it takes rows only ([`Stream::Rows`]) and was given something else.
    pub met_statements: bool,
}

impl ReplicationStatus {
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.configured && self.receiving && self.applying
    }
}

/// A session of the control account with its server.
///
/// **Bounds.** No call has a time limit of its own: the caller sets one. A call that was cancelled
/// leaves a session on which every later call fails; open another.
pub struct Session {
    connection: Connection,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.id())
    }
}

/// What `SHOW PROCESSLIST` says of a session.
pub(crate) struct ListedSession {
    pub(crate) id: u64,
    pub(crate) user: String,
    pub(crate) state: String,
    /// Its first hundred characters.
    pub(crate) statement: String,
}

impl Session {
    pub async fn open(
        net: &impl Net,
        endpoint: &Endpoint,
        options: &ConnectOptions,
    ) -> Result<Self, ControlError> {
        let reach = |source| ControlError::Reach {
            endpoint: endpoint.clone(),
            source,
        };
        let io = net.connect(endpoint).await.map_err(reach)?;
        let connection = Connection::connect(io, options).await;
        let connection = connection.map_err(|source| ControlError::Login {
            endpoint: endpoint.clone(),
            source,
        })?;
        let mut session = Self { connection };
        // Quoting below counts on backslashes; nothing here may end by being idle.
        session
            .run(
                "set up a control session",
                "SET SESSION sql_mode='', autocommit=1, wait_timeout=31536000",
            )
            .await?;
        Ok(session)
    }

    /// The id that `KILL` takes.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.connection.connection_id().into()
    }

    /// Runs a statement; `what` says in a verb phrase what it is for, without secrets.
    pub async fn run(
        &mut self,
        what: &'static str,
        sql: &str,
    ) -> Result<QueryResult, ControlError> {
        let result = self.connection.query(sql).await;
        result.map_err(|source| ControlError::Query { what, source })
    }

    /// Whether the server answers. It cannot queue behind a commit that waits for its ACK.
    pub async fn probe(&mut self) -> Result<(), ControlError> {
        self.run("probe the server", "SELECT 1").await.map(drop)
    }

    pub async fn gtid_executed(&mut self) -> Result<GtidSet, ControlError> {
        let what = "read gtid_executed";
        let result = self.run(what, "SELECT @@GLOBAL.gtid_executed").await?;
        let text = result.scalar().ok_or(ControlError::Answer { what })?;
        // MySQL breaks the line after each source.
        let text = text.replace('\n', "");
        text.parse().map_err(|_| ControlError::Answer { what })
    }

    pub async fn identity(&mut self) -> Result<Identity, ControlError> {
        let what = "read the server's uuid and version";
        let sql = "SELECT @@GLOBAL.server_uuid, @@GLOBAL.version";
        let result = self.run(what, sql).await?;
        let row = result.rows.first().ok_or(ControlError::Answer { what })?;
        let text = |i| row.text(i).ok_or(ControlError::Answer { what });
        let version_text = text(1)?;
        Ok(Identity {
            uuid: text(0)?
                .parse()
                .map_err(|_| ControlError::Answer { what })?,
            version: Version::parse_supported(&version_text)?,
            version_text,
        })
    }

    /// Whether it can be adopted as it is: it takes no writes, and no commit of it can wait.
    pub async fn is_safe_replica(&mut self) -> Result<bool, ControlError> {
        let read_only = self.variable("super_read_only").await?;
        let semi_sync = self.variable("rpl_semi_sync_source_enabled").await?;
        Ok(is_on(read_only.as_deref()) && !is_on(semi_sync.as_deref()))
    }

    /// Everything wrong with the server's variables.
    pub async fn check_settings(&mut self) -> Result<Vec<Finding>, ControlError> {
        let version = self.identity().await?.version;
        let result = self
            .run("read the server's variables", "SHOW GLOBAL VARIABLES")
            .await?;
        let variables: BTreeMap<String, String> = result
            .rows
            .iter()
            .filter_map(|row| Some((row.text(0)?, row.text(1)?)))
            .collect();
        let mut findings = judge_variables(&variables, version);
        if let Some(engine) = self.disabled_redo_log().await? {
            findings.push(engine);
        }
        Ok(findings)
    }

    /// It is a status, not a variable, and `super_read_only` does not protect it.
    async fn disabled_redo_log(&mut self) -> Result<Option<Finding>, ControlError> {
        let value = self.status("Innodb_redo_log_enabled").await?;
        Ok(value
            .filter(|value| !is_on(Some(value)))
            .map(|value| Finding {
                variable: "Innodb_redo_log_enabled",
                value: Some(value),
                advice:
                    "run ALTER INSTANCE ENABLE INNODB REDO_LOG: without it a kill ends the data"
                        .to_owned(),
            }))
    }

    /// Follows `source` from what this server has executed. Safe to call again.
    pub async fn start_replication(
        &mut self,
        source: &ReplicationSource,
        stream: Stream,
    ) -> Result<(), ControlError> {
        let version = self.identity().await?.version;
        self.stop_replication_and_reset().await?;
        // What a primary took its replicas must take, and its own limit may be another.
        self.limit_transactions(TRANSACTION_BYTES_MAX).await?;
        let what = "point replication at the feed";
        let gtid_only = match stream {
            Stream::Rows if version >= GTID_ONLY_SINCE => ", REQUIRE_ROW_FORMAT=1, GTID_ONLY=1",
            Stream::Rows | Stream::Any => "",
        };
        // Retries have no end: the feed is this server's own sidecar, and comes back.
        let change = format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST={}, SOURCE_PORT={}, SOURCE_AUTO_POSITION=1, \
             SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=0, SOURCE_HEARTBEAT_PERIOD=1, \
             GET_SOURCE_PUBLIC_KEY=1, SOURCE_SSL=0{gtid_only}",
            quote(&source.host),
            source.port,
        );
        self.run(what, &change).await?;
        // The feed sends a heartbeat each second; without one for this long it is dialled again.
        self.run(
            "bound the feed's silence",
            "SET GLOBAL replica_net_timeout=5",
        )
        .await?;
        // Here it stays in memory; in CHANGE REPLICATION SOURCE it would go into the data folder.
        let start = format!(
            "START REPLICA USER={} PASSWORD={}",
            quote(&source.user),
            quote(source.password.expose()),
        );
        self.run("start replication", &start).await.map(drop)
    }

    /// Stops both threads, when what they are at is done, and forgets the source and whatever was
    /// received but not applied.
    pub async fn stop_replication_and_reset(&mut self) -> Result<(), ControlError> {
        self.run("stop replication", "STOP REPLICA").await?;
        self.run("forget the replication source", "RESET REPLICA ALL")
            .await
            .map(drop)
    }

    pub async fn replication_status(&mut self) -> Result<ReplicationStatus, ControlError> {
        let result = self
            .run("read the replication status", "SHOW REPLICA STATUS")
            .await?;
        if result.rows.is_empty() {
            return Ok(ReplicationStatus::default());
        }
        let text = |name| result.named(name).unwrap_or_default();
        Ok(ReplicationStatus {
            configured: true,
            receiving: text("Replica_IO_Running") == "Yes",
            applying: text("Replica_SQL_Running") == "Yes",
            receive_error: text("Last_IO_Error"),
            apply_error: text("Last_SQL_Error"),
            met_statements: text("Last_SQL_Errno") == NOT_ROWS
                || text("Last_IO_Error").contains("REQUIRE_ROW_FORMAT"),
        })
    }

    /// From here on every commit waits for an ACK. Returns when every variable was seen to be set.
    pub async fn enable_semi_sync_source(&mut self) -> Result<(), ControlError> {
        for (name, value) in SEMI_SYNC {
            let sql = format!("SET GLOBAL {name}={value}");
            self.run("set up the semi-sync source", &sql).await?;
        }
        let sql = "SET GLOBAL rpl_semi_sync_source_enabled=ON";
        self.run("switch the semi-sync source on", sql).await?;
        self.verify_semi_sync_source().await
    }

    /// Checks that nobody changed what makes commits wait.
    pub async fn verify_semi_sync_source(&mut self) -> Result<(), ControlError> {
        self.expect("rpl_semi_sync_source_enabled", "ON").await?;
        for (name, value) in SEMI_SYNC {
            self.expect(name, value).await?;
        }
        Ok(())
    }

    /// Only after `super_read_only=ON` succeeded: it would release commits that wait, and their
    /// clients would be told OK.
    pub async fn disable_semi_sync_source(&mut self) -> Result<(), ControlError> {
        let sql = "SET GLOBAL rpl_semi_sync_source_enabled=OFF";
        self.run("switch the semi-sync source off", sql).await?;
        self.expect("rpl_semi_sync_source_enabled", "OFF").await
    }

    /// What lets commits of a primary be answered past the log, in words, by its variables; none if
    /// nothing does. Waits for up to a second while the server switches semi-sync off (tried with
    /// 9.7.4).
    pub async fn find_bypass(&mut self) -> Result<Option<String>, ControlError> {
        let what = "look at what makes commits wait";
        let wanted: Vec<_> = GATE.iter().chain(SEMI_SYNC).collect();
        let names: Vec<_> = wanted
            .iter()
            .map(|(name, _)| format!("@@GLOBAL.{name}"))
            .collect();
        let sql = format!("SELECT {}", names.join(", "));
        let result = match self.run(what, &sql).await {
            Err(error) if error.server_code() == Some(UNKNOWN_VARIABLE) => {
                return Ok(Some("the semi-sync plugin is gone".to_owned()));
            }
            result => result?,
        };
        let row = result.rows.first().ok_or(ControlError::Answer { what })?;
        for (i, (name, wanted)) in wanted.iter().enumerate() {
            let value = row.text(i).unwrap_or_default();
            if !is_value(&value, wanted) {
                return Ok(Some(format!("{name} is {value}, not {wanted}")));
            }
        }
        Ok(None)
    }

    /// The same by its status, which costs the server more: it adds up the counters of all sessions.
    /// Whether semi-sync is on is known here at once, and so is who else can release commits.
    pub async fn find_bypass_by_status(&mut self) -> Result<Option<String>, ControlError> {
        let what = "look at the status of semi-sync";
        let sql = "SHOW GLOBAL STATUS WHERE Variable_name IN \
                   ('Rpl_semi_sync_source_clients', 'Rpl_semi_sync_source_status')";
        let result = self.run(what, sql).await?;
        let rows = result.rows.iter();
        let status: BTreeMap<_, _> = rows
            .filter_map(|row| Some((row.text(0)?.to_ascii_lowercase(), row.text(1)?)))
            .collect();
        let (Some(clients), Some(state)) = (
            status.get("rpl_semi_sync_source_clients"),
            status.get("rpl_semi_sync_source_status"),
        ) else {
            return Ok(Some("the semi-sync plugin is gone".to_owned()));
        };
        if state != "ON" {
            return Ok(Some("semi-sync is off".to_owned()));
        }
        let clients: u64 = clients.parse().map_err(|_| ControlError::Answer { what })?;
        let more = clients > 1;
        Ok(more.then(|| "a second semi-sync replica is attached".to_owned()))
    }

    /// Stops writes. Its success proves that no commit is in flight.
    ///
    /// # Errors
    /// [`ControlError::InFlight`] after about `lock_wait_timeout_s` seconds if something holds it
    /// up; the server then still takes writes.
    pub async fn set_read_only(&mut self, lock_wait_timeout_s: u32) -> Result<(), ControlError> {
        let sql = format!(
            "SET SESSION lock_wait_timeout={}",
            lock_wait_timeout_s.max(1)
        );
        self.run("bound the wait for locks", &sql).await?;
        let what = "switch super_read_only on";
        match self.run(what, "SET GLOBAL super_read_only=ON").await {
            Err(error) if error.server_code() == Some(LOCK_WAIT_TIMEOUT) => {
                return Err(ControlError::InFlight);
            }
            result => result?,
        };
        self.expect("super_read_only", "ON").await
    }

    /// From sessions that begin now, larger transactions are refused before they are in the binlog:
    /// what is there must get into the log. `bytes` is a multiple of 4096, and at most 2 GiB of it
    /// count. The server looks before each event, so the last one may go beyond.
    pub async fn limit_transactions(&mut self, bytes: u64) -> Result<(), ControlError> {
        let bytes = bytes.min(TRANSACTION_BYTES_MAX);
        let sql = format!("SET GLOBAL max_binlog_cache_size={bytes}");
        self.run("limit transactions", &sql).await.map(drop)
    }

    /// Lets clients write. `read_only=OFF` switches both off in one step.
    pub async fn set_writable(&mut self) -> Result<(), ControlError> {
        let what = "switch super_read_only off";
        self.run(what, "SET GLOBAL read_only=OFF").await?;
        self.expect("super_read_only", "OFF").await
    }

    /// Kills every session but this one, those in `keep` and the server's own. Gives how many there
    /// were: a killed session takes a moment to end, so ask again until there are none.
    pub async fn end_foreign_sessions(&mut self, keep: &[u64]) -> Result<usize, ControlError> {
        let mut ended = 0;
        for ListedSession { id, user, .. } in self.sessions().await? {
            // One that has not logged in yet has done nothing; it may be ours.
            let internal = ["system user", "event_scheduler", "unauthenticated user"];
            if id == self.id() || keep.contains(&id) || internal.contains(&user.as_str()) {
                continue;
            }
            ended += 1;
            self.end_session("end a session", id).await?;
        }
        Ok(ended)
    }

    pub(crate) async fn sessions(&mut self) -> Result<Vec<ListedSession>, ControlError> {
        let what = "list the sessions";
        let result = self.run(what, "SHOW PROCESSLIST").await?;
        let listed = result.rows.iter().map(|row| {
            let text = |i| row.text(i).unwrap_or_default();
            let id = text(0).parse();
            Ok(ListedSession {
                id: id.map_err(|_| ControlError::Answer { what })?,
                user: text(1),
                state: text(6),
                statement: text(7),
            })
        });
        listed.collect()
    }

    /// Whether a session has a transaction that is not being rolled back: one that runs, waits for a
    /// lock or for an ACK, or is on its way to the binlog.
    ///
    /// # Errors
    /// If the server does not answer so.
    pub async fn may_commit(&mut self, id: u32) -> Result<bool, ControlError> {
        let what = "look at the transaction of a session";
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.innodb_trx \
             WHERE trx_mysql_thread_id = {id} AND trx_state <> 'ROLLING BACK'"
        );
        let count = self.run(what, &sql).await?.scalar();
        let count = count.ok_or(ControlError::Answer { what })?;
        Ok(count != "0")
    }

    /// Stops what a session executes; the session stays. Also if it is gone already.
    ///
    /// # Errors
    /// If the server refuses, or does not answer.
    pub async fn stop_statement(&mut self, id: u32) -> Result<(), ControlError> {
        self.kill("stop what a session executes", &format!("KILL QUERY {id}"))
            .await
    }

    /// Its connection is closed at once, and a commit that waits for its ACK goes on waiting. Also if it
    /// is gone already.
    pub(crate) async fn end_session(
        &mut self,
        what: &'static str,
        id: u64,
    ) -> Result<(), ControlError> {
        self.kill(what, &format!("KILL CONNECTION {id}")).await
    }

    async fn kill(&mut self, what: &'static str, sql: &str) -> Result<(), ControlError> {
        match self.run(what, sql).await {
            Err(error) if error.server_code() == Some(NO_SUCH_THREAD) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Enables the scheduled events that came from another primary, which a replica keeps disabled
    /// for ever. Gives how many there were. These are writes: they go through the log.
    pub async fn enable_replica_events(&mut self) -> Result<usize, ControlError> {
        let what = "list the events of other primaries";
        let sql = "SELECT EVENT_SCHEMA, EVENT_NAME, DEFINER FROM information_schema.EVENTS \
                   WHERE STATUS IN ('REPLICA_SIDE_DISABLED', 'SLAVESIDE_DISABLED')";
        let result = self.run(what, sql).await?;
        for row in &result.rows {
            let text = |i| row.text(i).ok_or(ControlError::Answer { what });
            let definer = text(2)?;
            let (user, host) = definer
                .rsplit_once('@')
                .ok_or(ControlError::Answer { what })?;
            // Without its definer it would become ours, with our privileges.
            let sql = format!(
                "ALTER DEFINER={}@{} EVENT {}.{} ENABLE",
                quote(user),
                quote(host),
                quote_name(&text(0)?),
                quote_name(&text(1)?),
            );
            self.run("enable an event", &sql).await?;
        }
        Ok(result.rows.len())
    }

    /// A global variable; none if the server has no such variable.
    pub async fn variable(&mut self, name: &'static str) -> Result<Option<String>, ControlError> {
        match self
            .run("read a variable", &format!("SELECT @@GLOBAL.{name}"))
            .await
        {
            Ok(result) => Ok(result.scalar()),
            Err(error) if error.server_code() == Some(UNKNOWN_VARIABLE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn status(&mut self, name: &str) -> Result<Option<String>, ControlError> {
        let sql = format!("SHOW GLOBAL STATUS LIKE {}", quote(name));
        let result = self.run("read a status", &sql).await?;
        Ok(result.rows.first().and_then(|row| row.text(1)))
    }

    async fn expect(
        &mut self,
        variable: &'static str,
        wanted: &'static str,
    ) -> Result<(), ControlError> {
        let value = self.variable(variable).await?.unwrap_or_default();
        if is_value(&value, wanted) {
            return Ok(());
        }
        Err(ControlError::Variable {
            variable,
            value,
            wanted,
        })
    }
}

fn is_value(value: &str, wanted: &str) -> bool {
    match wanted {
        "ON" => is_on(Some(value)),
        "OFF" => value == "0" || value.eq_ignore_ascii_case("OFF"),
        wanted => value.eq_ignore_ascii_case(wanted),
    }
}

fn is_on(value: Option<&str>) -> bool {
    value.is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("ON"))
}

/// As a string literal of MySQL with an empty `sql_mode`.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::from("'");
    for c in text.chars() {
        match c {
            '\'' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            '\0' => quoted.push_str("\\0"),
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

pub(crate) fn quote_name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_its_quotes() {
        assert_eq!(quote(r"a'b\c"), r"'a\'b\\c'");
        assert_eq!(quote("\0"), r"'\0'");
    }
}
