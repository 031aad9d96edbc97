//! Where the demo keeps everything.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use quorate_node::config::Secrets;

use super::{Port, Ports};

/// Says that a folder is the demo's own, to be deleted by `--fresh`.
const MARKER: &str = "quorate-demo";

pub(super) struct Folder {
    path: PathBuf,
    new: bool,
}

impl Folder {
    /// Takes the folder, or makes it. `fresh` deletes an earlier demo's.
    pub(super) fn open(chosen: Option<&Path>, fresh: bool) -> anyhow::Result<Self> {
        let path = match chosen {
            Some(path) => std::path::absolute(path)?,
            None => default_folder()?,
        };
        let occupied = path
            .read_dir()
            .is_ok_and(|mut entries| entries.next().is_some());
        let ours = path.join(MARKER).is_file();
        if occupied && !ours {
            bail!(
                "{} has files and is no demo's folder: choose another --dir",
                path.display()
            );
        }
        if ours && fresh {
            if let Some(id) = running(&path) {
                bail!(
                    "process {id} still runs in {}: stop it first",
                    path.display()
                );
            }
            std::fs::remove_dir_all(&path).with_context(|| format!("delete {}", path.display()))?;
        }
        let new = fresh || !ours;
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        std::fs::write(
            path.join(MARKER),
            "Made by `quorate demo`; --fresh deletes this folder.\n",
        )
        .with_context(|| format!("write to {}", path.display()))?;
        Ok(Self { path, new })
    }

    /// Whether there is no cluster in it yet.
    pub(super) fn is_new(&self) -> bool {
        // An earlier demo may have ended before its first node had a log.
        self.new || !self.node(1).join("raft").exists()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn node(&self, id: u16) -> PathBuf {
        self.path.join(format!("n{id}"))
    }

    /// Whether a node's server seems to run, left by an earlier demo.
    pub(super) fn server_runs(&self, id: u16) -> bool {
        alive(&self.node(id).join("mysqld.pid")).is_some()
    }

    /// Writes every node's configuration, and the secrets if there are none yet.
    pub(super) fn write_configs(
        &self,
        base: u16,
        ids: &[u16],
        mysqld: Option<&Path>,
    ) -> anyhow::Result<()> {
        let secrets = self.path.join("secrets.toml");
        if !secrets.exists() {
            Secrets::generate()?.save(&secrets)?;
        }
        for id in ids {
            let folder = self.node(*id);
            let text = self.config(base, *id, ids, mysqld)?;
            std::fs::create_dir_all(&folder)
                .and_then(|()| std::fs::write(folder.join("node.toml"), text))
                .with_context(|| format!("write to {}", folder.display()))?;
        }
        Ok(())
    }

    fn config(
        &self,
        base: u16,
        id: u16,
        ids: &[u16],
        mysqld: Option<&Path>,
    ) -> anyhow::Result<String> {
        let ports = Ports::of(base, id);
        let quoted = |path: &Path| -> anyhow::Result<String> {
            let text = path.to_str().context("a path is not UTF-8")?;
            Ok(toml::Value::from(text).to_string())
        };
        let mut text = format!(
            "# Written by `quorate demo`, each time it starts.\nnode = {id}\ndir = {}\n\
             cluster_name = \"demo\"\nsecrets = {}\n\n[listen]\n",
            quoted(&self.node(id))?,
            quoted(&self.path.join("secrets.toml"))?
        );
        for (name, purpose) in [
            ("read_write", Port::ReadWrite),
            ("read_only", Port::ReadOnly),
            ("feed", Port::Feed),
            ("grpc", Port::Grpc),
            ("http", Port::Http),
            ("gate", Port::Gate),
        ] {
            writeln!(text, "{name} = \"{}\"", ports.at(purpose))?;
        }
        writeln!(text, "\n[mysqld]\nport = {}", ports.number(Port::Mysqld))?;
        if let Some(mysqld) = mysqld {
            writeln!(text, "program = {}", quoted(&std::path::absolute(mysqld)?)?)?;
        }
        for peer in ids.iter().filter(|peer| **peer != id) {
            let ports = Ports::of(base, *peer);
            let (grpc, gate) = (ports.at(Port::Grpc), ports.at(Port::Gate));
            writeln!(
                text,
                "\n[peers.{peer}]\ngrpc = \"{grpc}\"\ngate = \"{gate}\""
            )?;
        }
        Ok(text)
    }
}

/// A process of an earlier demo that is still there, as its pid files say.
fn running(folder: &Path) -> Option<u32> {
    let entries = folder.read_dir().ok()?.flatten();
    entries
        .flat_map(|entry| ["quorate.pid", "mysqld.pid"].map(|name| entry.path().join(name)))
        .find_map(|file| alive(&file))
}

/// The process that a pid file names, if there is one with that id.
fn alive(pid_file: &Path) -> Option<u32> {
    let id: u32 = std::fs::read_to_string(pid_file)
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Path::new(&format!("/proc/{id}")).exists().then_some(id)
}

fn default_folder() -> anyhow::Result<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .context("there is no home folder: choose one with --dir")?;
    Ok(state.join("quorate/demo"))
}

#[cfg(test)]
mod tests {
    use quorate_node::config::Config;

    use super::Folder;

    #[test]
    fn a_folder_that_is_not_the_demos_is_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        std::fs::write(&precious, "data").unwrap();
        for fresh in [false, true] {
            assert!(Folder::open(Some(folder.path()), fresh).is_err());
        }
        assert!(precious.exists());
    }

    #[test]
    fn fresh_deletes_an_earlier_demo_unless_it_still_runs() {
        let folder = tempfile::tempdir().unwrap();
        let demo = Folder::open(Some(folder.path()), false).unwrap();
        let data = demo.node(1).join("raft");
        std::fs::create_dir_all(&data).unwrap();
        assert!(!Folder::open(Some(folder.path()), false).unwrap().is_new());

        let pid = demo.node(1).join("mysqld.pid");
        std::fs::write(&pid, std::process::id().to_string()).unwrap();
        assert!(Folder::open(Some(folder.path()), true).is_err());
        std::fs::remove_file(pid).unwrap();
        assert!(Folder::open(Some(folder.path()), true).unwrap().is_new());
        assert!(!data.exists());
    }

    #[test]
    fn every_configuration_that_it_writes_is_valid() {
        let folder = tempfile::tempdir().unwrap();
        let demo = Folder::open(Some(folder.path()), false).unwrap();
        demo.write_configs(7000, &[1, 2, 3], Some("/opt/my \"sql\"/mysqld".as_ref()))
            .unwrap();
        for id in 1..=3 {
            let config = Config::load(&demo.node(id).join("node.toml")).unwrap();
            assert_eq!(config.peers.len(), 2);
            assert_eq!(config.mysqld.port, 7005 + 10 * id);
        }
    }
}
