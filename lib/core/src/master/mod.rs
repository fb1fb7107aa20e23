//! The master as a pure machine: who is registered, who is offered what, which task is where.
//!
//! All that a leader knows lives in [`Lead`] and is dropped when it steps down: a burnt epoch leaves nothing behind.
//! What must outlive it goes to the registry before anything shows it; everything else is told again by the agents
//! and the frameworks themselves.

mod agents;
mod away;
mod config;
mod explain;
mod external;
mod frameworks;
mod hunger;
mod launches;
mod lending;
#[cfg(test)]
mod numbers;
mod offers;
mod record;
mod registry;
mod removal;
mod rival;
mod roles;
mod rows;
mod sessions;
mod snapshot;
#[cfg(test)]
pub(crate) mod testcluster;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::allocate::Proposal;
use crate::filter::Refusals;
use crate::id::{AgentId, FrameworkId, MasterId, Name, Nonce, OfferId, Principal, TaskId};
use crate::ledger::Ledger;
use crate::policy::{Policies, Subject};
use crate::seed::Seed;
use crate::wire::agent::{Beat, Beaten, Command, Hello, Invitation, Welcome};
use crate::wire::call::{Answer, Call, Push};
use crate::wire::operator::{Operation, Outcome};
use crate::wire::query::{Query, Rows};
use crate::wire::snapshot::Snapshot;
use crate::wire::{Launch, Refusal, RefusalCode, Update, Wall};

pub use agents::{AgentEntry, AgentState};
pub use away::{AWAY_AGE_MS_MAX, AWAY_AGENTS_MAX, FORGET_EVERY_MS};
pub use config::Config;
pub use external::{ALLOCATE_DEADLINE_MS, TELL_REFUSED_EVERY_MS};
pub use frameworks::Framework;
pub use hunger::{KEEP_AFTER_MS, KEEP_FOR_MS, KEEP_PAUSE_MS_MAX, KEPT_PART};
pub use registry::{AgentDoc, FrameworkDoc, SHARDS};
pub use removal::{BadRate, RemovalRate};
pub use sessions::{HOLD_MS_MAX, MEMBERS_MAX, Session};

/// How long a leader remembers the answer to an accept, milliseconds: longer than any caller repeats it.
pub const ANSWERED_MS: u64 = 120_000;
/// How many ended tasks a leader remembers; older ones are in the stream.
pub const ENDED_MAX: usize = 10_000;
/// The most frameworks a leader registers.
pub const FRAMEWORKS_MAX: usize = 20_000;
/// The most offers one framework may hold.
pub const OFFERS_PER_FRAMEWORK_MAX: usize = 1_024;
/// Of how many offers that are no more a leader remembers what became of them.
pub const GONE_OFFERS_MAX: usize = 10_000;
/// After how long without any status a launch or kill is ordered again, milliseconds.
pub const ORDER_AGAIN_MS: u64 = 2_000;
/// How long a leader repeats its invitation after it took over, milliseconds, and how often.
pub const INVITE_FOR_MS: u64 = 30_000;
/// See [`INVITE_FOR_MS`].
pub const INVITE_EVERY_MS: u64 = 2_000;

/// A caller that waits for an answer; a number that the outside made.
pub type Caller = u64;

