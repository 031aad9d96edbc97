//! Copying another server with the clone plugin.

use std::path::Path;

use quorate_types::Secret;

use crate::accounts::CLONE_USER;
use crate::control::{ControlError, Session, quote};
use crate::settings::Settings;

/// What the recipient says of its clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloneProgress {
    /// As MySQL names it; empty before the first.
    pub stage: String,
    /// Bytes copied so far, and how many the donor says there are.
    pub copied_bytes: u64,
    pub estimated_bytes: u64,
}

impl CloneProgress {
    /// The recipient writes to its own disk: no byte comes from the donor in this stage.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.stage == "FILE SYNC"
    }
}

/// The options of a server that no client reaches: one made to run a clone, or to look at its
/// outcome. It listens on a socket of its own.
#[must_use]
pub fn unreachable_settings(settings: &Settings) -> Settings {
    let mut own = settings.clone();
    own.socket = settings.socket.with_file_name("clone.sock");
    own.extra.push("skip-networking".to_owned());
    own
}

impl Session {
    /// Copies the server at `port` of loopback, whose [`CLONE_USER`] has this password, into
    /// `folder`, which must not exist. This server itself stays as it is, and goes on.
    ///
    /// The donor goes on too. While a commit of it waits for its ACK, the copy waits.
    pub async fn clone_into(
        &mut self,
        port: u16,
        password: &Secret,
        folder: &Path,
    ) -> Result<(), ControlError> {
        let donors = format!("SET GLOBAL clone_valid_donor_list='127.0.0.1:{port}'");
        self.run("name the donor", &donors).await?;
        let folder = folder.to_str().ok_or(ControlError::Answer {
            what: "clone: the data folder's path is no UTF-8",
        })?;
        let sql = format!(
            "CLONE INSTANCE FROM {}@'127.0.0.1':{port} IDENTIFIED BY {} DATA DIRECTORY = {}",
            quote(CLONE_USER),
            quote(password.expose()),
            quote(folder),
        );
        self.run("clone the donor", &sql).await.map(drop)
    }

    /// How far the clone of this server is.
    pub async fn clone_progress(&mut self) -> Result<CloneProgress, ControlError> {
        let what = "read how far the clone is";
        let sql = "SELECT COALESCE(MAX(IF(STATE = 'In Progress', STAGE, '')), ''), \
                   CAST(COALESCE(SUM(DATA), 0) AS UNSIGNED), \
                   CAST(COALESCE(SUM(ESTIMATE), 0) AS UNSIGNED) \
                   FROM performance_schema.clone_progress";
        let result = self.run(what, sql).await?;
        let row = result.rows.first().ok_or(ControlError::Answer { what })?;
        let text = |i| row.text(i).ok_or(ControlError::Answer { what });
        let number = |i| -> Result<u64, ControlError> {
            text(i)?.parse().map_err(|_| ControlError::Answer { what })
        };
        Ok(CloneProgress {
            stage: text(0)?,
            copied_bytes: number(1)?,
            estimated_bytes: number(2)?,
        })
    }
}
