//! What is written, a kind at a time: each in a session of its own, in the schema `kinds`.

/// One kind of transaction.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) statements: &'static [&'static str],
    /// Queries, and what every server answers in the end.
    pub(super) shows: &'static [(&'static str, &'static str)],
}

const fn kind(
    name: &'static str,
    statements: &'static [&'static str],
    shows: &'static [(&'static str, &'static str)],
) -> Kind {
    Kind {
        name,
        statements,
        shows,
    }
}

pub(super) const KINDS: &[Kind] = &[
    kind(
        "an event of 20 MiB",
        &[
            "CREATE TABLE huge (id INT PRIMARY KEY, body LONGBLOB)",
            "INSERT INTO huge VALUES (1, REPEAT(RANDOM_BYTES(1024), 20 * 1024))",
        ],
        &[("SELECT LENGTH(body) FROM huge WHERE id = 1", "20971520")],
    ),
    kind(
        "a transaction of 40 MiB",
        &[
            "CREATE TABLE large (id INT PRIMARY KEY, body LONGBLOB)",
            "INSERT INTO large WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 40) \
             SELECT i, REPEAT(RANDOM_BYTES(1024), 1024) FROM n",
        ],
        &[("SELECT SUM(LENGTH(body)) FROM large", "41943040")],
    ),
    kind(
        "XA",
        &[
            "CREATE TABLE xa (id INT PRIMARY KEY)",
            "XA START 'committed', 'branch'",
            "INSERT INTO xa VALUES (1)",
            "XA END 'committed', 'branch'",
            "XA PREPARE 'committed', 'branch'",
            "XA COMMIT 'committed', 'branch'",
            "XA START 'rolled back'",
            "INSERT INTO xa VALUES (2)",
            "XA END 'rolled back'",
            "XA PREPARE 'rolled back'",
            "XA ROLLBACK 'rolled back'",
            "XA START 'in one phase'",
            "INSERT INTO xa VALUES (3)",
            "XA END 'in one phase'",
            "XA COMMIT 'in one phase' ONE PHASE",
            "XA START 'never prepared'",
            "INSERT INTO xa VALUES (4)",
            "XA END 'never prepared'",
            "XA ROLLBACK 'never prepared'",
        ],
        &[("SELECT GROUP_CONCAT(id ORDER BY id) FROM xa", "1,3,5")],
    ),
    kind(
        "savepoints",
        &[
            "CREATE TABLE saved (id INT PRIMARY KEY)",
            "BEGIN",
            "INSERT INTO saved VALUES (1)",
            "SAVEPOINT a",
            "INSERT INTO saved VALUES (2)",
            "SAVEPOINT b",
            "INSERT INTO saved VALUES (3)",
            "ROLLBACK TO b",
            "RELEASE SAVEPOINT a",
            "INSERT INTO saved VALUES (4)",
            "COMMIT",
            "BEGIN",
            "INSERT INTO saved VALUES (5)",
            "ROLLBACK",
        ],
        &[("SELECT GROUP_CONCAT(id ORDER BY id) FROM saved", "1,2,4")],
    ),
    kind(
        "procedures, functions, triggers and cascades",
        &[
            "CREATE TABLE parent (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(40))",
            "CREATE TABLE child (id INT AUTO_INCREMENT PRIMARY KEY, parent INT, FOREIGN KEY (parent) \
             REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE)",
            "CREATE TABLE orphan (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES \
             parent (id) ON DELETE SET NULL)",
            "CREATE TABLE audit (id INT AUTO_INCREMENT PRIMARY KEY, what TEXT, at TIMESTAMP(6) DEFAULT NOW(6))",
            "CREATE TRIGGER parent_made AFTER INSERT ON parent FOR EACH ROW BEGIN \
             INSERT INTO audit (what) VALUES (CONCAT('made ', NEW.id)); \
             INSERT INTO child (parent) VALUES (NEW.id); END",
            "CREATE FUNCTION shout(word TEXT) RETURNS TEXT DETERMINISTIC NO SQL RETURN CONCAT(word, '!')",
            "CREATE PROCEDURE make(word TEXT, times INT) MODIFIES SQL DATA BEGIN \
             DECLARE made INT DEFAULT 0; \
             WHILE made < times DO INSERT INTO parent (note) VALUES (shout(word)); \
             SET made = made + 1; END WHILE; END",
            "CALL make('hello', 3)",
            "INSERT INTO orphan VALUES (1, 1), (2, 2)",
            "UPDATE parent SET id = 9 WHERE id = 3",
            "DELETE FROM parent WHERE id = 1",
            "ALTER PROCEDURE make COMMENT 'changed'",
            "CREATE FUNCTION gone() RETURNS INT DETERMINISTIC NO SQL RETURN 1",
            "DROP FUNCTION gone",
        ],
        &[
            (
                "SELECT GROUP_CONCAT(parent ORDER BY parent) FROM child",
                "2,9",
            ),
            (
                "SELECT GROUP_CONCAT(what ORDER BY id) FROM audit",
                "made 1,made 2,made 3",
            ),
            (
                "SELECT GROUP_CONCAT(COALESCE(parent, 0) ORDER BY id) FROM orphan",
                "0,2",
            ),
        ],
    ),
    kind(
        "a table without a key",
        &[
            "CREATE TABLE keyless (a INT, b VARCHAR(10))",
            "INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (2, 'y'), (NULL, NULL)",
            "UPDATE keyless SET b = 'z' WHERE a = 2",
            "DELETE FROM keyless WHERE a = 1 LIMIT 1",
        ],
        &[("SELECT COUNT(*) FROM keyless", "3")],
    ),
    kind(
        "columns that are generated, invisible or have expressions",
        &[
            "CREATE TABLE columns_of_all_kinds (id INT PRIMARY KEY, seen INT DEFAULT (1 + 1), \
             hidden INT INVISIBLE DEFAULT 7, doubled INT AS (seen * 2) STORED, tripled INT AS (seen * 3) VIRTUAL, \
             word ENUM('a', 'b'), many SET('p', 'q'), bits BIT(17), amount DECIMAL(40, 10), year YEAR, \
             moment DATETIME(6), span TIME(3), vectors VECTOR(3), INDEX by_sum ((seen + hidden)), CHECK (seen < 100))",
            "INSERT INTO columns_of_all_kinds (id, word, many, bits, amount, year, moment, span, vectors) VALUES \
             (1, 'a', 'p,q', b'10000000000000001', -1.5, 2026, '2026-01-02 03:04:05.678901', '-12:00:00.125', \
             STRING_TO_VECTOR('[1, 2, 3]'))",
            "INSERT INTO columns_of_all_kinds (id, seen, hidden) VALUES (2, 5, 6)",
            "ALTER TABLE columns_of_all_kinds ALTER COLUMN hidden SET VISIBLE",
        ],
        &[
            (
                "SELECT doubled + tripled FROM columns_of_all_kinds WHERE id = 2",
                "25",
            ),
            (
                "SELECT HEX(vectors) FROM columns_of_all_kinds WHERE id = 1",
                "0000803F0000004000004040",
            ),
        ],
    ),
    kind(
        "parts of JSON documents",
        &[
            "CREATE TABLE documents (id INT PRIMARY KEY, d JSON, INDEX many ((CAST(d->'$.n' AS UNSIGNED ARRAY))))",
            "INSERT INTO documents VALUES (1, JSON_OBJECT('n', JSON_ARRAY(1, 2), 'text', REPEAT('x', 50000)))",
            "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'",
            "UPDATE documents SET d = JSON_SET(d, '$.text', 'short', '$.added', TRUE) WHERE id = 1",
            "UPDATE documents SET d = JSON_REMOVE(d, '$.n[0]') WHERE id = 1",
        ],
        &[(
            "SELECT d FROM documents",
            r#"{"n": [2], "text": "short", "added": true}"#,
        )],
    ),
    kind(
        "rows with the changed columns only",
        &[
            "CREATE TABLE narrow (id INT PRIMARY KEY, v INT, w TEXT)",
            "INSERT INTO narrow VALUES (1, 1, 'one'), (2, 2, 'two'), (3, 3, 'three')",
            "SET SESSION binlog_row_image = MINIMAL",
            "UPDATE narrow SET v = 20 WHERE id = 2",
            "DELETE FROM narrow WHERE id = 3",
            "SET SESSION binlog_row_image = NOBLOB",
            "UPDATE narrow SET v = 10 WHERE id = 1",
        ],
        &[(
            "SELECT GROUP_CONCAT(id, v, w ORDER BY id) FROM narrow",
            "110one,220two",
        )],
    ),
    kind(
        "places",
        &[
            "CREATE TABLE places (id INT PRIMARY KEY, at POINT NOT NULL SRID 4326, SPATIAL INDEX (at))",
            "INSERT INTO places VALUES (1, ST_SRID(POINT(13.4, 52.5), 4326))",
            "CREATE SPATIAL REFERENCE SYSTEM 990001 NAME 'round' DEFINITION 'GEOGCS[\"round\", DATUM[\"round\", \
             SPHEROID[\"ball\", 6377397.155, 299.1528128]], PRIMEM[\"Greenwich\", 0], \
             UNIT[\"degree\", 0.017453292519943278], AXIS[\"Lat\", NORTH], AXIS[\"Lon\", EAST]]'",
            "DROP SPATIAL REFERENCE SYSTEM 990001",
        ],
        &[("SELECT ST_Longitude(at) FROM places", "13.4")],
    ),
    kind(
        "a compressed transaction",
        &[
            "CREATE TABLE compressed (id INT PRIMARY KEY, body TEXT)",
            "SET SESSION binlog_transaction_compression = ON",
            "INSERT INTO compressed WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 500) \
             SELECT i, REPEAT('compress me ', 100) FROM n",
        ],
        &[("SELECT SUM(LENGTH(body)) FROM compressed", "600000")],
    ),
    kind(
        "definitions of tables",
        &[
            "CREATE TABLE defined (id INT PRIMARY KEY, v INT, w VARCHAR(20))",
            "INSERT INTO defined VALUES (1, 1, 'one'), (11, 2, 'two')",
            "ALTER TABLE defined ADD COLUMN x INT DEFAULT 4, ALGORITHM=INSTANT",
            "ALTER TABLE defined ADD INDEX i (v), ALGORITHM=INPLACE",
            "ALTER TABLE defined MODIFY v BIGINT, ALGORITHM=COPY",
            "ALTER TABLE defined DROP COLUMN x, ALGORITHM=INSTANT",
            "CREATE FULLTEXT INDEX words ON defined (w)",
            "DROP INDEX words ON defined",
            "ALTER TABLE defined PARTITION BY RANGE (id) (PARTITION a VALUES LESS THAN (10), \
             PARTITION b VALUES LESS THAN (20))",
            "ALTER TABLE defined ADD PARTITION (PARTITION c VALUES LESS THAN MAXVALUE)",
            "CREATE TABLE exchanged LIKE defined",
            "ALTER TABLE exchanged REMOVE PARTITIONING",
            "ALTER TABLE defined EXCHANGE PARTITION b WITH TABLE exchanged",
            "ALTER TABLE defined TRUNCATE PARTITION c",
            "ALTER TABLE defined REORGANIZE PARTITION b, c INTO (PARTITION d VALUES LESS THAN MAXVALUE)",
            "RENAME TABLE exchanged TO swap, defined TO exchanged, swap TO defined",
            "CREATE TABLE selected AS SELECT * FROM exchanged",
            "CREATE TABLE emptied AS SELECT * FROM exchanged",
            "TRUNCATE TABLE emptied",
            "CREATE TABLE gone (id INT)",
            "CREATE TABLE gone_too (id INT)",
            "DROP TABLE gone, gone_too",
            "CREATE VIEW looked_at AS SELECT id FROM defined",
            "ALTER VIEW looked_at AS SELECT id, v FROM defined",
            "CREATE VIEW gone AS SELECT 1",
            "DROP VIEW gone",
            "CREATE DATABASE kinds_beside CHARACTER SET latin1",
            "CREATE TABLE kinds_beside.moved (id INT)",
            "RENAME TABLE kinds_beside.moved TO moved",
            "ALTER DATABASE kinds_beside CHARACTER SET utf8mb4",
            "DROP DATABASE kinds_beside",
            "CREATE TABLESPACE kinds_space ADD DATAFILE 'kinds_space.ibd'",
            "CREATE TABLE in_space (id INT PRIMARY KEY) TABLESPACE kinds_space",
            "ALTER TABLE in_space TABLESPACE innodb_file_per_table",
            "DROP TABLESPACE kinds_space",
        ],
        &[
            ("SELECT id FROM defined", "11"),
            ("SELECT GROUP_CONCAT(id) FROM selected", "1"),
            ("SELECT COUNT(*) FROM emptied", "0"),
        ],
    ),
    kind(
        "temporary tables",
        &[
            "CREATE TABLE lasting (id INT PRIMARY KEY)",
            "CREATE TEMPORARY TABLE passing (id INT PRIMARY KEY)",
            "INSERT INTO passing VALUES (1), (2)",
            "BEGIN",
            "INSERT INTO lasting SELECT id FROM passing",
            "DELETE FROM passing",
            "COMMIT",
            "DROP TEMPORARY TABLE passing",
        ],
        &[("SELECT COUNT(*) FROM lasting", "2")],
    ),
    kind(
        "values that depend on session, time and chance",
        &[
            "CREATE TABLE chance (id BIGINT AUTO_INCREMENT PRIMARY KEY, r DOUBLE, u CHAR(36), at TIMESTAMP(6) NULL, who TEXT)",
            "SET SESSION time_zone = '+05:30', sql_mode = '', timestamp = 1700000000.123456",
            "INSERT INTO chance (r, u, at, who) VALUES (RAND(), UUID(), NOW(6), CURRENT_USER())",
            "SET SESSION insert_id = 4000000000",
            "INSERT INTO chance (r, at) VALUES (RAND(3), '2026-13-45')",
            "SET @kept = 'kept'",
            "INSERT INTO chance (who) VALUES (@kept), (LAST_INSERT_ID())",
            "SET NAMES latin1",
            "INSERT INTO chance (who) VALUES (_latin1 0xE4F6FC)",
        ],
        &[
            ("SELECT who FROM chance WHERE id = 4000000002", "4000000000"),
            (
                "SELECT HEX(who) FROM chance WHERE id = 4000000003",
                "C3A4C3B6C3BC",
            ),
        ],
    ),
    kind(
        "accounts",
        &[
            "CREATE ROLE kinds_reader, kinds_writer",
            "GRANT SELECT ON kinds.* TO kinds_reader",
            "GRANT INSERT, UPDATE (note) ON kinds.parent TO kinds_writer",
            "CREATE USER kinds_a@'%' IDENTIFIED BY 'first' DEFAULT ROLE kinds_reader",
            "CREATE USER kinds_b@localhost IDENTIFIED BY RANDOM PASSWORD ATTRIBUTE '{\"team\": 1}'",
            "GRANT kinds_writer TO kinds_a@'%' WITH ADMIN OPTION",
            "ALTER USER kinds_a@'%' IDENTIFIED BY 'second' RETAIN CURRENT PASSWORD",
            "SET PASSWORD FOR kinds_b@localhost = 'third'",
            "RENAME USER kinds_b@localhost TO kinds_c@localhost",
            "REVOKE UPDATE (note) ON kinds.parent FROM kinds_writer",
            "CREATE USER kinds_gone@'%'",
            "DROP USER kinds_gone@'%'",
        ],
        &[(
            "SELECT COUNT(*) FROM mysql.user WHERE user LIKE 'kinds%'",
            "4",
        )],
    ),
    kind(
        "administration",
        &[
            "CREATE TABLE tended (id INT PRIMARY KEY)",
            "INSERT INTO tended VALUES (1)",
            "ANALYZE TABLE tended",
            "ANALYZE TABLE tended UPDATE HISTOGRAM ON id WITH 4 BUCKETS",
            "OPTIMIZE TABLE tended",
            "CHECK TABLE tended",
            "FLUSH PRIVILEGES",
            "FLUSH TABLES",
            "FLUSH TABLES tended",
            "FLUSH STATUS",
            "FLUSH LOCAL TABLES",
            "LOCK TABLES tended WRITE",
            "INSERT INTO tended VALUES (2)",
            "UNLOCK TABLES",
            "DO GET_LOCK('kinds', 1)",
            "INSERT INTO tended VALUES (3)",
            "DO RELEASE_ALL_LOCKS()",
            "ALTER TABLE tended ENGINE=InnoDB",
        ],
        &[("SELECT COUNT(*) FROM tended", "3")],
    ),
    kind(
        "scheduled events",
        &[
            "CREATE TABLE ticks (id INT AUTO_INCREMENT PRIMARY KEY)",
            "CREATE EVENT tick ON SCHEDULE AT NOW() + INTERVAL 1 SECOND DO INSERT INTO ticks VALUES ()",
            "CREATE EVENT never ON SCHEDULE EVERY 1 YEAR STARTS '2090-01-01' DO DELETE FROM ticks",
            "ALTER EVENT never COMMENT 'of this century'",
            "CREATE EVENT gone ON SCHEDULE EVERY 1 YEAR STARTS '2090-01-01' DO DELETE FROM ticks",
            "DROP EVENT gone",
        ],
        &[("SELECT COUNT(*) FROM ticks", "1")],
    ),
];

