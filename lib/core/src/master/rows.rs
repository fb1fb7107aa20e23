//! What the leader tells those who ask: its tables, page by page.

use crate::id::{AgentId, FrameworkId, OfferId, Principal, TaskId};
use crate::allocate::{Standings, standings};
use crate::master::roles::part;
use crate::master::{AgentState, Lead};
use crate::wire::query::{AgentRow, FrameworkRow, MasterRow, OfferRow, Query, ROWS_MAX, Rows, Table, TaskRow};

/// How long a standby counts as there without a word of it, milliseconds.
const STANDBY_MS: u64 = 10_000;

/// Cuts a page out of ordered rows that follow `from`; says where the next one begins.
fn page<K: ToString, T>(rows: impl Iterator<Item = (K, T)>, from: &str) -> (Vec<T>, String) {
    let mut page = Vec::new();
    let mut last = String::new();
    for (key, row) in rows {
        let key = key.to_string();
        if !from.is_empty() && key.as_str() <= from {
            continue;
        }
        if page.len() == ROWS_MAX {
            return (page, last);
        }
        page.push(row);
        last = key;
    }
    (page, String::new())
}

impl Lead {
    pub(super) fn rows(&self, principal: &Principal, query: &Query) -> Rows {
        match query.of {
            Table::Tasks => {
                let (page, next) = page(self.task_rows(principal, &query.prefix), &query.from);
                Rows::Tasks { page, next }
            }
            Table::Agents => {
                let (page, next) = page(self.agents.keys().map(|id| (id, self.agent_row(id))), &query.from);
                Rows::Agents { page, next }
            }
            Table::Roles => {
                let (page, next) = page(self.role_rows().into_iter(), &query.from);
                Rows::Roles { page, next }
            }
            Table::Frameworks => {
                let standings = self.with_all(standings);
                let (page, next) = page(self.frameworks.keys().map(|id| (id, self.framework_row(id, &standings))), &query.from);
                Rows::Frameworks { page, next }
            }
            Table::Offers => {
                let (page, next) = page(self.offers.keys().filter_map(|id| Some((id, self.offer_row(id)?))), &query.from);
                Rows::Offers { page, next }
            }
            Table::Masters => Rows::Masters { page: self.master_rows() },
            Table::Explain => self.explain(query.ask.as_deref()),
            Table::Snapshot => {
                let (page, next) = self.snapshot_part(&query.from);
                Rows::Snapshot { page, next }
            }
        }
    }

    /// Live and lately ended tasks in the order of their ids. The token goes to the owner only.
    fn task_rows<'a>(&'a self, principal: &'a Principal, prefix: &'a str) -> impl Iterator<Item = (TaskId, TaskRow)> + 'a {
        let live = self.tasks.iter().map(|(id, entry)| (id, &entry.update, &entry.launch.token));
        let ended = self.ended_rows.iter().map(|(id, (update, token))| (id, update, token));
        let mut all: Vec<_> = live.chain(ended).filter(move |(id, update, _)| id.as_str().starts_with(prefix) || update.name.as_ref().is_some_and(|name| name.as_str().starts_with(prefix))).collect();
        all.sort_by_key(|(id, ..)| *id);
        all.into_iter().map(move |(id, update, token)| {
            let token = (update.principal == *principal).then(|| token.clone());
            (id.clone(), TaskRow { update: update.clone(), token })
        })
    }

    fn agent_row(&self, id: &AgentId) -> AgentRow {
        let entry = &self.agents[id];
        let account = self.ledger.account(id).cloned().unwrap_or_default();
        let lent = self.lent.account(id).cloned().unwrap_or_default();
        let state = match entry.state {
            AgentState::Recovering => "recovering",
            AgentState::Active => "active",
            AgentState::Unreachable => "unreachable",
            AgentState::Gone => "gone",
        };
        let silent_ms = match entry.heard_wall_ms {
            0 => self.now_ms.saturating_sub(entry.heard_ms),
            heard_ms => self.wall.0.saturating_sub(heard_ms),
        };
        AgentRow {
            meso: "agent/1".to_owned(),
            id: id.clone(),
            host: entry.host.clone(),
            state: state.to_owned(),
            tasks: u32::try_from(account.tasks.len() + lent.tasks.len()).unwrap_or(u32::MAX),
            total: account.total,
            free: account.free,
            offered: account.offered,
            used: account.used,
            lent: lent.total,
            lent_free: lent.free,
            attrs: entry.attrs.clone(),
            isolation: entry.isolation.clone(),
            version: entry.version.clone(),
            silent_ms,
        }
    }

    fn framework_row(&self, id: &FrameworkId, standings: &Standings) -> FrameworkRow {
        let entry = &self.frameworks[id];
        let standing = standings.by_framework.get(id).copied().unwrap_or_default();
        FrameworkRow {
            meso: "framework/1".to_owned(),
            id: id.clone(),
            name: entry.name.clone(),
            role: entry.role.clone(),
            principal: entry.principal.clone(),
            state: if entry.is_connected() { "connected" } else { "disconnected" }.to_owned(),
            who: entry.session.as_ref().map(|session| session.who.clone()).unwrap_or_default(),
            share: part(standing.share_ppm),
            used: self.ledger.used_by(id),
            offered: self.ledger.offered_to(id),
            tasks: u32::try_from(entry.tasks.len()).unwrap_or(u32::MAX),
            wants: entry.wants(),
            age_ms: self.now_ms.saturating_sub(entry.since_ms),
            fair_share: part(standing.fair_ppm),
            policy: self.policy_of(id, entry),
            waits_ms: self.waits_ms(id),
        }
    }

    fn offer_row(&self, id: &OfferId) -> Option<OfferRow> {
        let (entry, agent, holding) = self.find_offer(id)?;
        let holder = self.frameworks.get(&holding.framework);
        Some(OfferRow {
            meso: "offer/1".to_owned(),
            id: id.as_str().chars().take(10).collect(),
            framework: holding.framework.clone(),
            agent: agent.clone(),
            host: self.agents.get(agent).map(|agent| agent.host.clone()).unwrap_or_default(),
            resources: holding.resources.clone(),
            age_ms: self.now_ms.saturating_sub(entry.since_ms),
            framework_name: holder.and_then(|holder| holder.name.clone()),
            who: holder.and_then(|holder| holder.session.as_ref()).map(|session| session.who.clone()).unwrap_or_default(),
            revocable: entry.revocable,
        })
    }

    fn master_rows(&self) -> Vec<MasterRow> {
        let row = |id, host: &str, state: &str, age_ms, version: &str| MasterRow {
            meso: "master/1".to_owned(),
            id,
            host: host.to_owned(),
            state: state.to_owned(),
            epoch: self.epoch,
            age_ms,
            version: version.to_owned(),
        };
        let mut rows = vec![row(self.config.master.clone(), &self.config.host, "leading", self.now_ms.saturating_sub(self.since_ms), &self.config.version)];
        for (id, (heard_ms, host, version)) in &self.standbys {
            if heard_ms + STANDBY_MS > self.now_ms && *id != self.config.master {
                rows.push(row(id.clone(), host, "standby", self.now_ms.saturating_sub(*heard_ms), version));
            }
        }
        rows
    }
}
