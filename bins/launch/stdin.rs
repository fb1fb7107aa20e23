//! Our standard input to the task: in order, with back-pressure, half-closed at its end.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use meso_cli::Failure;
use meso_cli::client::TaskIo;
use meso_core::wire::io::{Told, What};
use tokio::sync::mpsc;

/// How much is read and sent at once, bytes.
const PIECE_BYTES: usize = 56 * 1024;
/// Pieces read ahead of what the task took.
const AHEAD_MAX: usize = 2;
/// How long the agent may be silent before we give up, as for output.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads standard input on a thread of its own: a read that blocks must not hold up anything else.
pub fn read() -> mpsc::Receiver<std::io::Result<Bytes>> {
    let (to, from) = mpsc::channel(AHEAD_MAX);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = match stdin.read(&mut piece) {
                Ok(count) => {
                    piece.truncate(count);
                    Ok(Bytes::from(piece))
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                // Standard input that is closed, as under cron, is an empty one.
                Err(error) if error.raw_os_error() == Some(9) => Ok(Bytes::new()),
                Err(error) => Err(error),
            };
            let last = !matches!(&read, Ok(bytes) if !bytes.is_empty());
            if to.blocking_send(read).is_err() || last {
                return;
            }
        }
    });
    from
}

/// Feeds the task until our input or the task's wish for it ends.
pub async fn feed(io: TaskIo, mut pieces: mpsc::Receiver<std::io::Result<Bytes>>) -> Result<(), Failure> {
    let mut offset = 0u64;
    while let Some(piece) = pieces.recv().await {
        let piece = piece.map_err(|error| Failure::failed(format!("cannot read standard input: {}", meso_cli::io_text(&error))))?;
        let end = piece.is_empty();
        let mut at = 0usize;
        loop {
            let (told, _) = io.ask(&What::Write { offset: offset + at as u64, end }, &piece[at..], PATIENCE).await?;
            match told {
                Told::Taken { closed: true, .. } => return Ok(()),
                Told::Taken { offset: taken, .. } => at = usize::try_from(taken.saturating_sub(offset)).unwrap_or(0).clamp(at, piece.len()),
                _ => return Err(Failure::internal("the agent answered input with something else")),
            }
            if at == piece.len() {
                break;
            }
        }
        offset += piece.len() as u64;
        if end {
            return Ok(());
        }
    }
    Ok(())
}
