#!/bin/sh
# Prints the script as a library with one function, `ratelimit`, for servers on which functions are preferred to EVAL:
#
#     clients/lua/library.sh | redis-cli -x FUNCTION LOAD REPLACE
#     redis-cli FCALL ratelimit 1 user:42:ratelimit 2 10000
set -eu
printf '#!lua name=ratelimit\nredis.register_function("ratelimit", function(KEYS, ARGV)\n'
cat "$(dirname "$0")/ratelimit.lua"
echo 'end)'
