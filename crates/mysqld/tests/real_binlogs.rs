//! The cut on the files of a real server: rotated, compressed, tagged, with and without checksums.

#![expect(clippy::unwrap_used, reason = "a test, what it is made of included")]

mod story;

use std::path::Path;
use std::time::Duration;

use quorate_binlog::{CutPlan, FileScanner, Found, Group};
use quorate_mysqld::{
    BinlogFiles, Host, LocalBinlogs, Repaired, Session, cut_tail, ensure_stopped, inspect, judge,
    kill_server,
};
use quorate_types::GtidSet;
use story::{Accepted, Story, binlog_end, hangs_behind};
use tokio::time::timeout;

const COMPRESSED: &str = "SET SESSION binlog_transaction_compression=ON";
const PLAIN: &str = "SET SESSION binlog_transaction_compression=OFF";
const TAGGED: &str = "SET SESSION gtid_next='AUTOMATIC:tagged'";
const UNTAGGED: &str = "SET SESSION gtid_next='AUTOMATIC'";

/// Each ends a file, or writes groups into it.
const HISTORY: &[&str] = &[
    "CREATE DATABASE a",
    "CREATE TABLE a.t (id INT PRIMARY KEY AUTO_INCREMENT, w LONGTEXT)",
    "INSERT INTO a.t (w) VALUES ('one')",
    COMPRESSED,
    "INSERT INTO a.t (w) VALUES (REPEAT('compressed', 20000))",
    PLAIN,
    TAGGED,
    "INSERT INTO a.t (w) VALUES ('tagged')",
    UNTAGGED,
    "FLUSH BINARY LOGS",
    "XA START 'x'",
    "INSERT INTO a.t (w) VALUES ('xa')",
    "XA END 'x'",
    "XA PREPARE 'x'",
    "XA COMMIT 'x'",
    "SET GLOBAL binlog_checksum=NONE",
    "INSERT INTO a.t (w) VALUES ('without a checksum')",
    COMPRESSED,
    TAGGED,
    "UPDATE a.t SET w = REPEAT('all of it', 5000)",
    PLAIN,
    UNTAGGED,
    "CREATE USER somebody",
    "SET GLOBAL binlog_checksum=CRC32",
    "DELETE FROM a.t WHERE id = 1",
    "CREATE TABLE a.u AS SELECT * FROM a.t",
    "INSERT INTO a.t (w) VALUES (REPEAT('last', 300))",
];

