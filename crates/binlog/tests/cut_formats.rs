//! The cut, on histories of every kind of group in the formats of MySQL 8.0, 8.4 and 9.x: over
//! several files, with and without checksums, torn anywhere.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use proptest::prelude::*;
use quorate_binlog::build::{Column, EventBuilder, FileBuilder};
use quorate_binlog::{
    ChecksumAlgorithm, CloneReason, CutPlan, EventType, FileScanner, Found, plan,
};
use quorate_types::{Gtid, GtidSet};

const UUID: &str = "2afd0cd9-e529-11f1-a6e9-02fc00000001";
const ROW: [u8; 7] = [0, 1, 0, 0, 0, 1, b'x'];

/// A series of servers, as far as their binlogs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Series {
    version: &'static str,
    event_types: usize,
    number: u32,
    /// GTIDs with tags came with 8.3.
    tags: bool,
}

const SERIES: [Series; 3] = [
    Series {
        version: "8.0.42",
        event_types: 41,
        number: 80_042,
        tags: false,
    },
    Series {
        version: "8.4.5",
        event_types: 42,
        number: 80_405,
        tags: true,
    },
    Series {
        version: "9.7.4",
        event_types: 42,
        number: 90_704,
        tags: true,
    },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rows,
    Ddl,
    Compressed,
    XaPrepare,
    XaCommit,
    Tagged,
}

const KINDS: [Kind; 6] = [
    Kind::Rows,
    Kind::Ddl,
    Kind::Compressed,
    Kind::XaPrepare,
    Kind::XaCommit,
    Kind::Tagged,
];

/// One group, and whether a new file begins with it, with checksums or without.
#[derive(Clone, Copy, Debug)]
struct Step {
    kind: Kind,
    new_file: Option<ChecksumAlgorithm>,
}

#[derive(Clone, Debug)]
struct History {
    series: Series,
    steps: Vec<Step>,
    accepted: usize,
    /// How much of the last file is left, in thousandths; all of it if none.
    left: Option<usize>,
}

fn algorithms() -> impl Strategy<Value = ChecksumAlgorithm> {
    prop::sample::select(vec![ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Off])
}

fn steps() -> impl Strategy<Value = Step> {
    let kinds = prop::sample::select(KINDS.to_vec());
    (kinds, prop::option::weighted(0.3, algorithms()))
        .prop_map(|(kind, new_file)| Step { kind, new_file })
}

fn histories() -> impl Strategy<Value = History> {
    let series = prop::sample::select(SERIES.to_vec());
    let left = prop::option::of(0_usize..1000);
    let all = (
        series,
        prop::collection::vec(steps(), 1..12),
        0_usize..14,
        left,
    );
    all.prop_map(|(series, mut steps, accepted, left)| {
        for step in &mut steps {
            if step.kind == Kind::Tagged && !series.tags {
                step.kind = Kind::Rows;
            }
        }
        History {
            series,
            steps,
            accepted,
            left,
        }
    })
}

/// The GTID event as the documentation of the series has it: times in 7 bytes, the original one only
/// where it differs, the length, the versions, and from 8.3 on a ticket of its commit group.
fn gtid_event(series: Series, events: EventBuilder, gtid: Gtid, clock: i64) -> Bytes {
    if !gtid.source.tag.is_empty() {
        return events.gtid(gtid, clock - 1, clock);
    }
    let mut body = vec![0];
    body.extend_from_slice(&gtid.source.uuid.0);
    body.extend_from_slice(&gtid.sequence.to_le_bytes());
    body.push(2);
    body.extend_from_slice(&(clock - 1).to_le_bytes());
    body.extend_from_slice(&clock.to_le_bytes());
    let differs = clock % 2 == 0;
    let mark = u64::from(differs) << 55;
    body.extend_from_slice(&(1_700_000_000_000_000 | mark).to_le_bytes()[..7]);
    if differs {
        body.extend_from_slice(&1_600_000_000_000_000_u64.to_le_bytes()[..7]);
    }
    body.push(200);
    let mark = u32::from(differs) << 31;
    body.extend_from_slice(&(series.number | mark).to_le_bytes());
    if differs {
        body.extend_from_slice(&80_030_u32.to_le_bytes());
    }
    if series.event_types > 41 && clock % 3 == 0 {
        body.extend_from_slice(&7_u64.to_le_bytes());
    }
    events.event(EventType::GTID, 0, &body)
}

