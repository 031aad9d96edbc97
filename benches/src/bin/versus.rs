//! Quorate beside what MySQL ships: the same writes to each, and the ratios.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A node of the measured cluster is this program again, so it is always the build that was
    // asked for; its commands are words, and ours are options only.
    let command = std::env::args_os().nth(1);
    if command.is_some_and(|word| !word.as_encoded_bytes().starts_with(b"-")) {
        return quorate::main();
    }
    quorate_benches::versus()
}
