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
cd $source
"$venv/bin/mypy" --no-incremental --cache-dir=/dev/null
"$venv/bin/pyright" --pythonpath "$venv/bin/python" >"$venv/pyright" 2>&1 || {
    cat "$venv/pyright"
    exit 1
}
"$venv/bin/python" -B -m pytest -p no:cacheprovider "$@"
