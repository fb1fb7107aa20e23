//! Frameworks: what they want, what they hold, what becomes of them when nobody speaks for them.

use std::collections::{BTreeMap, BTreeSet};

use crate::condition::Condition;
use crate::duration::DURATION_MS_MAX;
use crate::id::{FrameworkId, Name, OfferId, Principal, TaskId};
use crate::master::hunger::Hunger;
use crate::master::sessions::Session;
use crate::master::{Caller, Effect, FrameworkDoc, Lead, OFFERS_PER_FRAMEWORK_MAX};
use crate::offerer::Place;
use crate::role::Role;
use crate::task::OnUnreachable;
use crate::wire::ack::AckId;
use crate::wire::call::{Answer, Call, Claim, Demand, Push};
use crate::wire::number::counted;
use crate::wire::{Launch, Refusal, RefusalCode};

/// The most claims that wait for their agents, a framework.
const CLAIMS_MAX: usize = 100_000;

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
    /// How many sessions it has had.
    pub(super) session_no: u64,
    /// Up to where in the event stream its sessions saw its statuses.
    pub(super) seen: Place,
    pub(super) failover_ms: u64,
    /// What becomes of its tasks that say nothing of it when no leader reaches their agent.
    pub(super) on_unreachable: Option<OnUnreachable>,
    pub(super) gone_ms: u64,
    pub(super) since_ms: u64,
    pub(super) demand: Option<Demand>,
    pub(super) condition: Option<Condition>,
    /// It wants no offers for now, whatever its demand.
    pub(super) suppressed: bool,
    pub(super) offers: BTreeSet<OfferId>,
    pub(super) claims: Vec<Claim>,
    pub(super) hunger: Hunger,
    /// How often it was made an offer; a new one begins with as many as the least of the others.
    pub(super) served: u64,
    /// A timer looks after its session.
    pub(super) armed: bool,
}

impl Framework {
    pub(super) fn new(name: Option<Name>, principal: Principal, role: Role, failover_ms: u64, now_ms: u64) -> Self {
        Framework {
            name,
            principal,
            role,
            tasks: BTreeSet::new(),
            session: None,
            session_no: 0,
            seen: Place::default(),
            suppressed: false,
            failover_ms,
            on_unreachable: None,
            gone_ms: now_ms,
            since_ms: now_ms,
            demand: None,
            condition: None,
            offers: BTreeSet::new(),
            claims: Vec::new(),
            hunger: Hunger::default(),
            served: 0,
            armed: false,
        }
    }

    pub(super) fn recovered(doc: &FrameworkDoc, now_ms: u64) -> Self {
        let failover_ms = doc.failover_ms.min(DURATION_MS_MAX);
        let framework = Framework::new(Some(doc.name.clone()), doc.principal.clone(), doc.role.clone(), failover_ms, now_ms);
        Framework { session_no: counted(doc.session_no), seen: Place { seq: counted(doc.seen), recorded_ms: counted(doc.seen_ms) }, ..framework }
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
        self.demand.as_ref().filter(|_| !self.suppressed).map_or(0, |demand| demand.count)
    }

    /// Whether it is to be offered anything.
    pub(super) fn is_hungry(&self) -> bool {
        !self.suppressed && self.wants() > 0 && self.session.as_ref().is_some_and(|session| !session.is_sated()) && self.offers.len() < self.open_max()
    }

    /// How many offers it may hold at once.
    pub(super) fn open_max(&self) -> usize {
        let wished = self.demand.as_ref().map_or(0, |demand| demand.open_max) as usize;
        if wished == 0 { OFFERS_PER_FRAMEWORK_MAX } else { wished.min(OFFERS_PER_FRAMEWORK_MAX) }
    }
}

