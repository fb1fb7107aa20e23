//! Agents: they register, beat, fall silent, come back.

use std::collections::{BTreeMap, BTreeSet};

use crate::condition::Attr;
use crate::id::{AgentId, Nonce, TaskId};
use crate::master::lending::pool_of;
use crate::master::rival::{Rival, Succession};
use crate::master::{AgentDoc, Caller, Effect, Lead, Reply, TaskEntry, Timer};
use crate::resources::Resources;
use crate::task::{OnUnreachable, TaskState};
use crate::wire::agent::{Beat, Beaten, Command, Held, Hello, Order, Welcome};
use crate::wire::number::{EPOCH_TOLD_MAX, counted};
use crate::wire::{Launch, Refusal, RefusalCode, protocol_fault};

/// How many tasks one registration tells of, in all its parts.
const TOLD_MAX: usize = 100_000;
/// How many statuses of an agent are noted beyond a gap. Those beyond are told again: the agent is asked to register anew.
const AHEAD_MAX: usize = 100_000;

/// Whether an agent can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentState {
    /// Known from the registry, not yet back under this leader.
    Recovering,
    /// Registered and heard of.
    Active,
    /// Silent for too long; what it runs is not known.
    Unreachable,
    /// Declared gone by an operator: it is never taken in again.
    Gone,
}

/// An agent as the leader knows it.
#[derive(Clone, Debug)]
pub struct AgentEntry {
    /// Whether it can be used.
    pub state: AgentState,
    /// Its host name.
    pub host: String,
    /// Its process; none before it registered here.
    pub incarnation: Option<Nonce>,
    /// All statuses up to this number were seen.
    pub seen: u64,
    pub(super) generation: u64,
    pub(super) secret: Option<Nonce>,
    /// Of the machine that its process runs on; empty before it registered here.
    pub(super) boot_id: String,
    /// Another process that says it is this agent.
    pub(super) rival: Option<Rival>,
    pub(super) attrs: BTreeMap<String, Attr>,
    pub(super) isolation: String,
    pub(super) version: String,
    pub(super) heard_ms: u64,
    /// When it was last heard of before it was away, milliseconds since 1970; 0 if it is not.
    pub(super) heard_wall_ms: u64,
    /// Statuses seen beyond a gap.
    ahead: BTreeSet<u64>,
    /// What the last registration or beat said was made.
    made: u64,
    /// The last status of a task that the last registration did not tell; 0 for none. It overtook the registration, or its
    /// work directory has lost it: the next one that is made after it shows which.
    overtook: u64,
    /// The number of the last launch ordered in this epoch.
    pub(super) launch_no: u64,
    /// Parts of a registration that are not whole yet, and the number of the last status when the first was made.
    parts: Vec<Held>,
    parts_seq: u64,
    /// The process and the number of the last part that was taken.
    told: Option<(Nonce, u64)>,
    /// The epoch it registered under.
    pub(super) epoch: u64,
    pub(super) watched: bool,
    /// It takes no tasks for now.
    closed: bool,
}

impl AgentEntry {
    pub(super) fn recovered(doc: AgentDoc, now_ms: u64) -> Self {
        AgentEntry {
            state: doc.state(),
            host: doc.host,
            incarnation: None,
            seen: 0,
            generation: counted(doc.generation),
            secret: None,
            boot_id: String::new(),
            rival: None,
            attrs: BTreeMap::new(),
            isolation: String::new(),
            version: String::new(),
            heard_ms: now_ms,
            heard_wall_ms: doc.heard_ms,
            ahead: BTreeSet::new(),
            made: 0,
            overtook: 0,
            launch_no: 0,
            parts: Vec::new(),
            parts_seq: 0,
            told: None,
            epoch: 0,
            watched: false,
            closed: false,
        }
    }

    fn saw(&mut self, number: u64) {
        let is_next = number.checked_sub(1) == Some(self.seen);
        if is_next || (number > self.seen && self.ahead.len() < AHEAD_MAX) {
            self.ahead.insert(number);
            self.close_gap();
        }
    }

    fn seen_up_to(&mut self, number: u64) {
        self.seen = number;
        self.ahead.retain(|ahead| *ahead > number);
        self.close_gap();
    }

