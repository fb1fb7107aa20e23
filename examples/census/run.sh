#!/usr/bin/env bash
# Runs a task on each agent once, also on one that comes while the census is taken
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/census.XXXXXX")
late=
finish() {
    [ -z "$late" ] || kill "$late" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap finish EXIT
fail() {
    printf 'census: %s\n' "$1" >&2
    exit 1
}

agents=$(meso-ps agents -q | wc -l)
{
    sleep 1
    exec meso-agent --work-dir "$work/late" --host latecomer -R cpus=1,mem=256M --kill-tasks-on-exit
} 2>"$work/late.log" &
late=$!

# A census that goes on for ever would leave out the head.
meso-offer -R cpus=0.1,mem=32M | jq -nc --unbuffered -f "$here/census.jq" | head -n $((agents + 1)) |
    meso-launch -O >"$work/results"
jq -r 'select(.ok).tasks[]' "$work/results" | while read -r task; do meso-logs "$task" | paste -s; done | sort >"$work/census"
cat "$work/census"

[ "$(wc -l <"$work/census")" -eq $((agents + 1)) ] || fail "not $((agents + 1)) agents"
cut -f 1 "$work/census" | cmp - <(meso-ps agents -o tsv=host | sort) || fail 'not each agent once'
grep -q '^latecomer' "$work/census" || fail 'the one that came later is missing'
echo 'each agent once'
