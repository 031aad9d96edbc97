//! Comparing a table's content between servers, at one moment of the log.

use quorate_types::GtidSet;

use crate::accounts::CONTROL_USER;
use crate::control::{ControlError, NO_SUCH_THREAD, Session, quote_name};

/// The database, or the table, is not there.
const GONE: [u16; 2] = [1049, 1146];
/// A session that holds writes up is ended by the server itself when it says nothing for this long:
/// whoever opened it may stand still.
const HOLD_IDLE_S: u32 = 2;
/// The same for one that holds a snapshot.
const SNAPSHOT_IDLE_S: u32 = 60;
const CHECKSUM: &str = "CHECKSUM TABLE";
/// So the states begin of a session that waits until others let go of a table.
const WAITS_FOR_A_TABLE: &str = "Waiting for table ";

/// A table, for statements and for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    pub schema: String,
    pub table: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

impl TableName {
    fn quoted(&self) -> String {
        format!("{}.{}", quote_name(&self.schema), quote_name(&self.table))
    }
}

/// A table as the server lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseTable {
    pub name: TableName,
    /// Empty if the server cannot say it.
    pub engine: String,
}

impl BaseTable {
    /// Whether a snapshot has it as it was.
    #[must_use]
    pub fn has_snapshots(&self) -> bool {
        self.engine.eq_ignore_ascii_case("InnoDB")
    }
}

impl Session {
    /// All tables with rows of their own, but MySQL's.
    pub async fn base_tables(&mut self) -> Result<Vec<BaseTable>, ControlError> {
        let sql = "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE FROM information_schema.TABLES \
                   WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA NOT IN \
                   ('mysql', 'sys', 'information_schema', 'performance_schema') ORDER BY 1, 2";
        let result = self.run("list the tables", sql).await?;
        let rows = result.rows.iter();
        Ok(rows
            .filter_map(|row| {
                Some(BaseTable {
                    name: TableName {
                        schema: row.text(0)?,
                        table: row.text(1)?,
                    },
                    engine: row.text(2).unwrap_or_default(),
                })
            })
            .collect())
    }

    /// Keeps writes out of the table until [`Session::unlock_table`] or the session's end, which
    /// comes by itself if nothing is said for 2 s. When it returns, every transaction that wrote to
    /// the table is committed and in `gtid_executed`. False if there is no such table.
    ///
    /// # Errors
    /// If a transaction holds the table for longer than `wait_s`.
    pub async fn lock_table(
        &mut self,
        table: &TableName,
        wait_s: u32,
    ) -> Result<bool, ControlError> {
        let wait_s = wait_s.max(1);
        let sql =
            format!("SET SESSION lock_wait_timeout={wait_s}, SESSION wait_timeout={HOLD_IDLE_S}");
        self.run("bound the lock of a table", &sql).await?;
        let sql = format!("LOCK TABLES {} READ", table.quoted());
        let locked = self.run("keep writes out of a table", &sql).await;
        is_there(locked.map(drop))
    }

    pub async fn unlock_table(&mut self) -> Result<(), ControlError> {
        self.run("let writes go on", "UNLOCK TABLES")
            .await
            .map(drop)
    }

