#!/usr/bin/env bash
# Two pipelines share a cluster: large tasks, and small ones in the gaps that they leave
set -euo pipefail
readonly SMALL=40
work=$(mktemp -d "${TMPDIR:-/tmp}/backfill.XXXXXX")
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
fail() {
    printf 'backfill: %s\n' "$1" >&2
    exit 1
}

# shellcheck disable=SC2016 # the tasks expand them
{
    meso-offer --role big -R cpus=2,mem=64M |
        meso-launch -O -n 1000 -R cpus=2,mem=64M -c 'sleep 0.5; echo large on $MESO_HOST' >"$work/large" &
    large=$!
    meso-offer --role small -R cpus=0.5,mem=32M --where 'cpus < 2' |
        meso-launch -O -n "$SMALL" -R cpus=0.5,mem=32M -c 'sleep 0.2; echo small on $MESO_HOST' >"$work/small" &
    small=$!
}
while kill -0 "$small" 2>/dev/null; do
    meso-ps frameworks -o json | jq -r '(map({(.role): .}) | add) as $of | [$of.big, $of.small] |
        map(.cpus // 0) + map(.share // 0) | @tsv' >>"$work/held"
    sleep 0.1
done
wait "$small" || fail "the small ones ended with code $?"
# What runs is ended as well.
kill "$large"
wait "$large" || [ "$?" -eq 143 ] || fail "the large ones ended with code $?"

echo 'how often it was seen, processors of the large and of the small ones, and their shares of the cluster:'
sort "$work/held" | uniq -c
sort "$work/large" "$work/small" | uniq -c
[ "$(wc -l <"$work/small")" -eq "$SMALL" ] || fail 'not all small tasks were run'
# The small ones take two seconds at the least, the large ones half a second.
[ "$(wc -l <"$work/large")" -ge 4 ] || fail 'the large ones waited'
awk '$1 == 4 && $2 > 0 { both = 1 } $1 > 4 || $2 > 2 || $3 + $4 > 1.001 { more = 1 } END { exit !both || more }' "$work/held" ||
    fail 'they did not run beside each other, or more was held than there is'
[ -z "$(meso-ps offers -q)$(meso-ps -q)" ] || fail 'something is still held'
