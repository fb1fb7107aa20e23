//! Agents that are away: marked unreachable, declared gone by an operator, and forgotten in the end.

use std::collections::BTreeSet;

use crate::id::{AgentId, TaskId};
use crate::master::{AgentEntry, AgentState, Effect, Lead, Push, Timer};
use crate::task::TaskState;
use crate::wire::agent::{Hello, Order};
use crate::wire::operator::Outcome;
use crate::wire::{Refusal, RefusalCode};

/// How many agents that are away are remembered; the longest away are forgotten first (Mesos `registry_max_agent_count`).
pub const AWAY_AGENTS_MAX: usize = 50_000;
/// How long one is remembered, milliseconds (Mesos `registry_max_agent_age`: 14 days).
pub const AWAY_AGE_MS_MAX: u64 = 14 * 86_400_000;
/// How often it is looked who is to be forgotten, milliseconds (Mesos `registry_gc_interval`).
pub const FORGET_EVERY_MS: u64 = 900_000;

impl Lead {
    /// What it runs is not known any more, and what it has is offered to nobody.
    pub(super) fn mark_unreachable(&mut self, agent: &AgentId) {
        let host = self.take_away(agent, AgentState::Unreachable, "unreachable", "agent_unreachable");
        for task in self.tasks_on(agent) {
            self.overlay_unreachable(&task);
        }
        self.tell("agent_unreachable", agent.to_string(), format!("agent {agent} on {host} is silent"));
    }

    /// Declares an agent gone for good. That is in the registry before anybody is told.
    pub(super) fn mark_gone(&mut self, agent: &AgentId, force: bool) -> Result<Outcome, Refusal> {
        let Some(entry) = self.agents.get(agent) else {
            return Err(Refusal::new(RefusalCode::UnknownAgent, format!("there is no agent {agent}")));
        };
        let host = entry.host.clone();
        let done = Outcome::Done { role: None, rescinded: 0, notes: Vec::new() };
        match entry.state {
            AgentState::Gone => return Ok(done),
            AgentState::Unreachable => {}
            _ if force => {}
            // Silent for as long as it takes, it only waits for its turn to be marked.
            _ if !self.may_come(entry) => {}
            AgentState::Active => return Err(Refusal::new(RefusalCode::AgentThere, format!("agent {agent} on {host} is there"))),
            AgentState::Recovering => {
                return Err(Refusal::new(RefusalCode::AgentThere, format!("agent {agent} on {host} may be there: this leader has not waited long enough for it")));
            }
        }
        // One that is there is told by the answer to its next registration, and need not wait for its next beat.
        let (secret, incarnation) = (entry.secret.clone(), entry.incarnation.clone());
        self.take_away(agent, AgentState::Gone, "gone", "agent_gone");
        let tasks = self.tasks_on(agent);
        let message = format!("agent {agent} on {host} is gone, by an operator's word");
        for task in &tasks {
            self.end_by_master(task, TaskState::Gone, "agent_gone", message.clone());
        }
        self.settle_claims(agent);
        if let (Some(secret), Some(incarnation)) = (secret, incarnation) {
            let command = crate::wire::agent::Command { epoch: self.epoch, incarnation, order: Order::Hello };
            self.out.push(Effect::Command { agent: agent.clone(), secret, command });
        }
        self.tell("agent_gone", agent.to_string(), format!("{message}; {} tasks ended with it", tasks.len()));
        Ok(done)
    }

    /// Whether one that is not marked as away has been heard of, or waited for, for less than the timeout.
    pub(super) fn may_come(&self, entry: &AgentEntry) -> bool {
        entry.heard_ms.saturating_add(self.config.agent_timeout_ms) > self.now_ms
    }

