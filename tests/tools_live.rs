//! The tools that look and act, on a real cluster: a bus, a master and agents as processes, under `meso-up --`
//!
//! Each test is a script on a cluster of its own. A line `check NAME EXPECTED GOT` that differs fails the test and shows both.
mod script;

/// What every script may use.
const PRELUDE: &str = r#"
launch() { timeout 30 meso-launch -d -R cpus=0.1,mem=32M "$@"; }
# One process of this cluster, by its command line: only children of the meso-up that runs this script are looked at.
mine() {
  for pid in $(cat /proc/$PPID/task/*/children); do
    if tr '\0' ' ' 2>/dev/null < /proc/$pid/cmdline | grep -q -E -- "$1"; then echo "$pid"; return; fi
  done
}
"#;

/// Runs a script on a cluster of its own.
fn on_a_cluster(agents: u32, script: &str) {
    script::on_a_cluster(&["--agents", &agents.to_string()], PRELUDE, script);
}

/// Shows that meso-wait gives each task's own code, the highest of several, and its own codes for time and strangers.
#[test]
fn codes_of_tasks() {
    on_a_cluster(
        2,
        r#"
for code in 0 1 3 123 124 126 127 255; do
  meso-wait -q "$(launch -- sh -c "exit $code")"; check "exit $code" $code $?
done
for signal in 1 2 9 13 15; do
  meso-wait -q "$(launch -- sh -c "kill -$signal \$\$")"; check "signal $signal" $((128 + signal)) $?
done
said=$(meso-wait "$(launch -- no-such-command)" 2>&1); check 'no command' 127 $?
check 'no command is said' 1 "$(grep -c 'not found' <<< "$said")"
meso-wait -q "$(launch -- sh -c 'exit 3')" "$(launch -- sh -c 'exit 5')" "$(launch -- true)"; check 'the highest' 5 $?
slow=$(launch --name slow -- sleep 60)
meso-wait --timeout 200ms slow 2> said; check 'time over' 124 $?
check 'who is still there' 1 "$(grep -c "still there: $slow" said)"
any=$(meso-wait --any slow "$(launch --name quick -- sh -c 'exit 4')"); check 'any' 4 $?
check 'the one that ended' "$(meso-ps -a -o tsv=name,id | sed -n 's/^quick\t//p')" "$any"
meso-wait no-such-task 2> /dev/null; check 'a stranger' 125 $?
launch -- sh -c 'exit 9' > /dev/null
meso-wait @last; check 'my newest' 9 $?
"#,
    );
}

/// Shows that tasks are ended by id, name, prefix, @last and line, and that a refused one stops nobody else.
#[test]
fn killing() {
    on_a_cluster(
        2,
        r#"
a=$(launch --name web -- sleep 60)
b=$(launch --name handler -- sh -c 'trap "exit 3" TERM; echo up; while :; do sleep 0.05; done')
c=$(launch --name stubborn -- sh -c 'trap "" TERM; echo up; sleep 60')
is_up() { meso-logs "$1" | grep -q up; }
soon is_up handler; soon is_up stubborn
check 'ids of those on their way' "$a" "$(meso-kill web no-such-task 2> said)"
check 'the stranger is said' 1 "$(grep -c 'there is no no-such-task' said)"
meso-kill no-such-task 2> /dev/null; check 'a refused one' 1 $?
meso-wait -q "$a"; check 'ended by TERM' 143 $?
meso-kill -q handler; check 'killed' 0 $?
meso-wait -q "$b"; check 'its own code' 3 $?
meso-kill handler 2> said; check 'ended already' 1 $?
check 'ended already is said' 1 "$(grep -c "$b has ended already: killed" said)"
check 'waits for the end' "$c" "$(meso-kill --grace 300ms --wait "$(printf %.12s "$c")")"
check 'ended by KILL' 137 "$(meso-ps -a -o tsv=id,code | sed -n "s/^$c\t//p")"
d=$(launch -- sleep 60); meso-kill -s USR1 "$d" > /dev/null; meso-wait "$d"; check 'a signal' 138 $?
for i in 1 2 3; do launch -- sleep 60; done > ids
{ cat ids; echo; echo 'a b'; } | meso-kill - > killed 2> said; check 'lines' 1 $?
check 'each line' "$(sort ids)" "$(sort killed)"
check 'the wrong line by its number' 1 "$(grep -c 'line 5: "a b" is neither' said)"
meso-wait -q $(cat ids); check 'all of them' 143 $?
e=$(launch -- sleep 60); echo "lost line" | { meso-kill "$e" > /dev/null; check 'stdin is left alone' 'lost line' "$(cat)"; }
f=$(launch --framework keeper --name kept -- sh -c 'echo up; sleep 60'); soon is_up kept
check 'a framework' keeper "$(meso-kill --framework keeper)"
meso-wait -q "$f"; check 'its task ended' 143 $?
meso-kill --framework keeper 2> /dev/null; check 'no such framework' 1 $?
"#,
    );
}

/// Shows that output is byte for byte, complete at both ends, of running and finished tasks, and each stream on its own.
#[test]
fn output() {
    on_a_cluster(
        2,
        r#"
a=$(launch -- sh -c 'head -c 20000000 /dev/urandom > f; cat f; sha256sum < f >&2; head -c 3000000 f >&2; printf "\nlast" >&2')
meso-wait "$a"
check 'all bytes' "$(meso-logs --stderr "$a" 2> /dev/null | head -c 64)" "$(meso-logs --stdout "$a" | sha256sum | cut -c1-64)"
meso-logs "$a" > out 2> err
check 'both at once' "$(head -c 64 err)" "$(sha256sum < out | cut -c1-64)"
check 'the last line' last "$(meso-logs --stderr -n 1 "$a")"
check 'no line' '' "$(meso-logs --stderr -n 0 "$a")"
b=$(launch --name growing -- sh -c 'for i in $(seq 40); do head -c 500000 /dev/urandom > p; cat p; cat p >> f; done; sha256sum < f >&2; exit 3')
meso-logs -f growing > out 2> err; check 'following ends' 0 $?
check 'followed' "$(cut -c1-64 err)" "$(sha256sum < out | cut -c1-64)"
for i in 1 2 3 4 5; do c=$(launch -- sh -c "echo short $i"); check "short $i" "short $i" "$(meso-logs -f "$c")"; done
launch --name running -- sh -c 'echo one; echo two; echo three; sleep 60' > /dev/null
has_written() { [ "$(meso-logs running | wc -l)" = 3 ]; }; soon has_written
check 'a running one ends at what there is' 'two three' "$(meso-logs -n 2 running | xargs)"
launch --name left -- sh -c 'echo 1; printf 2; echo 3 >&2' > /dev/null; launch --name right -- echo 4 > /dev/null; meso-wait left right
check 'tags' 'left|1 left|2 left|3 right|4' "$(meso-logs left right 2>&1 | sort | xargs)"
meso-logs no-such-task running > out 2> /dev/null; check 'a stranger' 1 $?
check 'nothing is printed then' 0 "$(wc -c < out)"
{ meso-logs --stdout "$a"; echo "code $?" >&2; } 2> code | head -c 10 > /dev/null; check 'a reader that leaves' 'code 0' "$(cat code)"
"#,
    );
}

/// Shows the listings: what is in them, in each form, and that a filter is one.
#[test]
fn listings() {
    on_a_cluster(
        2,
        r#"
id=$(timeout 30 meso-launch -d --name web -R cpus=0.5,mem=64M -- sleep 60); meso-wait -q "$(launch --name gone -- false)"
check 'live tasks' "$id" "$(meso-ps -q)"
check 'failed tasks' 'gone 1' "$(meso-ps --state failed -o tsv=name,code | xargs)"
check 'all tasks' 2 "$(meso-ps -a -q | wc -l)"
runs() { [ "$(meso-ps -o tsv=state)" = running ]; }; soon runs
check 'the table' 'ID NAME STATE HOST CPUS MEM AGE EXIT' "$(meso-ps | head -1 | xargs)"
check 'its row' "$id web running 0.5 64M -" "$(meso-ps | sed -n 2p | awk '{print $1, $2, $3, $5, $6, $8}')"
check 'agents' '2 active' "$(meso-ps agents -o tsv=state | sort | uniq -c | xargs)"
check 'an agent has less free' 1 "$(meso-ps agents -o jsonl | grep -c '"used":{"cpus":0.5,.*"mem":64,')"
check 'masters' leading "$(meso-ps masters -o tsv=state)"
check 'the kind is first' '"meso":"task/1" "meso":"agent/1" "meso":"master/1"' "$(for what in tasks agents masters; do meso-ps $what -o jsonl | head -1 | grep -o '"meso":"[a-z]*/1"'; done | xargs -d '\n')"
for what in tasks agents masters frameworks offers roles; do for form in table wide json jsonl name tsv=id; do meso-ps $what -o $form > out 2> err; check "$what as $form" "0 0" "$? $(wc -c < err)"; done; done
check 'one array' '[' "$(meso-ps -a -o json | head -1)"
meso-ps -a -o json | head -c 1 > /dev/null; check 'a reader that leaves' 0 "${PIPESTATUS[0]}"
check 'not mine' '' "$(meso-ps --mine --principal other -q)"
meso-kill --principal other web > out 2> err; check 'not mine to kill' 1 $?
check 'and it lives' running "$(meso-ps -o tsv=state)"
meso-logs --principal other web 2> /dev/null; check 'not mine to read' 77 $?
"#,
    );
}

