use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Config, Finding, FlowControl, Secrets, SecretsError, Timing};

/// A small file that nothing is wrong with.
pub(crate) const GOOD: &str = r#"
node = 1
dir = "n1"
secrets = "secrets.toml"
[listen]
read_write = "127.0.0.1:7010"
read_only = "127.0.0.1:7011"
feed = "127.0.0.1:7012"
grpc = "127.0.0.1:7013"
http = "127.0.0.1:7014"
gate = "127.0.0.1:7016"
[mysqld]
port = 7015
[peers.1]
grpc = "127.0.0.1:7013"
gate = "127.0.0.1:7016"
[peers.2]
grpc = "127.0.0.1:7023"
gate = "127.0.0.1:7026"
dial = { grpc = "127.0.0.1:9001" }
"#;

fn findings(text: &str) -> Vec<Finding> {
    Config::parse(text, Path::new("/demo")).expect_err("the text is wrong")
}

fn line_of(text: &str, needle: &str) -> usize {
    text.lines()
        .position(|line| line.contains(needle))
        .expect("needle is in the text")
        + 1
}

#[test]
fn a_small_file_is_enough_and_the_rest_has_defaults() {
    let config = Config::parse(GOOD, Path::new("/demo")).unwrap();
    assert_eq!(config.dir, Path::new("/demo/n1"));
    assert_eq!(config.mysqld.socket, Path::new("/demo/n1/mysql.sock"));
    assert_eq!(config.secrets, Path::new("/demo/secrets.toml"));
    assert_eq!(config.timing, Timing::default());
    assert_eq!(config.mysqld.buffer_pool, "128M");
    assert!(config.read_only.fall_back_to_primary);
}

#[test]
fn a_witness_has_no_server_and_every_other_node_has_one() {
    let without = GOOD.replace("[mysqld]\nport = 7015\n", "");
    let found = findings(&without);
    assert_eq!(found[0].key, "mysqld");
    assert!(found[0].message.contains("is missing"), "{found:?}");
    let config = Config::parse(&format!("witness = true\n{without}"), Path::new("/demo")).unwrap();
    assert!(config.witness && config.mysql_address().is_empty());
    let found = findings(&format!("witness = true\n{GOOD}"));
    assert_eq!(found[0].key, "mysqld");
    let config = Config::parse(&format!("learner = true\n{GOOD}"), Path::new("/demo")).unwrap();
    assert!(config.learner && !config.witness);
    assert_eq!(config.mysql_address(), "127.0.0.1:7015");
}

#[test]
fn commands_of_a_service_manager_are_programs_and_belong_together() {
    let with = |lines: &str| GOOD.replace("port = 7015\n", &format!("port = 7015\n{lines}"));
    let text = with("start = [\"systemctl\", \"start\", \"db\"]\nkill = [\"true\"]\n");
    let config = Config::parse(&text, Path::new("/demo")).unwrap();
    let manager = config.service_manager().expect("it has one");
    assert_eq!(manager.start, ["systemctl", "start", "db"]);
    assert_eq!(manager.order_file, Path::new("/demo/n1/mysqld.order"));
    assert_eq!(
        (manager.stop, manager.kill),
        (None, Some(vec!["true".to_owned()]))
    );
    for (lines, key) in [
        ("start = []\n", "mysqld.start"),
        ("start = [\"true\"]\nstop = []\n", "mysqld.stop"),
        ("kill = [\"true\"]\n", "mysqld.kill"),
    ] {
        let text = with(lines);
        let found = findings(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].key, key);
        let line = line_of(&text, key.trim_start_matches("mysqld."));
        assert_eq!(found[0].at.map(|(line, _)| line), Some(line), "{found:?}");
    }
    let config = Config::parse(GOOD, Path::new("/demo")).unwrap();
    assert_eq!(config.service_manager(), None);
}

