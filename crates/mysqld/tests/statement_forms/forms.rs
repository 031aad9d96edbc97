//! The forms of statements. Each has a schema of its own, which `{s}` stands for, with the table `t`.

use super::{Form, Verdict};
use Verdict::{Clone, Cut, Inert};

const fn form(
    name: &'static str,
    before: &'static [&'static str],
    hangs: &'static [&'static str],
    verdict: Verdict,
) -> Form {
    Form {
        name,
        before,
        hangs,
        verdict,
        account: false,
    }
}

/// Holds the account cache's lock while it waits, so only one of them can.
const fn account(
    name: &'static str,
    before: &'static [&'static str],
    hangs: &'static [&'static str],
) -> Form {
    Form {
        name,
        before,
        hangs,
        verdict: Cut,
        account: true,
    }
}

const PARTITIONED: &str = "CREATE TABLE {s}.p (id INT) PARTITION BY RANGE (id) \
     (PARTITION a VALUES LESS THAN (10), PARTITION b VALUES LESS THAN (20))";
const PARTITIONED_ROWS: &str = "INSERT INTO {s}.p VALUES (1), (11)";
const SECOND: &str = "CREATE TABLE {s}.u (id INT PRIMARY KEY, t INT)";
const SECOND_ROWS: &str = "INSERT INTO {s}.u VALUES (1, 1), (2, 2)";
const VIEW: &str = "CREATE VIEW {s}.w AS SELECT id FROM {s}.t";
const PROCEDURE: &str = "CREATE PROCEDURE {s}.p() SELECT 1";
const FUNCTION: &str = "CREATE FUNCTION {s}.f() RETURNS INT DETERMINISTIC RETURN 1";
const TRIGGER: &str =
    "CREATE TRIGGER {s}.g BEFORE INSERT ON {s}.t FOR EACH ROW SET NEW.v = NEW.v + 1";
const EVENT: &str = "CREATE EVENT {s}.e ON SCHEDULE EVERY 1 DAY DO SELECT 1";
const TABLESPACE: &str = "CREATE TABLESPACE {s}_ts ADD DATAFILE '{s}_ts.ibd'";
const USER: &str = "CREATE USER {s}@'%' IDENTIFIED BY 'before'";
const ROLE: &str = "CREATE ROLE {s}_role";
const MYISAM: &str = "CREATE TABLE {s}.m (id INT) ENGINE=MyISAM";
const MYISAM_ROWS: &str = "INSERT INTO {s}.m VALUES (1)";

