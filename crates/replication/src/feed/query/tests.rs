use super::*;
use crate::feed::tests::options;

fn ask_all(statements: &mut Statements, text: &str) -> Answer {
    let options = options();
    let facts = Facts {
        options: &options,
        connection_id: 7,
        accepted: Arc::new("30b06607-e52b-11f1-b1db-02fc00000001:1-5".parse().unwrap()),
    };
    statements.answer(text, &facts)
}

/// The first value, or what the error says.
fn ask(statements: &mut Statements, text: &str) -> String {
    match ask_all(statements, text) {
        Answer::Ok => "OK".to_owned(),
        Answer::Rows { rows, .. } => rows
            .first()
            .map_or("-".to_owned(), |row| row.text(0).unwrap_or("NULL".into())),
        Answer::Error(error) => format!("{} {}", error.code, error.message),
    }
}

#[test]
fn a_replica_gets_what_it_asks_for_in_any_case_and_spacing() {
    let mut statements = Statements::default();
    let mut ask = |text: &str| ask(&mut statements, text);
    assert_eq!(ask("SELECT UNIX_TIMESTAMP()"), "1700000000");
    assert_eq!(ask("select  unix_timestamp( ) ;"), "1700000000");
    assert_eq!(ask("SELECT @@GLOBAL.SERVER_ID"), "99");
    assert_eq!(ask("SELECT @@GLOBAL.GTID_MODE"), "ON");
    assert_eq!(
        ask("\n SELECT\t@@GLOBAL.SERVER_UUID"),
        "30b06607-e52b-81f1-b1db-02fc00000009"
    );
    assert_eq!(
        ask(
            "SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum"
        ),
        "OK"
    );
    assert_eq!(ask("SELECT @source_binlog_checksum"), "CRC32");
    assert_eq!(ask("SET @slave_uuid = 'a,b', @replica_uuid = 'c'"), "OK");
    assert_eq!(ask("SELECT @slave_uuid"), "a,b");
    assert_eq!(ask("SELECT @nothing"), "NULL");
    assert!(ask("SELECT @@global.rpl_semi_sync_source_enabled").starts_with("1193 "));
}

#[test]
fn tools_get_what_they_ask_for() {
    let mut statements = Statements::default();
    let mut ask = |text: &str| ask(&mut statements, text);
    assert_eq!(ask("SELECT VERSION()"), "9.7.4");
    assert_eq!(ask("select @@version_comment limit 1"), "Quorate feed");
    assert_eq!(ask("/* probe */ SELECT 1"), "1");
    assert_eq!(
        ask("select @@gtid_executed"),
        "30b06607-e52b-11f1-b1db-02fc00000001:1-5"
    );
    assert_eq!(ask("SHOW MASTER STATUS"), END_FILE);
    assert_eq!(ask("SHOW BINARY LOG STATUS;"), END_FILE);
    assert_eq!(ask("SHOW BINARY LOGS"), START_FILE);
    assert_eq!(ask("SET NAMES utf8mb4"), "OK");
    assert_eq!(
        ask("SHOW GLOBAL VARIABLES LIKE 'BINLOG_CHECKSUM'"),
        "binlog_checksum"
    );
    assert_eq!(
        ask("SHOW VARIABLES WHERE Variable_name = 'server_id'"),
        "server_id"
    );
    assert_eq!(ask("SHOW VARIABLES LIKE 'no_such_thing'"), "-");
    assert!(ask("select $$").starts_with("1064 "));
    assert!(ask("SELECT * FROM information_schema.columns").starts_with("1064 "));
    assert!(ask("DROP TABLE t").starts_with("1064 "));
    assert!(ask("SET GLOBAL read_only = 0").starts_with("1227 "));
    assert!(ask("").starts_with("1064 "));
}

#[test]
fn several_values_come_as_columns_of_one_row() {
    let answer = ask_all(
        &mut Statements::default(),
        "SELECT @@session.auto_increment_increment AS `one`, @@server_id as two, database()",
    );
    let Answer::Rows { columns, rows } = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(columns, ["one", "two", "database()"]);
    assert_eq!(rows, [Row::from_iter([Some("1"), Some("99"), None])]);
}

#[test]
fn show_variables_gives_all_that_fit_the_pattern() {
    let answer = ask_all(&mut Statements::default(), "show variables like 'gtid\\_%'");
    let Answer::Rows { rows, .. } = answer else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = rows.iter().filter_map(|row| row.text(0)).collect();
    assert_eq!(names, ["gtid_executed", "gtid_mode", "gtid_purged"]);
}

#[test]
fn what_was_said_before_the_dump_counts_in_it() {
    let mut statements = Statements::default();
    assert!(!statements.wants_checksums());
    assert_eq!(statements.heartbeat_period(), None);
    ask(&mut statements, "SET @master_heartbeat_period= 250000000");
    ask(&mut statements, "SET @MASTER_BINLOG_CHECKSUM='crc32'");
    assert!(statements.wants_checksums());
    assert_eq!(
        statements.heartbeat_period(),
        Some(Duration::from_millis(250))
    );
    ask(&mut statements, "SET @source_binlog_checksum = 'NONE'");
    assert!(!statements.wants_checksums());
    ask(&mut statements, "SET @source_heartbeat_period = 0");
    assert_eq!(statements.heartbeat_period(), None);
}

#[test]
fn user_variables_are_bounded() {
    let mut statements = Statements::default();
    for number in 0..1000 {
        ask(&mut statements, &format!("SET @v{number} = 1"));
    }
    let long = "x".repeat(1 << 20);
    assert!(ask(&mut statements, &format!("SET @v1 = '{long}'")).starts_with("1064"));
    let long = "x".repeat(1 << 10);
    assert!(ask(&mut statements, &format!("SET @v1 = '{long}'")).starts_with("1105"));
    assert_eq!(statements.user_variables.len(), USER_VARIABLES_MAX);
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(?i)(select|set|show|use)?[ @a-z='\"`(),%.;0-9äß_/*]{0,40}") {
        ask_all(&mut Statements::default(), &text);
    }
}
