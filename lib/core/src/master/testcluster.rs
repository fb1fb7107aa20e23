//! A leader with agents that do what they are told and frameworks driven by hand, for tests of the master.

use std::collections::{BTreeMap, BTreeSet};

use super::{Config, Effect, Event, Master, Reply};
use crate::id::{AgentId, FrameworkId, MasterId, Name, Nonce, OfferId, Principal, TaskId};
use crate::resources::{Resources, parse_request, parse_total};
use crate::role::Role;
use crate::task::{OnUnreachable, TaskState};
use crate::wire::agent::{Beat, Held, Hello, Order};
use crate::wire::call::{Accept, Answer, Call, Demand, Push, Subscribe, TaskToken};
use crate::wire::operator::{Operation, Outcome};
use crate::wire::{Launch, Offer, PROTOCOL, Task, Update, Wall};

/// The epoch that the leader leads under.
pub(crate) const EPOCH: u64 = 3;
/// How often agents and frameworks say that they live, milliseconds.
const BEAT_MS: u64 = 5_000;

/// See the module.
pub(crate) struct Cluster {
    pub(crate) master: Master,
    pub(crate) now_ms: u64,
    /// What each framework was offered and has not given back.
    pub(crate) offers: BTreeMap<FrameworkId, BTreeMap<OfferId, Offer>>,
    /// What runs, and since when.
    pub(crate) running: BTreeMap<TaskId, (Launch, AgentId, u64)>,
    /// What was ordered to end, in order; it ends when the test says so, or at once if `dies_at_once`.
    pub(crate) killed: Vec<(TaskId, String)>,
    pub(crate) dies_at_once: bool,
    /// Who was told which tasks have to go, and when.
    pub(crate) inverses: Vec<(FrameworkId, Vec<TaskId>, u64)>,
    /// Kinds of what happened.
    pub(crate) happened: Vec<String>,
    /// What was registered.
    pub(crate) registry: BTreeMap<String, String>,
    agents: BTreeMap<AgentId, (Nonce, u64, Option<Resources>)>,
    silent: BTreeSet<AgentId>,
    frameworks: BTreeSet<u64>,
    next: u64,
    beat_ms: u64,
}

pub(crate) fn nonce(number: u64) -> Nonce {
    Nonce::parse(&format!("{number:032x}")).expect("a nonce")
}

pub(crate) fn principal() -> Principal {
    Principal::parse("default").expect("a principal")
}

pub(crate) fn framework(number: u64) -> FrameworkId {
    FrameworkId::parse(&format!("fw{number}")).expect("an id")
}

pub(crate) fn agent(number: u64) -> AgentId {
    AgentId::parse(&format!("a{number}")).expect("an id")
}

impl Cluster {
    pub(crate) fn new() -> Cluster {
        Cluster::with(|_| {})
    }

    /// With other settings.
    pub(crate) fn with(set: impl FnOnce(&mut Config)) -> Cluster {
        let mut config = Config::new(MasterId::parse("m1").expect("an id"), "host".to_owned(), "1".to_owned());
        set(&mut config);
        let mut cluster = Cluster {
            master: Master::new(config),
            now_ms: 1_000,
            offers: BTreeMap::new(),
            running: BTreeMap::new(),
            killed: Vec::new(),
            dies_at_once: true,
            inverses: Vec::new(),
            happened: Vec::new(),
            registry: BTreeMap::new(),
            agents: BTreeMap::new(),
            silent: BTreeSet::new(),
            frameworks: BTreeSet::new(),
            next: 0,
            beat_ms: 0,
        };
        cluster.step(Event::Lead { epoch: EPOCH, seed: [1, 2], registry: BTreeMap::new() });
        cluster
    }

    /// A later leader, which reads what was registered.
    pub(crate) fn next(registry: &BTreeMap<String, String>) -> Cluster {
        let mut next = Cluster::new();
        next.master = Master::new(Config::new(MasterId::parse("m2").expect("an id"), "host".to_owned(), "1".to_owned()));
        next.registry = registry.clone();
        next.step(Event::Lead { epoch: EPOCH, seed: [3, 4], registry: registry.clone() });
        next
    }

