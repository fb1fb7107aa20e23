//! Wrong input of the tools that look and act: one clear line, the contract's exit code, and nothing done
//!
//! No bus is needed: each of these is refused before one is looked for, and the address leads nowhere to prove it.
use std::process::{Command, Output, Stdio};

/// An address at which nobody listens: port 1 belongs to a service that nobody runs.
const NOWHERE: &str = "nats://127.0.0.1:1";

/// Runs a tool in an environment like cron's, with stdin closed to it.
fn run(tool: &str, args: &[&str]) -> Output {
    let program = match tool {
        "meso" => env!("CARGO_BIN_EXE_meso"),
        "meso-ps" => env!("CARGO_BIN_EXE_meso-ps"),
        "meso-kill" => env!("CARGO_BIN_EXE_meso-kill"),
        "meso-wait" => env!("CARGO_BIN_EXE_meso-wait"),
        "meso-logs" => env!("CARGO_BIN_EXE_meso-logs"),
        "meso-events" => env!("CARGO_BIN_EXE_meso-events"),
        other => panic!("{other} is not tested here"),
    };
    Command::new(program).args(args).env_clear().env("MESO_NATS_URL", NOWHERE).stdin(Stdio::null()).output().expect("it was built")
}

/// A text for people: lines of `tool: what` and `  try: next step`, harmless to a terminal.
fn check_said(tool: &str, args: &[&str], output: &Output) -> String {
    let said = String::from_utf8(output.stderr.clone()).expect("it is text");
    assert!(output.stdout.is_empty(), "{tool} {args:?} printed {:?}", String::from_utf8_lossy(&output.stdout));
    let lines: Vec<&str> = said.lines().collect();
    assert!((1..=2).contains(&lines.len()), "{tool} {args:?} said {said}");
    // clap writes what may be repeated with three dots; a sentence would end with one.
    let ends_well = !lines[0].ends_with('.') || lines[0].ends_with(">...");
    assert!(lines[0].starts_with(&format!("{tool}: ")) && ends_well, "{tool} {args:?} said {said}");
    assert!(lines.get(1).is_none_or(|line| line.starts_with("  try: ")), "{tool} {args:?} said {said}");
    assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{tool} {args:?} said {said:?}");
    assert!(lines.iter().all(|line| line.len() < 500), "{tool} {args:?} said {} bytes", said.len());
    said
}

