//! Standard output that never blocks us: a line goes out whole, or finds no room and stays with us.
//!
//! What lies in a pipe is out of our hands, so the pipe is made small: it is the credit that a reader has. Through a
//! description of our own, `O_NONBLOCK` is not forced upon whoever else has the pipe.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::Duration;

use meso_cli::{Failure, io_text};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;
use tokio::process::ChildStdin;
use tokio::time::sleep;

/// How much lies in the pipe at most, in bytes: about nine offers.
const PIPE_BYTES: usize = 4096;
/// How often to look for room where nothing tells us of it.
const LOOK: Duration = Duration::from_millis(50);
/// How often to look whether the reader of something that is no pipe has gone.
const LOOK_GONE: Duration = Duration::from_millis(500);

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It went out whole.
    Yes,
    /// There is no room for it now; nothing of it went out, or the rest goes out before anything else.
    NoRoom,
    /// Nobody reads any more.
    ReaderGone,
}

enum To {
    /// A pipe, of which one is told when there is room and when its reader has gone.
    Pipe(Sender),
    /// Anything else.
    Other(File),
}

/// Standard output.
pub struct Output {
    to: To,
    is_pipe: bool,
    /// The rest of a line of which a part went out.
    rest: Vec<u8>,
}

impl Output {
    /// Takes standard output.
    ///
    /// # Errors
    /// It is not open.
    pub fn stdout() -> Result<Self, Failure> {
        let own = io::stdout().as_fd().try_clone_to_owned().map_err(|error| Failure::stdout(&error))?;
        let file = File::from(own);
        let is_pipe = file.metadata().map_err(|error| Failure::stdout(&error))?.file_type().is_fifo();
        if !is_pipe {
            return Ok(Output { to: To::Other(file), is_pipe, rest: Vec::new() });
        }
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let to = match File::options().write(true).custom_flags(flags).open("/proc/self/fd/1") {
            Ok(mine) => {
                // A pipe that holds more already, or belongs to another, keeps its size: then more lines wait in it.
                let _ = rustix::pipe::fcntl_setpipe_size(&mine, PIPE_BYTES);
                To::Pipe(Sender::from_file(mine).map_err(|error| Failure::failed(format!("cannot watch standard output: {}", io_text(&error))))?)
            }
            // Without /proc, or through a pipe of another user: poll says when a page is free, which holds any line.
            Err(_) => To::Other(file),
        };
        Ok(Output { to, is_pipe, rest: Vec::new() })
    }

    /// Writes a line, or leaves it.
    ///
    /// # Errors
    /// Any failed write but a reader that has gone.
    pub fn line(&mut self, text: &str) -> Result<Sent, Failure> {
        match self.flush()? {
            Sent::Yes => {}
            other => return Ok(other),
        }
        match self.write(text.as_bytes())? {
            (Sent::NoRoom, 0) => Ok(Sent::NoRoom),
            // A part of it is out: it counts as sent, and nothing else goes out before the rest.
            (Sent::NoRoom, written) => {
                self.rest = text.as_bytes()[written..].to_vec();
                Ok(Sent::Yes)
            }
            (sent, _) => Ok(sent),
        }
    }

    /// Takes another descriptor that we were started with.
    ///
    /// # Errors
    /// `Usage`: it is not open, or not for writing.
    pub fn of_fd(fd: u32) -> Result<Self, Failure> {
        let failure = |error: &io::Error| Failure::usage(format!("--updates-fd {fd}: {}", io_text(error))).hint(format!("meso-offer --updates-fd {fd} {fd}> FILE"));
        let path = format!("/proc/self/fd/{fd}");
        let is_pipe = std::fs::metadata(&path).map_err(|error| failure(&error))?.file_type().is_fifo();
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        // What stands in a file already stays there.
        let file = File::options().append(true).custom_flags(flags).open(&path).map_err(|error| failure(&error))?;
        let to = if is_pipe { To::Pipe(Sender::from_file(file).map_err(|error| failure(&error))?) } else { To::Other(file) };
        Ok(Output { to, is_pipe, rest: Vec::new() })
    }

    /// Takes the standard input of a program of ours.
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn of_program(stdin: ChildStdin) -> Result<Self, Failure> {
        let sender = stdin.into_owned_fd().and_then(Sender::from_owned_fd).map_err(|error| Failure::failed(format!("cannot write to the program: {}", io_text(&error))))?;
        let _ = rustix::pipe::fcntl_setpipe_size(&sender, PIPE_BYTES);
        Ok(Output { to: To::Pipe(sender), is_pipe: true, rest: Vec::new() })
    }

    /// Bytes that nobody has read; none where that cannot be told.
    pub fn unread(&self) -> Option<u64> {
        let waiting = match &self.to {
            To::Pipe(file) => rustix::io::ioctl_fionread(file).ok(),
            To::Other(file) if self.is_pipe => rustix::io::ioctl_fionread(file).ok(),
            To::Other(_) => None,
        };
        waiting.map(|bytes| bytes + self.rest.len() as u64)
    }

    /// Waits until there may be room.
    pub async fn room(&self) {
        match &self.to {
            To::Pipe(file) => {
                // A failure to watch shows itself when we write.
                let _ = file.writable().await;
            }
            To::Other(_) => sleep(LOOK).await,
        }
    }

    /// Waits until nobody reads any more.
    pub async fn gone(&self) {
        match &self.to {
            To::Pipe(file) => drop(file.ready(Interest::ERROR).await),
            To::Other(file) => {
                while !is_gone(file) {
                    sleep(LOOK_GONE).await;
                }
            }
        }
    }

    /// Writes the rest of a line of which a part went out.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn flush(&mut self) -> Result<Sent, Failure> {
        if self.rest.is_empty() {
            return Ok(Sent::Yes);
        }
        let rest = std::mem::take(&mut self.rest);
        let (sent, written) = self.write(&rest)?;
        if sent == Sent::NoRoom {
            self.rest = rest[written..].to_vec();
        }
        Ok(sent)
    }

    /// Writes as much as there is room for; says how much that was.
    fn write(&mut self, bytes: &[u8]) -> Result<(Sent, usize), Failure> {
        let mut written = 0;
        while written < bytes.len() {
            let outcome = match &mut self.to {
                To::Pipe(file) => file.try_write(&bytes[written..]),
                To::Other(file) if has_room(file) => file.write(&bytes[written..]),
                To::Other(_) => return Ok((Sent::NoRoom, written)),
            };
            match outcome {
                Ok(0) => return Err(Failure::stdout(&io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((Sent::NoRoom, written)),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok((Sent::ReaderGone, written)),
                Err(error) => return Err(Failure::stdout(&error)),
            }
        }
        Ok((Sent::Yes, written))
    }
}

fn polled(file: &File, wanted: PollFlags) -> PollFlags {
    let mut fds = [PollFd::new(file, wanted)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // What cannot be polled is always ready.
    poll(&mut fds, Some(&now)).map_or(wanted, |_| fds[0].revents())
}

fn has_room(file: &File) -> bool {
    polled(file, PollFlags::OUT).intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::HUP)
}

fn is_gone(file: &File) -> bool {
    polled(file, PollFlags::OUT).intersects(PollFlags::ERR | PollFlags::HUP)
}
