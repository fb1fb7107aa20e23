//! The command that a cluster is brought up for: run as a shell would, signals passed on
use super::guard::guarded;
use crate::exit::{Exit, Failure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::{
    ffi::OsString,
    fs,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::ExitStatus,
    time::Duration,
};
use tokio::{
    process::Command,
    signal::unix::{Signal as Stream, SignalKind, signal},
    time::{Instant, sleep_until},
};

/// How long a command may go on after it was asked to end.
const STOP_MS: u64 = 15_000;
const HANGUP: i32 = 1;

/// The signals that end us.
#[derive(Debug)]
pub struct Signals {
    interrupt: Stream,
    terminate: Stream,
    quit: Stream,
    /// None if whoever started us wants hang-ups ignored, as nohup does.
    hangup: Option<Stream>,
}

impl Signals {
    /// Takes them over.
    ///
    /// # Errors
    /// `Failed`: the system does not let us.
    pub fn take() -> Result<Signals, Failure> {
        let take = |kind| signal(kind).map_err(|e| Failure::failed(format!("taking over signals: {}", crate::io_text(&e))).hint("the same again"));
        let hangup = if is_ignored(HANGUP) { None } else { Some(take(SignalKind::hangup())?) };
        Ok(Signals { interrupt: take(SignalKind::interrupt())?, terminate: take(SignalKind::terminate())?, quit: take(SignalKind::quit())?, hangup })
    }

    /// Waits for the next one and gives its number.
    pub async fn next(&mut self) -> i32 {
        let hangup = async {
            match &mut self.hangup {
                Some(stream) => stream.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.quit.recv() => SignalKind::quit().as_raw_value(),
            _ = hangup => HANGUP,
        }
    }
}

/// Runs a command with our standard streams and gives its code, 128 + n if it died by a signal.
///
/// Started from a terminal it shares our process group, so that Ctrl-C reaches it as it reaches us; otherwise it
/// gets a group of its own, to which signals are passed on, and which is ended with it.
///
/// # Errors
/// `Failed`: it could not be started.
pub async fn run_command(argv: &[OsString], env: &[(&str, OsString)], env_removed: &[&str], signals: &mut Signals) -> Result<Exit, Failure> {
    let (program, args) = argv.split_first().ok_or_else(|| Failure::usage("the command is empty"))?;
    let shares_terminal = has_terminal();
    let mut command = guarded(Path::new(program));
    command.args(args).envs(env.iter().map(|(name, value)| (name, value)));
    for name in env_removed {
        command.env_remove(name);
    }
    if !shares_terminal {
        command.process_group(0);
    }
    let spawned = Command::from(command).kill_on_drop(true).spawn();
    let mut child = spawned.map_err(|e| Failure::failed(format!("starting {}: {}", program.display(), crate::io_text(&e))).hint("fewer processes, or more memory"))?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let pass_on = |signal: Signal| {
        // It may have ended by itself just now; until it was waited for, the number is still its own.
        let _ = match (pid, shares_terminal) {
            (Some(pid), true) => kill_process(pid, signal),
            (Some(pid), false) => kill_process_group(pid, signal),
            (None, _) => Ok(()),
        };
    };
    let mut deadline = None;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            number = signals.next() => {
                let is_second = deadline.is_some();
                deadline.get_or_insert_with(|| Instant::now() + Duration::from_millis(STOP_MS));
                let is_typed = shares_terminal && (number == SignalKind::interrupt().as_raw_value() || number == SignalKind::quit().as_raw_value());
                match Signal::from_named_raw(number) {
                    // The terminal has told it already, and told twice it might take the second as a wish to be quick.
                    _ if is_typed && !is_second => {}
                    _ if is_second => pass_on(Signal::KILL),
                    Some(signal) => pass_on(signal),
                    None => {}
                }
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                pass_on(Signal::KILL);
                deadline = Some(Instant::now() + Duration::from_millis(STOP_MS));
            }
        }
    };
    if !shares_terminal && let Some(pid) = pid {
        // What the command left in its group. The number is free for others only once the group is empty.
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let status = status.map_err(|e| Failure::failed(format!("waiting for {}: {}", program.display(), crate::io_text(&e))))?;
    Ok(exit_of(status))
}

fn exit_of(status: ExitStatus) -> Exit {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let signal = status.signal().and_then(|number| u8::try_from(number).ok());
    code.map(Exit::task).or(signal.map(Exit::signal)).unwrap_or(Exit::NO)
}

/// Whether a terminal sends us its Ctrl-C: we are in the process group in its foreground.
fn has_terminal() -> bool {
    // Fields 5 and 8: our process group, and the one in the foreground of our terminal; -1 without a terminal.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, after)| after.split(' ').collect()).unwrap_or_default();
    matches!((fields.get(2), fields.get(5)), (Some(own), Some(foreground)) if own == foreground)
}

/// Whether a signal was ignored when we were started.
fn is_ignored(number: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (number - 1)) != 0)
}
