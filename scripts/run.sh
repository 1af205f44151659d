#!/bin/sh
# Starts a server with the module on PORT, in the foreground. `make run` builds first.
set -eu
port=${PORT:-6379}
server=${RATELIMIT_SERVER:-redis-server}

case $port in
'' | *[!0-9]*)
    echo "run: PORT=$port is not a port number. Try: make run PORT=6380" >&2
    exit 1
    ;;
esac
# The port is free only if the connection is refused.
if ! timeout 2 redis-cli -h 127.0.0.1 -p "$port" PING 2>&1 | grep -q 'Connection refused'; then
    echo "run: port $port is taken by another program. Try: make run PORT=$((port + 1))" >&2
    exit 1
fi

cat <<TEXT

Redis with RATELIMIT.HIT on port $port; Ctrl-C stops it. In another terminal, try:

    redis-cli -p $port RATELIMIT.HIT user:42 3 10s
    redis-cli -p $port RATELIMIT.PEEK user:42 3 10s

TEXT
exec "$server" redis.conf --port "$port"
