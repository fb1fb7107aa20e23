//! Wrong input of the tools that run things: one clear line, the contract's exit code, and nothing changed

use std::fs;

use crate::cluster::Cluster;
use crate::process::Ran;

/// What is wrong with how a tool refused, if anything: people may read one line of what happened, perhaps one of what to
/// do, harmless to a terminal.
fn flaw(ran: &Ran, tool: &str, args: &[&str], code: i32, words: &str) -> Option<String> {
    let lines: Vec<&str> = ran.err.lines().collect();
    let is_clear = (1..=2).contains(&lines.len())
        && lines[0].starts_with(&format!("{tool}: "))
        && !lines[0].ends_with('.')
        && lines.get(1).is_none_or(|line| line.starts_with("  try: "))
        && !ran.err.chars().any(|c| c.is_control() && c != '\n')
        && ran.err.len() < 1_000
        && !ran.err.contains("panicked");
    if is_clear && ran.out.is_empty() && ran.code == code && ran.err.contains(words) {
        return None;
    }
    let shown: Vec<String> = args.iter().map(|arg| arg.chars().take(60).collect()).collect();
    let said: String = ran.err.chars().take(1_000).collect();
    Some(format!("{tool} {shown:?}: {} in place of {code}, {words:?} expected; it wrote {:?} and said {said:?}\n", ran.code, ran.text()))
}

