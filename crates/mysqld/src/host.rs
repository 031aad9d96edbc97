use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use quorate_types::{KeptCut, Uuid};

use crate::marker::{Marker, MarkerParseError};
use crate::seed::SeedError;
use crate::service_manager::ServiceManagerError;
use crate::settings::Settings;
use crate::version::Version;

/// What fits into a socket's address on Linux.
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What may be sent to a server's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Only for a server that is a read-only replica and no semi-sync source: any other one commits
    /// what waits, and tells its clients so.
    Terminate,
    Kill,
}

/// A folder beside the data folder, on the same file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Of a server made from the seed, which only runs the clone.
    Scratch,
    /// What the clone makes, until it takes the data folder's place.
    Cloned,
}

/// Why something about a data folder or its process failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("{what} {}", path.display())]
    Files {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("read the marker file")]
    Marker(#[from] MarkerParseError),
    #[error("make a data folder from the seed")]
    Seed(#[from] SeedError),
    #[error(transparent)]
    Manager(#[from] ServiceManagerError),
    #[error("the data folder belongs to another process")]
    NotOurs,
    #[error("servers of this host run no statements by themselves")]
    NoInitFile,
    #[error("a process still uses the data folder")]
    InUse,
    #[error("this node has no server")]
    NoServer,
    #[error(
        "the path of the server's socket, {}, is longer than {SOCKET_PATH_BYTES_MAX} bytes: use a \
         folder with a shorter path",
        .0.display()
    )]
    SocketPath(PathBuf),
    #[error(
        "MySQL {new} would start on data that MySQL {old} did not shut down cleanly: let {old} start here \
         once (`mysqld.program`), or remove the data folder, so that it is cloned from a server of its series"
    )]
    UncleanUpgrade { old: Version, new: Version },
}

/// The machine that one mysqld runs on: its process and its files.
///
/// The simulation has another one. Everything that decides is above this trait.
///
/// **Ownership.** Every call but [`Host::claim`] expects the claim to be held if the data folder
/// exists; two sidecars never work on one folder.
///
/// **Cancellation.** A future that is dropped may leave its work done, half done or not done, but
/// always so that the same call can be made again.
pub trait Host: Clone + Send + Sync + 'static {
    /// Names one process for ever. Dropping it leaves the process running.
    type Process: Send + Sync + 'static;
    type Binlogs: BinlogFiles;

    /// Starts the server in a session of its own, so that it outlives this process. Returns before
    /// the server answers. Refused while the data folder is in use.
    fn start(
        &self,
        settings: &Settings,
    ) -> impl Future<Output = Result<Self::Process, HostError>> + Send;

    /// The running server of this data folder, if there is one: executable and data folder are
    /// checked, no process id is believed.
    fn adopt(&self) -> impl Future<Output = Result<Option<Self::Process>, HostError>> + Send;

    /// A process that ended already is no error.
    fn signal(&self, process: &Self::Process, signal: Signal) -> Result<(), HostError>;

    /// Returns when the process is gone with all its threads, and reaped if need be. May be called
    /// any number of times.
    fn exited(&self, process: &Self::Process) -> impl Future<Output = ()> + Send;

    fn data_folder_exists(&self) -> bool;

    /// Whether no process holds the locks that a server of this folder holds from before it opens
    /// the first file until it is gone.
    fn data_folder_is_free(&self) -> Result<bool, HostError>;

    /// Locks the folder for this process. False if another one has it.
    fn claim(&self) -> Result<bool, HostError>;

    /// Makes a new server's data folder, whole and synced, from the seed; and claims it.
    fn plant(&self) -> impl Future<Output = Result<(), HostError>> + Send;

    /// Removes the data folder. Refused while it is in use.
    fn wipe(&self) -> impl Future<Output = Result<(), HostError>> + Send;

    fn data_folder(&self) -> &Path;

    /// This machine with another data folder. Its claim is its own.
    fn beside(&self, which: Beside) -> Self;

    /// Puts `cloned`, which is claimed, has a marker, and is not in use, in the data folder's place
    /// and claims that. Whole and synced before the old folder goes.
    ///
    /// **Crash.** After one the data folder is the old one or the new one, once
    /// [`Host::finish_replacement`] was called.
    fn replace_by(&self, cloned: &Self) -> impl Future<Output = Result<(), HostError>> + Send;

    /// Ends a replacement that a crash interrupted. To be called before anything asks for the data
    /// folder of a process that just began.
    fn finish_replacement(&self) -> Result<(), HostError>;

    /// Removes what a replaced folder left.
    fn remove_replaced(&self) -> impl Future<Output = Result<(), HostError>> + Send;

    /// The uuid that a server of this folder has from its next start on.
    fn write_server_uuid(&self, uuid: Uuid) -> Result<(), HostError>;

    /// Statements that a server of this folder runs before anybody reaches it (`--init-file`): they
    /// may hold passwords, so only the owner may read them.
    fn write_init_file(&self, _sql: &str) -> Result<PathBuf, HostError> {
        Err(HostError::NoInitFile)
    }

    /// Whether there is one: a server of this process, or of one before it, may run on the folder.
    fn has_init_file(&self) -> bool {
        false
    }

    /// One that is gone is no error.
    fn remove_init_file(&self) -> Result<(), HostError> {
        Ok(())
    }

    /// None if the folder has no marker.
    fn read_marker(&self) -> Result<Option<Marker>, HostError>;

    /// Synced when it returns; a crash leaves the old marker or the new one.
    fn write_marker(&self, marker: &Marker) -> Result<(), HostError>;

    /// Runs blocking work on the binlog files where it hurts nobody.
    fn with_binlogs<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self::Binlogs) -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send;
}

/// The binlog files of a server that does not run.
///
/// **Crash promises.** Each call that changes something is synced when it returns, and a crash in it
/// leaves the state before or after it, or one in which the same call can be made again.
pub trait BinlogFiles: Send + Sync + 'static {
    type File: io::Read + io::Seek + Send + 'static;

    /// The files in the index, oldest first. Empty if there is no index.
    fn list(&self) -> io::Result<Vec<String>>;

    fn open(&self, file: &str) -> io::Result<Self::File>;

    /// A binlog file that its server did not close, of this binlog or of one of another name that is
    /// in the folder too; none if all were closed, or there are none.
    fn left_open(&self) -> io::Result<Option<String>> {
        Ok(None)
    }

    fn length(&self, file: &str) -> io::Result<u64>;

    /// Copies a range of `file` into the folder `label` among the cuts that are kept, under a name
    /// made of the file's and the range's start. Keeping it again replaces the copy.
    fn keep_aside(&self, label: &str, file: &str, range: Range<u64>) -> io::Result<()>;

    /// Says beside the copies, for people, what they are.
    fn describe_kept(&self, _label: &str, _text: &str) -> io::Result<()> {
        Ok(())
    }

    /// The cuts that are kept, in no order.
    fn kept(&self) -> io::Result<Vec<KeptCut>> {
        Ok(Vec::new())
    }

    /// Removes a kept cut. One that is gone is no error.
    fn forget_kept(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    /// Takes all files after `last` out of the index, then removes them.
    fn drop_after(&self, last: &str) -> io::Result<()>;

    /// Shortens the file, and marks it as not closed, so that the server recovers from it: else
    /// it would leave the transactions that are prepared in the engine as they are.
    fn truncate(&self, file: &str, length: u64) -> io::Result<()>;
}
