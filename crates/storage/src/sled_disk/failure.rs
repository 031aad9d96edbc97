//! What sled and the file system say, as this crate's errors.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::frame::Damage;
use crate::Error;

/// Why a step inside the store failed; [`Failure::at`] makes it this crate's error.
#[derive(Debug)]
pub(super) enum Failure {
    Damage(&'static str),
    Sled(sled::Error),
    Io(io::Error),
    /// sled gave up in a panic.
    Panic(String),
}

impl From<sled::Error> for Failure {
    fn from(error: sled::Error) -> Self {
        Self::Sled(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Damage> for Failure {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage.0)
    }
}

impl Failure {
    pub(super) fn at(self, action: &'static str, dir: &Path) -> Error {
        let dir = dir.to_path_buf();
        match self {
            Self::Damage(what) => Error::Corrupt {
                dir,
                what: what.to_owned(),
            },
            Self::Sled(error @ sled::Error::Corruption { .. }) => Error::Corrupt {
                dir,
                what: error.to_string(),
            },
            // sled has no variant for its file's lock.
            Self::Sled(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock") =>
            {
                Error::InUse { dir }
            }
            Self::Io(source) | Self::Sled(sled::Error::Io(source)) => Error::Io {
                action,
                dir,
                source,
            },
            Self::Sled(error) => Error::Io {
                action,
                dir,
                source: io::Error::other(error),
            },
            Self::Panic(what) => Error::Io {
                action,
                dir,
                source: io::Error::other(format!("sled panicked: {what}")),
            },
        }
    }
}

/// sled panics where it finds damage or a full disk; here that is an error like any other. What
/// it leaves behind is not used again: every error is fatal to the node.
pub(super) fn guarded<T>(step: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Failure::Panic(text.unwrap_or("without a word").to_owned()))
    })
}
