use std::time::Duration;

use bytes::Bytes;
use quorate_binlog::build::EventBuilder;
use quorate_binlog::{empty_checksum, empty_transaction};
use quorate_mysqld::Host;
use quorate_net::Net;
use quorate_replication::{Fate, Propose};
use quorate_types::{
    BinlogSource, Command, Epoch, Gtid, GtidSet, Outcome, Transaction, TransactionBatch,
};

use super::{JobContext, JobError};
use crate::adapters::EpochProposer;
use crate::server::ServerState;

/// A few hundred bytes each: well below what an entry may hold.
const BATCH: usize = 512;
const REFUSED_WAIT: Duration = Duration::from_millis(10);
/// The feed begins a new file for it, since these logical clocks are of no binlog.
const FILE: &str = "quorate-inert";

impl<N: Net, H: Host> JobContext<N, H> {
    /// Makes what only this server has, and what changes nothing (FLUSH, ANALYZE), everybody's:
    /// as empty transactions, the first ones of the epoch. Gives what is accepted then, and the
    /// number of the epoch's next transaction.
    ///
    /// The server's commits wait already, so its set stands still.
    pub(super) async fn share_inert(
        &self,
        server: &mut ServerState<H>,
        epoch: Epoch,
        accepted: &GtidSet,
    ) -> Result<(GtidSet, u64), JobError> {
        let executed = server.session(&self.net).await?.gtid_executed().await?;
        let more = executed.difference(accepted);
        if more.is_empty() {
            return Ok((accepted.clone(), 1));
        }
        let errant = self.own_groups.errant(&server.host, &more).await?;
        if !errant.is_empty() {
            return Err(JobError::Failed(format!(
                "it executed transactions that were never accepted: {errant}"
            )));
        }
        self.doing("giving all servers the transactions that change nothing");
        let version = server.session(&self.net).await?.identity().await?;
        let builder = EventBuilder::new(server.settings.server_id);
        let source = BinlogSource {
            file: FILE.into(),
            format: builder.format_description(&version.version_text, 0),
        };
        let gtids: Vec<Gtid> = gtids(&more).collect();
        let mut number = 1;
        for gtids in gtids.chunks(BATCH) {
            let empty = |(gtid, number): (&Gtid, i64)| Transaction {
                gtid: *gtid,
                checksum: empty_checksum(*gtid),
                events: Bytes::from(empty_transaction(*gtid, number, &builder).concat()),
            };
            let batch = TransactionBatch {
                epoch,
                first_number: number,
                source: source.clone(),
                transactions: gtids.iter().zip(number as i64..).map(empty).collect(),
            };
            self.propose_whole(batch).await?;
            number += gtids.len() as u64;
        }
        let mut all = accepted.clone();
        all.union(&more);
        Ok((all, number))
    }

    /// Returns when all of it is accepted.
    async fn propose_whole(&self, batch: TransactionBatch) -> Result<(), JobError> {
        let (epoch, count) = (batch.epoch, batch.transactions.len());
        let propose = EpochProposer {
            consensus: self.consensus.clone(),
            epoch,
        };
        loop {
            let fate = propose.propose(Command::Transactions(batch.clone())).await;
            match fate.await {
                Fate::Applied {
                    outcome:
                        Outcome::Transactions {
                            accepted,
                            rejected: None,
                        },
                    ..
                } if accepted as usize == count => return Ok(()),
                Fate::Refused => {
                    self.still_ours(epoch)?;
                    tokio::time::sleep(REFUSED_WAIT).await;
                }
                Fate::Applied { .. } | Fate::Unknown => return Err(JobError::EpochOver),
            }
        }
    }
}

fn gtids(set: &GtidSet) -> impl Iterator<Item = Gtid> {
    set.iter().flat_map(|(source, interval)| {
        (interval.start..interval.end).map(move |sequence| Gtid { source, sequence })
    })
}
