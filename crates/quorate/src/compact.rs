//! `quorate log compact`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use quorate_node::config::Config;
use quorate_storage::{Options, SledDisk};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use crate::args::CompactArgs;

const FREE_LOOKS: u32 = 250;
const FREE_LOOK: Duration = Duration::from_millis(20);

/// The log becomes another folder in one step: a crash leaves the old one in its place, or the new
/// one, and beside it what is of no use any more.
pub(crate) fn run(args: &CompactArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let log = config.raft_dir();
    let (before, after) = compact(&log, config.log.cache_bytes)?;
    println!(
        "{}: {} MiB before, {} MiB now",
        log.display(),
        before >> 20,
        after >> 20
    );
    Ok(())
}

fn compact(log: &Path, cache_bytes: u64) -> anyhow::Result<(u64, u64)> {
    if !log.is_dir() {
        bail!("there is no log in {}", log.display());
    }
    let beside = beside(log);
    // Of a run that was interrupted: whatever is in it, the log is in its own place.
    remove(&beside)?;
    let options = Options {
        cache_bytes,
        ..Options::default()
    };
    let copied = match SledDisk::copy(log, &beside, &options) {
        Ok(copied) => copied,
        Err(error) => {
            remove(&beside)?;
            return Err(error).context("copy the log; it is as it was");
        }
    };
    // A store lets go of its folder some time after it was closed, and until then might write to it
    // under its name.
    for folder in [log, &beside] {
        wait_until_free(folder)?;
    }
    renameat_with(CWD, log, CWD, &beside, RenameFlags::EXCHANGE)
        .with_context(|| format!("put the copy in the place of {}", log.display()))?;
    sync_names(log)?;
    remove(&beside)?;
    sync_names(log)?;
    Ok((copied.before, copied.after))
}

fn beside(log: &Path) -> PathBuf {
    log.with_extension("compact")
}

fn wait_until_free(folder: &Path) -> anyhow::Result<()> {
    let file = std::fs::File::open(folder.join("db"))?;
    for _ in 0..FREE_LOOKS {
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(());
        }
        std::thread::sleep(FREE_LOOK);
    }
    bail!("{} is still in use; nothing was changed", folder.display())
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn sync_names(log: &Path) -> anyhow::Result<()> {
    let parent = log.parent().context("the log's folder is in a folder")?;
    let parent = std::fs::File::open(parent)?;
    Ok(parent.sync_all()?)
}

#[cfg(test)]
mod tests {
    use quorate_storage::{LogDisk, LogRead, MetaKey, Record, Write};
    use quorate_types::LogIndex;

    use super::*;

    fn open(log: &Path) -> SledDisk {
        SledDisk::open(log, &Options::default()).unwrap()
    }

    /// 64 MiB were written, the last 2 of them are left.
    fn fill(log: &Path) {
        let mut disk = open(log);
        for group in 0..256_u64 {
            let record = |index| Record {
                index: LogIndex(index),
                bytes: vec![index as u8; 64 << 10].into(),
            };
            let from = 1 + group * 4;
            disk.write(vec![Write::Append((from..from + 4).map(record).collect())])
                .unwrap();
            disk.sync().unwrap();
            disk.tidy().unwrap();
        }
        let vote = Write::SetMeta(MetaKey::Vote, b"a vote".to_vec().into());
        disk.write(vec![vote, Write::PurgeTo(LogIndex(992))])
            .unwrap();
        disk.sync().unwrap();
    }

    fn contents(log: &Path) -> (Vec<Record>, Option<Vec<u8>>) {
        let disk = open(log);
        let (first, last) = disk.reader().bounds().unwrap().unwrap();
        let log = disk.reader().read(first..last.next(), usize::MAX).unwrap();
        let vote = disk.reader().meta(MetaKey::Vote).unwrap();
        (log, vote.map(|vote| vote.to_vec()))
    }

    #[test]
    fn compaction_gives_room_back_and_keeps_everything() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("raft");
        std::fs::create_dir(&log).unwrap();
        fill(&log);
        let expected = contents(&log);
        assert_eq!(expected.0.len(), 32);
        // What a run left that was killed before it was done.
        std::fs::create_dir(beside(&log)).unwrap();
        std::fs::write(beside(&log).join("db"), b"half a copy").unwrap();
        let (before, after) = compact(&log, 16 << 20).unwrap();
        println!("{before} bytes before, {after} after");
        assert!(after * 2 < before, "{before} bytes before, {after} after");
        assert_eq!(contents(&log), expected);
        assert!(!beside(&log).exists());
    }

    #[test]
    fn the_log_of_a_node_that_runs_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("raft");
        std::fs::create_dir(&log).unwrap();
        fill(&log);
        let disk = open(&log);
        let error = compact(&log, 16 << 20).unwrap_err();
        assert!(format!("{error:#}").contains("in use"), "{error:#}");
        drop(disk);
        assert_eq!(contents(&log).0.len(), 32);
        assert!(compact(&dir.path().join("nothing"), 16 << 20).is_err());
    }
}
