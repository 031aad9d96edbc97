//! Debian packages in a folder of their own, beside the system and without root.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::binlog_files::unless_gone;
use crate::file_lock::FileLock;
use crate::sources::{self, Repository};

/// The loader of a package tree, below its root, old layout last.
const LOADERS: [&str; 2] = [
    "usr/lib64/ld-linux-x86-64.so.2",
    "lib64/ld-linux-x86-64.so.2",
];
/// Folders of libraries, below the root of a package tree.
const LIBRARIES: [&str; 3] = [
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib/mysql/private",
];

/// Why packages could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("only x86-64 Linux can run Debian's packages beside its own system")]
    Architecture,
    #[error("there is no `{0}` here, so this is no Debian")]
    NoApt(&'static str),
    #[error("the package sources of this machine name no Debian mirror")]
    NoMirror,
    #[error("`{command}` failed: {output}")]
    Command { command: String, output: String },
    #[error("the packages hold no {0}")]
    Incomplete(String),
    #[error("{0}")]
    Files(String, #[source] io::Error),
}

/// Which Debian release to take packages from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// The one that this machine's package sources name.
    OfThisMachine,
    /// The rolling one, which alone ships MySQL.
    Unstable,
}

/// Unpacked packages that run with their own loader and libraries.
#[derive(Clone, Debug)]
pub struct PackageTree {
    root: PathBuf,
    loader: PathBuf,
}