/// What reaches the machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// A deadline passed.
    Tick,
    /// What the wall clock says now, for display only.
    Clock {
        /// Milliseconds since 1970.
        wall_ms: u64,
    },
    /// The lease is won: lead under this epoch.
    Lead {
        /// The epoch.
        epoch: u64,
        /// True randomness for ids.
        seed: [u64; 2],
        /// The registry as it stands.
        registry: BTreeMap<String, String>,
    },
    /// The epoch was raised by the lease, because an agent had seen a higher one.
    Raised {
        /// The new epoch.
        epoch: u64,
    },
    /// The lease is gone: forget everything.
    StepDown,
    /// An agent registers.
    Hello {
        /// Who waits for the answer.
        caller: Caller,
        /// The registration.
        hello: Box<Hello>,
    },
    /// An agent beats.
    Beat {
        /// Who waits for the answer.
        caller: Caller,
        /// The beat.
        beat: Beat,
    },
    /// A framework calls.
    Call {
        /// Who waits for the answer.
        caller: Caller,
        /// As whom, told by the subject.
        principal: Principal,
        /// The call.
        call: Box<Call>,
    },
    /// An operator asks for a change.
    Operation {
        /// Who waits for the answer.
        caller: Caller,
        /// The change.
        operation: Box<Operation>,
    },
    /// Somebody asks.
    Query {
        /// Who waits for the answer.
        caller: Caller,
        /// As whom, told by the subject.
        principal: Principal,
        /// The question.
        query: Query,
    },
    /// A status, by the subject of that agent.
    Status {
        /// The agent of the subject.
        agent: AgentId,
        /// The status.
        update: Box<Update>,
    },
    /// A standby says that it is there.
    Standby {
        /// The standby.
        master: MasterId,
        /// Its machine.
        host: String,
        /// Its version.
        version: String,
    },
    /// The allocation program answered.
    Granted {
        /// Which question.
        number: u64,
        /// What it would give.
        grants: Vec<Proposal>,
    },
    /// The allocation program failed.
    AllocatorFailed {
        /// On which question, if it was asked.
        number: Option<u64>,
        /// What it did, for people: `gave no answer within 1000 ms`.
        why: String,
    },
    /// The allocation program was started, and answers.
    AllocatorReady,
    /// The record of events could not be read any more, and was made anew: nothing is in it.
    RecordRenewed,
}

/// An answer to a caller.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To a registration.
    Welcome(Welcome),
    /// To a beat.
    Beaten(Beaten),
    /// To a call.
    Answer(Answer),
    /// To an operator.
    Outcome(Outcome),
    /// To a question.
    Rows(Box<Rows>),
}

/// What a master says of itself while it lives, so that the leader can list it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The master.
    pub master: MasterId,
    /// Its machine.
    pub host: String,
    /// Its version.
    pub version: String,
}

/// What happened, for operators; kept in the event stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Happening {
    /// Always `event/1`.
    pub meso: String,
    /// A stable word: `leader`, `agent_added`, `agent_unreachable`, `agents_silent`, `agent_back`, `agent_gone`,
    /// `agents_forgotten`, `framework_added`, `framework_removed`, `allocator_failed`, `allocator_back`, `grant_refused`,
    /// `record_unreadable`, `record_renewed`.
    pub kind: String,
    /// The agent, framework or master it is about.
    pub about: String,
    /// The same for people.
    pub message: String,
    /// When.
    pub ts: String,
    /// The same in milliseconds since 1970.
    pub ts_ms: u64,
}

/// What must become true outside, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Stored durably before anything that follows; if it cannot be, the rest is dropped and the master steps down.
    Registry {
        /// The document.
        key: String,
        /// Its whole new text.
        doc: String,
    },
    /// Answer a caller.
    Reply {
        /// Who waits.
        caller: Caller,
        /// The answer.
        reply: Reply,
    },
    /// Send a framework something.
    Push {
        /// Its principal.
        principal: Principal,
        /// The framework.
        framework: FrameworkId,
        /// What.
        push: Push,
    },
    /// Command an agent.
    Command {
        /// The agent.
        agent: AgentId,
        /// The secret token of its subject.
        secret: Nonce,
        /// The command.
        command: Command,
    },
    /// Publish a status that the master made, and have it stored.
    Publish(Box<Update>),
    /// Say that a task which no agent knows any more has ended: as the record of events does, if its end is there, and as
    /// this status otherwise, which is then published and stored.
    Settle {
        /// The principal of its framework.
        principal: Principal,
        /// The status.
        update: Box<Update>,
    },
    /// Publish an event for operators.
    Tell(Happening),
    /// Invite all agents.
    Invite(Invitation),
    /// Ask the lease for a higher epoch than this.
    RaiseAbove {
        /// The epoch an agent reported.
        epoch: u64,
    },
    /// Ask the allocation program who is to get what.
    Ask {
        /// The question's number, for the answer.
        number: u64,
        /// The whole cluster.
        snapshot: Box<Snapshot>,
    },
}

