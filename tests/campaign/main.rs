//! The fault campaign: see docs/testing.md.

mod campaign;
mod checks;
mod faults;
mod load;
mod registers;

fn main() -> std::process::ExitCode {
    // The nodes of its cluster are this same program, so that one build is enough.
    let first = std::env::args().nth(1);
    match first.is_some_and(|first| !first.starts_with('-')) {
        true => quorate::main(),
        false => campaign::main(),
    }
}
