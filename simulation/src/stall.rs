//! A machine that stands still, as a virtual machine does: to it no time passes and nothing comes in or
//! goes out; then it goes on with what it believed, and all the time is over at once.
//!
//! Timers inside of it do fire meanwhile, but what they set off stays inside: it comes out when the
//! machine goes on, as it would had they fired at that moment.

use std::future::poll_fn;
use std::io::Result;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

/// Whether a machine stands still; a handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stall(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    since: Option<Duration>,
    /// In the order in which they came.
    waiting: Vec<Waker>,
}

impl Stall {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn since(&self) -> Option<Duration> {
        self.state().since
    }

    pub(crate) fn set(&self, since: Option<Duration>) {
        let mut state = self.state();
        state.since = since;
        if since.is_none() {
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            for waker in waiting {
                waker.wake();
            }
        }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.since.is_none() {
            return Poll::Ready(());
        }
        let waker = context.waker();
        if !state.waiting.iter().any(|known| known.will_wake(waker)) {
            state.waiting.push(waker.clone());
        }
        Poll::Pending
    }

    /// Returns once the machine runs.
    pub(crate) async fn ended(&self) {
        poll_fn(|context| self.poll(context)).await;
    }

    pub(crate) fn wrap(&self, stream: TcpStream) -> Stalling {
        Stalling {
            stream,
            stall: self.clone(),
        }
    }
}

/// A connection of a machine that may stand still.
pub(crate) struct Stalling {
    stream: TcpStream,
    stall: Stall,
}

impl AsyncRead for Stalling {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        ready!(self.stall.poll(context));
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stalling {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        ready!(self.stall.poll(context));
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.stall.poll(context));
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.stall.poll(context));
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
