# Read by each task of a chaos run: what it did, told apart from meso, one line in one write
#
# CHAOS_DIR and CHAOS_OP are in its environment. Lines of all tasks of a host are in one file outside every sandbox; t is
# seconds since the machine started, the clock of the whole history.

say() {
    read -r CHAOS_T CHAOS_REST </proc/uptime
    printf '{"ev":"%s","op":"%s","index":%d,"attempt":%d,"task":"%s","box":"%s","host":"%s","cpus":%s,"mem":%s,"pid":%d,"t":%s%s}\n' \
        "$1" "$CHAOS_OP" "$MESO_INDEX" "$MESO_ATTEMPT" "$MESO_TASK_ID" "${MESO_SANDBOX##*/}" "$MESO_HOST" "$MESO_CPUS" "$MESO_MEM" $$ "$CHAOS_T" "$2" \
        >>"$CHAOS_DIR/witness/$MESO_HOST.jsonl"
}

begin() { say start; }

# Says that the end is near, and with which code: finish CODE
finish() {
    say end ",\"code\":$1"
    exit "$1"
}

# Writes so many numbered lines: lines COUNT
lines() {
    CHAOS_LINE=0
    while [ "$CHAOS_LINE" -lt "$1" ]; do
        CHAOS_LINE=$((CHAOS_LINE + 1))
        echo "$CHAOS_OP $MESO_INDEX $MESO_ATTEMPT $CHAOS_LINE of $1"
    done
}

# Lives so many fifths of a second, and says so each time: live COUNT
live() {
    CHAOS_LEFT=$1
    while [ "$CHAOS_LEFT" -gt 0 ]; do
        CHAOS_LEFT=$((CHAOS_LEFT - 1))
        sleep 0.2
        say tick
    done
}
