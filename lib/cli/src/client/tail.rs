//! Where the last lines of an output begin
use crate::Failure;
use crate::client::TaskIo;
use meso_core::wire::io::{Stream, Told, What};
use std::time::Duration;

/// Read backwards at once.
const STEP_BYTES: u64 = 256 * 1024;
/// No further back than this, however few lines were found.
const BACK_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// How much there is of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first byte that is still kept.
    pub first: u64,
    /// One past the last.
    pub last: u64,
}

/// Asks how much there is.
///
/// # Errors
/// As [`TaskIo::ask`].
pub async fn extent(io: &TaskIo, stream: Stream, patience: Duration) -> Result<Extent, Failure> {
    match io.ask(&What::Size { stream }, &[], patience).await? {
        (Told::Size { first, last, .. }, _) => Ok(Extent { first, last }),
        _ => Err(odd(io)),
    }
}

/// The offset where the last `lines` lines before `extent.last` begin; a last line without its end is one too.
///
/// # Errors
/// As [`TaskIo::ask`].
pub async fn tail_offset(io: &TaskIo, stream: Stream, extent: Extent, lines: u64, patience: Duration) -> Result<u64, Failure> {
    if lines == 0 {
        return Ok(extent.last);
    }
    let mut from = extent.last;
    let mut found = 0;
    while from > extent.first && extent.last - from < BACK_BYTES_MAX {
        let until = from;
        from = until.saturating_sub(STEP_BYTES).max(extent.first);
        let piece = read_exactly(io, stream, from, until, patience).await?;
        for (index, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = from + index as u64 + 1;
            // The very last newline ends the last line; it does not begin another.
            if after == extent.last {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(after);
            }
        }
    }
    Ok(from)
}

async fn read_exactly(io: &TaskIo, stream: Stream, from: u64, until: u64, patience: Duration) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    while from + (all.len() as u64) < until {
        let offset = from + all.len() as u64;
        let max = u32::try_from(until - offset).unwrap_or(u32::MAX);
        match io.ask(&What::Read { stream, offset, max, wait_ms: 0, follow: false }, &[], patience).await? {
            (Told::Bytes { offset: at, .. }, bytes) if at == offset && !bytes.is_empty() => all.extend_from_slice(&bytes),
            // Rotated away in this moment: what is left begins later, and is read from there.
            (Told::Bytes { .. }, _) => return Ok(all),
            _ => return Err(odd(io)),
        }
    }
    Ok(all)
}

fn odd(io: &TaskIo) -> Failure {
    Failure::failed(format!("{} answers something else, asked for output of {}", io.agent, io.task)).hint("the same version of meso everywhere")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testagent::TestAgent;

    /// Shows where the last lines begin: with and without an end, more than there are, across the steps of reading.
    #[tokio::test]
    async fn the_last_lines() {
        let agent = TestAgent::start().await;
        let long = format!("{}\n", "x".repeat(300_000));
        let text = format!("one\n{long}three\nfour\nfive");
        agent.write(text.as_bytes());
        let io = agent.io();
        let patience = Duration::from_secs(5);
        let whole = extent(&io, Stream::Stdout, patience).await.expect("it answers");
        assert_eq!(whole, Extent { first: 0, last: text.len() as u64 });
        for (lines, expected) in [(0, ""), (1, "five"), (2, "four\nfive"), (3, "three\nfour\nfive")] {
            let at = tail_offset(&io, Stream::Stdout, whole, lines, patience).await.expect("it answers");
            assert_eq!(&text[at as usize..], expected);
        }
        let at = tail_offset(&io, Stream::Stdout, whole, 4, patience).await.expect("it answers");
        assert_eq!(at, 4);
        for lines in [5, 6, 1000] {
            assert_eq!(tail_offset(&io, Stream::Stdout, whole, lines, patience).await.expect("it answers"), 0);
        }
        agent.write(b"\n");
        let whole = extent(&io, Stream::Stdout, patience).await.expect("it answers");
        let at = tail_offset(&io, Stream::Stdout, whole, 1, patience).await.expect("it answers");
        assert_eq!(&format!("{text}\n")[at as usize..], "five\n");
    }
}
