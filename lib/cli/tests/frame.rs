//! The frame as a process: what a shell sees of a tool that fails, panics, or loses its reader
//!
//! This program is the test and the tool at once: started again with `MESO_FRAME_TEST` set, it is a tool.
use meso_cli::{Column, Exit, Failure, Format, LineIn, LineOut, LineRead, Listing, Progress, Row, Tool, ToolKind, Until, Written};
use std::{
    env,
    fs::File,
    io::Write,
    process::{Command, ExitCode, Output, Stdio},
};

/// Set in the process that is the tool; its value is the tool's kind.
const AS_TOOL: &str = "MESO_FRAME_TEST";

/// Do as told
#[derive(clap::Parser)]
struct Args {
    /// What to do
    what: String,
}

async fn act(args: Args) -> Result<Exit, Failure> {
    match args.what.as_str() {
        "code" => Ok(Exit::task(3)),
        "fail" => Err(Failure::config("bad \u{1b}[2J file\nmeso: fine").hint("mend it")),
        "panic" => panic!("SecretTypeName"),
        "panic-in-task" => {
            tokio::spawn(async { panic!("SecretTypeName") });
            std::future::pending().await
        }
        "lines" => {
            let mut out = LineOut::stdout()?;
            loop {
                if out.bytes(b"line")? == Written::ReaderGone {
                    return Ok(Exit::task(7));
                }
            }
        }
        "listing" => {
            let row = serde_json::json!({"id": "task_1", "text": "x".repeat(1000)});
            let rows = vec![Row::from(row.as_object().cloned().expect("it is an object")); 1000];
            let _ = Listing { columns: vec![Column::id("ID", "id")], rows }.print(&Format::Jsonl)?;
            Ok(Exit::DONE)
        }
        "table" => {
            let row = serde_json::json!({"id": "task_7k3q9x2mfa", "text": "日本語".repeat(40), "cpus": 1.5});
            let rows = vec![Row::from(row.as_object().cloned().expect("it is an object"))];
            let columns = vec![Column::id("ID", "id"), Column::text("TEXT", "text"), Column::number("CPUS", "cpus")];
            let _ = Listing { columns, rows }.print(&Format::Table)?;
            Ok(Exit::DONE)
        }
        "work" => {
            let bar = Progress::bar(3, false);
            let mut out = LineOut::stdout()?;
            for step in 1..=3 {
                tokio::time::sleep(std::time::Duration::from_millis(150)).await;
                let _ = out.bytes(format!("step {step}").as_bytes())?;
                meso_cli::complain("a word");
                bar.advance(1);
            }
            Ok(Exit::DONE)
        }
        "read-one-line" => {
            let mut lines = LineIn::stdin(Until::Newline);
            match lines.next().await? {
                Some(LineRead::Line { number: 1, bytes }) if bytes == b"one" => Ok(Exit::task(11)),
                _ => Ok(Exit::NO),
            }
        }
        "read-nothing" => {
            let mut lines = LineIn::stdin(Until::Newline);
            tokio::select! {
                _ = lines.next() => Ok(Exit::NO),
                () = tokio::time::sleep(std::time::Duration::from_millis(20)) => Ok(Exit::task(12)),
            }
        }
        other => Err(Failure::usage(format!("cannot {other}"))),
    }
}

fn main() -> ExitCode {
    if let Some(kind) = env::var_os(AS_TOOL) {
        let kind = if kind == "speaks" { ToolKind::Speaks } else { ToolKind::Plain };
        let prose = ".TH MESO\\-FRAME 1\n@OPTIONS@\n@EXIT@\n";
        return meso_cli::main(Tool { name: "meso-frame", kind, prose }, act);
    }
    let tests: [(&str, fn()); 9] = [
        ("codes_by_audience", codes_by_audience),
        ("failures_are_two_harmless_lines", failures_are_two_harmless_lines),
        ("panics_show_no_insides", panics_show_no_insides),
        ("a_reader_that_leaves_is_no_failure", a_reader_that_leaves_is_no_failure),
        ("a_full_disk_is_a_failure", a_full_disk_is_a_failure),
        ("early_ends_need_nothing", early_ends_need_nothing),
        ("a_pipe_gets_data_only", a_pipe_gets_data_only),
        ("stdin_never_holds_the_tool", stdin_never_holds_the_tool),
        ("arguments_may_be_anything", arguments_may_be_anything),
    ];
    let wanted = env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    for (name, test) in tests.into_iter().filter(|(name, _)| name.contains(&wanted)) {
        test();
        let _ = writeln!(std::io::stdout(), "test {name} ... ok");
    }
    ExitCode::SUCCESS
}

fn tool(kind: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    command.env_clear().env(AS_TOOL, kind).args(args).stdin(Stdio::null());
    command
}

