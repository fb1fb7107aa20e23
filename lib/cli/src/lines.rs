//! Lines in and out: one JSON object, one write; bounded reads with line numbers
use crate::{
    exit::{Failure, io_text},
    progress,
};
use meso_core::json::escape_for_terminal;
use serde::Serialize;
use std::{
    fs::File,
    io::{self, Write},
    mem,
    os::fd::AsFd,
    path::Path,
    thread,
    time::Duration,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// A longer line of input is reported and skipped.
pub const LINE_BYTES_MAX: usize = 512 * 1024;
/// How long to wait before the next try when stdout is non-blocking and full: another program made it so, and we share it.
const FULL_PAUSE_MS: u64 = 2;

/// Whether somebody took what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a reader that has gone ends the work"]
pub enum Written {
    Yes,
    /// The reader closed its end (EPIPE); nothing more will be taken.
    ReaderGone,
}

/// Lines out, each in one write(2) and at once.
pub struct LineOut<W = File> {
    to: W,
    line: Vec<u8>,
}

impl LineOut<File> {
    /// Lines to stdout.
    ///
    /// # Errors
    /// `Failed` when stdout cannot be duplicated.
    pub fn stdout() -> Result<Self, Failure> {
        // std's own stdout buffers, and splits a line that does not fit its buffer.
        let own = io::stdout().as_fd().try_clone_to_owned().map_err(|e| Failure::stdout(&e))?;
        Ok(Self::to(File::from(own)))
    }
}

impl<W: Write> LineOut<W> {
    /// Lines to any writer.
    pub fn to(to: W) -> Self {
        Self { to, line: Vec::new() }
    }

    /// Writes an object as one line of JSON.
    ///
    /// # Errors
    /// Any failed write but EPIPE, which is a value.
    pub fn object(&mut self, object: &impl Serialize) -> Result<Written, Failure> {
        let text = json_text(object)?;
        self.bytes(text.as_bytes())
    }

    /// Writes bytes as one line; the newline is added.
    ///
    /// # Errors
    /// Any failed write but EPIPE, which is a value.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<Written, Failure> {
        self.line.clear();
        self.line.extend_from_slice(bytes);
        self.line.push(b'\n');
        progress::aside(|| write_whole(&mut self.to, &self.line))
    }
}

/// Writes all of it, waiting for the reader however long that takes: the reader sets the pace.
pub(crate) fn write_whole(to: &mut impl Write, mut rest: &[u8]) -> Result<Written, Failure> {
    while !rest.is_empty() {
        match to.write(rest) {
            Ok(0) => return Err(Failure::stdout(&io::ErrorKind::WriteZero.into())),
            Ok(written) => rest = &rest[written..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(FULL_PAUSE_MS)),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(Written::ReaderGone),
            Err(e) => return Err(Failure::stdout(&e)),
        }
    }
    Ok(Written::Yes)
}

/// An object as one line of JSON that is harmless on a terminal too.
///
/// JSON must escape only C0; what else a terminal obeys (DEL, C1, bidirectional marks) is escaped here as `\uXXXX`, which any reader undoes.
///
/// # Errors
/// `Internal`: a value that has no JSON form.
pub fn json_text(object: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(object).map_err(|e| Failure::internal(format!("writing JSON: {e}")))?;
    if text.is_ascii() && !text.contains('\u{7f}') {
        return Ok(text);
    }
    let mut harmless = String::with_capacity(text.len());
    let mut buffer = [0; 4];
    for c in text.chars() {
        let own: &str = c.encode_utf8(&mut buffer);
        if escape_for_terminal(own) == own {
            harmless.push(c);
        } else {
            // Such characters stand only inside strings, and all are below U+10000.
            harmless.push_str(&format!("\\u{:04x}", u32::from(c)));
        }
    }
    Ok(harmless)
}

/// What ends a line of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Newline,
    /// A NUL, as `find -print0` writes it.
    Nul,
}

/// One line of input, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineRead {
    /// Its bytes without the end.
    Line { number: u64, bytes: Vec<u8> },
    /// A line above the bound, which was read over.
    TooLong { number: u64, bytes: u64 },
}

