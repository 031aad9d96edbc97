//! The program: see the crate's library.

fn main() -> std::process::ExitCode {
    quorate::main()
}