    /// From here on the session sees what is committed now, and nothing of later.
    pub async fn begin_snapshot(&mut self) -> Result<(), ControlError> {
        let what = "take a snapshot";
        let bounds =
            format!("SET SESSION lock_wait_timeout=1, SESSION wait_timeout={SNAPSHOT_IDLE_S}");
        self.run(what, &bounds).await?;
        let level = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ";
        self.run(what, level).await?;
        self.run(what, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
            .await
            .map(drop)
    }

    /// Keeps the table's definition as it is until the snapshot's end: CHECKSUM TABLE does not say
    /// so when its snapshot can no more be read. False if there is no such table.
    pub async fn keep_definition(&mut self, table: &TableName) -> Result<bool, ControlError> {
        let sql = format!("SELECT 1 FROM {} LIMIT 1", table.quoted());
        let read = self.run("keep a table's definition", &sql).await;
        is_there(read.map(drop))
    }

    /// Whether the server has executed the set within so many seconds.
    pub async fn executes(&mut self, set: &GtidSet, wait_s: f64) -> Result<bool, ControlError> {
        let sql = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{set}', {wait_s})");
        let result = self.run("wait for what is compared", &sql).await?;
        Ok(result.scalar().as_deref() == Some("0"))
    }

    /// Of all rows, as this session sees them; none if it could not be read.
    ///
    /// If this is cancelled the server goes on: see [`Session::end_checksums`].
    pub async fn checksum_table(
        &mut self,
        table: &TableName,
    ) -> Result<Option<String>, ControlError> {
        let sql = format!("{CHECKSUM} {} EXTENDED", table.quoted());
        let result = self.run("read a table for its checksum", &sql).await?;
        Ok(result.rows.first().and_then(|row| row.text(1)))
    }

    /// Ends the sessions of the control account that compute a checksum: that of this id, or all.
    pub async fn end_checksums(&mut self, only: Option<u64>) -> Result<usize, ControlError> {
        let sessions = self.sessions().await?;
        let mut ended = 0;
        for session in sessions {
            if !session.is_checksum() || only.is_some_and(|only| only != session.id) {
                continue;
            }
            let kill = format!("KILL CONNECTION {}", session.id);
            match self.run("end a checksum", &kill).await {
                Err(error) if error.server_code() == Some(NO_SUCH_THREAD) => {}
                result => drop(result?),
            }
            ended += 1;
        }
        Ok(ended)
    }

    /// Whether anybody, the applier too, waits until others let go of a table. It does not say
    /// which one, so it may not be ours that is waited for.
    pub async fn somebody_waits_for_a_table(&mut self) -> Result<bool, ControlError> {
        let sessions = self.sessions().await?;
        Ok(sessions.iter().any(ListedSession::waits_for_a_table))
    }

    async fn sessions(&mut self) -> Result<Vec<ListedSession>, ControlError> {
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
}

/// What `SHOW PROCESSLIST` says of a session.
struct ListedSession {
    id: u64,
    user: String,
    state: String,
    /// Its first hundred characters.
    statement: String,
}

impl ListedSession {
    fn is_checksum(&self) -> bool {
        self.user == CONTROL_USER && self.statement.starts_with(CHECKSUM)
    }

    fn waits_for_a_table(&self) -> bool {
        self.state.starts_with(WAITS_FOR_A_TABLE)
    }
}

fn is_there(result: Result<(), ControlError>) -> Result<bool, ControlError> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.server_code().is_some_and(|code| GONE.contains(&code)) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_quoted_for_the_server_and_plain_for_people() {
        let table = TableName {
            schema: "a`b".to_owned(),
            table: "c.d".to_owned(),
        };
        assert_eq!(table.quoted(), "`a``b`.`c.d`");
        assert_eq!(table.to_string(), "a`b.c.d");
    }

    #[test]
    fn only_innodb_has_snapshots() {
        let table = |engine: &str| BaseTable {
            name: TableName {
                schema: "app".to_owned(),
                table: "t".to_owned(),
            },
            engine: engine.to_owned(),
        };
        let engines = ["InnoDB", "INNODB", "MyISAM", ""];
        let snapshots = engines.map(|engine| table(engine).has_snapshots());
        assert_eq!(snapshots, [true, true, false, false]);
    }

    #[test]
    fn only_own_checksums_are_ended_and_only_waits_for_tables_count() {
        let session = |user: &str, state: &str, statement: &str| ListedSession {
            id: 7,
            user: user.to_owned(),
            state: state.to_owned(),
            statement: statement.to_owned(),
        };
        let own = session(CONTROL_USER, "executing", "CHECKSUM TABLE `a`.`b` EXTENDED");
        assert!(own.is_checksum() && !own.waits_for_a_table());
        assert!(!session(CONTROL_USER, "", "SELECT 1").is_checksum());
        assert!(!session("root", "executing", "CHECKSUM TABLE `a`.`b`").is_checksum());
        let waiting = "Waiting for table metadata lock";
        assert!(session("system user", waiting, "ALTER TABLE").waits_for_a_table());
        assert!(session("app", "Waiting for table flush", "FLUSH TABLES").waits_for_a_table());
        let commit = "Waiting for semi-sync ACK from replica";
        assert!(!session("app", commit, "COMMIT").waits_for_a_table());
    }
}
