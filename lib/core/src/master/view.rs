//! The cluster as the allocation policy sees it.

use std::collections::{BTreeMap, BTreeSet};

use crate::allocate::{About, Agents, Demand, FrameworkView, Place, RoleView, Snapshot};
use crate::id::{AgentId, FrameworkId};
use crate::ledger::Ledger;
use crate::master::offers::Pool;
use crate::master::{AgentEntry, Framework, Lead};
use crate::policy::{Limit, Policy, Subject};
use crate::resources::{Milli, Quantities};

/// The agents of one pool that have something free.
struct Ready<'a> {
    agents: &'a BTreeMap<AgentId, AgentEntry>,
    ledger: &'a Ledger,
    kept: &'a BTreeMap<AgentId, FrameworkId>,
}

impl Agents for Ready<'_> {
    fn count(&self) -> usize {
        self.ledger.ready_count()
    }

    fn place(&self, at: usize) -> Place<'_> {
        let (agent, account) = self.ledger.ready_at(at);
        let kept_for = if self.kept.is_empty() { None } else { self.kept.get(agent) };
        Place { agent, total: &account.total, free: &account.free, kept_for }
    }

    fn about(&self, at: usize) -> About<'_> {
        let (agent, _) = self.ledger.ready_at(at);
        let entry = &self.agents[agent];
        About { host: &entry.host, attrs: &entry.attrs }
    }

    fn first_with(&self, at: usize, needs: &[Milli; 4]) -> usize {
        self.ledger.ready_with(at, needs)
    }
}

impl Lead {
    /// Shows what changed in a pool; none if nobody wants anything of it, or nothing of that is free.
    pub(super) fn with_change<T>(&self, pool: Pool, fresh: &BTreeSet<AgentId>, frameworks: &BTreeSet<FrameworkId>, seed: u64, see: impl FnOnce(&Snapshot<'_>) -> T) -> Option<T> {
        let mut views = self.views(pool);
        let (mut wants, mut new_wish) = (false, false);
        for view in views.iter_mut().filter(|view| !view.suppressed) {
            wants = true;
            view.is_new = frameworks.contains(view.framework);
            new_wish |= view.is_new;
        }
        let books = self.books(pool);
        // What somebody may have by limits and guarantees changes with what others hold, on agents that did not change.
        let has_quota = pool == Pool::Firm && self.policies.iter().any(|(_, policy)| !policy.limit.is_empty() || !policy.guarantee.is_empty());
        let changed: Option<Vec<usize>> = (!has_quota).then(|| fresh.iter().filter_map(|agent| books.ready_place(agent)).collect());
        let is_shown = match &changed {
            Some(changed) if !new_wish => !changed.is_empty(),
            _ => books.ready_count() > 0,
        };
        (wants && is_shown).then(|| self.with_views(pool, views, changed, seed, see))
    }

    /// Shows the whole cluster, whether anybody wants anything or not.
    pub(super) fn with_all<T>(&self, see: impl FnOnce(&Snapshot<'_>) -> T) -> T {
        self.with_views(Pool::Firm, self.views(Pool::Firm), None, 0, see)
    }

    fn with_views<T>(&self, pool: Pool, frameworks: Vec<FrameworkView<'_>>, changed: Option<Vec<usize>>, seed: u64, see: impl FnOnce(&Snapshot<'_>) -> T) -> T {
        let books = self.books(pool);
        let agents = Ready { agents: &self.agents, ledger: books, kept: &self.kept };
        let (total, free) = (books.cluster_total().clone(), books.cluster_free().clone());
        // What is lent is neither guaranteed nor limited to anybody.
        let roles = if pool == Pool::Firm { self.role_views().collect() } else { Vec::new() };
        see(&Snapshot { rule: &self.config.rule, total, free, agents: &agents, changed, roles, frameworks, revocable: pool == Pool::Lent, seed })
    }

    /// The roles that somebody gave a policy.
    pub(super) fn role_views(&self) -> impl Iterator<Item = RoleView<'_>> {
        self.policies.iter().filter_map(|(subject, policy)| match subject {
            Subject::Role(role) => {
                let Quota { guarantee, limit } = Quota::of(policy);
                Some(RoleView { role, weight: policy.weight, priority: policy.priority, guarantee, limit })
            }
            Subject::Framework(..) => None,
        })
    }

