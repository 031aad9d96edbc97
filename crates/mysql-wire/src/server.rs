use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quorate_net::BoxIo;
use quorate_types::Secret;

use crate::auth;
use crate::command::{Command, CommandParseError};
use crate::cursor::ParseError;
use crate::error::ServerError;
use crate::handshake::{
    AuthSwitch, CACHING_SHA2, ClientHello, Greeting, HandshakeResponse, KNOWN, SSL, Scramble,
};
use crate::packet::{PacketError, PacketReader, PacketStream, PacketWriter, SequenceCheck};
use crate::resultset::{OkPacket, Row, column_payload, eof_payload};
use crate::tls;

/// A consumer's largest command: a dump request with its GTID set.
const COMMAND_BYTES_MAX: usize = 16 << 20;
/// Nobody is known yet who may send that much.
const LOGIN_BYTES_MAX: usize = 64 << 10;

/// How a connection is answered.
pub struct ServerOptions<'a> {
    /// As the greeting says it; replicas judge by it what we can do.
    pub version: String,
    pub connection_id: u32,
    /// Random for each connection, without the bytes 0 and `$`: see [`clean_scramble`].
    pub scramble: Scramble,
    /// If given, clients may ask for TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Refuses clients that do not ask for it.
    pub tls_required: bool,
    /// A user's password; none if there is no such user.
    pub authenticate: &'a (dyn Fn(&str) -> Option<Secret> + Send + Sync),
}

/// Random bytes as a scramble: clients take it for text, which ends at a NUL.
#[must_use]
pub fn clean_scramble(random: [u8; 20]) -> Scramble {
    random.map(|byte| match byte & 0x7f {
        0 | b'$' => 1,
        other => other,
    })
}

