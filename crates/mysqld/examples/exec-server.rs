//! The launcher that the crate's own tests use; the product's binary has a subcommand for it.

fn main() {
    let error = quorate_mysqld::exec_server(std::env::args_os().skip(2));
    eprintln!("exec-server: {error}");
    std::process::exit(1);
}