    /// What was seen beyond a gap is seen without one, as far as there is none.
    fn close_gap(&mut self) {
        while self.ahead.remove(&(self.seen + 1)) {
            self.seen += 1;
        }
    }

    /// Whether a part of a registration is the next one of its process, and not one that was repeated or overtaken.
    fn takes_part(&mut self, hello: &Hello) -> bool {
        let before = self.told.as_ref().filter(|(process, _)| *process == hello.incarnation).map(|(_, no)| *no);
        let next = match before {
            // An agent that does not number its registrations.
            _ if hello.no == 0 => true,
            Some(no) if hello.continued => no.checked_add(1) == Some(hello.no),
            Some(no) => hello.no > no,
            None => !hello.continued,
        };
        if next {
            self.told = Some((hello.incarnation.clone(), hello.no));
        }
        next
    }
}

impl Lead {
    pub(super) fn on_hello(&mut self, caller: Caller, hello: Hello) {
        if let Some(message) = protocol_fault("the agent", hello.v) {
            return self.refuse_agent(caller, RefusalCode::Version, message);
        }
        if let Some((code, message)) = self.refusal_of_gone(&hello) {
            self.end_what_is_gone(&hello, &message);
            return self.refuse_agent(caller, code, message);
        }
        let broken = |fault: String| format!("the work directory of agent {} is damaged: {fault}", hello.agent);
        if let Some(fault) = hello.fault() {
            return self.refuse_agent(caller, RefusalCode::BadRequest, broken(fault));
        }
        if hello.max_epoch > self.epoch.max(EPOCH_TOLD_MAX) {
            // Whoever rose above it would leave no epoch to the leaders after it.
            let fault = format!("its epoch is {}, and at most {EPOCH_TOLD_MAX}", hello.max_epoch);
            return self.refuse_agent(caller, RefusalCode::BadRequest, broken(fault));
        }
        if hello.max_epoch > self.epoch {
            // It obeyed a leader whose lease record was lost. Rise above it before commanding anything.
            self.out.push(Effect::RaiseAbove { epoch: hello.max_epoch });
            return;
        }
        let known = self.agents.get(&hello.agent);
        if let Some(entry) = known {
            if hello.generation < entry.generation {
                let message = format!("agent {} was started {} times, this work directory knows of {}: it is an old copy", hello.agent, entry.generation, hello.generation);
                return self.refuse_agent(caller, RefusalCode::BadRequest, message);
            }
            let twin = entry.generation == hello.generation && entry.incarnation.as_ref().is_some_and(|is| *is != hello.incarnation);
            let is_another = entry.told.as_ref().is_some_and(|(process, _)| *process != hello.incarnation);
            if is_another && hello.status_seq < entry.made {
                // What a process says that it made is on the disk of every later one. Without it launches that were taken
                // are not known there, and could be taken again. What was heard since proves nothing: a status does not say
                // which process made it, and those of a new one overtake its registration.
                let message = format!("agent {} has made {} statuses, this work directory knows of {}: it is an old copy", hello.agent, entry.made, hello.status_seq);
                self.tell("agent_refused", hello.agent.to_string(), message.clone());
                return self.refuse_agent(caller, RefusalCode::BadRequest, message);
            }
            if twin && entry.state == AgentState::Active {
                return self.refuse_copy(caller, &hello.agent);
            }
            match self.succession(&hello) {
                Succession::Right => {}
                Succession::Open => return,
                Succession::Wrong => return self.refuse_copy(caller, &hello.agent),
            }
        }
        let known = self.agents.get(&hello.agent);
        let was = known.map(|entry| (entry.state, entry.generation, entry.host.clone()));
        let agent = hello.agent.clone();
        let welcome = Welcome::Welcome { epoch: self.epoch, master: self.config.master.clone(), beat_ms: self.config.agent_beat_ms, timeout_ms: Some(self.config.agent_timeout_ms) };
        if hello.max_epoch == self.epoch && !self.fenced.contains(&agent) {
            // Another leader had this number before the store was lost, and its commands may still be on their way.
            self.out.push(Effect::RaiseAbove { epoch: self.epoch });
            return;
        }
        if hello.max_epoch < self.epoch {
            // Until it obeys this epoch a command of an earlier leader can still change what it runs. It is told the
            // epoch now and registers again once that is on its disk; only then its word is the whole truth.
            self.fenced.insert(agent);
            return self.reply(caller, Reply::Welcome(welcome));
        }
        let now_ms = self.now_ms;
        let entry = self.agents.entry(agent.clone()).or_insert_with(|| {
            AgentEntry::recovered(AgentDoc::new(hello.host.clone(), hello.generation), now_ms)
        });
        if !entry.takes_part(&hello) {
            // Repeated or overtaken: what it tells is known, or no longer so.
            return;
        }
        if !hello.continued {
            entry.parts.clear();
            entry.parts_seq = hello.status_seq;
        }
        if entry.parts.len() + hello.tasks.len() > TOLD_MAX {
            entry.parts.clear();
            let message = format!("agent {agent} tells of more than {TOLD_MAX} tasks");
            return self.refuse_agent(caller, RefusalCode::BadRequest, message);
        }
        entry.parts.extend(hello.tasks.iter().cloned());
        if hello.more {
            self.reply(caller, Reply::Welcome(welcome));
            // One that never tells the rest is away in the end, as any other.
            return self.watch(&agent);
        }
        let reported = std::mem::take(&mut entry.parts);
        let status_seq = entry.parts_seq;
        let again = entry.state == AgentState::Active && entry.epoch == self.epoch;
        entry.state = AgentState::Active;
        entry.heard_wall_ms = 0;
        entry.host = hello.host.clone();
        if entry.incarnation.as_ref() != Some(&hello.incarnation) || entry.epoch != self.epoch {
            entry.launch_no = reported.iter().filter(|held| held.launch.launch.epoch == self.epoch).map(|held| held.launch.no).max().unwrap_or(0).max(entry.launch_no);
        }
        entry.epoch = self.epoch;
        // Whoever is taken in has no rival yet; one that registers again still has it.
        entry.rival = entry.rival.take().filter(|_| entry.incarnation.as_ref() == Some(&hello.incarnation));
        entry.incarnation = Some(hello.incarnation.clone());
        entry.secret = Some(hello.secret.clone());
        entry.boot_id = hello.boot_id.clone();
        entry.generation = hello.generation;
        entry.attrs = hello.attrs.clone();
        entry.isolation = hello.isolation.clone();
        entry.version = hello.version.clone();
        entry.heard_ms = self.now_ms;
        entry.made = status_seq;
        entry.overtook = 0;
        // Its account is opened anew; it says so again if it takes nothing.
        entry.closed = false;
        if again {
            entry.seen_up_to(entry.seen.max(status_seq));
        } else {
            entry.ahead.clear();
            entry.seen = status_seq;
        }
        // One that comes back to a new leader is mostly what its document says.
        let is_registered = |(state, generation, host): &(AgentState, u64, String)| *state != AgentState::Unreachable && *generation == hello.generation && *host == hello.host;
        if !was.as_ref().is_some_and(is_registered) {
            self.register_agent(&agent);
        }
        let is_back = matches!(was, Some((AgentState::Unreachable, ..)));
        self.take_books(&agent, hello.total, reported, status_seq, is_back);
        match was {
            None => self.tell("agent_added", agent.to_string(), format!("agent {agent} on {} joined", hello.host)),
            Some((AgentState::Unreachable, ..)) => self.tell("agent_back", agent.to_string(), format!("agent {agent} on {} is back", hello.host)),
            Some(_) => {}
        }
        self.reply(caller, Reply::Welcome(welcome));
        self.watch(&agent);
        self.settle_claims(&agent);
        self.fresh_agents.insert(agent);
    }

