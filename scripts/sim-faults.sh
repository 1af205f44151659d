#!/bin/sh
# How sharp the simulation is: plants one fault after the other into a copy of the module, and runs the simulation on it.
#
#   scripts/sim-faults.sh faults    those of tests/simulation/faults, for 60 s each; ONLY=word takes those with that in their name
#   scripts/sim-faults.sh mutants   those of cargo-mutants in src/server and src/commands, for 20 s each; ONLY=src/server/key.rs
#
# LONGEST=seconds sets another time. Every run begins with the same seed, SEED=n, and ends with the first failure. A process
# that ends by a signal, or never, has found the fault as well. The module without a fault must pass first.
set -eu
PATH=$PWD/target/tools/bin:$PATH
what=$1
seed=${SEED:-1}
case $what in
faults) seconds=${LONGEST:-60} least=950 ;;
mutants) seconds=${LONGEST:-20} least=850 ;;
*) exit 2 ;;
esac

here=target/faults
simulation=target/release/simulation
module=$here/build/mutants/libratelimit.so
# As fast to build as may be, with the arithmetic of a release.
export CARGO_PROFILE_MUTANTS_OPT_LEVEL=1 CARGO_PROFILE_MUTANTS_DEBUG_ASSERTIONS=false
export CARGO_PROFILE_MUTANTS_OVERFLOW_CHECKS=false

fail() {
    echo "sim-faults: $*" >&2
    exit 1
}

build() {
    (cd $here/tree && CARGO_TARGET_DIR=../build cargo build --quiet --locked --profile mutants --package redis-ratelimit) \
        >$here/build.log 2>&1
}

# Runs the simulation for so many seconds. Sets `status`, `message` and `took`, in seconds.
run() {
    began=$(date +%s) status=0
    (
        # shellcheck disable=SC3045 # dash and bash know it; a fault may ask for memory without end
        ulimit -v 4000000
        exec env MODULE=$module SEED="$seed" SECONDS="$1" BRIEF=1 timeout --kill-after 5 $(($1 + 30)) $simulation
    ) >$here/run.log 2>&1 || status=$?
    took=$(($(date +%s) - began))
    case $status in
    0) message= ;;
    124 | 137) message="it never ends" ;;
    1) message=$(grep -m 1 '^SEED=' $here/run.log || head -n 1 $here/run.log) ;;
    *) message="the process ends with status $status: $(grep -m 1 . $here/run.log || true)" ;;
    esac
    message=$(printf '%s' "$message" | cut -c 1-150)
}

mkdir -p $here
rm -rf $here/tree
mkdir $here/tree
git ls-files -z | tar --create --null --files-from=- | tar --extract --directory=$here/tree
# Whatever was built last may have been built with a fault.
find $here/tree/src -name '*.rs' -exec touch {} +
[ -x $simulation ] || fail "$simulation is missing, see make sim-$what"
build || {
    cat $here/build.log >&2
    fail "the module does not build"
}
run 20
[ $status = 0 ] || fail "the simulation fails without any fault: $message"

# Mutants as patches of the same form: a line that says what is wrong, and the difference.
if [ "$what" = mutants ]; then
    rm -rf $here/mutants
    mkdir $here/mutants
    if [ -n "${ONLY:-}" ]; then
        set -- --file "$ONLY"
    else
        set -- --file 'src/server/*.rs' --file 'src/commands/*.rs'
    fi
    # Flags have no bit in common, so that `|` and `^` are the same.
    cargo mutants --package redis-ratelimit --exclude-re 'replace [|] with \^' --list --diff --no-shuffle --colors never "$@" | awk -v "folder=$here/mutants" '
        /^src\// {
            close(file)
            file = sprintf("%s/%04d.patch", folder, ++mutants)
            print > file
            print "" > file
            next
        }
        /^--- / { path = $2; print "--- a/" path > file; next }
        /^\+\+\+ / { print "+++ b/" path > file; next }
        { print > file }'
    set -- $here/mutants/*.patch
else
    set -- tests/simulation/faults/*"${ONLY:-}"*.patch
fi
[ -e "$1" ] || fail "there are no $what"

echo "$what: $# of them, SEED=$seed, $seconds s each"
: >$here/missed.txt
found=0 missed=0 unbuildable=0 slowest=0
for patch in "$@"; do
    title=$(basename "$patch" .patch)
    if [ "$what" = mutants ]; then title=$(head -n 1 "$patch"); fi
    git apply --directory=$here/tree "$patch" || fail "$patch does not apply"
    if ! build; then
        unbuildable=$((unbuildable + 1))
        echo "does not build    $title"
        if [ "$what" = faults ]; then cat $here/build.log; fi
    else
        run "$seconds"
        if [ $status = 0 ]; then
            missed=$((missed + 1))
            echo "NOT FOUND         $title"
            echo "$title" >>$here/missed.txt
        else
            found=$((found + 1))
            [ $took -le $slowest ] || slowest=$took
            printf 'found in %3d s    %s: %s\n' "$took" "$title" "$message"
        fi
    fi
    git apply --reverse --directory=$here/tree "$patch"
done

[ $((found + missed)) -gt 0 ] || fail "none of them builds"
score=$((found * 1000 / (found + missed)))
if [ "$what" = mutants ]; then
    echo "$((score / 10)).$((score % 10)) %: $missed missed, see $here/missed.txt; $unbuildable do not build"
fi
echo "$found of $((found + missed)) $what found, each within $slowest seconds"
[ "$what" = mutants ] || [ $unbuildable = 0 ] || fail "$unbuildable do not build"
[ $score -ge $least ] || fail "fewer than $((least / 10)) %"