fn run(kind: &str, args: &[&str]) -> Output {
    tool(kind, args).output().expect("this program can be started")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Shows that a task's code passes through, and that our own failures have the code of the audience.
fn codes_by_audience() {
    let table = [("code", 3, 3), ("fail", 78, 125), ("panic", 70, 125), ("panic-in-task", 70, 125), ("nonsense", 2, 125), ("--nonsense", 2, 125), ("--help", 0, 0)];
    for (what, plain, speaks) in table {
        assert_eq!(run("plain", &[what]).status.code(), Some(plain), "{what}");
        assert_eq!(run("speaks", &[what]).status.code(), Some(speaks), "{what}");
    }
}

/// Shows the two lines of a failure: the tool's name and what happened, then the next step; foreign text cannot add a third.
fn failures_are_two_harmless_lines() {
    let output = run("plain", &["fail"]);
    assert_eq!(stderr(&output), "meso-frame: bad \\u{1b}[2J file\\u{a}meso: fine\n  try: mend it\n");
    assert!(output.stdout.is_empty());
    assert_eq!(stderr(&run("plain", &[])), "meso-frame: the following required arguments were not provided: <WHAT>\n  try: meso-frame --help\n");
}

/// Shows that a panic, also in a task nobody waits for, ends the tool without showing its insides, unless asked for.
fn panics_show_no_insides() {
    for what in ["panic", "panic-in-task"] {
        let said = stderr(&run("plain", &[what]));
        assert!(said.starts_with("meso-frame: internal error\n  try: ") && said.lines().count() == 2, "{said}");
        assert!(!said.contains("Secret") && !said.contains("panicked") && !said.contains(".rs"), "{said}");
        let debug = tool("plain", &[what]).env("MESO_DEBUG", "1").output().expect("this program can be started");
        assert!(stderr(&debug).contains("SecretTypeName"), "{}", stderr(&debug));
    }
}

/// Shows that a reader who leaves ends a listing with 0, and leaves a streaming tool its own code; nothing is said.
fn a_reader_that_leaves_is_no_failure() {
    for (what, code) in [("lines", 7), ("listing", 0), ("--help", 0)] {
        let mut child = tool("plain", &[what]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("this program can be started");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(code), ""), "{what}");
    }
}

/// Shows that output that does not fit on the disk is said, with the code of a failure.
fn a_full_disk_is_a_failure() {
    for what in ["lines", "listing", "--help", "--version"] {
        let full = File::options().write(true).open("/dev/full").expect("Linux has one");
        let output = tool("plain", &[what]).stdout(full).output().expect("this program can be started");
        assert_eq!(output.status.code(), Some(1), "{what}");
        assert!(stderr(&output).starts_with("meso-frame: writing standard output: no space left on device\n"), "{what}: {}", stderr(&output));
    }
}

/// Shows that version, man page and completions come out without any environment.
fn early_ends_need_nothing() {
    let text = |args: &[&str]| {
        let output = run("speaks", args);
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{args:?}");
        String::from_utf8(output.stdout).expect("it is text")
    };
    assert_eq!(text(&["--version"]), format!("meso-frame {}\n", meso_cli::VERSION));
    assert!(text(&["--generate", "man"]).contains("128+n"));
    assert!(text(&["--generate", "bash"]).contains("meso-frame"));
    assert_eq!(run("plain", &["--generate", "pdf"]).status.code(), Some(2));
}

/// Shows that where nobody looks there is no bar, no bold and no cut, whatever the environment says of a terminal.
fn a_pipe_gets_data_only() {
    let run = |what: &str| tool("plain", &[what]).envs([("TERM", "xterm-256color"), ("COLUMNS", "40")]).output().expect("this program can be started");
    let work = run("work");
    assert_eq!(String::from_utf8_lossy(&work.stdout), "step 1\nstep 2\nstep 3\n");
    assert_eq!(stderr(&work), "meso-frame: a word\n".repeat(3));
    let table = String::from_utf8(run("table").stdout).expect("it is text");
    assert!(table.starts_with("ID") && table.contains(&"日本語".repeat(40)) && !table.contains('\u{1b}'), "{table}");
}

/// Shows that a tool reads what it is given, and that a read nobody waits for any more does not keep it from ending.
fn stdin_never_holds_the_tool() {
    for (what, code) in [("read-one-line", 11), ("read-nothing", 12)] {
        let mut child = tool("plain", &[what]).stdin(Stdio::piped()).spawn().expect("this program can be started");
        let mut stdin = child.stdin.take().expect("it is piped");
        if what == "read-one-line" {
            stdin.write_all(b"one\n").expect("the tool reads it");
        }
        // stdin stays open until the tool has ended.
        assert_eq!(child.wait().expect("it ends").code(), Some(code), "{what}");
        drop(stdin);
    }
}

/// Shows that arguments that are not text, or full of control characters, are refused in harmless lines.
fn arguments_may_be_anything() {
    use std::os::unix::ffi::OsStrExt;
    for bytes in [b"\xff\xfe".as_slice(), b"--\x1b[2J\x07", b"a\nb\n\n\ttip: c", b"-\x9b"] {
        let output = tool("plain", &[]).arg(std::ffi::OsStr::from_bytes(bytes)).output().expect("this program can be started");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with("meso-frame: ") && said.lines().count() <= 2, "{said:?}");
        assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{said:?}");
    }
}
