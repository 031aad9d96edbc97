use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use quorate_types::KeptCut;

use crate::host::BinlogFiles;
use crate::version::Version;

const INDEX: &str = "binlog.index";
/// Behind the index's name: where mysqld writes a new one before it renames it.
const OF_A_CRASH: &str = "_crash_safe";
/// The same for us.
const OF_A_CUT: &str = "_quorate";
/// Beside the copies of a cut.
const DESCRIPTION: &str = "repair.txt";

/// Magic, then the format description's header, whose flags are at byte 17.
const FLAGS_AT: u64 = 4 + 17;
const FLAG_IN_USE: u8 = 1;
/// In its body, behind two bytes: the server's version, filled up with zeros.
const VERSION_AT: u64 = 4 + 19 + 2;
const VERSION_BYTES: usize = 50;

/// The binlog files in a data folder of this machine.
#[derive(Clone, Debug)]
pub struct LocalBinlogs {
    pub(crate) data_folder: PathBuf,
    pub(crate) cut_folder: PathBuf,
    index: String,
}

impl LocalBinlogs {
    /// Of a server that the sidecar starts.
    #[must_use]
    pub fn new(data_folder: PathBuf, cut_folder: PathBuf) -> Self {
        let index = INDEX.to_owned();
        Self {
            data_folder,
            cut_folder,
            index,
        }
    }

