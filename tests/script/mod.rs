//! Tests that are shell scripts, each on a cluster of its own: a bus, a master and agents as processes, under `meso-up --`

use std::process::{Command, Stdio};

/// What every script may use. A line `check NAME EXPECTED GOT` that differs fails the script and shows both.
const PRELUDE: &str = r#"
set -u
failures=0
check() { if [ "$2" != "$3" ]; then failures=$((failures + 1)); printf 'not ok: %s\n  expected: %s\n  got:      %s\n' "$1" "$2" "$3" >&2; fi; }
# Tries a command again until it is so; the script goes on in any case, and the check behind it tells.
soon() { for _ in $(seq 450); do if "$@" > /dev/null 2>&1; then return; fi; sleep 0.1; done; }
cd "$(mktemp -d)" || exit 1
trap 'kill $(jobs -p) 2> /dev/null; rm -rf "$PWD"; exit $failures' EXIT
"#;

/// Runs a script behind its own prelude on a cluster that `meso-up` makes with these options, and shows what it said if a check failed.
pub fn on_a_cluster(options: &[&str], prelude: &str, script: &str) {
    let output = Command::new("timeout")
        .args(["170", env!("CARGO_BIN_EXE_meso-up"), "-q"])
        .args(options)
        .args(["--", "bash", "-c", &format!("{PRELUDE}{prelude}{script}")])
        .stdin(Stdio::null())
        .output()
        .expect("coreutils and bash are there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} of a script\n{said}\n{}", output.status, String::from_utf8_lossy(&output.stdout));
}
