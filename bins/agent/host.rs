//! What carries the agent's effects out: log, bus, containers.

use std::rc::Rc;

use bytes::Bytes;
use meso_bus::driver::Outside;
use meso_bus::Bus;
use meso_cli::{Failure, complain, io_text};
use meso_core::agent::{ANSWER_WAIT_MS, Agent, Effect, Event};
use meso_core::id::{AgentId, TaskId};
use meso_core::wire::Update;
use meso_core::wire::agent::{Beat, Hello};
use tokio::sync::mpsc;
use tokio::time::Duration;

use crate::containers::Containers;
use crate::journal::Journal;
use crate::retained::Retained;

/// How long an answer to a registration or a beat may take: less than the machine waits.
const ANSWER_MS: u64 = ANSWER_WAIT_MS - 500;

/// The outside of one agent.
pub struct Host {
    agent: AgentId,
    work_dir: std::path::PathBuf,
    bus: Bus,
    journal: Option<Journal>,
    containers: Rc<Containers>,
    retained: Rc<Retained>,
    events: mpsc::Sender<Event>,
}

impl Host {
    /// Ties the parts together.
    pub fn new(
        agent: AgentId,
        work_dir: std::path::PathBuf,
        bus: Bus,
        journal: Journal,
        containers: Rc<Containers>,
        retained: Rc<Retained>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Host { agent, work_dir, bus, journal: Some(journal), containers, retained, events }
    }

    /// One write and one fsync for all facts of the batch, off the runtime's thread.
    async fn persist(&mut self, machine: &Agent, effects: &[Effect]) -> Result<(), Failure> {
        let records: Vec<_> = effects.iter().filter_map(|effect| if let Effect::Persist(record) = effect { Some(record.clone()) } else { None }).collect();
        if records.is_empty() {
            return Ok(());
        }
        let mut journal = self.journal.take().expect("the journal is put back after each use");
        let work_dir = self.work_dir.clone();
        // A long log is begun anew from what the machine knows now, which includes this batch.
        let anew = journal.is_long().then(|| machine.snapshot());
        let path = journal.path().to_owned();
        let outcome = tokio::task::spawn_blocking(move || match anew {
            Some(records) => Journal::begin(&work_dir, &records),
            None => journal.append(&records).map(|()| journal),
        })
        .await;
        match outcome {
            Ok(Ok(journal)) => {
                self.journal = Some(journal);
                Ok(())
            }
            Ok(Err(error)) => Err(Failure::config(format!("cannot write {}: {}", path.display(), io_text(&error)))
                .hint("free some space or mend the disk and start the agent again: running tasks go on meanwhile")),
            Err(error) => Err(Failure::internal(format!("writing {} failed: {error}", path.display()))),
        }
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

impl Outside<Agent> for Host {
    type Fatal = Failure;

    async fn perform(&mut self, machine: &mut Agent, effects: Vec<Effect>) -> Result<(), Failure> {
        self.persist(machine, &effects).await?;
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
                Effect::Leave(refusal) => return Err(Failure::config(format!("the master refuses this agent: {}", refusal.message)).hint("use another --work-dir for another agent")),
            }
        }
        Ok(())
    }
}
