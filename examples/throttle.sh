#!/bin/sh
# Runs a command as soon as a limit allows it: throttle.sh key limit window command [argument ...]
#
#     for url in $urls; do throttle.sh crawler 10 1s curl -O "$url"; done
#
# All shells that use the same key, on any machine, share the limit. They wait in line, in the order in which they came.
set -eu
key=$1 limit=$2 window=$3 longest=1h
shift 3

url=${REDIS_URL:-redis://127.0.0.1:6379}
case $(redis-cli -e -u "$url" RATELIMIT.HIT "$key" "$limit" "$window" WAIT "$longest" | head -n 1) in
1) exec "$@" ;;
0) echo "throttle: no turn within $longest" >&2 && exit 1 ;;
*) exit 1 ;; # redis-cli has printed the error
esac