pub(super) const FORMS: &[Form] = &[
    form(
        "INSERT",
        &[],
        &["INSERT INTO {s}.t VALUES (9, 9, 'x')"],
        Cut,
    ),
    form("UPDATE", &[], &["UPDATE {s}.t SET v = v + 1"], Cut),
    form("DELETE", &[], &["DELETE FROM {s}.t"], Cut),
    form(
        "REPLACE",
        &[],
        &["REPLACE INTO {s}.t VALUES (1, 7, 'r')"],
        Cut,
    ),
    form(
        "INSERT SELECT",
        &[],
        &["INSERT INTO {s}.t SELECT id + 100, v, w FROM {s}.t"],
        Cut,
    ),
    form(
        "ON DUPLICATE KEY UPDATE",
        &[],
        &["INSERT INTO {s}.t VALUES (1, 1, 'd') ON DUPLICATE KEY UPDATE v = 99"],
        Cut,
    ),
    form(
        "UPDATE of two tables",
        &[SECOND, SECOND_ROWS],
        &["UPDATE {s}.t, {s}.u SET t.v = 5, u.t = 6 WHERE t.id = u.id"],
        Cut,
    ),
    form(
        "a transaction with a savepoint",
        &[],
        &[
            "BEGIN",
            "INSERT INTO {s}.t VALUES (8, 8, 'b')",
            "SAVEPOINT a",
            "DELETE FROM {s}.t",
            "ROLLBACK TO a",
            "UPDATE {s}.t SET v = 0",
            "COMMIT",
        ],
        Cut,
    ),
    form("CREATE TABLE", &[], &["CREATE TABLE {s}.c (id INT)"], Cut),
    form(
        "CREATE TABLE LIKE",
        &[],
        &["CREATE TABLE {s}.c LIKE {s}.t"],
        Cut,
    ),
    form(
        "CREATE TABLE AS SELECT",
        &[],
        &["CREATE TABLE {s}.c AS SELECT * FROM {s}.t"],
        Cut,
    ),
    form("DROP TABLE", &[], &["DROP TABLE {s}.t"], Cut),
    form(
        "DROP of two tables",
        &[SECOND, SECOND_ROWS],
        &["DROP TABLE {s}.t, {s}.u"],
        Cut,
    ),
    form("CREATE DATABASE", &[], &["CREATE DATABASE {s}_n"], Cut),
    form(
        "DROP DATABASE",
        &[
            "CREATE DATABASE {s}_d",
            "CREATE TABLE {s}_d.t AS SELECT * FROM {s}.t",
        ],
        &["DROP DATABASE {s}_d"],
        Cut,
    ),
    form(
        "ALTER DATABASE",
        &[],
        &["ALTER DATABASE {s} CHARACTER SET latin1"],
        Cut,
    ),
    form(
        "ALTER instant",
        &[],
        &["ALTER TABLE {s}.t ADD COLUMN x INT DEFAULT 4, ALGORITHM=INSTANT"],
        Cut,
    ),
    form(
        "ALTER in place",
        &[],
        &["ALTER TABLE {s}.t ADD INDEX i (v), ALGORITHM=INPLACE"],
        Cut,
    ),
    form(
        "ALTER by copy",
        &[],
        &["ALTER TABLE {s}.t MODIFY v BIGINT, ALGORITHM=COPY"],
        Cut,
    ),
    form("ALTER FORCE", &[], &["ALTER TABLE {s}.t FORCE"], Cut),
    form(
        "ALTER RENAME",
        &[],
        &["ALTER TABLE {s}.t RENAME {s}.t2"],
        Cut,
    ),
    form(
        "ALTER RENAME COLUMN",
        &[],
        &["ALTER TABLE {s}.t RENAME COLUMN v TO v2"],
        Cut,
    ),
    form(
        "ALTER DROP COLUMN",
        &[],
        &["ALTER TABLE {s}.t DROP COLUMN v"],
        Cut,
    ),
    form(
        "ALTER ADD CHECK",
        &[],
        &["ALTER TABLE {s}.t ADD CONSTRAINT CHECK (v < 1000)"],
        Cut,
    ),
    form(
        "ALTER COMMENT",
        &[],
        &["ALTER TABLE {s}.t COMMENT = 'new'"],
        Cut,
    ),
    form(
        "ALTER DEFAULT",
        &[],
        &["ALTER TABLE {s}.t ALTER v SET DEFAULT 3"],
        Cut,
    ),
    form(
        "ADD FOREIGN KEY",
        &[SECOND, SECOND_ROWS],
        &["ALTER TABLE {s}.u ADD FOREIGN KEY (t) REFERENCES {s}.t (id)"],
        Cut,
    ),
    form(
        "ADD FULLTEXT",
        &[],
        &["ALTER TABLE {s}.t ADD FULLTEXT (w)"],
        Cut,
    ),
    form(
        "DROP INDEX",
        &["CREATE INDEX i ON {s}.t (v)"],
        &["DROP INDEX i ON {s}.t"],
        Cut,
    ),
    form("RENAME TABLE", &[], &["RENAME TABLE {s}.t TO {s}.t2"], Cut),
    form(
        "RENAME across schemas",
        &["CREATE DATABASE {s}_o"],
        &["RENAME TABLE {s}.t TO {s}_o.t"],
        Cut,
    ),
    form("TRUNCATE", &[], &["TRUNCATE {s}.t"], Cut),
    form("CREATE VIEW", &[], &[VIEW], Cut),
    form(
        "ALTER VIEW",
        &[VIEW],
        &["ALTER VIEW {s}.w AS SELECT v FROM {s}.t"],
        Cut,
    ),
    form("DROP VIEW", &[VIEW], &["DROP VIEW {s}.w"], Cut),
    form("CREATE PROCEDURE", &[], &[PROCEDURE], Cut),
    form(
        "DROP PROCEDURE",
        &[PROCEDURE],
        &["DROP PROCEDURE {s}.p"],
        Cut,
    ),
    form("CREATE FUNCTION", &[], &[FUNCTION], Cut),
    form(
        "ALTER FUNCTION",
        &[FUNCTION],
        &["ALTER FUNCTION {s}.f COMMENT 'new'"],
        Cut,
    ),
    form("CREATE TRIGGER", &[], &[TRIGGER], Cut),
    form("DROP TRIGGER", &[TRIGGER], &["DROP TRIGGER {s}.g"], Cut),
    form("CREATE EVENT", &[], &[EVENT], Cut),
    form(
        "ALTER EVENT",
        &[EVENT],
        &["ALTER EVENT {s}.e ON SCHEDULE EVERY 2 DAY"],
        Cut,
    ),
    form("DROP EVENT", &[EVENT], &["DROP EVENT {s}.e"], Cut),
    form("CREATE TABLESPACE", &[], &[TABLESPACE], Cut),
    form(
        "DROP TABLESPACE",
        &[TABLESPACE],
        &["DROP TABLESPACE {s}_ts"],
        Cut,
    ),
    form(
        "ALTER TABLESPACE",
        &[TABLESPACE],
        &["ALTER TABLESPACE {s}_ts RENAME TO {s}_ts2"],
        Cut,
    ),
    form(
        "ADD PARTITION",
        &[PARTITIONED, PARTITIONED_ROWS],
        &["ALTER TABLE {s}.p ADD PARTITION (PARTITION c VALUES LESS THAN (30))"],
        Cut,
    ),
    form(
        "DROP PARTITION",
        &[PARTITIONED, PARTITIONED_ROWS],
        &["ALTER TABLE {s}.p DROP PARTITION a"],
        Cut,
    ),
    form(
        "TRUNCATE PARTITION",
        &[PARTITIONED, PARTITIONED_ROWS],
        &["ALTER TABLE {s}.p TRUNCATE PARTITION a"],
        Cut,
    ),
    form(
        "EXCHANGE PARTITION",
        &[PARTITIONED, PARTITIONED_ROWS, "CREATE TABLE {s}.x (id INT)"],
        &["ALTER TABLE {s}.p EXCHANGE PARTITION a WITH TABLE {s}.x"],
        Cut,
    ),
    form(
        "REORGANIZE PARTITION",
        &[PARTITIONED, PARTITIONED_ROWS],
        &["ALTER TABLE {s}.p REORGANIZE PARTITION a, b INTO (PARTITION z VALUES LESS THAN (20))"],
        Cut,
    ),
    form(
        "CREATE SPATIAL REFERENCE SYSTEM",
        &[],
        &[
            "CREATE SPATIAL REFERENCE SYSTEM 990001 NAME 'flat' DEFINITION \
           'PROJCS[\"flat\",GEOGCS[\"WGS 84\",DATUM[\"World Geodetic System 1984\",\
           SPHEROID[\"WGS 84\",6378137,298.257223563]],PRIMEM[\"Greenwich\",0],\
           UNIT[\"degree\",0.017453292519943278],AXIS[\"Lon\",EAST],AXIS[\"Lat\",NORTH]],\
           PROJECTION[\"Popular Visualisation Pseudo Mercator\"],UNIT[\"metre\",1],\
           AXIS[\"X\",EAST],AXIS[\"Y\",NORTH]]'",
        ],
        Cut,
    ),
    form(
        "XA PREPARE",
        &[],
        &[
            "XA START '{s}'",
            "INSERT INTO {s}.t VALUES (7, 7, 'xa')",
            "XA END '{s}'",
            "XA PREPARE '{s}'",
        ],
        Cut,
    ),
    form("XA COMMIT", &[], &["XA COMMIT '{s}'"], Cut),
    form("XA ROLLBACK", &[], &["XA ROLLBACK '{s}'"], Cut),
    account("CREATE USER", &[], &[USER]),
    account("DROP USER", &[USER], &["DROP USER {s}@'%'"]),
    account(
        "RENAME USER",
        &[USER],
        &["RENAME USER {s}@'%' TO {s}_r@'%'"],
    ),
    account("ALTER USER", &[USER], &["ALTER USER {s}@'%' ACCOUNT LOCK"]),
    account(
        "SET PASSWORD",
        &[USER],
        &["SET PASSWORD FOR {s}@'%' = 'after'"],
    ),
    account("GRANT", &[USER], &["GRANT ALL ON {s}.* TO {s}@'%'"]),
    account(
        "GRANT on columns",
        &[USER],
        &["GRANT SELECT (id) ON {s}.t TO {s}@'%'"],
    ),
    account(
        "REVOKE",
        &[USER, "GRANT SELECT ON {s}.* TO {s}@'%'"],
        &["REVOKE SELECT ON {s}.* FROM {s}@'%'"],
    ),
    account("CREATE ROLE", &[], &[ROLE]),
    account("DROP ROLE", &[ROLE], &["DROP ROLE {s}_role"]),
    account(
        "GRANT of a role",
        &[USER, ROLE],
        &["GRANT {s}_role TO {s}@'%'"],
    ),
    account(
        "SET DEFAULT ROLE",
        &[USER, ROLE, "GRANT {s}_role TO {s}@'%'"],
        &["SET DEFAULT ROLE ALL TO {s}@'%'"],
    ),
    form("ANALYZE", &[], &["ANALYZE TABLE {s}.t"], Inert),
    form("OPTIMIZE", &[], &["OPTIMIZE TABLE {s}.t"], Inert),
    form("REPAIR", &[], &["REPAIR TABLE {s}.t"], Inert),
    form("FLUSH", &[], &["FLUSH TABLES {s}.t"], Inert),
    form(
        "DISCARD TABLESPACE",
        &[],
        &["ALTER TABLE {s}.t DISCARD TABLESPACE"],
        Clone,
    ),
    form("CREATE of a MyISAM table", &[], &[MYISAM], Clone),
    form(
        "INSERT into a MyISAM table",
        &[MYISAM],
        &[MYISAM_ROWS],
        Clone,
    ),
    form(
        "DROP of a MyISAM table",
        &[MYISAM, MYISAM_ROWS],
        &["DROP TABLE {s}.m"],
        Clone,
    ),
    form(
        "InnoDB to MyISAM",
        &[],
        &["ALTER TABLE {s}.t ENGINE=MyISAM"],
        Clone,
    ),
    form(
        "MyISAM to InnoDB",
        &[MYISAM, MYISAM_ROWS],
        &["ALTER TABLE {s}.m ENGINE=InnoDB"],
        Clone,
    ),
    form(
        "DROP DATABASE with a MyISAM table",
        &[
            "CREATE DATABASE {s}_d",
            "CREATE TABLE {s}_d.m (id INT) ENGINE=MyISAM",
        ],
        &["DROP DATABASE {s}_d"],
        Clone,
    ),
];