    fn refuse_copy(&mut self, caller: Caller, agent: &AgentId) {
        let host = self.agents.get(agent).map_or("another machine", |entry| entry.host.as_str());
        let message = format!("agent {agent} runs on {host} already: this work directory is a copy");
        self.refuse_agent(caller, RefusalCode::NameHeld, message);
    }

    fn refuse_agent(&mut self, caller: Caller, code: RefusalCode, message: String) {
        self.reply(caller, Reply::Welcome(Welcome::Refused(Refusal::new(code, message))));
    }

    /// Opens the agent's account anew from its own word: the agent is the truth about what it runs.
    fn take_books(&mut self, agent: &AgentId, total: Resources, reported: Vec<Held>, status_seq: u64, is_back: bool) {
        self.rescind_on(agent, "agent_restarted");
        self.ledger.remove(agent);
        self.lent.remove(agent);
        self.withdrawn.remove(agent);
        if let Err(error) = self.ledger.admit(agent.clone(), total) {
            self.tell("agent_refused", agent.to_string(), error.to_string());
            return;
        }
        let mut told = BTreeSet::new();
        for held in reported {
            told.insert(held.launch.task.clone());
            self.take_held(agent, held, is_back);
        }
        let missing: Vec<TaskId> = self.tasks_on(agent).into_iter().filter(|id| !told.contains(id)).collect();
        for task in missing {
            self.untold(agent, &task, status_seq);
        }
    }

