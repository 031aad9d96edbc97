use std::path::Path;
use std::time::Duration;

use crate::machine::eventually;
use crate::node_process::NodeProcess;
use crate::sql::Sql;

/// What a sidecar may say while [`make_errant`] writes: it looks every 3 s.
pub const TAKES_WRITES: &str = "mysqld, a replica, takes writes or is a semi-sync source";

/// Of the row that [`make_errant`] writes: no writer gets there.
pub const ERRANT_ID: u64 = 999_000_000;

/// What a person with too many rights does: a write on this server alone.
///
/// # Panics
/// If the server does not let root do it.
pub async fn make_errant(node: &NodeProcess) {
    let mut sql = Sql::socket(&node.socket())
        .await
        .expect("root on the socket");
    // A commit does not wait for a replica to apply it.
    let table = "SELECT COUNT(*) FROM app.written";
    let there = eventually(Duration::from_secs(10), async || {
        sql.value(table).await.is_ok()
    });
    assert!(there.await, "the replica never has the table");
    for statement in [
        "SET GLOBAL read_only=OFF",
        &format!("INSERT INTO app.written VALUES ({ERRANT_ID}, 'by hand')"),
    ] {
        sql.run(statement).await.expect(statement);
    }
    // The sidecar may have ended the server by now.
    let _ = sql.run("SET GLOBAL super_read_only=ON").await;
}

/// Nothing that a clone needed is left beside the data folder.
///
/// # Panics
/// If something is.
pub fn assert_nothing_beside(node: &NodeProcess) {
    for folder in ["mysql.scratch", "mysql.cloned", "mysql.replaced"] {
        assert!(!node.dir.join(folder).exists(), "{folder} was left");
    }
}

/// Puts a copy of a folder in the place of another; both are the caller's own.
///
/// # Panics
/// If it cannot be removed or copied.
pub fn replace_folder(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to).expect("remove a folder");
    copy_folder(from, to);
}

/// Copies a folder whole; both ends are the caller's own.
///
/// # Panics
/// If it cannot be copied.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("make a folder");
    for entry in std::fs::read_dir(from).expect("list a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        let kind = entry.file_type().expect("its kind");
        if kind.is_dir() {
            copy_folder(&entry.path(), &target);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target).expect("copy a file");
        }
    }
}
