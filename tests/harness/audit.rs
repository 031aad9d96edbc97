use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::sql::{Sql, SqlError};
use crate::writer::Outcomes;

/// The ids of the writers' rows that a server holds.
///
/// # Errors
/// If the server does not answer.
pub async fn written_rows(sql: &mut Sql) -> Result<BTreeSet<u64>, SqlError> {
    let rows = sql.rows("SELECT id FROM app.written").await?;
    Ok(rows.iter().filter_map(|row| row[0].parse().ok()).collect())
}

async fn rows_of(socket: &Path) -> BTreeSet<u64> {
    let mut sql = Sql::socket(socket).await.expect("root on the socket");
    written_rows(&mut sql).await.expect("the writers' rows")
}

/// Compares what clients were told and what readers saw with what every server holds, and lists
/// the rows whose fate nobody was told.
///
/// # Panics
/// If a server lacks a row that was acknowledged or seen, or has one that was refused or never sent.
pub async fn assert_rows_survived(sockets: &[PathBuf], outcomes: &Outcomes, seen: &BTreeSet<u64>) {
    for socket in sockets {
        let rows = rows_of(socket).await;
        let lost: Vec<_> = outcomes.acknowledged.difference(&rows).collect();
        assert!(
            lost.is_empty(),
            "{} lost acknowledged rows: {lost:?}",
            socket.display()
        );
        let vanished: Vec<_> = seen.difference(&rows).collect();
        assert!(
            vanished.is_empty(),
            "{} lacks rows that a reader saw: {vanished:?}",
            socket.display()
        );
        let refused: Vec<_> = outcomes.refused.intersection(&rows).collect();
        assert!(
            refused.is_empty(),
            "{} holds rows that were refused: {refused:?}",
            socket.display()
        );
        let sent = |id: &u64| outcomes.acknowledged.contains(id) || outcomes.unknown.contains(id);
        let foreign: Vec<_> = rows.iter().filter(|id| !sent(id)).collect();
        assert!(
            foreign.is_empty(),
            "{} holds rows that nobody sent: {foreign:?}",
            socket.display()
        );
    }
    let rows = rows_of(&sockets[0]).await;
    let neither = outcomes.unknown.difference(seen).copied();
    let (there, nowhere): (Vec<_>, Vec<_>) = neither.partition(|id| rows.contains(id));
    println!(
        "{} rows acknowledged, {} seen, {} refused; unknown and never seen: {there:?} are there, {nowhere:?} are \
         not",
        outcomes.acknowledged.len(),
        seen.len(),
        outcomes.refused.len(),
    );
}
