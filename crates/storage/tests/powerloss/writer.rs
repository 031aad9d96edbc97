//! The writer: this test's own executable, once more, in a process that is to be killed.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quorate_storage::{Error, LogDisk, Options, SledDisk, SyncMode};
use tempfile::TempDir;

use crate::workload::Workload;

/// The exit code of a writer that met a full disk and was told so.
const FULL: i32 = 28;

/// One writer and its folders.
pub(crate) struct Writer {
    folder: TempDir,
    seed: u64,
    process: Child,
}

/// What the disk under the writer does.
#[derive(Clone, Copy)]
pub(crate) enum Machine {
    /// A kill leaves everything that reached the kernel.
    Kernel,
    /// Only what was synced is left; the disk has room for so many bytes, if it has an end.
    Power { room: Option<u64> },
}

impl Writer {
    pub(crate) fn start(seed: u64, sync: SyncMode, machine: Machine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "writer::writes_until_it_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env("WRITER_ROOT", &root)
            .env("WRITER_SEED", seed.to_string())
            .env(
                "WRITER_FLUSH_ONLY",
                u8::from(sync == SyncMode::FlushOnly).to_string(),
            )
            .stdout(Stdio::null());
        fs::create_dir(root.join("live")).unwrap();
        if let Machine::Power { room } = machine {
            fs::create_dir(root.join("durable")).unwrap();
            command
                .env("LD_PRELOAD", build_shim(&root))
                .env("PL_LIVE", root.join("live"))
                .env("PL_DURABLE", root.join("durable"));
            if let Some(room) = room {
                command.env("PL_ROOM", room.to_string());
            }
        }
        let process = command.spawn().unwrap();
        Self {
            folder,
            seed,
            process,
        }
    }

    /// Kills the writer some time after its first sync.
    pub(crate) fn kill_after(&mut self, delay: Duration) {
        while self.synced() == 0 {
            assert_eq!(self.process.try_wait().unwrap(), None, "the writer stopped");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(delay);
        assert_eq!(self.process.try_wait().unwrap(), None, "the writer stopped");
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits for the writer to find the disk full, and to be told so by an error.
    pub(crate) fn fills_its_disk(&mut self) {
        assert_eq!(self.process.wait().unwrap().code(), Some(FULL));
    }

    /// How many groups of its workload the writer knows to be durable.
    pub(crate) fn synced(&self) -> u64 {
        let acks = fs::metadata(self.folder.path().join("acks"));
        acks.map_or(0, |acks| acks.len())
    }

    pub(crate) fn workload(&self) -> Workload {
        Workload::new(self.seed)
    }

    pub(crate) fn live(&self) -> PathBuf {
        self.folder.path().join("live")
    }

    pub(crate) fn durable(&self) -> PathBuf {
        self.folder.path().join("durable")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A failed test leaves no writer behind; one that ended already is no news.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn build_shim(root: &Path) -> PathBuf {
    let shim = root.join("shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/powerloss/shim.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&shim, &source])
        .arg("-ldl")
        .status();
    assert!(built.unwrap().success(), "cc builds the shim");
    shim
}

#[test]
#[ignore = "the child process of the other tests"]
fn writes_until_it_is_killed() {
    let Some(root) = std::env::var_os("WRITER_ROOT").map(PathBuf::from) else {
        return;
    };
    let seed = std::env::var("WRITER_SEED").unwrap().parse().unwrap();
    let flush_only = std::env::var("WRITER_FLUSH_ONLY").unwrap() == "1";
    let sync = if flush_only {
        SyncMode::FlushOnly
    } else {
        SyncMode::Fdatasync
    };
    let options = Options {
        sync,
        ..Options::default()
    };
    let mut acks = OpenOptions::new()
        .append(true)
        .create(true)
        .open(root.join("acks"))
        .unwrap();
    let outcome = write_all(&root.join("live"), &options, seed, &mut acks);
    let Err(Error::Full { .. }) = outcome else {
        panic!("{outcome:?}");
    };
    // Ends without dropping the store, which would try to write the rest.
    std::process::exit(FULL);
}

fn write_all(dir: &Path, options: &Options, seed: u64, acks: &mut File) -> Result<(), Error> {
    let mut disk = SledDisk::open(dir, options)?;
    for writes in Workload::new(seed) {
        let outcome = disk.write(writes).and_then(|()| disk.sync());
        if let Err(error) = outcome {
            disk.sync()
                .expect_err("after an error nothing is promised again");
            // Not dropped: what the store would still write is no part of this.
            std::mem::forget(disk);
            return Err(error);
        }
        // One byte for each group: the file's length is their number, whenever the kill comes.
        acks.write_all(b".").unwrap();
        disk.tidy()?;
    }
    Ok(())
}
