use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::binlog_files::unless_gone;
use crate::file_lock::FileLock;
use crate::installation::Installation;

/// Why no seed could be prepared.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error("mysqld --initialize-insecure failed: {0}")]
    Initialize(String),
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    #[error("{what} {}", path.display())]
    Files {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// A data folder as `mysqld --initialize-insecure` leaves it, made once for each version.
///
/// Its `gtid_executed` is empty, `root` has no password, and it has no `auto.cnf`: every copy draws
/// a server uuid of its own.
#[derive(Clone, Debug)]
pub struct Seed {
    folder: PathBuf,
}

/// Gives the seed of this installation's version in `cache`, made there first if need be.
pub async fn prepare_seed(installation: &Installation, cache: &Path) -> Result<Seed, SeedError> {
    let folder = cache.join(format!("seed-{}", installation.version));
    let seed = Seed {
        folder: folder.clone(),
    };
    if folder.is_dir() {
        return Ok(seed);
    }
    let _lock = FileLock::acquire(&cache.join("seed.lock"))
        .await
        .map_err(at("lock", cache))?;
    if folder.is_dir() {
        return Ok(seed);
    }
    let partial = cache.join(format!("seed-{}.partial", installation.version));
    remove(&partial)?;
    initialize(installation, &partial).await?;
    remove_file(&partial.join("auto.cnf"))?;
    std::fs::rename(&partial, &folder).map_err(at("move into place", &folder))?;
    Ok(seed)
}

async fn initialize(installation: &Installation, folder: &Path) -> Result<(), SeedError> {
    let (program, args) = installation
        .mysqld
        .split_first()
        .expect("a program to run is named");
    let mut command = tokio::process::Command::new(program);
    command
        .args(args)
        .arg("--no-defaults")
        .args(&installation.options)
        .arg("--initialize-insecure")
        // The binlog would carry the transactions that make the system tables.
        .args([
            "--skip-log-bin",
            "--secure-file-priv=NULL",
            "--loose-innodb-redo-log-capacity=8M",
        ])
        .arg(path_option("datadir", folder))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if rustix::process::geteuid().is_root() {
        command.arg("--user=root");
    }
    let output = command
        .output()
        .await
        .map_err(at("run mysqld for", folder))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = text.lines().rev().take(20).collect();
    Err(SeedError::Initialize(
        last.into_iter().rev().collect::<Vec<_>>().join("\n"),
    ))
}

impl Seed {
    /// The seed at `folder`, for a caller that prepared one elsewhere.
    #[must_use]
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Makes `data_folder`, which must not exist, a new server's. It appears whole and synced, or
    /// not at all.
    pub fn plant(&self, data_folder: &Path) -> Result<(), SeedError> {
        if data_folder.exists() {
            return Err(SeedError::Exists(data_folder.to_owned()));
        }
        let mut partial = data_folder.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        remove(&partial)?;
        copy_folder(&self.folder, &partial)?;
        std::fs::rename(&partial, data_folder).map_err(at("move into place", data_folder))?;
        match data_folder.parent() {
            Some(parent) => sync(parent),
            None => Ok(()),
        }
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), SeedError> {
    std::fs::create_dir_all(to).map_err(at("create", to))?;
    for entry in std::fs::read_dir(from).map_err(at("read", from))? {
        let entry = entry.map_err(at("read", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(at("read", &source))?;
        if kind.is_dir() {
            copy_folder(&source, &target)?;
        } else if kind.is_file() {
            std::fs::copy(&source, &target).map_err(at("copy to", &target))?;
            sync(&target)?;
        }
    }
    sync(to)
}

fn sync(path: &Path) -> Result<(), SeedError> {
    std::fs::File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(at("sync", path))
}

fn remove(folder: &Path) -> Result<(), SeedError> {
    unless_gone(std::fs::remove_dir_all(folder)).map_err(at("remove", folder))?;
    Ok(())
}

fn remove_file(path: &Path) -> Result<(), SeedError> {
    unless_gone(std::fs::remove_file(path)).map_err(at("remove", path))?;
    Ok(())
}

/// `--name=PATH`, whatever bytes the path has.
pub(crate) fn path_option(name: &str, path: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(format!("--{name}="));
    option.push(path);
    option
}

fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SeedError {
    let path = path.to_owned();
    move |source| SeedError::Files { what, path, source }
}