    /// All frameworks that want or hold something, or are guaranteed something, in order of their ids.
    pub(super) fn views(&self, pool: Pool) -> Vec<FrameworkView<'_>> {
        let mut views: Vec<FrameworkView<'_>> = Vec::new();
        // What is guaranteed is held by the shape of tasks, also of those who want none now.
        let by_shape = pool == Pool::Firm && self.policies.iter().any(|(_, policy)| !policy.guarantee.is_empty());
        for (id, entry) in &self.frameworks {
            let view = self.view(pool, id, entry);
            let has_shape = by_shape && view.demand.is_some();
            if !view.suppressed || !view.used.is_empty() || view.guarantee.is_some() || has_shape {
                views.push(view);
            }
        }
        if pool == Pool::Firm {
            views.extend(self.absent_views());
            views.sort_by_key(|view| view.framework);
        }
        views
    }

    /// Frameworks that are guaranteed something and are not there; their names stand for their ids.
    pub(super) fn absent_views(&self) -> impl Iterator<Item = FrameworkView<'_>> {
        let is_there = |subject: &Subject| {
            let Subject::Framework(role, name) = subject else { return true };
            self.frameworks.iter().any(|(id, entry)| entry.role == *role && (entry.name.as_ref() == Some(name) || id.as_str() == name.as_str()))
        };
        self.absent.iter().filter(move |(subject, id)| !is_there(subject) && !self.frameworks.contains_key(*id)).filter_map(|(subject, id)| {
            let policy = self.policies.get(subject)?;
            let Quota { guarantee, limit } = Quota::of(policy);
            Some(FrameworkView {
                framework: id,
                role: subject.role(),
                weight: policy.weight,
                priority: policy.priority,
                guarantee,
                limit,
                served: 0,
                used: Default::default(),
                demand: None,
                condition: None,
                on: None,
                refused: None,
                open: 0,
                suppressed: true,
                is_new: false,
            })
        })
    }

    pub(super) fn view<'a>(&'a self, pool: Pool, id: &'a FrameworkId, entry: &'a Framework) -> FrameworkView<'a> {
        let wish = entry.demand.as_ref().filter(|wish| pool == Pool::Firm || wish.revocable);
        let hungry = wish.filter(|_| entry.is_hungry());
        let demand = wish.filter(|wish| !wish.request.is_empty()).map(|wish| {
            let offered: u32 = entry.offers.iter().filter_map(|offer| self.offers.get(offer)).map(|offer| offer.tasks).fold(0, u32::saturating_add);
            Demand { request: &wish.request, count: hungry.map_or(0, |wish| wish.count.saturating_sub(offered)) }
        });
        // Whoever says nothing of a task's needs is offered whole agents.
        let wants = hungry.is_some_and(|wish| wish.request.is_empty()) || demand.is_some_and(|demand| demand.count > 0);
        let policy = self.policies.of_framework(&entry.role, entry.name.as_ref(), id).filter(|_| pool == Pool::Firm);
        let Quota { guarantee, limit } = policy.map(Quota::of).unwrap_or_default();
        FrameworkView {
            framework: id,
            role: &entry.role,
            weight: policy.map_or(Milli::units(1), |policy| policy.weight),
            priority: policy.map_or(0, |policy| policy.priority),
            guarantee,
            limit,
            served: entry.served,
            used: self.books(pool).held_by(id),
            demand,
            condition: entry.condition.as_ref(),
            on: wish.and_then(|wish| wish.on.as_deref()),
            refused: self.refusals.of(id),
            open: u32::try_from(entry.open_max().saturating_sub(entry.offers.len())).unwrap_or(u32::MAX),
            suppressed: !wants,
            is_new: false,
        }
    }
}

/// What a policy guarantees and limits.
#[derive(Default)]
struct Quota<'a> {
    guarantee: Option<&'a Quantities>,
    limit: Option<&'a Limit>,
}

impl Quota<'_> {
    fn of(policy: &Policy) -> Quota<'_> {
        Quota { guarantee: Some(&policy.guarantee).filter(|amounts| !amounts.is_empty()), limit: Some(&policy.limit).filter(|amounts| !amounts.is_empty()) }
    }
}
