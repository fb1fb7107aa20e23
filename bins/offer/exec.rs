//! `--exec`: one program is the whole framework. Lines go to its standard input, calls come from its standard output.

use std::process::Stdio;

use meso_cli::client::{Leader, Scheduler, Seat};
use meso_cli::{Exit, Failure, LineIn, LineRead, Until, complain, io_text, json_text};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until};

/// How many answers wait for the program to read them; beyond it no more of its calls are read.
pub const RESULTS_MAX: usize = 256;

/// The first pause before a program that failed is started again; pauses double up to [`AGAIN_MS_MAX`].
const AGAIN_MS: u64 = 1_000;
/// See [`AGAIN_MS`].
const AGAIN_MS_MAX: u64 = 30_000;

/// How often a program that failed may still be started again.
pub struct Restarts {
    left: u32,
    pause_ms: u64,
    at: Option<Instant>,
}

impl Restarts {
    pub fn new(left: u32) -> Self {
        Restarts { left, pause_ms: AGAIN_MS, at: None }
    }

    /// Whether one that fails now would be started again.
    pub fn are_left(&self) -> bool {
        self.left > 0
    }

    /// Takes one if the program failed and there is one left; says so.
    pub fn take(&mut self, exit: Exit) -> bool {
        if exit == Exit::DONE || self.left == 0 {
            return false;
        }
        complain(&format!("the program ended with {}; it is started again in {} s ({} more times)", exit.code(), self.pause_ms / 1_000, self.left - 1));
        self.left -= 1;
        self.at = Some(Instant::now() + Duration::from_millis(self.pause_ms));
        self.pause_ms = (self.pause_ms * 2).min(AGAIN_MS_MAX);
        true
    }

    /// Waits until it is to be started again; for ever if it is not.
    pub async fn due(&mut self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
        self.at = None;
    }
}

/// What comes of the program.
pub enum Told {
    /// The answer to one of its calls, as a line.
    Result(String),
    /// It ended, so.
    Ended(Exit),
    /// Nothing can be done for it any more.
    Over(Failure),
}

/// The program.
pub struct Program {
    child: Child,
    calls: Option<ChildStdout>,
    pid: Option<Pid>,
}

impl Program {
    /// Starts it by the shell; gives what its lines are written to.
    ///
    /// # Errors
    /// There is no shell, or no process is to be had.
    pub fn start(command: &str) -> Result<(Self, ChildStdin), Failure> {
        let failure = |error: &std::io::Error| Failure::failed(format!("cannot run {}: {}", meso_core::json::quoted(command), io_text(error)));
        let mut child = Command::new("/bin/sh").args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|error| failure(&error))?;
        let (Some(stdin), Some(calls)) = (child.stdin.take(), child.stdout.take()) else { return Err(Failure::internal("a program without pipes")) };
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        Ok((Program { child, calls: Some(calls), pid }, stdin))
    }

    /// By what it can be asked to end.
    pub fn pid(&self) -> Option<Pid> {
        self.pid
    }

    /// Makes its calls, in the seat of a member of our session, until it ends. With `may_fail` another one takes the seat
    /// if it fails.
    pub async fn serve(mut self, leader: Leader, seat: Seat, may_fail: bool, to: mpsc::Sender<Told>) {
        let told = match self.make_calls(&leader, &seat, &to).await {
            Err(failure) => Told::Over(failure),
            Ok(()) => match self.child.wait().await {
                Ok(status) => Told::Ended(exit_of(status)),
                Err(error) => Told::Over(Failure::failed(format!("cannot wait for the program: {}", io_text(&error)))),
            },
        };
        let goes_on = may_fail && matches!(&told, Told::Ended(exit) if *exit != Exit::DONE);
        // With its last word the work is done, and the session ends for all.
        if !goes_on {
            if let Err(failure) = seat.leave(&leader).await {
                complain(failure.what());
            }
        }
        let _ = to.send(told).await;
    }

    async fn make_calls(&mut self, leader: &Leader, seat: &Seat, to: &mpsc::Sender<Told>) -> Result<(), Failure> {
        let mut scheduler = Scheduler::new(leader.clone(), Some(seat.clone()), false)?;
        let Some(calls) = self.calls.take() else { return Ok(()) };
        let mut lines = LineIn::of(Box::new(calls), "the program", Until::Newline);
        while let Some(read) = lines.next().await? {
            let (number, bytes) = match read {
                LineRead::Line { number, bytes } => (number, bytes),
                LineRead::TooLong { number, bytes } => {
                    complain(&format!("line {number} of the program: {bytes} bytes are too long for a line"));
                    continue;
                }
            };
            let result = scheduler.line(number, &bytes).await?;
            if let Some(why) = &result.bad {
                complain(&format!("line {number} of the program: {why}"));
            }
            if !result.ignored && to.send(Told::Result(json_text(&result)? + "\n")).await.is_err() {
                return Ok(());
            }
            // What it launched is told by update lines; nobody waits for it here.
            scheduler.launched.clear();
        }
        Ok(())
    }
}

/// Asks the program to end.
pub fn ask_to_end(pid: Option<Pid>) {
    if let Some(pid) = pid {
        // One that has ended already needs no asking.
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn exit_of(status: std::process::ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::task(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, signal) => Exit::signal(signal.and_then(|signal| u8::try_from(signal).ok()).unwrap_or_default()),
    }
}
