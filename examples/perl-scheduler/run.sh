#!/usr/bin/env bash
# Runs two plans by a scheduler in Perl: one that works, and one that fails in the middle
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/perl-scheduler.XXXXXX")
trap 'rm -rf "$work"' EXIT
fail() {
    printf 'perl-scheduler: %s\n' "$1" >&2
    cat "$work/said" >&2
    exit 1
}
perl -MJSON::PP -e 1 2>/dev/null || { echo 'there is no perl with JSON::PP here'; exit 0; }
# schedule PLAN; sets `code`
schedule() {
    code=0
    meso-offer -R cpus=0.2,mem=32M --exec "exec perl '$here/scheduler.pl' '$1'" 2>"$work/said" || code=$?
}

# Machines that share a folder; here they are one.
cat >"$work/plan" <<PLAN
# Numbers, dealt into two files and joined again
fetch:          | cd $work && seq 100 > numbers
odd:   fetch    | cd $work && grep '[13579]\$' numbers > odd
even:  fetch    | cd $work && grep '[02468]\$' numbers > even
join:  odd even | cd $work && sort -n odd even > joined
PLAN
schedule "$work/plan"
[ "$code" = 0 ] || fail "all was to work; the code is $code"
cat "$work/said"
cmp "$work/numbers" "$work/joined" || fail 'the numbers are not whole'
[ "$(cut -d ' ' -f 1 "$work/said" | sed -n '1p;4p' | paste -s -d ,)" = fetch,join ] || fail 'not in this order'

sed -i 's/^odd:.*/odd: fetch | exit 3/; s/joined/never/' "$work/plan"
schedule "$work/plan"
[ "$code" = 1 ] || fail "a step was to fail; the code is $code"
grep -q '^odd failed' "$work/said" && [ ! -e "$work/never" ] || fail 'a step began that needs one that failed'
echo 'a step failed, and none that needs it began: code 1'

[ -z "$(meso-ps -q)$(meso-ps offers -q)$(meso-ps frameworks -q)" ] || fail 'something is left of it'