/// Shows that a running cluster is a line, that the policy makes of it what the books allow, and that what one adds to it
/// is served by the same rules.
#[test]
fn the_snapshot() {
    on_a_cluster(
        2,
        r#"
runs() { [ "$(meso-ps -o tsv=state)" = running ]; }
id=$(timeout 30 meso-launch -d --framework keeper -R cpus=0.5,mem=64M -- sleep 60); soon runs
fw=$(meso-ps frameworks -o tsv=name,id | sed -n 's/^keeper\t//p')
meso-ps snapshot -o jsonl > line
check 'one line' 1 "$(wc -l < line)"
check 'of its kind' '{"meso":"snapshot/1","agents":[{"agent":"agent_' "$(head -c 47 line)"
check 'both agents' 2 "$(jq '.agents | length' line)"
check 'what is used is not free' '0.5 64' "$(jq -r '[.agents[] | [.cpus - .free.cpus, .mem - .free.mem]] | "\(map(.[0]) | add) \(map(.[1]) | add)"' line)"
check 'who uses it' "$fw 0.5 64" "$(jq -r '.frameworks[] | "\(.framework) \(.used.cpus) \(.used.mem)"' line)"
meso-allocate --trace < line > out; check 'it is understood' 0 $?
check 'nobody wants more' allocated/1 "$(jq -r .meso out)"
check 'and what is held counts' true "$(jq '.frameworks[0].standing.share > 0' out)"
jq -c '.frameworks += [{framework:"a",demand:{cpus:0.1,mem:32,count:3}},{framework:"b",demand:{cpus:0.1,mem:32,count:1}}]' line > more
meso-allocate --trace < more > out
check 'whole tasks' 'a 3 b 1' "$(jq -rs 'map(select(.meso == "grant/1")) | group_by(.framework)[] | "\(.[0].framework) \(map(.tasks) | add)"' out | xargs)"
check 'the smallest share first' 'a b a a' "$(jq -r 'select(.meso == "step/1") | .framework' out | xargs)"
check 'nothing is given twice' true "$(jq -s --slurpfile line line '([.[] | select(.meso == "grant/1")] | group_by(.agent) | all((map(.cpus) | add) as $sum | .[0].agent as $agent | any($line[0].agents[]; .agent == $agent and .free.cpus >= $sum)))' out)"
check 'the tables' 'AGENT HOST ACTIVE CPUS FREE MEM FREE' "$(meso-ps snapshot | head -1 | xargs)"
check 'with frameworks' "$fw default 1 0.5 64M 0" "$(meso-ps snapshot | tail -1 | awk '{print $1, $2, $3, $4, $5, $6}')"
check 'an array' 1 "$(meso-ps snapshot -o json | jq length)"
meso-ps snapshot -o wide > out 2> err; check 'wide' '0 0' "$? $(wc -c < err)"
meso-ps snapshot | head -c 1 > /dev/null; check 'a reader that leaves' 0 "${PIPESTATUS[0]}"
# Somebody wants more than there is: the demand is in the line, and the policy says so.
timeout 30 meso-launch -q -n 500 -R cpus=0.1,mem=1G -- sleep 60 & launcher=$!
wants() { meso-ps frameworks -o tsv=wants | grep -q '^[1-9]'; }; soon wants
meso-ps snapshot -o jsonl | meso-allocate > out
check 'what is not met' true "$(jq '[.frameworks[]? | .unmet] | add > 0' out)"
kill $launcher; wait
"#,
    );
}

