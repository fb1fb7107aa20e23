//! A task's output on our own: byte for byte, or line by line behind a name
use crate::lines::{Written, write_whole};
use crate::{Failure, aside};
use meso_core::wire::io::Stream;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// A line without an end is cut here when it stands behind a name.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Our stdout or stderr, for the bytes of tasks.
pub struct Outlet {
    to: File,
    is_gone: bool,
}

/// Puts whole lines behind a name.
pub struct Tagger {
    tag: Vec<u8>,
    /// A line that has no end yet.
    rest: Vec<u8>,
}

impl Outlet {
    /// # Errors
    /// `Failed` when it cannot be duplicated: it may be closed.
    pub fn of(stream: Stream) -> Result<Self, Failure> {
        let own = match stream {
            Stream::Stdout => io::stdout().as_fd().try_clone_to_owned(),
            Stream::Stderr => io::stderr().as_fd().try_clone_to_owned(),
        };
        Ok(Self { to: File::from(own.map_err(|e| Failure::stdout(&e))?), is_gone: false })
    }

    /// Writes all of it, at the pace of the reader.
    ///
    /// # Errors
    /// Any failed write but EPIPE, which is a value, now and from then on.
    pub fn write(&mut self, bytes: &[u8]) -> Result<Written, Failure> {
        if !self.is_gone && aside(|| write_whole(&mut self.to, bytes))? == Written::ReaderGone {
            self.is_gone = true;
        }
        Ok(if self.is_gone { Written::ReaderGone } else { Written::Yes })
    }
}

impl Tagger {
    /// Lines behind `name|`.
    pub fn new(name: &str) -> Self {
        Self { tag: format!("{name}|").into_bytes(), rest: Vec::new() }
    }

    /// The lines that are whole now, each behind the name.
    pub fn lines(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + self.tag.len());
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.rest.len() >= LINE_BYTES_MAX {
                self.take_line(&mut out);
            }
        }
        out
    }

    /// The last line, if it has no end.
    pub fn end(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.rest.is_empty() {
            self.take_line(&mut out);
        }
        out
    }

    fn take_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.tag);
        out.append(&mut self.rest);
        if !out.ends_with(b"\n") {
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that lines come whole and behind their name, however they were cut on the way, and that none is kept for ever.
    #[test]
    fn lines_behind_a_name() {
        let mut tagger = Tagger::new("web");
        assert_eq!(tagger.lines(b"on"), b"");
        assert_eq!(tagger.lines(b"e\n\ntw"), b"web|one\nweb|\n");
        assert_eq!(tagger.end(), b"web|tw\n");
        assert_eq!(tagger.end(), b"");
        let cut = tagger.lines(&[b'x'; LINE_BYTES_MAX + 1]);
        assert_eq!(cut.len(), 4 + LINE_BYTES_MAX + 1 + 1);
        assert!(cut.starts_with(b"web|x") && cut.ends_with(b"x\n"));
    }
}
