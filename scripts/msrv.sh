#!/bin/sh
# Builds the module with the oldest Rust that Cargo.toml allows. Tests and benchmarks may need a later one.
set -eu

minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
cargo "+$minimum" --version
cargo "+$minimum" build --locked --release --target-dir target/msrv
