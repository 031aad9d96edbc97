//! Comparing a table's content between servers, at one moment of the log.

use quorate_types::GtidSet;

use crate::control::{ControlError, Session, quote_name};

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

impl Session {
    /// All tables with rows of their own, but MySQL's.
    pub async fn base_tables(&mut self) -> Result<Vec<TableName>, ControlError> {
        let sql = "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
                   WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA NOT IN \
                   ('mysql', 'sys', 'information_schema', 'performance_schema') ORDER BY 1, 2";
        let result = self.run("list the tables", sql).await?;
        let rows = result.rows.iter();
        Ok(rows
            .filter_map(|row| {
                Some(TableName {
                    schema: row.text(0)?,
                    table: row.text(1)?,
                })
            })
            .collect())
    }

    /// Keeps writes out of the table until [`Session::unlock_table`] or the session's end. When it
    /// returns, every transaction that wrote to it is committed and in `gtid_executed`.
    ///
    /// # Errors
    /// If a transaction holds the table for longer than `wait_s`.
    pub async fn lock_table(&mut self, table: &TableName, wait_s: u32) -> Result<(), ControlError> {
        let sql = format!("SET SESSION lock_wait_timeout={}", wait_s.max(1));
        self.run("bound the wait for locks", &sql).await?;
        let sql = format!("LOCK TABLES {} READ", table.quoted());
        self.run("keep writes out of a table", &sql).await.map(drop)
    }

    pub async fn unlock_table(&mut self) -> Result<(), ControlError> {
        self.run("let writes go on", "UNLOCK TABLES")
            .await
            .map(drop)
    }

    /// From here on the session sees what is committed now, and nothing of later.
    pub async fn begin_snapshot(&mut self) -> Result<(), ControlError> {
        let what = "take a snapshot";
        let level = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ";
        self.run(what, level).await?;
        self.run(what, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
            .await
            .map(drop)
    }

    pub async fn end_snapshot(&mut self) -> Result<(), ControlError> {
        self.run("give a snapshot back", "ROLLBACK").await.map(drop)
    }

    /// Whether the server has executed the set within so many seconds.
    pub async fn executes(&mut self, set: &GtidSet, wait_s: f64) -> Result<bool, ControlError> {
        let sql = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{set}', {wait_s})");
        let result = self.run("wait for what is compared", &sql).await?;
        Ok(result.scalar().as_deref() == Some("0"))
    }

    /// Of all rows, as this session sees them; none if the table is not there.
    pub async fn checksum_table(
        &mut self,
        table: &TableName,
    ) -> Result<Option<String>, ControlError> {
        let sql = format!("CHECKSUM TABLE {} EXTENDED", table.quoted());
        let result = self.run("read a table for its checksum", &sql).await?;
        Ok(result.rows.first().and_then(|row| row.text(1)))
    }
}