fn gtid(kind: Kind, number: u64) -> Gtid {
    let tag = if kind == Kind::Tagged { "tag:" } else { "" };
    format!("{UUID}:{tag}{number}").parse().unwrap()
}

fn group(series: Series, events: EventBuilder, kind: Kind, number: u64) -> Vec<Bytes> {
    let gtid = gtid(kind, number);
    let clock = i64::try_from(number).unwrap();
    let rows = [
        events.table_map(100, "app", "t", &[Column::Int, Column::Varchar(255)]),
        events.write_rows(100, 2, &ROW, true),
    ];
    let query = |text: &str| events.query("app", text, None);
    let mut group = vec![gtid_event(series, events, gtid, clock)];
    match kind {
        Kind::Rows | Kind::Tagged => {
            group.push(query("BEGIN"));
            group.extend(rows);
            group.push(events.xid(number));
        }
        Kind::Ddl => group.push(events.query("app", "CREATE TABLE u (a INT)", Some(number))),
        Kind::Compressed => {
            let body = [1, 1, 2, 0, 9, 9];
            group.push(events.event(EventType::TRANSACTION_PAYLOAD, 0, &body));
        }
        Kind::XaPrepare => {
            group.push(query("XA START X'61',X'',1"));
            group.extend(rows);
            group.push(query("XA END X'61',X'',1"));
            let body = [0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a'];
            group.push(events.event(EventType::XA_PREPARE, 0, &body));
        }
        Kind::XaCommit => group.push(query("XA COMMIT X'61',X'',1")),
    }
    group
}

/// A group where it stands.
#[derive(Clone, Copy, Debug)]
struct Placed {
    file: usize,
    start: usize,
    end: usize,
    gtid: Gtid,
}

struct LaidOut {
    files: Vec<Vec<u8>>,
    groups: Vec<Placed>,
    /// Where format description and head end in the last file.
    format_end: usize,
    head_end: usize,
}

impl LaidOut {
    fn first_gtids(&self, count: usize) -> Vec<Gtid> {
        let groups = self.groups.iter().take(count);
        groups.map(|group| group.gtid).collect()
    }
}

fn lay_out(history: &History) -> LaidOut {
    let begin = |algorithm, previous: &GtidSet| {
        let events = EventBuilder {
            algorithm,
            ..EventBuilder::new(1)
        };
        let Series {
            version,
            event_types,
            ..
        } = history.series;
        let format = events.format_with_types(version, 0, event_types);
        let format_end = 4 + format.len();
        (
            events,
            FileBuilder::with_format(events, &format, previous),
            format_end,
        )
    };
    let mut executed = GtidSet::new();
    let (mut events, mut file, mut format_end) = begin(ChecksumAlgorithm::Crc32, &executed);
    let mut head_end = file.bytes().len();
    let (mut files, mut groups) = (Vec::new(), Vec::new());
    for (step, number) in history.steps.iter().zip(1..) {
        if let Some(algorithm) = step.new_file {
            file.push(&events.rotate("binlog.next"));
            files.push(file.into_bytes());
            (events, file, format_end) = begin(algorithm, &executed);
            head_end = file.bytes().len();
        }
        let start = file.bytes().len();
        file.extend(&group(history.series, events, step.kind, number));
        let gtid = gtid(step.kind, number);
        executed.insert(gtid);
        groups.push(Placed {
            file: files.len(),
            start,
            end: file.bytes().len(),
            gtid,
        });
    }
    files.push(file.into_bytes());
    LaidOut {
        files,
        groups,
        format_end,
        head_end,
    }
}

/// What a plan comes to: nothing, a cut with the tail's length, or no file to keep.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Nothing,
    Cut {
        file: usize,
        offset: usize,
        tail: usize,
    },
    NoFile,
}

