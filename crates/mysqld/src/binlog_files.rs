use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::host::BinlogFiles;

const INDEX: &str = "binlog.index";
/// Where mysqld writes a new index before it renames it.
const INDEX_OF_A_CRASH: &str = "binlog.index_crash_safe";
const INDEX_NEW: &str = "binlog.index_quorate";

/// Magic, then the format description's header, whose flags are at byte 17.
const FLAGS_AT: u64 = 4 + 17;
const FLAG_IN_USE: u8 = 1;

/// The binlog files in a data folder of this machine.
#[derive(Clone, Debug)]
pub struct LocalBinlogs {
    pub(crate) data_folder: PathBuf,
    pub(crate) cut_folder: PathBuf,
}

impl LocalBinlogs {
    fn path(&self, file: &str) -> io::Result<PathBuf> {
        if file.is_empty() || file.contains('/') {
            let text = format!("`{file}` is no binlog file of this folder");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(self.data_folder.join(file))
    }

    fn write_index(&self, files: &[String]) -> io::Result<()> {
        let mut text = String::new();
        for file in files {
            text.push_str("./");
            text.push_str(file);
            text.push('\n');
        }
        replace_file(&self.data_folder, INDEX, INDEX_NEW, text.as_bytes())
    }
}

impl BinlogFiles for LocalBinlogs {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let read = |name: &str| match std::fs::read_to_string(self.data_folder.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        // A server that was killed between removing the old index and renaming the new one.
        let text = match read(INDEX)? {
            Some(text) => text,
            None => read(INDEX_OF_A_CRASH)?.unwrap_or_default(),
        };
        let mut files = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (folder, file) = line.rsplit_once('/').unwrap_or((".", line));
            if folder != "." && Path::new(folder) != self.data_folder {
                let text = format!("the binlog index names `{line}`, outside the data folder");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            files.push(file.to_owned());
        }
        Ok(files)
    }

    fn open(&self, file: &str) -> io::Result<File> {
        File::open(self.path(file)?)
    }

    fn length(&self, file: &str) -> io::Result<u64> {
        Ok(std::fs::metadata(self.path(file)?)?.len())
    }

    fn keep_aside(&self, label: &str, file: &str, range: Range<u64>) -> io::Result<()> {
        std::fs::create_dir_all(&self.cut_folder)?;
        let mut source = self.open(file)?;
        source.seek(SeekFrom::Start(range.start))?;
        let name = format!("{label}-{file}-{}", range.start);
        let mut target = File::create(self.cut_folder.join(name))?;
        let length = range.end.saturating_sub(range.start);
        io::copy(&mut source.take(length), &mut target)?;
        target.sync_all()?;
        sync_folder(&self.cut_folder)
    }

    fn drop_after(&self, last: &str) -> io::Result<()> {
        let files = self.list()?;
        let keep = files.iter().position(|file| file == last).ok_or_else(|| {
            let text = format!("{last} is not in the binlog index");
            io::Error::new(io::ErrorKind::NotFound, text)
        })?;
        let (keep, drop) = files.split_at(keep + 1);
        // Also if nothing is dropped: the index may be the one that a crash left.
        self.write_index(keep)?;
        for file in drop {
            match std::fs::remove_file(self.path(file)?) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        sync_folder(&self.data_folder)
    }

    fn truncate(&self, file: &str, length: u64) -> io::Result<()> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(file)?)?;
        if file.metadata()?.len() < length {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a cut cannot lengthen a file",
            ));
        }
        let mut flags = [0];
        file.read_exact_at(&mut flags, FLAGS_AT)?;
        // The checksum of a format description leaves this flag out.
        file.write_all_at(&[flags[0] | FLAG_IN_USE], FLAGS_AT)?;
        file.set_len(length)?;
        file.sync_all()
    }
}

/// Writes a file so that a crash leaves the old one or the new one.
pub(crate) fn replace_file(
    folder: &Path,
    name: &str,
    temporary: &str,
    bytes: &[u8],
) -> io::Result<()> {
    let temporary = folder.join(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, folder.join(name))?;
    sync_folder(folder)
}

pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binlogs(folder: &Path) -> LocalBinlogs {
        let binlogs = LocalBinlogs {
            data_folder: folder.join("mysql"),
            cut_folder: folder.join("cut"),
        };
        std::fs::create_dir(&binlogs.data_folder).unwrap();
        for i in 1..=3 {
            let name = format!("binlog.00000{i}");
            std::fs::write(binlogs.data_folder.join(name), vec![i; 100]).unwrap();
        }
        let index = "./binlog.000001\n./binlog.000002\n./binlog.000003\n";
        std::fs::write(binlogs.data_folder.join(INDEX), index).unwrap();
        binlogs
    }

    #[test]
    fn a_cut_keeps_the_tail_aside_and_can_be_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let binlogs = binlogs(folder.path());
        for _ in 0..2 {
            binlogs
                .keep_aside(
                    "4",
                    "binlog.000002",
                    60..binlogs.length("binlog.000002").unwrap(),
                )
                .unwrap();
            binlogs.drop_after("binlog.000002").unwrap();
            if binlogs.length("binlog.000002").unwrap() == 100 {
                let kept = std::fs::read(folder.path().join("cut/4-binlog.000002-60")).unwrap();
                assert_eq!(kept, [2; 40]);
            }
            binlogs.truncate("binlog.000002", 60).unwrap();
            assert_eq!(binlogs.list().unwrap(), ["binlog.000001", "binlog.000002"]);
            assert_eq!(binlogs.length("binlog.000002").unwrap(), 60);
            assert!(!binlogs.data_folder.join("binlog.000003").exists());
        }
        assert!(binlogs.truncate("binlog.000002", 61).is_err());
    }

    #[test]
    fn the_index_that_a_crash_left_is_read_and_foreign_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let binlogs = binlogs(folder.path());
        let index = binlogs.data_folder.join(INDEX);
        std::fs::rename(&index, binlogs.data_folder.join(INDEX_OF_A_CRASH)).unwrap();
        assert_eq!(binlogs.list().unwrap().len(), 3);
        binlogs.drop_after("binlog.000003").unwrap();
        assert!(index.exists());
        std::fs::write(&index, "/elsewhere/binlog.000001\n").unwrap();
        assert!(binlogs.list().is_err());
    }
}
