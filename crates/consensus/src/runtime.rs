//! The one runtime that openraft ever sees: tokio, with randomness that a simulation can seed.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::time::Duration;

use openraft_rt::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::TokioRuntime;
use quorate_types::SplitMix64;
use rand::SeedableRng;
use rand::rngs::SmallRng;

thread_local! {
    // None: nobody seeded this thread, so randomness is the system's.
    static SEEDED: Cell<Option<SplitMix64>> = const { Cell::new(None) };
}

/// Makes the election timeouts of every node on this thread follow from `seed`.
///
/// The simulation runs a whole cluster on one thread and calls this first; nobody else does.
pub fn seed_thread(seed: u64) {
    SEEDED.set(Some(SplitMix64::new(seed)));
}

/// The next number of this thread's seeded sequence, if it has one.
pub(crate) fn next_seeded() -> Option<u64> {
    let mut numbers = SEEDED.get()?;
    let next = numbers.next_u64();
    SEEDED.set(Some(numbers));
    Some(next)
}

/// Tokio for openraft.
///
/// openraft ships a deterministic runtime, but its generator lives in task-local storage and
/// panics when openraft spawns from a task that it did not create, such as a gRPC handler.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    #[track_caller]
    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    #[track_caller]
    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    #[track_caller]
    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    #[track_caller]
    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    #[track_caller]
    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(error)
    }

    fn thread_rng() -> SmallRng {
        match next_seeded() {
            Some(seed) => SmallRng::seed_from_u64(seed),
            None => rand::make_rng(),
        }
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(function: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // A pool thread would break the simulation's order; there, blocking is only computing.
        let seeded = SEEDED.get().is_some();
        async move {
            if seeded {
                return Ok(function());
            }
            tokio::task::spawn_blocking(function)
                .await
                .map_err(io::Error::other)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seeded_thread_repeats_its_numbers_and_another_thread_does_not_share_them() {
        seed_thread(7);
        let first = [next_seeded(), next_seeded()];
        seed_thread(7);
        assert_eq!([next_seeded(), next_seeded()], first);
        assert_ne!(first[0], first[1]);
        let other = std::thread::Builder::new()
            .spawn(next_seeded)
            .expect("start a thread")
            .join()
            .expect("it returns");
        assert_eq!(other, None);
    }
}
