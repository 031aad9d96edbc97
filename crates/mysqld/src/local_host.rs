use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use quorate_types::Uuid;
use rustix::fs::{FlockOperation, fcntl_lock};

use crate::binlog_files::{LocalBinlogs, replace_file, sync_folder, unless_gone};
use crate::exec_server;
use crate::file_lock::FileLock;
use crate::host::{Beside, BinlogFiles, Host, HostError, SOCKET_PATH_BYTES_MAX, Signal};
use crate::installation::Installation;
use crate::marker::Marker;
use crate::process::{self, ServerProcess};
use crate::seed::Seed;
use crate::service_manager::{Running, ServiceManager};
use crate::settings::Settings;

/// Held by the sidecar that owns the folder.
const OWNER_LOCK: &str = "quorate.lock";
/// Held by the server itself.
pub(crate) const SERVER_LOCK: &str = "quorate.server-lock";
pub(crate) const MARKER: &str = "quorate.marker";
const MARKER_NEW: &str = "quorate.marker-new";
/// What a server runs at its start on data that were there before.
const INIT_FILE: &str = "quorate.init.sql";
/// InnoDB locks this one for as long as it runs.
const SYSTEM_TABLESPACE: &str = "ibdata1";

/// Where everything of one server is. All paths are absolute.
#[derive(Clone, Debug)]
pub struct LocalHostOptions {
    pub installation: Installation,
    pub seed: Seed,
    /// The binary whose subcommand [`exec_server::EXEC_SERVER`] runs servers.
    pub launcher: PathBuf,
    pub data_folder: PathBuf,
    /// Where cut tails are kept.
    pub cut_folder: PathBuf,
    /// The server's own output; appended to.
    pub log_file: PathBuf,
    /// For people and tests.
    pub pid_file: PathBuf,
    /// Who runs servers of the data folder. Servers of folders beside it are always children.
    pub manager: Option<ServiceManager>,
}

#[cfg(test)]
impl LocalHostOptions {
    /// Of a machine on which no server is started.
    pub(crate) fn unused(folder: &Path) -> Self {
        Self {
            installation: Installation::unused(),
            seed: Seed::at(folder.join("seed")),
            launcher: PathBuf::new(),
            data_folder: folder.join("mysql"),
            cut_folder: folder.join("cut"),
            log_file: folder.join("log"),
            pid_file: folder.join("pid"),
            manager: None,
        }
    }
}

/// This machine.
#[derive(Clone, Debug)]
pub struct LocalHost {
    options: Arc<LocalHostOptions>,
    pub(crate) claim: Arc<Mutex<Option<FileLock>>>,
    /// Of the service manager, to end a server.
    pub(crate) commands: Arc<Mutex<Vec<Running>>>,
}

impl LocalHost {
    #[must_use]
    pub fn new(options: LocalHostOptions) -> Self {
        Self {
            options: Arc::new(options),
            claim: Arc::default(),
            commands: Arc::default(),
        }
    }

    #[must_use]
    pub fn options(&self) -> &LocalHostOptions {
        &self.options
    }

    fn in_data_folder(&self, name: &str) -> PathBuf {
        self.options.data_folder.join(name)
    }

    /// A killed server leaves its socket and the socket's lock file, which names a process id: a new
    /// one refuses to start while that id is taken, if only by a zombie that nobody reaped.
    fn remove_stale_socket(&self, settings: &Settings) -> Result<(), HostError> {
        if !self.data_folder_is_free()? {
            return Err(HostError::InUse);
        }
        let mut lock = settings.socket.clone().into_os_string();
        lock.push(".lock");
        for path in [settings.socket.clone(), PathBuf::from(lock)] {
            unless_gone(std::fs::remove_file(&path)).map_err(at("remove the old socket", &path))?;
        }
        Ok(())
    }

    /// InnoDB's recovery is that of one release series: a newer one may misread what a crash left.
    fn refuse_unclean_upgrade(&self) -> Result<(), HostError> {
        let folder = &self.options.data_folder;
        if !self.data_folder_exists() {
            return Ok(());
        }
        let binlogs = LocalBinlogs::new(folder.clone(), self.options.cut_folder.clone());
        let last = binlogs.left_open();
        let Some(last) = last.map_err(at("look for the last binlog file in", folder))? else {
            return Ok(());
        };
        let old = binlogs.written_by(&last);
        let new = self.options.installation.version;
        match old.map_err(at("read the last binlog file in", folder))? {
            Some(old) if !old.same_series(new) => Err(HostError::UncleanUpgrade { old, new }),
            _ => Ok(()),
        }
    }

