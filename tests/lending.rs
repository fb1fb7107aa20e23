//! Tasks that may be ended at once, on real clusters: they have what others hold and leave idle, until it is wanted
mod script;

use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// What every script may use.
const PRELUDE: &str = r#"
launch() { timeout 30 meso-launch -d "$@"; }
lends() { [ "$(meso-ps agents -o jsonl | jq -r ".lent.cpus $1")" = true ]; }
task() { meso-ps -a -o jsonl | jq -r "select(.name == \"$1\") | \"\(.state) \(.reason)\""; }
runs() { [ "$(task "$1")" = 'running null' ]; }
ended() { [ "$(meso-ps -a -o jsonl | jq -r "select(.name == \"$1\") | .final")" = true ]; }
"#;

/// Whether tasks can be measured here: only those in cgroups can.
fn is_possible() -> bool {
    // Our own files in /proc are of the user that we act as.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let possible = is_root && std::path::Path::new("/sys/fs/cgroup").exists() && std::env::var("MESO_TEST_CGROUPS").as_deref() != Ok("off");
    if !possible {
        eprintln!("left out: this machine or user cannot have tasks in cgroups");
    }
    possible
}

/// Shows that what a task holds and leaves idle is lent to those who may be ended, and to nobody else; that the loan outlives
/// the agent; and that it is over as soon as the owner works, which is not disturbed.
#[test]
fn the_idle_is_lent() {
    if !is_possible() {
        return;
    }
    script::on_a_cluster(
        &["--agents", "1", "-R", "cpus=2,mem=2G,disk=1G", "--oversubscribe=2s"],
        PRELUDE,
        r#"
launch --name owner -R cpus=2,mem=512M -c "until [ -e $PWD/go ]; do sleep 0.5; done; while :; do :; done & while :; do :; done" > /dev/null
soon lends '>= 1.5'
check 'most of it is lent' true "$(meso-ps agents -o jsonl | jq '.lent.cpus >= 1.5 and .lent.mem >= 256 and .lent.cpus < 2 and .lent.mem < 512 and .free.cpus == 0')"
check 'seen in the wide table' 'LENT FREE LENT FREE' "$(meso-ps agents -o wide | head -n 1 | grep -oE 'LENT +FREE +LENT +FREE' | tr -s ' ')"
check 'borrowed' borrowed "$(timeout 60 meso-launch --revocable -R cpus=1,mem=64M -c 'echo borrowed')"
timeout 60 meso-launch --start-deadline 1s -R cpus=1,mem=64M -- true 2> said; check 'to nobody else' 75 $?
check 'no ports are lent' 75 "$(timeout 60 meso-launch --revocable --start-deadline 1s -R cpus=1,mem=64M --ports 1 -- true 2> /dev/null; echo $?)"
launch --revocable --name borrower -R cpus=1.5,mem=64M -- sleep 1000 > /dev/null; soon runs borrower
check 'what it holds is not lent twice' true "$(meso-ps agents -o jsonl | jq '.lent_free.cpus < .lent.cpus - 1.4 and .tasks == 2')"
agent=$(for pid in $(cat /proc/$PPID/task/*/children); do [ "$(cat /proc/$pid/comm)" = meso-agent ] && echo "$pid"; done)
kill -KILL "$agent"
is_back() { [ "$(meso-ps agents -o tsv=state)" = active ] && lends '>= 1.5'; }
sleep 1; soon is_back
check 'a loan outlives the agent' 'running null' "$(task borrower)"
touch go
soon ended borrower
check 'taken back' 'killed revoked' "$(task borrower)"
check 'the owner works on' 'running null' "$(task owner)"
check 'less is idle now' true "$(meso-ps agents -o jsonl | jq '.lent.cpus < 1.5')"
"#,
    );
}

/// Shows that a task which may be ended goes at once when another needs its room, and runs again where it may.
#[test]
fn the_revocable_make_room() {
    script::on_a_cluster(
        &["--agents", "1", "-R", "cpus=2,mem=1G,disk=1G"],
        PRELUDE,
        r#"
timeout 60 meso-launch --revocable --name guest -R cpus=2,mem=64M -c "echo \$MESO_ATTEMPT >> $PWD/tries; [ \$MESO_ATTEMPT = 2 ] || sleep 1000" & guest=$!
soon test -s tries
timeout 60 meso-launch --name host -R cpus=1,mem=64M -- true; check 'there is room' 0 $?
wait "$guest"; check 'it ran again' 0 $?
check 'twice in all' '1 2' "$(xargs < tries)"
check 'why it went' 'killed revoked' "$(task guest | sort -u | grep revoked)"
launch --revocable --name alone -R cpus=2,mem=64M -- sleep 1000 > /dev/null; soon runs alone
timeout 60 meso-launch --revocable --start-deadline 1s -R cpus=1,mem=64M -- true 2> /dev/null; check 'not for its like' 75 $?
check 'it was left alone' 'running null' "$(task alone)"
timeout 60 meso-launch -R cpus=1,mem=64M -- true; check 'room again' 0 $?
check 'gone without a second try' 'killed revoked' "$(task alone)"
"#,
    );
}

/// Shows that an agent which cannot measure its tasks refuses to lend, and says why and what to do.
#[test]
fn not_without_cgroups() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut agent = Command::new(env!("CARGO_BIN_EXE_meso-agent"));
    let output = agent.args(["--cgroups", "off", "--oversubscribe", "--work-dir"]).arg(place.path()).output().expect("it was built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("cannot lend what tasks do not use") && said.contains("  try: start meso-agent as root"), "{said}");
    for bad in ["0s", "900ms", "soon"] {
        let output = Command::new(env!("CARGO_BIN_EXE_meso-agent")).arg(format!("--oversubscribe={bad}")).output().expect("it was built");
        assert_eq!(output.status.code(), Some(2), "{bad}");
    }
}
