//! Frameworks as shell pipelines, on a real cluster: what filters, readers and ends of all kinds do to the offers of others
//!
//! Each test is a script on a cluster of its own. A line `check NAME EXPECTED GOT` that differs fails the test and shows both.
mod script;

use std::process::{Command, Stdio};

/// What every script may use.
const PRELUDE: &str = r#"
none_held() { [ -z "$(meso-ps offers -q)" ]; }
some_held() { [ -n "$(meso-ps offers -q)" ]; }
some_framework() { [ -n "$(meso-ps frameworks -q)" ]; }
no_framework() { [ -z "$(meso-ps frameworks -q)" ]; }
clean() { soon none_held; soon no_framework; check "$1: nothing is held" '' "$(meso-ps offers -q)"; check "$1: no framework is left" '' "$(meso-ps frameworks -q)"; }
"#;

/// Runs a script on a cluster of its own, with agents of two processors.
fn on_a_cluster(agents: u32, script: &str) {
    script::on_a_cluster(&["--agents", &agents.to_string(), "-R", "cpus=2,mem=512M"], PRELUDE, script);
}

/// Shows that a pipeline ends with its task's own code, all stages at once, also under pipefail, and leaves nothing behind.
#[test]
fn a_pipeline_ends_with_its_work() {
    on_a_cluster(
        2,
        r#"
meso-offer | jq -c --unbuffered 'select(.cpus >= 1)' | meso-launch -O -R cpus=1,mem=64M -- sh -c 'echo hi; exit 3' > out
check 'codes of the stages' '0 0 3' "${PIPESTATUS[*]}"
check 'output' hi "$(cat out)"
clean 'a task'
( set -euo pipefail; meso-offer --where 'cpus >= 1' | meso-launch -O -R cpus=1,mem=64M -- true; echo went on ) > out
check 'under pipefail' 'went on' "$(cat out)"
meso-offer | head -n 1 | meso-launch -O -R cpus=1,mem=64M -- echo from head > out
check 'one line is enough' '0 0 0 from head' "${PIPESTATUS[*]} $(cat out)"
clean 'one line'
meso-offer --once --min 2 | jq -sc 'sort_by(.host)[]' | meso-launch -O -n 2 --per-offer 1 -R cpus=1,mem=64M -- sh -c 'echo $MESO_HOST' | sort > out
check 'a batch' "$(meso-ps agents -o tsv=host | sort)" "$(cat out)"
meso-offer --once --min 3 --wait 1s > out 2> said; check 'no batch' 75 $?
check 'no batch is said' 1 "$(grep -c '2 of 3 offers in 1s' said)"
check 'nothing of it is printed' '' "$(cat out)"
meso-offer --once > /dev/null; check 'a batch that nobody uses' 0 $?
clean 'batches'
"#,
    );
}

/// Shows that a second framework gets its work done beside every kind of filter that drops all that it reads, and beside one that passes it on too late.
#[test]
fn filters_starve_nobody() {
    on_a_cluster(
        2,
        r#"
loop() { while read -r line; do :; done; }
curls() { while read -r line; do sleep 3; done; }
beside() {
  meso-offer 2> /dev/null | "${@:2}" > /dev/null & soon some_held
  # All there is, twice: each part that the filter holds has to come back.
  timeout 15 meso-launch -n 4 -R cpus=2,mem=64M -- true; check "beside $1" 0 $?
  kill %meso-offer; wait
}
beside 'jq --unbuffered' jq -c --unbuffered 'select(.cpus > 99)'
beside 'jq' jq -c 'select(.cpus > 99)'
beside 'jq that passes all, in its own time' jq -c .
beside 'grep' grep nothing
beside 'grep --line-buffered' grep --line-buffered nothing
beside 'sed -u' sed -un /nothing/p
beside 'awk' awk '/nothing/'
beside 'python3' python3 -uc 'import sys; [0 for line in sys.stdin]'
beside 'a loop' loop
beside 'a loop that works on each line' curls
clean 'all filters'
"#,
    );
}

