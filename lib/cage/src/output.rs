//! Reading a task's output by offset, while it runs or afterwards
use crate::exit::Exit;
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::{stat::Mode, uio::pread},
};
use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// In a container's directory: leads to where its output is
pub(crate) const OUTPUT_LINK: &str = "output";

/// One of the task's two output streams
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// `stdout` or `stderr`
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }

    /// The name of the segment that begins at an offset
    pub(crate) fn segment(self, base: u64) -> String {
        if base == 0 { self.name().to_owned() } else { format!("{}.{base}", self.name()) }
    }

    /// The offset at which the segment of that name begins, if it is one of this stream
    fn base(self, file_name: &str) -> Option<u64> {
        let rest = file_name.strip_prefix(self.name())?;
        if rest.is_empty() { Some(0) } else { rest.strip_prefix('.')?.parse().ok() }
    }
}

/// A piece of a stream
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where the bytes stand in the stream; later than was asked for if the cap has removed what was there
    pub offset: u64,
    pub bytes: Vec<u8>,
    /// The stream ends after these bytes, for good
    pub end: bool,
}

/// Reads one stream of one container
#[derive(Debug)]
pub struct OutputReader {
    path: PathBuf,
    stream: Stream,
    segment: Option<Segment>,
    /// The stream's length, once the container has ended
    total: Option<u64>,
}

#[derive(Debug)]
struct Segment {
    base: u64,
    file: OwnedFd,
}

impl OutputReader {
    /// Opens a stream of the container in that directory; it need not have written anything yet
    pub fn open(dir: &Path, stream: Stream) -> io::Result<OutputReader> {
        fs::metadata(dir)?;
        Ok(OutputReader { path: dir.to_owned(), stream, segment: None, total: None })
    }

    /// Reads up to `max` bytes from an offset on
    ///
    /// An empty chunk without `end` means that there is nothing more yet; [`crate::OutputWatch`] says when to ask again.
    pub fn read_at(&mut self, offset: u64, max: usize) -> io::Result<Chunk> {
        // Asked before reading: what the supervisor wrote before it left its record is seen by the reading below.
        if self.total.is_none() {
            self.total = self.ended()?;
        }
        let mut offset = offset;
        loop {
            if self.segment.as_ref().is_none_or(|s| offset < s.base) {
                self.segment = self.find(offset)?;
                let Some(segment) = &self.segment else {
                    // Nothing is stored at all: all is still to come, or all was lost.
                    let end = self.total.is_some();
                    return Ok(Chunk { offset: if end { offset.max(self.total.unwrap_or(0)) } else { offset }, bytes: Vec::new(), end });
                };
                offset = offset.max(segment.base);
            }
            let segment = self.segment.as_ref().expect("it has just been found");
            let mut bytes = vec![0; max];
            let length = pread(&segment.file, &mut bytes, i64::try_from(offset - segment.base).map_err(|_| io::ErrorKind::InvalidInput)?)?;
            bytes.truncate(length);
            if length > 0 {
                let end = self.total.is_some_and(|total| offset + length as u64 >= total);
                return Ok(Chunk { offset, bytes, end });
            }
            // The end of this file. If it is full the next begins right here; if the next is gone too, a later one may be there.
            match self.open_segment(offset)? {
                Some(next) if next.base > segment.base => self.segment = Some(next),
                _ if self.total.is_some_and(|total| offset >= total) => return Ok(Chunk { offset, bytes, end: true }),
                _ => match self.find_after(segment.base)? {
                    // Only the newest file can be unfinished: if there is a later one, ours is complete, and once it shows
                    // nothing more either, this is a gap.
                    Some(next) => {
                        let mut one = [0];
                        if pread(&segment.file, &mut one, (offset - segment.base) as i64)? == 0 {
                            offset = offset.max(next.base);
                            self.segment = Some(next);
                        }
                    }
                    None => {
                        let end = self.total.is_some();
                        return Ok(Chunk { offset, bytes, end });
                    }
                },
            }
        }
    }

    /// Where the stream stands: the first offset still kept, one past the last byte there is, and whether it has ended
    pub fn bounds(&mut self) -> io::Result<(u64, u64, bool)> {
        let ended = self.ended()?;
        let first = self.bases()?.first().copied().unwrap_or(ended.unwrap_or(0));
        Ok((first, ended.map_or_else(|| self.stored(), Ok)?, ended.is_some()))
    }

    /// The stream's length, if the container has ended, in whatever way
    fn ended(&self) -> io::Result<Option<u64>> {
        if let Some(exit) = Exit::read(&self.path)? {
            return Ok(Some(match self.stream {
                Stream::Stdout => exit.stdout_bytes,
                Stream::Stderr => exit.stderr_bytes,
            }));
        }
        if fs::exists(self.path.join("lost"))? { self.stored().map(Some) } else { Ok(None) }
    }

    /// Where the last byte ends that is stored now
    fn stored(&self) -> io::Result<u64> {
        match self.bases()?.last() {
            Some(base) => match self.open_segment(*base)? {
                Some(segment) => Ok(base + fs::File::from(segment.file).metadata()?.len()),
                None => Ok(*base),
            },
            None => Ok(0),
        }
    }

    /// The kept segment in which an offset lies, or else the first after it
    fn find(&self, offset: u64) -> io::Result<Option<Segment>> {
        let bases = self.bases()?;
        let wanted = bases.iter().rev().find(|base| **base <= offset).or(bases.first());
        match wanted {
            Some(base) => self.open_or_later(*base, &bases),
            None => Ok(None),
        }
    }

    fn find_after(&self, base: u64) -> io::Result<Option<Segment>> {
        let bases = self.bases()?;
        match bases.iter().find(|b| **b > base) {
            Some(next) => self.open_or_later(*next, &bases),
            None => Ok(None),
        }
    }

    /// Opens a segment, or a later one if the cap removes it in this moment
    fn open_or_later(&self, base: u64, bases: &[u64]) -> io::Result<Option<Segment>> {
        for base in bases.iter().filter(|b| **b >= base) {
            if let Some(segment) = self.open_segment(*base)? {
                return Ok(Some(segment));
            }
        }
        Ok(None)
    }

    fn open_segment(&self, base: u64) -> io::Result<Option<Segment>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        match open(&self.place().join(self.stream.segment(base)), flags, Mode::empty()) {
            Ok(file) => Ok(Some(Segment { base, file })),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// The directory of the segments; elsewhere from the first byte on, if elsewhere at all
    fn place(&self) -> PathBuf {
        let elsewhere = self.path.join(OUTPUT_LINK);
        if elsewhere.exists() { elsewhere } else { self.path.clone() }
    }

    /// Where the kept segments begin, in order
    fn bases(&self) -> io::Result<Vec<u64>> {
        let mut bases = Vec::new();
        for entry in fs::read_dir(self.place())? {
            bases.extend(entry?.file_name().to_str().and_then(|name| self.stream.base(name)));
        }
        bases.sort_unstable();
        Ok(bases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file name tells its offset and nothing else is taken for a segment
    #[test]
    fn segments_are_named_by_offset() {
        for base in [0, 1, 4096, u64::MAX] {
            assert_eq!(Stream::Stdout.base(&Stream::Stdout.segment(base)), Some(base));
            assert_eq!(Stream::Stderr.base(&Stream::Stdout.segment(base)), None);
        }
        for other in ["stdout.", "stdout.x", "stdout.1.2", "stdoutx", "spec", "exit"] {
            assert_eq!(Stream::Stdout.base(other), None, "{other}");
        }
    }
}