impl Lead {
    /// Handles a call; the answer, unless the caller is answered otherwise.
    pub(super) fn on_call(&mut self, _caller: Caller, principal: &Principal, call: Call) -> Option<Answer> {
        if let Some(fault) = call.fault() {
            return Some(refused(RefusalCode::BadRequest, fault));
        }
        let answer = match call {
            Call::Subscribe(subscribe) => self.subscribe(principal, subscribe),
            Call::Demand { framework, session, demand } => self.in_session(principal, &framework, &session, None, |lead| lead.set_demand(&framework, demand)),
            Call::Accept(accept) => self.accept(principal, accept),
            Call::Decline { framework, session, offers, refuse_ms, member, implicit } => self.in_session(principal, &framework, &session, member.as_ref(), |lead| {
                lead.decline(&framework, &offers, (!implicit).then_some(refuse_ms));
                Answer::Done {}
            }),
            Call::Return { offers, refuse_ms } => self.return_call(principal, &offers, refuse_ms),
            Call::Suppress { framework, on } => self.suppress(principal, &framework, on),
            Call::Ack { acks } => self.ack(principal, acks),
            Call::Seen { framework, session, upto, recorded_ms } => {
                let upto = Place { seq: upto, recorded_ms };
                self.in_session(principal, &framework, &session, None, |lead| lead.set_seen(&framework, upto))
            }
            Call::Kill { tasks, grace_ms } => self.kill_call(principal, &tasks, grace_ms),
            Call::Look { offer } => self.look(principal, &offer),
            Call::Beat { framework, session, member, sated } => self.in_session(principal, &framework, &session, member.as_ref(), |lead| {
                lead.set_sated(&framework, member.as_ref().unwrap_or(&session), sated);
                Answer::Done {}
            }),
            Call::Leave { framework, session, member, hold_ms } => self.in_session(principal, &framework, &session, member.as_ref(), |lead| {
                lead.leave(&framework, member.as_ref().unwrap_or(&session), hold_ms);
                Answer::Done {}
            }),
            Call::Teardown { framework } => self.teardown(principal, &framework),
            Call::Reconcile { framework, session, tasks, member, asked } => self.in_session(principal, &framework, &session, member.as_ref(), |lead| {
                lead.tell_of(&framework, &asked);
                // The outside asks for the tasks that it names; nothing named is everything.
                if asked.is_empty() || !tasks.is_empty() {
                    lead.claim(&framework, tasks);
                }
                Answer::Done {}
            }),
        };
        Some(answer)
    }