/// Shows that a loop that takes seconds for each line gets its work done.
#[test]
fn a_slow_loop() {
    on_a_cluster(
        3,
        r#"
slowly() { while read -r line; do sleep 3; printf '%s\n' "$line"; done; }
meso-offer | slowly | timeout 60 meso-launch -O -n 2 --per-offer 1 -R cpus=1,mem=64M -- echo done > out 2> said
check 'the slow loop' '0 0' "${PIPESTATUS[0]} ${PIPESTATUS[2]}"
check 'its work' 2 "$(grep -c done out)"
clean 'a slow loop'
"#,
    );
}

/// Shows that whatever becomes of a reader or of the head, its offers are back and its framework gone in the end, and nothing hangs.
#[test]
fn ends_of_all_kinds() {
    on_a_cluster(
        2,
        r#"
meso-offer | true; check 'a reader that reads nothing' '0 0' "${PIPESTATUS[*]}"
clean true
meso-offer | head -n 1 > /dev/null; check 'a reader of one line' '0 0' "${PIPESTATUS[*]}"
clean head
sleep 60 | cat > /dev/null & 
meso-offer > out & soon some_held; kill $!; wait $!; check 'TERM' 143 $?
clean TERM
meso-offer > out & soon some_held; kill -9 $!; wait $! 2> /dev/null
clean KILL
meso-offer > out & soon some_held; kill -STOP $!
clean STOP
head=$!; kill -CONT $head; soon some_held; check 'stopped and gone on: offers again' yes "$(some_held && echo yes)"
kill $head; wait $head; clean CONT
meso-offer 2> said | sleep 100 & soon some_held
soon none_held; check 'a reader that never reads holds nothing in the end' '' "$(meso-ps offers -q)"
sleep 1; check 'and is offered nothing more' '' "$(meso-ps offers -q)"
kill %meso-offer; clean 'never reads'
check 'no panic' '' "$(cat said)"
"#,
    );
}

/// Shows that a name is held by one, waited for by a standby that then finds its tasks, and lost to one who takes it.
#[test]
fn names() {
    on_a_cluster(
        2,
        r#"
meso-offer --framework keeper -e all > first & first=$!
soon grep -q synced first
meso-offer --framework keeper 2> said; check 'held' 75 $?
check 'who holds it is said' 1 "$(grep -c "keeper is held by .*:$first since" said)"
meso-offer --framework keeper --standby -e all > second 2> waiting & second=$!
soon grep -q 'waiting for it' waiting
check 'a standby prints nothing' '' "$(cat second)"
jq -c 'select(.meso == "offer/1") | . + {tasks: [{name: "web", cmd: "sleep 100", cpus: 0.5, mem: 32}]}' first | head -n 1 | timeout 5 meso-launch -d -O > launched
kill -9 $first; wait $first 2> /dev/null
soon grep -q synced second
check 'the standby has the name' true "$(jq -r 'select(.meso == "hello/1").recovered' second)"
meso-offer --framework keeper --takeover -e tasks > third & third=$!
wait $second; check 'fenced' 75 $?
soon grep -q synced third
check 'taken over' true "$(jq -r 'select(.meso == "hello/1").recovered' third)"
kill $third; wait $third
meso-kill --framework keeper > /dev/null
clean names
"#,
    );
}

/// Shows that statuses come to a program in order and once, that what was not acknowledged comes again, also to a later session, and no more once it is.
#[test]
fn statuses() {
    on_a_cluster(
        1,
        r#"
cat > program <<'END'
while read -r kind id state seq final ack; do
  case $kind,$final,${used-} in
    offer,*,) used=1; echo '{"meso":"offer/1","id":"'$id'","tasks":[{"name":"t","cmd":"exit 4","cpus":0.5,"mem":32}]}' ;;
    update,*) echo "$id $state $seq $final" >> heard; [ "$final" = false ] || exit 9 ;;
  esac
