//! Frameworks: they subscribe, beat, say what they want, leave.

use std::collections::BTreeSet;

use crate::condition::Condition;
use crate::id::{FrameworkId, Name, Nonce, OfferId, Principal, TaskId};
use crate::master::{AgentState, Caller, Effect, FRAMEWORKS_MAX, FrameworkDoc, Lead, Timer};
use crate::role::Role;
use crate::wire::call::{Answer, Call, Claim, Demand, Push, Subscribe};
use crate::wire::{Launch, PROTOCOL, Refusal, RefusalCode};

/// The most claims that wait for their agents, a framework.
const CLAIMS_MAX: usize = 100_000;

/// A live connection of a framework.
#[derive(Clone, Debug)]
pub struct Session {
    /// The process that holds it.
    pub nonce: Nonce,
    /// Who that is, for people.
    pub who: String,
    pub(super) heard_ms: u64,
    pub(super) since_ms: u64,
}

/// A framework as the leader knows it.
#[derive(Clone, Debug)]
pub struct Framework {
    /// Its durable name.
    pub name: Option<Name>,
    /// The bus principal that owns it.
    pub principal: Principal,
    /// The role its share counts in.
    pub role: Role,
    /// Its live tasks.
    pub tasks: BTreeSet<TaskId>,
    /// Its connection, if it has one.
    pub session: Option<Session>,
    pub(super) failover_ms: u64,
    pub(super) gone_ms: u64,
    pub(super) since_ms: u64,
    pub(super) demand: Option<Demand>,
    pub(super) condition: Option<Condition>,
    pub(super) offers: BTreeSet<OfferId>,
    claims: Vec<Claim>,
    armed: bool,
}

impl Framework {
    fn new(name: Option<Name>, principal: Principal, role: Role, failover_ms: u64, now_ms: u64) -> Self {
        Framework {
            name,
            principal,
            role,
            tasks: BTreeSet::new(),
            session: None,
            failover_ms,
            gone_ms: now_ms,
            since_ms: now_ms,
            demand: None,
            condition: None,
            offers: BTreeSet::new(),
            claims: Vec::new(),
            armed: false,
        }
    }

    pub(super) fn recovered(doc: &FrameworkDoc, now_ms: u64) -> Self {
        Framework::new(Some(doc.name.clone()), doc.principal.clone(), doc.role.clone(), doc.failover_ms, now_ms)
    }

    /// A framework known only by a task that an agent reports.
    pub(super) fn orphaned(launch: &Launch, now_ms: u64) -> Self {
        Framework::new(launch.framework_name.clone(), launch.principal.clone(), launch.role.clone(), 0, now_ms)
    }

    /// Whether a session holds it.
    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// How many more tasks it wants; none without a demand.
    pub(super) fn wants(&self) -> u32 {
        self.demand.as_ref().map_or(0, |demand| demand.count)
    }
}

impl Lead {
    /// Handles a call; the answer, unless the caller is answered otherwise.
    pub(super) fn on_call(&mut self, _caller: Caller, principal: &Principal, call: Call) -> Option<Answer> {
        let answer = match call {
            Call::Subscribe(subscribe) => self.subscribe(principal, subscribe),
            Call::Demand { framework, session, demand } => self.in_session(principal, &framework, &session, |lead| lead.set_demand(&framework, demand)),
            Call::Accept(accept) => self.accept(principal, accept),
            Call::Decline { framework, session, offers, refuse_ms } => self.in_session(principal, &framework, &session, |lead| {
                lead.decline(&framework, &offers, refuse_ms);
                Answer::Done {}
            }),
            Call::Kill { tasks, grace_ms } => self.kill_call(principal, &tasks, grace_ms),
            Call::Beat { framework, session } => self.in_session(principal, &framework, &session, |_| Answer::Done {}),
            Call::Leave { framework, session } => self.in_session(principal, &framework, &session, |lead| {
                lead.disconnect(&framework);
                Answer::Done {}
            }),
            Call::Teardown { framework } => self.teardown(principal, &framework),
            Call::Reconcile { framework, session, tasks } => self.in_session(principal, &framework, &session, |lead| {
                lead.claim(&framework, tasks);
                Answer::Done {}
            }),
        };
        Some(answer)
    }

