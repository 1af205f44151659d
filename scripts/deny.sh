#!/bin/sh
# Licences and origins of the dependencies, and whether one of them has a known fault.
set -eu
PATH=$PWD/target/tools/cargo-deny/bin:$PATH
cargo deny --locked --log-level error check bans licenses sources
if cargo deny --locked --log-level error fetch db 2>/dev/null; then
    cargo deny --locked --log-level error check --disable-fetch advisories
else
    echo "deny: the RustSec database could not be fetched from github.com; nothing was looked up in it" >&2
fi