done
END
meso-offer --framework f -o tsv=kind,id,state,seq,final,ack --exec 'sh program'; check 'the code of a program' 9 $?
check 'in order' "$(sort -k 3 -n heard)" "$(cat heard)"
check 'once' "$(sort -u heard | wc -l)" "$(wc -l < heard)"
check 'to the end' failed "$(tail -n 1 heard | cut -d ' ' -f 2)"
sed -e 's/\[ "$final" = false \] || exit 9/exit/' program > other; rm heard
meso-offer --framework g --ack manual -o tsv=kind,id,state,seq,final,ack --exec 'sh other' > /dev/null; check 'without acknowledgement' 0 $?
first=$(head -n 1 heard); check 'only the first' 1 "$(wc -l < heard)"
meso-offer --framework g --ack manual -e updates > again & again=$!
soon grep -q update again
check 'it comes again to the next session' "$first" "$(head -n 1 again | jq -r '[.task, .state, .seq, .final] | map(tostring) | join(" ")')"
meso-offer ack "$(head -n 1 again | jq -r .ack)"; check 'ack' 0 $?
soon grep -q '"final":true' again
check 'then the next' true "$(tail -n 1 again | jq -r .final)"
meso-offer ack "$(tail -n 1 again | jq -r .ack)"; check 'ack of the last' 0 $?
sleep 2; kill $again; wait $again
timeout 3 meso-offer --framework g -e updates > nothing; check 'no more' '' "$(cat nothing)"
meso-offer --framework h --updates-fd 3 3> apart > offers & head=$!
soon grep -q offer/1 offers
meso-launch --offer "$(head -n 1 offers | jq -r .id)" -d -R cpus=0.5,mem=32M -- sh -c 'exit 4' > launched
soon grep -q '"final":true' apart
check 'statuses apart from offers' 'update/1' "$(jq -r .meso apart | sort -u)"
check 'and offers apart from statuses' 'offer/1' "$(jq -r .meso offers | sort -u)"
kill $head; wait $head
meso-offer --updates-fd 9 > /dev/null 2> said; check 'a descriptor that is not open' 2 $?
meso-offer ack u_f.t.1 2> said; check 'an ack of nothing' 1 $?
for name in f g h; do meso-kill --framework $name > /dev/null; done
clean statuses
"#,
    );
}

/// Shows the calls for shell loops: declining refuses for a time, suppressing stops offers, reviving brings them back.
#[test]
fn one_shots() {
    on_a_cluster(
        1,
        r#"
meso-offer --framework f --grace 1h -o tsv=id > ids & offer=$!
lines() { [ "$(wc -l < ids)" -ge "$1" ]; }
soon lines 1
meso-offer decline "$(tail -n 1 ids)" --refuse 1h; check decline 0 $?
sleep 1; check 'refused' 1 "$(wc -l < ids)"
meso-offer decline "$(tail -n 1 ids)" 2> said; check 'declined twice' 1 $?
check 'declined twice is said' 1 "$(grep -c 'was declined' said)"
meso-offer revive f; check revive 0 $?
soon lines 2; check 'offered again' 2 "$(wc -l < ids)"
meso-offer suppress f; check suppress 0 $?
meso-offer decline "$(tail -n 1 ids)" --refuse 0
sleep 1; check 'suppressed' 2 "$(wc -l < ids)"
meso-offer revive f
soon lines 3; check 'wanted again' 3 "$(wc -l < ids)"
meso-offer suppress nobody 2> said; check 'a stranger' 1 $?
meso-offer decline 'a b' 2> said; check 'no id' 2 $?
kill $offer; wait $offer
meso-kill --framework f > /dev/null
clean one-shots
"#,
    );
}

