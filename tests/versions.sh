#!/usr/bin/env bash
# Runs clusters of two releases: this one, and the last that spoke the protocol before
#
#   tests/versions.sh           against the newest commit of the protocol before that builds
#   tests/versions.sh REV       against another one
#
# Builds the other release below target/versions, which takes some minutes the first time, and then has masters, agents and
# tools of the two meet in all pairs, and upgrades and downgrades masters and agents under running tasks (tests/versions/pairs).
set -euo pipefail
cd "$(dirname "$0")/.."

readonly WIRE=lib/core/src/wire/mod.rs
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
readonly target
readonly source="$target/versions/src" built="$target/versions/target"
# A commit need not build by itself: so many before the change of protocol are tried.
readonly TRIES_MAX=8

fail() {
    printf 'versions.sh: %s\n  try: %s\n' "$1" "$2" >&2
    exit 1
}

# The major that a commit, or the working tree, speaks.
major() {
    if [ $# -eq 0 ]; then cat "$WIRE"; else git show "$1:$WIRE"; fi | sed -n 's/^pub const PROTOCOL: u32 = \([0-9]*\);$/\1/p'
}

build() {
    if [ -d "$source" ]; then
        git -C "$source" checkout --quiet --force --detach "$1"
    else
        git worktree prune
        git worktree add --quiet --detach "$source" "$1"
    fi
    (cd "$source" && cargo build --release --quiet --bins --target-dir "$built")
}

now=$(major)
if [ $# -gt 0 ]; then
    rev=$(git rev-parse --verify --quiet "$1^{commit}") || fail "there is no commit $1 here" 'git fetch --unshallow, or another commit'
    build "$rev"
else
    changed=$(git log -1 --format=%H -S"PROTOCOL: u32 = $now;" -- "$WIRE")
    # Where the history is cut off, its first commit seems to have brought everything.
    rev=$(git rev-parse --verify --quiet "$changed^") || fail "the history here does not reach back to protocol $((now - 1))" 'git fetch --unshallow'
    for _ in $(seq "$TRIES_MAX"); do
        [ "$(major "$rev")" = $((now - 1)) ] || fail "none of the last commits of protocol $((now - 1)) builds" 'tests/versions.sh REV'
        echo "building $(git log -1 --format='%h of %as' "$rev")"
        if build "$rev" 2> "$target/versions/errors"; then break; fi
        echo "it does not build ($target/versions/errors); the one before it"
        rev=$(git rev-parse --verify --quiet "$rev^") || fail "the history here ends at a commit that does not build" 'git fetch --unshallow'
    done
fi
cargo build --release --quiet --bins
exec tests/versions/pairs "$built/release" "$(major "$rev")" "$target/release" "$now"
