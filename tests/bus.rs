//! A bus of three servers that are killed, stand still and are restarted under load: every task runs once, and all its output comes once
//!
//! `MESO_TEST_AWAY_S=60 cargo test --release --test bus majority` has a majority away for a minute in place of 20 seconds.

mod script;

use std::net::TcpListener;

/// How long a majority is away, if nobody says otherwise.
const AWAY_S: u64 = 20;

const PRELUDE: &str = r#"
server() { cut -d' ' -f1 "$STATE/run/nats-server-$1.pid"; }
# Launches tasks that each leave a line, and keeps what is said of them: load NAME COUNT
load() {
    seq "$2" | MESO_PATIENCE=150s meso-launch -j 8 -R cpus=0.2,mem=16M --retries-lost 20 --each - -c "echo {} >> '$PWD/ran.$1'; sleep 0.3; echo {}" > "out.$1" 2> "said.$1"
    echo $? > "code.$1"
}
# Every one of them ran once, and was printed once: once NAME COUNT
once() {
    check "$1: code" 0 "$(cat "code.$1")"
    check "$1: ran once" "$(seq "$2")" "$(sort -n "ran.$1")"
    check "$1: printed once" "$(seq "$2")" "$(sort -n "out.$1")"
    [ "$(cat "code.$1")" = 0 ] || tail -n 3 "said.$1" >&2
}
ran() { [ "$(cat "ran.$1" 2> /dev/null | wc -l)" -ge "$2" ]; }
leaders() { meso-events --kind cluster | jq -c 'select(.kind == "leader")' | wc -l; }
# A task that lives through all of it, and says so at its end
steady() { meso-launch --name steady -R cpus=0.1,mem=16M -c "echo begun; until [ -e '$PWD/end' ]; do sleep 0.1; done; echo done; exit 9" > steady 2> steady.said; echo $? > steady.code; }
# Its code, and all that it wrote
steady_ends() {
    touch end
    wait "$1"
    check 'the steady task' '9 begun done' "$(cat steady.code) $(xargs < steady)"
    [ "$(cat steady.code)" = 9 ] || cat steady.said >&2
}
"#;

/// The first of three ports that nobody has, below those that are given out to whoever asks for any.
fn port_of_three() -> String {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let any = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("some port is free").port();
    let first = (0..1_000).map(|step| 10_000 + (any + 3 * step) % 10_000).find(|first| (*first..*first + 3).all(is_free));
    first.expect("most of them are free").to_string()
}

/// Runs a script on a bus of three servers, whose processes `server N` gives.
fn on_three_servers(script: &str) {
    let state = tempfile::Builder::new().prefix("bus-test-").tempdir().expect("a temporary directory");
    let path = state.path().to_str().expect("the name is ours");
    let port = port_of_three();
    let options = ["--bus", "3", "--masters", "2", "--agents", "2", "-R", "cpus=2,mem=512M", "--state", path, "--port", &port];
    script::on_a_cluster(&options, &format!("STATE={path}\n{PRELUDE}"), script);
}

/// Shows that any one server may be killed, stand still or be restarted, one after the other, and that nobody but the servers notices.
#[test]
fn one_of_three() {
    on_three_servers(
        r#"
meso-launch -- true; check 'before' 0 $?
steady & steady=$!
soon grep begun steady
before=$(leaders)
load killed 90 & load=$!
soon ran killed 5
for i in 1 2 3; do
    was=$(server $i)
    kill -9 "$was"
    again() { now=$(server $i) && [ -n "$now" ] && [ "$now" != "$was" ]; }
    soon again
    # An election takes up to 9 s; the next is not to fall into it, or a majority would be away.
    soon sh -c 'meso-doctor | grep -q "^ok    stores"'
done
wait $load; once killed 90
load paused 60 & load=$!
soon ran paused 5
kill -STOP "$(server 1)"
sleep 6
meso-launch --start-deadline 30s -R cpus=0.1 -- true; check 'while one stands still' 0 $?
kill -CONT "$(server 1)"
wait $load; once paused 60
load restarted 60 & load=$!
soon ran restarted 5
for i in 3 2 1; do
    was=$(server $i)
    kill -TERM "$was"
    soon again
    soon sh -c 'meso-doctor | grep -q "^ok    stores"'
done
wait $load; once restarted 60
steady_ends $steady
check 'all copies are there' 'ok' "$(meso-doctor --json | jq -r 'select(.check == "stores") | .state')"
echo "leaders before and after: $before $(leaders)" >&2
"#,
    );
}

/// Shows that nothing is launched while a majority of the servers is away, that what runs goes on, and that all of it is made up for.
#[test]
fn a_majority() {
    let away_s = std::env::var("MESO_TEST_AWAY_S").ok().and_then(|text| text.parse().ok()).unwrap_or(AWAY_S);
    let script = r#"
steady & steady=$!
soon grep begun steady
load before 60 & load=$!
soon ran before 5
kill -STOP "$(server 2)" "$(server 3)"
# Longer than a lease. What was accepted before it ended may still begin; without one nothing more is accepted.
sleep 12
is_quiet() { local was; was=$(cat ran.before | wc -l); sleep 3; [ "$was" = "$(cat ran.before | wc -l)" ]; }
soon is_quiet
during=$(cat ran.before | wc -l)
load during 20 & later=$!
sleep $((AWAY_S - 12))
check 'nothing is launched meanwhile' "$during 0" "$(cat ran.before | wc -l) $(cat ran.during 2> /dev/null | wc -l)"
kill -CONT "$(server 2)" "$(server 3)"
wait $load; once before 60
wait $later; once during 20
meso-launch -- true; check 'after' 0 $?
steady_ends $steady
"#;
    on_three_servers(&format!("AWAY_S={away_s}\n{script}"));
}

/// Shows that masters which are started again with --replicas 3 have everything copied, and that what was set is still there.
#[test]
fn from_one_copy_to_three() {
    on_three_servers(
        r#"
export MESO_CLUSTER=two
meso-master 2> master.1 & master=$!
soon meso-ps masters -q
meso-role set eng --weight 3
check 'one copy' warn "$(meso-doctor --json | jq -r 'select(.check == "stores") | .state')"
kill $master; wait $master
meso-master --replicas 3 2> master.3 & master=$!
soon sh -c 'meso-doctor | grep -q "^ok    stores .*3 copies"'
check 'three copies' 'lease, registry, checkpoint and events, 3 copies' "$(meso-doctor --json | jq -r 'select(.check == "stores") | .saw')"
check 'what was set' 3 "$(meso-ps roles -o tsv=weight)"
check 'one term' 1 "$(grep -c 'leading under' master.3)"
[ $failures = 0 ] || cat master.1 master.3 >&2
"#,
    );
}
