//! The Raft log as openraft wants it, over any [`LogDisk`](quorate_storage::LogDisk).

mod marks;
mod read_object;
mod reader;
mod store;
mod tail;
mod writer;

pub use marks::{LogMarks, MarkSpacing};
pub(crate) use read_object::DiskReader;
pub(crate) use reader::LogReader;
pub(crate) use store::LogStore;
pub(crate) use writer::{Done, Request, Writer};
pub use writer::{Exec, WriteError};
