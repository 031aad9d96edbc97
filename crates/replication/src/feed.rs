//! The accepted transactions as a MySQL replication source.
//!
//! Every consumer is a task with a cursor of its own. What it is sent comes from
//! [`CommittedLog`] alone; of the log it holds one read's worth of entries at a time.
//!
//! A consumer says by its GTID set where it is. A dump from a file and position is refused, but for
//! the one from the very beginning ([`START_FILE`], position 4): positions here are made up for each
//! consumer, and mean nothing to another node's feed.

mod dump;
mod query;
mod session;
mod sink;
mod variables;
mod virtual_file;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use quorate_mysql_wire::{Scramble, clean_scramble};
use quorate_net::Listener;
use quorate_types::{ClusterId, GtidSet, Secret, Uuid};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use crate::contract::CommittedLog;
use crate::metrics::FeedMetrics;

pub use virtual_file::START_FILE;

/// After an error of the listener, so that a lasting one (no more file descriptors) does not spin.
const ACCEPT_WAIT: Duration = Duration::from_millis(50);

/// The password of an account; none if there is no such account.
pub type Accounts = Arc<dyn Fn(&str) -> Option<Secret> + Send + Sync>;

/// How the feed presents itself.
#[derive(Clone)]
pub struct FeedOptions {
    /// The group's: consumers judge by it what they may ask for.
    pub server_version: String,
    /// The same on every node's feed, and no server's: see [`stable_identity`].
    pub server_uuid: Uuid,
    pub server_id: u32,
    /// If given, consumers must use it: it may be what tells friend from foe.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub accounts: Accounts,
    /// Seconds since 1970, by which replicas tell how far they are behind.
    pub unix_seconds: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Transactions beyond the accepted set that a consumer may have all the same, since they
    /// change nothing: FLUSH by hand on a replica, for one.
    pub inert: Arc<dyn Fn() -> GtidSet + Send + Sync>,
    /// How many transactions a consumer may apply beside each other: the workers of our own
    /// replicas (see [`quorate_binlog::limit_parallel`]).
    pub parallel_max: u32,
    /// For the salts of logins: random, but in a simulation.
    pub seed: u64,
}

impl std::fmt::Debug for FeedOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeedOptions")
            .field("server_version", &self.server_version)
            .field("server_uuid", &self.server_uuid)
            .field("server_id", &self.server_id)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// The server uuid and server id of a cluster's feeds. A replica may go from one node's feed to
/// another's without noticing.
///
/// The uuid is of version 8, which no server draws; the id has its highest bit set, which the
/// configuration gives to no server.
#[must_use]
pub fn stable_identity(cluster: ClusterId) -> (Uuid, u32) {
    let mut uuid = [0; 16];
    // Written out, since what a crate's generator gives may change with its release.
    let spread = |salt: u64| {
        let mut x = cluster.0 ^ salt;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    uuid[..8].copy_from_slice(&spread(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    uuid[8..].copy_from_slice(&spread(0x3c6e_f372_fe94_f82a).to_be_bytes());
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let server_id = spread(0xdaa6_6d2c_7ddf_743f) as u32 | 1 << 31;
    (Uuid(uuid), server_id)
}

/// Serves accepted transactions to whoever has an account.
pub struct Feed<L> {
    log: L,
    options: Arc<FeedOptions>,
    metrics: Arc<FeedMetrics>,
}

impl<L> std::fmt::Debug for Feed<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<L: CommittedLog> Feed<L> {
    #[must_use]
    pub fn new(log: L, options: FeedOptions, metrics: Arc<FeedMetrics>) -> Self {
        Self {
            log,
            options: Arc::new(options),
            metrics,
        }
    }

    /// Serves until the listener ends. Dropping it closes every consumer's connection.
    pub async fn run(self, mut listener: Listener) {
        let mut scrambles = Scrambles::new(self.options.seed);
        let mut sessions = JoinSet::new();
        let mut next_id: u32 = 1;
        loop {
            tokio::select! {
                biased;
                Some(_) = sessions.join_next() => {}
                incoming = listener.incoming.next() => match incoming {
                    None => return,
                    Some(Err(error)) => {
                        tracing::warn!(%error, "the feed could not accept a connection");
                        tokio::time::sleep(ACCEPT_WAIT).await;
                    }
                    Some(Ok(io)) => {
                        let session = session::Session {
                            connection_id: next_id,
                            log: self.log.clone(),
                            options: Arc::clone(&self.options),
                            metrics: Arc::clone(&self.metrics),
                        };
                        sessions.spawn(session.serve(io, scrambles.next()));
                        next_id = next_id.wrapping_add(1).max(1);
                    }
                }
            }
        }
    }
}

/// A salt for each login: whoever guesses the next one could have its answer ready.
struct Scrambles(StdRng);

impl Scrambles {
    fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    fn next(&mut self) -> Scramble {
        let mut random = [0; 20];
        self.0.fill_bytes(&mut random);
        clean_scramble(random)
    }
}

#[cfg(test)]
mod tests;
