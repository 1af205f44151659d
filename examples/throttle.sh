#!/bin/sh
# Runs a command as soon as a limit allows it: throttle.sh key limit window command [argument ...]
#
#     for url in $urls; do throttle.sh crawler 10 1s curl -O "$url"; done
#
# All shells that use the same key, on any machine, share the limit.
set -eu
key=$1 limit=$2 window=$3
shift 3

while :; do
    # The fourth line of the reply is the time to wait, in milliseconds.
    wait=$(redis-cli -e -u "${REDIS_URL:-redis://127.0.0.1:6379}" RATELIMIT.HIT "$key" "$limit" "$window" | sed -n 4p)
    case $wait in
    0) exec "$@" ;;
    [1-9]*) sleep "$((wait / 1000)).$(printf %03d $((wait % 1000)))" ;;
    -1) echo "throttle: a limit of 0 allows nothing" >&2 && exit 1 ;;
    *) exit 1 ;; # redis-cli has printed the error
    esac
done
