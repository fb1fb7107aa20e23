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

# Runs an example and prints the verdict: verdict WHO NAME COMMAND...
verdict() {
    local who=$1 name=$2
    shift 2
    if timeout -k 10 "$LIMIT_S" "$@" </dev/null >"$work/output" 2>&1; then
        echo "example $name ($who) ... ok"
    else
        echo "example $name ($who) ... FAILED with code $?"
        sed 's/^/    /' "$work/output"
        failed=1
    fi
}

names=("$@")
[ "$#" -gt 0 ] || for run in examples/*/run.sh; do
    name=${run#examples/}
    names+=("${name%/run.sh}")
done
for name in "${names[@]}"; do
    # shellcheck disable=SC2046 # arguments are words
    verdict "$(id -un)" "$name" "$BIN/meso-up" -- "examples/$name/run.sh" $(arguments "$name")
done

# The checkout may stand where others cannot look.
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    chmod 755 "$work"
    mkdir -m 755 "$work/bin"
    mkdir -m 700 "$work/home"
    cp "$BIN"/meso "$BIN"/meso-* "$work/bin/" 2>/dev/null || true
    cp -r examples "$work/examples"
    chown -R $NOBODY:$NOBODY "$work/home"
    for name in "${names[@]}"; do
        # shellcheck disable=SC2046
        verdict unprivileged "$name" setpriv --reuid $NOBODY --regid $NOBODY --clear-groups \
            env HOME="$work/home" TMPDIR="$work/home" "$work/bin/meso-up" -- "$work/examples/$name/run.sh" $(arguments "$name")
    done
fi
exit "$failed"