/// Lines in, each of bounded length; a last line without its end is a line.
pub struct LineIn {
    from: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    end: u8,
    name: String,
    number: u64,
    /// The line being read, kept here so that `next` may be cancelled between two reads.
    line: Vec<u8>,
    /// Its length so far, also of what is not kept.
    length: u64,
    bytes_max: usize,
}

impl LineIn {
    /// Lines of stdin.
    pub fn stdin(until: Until) -> Self {
        Self::of(Box::new(tokio::io::stdin()), "standard input", until)
    }

    /// Lines of a file; `-` is stdin.
    ///
    /// # Errors
    /// `Failed`, naming the file that cannot be opened.
    pub async fn open(path: &Path, until: Until) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Self::stdin(until));
        }
        let shown = path.display().to_string();
        let refused = |why: &str| Failure::failed(format!("{shown}: {why}")).hint("a file that you can read, or - for standard input");
        let file = tokio::fs::File::open(path).await.map_err(|e| refused(&io_text(&e)))?;
        let is_folder = file.metadata().await.is_ok_and(|facts| facts.is_dir());
        if is_folder {
            return Err(refused("is a directory"));
        }
        Ok(Self::of(Box::new(file), &shown, until))
    }

    /// Lines of anything, under a name for messages.
    pub fn of(from: Box<dyn AsyncRead + Send + Unpin>, name: &str, until: Until) -> Self {
        let end = match until {
            Until::Newline => b'\n',
            Until::Nul => 0,
        };
        Self { from: BufReader::new(from), end, name: name.to_owned(), number: 0, line: Vec::new(), length: 0, bytes_max: LINE_BYTES_MAX }
    }

    /// The same with another bound than [`LINE_BYTES_MAX`], for lines that tell of a whole cluster.
    pub fn up_to(mut self, bytes_max: usize) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// What the lines come from, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next line; `None` at the end.
    ///
    /// Safe to cancel: a line read half goes on with the next call.
    ///
    /// # Errors
    /// `Failed`, naming the source that cannot be read.
    pub async fn next(&mut self) -> Result<Option<LineRead>, Failure> {
        let ended = loop {
            let chunk = match self.from.fill_buf().await {
                Ok(chunk) => chunk,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Failure::failed(format!("reading {}: {}", self.name, io_text(&e)))),
            };
            if chunk.is_empty() {
                break false;
            }
            let end = chunk.iter().position(|byte| *byte == self.end);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            self.length += part.len() as u64;
            if self.length <= self.bytes_max as u64 {
                self.line.extend_from_slice(part);
            }
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.from.consume(used);
            if end.is_some() {
                break true;
            }
        };
        if !ended && self.length == 0 {
            return Ok(None);
        }
        self.number += 1;
        let number = self.number;
        let length = mem::take(&mut self.length);
        let bytes = mem::take(&mut self.line);
        Ok(Some(if length > self.bytes_max as u64 { LineRead::TooLong { number, bytes: length } } else { LineRead::Line { number, bytes } }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A writer that keeps each write apart, and then fails.
    struct Writes {
        seen: Vec<Vec<u8>>,
        fail_with: Option<io::ErrorKind>,
    }

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.fail_with {
                Some(kind) => Err(kind.into()),
                None => {
                    self.seen.push(bytes.to_vec());
                    Ok(bytes.len())
                }
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    async fn read_all(input: Vec<u8>, until: Until) -> Vec<LineRead> {
        let mut lines = LineIn::of(Box::new(io::Cursor::new(input)), "test", until);
        let mut read = Vec::new();
        while let Some(line) = lines.next().await.expect("memory can be read") {
            read.push(line);
        }
        read
    }

    fn line(number: u64, bytes: &[u8]) -> LineRead {
        LineRead::Line { number, bytes: bytes.to_vec() }
    }

    /// Shows that each object is exactly one write with its newline, however long.
    #[test]
    fn one_line_one_write() {
        let mut out = LineOut::to(Writes { seen: vec![], fail_with: None });
        assert_eq!(out.object(&json!({"a": 1})).expect("it can be written"), Written::Yes);
        assert_eq!(out.bytes(&[b'x'; 100_000]).expect("it can be written"), Written::Yes);
        assert_eq!(out.to.seen.len(), 2);
        assert_eq!(out.to.seen[0], b"{\"a\":1}\n");
        assert_eq!(out.to.seen[1].len(), 100_001);
    }

    /// Shows that a closed pipe is a value and a full disk is a failure.
    #[test]
    fn a_closed_pipe_is_a_value() {
        let mut out = LineOut::to(Writes { seen: vec![], fail_with: Some(io::ErrorKind::BrokenPipe) });
        assert_eq!(out.bytes(b"x").expect("not a failure"), Written::ReaderGone);
        out.to.fail_with = Some(io::ErrorKind::StorageFull);
        assert!(out.bytes(b"x").is_err());
    }

    /// Shows that JSON on a terminal cannot steer it, and reads back the same.
    #[test]
    fn json_is_harmless_and_exact() {
        let value = json!({"name": "a\u{1b}[2J\u{7f}\u{9b}31m\u{202e}ü日\\n"});
        let text = json_text(&value).expect("it has a JSON form");
        assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
        assert!(text.contains("ü日"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("it is JSON"), value);
    }

    /// Shows empty lines, a last line without an end, any bytes, and NUL-ended items with newlines inside.
    #[tokio::test]
    async fn lines_as_they_are() {
        assert_eq!(read_all(b"a\n\n\xff\r\nlast".to_vec(), Until::Newline).await, [line(1, b"a"), line(2, b""), line(3, b"\xff\r"), line(4, b"last")]);
        assert_eq!(read_all(b"a\nb\0c\0".to_vec(), Until::Nul).await, [line(1, b"a\nb"), line(2, b"c")]);
        assert_eq!(read_all(vec![], Until::Newline).await, []);
    }

    /// Shows that a read cancelled in the middle of a line loses nothing of it.
    #[tokio::test]
    async fn a_cancelled_read_loses_nothing() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut lines = LineIn::of(Box::new(reader), "test", Until::Newline);
        tokio::io::AsyncWriteExt::write_all(&mut writer, b"ha").await.expect("there is room");
        for _ in 0..3 {
            tokio::select! {
                biased;
                _ = lines.next() => panic!("the line has not ended"),
                () = tokio::task::yield_now() => {}
            }
        }
        tokio::io::AsyncWriteExt::write_all(&mut writer, b"lf\n").await.expect("there is room");
        assert_eq!(lines.next().await.expect("memory can be read"), Some(line(1, b"half")));
    }

    /// Shows that a line above the limit is read over and the next one has the right number; one at the limit is kept.
    #[tokio::test]
    async fn long_lines_are_skipped() {
        let mut input = vec![b'x'; LINE_BYTES_MAX];
        input.extend(b"\n");
        input.extend(vec![b'y'; LINE_BYTES_MAX + 1]);
        input.extend(b"\nz\n");
        let read = read_all(input, Until::Newline).await;
        assert_eq!(read[0], line(1, &[b'x'; LINE_BYTES_MAX]));
        assert_eq!(read[1], LineRead::TooLong { number: 2, bytes: LINE_BYTES_MAX as u64 + 1 });
        assert_eq!(read[2..], [line(3, b"z")]);
    }

    /// Shows that another bound is kept in place of the usual one, above it and below.
    #[tokio::test]
    async fn another_bound() {
        let input = || Box::new(io::Cursor::new([vec![b'x'; LINE_BYTES_MAX + 1], b"\nz".to_vec()].concat()));
        let mut long = LineIn::of(input(), "test", Until::Newline).up_to(LINE_BYTES_MAX + 1);
        assert_eq!(long.next().await.expect("memory can be read"), Some(line(1, &[b'x'; LINE_BYTES_MAX + 1])));
        let mut short = LineIn::of(input(), "test", Until::Newline).up_to(1);
        assert_eq!(short.next().await.expect("memory can be read"), Some(LineRead::TooLong { number: 1, bytes: LINE_BYTES_MAX as u64 + 1 }));
        assert_eq!(short.next().await.expect("memory can be read"), Some(line(2, b"z")));
    }

    /// Shows that a file that is missing or a folder is refused by its name.
    #[tokio::test]
    async fn files_are_named() {
        for (path, why) in [("/nonexistent/x", "no such file"), ("/", "is a directory")] {
            let failure = LineIn::open(Path::new(path), Until::Newline).await.err().expect("it is no file");
            assert!(failure.what().starts_with(path) && failure.what().contains(why), "{failure}");
        }
    }
}