/// A task as the leader knows it.
#[derive(Clone, Debug)]
pub struct TaskEntry {
    /// The launch as ordered or reported.
    pub launch: Launch,
    /// Where it is.
    pub agent: AgentId,
    /// The latest status; a staging one before the first.
    pub update: Update,
    /// True once the agent said anything of it.
    confirmed: bool,
    /// Somebody asked for its end: grace and reason.
    killing: Option<(Option<u64>, String)>,
    /// Which member of its framework's session launched it, as far as this leader saw it.
    member: Option<Nonce>,
    /// When this leader ordered it, or first heard of it.
    ordered_ms: u64,
    /// When its notice ends, if it has to make room for others.
    revoking_ms: Option<u64>,
}

/// The master.
#[derive(Debug)]
pub struct Master {
    config: Config,
    wall_offset_ms: i64,
    /// The highest epoch under which this process ever stood down.
    burnt_epoch: u64,
    lead: Option<Box<Lead>>,
}

/// All that a leader knows.
#[derive(Debug)]
pub struct Lead {
    config: Config,
    /// The clock of this step.
    now_ms: u64,
    wall: Wall,
    epoch: u64,
    since_ms: u64,
    invite_at_ms: Option<u64>,
    seed: Seed,
    ledger: Ledger,
    /// What is lent of what others hold and do not use.
    lent: Ledger,
    /// Agents that lend less than is held of them, until they say anew how much.
    withdrawn: BTreeSet<AgentId>,
    policies: Policies,
    /// Frameworks that are guaranteed something by name, with their names as ids: for while they are not there.
    absent: BTreeMap<Subject, FrameworkId>,
    /// Agents of which only one framework is given anything.
    kept: BTreeMap<AgentId, FrameworkId>,
    /// How many live tasks may be ended at once.
    revocable_tasks: usize,
    agents: BTreeMap<AgentId, AgentEntry>,
    /// The documents of the registry that hold agents, so that one who joins costs its own document and not a look at all.
    shards: BTreeMap<String, BTreeMap<AgentId, AgentDoc>>,
    /// Agents that were told this epoch by this leader: who obeys it without having been told obeys another leader's.
    fenced: BTreeSet<AgentId>,
    frameworks: BTreeMap<FrameworkId, Framework>,
    names: BTreeMap<(Principal, Name), FrameworkId>,
    tasks: BTreeMap<TaskId, TaskEntry>,
    /// The same by their agents, so that one who registers does not cost a look at all tasks.
    tasks_of: BTreeMap<AgentId, BTreeSet<TaskId>>,
    ended: VecDeque<TaskId>,
    ended_rows: BTreeMap<TaskId, (Update, Nonce)>,
    offers: BTreeMap<OfferId, offers::OfferEntry>,
    gone: offers::Gone,
    refusals: Refusals,
    refusals_at_ms: Option<u64>,
    answered: BTreeMap<OfferId, (u64, Vec<TaskId>)>,
    /// Agents whose free resources changed since the last allocation.
    fresh_agents: BTreeSet<AgentId>,
    /// Frameworks that may want something new since the last allocation.
    fresh_frameworks: BTreeSet<FrameworkId>,
    /// What to look at when: orders to repeat, sessions, agents, offers.
    timers: BTreeSet<(u64, Timer)>,
    standbys: BTreeMap<MasterId, (u64, String, String)>,
    removals: removal::Removals,
    /// A timer looks after the agents that are away.
    away_watched: bool,
    external: external::External,
    out: Vec<Effect>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Order(TaskId),
    Offer(OfferId),
    Session(FrameworkId),
    Agent(AgentId),
    Hunger(FrameworkId),
    Revoke(TaskId),
    Refusals,
    Answered,
    Removal,
    Away,
    Program(u64),
}

impl Master {
    /// A standby.
    pub fn new(config: Config) -> Self {
        Master { config, wall_offset_ms: 0, burnt_epoch: 0, lead: None }
    }

    /// The epoch under which it leads, if it does.
    pub fn epoch(&self) -> Option<u64> {
        self.lead.as_ref().map(|lead| lead.epoch)
    }

    /// What it knows while it leads; for the invariants of simulator and tests.
    pub fn lead(&self) -> Option<&Lead> {
        self.lead.as_deref()
    }

