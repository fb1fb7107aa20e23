//! The frame around every tool: flags in, one async function, an exit code out
use crate::{
    exit::{Exit, Failure, ToolKind},
    generate, say,
};
use clap::{Command, Parser, error::ErrorKind};
use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};
use tokio::sync::Notify;

/// The version all tools share.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Help is never wider than this many columns: long lines are hard to read.
const HELP_COLUMNS_MAX: usize = 100;
/// Characters of clap's own message at most: it repeats what was typed, however long that is.
const USAGE_CHARS_MAX: usize = 400;
/// Set to anything, it makes an internal error print its place and backtrace.
const DEBUG_VARIABLE: &str = "MESO_DEBUG";

static PANICKED: Notify = Notify::const_new();
static HAS_PANICKED: AtomicBool = AtomicBool::new(false);

/// What the frame needs to know of a tool; made by [`tool!`](crate::tool).
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// Its name, as typed.
    pub name: &'static str,
    pub kind: ToolKind,
    /// The prose of its man page with placeholders, see [`generate`].
    pub prose: &'static str,
}

/// The [`Tool`] of the binary this stands in: `tool!(Plain)`, `tool!(Speaks)` or `tool!(Judges)`.
///
/// The man page's prose is `man/prose/<name>.1`, beside the package's Cargo.toml.
#[macro_export]
macro_rules! tool {
    ($kind:ident) => {
        $crate::Tool {
            name: env!("CARGO_BIN_NAME"),
            kind: $crate::ToolKind::$kind,
            prose: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/man/prose/", env!("CARGO_BIN_NAME"), ".1")),
        }
    };
}

/// Runs a tool: parses the flags, runs the function on a current-thread runtime, says its failure, gives its exit code.
///
/// * `--help`, `--version` and the hidden `--generate man|bash|zsh|fish` end before any runtime starts.
/// * A failure is said as `tool: what happened` and `  try: the next step`.
/// * A reader of stdout that has gone is no failure; any other failed write to stdout is one.
/// * A panic, in whichever task, ends the tool with an internal error.
pub fn main<A: Parser>(tool: Tool, run: impl AsyncFnOnce(A) -> Result<Exit, Failure>) -> ExitCode {
    say::set_tool_name(tool.name);
    set_panic_hook();
    let args = env::args_os().collect::<Vec<_>>();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| match parse::<A>(tool, args) {
        Ok(args) => with_runtime(run(args)),
        Err(early) => early,
    }))
    // The hook has said it already, and it is the only one who knows where.
    .unwrap_or(Ok(Exit::INTERNAL));
    let exit = match (outcome.and_then(end_stdout), HAS_PANICKED.load(Ordering::SeqCst)) {
        (_, true) => Failure::internal("").exit(tool.kind),
        (Ok(exit), _) => exit,
        (Err(failure), _) => {
            if failure.kind() != crate::FailureKind::ReaderGone {
                say::report(&failure);
            }
            failure.exit(tool.kind)
        }
    };
    ExitCode::from(exit.code())
}

/// The clap command of a tool, with what all tools share.
pub(crate) fn command<A: Parser>(tool: Tool) -> Command {
    let command = A::command().name(tool.name).bin_name(tool.name).display_name(tool.name).version(VERSION).max_term_width(HELP_COLUMNS_MAX);
    let exit_status = exit_status_help(tool.kind);
    let after_help = match command.get_after_help() {
        Some(own) => format!("{own}\n\n{exit_status}"),
        None => exit_status,
    };
    command.after_help(after_help)
}

/// The arguments, or how the tool ends without running.
fn parse<A: Parser>(tool: Tool, args: Vec<OsString>) -> Result<A, Result<Exit, Failure>> {
    if let Some(what) = generate::asked_for(&args) {
        return Err(what.and_then(|what| generate::generate(&mut command::<A>(tool), tool, what)).and_then(|text| print(&text)));
    }
    let mut command = command::<A>(tool);
    // One try for both steps: an error is formatted with the command, which the first step borrows.
    let parsed = command.try_get_matches_from_mut(args).and_then(|mut matches| A::from_arg_matches_mut(&mut matches).map_err(|e| e.format(&mut command)));
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.print().map_err(|e| Failure::stdout(&e)).map(|()| Exit::DONE),
        _ => Err(usage_failure(tool, &error)),
    })
}

/// clap's error in our form: one line, and its own tip, if it has one, as the next step.
fn usage_failure(tool: Tool, error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let mut what = String::new();
    let mut tip = None;
    let mut in_message = true;
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(found) = trimmed.strip_prefix("tip: ") {
            tip = tip.or_else(|| next_step_of(found));
        }
        // The message is the first paragraph; usage and the pointer to --help follow.
        in_message &= !trimmed.is_empty();
        if in_message {
            if !what.is_empty() {
                what.push(' ');
            }
            what.push_str(trimmed.strip_prefix("error: ").unwrap_or(trimmed));
        }
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        what = "what to do is missing".to_owned();
    }
    Failure::usage(shortened(&what)).hint(tip.unwrap_or_else(|| format!("{} --help", tool.name)))
}

