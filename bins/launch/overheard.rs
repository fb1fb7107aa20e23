//! Whether offers lie in standard input that nobody reads: the most likely slip of a pipeline.

use std::io::{IsTerminal, Read, stdin};
use std::time::Duration;

use meso_cli::{Failure, report};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};
use tokio::time::sleep;

/// What an offer line begins with.
const OFFER: &[u8] = br#"{"meso":"offer/1""#;
/// How often and how long to look: the first offer comes soon, and later ones would be a surprise.
const LOOKS: u32 = 20;
const LOOK: Duration = Duration::from_millis(100);

/// Looks for a while, without taking anything out of the pipe, and says once what it sees.
pub async fn mind_stdin() {
    for _ in 0..LOOKS {
        match begins_with_offer() {
            Some(true) => {
                report(&Failure::failed("offers come in on standard input, and nobody reads them").hint("meso-launch -O, which launches on these"));
                return;
            }
            Some(false) => return,
            None => sleep(LOOK).await,
        }
    }
}

/// None while there is nothing yet. What is no pipe begins with nothing of the kind.
fn begins_with_offer() -> Option<bool> {
    let stdin = stdin();
    if stdin.is_terminal() {
        return Some(false);
    }
    // tee(2) copies what lies in a pipe and leaves it there; of anything but a pipe it makes an error.
    let Ok((ours, theirs)) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) else { return Some(false) };
    match tee(&stdin, &theirs, OFFER.len(), SpliceFlags::NONBLOCK) {
        Ok(0) => Some(false),
        Ok(_) => {
            drop(theirs);
            let mut begin = Vec::new();
            let _ = std::fs::File::from(ours).read_to_end(&mut begin);
            Some(begin == OFFER)
        }
        Err(rustix::io::Errno::AGAIN) => None,
        Err(_) => Some(false),
    }
}
