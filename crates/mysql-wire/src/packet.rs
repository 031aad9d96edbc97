use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_net::BoxIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};

/// The payload of a frame that says that another frame of the same packet follows.
pub(crate) const FRAME_BYTES_MAX: usize = 0xff_ffff;
const HEADER_BYTES: usize = 4;
/// How much of a large packet is handed out, and so held, at once.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// One read takes up to this much: many small packets, or a piece of a large one.
const READ_BYTES: usize = 64 << 10;
/// Queued packets leave at the latest when there are this many bytes of them.
const WRITE_BYTES: usize = 256 << 10;

/// Why packets can no longer be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    #[error("the other side closed the connection")]
    Closed,
    #[error("the connection ended in the middle of a packet")]
    Truncated,
    #[error("packet has the sequence id {found} instead of {expected}")]
    OutOfSequence { expected: u8, found: u8 },
    #[error("packet is larger than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    #[error("an earlier operation was cancelled in the middle of a packet")]
    Interrupted,
    #[error("read or write packets")]
    Io(#[from] io::Error),
}

/// Whether a packet must continue the sequence ids of the packets before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// Commands and their answers.
    Strict,
    /// A dump stream: a semi-sync source starts over after each transaction that waits for an ACK.
    Lenient,
}

/// A piece of a packet. A packet of at most [`CHUNK_BYTES_MAX`] is one chunk; a larger one comes in
/// several, of which the last may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub first: bool,
    pub last: bool,
    /// A slice of the read buffer: it keeps up to 64 KiB (or the chunk) of its neighbours alive.
    pub bytes: Bytes,
}

/// What is known of the packets coming in, without the stream they come from.
#[derive(Debug)]
struct Input {
    buffer: BytesMut,
    sequence: u8,
    check: SequenceCheck,
    packet_bytes_max: usize,
    /// Bytes of the current frame that were not handed out; none between frames.
    frame_left: Option<usize>,
    frame_is_last: bool,
    /// Whether a chunk of the current packet was handed out.
    in_packet: bool,
    /// Chunks of a packet that is being joined; kept here so that a cancelled read loses nothing.
    joined: BytesMut,
}

impl Input {
    /// Reads until `need` bytes are in the buffer. Cancelling it loses nothing.
    async fn fill(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        need: usize,
    ) -> Result<(), PacketError> {
        while self.buffer.len() < need {
            let missing = need - self.buffer.len();
            if self.buffer.capacity() - self.buffer.len() < missing {
                self.buffer.reserve(missing.max(READ_BYTES));
            }
            if io.read_buf(&mut self.buffer).await? == 0 {
                let between =
                    self.buffer.is_empty() && self.frame_left.is_none() && !self.in_packet;
                return Err(if between {
                    PacketError::Closed
                } else {
                    PacketError::Truncated
                });
            }
        }
        Ok(())
    }

    async fn next_chunk(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
    ) -> Result<Chunk, PacketError> {
        let left = match self.frame_left {
            Some(left) => left,
            None => {
                self.fill(io, HEADER_BYTES).await?;
                let left = self.buffer.get_uint_le(3) as usize;
                let found = self.buffer.get_u8();
                if self.check == SequenceCheck::Strict && found != self.sequence {
                    return Err(PacketError::OutOfSequence {
                        expected: self.sequence,
                        found,
                    });
                }
                self.sequence = found.wrapping_add(1);
                self.frame_is_last = left < FRAME_BYTES_MAX;
                self.frame_left = Some(left);
                left
            }
        };
        let take = left.min(CHUNK_BYTES_MAX);
        self.fill(io, take).await?;
        let bytes = self.buffer.split_to(take).freeze();
        self.frame_left = Some(left - take).filter(|left| *left > 0);
        let last = self.frame_is_last && self.frame_left.is_none();
        let first = !std::mem::replace(&mut self.in_packet, !last);
        Ok(Chunk { first, last, bytes })
    }