/// Shows that meso-launch refuses what is wrong with 125, before anything is done.
#[test]
fn launches() {
    let cluster = Cluster::start();
    let (long, deep) = ("x".repeat(100_000), format!("{}cpus > 1{}", "(".repeat(5_000), ")".repeat(5_000)));
    let folder = cluster.text_path("");
    let env_file = cluster.text_path("env");
    fs::write(&env_file, "GOOD=1\nno equals sign and \u{1b}[2J\n").expect("it is ours");
    let table: &[(&[&str], &str)] = &[
        (&[], "there is no command"),
        (&["--"], "there is no command"),
        (&["--", ""], "empty"),
        (&["--", "echo", &long, &long, &long], "bytes"),
        (&["-e", &format!("A={long}"), "-e", &format!("B={long}"), "-e", &format!("C={long}"), "--", "true"], "bytes"),
        (&["-R", "cpus=-1", "--", "true"], "-R: "),
        (&["-R", "cpus=NaN", "--", "true"], "-R: "),
        (&["-R", "cpus=inf", "--", "true"], "-R: "),
        (&["-R", "cpus=1e308", "--", "true"], "-R: "),
        (&["-R", "cpus=0.0001", "--", "true"], "-R: "),
        (&["-R", "cpus=0", "--", "true"], "0.01 cpus"),
        (&["-R", "cpus=", "--", "true"], "-R: "),
        (&["-R", "=1", "--", "true"], "-R: "),
        (&["-R", "cpus", "--", "true"], "-R: "),
        (&["-R", "", "--", "true"], ""),
        (&["-R", "mem=256m", "--", "true"], "-R: "),
        (&["-R", "mem=99999999999999999999", "--", "true"], "-R: "),
        (&["-R", "mem=9223372036854775807G", "--", "true"], "-R: "),
        (&["-R", "ports=70000", "--", "true"], "-R: "),
        (&["-R", "ports=[5-1]", "--", "true"], "-R: "),
        (&["-R", "cpus=1\u{1b}[2J", "--", "true"], "-R: "),
        (&["-R", &long, "--", "true"], "-R: "),
        (&["--cpus", "x", "--", "true"], "--cpus: "),
        (&["--cpus", "-1", "--", "true"], "-"),
        (&["--mem", "256m", "--", "true"], "--mem: "),
        (&["--mem", "-5", "--", "true"], "-"),
        (&["--gpus", "0.5", "--", "true"], "--gpus: "),
        (&["--ports", "65536", "--", "true"], "--ports "),
        (&["--ports", "1.5", "--", "true"], "--ports "),
        (&["--cpus-limit", "0.5", "--", "true"], "cpus_limit"),
        (&["--where", "cpus >", "--", "true"], "--where: "),
        (&["--where", &deep, "--", "true"], "--where: "),
        (&["--where", "attr.x == \"\u{1b}[2J", "--", "true"], "--where: "),
        (&["--on", "", "--", "true"], "--on: "),
        (&["--on", "\u{7}", "--", "true"], "--on: "),
        (&["--name", "", "--", "true"], "--name: "),
        (&["--name", "a b", "--", "true"], "--name: "),
        (&["--name", "a.b", "--", "true"], "--name: "),
        (&["--name", "../x", "--", "true"], "--name: "),
        (&["--name", "\u{1b}[2J", "--", "true"], "--name: "),
        (&["--name", &long, "--", "true"], "--name: "),
        (&["--framework", "a/b", "--", "true"], "--framework: "),
        (&["--framework", "*", "--", "true"], "--framework: "),
        (&["--role", "/", "--", "true"], "--role: "),
        (&["--role", "a//b", "--", "true"], "--role: "),
        (&["--role", "..", "--", "true"], "--role: "),
        (&["--timeout", "0", "--", "true"], "--timeout: "),
        (&["--timeout", "-1s", "--", "true"], "-"),
        (&["--timeout", "1y", "--", "true"], "--timeout: "),
        (&["--timeout", "NaN", "--", "true"], "--timeout: "),
        (&["--timeout", "1e308", "--", "true"], "--timeout: "),
        (&["--timeout", "99999999999999999999h", "--", "true"], "--timeout: "),
        (&["--start-deadline", "soon", "--", "true"], "--start-deadline: "),
        (&["--kill-grace", "", "--", "true"], "--kill-grace: "),
        (&["-n", "0", "--", "true"], "-n "),
        (&["-n", "-1", "--", "true"], ""),
        (&["-n", "99999999999", "--", "true"], "-n "),
        (&["-n", "two", "--", "true"], "two"),
        (&["-j", "0", "-n", "2", "--", "true"], "-j "),
        (&["-n", "2", "-i", "--", "cat"], "-i "),
        (&["-i", "-d", "--", "cat"], "-i and -d"),
        (&["-d", "--retries", "1", "--", "true"], "--retries"),
        (&["--retries", "-1", "--", "true"], ""),
        (&["-k", "--", "true"], "-k and --tag"),
        (&["--tag", "--", "true"], "-k and --tag"),
        (&["--each", "/nonexistent/file", "--", "echo"], "/nonexistent/file"),
        (&["--each", &folder, "--", "echo"], "directory"),
        (&["--each", "a", "--each0", "b", "--", "echo"], "--each"),
        (&["-n", "2", "--each", "a", "--", "echo"], "cannot be used with"),
        (&["-c", "true", "--", "false"], "cannot be used with"),
        (&["--on-disconnect", "maybe", "--", "true"], "maybe"),
        (&["-e", "=x", "--", "true"], "-e: "),
        (&["-e", "", "--", "true"], "-e: "),
        (&["--env-file", "/nonexistent/file", "--", "true"], "/nonexistent/file"),
        (&["--env-file", &env_file, "--", "true"], "line 2"),
        (&["--report", "/nonexistent/file", "--", "true"], "/nonexistent/file"),
        (&["-o", "yaml", "--dry-run", "--", "true"], "yaml"),
        (&["-o", "json", "--", "true"], "--dry-run"),
        (&["--no-such-flag", "--", "true"], "--no-such-flag"),
        (&["--nats", "http://x", "--", "true"], "http://x"),
        (&["--nats", "", "--", "true"], ""),
        (&["--cluster", "a b", "--", "true"], "--cluster: "),
        (&["--creds", "/nonexistent/file", "--", "true"], "/nonexistent/file"),
        (&["--context", "nonesuch", "--", "true"], "nonesuch"),
    ];
    let flaws: String = table.iter().filter_map(|(args, words)| flaw(&cluster.launch(args), "meso-launch", args, 125, words)).collect();
    assert!(flaws.is_empty(), "{flaws}");
    for what in ["tasks", "frameworks"] {
        assert_eq!(cluster.tool("meso-ps", &[what, "-q"]).expect(0).text(), "", "something was changed");
    }
    assert_eq!(cluster.tool("meso-ps", &["-a", "-q"]).expect(0).text(), "", "something was changed");
}

