use quorate_binlog::build::{EventBuilder, FileBuilder};
use quorate_types::GtidSet;

use super::*;

fn binlogs(folder: &Path) -> LocalBinlogs {
    let binlogs = LocalBinlogs::new(folder.join("mysql"), folder.join("cut"));
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
            let kept = std::fs::read(folder.path().join("cut/4/binlog.000002-60")).unwrap();
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
    std::fs::rename(
        &index,
        binlogs.data_folder.join(format!("{INDEX}{OF_A_CRASH}")),
    )
    .unwrap();
    assert_eq!(binlogs.list().unwrap().len(), 3);
    binlogs.drop_after("binlog.000003").unwrap();
    assert!(index.exists());
    std::fs::write(&index, "/elsewhere/binlog.000001\n").unwrap();
    assert!(binlogs.list().is_err());
}

#[test]
fn an_index_names_its_files_in_every_way_that_a_server_writes() {
    let folder = tempfile::tempdir().unwrap();
    let binlogs = binlogs(folder.path());
    let index = binlogs.data_folder.join(INDEX);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&binlogs.data_folder, &link).unwrap();
    let (real, link) = (binlogs.data_folder.display(), link.display());
    let text = format!("{real}/binlog.000001\n./binlog.000002\r\n{link}/binlog.000003\n");
    std::fs::write(&index, text).unwrap();
    let all = ["binlog.000001", "binlog.000002", "binlog.000003"];
    assert_eq!(binlogs.list().unwrap(), all);
    binlogs.drop_after("binlog.000002").unwrap();
    assert_eq!(binlogs.list().unwrap(), all[..2]);
    let written = std::fs::read_to_string(&index).unwrap();
    assert_eq!(written, "./binlog.000001\n./binlog.000002\n");
    std::fs::write(&index, "deeper/binlog.000001\n").unwrap();
    assert!(binlogs.list().is_err());
}

#[test]
fn the_binlog_of_any_server_is_found_by_its_index() {
    let folder = tempfile::tempdir().unwrap();
    assert!(LocalBinlogs::find(folder.path()).is_err());
    std::fs::write(folder.path().join("host-relay-bin.index"), "").unwrap();
    assert!(LocalBinlogs::find(folder.path()).is_err());
    std::fs::write(folder.path().join("mysql-bin.index_crash_safe"), "").unwrap();
    let found = LocalBinlogs::find(folder.path()).unwrap();
    assert_eq!(found.index(), "mysql-bin.index");
    std::fs::write(folder.path().join("other.index"), "").unwrap();
    assert!(LocalBinlogs::find(folder.path()).is_err());
    // That of a server of ours, whatever was there before it.
    std::fs::write(folder.path().join(INDEX), "").unwrap();
    assert_eq!(LocalBinlogs::find(folder.path()).unwrap().index(), INDEX);
}

#[test]
fn what_was_cut_is_listed_and_removed_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let binlogs = binlogs(folder.path());
    assert_eq!(binlogs.kept().unwrap(), []);
    binlogs.keep_aside("4-1", "binlog.000002", 60..100).unwrap();
    binlogs.keep_aside("4-1", "binlog.000003", 0..100).unwrap();
    binlogs.describe_kept("4-1", "why").unwrap();
    std::fs::write(folder.path().join("cut/3-binlog.000001-7"), "old").unwrap();
    let mut kept = binlogs.kept().unwrap();
    kept.sort_by(|one, other| one.name.cmp(&other.name));
    let of: Vec<_> = kept
        .iter()
        .map(|cut| (cut.name.as_str(), cut.bytes))
        .collect();
    assert_eq!(of, [("3-binlog.000001-7", 3), ("4-1", 143)]);
    assert!(kept.iter().all(|cut| cut.at_ms > 1_600_000_000_000));
    for name in ["4-1", "4-1", "3-binlog.000001-7"] {
        binlogs.forget_kept(name).unwrap();
    }
    assert_eq!(binlogs.kept().unwrap(), []);
    for outside in ["", ".", "..", "../mysql", "/etc"] {
        assert!(binlogs.forget_kept(outside).is_err(), "{outside}");
    }
}

#[test]
fn a_binlog_that_was_not_closed_is_named_whatever_it_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let binlogs = binlogs(folder.path());
    let data = &binlogs.data_folder;
    let mut closed = vec![0; 100];
    std::fs::write(data.join("binlog.000003"), &closed).unwrap();
    assert_eq!(binlogs.left_open().unwrap(), None);
    closed[21] = FLAG_IN_USE;
    std::fs::write(data.join("mysql-bin.000007"), &closed).unwrap();
    std::fs::write(data.join("mysql-bin.index"), "./mysql-bin.000007\n").unwrap();
    let open = Some("mysql-bin.000007".to_owned());
    assert_eq!(binlogs.left_open().unwrap(), open);
    std::fs::write(data.join("mysql-bin.000007"), &closed[..10]).unwrap();
    assert_eq!(binlogs.left_open().unwrap(), open);
}

#[test]
fn who_wrote_a_file_is_read_from_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let binlogs = binlogs(folder.path());
    let path = binlogs.data_folder.join("binlog.000003");
    let events = EventBuilder::new(7);
    // One that Quorate does not run counts as well.
    for (text, version) in [
        ("8.4.5-log", Version::new(8, 4, 5)),
        ("5.7.44-log", Version::new(5, 7, 44)),
    ] {
        let format = events.format_description(text, 0);
        let file = FileBuilder::with_format(events, &format, &GtidSet::new());
        std::fs::write(&path, file.into_bytes()).unwrap();
        let known = binlogs.written_by("binlog.000003").unwrap();
        assert_eq!(known, Some(version));
    }
    // Torn, and of nobody.
    assert_eq!(binlogs.written_by("binlog.000001").unwrap(), None);
    std::fs::write(&path, [0xfe; 40]).unwrap();
    assert_eq!(binlogs.written_by("binlog.000003").unwrap(), None);
}
