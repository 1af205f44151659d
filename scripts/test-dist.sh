#!/bin/sh
# Installs the Debian package on this machine, starts Debian's server with it, removes it, and checks that nothing is left.
# Then tries the tar.gz. `make test-dist` builds both first.
set -eu
fail() {
    echo "test-dist: $*" >&2
    exit 1
}
same() { [ "$1" = "$2" ] || fail "$3: $1 is not $2"; }

if [ "$(id -u)" = 0 ]; then as_root=; else as_root="sudo -n"; fi
$as_root true 2>/dev/null || fail "run this as root, or with a sudo that asks for no password"
dpkg-query -W redis-server >/dev/null 2>&1 || fail "Debian's package redis-server is missing"
! dpkg-query -W redis-ratelimit >/dev/null 2>&1 || fail "redis-ratelimit is already installed"

dir=$(mktemp -d)
chmod 755 "$dir"
asks_for_it=/etc/redis/test-dist.conf
server=
stop() {
    [ -z "$server" ] || { redis-cli -s "$dir/data/socket" SHUTDOWN NOSAVE >/dev/null 2>&1 || true; wait "$server" || true; }
    server=
}
clean() {
    stop
    $as_root rm -f $asks_for_it
    ! dpkg-query -W redis-ratelimit >/dev/null 2>&1 || $as_root dpkg --purge redis-ratelimit
    $as_root rm -rf "$dir"
}
trap clean EXIT

# Starts Debian's server as its service does, but on a socket in its own folder.
start() { # options
    $as_root install -d -o redis -g redis -m 755 "$dir/data"
    $as_root setpriv --reuid redis --regid redis --clear-groups redis-server "$dir/redis.conf" \
        --daemonize no --supervised no --port 0 --unixsocket "$dir/data/socket" --unixsocketperm 777 \
        --dir "$dir/data" --logfile "" "$@" >"$dir/log" 2>&1 &
    server=$!
    tries=0
    until redis-cli -s "$dir/data/socket" PING >/dev/null 2>&1; do
        tries=$((tries + 1))
        kill -0 "$server" 2>/dev/null && [ $tries -lt 100 ] || {
            cat "$dir/log" >&2
            fail "the server does not start"
        }
        sleep 0.1
    done
}
ask() { redis-cli -s "$dir/data/socket" "$@" | tr '\n' ' '; }
hit() { same "$(ask RATELIMIT.HIT user:42 2 10s)" "1 2 1 0 10000 10000 " "HIT"; }
state() {
    dpkg-query -W
    $as_root find /etc/redis /usr/lib/redis /usr/share/doc/redis-ratelimit /var/lib/dpkg/info \
        -printf '%p %m %u %s\n' 2>/dev/null | sort
}

state >"$dir/before"
$as_root dpkg --install target/dist/redis-ratelimit_*.deb >/dev/null
$as_root cp /etc/redis/redis.conf "$dir/redis.conf"
$as_root chmod 644 "$dir/redis.conf"
start
same "$(ask MODULE LIST)" " " "installing alone must load nothing"
stop
echo 'include /etc/redis/ratelimit.conf' | $as_root tee -a "$dir/redis.conf" >/dev/null
start
hit
same "$(ask CONFIG GET lazyfree-lazy-expire)" "lazyfree-lazy-expire yes " "the sample configuration"
stop

$as_root cp "$dir/redis.conf" $asks_for_it
$as_root dpkg --remove redis-ratelimit >"$dir/said" 2>&1
grep -q 'still includes ratelimit.conf' "$dir/said" || fail "removing it does not warn"
[ ! -e /usr/lib/redis/modules/libratelimit.so ] || fail "the module is still there"
[ -e /etc/redis/ratelimit.conf ] || fail "removing it also removed the configuration"
$as_root rm $asks_for_it
$as_root dpkg --purge redis-ratelimit >/dev/null
state >"$dir/after"
diff "$dir/before" "$dir/after" || fail "purging it left something behind"

tar -C "$dir" -xzf target/dist/redis-ratelimit-*.tar.gz
$as_root cp /etc/redis/redis.conf "$dir/redis.conf"
start --loadmodule "$dir"/redis-ratelimit-*/libratelimit.so
hit
echo "test-dist: installed, used, removed; nothing is left"
