//! Carries one output stream of the task from its pipe into files, within a cap
//!
//! The stream is kept in segments of a quarter of the cap. The first is named `stdout`, a later one `stdout.N` by
//! the offset at which it begins, and none is ever renamed: a reader at the end of one finds the next by
//! name. When four are full the oldest goes, unless somebody reads along: then the task waits for the reader.
use crate::{
    output::{OUTPUT_LINK, Stream},
    spec::Order,
    sys::poll_now,
};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, FcntlArg, OFlag, SpliceFFlags, fcntl, open, splice},
    sys::stat::Mode,
    unistd,
};
use std::{
    ffi::{CStr, CString},
    os::fd::{AsRawFd, OwnedFd},
};

/// Segments kept at most
const SEGMENTS: u64 = 4;
/// Below this a cap is taken as this: a segment should hold a few lines
const SEGMENT_BYTES_MIN: u64 = 4096;
/// A reader that has said nothing for so long counts as gone, and the task no longer waits for it
pub(crate) const READER_LEASE_MS: u64 = 30_000;
/// What a pipe can hold once the task has shown that it writes much; also the most moved by one call
const PIPE_BYTES: i32 = 1 << 20;
/// A pipe's size at birth: a reading this long means that it was full
const PIPE_BYTES_BORN: usize = 64 << 10;
/// What is moved in one go before the other streams and signals get their turn
const TURN_BYTES: u64 = 8 << 20;

pub(crate) struct Pump<'a> {
    stream: Stream,
    /// Where the files go, if not into the working directory
    elsewhere: Option<&'a CStr>,
    pipe: Option<OwnedFd>,
    file: Option<OwnedFd>,
    segment_bytes: u64,
    /// Where each kept segment begins, oldest first; the last is being written
    bases: Vec<u64>,
    /// Bytes of the stream so far
    total: u64,
    dropped: u64,
    is_grown: bool,
    /// Storing failed: the rest is read and thrown away, so that the task does not hang
    is_broken: bool,
    reader: Option<Reader>,
    /// The end is near: the cap no longer matters
    keeps_all: bool,
}

/// Somebody who reads along
struct Reader {
    offset: u64,
    seen_ms: u64,
}

