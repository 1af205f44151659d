#!/bin/sh
# Tests the Python package in clients/python, whose packages go to target/python: scripts/python.sh [pytest options]
#
# `make test-python` builds the module first. The tests use the servers in target/servers as well, if they are there.
set -eu
source=clients/python
venv=$PWD/target/python
wanted=$(cksum <$source/pyproject.toml)
if [ "$(cat "$venv/installed" 2>/dev/null)" != "$wanted" ]; then
    echo "python: installing the package"
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --editable "${source}[dev]"
    echo "$wanted" >"$venv/installed"
fi
# The tests of the package `limits`, which judge every storage. Its source package has them.
limits=limits-$(sed -n 's/.*"limits==\([0-9.]*\)".*/\1/p' $source/pyproject.toml)
if [ ! -d "$venv/$limits" ]; then
    echo "python: fetching the tests of $limits"
    "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary limits --dest "$venv" \
        "limits==${limits#limits-}"
    tar -xzf "$venv/$limits.tar.gz" -C "$venv"
fi
cd $source
"$venv/bin/mypy" --no-incremental --cache-dir=/dev/null
"$venv/bin/pyright" --pythonpath "$venv/bin/python" >"$venv/pyright" 2>&1 || {
    cat "$venv/pyright"
    exit 1
}
"$venv/bin/python" -B -m pytest -p no:cacheprovider "$@"
[ $# = 0 ] || exit 0
# They mostly sleep, and fail on a machine too busy to wake them in time, so a failure is tried again. The sliding window
# counter is that of `limits` itself.
tests=$PWD/tests
cd "$venv/$limits"
echo "python: the tests of $limits"
PYTHONPATH=$tests "$venv/bin/python" -B -m pytest -p no:cacheprovider --noconftest -c /dev/null --rootdir . -p limits_plugin \
    -o asyncio_mode=auto -W ignore -q -n 8 --reruns 3 -k "not SlidingWindow and not sliding_window" \
    tests/test_strategy.py tests/aio/test_strategy.py tests/storage/test_redis.py tests/aio/storage/test_redis.py \
    tests/integration/test_concurrency.py
