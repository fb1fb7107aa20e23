#!/usr/bin/env bash
# Checks every man page and completion, and runs the examples that stand in the pages and in README.md
#
#   tests/manual.sh [PAGE...]     prints lines `page NAME ... ok` and `page NAME example N ... ok`, or `... FAILED` and why
#
# An example is what stands between .nf and .fi in the section EXAMPLES. Each runs in bash in a folder of its own, on a
# cluster that all examples of the page share; what is left running after one is killed. Comments above it say more:
#
#   .\" before: LINE    runs first, and is not shown
#   .\" after: LINE     runs last, and is not shown
#   .\" says: PATTERN   the output has a line that matches, as for grep -E; may stand several times
#   .\" code: N         its exit code, if not 0
#   .\" not run: WHY    it cannot be run here
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)
readonly bin
readonly PAGE_LIMIT_S=300 EXAMPLE_LIMIT_S=60 EXAMPLES_MIN=5

work=$(mktemp -d "${TMPDIR:-/tmp}/meso-manual.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/pages" "$work/examples"
failed=0

# Says how a check went, by the file that holds what is wrong: verdict WHAT FILE
verdict() {
    if [ -s "$2" ]; then
        echo "$1 ... FAILED"
        sed 's/^/    /' "$2"
        failed=1
    else
        echo "$1 ... ok"
    fi
}

wanted() { [ "${#only[@]}" -eq 0 ] || [[ " ${only[*]} " == *" $1 "* ]]; }
only=("$@")

# Writes each example of a page to files of its own: NN as a shell reads it, NN.says, NN.code.
extract() {
    awk -v out="$2" '
        function plain(text) {
            gsub(/\\f[BIRP]/, "", text); gsub(/\\&/, "", text); gsub(/\\-/, "-", text); gsub(/\\\(aq/, "\047", text)
            gsub(/\\\(dq/, "\"", text); gsub(/\\\(ti/, "~", text); gsub(/\\\(ha/, "^", text); gsub(/\\\(ga/, "`", text)
            gsub(/\\e/, "\\", text)
            return text
        }
        function after_colon(text) { sub(/^[^:]*: ?/, "", text); return text }
        /^\.SH / { inside = ($0 == ".SH EXAMPLES"); skip = 0; before = after = says = code = "" }
        !inside { next }
        /^\.\\" not run:/ { skip = 1 }
        /^\.\\" before:/ { before = before after_colon($0) "\n" }
        /^\.\\" after:/ { after = after after_colon($0) "\n" }
        /^\.\\" says:/ { says = says after_colon($0) "\n" }
        /^\.\\" code:/ { code = after_colon($0) }
        /^\.nf/ {
            reading = !skip
            if (reading) {
                file = sprintf("%s/%02d", out, ++number)
                printf "%s", before > file
            }
            next
        }
        /^\.fi/ {
            if (reading) {
                printf "%s", after > file
                printf "%s", says > (file ".says")
                print (code == "" ? 0 : code) > (file ".code")
                close(file); close(file ".says"); close(file ".code")
            }
            reading = skip = 0; before = after = says = code = ""
            next
        }
        reading { print plain($0) > file }' "$1"
}

# Runs on the page's cluster; what is wrong with example NN goes to NN.failed.
cat >"$work/run-all" <<'ALL'
cd "$1"
for example in ??; do
    mkdir "$example.folder"
    code=0
    (cd "$example.folder" && exec timeout -k 5 "$2" bash -euo pipefail "../$example") </dev/null >"$example.output" 2>&1 || code=$?
    {
        [ "$code" = "$(cat "$example.code")" ] || echo "exit code $code, not $(cat "$example.code")"
        while read -r pattern; do
            grep -Eq -e "$pattern" "$example.output" || echo "no line of its output matches: $pattern"
        done <"$example.says"
    } >"$example.failed"
    [ ! -s "$example.failed" ] || { cat "$example" && echo '-- its output:' && head -n 40 "$example.output"; } >>"$example.failed"
    # What an agent that is gone by now was running cannot be waited for.
    meso-ps -q | timeout 30 meso-kill -q --grace 100ms -w - >/dev/null 2>&1 || true
done
ALL

tools=()
for tool in "$bin"/meso "$bin"/meso-*; do
    case ${tool##*/} in
    *.d | meso-supervisor | meso-sim) ;;
    *) tools+=("${tool##*/}") ;;
    esac
done
for tool in "${tools[@]}"; do
    "$bin/$tool" --generate man >"$work/pages/$tool.1"
done
cp man/*.[578] "$work/pages/"

for page in "$work"/pages/*; do
    name=${page##*/}
    wanted "$name" || continue
    {
        mandoc -Tlint -Wstyle "$page" | sed "s|$work/pages/||" || true
        # A page that is referred to is there.
        grep -Eo '^\.BR meso[a-z\\-]* \([0-9]\)' "$page" | tr -d '\\()' | while read -r _ other section; do
            [ -e "$work/pages/$other.$section" ] || echo "there is no page $other($section)"
        done
        # Every tool's page has what a reader looks for.
        if [[ $name == *.1 ]]; then
            for section in NAME SYNOPSIS DESCRIPTION OPTIONS 'EXIT STATUS' ENVIRONMENT FILES EXAMPLES 'SEE ALSO'; do
                grep -qx "\.SH $section" "$page" || echo "the section $section is missing"
            done
        fi
    } >"$work/wrong" 2>&1

    mkdir "$work/examples/$name"
    extract "$page" "$work/examples/$name"
    examples=$(find "$work/examples/$name" -name '*.code' | wc -l)
    [[ $name != *.1 ]] || [ "$examples" -ge "$EXAMPLES_MIN" ] || echo "only $examples examples, not $EXAMPLES_MIN" >>"$work/wrong"
    verdict "page $name" "$work/wrong"
    [ "$examples" -gt 0 ] || continue
    HOME="$work" timeout -k 10 "$PAGE_LIMIT_S" "$bin/meso-up" -q -- bash "$work/run-all" "$work/examples/$name" "$EXAMPLE_LIMIT_S" </dev/null >"$work/up" 2>&1 || true
    for example in "$work/examples/$name"/??; do
        number=${example##*/}
        [ -e "$example.failed" ] || { echo 'it was not run:' && cat "$work/up"; } >"$example.failed"
        verdict "page $name example ${number#0}" "$example.failed"
    done
done

# Completions can be read by their shells, as far as those are here.
for shell in bash zsh fish; do
    wanted "$shell" && command -v "$shell" >/dev/null || continue
    for tool in "${tools[@]}"; do
        "$bin/$tool" --generate "$shell" >"$work/completion"
        "$shell" -n "$work/completion" >"$work/wrong" 2>&1 || echo "$shell -n says code $?" >>"$work/wrong"
        verdict "page $tool completion for $shell" "$work/wrong"
    done
done

if wanted README; then
    PATH="$bin:$PATH" timeout -k 10 "$PAGE_LIMIT_S" python3 tests/readme.py || failed=1
fi
exit "$failed"
