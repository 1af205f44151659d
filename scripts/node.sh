#!/bin/sh
# The Node package in clients/node, of which a copy with its packages goes to target/node:
#
#     scripts/node.sh [test] [options of node --test]
#     scripts/node.sh pack FOLDER
#
# `make test-node` builds the module first. The tests use the servers in target/servers as well, if they are there.
set -eu
here=$PWD/target/node
mkdir -p "$here"
(cd "$here" && rm -rf src tests types)
# In the repository the script is a link to the file that all clients share.
cp -RL clients/node/* "$here"
cp LICENSE "$here"
wanted=$(cksum <clients/node/package.json)
if [ "$(cat "$here/installed" 2>/dev/null)" != "$wanted" ]; then
    echo "node: installing what the package is tested with"
    npm install --silent --no-fund --no-audit --no-package-lock --prefix "$here" >/dev/null
    echo "$wanted" >"$here/installed"
fi
# Writes the types that are packed.
(cd "$here" && node_modules/.bin/tsc --project .)

case ${1:-test} in
pack)
    (cd "$here" && npm pack --silent --pack-destination "$2")
    ;;
*)
    [ "${1:-}" != test ] || shift
    cd "$here"
    REPOSITORY=$(cd ../.. && pwd) node --test "$@" tests/
    ;;
esac
