//! Makes a gRPC client from `schemas/proto`, the contract, so that nothing of the product is linked.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../schemas/proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = protox::compile(["millrace/v1/tasks.proto"], [root])?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(files)?;
    Ok(())
}