/// Shows the exit code and the first words of each wrong use.
#[test]
fn wrong_use() {
    let long = "x".repeat(100_000);
    let long = long.as_str();
    let table: &[(&str, &[&str], i32, &str)] = &[
        ("meso-ps", &["task"], 2, "invalid value 'task'"),
        ("meso-ps", &["--sate", "failed"], 2, "unexpected argument '--sate'"),
        ("meso-ps", &["--state", "FAILED"], 2, "\"FAILED\" is no state of tasks"),
        ("meso-ps", &["--state", "unknown"], 2, "\"unknown\" is no state of tasks"),
        ("meso-ps", &["--state", "\u{1b}[2J"], 2, "\"\\u{1b}[2J\" is no state"),
        ("meso-ps", &["agents", "--state", "running"], 2, "\"running\" is no state of agents"),
        ("meso-ps", &["offers", "--state", "active"], 2, "offers have no state"),
        ("meso-ps", &["agents", "-a"], 2, "-a is for tasks"),
        ("meso-ps", &["masters", "--mine"], 2, "masters are nobody's own"),
        ("meso-ps", &["-o", "xml"], 2, "invalid value 'xml'"),
        ("meso-ps", &["-o", "tsv="], 2, "invalid value 'tsv='"),
        ("meso-ps", &["-q", "-o", "json"], 2, "the argument '--quiet' cannot be used with"),
        ("meso-ps", &["tasks", "agents"], 2, "unexpected argument 'agents'"),
        ("meso-ps", &["--nats", "http://x"], 2, "the bus address \"http://x\""),
        ("meso-ps", &["--cluster", "a.b"], 2, "--cluster: \"a.b\" is not a name"),
        ("meso-ps", &["--principal", "a b"], 2, "--principal: "),
        ("meso-ps", &["--creds", "/nonexistent"], 78, "/nonexistent"),
        ("meso-ps", &["--context", "nonesuch"], 78, ""),
        ("meso-kill", &[], 2, "the following required arguments were not provided"),
        ("meso-kill", &["a.b"], 2, "invalid value 'a.b' for '[TASK]...': \"a.b\" is neither an id nor a name"),
        ("meso-kill", &["good", ""], 2, ""),
        ("meso-kill", &["\u{1b}[2J"], 2, "invalid value"),
        ("meso-kill", &[long], 2, "invalid value"),
        ("meso-kill", &["../../etc"], 2, "invalid value"),
        ("meso-kill", &["@first"], 2, "invalid value '@first'"),
        ("meso-kill", &["-s", "TERMX", "task_1"], 2, "invalid value 'TERMX' for '--signal <SIGNAL>': \"TERMX\" is no signal"),
        ("meso-kill", &["-s", "0", "task_1"], 2, "invalid value '0'"),
        ("meso-kill", &["-s", "65", "task_1"], 2, "invalid value '65'"),
        ("meso-kill", &["-s", "INT", "--grace", "1s", "task_1"], 2, "the argument '--signal <SIGNAL>' cannot be used with"),
        ("meso-kill", &["--grace", "-1", "task_1"], 2, ""),
        ("meso-kill", &["--grace", "1y", "task_1"], 2, "invalid value '1y' for '--grace <DURATION>'"),
        ("meso-kill", &["--grace", "1e308", "task_1"], 2, "invalid value '1e308'"),
        ("meso-kill", &["--grace", "NaN", "task_1"], 2, "invalid value 'NaN'"),
        ("meso-kill", &["--grace", "99999999999999999999", "task_1"], 2, "invalid value"),
        ("meso-kill", &["--framework", "a/b"], 2, "invalid value 'a/b'"),
        ("meso-kill", &["--framework", "f", "task_1"], 2, "the argument '--framework <NAME>' cannot be used with"),
        ("meso-kill", &["--framework", "f", "--wait"], 2, "the argument '--framework <NAME>' cannot be used with"),
        ("meso-wait", &[], 125, "the following required arguments were not provided"),
        ("meso-wait", &["a.b"], 125, "invalid value 'a.b'"),
        ("meso-wait", &["-"], 125, "invalid value '-'"),
        ("meso-wait", &["--timeout", "soon", "task_1"], 125, "invalid value 'soon' for '--timeout <DURATION>'"),
        ("meso-wait", &["--timeout=-5", "task_1"], 125, "invalid value '-5'"),
        ("meso-wait", &["--all", "task_1"], 125, "unexpected argument '--all'"),
        ("meso-logs", &[], 2, "the following required arguments were not provided"),
        ("meso-logs", &["a b"], 2, "invalid value 'a b'"),
        ("meso-logs", &["-n", "-1", "task_1"], 2, ""),
        ("meso-logs", &["-n", "1.5", "task_1"], 2, "invalid value '1.5' for '--lines <LINES>'"),
        ("meso-logs", &["-n", "99999999999999999999", "task_1"], 2, "invalid value"),
        ("meso-logs", &["--stdout", "--stderr", "task_1"], 2, "the argument '--stdout' cannot be used with '--stderr'"),
        ("meso-events", &["task_1"], 2, "unexpected argument 'task_1'"),
        ("meso-events", &["--kind", "offers"], 2, "invalid value 'offers'"),
        ("meso-events", &["--after", "x"], 2, "invalid value 'x' for '--after <SEQ>'"),
        ("meso-events", &["--after", "-1"], 2, ""),
        ("meso-events", &["-n", "100001"], 2, "invalid value '100001'"),
        ("meso-events", &["--since", "yesterday"], 2, "invalid value 'yesterday'"),
        ("meso", &["pss"], 2, "there is no tool \"pss\""),
        ("meso", &["-x"], 2, "unexpected argument"),
        ("meso", &["../ps"], 2, "\"../ps\" is no tool"),
        ("meso", &["a\u{1b}[2J"], 2, "\"a\\u{1b}[2J\" is no tool"),
        ("meso", &[""], 2, ""),
        ("meso", &["help", "nonesuch"], 2, "there is no tool \"nonesuch\""),
        ("meso", &[long], 2, ""),
    ];
    for (tool, args, code, words) in table {
        let output = run(tool, args);
        let said = check_said(tool, args, &output);
        assert_eq!(output.status.code(), Some(*code), "{tool} {args:?} said {said}");
        assert!(said.contains(words), "{tool} {args:?} said {said}, not {words}");
    }
}

