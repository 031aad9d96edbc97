use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_types::GtidSet;

use crate::machine::eventually;
use crate::sql::{Sql, SqlError};

/// What a server holds: its executed set, and the checksum of every table of applications.
///
/// # Errors
/// If the server does not answer.
pub async fn fingerprint(socket: &Path) -> Result<(GtidSet, Vec<Vec<String>>), SqlError> {
    let mut sql = Sql::socket(socket).await?;
    // Of the values of an index over a JSON array MySQL's checksum takes where in memory they are
    // (tried): tables with documents are compared by the text of their rows.
    let tables = "SELECT CONCAT('`', table_schema, '`.`', table_name, '`'), \
                  (SELECT GROUP_CONCAT('`', column_name, '`' ORDER BY ordinal_position) FROM information_schema.columns c \
                  WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name \
                  HAVING SUM(data_type = 'json') > 0) FROM information_schema.tables t \
                  WHERE table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') \
                  AND table_type = 'BASE TABLE' ORDER BY 1";
    let mut checksums = Vec::new();
    for row in sql.rows(tables).await? {
        let (table, documents) = (&row[0], &row[1]);
        let checksum = match documents.as_str() {
            "NULL" => format!("CHECKSUM TABLE {table} EXTENDED"),
            columns => format!(
                "SELECT '{table}', COUNT(*), BIT_XOR(CRC32(CONCAT_WS('#', {columns}))) FROM {table}"
            ),
        };
        checksums.extend(sql.rows(&checksum).await?);
    }
    let executed = sql.value("SELECT @@global.gtid_executed").await?;
    Ok((executed.parse().expect("a server's own set"), checksums))
}

/// Waits until all servers executed the same transactions, then compares every table.
///
/// # Panics
/// If they do not come to agree within the bound.
pub async fn assert_servers_equal(sockets: &[PathBuf], bound: Duration) {
    let mut last = Vec::new();
    let equal = eventually(bound, async || {
        last.clear();
        for socket in sockets {
            last.push(fingerprint(socket).await.map_err(|error| error.to_string()));
        }
        last[0].is_ok() && last.iter().all(|one| *one == last[0])
    })
    .await;
    assert!(equal, "servers differ after {bound:?}:\n{last:#?}");
}
