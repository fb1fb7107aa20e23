//! An agent that a leader has taken in, for tests of the agent.

use std::collections::BTreeMap;

use crate::agent::record::Record;
use crate::agent::{Agent, Config, Effect, Ending, Event, Usage};
use crate::id::{AgentId, FrameworkId, MasterId, Nonce, OfferId, Principal, TaskId};
use crate::resources::{parse_request, parse_total};
use crate::task::{OnUnreachable, TaskState};
use crate::wire::agent::{Beaten, Command, Order, Welcome};
use crate::wire::{Launch, LaunchId, Task};

/// How often it beats, milliseconds.
pub(super) const BEAT_MS: u64 = 5_000;

/// The agent, and all that it has written down.
pub(super) struct TestAgent {
    pub(super) agent: Agent,
    pub(super) now_ms: u64,
    records: Vec<Record>,
}

impl TestAgent {
    /// One of the cluster, told after how long it counts as unreachable.
    pub(super) fn joined(timeout_ms: Option<u64>) -> Self {
        let mut agent = TestAgent { agent: Agent::new(config(), 0), now_ms: 0, records: Vec::new() };
        agent.step(Event::Tick);
        agent.welcomed(timeout_ms);
        agent.welcomed(timeout_ms);
        assert!(agent.agent.joined());
        agent
    }

    /// The same after its process died and was started again.
    pub(super) fn restarted(mut self) -> Self {
        self.agent = Agent::recover(config(), self.now_ms, self.records.iter().cloned());
        self
    }

    /// The same after its process died, with its log rewritten since.
    pub(super) fn rewritten(mut self) -> Self {
        self.records = self.agent.snapshot();
        self.restarted()
    }

    pub(super) fn step(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.agent.step(self.now_ms, event);
        self.records.extend(effects.iter().filter_map(|effect| if let Effect::Persist(record) = effect { Some(record.clone()) } else { None }));
        effects
    }

    pub(super) fn welcomed(&mut self, timeout_ms: Option<u64>) -> Vec<Effect> {
        self.step(Event::Welcome(Some(Welcome::Welcome { epoch: 1, master: MasterId::fresh(1), beat_ms: BEAT_MS, timeout_ms })))
    }

    /// A later leader takes it in; with what it registers.
    pub(super) fn led(&mut self, epoch: u64) -> Vec<Effect> {
        self.alone();
        let welcome = || Event::Welcome(Some(Welcome::Welcome { epoch, master: MasterId::fresh(2), beat_ms: BEAT_MS, timeout_ms: None }));
        let effects = self.step(welcome());
        self.step(welcome());
        assert!(self.agent.joined());
        effects
    }

    /// The leader does not know it any more.
    pub(super) fn alone(&mut self) -> Vec<Effect> {
        self.step(Event::Beaten(None))
    }

    pub(super) fn beaten(&mut self) -> Vec<Effect> {
        self.step(Event::Beaten(Some(Beaten { epoch: 1, known: true, seen: 0 })))
    }

    pub(super) fn order(&mut self, order: Order) -> Vec<Effect> {
        self.step(Event::Command(Command { epoch: 1, incarnation: Nonce::fresh(1, 1), order }))
    }

    pub(super) fn launch(no: u64, on_unreachable: Option<OnUnreachable>) -> Launch {
        let cpus = parse_request("cpus=0.1").expect("a plain request").cpus;
        Launch {
            launch: LaunchId { epoch: 1, offer: OfferId::fresh(no), index: 0 },
            no,
            cancelled: false,
            task: TaskId::fresh(no),
            framework: FrameworkId::fresh(1),
            framework_name: None,
            principal: Principal::parse("p").expect("a plain name"),
            role: Default::default(),
            resources: parse_total("cpus=0.1").expect("plain resources"),
            token: Nonce::fresh(no, no),
            revocable: false,
            lent: false,
            spec: Task { argv: vec!["work".to_owned()], cpus, on_unreachable, ..Task::default() },
        }
    }

    /// Launches a task, which runs.
    pub(super) fn run(&mut self, no: u64, on_unreachable: Option<OnUnreachable>) {
        self.order(Order::Launch { launches: vec![TestAgent::launch(no, on_unreachable)] });
        self.step(Event::Started { task: TaskId::fresh(no) });
    }

    /// A task ends by TERM.
    pub(super) fn end(&mut self, no: u64) -> Vec<Effect> {
        self.step(Event::Ended { task: TaskId::fresh(no), ending: Ending::Exited { code: None, signal: Some(15) }, usage: Usage::default() })
    }

    /// Lets time pass, with all that is due on the way and nobody who answers.
    pub(super) fn wait(&mut self, span_ms: u64) -> Vec<Effect> {
        let end_ms = self.now_ms + span_ms;
        let mut all = Vec::new();
        while let Some(due_ms) = self.agent.deadline().filter(|due_ms| *due_ms <= end_ms) {
            self.now_ms = due_ms.max(self.now_ms);
            let effects = self.step(Event::Tick);
            let leaves = effects.iter().any(|effect| matches!(effect, Effect::Leave(_)));
            all.extend(effects);
            if leaves {
                return all;
            }
        }
        self.now_ms = end_ms;
        all
    }
}

/// Which tasks are ended.
pub(super) fn killed(effects: &[Effect]) -> Vec<TaskId> {
    effects.iter().filter_map(|effect| if let Effect::Kill { task, .. } = effect { Some(task.clone()) } else { None }).collect()
}

/// The status that is written down last.
pub(super) fn status(effects: &[Effect]) -> Option<(TaskState, Option<String>)> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Persist(Record::Status { update }) => Some((update.state, update.reason.clone())),
        _ => None,
    })
}

pub(super) fn config() -> Config {
    Config {
        agent: AgentId::fresh(1),
        incarnation: Nonce::fresh(1, 1),
        secret: Nonce::fresh(2, 2),
        generation: 1,
        host: "h".to_owned(),
        attrs: BTreeMap::new(),
        total: parse_total("cpus=4,mem=1024").expect("plain resources"),
        boot_id: "boot".to_owned(),
        isolation: "processes".to_owned(),
        version: "test".to_owned(),
        jitter_ms: 0,
    }
}