impl<'a> Pump<'a> {
    pub(crate) fn new(stream: Stream, pipe: OwnedFd, order: &Order<'a>, now_ms: u64) -> Pump<'a> {
        let reader = order.attached.then_some(Reader { offset: 0, seen_ms: now_ms });
        Pump {
            stream,
            elsewhere: order.output_dir,
            pipe: Some(pipe),
            file: None,
            segment_bytes: (order.log_cap_bytes / SEGMENTS).max(SEGMENT_BYTES_MIN),
            bases: Vec::new(),
            total: 0,
            dropped: 0,
            is_grown: false,
            is_broken: false,
            reader,
            keeps_all: false,
        }
    }

    /// The pipe, while it is open and we want to read from it
    pub(crate) fn wants(&self, now_ms: u64) -> Option<&OwnedFd> {
        self.pipe.as_ref().filter(|_| !self.is_waiting(now_ms))
    }

    /// When to look again although nothing came: the reader we wait for may be gone by then
    pub(crate) fn deadline_ms(&self, now_ms: u64) -> Option<u64> {
        let reader = self.reader.as_ref().filter(|_| self.pipe.is_some() && self.is_waiting(now_ms))?;
        Some(reader.seen_ms + READER_LEASE_MS)
    }


    /// Bytes ever seen and bytes that are not kept
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.total, self.dropped)
    }

    /// A reader says how far it is; this also says that it lives
    pub(crate) fn reader_at(&mut self, offset: u64, now_ms: u64) {
        let so_far = self.reader.as_ref().map_or(0, |r| r.offset);
        self.reader = Some(Reader { offset: so_far.max(offset.min(self.total)), seen_ms: now_ms });
    }

    /// The last writer has gone and nothing is left to read
    pub(crate) fn hang_up(&mut self) {
        self.pipe = None;
    }

    /// Moves what is there, up to a turn's worth
    pub(crate) fn turn(&mut self, now_ms: u64) {
        let mut moved = 0;
        while moved < TURN_BYTES && !self.is_waiting(now_ms) {
            match self.step() {
                Some(0) | None => return,
                Some(n) => moved += n,
            }
        }
    }

    /// Moves the rest when no writer is left, waiting for nobody
    ///
    /// For somebody who reads along nothing is removed any more: what is left in the pipe is little.
    pub(crate) fn drain(&mut self, now_ms: u64) {
        let is_read = self.reader.take().is_some_and(|r| now_ms < r.seen_ms + READER_LEASE_MS);
        self.keeps_all = is_read;
        while self.pipe.is_some() {
            if self.step().is_none_or(|n| n == 0) {
                self.pipe = None;
            }
        }
        self.file = None;
    }

    /// One move; `None` if nothing is there now, 0 at the end of the stream
    fn step(&mut self) -> Option<u64> {
        if !self.is_broken && (self.file.is_none() || self.room() == 0) {
            // The first byte makes the first file: a silent task costs none.
            if !self.has_input() {
                return self.pipe.is_none().then_some(0);
            }
            self.begin_segment();
        }
        let room = self.room();
        let pipe = self.pipe.as_ref()?;
        let result = match &self.file {
            Some(file) if !self.is_broken => splice(pipe, None, file, None, room.min(PIPE_BYTES as u64) as usize, SpliceFFlags::SPLICE_F_NONBLOCK),
            _ => discard(pipe),
        };
        match result {
            Ok(0) => {
                self.pipe = None;
                Some(0)
            }
            Ok(n) => {
                self.account(n);
                Some(n as u64)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            Err(_) => {
                // A full disk, or a file system that cannot do this: what comes from now on is counted and lost.
                self.is_broken = true;
                Some(1)
            }
        }
    }

    fn account(&mut self, n: usize) {
        self.total += n as u64;
        if self.is_broken {
            self.dropped += n as u64;
        }
        if n >= PIPE_BYTES_BORN && !self.is_grown {
            self.is_grown = true;
            if let Some(pipe) = &self.pipe {
                // Refused when the user has many large pipes: then it stays as it is.
                let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
            }
        }
    }

    /// What the segment being written can still take
    fn room(&self) -> u64 {
        self.bases.last().map_or(0, |base| (base + self.segment_bytes).saturating_sub(self.total))
    }

    /// Whether the task has to wait for the reader: everything is full and the reader still needs the oldest
    fn is_waiting(&self, now_ms: u64) -> bool {
        let Some(reader) = &self.reader else { return false };
        let oldest_end = self.bases.first().map_or(0, |base| base + self.segment_bytes);
        !self.is_broken
            && self.bases.len() as u64 == SEGMENTS
            && self.room() == 0
            && reader.offset < oldest_end
            && now_ms < reader.seen_ms + READER_LEASE_MS
    }

    /// Whether bytes wait in the pipe; notices its end
    fn has_input(&mut self) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        let events = poll_now(pipe.as_raw_fd(), libc::POLLIN);
        if events & libc::POLLIN == 0 && events & libc::POLLHUP != 0 {
            self.pipe = None;
        }
        events & libc::POLLIN != 0
    }

    fn begin_segment(&mut self) {
        if self.bases.len() as u64 >= SEGMENTS && !self.keeps_all {
            let oldest = self.bases.remove(0);
            // Readers that have it open keep what they have.
            let _ = unistd::unlink(self.segment(oldest).as_c_str());
            self.dropped += self.segment_bytes;
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        if self.bases.is_empty() {
            self.make_place();
        }
        match open(self.segment(self.total).as_c_str(), flags, Mode::from_bits_truncate(0o600)) {
            Ok(file) => {
                self.file = Some(file);
                self.bases.push(self.total);
            }
            Err(_) => self.is_broken = true,
        }
    }

    /// Makes the directory for the files, and the link by which readers find it
    ///
    /// A failure shows when the file cannot be made. The other stream may have been here before.
    fn make_place(&self) {
        if let Some(dir) = self.elsewhere {
            let _ = unistd::mkdir(dir, Mode::from_bits_truncate(0o700));
            let _ = unistd::symlinkat(dir, AT_FDCWD, OUTPUT_LINK);
        }
    }

    /// The file that begins at an offset
    fn segment(&self, base: u64) -> CString {
        let mut path = Vec::with_capacity(256);
        if let Some(dir) = self.elsewhere {
            path.extend_from_slice(dir.to_bytes());
            path.push(b'/');
        }
        path.extend_from_slice(self.stream.segment(base).as_bytes());
        CString::new(path).expect("neither part holds a NUL")
    }
}

fn discard(pipe: &OwnedFd) -> nix::Result<usize> {
    let mut waste = [0u8; 16 << 10];
    unistd::read(pipe, &mut waste)
}
