//! What is heard of our framework: from the leader, and from the record of statuses.

use std::time::Duration;

use meso_bus::{Bus, Item, Start, Store, Subscription};
use meso_cli::client::{Leader, patience, read_status};
use meso_cli::complain;
use meso_core::id::FrameworkId;
use meso_core::offerer::{Event, Place};
use meso_core::wire::agent::Invitation;
use meso_core::wire::call::Push;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// Pause before the record is opened again, or the leader asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often to look whether all agents have told a new leader what they run.
const RECOVERING: Duration = Duration::from_millis(200);

/// Hands on that somebody leads. Who may not hear it finds a new leader by asking.
pub async fn hear_leaders(bus: Bus, to: mpsc::Sender<Event>) {
    let Ok(mut said) = bus.subscribe(&bus.subjects().lead()).await else { return };
    while let Some(message) = said.next().await {
        let Ok(Invitation { epoch, .. }) = serde_json::from_slice(&message.payload) else { continue };
        if to.send(Event::Led { epoch }).await.is_err() {
            return;
        }
    }
}

/// Hands on what the leader sends by itself.
pub async fn hear_pushes(mut pushes: Subscription, to: mpsc::Sender<Event>) {
    while let Some(message) = pushes.next().await {
        let Ok(push) = serde_json::from_slice::<Push>(&message.payload) else { continue };
        if to.send(Event::Push(push)).await.is_err() {
            return;
        }
    }
}

/// Hands on the framework's statuses, those recorded behind `after` first.
pub async fn hear_statuses(leader: Leader, framework: FrameworkId, mut after: Place, to: mpsc::Sender<Event>) {
    let filter = leader.bus().subjects().events_of_framework(&framework);
    loop {
        let start = match after {
            Place { seq: 0, .. } => Start::All,
            Place { seq, recorded_ms: 0 } => Start::After(seq),
            Place { seq, recorded_ms } => Start::Behind { seq, time_ms: recorded_ms },
        };
        let outcome = Store::new(leader.bus()).events(start, &filter).await;
        let error = match outcome {
            Ok(mut reader) => loop {
                let event = match reader.next().await {
                    Ok(Item::Event(event)) => event,
                    Ok(Item::CaughtUp) => continue,
                    Ok(Item::Unreadable) => {
                        complain("a part of the record cannot be read, for its store is damaged: statuses may be missing; ask for them with reconcile/1");
                        continue;
                    }
                    Ok(Item::Reset) => {
                        after = Place::default();
                        complain("the record was lost and begins anew: statuses may come twice");
                        continue;
                    }
                    Err(error) => break error,
                };
                after = Place { seq: event.seq, recorded_ms: event.time_ms };
                let heard = match read_status(&leader, &event) {
                    Some(update) => Event::Status { update: Box::new(update), place: after },
                    None => Event::Passed { place: after },
                };
                if to.send(heard).await.is_err() {
                    return;
                }
            },
            Err(error) => error,
        };
        if !error.may_pass() {
            complain(&format!("cannot read the record of statuses: {error}"));
            return;
        }
        sleep(AGAIN).await;
    }
}

/// Asks which tasks live, until there is an answer. A new leader learns it from the agents, which is waited for.
pub async fn snapshot(leader: Leader, to: mpsc::Sender<Event>) {
    let patience = patience();
    let begun = Instant::now();
    while begun.elapsed() < patience {
        match leader.agents(patience).await {
            Ok(agents) if agents.iter().all(|agent| agent.state != "recovering") => break,
            // Asked again below, where it is said.
            Err(_) => break,
            Ok(_) => sleep(RECOVERING).await,
        }
    }
    loop {
        match leader.tasks("", patience).await {
            Ok(rows) => {
                let _ = to.send(Event::Snapshot(rows.into_iter().map(|row| row.update).collect())).await;
                return;
            }
            Err(failure) => {
                complain(&failure.context("the tasks that live are not known yet").to_string());
                sleep(AGAIN).await;
            }
        }
    }
}