    /// A task that the agent reports; `is_back` if the agent was marked unreachable.
    fn take_held(&mut self, agent: &AgentId, held: Held, is_back: bool) {
        let Held { launch, update, killing, killing_reason, settled } = held;
        let task = launch.task.clone();
        // An id may be given again: what ended here may run elsewhere by now, and that is none of its business.
        let known = self.tasks.get(&task);
        let is_same = known.is_none_or(|entry| entry.agent == *agent && entry.launch.launch == launch.launch);
        if update.is_final && !is_same {
            return;
        }
        // Its framework may be gone since, and is not to come back for it.
        if settled && known.is_none() {
            if update.is_final && !self.ended_rows.contains_key(&task) {
                self.remember(update, launch.token);
            }
            return;
        }
        self.find_owner(&launch);
        if !self.frameworks[&launch.framework].is_connected() {
            self.arm_session(&launch.framework.clone());
        }
        if update.is_final {
            if self.tasks.contains_key(&task) {
                self.finish(&task, update);
            } else if !self.ended_rows.contains_key(&task) {
                self.remember(update, launch.token);
            }
            return;
        }
        if let Some((end, _)) = self.ended_rows.get(&task) {
            if end.launch.as_ref().is_none_or(|ended| *ended == launch.launch) {
                return;
            }
            self.ended_rows.remove(&task);
            self.ended.retain(|ended| *ended != task);
        }
        if let Some(other) = self.tasks.get(&task).filter(|entry| entry.agent != *agent) {
            let message = format!("agent {agent} reports task {task}, which is on agent {}", other.agent);
            return self.tell("task_twice", agent.to_string(), message);
        }
        let wish = self.tasks.get(&task).and_then(|entry| entry.killing.clone());
        let known = self.tasks.get(&task).map(|entry| entry.update.clone()).filter(|known| known.seq > update.seq && known.state != TaskState::Unreachable);
        let wish = wish.or_else(|| killing.then(|| (None, killing_reason.unwrap_or_else(|| "asked".to_owned()))));
        // It was not to run on out of reach, and nobody there has ended it.
        let is_unkept = is_back && launch.spec.on_unreachable == Some(OnUnreachable::Kill);
        let wish = wish.or_else(|| is_unkept.then(|| (None, "agent_unreachable".to_owned())));
        self.charge_known(agent, &launch);
        if let Some(framework) = self.frameworks.get_mut(&launch.framework) {
            framework.tasks.insert(task.clone());
        }
        let update = known.unwrap_or(update);
        let confirmed = true;
        let back = self.tasks.get(&task).is_some_and(|entry| entry.update.state == TaskState::Unreachable);
        let before = self.tasks.get(&task);
        let member = before.and_then(|entry| entry.member.clone());
        let (ordered_ms, revoking_ms) = before.map_or((0, None), |entry| (entry.ordered_ms, entry.revoking_ms));
        self.put_task(task.clone(), TaskEntry { agent: agent.clone(), update: update.clone(), launch, confirmed, killing: wish.clone(), member, ordered_ms, revoking_ms });
        if back {
            let framework = update.framework.clone();
            self.push(&framework, super::Push::Known { update: Box::new(update) });
        }
        if wish.is_some() {
            self.order(&task);
        }
    }

