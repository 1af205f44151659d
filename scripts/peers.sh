#!/bin/sh
# Builds the alternatives to compare with into target/peers: redis-cell as a module and, with `all`, throttlecrab-server
# where it builds.
set -eu
cargo build --quiet --release --locked --target-dir target/peers -p redis-cell --manifest-path benches/peers/Cargo.toml

crab=target/peers/bin/throttlecrab-server
[ "${1:-}" = all ] && [ ! -x $crab ] || exit 0
command -v protoc >/dev/null || {
    echo "peers: skipping throttlecrab-server: its build needs protoc (package protobuf-compiler)"
    exit 0
}
echo "peers: building throttlecrab-server, which takes a few minutes"
cargo install --quiet --locked --version 0.4.40 --root target/peers --target-dir target/peers throttlecrab-server ||
    echo "peers: skipping throttlecrab-server: it does not build here"
