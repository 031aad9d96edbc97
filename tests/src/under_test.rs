fn main() -> std::process::ExitCode {
    quorate::run(std::env::args_os())
}
