#!/usr/bin/env bash
# Checks the configurations, and loses one of three servers while tasks run
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/nats-server.XXXXXX")
PATH="$PATH:/usr/sbin:/usr/local/sbin"
processes=()
finish() {
    # Agents first: they end their tasks, which needs no bus.
    for process in "${processes[@]}"; do kill "$process" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap finish EXIT
fail() {
    printf 'nats-server: %s\n' "$1" >&2
    tail -n 3 "$work"/*.log >&2
    exit 1
}
# Tries a command for a minute until it succeeds: soon WHAT COMMAND...
soon() {
    local what=$1
    shift
    for _ in {1..120}; do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.5
    done
    fail "$what"
}
# Prints what meso-doctor says of one check: its state, and what it saw.
doctor() { { meso-doctor --json || [ $? -le 2 ]; } | jq -r --arg check "$1" 'select(.check == $check) | "\(.state): \(.saw)"'; }
says() { doctor "$1" | grep -q "$2"; }

MESO_BUS_TOKEN=t$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export MESO_BUS_TOKEN
cp "$here"/*.conf "$work"
# Older servers cannot be told to sync.
case $(nats-server -v) in
*v2.[0-9].*) sed -i '/sync_interval/d' "$work"/*.conf ;;
esac
for file in one three-1 three-2 three-3; do
    nats-server -t -c "$work/$file.conf" 2>"$work/$file.log" || fail "$file.conf is not understood"
done
echo 'all files are understood'

# Three machines on this one: other ports, and a folder for each.
ports=()
while [ "${#ports[@]}" -lt 6 ]; do
    port=$((20000 + RANDOM % 12000))
    if [[ " ${ports[*]} " != *" $port "* ]] && ! (: </dev/tcp/127.0.0.1/$port) 2>/dev/null; then ports+=("$port"); fi
done
url=
for i in 1 2 3; do
    mkdir "$work/bus-$i"
    cp "$work"/*.conf "$work/bus-$i"
    sed -i -e "s|0.0.0.0:4222|127.0.0.1:${ports[i - 1]}|; s|0.0.0.0:6222|127.0.0.1:${ports[i + 2]}|" \
        -e "s|bus-1:6222|127.0.0.1:${ports[3]}|; s|bus-2:6222|127.0.0.1:${ports[4]}|; s|bus-3:6222|127.0.0.1:${ports[5]}|" \
        -e "s|/var/lib/meso/bus|$work/bus-$i/store|" "$work/bus-$i/three.conf"
    nats-server -c "$work/bus-$i/three-$i.conf" 2>"$work/bus-$i.log" &
    server=$!
    url="$url${url:+,}nats://$MESO_BUS_TOKEN@127.0.0.1:${ports[i - 1]}"
done
# The last is lost below; the others are ended last.
servers=$(jobs -p)
export MESO_NATS_URL=$url

meso-master --replicas 3 2>"$work/master.log" &
master=$!
meso-agent --work-dir "$work/agent" --host worker -R cpus=1,mem=256M --kill-tasks-on-exit 2>"$work/agent.log" &
# shellcheck disable=SC2206 # one word for each
processes=($! $master $servers)

soon 'no agent came' says agents '1 of 1'
soon 'not all copies are there' says stores 'ok: .* 3 copies'
doctor stores
meso-launch -R cpus=1 -- echo 'three servers carry it'

kill -9 "$server"
soon 'a missing copy is not noticed' says stores 'missing or behind'
doctor stores
soon 'nobody leads' says leader 'ok:'
meso-launch -R cpus=1 -- echo 'two servers carry it'
echo 'one of three was lost, and nothing else'
