//! The cut survives a crash at each of its steps.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_binlog::build::{EventBuilder, FileBuilder};

use super::*;
use crate::binlog_files::LocalBinlogs;

/// Accepts the first so many transactions of any source.
pub(crate) struct UpTo(pub(crate) u64);

impl AcceptedIndex for UpTo {
    fn is_accepted(&self, gtid: &Gtid) -> bool {
        gtid.sequence <= self.0
    }

    fn checksum(&self, _: &Gtid) -> Option<u32> {
        None
    }
}

/// How far the step gets in which the process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    Before,
    /// With its work half done, as the files are then.
    Amid,
    After,
}

/// The files of a folder, and a kill in one of the steps that change something.
struct Dying {
    files: LocalBinlogs,
    steps: AtomicUsize,
    dies_in: usize,
    how: Killed,
}

impl Dying {
    fn new(files: LocalBinlogs, dies_in: usize, how: Killed) -> Self {
        Self {
            files,
            steps: AtomicUsize::new(0),
            dies_in,
            how,
        }
    }

    fn step(
        &self,
        whole: impl FnOnce() -> io::Result<()>,
        half: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let step = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        let killed = || Err(io::Error::other("killed"));
        match self.how {
            _ if step < self.dies_in => whole(),
            _ if step > self.dies_in => killed(),
            Killed::Before => killed(),
            Killed::Amid => half().and_then(|()| killed()),
            Killed::After => whole().and_then(|()| killed()),
        }
    }
}

impl BinlogFiles for Dying {
    type File = std::fs::File;

    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn open(&self, file: &str) -> io::Result<Self::File> {
        self.files.open(file)
    }

    fn length(&self, file: &str) -> io::Result<u64> {
        self.files.length(file)
    }

    fn keep_aside(&self, label: &str, file: &str, range: Range<u64>) -> io::Result<()> {
        let half = range.start..(range.start + range.end) / 2;
        self.step(
            || self.files.keep_aside(label, file, range),
            || self.files.keep_aside(label, file, half),
        )
    }

    fn describe_kept(&self, label: &str, text: &str) -> io::Result<()> {
        let file = self.files.cut_folder.join(label).join("repair.txt.new");
        self.step(
            || self.files.describe_kept(label, text),
            || {
                std::fs::create_dir_all(self.files.cut_folder.join(label))?;
                std::fs::write(file, "half")
            },
        )
    }

    /// The index goes first, then file after file.
    fn drop_after(&self, last: &str) -> io::Result<()> {
        let half = || {
            let all = self.files.list()?;
            let folder = &self.files.data_folder;
            let kept: Vec<Vec<u8>> = all
                .iter()
                .map(|file| std::fs::read(folder.join(file)))
                .collect::<io::Result<_>>()?;
            self.files.drop_after(last)?;
            // The last of them is still there.
            match (all.last(), kept.last()) {
                (Some(file), Some(bytes)) if file != last => {
                    std::fs::write(folder.join(file), bytes)
                }
                _ => Ok(()),
            }
        };
        self.step(|| self.files.drop_after(last), half)
    }

    /// The flag is set first.
    fn truncate(&self, file: &str, length: u64) -> io::Result<()> {
        let now = self.files.length(file)?;
        self.step(
            || self.files.truncate(file, length),
            || self.files.truncate(file, now),
        )
    }
}

fn gtid(sequence: u64) -> Gtid {
    format!("30b06607-e52b-11f1-b1db-02fc00000001:{sequence}")
        .parse()
        .unwrap()
}

/// Three files with two transactions each; the tail begins with the second one of the first file,
/// and the last file is torn.
fn lay_out(folder: &Path) -> LocalBinlogs {
    let files = LocalBinlogs::new(folder.join("mysql"), folder.join("cut"));
    std::fs::create_dir(&files.data_folder).unwrap();
    let events = EventBuilder::new(1);
    let mut index = String::new();
    for number in 1..=3 {
        let mut file = FileBuilder::new(events, &GtidSet::new());
        for sequence in [number * 2 - 1, number * 2] {
            file.extend(&events.insert(gtid(sequence), 1, sequence, &[0, 1, 0, 0, 0, 1, b'x']));
        }
        let mut bytes = file.into_bytes();
        if number == 3 {
            bytes.truncate(bytes.len() - 5);
        }
        let name = format!("binlog.00000{number}");
        std::fs::write(files.data_folder.join(&name), bytes).unwrap();
        index.push_str(&format!("./{name}\n"));
    }
    std::fs::write(files.data_folder.join("binlog.index"), index).unwrap();
    files
}