/// Shows that without a bus each tool says so at once, where it looked and what to do next, with its own code.
#[test]
fn no_bus() {
    let table: &[(&str, &[&str], i32)] = &[
        ("meso-ps", &[], 69),
        ("meso-ps", &["agents", "-o", "json"], 69),
        ("meso-kill", &["task_1"], 69),
        ("meso-kill", &["--framework", "f"], 69),
        ("meso-kill", &["-"], 69),
        ("meso-wait", &["task_1"], 125),
        ("meso-logs", &["-f", "task_1"], 69),
        ("meso-events", &[], 69),
        ("meso", &["ps"], 69),
    ];
    for (tool, args, code) in table {
        let output = run(tool, args);
        let name = if *tool == "meso" { "meso-ps" } else { tool };
        let said = check_said(name, args, &output);
        assert_eq!(output.status.code(), Some(*code), "{tool} {args:?} said {said}");
        assert!(said.contains("no bus at nats://127.0.0.1:1") && said.contains("try: meso-up"), "{tool} {args:?} said {said}");
    }
}

/// Shows that help, version, man page and completions need neither bus nor environment.
#[test]
fn help_needs_nothing() {
    for tool in ["meso", "meso-ps", "meso-kill", "meso-wait", "meso-logs", "meso-events"] {
        for args in [&["--help"][..], &["-h"], &["--version"], &["--generate", "man"], &["--generate", "bash"], &["--generate", "zsh"], &["--generate", "fish"]] {
            let output = run(tool, args);
            assert_eq!(output.status.code(), Some(0), "{tool} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{tool} {args:?}");
        }
        let version = String::from_utf8(run(tool, &["--version"]).stdout).expect("it is text");
        assert_eq!(version, format!("{tool} {}\n", env!("CARGO_PKG_VERSION")));
    }
}

/// Shows that `meso` names a mistyped tool's neighbour, lists what stands beside it, and hands arguments on as they are.
#[test]
fn the_dispatcher() {
    let near = run("meso", &["kil"]);
    assert!(String::from_utf8_lossy(&near.stderr).contains("try: meso kill"), "{near:?}");
    let swapped = run("meso", &["sp"]);
    assert!(String::from_utf8_lossy(&swapped.stderr).contains("try: meso"), "{swapped:?}");
    let list = String::from_utf8(run("meso", &[]).stdout).expect("it is text");
    assert!(list.contains("\n  ps        lists tasks") && list.contains("\n  wait      "), "{list}");
    let help = run("meso", &["ps", "--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("Usage: meso-ps"), "{help:?}");
    let own = run("meso", &["wait", "--timeout", "soon", "task_1"]);
    assert_eq!(own.status.code(), Some(125), "the tool's own code");

    // A script on PATH is a command too, whatever its arguments look like.
    let folder = tempfile::tempdir().expect("a folder can be made");
    let script = folder.path().join("meso-shout");
    std::fs::write(&script, "#!/bin/sh\nprintf '%s|' \"$@\"\nexit 7\n").expect("it is ours");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let shout = Command::new(env!("CARGO_BIN_EXE_meso")).args(["shout", "--help", "a b", "-x", "--", ""]).env_clear().env("PATH", folder.path()).output().expect("it was built");
    assert_eq!((shout.status.code(), String::from_utf8_lossy(&shout.stdout).as_ref()), (Some(7), "--help|a b|-x|--||"), "{shout:?}");
}