    /// Runs `then` if the session is the framework's own; any call of it is a sign of life.
    pub(super) fn in_session(&mut self, principal: &Principal, framework: &FrameworkId, session: &Nonce, then: impl FnOnce(&mut Self) -> Answer) -> Answer {
        let now_ms = self.now_ms;
        let Some(entry) = self.frameworks.get_mut(framework) else {
            return refused(RefusalCode::UnknownFramework, format!("framework {framework} is not registered"));
        };
        if entry.principal != *principal {
            return refused(RefusalCode::NotYours, format!("framework {framework} belongs to another principal"));
        }
        match &mut entry.session {
            Some(live) if live.nonce == *session => live.heard_ms = now_ms,
            Some(other) => {
                let who = other.who.clone();
                return refused(RefusalCode::NameHeld, format!("framework {framework} is held by {who}"));
            }
            None => {
                // It lives and does not know yet that it has to subscribe again: its answers may not reach it.
                entry.gone_ms = now_ms;
                return refused(RefusalCode::UnknownFramework, format!("the session of framework {framework} has ended"));
            }
        }
        then(self)
    }

    fn subscribe(&mut self, principal: &Principal, call: Subscribe) -> Answer {
        if call.v != PROTOCOL {
            return refused(RefusalCode::Version, format!("the tool speaks protocol {}, the master {PROTOCOL}: run the same release on both", call.v));
        }
        let condition = match call.demand.as_ref().map(|demand| parse_condition(demand)).transpose() {
            Ok(condition) => condition.flatten(),
            Err(refusal) => return Answer::Refused(refusal),
        };
        let named = call.name.as_ref().and_then(|name| self.names.get(&(principal.clone(), name.clone())).cloned());
        let framework = named.clone().unwrap_or_else(|| call.framework.clone());
        let fresh = !self.frameworks.contains_key(&framework);
        if fresh && self.frameworks.len() >= FRAMEWORKS_MAX {
            return refused(RefusalCode::Busy, format!("{FRAMEWORKS_MAX} frameworks are registered, which is the limit"));
        }
        if let Some(entry) = self.frameworks.get(&framework) {
            if entry.principal != *principal {
                return refused(RefusalCode::NotYours, format!("framework {framework} belongs to another principal"));
            }
            if let Some(holder) = entry.session.as_ref().filter(|holder| holder.nonce != call.session) {
                let held = self.now_ms.saturating_sub(holder.since_ms) / 1000;
                let what = call.name.as_ref().map_or_else(|| framework.to_string(), Name::to_string);
                return refused(RefusalCode::NameHeld, format!("{what} is held by {} since {held} s", holder.who));
            }
        }
        let recovered = named.is_some();
        let now_ms = self.now_ms;
        let entry = self
            .frameworks
            .entry(framework.clone())
            .or_insert_with(|| Framework::new(call.name.clone(), principal.clone(), call.role.clone(), call.failover_ms, now_ms));
        let since_ms = entry.session.as_ref().map_or(now_ms, |session| session.since_ms);
        let mut to_register = false;
        if call.name.is_some() {
            to_register = !recovered || entry.role != call.role || entry.failover_ms != call.failover_ms;
            entry.name = call.name.clone();
        }
        entry.role = call.role.clone();
        entry.failover_ms = call.failover_ms;
        entry.session = Some(Session { nonce: call.session.clone(), who: call.who.chars().take(200).collect(), heard_ms: now_ms, since_ms });
        entry.demand = call.demand;
        entry.condition = condition;
        if let (Some(name), false) = (call.name.clone(), recovered) {
            self.names.insert((principal.clone(), name), framework.clone());
        }
        if to_register {
            self.register_frameworks();
        }
        if fresh && call.name.is_some() {
            self.tell("framework_added", framework.to_string(), format!("framework {framework} of {principal} registered"));
        }
        self.refusals.clear(&framework);
        self.arm_session(&framework);
        self.fresh_frameworks.insert(framework.clone());
        let agents = self.agents.values().filter(|agent| agent.state == AgentState::Active).count();
        if !call.claims.is_empty() {
            self.claim(&framework, call.claims);
        }
        Answer::Subscribed {
            framework,
            epoch: self.epoch,
            master: self.config.master.clone(),
            beat_ms: self.config.session_beat_ms,
            session_ms: self.config.session_timeout_ms,
            agents: u32::try_from(agents).unwrap_or(u32::MAX),
            recovered,
        }
    }

