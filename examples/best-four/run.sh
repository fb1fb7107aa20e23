#!/usr/bin/env bash
# Runs a task on each of the four agents with most memory free, of six
set -euo pipefail
readonly BUSY=(local-2 local-5)

fail() {
    printf 'best-four: %s\n' "$1" >&2
    exit 1
}
fillers=()
finish() { [ "${#fillers[@]}" -eq 0 ] || meso-kill -q --grace 100ms -w "${fillers[@]}" >/dev/null; }
trap finish EXIT

[ "$(meso-ps agents -q | wc -l)" -eq 6 ] || fail 'run me on six agents: meso-up --agents 6 -R cpus=2,mem=1G'
for host in "${BUSY[@]}"; do
    fillers+=("$(meso-launch -d --on "$host" -R cpus=0.1,mem=512M -- sleep 600)")
done

# shellcheck disable=SC2016 # the task expands them
best=$(meso-offer --once --min 6 | jq -sc 'sort_by(-.mem)[:4][]' |
    meso-launch -O -n 4 --per-offer 1 -R cpus=1,mem=64M -c 'echo rank $MESO_INDEX on $MESO_HOST' | sort)
printf '%s\n' "$best"

[ "$(awk '{ print $1, $2 }' <<<"$best" | tr '\n' ,)" = 'rank 1,rank 2,rank 3,rank 4,' ] || fail 'not four ranks'
[ "$(awk '{ print $4 }' <<<"$best" | sort -u | tr '\n' ,)" = local-1,local-3,local-4,local-6, ] || fail 'not the four with most memory'
echo 'the four that have most memory free, each once'
