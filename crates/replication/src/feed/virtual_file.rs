use quorate_binlog::{ChecksumAlgorithm, EventError, FormatDescription};
use quorate_types::{BinlogSource, Epoch};

/// Where the feed begins for who has nothing, and the only file that may be asked for by name.
pub const START_FILE: &str = "quorate.000000";
/// Reported as the current file: consumers must not mistake it for a place to dump from.
pub(super) const END_FILE: &str = "quorate.end";
/// Where the first event of any file begins.
pub(super) const FIRST_POSITION: u64 = 4;
/// A file that reached this position is not gone on with. The largest transaction that a server
/// takes here (2 GiB) then still ends below the 4 GiB that fit into an event's header.
pub(super) const FILE_BYTES_MAX: u64 = 2 << 30;

/// A file that exists in the stream of one consumer only.
///
/// Its name comes from what it holds, so every node's feed gives the same transactions the same
/// file. A new one begins with each epoch and each file of the source, since the logical clocks of
/// the parallel applier start over there.
#[derive(Clone, Debug)]
pub(super) struct VirtualFile {
    pub(super) name: String,
    /// After the last event that was sent.
    pub(super) position: u64,
    /// How the source ends its events.
    pub(super) source_algorithm: ChecksumAlgorithm,
    /// What it holds; none in the file that stands in while there is nothing.
    of: Option<(Epoch, BinlogSource)>,
    part: u32,
}

impl VirtualFile {
    /// The file for an epoch's transactions of one file of the source, and their format; none if
    /// the current one goes on.
    pub(super) fn next(
        current: Option<&Self>,
        epoch: Epoch,
        source: &BinlogSource,
        bytes_max: u64,
    ) -> Result<Option<(Self, FormatDescription)>, EventError> {
        let same = current.filter(|file| {
            file.of
                .as_ref()
                .is_some_and(|(of, file)| *of == epoch && file == source)
        });
        let part = match same {
            Some(file) if file.position < bytes_max => return Ok(None),
            Some(file) => file.part + 1,
            None => 1,
        };
        let format = FormatDescription::parse(source.format.clone())?;
        let file = Self {
            name: name(epoch, &source.file, part),
            position: FIRST_POSITION,
            source_algorithm: format.algorithm,
            of: Some((epoch, source.clone())),
            part,
        };
        Ok(Some((file, format)))
    }

    /// The file that a stream stands in before its first transaction.
    pub(super) fn start() -> Self {
        Self {
            name: START_FILE.to_owned(),
            position: FIRST_POSITION,
            source_algorithm: ChecksumAlgorithm::Crc32,
            of: None,
            part: 1,
        }
    }
}

fn name(epoch: Epoch, source_file: &str, part: u32) -> String {
    let number: String = source_file
        .rsplit('.')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric())
        .take(32)
        .collect();
    match part {
        1 => format!("quorate.{epoch}.{number}"),
        part => format!("quorate.{epoch}.{number}-{part}"),
    }
}

#[cfg(test)]
mod tests {
    use quorate_binlog::build::EventBuilder;
    use quorate_types::{LeaderId, LogId, LogIndex, NodeId, Term};

    use super::*;

    fn epoch(term: u64, index: u64) -> Epoch {
        Epoch(LogId {
            leader: LeaderId {
                term: Term(term),
                node: NodeId(1),
            },
            index: LogIndex(index),
        })
    }

    fn source(file: &str) -> BinlogSource {
        BinlogSource {
            file: file.into(),
            format: EventBuilder::new(1).format_description("9.7.4", 0),
        }
    }

    fn next(current: Option<&VirtualFile>, epoch: Epoch, file: &str) -> Option<VirtualFile> {
        VirtualFile::next(current, epoch, &source(file), 1000)
            .unwrap()
            .map(|(file, _)| file)
    }

    #[test]
    fn a_file_begins_with_each_epoch_source_file_and_too_many_bytes() {
        let mut first = next(None, epoch(4, 17), "binlog.000003").unwrap();
        assert_eq!(first.name, "quorate.4-17.000003");
        assert!(next(Some(&first), epoch(4, 17), "binlog.000003").is_none());
        let other = next(Some(&first), epoch(4, 17), "binlog.000004").unwrap();
        assert_eq!(other.name, "quorate.4-17.000004");
        let other = next(Some(&first), epoch(5, 30), "binlog.000003").unwrap();
        assert_eq!(other.name, "quorate.5-30.000003");
        first.position = 1000;
        let second = next(Some(&first), epoch(4, 17), "binlog.000003").unwrap();
        assert_eq!(
            (second.name.as_str(), second.position),
            ("quorate.4-17.000003-2", 4)
        );
        assert!(next(Some(&second), epoch(4, 17), "binlog.000003").is_none());
        let after_start = next(Some(&VirtualFile::start()), epoch(4, 17), "binlog.000003");
        assert_eq!(after_start.unwrap().name, "quorate.4-17.000003");
    }
}
