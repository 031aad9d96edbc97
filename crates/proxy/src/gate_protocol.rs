//! What a proxy and a gate say to each other before the first byte of MySQL's protocol.
//!
//! Both messages: 4 bytes magic, u8 version, u16 length, then so many bytes of body; integers are
//! little endian. A body may be longer than what is known here: later versions append to it.

use std::io;

use quorate_types::{ClusterId, Epoch, LeaderId, LogId, LogIndex, NodeId, Term};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error_packet::clip;

const MAGIC: [u8; 4] = *b"QRGT";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 7;
/// A refusal's text and its head fit; nothing is read beyond it, whatever a stranger announces.
const BODY_BYTES_MAX: usize = 1024;
const TEXT_BYTES_MAX: usize = 512;

/// What the connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Served by the primary only, under its lease.
    ReadWrite,
    /// Served by a fit replica, or by a primary under its lease.
    ReadOnly,
    /// The traffic of a clone, which no lease concerns: served by the donor of an open permit.
    Clone,
}

/// The first message, from the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) cluster: ClusterId,
    pub(crate) from: NodeId,
    /// Whom it believes it reached: an address may have moved to another node.
    pub(crate) to: NodeId,
    pub(crate) purpose: Purpose,
    /// How long the gate may wait for its node to become able to serve.
    pub(crate) wait_ms: u32,
}

/// The gate's only message; after `Open`, all further bytes are mysqld's and the client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With the epoch if the session lives and dies with one.
    Open {
        epoch: Option<Epoch>,
    },
    Refused(Refusal),
}

/// Why a gate stays closed for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: RefusalReason,
    /// For people.
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    /// Not primary, or without a lease now; for read-only, not a fit replica either.
    NotServing,
    WrongCluster,
    WrongNode,
    NotAMember,
    /// mysqld could not be reached.
    ServerDown,
    /// The purpose is not one that this gate serves.
    Unsupported,
}

impl RefusalReason {
    const ALL: [Self; 6] = [
        Self::NotServing,
        Self::WrongCluster,
        Self::WrongNode,
        Self::NotAMember,
        Self::ServerDown,
        Self::Unsupported,
    ];

    /// The value of the label `reason` in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NotServing => "not_serving",
            Self::WrongCluster => "wrong_cluster",
            Self::WrongNode => "wrong_node",
            Self::NotAMember => "not_a_member",
            Self::ServerDown => "server_down",
            Self::Unsupported => "unsupported",
        }
    }
}

