//! The record of events as the leader uses it: what it holds is not contradicted, and where it cannot be read it is made anew.

use bytes::Bytes;
use meso_bus::{Bus, BusError, BusEvent, Store};
use meso_cli::client::recorded_end;
use meso_cli::complain;
use meso_core::id::{MasterId, Principal};
use meso_core::master::{Event, Happening};
use meso_core::wire::call::Push;
use meso_core::wire::{Update, Wall};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep, timeout};

use crate::start::wall_ms;

/// How often the record is asked for the end of a task before whoever waits has to ask again.
const ASKS_MAX: u32 = 3;
/// How often it is looked whether the record can be read; also whenever the bus is back.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// So many looks in a row that fail, with a pause between, and it is made anew.
const LOOKS_MAX: u32 = 3;
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Says of tasks that no agent knows any more how they ended. Two ends are never told: the one that is recorded stands.
pub async fn settle(bus: Bus, tasks: Vec<(Principal, Update)>) {
    for (principal, update) in tasks {
        let (subject, payload) = match end_of(&bus, &update).await {
            Ok(Some(end)) => (bus.subjects().push(&principal, &update.framework), json(&Push::Known { update: Box::new(end) })),
            Ok(None) => (bus.subjects().master_status(&update.framework, &update.task), json(&update)),
            Err(error) => {
                complain(&format!("whether {} has ended cannot be looked up: {error}; whoever asks again is told", update.task));
                continue;
            }
        };
        if let Err(error) = bus.publish(&subject, payload).await {
            complain(&error.to_string());
        }
    }
}

/// The end that is recorded; asked for more than once.
async fn end_of(bus: &Bus, update: &Update) -> Result<Option<Update>, BusError> {
    let mut asks = 1;
    loop {
        match recorded_end(bus, update).await {
            Err(_) if asks < ASKS_MAX => asks += 1,
            end => return end,
        }
    }
}

/// Looks whether what is recorded can be read again, for as long as the term lasts. A server may lose that to a damaged
/// disk and go on taking what it will never give back.
pub async fn mind_record(bus: Bus, replicas: u32, master: MasterId, to: mpsc::Sender<Event>) {
    let mut events = bus.events();
    loop {
        match is_unreadable(&bus, &master).await {
            Ok(true) => match Store::new(&bus).renew_events(replicas).await {
                Ok(()) => {
                    if to.send(Event::RecordRenewed).await.is_err() {
                        return;
                    }
                }
                Err(error) => complain(&format!("the record of events cannot be made anew: {error}; if this lasts, the bus has to be started again")),
            },
            // A bus that is away, or busy, is no damage.
            Ok(false) | Err(_) => {}
        }
        let is_back = async {
            loop {
                match events.next().await {
                    Some(BusEvent::Connected) => return,
                    Some(_) => {}
                    None => std::future::pending().await,
                }
            }
        };
        let _ = timeout(LOOK_EVERY, is_back).await;
    }
}

/// Whether the record gives nothing any more of what it takes. That the last event cannot be read is not enough, for
/// somebody may have removed that one: an event of our own has to be lost too.
async fn is_unreadable(bus: &Bus, master: &MasterId) -> Result<bool, BusError> {
    let store = Store::new(bus);
    if store.can_read_last().await? {
        return Ok(false);
    }
    let wall = Wall(wall_ms());
    let happening = Happening {
        meso: "event/1".to_owned(),
        kind: "record_unreadable".to_owned(),
        about: master.to_string(),
        message: "the last event of the record cannot be read; if the next one cannot either, the record is made anew".to_owned(),
        ts: wall.text(),
        ts_ms: wall.0,
    };
    complain(&happening.message);
    bus.publish_stored(&bus.subjects().master_event(None, "event"), json(&happening), &format!("{master}.{}", wall.0)).await?;
    for _ in 0..LOOKS_MAX {
        if store.can_read_last().await? {
            return Ok(false);
        }
        sleep(LOOK_PAUSE).await;
    }
    Ok(true)
}

fn json(value: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("wire types are plain data"))
}
