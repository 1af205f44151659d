#!/bin/sh
# Runs or tests the REST API in examples/fastapi: scripts/fastapi.sh run | test [pytest options]
#
# Its Python packages go to target/fastapi. `make example` and `make test-fastapi` build the module first.
set -eu
source=examples/fastapi
package=clients/python
venv=$PWD/target/fastapi

install() { # extras; installs again if the requirements changed
    wanted=$(cat $source/pyproject.toml $source/constraints.txt $package/pyproject.toml | cksum)
    stamp=$venv/installed$1
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && "$venv/bin/python" -c 'import rate_monitor' 2>/dev/null; then
        return
    fi
    echo "fastapi: installing its Python packages"
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --constraint $source/constraints.txt \
        --editable "${package}[fastapi]" --editable "$source$1"
    # An installation with extras also serves without.
    echo "$wanted" | tee "$venv/installed" >"$stamp"
}

case ${1:-} in
run)
    install ""
    port=${PORT:-6379}
    PORT=$port scripts/run.sh &
    redis=$!
    app=
    # shellcheck disable=SC2086 # one number or two
    trap 'kill $app $redis 2>/dev/null || true; wait' EXIT
    trap 'exit 0' INT TERM
    # It must be our server, not another on the same port.
    until timeout 2 redis-cli -p "$port" INFO server 2>/dev/null | grep -q "process_id:$redis"; do
        kill -0 $redis 2>/dev/null || exit 1
        sleep 0.1
    done
    REDIS_URL=redis://127.0.0.1:$port HTTP_PORT=${HTTP_PORT:-8000} "$venv/bin/python" -m rate_monitor &
    app=$!
    wait $app
    ;;
test)
    install "[test]"
    shift
    "$venv/bin/ruff" format --quiet --no-cache --check $source
    "$venv/bin/ruff" check --quiet --no-cache $source
    "$venv/bin/python" -B -m pytest $source "$@"
    ;;
*)
    echo "usage: scripts/fastapi.sh run | test [pytest options]" >&2
    exit 2
    ;;
esac