async fn run(session: &mut Session, statements: &[&str]) {
    for sql in statements {
        let ran = session.run("a statement of the history", sql).await;
        ran.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

fn groups(binlogs: &LocalBinlogs) -> Vec<(String, Group)> {
    let mut groups = Vec::new();
    for file in binlogs.list().unwrap() {
        let mut scanner = FileScanner::new(binlogs.open(&file).unwrap());
        while let Some(found) = scanner.next_found().unwrap() {
            match found {
                Found::Group(group) => groups.push((file.clone(), group)),
                Found::PreviousGtids(_) => {}
                Found::Damage { offset, damage } => panic!("{file} at {offset}: {damage}"),
            }
        }
    }
    groups
}

fn first(groups: &[(String, Group)], count: usize) -> Accepted {
    let mut set = GtidSet::new();
    for (_, group) in &groups[..count] {
        set.insert(group.gtid);
    }
    Accepted(set)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_files_are_cut_behind_any_transaction_and_at_any_torn_end() {
    let story = Story::begin().await;
    story.host.plant().await.unwrap();
    let process = story.host.start(&story.settings).await.unwrap();
    let mut root = story.root(&process).await;
    root.set_writable().await.unwrap();
    run(&mut root, HISTORY).await;
    kill_server(&story.host, &process).await.unwrap();

    let data = story.host.options().data_folder.clone();
    let binlogs = LocalBinlogs::new(data.clone(), story.folder.path().join("cut"));
    let files = binlogs.list().unwrap();
    let groups = groups(&binlogs);
    println!("{} groups in {files:?}", groups.len());
    assert!(files.len() >= 4 && groups.len() >= 13);
    let text = inspect(&binlogs, &first(&groups, 3)).unwrap().to_string();
    println!("{text}");
    assert!(text.contains("no checksums") && text.contains(", compressed"));
    let tagged = groups
        .iter()
        .filter(|(_, group)| !group.gtid.source.tag.is_empty());
    assert_eq!(tagged.count(), 2);

    assert_eq!(
        judge(&binlogs, &first(&groups, groups.len())).unwrap().0,
        CutPlan::Nothing
    );
    for (count, (file, group)) in groups.iter().enumerate() {
        let (plan, _) = judge(&binlogs, &first(&groups, count)).unwrap();
        let CutPlan::Cut(cut) = plan else {
            panic!("{count}: {plan:?}");
        };
        assert_eq!((&cut.file, cut.offset), (file, group.start), "{count}");
        assert_eq!(cut.tail.len(), groups.len() - count);
        let at = files.iter().position(|name| name == file).unwrap();
        assert_eq!(cut.drop_files, files[at + 1..]);
    }
    torn_anywhere(&binlogs, &data, story.folder.path(), &groups);
}

/// The last transaction is torn at each of its bytes: the cut is where it begins.
fn torn_anywhere(binlogs: &LocalBinlogs, data: &Path, folder: &Path, groups: &[(String, Group)]) {
    let copy = folder.join("torn");
    std::fs::create_dir(&copy).unwrap();
    // With absolute paths, as an index may have them.
    let mut index = String::new();
    for file in binlogs.list().unwrap() {
        std::fs::copy(data.join(&file), copy.join(&file)).unwrap();
        index.push_str(&format!("{}/{file}\n", copy.display()));
    }
    std::fs::write(copy.join("binlog.index"), index).unwrap();
    let torn = LocalBinlogs::new(copy.clone(), folder.join("torn-cut"));
    let (file, last) = groups.last().unwrap();
    let all = first(groups, groups.len());
    let open = std::fs::OpenOptions::new()
        .write(true)
        .open(copy.join(file))
        .unwrap();
    for len in (last.start + 1..last.end).rev() {
        open.set_len(len).unwrap();
        let (plan, _) = judge(&torn, &all).unwrap();
        let CutPlan::Cut(cut) = plan else {
            panic!("torn at {len}: {plan:?}");
        };
        assert_eq!(
            (&cut.file, cut.offset, cut.tail.len()),
            (file, last.start, 0)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_over_two_files_is_rolled_back_compressed_and_tagged_or_not() {
    let story = Story::begin().await;
    let host = &story.host;
    host.plant().await.unwrap();
    let process = host.start(&story.settings).await.unwrap();
    let mut root = story.root(&process).await;
    root.set_writable().await.unwrap();
    run(&mut root, &HISTORY[..9]).await;
    let mut xa = story.session("root", "").await.unwrap();
    run(
        &mut xa,
        &[
            "XA START 'x'",
            "INSERT INTO a.t (w) VALUES ('xa')",
            "XA END 'x'",
            "XA PREPARE 'x'",
        ],
    )
    .await;
    let rows = "SELECT COUNT(*), MAX(id) FROM a.t";
    let before = root.run("count", rows).await.unwrap().rows[0].text(0);
    let accepted = root.gtid_executed().await.unwrap();
    let mut session = story.session("root", "").await.unwrap();
    run(&mut session, &[COMPRESSED, TAGGED]).await;
    root.enable_semi_sync_source().await.unwrap();

    // Without an xid it lets the server rotate while it waits.
    let end = binlog_end(&mut root).await;
    let committing = tokio::spawn(async move { xa.run("hang", "XA COMMIT 'x'").await.map(drop) });
    hangs_behind(&mut root, end).await;
    let rotated = root.run("rotate", "SET GLOBAL binlog_checksum=NONE");
    timeout(Duration::from_secs(10), rotated)
        .await
        .unwrap()
        .unwrap();
    let insert = "INSERT INTO a.t (w) VALUES (REPEAT('never', 9000))";
    let end = binlog_end(&mut root).await;
    let inserting = tokio::spawn(async move { session.run("hang", insert).await.map(drop) });
    hangs_behind(&mut root, end).await;
    assert!(!committing.is_finished() && !inserting.is_finished());
    kill_server(host, &process).await.unwrap();
    assert!(committing.await.unwrap().is_err() && inserting.await.unwrap().is_err());

    ensure_stopped(host).await.unwrap();
    let repaired = cut_tail(host, "1-1".to_owned(), Accepted(accepted.clone()))
        .await
        .unwrap();
    let Repaired::MayStart(report) = repaired else {
        panic!("{repaired:?}");
    };
    let cut = report.cut.unwrap();
    assert_eq!((cut.tail.len(), cut.drop_files.len()), (2, 1), "{cut:?}");
    let kept = story.folder.path().join("cut/1-1");
    let described = std::fs::read_to_string(kept.join("repair.txt")).unwrap();
    println!("{described}");
    assert!(described.contains("rows, compressed") && described.contains(":tagged:2"));

    let process = host.start(&story.settings).await.unwrap();
    let mut root = story.root(&process).await;
    assert_eq!(root.gtid_executed().await.unwrap(), accepted);
    assert_eq!(
        root.run("count", rows).await.unwrap().rows[0].text(0),
        before
    );
    let prepared = root.run("look for XA", "XA RECOVER").await.unwrap();
    assert_eq!(prepared.rows.len(), 1, "its first phase was accepted");
    kill_server(host, &process).await.unwrap();
}
