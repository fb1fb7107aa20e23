//! A leader with agents and frameworks, driven event by event; only its own steps are measured.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use meso_core::condition::Attr;
use meso_core::id::{AgentId, FrameworkId, MasterId, Nonce, Principal, TaskId};
use meso_core::master::{Config, Effect, Event, Master, Reply};
use meso_core::resources::{parse_request, parse_total};
use meso_core::role::Role;
use meso_core::task::TaskState;
use meso_core::wire::agent::{Hello, Order};
use meso_core::wire::call::{Accept, Answer, Call, Demand, Push, Subscribe, TaskToken};
use meso_core::wire::{Launch, Offer, PROTOCOL, Task, Update, Wall};

use crate::clock::ms_since;
use crate::prepared::{Roles, TOTAL, agent_id, framework_id};

const EPOCH: u64 = 1;
/// It does not move: nothing expires and nobody has to beat.
const NOW_MS: u64 = 1_000;
/// The task of an accept.
const TASK: &str = "cpus=1,mem=128";
/// For how long a decline refuses: Mesos's default.
const REFUSE_MS: u64 = 5_000;

/// See the module.
pub struct Leader {
    master: Master,
    roles: Roles,
    /// What each framework holds.
    offers: BTreeMap<FrameworkId, VecDeque<Offer>>,
    /// What was ordered to run, the oldest first.
    running: VecDeque<(Launch, AgentId)>,
    /// How many statuses each agent made.
    statuses: BTreeMap<AgentId, u64>,
    tasks: u64,
    /// What the last step sent to frameworks, as JSON: milliseconds to write it, and bytes.
    pub json: (f64, usize),
}

/// What a framework wants.
#[derive(Clone, Copy)]
pub struct Wish {
    /// One task's worth; nothing for whole agents.
    pub request: &'static str,
    pub count: u32,
}

impl Leader {
    pub fn new(roles: Roles) -> Leader {
        let config = Config::new(MasterId::parse("m1").expect("an id"), "host".to_owned(), "1".to_owned());
        let mut leader = Leader {
            master: Master::new(config),
            roles,
            offers: BTreeMap::new(),
            running: VecDeque::new(),
            statuses: BTreeMap::new(),
            tasks: 0,
            json: (0.0, 0),
        };
        leader.step(Event::Lead { epoch: EPOCH, seed: [1, 2], registry: BTreeMap::new() });
        leader
    }

    /// Feeds an event in; milliseconds of the step alone.
    fn step(&mut self, event: Event) -> f64 {
        let begun = Instant::now();
        let effects = self.master.step(NOW_MS, event);
        let ms = ms_since(begun);
        self.json = (0.0, 0);
        for effect in effects {
            match effect {
                Effect::Push { framework, push, .. } => self.pushed(framework, push),
                Effect::Command { agent, command, .. } => {
                    if let Order::Launch { launches } = command.order {
                        self.running.extend(launches.into_iter().map(|launch| (launch, agent.clone())));
                    }
                }
                Effect::Reply { reply: Reply::Answer(Answer::Refused(refusal)), .. } => panic!("the leader refused: {refusal:?}"),
                _ => {}
            }
        }
        ms
    }

    fn pushed(&mut self, framework: FrameworkId, push: Push) {
        let begun = Instant::now();
        let bytes = serde_json::to_vec(&push).expect("a push has a JSON form").len();
        self.json = (self.json.0 + ms_since(begun), self.json.1 + bytes);
        if let Push::Offers { offers, .. } = push {
            self.offers.entry(framework).or_default().extend(offers);
        }
    }

    /// What is to be offered goes out.
    pub fn tick(&mut self) -> f64 {
        self.step(Event::Tick)
    }

    /// An agent registers, told the epoch first.
    pub fn join(&mut self, number: u64) -> f64 {
        let hello = Hello {
            v: PROTOCOL,
            agent: agent_id(number),
            incarnation: nonce(number),
            secret: nonce(number),
            generation: 1,
            host: format!("host-{number:06}"),
            attrs: BTreeMap::from([("rack".to_owned(), Attr::Text(format!("r{}", number % 400)))]),
            total: parse_total(TOTAL).expect("resources"),
            max_epoch: 0,
            boot_id: String::new(),
            isolation: "processes".to_owned(),
            version: "1".to_owned(),
            status_seq: 0,
            tasks: Vec::new(),
            more: false,
            continued: false,
            no: 0,
        };
        let first = self.step(Event::Hello { caller: 1, hello: Box::new(hello.clone()) });
        first + self.step(Event::Hello { caller: 1, hello: Box::new(Hello { max_epoch: EPOCH, ..hello }) })
    }

