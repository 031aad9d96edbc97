//! What speaks against a server before it is taken in, beyond its settings (`settings.rs`).

use std::collections::BTreeMap;
use std::fmt;

use crate::accounts::{CAPTURE_USER, CLONE_USER, CONTROL_USER};
use crate::control::{ControlError, Session};

/// What a finding means for a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The server must not be taken in, or started.
    Forbids,
    /// It can be, and something will go wrong that Quorate cannot prevent.
    Warns,
    /// Worth knowing.
    Notes,
}

/// Something found, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckFinding {
    pub severity: Severity,
    pub what: String,
    pub advice: String,
}

impl CheckFinding {
    #[must_use]
    pub fn new(severity: Severity, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            severity,
            what: what.into(),
            advice: advice.into(),
        }
    }
}

impl fmt::Display for CheckFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, advice, .. } = self;
        write!(f, "{what}: {advice}")
    }
}

/// What of a server must be unlike the others', or like them: values by name.
pub type Facts = BTreeMap<String, String>;

/// How a fact of one server should relate to another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Unique,
    Equal,
}

/// Name, relation, what a breach means, and what to do.
const FACTS: &[(&str, Relation, Severity, &str)] = &[
    (
        "server_uuid",
        Relation::Unique,
        Severity::Forbids,
        "one of the data folders is a copy: remove auto.cnf in the copy, or let it be cloned",
    ),
    (
        "server_id",
        Relation::Unique,
        Severity::Forbids,
        "give each node a number of its own",
    ),
    (
        "lower_case_table_names",
        Relation::Equal,
        Severity::Forbids,
        "it is fixed when a data folder is made: let the node be cloned by one that has the wanted value",
    ),
    (
        "innodb_page_size",
        Relation::Equal,
        Severity::Forbids,
        "it is fixed when a data folder is made: let the node be cloned by one that has the wanted value",
    ),
    (
        "release series",
        Relation::Equal,
        Severity::Warns,
        "run one series everywhere: servers of different ones do not clone each other",
    ),
    (
        "plugins",
        Relation::Equal,
        Severity::Warns,
        "INSTALL PLUGIN or INSTALL COMPONENT on each node: they are not replicated, and a clone wants \
         the same",
    ),
    (
        "sql_mode",
        Relation::Equal,
        Severity::Warns,
        "set it alike in mysqld.extra of all nodes: after a failover statements would behave otherwise",
    ),
    (
        "time_zone",
        Relation::Equal,
        Severity::Warns,
        "set default-time-zone alike in mysqld.extra of all nodes",
    ),
    (
        "time_zone_names",
        Relation::Equal,
        Severity::Warns,
        "load the time zone tables through the read-write port, so that all have the same",
    ),
    (
        "character_set_server",
        Relation::Equal,
        Severity::Warns,
        "set it alike in mysqld.extra of all nodes",
    ),
    (
        "collation_server",
        Relation::Equal,
        Severity::Warns,
        "set it alike in mysqld.extra of all nodes",
    ),
    (
        "transaction_isolation",
        Relation::Equal,
        Severity::Warns,
        "set it alike in mysqld.extra of all nodes",
    ),
    (
        "explicit_defaults_for_timestamp",
        Relation::Equal,
        Severity::Warns,
        "set it alike in mysqld.extra of all nodes: tables would be made otherwise",
    ),
];

/// What two servers, `own` and that of `other`, must not have in common, and must have.
#[must_use]
pub fn compare_facts(own: &Facts, other: &str, theirs: &Facts) -> Vec<CheckFinding> {
    let mut findings = Vec::new();
    for (name, relation, severity, advice) in FACTS {
        let (Some(one), Some(two)) = (own.get(*name), theirs.get(*name)) else {
            continue;
        };
        let what = match relation {
            Relation::Unique if one == two => format!("{name} {one} is {other}'s too"),
            Relation::Equal if one != two => format!("{name} is `{one}`, {other} has `{two}`"),
            Relation::Unique | Relation::Equal => continue,
        };
        findings.push(CheckFinding::new(*severity, what, *advice));
    }
    findings
}

