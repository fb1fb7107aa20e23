//! Why somebody waits: what stands in the way of a wish, for the whole of it and on each agent
//!
//! Nothing is decided here. The same questions that the allocator asks are asked again of the books, one after the
//! other, and the first that fails is the reason.

mod quota;
mod tally;
pub mod words;

use std::collections::BTreeMap;

use crate::allocate::{CPUS_MIN, HeldFor, MEM_MIN};
use crate::condition::{Attr, Condition, Facts};
use crate::filter::Refused;
use crate::id::{AgentId, FrameworkId, Name, OfferId, TaskId};
use crate::ledger::Account;
use crate::policy::Policies;
use crate::resources::{Milli, Quantities, Request, Resources, Shortfall};
use crate::role::Role;
use crate::wire::call::Demand;
use crate::wire::explain::{AgentReason, Explanation, Holder, LINES_BYTES_MAX, LINES_MAX, NAMED_MAX, Obstacle, Reason};

use tally::Tally;

/// A wish, and the books as far as they concern it.
pub struct Case<'a> {
    /// The clock of the refusals, milliseconds.
    pub now_ms: u64,
    /// In which role.
    pub role: &'a Role,
    /// What is wanted; none if nothing is.
    pub demand: Option<&'a Demand>,
    /// The condition of the demand, read.
    pub condition: Option<&'a Condition>,
    /// Whose wish it is; none for one that is nobody's in particular.
    pub seeker: Option<Seeker<'a>>,
    /// All agents, in order of their ids.
    pub agents: Vec<Place<'a>>,
    /// What operators said of roles and frameworks.
    pub policies: &'a Policies,
    /// What all frameworks hold; may be left out where there are no policies.
    pub stakes: Vec<Stake<'a>>,
    /// What is held of single agents for what others are guaranteed, in order of the agents.
    pub held: Vec<HeldFor>,
    /// What is free in the cluster.
    pub free: &'a Quantities,
    /// What is asked for only where it is shown.
    pub books: &'a dyn Books,
}

/// The framework whose wish it is.
pub struct Seeker<'a> {
    pub framework: &'a FrameworkId,
    pub name: Option<&'a Name>,
    /// How long nobody has spoken for it, milliseconds; none while somebody does.
    pub gone_ms: Option<u64>,
    pub is_suppressed: bool,
    pub is_sated: bool,
    /// How many tasks it has.
    pub tasks: u32,
    /// How many offers it holds, and how many it may.
    pub offers: u32,
    pub offers_max: u32,
    /// How many tasks of its demand these offers are for.
    pub offered_tasks: u32,
    /// How long the oldest of them is out, milliseconds.
    pub offer_age_ms: u64,
    /// What it refused.
    pub refused: Option<&'a Refused>,
}

/// One agent.
pub struct Place<'a> {
    pub agent: &'a AgentId,
    pub host: &'a str,
    /// Why nothing can be given of it, if nothing can.
    pub away: Option<Reason>,
    /// Its account; an agent that is not back yet has none.
    pub account: Option<&'a Account>,
    /// What its tasks hold and do not use, for those who ask for what is revocable.
    pub lent: Option<&'a Account>,
    pub attrs: &'a BTreeMap<String, Attr>,
    /// Only this framework is given anything of it.
    pub kept_for: Option<&'a FrameworkId>,
}

/// What one framework holds in the cluster, offered or used.
pub struct Stake<'a> {
    pub framework: &'a FrameworkId,
    pub name: Option<&'a Name>,
    pub role: &'a Role,
    pub held: Quantities,
}

/// Names, ages and shares.
pub trait Books {
    /// The dominant share of a framework and the one that it could have, each from 0 to 1.
    fn shares_of(&self, framework: &FrameworkId) -> (Milli, Milli);
    /// The durable name of a framework.
    fn name_of(&self, framework: &FrameworkId) -> Option<Name>;
    /// How long an offer is out, milliseconds.
    fn offer_age_ms(&self, offer: &OfferId) -> u64;
    /// How long a task has been there, milliseconds.
    fn task_age_ms(&self, task: &TaskId) -> u64;
}

