use std::path::{Path, PathBuf};
use std::process::Command;

use quorate_mysqld::{
    FileLock, FindOptions, Installation, PackageTree, default_cache, fetch_debian_tool,
    find_or_fetch,
};

/// What the feed's Python consumer is installed from; exact, so that a new release of either
/// breaks a story only when somebody raises it here.
const PYTHON_PACKAGES: [&str; 2] = ["mysql-replication==1.0.17", "PyMySQL==1.2.4"];

/// The MySQL that the nodes run.
///
/// # Panics
/// If there is none and none can be fetched, with the ways out.
pub async fn mysql() -> Installation {
    let options = FindOptions {
        explicit: std::env::var_os("QUORATE_MYSQLD").map(PathBuf::from),
        cache: default_cache(),
    };
    match find_or_fetch(&options, &|line| println!("{line}")).await {
        Ok(installation) => installation,
        Err(error) => panic!("{error}"),
    }
}

/// The package `name` of Debian.
///
/// # Panics
/// If it cannot be fetched, with what to run.
pub(crate) async fn debian_tool(name: &str) -> PackageTree {
    let cache = default_cache();
    match fetch_debian_tool(name, &cache, &|line| println!("{line}")).await {
        Ok(tree) => tree,
        Err(error) => panic!(
            "this story needs {name}, and it could not be fetched: {error}\non a machine with \
             Debian's packages, `apt-get update` and the same test get it; from another such \
             machine, copy the folder {}",
            cache.join(name).display()
        ),
    }
}

/// The Python that has python-mysql-replication, in an environment of its own.
///
/// # Panics
/// If it cannot be made, with the commands that make it.
pub async fn python_mysql_replication() -> PathBuf {
    let cache = default_cache();
    let target = cache.join("python-mysql-replication");
    let python = target.join("bin/python");
    if python.exists() {
        return python;
    }
    let _lock = FileLock::acquire(&cache.join("python.lock"))
        .await
        .expect("lock the cache folder");
    if python.exists() {
        return python;
    }
    // Under its own name only when it is whole. What it is run with does not mind the move.
    let partial = cache.join("python-mysql-replication.partial");
    let _ = std::fs::remove_dir_all(&partial);
    if let Err(why) = make_python(&partial) {
        panic!(
            "this story needs python-mysql-replication, and it could not be installed: {why}\n\
             run: python3 -m venv {0} && {0}/bin/python -m pip install {1}",
            target.display(),
            PYTHON_PACKAGES.join(" ")
        );
    }
    std::fs::rename(&partial, &target).expect("move the environment into place");
    python
}

/// What only root may do.
///
/// # Panics
/// If it fails.
pub fn run_as_root(command: &mut Command) {
    let status = command.status().expect("run a command");
    assert!(status.success(), "{command:?}: {status}; it needs root");
}

fn make_python(folder: &Path) -> Result<(), String> {
    run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    let python = folder.join("bin/python");
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet"])
        .args(PYTHON_PACKAGES))?;
    run(Command::new(&python).args(["-c", "import pymysqlreplication"]))
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
