//! Comparing a table's content between servers, at one moment of the log.

use std::time::Duration;

use quorate_types::GtidSet;

use crate::accounts::CONTROL_USER;
use crate::control::{ControlError, ListedSession, Session, quote, quote_name};

/// The database, or the table, is not there.
const GONE: [u16; 2] = [1049, 1146];
/// A session that holds writes up is ended by the server itself when it says nothing for this long:
/// whoever opened it may stand still.
const HOLD_IDLE_S: u32 = 2;
/// The same for one that holds a snapshot.
const SNAPSHOT_IDLE_S: u32 = 60;
/// So the statements begin that others may wait for: whoever stops waiting for them ends them.
const LOCKS: &str = "LOCK TABLES";
const READS: &str = "SELECT /* compares a table */";
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
    /// If this is cancelled the server goes on for a second: see [`Session::end_comparing`].
    ///
    /// # Errors
    /// If a transaction holds the table for longer than that.
    pub async fn lock_table(&mut self, table: &TableName) -> Result<bool, ControlError> {
        let sql = format!("SET SESSION lock_wait_timeout=1, SESSION wait_timeout={HOLD_IDLE_S}");
        self.run("bound the lock of a table", &sql).await?;
        let sql = format!("{LOCKS} {} READ", table.quoted());
        let locked = self.run("keep writes out of a table", &sql).await;
        is_there(locked.map(drop))
    }

    pub async fn unlock_table(&mut self) -> Result<(), ControlError> {
        self.run("let writes go on", "UNLOCK TABLES")
            .await
            .map(drop)
    }

    /// From here on the session sees what is committed now, and nothing of later. No statement of it
    /// reads for longer than `longest`: the server sees to that alone.
    pub async fn begin_snapshot(&mut self, longest: Duration) -> Result<(), ControlError> {
        let what = "take a snapshot";
        // 0 would be no bound. The zone is what a TIMESTAMP's text depends on.
        let longest_ms = longest.as_millis().clamp(1, u32::MAX.into());
        let sql = format!(
            "SET SESSION lock_wait_timeout=1, SESSION wait_timeout={SNAPSHOT_IDLE_S}, \
             SESSION max_execution_time={longest_ms}, SESSION time_zone='+00:00'"
        );
        self.run(what, &sql).await?;
        let level = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ";
        self.run(what, level).await?;
        self.run(what, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
            .await
            .map(drop)
    }

    /// Keeps the table's definition as it is until the snapshot's end. False if there is no such
    /// table.
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

    /// How many rows there are as this session sees them, and the sum of their checksums: equal on
    /// two servers that hold the same rows, in whatever order and however they were written.
    ///
    /// If this is cancelled the server goes on: see [`Session::end_comparing`].
    pub async fn checksum_table(&mut self, table: &TableName) -> Result<String, ControlError> {
        let columns = self.stored_columns(table).await?;
        let what = "read a table for its checksum";
        let result = self.run(what, &checksum_sql(table, &columns)).await?;
        let text = |i| result.rows.first().and_then(|row| row.text(i));
        let rows = text(0).ok_or(ControlError::Answer { what })?;
        // The sum of no rows is NULL.
        let sum = text(1).unwrap_or_else(|| "0".to_owned());
        Ok(format!("{rows} rows, {sum}"))
    }

    /// Name and type of each. What is computed when it is read depends on settings of whoever reads.
    async fn stored_columns(
        &mut self,
        table: &TableName,
    ) -> Result<Vec<(String, String)>, ControlError> {
        let what = "list the columns of a table";
        let sql = format!(
            "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS WHERE \
             TABLE_SCHEMA = {} AND TABLE_NAME = {} AND EXTRA NOT LIKE '%VIRTUAL GENERATED%' \
             ORDER BY ORDINAL_POSITION",
            quote(&table.schema),
            quote(&table.table),
        );
        let result = self.run(what, &sql).await?;
        let columns = result.rows.iter();
        let columns = columns.map(|row| Some((row.text(0)?, row.text(1)?)));
        let columns: Option<Vec<_>> = columns.collect();
        columns
            .filter(|columns| !columns.is_empty())
            .ok_or(ControlError::Answer { what })
    }

    /// Ends the sessions of the control account that hold others up for a comparison: that of this
    /// id, or all.
    pub async fn end_comparing(&mut self, only: Option<u64>) -> Result<usize, ControlError> {
        let sessions = self.sessions().await?;
        let mut ended = 0;
        for session in sessions {
            if !session.compares() || only.is_some_and(|only| only != session.id) {
                continue;
            }
            self.end_session("end a comparison", session.id).await?;
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
}

impl ListedSession {
    fn compares(&self) -> bool {
        let statement = &self.statement;
        self.user == CONTROL_USER && (statement.starts_with(READS) || statement.starts_with(LOCKS))
    }

    fn waits_for_a_table(&self) -> bool {
        self.state.starts_with(WAITS_FOR_A_TABLE)
    }
}

/// Not MySQL's own CHECKSUM TABLE: of the values that an index over a JSON array holds it takes where in
/// memory they are (tried on 9.7), so that it differs between equal servers.
fn checksum_sql(table: &TableName, columns: &[(String, String)]) -> String {
    let of_column = |(name, data_type): &(String, String)| {
        // A FLOAT's text has fewer digits than it has; a double's has all.
        let exact = if data_type == "float" { " + 0e0" } else { "" };
        format!("COALESCE(CRC32({}{exact}), 'N')", quote_name(name))
    };
    let columns: Vec<_> = columns.iter().map(of_column).collect();
    let row = columns.join(", ");
    let table = table.quoted();
    // The sum, and not its bits' exclusive or: two equal rows must not cancel each other.
    format!("{READS} COUNT(*), SUM(CRC32(CONCAT_WS(',', {row}))) FROM {table}")
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
    fn only_own_comparisons_are_ended_and_only_waits_for_tables_count() {
        let session = |user: &str, state: &str, statement: &str| ListedSession {
            id: 7,
            user: user.to_owned(),
            state: state.to_owned(),
            statement: statement.to_owned(),
        };
        let table = TableName {
            schema: "a".to_owned(),
            table: "b".to_owned(),
        };
        let columns = [("x", "json"), ("y", "float")];
        let columns = columns.map(|(name, data_type)| (name.to_owned(), data_type.to_owned()));
        let reads = checksum_sql(&table, &columns);
        assert_eq!(
            reads,
            "SELECT /* compares a table */ COUNT(*), SUM(CRC32(CONCAT_WS(',', \
             COALESCE(CRC32(`x`), 'N'), COALESCE(CRC32(`y` + 0e0), 'N')))) FROM `a`.`b`"
        );
        let own = session(CONTROL_USER, "executing", &reads);
        assert!(own.compares() && !own.waits_for_a_table());
        let waiting = "Waiting for table metadata lock";
        assert!(session(CONTROL_USER, waiting, "LOCK TABLES `a`.`b` READ").compares());
        assert!(!session(CONTROL_USER, "", "SELECT 1").compares());
        assert!(!session("root", "executing", &reads).compares());
        assert!(session("system user", waiting, "ALTER TABLE").waits_for_a_table());
        assert!(session("app", "Waiting for table flush", "FLUSH TABLES").waits_for_a_table());
        let commit = "Waiting for semi-sync ACK from replica";
        assert!(!session("app", commit, "COMMIT").waits_for_a_table());
    }
}
