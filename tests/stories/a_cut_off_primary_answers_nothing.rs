//! Stories of a primary that has no majority: it acknowledges nothing and shows nothing, and when
//! the links are back all servers agree on what became of what waited.

use std::path::Path;
use std::time::Duration;

use quorate_tests::{
    Cluster, Flow, Options, Sql, SqlError, assert_servers_equal, undisturbed, wait_for,
};
use quorate_types::NodeId;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate-under-test");
const SOON: Duration = Duration::from_secs(15);
const CUT_OFF: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);
/// "At once", on a machine that is busy with three servers; the lease itself is a quarter of it.
const AT_ONCE: Duration = Duration::from_secs(1);
/// What a primary says that finds itself replaced while commits wait on it.
const HELD_COMMITS: &[&str] = &[
    "capture ended: the epoch is over: the fate of a proposal is unknown",
    "super_read_only=ON waits behind something: commits may be in flight: repairing",
    "cut what was never acknowledged off the binlog",
    // Its own kill, when that is noticed twice.
    "quorate_node::jobs::repair: mysqld exited",
];
const ROW: &str = "SELECT COUNT(*) FROM app.written WHERE id > 0";
const TABLE: &str = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'app' AND table_name = 'made'";

#[test]
fn a_cut_off_primary_answers_nothing() {
    undisturbed(answers_nothing);
}

async fn answers_nothing() {
    let cluster = Cluster::start("cut_off", PROGRAM, Options::with_shipped_timing()).await;
    let primary = cluster.wait_for_primary(SOON).await;
    let socket = cluster.node(primary).socket();
    let mut gate = prepare(&cluster, primary).await;
    let mut lookers = Vec::new();
    for place in cluster.sockets() {
        lookers.push(Sql::socket(&place).await.expect("root on the socket"));
    }
    let insert = session_on(&socket).await;
    let create = session_on(&socket).await;

    for follower in cluster.others(primary) {
        cluster.links.isolate(follower, true);
    }
    let began = Instant::now();
    let through_gate = tokio::spawn(async move {
        let answer = gate.run("INSERT INTO app.written VALUES (1)").await;
        (answer, began.elapsed())
    });
    let insert = run(insert, "INSERT INTO app.written VALUES (2)");
    let create = run(create, "CREATE TABLE app.made (id INT PRIMARY KEY)");
    while began.elapsed() < CUT_OFF {
        for looker in &mut lookers {
            assert_eq!(count(looker, ROW).await, 0, "a row that is not committed");
            assert_eq!(
                count(looker, TABLE).await,
                0,
                "a table that is not committed"
            );
        }
        assert!(!insert.is_finished(), "the server's own session hangs");
        assert!(!create.is_finished(), "the server's own session hangs");
        tokio::time::sleep(LOOK).await;
    }
    let (answer, ended) = through_gate.await.expect("the client ran");
    assert!(matches!(answer, Err(SqlError::Unknown(_))), "{answer:?}");
    assert!(ended < AT_ONCE, "through the gate it ended after {ended:?}");
    println!("cut off: the gate ended its connection after {ended:?}");

    cluster.links.heal();
    let outcomes = [
        (told(insert, "INSERT").await, ROW),
        (told(create, "CREATE TABLE").await, TABLE),
    ];
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    assert_servers_equal(&cluster.sockets(), SOON).await;
    let mut sql = session_on(&socket).await;
    for (acknowledged, query) in outcomes {
        assert!(!acknowledged || count(&mut sql, query).await > 0, "{query}");
    }
    finish(cluster).await;
}

#[test]
fn whoever_connects_after_a_lease_came_back_finds_what_lost_sessions_ever_do() {
    undisturbed(finds_what_lost_sessions_ever_do);
}

/// The lease ends long before anybody elects, so the same epoch goes on.
async fn finds_what_lost_sessions_ever_do() {
    let timing = "election_min_ms = 6000\nelection_max_ms = 12000\nquorum_loss_probe_ms = 40000\n"
        .to_owned();
    let options = Options {
        timing,
        ..Options::default()
    };
    let cluster = Cluster::start("lease_back", PROGRAM, options).await;
    let primary = cluster.wait_for_primary(SOON).await;
    let port = cluster.node(primary).ports.read_write;
    let waits = prepare(&cluster, primary).await;
    let sleeps = Sql::port(port).await.expect("a session through the gate");
    let commits = Sql::port(port).await.expect("a session through the gate");
    let mut holder = session_on(&cluster.node(primary).socket()).await;
    let insert = "INSERT INTO app.written VALUES (1)";
    holder.run("BEGIN").await.expect("BEGIN");
    holder.run(insert).await.expect(insert);
    let began = Instant::now();
    let waits = run(waits, insert);
    let sleeps = run(
        sleeps,
        "INSERT INTO app.written SELECT 2 FROM (SELECT SLEEP(15)) AS slept",
    );
    let of_both = "SELECT COUNT(*) FROM performance_schema.processlist WHERE INFO LIKE \
                   'INSERT INTO app.written%' AND STATE IN ('update', 'User sleep')";
    let both = wait_for(SOON, async || count(&mut holder, of_both).await == 2).await;
    assert!(both, "one waits for the lock, one sleeps");
    for follower in cluster.others(primary) {
        cluster.links.isolate(follower, true);
    }
    let commits = run(commits, "INSERT INTO app.written VALUES (3)");
    for lost in [waits, sleeps, commits] {
        let answer = lost.await.expect("the client ran");
        assert!(matches!(answer, Err(SqlError::Unknown(_))), "{answer:?}");
    }
    println!(
        "lease back: the sessions were lost after {:?}",
        began.elapsed()
    );

    cluster.links.heal();
    let back = Instant::now();
    let mut next = Sql::port(port).await.expect("a session through the gate");
    println!(
        "lease back: the next one began {:?} after healing",
        back.elapsed()
    );
    // Of those only the last can commit: it is in the binlog.
    assert_eq!(ids(&mut next).await, "3");
    holder.run("ROLLBACK").await.expect("ROLLBACK");
    // Longer than the second would have needed.
    tokio::time::sleep_until(began + Duration::from_secs(17)).await;
    assert_eq!(ids(&mut next).await, "3", "nothing of them comes later");
    let unexpected = cluster.unexpected_log_lines(&[]);
    assert_eq!(unexpected, Vec::<String>::new());
    cluster.stop().await;
}