    /// Feeds an event in, and does what agents do on the leader's orders.
    pub(crate) fn step(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.master.step(self.now_ms, event);
        let mut all = effects.clone();
        for effect in &effects {
            match effect {
                Effect::Push { framework, push, .. } => self.pushed(framework, push),
                Effect::Command { agent, command, .. } => match &command.order {
                    Order::Launch { launches } => {
                        for launch in launches {
                            all.extend(self.launched(agent, launch));
                        }
                    }
                    Order::Kill { task, reason, .. } => {
                        self.killed.push((task.clone(), reason.clone()));
                        if self.dies_at_once {
                            all.extend(self.end(&task.clone(), TaskState::Killed));
                        }
                    }
                    Order::Hello | Order::Unknown => {}
                },
                Effect::Registry { key, doc } => drop(self.registry.insert(key.clone(), doc.clone())),
                Effect::Tell(happening) => self.happened.push(happening.kind.clone()),
                _ => {}
            }
        }
        let lead = self.master.lead().expect("it leads");
        lead.ledger().check().expect("the books agree");
        lead.lent().check().expect("the books of what is lent agree");
        all
    }

    fn pushed(&mut self, framework: &FrameworkId, push: &Push) {
        let offers = self.offers.entry(framework.clone()).or_default();
        match push {
            Push::Offers { offers: new, .. } => offers.extend(new.iter().map(|offer| (offer.id.clone(), offer.clone()))),
            Push::Rescind { id, .. } => drop(offers.remove(id)),
            Push::Inverse { tasks, .. } => self.inverses.push((framework.clone(), tasks.clone(), self.now_ms)),
            _ => {}
        }
    }

    fn launched(&mut self, agent: &AgentId, launch: &Launch) -> Vec<Effect> {
        if self.running.contains_key(&launch.task) {
            return Vec::new();
        }
        self.running.insert(launch.task.clone(), (launch.clone(), agent.clone(), self.now_ms));
        self.status(&launch.task.clone(), TaskState::Running)
    }

    /// A task ends by itself, or on order.
    pub(crate) fn end(&mut self, task: &TaskId, state: TaskState) -> Vec<Effect> {
        if !self.running.contains_key(task) {
            return Vec::new();
        }
        let effects = self.status(task, state);
        self.running.remove(task);
        effects
    }

    fn status(&mut self, task: &TaskId, state: TaskState) -> Vec<Effect> {
        let (launch, place, since_ms) = self.running[task].clone();
        let known = &mut self.agents.get_mut(&place).expect("it joined").1;
        *known += 1;
        let update = Update {
            state,
            is_final: state.is_final(),
            seq: if state.is_final() { 2 } else { 1 },
            agent_seq: *known,
            started_ms: since_ms,
            ..Update::staging(&launch, &place, "", Wall(self.now_ms))
        };
        self.step(Event::Status { agent: place, update: Box::new(update) })
    }

    pub(crate) fn join(&mut self, number: u64, total: &str) {
        self.join_with(number, total, Vec::new());
    }

    /// An agent that runs something already.
    pub(crate) fn join_with(&mut self, number: u64, total: &str, tasks: Vec<Held>) {
        let hello = Cluster::hello(number, total, tasks.clone());
        self.agents.insert(agent(number), (nonce(number), 0, None));
        self.silent.remove(&agent(number));
        self.running.extend(tasks.into_iter().map(|held| (held.launch.task.clone(), (held.launch, agent(number), self.now_ms))));
        // Told the epoch first, it registers again under it.
        self.step(Event::Hello { caller: 1, hello: Box::new(hello.clone()) });
        self.step(Event::Hello { caller: 1, hello: Box::new(Hello { max_epoch: EPOCH, ..hello }) });
    }

    /// The first registration of an agent.
    pub(crate) fn hello(number: u64, total: &str, tasks: Vec<Held>) -> Hello {
        Hello {
            v: PROTOCOL,
            agent: agent(number),
            incarnation: nonce(number),
            secret: nonce(number),
            generation: 1,
            host: format!("h{number}"),
            attrs: BTreeMap::new(),
            total: parse_total(total).expect(total),
            max_epoch: 0,
            boot_id: String::new(),
            isolation: "processes".to_owned(),
            version: "1".to_owned(),
            status_seq: 0,
            tasks,
            more: false,
            continued: false,
            no: 0,
        }
    }

