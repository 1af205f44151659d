#!/bin/sh
# Tests other clients, in Python and Node, against RATELIMIT_SERVER, alone and as a cluster of three. Their packages go to
# target/clients.
set -eu
server=${RATELIMIT_SERVER:-redis-server}
here=$PWD/target/clients
mkdir -p "$here"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --target "$here/python" --upgrade -r tests/clients/requirements.txt
cp tests/clients/package.json tests/clients/clients.test.mjs "$here"
npm install --silent --no-fund --no-audit --prefix "$here" >/dev/null

dir=$(mktemp -d)
pids=
# shellcheck disable=SC2086 # a list of numbers
trap 'kill $pids 2>/dev/null || true; wait; rm -rf "$dir"' EXIT

free_ports() { python3 -c 'import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(7)]
print(*(s.getsockname()[1] for s in sockets))'; }
start() { # port, more options
    port=$1
    shift
    (cd "$dir" && exec "$server" --port "$port" --bind 127.0.0.1 --save "" --logfile "$port.log" \
        --loadmodule "$module" "$@") >/dev/null 2>&1 &
    pids="$pids $!"
    tries=0
    until redis-cli -p "$port" PING 2>/dev/null | grep -q PONG; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || { cat "$dir/$port.log" >&2; exit 1; }
        sleep 0.1
    done
}

module=$PWD/target/release/libratelimit.so
# shellcheck disable=SC2046 # seven numbers
set -- $(free_ports)
export PORT="$1" CLUSTER_PORT="$2"
start "$PORT"
first_bus=$5
slot=0
for node in "$2 $5 5460" "$3 $6 10922" "$4 $7 16383"; do
    # shellcheck disable=SC2086 # three numbers
    set -- $node
    start "$1" --cluster-enabled yes --cluster-port "$2" --cluster-config-file "$1.conf"
    redis-cli -p "$1" CLUSTER SET-CONFIG-EPOCH $((slot + 1)) >/dev/null
    redis-cli -p "$1" CLUSTER ADDSLOTSRANGE $slot "$3" >/dev/null
    [ $slot = 0 ] || redis-cli -p "$1" CLUSTER MEET 127.0.0.1 "$CLUSTER_PORT" "$first_bus" >/dev/null
    slot=$(($3 + 1))
    nodes="${nodes:-} $1"
done
for port in $nodes; do
    tries=0
    until redis-cli -p "$port" CLUSTER INFO | tr -d '\r' | tr '\n' ' ' | grep -q "cluster_state:ok .*slots_ok:16384"; do
        tries=$((tries + 1))
        [ $tries -lt 200 ] || { cat "$dir/$port.log" >&2; exit 1; }
        sleep 0.1
    done
done

export CLUSTER_PAGE="$PWD/docs/cluster.md"
PYTHONPATH=$here/python PYTHONDONTWRITEBYTECODE=1 python3 tests/clients/test_clients.py
(cd "$here" && node --test clients.test.mjs)
