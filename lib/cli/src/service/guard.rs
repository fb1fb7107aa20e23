//! The step between a parent and what it keeps: asks for an end with the parent, then becomes the program
use crate::io_text;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::{
    ffi::OsString,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Command, ExitCode, id},
};

/// First argument of a process that is such a step; the parent's number and the program follow.
pub const GUARD_FLAG: &str = "--guard-of";
/// As a shell says it.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Becomes the program named after the parent's number; returns only if that fails.
///
/// A parent cannot ask this for its child without code between fork and exec; the child can ask it for itself, and keeps it over exec.
pub fn guard(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (Some(parent), Some(program)) = (args.next(), args.next()) else {
        return ExitCode::from(NOT_EXECUTABLE);
    };
    // Without it the program still ends with an orderly parent.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    let is_orphan = getppid().is_none_or(|now| parent != OsString::from(now.as_raw_nonzero().to_string()));
    if is_orphan {
        // The parent died before it could be asked about.
        return ExitCode::from(NOT_EXECUTABLE);
    }
    let error = Command::new(&program).args(args).exec();
    // With stderr gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "meso-up: {}: {}", program.display(), io_text(&error));
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE })
}

/// A command that runs the program through this step; the caller adds the program's arguments.
///
/// The thread that starts it counts as the parent, so it must live as long as the program shall.
pub(super) fn guarded(program: &std::path::Path) -> Command {
    // This very program, also if its file was replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg(GUARD_FLAG).arg(id().to_string()).arg(program);
    command
}
