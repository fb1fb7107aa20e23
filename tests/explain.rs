//! meso-explain, and what meso-launch says of it, on real clusters: the reasons are those that hold
mod script;

/// What every script may use.
const PRELUDE: &str = r#"
launch() { timeout 30 meso-launch -d "$@"; }
why() { timeout 30 meso-explain -o json "$@"; }
runs() { [ "$(meso-ps -o tsv=state)" = running ]; }
wants() { meso-ps frameworks -o tsv=wants | grep -q '^[1-9]'; }
"#;

/// Runs a script on a cluster of its own, each agent with 2 cpus and 1 GiB.
fn on_a_cluster(agents: &str, script: &str) {
    script::on_a_cluster(&["--agents", agents, "-R", "cpus=2,mem=1G,disk=1G"], PRELUDE, script);
}

/// Shows each reason that agents have: too small, busy and by whom, a clause, another agent asked for, room; the words and the JSON.
#[test]
fn reasons_of_agents() {
    on_a_cluster(
        "2",
        r#"
check 'too small' '2 too_small cpus 4 2' "$(why -R cpus=4 | jq -r '.counts[] | "\(.agents) \(.reason) \(.lacks[0] | "\(.name) \(.need) \(.most)")"')"
check 'in words' 1 "$(meso-explain -R cpus=4 | grep -cE '^  2 have too few cpus even when empty \(need 4, largest 2 on local-[12]\)$')"
check 'the kind is first' '{"meso":"explain/1","about":"request"' "$(why -R cpus=4 | head -c 37)"
check 'room' '2 fits' "$(why -R cpus=2,mem=1G | jq -r '.counts[] | "\(.agents) \(.reason)"')"
check 'a clause' 'attr.rack == r1' "$(why -R cpus=1 --where 'cpus >= 1 && attr.rack == "r1"' | jq -r '.counts[0].clause')"
check 'another agent' '1 fits,1 other_agent' "$(why -R cpus=1 --on local-2 | jq -r '[.counts[] | "\(.agents) \(.reason)"] | sort | join(",")')"
launch --framework keeper --on local-1 -R cpus=1.5,mem=64M -- sleep 60 > id; soon runs
check 'busy, and by whom' 'local-1 busy cpus 1 0.5 keeper 1.5 1 false' "$(why -R cpus=1 | jq -r '.agents[] | select(.reason == "busy") | "\(.host) \(.reason) \(.lacks[0] | "\(.name) \(.need) \(.have)") \(.holders[0] | "\(.name) \(.held.cpus) \(.count) \(.offered)")"')"
check 'in words' 1 "$(meso-explain -R cpus=1 | grep -cE 'local-1 +busy: cpus 0.5 of 1 free, held by keeper \(1.5 cpus in 1 task for [0-9]+s\)$')"
check 'left to itself' not_connected "$(why keeper | jq -r '.obstacles[0].reason')"
check 'a task does not wait' "running local-1 false" "$(why "$(cat id)" | jq -r '"\(.state) \(.host) \(.final)"')"
check 'in words' 1 "$(meso-explain "$(cat id)" | grep -c 'does not wait: it runs on local-1$')"
gone=$(launch -R cpus=0.1,mem=32M --name gone -- sh -c 'exit 3'); meso-wait -q "$gone"
check 'an ended one' 'task failed exit true' "$(why gone | jq -r '"\(.about) \(.state) \(.reason) \(.final)"')"
meso-explain no-such-task 2> said; check 'a stranger' 1 $?
check 'the stranger is said' 1 "$(grep -c 'there is no no-such-task' said)"
meso-explain -R cpus=4 | head -c 1 > /dev/null; check 'a reader that leaves' 0 "${PIPESTATUS[0]}"
"#,
    );
}

