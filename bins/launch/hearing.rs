//! What is heard of our tasks: from the leader, from their agents, and from the record where these may be mistaken.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use meso_bus::{Bus, Subscription};
use meso_cli::client::recorded_end;
use meso_core::id::TaskId;
use meso_core::launcher::Event;
use meso_core::wire::Update;
use meso_core::wire::call::Push;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Duration, timeout};

use crate::run::Happened;

/// How long one look into the record may take.
const LOOK_MAX: Duration = Duration::from_secs(15);
/// So many looks at once.
const LOOKS_AT_ONCE: usize = 16;
/// A master that says so often that a task is lost is believed, also where the record cannot be read meanwhile.
const DOUBTS_MAX: u32 = 3;

/// Where what is heard goes. What a master says of a task that its agent does not know is checked against the record first:
/// the task may have ended, been settled and forgotten while we were away, under a leader that is gone. To run it again
/// would be to run it twice.
#[derive(Clone)]
pub struct Ear {
    bus: Bus,
    to: mpsc::Sender<Happened>,
    /// Tasks that a master called lost while the record could not be read, and how often.
    doubts: Rc<RefCell<BTreeMap<TaskId, u32>>>,
    looks: Rc<Semaphore>,
}

impl Ear {
    pub fn new(bus: Bus, to: mpsc::Sender<Happened>) -> Self {
        Ear { bus, to, doubts: Rc::default(), looks: Rc::new(Semaphore::new(LOOKS_AT_ONCE)) }
    }

    /// Hands on what the leader sends by itself.
    pub async fn hear_pushes(self, mut pushes: Subscription) {
        while let Some(message) = pushes.next().await {
            let is_heard = match serde_json::from_slice(&message.payload) {
                Ok(Push::Known { update }) => self.take(*update).await,
                Ok(push) => self.say(Event::Push(push)).await,
                Err(_) => continue,
            };
            if !is_heard {
                return;
            }
        }
    }

    /// Hands on statuses, and says when some may have been missed.
    pub async fn hear_statuses(self, mut statuses: Subscription) {
        while let Some(message) = statuses.next().await {
            if statuses.has_gap() {
                self.say(Event::Gap).await;
            }
            let Ok(update) = serde_json::from_slice::<Update>(&message.payload) else { continue };
            // A status counts only on the subject of the agent it names; a master's own has no agent in its subject.
            let from = match self.bus.subjects().parse(&message.subject) {
                Some(meso_bus::Address::Event { agent, .. }) => agent,
                _ => continue,
            };
            let rightful = match &from {
                Some(agent) => update.agent.as_ref() == Some(agent) && update.agent_seq > 0,
                None => update.agent_seq == 0,
            };
            if rightful && !self.take(update).await {
                return;
            }
        }
    }

    /// Hands a status on; one that has to be checked goes its own way, and what comes behind it does not wait. False if
    /// nobody listens any more.
    async fn take(&self, update: Update) -> bool {
        if !(update.is_final && update.state.is_lost() && update.agent_seq == 0) {
            return self.say(Event::Update(Box::new(update))).await;
        }
        let ear = self.clone();
        tokio::task::spawn_local(async move {
            let event = ear.checked(update).await;
            ear.say(event).await;
        });
        !self.to.is_closed()
    }

    async fn checked(&self, update: Update) -> Event {
        let recorded = {
            let _turn = self.looks.acquire().await;
            timeout(LOOK_MAX, recorded_end(&self.bus, &update)).await
        };
        let mut doubts = self.doubts.borrow_mut();
        match recorded {
            Ok(Ok(end)) => {
                doubts.remove(&update.task);
                Event::Update(Box::new(end.unwrap_or(update)))
            }
            // Asked again, rather than believed at once.
            Ok(Err(_)) | Err(_) => {
                let times = doubts.entry(update.task.clone()).or_default();
                *times += 1;
                if *times < DOUBTS_MAX {
                    return Event::Gap;
                }
                doubts.remove(&update.task);
                Event::Update(Box::new(update))
            }
        }
    }

    async fn say(&self, event: Event) -> bool {
        self.to.send(Happened::Machine(event)).await.is_ok()
    }
}
