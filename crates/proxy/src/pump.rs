//! Moves the bytes of one session both ways, within one task and two buffers.

use std::future::poll_fn;
use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use quorate_net::BoxIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Two of them per session and node on the way: large results cost few system calls, and a
/// thousand idle sessions no more than 32 MiB.
const BUFFER_BYTES: usize = 16 * 1024;

/// Who sees the bytes of a session, and decides over those of the client.
pub(crate) trait Watch {
    /// Asked after bytes of the client were received, right before each write of them. False ends
    /// the session, and they go nowhere; while it is pending they wait.
    fn poll_pass(&mut self, cx: &mut Context<'_>) -> Poll<bool>;
    fn passed_to_server(&mut self, bytes: &[u8]);
    fn passed_to_client(&mut self, bytes: &[u8]);
}

/// Why a session's bytes stopped.
#[derive(Debug)]
pub(crate) enum End {
    ClientClosed,
    ServerClosed,
    /// [`Watch::poll_pass`] said no.
    Barred,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

/// What was read and is not written yet.
struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    unflushed: bool,
}

impl Buffer {
    fn new() -> Self {
        Self {
            bytes: vec![0; BUFFER_BYTES].into(),
            start: 0,
            end: 0,
            unflushed: false,
        }
    }
}

/// Runs until one side ends or the watch says no. Dropped, it stops at once: what was read and not
/// written is lost, and nothing more is written.
pub(crate) async fn pump(client: &mut BoxIo, server: &mut BoxIo, watch: &mut impl Watch) -> End {
    let (mut up, mut down) = (Buffer::new(), Buffer::new());
    poll_fn(|cx| {
        // The server's side first: its last words are delivered even if the client's writes fail.
        if let Poll::Ready(end) = poll_way(cx, Way::ToClient, server, client, &mut down, watch) {
            return Poll::Ready(end);
        }
        poll_way(cx, Way::ToServer, client, server, &mut up, watch)
    })
    .await
}

fn poll_way(
    cx: &mut Context<'_>,
    way: Way,
    from: &mut BoxIo,
    to: &mut BoxIo,
    buffer: &mut Buffer,
    watch: &mut impl Watch,
) -> Poll<End> {
    let (from_ended, to_ended) = match way {
        Way::ToServer => (End::ClientClosed, End::ServerClosed),
        Way::ToClient => (End::ServerClosed, End::ClientClosed),
    };
    loop {
        while buffer.start < buffer.end {
            if way == Way::ToServer && !ready!(watch.poll_pass(cx)) {
                return Poll::Ready(End::Barred);
            }
            let rest = &buffer.bytes[buffer.start..buffer.end];
            let written = match ready!(Pin::new(&mut *to).poll_write(cx, rest)) {
                Ok(0) => Err(Error::from(ErrorKind::WriteZero)),
                result => result,
            };
            let Ok(count) = written else {
                return Poll::Ready(to_ended);
            };
            match way {
                Way::ToServer => watch.passed_to_server(&rest[..count]),
                Way::ToClient => watch.passed_to_client(&rest[..count]),
            }
            buffer.start += count;
            buffer.unflushed = true;
        }
        let mut read = ReadBuf::new(&mut buffer.bytes);
        let result = Pin::new(&mut *from).poll_read(cx, &mut read);
        let count = read.filled().len();
        if matches!(result, Poll::Ready(Ok(()))) && count > 0 {
            (buffer.start, buffer.end) = (0, count);
            continue;
        }
        // Nothing more for now: what a TLS stream holds back must leave.
        if buffer.unflushed {
            match Pin::new(&mut *to).poll_flush(cx) {
                Poll::Ready(Ok(())) => buffer.unflushed = false,
                Poll::Ready(Err(_)) => return Poll::Ready(to_ended),
                // The end waits for the flush: reading an ended stream again says so again.
                Poll::Pending => return Poll::Pending,
            }
        }
        return match result {
            Poll::Pending => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(from_ended),
        };
    }
}
