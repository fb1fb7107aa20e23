//! Accepts, statuses and kills: the life of a task as the leader sees it.

use std::collections::BTreeSet;

use crate::id::{AgentId, FrameworkId, OfferId, Principal, TaskId};
use crate::ledger::LedgerError;
use crate::master::frameworks::refused;
use crate::master::lending::pool_of;
use crate::master::offers::{Fate, Pool};
use crate::master::{AgentState, ANSWERED_MS, Effect, ENDED_MAX, Lead, ORDER_AGAIN_MS, TaskEntry, Timer};
use crate::resources::Resources;
use crate::task::TaskState;
use crate::wire::agent::{Command, Order};
use crate::wire::call::{Accept, Answer, Claim};
use crate::wire::{Launch, LaunchId, Refusal, RefusalCode, TASKS_PER_ACCEPT_MAX, Task, Update};

impl Lead {
    /// Launches tasks on offers: one atomic, idempotent unit, keyed by its first offer.
    pub(super) fn accept(&mut self, principal: &Principal, accept: Accept) -> Answer {
        let framework = accept.framework.clone();
        let session = accept.session.clone();
        let member = accept.member.clone();
        self.in_session(principal, &framework, &session, member.as_ref(), |lead| lead.accept_now(accept))
    }

    fn accept_now(&mut self, accept: Accept) -> Answer {
        let Some(first) = accept.offers.first().cloned() else {
            return refused(RefusalCode::BadRequest, "an accept names at least one offer".to_owned());
        };
        let ids: Vec<TaskId> = accept.tasks.iter().filter_map(|one| one.task.id.clone()).collect();
        if let Some((_, answered)) = self.answered.get(&first) {
            if *answered == ids {
                return Answer::Accepted { tasks: ids };
            }
            return Answer::Refused(self.offer_gone(&first));
        }
        if let Err(refusal) = self.check_tasks(&accept, &ids) {
            return Answer::Refused(refusal);
        }
        if accept.offers.iter().any(|offer| !self.offers.contains_key(offer)) {
            return self.stale_accept(&accept, ids);
        }
        let kinds: BTreeSet<(bool, bool)> = accept.offers.iter().filter_map(|offer| self.offers.get(offer)).map(|entry| (entry.pool == Pool::Lent, entry.revocable)).collect();
        let Some(&(lent, revocable)) = kinds.first().filter(|_| kinds.len() == 1) else {
            return refused(RefusalCode::BadRequest, "offers of revocable and of other resources cannot be joined".to_owned());
        };
        // Concrete resources, task by task, out of the sum of the offers.
        let mut left = Resources::default();
        for offer in &accept.offers {
            let held = self.find_offer(offer).map(|(_, _, holding)| holding.resources.clone()).unwrap_or_default();
            left = left.checked_add(&held).unwrap_or(left);
        }
        let mut taken = Vec::with_capacity(ids.len());
        for (one, id) in accept.tasks.iter().zip(&ids) {
            let request = one.task.request();
            let Some(resources) = request.take(&left) else {
                let shortfalls = request.shortfalls(&left).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return refused(RefusalCode::TooLarge, format!("the tasks do not fit the offer: {shortfalls}"));
            };
            left = left.checked_sub(&resources).unwrap_or_default();
            taken.push((id.clone(), resources));
        }
        let pool = if lent { Pool::Lent } else { Pool::Firm };
        let spent = match self.books_mut(pool).spend(&accept.offers, &accept.framework, &taken) {
            Ok(spent) => spent,
            Err(error) => return Answer::Refused(ledger_refusal(&error)),
        };
        self.forget_offers(&accept.framework, &accept.offers, Fate::Accepted);
        self.tell_used(&accept.framework, &accept.offers);
        let agent = spent.agent;
        if accept.refuse_ms > 0 && !spent.rest.is_empty() {
            self.refuse(&accept.framework, &agent, spent.rest, accept.refuse_ms);
        }
        self.fresh_agents.insert(agent.clone());
        if !ids.is_empty() {
            self.was_used(&accept.framework, &agent);
        }
        self.launch_all(&accept, &agent, &first, taken, (lent, revocable));
        if self.answered.is_empty() {
            self.timer(ANSWERED_MS / 2, Timer::Answered);
        }
        self.answered.insert(first, (self.now_ms, ids.clone()));
        Answer::Accepted { tasks: ids }
    }