/// Shows that the daemons and meso-up refuse what is wrong with 2, or 78 where a file is.
#[test]
fn daemons() {
    let cluster = Cluster::start();
    let long = "x".repeat(100_000);
    let work_dir = cluster.text_path("work");
    let agent = |args: &'static [&'static str]| -> Vec<&str> { [&["--work-dir", &work_dir][..], args].concat() };
    let table: &[(&str, Vec<&str>, i32)] = &[
        ("meso-agent", agent(&["-R", "cpus=-1"]), 2),
        ("meso-agent", agent(&["-R", "cpus=NaN"]), 2),
        ("meso-agent", agent(&["-R", "mem=256m"]), 2),
        ("meso-agent", agent(&["-R", "ports=[5-1]"]), 2),
        ("meso-agent", agent(&["-R", "ports=[1-2,2-3]x"]), 2),
        ("meso-agent", agent(&["-R", "\u{1b}[2J"]), 2),
        ("meso-agent", agent(&["--attr", "="]), 2),
        ("meso-agent", agent(&["--attr", "a b=c"]), 2),
        ("meso-agent", agent(&["--attr", "rack"]), 2),
        ("meso-agent", agent(&["--attr", "rack=\u{1b}[2J"]), 2),
        ("meso-agent", agent(&["--host", ""]), 2),
        ("meso-agent", agent(&["--host", "\u{1b}[2J"]), 2),
        ("meso-agent", agent(&["--host", "a b"]), 2),
        ("meso-agent", agent(&["--log-cap", "lots"]), 2),
        ("meso-agent", agent(&["--log-cap", "-1"]), 2),
        ("meso-agent", agent(&["--cgroups", "on"]), 2),
        ("meso-agent", agent(&["extra"]), 2),
        ("meso-agent", agent(&["--cluster", "a.b"]), 2),
        ("meso-agent", agent(&["--creds", "/nonexistent/file"]), 78),
        ("meso-master", vec!["--lease", "soon"], 2),
        ("meso-master", vec!["--lease", "1s"], 2),
        ("meso-master", vec!["--lease", "0"], 2),
        ("meso-master", vec!["--replicas", "0"], 2),
        ("meso-master", vec!["--replicas", "9"], 2),
        ("meso-master", vec!["--offer-timeout", "0"], 2),
        ("meso-master", vec!["--offer-timeout", "-1"], 2),
        ("meso-master", vec!["--agent-beat", "1ms"], 2),
        ("meso-master", vec!["--agent-timeout", "1s"], 2),
        ("meso-master", vec!["--session-timeout", "NaN"], 2),
        ("meso-master", vec!["--host", ""], 2),
        ("meso-master", vec!["--host", "\u{1b}[2J"], 2),
        ("meso-master", vec!["--host", &long], 2),
        ("meso-master", vec!["--creds", "/nonexistent/file"], 78),
        ("meso-up", vec!["--agents", "0", "--", "true"], 2),
        ("meso-up", vec!["--agents", "-1", "--", "true"], 2),
        ("meso-up", vec!["--agents", "many", "--", "true"], 2),
        ("meso-up", vec!["--masters", "0", "--", "true"], 2),
        ("meso-up", vec!["--port", "65536", "--", "true"], 2),
        ("meso-up", vec!["-R", "cpus=NaN", "--", "true"], 2),
        ("meso-up", vec!["--state", "/dev/null/x", "--", "true"], 78),
    ];
    let flaws: String = table.iter().filter_map(|(tool, args, code)| flaw(&cluster.tool(tool, args), tool, args, *code, "")).collect();
    assert!(flaws.is_empty(), "{flaws}");
    assert_eq!(cluster.tool("meso-ps", &["masters", "-q"]).expect(0).lines().len(), 1);
    assert_eq!(cluster.tool("meso-ps", &["agents", "-q"]).expect(0).lines().len(), 1);
}

/// Shows that texts of others never reach a terminal raw: names of commands, output of listings, remarks.
#[test]
fn texts_of_others() {
    let cluster = Cluster::start();
    let evil = "\u{1b}[2J\u{7}\r\nevil\u{9b}31m";
    let ran = cluster.launch(&["--", &format!("/nonexistent/{evil}")]).expect(127);
    assert!(!ran.err.trim_end().chars().any(|c| c.is_control()), "{:?}", ran.err);
    cluster.launch(&["-e", &format!("EVIL={evil}"), "-c", &format!("exit 3 # {evil}")]).expect(3);
    for format in ["table", "wide"] {
        let listed = cluster.tool("meso-ps", &["-a", "-o", format]).expect(0).text();
        assert!(!listed.chars().any(|c| c.is_control() && c != '\n'), "{listed:?}");
        assert_eq!(listed.lines().count(), 3, "{listed:?}");
    }
    for line in cluster.tool("meso-ps", &["-a", "-o", "jsonl"]).expect(0).lines() {
        serde_json::from_str::<serde_json::Value>(&line).expect("one object a line");
    }
}
