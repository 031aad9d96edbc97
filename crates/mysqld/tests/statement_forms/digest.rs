//! Everything of a server that a statement may leave behind: dictionary, rows, accounts, files.

use std::collections::BTreeSet;
use std::path::Path;

use quorate_mysql_wire::QueryResult;
use quorate_mysqld::Session;

const OURS: &str = "NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')";

/// What does not depend on the tables that there are.
fn queries() -> Vec<String> {
    let from = |columns: &str, table: &str, schema: &str| {
        format!("SELECT {columns} FROM information_schema.{table} WHERE {schema} {OURS}")
    };
    let mut queries = vec![
        from("SCHEMA_NAME, DEFAULT_COLLATION_NAME", "SCHEMATA", "SCHEMA_NAME"),
        from("TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE", "TABLES", "TABLE_SCHEMA"),
        from(
            "ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_DEFINITION, ROUTINE_COMMENT",
            "ROUTINES",
            "ROUTINE_SCHEMA",
        ),
        from("TRIGGER_SCHEMA, TRIGGER_NAME, ACTION_STATEMENT", "TRIGGERS", "TRIGGER_SCHEMA"),
        from(
            "EVENT_SCHEMA, EVENT_NAME, EVENT_DEFINITION, INTERVAL_VALUE, STATUS",
            "EVENTS",
            "EVENT_SCHEMA",
        ),
        "SELECT NAME, SPACE_TYPE FROM information_schema.INNODB_TABLESPACES".to_owned(),
        "SELECT FILE_NAME FROM information_schema.FILES".to_owned(),
        "SELECT SRS_ID, SRS_NAME FROM information_schema.ST_SPATIAL_REFERENCE_SYSTEMS WHERE SRS_ID > 900000"
            .to_owned(),
        "XA RECOVER CONVERT XID".to_owned(),
    ];
    let tables = [
        "user",
        "db",
        "tables_priv",
        "columns_priv",
        "procs_priv",
        "proxies_priv",
        "global_grants",
        "role_edges",
        "default_roles",
        "password_history",
    ];
    queries.extend(tables.map(|table| format!("SELECT * FROM mysql.{table}")));
    queries
}

fn lines(query: &str, result: &QueryResult, into: &mut BTreeSet<String>) {
    for row in &result.rows {
        let values: Vec<String> = (0..row.0.len())
            .map(|column| row.text(column).unwrap_or_else(|| "NULL".to_owned()))
            .collect();
        into.insert(format!("{query}: {}", values.join(" | ")));
    }
}

pub(super) async fn digest(session: &mut Session, folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for query in queries() {
        let result = session.run("digest", &query).await;
        let result = result.unwrap_or_else(|error| panic!("{query}: {error:?}"));
        lines(&query, &result, &mut found);
    }
    let tables = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA {OURS}"
    );
    let tables = session.run("digest", &tables).await.unwrap();
    let mut names = Vec::new();
    for row in &tables.rows {
        let text = |column| row.text(column).unwrap_or_default();
        let name = format!("{}.{}", text(0), text(1));
        let create = format!("SHOW CREATE TABLE {name}");
        // One whose tablespace is gone has no rows to count.
        match session.run("digest", &create).await {
            Ok(result) => lines(&create, &result, &mut found),
            Err(error) => drop(found.insert(format!("{create}: {error:?}"))),
        }
        if text(2) == "BASE TABLE" {
            names.push(name);
        }
    }
    let checksum = format!("CHECKSUM TABLE {}", names.join(", "));
    let sums = session.run("digest", &checksum).await.unwrap();
    lines("CHECKSUM", &sums, &mut found);
    files(folder, folder, &mut found);
    found
}

/// The names of all files of tables.
fn files(folder: &Path, root: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, root, into);
            continue;
        }
        let ending = path.extension().and_then(|ending| ending.to_str());
        // Temporary tables, and what a plugin makes anew at each start.
        let passing = ["#innodb_temp", "performance_schema"];
        let passing = passing.iter().any(|name| path.starts_with(root.join(name)));
        if matches!(ending, Some("ibd" | "MYD" | "MYI" | "sdi")) && !passing {
            into.insert(format!(
                "file {}",
                path.strip_prefix(root).unwrap().display()
            ));
        }
    }
}

pub(super) fn compare(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Result<(), String> {
    let gone: Vec<_> = before.difference(after).collect();
    let new: Vec<_> = after.difference(before).collect();
    match gone.is_empty() && new.is_empty() {
        true => Ok(()),
        false => Err(format!("gone: {gone:#?}, new: {new:#?}")),
    }
}
