//! The one table of what Quorate needs a MySQL server to be set to, and why. Names that depend on
//! the version are here and nowhere else.

use crate::version::Version;

/// What the running server's value may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Accept {
    /// What it was started with.
    Same,
    /// Anything: the value changes with the server's role, or is a matter of taste.
    Any,
    OneOf(&'static [&'static str]),
    AtMost(u64),
    AtLeast(u64),
    /// A comma-separated list with at least these words.
    Lists(&'static [&'static str]),
}

/// One variable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    /// Given at start in managed mode; empty if the default is right and some versions warn when
    /// it is given.
    pub(crate) value: &'static str,
    pub(crate) accept: Accept,
    pub(crate) why: &'static str,
    /// The first version without it.
    pub(crate) until: Option<Version>,
}

const fn rule(name: &'static str, value: &'static str, accept: Accept, why: &'static str) -> Rule {
    Rule {
        name,
        value,
        accept,
        why,
        until: None,
    }
}

const V8_4: Version = Version::new(8, 4, 0);

/// More than two GiB could not be fragmented within the log's budget.
pub(crate) const TRANSACTION_BYTES_MAX: u64 = 2 << 30;

/// Engines that a crash or a cut cannot undo, or that would write GTIDs on a replica by themselves.
const ENGINES: &[&str] = &[
    "MyISAM",
    "MEMORY",
    "CSV",
    "ARCHIVE",
    "MRG_MYISAM",
    "FEDERATED",
    "BLACKHOLE",
];

/// The semi-sync source's variables that make a commit wait for the ACK, however long it takes.
pub(crate) const SEMI_SYNC: &[(&str, &str)] = &[
    ("rpl_semi_sync_source_wait_point", "AFTER_SYNC"),
    // In milliseconds. The largest u64 overflows in some versions, and then nothing waits.
    ("rpl_semi_sync_source_timeout", "1000000000000000000"),
    ("rpl_semi_sync_source_wait_no_replica", "ON"),
    ("rpl_semi_sync_source_wait_for_replica_count", "1"),
];

/// What a primary's gate stands on, besides [`SEMI_SYNC`]: with another value a commit may be
/// answered that the log, or this server after a power loss, does not have.
pub(crate) const GATE: &[(&str, &str)] = &[
    ("rpl_semi_sync_source_enabled", "ON"),
    ("sync_binlog", "1"),
    ("innodb_flush_log_at_trx_commit", "1"),
    ("binlog_error_action", "ABORT_SERVER"),
];

const SAME_GATE: &str = "every commit must wait for the majority, however long it takes";

