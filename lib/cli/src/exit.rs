//! Exit codes, and the failures that end a tool with one
use std::{error::Error, fmt, io};

/// The exit code of a tool, 0 to 255.
///
/// Codes order by number, so that the highest of several tasks' codes is their maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Exit(u8);

impl Exit {
    /// Done; the task or tasks exited 0.
    pub const DONE: Exit = Exit(0);
    /// Something is not as it should be, and works (`meso-doctor`).
    pub const WARNS: Exit = Exit(1);
    /// Something does not work (`meso-doctor`).
    pub const FAILS: Exit = Exit(2);
    /// The answer was no: no such task, refused.
    pub const NO: Exit = Exit(1);
    /// Wrong usage of a tool that does not speak for a task.
    pub const USAGE: Exit = Exit(2);
    /// A line of input was not what we read.
    pub const BAD_INPUT: Exit = Exit(65);
    /// Bus or master not reachable.
    pub const UNREACHABLE: Exit = Exit(69);
    /// A fault of our own program.
    pub const INTERNAL: Exit = Exit(70);
    /// What must be kept could not be written.
    pub const STORAGE: Exit = Exit(74);
    /// Not now: no offer in time, a name held by another, an overlap.
    pub const NOT_NOW: Exit = Exit(75);
    /// Not permitted by the bus or by policy.
    pub const DENIED: Exit = Exit(77);
    /// Configuration or state on disk is wrong.
    pub const CONFIG: Exit = Exit(78);
    /// `--timeout` hit.
    pub const TIMED_OUT: Exit = Exit(124);
    /// meso itself failed, said by a tool that speaks for a task.
    pub const OURS: Exit = Exit(125);
    /// The command is there and cannot be executed.
    pub const NOT_EXECUTABLE: Exit = Exit(126);
    /// The command was not found on the agent.
    pub const NOT_FOUND: Exit = Exit(127);

    /// A task's own code, unchanged.
    pub const fn task(code: u8) -> Exit {
        Exit(code)
    }

    /// The code of a task that died by a signal: 128 + the signal's number, as a shell says it.
    ///
    /// Numbers above 127, which no kernel has, end at 255.
    pub const fn signal(number: u8) -> Exit {
        Exit(128u8.saturating_add(number))
    }

    /// The number itself.
    pub const fn code(self) -> u8 {
        self.0
    }
}

/// Whom a tool's exit code speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolKind {
    /// For itself: each kind of failure has a code of its own.
    Plain,
    /// For a task (`meso-launch`, `meso-exec`, `meso-wait`): nearly every number may be the task's, so what is ours is 125.
    Speaks,
    /// For what it looks at (`meso-doctor`): the worst that it found; what it could not look at is as bad as what fails.
    Judges,
}

impl ToolKind {
    /// The rows of the EXIT STATUS section: a code and its meaning.
    pub fn exit_status(self) -> &'static [(&'static str, &'static str)] {
        match self {
            ToolKind::Plain => &[
                ("0", "Done."),
                ("1", "The answer was no: there is no such thing, or it was refused."),
                ("2", "Wrong usage."),
                ("65", "A line of input was not what is read here."),
                ("69", "The bus or a master is not reachable."),
                ("75", "Not now: the name is held by another, or the time was over."),
                ("77", "Not permitted by the bus or by policy."),
                ("78", "Configuration or state on disk is wrong."),
            ],
            ToolKind::Speaks => &[
                ("0", "Every task exited 0."),
                ("1..255", "The task's own code; of several tasks, the highest."),
                ("75", "Not now: no offer by the deadline, or the name is held by another."),
                ("124", "The time limit was hit."),
                ("125", "meso itself failed: wrong usage, no bus, refused, lost."),
                ("126", "The command was found on the agent and cannot be executed."),
                ("127", "The command was not found on the agent."),
                ("128+n", "The task died by signal n."),
            ],
            ToolKind::Judges => &[
                ("0", "All that was looked at is well."),
                ("1", "There are warnings, and nothing worse."),
                ("2", "Something fails; also wrong usage."),
            ],
        }
    }
}

