//! Frameworks that want something and to which nothing comes: an agent is kept for them, and others make room.
//!
//! How the agent and those who have to go are chosen is said at [`crate::allocate::plan`]. Here is when, and how they are
//! told: who is to lose tasks hears of it first, with a deadline by which it may end them itself; then the tasks get
//! their grace as with any kill. What is revocable goes at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::allocate::{About, AgentView, Place, Plan, Snapshot, Tenant, TenantKind, plan};
use crate::id::{AgentId, FrameworkId, TaskId};
use crate::master::{AgentState, Lead, Timer};
use crate::wire::call::Push;

/// After how long without anything an agent is kept for a framework where nothing is revoked, milliseconds.
pub const KEEP_AFTER_MS: u64 = 30_000;
/// How long an agent is kept while what is missing there does not shrink, milliseconds; and the first pause after that.
pub const KEEP_FOR_MS: u64 = 300_000;
/// The longest pause, milliseconds: pauses double.
pub const KEEP_PAUSE_MS_MAX: u64 = 3_600_000;
/// At most one of so many agents is kept at a time, and one of fewer.
pub const KEPT_PART: usize = 8;

/// How long a framework has been waiting, and what is done about it.
#[derive(Clone, Debug, Default)]
pub(super) struct Hunger {
    /// Since when it wants something and got nothing.
    pub(super) since_ms: Option<u64>,
    /// A timer looks after it.
    armed: bool,
    keep: Option<Keep>,
    /// Until when no agent is kept for it, as it was in vain; and how long the next pause is.
    pause: Option<(u64, u64)>,
    /// It turned down what others had to make room for: nobody makes room for it again until it launches something.
    squandered: bool,
}

/// An agent that is kept for a framework.
#[derive(Clone, Debug)]
struct Keep {
    agent: AgentId,
    missing_ppm: u64,
    until_ms: u64,
    /// Others had to go for it.
    at_a_price: bool,
}

impl Lead {
    /// Looks at those with a new wish, after a pass: the clock of who got nothing begins to run.
    pub(super) fn note_hunger(&mut self, frameworks: &BTreeSet<FrameworkId>) {
        for framework in frameworks {
            let now_ms = self.now_ms;
            let Some(entry) = self.frameworks.get_mut(framework).filter(|entry| entry.is_hungry()) else { continue };
            let is_new = entry.hunger.since_ms.is_none();
            entry.hunger.since_ms.get_or_insert(now_ms);
            self.arm_hunger(framework);
            if is_new && self.revocable_tasks > 0 {
                // What may be ended at once need not be waited for.
                self.feed(framework, false);
            }
        }
    }

    /// It was made an offer: whoever wants more begins to wait anew.
    pub(super) fn was_served(&mut self, framework: &FrameworkId, agent: &AgentId) {
        let now_ms = self.now_ms;
        let Some(entry) = self.frameworks.get_mut(framework) else { return };
        entry.served = entry.served.saturating_add(1);
        entry.hunger.pause = None;
        entry.hunger.since_ms = entry.hunger.since_ms.map(|_| now_ms);
        if entry.hunger.keep.as_ref().is_some_and(|keep| keep.agent == *agent) {
            self.kept.remove(agent);
        }
    }

    /// It declined an offer, or let it expire.
    pub(super) fn was_turned_down(&mut self, framework: &FrameworkId, agent: &AgentId) {
        let Some(entry) = self.frameworks.get_mut(framework) else { return };
        if let Some(keep) = entry.hunger.keep.take_if(|keep| keep.agent == *agent) {
            entry.hunger.squandered |= keep.at_a_price;
            self.kept.remove(agent);
        }
    }

    /// It launched something.
    pub(super) fn was_used(&mut self, framework: &FrameworkId, agent: &AgentId) {
        let Some(entry) = self.frameworks.get_mut(framework) else { return };
        entry.hunger.squandered = false;
        entry.hunger.keep.take_if(|keep| keep.agent == *agent);
    }

    /// It wants nothing more, or something else: what was kept for it is everybody's.
    pub(super) fn forget_hunger(&mut self, framework: &FrameworkId) {
        let Some(entry) = self.frameworks.get_mut(framework) else { return };
        entry.hunger.since_ms = None;
        entry.hunger.pause = None;
        if let Some(keep) = entry.hunger.keep.take() {
            self.let_go(&keep.agent);
        }
    }