pub(crate) const RULES: &[Rule] = &[
    rule(
        "super_read_only",
        "ON",
        Accept::Any,
        "a server starts as a replica",
    ),
    rule(
        "skip_replica_start",
        "ON",
        Accept::Same,
        "replication starts when its data is judged",
    ),
    rule(
        "relay_log_recovery",
        "ON",
        Accept::Same,
        "relay logs are not synced",
    ),
    rule(
        "rpl_semi_sync_source_enabled",
        "OFF",
        Accept::Any,
        "on a replica it blocks the applier",
    ),
    rule(SEMI_SYNC[0].0, SEMI_SYNC[0].1, Accept::Same, SAME_GATE),
    rule(SEMI_SYNC[1].0, SEMI_SYNC[1].1, Accept::Same, SAME_GATE),
    rule(SEMI_SYNC[2].0, SEMI_SYNC[2].1, Accept::Same, SAME_GATE),
    rule(SEMI_SYNC[3].0, SEMI_SYNC[3].1, Accept::Same, SAME_GATE),
    rule(
        "gtid_mode",
        "ON",
        Accept::Same,
        "transactions are known by their GTIDs",
    ),
    rule(
        "enforce_gtid_consistency",
        "ON",
        Accept::Same,
        "every transaction needs one GTID",
    ),
    rule(
        "log_bin",
        "",
        Accept::OneOf(&["ON"]),
        "capture reads the binlog",
    ),
    rule(
        "log_replica_updates",
        "ON",
        Accept::Same,
        "a primary logs the end of an XA transaction only if it logged its PREPARE",
    ),
    rule(
        "binlog_format",
        "",
        Accept::OneOf(&["ROW"]),
        "statements may do other things elsewhere",
    ),
    rule(
        "binlog_row_image",
        "FULL",
        Accept::Same,
        "rows are compared whole",
    ),
    rule(
        "binlog_checksum",
        "CRC32",
        Accept::Same,
        "a damaged tail must show",
    ),
    rule(
        "binlog_encryption",
        "",
        Accept::OneOf(&["OFF"]),
        "repair reads the binlog's files",
    ),
    rule(
        "binlog_error_action",
        "ABORT_SERVER",
        Accept::Same,
        "else commits go on without a binlog",
    ),
    rule(
        "sync_binlog",
        "1",
        Accept::Same,
        "an ACK follows the binlog's sync",
    ),
    rule(
        "innodb_flush_log_at_trx_commit",
        "1",
        Accept::Same,
        "what is executed must be durable",
    ),
    rule(
        "innodb_doublewrite",
        "ON",
        Accept::OneOf(&["ON", "DETECT_AND_RECOVER"]),
        "a torn page could not be repaired",
    ),
    rule(
        "innodb_force_recovery",
        "",
        Accept::OneOf(&["0"]),
        "it would skip the recovery",
    ),
    rule(
        "max_binlog_cache_size",
        "2147483648",
        Accept::AtMost(TRANSACTION_BYTES_MAX),
        "a larger transaction does not fit the log",
    ),
    rule(
        "max_binlog_stmt_cache_size",
        "2147483648",
        Accept::AtMost(TRANSACTION_BYTES_MAX),
        "a larger transaction does not fit the log",
    ),
    rule(
        "disabled_storage_engines",
        "MyISAM,MEMORY,CSV,ARCHIVE,MRG_MYISAM,FEDERATED,BLACKHOLE",
        Accept::Lists(ENGINES),
        "they cannot be rolled back",
    ),
    rule(
        "replica_preserve_commit_order",
        "ON",
        Accept::Same,
        "replicas show prefixes of history",
    ),
    rule(
        "replica_parallel_workers",
        "4",
        Accept::AtLeast(1),
        "one applier falls behind",
    ),
    Rule {
        until: Some(V8_4),
        ..rule(
            "binlog_transaction_dependency_tracking",
            "WRITESET",
            Accept::Any,
            "replicas apply more in parallel",
        )
    },
    rule(
        "skip_name_resolve",
        "ON",
        Accept::Any,
        "a login must not wait for DNS",
    ),
    rule(
        "binlog_expire_logs_seconds",
        "86400",
        Accept::Any,
        "Raft's log is the archive",
    ),
];

impl Rule {
    pub(crate) fn is_for(&self, version: Version) -> bool {
        self.until.is_none_or(|until| version < until)
    }

    /// Whether a running server's `value` will do.
    pub(crate) fn accepts(&self, value: &str) -> bool {
        match self.accept {
            Accept::Any => true,
            Accept::Same => value.eq_ignore_ascii_case(self.value),
            Accept::OneOf(values) => values.iter().any(|v| value.eq_ignore_ascii_case(v)),
            Accept::AtMost(most) => value.parse::<u64>().is_ok_and(|v| v <= most),
            Accept::AtLeast(least) => value.parse::<u64>().is_ok_and(|v| v >= least),
            Accept::Lists(words) => words.iter().all(|word| {
                let mut found = value.split(',').map(str::trim);
                found.any(|name| name.eq_ignore_ascii_case(word))
            }),
        }
    }

    /// What to set, in words.
    pub(crate) fn advice(&self) -> String {
        let name = self.name;
        match self.accept {
            Accept::Same | Accept::Any => format!("{name}={}", self.value),
            Accept::OneOf(values) => format!("{name}={}", values[0]),
            Accept::AtMost(most) => format!("{name} to at most {most}"),
            Accept::AtLeast(least) => format!("{name} to at least {least}"),
            Accept::Lists(words) => format!("{name}={}", words.join(",")),
        }
    }
}