    fn launch_all(&mut self, accept: &Accept, agent: &AgentId, first: &OfferId, taken: Vec<(TaskId, Resources)>, (lent, revocable): (bool, bool)) {
        let framework = &self.frameworks[&accept.framework];
        let (name, principal, role, on_unreachable) = (framework.name.clone(), framework.principal.clone(), framework.role.clone(), framework.on_unreachable);
        let mut launches = Vec::with_capacity(taken.len());
        for (index, (one, (id, resources))) in accept.tasks.iter().zip(taken).enumerate() {
            let entry = self.agents.get_mut(agent).expect("the ledger holds registered agents only");
            entry.launch_no += 1;
            let launch = Launch {
                launch: LaunchId { epoch: self.epoch, offer: first.clone(), index: index as u32 },
                no: entry.launch_no,
                cancelled: false,
                task: id.clone(),
                framework: accept.framework.clone(),
                framework_name: name.clone(),
                principal: principal.clone(),
                role: role.clone(),
                resources,
                token: one.token.clone(),
                revocable,
                lent,
                spec: Task { on_unreachable: one.task.on_unreachable.or(on_unreachable), ..one.task.clone() },
            };
            let update = Update::staging(&launch, agent, &entry.host, self.wall);
            launches.push(launch.clone());
            if let Some(framework) = self.frameworks.get_mut(&accept.framework) {
                framework.tasks.insert(id.clone());
                if let Some(demand) = &mut framework.demand {
                    demand.count = demand.count.saturating_sub(1);
                }
            }
            let member = accept.member.clone();
            let ordered_ms = self.wall.0;
            self.put_task(id.clone(), TaskEntry { launch, agent: agent.clone(), update, confirmed: false, killing: None, member, ordered_ms, revoking_ms: None });
            self.timer(ORDER_AGAIN_MS, Timer::Order(id));
        }
        self.command(agent, Order::Launch { launches });
    }

    fn check_tasks(&self, accept: &Accept, ids: &[TaskId]) -> Result<(), Refusal> {
        let bad = |message: String| Err(Refusal::new(RefusalCode::BadRequest, message));
        if ids.len() != accept.tasks.len() {
            return bad("each task of an accept has an id".to_owned());
        }
        if ids.len() > TASKS_PER_ACCEPT_MAX {
            return bad(format!("an accept launches at most {TASKS_PER_ACCEPT_MAX} tasks"));
        }
        if ids.iter().collect::<BTreeSet<_>>().len() != ids.len() {
            return bad("a task id is used twice in one accept".to_owned());
        }
        for one in &accept.tasks {
            if let Some(fault) = one.task.fault() {
                return bad(fault);
            }
        }
        let known = |id: &&TaskId| self.tasks.contains_key(*id) || self.ended_rows.contains_key(*id);
        match ids.iter().find(known).filter(|_| accept.offers.iter().all(|offer| self.offers.contains_key(offer))) {
            Some(id) => Err(Refusal::new(RefusalCode::TaskExists, format!("task {id} is known already"))),
            None => Ok(()),
        }
    }

    /// An accept of offers that this leader does not know. If they were an earlier leader's, what became of the launch
    /// is told only when it is certain: by the agent's own registration under this epoch.
    fn stale_accept(&mut self, accept: &Accept, ids: Vec<TaskId>) -> Answer {
        let gone = || {
            let offer = accept.offers.iter().find(|offer| !self.offers.contains_key(*offer)).expect("the caller saw one that is unknown");
            Answer::Refused(self.offer_gone(offer))
        };
        if ids.is_empty() {
            return gone();
        }
        let known = |id: &TaskId| self.tasks.get(id).map(|entry| &entry.launch.framework).or_else(|| self.ended_rows.get(id).map(|(update, _)| &update.framework)) == Some(&accept.framework);
        if ids.iter().all(known) {
            return Answer::Accepted { tasks: ids };
        }
        if accept.epoch == self.epoch {
            return gone();
        }
        match self.agents.get(&accept.agent) {
            Some(agent) if agent.state == AgentState::Active && agent.epoch == self.epoch => gone(),
            // What became of it there nobody will ever hear.
            Some(agent) if agent.state == AgentState::Gone => gone(),
            _ => refused(RefusalCode::Recovering, format!("agent {} has not registered with the new leader yet", accept.agent)),
        }
    }

    fn command(&mut self, agent: &AgentId, order: Order) {
        let Some(entry) = self.agents.get(agent).filter(|entry| entry.state == AgentState::Active && entry.epoch == self.epoch) else { return };
        if let (Some(incarnation), Some(secret)) = (entry.incarnation.clone(), entry.secret.clone()) {
            self.out.push(Effect::Command { agent: agent.clone(), secret, command: Command { epoch: self.epoch, incarnation, order } });
        }
    }