/// With these one can release commits that no majority has, keep writes out of the log, or end the
/// server so that it answers what it should not.
const DANGEROUS: &[&str] = &[
    "REPLICATION SLAVE",
    "SYSTEM_VARIABLES_ADMIN",
    "SESSION_VARIABLES_ADMIN",
    "SUPER",
    "SHUTDOWN",
];
/// Made by MySQL, or by us.
const OWN_USERS: &[&str] = &[
    CONTROL_USER,
    CAPTURE_USER,
    CLONE_USER,
    "mysql.sys",
    "mysql.session",
    "mysql.infoschema",
];
/// On the server's socket only, since names are not resolved.
const SOCKET_ROOT: &str = "'root'@'localhost'";
const OWN_SCHEMAS: &str = "'mysql', 'sys', 'information_schema', 'performance_schema'";
/// As many tables are named; there may be thousands.
const NAMED_MAX: usize = 5;

impl Session {
    /// Everything about the server that speaks against taking it in, the worst first: its
    /// settings, plugins, accounts, tables, replication.
    pub async fn preflight(&mut self) -> Result<Vec<CheckFinding>, ControlError> {
        let mut findings: Vec<CheckFinding> = Vec::new();
        for finding in self.check_settings().await? {
            let what = match &finding.value {
                Some(value) => format!("mysqld runs with {}={value}", finding.variable),
                None => format!("mysqld has no {}", finding.variable),
            };
            findings.push(CheckFinding::new(
                Severity::Forbids,
                what,
                finding.advice.clone(),
            ));
        }
        let facts = self.facts().await?;
        findings.extend(judge_facts(&facts));
        findings.extend(self.check_plugins().await?);
        findings.extend(self.check_accounts().await?);
        findings.extend(self.check_tables().await?);
        findings.extend(self.check_channels().await?);
        findings.sort();
        Ok(findings)
    }

    /// What is compared with other servers.
    pub async fn facts(&mut self) -> Result<Facts, ControlError> {
        let identity = self.identity().await?;
        let what = "read the server's variables";
        let result = self.run(what, "SHOW GLOBAL VARIABLES").await?;
        let mut facts: Facts = result
            .rows
            .iter()
            .filter_map(|row| Some((row.text(0)?, row.text(1)?)))
            .filter(|(name, _)| {
                let compared = FACTS.iter().any(|(known, ..)| known == name);
                compared || matches!(name.as_str(), "binlog_order_commits" | "system_time_zone")
            })
            .collect();
        if let Some(system) = facts.remove("system_time_zone")
            && facts.get("time_zone").is_some_and(|zone| zone == "SYSTEM")
        {
            facts.insert("time_zone".to_owned(), format!("SYSTEM ({system})"));
        }
        let version = identity.version;
        let series = format!("{}.{}", version.major, version.minor);
        facts.insert("release series".to_owned(), series);
        let zones = "SELECT COUNT(*) FROM mysql.time_zone_name";
        let zones = self.run("count the time zones", zones).await?.scalar();
        facts.insert("time_zone_names".to_owned(), zones.unwrap_or_default());
        let plugins = self.plugins().await?;
        let active = plugins.iter().filter(|(_, active)| *active);
        let names: Vec<&str> = active.map(|(name, _)| name.as_str()).collect();
        facts.insert("plugins".to_owned(), names.join(","));
        Ok(facts)
    }

    /// Those that come in libraries, and whether they are active.
    async fn plugins(&mut self) -> Result<Vec<(String, bool)>, ControlError> {
        let sql = "SELECT PLUGIN_NAME, PLUGIN_STATUS FROM information_schema.PLUGINS \
                   WHERE PLUGIN_LIBRARY IS NOT NULL ORDER BY PLUGIN_NAME";
        let result = self.run("list the plugins", sql).await?;
        let rows = result.rows.iter();
        Ok(rows
            .filter_map(|row| Some((row.text(0)?, row.text(1)? == "ACTIVE")))
            .collect())
    }