/// Says why the wish is not met, and tells at most so many agents one by one.
pub fn explain(case: &Case<'_>, lines_max: usize) -> Explanation {
    let mut obstacles = case.obstacles();
    let asks = case.demand.filter(|demand| demand.count > 0 && !obstacles.iter().any(is_the_end));
    let mut tally = Tally::default();
    let mut agents = Vec::new();
    let mut bytes = 0;
    if let Some(demand) = asks {
        let look = Look::new(case, demand);
        for place in &case.agents {
            let mut line = look.judge(place);
            tally.add(&line);
            line.holders.truncate(NAMED_MAX);
            if agents.len() < lines_max.min(LINES_MAX) && bytes < LINES_BYTES_MAX {
                bytes += serde_json::to_string(&line).map_or(0, |text| text.len());
                agents.push(line);
            }
        }
    }
    if let (true, Some(seeker)) = (obstacles.is_empty() && tally.has_room(), &case.seeker) {
        let (share, fair_share) = case.books.shares_of(seeker.framework);
        obstacles.push(Obstacle::Turn { share, fair_share });
    }
    let counted = if asks.is_some() { case.agents.len() } else { 0 };
    let mut explanation = Explanation {
        meso: "explain/1".to_owned(),
        about: if case.seeker.is_some() { "framework" } else { "request" }.to_owned(),
        framework: case.seeker.as_ref().map(|seeker| seeker.framework.clone()),
        name: case.seeker.as_ref().and_then(|seeker| seeker.name.cloned()),
        role: case.role.clone(),
        request: case.demand.map(|demand| demand.request.clone()).unwrap_or_default(),
        count: case.count(),
        condition: case.demand.map(|demand| demand.condition.clone()).unwrap_or_default(),
        on: case.demand.and_then(|demand| demand.on.clone()),
        revocable: case.demand.is_some_and(|demand| demand.revocable),
        summary: String::new(),
        obstacles,
        agents_all: u32::try_from(case.agents.len()).unwrap_or(u32::MAX),
        counts: tally.counts(),
        agents_left_out: u32::try_from(counted - agents.len()).unwrap_or(u32::MAX),
        agents,
    };
    explanation.summary = words::summary(&explanation);
    explanation
}

/// Whether after this the agents need not be looked at: nothing is sought.
fn is_the_end(obstacle: &Obstacle) -> bool {
    matches!(obstacle, Obstacle::NotConnected { .. } | Obstacle::WantsNothing { .. } | Obstacle::Offered { .. } | Obstacle::NoAgents {})
}

impl Case<'_> {
    /// How many tasks are wanted beyond those that offers are out for.
    fn count(&self) -> u32 {
        let offered = self.seeker.as_ref().map_or(0, |seeker| seeker.offered_tasks);
        self.demand.map_or(0, |demand| demand.count.saturating_sub(offered))
    }

    fn obstacles(&self) -> Vec<Obstacle> {
        let mut obstacles = self.seeker.as_ref().map(|seeker| self.obstacles_of(seeker)).unwrap_or_default();
        if obstacles.iter().any(is_the_end) {
            return obstacles;
        }
        obstacles.extend(quota::obstacles(self));
        if self.agents.is_empty() {
            obstacles.push(Obstacle::NoAgents {});
        }
        obstacles
    }

    fn obstacles_of(&self, seeker: &Seeker<'_>) -> Vec<Obstacle> {
        if let Some(age_ms) = seeker.gone_ms {
            return vec![Obstacle::NotConnected { age_ms }];
        }
        if seeker.is_suppressed && self.demand.is_none_or(|demand| demand.count == 0) {
            return vec![Obstacle::Suppressed {}];
        }
        if self.demand.is_none_or(|demand| demand.count == 0) {
            return vec![Obstacle::WantsNothing { tasks: seeker.tasks }];
        }
        let (offers, age_ms) = (seeker.offers, seeker.offer_age_ms);
        if self.count() == 0 {
            return vec![Obstacle::Offered { offers, age_ms }];
        }
        let mut obstacles = Vec::new();
        if seeker.is_suppressed {
            obstacles.push(Obstacle::Suppressed {});
        }
        if seeker.is_sated {
            obstacles.push(Obstacle::Sated {});
        }
        if offers >= seeker.offers_max {
            obstacles.push(Obstacle::OpenMax { offers, age_ms });
        }
        obstacles
    }
}

