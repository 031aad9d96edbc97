//! Saves the messages that would carry nothing but a commit.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{Fuse, Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tokio::time::{Instant, Sleep, sleep};

use crate::types::TypeConfig;

type Request = AppendEntriesRequest<TypeConfig>;

/// How long a follower may learn of a commit later than it could: a bit longer than a lone client
/// needs for its next transaction, and less than the feed waits between two groups.
const WAIT: Duration = Duration::from_millis(4);

/// The requests of one stream, of which those without entries wait for the next that has some.
///
/// openraft sends a commit at once, in a request of its own if no entries are left. Beside each
/// transaction of a lone client that is a second message to each follower and a second answer,
/// all before the ACK gets its turn. The next request says at least the same commit, so one that
/// waits and is overtaken says nothing that is missed: openraft counts an answer for every request
/// before it. The first request of a stream asks where the follower is, and never waits.
pub(crate) struct Piggyback<S> {
    requests: Fuse<S>,
    begun: bool,
    waiting: Option<Request>,
    until: Pin<Box<Sleep>>,
}

impl<S: Stream<Item = Request>> Piggyback<S> {
    pub(crate) fn new(requests: S) -> Self {
        Self {
            requests: requests.fuse(),
            begun: false,
            waiting: None,
            until: Box::pin(sleep(Duration::ZERO)),
        }
    }
}

impl<S: Stream<Item = Request> + Unpin> Stream for Piggyback<S> {
    type Item = Request;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Request>> {
        let this = &mut *self;
        loop {
            match this.requests.poll_next_unpin(cx) {
                Poll::Ready(Some(request)) if this.begun && request.entries.is_empty() => {
                    if this.waiting.replace(request).is_none() {
                        this.until.as_mut().reset(Instant::now() + WAIT);
                    }
                }
                Poll::Ready(Some(request)) => {
                    this.begun = true;
                    this.waiting = None;
                    return Poll::Ready(Some(request));
                }
                Poll::Ready(None) => return Poll::Ready(this.waiting.take()),
                Poll::Pending if this.waiting.is_none() => return Poll::Pending,
                Poll::Pending => {
                    std::task::ready!(this.until.as_mut().poll(cx));
                    return Poll::Ready(this.waiting.take());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::{Entry, EntryPayload};
    use quorate_wire::v1;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::codec;
    use crate::types::RaftLogId;

    fn log_id(index: u64) -> RaftLogId {
        codec::log_id_from_wire(v1::LogId {
            term: 1,
            node: 1,
            index,
        })
    }

    /// A request that says that `committed` is committed, with an entry behind it or none.
    fn request(committed: u64, has_entry: bool) -> Request {
        let entry = Entry {
            log_id: log_id(committed + 1),
            payload: EntryPayload::Blank,
        };
        AppendEntriesRequest {
            vote: openraft::impls::Vote::new_committed(1, 1),
            prev_log_id: Some(log_id(committed)),
            leader_commit: Some(log_id(committed)),
            entries: has_entry.then_some(entry).into_iter().collect(),
        }
    }

    struct Line {
        to_line: mpsc::UnboundedSender<Request>,
        piggyback: Piggyback<Pin<Box<dyn Stream<Item = Request>>>>,
    }

    impl Line {
        fn new() -> Self {
            let (to_line, mut requests) = mpsc::unbounded_channel();
            let requests = futures_util::stream::poll_fn(move |cx| requests.poll_recv(cx));
            Self {
                to_line,
                piggyback: Piggyback::new(Box::pin(requests)),
            }
        }

        fn ask(&self, committed: u64, has_entry: bool) {
            let _ = self.to_line.send(request(committed, has_entry));
        }

        /// The commit that the next request says and how many entries it has, if it comes within
        /// this time.
        async fn next(&mut self, within: Duration) -> Option<(u64, usize)> {
            let request = timeout(within, self.piggyback.next()).await.ok()??;
            let committed = request.leader_commit.expect("all of these have one");
            Some((committed.index, request.entries.len()))
        }
    }

    const AT_ONCE: Duration = Duration::from_micros(1);

    #[tokio::test(start_paused = true)]
    async fn a_commit_goes_with_the_next_entries() {
        let mut line = Line::new();
        line.ask(1, true);
        assert_eq!(line.next(AT_ONCE).await, Some((1, 1)));
        line.ask(2, false);
        assert_eq!(line.next(AT_ONCE).await, None);
        line.ask(3, false);
        line.ask(3, true);
        assert_eq!(line.next(AT_ONCE).await, Some((3, 1)));
        assert_eq!(line.next(WAIT * 4).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_without_entries_behind_it_comes_soon() {
        let mut line = Line::new();
        line.ask(1, true);
        assert_eq!(line.next(AT_ONCE).await, Some((1, 1)));
        line.ask(2, false);
        assert_eq!(line.next(WAIT / 2).await, None);
        // A later one does not make the first wait longer.
        line.ask(3, false);
        assert_eq!(line.next(WAIT).await, Some((3, 0)));
        line.ask(4, false);
        drop(line.to_line);
        assert_eq!(
            line.piggyback
                .next()
                .await
                .map(|request| request.leader_commit),
            Some(Some(log_id(4)))
        );
        assert!(line.piggyback.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_request_never_waits() {
        let mut line = Line::new();
        line.ask(1, false);
        assert_eq!(line.next(AT_ONCE).await, Some((1, 0)));
    }
}