    /// Why an agent that is gone is not taken in. An older protocol has no word of its own for it.
    pub(super) fn refusal_of_gone(&self, hello: &Hello) -> Option<(RefusalCode, String)> {
        self.agents.get(&hello.agent).filter(|entry| entry.state == AgentState::Gone)?;
        let code = if hello.v >= 2 { RefusalCode::AgentGone } else { RefusalCode::BadRequest };
        Some((code, format!("agent {} was declared gone, and its tasks with it", hello.agent)))
    }

    /// Ends what a gone agent tells it runs, as far as this leader knows nothing of it: it was declared gone under a leader
    /// that had not heard what it ran.
    pub(super) fn end_what_is_gone(&mut self, hello: &Hello, message: &str) {
        if hello.fault().is_some() {
            return;
        }
        for held in &hello.tasks {
            let task = &held.launch.task;
            if !held.update.is_final && !self.tasks.contains_key(task) && !self.ended_rows.contains_key(task) {
                let mut update = self.word(&held.update, TaskState::Gone, "agent_gone", message.to_owned());
                update.seq = update.seq.saturating_add(1);
                self.out.push(Effect::Publish(Box::new(update.clone())));
                self.remember(update, held.launch.token.clone());
            }
        }
    }

    /// Closes an agent's books and says so to those who have a part in it; its host name. The registry comes first.
    fn take_away(&mut self, agent: &AgentId, state: AgentState, failure: &str, reason: &str) -> String {
        let (now_ms, wall_ms) = (self.now_ms, self.wall.0);
        let Some(entry) = self.agents.get_mut(agent) else { return String::new() };
        if entry.state != AgentState::Unreachable {
            entry.heard_wall_ms = wall_ms.saturating_sub(now_ms.saturating_sub(entry.heard_ms));
        }
        entry.state = state;
        entry.incarnation = None;
        entry.secret = None;
        let host = entry.host.clone();
        self.register_agent(agent);
        self.tell_failure(agent, &host, failure);
        self.rescind_on(agent, reason);
        self.ledger.remove(agent);
        self.lent.remove(agent);
        self.withdrawn.remove(agent);
        self.forget_kept(agent);
        self.watch_away();
        host
    }

    /// The live tasks of an agent, as far as they are known.
    pub(super) fn tasks_on(&self, agent: &AgentId) -> Vec<TaskId> {
        self.tasks_of.get(agent).into_iter().flatten().cloned().collect()
    }

    /// Tells those who run tasks on the agent, or were offered it, that it fails them.
    fn tell_failure(&mut self, agent: &AgentId, host: &str, reason: &str) {
        let of_tasks = self.tasks_of.get(agent).into_iter().flatten().map(|task| self.tasks[task].launch.framework.clone());
        let of_offers = self.ledger.offers_on(agent).chain(self.lent.offers_on(agent)).map(|(_, holding)| holding.framework.clone());
        let frameworks: BTreeSet<crate::id::FrameworkId> = of_tasks.chain(of_offers).collect();
        for framework in frameworks {
            self.push(&framework, Push::Failure { agent: agent.clone(), host: host.to_owned(), reason: reason.to_owned() });
        }
    }

    /// One timer for all that are away.
    pub(super) fn watch_away(&mut self) {
        if !std::mem::replace(&mut self.away_watched, true) {
            self.timer(FORGET_EVERY_MS, Timer::Away);
        }
    }

