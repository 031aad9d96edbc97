use std::time::Duration;

/// A host takes processors in pieces: with so much of them gone, some lasted for a tenth of a second.
const MUCH: f64 = 0.02;

/// How many bounds a story may wait in all, where the machine is not its own.
const PATIENCE: u32 = 4;

/// What the host of this virtual machine took of its processors since a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stolen {
    since: Ticks,
}

impl Stolen {
    pub(crate) fn from_now() -> Self {
        Self {
            since: Ticks::read(),
        }
    }

    pub(crate) fn share(&self) -> f64 {
        Ticks::read().stolen_since(self.since)
    }

    /// So much that no bound of time means anything.
    pub(crate) fn is_much(&self) -> bool {
        self.share() > MUCH
    }
}

/// Polls until the condition holds; false if it does not within the bound, on a machine that ran.
/// Where its host took the processors away, the bound is another.
pub async fn wait_for(bound: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let stolen = Stolen::from_now();
    poll(&mut condition, bound, || !stolen.is_much()).await
}

/// The same for what comes at some time or never, and whose time no story is about: a busy disk or
/// other work on the machine may take several times the bound.
pub async fn eventually(bound: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    poll(&mut condition, bound, || false).await
}

/// At the bound `counts` says whether it counts.
async fn poll(
    condition: &mut impl AsyncFnMut() -> bool,
    bound: Duration,
    counts: impl Fn() -> bool,
) -> bool {
    let began = tokio::time::Instant::now();
    loop {
        if condition().await {
            return true;
        }
        let waited = began.elapsed();
        if waited >= bound * PATIENCE || (waited >= bound && counts()) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Of all processors together.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    stolen: u64,
    all: u64,
}

impl Ticks {
    /// The share that the host took since then.
    fn stolen_since(self, before: Self) -> f64 {
        let all = self.all - before.all;
        (self.stolen - before.stolen) as f64 / all.max(1) as f64
    }

    fn read() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").expect("read /proc/stat");
        Self::parse(&stat).expect("/proc/stat begins with a line of all processors")
    }

    /// By proc(5): user, nice, system, idle, iowait, irq, softirq, steal, and guests', which are
    /// part of user and nice.
    fn parse(stat: &str) -> Option<Self> {
        let mut words = stat.lines().next()?.split_whitespace();
        if words.next()? != "cpu" {
            return None;
        }
        let ticks: Vec<u64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
        Some(Self {
            stolen: *ticks.get(7)?,
            all: ticks.iter().sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_not_counted_twice() {
        let stat = "cpu  100 10 20 300 5 0 2 63 50 5\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        let ticks = Ticks::parse(stat).expect("a line of all processors");
        assert_eq!((ticks.stolen, ticks.all), (63, 500));
        let before = Ticks {
            stolen: 13,
            all: 300,
        };
        assert_eq!(ticks.stolen_since(before), 0.25);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bound_holds_unless_it_does_not_count() {
        for (counts, bounds) in [(true, 1), (false, PATIENCE)] {
            let began = tokio::time::Instant::now();
            let bound = Duration::from_secs(1);
            assert!(!poll(&mut async || false, bound, || counts).await);
            assert_eq!(began.elapsed(), bound * bounds);
        }
    }
}
