#!/usr/bin/env bash
# Brings up a cluster of its own whose policy is a program in Python, and checks that it packs where the built-in one spreads
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
command -v python3 >/dev/null || { echo 'there is no python3 here'; exit 0; }

# How many agents six tasks of one cpu come to, when six agents have two cpus each.
# shellcheck disable=SC2016 # for the shell inside
count='
    meso-launch -q -n 6 -R cpus=1,mem=32M -c "echo \$MESO_AGENT; sleep 3" | sort -u | wc -l
    meso-events --kind cluster | jq -r "select(.kind | IN(\"allocator_failed\", \"grant_refused\")) | .message" >&2'

spread=$(meso-up -q --agents 6 -R cpus=2,mem=512M,disk=1G -- bash -c "$count")
packed=$(meso-up -q --agents 6 -R cpus=2,mem=512M,disk=1G --allocate "exec python3 '$here/allocator.py'" -- bash -c "$count")
echo "six tasks: on $spread agents by the built-in policy, on $packed by this one"
[ "$packed" = 3 ] && [ "$spread" -gt 3 ]