    /// How long a framework has waited, milliseconds; 0 if it does not.
    pub(super) fn waits_ms(&self, framework: &FrameworkId) -> u64 {
        let entry = self.frameworks.get(framework).filter(|entry| entry.is_hungry());
        entry.and_then(|entry| entry.hunger.since_ms).map_or(0, |since_ms| self.now_ms.saturating_sub(since_ms))
    }

    fn let_go(&mut self, agent: &AgentId) {
        if self.kept.remove(agent).is_some() {
            self.fresh_agents.insert(agent.clone());
        }
    }

    fn arm_hunger(&mut self, framework: &FrameworkId) {
        let after_ms = self.config.revoke_after_ms.unwrap_or(KEEP_AFTER_MS);
        let Some(entry) = self.frameworks.get_mut(framework) else { return };
        if !entry.hunger.armed {
            entry.hunger.armed = true;
            self.timer(after_ms, Timer::Hunger(framework.clone()));
        }
    }

    /// Looks whether a framework has waited for long enough.
    pub(super) fn hunger_due(&mut self, framework: &FrameworkId) {
        let after_ms = self.config.revoke_after_ms.unwrap_or(KEEP_AFTER_MS);
        let now_ms = self.now_ms;
        let Some(entry) = self.frameworks.get_mut(framework) else { return };
        entry.hunger.armed = false;
        let Some(since_ms) = entry.hunger.since_ms.filter(|_| entry.is_hungry()) else { return self.forget_hunger(framework) };
        let left_ms = (since_ms + after_ms).saturating_sub(now_ms);
        if left_ms > 0 {
            entry.hunger.armed = true;
            return self.timer(left_ms, Timer::Hunger(framework.clone()));
        }
        self.feed(framework, true);
        self.arm_hunger(framework);
    }

    /// Keeps an agent for a framework, and makes room on it. With `patient` it has waited for long: then what is not
    /// revocable may have to go, and where nothing can go, what ends by itself is saved up.
    fn feed(&mut self, framework: &FrameworkId, patient: bool) {
        let Some(plan) = self.planned(framework, patient) else { return };
        let makes_room = !plan.offers.is_empty() || !plan.tasks.is_empty() || !plan.revocable.is_empty();
        if !makes_room && !patient {
            return;
        }
        if !self.keep(framework, &plan, makes_room) {
            return;
        }
        for offer in &plan.offers {
            self.rescind(offer, "revoked");
        }
        for task in &plan.revocable {
            self.want_killed(task, None, "revoked");
        }
        self.revoke(framework, &plan);
    }

    fn planned(&self, framework: &FrameworkId, patient: bool) -> Option<Plan> {
        let entry = self.frameworks.get(framework)?;
        let wish = entry.demand.as_ref()?;
        // Whoever says nothing of what a task needs cannot be helped by force; nor can one that may be put out itself.
        let may_claim = !wish.revocable && !wish.request.is_empty() && !entry.hunger.squandered;
        if !may_claim {
            return None;
        }
        self.with_all(|snapshot| {
            let place = snapshot.frameworks.iter().position(|view| view.framework == framework)?;
            plan(snapshot, place, &self.tenancies(snapshot), patient && self.config.revoke_after_ms.is_some())
        })
    }