/// Shows that events come in order, that any place can be gone on from, and that kinds and times filter.
#[test]
fn events() {
    on_a_cluster(
        1,
        r#"
for i in 1 2 3; do meso-wait "$(launch --name "t$i" -- true)"; done
meso-events > all
seqs() { grep -o '"stream_seq":[0-9]*' "$1" | cut -d: -f2; }
check 'in order' "$(seqs all | sort -n | uniq)" "$(seqs all)"
check 'the end of each task' 3 "$(grep -c '^{"meso":"update/1",.*"state":"finished","final":true' all)"
check 'the leader' 1 "$(grep -c '^{"meso":"event/1",.*"kind":"leader"' all)"
middle=$(seqs all | sed -n 4p)
meso-events --after "$middle" > rest
check 'after' "$(tail -n +5 all)" "$(cat rest)"
meso-events -n 2 > last
check 'the last two' "$(tail -n 2 all)" "$(cat last)"
check 'kinds add up' "$(wc -l < all)" "$(($(meso-events --kind tasks | wc -l) + $(meso-events --kind cluster | wc -l)))"
check 'long ago' "$(wc -l < all)" "$(meso-events --since 1h | wc -l)"
sleep 0.3; check 'just now' 0 "$(meso-events --since 100ms | wc -l)"
timeout 20 meso-events -f --after "$(seqs all | tail -1)" > new & follower=$!
id=$(launch -- sh -c 'exit 6'); soon grep "\"task\":\"$id\".*\"exit\":6" new
check 'followed' 1 "$(grep -c "\"task\":\"$id\".*\"final\":true" new)"
kill $follower
meso-events | head -n 1 > /dev/null; check 'a reader that leaves' 0 "${PIPESTATUS[0]}"
"#,
    );
}

