//! What carries the master's effects out: registry, answers, pushes, commands, statuses.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use meso_bus::driver::Outside;
use meso_bus::lease::{EpochRaiser, Standing};
use meso_bus::{Bucket, Bus, BusError, Message, Store};
use meso_cli::{Failure, complain};
use meso_core::master::{Caller, Effect, Event, Master, Presence, Reply};
use meso_core::wire::call::Answer;
use meso_core::wire::operator::Outcome;
use meso_core::wire::query::Rows;
use meso_core::wire::{Refusal, RefusalCode};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep};

use crate::allocator::Allocator;
use crate::record::settle;

/// How many callers may wait for an answer; the oldest are forgotten, and ask again.
const CALLERS_MAX: usize = 100_000;

/// Pause before a document of the registry is written again.
const WRITE_AGAIN: Duration = Duration::from_millis(250);

/// Who waits for which answer.
#[derive(Default)]
pub struct Callers {
    next: Caller,
    waiting: BTreeMap<Caller, Message>,
}

impl Callers {
    /// A number for the sender of this message.
    pub fn number(&mut self, message: Message) -> Caller {
        self.next += 1;
        self.waiting.insert(self.next, message);
        if self.waiting.len() > CALLERS_MAX {
            self.waiting.pop_first();
        }
        self.next
    }
}

/// The outside of one master while it leads: dropped with its connection when it steps down.
pub struct Host {
    bus: Bus,
    registry: Bucket,
    revisions: BTreeMap<String, u64>,
    callers: Rc<RefCell<Callers>>,
    raise: EpochRaiser,
    standing: watch::Receiver<Standing>,
    /// The program that says who gets what, if it is one.
    allocator: Option<Allocator>,
}

/// Why a leader ends.
pub enum Fatal {
    /// The registry could not be written: somebody else writes it, or nobody can.
    Registry(Failure),
    /// The lease is lost: nothing more is said.
    Over,
}

impl Host {
    /// Over the leader's connection; `revisions` are those of the registry as it was read.
    pub fn new(bus: Bus, revisions: BTreeMap<String, u64>, callers: Rc<RefCell<Callers>>, raise: EpochRaiser, standing: watch::Receiver<Standing>, allocator: Option<Allocator>) -> Self {
        let registry = Store::new(&bus).registry();
        Host { bus, registry, revisions, callers, raise, standing, allocator }
    }

    /// Of several texts of one document only the last has to be written: it holds what the others say.
    async fn register(&mut self, effects: &[Effect]) -> Result<(), Fatal> {
        let mut docs: BTreeMap<&str, &str> = BTreeMap::new();
        for effect in effects {
            if let Effect::Registry { key, doc } = effect {
                docs.insert(key, doc);
            }
        }
        for (key, doc) in docs {
            let revision = self.write(key, Bytes::copy_from_slice(doc.as_bytes())).await?;
            self.revisions.insert(key.to_owned(), revision);
        }
        Ok(())
    }

    /// Writes a document over the revision that we know of; gives the new one. While the servers of the bus elect who leads
    /// they are silent, and whether a write has happened then is found out by reading, for as long as we may act at all.
    async fn write(&mut self, key: &str, doc: Bytes) -> Result<u64, Fatal> {
        let known = self.revisions.get(key).copied().unwrap_or(0);
        let fatal = |error: BusError| Fatal::Registry(Failure::from(error).context(format!("writing {key} of the registry")));
        loop {
            match self.registry.put(key, doc.clone(), known).await {
                Ok(revision) => return Ok(revision),
                Err(error) if error.may_pass() => complain(&format!("writing {key} of the registry: {error}; trying again")),
                Err(error) => return Err(fatal(error)),
            }
            sleep(WRITE_AGAIN).await;
            self.may_act().await?;
            match self.registry.get(key).await {
                Ok(Some((stored, revision))) if revision != known && stored == doc => return Ok(revision),
                // If it is somebody else's by now, the next write is refused.
                Ok(_) => {}
                Err(error) if error.may_pass() => {}
                Err(error) => return Err(fatal(error)),
            }
        }
    }

    /// Waits while our own clock says that the lease may be somebody else's; over if it is. The first of two defences:
    /// agents refuse what comes late by its epoch.
    async fn may_act(&mut self) -> Result<(), Fatal> {
        loop {
            match *self.standing.borrow_and_update() {
                Standing::Leading { valid_until, .. } if Instant::now() < valid_until => return Ok(()),
                Standing::Leading { .. } | Standing::Suspended { .. } => {}
                Standing::Standby | Standing::Released => return Err(Fatal::Over),
            }
            self.standing.changed().await.map_err(|_| Fatal::Over)?;
        }
    }

    async fn answer(&self, caller: Caller, reply: &Reply) {
        let Some(message) = self.callers.borrow_mut().waiting.remove(&caller) else { return };
        let payload = match reply {
            Reply::Welcome(welcome) => json(welcome),
            Reply::Beaten(beaten) => json(beaten),
            Reply::Answer(answer) => json(answer),
            Reply::Outcome(outcome) => json(outcome),
            Reply::Rows(rows) => json(rows),
        };
        // Whoever asked asks again if this does not arrive; a reply subject that is not the caller's own is refused here.
        let _ = self.bus.answer(&message, payload).await;
    }