/// A long message without its middle: what was wrong stands at its ends.
fn shortened(what: &str) -> String {
    let chars = what.chars().count();
    if chars <= USAGE_CHARS_MAX {
        return what.to_owned();
    }
    let kept = USAGE_CHARS_MAX / 2;
    what.chars().take(kept).chain("...".chars()).chain(what.chars().skip(chars - kept)).collect()
}

/// What to type, out of a tip of clap's: `--often` out of `a similar argument exists: '--often'`.
///
/// Other tips, such as how to pass a mistyped flag as a value, help fewer people than the list of flags.
fn next_step_of(tip: &str) -> Option<String> {
    let (_, names) = tip.split_once("exists: ").or_else(|| tip.split_once("exist: "))?;
    Some(names.replace('\'', ""))
}

fn with_runtime(run: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("starting: {}", crate::io_text(&e))).hint("raise the limit of open files (ulimit -n)"))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = run => outcome,
            // A panic in a spawned task ends only that task; a tool that lives on without it would wait for ever.
            () = PANICKED.notified() => Ok(Exit::INTERNAL),
        }
    });
    // A read of stdin that nobody waits for any more cannot be cancelled; waiting for it would hang the tool.
    runtime.shutdown_background();
    outcome
}

/// Checks at the end that all of stdout went out.
fn end_stdout(exit: Exit) -> Result<Exit, Failure> {
    match io::stdout().flush() {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::stdout(&e)),
        // A task's code outlives a reader who left early.
        _ => Ok(exit),
    }
}

fn print(text: &str) -> Result<Exit, Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(|e| Failure::stdout(&e))?;
    Ok(Exit::DONE)
}

fn set_panic_hook() {
    let with_details = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let again = HAS_PANICKED.swap(true, Ordering::SeqCst);
        if !again {
            let hint = format!("the same again with {DEBUG_VARIABLE}=1 RUST_BACKTRACE=1, and report what it prints");
            say::report_in_panic(&Failure::internal("internal error").hint(hint));
        }
        if env::var_os(DEBUG_VARIABLE).is_some_and(|value| !value.is_empty()) {
            with_details(info);
        }
        PANICKED.notify_one();
    }));
}

fn exit_status_help(kind: ToolKind) -> String {
    let mut text = String::from("Exit status:");
    for (code, meaning) in kind.exit_status() {
        text.push_str(&format!("\n  {code:<7} {meaning}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Try things
    #[derive(clap::Parser, Debug)]
    #[command(after_help = "Examples:\n  meso-try x")]
    struct Try {
        /// How often
        #[arg(long, default_value_t = 1)]
        often: u8,
        /// What
        #[arg(value_name = "THING", required = true)]
        thing: Vec<String>,
    }

    const TRY: Tool = Tool { name: "meso-try", kind: ToolKind::Speaks, prose: "" };

    fn usage_error(args: &[&str]) -> Failure {
        let args = std::iter::once("/opt/bin/other-name").chain(args.iter().copied()).map(OsString::from).collect();
        match parse::<Try>(TRY, args) {
            Err(Err(failure)) => failure,
            other => panic!("expected a usage failure, got {other:?}"),
        }
    }

    /// Shows that a mistyped flag is one line with the flag it might have been as the next step.
    #[test]
    fn did_you_mean() {
        let failure = usage_error(&["--oftne", "3", "x"]);
        assert_eq!(failure.what(), "unexpected argument '--oftne' found");
        assert_eq!(failure.next_step(), Some("--often"));
        assert_eq!(usage_error(&["--zzz", "x"]).next_step(), Some("meso-try --help"));
        assert_eq!(failure.exit(ToolKind::Speaks), Exit::OURS);
        assert_eq!(failure.exit(ToolKind::Plain), Exit::USAGE);
    }

    /// Shows that messages of several lines are folded into one, and the tool's own name is used whatever argv[0] says.
    #[test]
    fn missing_and_wrong_values() {
        let missing = usage_error(&[]);
        assert_eq!(missing.what(), "the following required arguments were not provided: <THING>...");
        assert_eq!(missing.next_step(), Some("meso-try --help"));
        let long = usage_error(&["--often", &"9".repeat(100_000), "x"]);
        assert!(long.what().len() < 500 && long.what().starts_with("invalid value '999") && long.what().contains("9..."), "{long}");
        let wrong = usage_error(&["--often", "300", "x"]);
        assert!(wrong.what().starts_with("invalid value '300' for '--often <OFTEN>': 300 is not in 0..=255"), "{}", wrong.what());
    }

    /// Shows that help ends with the tool's own examples and then the exit codes of its audience.
    #[test]
    fn help_ends_with_the_exit_status() {
        let help = command::<Try>(TRY).render_help().to_string();
        let examples = help.find("Examples:").expect("own text is kept");
        let exit_status = help.find("Exit status:").expect("codes are listed");
        assert!(examples < exit_status && help.contains("128+n"), "{help}");
    }

    /// Shows that the command itself is well formed.
    #[test]
    fn clap_accepts_it() {
        command::<Try>(TRY).debug_assert();
    }
}