/// Shows that following and waiting go on, complete, while agent, master and bus are killed one after the other.
#[test]
fn through_faults() {
    on_a_cluster(
        1,
        r#"
id=$(launch --name ticker -- sh -c 'for i in $(seq 1 100); do echo $i; sleep 0.1; done; exit 9')
meso-logs -f ticker > out 2> err & logs=$!
meso-wait ticker & wait=$!
soon test -s out
agent=$(mine meso-agent); kill -9 "$agent"; sleep 1.5
master=$(mine meso-master); kill -9 "$master"; sleep 1
bus=$(mine nats-server); kill -9 "$bus"
wait $logs; check 'following ends well' 0 $?
wait $wait; check 'the code' 9 $?
check 'every line, once, in order' "$(seq 1 100)" "$(cat out)"
check 'nothing to say' '' "$(cat err)"
meso-wait "$id"; check 'the record knows it' 9 $?
"#,
    );
}

/// Shows that meso-launch -O runs its command on offers that it reads, ends the pipeline, and says what was wrong with the rest.
#[test]
fn on_offers_that_are_read() {
    on_a_cluster(
        2,
        r#"
set -o pipefail
small="-R cpus=0.1,mem=32M"
out=$(meso-offer | timeout 60 meso-launch -O $small -- sh -c 'echo hello; exit 3'); check 'its code, through the whole pipe' 3 $?
check 'its output' hello "$out"
out=$(meso-offer | timeout 60 meso-launch -O $small -n 5 -- sh -c 'echo $MESO_INDEX of $MESO_COUNT' | sort); check 'several' 0 $?
check 'each once' "$(for i in 1 2 3 4 5; do echo "$i of 5"; done)" "$out"
out=$(meso-offer | timeout 60 meso-launch -O $small -n 2 --per-offer 1 --report report -- true); check 'one for each offer' 0 $?
check 'two agents' 2 "$(jq -r .agent report | sort -u | wc -l)"
id=$(meso-offer | timeout 60 meso-launch -O $small -d -- sh -c 'sleep 0.5; exit 9'); check 'detached' 0 $?
meso-wait -q "$id"; check 'and it runs on' 9 $?
timeout 60 meso-launch -O -- true < /dev/null 2> said; check 'no offers' 75 $?
check 'that is said' 1 "$(grep -c 'the offers ended before one was found that fits' said)"
printf 'nonsense\n{"meso":"hello/1"}\n[]\n{"meso":"offer/1","id":"offer_0000000000"}\n' | timeout 60 meso-launch -O -- true 2> said; check 'nothing but bad lines' 75 $?
check 'each is said' "1 3 4" "$(sed -n 's/.*: line \([0-9]*\): .*/\1/p' said | tr '\n' ' ' | sed 's/ $//')"
echo nonsense | timeout 60 meso-launch -O --strict -- true 2> said; check 'strictly' 65 $?
# An offer that was used before: how it went, and what to do about a filter that is slow.
meso-offer | head -1 > line & feed=$!
soon test -s line
timeout 60 meso-launch -O $small -- true < line; check 'a line from a file' 0 $?
timeout 60 meso-launch -O $small -- true < line 2> said; check 'the same again' 75 $?
check 'how it went' 1 "$(grep -c 'line 1: offer .* \(was accepted\|was declined\|is not known\)' said)"
check 'and the way out' 1 "$(grep -c 'jq --unbuffered' said)"
wait $feed
# The likely slip is noticed, and what else comes in is left for others.
while sleep 0.3; do echo nonsense; done | timeout 30 meso-launch -O --start-deadline 2s $small -- true 2> said; check 'bad lines do not put the deadline off' 75 $?
meso-offer | timeout 60 meso-launch $small -- sleep 1 2> said; check 'without -O' 0 $?
check 'it is said' 1 "$(grep -c 'meso-launch -O, which launches on these' said)"
seq 3 | (timeout 60 meso-launch $small -- true 2> said; cat > rest); check 'numbers are no offers' '0 3' "$(wc -c < said) $(wc -l < rest)"
# One offer by name, while its session waits.
meso-offer --hold 20s --once > once; check 'a batch' 0 $?
timeout 60 meso-launch --offer "$(head -1 once | jq -r .id)" $small -- sh -c 'exit 4'; check 'by its name' 4 $?
# A tail that is killed takes what it launched along, and ends the head.
(meso-offer 2> head-said; echo "$?" > head-code) | timeout -s KILL 3 meso-launch -O $small --name orphan -- sleep 300
# Its session lapses after 15 s.
soon sh -c 'meso-ps -a --state killed -o tsv=name | grep -q orphan'
check 'no orphan runs' 0 "$(meso-ps -o tsv=name | grep -c orphan)"
soon test -s head-code
check 'the head has ended' 0 "$(cat head-code)"
# The batch above is kept for 20 s.
soon sh -c '[ -z "$(meso-ps offers -q)" ]'
check 'nothing is held' 0 "$(meso-ps offers -q | wc -l)"
"#,
    );
}

