//! Scheduler mode: each line that is read is a call, and gets a line back.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use meso_bus::Subscription;
use meso_cli::client::{Absence, Leader, Scheduler, Seat};
use meso_cli::{Exit, Failure, LineIn, LineOut, LineRead, Until, Written, complain};
use meso_core::id::TaskId;
use meso_core::wire::{RefusalCode, Update};
use tokio::time::sleep;

use crate::Args;
use crate::offers::complain_of_line;
use crate::outcome::left_behind;
use crate::signals;

/// How often to look whether tasks have ended whose end was not heard of.
const LOOK_MS: u64 = 10_000;
/// How long the leader may take to say it.
const ANSWER_MS: u64 = 5_000;

/// Reads calls to their end, then waits for the tasks that were launched.
pub async fn schedule(args: Args) -> Result<Exit, Failure> {
    let access = args.bus.access()?;
    let mut signals = signals::listen()?;
    let leader = Leader::connect(&access).await?;
    let mut lines = LineIn::open(args.offers.as_deref().unwrap_or(Path::new("-")), Until::Newline).await?;
    let mut out = LineOut::stdout()?;
    let mut scheduler = Scheduler::new(leader.clone(), None, args.detach)?;
    let mut kept: Option<tokio::task::JoinHandle<()>> = None;
    let (lost_to, mut lost) = tokio::sync::mpsc::channel::<meso_core::wire::Refusal>(1);
    let mut statuses: Option<Subscription> = None;
    let mut absence = Absence::of(&leader, args.quiet);
    let lives = args.on_disconnect == "keep";
    let mut exit = Exit::DONE;
    let mut reading = true;
    while reading || !scheduler.launched.is_empty() {
        let waiting = !reading;
        tokio::select! {
            biased;
            Some(signal) = signals.recv() => {
                exit = Exit::signal(u8::try_from(signal).unwrap_or(127));
                break;
            }
            gone = absence.over(false) => {
                scheduler.launched.iter().for_each(|task| complain(&left_behind(task, true, lives)));
                return Err(gone);
            }
            Some(refusal) = lost.recv() => {
                leave(&leader, None, kept).await;
                return Err(match refusal.code {
                    RefusalCode::NameHeld => Failure::not_now(refusal.message),
                    _ => Failure::failed(refusal.message),
                });
            }
            ended = hear(&mut statuses), if statuses.is_some() => drop(ended.map(|task| scheduler.launched.remove(&task))),
            line = lines.next(), if reading => {
                let (number, bytes) = match line? {
                    None => {
                        reading = false;
                        if args.detach {
                            break;
                        }
                        continue;
                    }
                    Some(LineRead::TooLong { number, bytes }) => {
                        complain_of_line(number, &Failure::failed(format!("{bytes} bytes are too long for a line")));
                        if args.strict {
                            exit = Exit::BAD_INPUT;
                            break;
                        }
                        continue;
                    }
                    Some(LineRead::Line { number, bytes }) => (number, bytes),
                };
                let result = tokio::select! {
                    biased;
                    Some(signal) = signals.recv() => {
                        // Whether this call is heard is not known; what was launched before goes with the session.
                        exit = Exit::signal(u8::try_from(signal).unwrap_or(127));
                        break;
                    }
                    result = scheduler.line(number, &bytes) => result,
                };
                let result = result.inspect_err(|_| scheduler.launched.iter().for_each(|task| complain(&left_behind(task, true, lives))))?;
                if let Some(why) = &result.bad {
                    complain_of_line(number, &Failure::failed(why.clone()));
                }
                if let Written::ReaderGone = out.object(&result)? {
                    // Nobody wants to know: what was launched is given up with the session.
                    break;
                }
                if result.bad.is_some() && args.strict {
                    exit = Exit::BAD_INPUT;
                    break;
                }
                if let (None, Some(seat)) = (&kept, scheduler.seat()) {
                    statuses = Some(leader.bus().subscribe(&leader.bus().subjects().events_of_framework(&seat.framework)).await?);
                    kept = Some(keep(leader.clone(), seat.clone(), lost_to.clone()));
                    // What ended before we listened is found by looking.
                    forget_ended(&leader, &mut scheduler.launched).await;
                }
            }
            () = sleep(Duration::from_millis(LOOK_MS)), if waiting => forget_ended(&leader, &mut scheduler.launched).await,
        }
    }
    let seat = scheduler.seat().cloned();
    leave(&leader, seat, kept).await;
    Ok(exit)
}

fn keep(leader: Leader, seat: Seat, lost: tokio::sync::mpsc::Sender<meso_core::wire::Refusal>) -> tokio::task::JoinHandle<()> {
    tokio::task::spawn_local(async move {
        let refusal = seat.keep(&leader).await;
        // Nobody listens any more only when we are about to leave anyway.
        let _ = lost.send(refusal).await;
    })
}

async fn leave(leader: &Leader, seat: Option<Seat>, kept: Option<tokio::task::JoinHandle<()>>) {
    if let Some(kept) = kept {
        kept.abort();
    }
    if let Some(seat) = seat.filter(|_| leader.bus().is_connected()) {
        // Without an answer the seat lapses by itself; that is the same end, later.
        let _ = seat.leave(leader).await;
    }
}

/// The next task that ended.
async fn hear(statuses: &mut Option<Subscription>) -> Option<TaskId> {
    let message = statuses.as_mut()?.next().await?;
    let update = serde_json::from_slice::<Update>(&message.payload).ok()?;
    update.is_final.then_some(update.task)
}

/// Forgets the tasks that the leader knows as ended, or not at all.
async fn forget_ended(leader: &Leader, launched: &mut BTreeSet<TaskId>) {
    let mut over = Vec::new();
    for task in launched.iter() {
        if let Ok(rows) = leader.tasks(task.as_str(), Duration::from_millis(ANSWER_MS)).await {
            if rows.iter().find(|row| row.update.task == *task).is_none_or(|row| row.update.is_final) {
                over.push(task.clone());
            }
        }
    }
    for task in over {
        launched.remove(&task);
    }
}