impl PackageTree {
    /// The tree at `root`, if there is one.
    #[must_use]
    pub fn open(root: &Path) -> Option<Self> {
        let loader = LOADERS
            .iter()
            .map(|path| root.join(path))
            .find(|path| path.is_file())?;
        Some(Self {
            root: root.to_owned(),
            loader,
        })
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Program and first arguments that run `program`, a path below the root.
    #[must_use]
    pub fn argv(&self, program: &Path) -> Vec<OsString> {
        let mut libraries = OsString::new();
        for (i, folder) in LIBRARIES.iter().enumerate() {
            if i > 0 {
                libraries.push(":");
            }
            libraries.push(self.root.join(folder));
        }
        let name = program.file_name().unwrap_or(program.as_os_str());
        vec![
            self.loader.clone().into(),
            "--library-path".into(),
            libraries,
            "--argv0".into(),
            name.into(),
            self.root.join(program).into(),
        ]
    }

    /// A command that runs the program `name`.
    #[must_use]
    pub fn tool(&self, name: &str) -> std::process::Command {
        let program = ["usr/bin", "usr/sbin", "bin", "sbin"]
            .iter()
            .map(|folder| Path::new(folder).join(name))
            .find(|path| self.root.join(path).is_file())
            .unwrap_or_else(|| Path::new("usr/bin").join(name));
        let mut argv = self.argv(&program).into_iter();
        let mut command = std::process::Command::new(argv.next().unwrap_or_default());
        command.args(argv);
        command
            // MariaDB's client library has no authentication built in; it loads it from here.
            .env(
                "MARIADB_PLUGIN_DIR",
                self.root
                    .join("usr/lib/x86_64-linux-gnu/libmariadb3/plugin"),
            )
            .env("LUA_PATH", self.lua_path());
        command
    }

    /// Where sysbench finds the scripts it came with.
    fn lua_path(&self) -> OsString {
        let mut path = self.root.join("usr/share/sysbench/?.lua").into_os_string();
        path.push(";./?.lua");
        path
    }
}

/// Gives the tool `name` of this machine's own Debian release, fetched into `cache` unless it is
/// there already. Its `tool(name)` runs it.
pub async fn fetch_debian_tool(
    name: &str,
    cache: &Path,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<PackageTree, FetchError> {
    fetch(cache, name, Release::OfThisMachine, &[name], progress).await
}

/// Gives the tree `CACHE/name` with `packages` and all they need. Parallel callers fetch once, and
/// a tree exists under its name only when it is whole.
pub(crate) async fn fetch(
    cache: &Path,
    name: &str,
    release: Release,
    packages: &[&str],
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<PackageTree, FetchError> {
    let target = cache.join(name);
    if let Some(tree) = PackageTree::open(&target) {
        return Ok(tree);
    }
    let _lock = FileLock::acquire(&cache.join("fetch.lock"))
        .await
        .map_err(at("lock the cache folder", cache))?;
    // Another process may have fetched it while this one waited.
    if let Some(tree) = PackageTree::open(&target) {
        return Ok(tree);
    }
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err(FetchError::Architecture);
    }
    let repositories = match release {
        Release::OfThisMachine => sources::of_this_machine(),
        Release::Unstable => sources::of_this_machine()
            .into_iter()
            .find(Repository::is_main_archive)
            .map(|repository| repository.with_suite("sid"))
            .into_iter()
            .collect(),
    };
    if repositories.is_empty() {
        return Err(FetchError::NoMirror);
    }
    // Whoever holds the lock owns the leftovers of a fetch that was killed.
    let partial = cache.join(format!("{name}.partial"));
    remove(&partial)?;
    let result = fill(&partial, &repositories, packages, progress).await;
    match result {
        Ok(()) => {}
        Err(error) => {
            let _ = std::fs::remove_dir_all(&partial);
            return Err(error);
        }
    }
    std::fs::rename(partial.join("root"), &target).map_err(at("move into place", &target))?;
    remove(&partial)?;
    PackageTree::open(&target).ok_or_else(|| FetchError::Incomplete("loader".to_owned()))
}

/// Downloads and unpacks into `folder/root`.
async fn fill(
    folder: &Path,
    repositories: &[Repository],
    packages: &[&str],
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<(), FetchError> {
    let root = folder.join("root");
    for part in ["root", "parts", "lists/partial", "cache/archives/partial"] {
        let path = folder.join(part);
        std::fs::create_dir_all(&path).map_err(at("create", &path))?;
    }
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(at("write", &path))
    };
    // An empty status means that nothing is installed: every dependency is fetched.
    write("status", "")?;
    let lines: Vec<String> = repositories.iter().map(Repository::line).collect();
    write("sources.list", &(lines.join("\n") + "\n"))?;
    write("apt.conf", &apt_conf(folder))?;

    let conf = folder.join("apt.conf");
    progress(&format!("reading package lists of {}", repositories[0]));
    run("apt-get", &["update"], Some(&conf)).await?;
    progress(&format!("downloading {}", packages.join(", ")));
    let mut args = vec![
        "install",
        "--download-only",
        "--yes",
        "--no-install-recommends",
    ];
    args.extend(packages);
    run("apt-get", &args, Some(&conf)).await?;

    progress("unpacking");
    let archives = folder.join("cache/archives");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&archives)
        .map_err(at("read", &archives))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
        .collect();
    files.sort();
    for file in &files {
        let file = file.to_string_lossy();
        run("dpkg", &["-x", &file, &root.to_string_lossy()], None).await?;
    }
    Ok(())
}

/// An apt that touches nothing of the machine's: own lists, cache, state, no preferences.
fn apt_conf(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Dir::Etc::sourcelist \"{folder}/sources.list\";\n\
         Dir::Etc::sourceparts \"{folder}/parts\";\n\
         Dir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"{folder}/parts\";\n\
         Dir::State \"{folder}\";\n\
         Dir::State::lists \"{folder}/lists\";\n\
         Dir::State::status \"{folder}/status\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         Dir::Log \"{folder}\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Architectures {{ \"amd64\"; }};\n\
         APT::Sandbox::User \"\";\n\
         APT::Install-Recommends \"false\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"3\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Debug::NoLocking \"true\";\n"
    )
}

async fn run(program: &'static str, args: &[&str], conf: Option<&Path>) -> Result<(), FetchError> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(args)
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(conf) = conf {
        command.env("APT_CONFIG", conf);
    }
    let output = match command.output().await {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(FetchError::NoApt(program));
        }
        Err(error) => return Err(FetchError::Files(format!("run {program}"), error)),
    };
    if output.status.success() {
        return Ok(());
    }
    let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
    if text.trim().is_empty() {
        text = String::from_utf8_lossy(&output.stdout).into_owned();
    }
    Err(FetchError::Command {
        command: format!("{program} {}", args.join(" ")),
        output: text.trim().chars().take(2000).collect(),
    })
}

fn remove(folder: &Path) -> Result<(), FetchError> {
    unless_gone(std::fs::remove_dir_all(folder)).map_err(at("remove", folder))?;
    Ok(())
}

fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    let text = format!("{what} {}", path.display());
    move |error| FetchError::Files(text, error)
}
