use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::run_as_root;

/// A small file system in the place of a folder, with what was in it. Needs root.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// To be called while nobody has anything in the folder open.
    ///
    /// # Panics
    /// If it cannot be mounted.
    #[must_use]
    pub fn put_under(folder: &Path, mib: u32) -> Self {
        let kept = folder.with_extension("kept");
        std::fs::rename(folder, &kept).expect("move the folder aside");
        std::fs::create_dir(folder).expect("make a folder");
        run_as_root(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o"])
                .arg(format!("size={mib}m"))
                .arg("quorate-story")
                .arg(folder),
        );
        run_as_root(Command::new("cp").arg("-a").arg(kept.join(".")).arg(folder));
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Makes room.
    ///
    /// # Panics
    /// If it cannot be mounted so.
    pub fn grow(&self, mib: u32) {
        run_as_root(&mut self.remount(u64::from(mib) << 20));
    }

    /// Leaves no room: nothing more can be written.
    ///
    /// # Panics
    /// If it cannot be mounted so.
    pub fn fill(&self) {
        for _ in 0..100 {
            let now = rustix::fs::statvfs(&self.folder).expect("ask the file system");
            let used = (now.f_blocks - now.f_bfree) * now.f_frsize;
            // Refused if more is in use by now.
            let status = self
                .remount(used)
                .stderr(std::process::Stdio::null())
                .status();
            if status.expect("run mount").success() {
                return;
            }
        }
        panic!(
            "{} cannot be filled; a small disk needs root",
            self.folder.display()
        );
    }

    fn remount(&self, bytes: u64) -> Command {
        let mut command = Command::new("mount");
        command
            .arg("-o")
            .arg(format!("remount,size={bytes}"))
            .arg(&self.folder);
        command
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: after a failure a node may still have it open.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}
