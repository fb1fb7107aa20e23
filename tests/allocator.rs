//! A program as the allocation policy, on a real cluster: one that is honest, and those that die, hang, lie or talk nonsense
//!
//! Each test is a script on a cluster of its own. A line `check NAME EXPECTED GOT` that differs fails the test and shows both.
mod script;

use std::process::Command;

const ALLOCATE: &str = env!("CARGO_BIN_EXE_meso-allocate");

/// What every script may use.
const PRELUDE: &str = r#"
launch() { timeout 60 meso-launch -q -R cpus=1,mem=32M "$@"; }
kinds() { meso-events --kind cluster | jq -r 'select(.kind | test("^(allocator|grant)_")).kind'; }
told() { meso-events --kind cluster | jq -r --arg kind "$1" 'select(.kind == $kind).message'; }
# The process of this cluster's master.
master() {
  for pid in $(cat /proc/$PPID/task/*/children); do
    case "$(tr '\0' ' ' 2>/dev/null < /proc/$pid/cmdline)" in */meso-master\ *) echo "$pid"; return;; esac
  done
}
# The allocation program: what the master runs.
program() { cat /proc/"$(master)"/task/*/children | awk '{ print $1; exit }'; }
# Agents of which more is given than they have.
overdrawn() { meso-ps agents -o jsonl | jq -c 'select(.cpus < .offered.cpus + .used.cpus or .mem < .offered.mem + .used.mem or .free.cpus < 0)'; }
"#;

/// Runs a script on a cluster whose agents have 2 cpus each and whose policy is a program.
fn on_a_cluster(agents: u32, program: &str, script: &str) {
    script::on_a_cluster(&["--agents", &agents.to_string(), "-R", "cpus=2,mem=512M,disk=1G", "--allocate", program], PRELUDE, script);
}

/// Shows that programs which cannot be used keep nobody from anything, and that the events say what they do.
#[test]
fn useless_programs() {
    for (program, said) in [
        ("exit 3", "ended with code 3"),
        ("no-such-program", "ended with code 127"),
        ("kill -9 $$", "died by signal 9"),
        ("exec <&- >&-; sleep 60", "closed its output"),
        ("while read -r line; do echo hello; done", "talks nonsense: not an object, which begins with {, but \"hello\""),
        ("echo too early; exec cat > /dev/null", "talks nonsense: not an object, which begins with {, but \"too early\""),
        ("head -c 20000000 /dev/zero | tr '\\0' x; echo; exec cat > /dev/null", "talks nonsense: a line of 20000000 bytes, of at most 16777216"),
        ("yes '{\"meso\":\"grant/1\",\"framework\":\"f\",\"agent\":\"a\"}'", "talks nonsense: more than 100000 grants"),
        // Its first answer is to an empty cluster: what it says then is not asked for.
        ("echo '{\"meso\":\"allocated/1\"}'; echo '{\"meso\":\"allocated/1\"}'; exec cat > /dev/null", "spoke without being asked"),
        ("exec sleep 60", "gave no answer within 1000 ms"),
    ] {
        let script = r#"
launch -- true; check 'a task runs' 0 $?
fails() { told allocator_failed | grep -q .; }
soon fails
said="the allocation program $SAID"; first=$(told allocator_failed | head -n 1)
check 'it is said' "$said" "${first:0:${#said}}"
check 'more of it runs' "$(seq 8 | tr '\n' ' ')" "$(launch -n 8 -c 'echo $MESO_INDEX' | sort -n | tr '\n' ' ')"
check 'nothing is given twice' '' "$(overdrawn)"
"#;
        on_a_cluster(2, program, &format!("SAID={}\n{script}", quoted(said)));
    }
}

/// Shows that a program which grants what is not there, what is others', everything twice, or to everybody, gives nobody too
/// much, and that those who want something are served by what of it makes sense.
#[test]
fn greedy_programs() {
    // To each framework: too much of each agent, more than there can be, all of it twice, and that of strangers.
    let filter = r#"
        (.frameworks[] as $f | (.agents[] | .agent, .agent), "ghost", "agent_aaaaaaaaaa"
          | {meso:"grant/1", framework:($f.framework, "fw_aaaaaaaaaa"), agent:.}
          | ., .+{tasks:4000000000}, .+{cpus:1000000000000}, .+{cpus:2,mem:512,ports:1}, .+{cpus:0.001}, .+{other:{licenses:1}}, .+{port_ranges:[[1,65535]]}),
        {meso:"allocated/1"}"#;
    on_a_cluster(
        2,
        &format!("exec jq -c --unbuffered {}", quoted(filter)),
        r#"
launch -- true; check 'a task runs' 0 $?
meso-offer > offers & meso-offer > others &
holds() { [ "$(meso-ps offers -q | wc -l)" -ge 2 ]; }
soon holds
check 'nothing is given twice' '' "$(overdrawn)"
kill %1 %2; wait
check 'all of them' "$(seq 12 | tr '\n' ' ')" "$(launch -n 12 -c 'echo $MESO_INDEX' | sort -n | tr '\n' ' ')"
check 'nothing is given twice later' '' "$(overdrawn)"
check 'it is said' grant_refused "$(kinds | sort -u)"
check 'with the reason' 1 "$(told grant_refused | head -n 1 | grep -cE '^[0-9]+ grants of the allocation program refused: ')"
"#,
    );
}

/// Shows that amounts which cannot be are no grants: the program is not believed, and the built-in policy serves.
#[test]
fn impossible_amounts() {
    for amount in ["-1", "1000000000000000000", "1e300", "\"NaN\"", "0.0001"] {
        let filter = format!(r#"(.frameworks[] as $f | .agents[] | {{meso:"grant/1",framework:$f.framework,agent,cpus:{amount}}}), {{meso:"allocated/1"}}"#);
        on_a_cluster(
            1,
            &format!("exec jq -c --unbuffered {}", quoted(&filter)),
            r#"
launch -- true; check 'a task runs' 0 $?
check 'it is said' 1 "$(told allocator_failed | grep -c 'talks nonsense: ')"
check 'nothing is given twice' '' "$(overdrawn)"
"#,
        );
    }
}

/// Shows that a program which was well and stops answering is ended and started again, and serves again; and that it ends
/// with its master, however that ends.
#[test]
fn a_program_that_hangs() {
    on_a_cluster(
        1,
        &format!("exec {ALLOCATE}"),
        r#"
launch -- true; check 'a task runs' 0 $?
check 'it was well' '' "$(kinds)"
stopped=$(program); kill -STOP "$stopped"
launch -- true; check 'another one' 0 $?
check 'it is said' 1 "$(told allocator_failed | grep -c 'gave no answer within 1000 ms')"
is_back() { kinds | grep -q allocator_back; }
soon is_back
check 'it was ended' gone "$(kill -0 "$stopped" 2> /dev/null || echo gone)"
launch -- true; check 'the third' 0 $?
check 'by a new one' 'allocator_failed allocator_back' "$(kinds | tr '\n' ' ' | sed 's/ $//')"
killed=$(program); kill "$killed"
is_back_again() { [ "$(kinds | grep -c allocator_back)" = 2 ]; }
soon is_back_again
check 'it died while nobody asked' 1 "$(told allocator_failed | grep -c 'died by signal 15')"
for signal in TERM KILL; do
  before=$(master); its=$(program)
  kill -$signal "$before"
  ended() { ! kill -0 "$its"; }
  soon ended
  check "it ends with a master that gets $signal" gone "$(kill -0 "$its" 2> /dev/null || echo gone)"
  is_new() { [ -n "$(master)" ] && [ "$(master)" != "$before" ] && [ -n "$(program)" ]; }
  soon is_new
done
launch -- true; check 'the last' 0 $?
"#,
    );
}

/// Shows that the line which the program is given is that of `meso-ps snapshot`, that meso-allocate says the same to it
/// wherever it runs, and that what it says is what is offered.
#[test]
fn what_is_said_is_what_is_offered() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let seen = folder.path().to_str().expect("UTF-8");
    on_a_cluster(
        3,
        &format!("tee -a {seen}/asked | {ALLOCATE} --trace | tee -a {seen}/said"),
        &format!(
            r#"
seen={seen}
offers() {{ meso-ps offers -o jsonl | jq -c '[.framework, .agent, .cpus, .mem, .port_ranges]' | sort; }}
said() {{ jq -c 'select(.meso == "grant/1") | [.framework, .agent, .cpus, .mem, (.port_ranges // [])]' | sort; }}
meso-ps snapshot -o jsonl > before
meso-offer > whole &
holds() {{ [ "$(meso-ps offers -q | wc -l)" = "$1" ]; }}
soon holds 3
asked=$(jq -c 'select(.frameworks != [])' $seen/asked)
check 'the line of meso-ps' "$(jq -c .agents before)" "$(head -n 1 <<< "$asked" | jq -c .agents)"
check 'what was said is offered' "$(said < $seen/said)" "$(offers)"
check 'three agents' 3 "$(offers | wc -l)"
check 'the same again' "$(cat $seen/said)" "$(meso-allocate --trace < $seen/asked)"
kill %1; wait
soon holds 0
: > $seen/asked; : > $seen/said
meso-offer -R cpus=0.5,mem=64M,ports=2 > tasks &
some() {{ [ "$(said < $seen/said | wc -l)" -gt 0 ] && ! holds 0; }}
soon some
check 'whole tasks, too' "$(said < $seen/said)" "$(offers)"
check 'as elsewhere' "$(said < $seen/said)" "$(meso-allocate < $seen/asked | said)"
check 'nothing failed' '' "$(kinds)"
"#
        ),
    );
}

/// Shows that a command that is none is wrong usage.
#[test]
fn no_command() {
    let said = Command::new(env!("CARGO_BIN_EXE_meso-master")).args(["--allocate", " "]).output().expect("meso-master can be started");
    assert_eq!(said.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&said.stderr), "meso-master: --allocate: the command is empty\n  try: --allocate meso-allocate\n");
}

/// A word as the shell takes it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