    /// Makes the framework of a task known, if only the task tells of it. Its name is its own unless somebody has it by now.
    fn find_owner(&mut self, launch: &Launch) {
        if self.frameworks.contains_key(&launch.framework) {
            return;
        }
        let mut orphan = super::Framework::orphaned(launch, self.now_ms);
        if let Some(name) = orphan.name.clone() {
            let owner = self.names.entry((launch.principal.clone(), name)).or_insert_with(|| launch.framework.clone());
            if *owner != launch.framework {
                orphan.name = None;
            }
        }
        self.frameworks.insert(launch.framework.clone(), orphan);
    }

    /// A task that the leader believes on the agent and the agent did not tell.
    fn untold(&mut self, agent: &AgentId, task: &TaskId, status_seq: u64) {
        let entry = &self.tasks[task];
        // A status of it overtook the registration, which was made before the task was there.
        let overtook = entry.update.agent_seq > status_seq;
        // Ordered under this epoch and perhaps still on its way, or taken after the registration was made.
        let under_way = entry.launch.launch.epoch == self.epoch && !entry.confirmed;
        if !overtook && !under_way {
            let message = format!("agent {agent} registered and does not know it");
            return self.end_by_master(task, TaskState::Dropped, "agent_restarted", message);
        }
        let (launch, number) = (entry.launch.clone(), entry.update.agent_seq);
        self.charge_known(agent, &launch);
        if let Some(entry) = self.agents.get_mut(agent).filter(|_| overtook) {
            entry.overtook = entry.overtook.max(number);
        }
        if under_way {
            // Ordered again: it is spawned once at most, and its agent says what became of it.
            self.order(task);
        }
    }

    /// Charges a task that is on an agent whether the books have room for it or not.
    fn charge_known(&mut self, agent: &AgentId, launch: &Launch) {
        if launch.lent {
            self.admit_lent(agent, launch);
        }
        let charged = self.books_mut(pool_of(launch)).charge(agent, launch.task.clone(), launch.framework.clone(), launch.resources.clone());
        if let Err(error) = charged {
            // It is the agent's own admission that is wrong, or its word is old; it counts all the same.
            self.tell("agent_overcommitted", agent.to_string(), format!("task {} does not fit what agent {agent} reports: {error}", launch.task));
        }
    }

    pub(super) fn on_beat(&mut self, caller: Caller, beat: &Beat) {
        let epoch = self.epoch;
        let now_ms = self.now_ms;
        let mut again = None;
        let beaten = match self.agents.get_mut(&beat.agent) {
            Some(entry) if entry.incarnation.as_ref() == Some(&beat.incarnation) && entry.state == AgentState::Active && entry.epoch == epoch => {
                entry.heard_ms = now_ms;
                // Two beats ago it was made and it is still not here: a status was lost on its way. Or what it did not tell it
                // would tell by now, if it knew of it.
                let is_in_doubt = entry.overtook > 0 && entry.overtook <= beat.status_seq;
                if entry.seen < entry.made || is_in_doubt {
                    again = entry.secret.clone();
                }
                entry.made = beat.status_seq;
                Beaten { epoch, known: true, seen: entry.seen }
            }
            _ => Beaten { epoch, known: false, seen: 0 },
        };
        if let Some(lent) = beat.lent.as_ref().filter(|_| beaten.known) {
            self.set_lent(&beat.agent, lent.clone());
        }
        if beaten.known {
            self.set_closed(&beat.agent, beat.closed.as_deref());
        }
        self.reply(caller, Reply::Beaten(beaten));
        if let Some(secret) = again {
            let command = Command { epoch, incarnation: beat.incarnation.clone(), order: Order::Hello };
            self.out.push(Effect::Command { agent: beat.agent.clone(), secret, command });
        }
    }