/// Why a client was not let in.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("exchange the handshake's packets")]
    Packet(#[from] PacketError),
    #[error("understand the client's handshake")]
    Parse(#[from] ParseError),
    #[error("start TLS")]
    Tls(#[source] io::Error),
    #[error("the client did not ask for TLS")]
    NoTls,
    #[error("wrong user or password for `{user}`")]
    Denied { user: String },
}

/// Why there is no next command.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("read a command")]
    Packet(#[from] PacketError),
    /// The connection can go on after an answer.
    #[error("understand a command")]
    Parse(#[from] CommandParseError),
}

/// A client that logged in.
///
/// **Cancellation.** [`Self::next_command`] may be cancelled; an answer may not.
#[derive(Debug)]
pub struct ServerConnection {
    stream: PacketStream,
    user: String,
    attributes: Vec<(String, String)>,
}

impl ServerConnection {
    /// Greets and authenticates a client. It has no time limit of its own: the caller sets one.
    pub async fn accept(io: BoxIo, options: &ServerOptions<'_>) -> Result<Self, AcceptError> {
        let mut stream = PacketStream::new(io, LOGIN_BYTES_MAX);
        let capabilities = KNOWN | if options.tls.is_some() { SSL } else { 0 };
        let greeting = Greeting {
            version: options.version.clone(),
            connection_id: options.connection_id,
            capabilities,
            scramble: options.scramble,
            plugin: CACHING_SHA2.to_owned(),
        };
        stream.write(&greeting.to_payload()).await?;
        let mut hello = ClientHello::parse(&stream.read().await?);
        let mut over_tls = false;
        if let (Ok(ClientHello::Tls), Some(config)) = (&hello, &options.tls) {
            let config = Arc::clone(config);
            stream = stream
                .upgrade(|io| tls::accept(io, config))
                .await
                .map_err(AcceptError::Tls)?;
            over_tls = true;
            hello = ClientHello::parse(&stream.read().await?);
        }
        let response = match hello {
            Ok(ClientHello::Response(response)) => response,
            Ok(ClientHello::Tls) => {
                refuse(
                    &mut stream,
                    ServerError::new(1043, "08S01", "Bad handshake"),
                )
                .await?;
                return Err(ParseError {
                    what: "handshake response",
                    at: 0,
                }
                .into());
            }
            Err(error) => {
                refuse(
                    &mut stream,
                    ServerError::new(1043, "08S01", "Bad handshake"),
                )
                .await?;
                return Err(error.into());
            }
        };
        if options.tls_required && !over_tls {
            let text = "Connections using insecure transport are prohibited";
            refuse(&mut stream, ServerError::new(3159, "HY000", text)).await?;
            return Err(AcceptError::NoTls);
        }
        authenticate(&mut stream, &response, options).await?;
        stream.set_packet_bytes_max(COMMAND_BYTES_MAX);
        Ok(Self {
            stream,
            user: response.user,
            attributes: response.attributes,
        })
    }

    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// What the client says of itself (`program_name`, `_client_role`).
    #[must_use]
    pub fn attributes(&self) -> &[(String, String)] {
        &self.attributes
    }

    /// Waits for the next command.
    pub async fn next_command(&mut self) -> Result<Command, CommandError> {
        self.stream.start_command();
        let packet = self.stream.read().await?;
        Ok(Command::parse(&packet)?)
    }

    pub async fn ok(&mut self) -> Result<(), PacketError> {
        self.stream.write(&OkPacket::default().to_payload()).await
    }

    pub async fn err(&mut self, error: &ServerError) -> Result<(), PacketError> {
        self.stream.write(&error.to_payload()).await
    }

    pub async fn eof(&mut self) -> Result<(), PacketError> {
        self.stream.write(&eof_payload()).await
    }

    /// A whole result set of text columns.
    pub async fn rows(&mut self, columns: &[&str], rows: &[Row]) -> Result<(), PacketError> {
        let mut count = Vec::new();
        crate::cursor::put_lenenc(&mut count, columns.len() as u64);
        self.stream.queue(&[&count]).await?;
        for name in columns {
            self.stream.queue(&[&column_payload(name)]).await?;
        }
        self.stream.queue(&[&eof_payload()]).await?;
        for row in rows {
            self.stream.queue(&[&row.to_payload()]).await?;
        }
        self.eof().await
    }

    /// For the answer to a dump request: events go out, and the other half tells when the consumer
    /// leaves.
    #[must_use]
    pub fn split(self) -> (CommandReader, EventWriter) {
        let (reader, writer) = self.stream.split(SequenceCheck::Lenient);
        (
            CommandReader { packets: reader },
            EventWriter { packets: writer },
        )
    }
}

async fn refuse(stream: &mut PacketStream, error: ServerError) -> Result<(), PacketError> {
    stream.write(&error.to_payload()).await
}

async fn authenticate(
    stream: &mut PacketStream,
    response: &HandshakeResponse,
    options: &ServerOptions<'_>,
) -> Result<(), AcceptError> {
    let proof = if response.plugin == CACHING_SHA2 {
        response.auth.clone()
    } else {
        let switch = AuthSwitch {
            plugin: CACHING_SHA2.to_owned(),
            scramble: options.scramble,
        };
        stream.write(&switch.to_payload()).await?;
        stream.read().await?
    };
    let user = &response.user;
    let password = (options.authenticate)(user);
    let known = password.is_some_and(|password| auth::verify(&options.scramble, &password, &proof));
    if !known {
        let using = if proof.is_empty() { "NO" } else { "YES" };
        let text = format!("Access denied for user '{user}' (using password: {using})");
        refuse(
            stream,
            ServerError::new(ServerError::ACCESS_DENIED, "28000", text),
        )
        .await?;
        return Err(AcceptError::Denied { user: user.clone() });
    }
    if !proof.is_empty() && proof != [0].as_slice() {
        stream.queue(&[&FAST_AUTH_SUCCESS]).await?;
    }
    stream.write(&OkPacket::default().to_payload()).await?;
    Ok(())
}

const FAST_AUTH_SUCCESS: [u8; 2] = [0x01, 0x03];

/// What a consumer says while it is served; usually nothing until it leaves.
#[derive(Debug)]
pub struct CommandReader {
    packets: PacketReader,
}

impl CommandReader {
    /// The next packet, whatever it is: a semi-sync ACK, or a goodbye.
    pub async fn next(&mut self) -> Result<Bytes, PacketError> {
        self.packets.next_packet().await
    }
}

/// The outgoing side of a dump. What is queued leaves with [`Self::flush`], or when it is much.
///
/// **Cancellation.** As for a [`PacketStream`]: an event larger than the queue must not be.
#[derive(Debug)]
pub struct EventWriter {
    packets: PacketWriter,
}

impl EventWriter {
    /// Queues one event whose bytes are the parts joined.
    pub async fn event(&mut self, parts: &[Bytes]) -> Result<(), PacketError> {
        let mut slices: Vec<&[u8]> = vec![&[0]];
        slices.extend(parts.iter().map(|part| &part[..]));
        self.packets.queue(&slices).await
    }

    /// Begins an event that is too large to be held whole: its length is said first, its bytes follow in
    /// pieces.
    pub async fn begin_event(&mut self, bytes: usize) -> Result<(), PacketError> {
        self.packets.begin(1 + bytes)?;
        self.packets.append(&[0]).await
    }

    /// A piece of the event that was begun.
    ///
    /// # Panics
    /// If there are more bytes than were said.
    pub async fn append(&mut self, bytes: &[u8]) -> Result<(), PacketError> {
        self.packets.append(bytes).await
    }

    /// Ends the dump as MySQL does for a consumer that does not wait.
    pub async fn eof(&mut self) -> Result<(), PacketError> {
        self.packets.queue(&[&eof_payload()]).await?;
        self.packets.flush().await
    }

    /// Ends the dump with a reason.
    pub async fn err(&mut self, error: &ServerError) -> Result<(), PacketError> {
        self.packets.queue(&[&error.to_payload()]).await?;
        self.packets.flush().await
    }

    pub async fn flush(&mut self) -> Result<(), PacketError> {
        self.packets.flush().await
    }

    /// Flushes and closes the connection's outgoing side.
    pub async fn shutdown(&mut self) -> Result<(), PacketError> {
        self.packets.shutdown().await
    }
}

#[cfg(test)]
mod tests;