/// Shows that meso-launch -O without a command makes the calls that it reads, and says of each what became of it.
#[test]
fn calls_that_are_read() {
    on_a_cluster(
        1,
        r#"
set -o pipefail
# Ends by itself: the tasks are waited for, then the session is done, and so is the head.
out=$(meso-offer -R cpus=0.1,mem=32M | head -1 | jq -c --unbuffered 'select(.meso == "offer/1") | . + {tasks: [{name: "a", cmd: "exit 3", cpus: 0.1, mem: 32}, {name: "b", argv: ["true"], cpus: 0.1, mem: 32}]}' | timeout 60 meso-launch -O)
check 'two tasks on an offer' 0 $?
check 'the result' '1 true 2' "$(jq -r '"\(.line) \(.ok) \(.tasks | length)"' <<< "$out")"
check 'what became of them' 'failed finished' "$(meso-ps -a -o tsv=name,state | sort | cut -f2 | paste -sd ' ')"
mkfifo calls
meso-offer -R cpus=0.1,mem=32M > offers & head=$!
timeout 100 meso-launch -O < calls > results 2> said & tail=$!
exec 3> calls
say() { printf '%s\n' "$1" >&3; lines=$((lines + 1)); soon sh -c "[ \$(wc -l < results) -ge $lines ]"; }
field() { tail -1 results | jq -r "$1"; }
lines=0
say 'no json'; check 'a bad line' 'false bad_line' "$(field '"\(.ok) \(.code)"')"
say '{"meso":"reconcile/1"}'; check 'before a session' bad_line "$(field .code)"
soon test -s offers
first=$(jq -r 'select(.meso == "offer/1") | .id' offers | head -1)
say '{"meso":"accept/1","offers":["'"$first"'"],"ops":[{"reserve":{}}]}'; check 'what is not there yet' unsupported "$(field .code)"
say '{"meso":"accept/1","offers":["'"$first"'"],"ops":[{"launch":[{"cmd":"true","image":"x","cpus":0.1}]}]}'; check 'nor that' unsupported "$(field .code)"
say '{"meso":"accept/1","offers":["'"$first"'"],"ops":[{"launch":[{"cmd":"true"}]}]}'; check 'a task without processors' bad_line "$(field .code)"
say '{"meso":"accept/1","offers":["'"$first"'"],"ops":[{"launch":[{"id":"my-task","cmd":"sleep 300","cpus":0.1,"mem":32}]}]}'; check 'a task of my own name' 'true my-task' "$(field '"\(.ok) \(.tasks[0])"')"
say '{"meso":"accept/1","offers":["'"$first"'"],"ops":[]}'; check 'an offer only once' offer_gone "$(field .code)"
soon sh -c 'meso-ps -o tsv=id,state | grep -q "my-task.running"'
say '{"meso":"update/1","task":"my-task"}'; check 'an event asks for nothing' 'true true' "$(field '"\(.ok) \(.ignored)"')"
say '{"meso":"reconcile/1","tasks":["my-task","no-such"]}'; check 'asked' true "$(field .ok)"
say '{"meso":"kill/1","tasks":["my-task"],"grace":"1s"}'; check 'killed' true "$(field .ok)"
soon sh -c 'meso-ps -a -o tsv=id,state | grep -q "my-task.killed"'
say '{"meso":"kill/1","tasks":["my-task"]}'; check 'only once' unknown_task "$(field .code)"
say '{"meso":"decline/1","offers":["offer_0000000000"]}'; check 'an offer that nobody made' offer_gone "$(field .code)"
say '{"meso":"suppress/1"}'; check 'suppressed' true "$(field .ok)"
say '{"meso":"revive/1"}'; check 'revived' true "$(field .ok)"
say '{"meso":"message/1","task":"my-task"}'; check 'nobody to take it' no_executor "$(field .code)"
say '{"meso":"dance/1"}'; check 'no such call' bad_line "$(field .code)"
check 'bad lines are said with their numbers' "1 2 5 $lines" "$(sed -n 's/.*: line \([0-9]*\): .*/\1/p' said | paste -sd ' ')"
exec 3>&-
wait $tail; check 'the end of the calls' 0 $?
wait $head; check 'is the end of the head' 0 $?
"#,
    );
}