/// What an agent lacks of a request; for one that asks for nothing, of the least that is worth an offer.
fn lacks(request: &Request, have: &Resources) -> Vec<Shortfall> {
    if !request.is_empty() {
        return request.shortfalls(have);
    }
    if have.cpus >= CPUS_MIN || have.mem >= MEM_MIN {
        return Vec::new();
    }
    [("cpus", CPUS_MIN, have.cpus), ("mem", MEM_MIN, have.mem)].map(|(name, need, have)| Shortfall { name: name.to_owned(), need, have }).into()
}

/// The look at agent after agent.
struct Look<'c, 'a> {
    case: &'c Case<'a>,
    demand: &'a Demand,
    /// What was refused of each agent, and until when.
    refused: BTreeMap<&'a AgentId, Vec<(&'a Resources, u64)>>,
}

impl<'c, 'a> Look<'c, 'a> {
    fn new(case: &'c Case<'a>, demand: &'a Demand) -> Self {
        let mut refused: BTreeMap<&AgentId, Vec<(&Resources, u64)>> = BTreeMap::new();
        for (agent, resources, until_ms) in case.seeker.iter().filter_map(|seeker| seeker.refused).flat_map(Refused::iter) {
            refused.entry(agent).or_default().push((resources, until_ms));
        }
        Look { case, demand, refused }
    }

    /// The first reason that applies, with all who hold what is missing, who holds most first.
    fn judge(&self, place: &Place<'_>) -> AgentReason {
        let line = |reason| AgentReason { agent: place.agent.clone(), host: place.host.to_owned(), reason, clause: String::new(), lacks: Vec::new(), holders: Vec::new(), refused_ms: 0 };
        let account = match (place.away, place.account) {
            (Some(away), _) => return line(away),
            (None, None) => return line(Reason::Recovering),
            (None, Some(account)) => account,
        };
        let firm = self.judge_account(place, account, false, line);
        match place.lent.filter(|_| self.demand.revocable && firm.reason != Reason::Fits) {
            Some(lent) => Some(self.judge_account(place, lent, true, line)).filter(|lent| lent.reason == Reason::Fits).unwrap_or(firm),
            None => firm,
        }
    }

    fn judge_account(&self, place: &Place<'_>, account: &Account, revocable: bool, line: impl Fn(Reason) -> AgentReason) -> AgentReason {
        if self.demand.on.as_deref().is_some_and(|on| on != place.agent.as_str() && on != place.host) {
            return line(Reason::OtherAgent);
        }
        let facts = Facts { resources: &account.free, host: place.host, agent: place.agent.as_str(), role: self.case.role.as_str(), revocable, attrs: place.attrs };
        if let Some(clause) = self.case.condition.and_then(|condition| condition.failing(&facts)) {
            return AgentReason { clause: clause.to_string(), ..line(Reason::Condition) };
        }
        let too_small = lacks(&self.demand.request, &account.total);
        if !too_small.is_empty() {
            return AgentReason { lacks: too_small, ..line(Reason::TooSmall) };
        }
        let short = lacks(&self.demand.request, &account.free);
        if !short.is_empty() {
            // What is offered comes back by itself, soon; what tasks hold does not.
            let idle = account.free.checked_add(&account.offered);
            let is_offered = idle.is_some_and(|idle| lacks(&self.demand.request, &idle).is_empty());
            let reason = if is_offered { Reason::Offered } else { Reason::Busy };
            return AgentReason { holders: self.holders(account, &short, !is_offered), lacks: short, ..line(reason) };
        }
        if let Some(refused_ms) = self.refused_ms(place.agent, &account.free) {
            return AgentReason { refused_ms, ..line(Reason::Refused) };
        }
        let me = self.case.seeker.as_ref().map(|seeker| seeker.framework);
        if let Some(other) = place.kept_for.filter(|other| Some(*other) != me) {
            let holder = Holder { framework: other.clone(), name: self.case.books.name_of(other), offered: false, count: 0, held: Quantities::default(), age_ms: 0 };
            return AgentReason { holders: vec![holder], ..line(Reason::KeptFor) };
        }
        let (rest, holders) = self.without_held(place.agent, &account.free);
        let lacks = lacks(&self.demand.request, &rest);
        if !revocable && !lacks.is_empty() {
            return AgentReason { lacks, holders, ..line(Reason::Guaranteed) };
        }
        line(Reason::Fits)
    }