    async fn check_plugins(&mut self) -> Result<Vec<CheckFinding>, ControlError> {
        let plugins = self.plugins().await?;
        let active = |name: &str| plugins.iter().any(|(known, on)| known == name && *on);
        let mut findings = Vec::new();
        for (name, library) in [
            ("rpl_semi_sync_source", "semisync_source.so"),
            ("clone", "mysql_clone.so"),
        ] {
            if !active(name) {
                let what = format!("the plugin {name} is not active");
                let advice = format!("start the server with --plugin-load-add={library}");
                findings.push(CheckFinding::new(Severity::Forbids, what, advice));
            }
        }
        for name in ["group_replication", "rpl_semi_sync_master"] {
            if active(name) {
                let what = format!("the plugin {name} is active, which decides about commits too");
                let advice = format!("UNINSTALL PLUGIN {name}");
                findings.push(CheckFinding::new(Severity::Forbids, what, advice));
            }
        }
        Ok(findings)
    }

    async fn check_accounts(&mut self) -> Result<Vec<CheckFinding>, ControlError> {
        let wanted: Vec<String> = DANGEROUS.iter().map(|name| format!("'{name}'")).collect();
        let sql = format!(
            "SELECT GRANTEE, GROUP_CONCAT(PRIVILEGE_TYPE ORDER BY PRIVILEGE_TYPE SEPARATOR ', ') \
             FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE IN ({}) \
             GROUP BY GRANTEE ORDER BY GRANTEE",
            wanted.join(", ")
        );
        let result = self
            .run("list what accounts and roles may do", &sql)
            .await?;
        let mut findings = Vec::new();
        for row in &result.rows {
            let (Some(grantee), Some(privileges)) = (row.text(0), row.text(1)) else {
                continue;
            };
            let user = grantee.split('\'').nth(1).unwrap_or_default();
            if OWN_USERS.contains(&user) || grantee == SOCKET_ROOT {
                continue;
            }
            let what = format!("{grantee} has {privileges}");
            let advice =
                format!("REVOKE {privileges} ON *.* FROM {grantee}: with them it can pass the log");
            findings.push(CheckFinding::new(Severity::Warns, what, advice));
        }
        Ok(findings)
    }

    async fn check_tables(&mut self) -> Result<Vec<CheckFinding>, ControlError> {
        let other_engine = format!(
            "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME, ' (', ENGINE, ')') \
             FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' \
             AND ENGINE <> 'InnoDB' AND TABLE_SCHEMA NOT IN ({OWN_SCHEMAS}) ORDER BY 1"
        );
        let no_key = format!(
            "SELECT CONCAT(t.TABLE_SCHEMA, '.', t.TABLE_NAME) FROM information_schema.TABLES t \
             LEFT JOIN information_schema.TABLE_CONSTRAINTS c ON c.TABLE_SCHEMA = t.TABLE_SCHEMA \
             AND c.TABLE_NAME = t.TABLE_NAME AND c.CONSTRAINT_TYPE = 'PRIMARY KEY' \
             WHERE t.TABLE_TYPE = 'BASE TABLE' AND c.CONSTRAINT_NAME IS NULL \
             AND t.TABLE_SCHEMA NOT IN ({OWN_SCHEMAS}) ORDER BY 1"
        );
        let mut findings = Vec::new();
        let mut look = async |sql: &str, severity, what: &str, advice: &str| {
            let result = self.run("look at the tables", sql).await?;
            let names: Vec<String> = result.rows.iter().filter_map(|row| row.text(0)).collect();
            if !names.is_empty() {
                let what = format!("{what}: {}", some(&names));
                findings.push(CheckFinding::new(severity, what, advice));
            }
            Ok::<_, ControlError>(())
        };
        look(
            &other_engine,
            Severity::Forbids,
            "tables of other engines than InnoDB",
            "ALTER TABLE … ENGINE=InnoDB: what they hold cannot be rolled back",
        )
        .await?;
        look(
            &no_key,
            Severity::Notes,
            "tables without a primary key",
            "give them one: a replica looks through the whole table for each changed row",
        )
        .await?;
        Ok(findings)
    }

