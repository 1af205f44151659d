#!/bin/sh
# Uses the wheel and the tar.gz in target/dist on Debian 11, whose glibc is 2.31: in a folder that debootstrap fills, on the
# servers of scripts/servers.sh. `make test-dist` packs them first. Needs root, or a sudo that asks for no password.
set -eu
fail() {
    echo "test-debian11: $*" >&2
    exit 1
}
if [ "$(id -u)" = 0 ]; then as_root=; else as_root="sudo -n"; fi
# Not in /tmp, where it may be forbidden to make devices.
debian=$PWD/target/debian11
trap '$as_root rm -rf "$debian"' EXIT
$as_root rm -rf "$debian"
echo "test-debian11: fetching Debian 11, which takes a minute"
$as_root debootstrap --variant=minbase --include=python3-venv,redis-tools bullseye "$debian" >target/debian11.log 2>&1 || {
    # Its packages may have left the mirrors, which no change here can mend.
    tail -n 3 target/debian11.log >&2
    echo "skipped: test-debian11: debootstrap cannot get Debian 11 here"
    exit 0
}
scripts/servers.sh fetch
$as_root install -d -m 755 "$debian/try" "$debian/try/servers"
$as_root cp target/dist/redis_ratelimit_module-*.whl target/dist/redis-ratelimit-*.tar.gz "$debian/try"
# Those that are built here need this machine's glibc.
find target/servers -type f -perm -u+x \( -name redis-server -o -name valkey-server \) ! -path '*/source-*' | while read -r server; do
    $as_root cp "$server" "$debian/try/servers/$("$server" --version | sed 's/^\([A-Za-z]*\) server v=\([0-9.]*\).*/\1-\2/')"
done

# As in a shell there.
$as_root chroot "$debian" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 sh -eu <<'SCRIPT' || fail "that failed"
ldd --version | sed -n 's/^ldd /test-debian11: /p'
cd /try
tar -xzf redis-ratelimit-*.tar.gz
python3 -m venv limiter
limiter/bin/pip --quiet install --no-index redis_ratelimit_module-*.whl
from_wheel=$(limiter/bin/python -m redis_ratelimit_module)
[ -x "$from_wheel" ]

# The account of a service cannot mend the mode of what belongs to another, and is told.
chmod 644 "$from_wheel"
! chroot --userspec 65534:65534 / /try/limiter/bin/python -m redis_ratelimit_module 2>said
grep -q "run: chmod +x $from_wheel" said
[ "$(limiter/bin/python -m redis_ratelimit_module)" = "$from_wheel" ]

for server in servers/*; do
    for module in "$from_wheel" "$(echo /try/redis-ratelimit-*/libratelimit.so)"; do
        "$server" --port 0 --unixsocket /try/socket --save '' --loadmodule "$module" >log 2>&1 &
        for _ in $(seq 100); do
            redis-cli -s socket PING >/dev/null 2>&1 && break
            sleep 0.1
        done
        said=$(for _ in 1 2 3; do redis-cli -s socket RATELIMIT.HIT user:42 2 1h | head -n 1; done | tr '\n' ' ')
        redis-cli -s socket SHUTDOWN NOSAVE || kill $!
        wait
        [ "$said" = "1 1 0 " ] || {
            cat log
            echo "$server answers $said"
            exit 1
        }
    done
    echo "test-debian11: ${server#servers/}"
done
SCRIPT
