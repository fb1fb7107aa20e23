#!/usr/bin/env bash
# Runs tasks by a scheduler in Python, where some fail at first and one for good
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/python-scheduler.XXXXXX")
trap 'rm -rf "$work"' EXIT
fail() {
    printf 'python-scheduler: %s\n' "$1" >&2
    cat "$work/said" >&2
    exit 1
}
command -v python3 >/dev/null || { echo 'there is no python3 here'; exit 0; }
# schedule COUNT COMMAND; sets `code`
schedule() {
    code=0
    COMMAND=$2 meso-offer -R cpus=0.1,mem=32M --exec "exec python3 '$here/scheduler.py' $1 \"\$COMMAND\"" 2>"$work/said" || code=$?
}
# How many tasks there are with this state, and a name like this.
tasks() { meso-ps -a -o tsv=state,name | grep -cE "^$1"$'\t'"$2" || true; }

schedule 12 'test $((NUMBER % 3)) -ne 0 || test $TRY -eq 2'
[ "$code" = 0 ] || fail "all was to work; the code is $code"
cat "$work/said"
[ "$(tasks finished part)" = 12 ] || fail 'not each part worked once'
[ "$(tasks failed 'part-(3|6|9|12)-try-1$')" = 4 ] || fail 'not what was to fail at first'
[ "$(tasks finished '.*try-2$')" = 4 ] || fail 'not what was to work then'
echo '12 parts, 4 of them at the second try'

schedule 5 'test $NUMBER -ne 4'
[ "$code" = 1 ] || fail "one was to fail for good; the code is $code"
[ "$(tasks failed 'part-4-try-[123]$')" = 3 ] || fail 'it was not tried three times'
grep -q '^part 4: given up' "$work/said" || fail 'it does not say what it gave up'
echo 'part 4 of 5 given up after three tries: code 1'

[ -z "$(meso-ps -q)$(meso-ps offers -q)$(meso-ps frameworks -q)" ] || fail 'something is left of it'