    async fn publish(&self, subject: &str, payload: Bytes) {
        if let Err(error) = self.bus.publish(subject, payload).await {
            complain(&format!("{error}"));
        }
    }
}

fn json(value: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("wire types are plain data"))
}

impl Outside<Master> for Host {
    type Fatal = Fatal;

    async fn perform(&mut self, _machine: &mut Master, effects: Vec<Effect>) -> Result<(), Fatal> {
        self.may_act().await?;
        self.register(&effects).await?;
        let mut settled = Vec::new();
        for effect in effects {
            self.may_act().await?;
            match effect {
                Effect::Registry { .. } => {}
                Effect::Settle { principal, update } => settled.push((principal, *update)),
                Effect::Reply { caller, reply } => self.answer(caller, &reply).await,
                Effect::Push { principal, framework, push } => {
                    let subject = self.bus.subjects().push(&principal, &framework);
                    self.publish(&subject, json(&push)).await;
                }
                Effect::Command { agent, secret, command } => {
                    let subject = self.bus.subjects().command(&agent, &secret);
                    self.publish(&subject, json(&command)).await;
                }
                Effect::Publish(update) => {
                    // The stream listens on the subject, as framework and tools do.
                    let subject = self.bus.subjects().master_status(&update.framework, &update.task);
                    self.publish(&subject, json(&update)).await;
                }
                Effect::Tell(happening) => {
                    complain(&happening.message);
                    let subject = self.bus.subjects().master_event(None, "event");
                    self.publish(&subject, json(&happening)).await;
                }
                Effect::Invite(invitation) => {
                    let subject = self.bus.subjects().lead();
                    self.publish(&subject, json(&invitation)).await;
                }
                Effect::RaiseAbove { epoch } => {
                    self.raise.raise_above(epoch).await;
                }
                Effect::Ask { number, snapshot } => {
                    if let Some(allocator) = &self.allocator {
                        allocator.ask(number, snapshot);
                    }
                }
            }
        }
        if !settled.is_empty() {
            tokio::task::spawn_local(settle(self.bus.clone(), settled));
        }
        Ok(())
    }
}

/// What a message of one of the leader's subjects is as an event; none if it is not one of ours.
pub fn event_of(bus: &Bus, callers: &Rc<RefCell<Callers>>, message: Message) -> Option<Event> {
    use meso_bus::Address;
    let address = bus.subjects().parse(&message.subject)?;
    let payload = message.payload.clone();
    let number = |message| callers.borrow_mut().number(message);
    match address {
        Address::AgentCall { agent, verb } => match verb.as_str() {
            "hello" => {
                let hello: meso_core::wire::agent::Hello = serde_json::from_slice(&payload).ok()?;
                (hello.agent == agent).then(|| Event::Hello { caller: number(message), hello: Box::new(hello) })
            }
            "beat" => {
                let beat: meso_core::wire::agent::Beat = serde_json::from_slice(&payload).ok()?;
                (beat.agent == agent).then(|| Event::Beat { caller: number(message), beat })
            }
            _ => None,
        },
        Address::FrameworkCall { principal, .. } => match meso_core::json::read(&payload) {
            Ok(call) => Some(Event::Call { caller: number(message), principal, call: Box::new(call) }),
            Err(error) => {
                answer_later(bus, message, &Answer::Refused(unread(&error.to_string())));
                None
            }
        },
        Address::OperatorCall { .. } => match meso_core::json::read(&payload) {
            Ok(operation) => Some(Event::Operation { caller: number(message), operation: Box::new(operation) }),
            Err(error) => {
                answer_later(bus, message, &Outcome::Refused(unread(&error.to_string())));
                None
            }
        },
        Address::Query { principal, .. } => match serde_json::from_slice(&payload) {
            Ok(query) => Some(Event::Query { caller: number(message), principal, query }),
            Err(error) => {
                answer_later(bus, message, &Rows::Refused { refusal: unread(&error.to_string()) });
                None
            }
        },
        Address::Event { agent: Some(agent), .. } => {
            let update = serde_json::from_slice(&payload).ok()?;
            Some(Event::Status { agent, update: Box::new(update) })
        }
        Address::Standby { master } => {
            let presence: Presence = serde_json::from_slice(&payload).ok()?;
            (presence.master == master).then(|| Event::Standby { master, host: presence.host, version: presence.version })
        }
        _ => None,
    }
}

/// A call that is not what we read is answered with the reason, so that its sender need not wait.
fn unread(why: &str) -> Refusal {
    Refusal::new(RefusalCode::BadRequest, format!("the call cannot be read: {why}"))
}

fn answer_later(bus: &Bus, message: Message, answer: &impl Serialize) {
    let payload = json(answer);
    let bus = bus.clone();
    tokio::task::spawn_local(async move {
        let _ = bus.answer(&message, payload).await;
    });
}
