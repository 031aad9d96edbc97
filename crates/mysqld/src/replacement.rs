//! A cloned folder takes the place of a server's data folder.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::binlog_files::{sync_folder, unless_gone};
use crate::host::{Beside, Host, HostError};
use crate::local_host::{LocalHost, LocalHostOptions, MARKER, at};

impl LocalHost {
    fn beside_path(&self, suffix: &str) -> PathBuf {
        let mut path = self.options().data_folder.as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    }

    /// The old data folder, from when the new one takes its place until it is removed.
    fn replaced_path(&self) -> PathBuf {
        self.beside_path(".replaced")
    }

    pub(crate) fn beside_at(&self, which: Beside) -> Self {
        let suffix = match which {
            Beside::Scratch => ".scratch",
            Beside::Cloned => ".cloned",
        };
        let options = LocalHostOptions {
            data_folder: self.beside_path(suffix),
            pid_file: self.beside_path(&format!("{suffix}.pid")),
            manager: None,
            ..self.options().clone()
        };
        Self::new(options)
    }

    /// Two renames: the old folder aside, the new one in its place. A crash before the first leaves
    /// the old one, a crash after it is finished by [`Self::finish_put_in_place`].
    pub(crate) fn put_in_place(&self, cloned: &Self) -> Result<(), HostError> {
        self.finish_put_in_place()?;
        self.remove_old()?;
        if !self.data_folder_is_free()? || !cloned.data_folder_is_free()? {
            return Err(HostError::InUse);
        }
        let held = |host: &Self| host.claim.clone();
        let (own, theirs) = (held(self), held(cloned));
        let mut theirs = theirs.lock().expect("no panic while the lock is held");
        if theirs.is_none() || cloned.read_marker()?.is_none() {
            return Err(HostError::NotOurs);
        }
        let (from, to) = (cloned.data_folder(), self.data_folder());
        sync_tree(from).map_err(at("sync", from))?;
        if self.data_folder_exists() {
            std::fs::rename(to, self.replaced_path()).map_err(at("set aside", to))?;
        }
        std::fs::rename(from, to).map_err(at("move into place", to))?;
        sync_parent(to)?;
        // The lock is the file's, wherever its folder is now; the old folder's ends here.
        *own.lock().expect("no panic while the lock is held") = theirs.take();
        self.remove_old()
    }

    pub(crate) fn finish_put_in_place(&self) -> Result<(), HostError> {
        let (replaced, to) = (self.replaced_path(), self.data_folder());
        if self.data_folder_exists() || !replaced.is_dir() {
            return Ok(());
        }
        let cloned = self.beside_at(Beside::Cloned);
        let from = match cloned.data_folder().join(MARKER).is_file() {
            true => cloned.data_folder(),
            // Somebody took the new folder away: the old one is better than none.
            false => &replaced,
        };
        std::fs::rename(from, to).map_err(at("move into place", to))?;
        sync_parent(to)
    }

    pub(crate) fn remove_old(&self) -> Result<(), HostError> {
        let replaced = self.replaced_path();
        // While it is the only one it stays.
        if !self.data_folder_exists() {
            return Ok(());
        }
        unless_gone(std::fs::remove_dir_all(&replaced)).map_err(at("remove", &replaced))?;
        Ok(())
    }
}

fn sync_parent(folder: &Path) -> Result<(), HostError> {
    let parent = folder.parent().unwrap_or(Path::new("/"));
    sync_folder(parent).map_err(at("sync", parent))
}

/// Whatever the server wrote and did not sync itself.
fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use quorate_types::{ClusterId, Incarnation, NodeId};

    use super::*;
    use crate::marker::Marker;

    fn host(folder: &Path) -> LocalHost {
        LocalHost::new(LocalHostOptions::unused(folder))
    }

    fn marker(start_counter: u64) -> Marker {
        Marker {
            cluster: ClusterId(1),
            node: NodeId(1),
            incarnation: Incarnation(1),
            start_counter,
            last_epoch: None,
        }
    }

    /// A claimed folder with a marker that says which it is.
    fn make(host: &LocalHost, which: u64) {
        std::fs::create_dir(host.data_folder()).unwrap();
        assert!(host.claim().unwrap());
        host.write_marker(&marker(which)).unwrap();
    }

    #[test]
    fn a_replaced_folder_is_gone_and_the_new_one_is_claimed() {
        let folder = tempfile::tempdir().unwrap();
        let host = host(folder.path());
        make(&host, 1);
        let cloned = host.beside_at(Beside::Cloned);
        make(&cloned, 2);
        host.put_in_place(&cloned).unwrap();
        assert_eq!(host.read_marker().unwrap(), Some(marker(2)));
        assert!(!cloned.data_folder_exists());
        assert!(!host.replaced_path().exists());
        let other = self::host(folder.path());
        assert!(!other.claim().unwrap(), "the claim moved with the folder");
    }

    #[test]
    fn a_crash_at_any_step_leaves_the_old_folder_or_the_new_one() {
        type Crash = fn(&LocalHost, &LocalHost);
        let steps: [(&str, Crash, u64); 3] = [
            ("before the first rename", |_, _| {}, 1),
            (
                "between the two",
                |host, _| std::fs::rename(host.data_folder(), host.replaced_path()).unwrap(),
                2,
            ),
            (
                "after both",
                |host, cloned| {
                    std::fs::rename(host.data_folder(), host.replaced_path()).unwrap();
                    std::fs::rename(cloned.data_folder(), host.data_folder()).unwrap();
                },
                2,
            ),
        ];
        for (step, crash, expected) in steps {
            let folder = tempfile::tempdir().unwrap();
            let host = host(folder.path());
            make(&host, 1);
            let cloned = host.beside_at(Beside::Cloned);
            make(&cloned, 2);
            crash(&host, &cloned);
            drop((host, cloned));

            let host = self::host(folder.path());
            host.finish_put_in_place().unwrap();
            host.remove_old().unwrap();
            assert_eq!(
                host.read_marker().unwrap(),
                Some(marker(expected)),
                "{step}"
            );
            assert!(!host.replaced_path().exists(), "{step}");
        }
    }

    #[test]
    fn a_folder_without_a_marker_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let host = host(folder.path());
        make(&host, 1);
        let cloned = host.beside_at(Beside::Cloned);
        std::fs::create_dir(cloned.data_folder()).unwrap();
        assert!(cloned.claim().unwrap());
        assert!(host.put_in_place(&cloned).is_err());
        assert_eq!(host.read_marker().unwrap(), Some(marker(1)));
    }
}
