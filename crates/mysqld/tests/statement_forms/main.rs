//! Every form of DML, DDL and account statement that a primary may have in its binlog when it dies:
//! hung unacknowledged, killed, judged. What is cut must leave nothing behind, and what would is
//! judged to need a clone.
//!
//! Forms share a kill where they do not disturb each other. With `QUORATE_EVERY_FORM_ALONE` set
//! each has its own, which takes some minutes.

#![expect(clippy::unwrap_used, reason = "a test, what it is made of included")]

#[path = "../story/mod.rs"]
mod story;

mod digest;
mod forms;

use std::time::Duration;

use quorate_mysqld::{Host, Repaired, Session, cut_tail, ensure_stopped, judge, kill_server};
use quorate_types::GtidSet;
use story::{Accepted, Story};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use digest::digest;
use forms::FORMS;

/// Forms in one kill at most.
const BATCH: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is cut off, and nothing of it is there afterwards.
    Cut,
    /// It stays, and changed nothing.
    Inert,
    Clone,
}

#[derive(Clone, Copy, Debug)]
struct Form {
    name: &'static str,
    /// Statements that prepare it.
    before: &'static [&'static str],
    /// The statements of one session, the last of which hangs.
    hangs: &'static [&'static str],
    verdict: Verdict,
    account: bool,
}

/// A form with the schema that it works in.
#[derive(Clone, Debug)]
struct Placed {
    form: Form,
    schema: String,
}

