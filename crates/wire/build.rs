//! Compiles the protocol with nothing but a Rust toolchain: protox needs no `protoc`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("../../proto");
    let files = ["log", "raft", "admin"].map(|name| root.join(format!("quorate/v1/{name}.proto")));
    println!("cargo:rerun-if-changed={}", root.display());
    // Fields of type `bytes` become `Bytes`, so decoding a received buffer copies no event.
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(protox::compile(files, [root])?)?;
    Ok(())
}