#[test]
fn limits_of_the_log_that_cannot_work_are_found() {
    let found = |lines: &str| {
        let text = format!("{GOOD}[retention]\n{lines}");
        match Config::parse(&text, Path::new("/demo")) {
            Ok(config) => Ok(config.retention),
            Err(findings) => Err(findings[0].to_string()),
        }
    };
    let small = found("log_bytes = 1048576\nlog_age_s = 60\nbudget_bytes = 8388608\n").unwrap();
    assert_eq!(small.log_age, std::time::Duration::from_secs(60));
    assert_eq!(small.transaction_bytes_max(), 1 << 20);
    assert_eq!(found("").unwrap().transaction_bytes_max(), 2 << 30);
    for (lines, what) in [
        ("log_bytes = 1000\n", "less than 1 MiB"),
        ("budget_bytes = 1000\nlog_bytes = 0\n", "less than 8 MiB"),
        ("log_bytes = 9663676416\n", "more than half"),
        (
            "log_bytes = 0\nlog_age_s = 0\n",
            "nothing would ever be purged",
        ),
    ] {
        let finding = found(lines).unwrap_err();
        assert!(finding.contains(what), "{finding}");
    }
    // Age alone is a limit.
    assert!(found("log_bytes = 0\n").is_ok());
}

#[test]
fn tables_are_compared_in_the_background_only_where_that_is_asked_for() {
    let seconds = std::time::Duration::from_secs;
    let config = Config::parse(GOOD, Path::new("/demo")).unwrap();
    assert!(config.verify.every.is_zero());
    assert_eq!(config.verify.table_max, seconds(3600));
    let text = format!("{GOOD}[verify]\nevery_s = 86400\n");
    let config = Config::parse(&text, Path::new("/demo")).unwrap();
    assert_eq!(config.verify.every, seconds(86400));
    assert_eq!(config.verify.table_max, seconds(3600));
    let text = format!("{GOOD}[verify]\ntable_max_s = 0\n");
    assert!(Config::parse(&text, Path::new("/demo")).is_err());
}

#[test]
fn a_primary_is_slowed_down_by_default_and_never_for_long() {
    let config = Config::parse(GOOD, Path::new("/demo")).unwrap();
    assert_eq!(config.flow_control, FlowControl::default());
    let text = format!("{GOOD}[flow_control]\nmax_behind_transactions = 0\n");
    let config = Config::parse(&text, Path::new("/demo")).unwrap();
    assert_eq!(config.flow_control.max_behind_transactions, 0);
    let text = format!("{GOOD}[flow_control]\ndelay_max_ms = 1001\n");
    assert!(Config::parse(&text, Path::new("/demo")).is_err());
}