    async fn next_packet(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
    ) -> Result<Bytes, PacketError> {
        loop {
            let chunk = self.next_chunk(io).await?;
            if self.joined.len() + chunk.bytes.len() > self.packet_bytes_max {
                return Err(PacketError::TooLarge {
                    bytes_max: self.packet_bytes_max,
                });
            }
            if chunk.first && chunk.last {
                return Ok(chunk.bytes);
            }
            self.joined.extend_from_slice(&chunk.bytes);
            if chunk.last {
                return Ok(std::mem::take(&mut self.joined).freeze());
            }
        }
    }
}

/// Packets going out that were not yet written.
#[derive(Debug, Default)]
struct Output {
    buffer: BytesMut,
    sequence: u8,
    /// Bytes of the current packet that are still to come; none between packets.
    left: Option<usize>,
    frame_left: usize,
    frame_was_full: bool,
    /// Set while bytes are being queued: if that is cancelled, the stream is lost.
    torn: bool,
}

impl Output {
    /// Cancelling it loses nothing: what was not written stays queued.
    async fn drain(&mut self, io: &mut (impl AsyncWrite + Unpin)) -> Result<(), PacketError> {
        while !self.buffer.is_empty() {
            if io.write_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
        }
        Ok(())
    }

    async fn flush(&mut self, io: &mut (impl AsyncWrite + Unpin)) -> Result<(), PacketError> {
        if self.torn {
            return Err(PacketError::Interrupted);
        }
        self.drain(io).await?;
        Ok(io.flush().await?)
    }

    /// Queues one packet whose payload is the parts joined; writes only when the queue is long.
    async fn queue(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        parts: &[&[u8]],
    ) -> Result<(), PacketError> {
        self.begin(parts.iter().map(|part| part.len()).sum())?;
        for part in parts {
            self.append(io, part).await?;
        }
        Ok(())
    }

    /// Begins a packet of so many bytes, which [`Self::append`] brings.
    fn begin(&mut self, bytes: usize) -> Result<(), PacketError> {
        if self.torn || self.left.is_some() {
            return Err(PacketError::Interrupted);
        }
        self.left = Some(bytes);
        self.begin_frame();
        Ok(())
    }

    fn begin_frame(&mut self) {
        let left = self.left.expect("only called inside a packet");
        let frame = left.min(FRAME_BYTES_MAX);
        self.buffer.put_uint_le(frame as u64, 3);
        self.buffer.put_u8(self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
        self.frame_left = frame;
        self.frame_was_full = frame == FRAME_BYTES_MAX;
        if frame == 0 {
            self.left = None;
        }
    }

    async fn append(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        mut bytes: &[u8],
    ) -> Result<(), PacketError> {
        if std::mem::replace(&mut self.torn, true) {
            return Err(PacketError::Interrupted);
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.frame_left).min(WRITE_BYTES));
            assert!(!now.is_empty(), "packet is longer than it was said to be");
            self.put(now);
            bytes = later;
            if self.buffer.len() >= WRITE_BYTES {
                self.drain(io).await?;
            }
        }
        self.torn = false;
        Ok(())
    }

    /// Bytes of the current frame; begins the next one, or ends the packet, when it is full.
    fn put(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
        self.frame_left -= bytes.len();
        let left = self.left.expect("a frame is part of a packet") - bytes.len();
        self.left = Some(left);
        if self.frame_left > 0 {
            return;
        }
        // A packet whose last frame is full ends with an empty one.
        if left > 0 || self.frame_was_full {
            self.begin_frame();
        } else {
            self.left = None;
        }
    }
}

/// The packets of a connection, both ways, with one count of sequence ids.
///
/// **Cancellation.** A cancelled read loses nothing; a cancelled write of a packet larger than the
/// queue makes every later write fail with [`PacketError::Interrupted`].
#[derive(Debug)]
pub struct PacketStream {
    io: BoxIo,
    input: Input,
    output: Output,
}

impl PacketStream {
    #[must_use]
    pub fn new(io: BoxIo, packet_bytes_max: usize) -> Self {
        let input = Input {
            buffer: BytesMut::new(),
            sequence: 0,
            check: SequenceCheck::Strict,
            packet_bytes_max,
            frame_left: None,
            frame_is_last: true,
            in_packet: false,
            joined: BytesMut::new(),
        };
        Self {
            io,
            input,
            output: Output::default(),
        }
    }

