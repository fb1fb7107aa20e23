#!/usr/bin/env bash
# Runs the nightly batch as cron would, on good days and on bad ones, and checks what it says
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/cron-batch.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
bin=$(dirname "$(command -v meso-launch)")

# As cron: hardly any environment, no terminal, no standard input. Sets `code`; what it says is in said.
as_cron() {
    code=0
    env -i PATH=/usr/bin:/bin MESO_BIN="$bin" MESO_NATS_URL="$MESO_NATS_URL" "$@" \
        "$here/nightly" "$work/data" "$work/out" <&- >"$work/said" 2>&1 || code=$?
}
expect() {
    if [ "$code" != "$1" ] || ! grep -Eq "$2" "$work/said"; then
        printf 'cron-batch: %s: the code was %s, and it said:\n' "$3" "$code" >&2
        cat "$work/said" >&2
        exit 1
    fi
    printf '%s: code %s, %d lines of mail\n' "$3" "$code" "$(wc -l <"$work/said")"
}

for shelf in fruit tools 'odd names'; do
    mkdir -p "$work/data/$shelf"
    seq 100 >"$work/data/$shelf/numbers of $shelf"
    date >"$work/data/$shelf/today"
done

as_cron
expect_silence() {
    [ ! -s "$work/said" ] || code="$code, not silent"
    [ "$code" = 0 ] || { printf 'cron-batch: a good day: code %s\n' "$code" >&2; cat "$work/said" >&2; exit 1; }
}
expect_silence
(cd "$work/data" && for shelf in fruit 'odd names' tools; do (cd "$shelf" && find . -type f -print0 | sort -z | xargs -0 sha256sum); done) |
    cmp - "$work/out/sums"
echo 'a good day: code 0, no mail, and the checksums of a run without a cluster'

# Which framework the tasks so far are of; it is there also while no run goes on.
framework() { meso-ps frameworks -o tsv=name,id,state | awk '$1 == "nightly" { print $2, $3 }'; }
first=$(framework)
[[ $first == fw_*' disconnected' ]] || { printf 'cron-batch: the framework is %s\n' "$first" >&2; exit 1; }

as_cron NIGHTLY_TIMEOUT=1ms
expect 124 'code 124' 'too slow'

# A folder that vanishes between the list and its task: cd fails there.
cp "$work/out/sums" "$work/before"
mkdir "$work/data/vanishing"
sed 's|cd {} |rmdir {} 2>/dev/null; cd {} |' "$here/nightly" >"$work/nightly"
chmod +x "$work/nightly"
code=0
env -i PATH=/usr/bin:/bin MESO_BIN="$bin" MESO_NATS_URL="$MESO_NATS_URL" "$work/nightly" "$work/data" "$work/out" <&- >"$work/said" 2>&1 || code=$?
expect 3 'code 3' 'a folder vanished'
cmp "$work/before" "$work/out/sums"
rmdir "$work/data/vanishing" 2>/dev/null || true

# Another run has the lock.
exec 8>"$work/out/lock"
flock 8
as_cron
expect 75 'still goes on' 'the last run still goes on'
exec 8>&-

as_cron
expect_silence
echo 'the next good day: code 0, no mail'

# Whatever holds the name elsewhere, from another machine say, is one run too many as well.
meso-launch -q --framework nightly -- sleep 600 &
holder=$!
for _ in {1..100}; do
    [[ $(framework) != *' connected' ]] || break
    sleep 0.1
done
as_cron
kill "$holder"
wait "$holder" || true
expect 75 'nightly is held by' 'the name is held elsewhere'

[ "$(framework)" = "$first" ] || { printf 'cron-batch: the framework was %s and is %s\n' "$first" "$(framework)" >&2; exit 1; }
meso-kill -q --framework nightly
[ -z "$(framework)" ]
echo 'all of it was one framework, which can be ended for good'
