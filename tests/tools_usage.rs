//! Wrong input of the tools that look and act: one clear line, the contract's exit code, and nothing done
//!
//! No bus is needed: each of these is refused before one is looked for, and the address leads nowhere to prove it.
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// An address at which nobody listens: port 1 belongs to a service that nobody runs.
const NOWHERE: &str = "nats://127.0.0.1:1";

/// Runs a tool in an environment like cron's, with stdin closed to it.
fn run(tool: &str, args: &[&str]) -> Output {
    let program = match tool {
        "meso" => env!("CARGO_BIN_EXE_meso"),
        "meso-allocate" => env!("CARGO_BIN_EXE_meso-allocate"),
        "meso-offer" => env!("CARGO_BIN_EXE_meso-offer"),
        "meso-ps" => env!("CARGO_BIN_EXE_meso-ps"),
        "meso-role" => env!("CARGO_BIN_EXE_meso-role"),
        "meso-explain" => env!("CARGO_BIN_EXE_meso-explain"),
        "meso-doctor" => env!("CARGO_BIN_EXE_meso-doctor"),
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
    let kinds: Vec<String> = (10..27).map(|number| format!("k{number}=1")).collect();
    let kinds = kinds.join(",");
    let kinds = kinds.as_str();
    let table: &[(&str, &[&str], i32, &str)] = &[
        ("meso-allocate", &["--policy", "lottery"], 2, "invalid value 'lottery' for '--policy <POLICY>' [possible values: drf, priority, fair, random]"),
        ("meso-allocate", &["--seed", "-1"], 2, ""),
        ("meso-allocate", &["--seed", "18446744073709551616"], 2, "invalid value '18446744073709551616'"),
        ("meso-allocate", &["-o", "json"], 2, "invalid value 'json' for '--output <FORMAT>' [possible values: jsonl, table]"),
        ("meso-allocate", &["snapshot.json"], 2, "unexpected argument 'snapshot.json'"),
        ("meso-allocate", &["--nats", "nats://x"], 2, "unexpected argument '--nats'"),
        ("meso-offer", &["offer_1"], 2, "unrecognized subcommand 'offer_1'"),
        ("meso-offer", &["-e", "offer"], 2, "invalid value 'offer' for '--events <KINDS>'"),
        ("meso-offer", &["-o", "table"], 2, "lines come as jsonl or as tsv=FIELD,FIELD"),
        ("meso-offer", &["-R", "mem=256m"], 2, "-R: "),
        ("meso-offer", &["--where", "cpus >"], 2, "--where: "),
        ("meso-offer", &["--framework", "a.b"], 2, "--framework: "),
        ("meso-offer", &["--standby"], 2, "the following required arguments were not provided"),
        ("meso-offer", &["--framework", "f", "--standby", "--takeover"], 2, "cannot be used with"),
        ("meso-offer", &["--wait", "1s"], 2, "the following required arguments were not provided"),
        ("meso-offer", &["--once", "-e", "all"], 2, "a batch has offers only"),
        ("meso-offer", &["--once", "--exec", "true"], 2, "cannot be used with"),
        ("meso-offer", &["--max-open", "0"], 2, "invalid value '0'"),
        ("meso-offer", &["--grace", "-1"], 2, ""),
        ("meso-offer", &["--ack", "never"], 2, "invalid value 'never'"),
        ("meso-offer", &["decline"], 2, "the following required arguments were not provided"),
        ("meso-offer", &["decline", "a.b"], 2, "is not an offer id"),
        ("meso-offer", &["ack", "u_1"], 2, "\"u_1\" is not the \"ack\" of an update line"),
        ("meso-ps", &["snapshot", "-a"], 2, "the snapshot is shown whole"),
        ("meso-ps", &["snapshot", "-q"], 2, "the snapshot is shown whole"),
        ("meso-ps", &["snapshot", "--state", "active"], 2, "the snapshot is shown whole"),
        ("meso-ps", &["snapshot", "-o", "tsv=agents"], 2, "the snapshot is no table of fields or ids"),
        ("meso-ps", &["task"], 2, "invalid value 'task'"),
        ("meso-ps", &["--sate", "failed"], 2, "unexpected argument '--sate'"),
        ("meso-ps", &["--state", "FAILED"], 2, "\"FAILED\" is no state of tasks"),
        ("meso-ps", &["--state", "lost"], 2, "\"lost\" is no state of tasks"),
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
        ("meso-ps", &["roles", "--state", "active"], 2, "roles have no state"),
        ("meso-ps", &["roles", "--mine"], 2, "roles are nobody's own"),
        ("meso-role", &["list"], 2, "invalid value 'list' for '[VERB]'"),
        ("meso-role", &["ls", "eng"], 2, "ls lists all roles"),
        ("meso-role", &["ls", "--dry-run"], 2, "ls changes nothing"),
        ("meso-role", &["--weight", "2"], 2, "are for set"),
        ("meso-role", &["rm", "eng", "--weight", "2"], 2, "are for set"),
        ("meso-role", &["rm", "eng", "--force"], 2, "are for set"),
        ("meso-role", &["rm"], 2, "set and rm need a role"),
        ("meso-role", &["set", "--weight", "2"], 2, "set and rm need a role"),
        ("meso-role", &["set", "eng"], 2, "nothing is said of what to set for eng"),
        ("meso-role", &["set", "eng", "--force"], 2, "nothing is said of what to set for eng"),
        ("meso-role", &["set", "eng", "--weight", "2", "-o", "json"], 2, "set and rm print nothing"),
        ("meso-role", &["set", "eng", "ops", "--weight", "2"], 2, "unexpected argument 'ops'"),
        ("meso-role", &["set", "..", "--weight", "2"], 2, "\"..\" is not a role"),
        ("meso-role", &["set", "eng/../ops", "--weight", "2"], 2, "\"eng/../ops\" is not a role"),
        ("meso-role", &["set", "eng//x", "--weight", "2"], 2, "\"eng//x\" is not a role"),
        ("meso-role", &["set", "/eng", "--weight", "2"], 2, "\"/eng\" is not a role"),
        ("meso-role", &["set", "eng/", "--weight", "2"], 2, "\"eng/\" is not a role"),
        ("meso-role", &["set", "", "--weight", "2"], 2, "\"\" is not a role"),
        ("meso-role", &["set", "a/b/c/d/e/f/g/h/i", "--weight", "2"], 2, "is not a role"),
        ("meso-role", &["set", "\u{1b}[2J", "--weight", "2"], 2, "is not a role"),
        ("meso-role", &["set", long, "--weight", "2"], 2, "is not a role"),
        ("meso-role", &["rm", "eng:"], 2, "\"\" is no name or id of a framework"),
        ("meso-role", &["rm", "eng:a:b"], 2, "\"a:b\" is no name or id of a framework"),
        ("meso-role", &["set", "eng", "--weight", "0"], 2, "invalid value '0' for '--weight <WEIGHT>': a weight is above 0"),
        ("meso-role", &["set", "eng", "--weight", "0.000"], 2, "invalid value '0.000' for '--weight <WEIGHT>': a weight is above 0"),
        ("meso-role", &["set", "eng", "--weight", "-1"], 2, "invalid value '-1' for '--weight <WEIGHT>': an amount is never negative"),
        ("meso-role", &["set", "eng", "--weight", "NaN"], 2, "invalid value 'NaN'"),
        ("meso-role", &["set", "eng", "--weight", "inf"], 2, "invalid value 'inf'"),
        ("meso-role", &["set", "eng", "--weight", "1e3"], 2, "invalid value '1e3'"),
        ("meso-role", &["set", "eng", "--weight", "0.0001"], 2, "more than 3 decimals"),
        ("meso-role", &["set", "eng", "--weight", "100000.001"], 2, "at most 100000"),
        ("meso-role", &["set", "eng", "--weight", ""], 2, "an amount is missing"),
        ("meso-role", &["set", "eng", "--priority", "1.5"], 2, "invalid value '1.5'"),
        ("meso-role", &["set", "eng", "--priority", "1000000001"], 2, "invalid value '1000000001'"),
        ("meso-role", &["set", "eng", "--priority", "-9223372036854775809"], 2, "invalid value '-9223372036854775809'"),
        ("meso-role", &["set", "eng", "--guarantee", "cpus=0"], 2, "a guarantee of no cpus says nothing"),
        ("meso-role", &["set", "eng", "--guarantee", "cpus=-1"], 2, "\"cpus=-1\": an amount is never negative"),
        ("meso-role", &["set", "eng", "--guarantee", "cpus=NaN"], 2, "invalid value 'cpus=NaN'"),
        ("meso-role", &["set", "eng", "--guarantee", "mem=256m"], 2, "write 256M"),
        ("meso-role", &["set", "eng", "--guarantee", "gpus=0.5"], 2, "gpus are given whole"),
        ("meso-role", &["set", "eng", "--guarantee", "cpus=1,cpus=2"], 2, "this name stands twice"),
        ("meso-role", &["set", "eng", "--guarantee", "ports=2"], 2, "ports can be neither guaranteed nor limited"),
        ("meso-role", &["set", "eng", "--guarantee", "None"], 2, "neither = nor :"),
        ("meso-role", &["set", "eng", "--limit", "ports=[31000-31005]"], 2, "ports can be neither guaranteed nor limited"),
        ("meso-role", &["set", "eng", "--limit", ""], 2, "no resources"),
        ("meso-role", &["set", "eng", "--limit", "cpus=inf"], 2, "invalid value 'cpus=inf'"),
        ("meso-role", &["set", "eng", "--limit", kinds], 2, "one kind of resources more than the 16"),
        ("meso-explain", &[], 2, "the following required arguments were not provided"),
        ("meso-explain", &["a.b"], 2, "\"a.b\" is neither an id nor a name"),
        ("meso-explain", &["task_1", "task_2"], 2, "unexpected argument 'task_2'"),
        ("meso-explain", &["task_1", "-R", "cpus=1"], 2, "cannot be used with"),
        ("meso-explain", &["task_1", "--on", "h1"], 2, "cannot be used with"),
        ("meso-explain", &["--on", "h1"], 2, "the following required arguments were not provided"),
        ("meso-explain", &["-R", "cpus=-1"], 2, "-R: \"cpus=-1\": an amount is never negative"),
        ("meso-explain", &["-R", "cpus=NaN"], 2, "-R: "),
        ("meso-explain", &["-R", ""], 2, "-R: "),
        ("meso-explain", &["-R", "mem=256m"], 2, "write 256M"),
        ("meso-explain", &["-R", "cpus=1", "--where", "cpus =< 4"], 2, "--where: "),
        ("meso-explain", &["-R", "cpus=1", "--where", long], 2, "--where: "),
        ("meso-explain", &["-R", "cpus=1", "--role", "a/../b"], 2, "--role: \"a/../b\" is not a role"),
        ("meso-explain", &["-R", "cpus=1", "--on", "\u{1b}[2J"], 2, "--on: that is no agent's id or host name"),
        ("meso-explain", &["-R", "cpus=1", "-o", "table"], 2, "invalid value 'table'"),
        ("meso-doctor", &["bus"], 2, "unexpected argument 'bus'"),
        ("meso-doctor", &["-o", "json"], 2, "unexpected argument '-o'"),
        ("meso-doctor", &["--agent-beat", "soon"], 2, "invalid value 'soon' for '--agent-beat <TIME>'"),
        ("meso-doctor", &["--agent-beat", "0"], 2, "invalid value '0' for '--agent-beat <TIME>'"),
        ("meso-doctor", &["--agent-beat=-1"], 2, "invalid value '-1'"),
        ("meso-doctor", &["--nats", "http://x"], 2, "the bus address \"http://x\""),
        ("meso-doctor", &["--cluster", "a.b"], 2, "--cluster: \"a.b\" is not a name"),
        ("meso-doctor", &["--local", "--cluster", "a.b"], 2, "cannot be used with"),
        ("meso-kill", &[], 2, "the following required arguments were not provided"),
        ("meso-kill", &["a.b"], 2, "invalid value 'a.b' for '[TASK]...': \"a.b\" is neither an id nor a name"),
        ("meso-kill", &["good", ""], 2, ""),
        ("meso-kill", &["--gone"], 2, "no agent is named"),
        ("meso-kill", &["--force", "task_1"], 2, "the following required arguments were not provided"),
        ("meso-kill", &["--gone", "h1", "--grace", "1s"], 2, "cannot be used with"),
        ("meso-kill", &["--gone", "h1", "--framework", "f"], 2, "cannot be used with"),
        ("meso-offer", &["--on-unreachable", "perhaps"], 2, "invalid value 'perhaps' for '--on-unreachable <WHAT>' [possible values: keep, kill]"),
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
        ("meso-ps", &["snapshot", "-o", "jsonl"], 69),
        ("meso-offer", &[], 69),
        ("meso-offer", &["--once"], 69),
        ("meso-offer", &["--peek"], 69),
        ("meso-offer", &["suppress", "f"], 69),
        ("meso-ps", &["roles"], 69),
        ("meso-role", &[], 69),
        ("meso-role", &["set", "eng", "--weight", "2"], 69),
        ("meso-role", &["set", "eng", "--priority", "-1", "--limit", "gpus=0", "--guarantee", "none", "--dry-run", "-o", "json"], 69),
        ("meso-role", &["rm", "eng:nightly"], 69),
        ("meso-explain", &["task_1"], 69),
        ("meso-explain", &["-R", "cpus=1", "--where", "attr.rack == r1", "--role", "eng/x", "--on", "h1", "--revocable", "-o", "json"], 69),
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

/// Runs meso-allocate on these bytes.
fn allocate(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_meso-allocate")).args(args).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it was built");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it does not panic").expect("everything is read");
    output
}

/// Shows that what is no snapshot is said by its number and reason, that the lines around it are served, and the code.
#[test]
fn lines_that_are_no_snapshots() {
    let good = r#"{"meso":"snapshot/1","agents":[{"agent":"a1","cpus":2,"free":{"cpus":2}}],"frameworks":[{"framework":"f1","demand":{"cpus":1,"count":1}}]}"#;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bad: &[(&str, &str)] = &[
        ("nonsense", "not an object"),
        ("{", "ends in the middle"),
        ("{}", "missing key `meso`"),
        (r#"{"meso":"grant/1"}"#, "the kind \"grant/1\" is not snapshot/1"),
        (r#"{"meso":"snapshot/1","agents":[{"agent":"a1","cpus":-4,"free":{}}],"frameworks":[]}"#, "the amount -4 is negative"),
        (r#"{"meso":"snapshot/1","agents":[{"agent":"a1","cpus":1e400,"free":{}}],"frameworks":[]}"#, "number out of range"),
        (r#"{"meso":"snapshot/1","agents":[],"frameworks":[{"framework":"\u001b[2J"}]}"#, "is not a framework id"),
        ("\u{1b}[2J\u{7}", "not an object"),
        (&deep, ""),
    ];
    for (line, words) in bad {
        let output = allocate(&[], format!("{good}\n{line}\n\n{good}").as_bytes());
        let said = String::from_utf8(output.stderr).expect("it is text");
        assert_eq!(output.status.code(), Some(65), "{said}");
        assert!(said.starts_with("meso-allocate: line 2: ") && said.contains(words) && said.lines().count() == 1 && said.len() < 500, "{said}");
        assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{said:?}");
        let lines = String::from_utf8(output.stdout).expect("it is text");
        let kinds: Vec<&str> = lines.lines().map(|line| line.split('"').nth(3).unwrap_or_default()).collect();
        assert_eq!(kinds, ["grant/1", "allocated/1", "grant/1", "allocated/1"], "{lines}");
    }
    let mut binary = vec![0xff, 0xfe, b'\n'];
    binary.extend_from_slice(good.as_bytes());
    assert_eq!(allocate(&[], &binary).status.code(), Some(65));
    let nothing = allocate(&["--trace"], b"");
    assert_eq!((nothing.status.code(), nothing.stdout.len(), nothing.stderr.len()), (Some(0), 0, 0));
}

/// Shows that the same line gives the same lines, that the seed moves tasks to other agents, and that a closed pipe is the end.
#[test]
fn allocate_is_a_filter() {
    let agents: Vec<String> = (0..5).map(|number| format!(r#"{{"agent":"a{number}","cpus":2,"free":{{"cpus":2}}}}"#)).collect();
    let line = format!(r#"{{"meso":"snapshot/1","agents":[{}],"frameworks":[{{"framework":"f1","demand":{{"cpus":1,"count":2}}}}]}}"#, agents.join(","));
    let said = |args: &[&str]| String::from_utf8(allocate(args, line.as_bytes()).stdout).expect("it is text");
    assert_eq!(said(&[]), said(&["--seed", "0"]));
    assert_eq!(said(&["--seed", "5"]), said(&[]), "modulo the number of agents");
    assert!(said(&[]).contains(r#""agent":"a0""#) && said(&["--seed", "3"]).contains(r#""agent":"a3""#), "{}", said(&["--seed", "3"]));
    let script = r#"for i in 1 2 3 4 5 6 7 8 9; do echo "$1"; done | "$2" --trace | head -n 1 > /dev/null; echo "${PIPESTATUS[1]}""#;
    let output = Command::new("bash").args(["-c", script, "bash", &line, env!("CARGO_BIN_EXE_meso-allocate")]).stdin(Stdio::null()).output().expect("bash is there");
    assert_eq!((String::from_utf8_lossy(&output.stdout).trim(), output.stderr.len()), ("0", 0), "{output:?}");
}

/// Shows that help, version, man page and completions need neither bus nor environment.
#[test]
fn help_needs_nothing() {
    for tool in ["meso", "meso-allocate", "meso-offer", "meso-ps", "meso-role", "meso-doctor", "meso-kill", "meso-wait", "meso-logs", "meso-events"] {
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
