//! An agent without a machine: the real agent's logic on the real bus, over containers that run until they are told to end.

use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use meso_bus::driver::{Clock, Machine, Outside, drive};
use meso_bus::{BusError, Subscription};
use meso_core::agent::{ANSWER_WAIT_MS, Agent, Config, Effect, Ending, Event, Usage};
use meso_core::id::{AgentId, Nonce, TaskId};
use meso_core::resources::Resources;
use meso_core::wire::Update;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::crowd::Crowd;
use crate::line::Line;

/// How many events may wait for one agent.
const EVENTS_MAX: usize = 1_024;
/// How long an answer may take, and how far a returning crowd spreads: as meso-agent has them.
const ANSWER: Duration = Duration::from_millis(ANSWER_WAIT_MS - 500);
const JITTER_MS_MAX: u64 = 100;
/// The signal that a task ends by when it is asked to.
const TERM: i32 = 15;

/// An agent that has a place on the bus and has not begun.
pub struct Prepared {
    number: usize,
    config: Config,
    line: Rc<Line>,
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
}

impl Prepared {
    /// Listens for commands and invitations, as an agent does before it says anything.
    pub async fn new(number: usize, line: Rc<Line>, total: Resources) -> Result<Prepared, BusError> {
        let entropy = |salt: u64| (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(salt as u32) ^ salt;
        let config = Config {
            agent: AgentId::fresh(number as u64),
            incarnation: Nonce::fresh(entropy(1), entropy(2)),
            secret: Nonce::fresh(entropy(3), entropy(4)),
            generation: 1,
            host: format!("host-{number:06}"),
            attrs: Default::default(),
            total,
            boot_id: "none".to_owned(),
            isolation: "processes".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            jitter_ms: entropy(5) % JITTER_MS_MAX,
        };
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let subjects = line.bus().subjects();
        let commands = line.bus().subscribe(&subjects.command(&config.agent, &config.secret)).await?;
        let lead = line.bus().subscribe(&subjects.lead()).await?;
        tokio::task::spawn_local(listen(commands, lead, sender.clone()));
        Ok(Prepared { number, config, line, sender, events })
    }

    /// Registers, and serves for ever.
    pub async fn run(self, clock: Clock, crowd: Rc<Crowd>) {
        let Prepared { number, config, line, sender, mut events } = self;
        let agent = config.agent.clone();
        let _ = sender.try_send(Event::Clock { wall_ms: wall_ms(), at_ms: clock.now_ms() });
        let mut machine = Emulated { agent: Agent::new(config, clock.now_ms()), number, crowd: Rc::clone(&crowd), told: 0 };
        let mut host = Host { agent, line, crowd, sender };
        if let Err(why) = drive(clock, &mut machine, &mut host, &mut events, std::future::pending()).await {
            host.crowd.fail(why);
        }
    }
}

async fn listen(mut commands: Subscription, mut lead: Subscription, to: mpsc::Sender<Event>) {
    loop {
        let event = tokio::select! {
            Some(message) = commands.next() => serde_json::from_slice(&message.payload).map(Event::Command),
            Some(message) = lead.next() => serde_json::from_slice(&message.payload).map(Event::Invitation),
            else => return,
        };
        if let Ok(event) = event {
            if to.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// The agent's machine, and who is told where it stands.
struct Emulated {
    agent: Agent,
    number: usize,
    crowd: Rc<Crowd>,
    /// Tasks of the registration that is under way.
    told: usize,
}

impl Machine for Emulated {
    type Event = Event;
    type Effect = Effect;

    fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        let effects = self.agent.step(now_ms, event);
        for effect in &effects {
            if let Effect::Hello(hello) = effect {
                self.told = if hello.continued { self.told } else { 0 } + hello.tasks.len();
            }
        }
        if self.agent.joined() {
            self.crowd.joined(self.number, self.agent.max_epoch(), self.told);
        }
        effects
    }

    fn deadline(&self) -> Option<u64> {
        self.agent.deadline()
    }

    fn tick() -> Event {
        Event::Tick
    }
}

/// What carries its effects out. Its journal is never read again, so nothing is kept of it.
struct Host {
    agent: AgentId,
    line: Rc<Line>,
    crowd: Rc<Crowd>,
    sender: mpsc::Sender<Event>,
}

impl Host {
    fn ask(&self, verb: &'static str, asked: &impl Serialize, event: impl FnOnce(Option<Bytes>) -> Event + 'static) {
        let (line, sender, agent) = (Rc::clone(&self.line), self.sender.clone(), self.agent.clone());
        let payload = Bytes::from(serde_json::to_vec(asked).expect("wire types are plain data"));
        tokio::task::spawn_local(async move {
            let subject = line.bus().subjects().agent_call(&agent, verb);
            let answer = line.ask(&agent, &subject, payload, ANSWER).await;
            let _ = sender.send(event(answer)).await;
        });
    }

    fn send(&self, update: Update) {
        let (line, sender, agent, crowd) = (Rc::clone(&self.line), self.sender.clone(), self.agent.clone(), Rc::clone(&self.crowd));
        tokio::task::spawn_local(async move {
            let subject = line.bus().subjects().status(&agent, &update.framework, &update.task);
            let payload = Bytes::from(serde_json::to_vec(&update).expect("a status is plain data"));
            let ok = line.bus().publish_stored(&subject, payload, &format!("{}.{}", update.task, update.seq)).await.is_ok();
            crowd.stored(ok);
            let _ = sender.send(Event::Stored { task: update.task, seq: update.seq, ok }).await;
        });
    }

    /// Says later what became of a container; the machine is not to wait for itself.
    fn later(&self, event: Event) {
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            let _ = sender.send(event).await;
        });
    }

    fn ended(&self, task: TaskId) {
        self.later(Event::Ended { task, ending: Ending::Exited { code: None, signal: Some(TERM) }, usage: Usage::default() });
    }
}

impl Outside<Emulated> for Host {
    type Fatal = String;

    async fn perform(&mut self, _machine: &mut Emulated, effects: Vec<Effect>) -> Result<(), String> {
        for effect in effects {
            match effect {
                Effect::Persist(_) | Effect::Settled { .. } => {}
                Effect::Hello(hello) => {
                    self.crowd.registers();
                    self.ask("hello", &hello, |answer| Event::Welcome(answer.and_then(|bytes| serde_json::from_slice(&bytes).ok())));
                }
                Effect::Beat(beat) => self.ask("beat", &beat, |answer| Event::Beaten(answer.and_then(|bytes| serde_json::from_slice(&bytes).ok()))),
                Effect::Send(update) => self.send(*update),
                Effect::Launch(launch) => self.later(Event::Started { task: launch.task }),
                Effect::Kill { task, .. } => self.ended(task),
                Effect::Say(text) => return Err(format!("agent {} says: {text}", self.agent)),
                Effect::Leave(refusal) => return Err(format!("agent {} is refused: {}", self.agent, refusal.message)),
            }
        }
        Ok(())
    }
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
