#!/bin/sh
# Checks licences, origins and known vulnerabilities of the dependencies.
set -eu
PATH=$PWD/target/tools/cargo-deny/bin:$PATH
cargo deny --locked --log-level error check bans licenses sources
if cargo deny --locked --log-level error fetch db 2>/dev/null; then
    cargo deny --locked --log-level error check --disable-fetch advisories
else
    echo "deny: the RustSec database could not be fetched from github.com; known vulnerabilities were not checked" >&2
fi