    /// Orders what is to happen to the task now: its launch while nothing was heard of it, its end if that was asked for.
    pub(super) fn order(&mut self, task: &TaskId) {
        let Some(entry) = self.tasks.get(task) else { return };
        let agent = entry.agent.clone();
        if !entry.confirmed {
            let launch = Launch { cancelled: entry.killing.is_some(), ..entry.launch.clone() };
            self.command(&agent, Order::Launch { launches: vec![launch] });
        }
        if let Some((grace_ms, reason)) = self.tasks[task].killing.clone() {
            self.command(&agent, Order::Kill { task: task.clone(), grace_ms, reason });
        }
        self.timer(ORDER_AGAIN_MS, Timer::Order(task.clone()));
    }

    pub(super) fn order_again(&mut self, task: &TaskId) {
        if self.tasks.get(task).is_some_and(|entry| !entry.confirmed || entry.killing.is_some()) {
            self.order(task);
        }
    }

    pub(super) fn on_status(&mut self, agent: &AgentId, update: Update) {
        // A status counts only on the subject of the agent that was given the task.
        if update.agent.as_ref() != Some(agent) || update.agent_seq == 0 || update.fault().is_some() {
            // A word of a master, also of this one, says nothing of what the agent knows.
            return;
        }
        self.saw_status(agent, update.agent_seq);
        let Some(entry) = self.tasks.get_mut(&update.task) else { return };
        if entry.agent != *agent || Some(&entry.launch.launch) != update.launch.as_ref() {
            return;
        }
        entry.confirmed = true;
        // A final state of a later release is an end all the same.
        let follows = entry.update.state.may_become(update.state) || entry.update.state == TaskState::Unreachable || (update.is_final && update.state == TaskState::Unknown);
        let news = update.seq > entry.update.seq && follows;
        if !news {
            return;
        }
        let task = update.task.clone();
        if update.is_final {
            self.finish(&task, update);
        } else {
            entry.update = update;
        }
    }

    /// Enters a task, or what is known of it now.
    pub(super) fn put_task(&mut self, task: TaskId, entry: TaskEntry) {
        self.revocable_tasks += usize::from(entry.launch.revocable);
        let agent = entry.agent.clone();
        if let Some(old) = self.tasks.insert(task.clone(), entry) {
            self.revocable_tasks -= usize::from(old.launch.revocable);
            self.forget_place(&task, &old.agent);
        }
        self.tasks_of.entry(agent).or_default().insert(task);
    }

    fn forget_place(&mut self, task: &TaskId, agent: &AgentId) {
        if let Some(tasks) = self.tasks_of.get_mut(agent) {
            tasks.remove(task);
            if tasks.is_empty() {
                self.tasks_of.remove(agent);
            }
        }
    }

    /// A task ended: what it held is free.
    pub(super) fn finish(&mut self, task: &TaskId, update: Update) {
        let Some(entry) = self.tasks.remove(task) else { return };
        self.forget_place(task, &entry.agent);
        self.revocable_tasks -= usize::from(entry.launch.revocable);
        self.books_mut(pool_of(&entry.launch)).release(task);
        if let Some(idle) = self.ledger.idle(&entry.agent) {
            self.refusals.grown(&entry.agent, &idle);
        }
        self.fresh_agents.insert(entry.agent.clone());
        let framework = entry.launch.framework.clone();
        self.remember(update, entry.launch.token);
        if let Some(owner) = self.frameworks.get_mut(&framework) {
            owner.tasks.remove(task);
        }
        self.forget_if_done(&framework);
    }

    /// Keeps the end of a task for those who ask soon; the stream keeps it longer.
    pub(super) fn remember(&mut self, update: Update, token: crate::id::Nonce) {
        let task = update.task.clone();
        if self.ended_rows.insert(task.clone(), (update, token)).is_none() {
            self.ended.push_back(task);
        }
        while self.ended.len() > ENDED_MAX {
            if let Some(oldest) = self.ended.pop_front() {
                self.ended_rows.remove(&oldest);
            }
        }
    }

    /// Ends a task by the master's own word, which is earned: see the callers.
    pub(super) fn end_by_master(&mut self, task: &TaskId, state: TaskState, reason: &str, message: String) {
        let Some(entry) = self.tasks.get(task) else { return };
        let update = self.word(&entry.update, state, reason, message);
        self.out.push(Effect::Publish(Box::new(update.clone())));
        self.finish(task, update);
    }

    /// Lays `unreachable` over what the agent said last; its own word stands again when it is back.
    pub(super) fn overlay_unreachable(&mut self, task: &TaskId) {
        let Some(entry) = self.tasks.get(task) else { return };
        let message = format!("agent {} is silent", entry.agent);
        let update = self.word(&entry.update, TaskState::Unreachable, "agent_unreachable", message);
        self.out.push(Effect::Publish(Box::new(update.clone())));
        if let Some(entry) = self.tasks.get_mut(task) {
            entry.update = update;
        }
    }