    /// An agent says that it takes no tasks for now, and why, or that it does again.
    fn set_closed(&mut self, agent: &AgentId, reason: Option<&str>) {
        let Some(entry) = self.agents.get_mut(agent).filter(|entry| entry.closed != reason.is_some()) else { return };
        entry.closed = reason.is_some();
        let host = entry.host.clone();
        self.ledger.set_open(agent, reason.is_none());
        match reason {
            Some(reason) => {
                self.rescind_on(agent, reason);
                self.tell("agent_closed", agent.to_string(), format!("agent {agent} on {host} takes no tasks for now: {reason}"));
            }
            None => {
                self.fresh_agents.insert(agent.clone());
                self.tell("agent_open", agent.to_string(), format!("agent {agent} on {host} takes tasks again"));
            }
        }
    }

    /// Notes that a status of the agent arrived.
    pub(super) fn saw_status(&mut self, agent: &AgentId, number: u64) {
        if let Some(entry) = self.agents.get_mut(agent) {
            entry.heard_ms = self.now_ms;
            // Before it registered here its tasks are not known, and what a status says of them is not kept.
            if entry.state == AgentState::Active && entry.epoch == self.epoch {
                entry.saw(number);
            }
        }
    }

    /// One timer an agent, however often it registers.
    pub(super) fn watch(&mut self, agent: &AgentId) {
        let Some(entry) = self.agents.get_mut(agent) else { return };
        if !entry.watched {
            entry.watched = true;
            let wait_ms = (entry.heard_ms + self.config.agent_timeout_ms).saturating_sub(self.now_ms);
            self.timer(wait_ms, Timer::Agent(agent.clone()));
        }
    }

    pub(super) fn agent_due(&mut self, agent: &AgentId) {
        let timeout_ms = self.config.agent_timeout_ms;
        let Some(entry) = self.agents.get_mut(agent) else { return };
        entry.watched = false;
        if matches!(entry.state, AgentState::Unreachable | AgentState::Gone) {
            return;
        }
        if entry.heard_ms + timeout_ms > self.now_ms {
            return self.watch(agent);
        }
        self.remove_or_wait(agent);
    }

