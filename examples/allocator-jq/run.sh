#!/usr/bin/env bash
# Brings up a cluster of its own whose policy is a jq filter, and checks that roles are served in the order of their names
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export work
work=$(mktemp -d "${TMPDIR:-/tmp}/allocator-jq.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Two wait for the one agent that there is; when it comes free, one of them is served to the end first.
# shellcheck disable=SC2016 # for the shell inside
ranks='
    blocker=$(meso-launch -d -R cpus=2,mem=32M -- sleep 60)
    for role in a-first b-second; do
        meso-launch -q --role $role -n 3 -R cpus=2,mem=32M -c "echo $role; sleep 0.2" >>"$work/order" &
    done
    for _ in {1..100}; do [ "$(meso-ps frameworks -o tsv=role | grep -c -e -first -e -second)" -lt 2 ] || break; sleep 0.1; done
    meso-kill -q "$blocker"
    wait
    meso-events --kind cluster | jq -r "select(.kind | IN(\"allocator_failed\", \"grant_refused\")) | .message" >&2'
meso-up -q --agents 1 -R cpus=2,mem=512M,disk=1G --allocate "exec jq -c --unbuffered -f '$here/allocator.jq'" -- bash -c "$ranks"

uniq -c "$work/order"
[ "$(uniq -c "$work/order" | awk '{print $1, $2}')" = $'3 a-first\n3 b-second' ]
