//! One running container, seen from the agent
use crate::{
    error::CageError,
    exit::Exit,
    output::Stream,
    spec::{HEAD_TASK_AT, parse_number},
    sys::{self, SIG_FORWARD, SIG_KILL_GRACE, SIG_READ_STDERR, SIG_READ_STDOUT},
};
use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

/// A container with a living supervisor
#[derive(Debug)]
pub struct Container {
    id: String,
    dir: PathBuf,
    pid: i32,
    pidfd: OwnedFd,
    events: Option<OwnedFd>,
    is_child: bool,
}

impl Container {
    pub(crate) fn launched(id: String, dir: PathBuf, pid: i32, pidfd: OwnedFd, events: OwnedFd) -> Container {
        Container { id, dir, pid, pidfd, events: Some(events), is_child: true }
    }

    pub(crate) fn found(id: String, dir: PathBuf, pid: i32, pidfd: OwnedFd) -> Container {
        Container { id, dir, pid, pidfd, events: None, is_child: false }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// The container's directory
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The supervisor's process number
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Becomes readable when the supervisor has ended
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The event pipe, once; a container found by recovery has none
    ///
    /// It is not blocking. Lines come: `started PID` when the command has been executed, `exit` when the record is in
    /// place. Its end means that the supervisor is gone.
    pub fn take_events(&mut self) -> Option<OwnedFd> {
        self.events.take()
    }

    /// The task's process number, once it has been started
    pub fn task_pid(&self) -> Option<i32> {
        self.head(HEAD_TASK_AT)
    }

    /// Sends a signal to the task's process group
    pub fn signal(&self, signal: i32) -> Result<(), CageError> {
        if self.head(0).is_none() {
            // It would die of the signal: it does not listen yet.
            return Err(CageError::Busy { id: self.id.clone(), why: "it is only starting" });
        }
        self.queue(SIG_FORWARD, signal as u64)
    }

    /// Ends the container: SIGTERM now, and after the grace whatever is left of it is killed
    pub fn kill(&self, grace_ms: u64) -> Result<(), CageError> {
        if self.head(0).is_none() {
            leave_kill(&self.dir, grace_ms)?;
            if self.head(0).is_none() {
                return Ok(());
            }
        }
        self.queue(SIG_KILL_GRACE, grace_ms)
    }

    /// Says how far somebody who reads along has come, and that he lives
    ///
    /// To be said at least every 10 s while a reader is there, even if he is not further: the task waits for a reader only
    /// as long as he is heard of.
    pub fn reader_at(&self, stream: Stream, offset: u64) -> Result<(), CageError> {
        if self.head(0).is_none() {
            return Ok(());
        }
        self.queue(if stream == Stream::Stdout { SIG_READ_STDOUT } else { SIG_READ_STDERR }, offset)
    }

    /// The record of its end, if it is there
    pub fn exit(&self) -> Result<Option<Exit>, CageError> {
        Exit::read(&self.dir).map_err(|e| CageError::file("read the exit record in", &self.dir, e))
    }

    /// Waits for the supervisor's process to be gone; to be called when the event pipe or the pidfd says that it ends
    pub fn reap(&mut self) -> io::Result<()> {
        if self.is_child {
            sys::wait_pid(self.pid)?;
            self.is_child = false;
        }
        Ok(())
    }

    fn queue(&self, signal: i32, value: u64) -> Result<(), CageError> {
        sys::pidfd_queue(&self.pidfd, signal, value).map_err(|e| match e.raw_os_error() {
            Some(libc::ESRCH) => CageError::Ended { id: self.id.clone() },
            _ => CageError::file("signal the supervisor of", &self.dir, e),
        })
    }

    fn head(&self, at: usize) -> Option<i32> {
        read_head(&self.dir.join("spec"), at)
    }
}

/// Leaves a kill for a supervisor that cannot hear yet
///
/// It looks for this file after it has begun to listen and written its number. So it sees the file, or whoever
/// looks for its number now sees that.
pub(crate) fn leave_kill(dir: &Path, grace_ms: u64) -> Result<(), CageError> {
    let path = dir.join("kill");
    fs::write(&path, grace_ms.to_string()).map_err(|e| CageError::file("write", path, e))
}

/// Reads a process number from the head of a spec file
pub(crate) fn read_head(spec: &Path, at: usize) -> Option<i32> {
    let mut text = [0; HEAD_TASK_AT];
    let length = nix::sys::uio::pread(&fs::File::open(spec).ok()?, &mut text, at as i64).ok()?;
    parse_number(text[..length].trim_ascii()).and_then(|n| i32::try_from(n).ok())
}
