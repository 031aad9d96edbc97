//! Stops what the server's sessions execute whose clients lost theirs with the lease.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use quorate_mysqld::{ControlError, Session};
use quorate_net::Net;
use quorate_proxy::ServerSessions;
use quorate_types::chain;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::server::{Logins, ServerError};

const ANSWER_MAX: Duration = Duration::from_secs(2);
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// With one session of its own, which is opened when it is needed.
pub(crate) struct LostSessions<N> {
    net: N,
    logins: Logins,
    session: Mutex<Option<Session>>,
}

impl<N: Net> LostSessions<N> {
    pub(crate) fn new(net: N, logins: Logins) -> Self {
        let session = Mutex::default();
        Self {
            net,
            logins,
            session,
        }
    }

    /// Asks; a session that failed, or whose answer nobody awaited, is not used again.
    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut Session) -> Result<T, ControlError>,
    ) -> Result<T, ServerError> {
        let mut kept = self.session.lock().await;
        let mut session = match kept.take() {
            Some(session) => session,
            None => self.logins.control(&self.net).await?,
        };
        let answer = timeout(ANSWER_MAX, question(&mut session)).await;
        let answer =
            answer.map_err(|_| ServerError::Late("an answer about a session", ANSWER_MAX))??;
        *kept = Some(session);
        Ok(answer)
    }

    async fn stop_statement(&self, id: u32) {
        loop {
            let stop = async |session: &mut Session| session.stop_statement(id).await;
            match self.ask(stop).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(id, "could not stop a session: {}", chain(&error)),
            }
            sleep(ASK_AGAIN).await;
        }
    }

    async fn may_commit(&self, id: u32) -> bool {
        let look = async |session: &mut Session| session.may_commit(id).await;
        self.ask(look).await.unwrap_or(true)
    }
}

impl<N: Net> ServerSessions for LostSessions<N> {
    fn stop_statement(&self, id: u32) -> BoxFuture<'_, ()> {
        self.stop_statement(id).boxed()
    }

    fn may_commit(&self, id: u32) -> BoxFuture<'_, bool> {
        self.may_commit(id).boxed()
    }
}