    fn set_demand(&mut self, framework: &FrameworkId, demand: Option<Demand>) -> Answer {
        let condition = match demand.as_ref().map(parse_condition).transpose() {
            Ok(condition) => condition.flatten(),
            Err(refusal) => return Answer::Refused(refusal),
        };
        if let Some(entry) = self.frameworks.get_mut(framework) {
            let other = entry.demand.as_ref().map(|old| (&old.request, &old.condition, &old.on)) != demand.as_ref().map(|new| (&new.request, &new.condition, &new.on));
            entry.demand = demand;
            entry.condition = condition;
            if other {
                // What was refused was refused for another wish.
                self.refusals.clear(framework);
            }
            self.fresh_frameworks.insert(framework.clone());
        }
        Answer::Done {}
    }

    /// Sees to it that the session is looked at when it could have lapsed; one timer a framework.
    pub(super) fn arm_session(&mut self, framework: &FrameworkId) {
        let timeout_ms = self.config.session_timeout_ms;
        let Some(entry) = self.frameworks.get_mut(framework) else { return };
        if entry.armed {
            return;
        }
        entry.armed = true;
        let wait_ms = match &entry.session {
            Some(session) => (session.heard_ms + timeout_ms).saturating_sub(self.now_ms),
            // After a failover the holder has one session's time to come back, whatever its own deadline.
            None => (entry.gone_ms + entry.failover_ms.max(timeout_ms)).saturating_sub(self.now_ms),
        };
        self.timer(wait_ms, Timer::Session(framework.clone()));
    }

    pub(super) fn session_due(&mut self, framework: &FrameworkId) {
        let timeout_ms = self.config.session_timeout_ms;
        let now_ms = self.now_ms;
        let Some(entry) = self.frameworks.get_mut(framework) else { return };
        entry.armed = false;
        match &entry.session {
            Some(session) if session.heard_ms + timeout_ms <= now_ms => self.disconnect(framework),
            Some(_) => self.arm_session(framework),
            None if entry.gone_ms + entry.failover_ms.max(timeout_ms) <= now_ms => self.lapse(framework),
            None => self.arm_session(framework),
        }
    }

    /// The session is over. A named framework's tasks live on until its failover deadline, an unnamed one's end now.
    pub(super) fn disconnect(&mut self, framework: &FrameworkId) {
        let now_ms = self.now_ms;
        let Some(entry) = self.frameworks.get_mut(framework) else { return };
        entry.session = None;
        entry.demand = None;
        entry.condition = None;
        entry.gone_ms = now_ms;
        entry.claims.clear();
        self.return_offers(framework);
        self.refusals.clear(framework);
        if self.frameworks[framework].name.is_none() {
            self.lapse(framework);
        } else {
            self.arm_session(framework);
        }
    }

    /// Nobody comes back for it: its tasks end, except those to keep, and it is forgotten with the last of them.
    fn lapse(&mut self, framework: &FrameworkId) {
        let tasks: Vec<TaskId> = self.frameworks.get(framework).map(|entry| entry.tasks.iter().cloned().collect()).unwrap_or_default();
        for task in tasks {
            if self.tasks.get(&task).is_some_and(|entry| !entry.launch.spec.keep) {
                self.want_killed(&task, None, "framework_gone");
            }
        }
        if let Some(entry) = self.frameworks.get_mut(framework) {
            if let Some(name) = entry.name.take() {
                let key = (entry.principal.clone(), name);
                self.names.remove(&key);
                self.register_frameworks();
            }
        }
        self.forget_if_done(framework);
    }

