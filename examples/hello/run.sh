#!/bin/sh
# Says hello from tasks, and checks what comes back
set -eu

# Shows a command line, runs it, and checks its output and exit code: expect CODE OUTPUT COMMAND...
expect() {
    code=$1 output=$2
    shift 2
    printf '$ %s\n' "$*"
    got=0
    said=$(sh -c "$*") || got=$?
    [ -z "$said" ] || printf '%s\n' "$said"
    if [ "$said" != "$output" ] || [ "$got" -ne "$code" ]; then
        printf 'hello: expected %s and code %s; the code was %s\n' "$output" "$code" "$got" >&2
        exit 1
    fi
}

expect 0 'hello from a task' \
    "meso-launch -- echo 'hello from a task'"

# The exit code of a task is the exit code here.
expect 3 '' \
    "meso-launch -c 'exit 3'"

# A task sees what it was given.
expect 0 '0.5 cpus and 64 MiB' \
    "meso-launch -R cpus=0.5,mem=64M -c 'echo \$MESO_CPUS cpus and \$MESO_MEM MiB'"

# A task for each line, results in the order of the lines.
expect 0 "$(printf 'one 1\ntwo 2\nthree 3')" \
    "printf 'one\ntwo\nthree\n' | meso-launch -k --each - -- echo {} {#}"

# Data in, data out: a task is a filter.
expect 0 'HELLO' \
    "echo hello | meso-launch -i -- tr a-z A-Z"

# All of it was done by now: nothing runs any more.
expect 0 '' \
    "meso-ps tasks -o name"
