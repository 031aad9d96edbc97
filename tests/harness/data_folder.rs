use std::path::Path;
use std::time::Duration;

use crate::machine::eventually;

/// Whether a binlog in a data folder comes to hold the text, of a row or a statement: those of small
/// transactions stand in it as they are.
///
/// # Panics
/// If the folder cannot be read.
pub async fn binlog_comes_to_hold(data: &Path, text: &str) -> bool {
    eventually(Duration::from_secs(5), async || {
        let files = std::fs::read_dir(data).expect("list the data folder");
        files
            .map(|file| file.expect("an entry").path())
            .any(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let bytes = if name.starts_with("binlog.0") {
                    std::fs::read(&path).unwrap_or_default()
                } else {
                    Vec::new()
                };
                bytes
                    .windows(text.len())
                    .any(|window| window == text.as_bytes())
            })
    })
    .await
}

/// Waits until nobody holds a killed server's lock: its files stand still from then on.
///
/// # Panics
/// If that takes 10 s.
pub async fn wait_until_server_ended(data: &Path) {
    let lock = data.join("quorate.server-lock");
    let ended = eventually(Duration::from_secs(10), async || {
        let taken = quorate_mysqld::FileLock::try_acquire(&lock);
        taken.expect("lock the data folder").is_some()
    })
    .await;
    assert!(ended, "the killed server still runs");
}
