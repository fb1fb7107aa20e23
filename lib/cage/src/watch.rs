//! Being woken when a container has more output or has ended
use crate::output::OUTPUT_LINK;
use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use std::{
    cell::Cell,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    path::{Path, PathBuf},
};

const INTEREST: AddWatchFlags = AddWatchFlags::IN_MODIFY
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// A descriptor that becomes readable when there is more to read, or the exit record
///
/// Begin to watch, then read: so nothing falls between.
#[derive(Debug)]
pub struct OutputWatch {
    inotify: Inotify,
    output: PathBuf,
    /// The output is elsewhere and watched there
    is_elsewhere: Cell<bool>,
}

impl OutputWatch {
    /// Watches a container's directory
    pub fn new(dir: &Path) -> io::Result<OutputWatch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(dir, INTEREST)?;
        let watch = OutputWatch { inotify, output: dir.join(OUTPUT_LINK), is_elsewhere: Cell::new(false) };
        watch.follow();
        Ok(watch)
    }

    /// Takes what has been reported; false if nothing was
    ///
    /// To be called before reading again.
    pub fn clear(&self) -> io::Result<bool> {
        let mut any = false;
        loop {
            match self.inotify.read_events() {
                Ok(_) => any = true,
                Err(Errno::EAGAIN) => {
                    self.follow();
                    return Ok(any);
                }
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Watches where the link leads, once it is there: its appearing is itself reported
    fn follow(&self) {
        if !self.is_elsewhere.get() {
            self.is_elsewhere.set(self.inotify.add_watch(&self.output, INTEREST).is_ok());
        }
    }
}

impl AsFd for OutputWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl AsRawFd for OutputWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_fd().as_raw_fd()
    }
}
