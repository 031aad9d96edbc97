//! What sled and the file system say, as this crate's errors.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::frame::Damage;
use crate::Error;

/// How the system and the standard library say that a disk is full.
const NO_ROOM: [&str; 2] = ["No space left on device", "StorageFull"];

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
    /// sled says it as an error of the file's, inside one of its own, or in a panic.
    pub(super) fn is_for_want_of_room(&self) -> bool {
        let text = match self {
            Self::Damage(_) => return false,
            Self::Io(error) | Self::Sled(sled::Error::Io(error)) => {
                if error.kind() == io::ErrorKind::StorageFull {
                    return true;
                }
                error.to_string()
            }
            Self::Sled(error) => error.to_string(),
            Self::Panic(what) => what.clone(),
        };
        NO_ROOM.iter().any(|no_room| text.contains(no_room))
    }

    pub(super) fn at(self, action: &'static str, dir: &Path) -> Error {
        let dir = dir.to_path_buf();
        if self.is_for_want_of_room() {
            return Error::Full { dir };
        }
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
