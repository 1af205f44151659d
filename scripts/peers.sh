#!/bin/sh
# Builds what a user would pick instead, into target/peers: redis-cell as a module, and with `all` throttlecrab-server too,
# where that is possible.
set -eu
cargo build --quiet --release --locked --target-dir target/peers -p redis-cell --manifest-path benches/peers/Cargo.toml

crab=target/peers/bin/throttlecrab-server
[ "${1:-}" = all ] && [ ! -x $crab ] || exit 0
command -v protoc >/dev/null || {
    echo "peers: throttlecrab-server is left out, its build needs protoc (package protobuf-compiler)"
    exit 0
}
echo "peers: building throttlecrab-server, which takes some minutes"
cargo install --quiet --locked --version 0.4.40 --root target/peers --target-dir target/peers throttlecrab-server ||
    echo "peers: throttlecrab-server is left out, it does not build here"
