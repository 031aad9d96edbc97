use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_types::GtidSet;

use crate::cluster::wait_for;
use crate::sql::{Sql, SqlError};

/// What a server holds: its executed set, and the checksum of every table of applications.
///
/// # Errors
/// If the server does not answer.
pub async fn fingerprint(socket: &Path) -> Result<(GtidSet, Vec<Vec<String>>), SqlError> {
    let mut sql = Sql::socket(socket).await?;
    let tables = "SELECT CONCAT('`', table_schema, '`.`', table_name, '`') FROM information_schema.tables \
                  WHERE table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') \
                  AND table_type = 'BASE TABLE' ORDER BY 1";
    let mut checksums = Vec::new();
    for row in sql.rows(tables).await? {
        checksums.extend(
            sql.rows(&format!("CHECKSUM TABLE {} EXTENDED", row[0]))
                .await?,
        );
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
    let equal = wait_for(bound, async || {
        last.clear();
        for socket in sockets {
            last.push(fingerprint(socket).await.map_err(|error| error.to_string()));
        }
        last[0].is_ok() && last.iter().all(|one| *one == last[0])
    })
    .await;
    assert!(equal, "servers differ after {bound:?}:\n{last:#?}");
}
