use super::query::Facts;

/// A system variable's value; none if the feed has no such variable. What consumers ask for, no
/// more: a variable of a server's is none of ours.
pub(super) fn system_variable(name: &str, facts: &Facts<'_>) -> Option<String> {
    let options = facts.options;
    Some(match name {
        "server_id" => options.server_id.to_string(),
        "server_uuid" => options.server_uuid.to_string(),
        "gtid_executed" => facts.accepted.to_string(),
        "version" => options.server_version.clone(),
        other => FIXED
            .iter()
            .find(|(name, _)| *name == other)
            .map(|(_, value)| (*value).to_owned())?,
    })
}

/// Every variable, for `SHOW VARIABLES`.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    const CHANGING: [&str; 4] = ["gtid_executed", "server_id", "server_uuid", "version"];
    CHANGING
        .into_iter()
        .chain(FIXED.iter().map(|(name, _)| *name))
}

const FIXED: &[(&str, &str)] = &[
    ("auto_increment_increment", "1"),
    ("autocommit", "1"),
    ("binlog_checksum", "CRC32"),
    ("binlog_format", "ROW"),
    ("binlog_row_image", "FULL"),
    ("binlog_row_metadata", "MINIMAL"),
    ("binlog_row_value_options", ""),
    ("character_set_client", "utf8mb4"),
    ("character_set_connection", "utf8mb4"),
    ("character_set_results", "utf8mb4"),
    ("character_set_server", "utf8mb4"),
    ("collation_connection", "utf8mb4_0900_ai_ci"),
    ("collation_server", "utf8mb4_0900_ai_ci"),
    ("enforce_gtid_consistency", "ON"),
    ("gtid_mode", "ON"),
    // What is purged, a consumer that needs it is told when it asks for a dump.
    ("gtid_purged", ""),
    ("init_connect", ""),
    ("interactive_timeout", "28800"),
    ("license", "MIT OR Apache-2.0"),
    ("log_bin", "1"),
    ("lower_case_table_names", "0"),
    ("max_allowed_packet", "1073741824"),
    ("net_write_timeout", "60"),
    ("performance_schema", "0"),
    ("read_only", "1"),
    ("socket", ""),
    ("sql_mode", ""),
    ("super_read_only", "1"),
    ("system_time_zone", "UTC"),
    ("time_zone", "SYSTEM"),
    ("transaction_isolation", "REPEATABLE-READ"),
    ("tx_isolation", "REPEATABLE-READ"),
    ("version_comment", "Quorate feed"),
    ("wait_timeout", "28800"),
];