    async fn check_channels(&mut self) -> Result<Vec<CheckFinding>, ControlError> {
        let sql = "SELECT CHANNEL_NAME, HOST FROM performance_schema.replication_connection_configuration \
                   WHERE CHANNEL_NAME <> ''";
        let result = self.run("list the replication channels", sql).await?;
        let rows = result.rows.iter();
        let channels = rows.filter_map(|row| Some((row.text(0)?, row.text(1)?)));
        Ok(channels
            .map(|(channel, host)| {
                let what = format!("it replicates from {host} over the channel {channel}");
                let advice =
                    format!("STOP REPLICA, then RESET REPLICA ALL FOR CHANNEL '{channel}'");
                CheckFinding::new(Severity::Forbids, what, advice)
            })
            .collect())
    }
}

/// What one server's facts say by themselves.
fn judge_facts(facts: &Facts) -> Vec<CheckFinding> {
    let fact = |name: &str| facts.get(name).map_or("", String::as_str);
    let mut findings = Vec::new();
    if fact("binlog_order_commits").eq_ignore_ascii_case("OFF") {
        findings.push(CheckFinding::new(
            Severity::Warns,
            "binlog_order_commits=OFF",
            "set binlog_order_commits=ON: readers of the primary may see commits in another order \
             than readers of a replica",
        ));
    }
    if fact("transaction_isolation") == "READ-UNCOMMITTED" {
        findings.push(CheckFinding::new(
            Severity::Warns,
            "transaction_isolation=READ-UNCOMMITTED",
            "set transaction_isolation=REPEATABLE-READ or READ-COMMITTED: it shows rows that no \
             majority has, and that may be gone after a failover",
        ));
    }
    if fact("time_zone_names") == "0" {
        findings.push(CheckFinding::new(
            Severity::Notes,
            "the time zone tables are empty",
            "if named time zones are used, load them (mysql_tzinfo_to_sql) through the read-write port",
        ));
    }
    findings
}

/// The first names, and how many more there are.
fn some(names: &[String]) -> String {
    let first = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>();
    match names.len().saturating_sub(NAMED_MAX) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pairs: &[(&str, &str)]) -> Facts {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_two_servers_share_or_do_not_share_is_found_with_what_to_do() {
        let own = facts(&[
            ("server_id", "1001"),
            ("server_uuid", "a"),
            ("sql_mode", "ANSI"),
            ("lower_case_table_names", "0"),
        ]);
        let mut other = facts(&[
            ("server_id", "1002"),
            ("server_uuid", "b"),
            ("sql_mode", "ANSI"),
            ("lower_case_table_names", "0"),
            ("time_zone", "SYSTEM (UTC)"),
        ]);
        assert_eq!(compare_facts(&own, "node 2", &other), []);
        for (name, value, severity) in [
            ("server_id", "1001", Severity::Forbids),
            ("server_uuid", "a", Severity::Forbids),
            ("sql_mode", "", Severity::Warns),
            ("lower_case_table_names", "1", Severity::Forbids),
        ] {
            let before = other.insert(name.to_owned(), value.to_owned());
            let found = compare_facts(&own, "node 2", &other);
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert_eq!(found[0].severity, severity, "{name}");
            assert!(found[0].what.contains(name) && found[0].what.contains("node 2"));
            other.insert(name.to_owned(), before.unwrap());
        }
    }

    #[test]
    fn long_lists_of_tables_are_cut_short() {
        let names: Vec<String> = (1..=7).map(|number| format!("t{number}")).collect();
        assert_eq!(some(&names[..2]), "t1, t2");
        assert_eq!(some(&names), "t1, t2, t3, t4, t5 and 2 more");
    }
}