    /// Says what is wanted now.
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
                self.forget_hunger(framework);
            }
            self.fresh_frameworks.insert(framework.clone());
        }
        Answer::Done {}
    }

    /// Nobody comes back for it: its tasks end, except those to keep, and it is forgotten with the last of them.
    pub(super) fn lapse(&mut self, framework: &FrameworkId) {
        let tasks: Vec<TaskId> = self.frameworks.get(framework).map(|entry| entry.tasks.iter().cloned().collect()).unwrap_or_default();
        for task in tasks {
            if self.tasks.get(&task).is_some_and(|entry| !entry.launch.spec.keep) {
                self.want_killed(&task, None, "framework_gone");
            }
        }
        if let Some(entry) = self.frameworks.get_mut(framework) {
            if let Some(name) = entry.name.take() {
                let key = (entry.principal.clone(), name);
                if self.names.get(&key) == Some(framework) {
                    self.names.remove(&key);
                }
                self.register_frameworks();
            }
        }
        self.forget_if_done(framework);
    }

    /// Forgets an unnamed framework that has neither session nor tasks.
    pub(super) fn forget_if_done(&mut self, framework: &FrameworkId) {
        if self.frameworks.get(framework).is_some_and(|entry| entry.session.is_none() && entry.name.is_none() && entry.tasks.is_empty()) {
            self.forget_hunger(framework);
            self.frameworks.remove(framework);
            self.refusals.clear(framework);
        }
    }

    /// A framework of the principal by name or id.
    fn find_framework(&self, principal: &Principal, wanted: &str) -> Result<FrameworkId, Refusal> {
        let by_name = Name::parse(wanted).ok().and_then(|name| self.names.get(&(principal.clone(), name)).cloned());
        let by_id = || FrameworkId::parse(wanted).ok().filter(|id| self.frameworks.contains_key(id));
        let framework = by_name.or_else(by_id).ok_or_else(|| Refusal::new(RefusalCode::UnknownFramework, "no such framework"))?;
        if self.frameworks[&framework].principal != *principal {
            return Err(Refusal::new(RefusalCode::NotYours, format!("framework {framework} belongs to another principal")));
        }
        Ok(framework)
    }

    /// Wants no offers for now, or wants them again; the session's members hear of it, so that they can tell a new leader.
    fn suppress(&mut self, principal: &Principal, wanted: &str, on: bool) -> Answer {
        let framework = match self.find_framework(principal, wanted) {
            Ok(framework) => framework,
            Err(refusal) => return Answer::Refused(refusal),
        };
        if let Some(entry) = self.frameworks.get_mut(&framework) {
            entry.suppressed = on;
        }
        if !on {
            self.refusals.clear(&framework);
            self.fresh_frameworks.insert(framework.clone());
        }
        self.push(&framework, Push::Suppressed { on });
        Answer::Done {}
    }

    /// Hands acknowledgements on to the sessions whose statuses they are.
    fn ack(&mut self, principal: &Principal, acks: Vec<AckId>) -> Answer {
        let mut by_framework: BTreeMap<FrameworkId, Vec<AckId>> = BTreeMap::new();
        for ack in acks {
            match self.frameworks.get(&ack.framework) {
                Some(entry) if entry.principal != *principal => {
                    return refused(RefusalCode::NotYours, format!("framework {} belongs to another principal", ack.framework));
                }
                Some(entry) if entry.is_connected() => by_framework.entry(ack.framework.clone()).or_default().push(ack),
                Some(_) => return refused(RefusalCode::UnknownFramework, format!("framework {} has no session, so nothing waits for this", ack.framework)),
                None => return refused(RefusalCode::UnknownFramework, format!("framework {} is not registered", ack.framework)),
            }
        }
        for (framework, acks) in by_framework {
            self.push(&framework, Push::Acked { acks });
        }
        Answer::Done {}
    }

    /// Notes up to where the framework's statuses were seen, which is further back where the record lost its end. A durable
    /// name keeps it.
    fn set_seen(&mut self, framework: &FrameworkId, upto: Place) -> Answer {
        let Some(entry) = self.frameworks.get_mut(framework) else { return Answer::Done {} };
        if upto != entry.seen {
            entry.seen = upto;
            if entry.name.is_some() {
                self.register_frameworks();
            }
        }
        Answer::Done {}
    }

    /// Gives offers back for whoever knows their ids and is of the principal that owns them.
    fn return_call(&mut self, principal: &Principal, offers: &[OfferId], refuse_ms: u64) -> Answer {
        for offer in offers {
            let Some(framework) = self.find_offer(offer).map(|(_, _, holding)| holding.framework.clone()) else {
                return Answer::Refused(self.offer_gone(offer));
            };
            if self.frameworks.get(&framework).is_none_or(|entry| entry.principal != *principal) {
                return refused(RefusalCode::NotYours, format!("offer {offer} belongs to another principal"));
            }
            self.decline(&framework, std::slice::from_ref(offer), Some(refuse_ms));
            // Whoever holds it did not say this, even where it is alone in its session.
            self.push(&framework, Push::Used { offers: vec![offer.clone()] });
        }
        Answer::Done {}
    }

    /// Tells at once what is known of tasks that somebody asks about; nothing is what `unknown` says.
    fn tell_of(&mut self, framework: &FrameworkId, asked: &[TaskId]) {
        for task in asked {
            let live = self.tasks.get(task).map(|entry| &entry.update);
            let known = live.or_else(|| self.ended_rows.get(task).map(|(update, _)| update)).filter(|update| update.framework == *framework);
            let update = known.cloned().unwrap_or_else(|| self.unknown(framework, task));
            self.push(framework, Push::Known { update: Box::new(update) });
        }
    }

    fn teardown(&mut self, principal: &Principal, wanted: &str) -> Answer {
        let framework = match self.find_framework(principal, wanted) {
            Ok(framework) => framework,
            Err(refusal) => return Answer::Refused(refusal),
        };
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
    pub(super) fn claim(&mut self, framework: &FrameworkId, claims: Vec<Claim>) {
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
                // The master's own last word goes through the record: what the agent said before, and has forgotten
                // since it was stored, is there before it, and may be the end.
                Some(update) if update.is_final && update.agent_seq == 0 => self.out.push(Effect::Settle { principal: update.principal.clone(), update: Box::new(update) }),
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

pub(super) fn parse_condition(demand: &Demand) -> Result<Option<Condition>, Refusal> {
    if demand.condition.is_empty() {
        return Ok(None);
    }
    Condition::parse(&demand.condition).map(Some).map_err(|error| Refusal::new(RefusalCode::BadRequest, error.to_string()))
}

pub(super) fn refused(code: RefusalCode, message: String) -> Answer {
    Answer::Refused(Refusal::new(code, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::AgentId;
    use crate::master::registry::FRAMEWORKS;
    use crate::master::testcluster::{Cluster, EPOCH, agent, framework, nonce, principal};
    use crate::master::{Event, Reply};
    use crate::task::TaskState;
    use crate::wire::call::Subscribe;

    /// What a framework that asks is told at once, and what is published.
    fn reconcile(cluster: &mut Cluster, number: u64, tasks: Vec<Claim>, asked: &[TaskId]) -> Vec<(TaskId, TaskState)> {
        let call = Call::Reconcile { framework: framework(number), session: nonce(number), tasks, member: None, asked: asked.to_vec() };
        let effects = cluster.step(Event::Call { caller: 2, principal: principal(), call: Box::new(call) });
        told(&effects, number)
    }

    fn told(effects: &[Effect], number: u64) -> Vec<(TaskId, TaskState)> {
        let one = |effect: &Effect| match effect {
            Effect::Push { framework: to, push: Push::Known { update }, .. } if *to == framework(number) => Some(update.clone()),
            Effect::Publish(update) | Effect::Settle { update, .. } if update.framework == framework(number) => Some(update.clone()),
            _ => None,
        };
        effects.iter().filter_map(one).map(|update| (update.task, update.state)).collect()
    }

    /// Launches one task of a framework, which is subscribed here.
    fn one_task(cluster: &mut Cluster, number: u64, subscribe: Subscribe) -> TaskId {
        cluster.call(Call::Subscribe(subscribe));
        cluster.demand(number, "cpus=1", 1);
        cluster.allocate();
        cluster.accept(number, "cpus=1", 1).remove(0)
    }

    fn keeper(number: u64) -> Subscribe {
        Subscribe { failover_ms: 60_000, ..Cluster::subscription(number, "default", Name::parse("keeper").ok()) }
    }

    fn claim(task: &TaskId, agent: AgentId) -> Claim {
        Claim { task: task.clone(), agent, epoch: EPOCH, seq: 1 }
    }

    fn recovered(answer: Option<Answer>) -> Option<(FrameworkId, bool, u64)> {
        match answer {
            Some(Answer::Subscribed { framework, recovered, session_no, .. }) => Some((framework, recovered, session_no)),
            _ => None,
        }
    }

    /// Shows what one who asks is told: the state of what lives and of what ended, nothing of what is another's or nobody's;
    /// of everything, where nothing is named; and of an agent that a new leader has not heard of, nothing until it is back.
    #[test]
    fn asked_and_claimed() {
        let mut cluster = Cluster::new();
        cluster.join(1, "cpus=4,mem=1G");
        let lives = one_task(&mut cluster, 1, Cluster::subscription(1, "default", None));
        let ended = one_task(&mut cluster, 1, Cluster::subscription(1, "default", None));
        let of_another = one_task(&mut cluster, 2, Cluster::subscription(2, "default", None));
        cluster.end(&ended, TaskState::Finished);
        let nobodys = TaskId::fresh(99);
        let asked = [lives.clone(), ended.clone(), of_another.clone(), nobodys.clone()];
        let all = [(lives.clone(), TaskState::Running), (ended.clone(), TaskState::Finished), (of_another, TaskState::Unknown), (nobodys.clone(), TaskState::Unknown)];
        assert_eq!(reconcile(&mut cluster, 1, Vec::new(), &asked), all);
        assert_eq!(reconcile(&mut cluster, 1, Vec::new(), &[]), all[..1]);

        let held = cluster.held(&lives);
        cluster.silence(1);
        cluster.wait(80_000);
        let mut next = Cluster::next(&cluster.registry);
        next.call(Call::Subscribe(Cluster::subscription(1, "default", None)));
        assert_eq!(reconcile(&mut next, 1, Vec::new(), std::slice::from_ref(&lives)), [(lives.clone(), TaskState::Unknown)]);
        let claims = vec![claim(&lives, agent(1)), claim(&nobodys, agent(1)), claim(&ended, agent(9))];
        assert_eq!(reconcile(&mut next, 1, claims, &[]), [], "it may run there");
        let hello = Cluster::hello(1, "cpus=4,mem=1G", vec![held]);
        assert_eq!(told(&next.step(Event::Hello { caller: 1, hello: Box::new(hello.clone()) }), 1), []);
        let effects = next.step(Event::Hello { caller: 1, hello: Box::new(crate::wire::agent::Hello { max_epoch: EPOCH, ..hello }) });
        assert_eq!(told(&effects, 1), [(lives, TaskState::Running), (nobodys, TaskState::Dropped)]);
    }

    /// Shows that nobody speaks for the framework of another principal: each call is refused, and all stays as it was.
    #[test]
    fn of_another_principal() {
        let mut cluster = Cluster::new();
        cluster.join(1, "cpus=4,mem=1G");
        let task = one_task(&mut cluster, 1, keeper(1));
        let (framework, session) = (framework(1), nonce(1));
        let code = |cluster: &mut Cluster, call: Call| {
            let effects = cluster.step(Event::Call { caller: 2, principal: Principal::parse("mallory").expect("a principal"), call: Box::new(call) });
            assert_eq!(effects.len(), 1, "{effects:?}");
            match &effects[0] {
                Effect::Reply { reply: Reply::Answer(Answer::Refused(refusal)), .. } => Some(refusal.code),
                Effect::Reply { reply: Reply::Answer(Answer::Killing { refused }), .. } => refused[0].as_ref().map(|refusal| refusal.code),
                _ => None,
            }
        };
        let of_session = [
            Call::Subscribe(Subscribe { takeover: true, name: None, ..keeper(1) }),
            Call::Demand { framework: framework.clone(), session: session.clone(), demand: None },
            Call::Leave { framework: framework.clone(), session: session.clone(), member: None, hold_ms: 0 },
            Call::Reconcile { framework: framework.clone(), session, tasks: Vec::new(), member: None, asked: Vec::new() },
            Call::Kill { tasks: vec![task.clone()], grace_ms: None },
            Call::Suppress { framework: framework.to_string(), on: true },
            Call::Teardown { framework: framework.to_string() },
        ];
        for call in of_session {
            assert_eq!(code(&mut cluster, call.clone()), Some(RefusalCode::NotYours), "{call:?}");
        }
        assert_eq!(code(&mut cluster, Call::Teardown { framework: "keeper".to_owned() }), Some(RefusalCode::UnknownFramework), "names are each principal's own");
        let lead = cluster.master.lead().expect("it leads");
        assert!(lead.frameworks()[&framework].is_connected() && lead.tasks().contains_key(&task) && cluster.killed.is_empty());
    }

    /// Shows that a name is kept for its failover time and no longer: then its tasks end, the registry forgets it, and who
    /// takes it later begins anew.
    #[test]
    fn a_name_after_its_time() {
        for (wait_ms, is_kept) in [(70_000, true), (80_000, false)] {
            let mut cluster = Cluster::new();
            cluster.join(1, "cpus=4,mem=1G");
            let task = one_task(&mut cluster, 1, keeper(1));
            cluster.wait(1_000);
            // Of 15 s without a beat and 60 s without a session.
            cluster.wait(wait_ms);
            assert_eq!(cluster.registry[FRAMEWORKS].contains("keeper"), is_kept);
            let killed = if is_kept { Vec::new() } else { vec![(task, "framework_gone".to_owned())] };
            assert_eq!(cluster.killed, killed);
            let answer = recovered(cluster.call(Call::Subscribe(keeper(2))));
            assert_eq!(answer, Some(if is_kept { (framework(1), true, 2) } else { (framework(2), false, 1) }));
        }
    }

    /// Shows that what a later head says of role and failover time holds from then on, in the registry as well, and that a
    /// head may change it under a later leader.
    #[test]
    fn a_later_head() {
        let mut cluster = Cluster::new();
        cluster.call(Call::Subscribe(keeper(1)));
        cluster.wait(16_000);
        let later = Subscribe { role: Role::parse("eng").expect("a role"), failover_ms: 120_000, ..keeper(2) };
        assert_eq!(recovered(cluster.call(Call::Subscribe(later))), Some((framework(1), true, 2)));
        let said = |cluster: &Cluster| {
            let entry = &cluster.master.lead().expect("it leads").frameworks()[&framework(1)];
            (entry.role.to_string(), entry.failover_ms)
        };
        assert_eq!(said(&cluster), ("eng".to_owned(), 120_000));
        let mut next = Cluster::next(&cluster.registry);
        assert_eq!(said(&next), ("eng".to_owned(), 120_000));
        assert_eq!(recovered(next.call(Call::Subscribe(keeper(3)))), Some((framework(1), true, 3)));
        assert_eq!(said(&next), ("default".to_owned(), 60_000));
        assert_eq!(said(&Cluster::next(&next.registry)), ("default".to_owned(), 60_000));
    }

    /// Shows that a framework which a new leader knows from its registry alone can be ended: its name is free, and its tasks
    /// end when their agent is back.
    #[test]
    fn torn_down_before_it_is_back() {
        let mut cluster = Cluster::new();
        cluster.join(1, "cpus=4,mem=1G");
        let task = one_task(&mut cluster, 1, keeper(1));
        let held = cluster.held(&task);
        let mut next = Cluster::next(&cluster.registry);
        assert_eq!(next.call(Call::Teardown { framework: "keeper".to_owned() }), Some(Answer::Done {}));
        assert!(!next.registry[FRAMEWORKS].contains("keeper"));
        assert_eq!(recovered(next.call(Call::Subscribe(keeper(2)))), Some((framework(2), false, 1)));
        next.join_with(1, "cpus=4,mem=1G", vec![held]);
        next.wait(20_000);
        assert_eq!(next.killed, [(task, "framework_gone".to_owned())]);
    }
}