    /// Forgets an unnamed framework that has neither session nor tasks.
    pub(super) fn forget_if_done(&mut self, framework: &FrameworkId) {
        if self.frameworks.get(framework).is_some_and(|entry| entry.session.is_none() && entry.name.is_none() && entry.tasks.is_empty()) {
            self.frameworks.remove(framework);
            self.refusals.clear(framework);
        }
    }

    fn teardown(&mut self, principal: &Principal, wanted: &str) -> Answer {
        let by_name = Name::parse(wanted).ok().and_then(|name| self.names.get(&(principal.clone(), name)).cloned());
        let by_id = || FrameworkId::parse(wanted).ok().filter(|id| self.frameworks.contains_key(id));
        let Some(framework) = by_name.or_else(by_id) else {
            return refused(RefusalCode::UnknownFramework, "no such framework".to_owned());
        };
        if self.frameworks[&framework].principal != *principal {
            return refused(RefusalCode::NotYours, format!("framework {framework} belongs to another principal"));
        }
        if let Some(session) = self.frameworks[&framework].session.clone() {
            self.push(&framework, Push::Removed { session: session.nonce, reason: "torn_down".to_owned() });
        }
        let tasks: Vec<TaskId> = self.frameworks[&framework].tasks.iter().cloned().collect();
        for task in tasks {
            self.want_killed(&task, None, "torn_down");
        }
        self.disconnect(&framework);
        self.lapse(&framework);
        self.tell("framework_removed", framework.to_string(), format!("framework {framework} of {principal} was torn down"));
        Answer::Done {}
    }

    /// Answers what became of tasks: at once if known, else when their agents have registered.
    fn claim(&mut self, framework: &FrameworkId, claims: Vec<Claim>) {
        let claims = if claims.is_empty() { self.all_claims(framework) } else { claims };
        let Some(entry) = self.frameworks.get_mut(framework) else { return };
        for claim in claims {
            entry.claims.retain(|known| known.task != claim.task);
            if entry.claims.len() < CLAIMS_MAX {
                entry.claims.push(claim);
            }
        }
        self.answer_claims(framework);
    }

    fn all_claims(&self, framework: &FrameworkId) -> Vec<Claim> {
        let tasks = self.frameworks.get(framework).map(|entry| entry.tasks.iter()).into_iter().flatten();
        tasks
            .filter_map(|id| self.tasks.get(id))
            .map(|entry| Claim { task: entry.launch.task.clone(), agent: entry.agent.clone(), epoch: entry.launch.launch.epoch, seq: 0 })
            .collect()
    }

    fn answer_claims(&mut self, framework: &FrameworkId) {
        let claims = self.frameworks.get_mut(framework).map(|entry| std::mem::take(&mut entry.claims)).unwrap_or_default();
        let mut waiting = Vec::new();
        for claim in claims {
            match self.verdict(framework, &claim) {
                // The master's own last word goes through the stream: what the agent said before, and has forgotten
                // since it was stored, is there before it.
                Some(update) if update.is_final && update.agent_seq == 0 => self.out.push(Effect::Publish(Box::new(update))),
                Some(update) => self.push(framework, Push::Known { update: Box::new(update) }),
                None => waiting.push(claim),
            }
        }
        if let Some(entry) = self.frameworks.get_mut(framework) {
            entry.claims = waiting;
        }
    }

    /// An agent registered: whoever waited for its word is answered.
    pub(super) fn settle_claims(&mut self, agent: &crate::id::AgentId) {
        let waiting: Vec<FrameworkId> =
            self.frameworks.iter().filter(|(_, entry)| entry.claims.iter().any(|claim| claim.agent == *agent)).map(|(id, _)| id.clone()).collect();
        for framework in waiting {
            self.answer_claims(&framework);
        }
    }
}

fn parse_condition(demand: &Demand) -> Result<Option<Condition>, Refusal> {
    if demand.condition.is_empty() {
        return Ok(None);
    }
    Condition::parse(&demand.condition).map(Some).map_err(|error| Refusal::new(RefusalCode::BadRequest, error.to_string()))
}

pub(super) fn refused(code: RefusalCode, message: String) -> Answer {
    Answer::Refused(Refusal::new(code, message))
}