    /// When to call again with `Tick` if nothing else happens; now, if there is something to allocate.
    pub fn deadline(&self) -> Option<u64> {
        let lead = self.lead.as_ref()?;
        if lead.wants_allocation() {
            return Some(lead.now_ms);
        }
        let timer = lead.timers.first().map(|(at, _)| *at);
        [timer, lead.invite_at_ms].into_iter().flatten().min()
    }

    /// Feeds one event in; says, in order, what must now become true outside.
    pub fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        match &event {
            Event::Clock { wall_ms } => self.wall_offset_ms = Wall(*wall_ms).offset_ms(now_ms),
            Event::StepDown => {
                if let Some(lead) = self.lead.take() {
                    self.burnt_epoch = self.burnt_epoch.max(lead.epoch);
                }
            }
            Event::Lead { epoch, seed, registry } => {
                // A burnt epoch is never led again, whatever a late success says.
                if *epoch > self.burnt_epoch && self.lead.as_ref().is_none_or(|lead| lead.epoch < *epoch) {
                    let wall = Wall(now_ms.saturating_add_signed(self.wall_offset_ms));
                    self.lead = Some(Box::new(Lead::begin(self.config.clone(), now_ms, wall, *epoch, *seed, registry)));
                }
            }
            _ => {}
        }
        let wall = Wall(now_ms.saturating_add_signed(self.wall_offset_ms));
        let Some(lead) = &mut self.lead else { return not_leading(event) };
        lead.now_ms = lead.now_ms.max(now_ms);
        lead.wall = wall;
        let is_tick = matches!(event, Event::Tick);
        lead.on_event(event);
        lead.on_time();
        if is_tick {
            lead.allocate();
        }
        std::mem::take(&mut lead.out)
    }
}

/// A standby answers nobody's call with a verdict; it only says that it is not the one to ask.
fn not_leading(event: Event) -> Vec<Effect> {
    let refusal = || Refusal::new(RefusalCode::NotLeading, "this master does not lead; ask again");
    match event {
        Event::Call { caller, .. } => vec![Effect::Reply { caller, reply: Reply::Answer(Answer::Refused(refusal())) }],
        Event::Operation { caller, .. } => vec![Effect::Reply { caller, reply: Reply::Outcome(Outcome::Refused(refusal())) }],
        Event::Query { caller, .. } => vec![Effect::Reply { caller, reply: Reply::Rows(Box::new(Rows::Refused { refusal: refusal() })) }],
        _ => Vec::new(),
    }
}

impl Lead {
    fn begin(config: Config, now_ms: u64, wall: Wall, epoch: u64, seed: [u64; 2], registry: &BTreeMap<String, String>) -> Self {
        let mut lead = Lead {
            now_ms,
            wall,
            epoch,
            since_ms: now_ms,
            invite_at_ms: Some(now_ms),
            seed: Seed::new(seed),
            ledger: Ledger::default(),
            lent: Ledger::default(),
            withdrawn: BTreeSet::new(),
            policies: Policies::default(),
            absent: BTreeMap::new(),
            kept: BTreeMap::new(),
            revocable_tasks: 0,
            agents: BTreeMap::new(),
            shards: BTreeMap::new(),
            fenced: BTreeSet::new(),
            frameworks: BTreeMap::new(),
            names: BTreeMap::new(),
            tasks: BTreeMap::new(),
            tasks_of: BTreeMap::new(),
            ended: VecDeque::new(),
            ended_rows: BTreeMap::new(),
            offers: BTreeMap::new(),
            gone: offers::Gone::default(),
            refusals: Refusals::default(),
            refusals_at_ms: None,
            answered: BTreeMap::new(),
            fresh_agents: BTreeSet::new(),
            fresh_frameworks: BTreeSet::new(),
            timers: BTreeSet::new(),
            standbys: BTreeMap::new(),
            removals: removal::Removals::default(),
            away_watched: false,
            external: external::External::default(),
            out: Vec::new(),
            config,
        };
        lead.read_registry(registry);
        lead.tell("leader", lead.config.master.to_string(), format!("leads under epoch {epoch}"));
        lead
    }

