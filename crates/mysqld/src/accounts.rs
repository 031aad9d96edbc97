use quorate_types::Secret;

use crate::control::{ControlError, Session, quote};
use crate::version::Version;

/// The sidecar's own accounts. No other account may have `REPLICATION SLAVE` or
/// `SYSTEM_VARIABLES_ADMIN`: with them one can release commits that wait.
#[derive(Clone, Debug)]
pub struct Accounts {
    /// Of [`CONTROL_USER`].
    pub control: Secret,
    /// Of [`CAPTURE_USER`].
    pub capture: Secret,
    /// Of [`CLONE_USER`].
    pub clone: Secret,
}

pub const CONTROL_USER: &str = "quorate";
pub const CAPTURE_USER: &str = "quorate_capture";
/// As which another node's server copies this one. It can do nothing else.
pub const CLONE_USER: &str = "quorate_clone";

/// The server's socket, and its port on loopback, whose name is not resolved.
const HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

/// What control does: no SHUTDOWN, since only a signal of ours ends a server.
const CONTROL_PRIVILEGES: &str = "SELECT, RELOAD, PROCESS, EVENT, REPLICATION SLAVE, \
    REPLICATION CLIENT, BACKUP_ADMIN, BINLOG_ADMIN, CLONE_ADMIN, CONNECTION_ADMIN, LOCK TABLES, \
    REPLICATION_APPLIER, REPLICATION_SLAVE_ADMIN, SESSION_VARIABLES_ADMIN, SYSTEM_USER, \
    SYSTEM_VARIABLES_ADMIN, XA_RECOVER_ADMIN";

impl Accounts {
    /// Makes the accounts, or gives them these passwords again, without a trace in the binlog.
    ///
    /// `session` is one of an account that may do it: `root` on the socket of a new server. The
    /// server is writable in between, so it must not be reachable by others, and it is read-only
    /// when this returns without an error.
    pub async fn install(&self, session: &mut Session) -> Result<(), ControlError> {
        let what = "keep the sidecar's accounts out of the binlog";
        session.run(what, "SET SESSION sql_log_bin=0").await?;
        session.set_writable().await?;
        let version = session.identity().await?.version;
        for sql in self.statements(version) {
            session.run("make the sidecar's accounts", &sql).await?;
        }
        session.set_read_only(5).await?;
        session
            .run("log again", "SET SESSION sql_log_bin=1")
            .await
            .map(drop)
    }

    /// The same for `--init-file` of a server whose `root` has a password. It holds passwords.
    #[must_use]
    pub fn script(&self, version: Version) -> String {
        let mut script = "SET SESSION sql_log_bin=0;\nSET SESSION sql_mode='';\n".to_owned();
        for sql in self.statements(version) {
            // A statement of the file is a line of it.
            script.push_str(&sql.replace('\n', " "));
            script.push_str(";\n");
        }
        script
    }

    fn statements(&self, version: Version) -> Vec<String> {
        // To keep the definers of events: one privilege became two.
        let definer = if version < Version::new(8, 2, 0) {
            "SET_USER_ID"
        } else {
            "SET_ANY_DEFINER, ALLOW_NONEXISTENT_DEFINER"
        };
        let control = format!("{CONTROL_PRIVILEGES}, {definer}");
        let capture = "REPLICATION SLAVE, REPLICATION CLIENT";
        let accounts = [
            (CONTROL_USER, &self.control, control.as_str()),
            (CAPTURE_USER, &self.capture, capture),
            (CLONE_USER, &self.clone, "BACKUP_ADMIN"),
        ];
        let mut statements = Vec::new();
        for (user, password, privileges) in accounts {
            for host in HOSTS {
                let account = format!("{}@{}", quote(user), quote(host));
                let password = quote(password.expose());
                statements.extend([
                    format!("CREATE USER IF NOT EXISTS {account}"),
                    format!("ALTER USER {account} IDENTIFIED BY {password} PASSWORD EXPIRE NEVER"),
                    format!("GRANT {privileges} ON *.* TO {account}"),
                ]);
            }
        }
        statements
    }
}