async fn ids(sql: &mut Sql) -> String {
    let query = "SELECT IFNULL(GROUP_CONCAT(id ORDER BY id), '') FROM app.written WHERE id > 0";
    sql.value(query).await.expect(query)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hung_on_a_primary_that_was_left_behind_is_nowhere() {
    let cluster = Cluster::start("left_behind", PROGRAM, Options::default()).await;
    let old = cluster.wait_for_primary(SOON).await;
    let socket = cluster.node(old).socket();
    prepare(&cluster, old).await;
    let insert = session_on(&socket).await;
    let create = session_on(&socket).await;

    cluster.links.isolate(old, true);
    let began = Instant::now();
    let insert = run(insert, "INSERT INTO app.written VALUES (1)");
    let create = run(create, "CREATE TABLE app.made (id INT PRIMARY KEY)");
    write_elsewhere(&cluster, old, 0).await;
    println!(
        "left behind: a commit elsewhere after {:?}",
        began.elapsed()
    );
    assert!(!insert.is_finished(), "the server's own session hangs");
    assert!(!create.is_finished(), "the server's own session hangs");

    cluster.links.heal();
    assert!(
        !told(insert, "INSERT").await,
        "another primary committed meanwhile"
    );
    assert!(
        !told(create, "CREATE TABLE").await,
        "another primary committed meanwhile"
    );
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    println!("left behind: whole again after {:?}", began.elapsed());
    assert_servers_equal(&cluster.sockets(), SOON).await;
    let mut sql = session_on(&socket).await;
    assert_eq!(count(&mut sql, ROW).await, 0);
    assert_eq!(count(&mut sql, TABLE).await, 0);
    assert_eq!(count(&mut sql, "SELECT COUNT(*) FROM app.written").await, 1);
    finish(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_heard_but_does_not_hear_is_replaced() {
    let cluster = Cluster::start("one_way", PROGRAM, Options::default()).await;
    let old = cluster.wait_for_primary(SOON).await;
    prepare(&cluster, old).await;
    let began = Instant::now();
    for follower in cluster.others(old) {
        cluster.links.flow(follower, old, Flow::Hold);
    }
    write_elsewhere(&cluster, old, 1).await;
    println!("one way: a commit elsewhere after {:?}", began.elapsed());
    let new = cluster.wait_for_primary(SOON).await;
    assert_ne!(new, old, "a node that hears leads");
    cluster.links.heal();
    cluster.wait_until_whole(Duration::from_secs(60)).await;
    assert_servers_equal(&cluster.sockets(), SOON).await;
    finish(cluster).await;
}

/// Makes the table, sees it everywhere, and gives a session through the primary's own port.
async fn prepare(cluster: &Cluster, primary: NodeId) -> Sql {
    let mut gate = Sql::port(cluster.node(primary).ports.read_write)
        .await
        .expect("a session through the gate");
    gate.run("CREATE TABLE app.written (id BIGINT PRIMARY KEY)")
        .await
        .expect("make the table");
    assert_servers_equal(&cluster.sockets(), SOON).await;
    gate
}

async fn session_on(socket: &Path) -> Sql {
    Sql::socket(socket).await.expect("root on the socket")
}

fn run(mut session: Sql, statement: &'static str) -> JoinHandle<Result<(), SqlError>> {
    tokio::spawn(async move { session.run(statement).await })
}

/// Whether the client was told OK; an error of the server would be a lie either way.
async fn told(client: JoinHandle<Result<(), SqlError>>, what: &str) -> bool {
    let answer = tokio::time::timeout(Duration::from_secs(60), client)
        .await
        .unwrap_or_else(|_| panic!("{what} still hangs after healing"))
        .expect("the client ran");
    println!("cut off: {what} was told {answer:?} after healing");
    match answer {
        Ok(()) => true,
        Err(SqlError::Unknown(_)) => false,
        Err(error) => panic!("{what}: {error}"),
    }
}

async fn count(sql: &mut Sql, query: &str) -> u64 {
    let value = tokio::time::timeout(SOON, sql.value(query)).await;
    let value = value.expect("looking does not hang").expect(query);
    value.parse().expect("a number")
}

/// Tries until a commit through another node's port is acknowledged. Ids up to zero, as what
/// waits has ids above.
async fn write_elsewhere(cluster: &Cluster, old: NodeId, id: i64) {
    let port = cluster.node(cluster.others(old)[0]).ports.read_write;
    let insert = format!("INSERT IGNORE INTO app.written VALUES ({})", -id);
    let written = wait_for(SOON, async || match Sql::port(port).await {
        Ok(mut sql) => sql.run_within(&insert, SOON).await.is_ok(),
        Err(_) => false,
    })
    .await;
    assert!(written, "no commit elsewhere within {SOON:?}");
}

async fn finish(cluster: Cluster) {
    let unexpected = cluster.unexpected_log_lines(HELD_COMMITS);
    assert_eq!(unexpected, Vec::<String>::new());
    cluster.stop().await;
}
