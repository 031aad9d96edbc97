use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

const TRIES: usize = 3;
/// A host takes processors in pieces: with so much of them gone, some lasted for a tenth of a second.
const MUCH: f64 = 0.02;

/// Runs a story of bounds that no product keeps on a machine that stands still: again, a few times, if
/// it failed while the host of this virtual machine took its processors away. Each time with a runtime
/// of its own, so that nothing of the last one goes on.
///
/// # Panics
/// If the story does, on a machine that ran.
pub fn undisturbed<F: Future<Output = ()>>(story: impl Fn() -> F) {
    for left in (0..TRIES).rev() {
        let before = Ticks::read();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let told = catch_unwind(AssertUnwindSafe(|| runtime.block_on(story())));
        drop(runtime);
        let stolen = Ticks::read().stolen_since(before);
        println!("the machine's host took {:.1} %", stolen * 100.0);
        match told {
            Ok(()) => return,
            Err(_) if left > 0 && stolen > MUCH => println!("that was too much: again"),
            Err(panic) => resume_unwind(panic),
        }
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
}
