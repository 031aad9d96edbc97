use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use quorate_replication::{
    AcceptedEntry, AcceptedTransaction, CommittedLog, Fate, PendingFate, Propose, ReadBatch,
    ReadError, TransactionBytes,
};
use quorate_types::{Command, Fragment, Gtid, GtidSet, LogIndex, Outcome};
use tokio::sync::{oneshot, watch};

/// A log of one node, in memory: what is proposed is accepted at once.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Mutex<Shared>>,
    applied: watch::Sender<LogIndex>,
}

#[derive(Default)]
struct Shared {
    entries: BTreeMap<LogIndex, AcceptedEntry>,
    parts: BTreeMap<LogIndex, Fragment>,
    first_part: Option<LogIndex>,
    accepted: Arc<GtidSet>,
}

impl Log {
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
            applied: watch::channel(LogIndex(0)).0,
        }
    }

    /// How many entries hold a part of a large transaction.
    pub fn parts(&self) -> usize {
        self.shared.lock().expect("no panic").parts.len()
    }
}

impl Propose for Log {
    async fn propose(&self, command: Command) -> PendingFate {
        let (tx, rx) = oneshot::channel();
        let index = self.applied.borrow().next();
        let mut shared = self.shared.lock().expect("no panic");
        let mut transactions = Vec::new();
        let (epoch, source) = match command {
            Command::Transactions(batch) => {
                for transaction in batch.transactions {
                    transactions.push(AcceptedTransaction {
                        gtid: transaction.gtid,
                        checksum: transaction.checksum,
                        bytes: TransactionBytes::Whole(transaction.events),
                    });
                }
                (batch.epoch, batch.source)
            }
            Command::Fragment(part) => {
                let first = *shared.first_part.get_or_insert(index);
                if let Some(end) = part.end {
                    shared.first_part = None;
                    transactions.push(AcceptedTransaction {
                        gtid: part.gtid,
                        checksum: end.checksum,
                        bytes: TransactionBytes::Parts { first, last: index },
                    });
                }
                shared.parts.insert(index, part.clone());
                (part.epoch, part.source)
            }
            other => panic!("capture proposed {other:?}"),
        };
        let mut accepted = GtidSet::clone(&shared.accepted);
        for transaction in &transactions {
            assert!(accepted.insert(transaction.gtid), "captured twice");
        }
        shared.accepted = Arc::new(accepted);
        let count = transactions.len() as u32;
        let entry = AcceptedEntry {
            index,
            epoch,
            source,
            transactions,
        };
        shared.entries.insert(index, entry);
        drop(shared);
        self.applied.send_replace(index);
        let outcome = Outcome::Transactions {
            accepted: count,
            rejected: None,
        };
        tx.send(Fate::Applied { index, outcome })
            .expect("the receiver is below");
        rx.into()
    }
}

impl CommittedLog for Log {
    fn applied(&self) -> watch::Receiver<LogIndex> {
        self.applied.subscribe()
    }

    fn accepted(&self) -> Arc<GtidSet> {
        self.shared.lock().expect("no panic").accepted.clone()
    }

    async fn barrier(&self) -> Result<(), ReadError> {
        Ok(())
    }

    async fn seek(&self, _executed: &GtidSet) -> Result<LogIndex, ReadError> {
        Ok(LogIndex(1))
    }

    async fn read(&self, from: LogIndex, bytes_max: usize) -> Result<ReadBatch, ReadError> {
        let shared = self.shared.lock().expect("no panic");
        let mut batch = ReadBatch {
            entries: Vec::new(),
            next: self.applied.borrow().next(),
        };
        let mut bytes = 0;
        for (index, entry) in shared.entries.range(from..) {
            for transaction in &entry.transactions {
                if let TransactionBytes::Whole(events) = &transaction.bytes {
                    bytes += events.len();
                }
            }
            if bytes > bytes_max && !batch.entries.is_empty() {
                batch.next = *index;
                break;
            }
            batch.entries.push(entry.clone());
        }
        Ok(batch)
    }

    async fn read_parts(
        &self,
        gtid: Gtid,
        from: LogIndex,
        last: LogIndex,
    ) -> Result<(Vec<Fragment>, LogIndex), ReadError> {
        let shared = self.shared.lock().expect("no panic");
        let parts = shared.parts.range(from..=last);
        let mut parts = parts.filter(|(_, part)| part.gtid == gtid);
        Ok(match parts.next() {
            Some((index, part)) => (vec![part.clone()], index.next()),
            None => (Vec::new(), last.next()),
        })
    }
}