/// Shows that an expression chooses among the lines at once, and that one which is wrong is said.
#[test]
fn an_expression_chooses() {
    on_a_cluster(
        2,
        r#"
host=$(meso-ps agents -o tsv=host | sort | tail -n 1)
meso-offer --jq "select(.host == \"$host\")" | meso-launch -O -R cpus=1,mem=64M -c 'echo $MESO_HOST' > out
check 'codes' '0 0' "${PIPESTATUS[*]}"
check 'the one that was chosen' "$host" "$(cat out)"
clean 'an expression'
# What it drops is free at once, and not only when it expires, after 30 s.
meso-offer --grace 10m --jq empty > /dev/null & soon some_framework
timeout 20 meso-launch -n 4 -R cpus=2,mem=64M -- true; check 'beside one that wants nothing' 0 $?
kill %1; wait
meso-offer --jq '.host, .agent' | head -n 2 > out
check 'several lines of one' '"local-' "$(head -n 1 out | cut -c 1-7)"
meso-offer --jq '.cpus + "x"' 2> said | timeout 3 cat > out
check 'nothing comes of it' 0 "$(wc -c < out)"
check 'what is wrong with a line is said once' 1 "$(grep -c 'is dropped' said)"
meso-offer --jq 'select(' > out 2> said; check 'no expression' 2 $?
check 'that is said' 1 "$(grep -c 'jq does not take the expression' said)"
meso-offer --jq . -o tsv=id 2> said; check 'one form only' 2 $?
"#,
    );
}

/// Shows that a head whose bus does not come back ends with 69 and says so, rather than stay for ever.
#[test]
fn a_bus_that_stays_away() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().display();
    let script = format!("setsid sh -c 'meso-offer --framework orphan > {path}/lines 2> {path}/said; echo $? > {path}/part; mv {path}/part {path}/code' & while ! [ -s {path}/lines ]; do sleep 0.1; done");
    let output = Command::new("timeout").args(["60", env!("CARGO_BIN_EXE_meso-up"), "-q", "--agents", "1", "--", "bash", "-c", &script]).env("MESO_PATIENCE", "3s").stdin(Stdio::null()).output().expect("coreutils and bash are there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for _ in 0..1200 {
        if dir.path().join("code").exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    assert_eq!(read("code").trim(), "69", "{}", read("said"));
    assert!(read("said").contains("meso-offer: the bus has been away for 3 s"), "{}", read("said"));
}

/// Shows that a program under --exec that fails is started again in the same session, is told what lives, and that its last word is the session's.
#[test]
fn a_program_that_fails_is_started_again() {
    on_a_cluster(
        1,
        r#"
cat > scheduler <<'END'
if [ -e failed ]; then
  while read -r line; do
    case $line in
      *'"hello/1"'*) printf '%s\n' "$line" | jq -r .recovered >> told ;;
      *'"task/1"'*) printf '%s\n' "$line" | jq -r .name >> told ;;
      *'"synced/1"'*) exit 0 ;;
    esac
  done
fi
while read -r line; do
  case $line in
    *'"offer/1"'*) [ -e asked ] || { touch asked; printf '%s\n' "$line" | jq -c '{meso: "accept/1", offers: [.id], ops: [{launch: [{name: "lives-on", cmd: "sleep 1000", cpus: 0.1, mem: 32}]}]}'; } ;;
    *'"running"'*) touch failed; exit 7 ;;
  esac
done
END
timeout 60 meso-offer -e all --framework phoenix --restarts 2 --exec 'sh scheduler' 2> said
check 'its last word' 0 $?
check 'what the second was told' 'true lives-on' "$(xargs < told)"
check 'it is said' 1 "$(grep -c 'ended with 7; it is started again in 1 s (1 more times)' said)"
rm failed told
timeout 60 meso-offer -e all --exec 'exit 9' --restarts 1 2> said; check 'then it is enough' 9 $?
meso-kill --framework phoenix > /dev/null
"#,
    );
}