/// Shows that what is set for roles holds at once, outlives its master, takes back the offers it contradicts and only those,
/// and that what cannot be is refused with its numbers and changes nothing.
#[test]
fn roles() {
    script::on_a_cluster(
        &["--agents", "2", "-R", "cpus=4,mem=2G"],
        PRELUDE,
        r#"
row() { meso-role ls -o jsonl | jq -c --arg id "$1" 'select(.id == $id) | [.weight,.priority,.guarantee,.limit]'; }
all() { meso-role -o jsonl | jq -c '[.id,.set,.weight,.priority,.guarantee,.limit]'; }
# Set and listed.
meso-role set eng/batch --weight 2.5 --guarantee cpus=1,mem=64M --limit cpus=2,gpus=0 > out 2> err; check 'silent on success' '0 0 0' "$? $(wc -c < out) $(wc -c < err)"
check 'all of it' '[2.5,0,{"cpus":1,"mem":64},{"cpus":2,"gpus":0}]' "$(row eng/batch)"
check 'the role above is listed' '[1,0,{},{}]' "$(row eng)"
meso-role set eng/batch:nightly --priority -5; check 'a framework that is not there yet' '[1,-5,{},{}]' "$(row eng/batch:nightly)"
meso-role set eng/batch --limit none; check 'what is not named stays' '[2.5,0,{"cpus":1,"mem":64},{}]' "$(row eng/batch)"
check 'in the order of the tree' 'eng eng/batch eng/batch:nightly' "$(meso-role -o name | xargs)"
check 'one listing, two tools' "$(meso-role -o jsonl)" "$(meso-ps roles -o jsonl)"
# Contradictions, and more than there is: both numbers, and nothing changed.
before=$(all)
refused() { meso-role set "$@" > out 2> said; check "refused: $*" '1 0' "$? $(wc -c < out)"; check "unchanged by: $*" "$before" "$(all)"; }
refused vip --guarantee cpus=8; check 'both sums' 1 "$(grep -c 'cpus=9.*cpus=8' said)"; check 'the way out' 1 "$(grep -c -e --force said)"
refused vip --guarantee cpus=2 --limit cpus=1; check 'guarantee and limit' 1 "$(grep -c 'guaranteed cpus=2 and limited to cpus=1' said)"
refused eng --guarantee mem=32M; check 'role and those below' 1 "$(grep -c 'eng is guaranteed mem=32, and those below it together mem=64' said)"
refused eng/batch --guarantee cpus=9000 --force --limit cpus=1; check 'no force helps' 1 "$(grep -c 'cpus=9000' said)"
for bad in 'eng --weight 0' 'eng --weight -1' 'eng --weight NaN' '.. --weight 2' 'eng//x --weight 2' 'eng --guarantee cpus=-1' 'eng --limit cpus=inf' 'eng --limit ports=1' eng; do
  meso-role set $bad > out 2> said; check "wrong: $bad" '2 0' "$? $(wc -c < out)"
done
meso-role rm no-such-role 2> said; check 'nothing to remove' '1 1' "$? $(grep -c 'no-such-role has no policy' said)"
check 'unchanged by all that' "$before" "$(all)"
meso-role set vip --guarantee cpus=8 --force 2> /dev/null; check 'forced' '0 [1,0,{"cpus":8},{}]' "$? $(row vip)"
meso-role rm vip; check 'removed' '0 ' "$? $(row vip)"
# What is set is the cluster's, not its master's.
before=$(all); kill -9 "$(mine meso-master)"; lists() { meso-role -o name | grep -q nightly; }; soon lists
check 'the next leader knows' "$before" "$(all)"
# Of two who hold an agent each, a limit takes back what it contradicts.
meso-role rm eng/batch; meso-role rm eng/batch:nightly
meso-offer -e all --framework fa --role a --max-open 1 > fa.lines 2> /dev/null & meso-offer -e all --framework fb --role b --max-open 1 > fb.lines 2> /dev/null &
held() { meso-ps offers -o tsv=holder,cpus | sort | xargs; }; one_each() { [ "$(held)" = 'fa 4 fb 4' ]; }
soon one_each; check 'each holds an agent' 'fa 4 fb 4' "$(held)"
check 'who holds it is said' 2 "$(meso-ps offers -o jsonl | jq -c 'select(.who != "" and .since_ms > 0 and .framework_name == .holder)' | wc -l)"
offer_of() { meso-ps offers -o tsv=holder,id | sed -n "s/^$1\t//p"; }
a=$(offer_of fa); b=$(offer_of fb)
check 'what it would do' '1 {"cpus":1}' "$(meso-role set a --limit cpus=1 --dry-run -o tsv=rescinded,limit | tr '\t' ' ')"
check 'and did not' "$a $b" "$(offer_of fa) $(offer_of fb)"
meso-role set a --limit cpus=1 2> /dev/null; check 'below what is offered' 0 $?
check 'only its own offer went' "0 $b" "$(meso-ps offers -o name | grep -c "^$a") $(offer_of fb)"
told() { grep -q '"meso":"rescind/1"' fa.lines; }; soon told; check 'its holder is told' '1 0' "$(grep -c '"meso":"rescind/1"' fa.lines) $(grep -c '"meso":"rescind/1"' fb.lines)"
check 'shares by framework' '0.5 1 0' "$(meso-ps frameworks -o jsonl | jq -r 'select(.name == "fb") | [.share, .weight, .priority] | join(" ")')"
kill %1 %2 2> /dev/null; wait
# A limit below what tasks hold ends none of them.
c=$(timeout 30 meso-launch -d --role c -R cpus=1,mem=64M -- sleep 60); runs() { [ "$(meso-ps -o tsv=state)" = running ]; }; soon runs
meso-role set c --limit cpus=0.5 2> said; check 'below what is held' '1 1' "$? $(grep -c 'cpus=1.*cpus=0.5\|cpus=0.5.*cpus=1' said)"
meso-role set c --limit cpus=0.5 --force 2> /dev/null; check 'forced below it' "0 $c" "$? $(meso-ps -q --state running)"
check 'and seen' '1 0.125 1' "$(meso-ps roles -o jsonl | jq -r 'select(.id == "c") | [.cpus, .share, .frameworks] | join(" ")')"
timeout 30 meso-launch --role c -R cpus=0.1,mem=32M --start-deadline 2s -- true 2> /dev/null; check 'gets nothing more' 75 $?
"#,
    );
}
