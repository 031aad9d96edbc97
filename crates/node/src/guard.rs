//! Looks whether every commit of a primary still waits for the log.

use std::sync::Arc;
use std::time::Duration;

use quorate_mysqld::{Host, Session};
use quorate_net::Net;
use quorate_role::{Input, Phase};
use tokio::time::timeout;

use crate::watchers::{ANSWER_MAX, Watcher};

/// What somebody changes by hand is noticed within these, and the time of one answer.
const LOOK: Duration = Duration::from_millis(50);
const STATUS_LOOK: Duration = Duration::from_millis(200);

/// What a guard looks at. Each has a session of its own: who asks for a variable may wait for as
/// long as the server takes to switch semi-sync off.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Guarded {
    Variables,
    Status,
}

/// The sessions that a promotion must leave alone, since they watch the gate.
pub(crate) type GuardSessions = [Option<u64>; 2];

impl<N: Net, H: Host> Watcher<N, H> {
    /// Tells role control when somebody opened the gate past us: commits are then answered that
    /// no majority has (DESIGN 4, Errant transactions).
    pub(crate) async fn guard(self: Arc<Self>, guarded: Guarded) {
        let pause = match guarded {
            Guarded::Variables => LOOK,
            Guarded::Status => STATUS_LOOK,
        };
        let mut session: Option<Session> = None;
        let mut process = None;
        loop {
            tokio::time::sleep(pause).await;
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
                let id = session.as_ref().map(Session::id);
                self.guard_sessions
                    .send_modify(|known| known[guarded as usize] = id);
            }
            let phase = self.control.borrow().phase.clone();
            let (Phase::Primary { epoch } | Phase::Draining { epoch }) = phase else {
                continue;
            };
            let Some(open) = &mut session else { continue };
            let look = async {
                match guarded {
                    Guarded::Variables => open.find_bypass().await,
                    Guarded::Status => open.find_bypass_by_status().await,
                }
            };
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
