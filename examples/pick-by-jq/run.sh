#!/usr/bin/env bash
# Adds agents with attributes to the cluster, and picks among their offers by jq
set -euo pipefail
work=$(mktemp -d "${TMPDIR:-/tmp}/pick-by-jq.XXXXXX")
agents=()
finish() {
    kill "${agents[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap finish EXIT

# add HOST ATTRIBUTES
add() {
    meso-agent --work-dir "$work/$1" --host "$1" --attr "$2" -R cpus=2,mem=512M --kill-tasks-on-exit 2>"$work/$1.log" &
    agents+=($!)
}
# Runs a pipeline and checks what comes out, and its code: expect CODE OUTPUT PIPELINE
expect() {
    local code=0 said
    printf '$ %s\n' "$3"
    said=$(bash -o pipefail -c "$3") || code=$?
    printf '%s\n' "$said"
    if [ "$code" != "$1" ] || [ "$said" != "$2" ]; then
        printf 'pick-by-jq: expected %s and code %s; the code was %s\n' "$2" "$1" "$code" >&2
        exit 1
    fi
}

add fast rack=r1,ssd=true
add slow rack=r2,ssd=false
for _ in {1..100}; do
    [ "$(meso-ps agents -o tsv=host | grep -cE '^(fast|slow)$')" -lt 2 ] || break
    sleep 0.1
done

# shellcheck disable=SC2016 # the tasks expand them
{
    expect 0 slow \
        'meso-offer | jq -c --unbuffered '\''select(.attrs.rack == "r2")'\'' | meso-launch -O -c '\''echo $MESO_HOST'\'
    expect 0 fast \
        'meso-offer | jq -c --unbuffered '\''select(.attrs.ssd and .cpus >= 2)'\'' | meso-launch -O -c '\''echo $MESO_HOST'\'
    # The code of the task is the code of the pipeline.
    expect 3 slow \
        'meso-offer | jq -c --unbuffered '\''select(.attrs.rack == "r2")'\'' | meso-launch -O -c '\''echo $MESO_HOST; exit 3'\'
    # Any filter of lines will do.
    expect 0 fast \
        'meso-offer | grep --line-buffered '\''"ssd":true'\'' | meso-launch -O -c '\''echo $MESO_HOST'\'
    # What the master can decide is never offered elsewhere.
    expect 0 fast \
        'meso-offer --where '\''attr.rack == "r1"'\'' | meso-launch -O -c '\''echo $MESO_HOST'\'
}
