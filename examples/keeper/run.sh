#!/usr/bin/env bash
# Keeps three services alive while one of them, and then the keeper itself, is killed
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/keeper.XXXXXX")
keepers=()
finish() {
    meso-kill -q --framework web >/dev/null 2>&1 || true
    for keeper in "${keepers[@]}"; do kill -9 -- "-$keeper" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT
fail() {
    printf 'keeper: %s\n' "$1" >&2
    tail -n 20 "$work"/*.log >&2
    meso-ps >&2
    exit 1
}

# What runs: a line with name and id for each service.
running() { meso-ps --state running -o tsv=name,id | sort; }
# Waits until three services run that are not as before: wait_for_change BEFORE
wait_for_change() {
    for _ in {1..300}; do
        now=$(running)
        [ "$(wc -l <<<"$now")" -ne 3 ] || [ "$now" = "$1" ] || return 0
        sleep 0.1
    done
    fail "it is not so after 30 seconds: $2"
}
# One more keeper, in a process group of its own.
start() {
    setsid "$here/keeper" web 3 "echo \$MESO_TASK_NAME \$MESO_TASK_ID >>$work/starts; exec sleep 600" \
        >"$work/$1.log" 2>&1 </dev/null &
    keepers+=($!)
    # The shell has nothing to say about how it ends.
    disown
}
holder() { meso-ps frameworks -o tsv=name,who,state | awk '$1 == "web" && $3 == "connected" { print $2 }'; }

start first
wait_for_change '' 'three services run'
printf 'three services:\n%s\n' "$now"
first=$(holder)
start second

before=$now
meso-kill -q web-2 >/dev/null
wait_for_change "$before" 'another web-2 runs'
[ "$(diff <(echo "$before") <(echo "$now") | grep -c '^[<>] web-2')" -eq 2 ] || fail 'others than web-2 changed'
echo 'web-2 was killed and replaced, the others run on'

before=$now
kill -9 -- "-${keepers[0]}"
for _ in {1..400}; do
    who=$(holder)
    [ -z "$who" ] || [ "$who" = "$first" ] || break
    sleep 0.1
done
[ "$who" != "$first" ] || fail 'the second keeper did not take over'
# Time to do something wrong.
sleep 3
[ "$(running)" = "$before" ] || fail 'the services changed with the keeper'
[ "$(wc -l <"$work/starts")" -eq 4 ] || fail 'a service was started more often'
echo 'the keeper was killed, the second took over: no service restarted, none doubled'

meso-kill -q web-1 >/dev/null
wait_for_change "$before" 'another web-1 runs'
[ "$(wc -l <"$work/starts")" -eq 5 ] || fail 'a service was started more often'
echo 'web-1 was killed and replaced by the second'

meso-kill -q --framework web >/dev/null
for _ in {1..100}; do
    [ -n "$(meso-ps -q)$(meso-ps frameworks -q)" ] || break
    sleep 0.1
done
[ -z "$(meso-ps -q)" ] || fail 'services outlive their framework'
echo 'the framework was torn down, nothing runs'