    /// Every agent that can be used, with all who hold a part of it.
    fn tenancies<'a>(&'a self, snapshot: &Snapshot<'_>) -> Vec<(AgentView<'a>, Vec<Tenant<'a>>)> {
        let index: BTreeMap<&FrameworkId, usize> = snapshot.frameworks.iter().enumerate().map(|(place, view)| (view.framework, place)).collect();
        let mut places = Vec::new();
        for (agent, account) in self.ledger.agents() {
            let Some(entry) = self.agents.get(agent).filter(|entry| entry.state == AgentState::Active && entry.epoch == self.epoch) else { continue };
            let mut tenants = Vec::new();
            for (offer, holding) in &account.offers {
                let (Some(&framework), Some(out)) = (index.get(&holding.framework), self.offers.get(offer)) else { continue };
                tenants.push(Tenant { kind: TenantKind::Offer(offer), framework, resources: &holding.resources, age: out.since_ms, revocable: out.revocable, ending: false });
            }
            for (task, holding) in &account.tasks {
                let (Some(&framework), Some(known)) = (index.get(&holding.framework), self.tasks.get(task)) else { continue };
                let ending = known.killing.is_some() || known.revoking_ms.is_some();
                let age = known.update.started_ms.max(known.ordered_ms);
                tenants.push(Tenant { kind: TenantKind::Task(task), framework, resources: &holding.resources, age, revocable: known.launch.revocable, ending });
            }
            let place = Place { agent, total: &account.total, free: &account.free, kept_for: self.kept.get(agent) };
            places.push((AgentView { place, about: About { host: &entry.host, attrs: &entry.attrs } }, tenants));
        }
        places
    }

    /// Keeps the plan's agent for the framework; false if it may not be.
    fn keep(&mut self, framework: &FrameworkId, plan: &Plan, at_a_price: bool) -> bool {
        let now_ms = self.now_ms;
        let kept_max = (self.agents.len() / KEPT_PART).max(1);
        let others = self.kept.values().filter(|other| *other != framework).count();
        let Some(entry) = self.frameworks.get_mut(framework) else { return false };
        let old = entry.hunger.keep.take();
        let is_paused = entry.hunger.pause.is_some_and(|(until_ms, _)| until_ms > now_ms);
        let has_progress = old.as_ref().is_none_or(|old| plan.missing_ppm < old.missing_ppm);
        let until_ms = old.as_ref().filter(|_| !has_progress).map_or(now_ms + KEEP_FOR_MS, |old| old.until_ms);
        let is_vain = until_ms <= now_ms;
        if is_vain {
            // Whoever holds the rest does not end: the agent is others' again for a while.
            let pause_ms = entry.hunger.pause.map_or(KEEP_FOR_MS, |(_, pause_ms)| (pause_ms * 2).min(KEEP_PAUSE_MS_MAX));
            entry.hunger.pause = Some((now_ms + pause_ms, pause_ms));
        }
        let may_keep = at_a_price || (!is_paused && !is_vain && others < kept_max);
        if may_keep {
            let at_a_price = at_a_price || old.as_ref().is_some_and(|old| old.at_a_price && old.agent == plan.agent);
            entry.hunger.keep = Some(Keep { agent: plan.agent.clone(), missing_ppm: plan.missing_ppm, until_ms, at_a_price });
        }
        if let Some(old) = old.filter(|old| !may_keep || old.agent != plan.agent) {
            self.let_go(&old.agent);
        }
        if may_keep {
            self.kept.insert(plan.agent.clone(), framework.clone());
            self.fresh_agents.insert(plan.agent.clone());
        }
        may_keep
    }

    /// Tells the owners of the plan's tasks that these have to go.
    fn revoke(&mut self, starving: &FrameworkId, plan: &Plan) {
        let lasts_ms = self.config.revoke_notice_ms;
        let mut owners: BTreeMap<FrameworkId, Vec<TaskId>> = BTreeMap::new();
        for task in &plan.tasks {
            let Some(entry) = self.tasks.get_mut(task) else { continue };
            entry.revoking_ms = Some(self.now_ms + lasts_ms);
            owners.entry(entry.launch.framework.clone()).or_default().push(task.clone());
            self.timer(lasts_ms, Timer::Revoke(task.clone()));
        }
        let host = self.agents[&plan.agent].host.clone();
        for (framework, tasks) in owners {
            let list = tasks.iter().map(TaskId::to_string).collect::<Vec<_>>().join(", ");
            let message = format!("framework {framework} has to give up {list} on {host} for framework {starving}, which holds less than its share");
            self.tell("revoked", framework.to_string(), message);
            let deadline_ms = self.wall.later(lasts_ms);
            self.push(&framework, Push::Inverse { agent: plan.agent.clone(), host: host.clone(), tasks, deadline_ms, lasts_ms, reason: "revoked".to_owned() });
        }
    }

    /// The notice is over. Much may have ended meanwhile: the task goes only if it would have to go now.
    pub(super) fn revoke_due(&mut self, task: &TaskId) {
        let now_ms = self.now_ms;
        let Some(entry) = self.tasks.get_mut(task).filter(|entry| entry.revoking_ms.is_some_and(|due_ms| due_ms <= now_ms)) else { return };
        entry.revoking_ms = None;
        let Some(starving) = self.kept.get(&entry.agent).cloned() else { return };
        if self.planned(&starving, true).is_some_and(|plan| plan.tasks.contains(task)) {
            self.want_killed(task, None, "revoked");
        }
    }

    /// An agent is gone: nothing of it can be kept.
    pub(super) fn forget_kept(&mut self, agent: &AgentId) {
        if let Some(framework) = self.kept.remove(agent) {
            if let Some(entry) = self.frameworks.get_mut(&framework) {
                entry.hunger.keep = None;
            }
        }
    }
}

#[cfg(test)]
mod tests;