    /// Of any server, to be looked at: its binlog may have another name.
    ///
    /// # Errors
    /// If the folder has no index of a binlog, or several.
    pub fn find(data_folder: &Path) -> io::Result<Self> {
        let found = indexes(data_folder)?;
        match found.as_slice() {
            [first] => Ok(first.clone()),
            [first, ..] if first == INDEX => Ok(first.clone()),
            [] => Err("no index of a binlog (binlog.index) is there".to_owned()),
            several => Err(format!("several binlogs: {}", several.join(", "))),
        }
        .map(|index| Self {
            index,
            ..Self::new(data_folder.to_owned(), PathBuf::new())
        })
        .map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))
    }

    /// The index file's name.
    #[must_use]
    pub fn index(&self) -> &str {
        &self.index
    }

    /// Whether a line of the index names a file of the data folder, in whatever way.
    fn is_own(&self, folder: &Path) -> bool {
        let same = || {
            let (one, other) = (folder.canonicalize(), self.data_folder.canonicalize());
            matches!((one, other), (Ok(one), Ok(other)) if one == other)
        };
        folder == Path::new(".") || folder == self.data_folder || folder.is_absolute() && same()
    }

    fn kept_folder(&self, label: &str) -> io::Result<PathBuf> {
        let plain = Path::new(label).file_name() == Some(label.as_ref());
        if !plain {
            let text = format!("`{label}` names no kept cut");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(self.cut_folder.join(label))
    }

    fn make_kept_folder(&self, label: &str) -> io::Result<PathBuf> {
        let folder = self.kept_folder(label)?;
        std::fs::create_dir_all(&folder)?;
        sync_folder(&self.cut_folder)?;
        Ok(folder)
    }

    fn path(&self, file: &str) -> io::Result<PathBuf> {
        if file.is_empty() || file.contains('/') {
            let text = format!("`{file}` is no binlog file of this folder");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(self.data_folder.join(file))
    }

    /// Of the mysqld that wrote a file, if the file says it: whatever the checksum of the event that
    /// does, since somebody may be kept from misreading the data only by this.
    pub(crate) fn written_by(&self, file: &str) -> io::Result<Option<Version>> {
        let mut text = [0; VERSION_BYTES];
        match self.open(file)?.read_exact_at(&mut text, VERSION_AT) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let text = String::from_utf8_lossy(&text);
        Ok(Version::parse(text.trim_end_matches('\0')).ok())
    }

    fn write_index(&self, files: &[String]) -> io::Result<()> {
        let mut text = String::new();
        for file in files {
            text.push_str("./");
            text.push_str(file);
            text.push('\n');
        }
        let new = format!("{}{OF_A_CUT}", self.index);
        replace_file(&self.data_folder, &self.index, &new, text.as_bytes())
    }
}

impl BinlogFiles for LocalBinlogs {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let read = |name: &str| unless_gone(std::fs::read_to_string(self.data_folder.join(name)));
        // A server that was killed between removing the old index and renaming the new one.
        let text = match read(&self.index)? {
            Some(text) => text,
            None => read(&format!("{}{OF_A_CRASH}", self.index))?.unwrap_or_default(),
        };
        let mut files = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (folder, file) = line.rsplit_once('/').unwrap_or((".", line));
            if !self.is_own(Path::new(folder)) {
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

    fn left_open(&self) -> io::Result<Option<String>> {
        for index in indexes(&self.data_folder)? {
            let binlogs = Self {
                index,
                ..self.clone()
            };
            let Some(last) = binlogs.list()?.pop() else {
                continue;
            };
            let mut flags = [0];
            // One that is too short to have flags was never closed.
            let read = binlogs.open(&last)?.read_exact_at(&mut flags, FLAGS_AT);
            if read.is_err() || flags[0] & FLAG_IN_USE != 0 {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }

    fn length(&self, file: &str) -> io::Result<u64> {
        Ok(std::fs::metadata(self.path(file)?)?.len())
    }

    fn keep_aside(&self, label: &str, file: &str, range: Range<u64>) -> io::Result<()> {
        let folder = self.make_kept_folder(label)?;
        let mut source = self.open(file)?;
        source.seek(SeekFrom::Start(range.start))?;
        let name = format!("{file}-{}", range.start);
        let mut target = File::create(folder.join(name))?;
        let length = range.end.saturating_sub(range.start);
        io::copy(&mut source.take(length), &mut target)?;
        target.sync_all()?;
        sync_folder(&folder)
    }

    fn describe_kept(&self, label: &str, text: &str) -> io::Result<()> {
        let folder = self.make_kept_folder(label)?;
        let new = format!("{DESCRIPTION}.new");
        replace_file(&folder, DESCRIPTION, &new, text.as_bytes())
    }

    fn kept(&self) -> io::Result<Vec<KeptCut>> {
        let Some(entries) = unless_gone(std::fs::read_dir(&self.cut_folder))? else {
            return Ok(Vec::new());
        };
        let mut kept = Vec::new();
        for entry in entries {
            let entry = entry?;
            // Earlier versions kept files without a folder.
            let files = match entry.file_type()?.is_dir() {
                true => std::fs::read_dir(entry.path())?.collect::<io::Result<Vec<_>>>()?,
                false => Vec::new(),
            };
            let modified = entry.metadata()?.modified()?;
            let at = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
            let mut bytes = match files.is_empty() {
                true => entry.metadata()?.len(),
                false => 0,
            };
            for file in files {
                bytes += file.metadata()?.len();
            }
            kept.push(KeptCut {
                at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
                name: entry.file_name().to_string_lossy().into_owned(),
                bytes,
            });
        }
        Ok(kept)
    }

    fn forget_kept(&self, name: &str) -> io::Result<()> {
        let path = self.kept_folder(name)?;
        let removed = match path.is_dir() {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        unless_gone(removed)?;
        Ok(())
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
            unless_gone(std::fs::remove_file(self.path(file)?))?;
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

/// The names of the indexes of all binlogs in a folder, ours first.
fn indexes(folder: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let name = name.strip_suffix(OF_A_CRASH).unwrap_or(&name).to_owned();
        let relay = name.contains("relay");
        if name.ends_with(".index") && !relay && !found.contains(&name) {
            found.push(name);
        }
    }
    found.sort_by_key(|name| name != INDEX);
    Ok(found)
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

/// None where there is no such file or folder.
pub(crate) fn unless_gone<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        done => done.map(Some),
    }
}

pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
