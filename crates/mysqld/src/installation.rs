use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::debian::{self, FetchError, PackageTree, Release};
use crate::version::{Version, VersionError};

/// A MySQL on this machine: how to run its server and its tools.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Program and first arguments that run the server.
    pub mysqld: Vec<OsString>,
    /// Options that the server needs to find its own files; none for one installed as usual.
    pub options: Vec<OsString>,
    pub version: Version,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// Installed: the tools are beside the server or on PATH.
    System { program: PathBuf },
    /// Packages unpacked in a folder of their own.
    Tree(PackageTree),
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct FindOptions {
    /// A mysqld (or the folder of an installation) that was asked for; nothing else is tried then.
    pub explicit: Option<PathBuf>,
    /// Whatever is fetched or prepared lives here.
    pub cache: PathBuf,
}

/// Why there is no MySQL to run.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("{} cannot be used: {source}", path.display())]
    Refused { path: PathBuf, source: VersionError },
    #[error("{} does not run", path.display())]
    Run { path: PathBuf, source: io::Error },
    #[error("there is no mysqld in {}", .0.display())]
    NotThere(PathBuf),
    #[error(
        "no MySQL was found on PATH, and none could be fetched: {source}.{passed_over} Ways out: \
         install MySQL 8.0.26 or later, or unpack its generic Linux archive, and name its mysqld \
         with --mysqld PATH or QUORATE_MYSQLD; or copy the cache folder {} from another machine",
        cache.display()
    )]
    Fetch {
        cache: PathBuf,
        passed_over: String,
        source: FetchError,
    },
}

/// The cache folder of this user: `$XDG_CACHE_HOME/quorate`, or `~/.cache/quorate`.
#[must_use]
pub fn default_cache() -> PathBuf {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("quorate")
}

/// Gives the MySQL that was asked for, else the one on PATH, else the one in the cache, which is
/// filled from Debian's packages first if need be.
///
/// A server on PATH that Quorate does not support is passed over, and the progress says so.
/// Cancelling leaves nothing that a later call would take for a whole installation.
pub async fn find_or_fetch(
    options: &FindOptions,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<Installation, FindError> {
    if let Some(path) = &options.explicit {
        return Installation::at(path).await;
    }
    let mut passed_over = String::new();
    if let Some(path) = on_path("mysqld") {
        match Installation::at(&path).await {
            Ok(installation) => return Ok(installation),
            Err(error) => {
                progress(&format!("passing over the mysqld on PATH: {error}"));
                passed_over = format!(" (The one on PATH was passed over: {error}.)");
            }
        }
    }
    let packages = ["mysql-server-core", "mysql-client-core"];
    let tree = debian::fetch(
        &options.cache,
        "mysql",
        Release::Unstable,
        &packages,
        progress,
    )
    .await
    .map_err(|source| FindError::Fetch {
        cache: options.cache.clone(),
        passed_over,
        source,
    })?;
    Installation::in_tree(tree).await
}

/// The same, but nothing is fetched: none if there is none.
pub async fn find_installed(options: &FindOptions) -> Result<Option<Installation>, FindError> {
    if let Some(path) = &options.explicit {
        return Installation::at(path).await.map(Some);
    }
    if let Some(path) = on_path("mysqld")
        && let Ok(installation) = Installation::at(&path).await
    {
        return Ok(Some(installation));
    }
    match PackageTree::open(&options.cache.join("mysql")) {
        Some(tree) => Installation::in_tree(tree).await.map(Some),
        None => Ok(None),
    }
}

impl Installation {
    /// The installation that `path`, a mysqld or a folder that holds one, belongs to.
    pub async fn at(path: &Path) -> Result<Self, FindError> {
        let program = if path.is_dir() {
            ["bin/mysqld", "sbin/mysqld", "usr/sbin/mysqld", "mysqld"]
                .iter()
                .map(|name| path.join(name))
                .find(|program| program.is_file())
                .ok_or_else(|| FindError::NotThere(path.to_owned()))?
        } else {
            path.to_owned()
        };
        // A server out of a fetched tree runs only with that tree's loader.
        if let Some(tree) = program
            .ancestors()
            .nth(3)
            .filter(|root| root.parent().is_some() && program.starts_with(root.join("usr")))
            .and_then(PackageTree::open)
        {
            return Self::in_tree(tree).await;
        }
        let program = std::path::absolute(&program).map_err(|source| FindError::Run {
            path: program.clone(),
            source,
        })?;
        let mysqld = vec![program.clone().into_os_string()];
        Ok(Self {
            version: version_of(&program, &mysqld).await?,
            mysqld,
            options: Vec::new(),
            place: Place::System { program },
        })
    }

    async fn in_tree(tree: PackageTree) -> Result<Self, FindError> {
        let program = Path::new("usr/sbin/mysqld");
        let mysqld = tree.argv(program);
        let option = |name: &str, path: &str| {
            let mut option = OsString::from(format!("--{name}="));
            option.push(tree.root().join(path));
            option
        };
        Ok(Self {
            version: version_of(&tree.root().join(program), &mysqld).await?,
            options: vec![
                option("basedir", "usr"),
                option("lc-messages-dir", "usr/share/mysql"),
                option("character-sets-dir", "usr/share/mysql/charsets"),
                option("plugin-dir", "usr/lib/mysql/plugin"),
            ],
            mysqld,
            place: Place::Tree(tree),
        })
    }

    /// One that no server is started with.
    #[cfg(test)]
    pub(crate) fn unused() -> Self {
        Self {
            mysqld: Vec::new(),
            options: Vec::new(),
            version: Version::new(9, 7, 4),
            place: Place::System {
                program: PathBuf::new(),
            },
        }
    }

    /// The file that a running server of this installation has as its executable.
    #[must_use]
    pub fn executable(&self) -> &Path {
        self.mysqld.first().map_or(Path::new(""), Path::new)
    }

    /// A command that runs one of MySQL's tools: `mysql`, `mysqlbinlog`, `mysqldump`, ….
    #[must_use]
    pub fn tool(&self, name: &str) -> std::process::Command {
        match &self.place {
            Place::Tree(tree) => tree.tool(name),
            Place::System { program } => {
                let beside = program.with_file_name(name);
                let sibling = program
                    .ancestors()
                    .nth(2)
                    .map(|base| base.join("bin").join(name))
                    .filter(|path| path.is_file());
                let path = Some(beside).filter(|path| path.is_file()).or(sibling);
                std::process::Command::new(path.unwrap_or_else(|| name.into()))
            }
        }
    }
}

async fn version_of(path: &Path, mysqld: &[OsString]) -> Result<Version, FindError> {
    let (program, args) = mysqld.split_first().expect("a program to run is named");
    let output = tokio::process::Command::new(program)
        .args(args)
        .args(["--no-defaults", "--version"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| FindError::Run {
            path: path.to_owned(),
            source,
        })?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    // The path in front could hold any word, a version number too.
    let text = text.find("Ver ").map_or(text.as_str(), |i| &text[i..]);
    Version::parse_supported(text).map_err(|source| FindError::Refused {
        path: path.to_owned(),
        source,
    })
}

/// Servers are in `sbin`, which is not on everybody's PATH.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders
        .iter()
        .map(PathBuf::as_path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(Path::new))
        .map(|folder| folder.join(name))
        .find(|path| path.is_absolute() && path.is_file())
}