    pub(crate) fn argv(&self, settings: &Settings) -> Vec<OsString> {
        let installation = &self.options.installation;
        let mut argv = installation.mysqld.clone();
        argv.push("--no-defaults".into());
        argv.extend(installation.options.iter().cloned());
        if rustix::process::geteuid().is_root() {
            argv.push("--user=root".into());
        }
        argv.extend(settings.argv(installation.version, &self.options.data_folder));
        argv
    }

    fn spawn(&self, settings: &Settings) -> Result<ServerProcess, HostError> {
        let options = &self.options;
        let open = |what| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&options.log_file)
                .map_err(at(what, &options.log_file))
        };
        let (stdout, stderr) = (open("open the log")?, open("open the log")?);
        let lock = self.in_data_folder(SERVER_LOCK);
        let mut command = exec_server::command(&options.launcher, &lock, &self.argv(settings));
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .current_dir(&options.data_folder)
            .spawn()
            .map_err(at("run", &options.launcher))?;
        let process = ServerProcess::of_child(child).map_err(at("watch", &options.launcher))?;
        self.write_pid_file(process.pid())?;
        tracing::info!(pid = process.pid(), version = %options.installation.version, "mysqld started");
        Ok(process)
    }

    fn write_pid_file(&self, pid: u32) -> Result<(), HostError> {
        let path = &self.options.pid_file;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = format!("{pid}\n");
        replace_file(folder, &name, &format!("{name}.new"), text.as_bytes())
            .map_err(at("write", path))
    }

    pub(crate) fn find(&self) -> Result<Option<ServerProcess>, HostError> {
        let options = &self.options;
        let hint = std::fs::read_to_string(&options.pid_file).ok();
        let hint = hint.and_then(|text| text.trim().parse().ok());
        let executable = options.installation.executable();
        let found = process::find(hint, executable, &options.data_folder)
            .map_err(at("look for a server of", &options.data_folder))?;
        if let Some(process) = &found {
            self.write_pid_file(process.pid())?;
        }
        Ok(found)
    }

    fn remove_data_folder(&self) -> Result<(), HostError> {
        if !self.data_folder_is_free()? {
            return Err(HostError::InUse);
        }
        let folder = &self.options.data_folder;
        // Renamed first: a half-removed folder must not be taken for a server's.
        let mut removed = folder.as_os_str().to_owned();
        removed.push(".removed");
        let removed = PathBuf::from(removed);
        unless_gone(std::fs::remove_dir_all(&removed)).map_err(at("remove", &removed))?;
        unless_gone(std::fs::rename(folder, &removed)).map_err(at("rename", folder))?;
        if let Some(parent) = folder.parent() {
            sync_folder(parent).map_err(at("sync", parent))?;
        }
        *self.claim.lock().expect("no panic while the lock is held") = None;
        unless_gone(std::fs::remove_dir_all(&removed)).map_err(at("remove", &removed))?;
        Ok(())
    }
}

impl Host for LocalHost {
    type Process = ServerProcess;
    type Binlogs = LocalBinlogs;