    /// The agent is heard of no more.
    pub(crate) fn silence(&mut self, number: u64) {
        self.silent.insert(agent(number));
    }

    /// The wall clock says that so much time has passed.
    pub(crate) fn leap(&mut self, span_ms: u64) {
        self.step(Event::Clock { wall_ms: self.now_ms + span_ms });
    }

    /// What an agent says of what it lends, from its next beat on, which is now.
    pub(crate) fn lend(&mut self, number: u64, lent: &str) {
        self.agents.get_mut(&agent(number)).expect("it joined").2 = Some(parse_total(lent).expect(lent));
        self.beats();
    }

    pub(crate) fn subscribe(&mut self, number: u64, role: &str) {
        self.subscribe_as(number, role, None);
    }

    /// With a word on what becomes of its tasks out of reach.
    pub(crate) fn subscribe_with(&mut self, number: u64, on_unreachable: Option<OnUnreachable>) {
        self.frameworks.insert(number);
        self.call(Call::Subscribe(Subscribe { on_unreachable, ..Cluster::subscription(number, "default", None) }));
    }

    /// With a durable name; what the leader answers.
    pub(crate) fn subscribe_as(&mut self, number: u64, role: &str, name: Option<Name>) -> Option<Answer> {
        self.frameworks.insert(number);
        self.call(Call::Subscribe(Cluster::subscription(number, role, name)))
    }

    /// What a framework says first.
    pub(crate) fn subscription(number: u64, role: &str, name: Option<Name>) -> Subscribe {
        Subscribe {
            v: PROTOCOL,
            framework: framework(number),
            session: nonce(number),
            session_no: 0,
            member: None,
            guest: false,
            takeover: false,
            name,
            role: Role::parse(role).expect(role),
            who: String::new(),
            demand: None,
            failover_ms: 0,
            on_unreachable: None,
            claims: Vec::new(),
        }
    }

    /// A task as its agent would report it.
    pub(crate) fn held(&self, task: &TaskId) -> Held {
        let lead = self.master.lead().expect("it leads");
        Held { launch: self.running[task].0.clone(), update: lead.tasks()[task].update.clone(), killing: false, killing_reason: None, settled: false }
    }

    /// The process of a framework dies: it beats no more.
    pub(crate) fn forget(&mut self, number: u64) {
        self.frameworks.remove(&number);
    }

    pub(crate) fn call(&mut self, call: Call) -> Option<Answer> {
        let effects = self.step(Event::Call { caller: 2, principal: principal(), call: Box::new(call) });
        effects.into_iter().find_map(|effect| match effect {
            Effect::Reply { caller: 2, reply: Reply::Answer(answer) } => Some(answer),
            _ => None,
        })
    }

    pub(crate) fn operate(&mut self, operation: Operation) -> Outcome {
        let effects = self.step(Event::Operation { caller: 3, operation: Box::new(operation) });
        let outcome = effects.into_iter().find_map(|effect| match effect {
            Effect::Reply { caller: 3, reply: Reply::Outcome(outcome) } => Some(outcome),
            _ => None,
        });
        outcome.expect("an operator is answered at once")
    }

    pub(crate) fn demand(&mut self, number: u64, request: &str, count: u32) {
        self.wish(number, request, count, |_| {});
    }

    /// A demand with more to it.
    pub(crate) fn wish(&mut self, number: u64, request: &str, count: u32, more: impl FnOnce(&mut Demand)) {
        let request = if request.is_empty() { Default::default() } else { parse_request(request).expect(request) };
        let mut demand = Demand { request, count, ..Demand::default() };
        more(&mut demand);
        self.call(Call::Demand { framework: framework(number), session: nonce(number), demand: Some(demand) });
    }

