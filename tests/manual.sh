#!/usr/bin/env bash
# Checks every man page with mandoc, and runs the examples that stand in it
#
#   tests/manual.sh [PAGE...]        prints a line `page NAME ... ok` and `example N of NAME ... ok`, or `FAILED`
#
# An example is what stands between .nf and .fi in the section EXAMPLES; it runs in a folder of its own, on a cluster that
# all examples of the page share. One that cannot be run here has the comment  .\" not run: why  before its .nf.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)
readonly bin
readonly PAGE_LIMIT_S=300

work=$(mktemp -d "${TMPDIR:-/tmp}/meso-manual.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/pages" "$work/examples"
failed=0

verdict() {
    if [ -s "$2" ]; then
        echo "$1 ... FAILED"
        sed 's/^/    /' "$2"
        failed=1
    else
        echo "$1 ... ok"
    fi
}

# Writes each example of a page to a file of its own, as a shell reads it.
extract() {
    awk -v out="$2" '
        /^\.SH / { inside = ($0 == ".SH EXAMPLES") ; skip = 0 }
        /^\.\\" not run:/ { skip = 1 }
        inside && /^\.nf/ { reading = !skip; skip = 0; if (reading) file = sprintf("%s/%02d", out, ++number); next }
        /^\.fi/ { if (reading) close(file); reading = 0; next }
        reading { print > file }' "$1"
    for example in "$2"/*; do
        [ -e "$example" ] || continue
        sed -i -e 's/\\-/-/g' -e "s/\\\\(aq/'/g" -e 's/\\(dq/"/g' -e 's/\\(ti/~/g' -e 's/\\(ha/^/g' -e 's/\\&//g' -e 's/\\f[BIRP]//g' -e 's/\\e/\\/g' "$example"
    done
}

for tool in "$bin"/meso "$bin"/meso-*; do
    name=${tool##*/}
    case $name in
    *.d | meso-supervisor | meso-sim) continue ;;
    esac
    [ ! -f "$tool" ] || "$tool" --generate man >"$work/pages/$name.1"
done
cp man/*.[57] "$work/pages/" 2>/dev/null || true

for page in "$work"/pages/*; do
    name=${page##*/}
    [ "$#" -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    mandoc -Tlint -Wstyle "$page" >"$work/lint" 2>&1 || true
    sed -i "s|$work/pages/||" "$work/lint"
    verdict "page $name" "$work/lint"

    mkdir "$work/examples/$name"
    extract "$page" "$work/examples/$name"
    [ -n "$(ls "$work/examples/$name")" ] || continue
    # One cluster for the page; each example says on descriptor 3 how it went.
    cat >"$work/all" <<'ALL'
cd "$1"
for example in ??; do
    mkdir "$example.folder"
    if (cd "$example.folder" && exec timeout -k 5 60 bash -euo pipefail "../$example") </dev/null >"$example.output" 2>&1 3>&-; then
        : >"$example.failed"
    else
        { echo "code $?"; cat "$example"; echo --; cat "$example.output"; } >"$example.failed"
    fi
done
ALL
    HOME="$work" timeout -k 10 "$PAGE_LIMIT_S" "$bin/meso-up" -q -- bash "$work/all" "$work/examples/$name" </dev/null >"$work/up" 2>&1 || true
    for example in "$work/examples/$name"/??; do
        [ -e "$example.failed" ] || { echo 'it was not run:'; cat "$work/up"; } >"$example.failed"
        verdict "example ${example##*/} of $name" "$example.failed"
    done
done
exit "$failed"