    /// A framework registers, with a wish or without.
    pub fn subscribe(&mut self, number: u64, wish: Option<Wish>) -> f64 {
        let role = if self.roles == Roles::One { "default".to_owned() } else { format!("role{number}") };
        self.call(Call::Subscribe(Subscribe {
            v: PROTOCOL,
            framework: framework_id(number),
            session: nonce(number),
            session_no: 0,
            member: None,
            guest: false,
            takeover: false,
            name: None,
            role: Role::parse(&role).expect("a role"),
            who: String::new(),
            demand: wish.map(demand),
            failover_ms: 0,
            on_unreachable: None,
            claims: Vec::new(),
        }))
    }

    pub fn wish(&mut self, number: u64, wish: Option<Wish>) -> f64 {
        self.call(Call::Demand { framework: framework_id(number), session: nonce(number), demand: wish.map(demand) })
    }

    /// A framework and all it has goes.
    pub fn teardown(&mut self, number: u64) {
        self.call(Call::Teardown { framework: framework_id(number).to_string() });
        self.offers.remove(&framework_id(number));
    }

    /// Gives one offer back; none if it holds none.
    pub fn decline(&mut self, number: u64) -> Option<f64> {
        let offer = self.offers.get_mut(&framework_id(number))?.pop_front()?;
        Some(self.give_back(number, vec![offer], REFUSE_MS))
    }

    /// Gives all offers back.
    pub fn decline_all(&mut self, number: u64, refuse_ms: u64) {
        let offers = self.offers.remove(&framework_id(number)).unwrap_or_default();
        self.give_back(number, offers.into(), refuse_ms);
    }

    fn give_back(&mut self, number: u64, offers: Vec<Offer>, refuse_ms: u64) -> f64 {
        let offers = offers.into_iter().map(|offer| offer.id).collect();
        self.call(Call::Decline { framework: framework_id(number), session: nonce(number), offers, refuse_ms, member: None, implicit: false })
    }

    /// Launches one task on one offer; none if it holds none.
    pub fn accept(&mut self, number: u64) -> Option<f64> {
        let offer = self.offers.get_mut(&framework_id(number))?.pop_front()?;
        self.tasks += 1;
        let mut task = Task { id: Some(TaskId::fresh(self.tasks)), cmd: Some("true".to_owned()), ..Task::default() };
        task.set_request(&parse_request(TASK).expect("a request"));
        let tasks = vec![TaskToken { task, token: nonce(self.tasks) }];
        let accept = Accept { framework: framework_id(number), session: nonce(number), epoch: EPOCH, offers: vec![offer.id], agent: offer.agent, tasks, refuse_ms: REFUSE_MS, member: None };
        Some(self.call(Call::Accept(accept)))
    }

    /// The task launched last says that it runs.
    pub fn runs(&mut self) -> Option<f64> {
        let (launch, agent) = self.running.back().cloned()?;
        Some(self.status(&launch, agent, TaskState::Running))
    }

    /// The task launched first ends.
    pub fn ends(&mut self) -> Option<f64> {
        let (launch, agent) = self.running.pop_front()?;
        Some(self.status(&launch, agent, TaskState::Finished))
    }

    fn status(&mut self, launch: &Launch, agent: AgentId, state: TaskState) -> f64 {
        let agent_seq = self.statuses.entry(agent.clone()).or_default();
        *agent_seq += 1;
        let update = Update {
            state,
            is_final: state.is_final(),
            exit: state.is_final().then_some(0),
            seq: if state.is_final() { 2 } else { 1 },
            agent_seq: *agent_seq,
            started_ms: NOW_MS,
            ..Update::staging(launch, &agent, "", Wall(NOW_MS))
        };
        self.step(Event::Status { agent, update: Box::new(update) })
    }

    /// How many offers are out.
    pub fn offered(&self) -> usize {
        self.offers.values().map(VecDeque::len).sum()
    }

    fn call(&mut self, call: Call) -> f64 {
        self.step(Event::Call { caller: 2, principal: principal(), call: Box::new(call) })
    }
}

fn demand(wish: Wish) -> Demand {
    let request = if wish.request.is_empty() { Default::default() } else { parse_request(wish.request).expect("a request") };
    Demand { request, count: wish.count, ..Demand::default() }
}

fn nonce(number: u64) -> Nonce {
    Nonce::fresh(0, number)
}

fn principal() -> Principal {
    Principal::parse("default").expect("a principal")
}