/// Why the other side's message cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the peer does not speak the gate protocol")]
    Magic,
    #[error("the peer speaks version {0} of the gate protocol, this node version {VERSION}")]
    Version(u8),
    #[error("a handshake message of {0} bytes is too long")]
    TooLong(usize),
    #[error("a handshake message ends in the middle of a value")]
    Short,
    #[error("a handshake message has the unknown {what} {value}")]
    Unknown { what: &'static str, value: u8 },
    #[error("exchange handshake messages")]
    Io(#[from] io::Error),
}

impl Hello {
    pub(crate) async fn write(&self, io: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut body = Vec::with_capacity(29);
        body.extend_from_slice(&self.cluster.0.to_le_bytes());
        body.extend_from_slice(&self.from.0.to_le_bytes());
        body.extend_from_slice(&self.to.0.to_le_bytes());
        body.push(match self.purpose {
            Purpose::ReadWrite => 0,
            Purpose::ReadOnly => 1,
            Purpose::Clone => 2,
        });
        body.extend_from_slice(&self.wait_ms.to_le_bytes());
        write_message(io, &body).await
    }

    pub(crate) async fn read(io: &mut (impl AsyncRead + Unpin)) -> Result<Self, HandshakeError> {
        let body = read_message(io).await?;
        let mut reader = Reader(&body);
        Ok(Self {
            cluster: ClusterId(reader.u64()?),
            from: NodeId(reader.u64()?),
            to: NodeId(reader.u64()?),
            purpose: match reader.u8()? {
                0 => Purpose::ReadWrite,
                1 => Purpose::ReadOnly,
                2 => Purpose::Clone,
                value => {
                    return Err(HandshakeError::Unknown {
                        what: "purpose",
                        value,
                    });
                }
            },
            wait_ms: u32::from_le_bytes(reader.array()?),
        })
    }
}

const ANSWER_OPEN: u8 = 0;
const ANSWER_OPEN_IN_EPOCH: u8 = 1;
const ANSWER_REFUSED: u8 = 2;

impl Answer {
    pub(crate) async fn write(&self, io: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut body = Vec::with_capacity(32);
        match self {
            Self::Open { epoch: None } => body.push(ANSWER_OPEN),
            Self::Open {
                epoch: Some(Epoch(LogId { leader, index })),
            } => {
                body.push(ANSWER_OPEN_IN_EPOCH);
                body.extend_from_slice(&leader.term.0.to_le_bytes());
                body.extend_from_slice(&leader.node.0.to_le_bytes());
                body.extend_from_slice(&index.0.to_le_bytes());
            }
            Self::Refused(Refusal { reason, text }) => {
                body.push(ANSWER_REFUSED);
                body.push(*reason as u8);
                body.extend_from_slice(clip(text, TEXT_BYTES_MAX).as_bytes());
            }
        }
        write_message(io, &body).await
    }

    pub(crate) async fn read(io: &mut (impl AsyncRead + Unpin)) -> Result<Self, HandshakeError> {
        let body = read_message(io).await?;
        let mut reader = Reader(&body);
        match reader.u8()? {
            ANSWER_OPEN => Ok(Self::Open { epoch: None }),
            ANSWER_OPEN_IN_EPOCH => {
                let leader = LeaderId {
                    term: Term(reader.u64()?),
                    node: NodeId(reader.u64()?),
                };
                let index = LogIndex(reader.u64()?);
                Ok(Self::Open {
                    epoch: Some(Epoch(LogId { leader, index })),
                })
            }
            ANSWER_REFUSED => {
                let value = reader.u8()?;
                let reason =
                    *RefusalReason::ALL
                        .get(usize::from(value))
                        .ok_or(HandshakeError::Unknown {
                            what: "refusal reason",
                            value,
                        })?;
                // It ends up in a client's error message: nothing that a terminal would obey.
                let text = String::from_utf8_lossy(reader.0);
                let text = text.chars().filter(|c| !c.is_control()).collect();
                Ok(Self::Refused(Refusal { reason, text }))
            }
            value => Err(HandshakeError::Unknown {
                what: "answer",
                value,
            }),
        }
    }
}

async fn write_message(io: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> io::Result<()> {
    let length = u16::try_from(body.len()).expect("bodies are bounded by their constructors");
    let mut message = Vec::with_capacity(HEAD_BYTES + body.len());
    message.extend_from_slice(&MAGIC);
    message.push(VERSION);
    message.extend_from_slice(&length.to_le_bytes());
    message.extend_from_slice(body);
    io.write_all(&message).await?;
    io.flush().await
}

async fn read_message(io: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, HandshakeError> {
    let mut head = [0; HEAD_BYTES];
    io.read_exact(&mut head).await?;
    let [m0, m1, m2, m3, version, length @ ..] = head;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(HandshakeError::Magic);
    }
    if version != VERSION {
        return Err(HandshakeError::Version(version));
    }
    let length = usize::from(u16::from_le_bytes(length));
    if length > BODY_BYTES_MAX {
        return Err(HandshakeError::TooLong(length));
    }
    let mut body = vec![0; length];
    io.read_exact(&mut body).await?;
    Ok(body)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], HandshakeError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(HandshakeError::Short)?;
        self.0 = rest;
        Ok(*array)
    }

    fn u8(&mut self) -> Result<u8, HandshakeError> {
        self.array().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Result<u64, HandshakeError> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests;