/// Every file below a folder, with what is in it.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut contents = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return contents;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            for (inner, bytes) in self::contents(&path) {
                contents.insert(format!("{name}/{inner}"), bytes);
            }
        } else {
            contents.insert(name, std::fs::read(&path).unwrap());
        }
    }
    contents
}

#[test]
fn a_cut_that_was_killed_at_any_step_is_done_by_the_next_one_and_nothing_of_the_tail_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let files = lay_out(folder.path());
    let whole = contents(&files.data_folder);
    let undisturbed = Dying::new(files.clone(), usize::MAX, Killed::Before);
    judge_and_cut(&undisturbed, "1", &UpTo(1)).unwrap();
    let steps = undisturbed.steps.into_inner();
    assert_eq!(steps, 6, "describe, keep three times, drop, truncate");
    let expected = contents(&files.data_folder);
    let kept: Vec<Vec<u8>> = contents(&files.cut_folder)
        .into_iter()
        .filter(|(name, _)| !name.ends_with("repair.txt"))
        .map(|(_, bytes)| bytes)
        .collect();
    assert_eq!(kept.len(), 3);
    assert!(whole["binlog.000001"].ends_with(&kept[0]));
    assert_eq!(kept[2], whole["binlog.000003"]);

    for dies_in in 1..=steps {
        for how in [Killed::Before, Killed::Amid, Killed::After] {
            let folder = tempfile::tempdir().unwrap();
            let files = lay_out(folder.path());
            let first = Dying::new(files.clone(), dies_in, how);
            let killed = judge_and_cut(&first, "1", &UpTo(1));
            assert!(killed.is_err(), "{dies_in} {how:?}");
            // The next start of the sidecar has another label.
            let again = judge_and_cut(&files, "2", &UpTo(1)).unwrap();
            assert!(matches!(again, Repaired::MayStart(_)), "{again:?}");
            let mut left = contents(&files.data_folder);
            // The server removes or ignores what is not in its index.
            left.retain(|name, _| expected.contains_key(name));
            assert_eq!(left, expected, "{dies_in} {how:?}");
            let copies: Vec<Vec<u8>> = contents(&files.cut_folder).into_values().collect();
            for bytes in &kept {
                assert!(copies.contains(bytes), "{dies_in} {how:?}: a copy is lost");
            }
            let third = judge_and_cut(&files, "3", &UpTo(1)).unwrap();
            let nothing = Repaired::MayStart(RepairReport::default());
            assert_eq!(third, nothing, "{dies_in} {how:?}");
        }
    }
}

#[test]
fn a_binlog_that_must_be_cloned_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let files = lay_out(folder.path());
    let before = contents(folder.path());
    struct Hole;
    impl AcceptedIndex for Hole {
        fn is_accepted(&self, gtid: &Gtid) -> bool {
            gtid.sequence != 2
        }

        fn checksum(&self, _: &Gtid) -> Option<u32> {
            None
        }
    }
    let judged = judge_and_cut(&files, "1", &Hole).unwrap();
    assert!(matches!(judged, Repaired::MustClone(_)), "{judged:?}");
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn an_encrypted_binlog_is_refused_with_what_to_do_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let files = lay_out(folder.path());
    let path = files.data_folder.join("binlog.000002");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] = 0xfd;
    std::fs::write(&path, bytes).unwrap();
    let before = contents(folder.path());
    let error = judge_and_cut(&files, "1", &UpTo(1)).unwrap_err();
    let RepairError::Scan { file, source } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(file, "binlog.000002");
    assert!(source.to_string().contains("binlog_encryption=OFF"));
    assert_eq!(contents(folder.path()), before);
}
