//! The product as this build made it: tests start this binary, never one that lies somewhere.

fn main() -> std::process::ExitCode {
    quorate::main()
}