    /// The next packet starts a command: its sequence id is 0.
    pub fn start_command(&mut self) {
        self.input.sequence = 0;
        self.output.sequence = 0;
    }

    pub(crate) fn set_packet_bytes_max(&mut self, bytes: usize) {
        self.input.packet_bytes_max = bytes;
    }

    pub async fn read(&mut self) -> Result<Bytes, PacketError> {
        let packet = self.input.next_packet(&mut self.io).await?;
        self.output.sequence = self.input.sequence;
        Ok(packet)
    }

    pub async fn queue(&mut self, parts: &[&[u8]]) -> Result<(), PacketError> {
        self.output.queue(&mut self.io, parts).await?;
        self.input.sequence = self.output.sequence;
        Ok(())
    }

    pub async fn flush(&mut self) -> Result<(), PacketError> {
        self.output.flush(&mut self.io).await
    }

    /// Writes one packet at once.
    pub async fn write(&mut self, payload: &[u8]) -> Result<(), PacketError> {
        self.queue(&[payload]).await?;
        self.flush().await
    }

    /// Replaces the stream by what `upgrade` makes of it (TLS); the sequence goes on.
    ///
    /// # Errors
    /// If bytes came in that nobody asked for: in clear text before TLS, they are somebody else's.
    pub(crate) async fn upgrade<F, Fut>(mut self, upgrade: F) -> io::Result<Self>
    where
        F: FnOnce(BoxIo) -> Fut,
        Fut: Future<Output = io::Result<BoxIo>>,
    {
        if !self.input.buffer.is_empty() || !self.output.buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "clear text follows the request for TLS",
            ));
        }
        self.io = upgrade(self.io).await?;
        Ok(self)
    }

    /// Two halves for two tasks. They no longer share a sequence.
    #[must_use]
    pub fn split(mut self, check: SequenceCheck) -> (PacketReader, PacketWriter) {
        self.input.check = check;
        let (read, write) = split(self.io);
        (
            PacketReader {
                io: read,
                input: self.input,
            },
            PacketWriter {
                io: write,
                output: self.output,
            },
        )
    }
}

/// The incoming half of a [`PacketStream`]. Reads may be cancelled at any time.
#[derive(Debug)]
pub struct PacketReader {
    io: ReadHalf<BoxIo>,
    input: Input,
}

impl PacketReader {
    pub async fn next_chunk(&mut self) -> Result<Chunk, PacketError> {
        self.input.next_chunk(&mut self.io).await
    }

    /// A whole packet. Not to be mixed with [`Self::next_chunk`] inside one packet.
    pub async fn next_packet(&mut self) -> Result<Bytes, PacketError> {
        self.input.next_packet(&mut self.io).await
    }

    /// The next packet must start a command, if the sequence is checked.
    pub fn start_command(&mut self) {
        self.input.sequence = 0;
    }
}

/// The outgoing half of a [`PacketStream`].
#[derive(Debug)]
pub struct PacketWriter {
    io: WriteHalf<BoxIo>,
    output: Output,
}

impl PacketWriter {
    pub async fn queue(&mut self, parts: &[&[u8]]) -> Result<(), PacketError> {
        self.output.queue(&mut self.io, parts).await
    }

    pub async fn flush(&mut self) -> Result<(), PacketError> {
        self.output.flush(&mut self.io).await
    }

    /// Begins a packet of so many bytes, to be brought by [`Self::append`].
    pub fn begin(&mut self, bytes: usize) -> Result<(), PacketError> {
        self.output.begin(bytes)
    }

    /// # Panics
    /// If there are more bytes than the packet was begun with.
    pub async fn append(&mut self, bytes: &[u8]) -> Result<(), PacketError> {
        self.output.append(&mut self.io, bytes).await
    }

    pub fn set_sequence(&mut self, sequence: u8) {
        self.output.sequence = sequence;
    }

    /// Flushes and says goodbye to the other side.
    pub async fn shutdown(&mut self) -> Result<(), PacketError> {
        self.flush().await?;
        Ok(self.io.shutdown().await?)
    }
}

#[cfg(test)]
mod tests;
