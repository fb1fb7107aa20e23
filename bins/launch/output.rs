//! Tasks' outputs on ours: one task's live, of several one whole after the other.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};


use meso_cli::client::{Follower, TaskIo};
use meso_cli::{Failure, aside};
use meso_core::wire::io::Stream;

/// What came of printing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Printed {
    /// All of it.
    Whole,
    /// Our reader has gone: nobody wants the rest.
    ReaderGone,
}

/// Writes bytes to our own standard output or error, whole.
fn write(stream: Stream, bytes: &[u8]) -> Result<Printed, Failure> {
    let outcome = aside(|| match stream {
        Stream::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Stream::Stderr => io::stderr().lock().write_all(bytes),
    });
    match outcome {
        Ok(()) => Ok(Printed::Whole),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Printed::ReaderGone),
        // A closed descriptor takes everything, as for any other program.
        Err(error) if error.raw_os_error() == Some(9) => Ok(Printed::Whole),
        Err(error) if stream == Stream::Stderr => {
            let _ = error;
            Ok(Printed::Whole)
        }
        Err(error) => Err(Failure::stdout(&error)),
    }
}

/// Copies one stream to its end, live.
pub async fn copy(mut follower: Follower, stream: Stream) -> Result<Printed, Failure> {
    while let Some(bytes) = follower.next().await? {
        if write(stream, &bytes)? == Printed::ReaderGone {
            return Ok(Printed::ReaderGone);
        }
    }
    Ok(Printed::Whole)
}

/// The same with a prefix before each line.
async fn copy_tagged(mut follower: Follower, stream: Stream, tag: &str) -> Result<Printed, Failure> {
    let mut at_start = true;
    while let Some(bytes) = follower.next().await? {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if at_start {
                out.extend_from_slice(tag.as_bytes());
                out.push(b'\t');
            }
            out.extend_from_slice(line);
            at_start = line.ends_with(b"\n");
        }
        if write(stream, &out)? == Printed::ReaderGone {
            return Ok(Printed::ReaderGone);
        }
    }
    if !at_start && write(stream, b"\n")? == Printed::ReaderGone {
        return Ok(Printed::ReaderGone);
    }
    Ok(Printed::Whole)
}

/// An ended task whose output is to be printed whole.
pub struct Ended {
    /// Its place.
    pub io: TaskIo,
    /// How much it wrote to standard output.
    pub stdout_bytes: u64,
    /// How much it wrote to standard error.
    pub stderr_bytes: u64,
    /// What to put before each line.
    pub tag: Option<String>,
}

/// Prints an ended task's output: first all of its standard output, then all of its standard error.
pub async fn print(ended: Ended) -> Result<Printed, Failure> {
    for (stream, total) in [(Stream::Stdout, ended.stdout_bytes), (Stream::Stderr, ended.stderr_bytes)] {
        if total == 0 {
            continue;
        }
        let mut follower = Follower::new(ended.io.clone(), stream, 0);
        follower.expect(total);
        let printed = match &ended.tag {
            Some(tag) => copy_tagged(follower, stream, tag).await?,
            None => copy(follower, stream).await?,
        };
        if printed == Printed::ReaderGone {
            return Ok(Printed::ReaderGone);
        }
    }
    Ok(Printed::Whole)
}

/// Which ended task's output comes next: as they end, or in the order of the input.
#[derive(Default)]
pub struct Order {
    keep: bool,
    next: u64,
    ended: BTreeMap<u64, Option<Ended>>,
    queue: VecDeque<Ended>,
}

impl Order {
    /// In the order of the input if `keep`.
    pub fn new(keep: bool) -> Self {
        Order { keep, next: 1, ..Order::default() }
    }

    /// A job ended; without output if it had no task.
    pub fn ended(&mut self, index: u64, ended: Option<Ended>) {
        if !self.keep {
            self.queue.extend(ended);
            return;
        }
        self.ended.insert(index, ended);
        while let Some(ended) = self.ended.remove(&self.next) {
            self.queue.extend(ended);
            self.next += 1;
        }
    }

    /// The next to print.
    pub fn take(&mut self) -> Option<Ended> {
        self.queue.pop_front()
    }

    /// How many ended tasks wait to be printed: as many as agents have to keep for us.
    pub fn waiting(&self) -> usize {
        self.queue.len() + self.ended.len()
    }
}

