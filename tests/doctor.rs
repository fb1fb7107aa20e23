//! meso-doctor on real clusters: what is well, what is not, and each with its next step
mod script;

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use meso_bus::testserver::{Server, ServerSpec};

/// What every script may use.
const PRELUDE: &str = r#"
# What meso-doctor says of one check: its state and, behind it, what else is asked for as jq says it.
of() { meso-doctor --json "${@:3}" | jq -r --arg check "$1" "select(.check == \$check) | \"\(.state)${2:-}\""; }
is() { [ "$(of "$1")" = "$2" ]; }
"#;

/// Runs it in an environment like cron's, with stdin closed to it.
fn doctor(args: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_meso-doctor")).args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null()).output().expect("it was built");
    let said = String::from_utf8(output.stdout.clone()).expect("it is text");
    (output, said)
}

/// Shows that without a bus that fails with its next step, that what needs one is skipped, and that the machine is looked at all the same.
#[test]
fn no_bus() {
    let (output, said) = doctor(&["--nats", "nats://127.0.0.1:1"]);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(2), 0), "{said}");
    assert!(said.starts_with("FAIL  bus           no bus at nats://127.0.0.1:1") && said.lines().nth(1).is_some_and(|line| line.starts_with("  try: meso-up")), "{said}");
    for check in ["jetstream", "stores", "leader", "agents", "offers"] {
        assert!(said.lines().any(|line| line.starts_with(&format!("skip  {check:<13} "))), "{check}: {said}");
    }
    assert!(said.lines().any(|line| line.starts_with("ok    kernel")), "{said}");
    assert_eq!(said.matches("FAIL  ").count(), 1, "{said}");
}

/// Shows that credentials that cannot be used are a finding like any other.
#[test]
fn no_credentials() {
    let (output, said) = doctor(&["--creds", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("FAIL  bus           credentials /nonexistent: no such file"), "{said}");
}

/// Shows that somebody who accepts connections and never speaks does not hold it up for ever.
#[test]
fn silent_bus() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    let port = silent.local_addr().expect("it listens").port();
    let (output, said) = doctor(&["--nats", &format!("nats://127.0.0.1:{port}")]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("FAIL  bus           no bus at") && said.contains("ok    kernel"), "{said}");
}

/// Shows that a bus without a store, and a cluster where no master ever was, are told apart.
#[test]
fn no_store_and_no_master() {
    let bare = Server::start(ServerSpec { without_store: true, ..ServerSpec::default() }).expect("nats-server is installed");
    let (output, said) = doctor(&["--nats", &bare.url()]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("ok    bus ") && said.contains("FAIL  jetstream") && said.contains("try: nats-server -js") && said.contains("skip  stores"), "{said}");
    let empty = Server::start(ServerSpec::default()).expect("nats-server is installed");
    let (output, said) = doctor(&["--nats", &empty.url()]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("ok    jetstream") && said.contains("FAIL  stores        no master has stored anything here yet"), "{said}");
    assert!(said.contains(&format!("FAIL  leader        no master answered on {}", empty.url())) && said.contains(&format!("try: meso-master --nats {} --cluster default", empty.url())), "{said}");
}

/// Shows that this machine alone needs no bus, and that nothing else is looked at then.
#[test]
fn this_machine_alone() {
    let (output, said) = doctor(&["--local"]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{said}");
    assert!(said.contains("kernel") && !said.contains("leader") && !said.contains("skip  bus"), "{said}");
}

/// Shows that a healthy cluster has nothing that fails, and the promises of the lines: one object each, a next step for what is not well.
#[test]
fn a_healthy_cluster() {
    script::on_a_cluster(
        &["--masters", "2", "--agents", "2"],
        PRELUDE,
        r#"
soon is standby ok
meso-doctor --json > findings; code=$?
check 'nothing fails' '' "$(jq -r 'select(.state == "fail") | .check + ": " + .saw' findings)"
check 'the code is of the worst' "$(jq -s 'if any(.state == "warn") then 1 else 0 end' findings)" $code
check 'one kind' finding/1 "$(jq -r .meso findings | sort -u)"
check 'a next step where one is needed' true "$(jq -s 'all((.try != null) == (.state == "warn" or .state == "fail"))' findings)"
check 'each check once' '' "$(jq -r .check findings | sort | uniq -d)"
check 'what is there' 'ok ok ok ok ok ok' "$(echo $(for name in bus stores leader version agents offers; do of $name; done))"
check 'how many agents' '2 of 2 agents, with 0 tasks, active' "$(jq -r 'select(.check == "agents").saw' findings)"
check 'who leads' "$(meso-ps masters --state leading -q)" "$(jq -r 'select(.check == "leader").ids[]' findings)"
check 'as many lines for people' "$(wc -l < findings)" "$(meso-doctor | grep -vc '^  try: ')"
meso-doctor | head -n 1 > /dev/null; check 'a reader that leaves' $code "${PIPESTATUS[0]}"
task=$(meso-launch -d -R cpus=0.1,mem=32M -- sleep 60); meso-launch -q -R cpus=0.1,mem=32M -- true
check 'tasks that run are attended' ok "$(of containers)"
meso-kill -q "$task"
"#,
    );
}

/// Shows that an agent that stands still is told when its beats are missing, and when it is lost; and that a master that ends is told.
#[test]
fn what_is_not_well() {
    script::on_a_cluster(
        &["--agents", "1"],
        PRELUDE,
        r#"
# Another cluster on the same bus, whose agents are to beat more often.
export MESO_CLUSTER=quick
meso-master --agent-beat 500ms --agent-timeout 10s 2> master.log & master=$!
agents=
for host in still moving; do
  meso-agent --work-dir "$PWD/$host" --host $host -R cpus=1,mem=64M --cgroups off --kill-tasks-on-exit 2> $host.log &
  agents="$agents $!"
done
still=${agents# }; still=${still%% *}
both() { [ "$(meso-ps agents --state active -q | wc -l)" = 2 ]; }; soon both
id=$(meso-ps agents -o tsv=id,host | awk '$2 == "still" { print $1 }')
kill -STOP $still
late() { of stale ' \(.ids | join(" "))' --agent-beat 500ms | grep -q "^warn .*$id"; }
for _ in $(seq 450); do late && break; meso-ps agents --state unreachable -q | grep -q . && break; sleep 0.1; done
late; check 'silent for two beats' 0 $?
soon is unreachable warn
check 'silent for too long' "warn $id" "$(of unreachable ' \(.ids[])')"
check 'named with its host' 1 "$(meso-doctor | grep -c "^warn  unreachable .*$id on still (silent for ")"
meso-doctor > /dev/null; check 'a warning' 1 $?
kill -CONT $still; soon both
check 'it is back' ok "$(of unreachable)"
kill $agents; wait $agents
kill $master; wait $master
meso-doctor > said; check 'it fails' 2 $?
check 'nobody leads' 1 "$(grep -c '^FAIL  leader ' said)"
check 'the next step' 1 "$(grep -c '^  try: meso-master --nats .* --cluster quick' said)"
check 'what was stored is there' 1 "$(grep -c '^ok    stores' said)"
check 'what needs a leader' 1 "$(grep -c '^skip  agents' said)"
"#,
    );
}
