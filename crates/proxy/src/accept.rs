use std::time::Duration;

use futures_util::StreamExt;
use quorate_net::{BoxIo, Incoming};
use tokio::task::JoinSet;

/// More sessions than mysqld would take (`max_connections` defaults to 151); past it a flood of
/// connections is dropped instead of filling the memory.
const SESSIONS_MAX: usize = 16 * 1024;
/// Out of file descriptors: the error comes back at once, and would fill the log.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// Runs a session for each connection. Dropped, it ends all of them.
pub(crate) async fn serve_each<F>(
    mut incoming: Incoming,
    port: &'static str,
    mut session: impl FnMut(BoxIo) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = sessions.join_next(), if !sessions.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(port, %error, "a session failed");
                }
            }
            connection = incoming.next() => match connection {
                Some(Ok(io)) if sessions.len() < SESSIONS_MAX => {
                    sessions.spawn(session(io));
                }
                Some(Ok(_)) => tracing::warn!(port, SESSIONS_MAX, "too many sessions"),
                Some(Err(error)) => {
                    tracing::warn!(port, %error, "accept a connection");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                }
                None => return,
            }
        }
    }
}
