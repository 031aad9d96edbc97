use std::sync::Arc;
use std::time::Duration;

use quorate_binlog::ChecksumAlgorithm;
use quorate_mysql_wire::{
    AcceptError, BinlogDump, BinlogDumpGtid, Command, CommandError, DUMP_HEARTBEAT_V2,
    DUMP_NON_BLOCK, PacketError, Scramble, ServerConnection, ServerError, ServerOptions,
};
use quorate_net::BoxIo;
use quorate_types::GtidSet;
use tokio::time::timeout;

use super::FeedOptions;
use super::dump::{Dump, DumpEnd, Request};
use super::query::{Answer, Facts, Statements};
use super::sink::Agreed;
use super::virtual_file::{FIRST_POSITION, START_FILE};
use crate::contract::CommittedLog;
use crate::metrics::FeedMetrics;

/// Who does not log in by then never will.
const LOGIN_WAIT: Duration = Duration::from_secs(10);
/// Between two commands, as MySQL has it (`wait_timeout`).
const COMMAND_WAIT: Duration = Duration::from_secs(8 * 3600);

/// One connection to the feed.
pub(super) struct Session<L> {
    pub(super) connection_id: u32,
    pub(super) log: L,
    pub(super) options: Arc<FeedOptions>,
    pub(super) metrics: Arc<FeedMetrics>,
}

impl<L: CommittedLog> Session<L> {
    pub(super) async fn serve(self, io: BoxIo, scramble: Scramble) {
        let connection_id = self.connection_id;
        let connection = match timeout(LOGIN_WAIT, self.login(io, scramble)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(AcceptError::Denied { user })) => {
                self.metrics.refused.inc();
                tracing::info!(connection_id, user, "the feed refused a login");
                return;
            }
            Ok(Err(error)) => {
                tracing::debug!(connection_id, %error, "a login to the feed failed");
                return;
            }
            Err(_) => return,
        };
        let user = connection.user().to_owned();
        match self.answer(connection).await {
            Ok(None) => {}
            Ok(Some(DumpEnd::Refused(error))) => {
                tracing::info!(connection_id, user, %error, "the feed refused a consumer");
            }
            Ok(Some(DumpEnd::Sink(super::sink::SinkError::Packet(error)))) | Err(error) => {
                tracing::debug!(connection_id, user, %error, "a consumer's connection ended");
            }
            Ok(Some(DumpEnd::Left(_))) => {
                tracing::debug!(connection_id, user, "a consumer left the feed");
            }
            Ok(Some(end @ DumpEnd::Sink(_))) => {
                let error = quorate_types::chain(&end);
                tracing::error!(connection_id, user, error, "the log cannot be served");
            }
        }
    }

    async fn login(&self, io: BoxIo, scramble: Scramble) -> Result<ServerConnection, AcceptError> {
        let options = ServerOptions {
            version: self.options.server_version.clone(),
            connection_id: self.connection_id,
            scramble,
            tls: self.options.tls.clone(),
            tls_required: self.options.tls.is_some(),
            authenticate: &*self.options.accounts,
        };
        ServerConnection::accept(io, &options).await
    }

    /// Answers until the connection ends, with a dump or without.
    async fn answer(
        self,
        mut connection: ServerConnection,
    ) -> Result<Option<DumpEnd>, PacketError> {
        let mut statements = Statements::default();
        loop {
            let Ok(command) = timeout(COMMAND_WAIT, connection.next_command()).await else {
                return Ok(None);
            };
            match command {
                Err(CommandError::Packet(error)) => return Err(error),
                Err(CommandError::Parse(error)) => {
                    let text = format!("Malformed communication packet: {error}");
                    let error = ServerError::new(1835, "HY000", text);
                    connection.err(&error).await?;
                }
                Ok(Command::Quit) => return Ok(None),
                Ok(Command::Ping | Command::InitDb(_) | Command::RegisterReplica(_)) => {
                    connection.ok().await?;
                }
                Ok(Command::Query(text)) => {
                    let answer = statements.answer(&text, &self.facts());
                    reply(&mut connection, answer).await?;
                }
                Ok(Command::BinlogDumpGtid(dump)) => {
                    let request = gtid_request(dump, &statements);
                    return Ok(self.dump(connection, request).await);
                }
                Ok(Command::BinlogDump(dump)) => match file_request(&dump, &statements) {
                    Some(request) => return Ok(self.dump(connection, request).await),
                    None => connection.err(&use_gtids()).await?,
                },
                Ok(Command::Other(code)) => {
                    let text = format!("The feed has no command {code:#04x}");
                    let error = ServerError::new(ServerError::UNKNOWN_COMMAND, "08S01", text);
                    connection.err(&error).await?;
                }
            }
        }
    }

    async fn dump(self, connection: ServerConnection, request: Request) -> Option<DumpEnd> {
        let (commands, writer) = connection.split();
        Dump::new(self.log, writer, request, self.options, self.metrics)
            .run(commands)
            .await
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            options: &self.options,
            connection_id: self.connection_id,
            accepted: self.log.accepted(),
        }
    }
}

async fn reply(connection: &mut ServerConnection, answer: Answer) -> Result<(), PacketError> {
    match answer {
        Answer::Ok => connection.ok().await,
        Answer::Rows { columns, rows } => {
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            connection.rows(&columns, &rows).await
        }
        Answer::Error(error) => connection.err(&error).await,
    }
}

fn gtid_request(dump: BinlogDumpGtid, statements: &Statements) -> Request {
    request(dump.executed, dump.flags, dump.server_id, statements)
}

/// Only the beginning of everything is a place that all feeds agree on.
fn file_request(dump: &BinlogDump, statements: &Statements) -> Option<Request> {
    let is_start = u64::from(dump.position) <= FIRST_POSITION
        && (dump.file.is_empty() || dump.file == START_FILE);
    is_start.then(|| request(GtidSet::new(), dump.flags, dump.server_id, statements))
}

fn request(executed: GtidSet, flags: u16, server_id: u32, statements: &Statements) -> Request {
    Request {
        executed,
        agreed: Agreed {
            algorithm: if statements.wants_checksums() {
                ChecksumAlgorithm::Crc32
            } else {
                ChecksumAlgorithm::Off
            },
            heartbeat_v2: flags & DUMP_HEARTBEAT_V2 != 0,
        },
        // A replica has a server id; who has none is mysqlbinlog, which then does not wait.
        non_block: flags & DUMP_NON_BLOCK != 0 || server_id == 0,
        heartbeat_period: statements.heartbeat_period(),
    }
}

fn use_gtids() -> ServerError {
    ServerError::new(
        ServerError::FATAL_BINLOG_READ,
        "HY000",
        "The feed has no files and positions: ask for GTIDs (a replica: SOURCE_AUTO_POSITION=1; \
         mysqlbinlog: --read-from-remote-source=BINLOG-DUMP-GTIDS; others: auto_position)",
    )
}
