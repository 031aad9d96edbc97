//! What a binlog holds and what a repair would do about it, for people.

use std::fmt;
use std::io;

use quorate_binlog::{ChecksumAlgorithm, Cut, CutPlan, FileScanner, Found};
use quorate_types::GtidSet;

use crate::host::BinlogFiles;
use crate::repair::{AcceptedIndex, RepairError, judge};

/// One binlog file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    pub name: String,
    pub bytes: u64,
    /// Who wrote it; empty if its head is damaged.
    pub server_version: String,
    pub checksums: bool,
    pub transactions: u64,
    pub gtids: GtidSet,
    /// Where it is damaged or torn, and how.
    pub damage: Vec<(u64, String)>,
}

/// All of a binlog, and what a repair would do before its server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    pub files: Vec<FileReport>,
    pub plan: CutPlan,
    /// Not accepted, and left where they are: they change nothing.
    pub inert: GtidSet,
}

/// Reads a binlog and changes nothing. If its server runs, a transaction that is just being written
/// looks like a torn end.
///
/// # Errors
/// If a file cannot be read, or is encrypted.
pub fn inspect<B: BinlogFiles>(
    binlogs: &B,
    index: &impl AcceptedIndex,
) -> Result<Inspection, RepairError> {
    let (plan, inert) = judge(binlogs, index)?;
    let at = |what, file: &str, source| RepairError::Files {
        what,
        file: file.to_owned(),
        source,
    };
    let mut files = Vec::new();
    let list = binlogs.list();
    for name in list.map_err(|source| at("list", "the binlog files", source))? {
        let reader = binlogs.open(&name);
        let reader = reader.map_err(|source| at("open", &name, source))?;
        files.push(report(name, reader)?);
    }
    Ok(Inspection { files, plan, inert })
}

fn report(name: String, reader: impl io::Read) -> Result<FileReport, RepairError> {
    let mut scanner = FileScanner::new(io::BufReader::with_capacity(256 << 10, reader));
    let mut report = FileReport {
        name,
        bytes: 0,
        server_version: String::new(),
        checksums: false,
        transactions: 0,
        gtids: GtidSet::new(),
        damage: Vec::new(),
    };
    let scan = |file: &str, source| RepairError::Scan {
        file: file.to_owned(),
        source,
    };
    loop {
        let found = scanner.next_found();
        match found.map_err(|source| scan(&report.name, source))? {
            None => break,
            Some(Found::PreviousGtids(_)) => {}
            Some(Found::Group(group)) => {
                report.transactions += 1;
                report.gtids.insert(group.gtid);
            }
            Some(Found::Damage { offset, damage }) => {
                report.damage.push((offset, damage.to_string()));
            }
        }
    }
    let (version, algorithm) = scanner.written_by();
    report.server_version = version.to_owned();
    report.checksums = algorithm == ChecksumAlgorithm::Crc32;
    report.bytes = scanner.offset();
    Ok(report)
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            writeln!(f, "{file}")?;
        }
        if !self.inert.is_empty() {
            writeln!(f, "not accepted, and harmless: {}", self.inert)?;
        }
        match &self.plan {
            CutPlan::Nothing => f.write_str("a repair would change nothing"),
            CutPlan::Cut(cut) => write_cut(f, cut),
            CutPlan::Clone { reason } => {
                write!(
                    f,
                    "a repair would cut nothing, and have the server cloned: {reason}"
                )
            }
        }
    }
}

fn write_cut(f: &mut fmt::Formatter<'_>, cut: &Cut) -> fmt::Result {
    write!(
        f,
        "a repair would cut {} from byte {} on",
        cut.file, cut.offset
    )?;
    if !cut.drop_files.is_empty() {
        write!(f, ", and drop {}", cut.drop_files.join(", "))?;
    }
    if cut.tail.is_empty() {
        f.write_str(": no whole transaction is in it")?;
    }
    for tail in &cut.tail {
        let group = &tail.group;
        write!(
            f,
            "\n  {} in {}, bytes {} to {}: {}",
            group.gtid, tail.file, group.start, group.end, group.class
        )?;
    }
    Ok(())
}

impl fmt::Display for FileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            bytes,
            transactions,
            ..
        } = self;
        let (server, checksums) = match self.server_version.as_str() {
            "" => ("unknown", "format"),
            version if self.checksums => (version, "CRC32"),
            version => (version, "no checksums"),
        };
        write!(
            f,
            "{name}: {bytes} bytes read, {server}, {checksums}, {transactions} transactions"
        )?;
        if !self.gtids.is_empty() {
            write!(f, ": {}", self.gtids)?;
        }
        for (offset, damage) in &self.damage {
            write!(f, "\n  at byte {offset}: {damage}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quorate_binlog::build::{EventBuilder, FileBuilder};
    use quorate_types::Gtid;

    use super::*;
    use crate::binlog_files::LocalBinlogs;
    use crate::repair::tests::UpTo;

    #[test]
    fn people_see_what_is_there_and_what_would_be_cut() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        };
        let gtid = |sequence: u64| -> Gtid {
            let text = format!("30b06607-e52b-11f1-b1db-02fc00000001:{sequence}");
            text.parse().unwrap()
        };
        let events = EventBuilder::new(1);
        let row = [0, 1, 0, 0, 0, 1, b'x'];
        let mut first = FileBuilder::new(events, &GtidSet::new());
        first.extend(&events.insert(gtid(1), 1, 1, &row));
        let cut_at = first.extend(&events.insert(gtid(2), 2, 2, &row));
        let mut second = FileBuilder::new(events, &GtidSet::new());
        let torn_at = second.extend(&events.insert(gtid(3), 1, 3, &row));
        let second = second.into_bytes();
        write("a.index", b"./a.000001\n./a.000002\n");
        write("a.000001", first.bytes());
        write("a.000002", &second[..second.len() - 1]);

        let binlogs = LocalBinlogs::find(folder.path()).unwrap();
        let before = std::fs::read(folder.path().join("a.000001")).unwrap();
        let text = inspect(&binlogs, &UpTo(1)).unwrap().to_string();
        for expected in [
            "a.000001: ",
            "9.7.4, CRC32, 2 transactions: 30b06607-e52b-11f1-b1db-02fc00000001:1-2",
            &format!("at byte {torn_at}: file ends in the middle"),
            &format!("would cut a.000001 from byte {cut_at} on, and drop a.000002"),
            &format!("{} in a.000001, bytes {cut_at} to", gtid(2)),
        ] {
            assert!(text.contains(expected), "`{expected}` in:\n{text}");
        }
        assert_eq!(
            std::fs::read(folder.path().join("a.000001")).unwrap(),
            before
        );
        let text = inspect(&binlogs, &UpTo(3)).unwrap().to_string();
        let expected = format!("would cut a.000002 from byte {torn_at} on: no whole");
        assert!(text.contains(&expected), "{text}");
    }
}
