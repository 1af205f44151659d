#!/bin/sh
# Coverage of src/limiter by its own tests, then mutation tests: each mutant is a small change of the code, and a test must
# fail on it. Fails below 95 %. ONLY=src/limiter/usage.rs tests the mutants of one file.
set -eu
PATH=$PWD/target/tools/bin:$PATH

CARGO_TARGET_DIR=target cargo llvm-cov test --quiet --locked --package limiter --ignore-filename-regex '/tests/'

# It says 2 if mutants survived and 3 if tests ran out of time on some, which is how an endless loop is noticed.
status=0
cargo mutants --package limiter --output target --jobs "$(nproc)" --no-shuffle ${ONLY:+--file "$ONLY"} || status=$?
case $status in
0 | 2 | 3) ;;
*) exit $status ;;
esac
count() { sed -n '$=' "target/mutants.out/$1.txt" | grep . || echo 0; }
missed=$(count missed)
noticed=$(($(count caught) + $(count timeout)))
score=$((noticed * 1000 / (noticed + missed)))
echo "mutants: $noticed of $((noticed + missed)) were noticed: $((score / 10)).$((score % 10)) %"
[ $score -ge 950 ] || {
    echo "mutants: below 95 %; target/mutants.out/missed.txt has those that survived" >&2
    exit 1
}