fn expected(history: &History, laid_out: &LaidOut) -> Expected {
    let last = laid_out.files.len() - 1;
    let len = laid_out.files[last].len();
    let is_whole = |group: &&Placed| group.file < last || group.end <= len;
    let whole = laid_out.groups.iter().filter(is_whole).count();
    if let Some(first) = laid_out.groups[..whole].get(history.accepted) {
        return Expected::Cut {
            file: first.file,
            offset: first.start,
            tail: whole - history.accepted,
        };
    }
    let boundaries = laid_out.groups.iter().filter(|group| group.file == last);
    let mut ends = boundaries.map(|group| group.end);
    let good_end = [laid_out.format_end, laid_out.head_end].contains(&len);
    if good_end || ends.any(|end| end == len) {
        return Expected::Nothing;
    }
    match len < laid_out.head_end {
        true if last == 0 => Expected::NoFile,
        true => Expected::Cut {
            file: last - 1,
            offset: laid_out.files[last - 1].len(),
            tail: 0,
        },
        false => {
            let torn = laid_out.groups[whole];
            Expected::Cut {
                file: last,
                offset: torn.start,
                tail: 0,
            }
        }
    }
}

fn outcome(plan: CutPlan) -> Expected {
    match plan {
        CutPlan::Nothing => Expected::Nothing,
        CutPlan::Cut(cut) => Expected::Cut {
            file: cut.file.parse().unwrap(),
            offset: usize::try_from(cut.offset).unwrap(),
            tail: cut.tail.len(),
        },
        CutPlan::Clone {
            reason: CloneReason::NoFileToKeep { .. },
        } => Expected::NoFile,
        CutPlan::Clone { reason } => panic!("{reason}"),
    }
}

fn judge(files: &[Vec<u8>], accepted: &[Gtid]) -> CutPlan {
    let named = files.iter().enumerate();
    let named = named.map(|(at, file)| (at.to_string(), &file[..]));
    plan(named, &|gtid| accepted.contains(gtid), &|_| None).unwrap()
}

proptest! {
    #[test]
    fn the_cut_is_where_the_accepted_end_or_the_file_is_torn_in_every_format(
        history in histories(),
    ) {
        let mut laid_out = lay_out(&history);
        if let Some(left) = history.left {
            let last = laid_out.files.last_mut().unwrap();
            last.truncate(last.len() * left / 1000);
        }
        let accepted = laid_out.first_gtids(history.accepted);
        let wanted = expected(&history, &laid_out);
        let found = judge(&laid_out.files, &accepted);
        if let CutPlan::Cut(cut) = &found {
            // What is after the cut's file goes, and nothing else.
            let file: usize = cut.file.parse().unwrap();
            let later: Vec<String> = (file + 1..laid_out.files.len()).map(|at| at.to_string()).collect();
            prop_assert_eq!(&cut.drop_files, &later);
        }
        prop_assert_eq!(outcome(found), wanted);
    }

    #[test]
    fn a_repaired_binlog_needs_no_other_repair(history in histories()) {
        let laid_out = lay_out(&history);
        let accepted = laid_out.first_gtids(history.accepted);
        let mut files = laid_out.files;
        if let CutPlan::Cut(cut) = judge(&files, &accepted) {
            let file: usize = cut.file.parse().unwrap();
            files.truncate(file + 1);
            files[file].truncate(usize::try_from(cut.offset).unwrap());
        }
        prop_assert_eq!(judge(&files, &accepted), CutPlan::Nothing);
    }
}

#[test]
fn every_kind_of_group_is_read_in_every_format_with_or_without_checksums() {
    for kind in KINDS {
        for series in SERIES
            .into_iter()
            .filter(|one| one.tags || kind != Kind::Tagged)
        {
            let algorithms = [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Off];
            let [with, without] = algorithms.map(|algorithm| {
                let events = EventBuilder {
                    algorithm,
                    ..EventBuilder::new(1)
                };
                let format = events.format_with_types(series.version, 0, series.event_types);
                let mut file = FileBuilder::with_format(events, &format, &GtidSet::new());
                file.extend(&group(series, events, kind, 5));
                let mut scanner = FileScanner::new(file.bytes());
                let mut found = std::iter::from_fn(|| scanner.next_found().unwrap());
                let group = found.find_map(|found| match found {
                    Found::Group(group) => Some(group),
                    _ => None,
                });
                let read = group.unwrap_or_else(|| panic!("{kind:?} of {series:?}"));
                assert_eq!(read.gtid, gtid(kind, 5));
                assert_eq!(scanner.written_by(), (series.version, algorithm));
                read.checksum
            });
            assert_eq!(with, without, "{kind:?} of {series:?}");
        }
    }
}