/// Written with `binlog_format=STATEMENT`, where a session may still ask for it: events that rows
/// do not need.
pub(super) const AS_STATEMENTS: &[&str] = &[
    "INSERT INTO stated (v) VALUES ('a'), ('b')",
    "SET @word = 'from a variable'",
    "INSERT INTO stated (v) VALUES (@word)",
    "INSERT INTO stated (v) VALUES (CONCAT('after ', LAST_INSERT_ID()))",
    "INSERT INTO stated (v) VALUES (RAND())",
    "UPDATE stated SET v = CONCAT(v, '.') WHERE id < 3",
    "BEGIN",
    "DELETE FROM stated WHERE id = 2",
    "INSERT INTO stated (v) VALUES (NOW())",
    "COMMIT",
];

/// What cannot be safe, and the error that refuses it.
pub(super) const REFUSED: &[(&str, u16)] = &[
    ("CREATE TABLE refused (id INT) ENGINE=MyISAM", 3161),
    ("CREATE TABLE refused (id INT) ENGINE=MEMORY", 3161),
    ("CREATE TABLE refused (id INT) ENGINE=CSV", 3161),
];

/// What no checksum of a table shows.
pub(super) const DEFINITIONS: &[&str] = &[
    "SELECT routine_name, routine_type, routine_definition, definer, routine_comment \
     FROM information_schema.routines WHERE routine_schema = 'kinds' ORDER BY 1",
    "SELECT trigger_name, action_statement, definer, sql_mode FROM information_schema.triggers \
     WHERE trigger_schema = 'kinds' ORDER BY 1",
    // Not whether it is enabled: that is so on the primary only.
    "SELECT event_name, event_definition, definer, event_comment, execute_at, starts \
     FROM information_schema.events WHERE event_schema = 'kinds' ORDER BY 1",
    "SELECT table_name, view_definition FROM information_schema.views WHERE table_schema = 'kinds' ORDER BY 1",
    "SELECT table_name, column_name, ordinal_position, column_type, column_default, generation_expression, extra \
     FROM information_schema.columns WHERE table_schema = 'kinds' ORDER BY 1, 3",
    "SELECT table_name, index_name, seq_in_index, column_name, expression FROM information_schema.statistics \
     WHERE table_schema = 'kinds' ORDER BY 1, 2, 3",
    "SELECT table_name, partition_name, partition_description FROM information_schema.partitions \
     WHERE table_schema = 'kinds' ORDER BY 1, 2",
    "SELECT user, host, plugin, authentication_string, user_attributes FROM mysql.user WHERE user LIKE 'kinds%' ORDER BY 1",
    "SELECT * FROM mysql.db WHERE db = 'kinds' ORDER BY user",
    "SELECT host, db, user, table_name, table_priv, column_priv FROM mysql.tables_priv WHERE db = 'kinds' ORDER BY user",
    "SELECT * FROM mysql.role_edges ORDER BY 1, 2, 3, 4",
    "SELECT * FROM mysql.default_roles ORDER BY 1, 2, 3, 4",
];
