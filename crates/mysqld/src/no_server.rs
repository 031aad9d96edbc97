use std::convert::Infallible;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use quorate_types::Uuid;

use crate::host::{Beside, BinlogFiles, Host, HostError, Signal};
use crate::marker::Marker;
use crate::settings::Settings;

/// The machine of a witness: there is no server, and never will be.
#[derive(Clone, Debug)]
pub struct NoServer {
    data_folder: PathBuf,
}

impl NoServer {
    /// `data_folder` is where a server's data would be; nothing touches it.
    #[must_use]
    pub fn new(data_folder: PathBuf) -> Self {
        Self { data_folder }
    }
}

impl Host for NoServer {
    type Process = Infallible;
    type Binlogs = NoBinlogs;

    async fn start(&self, _: &Settings) -> Result<Infallible, HostError> {
        Err(HostError::NoServer)
    }

    async fn adopt(&self) -> Result<Option<Infallible>, HostError> {
        Ok(None)
    }

    fn signal(&self, process: &Infallible, _: Signal) -> Result<(), HostError> {
        match *process {}
    }

    async fn exited(&self, process: &Infallible) {
        match *process {}
    }

    fn data_folder_exists(&self) -> bool {
        false
    }

    fn data_folder_is_free(&self) -> Result<bool, HostError> {
        Ok(true)
    }

    fn claim(&self) -> Result<bool, HostError> {
        Ok(true)
    }

    async fn plant(&self) -> Result<(), HostError> {
        Err(HostError::NoServer)
    }

    async fn wipe(&self) -> Result<(), HostError> {
        Ok(())
    }

    fn data_folder(&self) -> &Path {
        &self.data_folder
    }

    fn beside(&self, _: Beside) -> Self {
        self.clone()
    }

    async fn replace_by(&self, _: &Self) -> Result<(), HostError> {
        Err(HostError::NoServer)
    }

    fn finish_replacement(&self) -> Result<(), HostError> {
        Ok(())
    }

    async fn remove_replaced(&self) -> Result<(), HostError> {
        Ok(())
    }

    fn write_server_uuid(&self, _: Uuid) -> Result<(), HostError> {
        Err(HostError::NoServer)
    }

    fn read_marker(&self) -> Result<Option<Marker>, HostError> {
        Ok(None)
    }

    fn write_marker(&self, _: &Marker) -> Result<(), HostError> {
        Err(HostError::NoServer)
    }

    async fn with_binlogs<T: Send + 'static>(
        &self,
        work: impl FnOnce(&NoBinlogs) -> T + Send + 'static,
    ) -> T {
        work(&NoBinlogs)
    }
}

/// The binlog files of a machine without a server: none.
#[derive(Debug)]
pub struct NoBinlogs;

fn none() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl BinlogFiles for NoBinlogs {
    type File = io::Cursor<Vec<u8>>;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn open(&self, _: &str) -> io::Result<Self::File> {
        Err(none())
    }

    fn length(&self, _: &str) -> io::Result<u64> {
        Err(none())
    }

    fn keep_aside(&self, _: &str, _: &str, _: Range<u64>) -> io::Result<()> {
        Err(none())
    }

    fn drop_after(&self, _: &str) -> io::Result<()> {
        Err(none())
    }

    fn truncate(&self, _: &str, _: u64) -> io::Result<()> {
        Err(none())
    }
}