    async fn start(&self, settings: &Settings) -> Result<ServerProcess, HostError> {
        if settings.socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(HostError::SocketPath(settings.socket.clone()));
        }
        self.remove_stale_socket(settings)?;
        self.refuse_unclean_upgrade()?;
        match &self.options.manager {
            None => self.spawn(settings),
            Some(manager) => self.order(manager, settings).await,
        }
    }

    async fn adopt(&self) -> Result<Option<ServerProcess>, HostError> {
        self.find()
    }

    fn signal(&self, process: &ServerProcess, signal: Signal) -> Result<(), HostError> {
        match &self.options.manager {
            Some(manager) => self.signal_by(manager, process, signal),
            None => process
                .signal(signal)
                .map_err(at("signal the server of", &self.options.data_folder)),
        }
    }

    async fn exited(&self, process: &ServerProcess) {
        process.exited().await;
    }

    fn data_folder_exists(&self) -> bool {
        self.options.data_folder.is_dir()
    }

    fn data_folder_is_free(&self) -> Result<bool, HostError> {
        let path = self.in_data_folder(SERVER_LOCK);
        if !self.data_folder_exists() {
            return Ok(true);
        }
        if FileLock::try_acquire(&path)
            .map_err(at("lock", &path))?
            .is_none()
        {
            return Ok(false);
        }
        // A server that was started by other means than ours.
        let path = self.in_data_folder(SYSTEM_TABLESPACE);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let Some(file) = unless_gone(file).map_err(at("open", &path))? else {
            return Ok(true);
        };
        is_unlocked(&file).map_err(at("lock", &path))
    }

    fn claim(&self) -> Result<bool, HostError> {
        let mut claim = self.claim.lock().expect("no panic while the lock is held");
        if claim.is_none() {
            let path = self.in_data_folder(OWNER_LOCK);
            *claim = FileLock::try_acquire(&path).map_err(at("lock", &path))?;
        }
        Ok(claim.is_some())
    }

    async fn plant(&self) -> Result<(), HostError> {
        let host = self.clone();
        let planted =
            tokio::task::spawn_blocking(move || host.options.seed.plant(&host.options.data_folder));
        planted.await.expect("copying a folder does not panic")?;
        if self.claim()? {
            Ok(())
        } else {
            Err(HostError::NotOurs)
        }
    }

    async fn wipe(&self) -> Result<(), HostError> {
        let host = self.clone();
        let removed = tokio::task::spawn_blocking(move || host.remove_data_folder());
        removed.await.expect("removing a folder does not panic")
    }

    fn data_folder(&self) -> &Path {
        &self.options.data_folder
    }

    fn beside(&self, which: Beside) -> Self {
        self.beside_at(which)
    }

    async fn replace_by(&self, cloned: &Self) -> Result<(), HostError> {
        let (host, cloned) = (self.clone(), cloned.clone());
        let replaced = tokio::task::spawn_blocking(move || host.put_in_place(&cloned));
        replaced.await.expect("renaming folders does not panic")
    }

    fn finish_replacement(&self) -> Result<(), HostError> {
        self.finish_put_in_place()
    }

    async fn remove_replaced(&self) -> Result<(), HostError> {
        let host = self.clone();
        let removed = tokio::task::spawn_blocking(move || host.remove_old());
        removed.await.expect("removing a folder does not panic")
    }

    fn write_server_uuid(&self, uuid: Uuid) -> Result<(), HostError> {
        let folder = &self.options.data_folder;
        let text = format!("[auto]\nserver-uuid={uuid}\n");
        replace_file(folder, "auto.cnf", "auto.cnf.new", text.as_bytes())
            .map_err(at("write auto.cnf in", folder))
    }

    fn write_init_file(&self, sql: &str) -> Result<PathBuf, HostError> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.in_data_folder(INIT_FILE);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&path).map_err(at("make", &path))?;
        file.write_all(sql.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(at("write", &path))?;
        Ok(path)
    }

    fn has_init_file(&self) -> bool {
        self.in_data_folder(INIT_FILE).exists()
    }

    fn remove_init_file(&self) -> Result<(), HostError> {
        let path = self.in_data_folder(INIT_FILE);
        unless_gone(std::fs::remove_file(&path)).map_err(at("remove", &path))?;
        Ok(())
    }

    fn read_marker(&self) -> Result<Option<Marker>, HostError> {
        let path = self.in_data_folder(MARKER);
        let text = unless_gone(std::fs::read_to_string(&path)).map_err(at("read", &path))?;
        Ok(text.map(|text| text.parse()).transpose()?)
    }

    fn write_marker(&self, marker: &Marker) -> Result<(), HostError> {
        let folder = &self.options.data_folder;
        replace_file(folder, MARKER, MARKER_NEW, marker.to_text().as_bytes())
            .map_err(at("write the marker in", folder))
    }

    async fn with_binlogs<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LocalBinlogs) -> T + Send + 'static,
    ) -> T {
        let options = &self.options;
        let binlogs = LocalBinlogs::new(options.data_folder.clone(), options.cut_folder.clone());
        match tokio::task::spawn_blocking(move || work(&binlogs)).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

fn is_unlocked(file: &File) -> io::Result<bool> {
    match fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
        // Closing the file gives the lock back.
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HostError {
    let path = path.to_owned();
    move |source| HostError::Files { what, path, source }
}
