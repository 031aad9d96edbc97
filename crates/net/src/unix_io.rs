#![expect(
    clippy::disallowed_types,
    reason = "the one place that names tokio's sockets, together with `tokio_net`"
)]

use std::io::{ErrorKind, IoSlice, Result, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

/// A unix socket whose thread sleeps on while the other side reads.
///
/// Linux tells whoever polls a unix socket for writing of each message that the other side takes.
/// tokio's own socket always polls for both, so a thread that does nothing but wait for the next
/// transaction of a dump is woken by the server's reading of the last ACK: in the middle of a
/// commit, on a processor that the server needs. This one polls for writing only while a write
/// waits. tokio polls the end of a pipe for one thing only, and reads or writes it by calls that a
/// socket takes as well.
pub(crate) struct UnixIo {
    socket: UnixStream,
    reads: pipe::Receiver,
    /// While a write waits.
    writes: Option<pipe::Sender>,
}

impl UnixIo {
    pub(crate) async fn connect(path: &Path) -> Result<Self> {
        // Neither this one nor its copies ever block: tokio made it so.
        let socket = tokio::net::UnixStream::connect(path).await?.into_std()?;
        let reads = pipe::Receiver::from_owned_fd_unchecked(socket.try_clone()?.into())?;
        Ok(Self {
            socket,
            reads,
            writes: None,
        })
    }

    /// Tries at once, by the first way, and waits for room by the second.
    fn poll_write_by(
        &mut self,
        now: impl FnOnce(&UnixStream) -> Result<usize>,
        later: impl FnOnce(Pin<&mut pipe::Sender>) -> Poll<Result<usize>>,
    ) -> Poll<Result<usize>> {
        let writes = match &mut self.writes {
            Some(writes) => writes,
            None => match now(&self.socket) {
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    let again = self.socket.try_clone()?.into();
                    self.writes
                        .insert(pipe::Sender::from_owned_fd_unchecked(again)?)
                }
                result => return Poll::Ready(result),
            },
        };
        let result = ready!(later(Pin::new(writes)));
        self.writes = None;
        Poll::Ready(result)
    }
}

impl AsyncRead for UnixIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.reads).poll_read(cx, buffer)
    }
}

impl AsyncWrite for UnixIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.poll_write_by(
            |mut socket| socket.write(bytes),
            |writes| writes.poll_write(cx, bytes),
        )
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.poll_write_by(
            |mut socket| socket.write_vectored(slices),
            |writes| writes.poll_write_vectored(cx, slices),
        )
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(self.socket.shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A connected socket and the other side, which blocks.
    async fn pair() -> (UnixIo, UnixStream) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let io = UnixIo::connect(&path).await.unwrap();
        (io, listener.accept().unwrap().0)
    }

    /// How often the calling thread went to sleep.
    fn sleeps() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    }

    #[tokio::test]
    async fn what_is_larger_than_its_buffers_passes_both_ways_and_then_the_end() {
        let (mut io, mut other) = pair().await;
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n >> 5) as u8).collect();
        let expected = content.clone();
        let echo = tokio::task::spawn_blocking(move || {
            let mut got = Vec::new();
            other.read_to_end(&mut got).unwrap();
            other.write_all(&got).unwrap();
        });
        io.write_all(&content[..10]).await.unwrap();
        // Until there is no room: the other side reads meanwhile.
        io.write_all(&content[10..]).await.unwrap();
        io.shutdown().await.unwrap();
        let mut back = Vec::new();
        io.read_to_end(&mut back).await.unwrap();
        assert!(back == expected);
        echo.await.unwrap();
    }

    #[tokio::test]
    async fn a_reader_is_told_of_what_comes_later_and_of_the_end() {
        let (mut io, mut other) = pair().await;
        let late = tokio::task::spawn_blocking(move || {
            for _ in 0..3 {
                std::thread::sleep(Duration::from_millis(10));
                other.write_all(b"word").unwrap();
            }
        });
        let mut all = Vec::new();
        io.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"wordwordword");
        late.await.unwrap();
        assert!(io.write_all(b"nobody").await.is_err());
    }

    #[tokio::test]
    async fn a_thread_sleeps_on_while_the_other_side_reads() {
        const MESSAGES: u64 = 100;
        let (mut io, mut other) = pair().await;
        for _ in 0..MESSAGES {
            io.write_all(b"ack").await.unwrap();
        }
        let before = sleeps();
        let reading = tokio::task::spawn_blocking(move || {
            for _ in 0..MESSAGES {
                other.read_exact(&mut [0; 3]).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
            other.write_all(b"!").unwrap();
        });
        io.read_exact(&mut [0]).await.unwrap();
        let times = sleeps() - before;
        // tokio's own socket: one for each message.
        assert!(times < MESSAGES / 4, "{times} times");
        reading.await.unwrap();
    }
}
