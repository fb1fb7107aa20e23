#!/usr/bin/env bash
# Runs every example on a cluster of its own: as the user who calls, and, if that is root, as one who may nothing
#
#   tests/examples.sh [NAME...]      prints a line `example NAME (WHO) ... ok` or `FAILED` for each
set -euo pipefail
cd "$(dirname "$0")/.."
readonly BIN="${CARGO_TARGET_DIR:-target}/release"
readonly LIMIT_S=300
readonly NOBODY=65534

work=$(mktemp -d "${TMPDIR:-/tmp}/meso-examples.XXXXXX")
trap 'rm -rf "$work"' EXIT
failed=0

# An example may be long; the tests only want it whole. So many files are a minute's work on a small machine.
arguments() {
    case $1 in
    map-reduce) echo /usr/share/doc 300 ;;
    esac
}

# The cluster that an example says it wants in its README.md: options of meso-up.
cluster() {
    sed -n "s|^    meso-up \(.*\)-- examples/$1/run.sh.*|\1|p" "examples/$1/README.md"
}

# What is still there of an example that ran with the folder $1 for its temporary files: files, and processes, which have
# a second to end.
left_behind() {
    find "$1" -mindepth 1 | head -n 5
    for _ in {1..10}; do
        left=$(grep -lFzs "TMPDIR=$1" /proc/[0-9]*/environ || true)
        [ -n "$left" ] || return 0
        sleep 0.1
    done
    for process in $left; do
        printf 'process %s: %s\n' "$(basename "${process%/environ}")" "$(tr '\0' ' ' <"${process%environ}cmdline")"
    done 2>/dev/null
}

# Runs an example and prints the verdict: verdict WHO NAME COMMAND...
verdict() {
    local who=$1 name=$2 said='ok' code=0 left
    shift 2
    timeout -k 10 "$LIMIT_S" "$@" </dev/null >"$work/output" 2>&1 || code=$?
    left=$(left_behind "$TMPDIR")
    [ "$code" -eq 0 ] || said="FAILED with code $code"
    [ -z "$left" ] || said="FAILED: it left something behind"
    echo "example $name ($who) ... $said"
    if [ "$said" != ok ]; then
        sed 's/^/    /' "$work/output"
        [ -z "$left" ] || sed 's/^/    left: /' <<<"$left"
        failed=1
    fi
}

mkdir "$work/tmp"
export TMPDIR="$work/tmp"
names=("$@")
[ "$#" -gt 0 ] || for run in examples/*/run.sh; do
    name=${run#examples/}
    names+=("${name%/run.sh}")
done
for name in "${names[@]}"; do
    # shellcheck disable=SC2046 # arguments are words
    verdict "$(id -un)" "$name" "$BIN/meso-up" $(cluster "$name") -- "examples/$name/run.sh" $(arguments "$name")
done

# The checkout may stand where others cannot look.
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    chmod 755 "$work"
    mkdir -m 755 "$work/bin"
    mkdir -m 700 "$work/home"
    cp "$BIN"/meso "$BIN"/meso-* "$work/bin/" 2>/dev/null || true
    cp -r examples "$work/examples"
    chown -R $NOBODY:$NOBODY "$work/home" "$TMPDIR"
    for name in "${names[@]}"; do
        # shellcheck disable=SC2046
        verdict unprivileged "$name" setpriv --reuid $NOBODY --regid $NOBODY --clear-groups \
            env HOME="$work/home" "$work/bin/meso-up" $(cluster "$name") -- "$work/examples/$name/run.sh" $(arguments "$name")
    done
fi
exit "$failed"
