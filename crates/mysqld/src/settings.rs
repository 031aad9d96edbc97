use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::rules::RULES;
use crate::seed::path_option;
use crate::version::Version;

/// How many transactions a replica applies beside each other, if nothing is said: two for each
/// core, since they wait for syncs, and at least MySQL's own four. More of them take the cores
/// from whoever else is on the machine, and wait for each other.
#[must_use]
pub fn default_parallel_workers() -> u32 {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    u32::try_from(cores.saturating_mul(2)).map_or(16, |workers| workers.clamp(4, 16))
}

/// What a server is started with in managed mode, beyond what every server is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Different on every node.
    pub server_id: u32,
    /// On loopback.
    pub port: u16,
    pub socket: PathBuf,
    pub max_connections: u32,
    pub buffer_pool_bytes: u64,
    pub performance_schema: bool,
    pub replica_parallel_workers: u32,
    /// `name=value`, given last: the user's own wishes. Those that Quorate depends on are refused
    /// by [`Settings::refused_extra`].
    pub extra: Vec<String>,
}

impl Settings {
    #[must_use]
    pub fn new(server_id: u32, port: u16, socket: PathBuf) -> Self {
        Self {
            server_id,
            port,
            socket,
            max_connections: 1000,
            buffer_pool_bytes: 128 << 20,
            performance_schema: true,
            replica_parallel_workers: default_parallel_workers(),
            extra: Vec::new(),
        }
    }

    /// The first of the user's wishes that is not theirs to make.
    #[must_use]
    pub fn refused_extra(&self) -> Option<&str> {
        let mut extra = self.extra.iter().map(String::as_str);
        extra.find(|option| is_owned(option))
    }

    /// The server's options for data in `data_folder`, in their order.
    #[must_use]
    pub fn argv(&self, version: Version, data_folder: &std::path::Path) -> Vec<OsString> {
        let mut argv: Vec<OsString> = Vec::new();
        // First, so that the variables of these plugins are known.
        for plugin in ["semisync_source.so", "mysql_clone.so"] {
            argv.push(format!("--plugin-load-add={plugin}").into());
        }
        for rule in RULES {
            if rule.is_for(version) && !rule.value.is_empty() {
                argv.push(format!("--{}={}", rule.name.replace('_', "-"), rule.value).into());
            }
        }
        let number = |name: &str, value: u64| OsString::from(format!("--{name}={value}"));
        argv.extend([
            number(
                "replica-parallel-workers",
                self.replica_parallel_workers.into(),
            ),
            number("server-id", self.server_id.into()),
            number("port", self.port.into()),
            number("max-connections", self.max_connections.into()),
            number("innodb-buffer-pool-size", self.buffer_pool_bytes),
            number("performance-schema", self.performance_schema.into()),
            // A node may need its own transactions again; GTIDs prevent loops.
            number("replicate-same-server-id", 1),
            "--bind-address=127.0.0.1".into(),
            "--loose-mysqlx=OFF".into(),
            "--log-bin=binlog".into(),
            "--relay-log=relay".into(),
            "--secure-file-priv=NULL".into(),
            path_option("socket", &self.socket),
            path_option("datadir", data_folder),
            path_option("pid-file", &data_folder.join("mysqld.pid")),
        ]);
        for option in &self.extra {
            argv.push(format!("--{}", option.trim_start_matches('-')).into());
        }
        argv
    }
}

/// Whether `--name=value` is for the sidecar to give, in whatever spelling: replication, durability
/// or the way to the server depends on it.
#[must_use]
pub fn is_owned(option: &str) -> bool {
    const PLACES: &[&str] = &[
        "datadir",
        "socket",
        "port",
        "bind_address",
        "server_id",
        "log_bin",
        "log_bin_index",
        "user",
        "basedir",
        "init_file",
        "innodb_buffer_pool_size",
        "plugin_load",
        "read_only",
        "replicate_same_server_id",
        "pid_file",
        "mysqlx",
    ];
    let name = option.split('=').next().unwrap_or_default();
    let name = name.trim().trim_start_matches('-').replace('-', "_");
    let name = name.to_ascii_lowercase();
    // MySQL knows each option under several names.
    let prefixes = ["loose_", "skip_", "disable_", "enable_", "maximum_"];
    let bare = prefixes.iter().find_map(|p| name.strip_prefix(p));
    let bare = bare.unwrap_or(&name);
    let ours = |known: &str| known == bare || known == name;
    RULES.iter().any(|rule| ours(rule.name))
        || PLACES.iter().any(|place| ours(place))
        || bare.starts_with("rpl_semi_sync")
}

/// A variable of a running server that is not what Quorate needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub variable: &'static str,
    /// None if the server does not have it.
    pub value: Option<String>,
    /// What to set, and why.
    pub advice: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value} ({})", self.variable, self.advice),
            None => write!(f, "no {} ({})", self.variable, self.advice),
        }
    }
}

/// Everything wrong with the variables of a running server (`SHOW GLOBAL VARIABLES`).
#[must_use]
pub fn judge_variables(variables: &BTreeMap<String, String>, version: Version) -> Vec<Finding> {
    // Absent from some supported versions, which then behave as if it were right.
    const MAY_BE_ABSENT: &[&str] = &["binlog_format"];
    let mut findings = Vec::new();
    for rule in RULES.iter().filter(|rule| rule.is_for(version)) {
        let value = variables.get(rule.name);
        let right = match value {
            Some(value) => rule.accepts(value),
            None => MAY_BE_ABSENT.contains(&rule.name),
        };
        if !right {
            findings.push(Finding {
                variable: rule.name,
                value: value.cloned(),
                advice: format!("set {}: {}", rule.advice(), rule.why),
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        for rule in RULES {
            let advice = rule.advice();
            let value = match advice.split_once('=') {
                Some((_, value)) => value.to_owned(),
                None => rule.value.to_owned(),
            };
            variables.insert(rule.name.to_owned(), value);
        }
        variables
    }

    #[test]
    fn a_server_started_by_us_has_no_findings_and_each_wrong_value_is_one() {
        let version = Version::new(9, 7, 4);
        assert_eq!(judge_variables(&good(), version), []);
        for (name, value) in [
            ("sync_binlog", "0"),
            ("binlog_error_action", "IGNORE_ERROR"),
            ("max_binlog_cache_size", "18446744073709547520"),
            ("disabled_storage_engines", "MyISAM"),
            ("rpl_semi_sync_source_timeout", "10000"),
        ] {
            let mut variables = good();
            variables.insert(name.to_owned(), value.to_owned());
            let findings = judge_variables(&variables, version);
            assert_eq!(findings.len(), 1, "{name}");
            assert_eq!(findings[0].variable, name);
        }
        let mut variables = good();
        variables.remove("gtid_mode");
        assert_eq!(judge_variables(&variables, version).len(), 1);
    }

    #[test]
    fn wishes_that_would_break_a_rule_are_refused_in_every_spelling() {
        let mut settings = Settings::new(1, 1, "/s".into());
        for option in [
            "--sync-binlog=0",
            "skip-log-bin",
            "loose_gtid_mode=OFF",
            "port=1",
        ] {
            settings.extra = vec!["long_query_time=1".into(), option.into()];
            assert_eq!(settings.refused_extra(), Some(option));
        }
        settings.extra.truncate(1);
        assert_eq!(settings.refused_extra(), None);
    }
}