    pub(crate) fn decline(&mut self, number: u64, refuse_ms: u64) {
        let offers = self.offers.remove(&framework(number)).unwrap_or_default().into_keys().collect();
        self.call(Call::Decline { framework: framework(number), session: nonce(number), offers, refuse_ms, member: None, implicit: false });
    }

    /// Launches as many tasks as fit on each offer that a framework holds, at most `most`; says which.
    pub(crate) fn accept(&mut self, number: u64, request: &str, most: usize) -> Vec<TaskId> {
        self.accept_all(number, request, most, &|_| {})
    }

    /// Launches one task with more to it.
    pub(crate) fn accept_with(&mut self, number: u64, request: &str, more: impl Fn(&mut Task)) -> TaskId {
        self.accept_all(number, request, 1, &more).remove(0)
    }

    fn accept_all(&mut self, number: u64, request: &str, most: usize, more: &dyn Fn(&mut Task)) -> Vec<TaskId> {
        let wanted = parse_request(request).expect(request);
        let mut all = Vec::new();
        for (id, offer) in self.offers.remove(&framework(number)).unwrap_or_default() {
            let room = wanted.room_in(&offer.resources, 256).min((most - all.len()) as u64);
            let mut tasks = Vec::new();
            for _ in 0..room {
                self.next += 1;
                let mut task = Task { id: Some(TaskId::fresh(self.next)), cmd: Some("true".to_owned()), ..Task::default() };
                task.set_request(&wanted);
                more(&mut task);
                tasks.push(TaskToken { task, token: nonce(self.next) });
            }
            let ids: Vec<TaskId> = tasks.iter().filter_map(|one| one.task.id.clone()).collect();
            let accept = Accept { framework: framework(number), session: nonce(number), epoch: EPOCH, offers: vec![id], agent: offer.agent, tasks, refuse_ms: 0, member: None };
            let answer = self.call(Call::Accept(accept));
            assert!(matches!(&answer, Some(Answer::Accepted { tasks }) if *tasks == ids), "{answer:?}");
            all.extend(ids);
        }
        all
    }

    /// Offers go out; says who was offered what.
    pub(crate) fn allocate(&mut self) -> Vec<(FrameworkId, AgentId, Resources)> {
        let mut given = Vec::new();
        for effect in self.step(Event::Tick) {
            if let Effect::Push { framework, push: Push::Offers { offers, .. }, .. } = effect {
                given.extend(offers.into_iter().map(|offer| (framework.clone(), offer.agent, offer.resources)));
            }
        }
        given
    }

    /// Lets time pass, with all that is due on the way and everybody's signs of life.
    pub(crate) fn wait(&mut self, span_ms: u64) {
        let end_ms = self.now_ms + span_ms;
        while self.now_ms < end_ms {
            let due_ms = self.master.deadline().map_or(end_ms, |at| at.max(self.now_ms));
            self.now_ms = due_ms.min(end_ms).min(self.beat_ms.max(self.now_ms));
            if self.now_ms >= self.beat_ms {
                self.beats();
                self.beat_ms = self.now_ms + BEAT_MS;
            }
            self.step(Event::Tick);
            if self.master.deadline().is_none_or(|at| at > self.now_ms) {
                let next_ms = self.master.deadline().unwrap_or(u64::MAX).min(self.beat_ms).min(end_ms);
                self.now_ms = next_ms.max(self.now_ms);
            }
        }
        self.step(Event::Tick);
    }

    fn beats(&mut self) {
        for number in self.frameworks.clone() {
            self.call(Call::Beat { framework: framework(number), session: nonce(number), member: None, sated: false });
        }
        for (agent, (incarnation, status_seq, lent)) in self.agents.clone() {
            if self.silent.contains(&agent) {
                continue;
            }
            self.step(Event::Beat { caller: 4, beat: Beat { agent, incarnation, epoch: EPOCH, status_seq, lent, closed: None } });
        }
    }

    /// How many cpus the tasks of a framework hold.
    pub(crate) fn cpus(&self, number: u64) -> u64 {
        let lead = self.master.lead().expect("it leads");
        let held = |books: &crate::ledger::Ledger| books.used_by(&framework(number)).get("cpus").whole_units();
        held(lead.ledger()) + held(lead.lent())
    }
}