    /// The ledger, for the invariants.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What is lent, for the invariants.
    pub fn lent(&self) -> &Ledger {
        &self.lent
    }

    /// The policies, for the invariants.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The live tasks, for the invariants.
    pub fn tasks(&self) -> &BTreeMap<TaskId, TaskEntry> {
        &self.tasks
    }

    /// The agents, for the invariants.
    pub fn agents(&self) -> &BTreeMap<AgentId, AgentEntry> {
        &self.agents
    }

    /// The frameworks, for the invariants.
    pub fn frameworks(&self) -> &BTreeMap<FrameworkId, Framework> {
        &self.frameworks
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Tick | Event::Clock { .. } | Event::Lead { .. } | Event::StepDown => {}
            Event::Raised { epoch } => self.raised(epoch),
            Event::Hello { caller, hello } => self.on_hello(caller, *hello),
            Event::Beat { caller, beat } => self.on_beat(caller, &beat),
            Event::Call { caller, principal, call } => {
                if let Some(answer) = self.on_call(caller, &principal, *call) {
                    self.reply(caller, Reply::Answer(answer));
                }
            }
            Event::Operation { caller, operation } => {
                let outcome = self.operate(*operation);
                self.reply(caller, Reply::Outcome(outcome));
            }
            Event::Query { caller, principal, query } => {
                let rows = self.rows(&principal, &query);
                self.reply(caller, Reply::Rows(Box::new(rows)));
            }
            Event::Status { agent, update } => self.on_status(&agent, *update),
            Event::Standby { master, host, version } => {
                self.standbys.insert(master, (self.now_ms, host, version));
            }
            Event::Granted { number, grants } => self.on_granted(number, &grants),
            Event::AllocatorFailed { number, why } => self.on_program_failed(number, &why),
            Event::AllocatorReady => self.on_program_ready(),
            Event::RecordRenewed => self.record_renewed(),
        }
    }

    fn on_time(&mut self) {
        if self.invite_at_ms.is_some_and(|at| at <= self.now_ms) {
            self.out.push(Effect::Invite(Invitation { epoch: self.epoch, master: self.config.master.clone() }));
            let again = self.now_ms + INVITE_EVERY_MS;
            self.invite_at_ms = (again < self.since_ms + INVITE_FOR_MS).then_some(again);
        }
        while let Some((at, timer)) = self.timers.first().cloned() {
            if at > self.now_ms {
                break;
            }
            self.timers.remove(&(at, timer.clone()));
            match timer {
                Timer::Order(task) => self.order_again(&task),
                Timer::Offer(offer) => self.expire(&offer),
                Timer::Session(framework) => self.session_due(&framework),
                Timer::Agent(agent) => self.agent_due(&agent),
                Timer::Hunger(framework) => self.hunger_due(&framework),
                Timer::Revoke(task) => self.revoke_due(&task),
                Timer::Refusals => self.refusals_due(),
                Timer::Program(number) => self.program_due(number),
                Timer::Removal => self.removal_due(),
                Timer::Away => self.away_due(),
                Timer::Answered => {
                    let now_ms = self.now_ms;
                    self.answered.retain(|_, (at, _)| *at + ANSWERED_MS > now_ms);
                    if !self.answered.is_empty() {
                        self.timer(ANSWERED_MS / 2, Timer::Answered);
                    }
                }
            }
        }
    }

    fn timer(&mut self, after_ms: u64, timer: Timer) {
        self.timers.insert((self.now_ms.saturating_add(after_ms), timer));
    }

    fn reply(&mut self, caller: Caller, reply: Reply) {
        self.out.push(Effect::Reply { caller, reply });
    }

    fn push(&mut self, framework: &FrameworkId, push: Push) {
        if let Some(entry) = self.frameworks.get(framework) {
            if entry.session.is_some() {
                self.out.push(Effect::Push { principal: entry.principal.clone(), framework: framework.clone(), push });
            }
        }
    }

    fn tell(&mut self, kind: &str, about: String, message: String) {
        self.out.push(Effect::Tell(Happening { meso: "event/1".to_owned(), kind: kind.to_owned(), about, message, ts: self.wall.text(), ts_ms: self.wall.0 }));
    }
}