impl Placed {
    fn sql(&self, statement: &str) -> String {
        statement.replace("{s}", &self.schema)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_leaves_nothing_and_what_would_leave_something_needs_a_clone() {
    let mut story = Story::begin().await;
    // The forms that need a clone are about engines that are not allowed.
    story.settings.extra = vec!["disabled_storage_engines=".to_owned()];
    story.host.plant().await.unwrap();
    let forms: Vec<Placed> = FORMS
        .iter()
        .zip(1..)
        .map(|(form, number)| Placed {
            form: *form,
            schema: format!("s{number}"),
        })
        .collect();
    let process = story.host.start(&story.settings).await.unwrap();
    let mut root = story.root(&process).await;
    root.set_writable().await.unwrap();
    prepare(&story, &mut root, &forms).await;
    kill_server(&story.host, &process).await.unwrap();

    let began = Instant::now();
    let batches = batches(&forms);
    let mut wrong = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        if let Err(why) = run(&story, batch, number).await {
            let names: Vec<_> = batch.iter().map(|placed| placed.form.name).collect();
            println!("{names:?}: {why}");
            wrong.push(format!("{names:?}: {why}"));
        }
    }
    println!(
        "{} forms, {} kills, {:?}",
        forms.len(),
        batches.len(),
        began.elapsed()
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn prepare(story: &Story, root: &mut Session, forms: &[Placed]) {
    for placed in forms {
        let common = [
            "CREATE DATABASE {s}",
            "CREATE TABLE {s}.t (id INT PRIMARY KEY, v INT, w VARCHAR(40))",
            "INSERT INTO {s}.t VALUES (1, 1, 'one'), (2, 2, 'two'), (3, 3, 'three')",
        ];
        for statement in common.iter().chain(placed.form.before) {
            let sql = placed.sql(statement);
            let ran = root.run("prepare", &sql).await;
            ran.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        if matches!(placed.form.name, "XA COMMIT" | "XA ROLLBACK") {
            let mut session = story.session("root", "").await.unwrap();
            for statement in [
                "XA START '{s}'",
                "INSERT INTO {s}.t VALUES (7, 7, 'xa')",
                "XA END '{s}'",
                "XA PREPARE '{s}'",
            ] {
                session
                    .run("prepare", &placed.sql(statement))
                    .await
                    .unwrap();
            }
        }
    }
}

/// One account statement goes with some others, inert ones go together, and what needs a clone is
/// alone: any one of them spoils the tail.
fn batches(forms: &[Placed]) -> Vec<Vec<Placed>> {
    if std::env::var_os("QUORATE_EVERY_FORM_ALONE").is_some() {
        return forms.iter().map(|placed| vec![placed.clone()]).collect();
    }
    let of = |wanted: fn(&Form) -> bool| -> Vec<Placed> {
        let chosen = forms.iter().filter(|placed| wanted(&placed.form));
        chosen.cloned().collect()
    };
    let plain = of(|form| form.verdict == Verdict::Cut && !form.account);
    let mut accounts = of(|form| form.account).into_iter();
    let mut batches: Vec<Vec<Placed>> = Vec::new();
    for chunk in plain.chunks(BATCH - 1) {
        batches.push(chunk.iter().cloned().chain(accounts.next()).collect());
    }
    batches.extend(accounts.map(|placed| vec![placed]));
    batches.push(of(|form| form.verdict == Verdict::Inert));
    let spoilers = of(|form| form.verdict == Verdict::Clone);
    batches.extend(spoilers.into_iter().map(|placed| vec![placed]));
    batches
}

/// Hangs the batch on a server that waits for ACKs, kills it, judges what it left, and compares the
/// server that comes back with the one before.
async fn run(story: &Story, batch: &[Placed], number: usize) -> Result<(), String> {
    let host = &story.host;
    let process = host.start(&story.settings).await.unwrap();
    let mut root = story.root(&process).await;
    let accepted = root.gtid_executed().await.unwrap();
    let before = digest(&mut root, &host.options().data_folder).await;
    root.set_writable().await.unwrap();
    let count = batch.len();
    for sql in [
        // They come into the binlog together; one alone would keep the others out of it.
        "SET GLOBAL binlog_group_commit_sync_delay = 1000000".to_owned(),
        format!("SET GLOBAL binlog_group_commit_sync_no_delay_count = {count}"),
    ] {
        root.run("prepare", &sql).await.unwrap();
    }
    let mut sessions = Vec::new();
    for _ in batch {
        sessions.push(story.session("root", "").await.unwrap());
    }
    root.enable_semi_sync_source().await.unwrap();
    let waiting: Vec<_> = sessions
        .into_iter()
        .zip(batch)
        .map(|(session, placed)| hang(session, placed))
        .collect();
    let came = all_hang(story, &accepted, &waiting, count).await;
    kill_server(host, &process).await.unwrap();
    for task in waiting {
        let answer = task.await.unwrap();
        came.as_ref().map_err(|why| format!("{why}, {answer:?}"))?;
        assert!(answer.is_err(), "a client was told OK");
    }
    ensure_stopped(host).await.unwrap();
    let label = format!("batch-{number}");
    let repaired = cut_tail(host, label, Accepted(accepted.clone())).await;
    let repaired = repaired.map_err(|error| format!("{error:?}"))?;
    let verdict = batch[0].form.verdict;
    let inert = match (&repaired, verdict) {
        (Repaired::MayStart(report), Verdict::Cut) => {
            let cut = report.cut.as_ref().map_or(0, |cut| cut.tail.len());
            if cut != count {
                return Err(format!("{cut} of {count} are cut"));
            }
            GtidSet::new()
        }
        (Repaired::MayStart(report), Verdict::Inert) if report.cut.is_none() => {
            report.inert.clone()
        }
        (Repaired::MustClone(reason), Verdict::Clone) => {
            println!("{}: {reason}", batch[0].form.name);
            return Ok(());
        }
        (found, wanted) => return Err(format!("wanted {wanted:?}, found {found:?}")),
    };
    let process = host.start(&story.settings).await.unwrap();
    let mut root = story.root(&process).await;
    let executed = root.gtid_executed().await.unwrap();
    let after = digest(&mut root, &host.options().data_folder).await;
    kill_server(host, &process).await.unwrap();
    if executed.difference(&inert) != accepted {
        return Err(format!(
            "executed {executed}, accepted {accepted}, inert {inert}"
        ));
    }
    digest::compare(&before, &after)
}

/// Runs a form's statements; the last one's answer.
fn hang(mut session: Session, placed: &Placed) -> JoinHandle<Result<(), String>> {
    let statements: Vec<String> = placed
        .form
        .hangs
        .iter()
        .map(|sql| placed.sql(sql))
        .collect();
    // The account cache's lock would keep others from looking up what they may do.
    let delay = Duration::from_millis(if placed.form.account { 400 } else { 0 });
    tokio::spawn(async move {
        sleep(delay).await;
        for sql in statements {
            let ran = session.run("hang", &sql).await;
            ran.map_err(|error| format!("{sql}: {error:?}"))?;
        }
        Ok(())
    })
}

/// Waits until the binlog has all of them, and nobody was answered.
async fn all_hang(
    story: &Story,
    accepted: &GtidSet,
    waiting: &[JoinHandle<Result<(), String>>],
    count: usize,
) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(8);
    loop {
        sleep(Duration::from_millis(100)).await;
        let index = Counting::new(accepted.clone());
        let seen = index.seen.clone();
        let judged = story
            .host
            .with_binlogs(move |binlogs| judge(binlogs, &index))
            .await;
        judged.map_err(|error| format!("{error:?}"))?;
        let tail = seen.lock().unwrap().clone();
        if tail.count() == count as u64 {
            // Synced and waiting by now, not only written.
            sleep(Duration::from_millis(300)).await;
            return Ok(());
        }
        let ended = waiting.iter().filter(|task| task.is_finished()).count();
        if ended > 0 || Instant::now() > deadline {
            return Err(format!(
                "{} of {count} are in the binlog, {ended} ended",
                tail.count()
            ));
        }
    }
}

/// Counts what is not accepted.
struct Counting {
    accepted: GtidSet,
    seen: std::sync::Arc<std::sync::Mutex<GtidSet>>,
}

impl Counting {
    fn new(accepted: GtidSet) -> Self {
        Self {
            accepted,
            seen: std::sync::Arc::default(),
        }
    }
}

impl quorate_mysqld::AcceptedIndex for Counting {
    fn is_accepted(&self, gtid: &quorate_types::Gtid) -> bool {
        let accepted = self.accepted.contains(*gtid);
        if !accepted {
            self.seen.lock().unwrap().insert(*gtid);
        }
        // The planner would stop at the first that is not.
        true
    }

    fn checksum(&self, _: &quorate_types::Gtid) -> Option<u32> {
        None
    }
}