    /// What is left of what is free on an agent without what is held there for others, and who they are.
    fn without_held(&self, agent: &AgentId, free: &Resources) -> (Resources, Vec<Holder>) {
        let from = self.case.held.partition_point(|held| held.agent < *agent);
        let mut rest = free.clone();
        let mut holders = Vec::new();
        for held in self.case.held[from..].iter().take_while(|held| held.agent == *agent) {
            rest = rest.checked_sub(&held.resources).unwrap_or_default();
            holders.push(Holder {
                framework: held.framework.clone(),
                name: self.case.books.name_of(&held.framework),
                offered: false,
                count: u32::try_from(held.tasks).unwrap_or(u32::MAX),
                held: Quantities::of(&held.resources),
                age_ms: 0,
            });
        }
        (rest, holders)
    }

    /// Who holds something of the kinds that are missing: offers, and tasks too where offers alone would not do.
    fn holders(&self, account: &Account, short: &[Shortfall], with_tasks: bool) -> Vec<Holder> {
        let mut held: BTreeMap<(&FrameworkId, bool), Holder> = BTreeMap::new();
        let offers = account.offers.iter().map(|(offer, holding)| (holding, true, self.case.books.offer_age_ms(offer)));
        let tasks = account.tasks.iter().filter(|_| with_tasks).map(|(task, holding)| (holding, false, self.case.books.task_age_ms(task)));
        for (holding, offered, age_ms) in offers.chain(tasks) {
            let missing = |name: &str| short.iter().any(|lack| lack.name == name || lack.name == "port_ranges" && name == "ports");
            let amounts: Vec<(&str, Milli)> = holding.resources.scalars().filter(|(name, amount)| missing(name) && !amount.is_zero()).collect();
            if amounts.is_empty() {
                continue;
            }
            let holder = held.entry((&holding.framework, offered)).or_insert_with(|| Holder {
                framework: holding.framework.clone(),
                name: self.case.books.name_of(&holding.framework),
                offered,
                count: 0,
                held: Quantities::default(),
                age_ms: 0,
            });
            holder.count += 1;
            holder.age_ms = holder.age_ms.max(age_ms);
            for (name, amount) in amounts {
                holder.held.set(name, holder.held.get(name).checked_add(amount).unwrap_or(Milli::MAX));
            }
        }
        let mut holders: Vec<Holder> = held.into_values().collect();
        tally::most_first(&mut holders, short.first().map_or("", |lack| lack.name.as_str()));
        holders
    }

    /// For how long the framework refuses what it could be offered of an agent, if it does.
    fn refused_ms(&self, agent: &AgentId, free: &Resources) -> Option<u64> {
        let refused = self.refused.get(agent)?;
        let request = &self.demand.request;
        let most = if request.is_empty() { Some(free.clone()) } else { request.times(request.room_in(free, self.case.count().into())).and_then(|tasks| tasks.take(free)) };
        let most = most?;
        let left = refused.iter().filter(|(resources, _)| resources.contains(&most)).map(|(_, until_ms)| until_ms.saturating_sub(self.case.now_ms));
        left.max().filter(|left_ms| *left_ms > 0)
    }
}

#[cfg(test)]
mod tests;
