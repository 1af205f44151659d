#!/bin/sh
# The simulation with AddressSanitizer in it and in the module, for MINUTES=1. The compiler's switch for that is not stable,
# so the stable compiler is told to take it all the same.
set -eu
target=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=target/asan RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zsanitizer=address -Cforce-frame-pointers=yes'
cargo build --quiet --locked --target "$target" --profile asan -p redis-ratelimit -p simulation --features simulation/sanitized
# Copies of the module stay loaded, so what they hold is not lost; the simulation itself counts the module's memory.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=0:detect_stack_use_after_return=1
MODULE="target/asan/$target/asan/libratelimit.so" exec "target/asan/$target/asan/simulation"
