#!/bin/sh
# Tests that what `make dist` builds can be built again, byte by byte, in another folder; and that its module passes the tests of
# the server, also those of a panic, because its unwinder is zig's.
set -eu
fail() {
    echo "test-portable: $*" >&2
    exit 1
}
again=$(mktemp -d)
trap 'rm -rf "$again"' EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
git ls-files -z | xargs -0 cp --no-dereference --parents --target-directory "$again"
mkdir "$again/target"
ln -s "$PWD/target/tools" "$again/target/tools"
echo "test-portable: building all again in another folder"
(cd "$again" && scripts/portable.sh && scripts/dist.sh && scripts/wheels.sh) >target/again.log 2>&1 || {
    cat target/again.log >&2
    fail "it cannot be built again"
}
diff target/dist/SHA256SUMS "$again/target/dist/SHA256SUMS" || fail "another folder gives other files"
echo "test-portable: the same files from another folder"

(cd "$again" && scripts/portable.sh --features planted-panic) >target/again.log 2>&1 || {
    cat target/again.log >&2
    fail "it cannot be built with planted-panic"
}
RATELIMIT_MODULE=$PWD/target/portable/libratelimit.so RATELIMIT_PANIC_MODULE=$again/target/portable/libratelimit.so \
    CARGO_TARGET_DIR=target cargo test --locked --test server
