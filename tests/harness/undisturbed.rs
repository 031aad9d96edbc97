use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;

use crate::machine::Stolen;

const TRIES: usize = 3;
/// Of a panic's message, in characters.
const SHOWN: usize = 1000;

/// Runs a story of bounds that no product keeps on a machine that stands still: again, a few times, if
/// it failed while the host of this virtual machine took its processors away. Each time with a runtime
/// of its own, so that nothing of the last one goes on.
///
/// # Panics
/// If the story does, on a machine that ran.
pub fn undisturbed<F: Future<Output = ()>>(story: impl Fn() -> F) {
    for left in (0..TRIES).rev() {
        let stolen = Stolen::from_now();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let told = catch_unwind(AssertUnwindSafe(|| runtime.block_on(story())));
        drop(runtime);
        let share = stolen.share() * 100.0;
        let again = left > 0 && stolen.is_much();
        match told {
            Ok(()) => return,
            Err(_) if again => say(&format!("the machine's host took {share:.1} %: again\n")),
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// Has the beginning of each panic's message shown at once: libtest shows all of them together, when
/// the last test has ended.
pub(crate) fn show_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let beginning: String = info.to_string().chars().take(SHOWN).collect();
            let thread = std::thread::current();
            say(&format!("{}: {beginning}\n", thread.name().unwrap_or("?")));
            before(info);
        }));
    });
}

/// Past libtest, which shows what a story says only if it fails.
pub(crate) fn say(text: &str) {
    // A test has nothing better to do about an output that is closed.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