#[test]
fn the_own_entry_is_ignored_and_a_relay_is_dialled_only_where_one_is_named() {
    let config = Config::parse(GOOD, Path::new("/demo")).unwrap();
    assert_eq!(config.peers.len(), 1);
    let peer = config.peers.values().next().unwrap();
    assert_eq!(peer.dial_grpc().to_string(), "127.0.0.1:9001");
    assert_eq!(peer.dial_gate().to_string(), "127.0.0.1:7026");
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_column() {
    let text = GOOD.replace("port = 7015", "port = 7015\n  prot = 7016");
    let found = findings(&text);
    assert_eq!(found[0].at, Some((line_of(&text, "prot"), 3)));
    assert!(found[0].message.contains("prot"), "{found:?}");
}

#[test]
fn a_wrong_type_and_broken_text_are_named_with_their_line() {
    let text = GOOD.replace("port = 7015", "port = \"many\"");
    assert_eq!(findings(&text)[0].at.unwrap().0, line_of(&text, "many"));
    let text = GOOD.replace("port = 7015", "port = = 7015");
    assert_eq!(findings(&text)[0].at.unwrap().0, line_of(&text, "= ="));
}

#[test]
fn everything_that_is_wrong_is_found_at_once() {
    let text = GOOD
        .replace("node = 1", "node = 0")
        .replace("feed = \"127.0.0.1:7012\"", "feed = \"0.0.0.0:7012\"")
        .replace("http = \"127.0.0.1:7014\"", "http = \"127.0.0.1:7013\"")
        .replace("127.0.0.1:7026", "7026")
        .replace(
            "port = 7015",
            "port = 7010\nextra = [\"--loose-sync_binlog=0\"]",
        )
        + "[timing]\nelection_min_ms = 60\nelection_max_ms = 60\n\
           quorum_loss_probe_ms = 119\n[log]\nfilter = \"a=b=c\"\n";
    let found = findings(&text);
    let places: Vec<(&str, usize)> = found
        .iter()
        .map(|finding| (finding.key.as_str(), finding.at.expect("has a place").0))
        .collect();
    for (key, needle) in [
        ("node", "node = 0"),
        ("listen.feed", "feed ="),
        ("listen.http", "http ="),
        ("peers.2.gate", "\"7026\""),
        ("mysqld.port", "port = 7010"),
        ("mysqld.extra", "extra"),
        ("timing.election_min_ms", "election_min_ms"),
        ("timing.election_max_ms", "election_max_ms"),
        ("timing.quorum_loss_probe_ms", "quorum_loss_probe_ms"),
        ("log.filter", "filter"),
    ] {
        assert!(
            places.contains(&(key, line_of(&text, needle))),
            "{key}: {found:#?}"
        );
    }
}

#[test]
fn without_tls_only_the_application_ports_may_be_open_to_the_network() {
    let open = GOOD.replace("127.0.0.1:7010", "0.0.0.0:7010");
    Config::parse(&open, Path::new("/demo")).unwrap();
    for port in ["7012", "7013", "7014", "7016", "7023", "7026"] {
        let address = format!("127.0.0.1:{port}");
        let open = GOOD.replace(&address, &format!("10.0.0.1:{port}"));
        assert!(findings(&open)[0].message.contains("[tls]"));
        let tls = "[tls]\nca = \"ca.pem\"\ncert = \"c.pem\"\nkey = \"k.pem\"\n";
        Config::parse(&(open + tls), Path::new("/demo")).unwrap();
    }
}

#[test]
fn options_that_decide_about_durability_cannot_be_given_under_any_spelling() {
    for option in [
        "--sync-binlog=0",
        "--sync_binlog=0",
        "--loose-gtid_mode=OFF",
        "--skip-log-bin",
        "--rpl_semi_sync_source_enabled=1",
        "port=1",
    ] {
        let text = GOOD.replace(
            "port = 7015",
            &format!("port = 7015\nextra = [\"{option}\"]"),
        );
        assert_eq!(findings(&text)[0].key, "mysqld.extra", "{option}");
    }
    let text = GOOD.replace(
        "port = 7015",
        "port = 7015\nextra = [\"--max-connections=50\"]",
    );
    Config::parse(&text, Path::new("/demo")).unwrap();
}

#[test]
fn a_socket_path_that_the_kernel_would_refuse_is_found_before_mysqld_is_started() {
    let text = GOOD.replace("dir = \"n1\"", &format!("dir = \"{}\"", "d".repeat(110)));
    assert_eq!(findings(&text)[0].key, "dir");
}

#[test]
fn secrets_come_back_as_saved_and_a_file_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secrets.toml");
    let secrets = Secrets::generate().unwrap();
    assert_ne!(secrets.control, secrets.feed);
    secrets.save(&file).unwrap();
    assert_eq!(Secrets::load(&file).unwrap(), secrets);
    assert!(matches!(
        secrets.save(&file),
        Err(SecretsError::Write { .. })
    ));

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = Secrets::load(&file).unwrap_err();
    assert!(error.to_string().contains("0640"), "{error}");
}

#[test]
fn no_error_about_secrets_quotes_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secrets.toml");
    Secrets::generate().unwrap().save(&file).unwrap();
    std::fs::write(&file, "control = \"hunter2\"\nhunter3 = 1\n").unwrap();
    let error = Secrets::load(&file).unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("hunter"), "{shown}");
    assert!(shown.contains("line: "), "{shown}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]
    #[test]
    fn no_text_makes_the_parser_panic(text in "(\\PC|[\\[\\]=\"\n.{}]){0,80}") {
        let _ = Config::parse(&text, Path::new("/demo"));
        let _ = Config::parse(&format!("{GOOD}\n{text}"), Path::new("/demo"));
    }
}
