#!/bin/sh
# Packs for pip and npm, into target/dist or DIST: the module as a wheel, and the clients in Python and Node. Then writes
# SHA256SUMS over all that is there. Packing twice gives the same bytes.
set -eu
umask 022
MODULE=${MODULE:-$PWD/target/portable/libratelimit.so}
here=${DIST:-$PWD/target/dist}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)}
export MODULE SOURCE_DATE_EPOCH

tools=$PWD/target/tools/wheels
run() { PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$tools python3 -m "$@"; }

chmod +x "$MODULE"
(cd packaging/wheel && run hatchling build -t wheel -d "$here")
(cd clients/python && run hatchling build -t sdist -t wheel -d "$here")
scripts/node.sh pack "$here"

# It deserves the tag in its name, which means glibc 2.17.
wheel=$(echo "$here"/redis_ratelimit_module-*.whl)
run auditwheel show "$wheel" >"$tools/said"
grep -q "\"manylinux_2_17_$(uname -m)\"" "$tools/said" || {
    cat "$tools/said" >&2
    exit 1
}
(cd "$here" && rm -f SHA256SUMS && sha256sum -- * >"$tools/sums" && mv "$tools/sums" SHA256SUMS)
ls -1 "$here"
