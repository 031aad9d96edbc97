//! One table of this node's server as it was at one moment, and its checksum.
//!
//! A server does not notice that nobody waits for a checksum any more, and what changes a table's
//! definition waits for it, on a replica the applier. So whoever stops waiting ends it, and it is
//! ended when something waits for a table.

use std::path::PathBuf;
use std::time::Duration;

use quorate_mysqld::{ControlError, Session, TableName};
use quorate_net::Net;
use quorate_types::{Epoch, chain};
use tokio::time::timeout;

use super::{STEP_MAX, State};
use crate::server::{Logins, ServerError};

/// Between two looks whether a checksum is in somebody's way.
const LOOK: Duration = Duration::from_millis(200);
/// How often it is tried to end a checksum that nobody waits for. Between two tries: [`STEP_MAX`].
const TRIES: u32 = 60;

/// How to get into the server, and where it is noted that checksums may be under way in it.
#[derive(Clone)]
pub(crate) struct Server<N> {
    pub(crate) net: N,
    pub(crate) logins: Logins,
    pub(crate) note: PathBuf,
}

/// Dropped while it is read, it ends what the server does for it.
pub(super) struct Snapshot<N: Net> {
    table: TableName,
    session: Session,
    /// Another session, which sees whom this one holds up.
    watching: Session,
    /// How long it may be read.
    longest: Duration,
    server: Server<N>,
}

impl<N: Net> Server<N> {
    pub(super) async fn session(&self) -> Result<Session, ServerError> {
        self.logins.control(&self.net).await
    }

    /// None if there is no such table. Whoever has it changed waits from now on, until the snapshot
    /// is read or dropped.
    pub(super) async fn snapshot(
        &self,
        mut session: Session,
        watching: Session,
        table: &TableName,
        longest: Duration,
    ) -> Result<Option<Snapshot<N>>, ControlError> {
        session.begin_snapshot(longest).await?;
        if !session.keep_definition(table).await? {
            return Ok(None);
        }
        Ok(Some(Snapshot {
            table: table.clone(),
            session,
            watching,
            longest,
            server: self.clone(),
        }))
    }

    /// From here until it is dropped or told that it is over, the statement of this session is ended
    /// with whoever waits for it.
    pub(super) fn ends_with_us(&self, session: &Session) -> EndOnDrop<N> {
        EndOnDrop {
            server: self.clone(),
            id: Some(session.id()),
        }
    }

    /// Whether a server that went on without its sidecar may still compute what a comparison before
    /// this start asked for.
    pub(crate) fn may_have_some_left(&self) -> bool {
        self.note.exists()
    }

    pub(crate) async fn end_what_is_left(self) {
        if self.end_comparing(None).await {
            let _ = std::fs::remove_file(&self.note);
        }
    }

    /// Whether the server said that there is none any more.
    async fn end_comparing(&self, only: Option<u64>) -> bool {
        for _ in 0..TRIES {
            let ended = async {
                let mut session = self.session().await.ok()?;
                session.end_comparing(only).await.ok()
            };
            if let Ok(Some(_)) = timeout(STEP_MAX, ended).await {
                return true;
            }
            tokio::time::sleep(STEP_MAX).await;
        }
        false
    }
}

impl<N: Net> Snapshot<N> {
    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Reads it, while this is the epoch here.
    ///
    /// # Errors
    /// Why there is none, in words for people.
    pub(super) async fn checksum(mut self, state: &State, epoch: Epoch) -> Result<String, String> {
        // Before anything is under way that it is to tell of.
        std::fs::write(&self.server.note, "")
            .map_err(|error| format!("it cannot note what it does: {error}"))?;
        let end = self.server.ends_with_us(&self.session);
        let read = tokio::select! {
            biased;
            read = self.session.checksum_table(&self.table) => read,
            why = in_the_way(&mut self.watching, state, epoch) => return Err(why),
            () = tokio::time::sleep(self.longest) => {
                return Err(format!("it takes longer than {} s", self.longest.as_secs()));
            }
        };
        end.disarm();
        read.map_err(|error| chain(&error))
    }
}

/// Returns when a checksum must end, and says why.
async fn in_the_way(watching: &mut Session, state: &State, epoch: Epoch) -> String {
    loop {
        tokio::time::sleep(LOOK).await;
        if state.borrow().epoch != Some(epoch) {
            return "the primary changed".to_owned();
        }
        match timeout(STEP_MAX, watching.somebody_waits_for_a_table()).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => return "a statement waited for a table".to_owned(),
            Ok(Err(error)) => return chain(&error),
            Err(_) => return "its server does not answer".to_owned(),
        }
    }
}

pub(super) struct EndOnDrop<N: Net> {
    server: Server<N>,
    /// Of the session; none when there is nothing to end.
    id: Option<u64>,
}

impl<N: Net> EndOnDrop<N> {
    pub(super) fn disarm(mut self) {
        self.id = None;
    }
}

impl<N: Net> Drop for EndOnDrop<N> {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id, tokio::runtime::Handle::try_current()) else {
            return;
        };
        let server = self.server.clone();
        runtime.spawn(async move {
            server.end_comparing(Some(id)).await;
        });
    }
}
