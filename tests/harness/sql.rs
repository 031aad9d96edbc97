use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, InfileData, Opts, OptsBuilder, Row};

/// Why a statement did not succeed.
#[derive(Debug)]
pub enum SqlError {
    /// The server answered with an error: the statement did not take effect.
    Server { code: u16, message: String },
    /// The connection ended or no answer came in time: it may have taken effect.
    Unknown(String),
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server { code, message } => write!(f, "error {code}: {message}"),
            Self::Unknown(why) => write!(f, "unknown outcome: {why}"),
        }
    }
}

impl std::error::Error for SqlError {}

impl From<mysql_async::Error> for SqlError {
    fn from(error: mysql_async::Error) -> Self {
        match error {
            // Sent by whoever closes the connection: says nothing about the statement.
            mysql_async::Error::Server(server) if matches!(server.code, 1053 | 1079 | 4031) => {
                Self::Unknown(server.to_string())
            }
            mysql_async::Error::Server(server) => Self::Server {
                code: server.code,
                message: server.message,
            },
            other => Self::Unknown(other.to_string()),
        }
    }
}

/// A client's session, by a client library that is not ours.
pub struct Sql {
    connection: Conn,
}

impl Sql {
    /// Through a port on loopback as the demo's user.
    ///
    /// # Errors
    /// If no session comes about within ten seconds.
    pub async fn port(port: u16) -> Result<Self, SqlError> {
        Self::port_as(port, "app", Some("app"), Some("app")).await
    }

    /// # Errors
    /// If no session comes about within ten seconds.
    pub async fn port_as(
        port: u16,
        user: &str,
        password: Option<&str>,
        database: Option<&str>,
    ) -> Result<Self, SqlError> {
        let options = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(port)
            .user(Some(user))
            .pass(password)
            .db_name(database)
            .prefer_socket(false);
        Self::open(options).await
    }

    /// As root through a server's own socket, past gate and proxy.
    ///
    /// # Errors
    /// If no session comes about within ten seconds.
    pub async fn socket(path: &Path) -> Result<Self, SqlError> {
        let options = OptsBuilder::default()
            .socket(Some(path.display().to_string()))
            .user(Some("root"));
        Self::open(options).await
    }

    async fn open(options: OptsBuilder) -> Result<Self, SqlError> {
        let options = options.stmt_cache_size(0).wait_timeout(Some(600));
        let connect = Conn::new(Opts::from(options));
        match tokio::time::timeout(Duration::from_secs(10), connect).await {
            Ok(connection) => Ok(Self {
                connection: connection?,
            }),
            Err(_) => Err(SqlError::Unknown("no session within 10 s".to_owned())),
        }
    }

    /// # Errors
    /// The server's, or unknown.
    pub async fn run(&mut self, sql: &str) -> Result<(), SqlError> {
        Ok(self.connection.query_drop(sql).await?)
    }

    /// Like [`Sql::run`], with a bound after which the outcome counts as unknown.
    ///
    /// # Errors
    /// The server's, or unknown.
    pub async fn run_within(&mut self, sql: &str, bound: Duration) -> Result<(), SqlError> {
        match tokio::time::timeout(bound, self.run(sql)).await {
            Ok(result) => result,
            Err(_) => Err(SqlError::Unknown(format!("no answer within {bound:?}"))),
        }
    }

    /// Like [`Sql::run`]; gives what the statement passed to `LAST_INSERT_ID`.
    ///
    /// # Errors
    /// The server's, or unknown.
    pub async fn run_for_id(&mut self, sql: &str) -> Result<u64, SqlError> {
        self.run(sql).await?;
        let id = self.connection.last_insert_id();
        id.ok_or_else(|| SqlError::Unknown(format!("no id of {sql}")))
    }

    /// Runs a `LOAD DATA LOCAL INFILE`, whose file is these pieces.
    ///
    /// # Errors
    /// The server's, or unknown.
    pub async fn load(
        &mut self,
        sql: &str,
        pieces: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<(), SqlError> {
        let file: InfileData = pieces.map(Ok).boxed();
        // The library asks for a future that threads may share; the file itself moves only.
        let file = Mutex::new(file);
        self.connection.set_infile_handler(async move {
            Ok(file.into_inner().unwrap_or_else(PoisonError::into_inner))
        });
        self.run(sql).await
    }

    /// All rows, each value as text (NULL as `NULL`).
    ///
    /// # Errors
    /// The server's, or unknown.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<String>>, SqlError> {
        let rows: Vec<Row> = self.connection.query(sql).await?;
        Ok(rows
            .into_iter()
            .map(|row| row.unwrap().iter().map(text).collect())
            .collect())
    }

    /// The first column of the first row.
    ///
    /// # Errors
    /// The server's, or unknown.
    pub async fn value(&mut self, sql: &str) -> Result<String, SqlError> {
        let rows = self.rows(sql).await?;
        let first = rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next());
        first.ok_or_else(|| SqlError::Unknown(format!("no row for {sql}")))
    }
}

fn text(value: &mysql_async::Value) -> String {
    match value {
        mysql_async::Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.as_sql(true).trim_matches('\'').to_owned(),
    }
}
