//! What carries the agent's effects out: log, bus, containers.

use std::rc::Rc;

use bytes::Bytes;
use meso_bus::driver::Outside;
use meso_bus::Bus;
use meso_cli::{Failure, complain};
use meso_core::agent::{ANSWER_WAIT_MS, Agent, Effect, Event};
use meso_core::id::{AgentId, TaskId};
use meso_core::wire::{Refusal, RefusalCode, Update};
use meso_core::wire::agent::{Beat, Hello};
use tokio::sync::mpsc;
use tokio::time::Duration;

use crate::containers::Containers;
use crate::keeper::Keeper;
use crate::retained::Retained;

/// How long an answer to a registration or a beat may take: less than the machine waits.
const ANSWER_MS: u64 = ANSWER_WAIT_MS - 500;

/// The outside of one agent.
pub struct Host {
    agent: AgentId,
    bus: Bus,
    keeper: Keeper,
    containers: Rc<Containers>,
    retained: Rc<Retained>,
    events: mpsc::Sender<Event>,
}

impl Host {
    /// Ties the parts together.
    pub fn new(agent: AgentId, bus: Bus, keeper: Keeper, containers: Rc<Containers>, retained: Rc<Retained>, events: mpsc::Sender<Event>) -> Self {
        Host { agent, bus, keeper, containers, retained, events }
    }

    fn hello(&self, hello: Hello) {
        let (bus, events, agent) = (self.bus.clone(), self.events.clone(), self.agent.clone());
        tokio::task::spawn_local(async move {
            let payload = Bytes::from(serde_json::to_vec(&hello).expect("a registration is plain data"));
            let subject = bus.subjects().agent_call(&agent, "hello");
            let answer = bus.request(&subject, payload, Duration::from_millis(ANSWER_MS)).await.ok();
            let welcome = answer.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let _ = events.send(Event::Welcome(welcome)).await;
        });
    }

    fn beat(&self, beat: Beat) {
        let (bus, events, agent) = (self.bus.clone(), self.events.clone(), self.agent.clone());
        tokio::task::spawn_local(async move {
            let payload = Bytes::from(serde_json::to_vec(&beat).expect("a beat is plain data"));
            let subject = bus.subjects().agent_call(&agent, "beat");
            let answer = bus.request(&subject, payload, Duration::from_millis(ANSWER_MS)).await.ok();
            let beaten = answer.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let _ = events.send(Event::Beaten(beaten)).await;
        });
    }

    /// Publishes a status; the plain subject is heard live, and the stream that records it answers.
    fn send(&self, update: Update) {
        let (bus, events) = (self.bus.clone(), self.events.clone());
        let subject = self.bus.subjects().status(&self.agent, &update.framework, &update.task);
        tokio::task::spawn_local(async move {
            let payload = Bytes::from(serde_json::to_vec(&update).expect("a status is plain data"));
            // The launch makes the number unique: a task id may be used again.
            let launch = update.launch.as_ref().map_or_else(String::new, |launch| format!("{}.{}.{}", launch.epoch, launch.offer, launch.index));
            let id = format!("{}.{launch}.{}", update.task, update.seq);
            let ok = bus.publish_stored(&subject, payload, &id).await.is_ok();
            let _ = events.send(Event::Stored { task: update.task, seq: update.seq, ok }).await;
        });
    }

    fn settled(&self, task: TaskId) {
        let retained = Rc::clone(&self.retained);
        tokio::task::spawn_local(async move { retained.settled(&task).await });
    }
}

/// Why the agent ends, and what brings it back.
fn refused(refusal: &Refusal) -> Failure {
    let hint = match refusal.code {
        RefusalCode::AgentGone => "start it with an empty --work-dir to bring it back as a new agent",
        RefusalCode::Version => "the release of the masters, or the one next to it",
        _ => "use another --work-dir for another agent",
    };
    Failure::config(format!("the master refuses this agent: {}", refusal.message)).hint(hint)
}

impl Outside<Agent> for Host {
    type Fatal = Failure;

    async fn perform(&mut self, machine: &mut Agent, effects: Vec<Effect>) -> Result<(), Failure> {
        self.keeper.persist(machine, &effects).await?;
        for effect in effects {
            match effect {
                Effect::Persist(_) => {}
                Effect::Hello(hello) => self.hello(*hello),
                Effect::Beat(beat) => self.beat(beat),
                Effect::Send(update) => self.send(*update),
                Effect::Launch(launch) => {
                    self.retained.began(&launch);
                    self.containers.launch(*launch);
                }
                Effect::Kill { task, grace_ms } => {
                    if let Some(launch) = machine.launch_of(&task) {
                        self.containers.kill(launch, grace_ms);
                    }
                }
                Effect::Settled { task } => self.settled(task),
                Effect::Say(text) => complain(&text),
                Effect::Leave(refusal) => return Err(refused(&refusal)),
            }
        }
        Ok(())
    }
}
