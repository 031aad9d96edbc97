//! The index of accepted transactions: which log entries hold transactions that count.

mod index;
mod log;

pub(crate) use index::{AcceptedIndex, for_each_record};
pub use log::{
    AcceptedEntry, AcceptedLog, AcceptedTransaction, ReadBatch, ReadError, TransactionBytes,
};