/// Shows what a waiting framework meets: offers in other hands with their age, its own refusal, offers that it does not use.
#[test]
fn reasons_of_frameworks() {
    on_a_cluster(
        "1",
        r#"
meso-offer --framework holder > offers & head=$!
soon grep -q '"meso":"offer/1"' offers
timeout 60 meso-launch -q --framework waiter -R cpus=1,mem=64M -- true & waiter=$!
soon wants
other() { [ "$(why waiter | jq -r '.counts[0].reason')" = offered ]; }; soon other
check 'in other hands' 'offered holder true 1' "$(why waiter | jq -r '.counts[0] | "\(.reason) \(.holders[0] | "\(.name) \(.offered) \(.count)")"')"
check 'since when' true "$(why waiter | jq '.counts[0].holders[0].age_ms >= 0')"
check 'in words' 1 "$(meso-explain waiter | grep -cE '^  1 is offered to holder \(2 cpus 1G mem in 1 offer for [0-9]+s\)$')"
check 'my newest wish' waiter "$(why @last | jq -r .name)"
check 'who takes all is told of itself' 'itself' "$(meso-explain holder | grep -o 'itself' | head -1)"
meso-offer decline "$(jq -r 'select(.meso == "offer/1") | .id' offers | head -1)" --refuse 1h
wait $waiter; check 'then it runs' 0 $?
refused() { [ "$(why holder | jq -r '.counts[0].reason')" = refused ]; }; soon refused
check 'refused, and for how long' true "$(why holder | jq '.counts[0] | .reason == "refused" and .refused_ms > 3000000')"
meso-offer suppress holder
check 'suppressed' suppressed "$(why holder | jq -r '.obstacles[0].reason')"
kill $head; wait $head
gone() { why holder | jq -e '.obstacles[0].reason == "not_connected"'; }; soon gone
check 'nobody speaks for it' not_connected "$(why holder | jq -r '.obstacles[0].reason')"
meso-kill --framework holder > /dev/null
"#,
    );
}

/// Shows that limits and guarantees are told with their sums and names.
#[test]
fn limits_and_guarantees() {
    on_a_cluster(
        "1",
        r#"
meso-role set batch --limit cpus=1
launch --role batch -R cpus=0.5,mem=64M -- sleep 60 > /dev/null; soon runs
check 'a limit' 'limit batch cpus 0.5 1 0.75' "$(why --role batch/nightly -R cpus=0.75 | jq -r '.obstacles[0] | "\(.reason) \(.subject) \(.name) \(.held) \(.limit) \(.need)"')"
check 'in words' 1 "$(meso-explain --role batch -R cpus=0.75 | grep -c '^  role batch is at its limit of cpus: 0.5 of 1 held, one task needs 0.75$')"
check 'not for others' 0 "$(why -R cpus=0.75 | jq '.obstacles | length')"
meso-role set vip --guarantee cpus=1
check 'a guarantee' 'guaranteed cpus 1.5 1 vip 1' "$(why -R cpus=0.75 | jq -r '.obstacles[0] | "\(.reason) \(.name) \(.free) \(.kept_back) \(.subjects[0] | "\(.subject) \(.amount)")"')"
check 'not for whom it is' 0 "$(why --role vip -R cpus=0.75 | jq '.obstacles | length')"
timeout 30 meso-launch --role batch --start-deadline 1s -R cpus=0.75 -- true 2> said; check 'the deadline' 75 $?
check 'with the limit' 1 "$(grep -c 'no offer fitted by the start deadline: role batch is at its limit of cpus: 0.5 of 1 held, one task needs 0.75' said)"
"#,
    );
}

/// Shows that meso-launch says why it could not start, that a person at a terminal is told while it waits, and that nobody else is.
#[test]
fn launching() {
    on_a_cluster(
        "1",
        r#"
timeout 30 meso-launch --start-deadline 1s -R cpus=999 -- true 2> said; check 'the deadline' 75 $?
check 'why' 1 "$(grep -cE '^meso-launch: no offer fitted by the start deadline: 1 agent: 1 has too few cpus even when empty \(need 999, largest 2 on [a-z0-9-]+\)$' said)"
check 'and what to do' '  try: meso-explain -R cpus=999,mem=256, which tells it agent by agent' "$(tail -1 said)"
timeout 30 meso-launch -n 3 --start-deadline 1s -R cpus=999 -- true 2> said; check 'several' 75 $?
check 'it is said once' 1 "$(grep -c 'start deadline' said)"
timeout --preserve-status -s INT 12 meso-launch -R cpus=999 -- true 2> said; check 'no terminal' 130 $?
check 'nothing is said' '' "$(cat said)"
script -qfec 'exec meso-launch -R cpus=999 -- true' typed < /dev/null > /dev/null & terminal=$!
soon grep -q 'still waiting' typed
kill "$terminal"; wait "$terminal" 2> /dev/null
check 'at a terminal' 1 "$(grep -c 'meso-launch: still waiting: 1 agent: 1 has too few cpus even when empty (need 999, largest 2 on' typed)"
"#,
    );
}
