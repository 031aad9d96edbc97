use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quorate_net::BoxIo;
use quorate_types::Secret;
use rustls::pki_types::ServerName;

use crate::auth::{self, Plugin};
use crate::cursor::{Cursor, ParseError};
use crate::error::ServerError;
use crate::handshake::{
    AuthSwitch, CONNECT_ATTRS, CONNECT_WITH_DB, Greeting, HandshakeResponse, KNOWN, PLUGIN_AUTH,
    PLUGIN_AUTH_LENENC, PROTOCOL_41, SSL, Scramble, ssl_request,
};
use crate::packet::{PacketError, PacketStream};
use crate::resultset::{
    OkPacket, QueryResult, Row, STATUS_MORE_RESULTS, column_name, eof_status, is_eof,
};
use crate::tls;

/// The largest packet that an answer may hold, and an answer's largest sum of rows.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
/// MySQL's own limit of columns.
const COLUMNS_MAX: u64 = 4096;

/// TLS after the greeting.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub config: Arc<rustls::ClientConfig>,
    pub server_name: ServerName<'static>,
}

/// Who logs in, and how.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    pub user: String,
    pub password: Secret,
    pub database: Option<String>,
    /// If given, a server without TLS is refused.
    pub tls: Option<ClientTls>,
    /// A unix socket: the password may pass in clear text if the server asks for it.
    pub secure_transport: bool,
    /// What `performance_schema.session_connect_attrs` shows.
    pub attributes: Vec<(String, String)>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the server refused the login")]
    Server(#[source] ServerError),
    #[error("exchange the handshake's packets")]
    Packet(#[from] PacketError),
    #[error("understand the server's handshake")]
    Parse(#[from] ParseError),
    #[error("the server's protocol is older than MySQL 5.7's")]
    TooOld,
    #[error("the server offers no TLS")]
    NoTls,
    #[error("start TLS")]
    Tls(#[source] io::Error),
    #[error("the server wants the authentication plugin `{0}`")]
    Plugin(String),
    #[error("the server's public key is none, or too small for the password")]
    PublicKey,
    #[error("the server sent an unexpected packet while authenticating")]
    Unexpected,
}

impl ConnectError {
    /// Whether the same login may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Server(error) => error.code != ServerError::ACCESS_DENIED,
            Self::Packet(_) | Self::Tls(_) => true,
            Self::Parse(_)
            | Self::TooOld
            | Self::NoTls
            | Self::Plugin(_)
            | Self::PublicKey
            | Self::Unexpected => false,
        }
    }
}

/// Why a statement has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("the server refused the statement")]
    Server(#[source] ServerError),
    #[error("exchange a statement's packets")]
    Packet(#[from] PacketError),
    #[error("understand the server's answer")]
    Parse(#[from] ParseError),
    #[error("the answer is larger than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the statement gave an answer of a kind that was not asked for")]
    Unexpected,
    #[error("an earlier statement was cancelled or failed while its answer was read")]
    Interrupted,
}

impl QueryError {
    /// What the server said, if it said something.
    #[must_use]
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the connection can be used for the next statement.
    #[must_use]
    pub fn connection_is_usable(&self) -> bool {
        self.server().is_some()
    }
}

/// A session of a MySQL server, for statements of the text protocol.
///
/// **Cancellation.** A future of [`Self::query`] that is dropped before it is done leaves an answer
/// that nobody reads: every later call fails with [`QueryError::Interrupted`], so that no statement
/// can be given another one's answer. Whether the statement takes effect is unknown.
#[derive(Debug)]
pub struct Connection {
    pub(crate) stream: PacketStream,
    greeting: Greeting,
    busy: bool,
}

impl Connection {
    /// Logs in. It has no time limit of its own: the caller sets one.
    ///
    /// Over plain TCP the password may go out under an RSA key that the server names: enough against
    /// listeners, not against somebody in the middle. Loopback is such a connection; a network is
    /// worth TLS.
    pub async fn connect(io: BoxIo, options: &ConnectOptions) -> Result<Self, ConnectError> {
        let mut stream = PacketStream::new(io, ANSWER_BYTES_MAX);
        let packet = stream.read().await?;
        if packet.first() == Some(&0xff) {
            return Err(ConnectError::Server(ServerError::parse(&packet)?));
        }
        let greeting = Greeting::parse(&packet)?;
        let needed = PROTOCOL_41 | PLUGIN_AUTH;
        if greeting.capabilities & needed != needed {
            return Err(ConnectError::TooOld);
        }
        let mut capabilities = KNOWN & (greeting.capabilities | CONNECT_ATTRS) & !CONNECT_WITH_DB;
        if options.database.is_some() {
            capabilities |= CONNECT_WITH_DB;
        }
        if greeting.capabilities & CONNECT_ATTRS == 0 || options.attributes.is_empty() {
            capabilities &= !CONNECT_ATTRS;
        }
        if let Some(tls) = &options.tls {
            if greeting.capabilities & SSL == 0 {
                return Err(ConnectError::NoTls);
            }
            capabilities |= SSL;
            stream
                .write(&ssl_request(capabilities, PACKET_BYTES_MAX))
                .await?;
            stream = stream
                .upgrade(|io| tls::connect(io, tls))
                .await
                .map_err(ConnectError::Tls)?;
        }
        let secure = options.secure_transport || options.tls.is_some();
        // A server whose default we do not know may still know the user's plugin, and switch.
        let plugin = Plugin::from_name(&greeting.plugin).unwrap_or(Plugin::CachingSha2);
        let response = HandshakeResponse {
            capabilities,
            user: options.user.clone(),
            auth: plugin.response(&greeting.scramble, &options.password),
            database: options.database.clone(),
            plugin: plugin.name().to_owned(),
            attributes: options.attributes.clone(),
        };
        debug_assert!(capabilities & PLUGIN_AUTH_LENENC != 0 || response.auth.len() < 251);
        stream.write(&response.to_payload(PACKET_BYTES_MAX)).await?;
        let mut login = Login {
            stream: &mut stream,
            options,
            secure,
        };
        login.run(plugin, greeting.scramble).await?;
        Ok(Self {
            stream,
            greeting,
            busy: false,
        })
    }

    /// The id that `KILL` takes.
    #[must_use]
    pub fn connection_id(&self) -> u32 {
        self.greeting.connection_id
    }

    /// As the greeting says it.
    #[must_use]
    pub fn server_version(&self) -> &str {
        &self.greeting.version
    }

    /// Runs one statement and reads its whole answer.
    pub async fn query(&mut self, sql: &str) -> Result<QueryResult, QueryError> {
        self.command(&[&[COM_QUERY], sql.as_bytes()], Answer::Any)
            .await
    }

    /// Runs one statement that gives no rows.
    pub async fn execute(&mut self, sql: &str) -> Result<OkPacket, QueryError> {
        let result = self.query(sql).await?;
        if !result.columns.is_empty() {
            return Err(QueryError::Unexpected);
        }
        Ok(OkPacket {
            affected_rows: result.affected_rows,
            last_insert_id: result.last_insert_id,
            status: 0,
        })
    }

    /// Asks whether the server is there.
    pub async fn ping(&mut self) -> Result<(), QueryError> {
        self.command(&[&[COM_PING]], Answer::Ok).await.map(drop)
    }

    /// Ends the session in the way that the server does not log as an aborted one.
    pub async fn close(mut self) -> Result<(), PacketError> {
        self.stream.start_command();
        self.stream.write(&[COM_QUIT]).await
    }

    pub(crate) async fn command(
        &mut self,
        parts: &[&[u8]],
        answer: Answer,
    ) -> Result<QueryResult, QueryError> {
        self.begin()?;
        self.stream.start_command();
        self.stream.queue(parts).await?;
        self.stream.flush().await?;
        let result = self.answer(answer).await;
        // After anything but an answer or a refusal, what comes next belongs to no statement.
        self.busy = !matches!(result, Ok(_) | Err(QueryError::Server(_)));
        result
    }

    /// Marks the connection as used up until an answer is complete.
    pub(crate) fn begin(&mut self) -> Result<(), QueryError> {
        if std::mem::replace(&mut self.busy, true) {
            return Err(QueryError::Interrupted);
        }
        Ok(())
    }

    async fn packet(&mut self) -> Result<Bytes, QueryError> {
        let packet = self.stream.read().await?;
        if packet.first() == Some(&0xff) {
            return Err(QueryError::Server(ServerError::parse(&packet)?));
        }
        Ok(packet)
    }

    async fn answer(&mut self, answer: Answer) -> Result<QueryResult, QueryError> {
        let first = self.packet().await?;
        match first.first() {
            Some(0) => {
                let ok = OkPacket::parse(&first)?;
                if ok.status & STATUS_MORE_RESULTS != 0 {
                    return Err(QueryError::Unexpected);
                }
                return Ok(QueryResult {
                    affected_rows: ok.affected_rows,
                    last_insert_id: ok.last_insert_id,
                    ..QueryResult::default()
                });
            }
            // 0xfb asks for a file of ours (LOAD DATA LOCAL), which is never given.
            Some(0xfb) | None => return Err(QueryError::Unexpected),
            Some(_) if answer == Answer::Ok => return Err(QueryError::Unexpected),
            Some(_) => {}
        }
        let mut cursor = Cursor::new(&first, "column count");
        let count = cursor.lenenc()?;
        if !cursor.is_empty() || count == 0 || count > COLUMNS_MAX {
            return Err(cursor.error().into());
        }
        self.rows(count as usize).await
    }

    async fn rows(&mut self, count: usize) -> Result<QueryResult, QueryError> {
        let mut result = QueryResult::default();
        for _ in 0..count {
            let packet = self.packet().await?;
            result.columns.push(column_name(&packet)?);
        }
        let end = self.packet().await?;
        if !is_eof(&end) {
            return Err(QueryError::Unexpected);
        }
        let mut bytes = 0;
        loop {
            let packet = self.packet().await?;
            if is_eof(&packet) {
                if eof_status(&packet)? & STATUS_MORE_RESULTS != 0 {
                    return Err(QueryError::Unexpected);
                }
                return Ok(result);
            }
            // A row costs memory even if its values are empty.
            bytes += packet.len() + count * size_of::<Option<Bytes>>();
            if bytes > ANSWER_BYTES_MAX {
                return Err(QueryError::TooLarge);
            }
            result.rows.push(Row::parse(&packet, count)?);
        }
    }
}

/// Which answers a command has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Any,
    Ok,
}

const COM_QUIT: u8 = 0x01;
const COM_QUERY: u8 = 0x03;
const COM_PING: u8 = 0x0e;
/// What we tell the server that it may send us in one packet: its own largest.
const PACKET_BYTES_MAX: u32 = 1 << 30;

struct Login<'a> {
    stream: &'a mut PacketStream,
    options: &'a ConnectOptions,
    secure: bool,
}

impl Login<'_> {
    async fn run(
        &mut self,
        mut plugin: Plugin,
        mut scramble: Scramble,
    ) -> Result<(), ConnectError> {
        let mut switched = false;
        let mut sent = false;
        loop {
            let packet = self.stream.read().await?;
            match (packet.first(), packet.get(1)) {
                (Some(0x00), _) => return Ok(()),
                (Some(0xff), _) => return Err(ConnectError::Server(ServerError::parse(&packet)?)),
                (Some(0xfe), _) if !switched && !sent => {
                    switched = true;
                    let switch = AuthSwitch::parse(&packet)?;
                    plugin = Plugin::from_name(&switch.plugin)
                        .ok_or(ConnectError::Plugin(switch.plugin))?;
                    scramble = switch.scramble;
                    let response = plugin.response(&scramble, &self.options.password);
                    self.stream.write(&response).await?;
                }
                (Some(0x01), Some(0x03)) if plugin == Plugin::CachingSha2 && packet.len() == 2 => {}
                (Some(0x01), Some(0x04)) if plugin == Plugin::CachingSha2 && !sent => {
                    sent = true;
                    self.full(&scramble).await?;
                }
                _ => return Err(ConnectError::Unexpected),
            }
        }
    }

    /// The server has not seen this user since it started: it wants the password itself.
    async fn full(&mut self, scramble: &Scramble) -> Result<(), ConnectError> {
        let password = &self.options.password;
        if self.secure {
            let mut text = password.expose().as_bytes().to_vec();
            text.push(0);
            return Ok(self.stream.write(&text).await?);
        }
        self.stream.write(&[REQUEST_PUBLIC_KEY]).await?;
        let packet = self.stream.read().await?;
        match packet.split_first() {
            Some((0x01, pem)) => {
                let secret =
                    auth::encrypt(password, scramble, pem).ok_or(ConnectError::PublicKey)?;
                Ok(self.stream.write(&secret).await?)
            }
            Some((0xff, _)) => Err(ConnectError::Server(ServerError::parse(&packet)?)),
            _ => Err(ConnectError::Unexpected),
        }
    }
}

const REQUEST_PUBLIC_KEY: u8 = 0x02;

#[cfg(test)]
mod tests;
