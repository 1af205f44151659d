#!/bin/sh
# Fuzzes for a number of minutes each: pure code, guided by coverage, then commands on a real server, two million calls a
# minute.
set -eu
minutes=${1:-1}
# The pure code has no unsafe blocks, so it needs no sanitizer, and stable Rust will do.
for target in durations arguments decisions; do
    printf '\nfuzz: %s\n' "$target"
    PATH=$PWD/target/tools/bin:$PATH cargo fuzz run --fuzz-dir fuzz --target-dir target/fuzz --sanitizer none "$target" \
        -- -max_total_time=$((minutes * 60)) -dict=fuzz/arguments.dict -verbosity=0 -print_final_stats=1
done
printf '\nfuzz: on a server\n'
FUZZ_CALLS=$((minutes * 2000000)) CARGO_TARGET_DIR=target cargo test --locked --test server broken_calls -- --nocapture
FUZZ_CALLS=$((minutes * 100000)) CARGO_TARGET_DIR=target cargo test --locked --test server damaged_streams -- --nocapture