    /// A status of the master's own making: it has no number of the agent's.
    pub(super) fn word(&self, last: &Update, state: TaskState, reason: &str, message: String) -> Update {
        Update {
            state,
            is_final: state.is_final(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            agent_seq: 0,
            ts: self.wall.text(),
            ts_ms: self.wall.0,
            ..last.clone()
        }
    }

    pub(super) fn kill_call(&mut self, principal: &Principal, tasks: &[TaskId], grace_ms: Option<u64>) -> Answer {
        let verdicts = tasks
            .iter()
            .map(|task| match self.tasks.get(task) {
                Some(entry) if entry.launch.principal != *principal => Some(Refusal::new(RefusalCode::NotYours, format!("task {task} belongs to another principal"))),
                Some(_) => {
                    self.want_killed(task, grace_ms, "kill_requested");
                    None
                }
                None if self.ended_rows.contains_key(task) => Some(Refusal::new(RefusalCode::UnknownTask, format!("task {task} has ended"))),
                None if self.agents.values().any(|agent| agent.state == AgentState::Recovering && self.may_come(agent)) => {
                    Some(Refusal::new(RefusalCode::Recovering, format!("task {task} is not known yet: agents are still registering with a new leader")))
                }
                None => Some(Refusal::new(RefusalCode::UnknownTask, format!("no task {task}"))),
            })
            .collect();
        Answer::Killing { refused: verdicts }
    }

    /// Notes that a task is to end and orders it, until it has ended.
    pub(super) fn want_killed(&mut self, task: &TaskId, grace_ms: Option<u64>, reason: &str) {
        let Some(entry) = self.tasks.get_mut(task) else { return };
        if entry.killing.is_some() && grace_ms.is_none() {
            return;
        }
        entry.killing = Some((grace_ms, reason.to_owned()));
        self.order(task);
    }

    /// What is certain about a task that a framework claims; none while it is not.
    pub(super) fn verdict(&self, framework: &FrameworkId, claim: &Claim) -> Option<Update> {
        if let Some(entry) = self.tasks.get(&claim.task).filter(|entry| entry.launch.framework == *framework) {
            return Some(entry.update.clone());
        }
        if let Some((update, _)) = self.ended_rows.get(&claim.task).filter(|(update, _)| update.framework == *framework) {
            return Some(update.clone());
        }
        // "Dropped" is earned: only after the agent registered under this epoch and does not know it. An agent that
        // nobody knows is one whose registry was lost, and its tasks run on.
        let agent = self.agents.get(&claim.agent).filter(|agent| agent.state == AgentState::Gone || (agent.state == AgentState::Active && agent.epoch == self.epoch))?;
        let owner = self.frameworks.get(framework)?;
        let mut update = Update::blank(&claim.task, framework, &owner.principal, self.wall);
        update.role = owner.role.clone();
        update.agent = Some(claim.agent.clone());
        let (state, reason, message) = match agent.state {
            AgentState::Gone => (TaskState::Gone, "agent_gone", format!("agent {} on {} is gone, by an operator's word", claim.agent, agent.host)),
            _ => (TaskState::Dropped, "unknown_to_agent", format!("agent {} does not know it", claim.agent)),
        };
        update.state = state;
        update.is_final = true;
        update.seq = claim.seq.saturating_add(1);
        update.reason = Some(reason.to_owned());
        update.message = Some(message);
        Some(update)
    }
}

impl Lead {
    /// What to say of a task that nobody knows, to one who asks.
    pub(super) fn unknown(&self, framework: &FrameworkId, task: &TaskId) -> Update {
        let owner = self.frameworks.get(framework).map(|entry| (entry.principal.clone(), entry.role.clone()));
        let (principal, role) = owner.expect("it asks in a session of its own");
        let mut update = Update::blank(task, framework, &principal, self.wall);
        update.role = role;
        update.state = TaskState::Unknown;
        update.reason = Some("not_known".to_owned());
        update.message = Some("no agent that has registered knows it".to_owned());
        update
    }
}

fn ledger_refusal(error: &LedgerError) -> Refusal {
    let code = match error {
        LedgerError::UnknownOffer(_) | LedgerError::UnknownAgent(_) => RefusalCode::OfferGone,
        LedgerError::NotYours(_) => RefusalCode::NotYours,
        LedgerError::TaskExists(_) => RefusalCode::TaskExists,
        LedgerError::TooLarge { .. } | LedgerError::TooMuch(_) | LedgerError::Overcommitted { .. } => RefusalCode::TooLarge,
        _ => RefusalCode::BadRequest,
    };
    Refusal::new(code, error.to_string())
}
