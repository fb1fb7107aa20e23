//! One process that is kept running: started, started again when it dies, and ended in order
use super::{guard::guarded, process::Process};
use crate::io_text;
use rustix::process::Signal;
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::{
        fs::OpenOptionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

/// Pause before a dead process is started again; it doubles with each death that follows soon.
const PAUSE_MS: u64 = 100;
const PAUSE_MS_MAX: u64 = 10_000;
/// A process that lived so long was well: its next death begins with the short pause again.
const STEADY_MS: u64 = 10_000;
/// How much of the end of a log is read for its last words.
const LAST_WORDS_BYTES: u64 = 4096;
/// How the tools begin the line that says what to do.
const TRY: &str = "  try: ";

/// What is to be kept running.
#[derive(Clone, Debug)]
pub(super) struct KeptSpec {
    /// What people call it.
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Set besides our own environment.
    pub env: Vec<(&'static str, OsString)>,
    /// Taken out of our own environment.
    pub env_removed: &'static [&'static str],
    pub log: PathBuf,
    /// Holds the process's number while it runs.
    pub pid_file: PathBuf,
    /// How long it may take to end before it is killed.
    pub stop_ms: u64,
    /// Codes with which it says that starting it again cannot help: then it is left be.
    pub last_codes: &'static [i32],
}

/// A death that nobody asked for.
#[derive(Clone, Debug)]
pub(super) struct Death {
    pub name: String,
    /// How it ended, for people.
    pub how: String,
    /// Its exit code, if it exited by itself.
    pub code: Option<i32>,
    /// When it is started again, milliseconds; not at all where it said that this cannot help.
    pub pause_ms: Option<u64>,
    pub log: PathBuf,
}

/// A process that is kept running until told otherwise.
#[derive(Debug)]
pub(super) struct Kept {
    wish: watch::Sender<Wish>,
    keeper: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    Run,
    Stop,
    Kill,
}

impl Kept {
    /// Starts it; deaths are told as they happen, or not at all if nobody keeps up.
    pub(super) fn start(spec: KeptSpec, deaths: mpsc::Sender<Death>) -> Kept {
        let (wish, heard) = watch::channel(Wish::Run);
        Kept { wish, keeper: tokio::spawn(keep(spec, heard, deaths)) }
    }

    /// Asks it to end; it is killed if it takes too long.
    pub(super) fn stop(&self) {
        self.wish.send_if_modified(|wish| {
            let is_new = *wish == Wish::Run;
            *wish = (*wish).max(Wish::Stop);
            is_new
        });
    }

    /// Ends it at once.
    pub(super) fn kill(&self) {
        self.wish.send_replace(Wish::Kill);
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&mut self) {
        // The task ends only by returning; if it panicked the frame says so.
        let _ = (&mut self.keeper).await;
    }
}

async fn keep(spec: KeptSpec, mut wish: watch::Receiver<Wish>, deaths: mpsc::Sender<Death>) {
    let mut pause_ms = PAUSE_MS;
    loop {
        let began = Instant::now();
        let (how, code) = match spec.spawn() {
            Ok(mut child) => match attend(&mut child, &mut wish, spec.stop_ms).await {
                _ if *wish.borrow() != Wish::Run => {
                    spec.forget();
                    return;
                }
                Some(status) => (how_text(status), status.code()),
                None => ("was lost".to_owned(), None),
            },
            Err(e) => (format!("cannot be started: {}", io_text(&e)), None),
        };
        spec.forget();
        if began.elapsed() >= Duration::from_millis(STEADY_MS) {
            pause_ms = PAUSE_MS;
        }
        let is_last = code.is_some_and(|code| spec.last_codes.contains(&code));
        // Whoever listens is told; with a full queue there are deaths enough to tell of.
        let _ = deaths.try_send(Death { name: spec.name.clone(), how, code, pause_ms: (!is_last).then_some(pause_ms), log: spec.log.clone() });
        if is_last {
            return;
        }
        tokio::select! {
            () = sleep(Duration::from_millis(pause_ms)) => {}
            _ = wish.changed() => return,
        }
        pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
    }
}

/// Waits for the end of a process, and brings it about when that is wished; gives how it ended, if the system says so.
async fn attend(child: &mut Child, wish: &mut watch::Receiver<Wish>, stop_ms: u64) -> Option<ExitStatus> {
    let mut killed = false;
    let mut deadline = None;
    loop {
        tokio::select! {
            status = child.wait() => return status.ok(),
            heard = wish.changed(), if !killed => match (heard, *wish.borrow()) {
                (Ok(()), Wish::Run) => {}
                (Ok(()), Wish::Stop) => {
                    if let Some(process) = child.id().and_then(Process::of) {
                        process.signal(Signal::TERM);
                    }
                    deadline = Some(Instant::now() + Duration::from_millis(stop_ms));
                }
                // Nobody is left to wish anything.
                (Ok(()), Wish::Kill) | (Err(_), _) => {
                    killed = true;
                    // It may have ended by itself just now.
                    let _ = child.start_kill();
                }
            },
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() && !killed => {
                killed = true;
                let _ = child.start_kill();
            }
        }
    }
}

impl KeptSpec {
    fn spawn(&self) -> io::Result<Child> {
        let log = File::options().create(true).append(true).mode(0o600).open(&self.log)?;
        let mut command = guarded(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        for name in self.env_removed {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C at the terminal is for us to act on, in our order.
        command.process_group(0);
        let child = Command::from(command).kill_on_drop(true).spawn()?;
        if let Some(process) = child.id().and_then(Process::of) {
            // Without the file the next start does not find what this one leaves; that alone is no reason not to run.
            let _ = fs::write(&self.pid_file, process.to_string());
        }
        Ok(child)
    }

    fn forget(&self) {
        // The next start finds out that the process has gone.
        let _ = fs::remove_file(&self.pid_file);
    }
}

/// How a process ended, for people: `ended with code 3`, `died by signal 9`.
pub fn how_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("died by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// What a process last said in its log, and what it said to try; empty if it said nothing.
pub(super) fn last_words(log: &Path) -> (String, Option<String>) {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(end.saturating_sub(LAST_WORDS_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let mut lines = text.lines().rev().filter(|line| !line.trim().is_empty());
    let last = lines.next().unwrap_or_default();
    match last.strip_prefix(TRY) {
        Some(hint) => (lines.next().unwrap_or_default().trim().to_owned(), Some(hint.to_owned())),
        None => (last.trim().to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that the last words are the last line, or the line before the hint, of however long a log.
    #[test]
    fn last_words_of_a_log() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("log");
        let words = |text: &str| {
            fs::write(&path, text).expect("it is ours");
            last_words(&path)
        };
        assert_eq!(words(&format!("{}\nmeso-agent: no disk\n  try: rm\n", "x".repeat(10_000))), ("meso-agent: no disk".into(), Some("rm".into())));
        assert_eq!(words("one\ntwo\n\n"), ("two".into(), None));
        assert_eq!(words(""), (String::new(), None));
        assert_eq!(last_words(Path::new("/nonexistent")), (String::new(), None));
    }
}
