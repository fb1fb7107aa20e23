//! How many agents fail for which reason, and how nearly

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::id::FrameworkId;
use crate::resources::{Milli, Shortfall};
use crate::wire::explain::{AgentReason, Count, Holder, Miss, NAMED_MAX, Reason};

/// The counts as they grow; each clause is a reason of its own.
#[derive(Default)]
pub(super) struct Tally(BTreeMap<(Reason, String), Sum>);

#[derive(Default)]
struct Sum {
    agents: u32,
    lacks: BTreeMap<String, Miss>,
    holders: BTreeMap<(FrameworkId, bool), Holder>,
    refused_ms: Option<u64>,
}

impl Tally {
    /// Counts an agent in.
    pub(super) fn add(&mut self, line: &AgentReason) {
        let sum = self.0.entry((line.reason, line.clause.clone())).or_default();
        sum.agents += 1;
        for lack in &line.lacks {
            sum.miss(line, lack);
        }
        for holder in &line.holders {
            sum.held_by(holder);
        }
        if line.reason == Reason::Refused {
            sum.refused_ms = Some(sum.refused_ms.map_or(line.refused_ms, |first_ms| first_ms.min(line.refused_ms)));
        }
    }

    /// Whether it fits somewhere.
    pub(super) fn has_room(&self) -> bool {
        self.0.contains_key(&(Reason::Fits, String::new()))
    }

    /// The counts, the largest first; where it fits comes last.
    pub(super) fn counts(self) -> Vec<Count> {
        let mut counts: Vec<Count> = self.0.into_iter().map(|((reason, clause), sum)| sum.count(reason, clause)).collect();
        counts.sort_by_key(|count| (count.reason == Reason::Fits, Reverse(count.agents)));
        counts
    }
}

impl Sum {
    fn miss(&mut self, line: &AgentReason, lack: &Shortfall) {
        let new = || Miss { name: lack.name.clone(), agents: 0, need: lack.need, most: Milli::ZERO, agent: line.agent.clone(), host: line.host.clone() };
        let miss = self.lacks.entry(lack.name.clone()).or_insert_with(new);
        miss.agents += 1;
        if lack.have > miss.most {
            (miss.most, miss.agent, miss.host) = (lack.have, line.agent.clone(), line.host.clone());
        }
    }

    fn held_by(&mut self, holder: &Holder) {
        let Some(known) = self.holders.get_mut(&(holder.framework.clone(), holder.offered)) else {
            self.holders.insert((holder.framework.clone(), holder.offered), holder.clone());
            return;
        };
        known.count = known.count.saturating_add(holder.count);
        known.age_ms = known.age_ms.max(holder.age_ms);
        for (name, amount) in holder.held.iter() {
            known.held.set(name, known.held.get(name).checked_add(amount).unwrap_or(Milli::MAX));
        }
    }

    fn count(self, reason: Reason, clause: String) -> Count {
        let mut lacks: Vec<Miss> = self.lacks.into_values().collect();
        lacks.sort_by_key(|miss| Reverse(miss.agents));
        let mut holders: Vec<Holder> = self.holders.into_values().collect();
        most_first(&mut holders, lacks.first().map_or("", |miss| miss.name.as_str()));
        holders.truncate(NAMED_MAX);
        Count { reason, agents: self.agents, clause, lacks, holders, refused_ms: self.refused_ms.unwrap_or_default() }
    }
}

/// Orders holders by how much they hold of a kind.
pub(super) fn most_first(holders: &mut [Holder], name: &str) {
    holders.sort_by_key(|holder| Reverse(holder.held.get(name)));
}
