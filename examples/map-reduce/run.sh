#!/usr/bin/env bash
# Counts words and builds an inverted index on a cluster, and checks both against the same programs run here
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-/usr/share/doc}
files_max=${2:-1000000}
readonly PARTS=4

fail() {
    printf 'map-reduce: %s\n' "$1" >&2
    exit 1
}
seconds() { printf '%d.%d s' $((($2 - $1) / 1000)) $((($2 - $1) % 1000 / 100)); }
now_ms() { date +%s%3N; }

[ -d "$folder" ] || fail "$folder is no folder"
work=$(mktemp -d "${TMPDIR:-/tmp}/map-reduce.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/part" "$work/local"

# A tab or newline in a name would be a column or a line of its own.
find "$(realpath "$folder")" -type f -readable ! -name $'*[\t\n]*' ! -path $'*[\t\n]*' -print0 |
    sort -z >"$work/all"
head -z -n "$files_max" "$work/all" >"$work/files"
files=$(tr -cd '\0' <"$work/files" | wc -c)
[ "$files" -gt 0 ] || fail "there is nothing to read in $folder"
printf 'map: %d files, a task for each\n' "$files"

began=$(now_ms)
meso-launch --each0 "$work/files" --cpus 0.1 --mem 32M -- "$here/map" '{}' >"$work/mapped"
mapped=$(now_ms)
printf '     %d words of files in %s\n' "$(wc -l <"$work/mapped")" "$(seconds "$began" "$mapped")"

# All lines of a word are in one part, whichever; two letters deal them evenly enough.
awk -F'\t' -v parts=$PARTS -v out="$work/part/" '
    { key = substr($1, 1, 2)
      if (!(key in part)) part[key] = (index("abcdefghijklmnopqrstuvwxyz", substr(key, 1, 1)) * 26 \
          + index("abcdefghijklmnopqrstuvwxyz", substr(key, 2, 1))) % parts
      print > (out part[key]) }' "$work/mapped"

printf 'reduce: %d parts, two tasks for each\n' "$PARTS"
reduces=()
for part in "$work"/part/?; do
    for what in count index; do
        meso-launch -i --cpus 0.5 --mem 512M -- "$here/reduce-$what" <"$part" >"$part.$what" &
        reduces+=($!)
    done
done
for reduce in "${reduces[@]}"; do
    wait "$reduce" || fail "a reducing task failed with code $?"
done
sort -m "$work"/part/?.count >"$work/count"
sort -m "$work"/part/?.index >"$work/index"
reduced=$(now_ms)
printf '        %d different words in %s\n' "$(wc -l <"$work/count")" "$(seconds "$mapped" "$reduced")"

# The same programs, without a cluster.
export local_parts=$work/local/part
mkdir "$local_parts"
# shellcheck disable=SC2016 # the inner shell expands them
xargs -0 -n 16 -P "$(nproc)" sh -c 'for file; do "$0" "$file" || exit; done >>"$local_parts/$$"' "$here/map" <"$work/files"
cat "$local_parts"/* >"$work/local/mapped"
"$here/reduce-count" <"$work/local/mapped" >"$work/local/count"
"$here/reduce-index" <"$work/local/mapped" >"$work/local/index"
for what in count index; do
    cmp -s "$work/$what" "$work/local/$what" || fail "the $what differs from that of xargs: $(diff "$work/$what" "$work/local/$what" | head -n 3)"
done
printf 'equal to what xargs makes of it here in %s\n\n' "$(seconds "$reduced" "$(now_ms)")"

if [ -n "${MAP_REDUCE_OUT:-}" ]; then
    mkdir -p "$MAP_REDUCE_OUT"
    cp "$work/count" "$work/index" "$MAP_REDUCE_OUT"
fi
printf 'the ten words that are there most often:\n'
sort -t$'\t' -k2,2nr -k1,1 "$work/count" | awk -F'\t' 'NR <= 10 { printf "%10d  %s\n", $2, $1 }'
printf '\nwhere some words are, most often first:\n'
sort -t$'\t' -k2,2nr -k1,1 "$work/index" | awk -F'\t' 'NR % 1000 == 500 && shown++ < 5 { split($3, file, " "); printf "  %-14s in %4d files, first %s\n", $1, $2, file[1] }'