    /// The epoch was raised: every agent has to register under it before it is commanded.
    pub(super) fn raised(&mut self, epoch: u64) {
        if epoch <= self.epoch {
            return;
        }
        self.epoch = epoch;
        self.since_ms = self.now_ms;
        self.fenced.clear();
        self.invite_at_ms = Some(self.now_ms);
        let agents: Vec<AgentId> = self.agents.keys().cloned().collect();
        for agent in agents {
            self.rescind_on(&agent, "new_epoch");
            self.ledger.set_open(&agent, false);
            self.lent.set_open(&agent, false);
        }
        for entry in self.agents.values_mut() {
            entry.launch_no = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AgentState, TOLD_MAX};
    use crate::id::Name;
    use crate::master::testcluster::{Cluster, EPOCH, agent, framework, nonce};
    use crate::master::{Effect, Event, Push, Reply};
    use crate::task::TaskState;
    use crate::wire::agent::{Beat, Held, Hello, Order, Welcome};
    use crate::wire::call::Answer;
    use crate::wire::{LaunchId, RefusalCode, Update};

    /// A cluster in which agent 1 runs one task of framework 1, and what it holds.
    fn with_a_task() -> (Cluster, Held) {
        let mut cluster = Cluster::new();
        cluster.join(1, "cpus=4,mem=1G");
        cluster.subscribe(1, "default");
        cluster.demand(1, "cpus=1", 1);
        cluster.allocate();
        let task = cluster.accept(1, "cpus=1", 1).remove(0);
        let held = cluster.held(&task);
        (cluster, held)
    }

    fn hello(cluster: &mut Cluster, hello: Hello) -> Vec<Effect> {
        cluster.step(Event::Hello { caller: 1, hello: Box::new(Hello { max_epoch: EPOCH, ..hello }) })
    }

    /// Shows that an agent which was started from an older copy of its work directory is refused, and that this is said:
    /// what it lost is not taken for what runs on, nor for what ended. One that knows all it made is taken in.
    #[test]
    fn an_older_disk() {
        let (mut cluster, held) = with_a_task();
        cluster.wait(20_000);
        let later = Hello { incarnation: nonce(7), generation: 2, ..Cluster::hello(1, "cpus=4,mem=1G", Vec::new()) };
        let effects = hello(&mut cluster, later.clone());
        let is_refused = |effect: &Effect| matches!(effect, Effect::Reply { reply: Reply::Welcome(Welcome::Refused(refusal)), .. } if refusal.code == RefusalCode::BadRequest);
        assert!(effects.iter().any(is_refused), "{effects:?}");
        assert!(cluster.happened.iter().any(|kind| kind == "agent_refused"));
        assert_eq!((cluster.cpus(1), cluster.master.lead().expect("it leads").tasks().len()), (1, 1));
        let effects = hello(&mut cluster, Hello { status_seq: 1, tasks: vec![held], ..later });
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Reply { reply: Reply::Welcome(Welcome::Welcome { .. }), .. })), "{effects:?}");
        assert_eq!(cluster.cpus(1), 1);
    }

    /// Shows that a task which the work directory has lost, and of which no beat had told, is out of the books as soon as the
    /// agent has made as many statuses again: then the task's cannot have overtaken its registration.
    #[test]
    fn a_disk_that_lost_the_last() {
        let (mut cluster, _) = with_a_task();
        let later = |status_seq| Hello { incarnation: nonce(7), generation: 2, status_seq, ..Cluster::hello(1, "cpus=4,mem=1G", Vec::new()) };
        hello(&mut cluster, later(0));
        assert_eq!((cluster.cpus(1), cluster.master.lead().expect("it leads").tasks().len()), (1, 1));
        let beat = |cluster: &mut Cluster, status_seq| {
            let beat = Beat { agent: agent(1), incarnation: nonce(7), epoch: EPOCH, status_seq, lent: None, closed: None };
            cluster.step(Event::Beat { caller: 4, beat }).iter().any(|effect| matches!(effect, Effect::Command { command, .. } if command.order == Order::Hello))
        };
        assert!(!beat(&mut cluster, 0));
        assert!(beat(&mut cluster, 1), "it is to register anew");
        hello(&mut cluster, Hello { no: 9, ..later(1) });
        assert_eq!((cluster.cpus(1), cluster.master.lead().expect("it leads").tasks().len()), (0, 0));
        assert!(!beat(&mut cluster, 1));
    }

    /// Shows that a task which is told with its end is out of the books at once, and that nobody but its agent says so:
    /// nothing is published, neither now nor when it is told again.
    #[test]
    fn told_with_its_end() {
        let (mut cluster, held) = with_a_task();
        let update = Update { state: TaskState::Finished, is_final: true, seq: 2, agent_seq: 2, ..held.update.clone() };
        let told = Hello { status_seq: 2, ..Cluster::hello(1, "cpus=4,mem=1G", vec![Held { update, ..held }]) };
        for _ in 0..2 {
            let effects = hello(&mut cluster, told.clone());
            assert!(!effects.iter().any(|effect| matches!(effect, Effect::Publish(_) | Effect::Push { push: Push::Known { .. }, .. })), "{effects:?}");
            assert_eq!((cluster.cpus(1), cluster.master.lead().expect("it leads").tasks().len()), (0, 0));
        }
    }

    /// Shows that what an agent tells of a task that ended says nothing of another launch of the same id that runs
    /// elsewhere, whichever is told first, and whether it is settled or not.
    #[test]
    fn an_id_that_was_given_again() {
        let (before, running) = with_a_task();
        let mut launch = running.launch.clone();
        launch.launch = LaunchId { epoch: EPOCH - 1, ..launch.launch };
        let update = Update { state: TaskState::Failed, is_final: true, seq: 2, agent_seq: 2, agent: Some(agent(2)), launch: Some(launch.launch.clone()), ..running.update.clone() };
        for settled in [true, false] {
            let ended = Held { launch: launch.clone(), update: update.clone(), settled, ..running.clone() };
            for order in [[1, 2], [2, 1]] {
                let mut cluster = Cluster::next(&before.registry);
                for number in order {
                    let held = if number == 1 { running.clone() } else { ended.clone() };
                    cluster.join_with(number, "cpus=4,mem=1G", vec![held]);
                }
                assert_eq!((cluster.cpus(1), cluster.master.lead().expect("it leads").tasks().len()), (1, 1), "settled: {settled}, {order:?}");
            }
        }
    }

    /// Shows that an agent which tells only a part of its registration and is not heard of again is away after its time,
    /// and that one which tells of more tasks than there can be is refused.
    #[test]
    fn half_a_registration() {
        let (mut cluster, held) = with_a_task();
        let part = Hello { more: true, ..Cluster::hello(2, "cpus=4,mem=1G", Vec::new()) };
        cluster.step(Event::Hello { caller: 1, hello: Box::new(part.clone()) });
        hello(&mut cluster, part);
        cluster.wait(80_000);
        assert_eq!(cluster.master.lead().expect("it leads").agents()[&agent(2)].state, AgentState::Unreachable);
        let many = Cluster::hello(3, "cpus=4,mem=1G", vec![held; TOLD_MAX + 1]);
        cluster.step(Event::Hello { caller: 1, hello: Box::new(many.clone()) });
        let effects = hello(&mut cluster, many);
        let is_refused = |effect: &Effect| matches!(effect, Effect::Reply { reply: Reply::Welcome(Welcome::Refused(refusal)), .. } if refusal.code == RefusalCode::BadRequest);
        assert!(effects.iter().any(is_refused));
    }

    /// Shows that an agent which takes no tasks is offered to nobody, that what was offered of it is taken back at once, and
    /// that it is offered again when it says so, or when it registers anew.
    #[test]
    fn closed_for_a_while() {
        let mut cluster = Cluster::new();
        cluster.join(1, "cpus=4,mem=1G");
        cluster.subscribe(1, "default");
        cluster.demand(1, "cpus=1", 4);
        let say = |cluster: &mut Cluster, closed: Option<&str>| {
            let beat = Beat { agent: agent(1), incarnation: nonce(1), epoch: EPOCH, status_seq: 0, lent: None, closed: closed.map(str::to_owned) };
            cluster.step(Event::Beat { caller: 4, beat });
            cluster.allocate();
            cluster.offers[&framework(1)].len()
        };
        assert_eq!(say(&mut cluster, None), 1);
        assert_eq!(say(&mut cluster, Some("agent_disk")), 0);
        assert_eq!(say(&mut cluster, Some("agent_disk")), 0);
        assert_eq!(say(&mut cluster, None), 1);
        assert_eq!(say(&mut cluster, Some("agent_disk")), 0);
        cluster.join(1, "cpus=4,mem=1G");
        cluster.allocate();
        assert_eq!(cluster.offers[&framework(1)].len(), 1);
        let told: Vec<&str> = cluster.happened.iter().map(String::as_str).filter(|kind| ["agent_closed", "agent_open"].contains(kind)).collect();
        assert_eq!(told, ["agent_closed", "agent_open", "agent_closed"]);
    }

    /// Shows that a name whose registry was lost is found again with the tasks that tell of it, and that it stays with
    /// whoever took it before they were told.
    #[test]
    fn names_are_found_with_their_tasks() {
        let name = Name::parse("keeper").expect("a name");
        let mut before = Cluster::new();
        before.join(1, "cpus=4,mem=1G");
        before.subscribe_as(1, "default", Some(name.clone()));
        before.demand(1, "cpus=1", 1);
        before.allocate();
        let task = before.accept(1, "cpus=1", 1).remove(0);
        let held = before.held(&task);

        let mut after = Cluster::new();
        after.join_with(1, "cpus=4,mem=1G", vec![held.clone()]);
        let answer = after.subscribe_as(2, "default", Some(name.clone()));
        assert!(matches!(&answer, Some(Answer::Subscribed { framework: found, recovered: true, .. }) if *found == framework(1)), "{answer:?}");

        let mut late = Cluster::new();
        let answer = late.subscribe_as(2, "default", Some(name.clone()));
        assert!(matches!(&answer, Some(Answer::Subscribed { framework: found, recovered: false, .. }) if *found == framework(2)), "{answer:?}");
        late.join_with(1, "cpus=4,mem=1G", vec![held]);
        late.wait(60_000);
        let answer = late.subscribe_as(2, "default", Some(name));
        assert!(matches!(&answer, Some(Answer::Subscribed { framework: found, .. }) if *found == framework(2)), "{answer:?}");
        assert!(late.killed.iter().any(|(killed, reason)| *killed == task && reason == "framework_gone"), "nobody speaks for the old one");
    }
}