    /// Forgets who has been unreachable for too long, and of too many that are away the longest so; never one with tasks
    /// that are not over. That one is gone is remembered for good, unless there are too many.
    pub(super) fn away_due(&mut self) {
        self.away_watched = false;
        let is_away = |state: AgentState| matches!(state, AgentState::Unreachable | AgentState::Gone);
        let place = |entry: &AgentEntry| (entry.state == AgentState::Gone, entry.heard_wall_ms);
        let mut away: Vec<((bool, u64), AgentId)> = self.agents.iter().filter(|(_, entry)| is_away(entry.state)).map(|(id, entry)| (place(entry), id.clone())).collect();
        if away.is_empty() {
            return;
        }
        away.sort();
        let too_many = away.len().saturating_sub(AWAY_AGENTS_MAX);
        let is_old = |(is_gone, heard_ms): (bool, u64)| !is_gone && heard_ms.saturating_add(AWAY_AGE_MS_MAX) <= self.wall.0;
        let old: BTreeSet<AgentId> =
            away.into_iter().enumerate().filter(|(place, (since, id))| (*place < too_many || is_old(*since)) && !self.tasks_of.contains_key(id)).map(|(_, (_, id))| id).collect();
        if !old.is_empty() {
            self.forget_agents(&old);
            self.tell("agents_forgotten", self.config.master.to_string(), format!("{} agents that were away for long are forgotten", old.len()));
        }
        self.watch_away();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MasterId;
    use crate::master::testcluster::{Cluster, EPOCH, agent, framework, principal};
    use crate::master::{AgentDoc, Config, Event, Master, Reply};
    use crate::task::OnUnreachable;
    use crate::wire::agent::Welcome;
    use crate::wire::call::{Answer, Call, Claim};
    use crate::wire::operator::Operation;

    fn state(cluster: &Cluster, number: u64) -> Option<AgentState> {
        cluster.master.lead().expect("it leads").agents().get(&agent(number)).map(|entry| entry.state)
    }

    fn gone(cluster: &mut Cluster, number: u64, force: bool) -> Result<(), RefusalCode> {
        match cluster.operate(Operation::MarkGone { agent: agent(number), force }) {
            Outcome::Done { .. } => Ok(()),
            Outcome::Refused(refusal) => Err(refusal.code),
        }
    }

    fn said(effects: &[Effect]) -> Vec<(TaskState, String)> {
        let update = |effect: &Effect| if let Effect::Publish(update) | Effect::Settle { update, .. } = effect { Some((update.state, update.reason.clone().unwrap_or_default())) } else { None };
        effects.iter().filter_map(update).collect()
    }

    /// A cluster in which agent 1 runs one task of framework 1.
    fn with_a_task(policy: Option<OnUnreachable>, default: Option<OnUnreachable>) -> (Cluster, TaskId) {
        let mut cluster = Cluster::new();
        cluster.dies_at_once = false;
        cluster.join(1, "cpus=4,mem=1G");
        cluster.subscribe_with(1, default);
        cluster.demand(1, "cpus=1", 1);
        cluster.allocate();
        let task = cluster.accept_with(1, "cpus=1", |task| task.on_unreachable = policy);
        (cluster, task)
    }

    /// Shows that a task which is not to run on out of reach is ended when its agent is back, and another is not; that a
    /// task's own word counts before its framework's; and that the word goes with the launch.
    #[test]
    fn on_return() {
        use OnUnreachable::{Keep, Kill};
        for (policy, default, dies) in [(None, None, false), (Some(Kill), None, true), (None, Some(Kill), true), (Some(Keep), Some(Kill), false), (Some(Kill), Some(Keep), true)] {
            let (mut cluster, task) = with_a_task(policy, default);
            assert_eq!(cluster.running[&task].0.spec.on_unreachable, policy.or(default));
            let held = cluster.held(&task);
            cluster.silence(1);
            cluster.wait(80_000);
            assert_eq!(state(&cluster, 1), Some(AgentState::Unreachable));
            assert!(cluster.killed.is_empty());
            cluster.join_with(1, "cpus=4,mem=1G", vec![held]);
            assert_eq!(state(&cluster, 1), Some(AgentState::Active));
            let killed: Vec<_> = cluster.killed.iter().map(|(id, reason)| (id.clone(), reason.as_str())).collect();
            assert_eq!(killed, if dies { vec![(task, "agent_unreachable")] } else { Vec::new() }, "{policy:?} {default:?}");
        }
    }

    /// Shows that only an agent which is away is declared gone, unless forced; that the registry knows it before its tasks
    /// end as gone; that what it had is out of the books; and that to say it again changes nothing.
    #[test]
    fn by_an_operator() {
        let (mut cluster, task) = with_a_task(None, None);
        assert_eq!(gone(&mut cluster, 9, false), Err(RefusalCode::UnknownAgent));
        assert_eq!(gone(&mut cluster, 1, false), Err(RefusalCode::AgentThere));
        cluster.silence(1);
        cluster.wait(80_000);
        let effects = cluster.step(Event::Operation { caller: 3, operation: Box::new(Operation::MarkGone { agent: agent(1), force: false }) });
        let place = |wanted: fn(&Effect) -> bool| effects.iter().position(wanted).expect("it is done");
        let (registry, publish, reply) = (place(|e| matches!(e, Effect::Registry { .. })), place(|e| matches!(e, Effect::Publish(_))), place(|e| matches!(e, Effect::Reply { .. })));
        assert!(registry < publish && publish < reply, "{effects:?}");
        assert_eq!(said(&effects), [(TaskState::Gone, "agent_gone".to_owned())]);
        assert!(cluster.master.lead().expect("it leads").tasks().is_empty());
        let again = cluster.step(Event::Operation { caller: 3, operation: Box::new(Operation::MarkGone { agent: agent(1), force: false }) });
        assert_eq!(again.len(), 1, "{again:?}");
        assert_eq!(cluster.happened.iter().filter(|kind| *kind == "agent_gone").count(), 1);
        // What its agent still says of the task changes nothing.
        cluster.end(&task, TaskState::Finished);
        assert_eq!(state(&cluster, 1), Some(AgentState::Gone));
    }

    /// Shows that an agent which is there is told at once that it is gone, and that no offer of it is left.
    #[test]
    fn by_force() {
        let (mut cluster, task) = with_a_task(None, None);
        cluster.demand(1, "cpus=1", 1);
        cluster.allocate();
        assert_eq!(cluster.offers[&framework(1)].len(), 1);
        let effects = cluster.step(Event::Operation { caller: 3, operation: Box::new(Operation::MarkGone { agent: agent(1), force: true }) });
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Command { command, .. } if command.order == Order::Hello)));
        assert!(cluster.offers[&framework(1)].is_empty());
        assert_eq!(said(&effects), [(TaskState::Gone, "agent_gone".to_owned())]);
        assert!(!cluster.master.lead().expect("it leads").tasks().contains_key(&task));
    }

    /// Shows that a gone agent is refused for good, also by a later leader, in a word that its protocol knows; and that a
    /// framework which asks that leader for a task of it is told the same as before.
    #[test]
    fn for_good() {
        let (mut cluster, task) = with_a_task(None, None);
        let held = cluster.held(&task);
        assert_eq!(gone(&mut cluster, 1, true), Ok(()));
        let mut next = Cluster::new();
        next.master = Master::new(Config::new(MasterId::parse("m2").expect("an id"), "host".to_owned(), "1".to_owned()));
        next.step(Event::Lead { epoch: EPOCH + 1, seed: [3, 4], registry: cluster.registry.clone() });
        for (v, code) in [(1, RefusalCode::BadRequest), (2, RefusalCode::AgentGone)] {
            let hello = Hello { v, max_epoch: EPOCH, ..Cluster::hello(1, "cpus=4,mem=1G", vec![held.clone()]) };
            let effects = next.step(Event::Hello { caller: 1, hello: Box::new(hello) });
            let refused = effects.iter().find_map(|effect| match effect {
                Effect::Reply { reply: Reply::Welcome(Welcome::Refused(refusal)), .. } => Some(refusal.code),
                _ => None,
            });
            assert_eq!(refused, Some(code));
        }
        assert!(next.master.lead().expect("it leads").tasks().is_empty());
        let answer = next.subscribe_as(1, "default", None);
        assert!(matches!(answer, Some(Answer::Subscribed { .. })), "{answer:?}");
        let session = crate::master::testcluster::nonce(1);
        let claim = Claim { task, agent: agent(1), epoch: EPOCH, seq: 1 };
        let call = Call::Reconcile { framework: framework(1), session, tasks: vec![claim], member: None, asked: Vec::new() };
        let effects = next.step(Event::Call { caller: 2, principal: principal(), call: Box::new(call) });
        assert_eq!(said(&effects), [(TaskState::Gone, "agent_gone".to_owned())]);
    }

    /// Shows that what a gone agent runs without its leader's knowing ends as gone when it comes back, and that this is said
    /// once; what the leader has ended already is not.
    #[test]
    fn gone_with_what_nobody_knew() {
        let (mut before, task) = with_a_task(None, None);
        let held = before.held(&task);
        before.silence(1);
        before.wait(80_000);
        let mut cluster = Cluster::next(&before.registry);
        assert_eq!(gone(&mut cluster, 1, true), Ok(()));
        let comes_back = |cluster: &mut Cluster| {
            let hello = Hello { max_epoch: EPOCH, ..Cluster::hello(1, "cpus=4,mem=1G", vec![held.clone()]) };
            said(&cluster.step(Event::Hello { caller: 1, hello: Box::new(hello) }))
        };
        assert_eq!(comes_back(&mut cluster), [(TaskState::Gone, "agent_gone".to_owned())]);
        assert_eq!(comes_back(&mut cluster), []);
        assert_eq!(gone(&mut before, 1, false), Ok(()));
        assert_eq!(comes_back(&mut before), []);
    }

    /// Shows that of too many agents that are away those are forgotten that have been away for longest.
    #[test]
    fn away_by_count() {
        const BEYOND: u64 = 3;
        let away = AWAY_AGENTS_MAX as u64 + BEYOND;
        // The higher the number, the longer away.
        let heard_ms = |number: u64| away - number;
        let docs: std::collections::BTreeMap<AgentId, AgentDoc> =
            (0..away).map(|number| (agent(number), AgentDoc { unreachable: true, heard_ms: heard_ms(number), ..AgentDoc::new("h".to_owned(), 1) })).collect();
        let doc = serde_json::to_string(&docs).expect("a map of plain texts and numbers is JSON");
        let mut cluster = Cluster::next(&[("agents.00".to_owned(), doc)].into());
        assert_eq!(cluster.master.lead().expect("it leads").agents().len() as u64, away);
        cluster.wait(FORGET_EVERY_MS);
        assert_eq!(cluster.master.lead().expect("it leads").agents().len(), AWAY_AGENTS_MAX);
        assert_eq!([0, away - BEYOND - 1].map(|number| state(&cluster, number)), [Some(AgentState::Unreachable); 2]);
        assert_eq!([away - BEYOND, away - 1].map(|number| state(&cluster, number)), [None; 2]);
    }

    /// Shows that agents which are unreachable are forgotten after their time; those with tasks, those that are gone and
    /// those that are there never.
    #[test]
    fn forgotten() {
        let (mut cluster, _) = with_a_task(None, None);
        (2..=4).for_each(|number| cluster.join(number, "cpus=1"));
        (1..=3).for_each(|number| cluster.silence(number));
        cluster.wait(80_000);
        assert_eq!(gone(&mut cluster, 3, false), Ok(()));
        cluster.wait(FORGET_EVERY_MS);
        assert_eq!([1, 2, 3, 4].map(|number| state(&cluster, number).is_some()), [true; 4]);
        cluster.leap(AWAY_AGE_MS_MAX);
        cluster.wait(FORGET_EVERY_MS);
        assert_eq!([1, 2, 3, 4].map(|number| state(&cluster, number).is_some()), [true, false, true, true]);
        let registered: String = cluster.registry.values().cloned().collect();
        assert!(!registered.contains("\"a2\"") && registered.contains("\"a3\"") && registered.contains("\"a1\"") && registered.contains("\"a4\""), "{registered}");
    }
}
