//! meso: runs the tool that a word names.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use meso_cli::{Exit, Failure, FailureKind, LineOut, io_text};
use meso_core::json::quoted;

/// What a tool's file is called before its word.
const PREFIX: &str = "meso-";
/// A word further away than this is not what was meant.
const DISTANCE_MAX: usize = 2;
/// A longer word names no tool.
const WORD_BYTES_MAX: usize = 64;

/// Our own tools and what each does, in the order in which one meets them.
const TOOLS: [(&str, &str); 18] = [
    ("up", "a whole cluster on this machine in one command"),
    ("launch", "runs a task: on any fitting offer, or on the offers it reads"),
    ("ps", "lists tasks, agents, masters, frameworks, offers and roles"),
    ("logs", "prints or follows a task's output, running or finished"),
    ("wait", "waits for tasks, exits with their code"),
    ("kill", "ends tasks or a framework, with grace"),
    ("exec", "runs a command inside a running task's container"),
    ("events", "the cluster's event stream as JSON lines"),
    ("explain", "says why a task or framework is waiting, agent by agent"),
    ("offer", "registers a framework and prints its offers as JSON lines"),
    ("allocate", "the allocation policy as a filter"),
    ("role", "shows and sets weight, priority, guarantee and limit"),
    ("reserve", "dynamic reservations"),
    ("volume", "persistent volumes"),
    ("drain", "takes an agent out of service, and back"),
    ("doctor", "says what is not well on this machine and in the cluster"),
    ("master", "the leader or a standby: keeps the books, makes offers"),
    ("agent", "one per machine: runs and supervises tasks"),
];

/// Run a tool of the kit
///
/// `meso ps` is meso-ps: found beside this program, or on PATH, so that a script called meso-foo is `meso foo`. Without a word, lists the tools
/// there are. `meso help TOOL` shows a tool's manual page.
#[derive(clap::Parser)]
#[command(after_help = "Examples:\n  meso\n  meso ps agents\n  meso help launch", disable_help_subcommand = true)]
struct Args {
    /// Tool, without its meso-, and its arguments
    #[arg(value_name = "TOOL", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

fn main() -> ExitCode {
    meso_cli::main(meso_cli::tool!(Plain), run)
}

async fn run(args: Args) -> Result<Exit, Failure> {
    let mut words = args.words.into_iter();
    match words.next() {
        None => list(),
        Some(word) if word == "help" => help(words.next()),
        Some(word) if word.as_encoded_bytes().starts_with(b"-") => Err(Failure::usage(format!("unexpected argument {}", quoted(&word.to_string_lossy()))).hint("meso --help")),
        Some(word) => {
            let program = find(&word)?;
            Err(exec(Command::new(&program).args(words), &program))
        }
    }
}

/// Becomes another program; returns only if it cannot.
fn exec(command: &mut Command, program: &Path) -> Failure {
    let error = command.exec();
    Failure::new(FailureKind::Failed, format!("running {}: {}", program.display(), io_text(&error)))
}

fn list() -> Result<Exit, Failure> {
    let beside = folder();
    let mut text = String::from("meso TOOL [ARGUMENT...] runs a tool of the kit; meso help TOOL shows its manual.\n\n");
    for (word, what) in TOOLS {
        if beside.as_ref().is_some_and(|folder| is_program(&folder.join(format!("{PREFIX}{word}")))) {
            text.push_str(&format!("  {word:<10}{what}\n"));
        }
    }
    // Who has read enough is no failure.
    let _ = LineOut::stdout()?.bytes(text.trim_end().as_bytes())?;
    Ok(Exit::DONE)
}

/// The manual of a tool, or where there is none its own help.
fn help(word: Option<OsString>) -> Result<Exit, Failure> {
    let page = match &word {
        None => OsString::from("meso"),
        Some(word) => find(word)?.file_name().map(OsStr::to_owned).unwrap_or_default(),
    };
    let has_page = Command::new("man").arg("-w").arg(&page).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if has_page {
        return Err(exec(Command::new("man").arg(&page), Path::new("man")));
    }
    match word {
        None => list(),
        Some(word) => {
            let program = find(&word)?;
            Err(exec(Command::new(&program).arg("--help"), &program))
        }
    }
}

/// The program of a word: beside this one, or on PATH.
fn find(word: &OsStr) -> Result<PathBuf, Failure> {
    let shown = quoted(&word.to_string_lossy());
    let is_word = |text: &&str| text.len() <= WORD_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let text = word.to_str().filter(is_word).ok_or_else(|| Failure::usage(format!("{shown} is no tool")).hint("meso, which lists them"))?;
    let name = format!("{PREFIX}{}", text.strip_prefix(PREFIX).unwrap_or(text));
    let path = env::var_os("PATH").unwrap_or_default();
    let found = folder().into_iter().chain(env::split_paths(&path)).map(|folder| folder.join(&name)).find(|path| is_program(path));
    found.ok_or_else(|| {
        let hint = nearest(text).map_or_else(|| "meso, which lists them".to_owned(), |near| format!("meso {near}"));
        Failure::usage(format!("there is no tool {shown}")).hint(hint)
    })
}

/// The tool that a mistyped word is nearest to, if it is near and there.
fn nearest(text: &str) -> Option<&'static str> {
    let beside = folder()?;
    let there = TOOLS.iter().map(|(word, _)| *word).filter(|word| is_program(&beside.join(format!("{PREFIX}{word}"))));
    there.map(|word| (distance(text, word), word)).filter(|(distance, word)| *distance <= DISTANCE_MAX && *distance < word.len()).min().map(|(_, word)| word)
}

/// How many letters must be put in, taken out or changed, two neighbours swapped counting as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// Where this program itself stands.
fn folder() -> Option<PathBuf> {
    env::current_exe().ok()?.parent().map(Path::to_owned)
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}
