#!/bin/bash
# Runs a command as root in a User-Mode Linux kernel whose only cgroups are version 2
#
#     tests/uml/umlrun.sh COMMAND [ARG...]
#
# As cargo's runner it takes whole test programs there:
#
#     CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=$PWD/tests/uml/umlrun.sh cargo test --release -p meso-cage --test containers
#
# Wants the package user-mode-linux. The command sees this machine's files, read-only, under a fresh /run with
# TMPDIR in it, and a fresh /dev/shm; its output and exit status come back. 125 means that the kernel itself did not come to an end.
# UML_MEMORY (1G) and UML_SECONDS (300) bound it.
set -u

kernel=${UML:-$(command -v linux.uml)} || { echo "umlrun: no linux.uml; try: apt-get install user-mode-linux" >&2; exit 125; }
exchange=$(mktemp -d) || exit 125
trap 'rm -rf "$exchange"' EXIT

# The words of the command, quoted so that a shell reads them back unchanged.
printf '%q ' "$@" > "$exchange/command"

# The first process in there. It cannot write to the host's root, so results go through the exchange directory, which is
# mounted a second time, writable.
cat > "$exchange/init" <<INIT
#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_BACKTRACE=${RUST_BACKTRACE:-0}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir /run/tmp
export TMPDIR=/run/tmp
mkdir /run/exchange
mount -t hostfs -o $exchange none /run/exchange
ip link set lo up 2>/dev/null
cd $(printf '%q' "$PWD") || exit
bash /run/exchange/command > /run/exchange/stdout 2> /run/exchange/stderr < /dev/null
echo \$? > /run/exchange/status
sync
echo o > /proc/sysrq-trigger
sleep 10
INIT
chmod +x "$exchange/init"

timeout --kill-after=5 "${UML_SECONDS:-300}" "$kernel" mem="${UML_MEMORY:-1G}" rootfstype=hostfs rootflags=/ ro init="$exchange/init" \
    con=null con0=null,fd:2 quiet umid="meso$$" < /dev/null > "$exchange/console" 2>&1

cat "$exchange/stdout" 2>/dev/null
cat "$exchange/stderr" >&2 2>/dev/null
if [ -s "$exchange/status" ]; then
    exit "$(cat "$exchange/status")"
fi
echo "umlrun: the kernel ended without a result; its last words:" >&2
tail -n 20 "$exchange/console" >&2
exit 125