/// What kind of thing went wrong; it decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The answer was no, or the tool could not do its own part (a file it cannot write).
    Failed,
    /// Wrong usage.
    Usage,
    /// A line of input was not what we read.
    Input,
    /// Bus or master not reachable.
    Unreachable,
    /// A fault of our own program.
    Internal,
    /// Not now.
    NotNow,
    /// Not permitted.
    Denied,
    /// Configuration or state on disk is wrong.
    Config,
    /// What must be kept could not be written.
    Storage,
    /// `--timeout` hit.
    TimedOut,
    /// The reader of our stdout has gone; nothing to say about it.
    ReaderGone,
}

/// Why a tool ends: what happened, and the next step where one is known.
///
/// Both texts are lowercase fragments without a final period. They may quote what others wrote: they are escaped when printed.
#[derive(Debug)]
pub struct Failure {
    kind: FailureKind,
    what: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure of a kind; `what` says what happened and where.
    pub fn new(kind: FailureKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), hint: None }
    }

    /// The answer was no, or our own part failed: 1, or 125 for a task.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(FailureKind::Failed, what)
    }

    /// Wrong usage: 2, or 125 for a task.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(FailureKind::Usage, what)
    }

    /// A line of input was not what we read: 65, or 125 for a task.
    pub fn input(what: impl Into<String>) -> Self {
        Self::new(FailureKind::Input, what)
    }

    /// Bus or master not reachable: 69, or 125 for a task.
    pub fn unreachable(what: impl Into<String>) -> Self {
        Self::new(FailureKind::Unreachable, what)
    }

    /// A fault of our own program: 70, or 125 for a task.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(FailureKind::Internal, what)
    }

    /// Not now: 75 in every tool.
    pub fn not_now(what: impl Into<String>) -> Self {
        Self::new(FailureKind::NotNow, what)
    }

    /// Not permitted: 77, or 125 for a task.
    pub fn denied(what: impl Into<String>) -> Self {
        Self::new(FailureKind::Denied, what)
    }

    /// Configuration or state on disk is wrong: 78, or 125 for a task.
    pub fn config(what: impl Into<String>) -> Self {
        Self::new(FailureKind::Config, what)
    }

    /// What must be kept could not be written: 74, or 125 for a task.
    pub fn storage(what: impl Into<String>) -> Self {
        Self::new(FailureKind::Storage, what)
    }

    /// The time limit was hit: 124 in every tool.
    pub fn timed_out(what: impl Into<String>) -> Self {
        Self::new(FailureKind::TimedOut, what)
    }

    /// A failed write to stdout: quiet when the reader has gone, else said.
    pub fn stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(FailureKind::ReaderGone, "the reader of standard output has gone");
        }
        Self::failed(format!("writing standard output: {}", io_text(error))).hint("make room, or send the output elsewhere")
    }

    /// The same failure with the next step, printed after `try: `.
    pub fn hint(mut self, next_step: impl Into<String>) -> Self {
        self.hint = Some(next_step.into());
        self
    }

    /// The same failure, saying first what was attempted.
    pub fn context(mut self, attempt: impl fmt::Display) -> Self {
        self.what = format!("{attempt}: {}", self.what);
        self
    }

    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    pub fn what(&self) -> &str {
        &self.what
    }

    pub fn next_step(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The exit code for the tool's audience.
    pub fn exit(&self, tool: ToolKind) -> Exit {
        match (self.kind, tool) {
            (FailureKind::ReaderGone, _) => Exit::DONE,
            (FailureKind::NotNow, _) => Exit::NOT_NOW,
            (FailureKind::TimedOut, _) => Exit::TIMED_OUT,
            (_, ToolKind::Speaks) => Exit::OURS,
            (FailureKind::Internal, ToolKind::Judges) => Exit::INTERNAL,
            (_, ToolKind::Judges) => Exit::FAILS,
            (FailureKind::Failed, ToolKind::Plain) => Exit::NO,
            (FailureKind::Usage, ToolKind::Plain) => Exit::USAGE,
            (FailureKind::Input, ToolKind::Plain) => Exit::BAD_INPUT,
            (FailureKind::Unreachable, ToolKind::Plain) => Exit::UNREACHABLE,
            (FailureKind::Internal, ToolKind::Plain) => Exit::INTERNAL,
            (FailureKind::Denied, ToolKind::Plain) => Exit::DENIED,
            (FailureKind::Config, ToolKind::Plain) => Exit::CONFIG,
            (FailureKind::Storage, ToolKind::Plain) => Exit::STORAGE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Failure {}

impl From<anyhow::Error> for Failure {
    /// Folds a chain into one line, outermost first.
    ///
    /// A `Failure` or a broken pipe anywhere in the chain keeps its meaning.
    fn from(chain: anyhow::Error) -> Self {
        let what = chain.chain().map(|link| link.downcast_ref::<io::Error>().map_or_else(|| link.to_string(), io_text)).collect::<Vec<_>>().join(": ");
        for link in chain.chain() {
            if let Some(inner) = link.downcast_ref::<Failure>() {
                return Self { kind: inner.kind, what, hint: inner.hint.clone() };
            }
            if link.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
                return Self::new(FailureKind::ReaderGone, what);
            }
        }
        Self::failed(what)
    }
}

/// The system's words for an I/O error, without the error number a person has no use for.
pub fn io_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    /// Shows that each kind of failure has the contract's code for both audiences.
    #[test]
    fn the_two_audiences_get_their_codes() {
        let table = [
            (FailureKind::Failed, 1, 125),
            (FailureKind::Usage, 2, 125),
            (FailureKind::Input, 65, 125),
            (FailureKind::Unreachable, 69, 125),
            (FailureKind::Internal, 70, 125),
            (FailureKind::NotNow, 75, 75),
            (FailureKind::Denied, 77, 125),
            (FailureKind::Config, 78, 125),
            (FailureKind::Storage, 74, 125),
            (FailureKind::TimedOut, 124, 124),
            (FailureKind::ReaderGone, 0, 0),
        ];
        for (kind, plain, speaks) in table {
            let failure = Failure::new(kind, "x");
            assert_eq!(failure.exit(ToolKind::Plain).code(), plain, "{kind:?}");
            assert_eq!(failure.exit(ToolKind::Speaks).code(), speaks, "{kind:?}");
        }
    }

    /// Shows that signals map as in a shell, and that the highest code is the maximum.
    #[test]
    fn codes_of_tasks() {
        assert_eq!(Exit::signal(9).code(), 137);
        assert_eq!(Exit::signal(200).code(), 255);
        assert_eq!([Exit::task(3), Exit::DONE, Exit::signal(15)].into_iter().max(), Some(Exit::task(143)));
    }

    /// Shows that a chain is one line without error numbers, and that what stands inside keeps its code and hint.
    #[test]
    fn a_chain_becomes_one_line() {
        let missing = std::fs::read("/nonexistent/file").context("reading the list").expect_err("the file is not there");
        assert_eq!(Failure::from(missing).what(), "reading the list: no such file or directory");

        let inner: anyhow::Error = anyhow::Error::new(Failure::config("bad file").hint("mend it")).context("starting");
        let folded = Failure::from(inner);
        assert_eq!((folded.what(), folded.next_step(), folded.kind()), ("starting: bad file", Some("mend it"), FailureKind::Config));

        let gone: anyhow::Error = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("writing");
        assert_eq!(Failure::from(gone).exit(ToolKind::Plain), Exit::DONE);
    }

    /// Shows that a full disk is said while a closed pipe is not.
    #[test]
    fn stdout_failures() {
        let full = Failure::stdout(&io::Error::from_raw_os_error(28));
        assert_eq!(full.what(), "writing standard output: no space left on device");
        assert_eq!(full.exit(ToolKind::Speaks), Exit::OURS);
        assert_eq!(Failure::stdout(&io::Error::from_raw_os_error(32)).kind(), FailureKind::ReaderGone);
        assert_eq!(full.exit(ToolKind::Judges), Exit::FAILS, "what was found cannot be told");
    }
}
