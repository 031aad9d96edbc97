//! Looks whether every commit of a primary still waits for the log.

use std::sync::Arc;
use std::time::Duration;

use quorate_mysqld::{Host, Session};
use quorate_net::Net;
use quorate_role::{Input, Phase};
use tokio::time::timeout;

use crate::watchers::{ANSWER_MAX, Watcher};

/// What somebody changes by hand is noticed within this, and the time of one answer.
const LOOK: Duration = Duration::from_millis(50);
/// To count the replicas, the server adds up the counters of all its sessions: not each time.
const REPLICAS_EVERY: u32 = 4;

impl<N: Net, H: Host> Watcher<N, H> {
    /// Tells role control when somebody opened the gate past us: commits are then answered that
    /// no majority has (DESIGN 4, Errant transactions).
    pub(crate) async fn guard(self: Arc<Self>) {
        let mut session: Option<Session> = None;
        let mut process = None;
        let mut looks = 0u32;
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self
                .running
                .borrow()
                .as_ref()
                .filter(|running| running.identity.is_some())
                .map(|running| running.process.clone());
            let same = match (&process, &now) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                _ => false,
            };
            if !same {
                session = None;
            }
            process = now;
            if process.is_none() {
                continue;
            }
            // Opened long before it is needed: an account statement that waits blocks every login.
            if session.is_none() {
                session = self.logins.control(&self.net).await.ok();
                self.guard_session
                    .send_replace(session.as_ref().map(Session::id));
            }
            let phase = self.control.borrow().phase.clone();
            let (Phase::Primary { epoch } | Phase::Draining { epoch }) = phase else {
                continue;
            };
            let Some(open) = &mut session else { continue };
            looks = looks.wrapping_add(1);
            let look = open.find_bypass(looks.is_multiple_of(REPLICAS_EVERY));
            match timeout(ANSWER_MAX, look).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(why))) => {
                    let _ = self.inputs.send(Input::Bypassed { epoch, why }).await;
                }
                Ok(Err(_)) | Err(_) => session = None,
            }
        }
    }
}
