//! Story: what a client writes through any node's read-write port is acknowledged once a majority
//! has it, and every server and every read-only port comes to show it, bit for bit.

use std::time::Duration;

use quorate_tests::{Cluster, Options, Sql, assert_servers_equal, eventually};

const SOON: Duration = Duration::from_secs(10);
/// Larger than one entry of the log by far, so that it travels in fragments.
const LARGE_ROWS: usize = 8;
const LARGE_ROW_BYTES: usize = 256 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_write_through_any_node_reaches_every_server() {
    let program = env!("CARGO_BIN_EXE_quorate-under-test");
    let cluster = Cluster::start("any_node", program, Options::default()).await;
    let primary = cluster.wait_for_primary(SOON).await;
    let mut root = Sql::socket(&cluster.node(primary).socket())
        .await
        .expect("root on the primary's socket");
    // The demo's user may not make users.
    root.run("CREATE USER admin@'%' IDENTIFIED BY 'admin'")
        .await
        .expect("create an administrator");
    root.run("GRANT ALL ON *.* TO admin@'%' WITH GRANT OPTION")
        .await
        .expect("grant everything");

    for node in cluster.nodes.values() {
        write_everything(node.id.0, node.ports.read_write).await;
    }
    for node in cluster.nodes.values() {
        for writer in cluster.nodes.keys() {
            read_everything(writer.0, node.ports.read_only).await;
        }
    }
    assert_servers_equal(&cluster.sockets(), SOON).await;
    let mut counts = Vec::new();
    for socket in cluster.sockets() {
        let mut sql = Sql::socket(&socket).await.expect("root on the socket");
        let tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'app'";
        let users = "SELECT COUNT(*) FROM mysql.user WHERE user LIKE 'made_by_%'";
        counts.push((
            sql.value(tables).await.expect("count tables"),
            sql.value(users).await.expect("count users"),
        ));
    }
    assert_eq!(counts, vec![("9".to_owned(), "3".to_owned()); 3]);
    // Should a primary become a replica meanwhile.
    let expected = ["preflight: 'admin'@'%' has REPLICATION SLAVE"];
    assert_eq!(
        cluster.unexpected_log_lines(&expected),
        Vec::<String>::new()
    );
    cluster.stop().await;
}

/// One of each kind of write, all through one port.
async fn write_everything(id: u64, port: u16) {
    let mut sql = Sql::port_as(port, "admin", Some("admin"), Some("app"))
        .await
        .expect("a session through the read-write port");
    let bytes: String = (0..=255u8).map(|byte| format!("{byte:02x}")).collect();
    let mut statements = vec![
        format!(
            "CREATE TABLE rows_{id} (id INT PRIMARY KEY, note VARCHAR(40) CHARACTER SET utf8mb4)"
        ),
        format!(
            "ALTER TABLE rows_{id} ADD COLUMN at TIMESTAMP(6) DEFAULT NOW(6), ADD INDEX (note)"
        ),
        format!(
            "CREATE TABLE bytes_{id} (id INT PRIMARY KEY, payload VARBINARY(1024), bits BIT(64), amount DECIMAL(30, 10))"
        ),
        format!("CREATE TABLE large_{id} (id INT PRIMARY KEY, payload LONGTEXT)"),
        format!("CREATE USER made_by_{id}@'%' IDENTIFIED BY 'made'"),
        format!("GRANT SELECT ON app.* TO made_by_{id}@'%'"),
        format!("INSERT INTO rows_{id} (id, note) VALUES (1, 'grün')"),
        "BEGIN".to_owned(),
        format!("INSERT INTO rows_{id} (id, note) VALUES (2, 'two'), (3, 'three'), (4, 'four')"),
        format!("UPDATE rows_{id} SET note = 'changed' WHERE id = 3"),
        format!("DELETE FROM rows_{id} WHERE id = 4"),
        "COMMIT".to_owned(),
        format!(
            "INSERT INTO bytes_{id} VALUES (1, x'{bytes}', b'1010', -12345678901234567890.0123456789), (2, '', NULL, NULL)"
        ),
        "BEGIN".to_owned(),
    ];
    for row in 0..LARGE_ROWS {
        // Random, so that nothing makes it small on the way.
        statements.push(format!(
            "INSERT INTO large_{id} VALUES ({row}, REPEAT(SHA2(RAND(), 256), {}))",
            LARGE_ROW_BYTES / 64
        ));
    }
    statements.push("COMMIT".to_owned());
    for statement in statements {
        let result = sql.run_within(&statement, SOON).await;
        result.unwrap_or_else(|error| panic!("{statement:.60}: {error}"));
    }
}

/// What [`write_everything`] wrote, as its new user sees it through a read-only port.
async fn read_everything(writer: u64, port: u16) {
    let bytes: String = (0..=255u8).map(|byte| format!("{byte:02X}")).collect();
    let queries = [
        (
            format!("SELECT GROUP_CONCAT(id, note ORDER BY id) FROM rows_{writer}"),
            "1grün,2two,3changed".to_owned(),
        ),
        (
            format!("SELECT HEX(payload) FROM bytes_{writer} WHERE id = 1"),
            bytes,
        ),
        (
            format!(
                "SELECT COUNT(*) FROM bytes_{writer} WHERE bits + 0 = 10 AND amount < -12345678901234567890"
            ),
            "1".to_owned(),
        ),
        (
            format!("SELECT SUM(LENGTH(payload)) FROM large_{writer}"),
            (LARGE_ROWS * LARGE_ROW_BYTES).to_string(),
        ),
    ];
    let mut last = String::new();
    let all_there = eventually(SOON, async || {
        let user = format!("made_by_{writer}");
        let mut sql = match Sql::port_as(port, &user, Some("made"), Some("app")).await {
            Ok(sql) => sql,
            Err(error) => {
                last = format!("log in as {user}: {error}");
                return false;
            }
        };
        for (query, expected) in &queries {
            match sql.value(query).await {
                Ok(value) if value == *expected => {}
                other => {
                    last = format!("{query}: {other:?}");
                    return false;
                }
            }
        }
        true
    })
    .await;
    assert!(all_there, "read-only port {port}: {last}");
}
