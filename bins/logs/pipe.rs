//! One output of one task, on its way to ours.

use std::time::Duration;

use meso_cli::client::{Follower, Found, LISTING_MS, Leader, Outlet, Tagger, TaskIo, extent, patience, tail_offset};
use meso_cli::{Failure, Written};
use meso_core::id::TaskId;
use meso_core::task::TaskState;
use meso_core::wire::Update;
use meso_core::wire::io::Stream;
use tokio::sync::watch;

/// So long an agent may be away while its task lives: as long as a person would leave this running.
const AWAY_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// What of a task's output is wanted.
#[derive(Clone, Copy)]
pub struct Wish {
    /// Which one.
    pub stream: Stream,
    /// Which of our own it goes to.
    pub to: Stream,
    /// Only so many lines of what is there.
    pub lines: Option<u64>,
    /// And what is written from then on.
    pub follow: bool,
}

/// An output that is open.
pub struct Pipe {
    /// Whose it is.
    pub task: TaskId,
    follower: Follower,
    stream: Stream,
    to: Stream,
    tagger: Option<Tagger>,
}

/// An output from where it is wanted; none if nothing was or will be written.
pub async fn open(leader: &Leader, found: &Found, wish: Wish, tagger: Option<Tagger>) -> Result<Option<Pipe>, Failure> {
    let (update, Wish { stream, to, lines, follow }) = (&found.update, wish);
    let total = update.is_final.then(|| bytes_of(update, stream));
    let Some(agent) = update.agent.clone().filter(|_| total != Some(0)) else { return Ok(None) };
    let io = TaskIo { bus: leader.bus().clone(), principal: leader.principal().clone(), agent, task: update.task.clone(), token: found.token.clone() };
    let patience = Duration::from_millis(LISTING_MS);
    let (from, until) = if lines.is_some() || (total.is_none() && !follow) {
        let extent = extent(&io, stream, patience).await?;
        let from = match lines {
            Some(lines) => tail_offset(&io, stream, extent, lines, patience).await?,
            None => 0,
        };
        (from, total.or((!follow).then_some(extent.last)))
    } else {
        (0, total)
    };
    let mut follower = Follower::new(io, stream, from).with_patience(if total.is_none() && follow { Duration::from_millis(AWAY_MS_MAX) } else { patience });
    if let Some(until) = until {
        follower.expect(until);
    }
    Ok(Some(Pipe { task: update.task.clone(), follower, stream, to, tagger }))
}

fn bytes_of(update: &Update, stream: Stream) -> u64 {
    match stream {
        Stream::Stdout => update.stdout_bytes,
        Stream::Stderr => update.stderr_bytes,
    }
}

/// The news of a task that has ended, or of one whose end is not waited for.
pub fn ended(update: &Update) -> watch::Receiver<Option<Update>> {
    watch::channel(Some(update.clone()).filter(|update| update.is_final)).1
}

/// Copies an output to its end, which the task's end makes known.
pub async fn copy(mut pipe: Pipe, mut end: watch::Receiver<Option<Update>>) -> Result<Written, Failure> {
    let mut outlet = Outlet::of(pipe.to)?;
    loop {
        let bytes = tokio::select! {
            bytes = pipe.follower.next() => bytes?,
            Ok(()) = end.changed() => {
                if let Some(update) = end.borrow_and_update().as_ref() {
                    // Of a task that nobody knows, its agent may still say where its output ends.
                    if update.state != TaskState::Unknown {
                        pipe.follower.expect(bytes_of(update, pipe.stream));
                    }
                    pipe.follower.set_patience(patience());
                }
                continue;
            }
        };
        let is_end = bytes.is_none();
        let bytes = match (&mut pipe.tagger, bytes) {
            (Some(tagger), Some(bytes)) => tagger.lines(&bytes).into(),
            (Some(tagger), None) => tagger.end().into(),
            (None, bytes) => bytes.unwrap_or_default(),
        };
        if outlet.write(&bytes)? == Written::ReaderGone {
            return Ok(Written::ReaderGone);
        }
        if is_end {
            return Ok(Written::Yes);
        }
    }
}
