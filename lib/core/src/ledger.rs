//! The ledger: what every agent has, and who holds it; the only place where resources move
//!
//! Per agent and resource, `total = free + offered + used`, always. Every method keeps it, and a
//! method that refuses has changed nothing. [`Ledger::check`] adds everything up from scratch.
//!
//! Sums over agents are [`Quantities`]: the same port numbers on two agents are twice as many ports.

mod accounts;
mod ready;

use std::collections::{BTreeMap, BTreeSet};

use accounts::Accounts;
pub(crate) use ready::{Amounts, needs_of};
use thiserror::Error;

use crate::allocate::Share;
use crate::id::{AgentId, FrameworkId, OfferId, TaskId};
use crate::resources::{Quantities, Request, Resources, Shortfall};

/// What one agent has, and who holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// All that the agent has.
    pub total: Resources,
    /// What nobody holds.
    pub free: Resources,
    /// The sum of the offers.
    pub offered: Resources,
    /// The sum of the tasks.
    pub used: Resources,
    /// The outstanding offers; boxed, as most maps of this kind hold one or two and have room for eleven.
    pub offers: BTreeMap<OfferId, Box<Holding>>,
    /// The live tasks.
    pub tasks: BTreeMap<TaskId, Box<Holding>>,
}

/// A part of an agent in one hand: an offer or a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub framework: FrameworkId,
    pub resources: Resources,
}

/// What [`Ledger::spend`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spent {
    /// The agent of the offers.
    pub agent: AgentId,
    /// What the tasks left of the offers; it is free again.
    pub rest: Resources,
}

/// Why the ledger refused; nothing moved.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LedgerError {
    #[error("agent {0} is not registered")]
    UnknownAgent(AgentId),
    #[error("agent {0} is registered already")]
    AgentExists(AgentId),
    #[error("the resources of agent {0} make the cluster larger than can be counted")]
    TooMuch(AgentId),
    #[error("no offer was named")]
    NoOffers,
    #[error("offer {0} is gone")]
    UnknownOffer(OfferId),
    #[error("offer {0} exists already")]
    OfferExists(OfferId),
    #[error("offer {0} was made to another framework")]
    NotYours(OfferId),
    #[error("offer {0} is named twice")]
    DuplicateOffer(OfferId),
    #[error("offers {0} and {1} are of different agents")]
    SeveralAgents(OfferId, OfferId),
    #[error("task {0} exists already")]
    TaskExists(TaskId),
    #[error("the tasks need more than was offered: {}", list(.shortfalls))]
    TooLarge { shortfalls: Vec<Shortfall> },
    #[error("agent {agent} has too little free: {}", list(.shortfalls))]
    Overcommitted { agent: AgentId, shortfalls: Vec<Shortfall> },
}

fn list(shortfalls: &[Shortfall]) -> String {
    shortfalls.iter().map(Shortfall::to_string).collect::<Vec<_>>().join(", ")
}

/// The accounts of all agents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    accounts: Accounts,
    /// Which agent's account holds the offer.
    offers: BTreeMap<OfferId, AgentId>,
    /// Which agent's account holds the task.
    tasks: BTreeMap<TaskId, AgentId>,
    stakes: BTreeMap<FrameworkId, Stake>,
    total: Quantities,
    free: Quantities,
}

/// What a framework holds in the whole cluster; kept only while it holds something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stake {
    offered: Quantities,
    used: Quantities,
    offers: BTreeSet<OfferId>,
    tasks: BTreeSet<TaskId>,
}

/// Why sums over parts of the cluster cannot overflow or go negative.
const COUNTED: &str = "parts of the cluster add up to no more than its total, which was checked";
/// Why parts of an account can be added and taken again.
const BALANCED: &str = "free, offered and used add up to the agent's total";
/// Why an id found in one index is in the other.
const INDEXED: &str = "every offer and task of the index is in its agent's account";

impl Ledger {
    /// Opens an account: all of `total` is free.
    pub fn admit(&mut self, agent: AgentId, total: Resources) -> Result<(), LedgerError> {
        if self.accounts.contains(&agent) {
            return Err(LedgerError::AgentExists(agent));
        }
        self.total.add(&total).ok_or_else(|| LedgerError::TooMuch(agent.clone()))?;
        self.free.add(&total).expect(COUNTED);
        self.accounts.insert(agent, Account { free: total.clone(), total, ..Account::default() });
        Ok(())
    }

    /// Says whether anything of an agent may be offered now; of a new account it may.
    pub fn set_open(&mut self, agent: &AgentId, is_open: bool) {
        self.accounts.set_open(agent, is_open);
    }

    /// Changes what an agent has. Refused if what is offered and used there would not fit.
    pub fn set_total(&mut self, agent: &AgentId, total: Resources) -> Result<(), LedgerError> {
        let account = self.known(agent)?;
        let held = account.offered.checked_add(&account.used).expect(BALANCED);
        let Some(free) = total.checked_sub(&held) else {
            return Err(LedgerError::Overcommitted { agent: agent.clone(), shortfalls: shortfalls(&held, &total) });
        };
        let (old_total, old_free) = (account.total.clone(), account.free.clone());
        self.total.sub(&old_total).expect(COUNTED);
        if self.total.add(&total).is_none() {
            self.total.add(&old_total).expect(COUNTED);
            return Err(LedgerError::TooMuch(agent.clone()));
        }
        self.free.sub(&old_free).expect(COUNTED);
        self.free.add(&free).expect(COUNTED);
        self.accounts.change(agent, |account| (account.total, account.free) = (total, free));
        Ok(())
    }

    /// Closes an account with its offers and tasks, and hands it out; none if there is none.
    pub fn remove(&mut self, agent: &AgentId) -> Option<Account> {
        let account = self.accounts.remove(agent)?;
        self.total.sub(&account.total).expect(COUNTED);
        self.free.sub(&account.free).expect(COUNTED);
        for (offer, holding) in &account.offers {
            self.offers.remove(offer);
            self.unstake_offer(offer, holding);
        }
        for (task, holding) in &account.tasks {
            self.tasks.remove(task);
            self.unstake_task(task, holding);
        }
        Some(account)
    }

    /// Moves free resources of an agent into an offer.
    pub fn offer(&mut self, agent: &AgentId, offer: OfferId, framework: FrameworkId, resources: Resources) -> Result<(), LedgerError> {
        if self.offers.contains_key(&offer) {
            return Err(LedgerError::OfferExists(offer));
        }
        let holding = Holding { framework, resources };
        self.accounts
            .change(agent, |account| {
                account.withdraw(agent, &holding.resources)?;
                add(&mut account.offered, &holding.resources);
                account.offers.insert(offer.clone(), Box::new(holding.clone()));
                Ok(())
            })
            .unwrap_or_else(|| Err(LedgerError::UnknownAgent(agent.clone())))?;
        self.free.sub(&holding.resources).expect(COUNTED);
        let stake = self.stakes.entry(holding.framework).or_default();
        stake.offered.add(&holding.resources).expect(COUNTED);
        stake.offers.insert(offer.clone());
        self.offers.insert(offer, agent.clone());
        Ok(())
    }

    /// Ends an offer: what was in it is free again. None if there is no such offer.
    pub fn give_back(&mut self, offer: &OfferId) -> Option<(AgentId, FrameworkId, Resources)> {
        let agent = self.offers.remove(offer)?;
        let changed = self.accounts.change(&agent, |account| {
            let holding = account.offers.remove(offer).expect(INDEXED);
            take(&mut account.offered, &holding.resources);
            add(&mut account.free, &holding.resources);
            holding
        });
        let holding = changed.expect(INDEXED);
        self.free.add(&holding.resources).expect(COUNTED);
        self.unstake_offer(offer, &holding);
        Some((agent, holding.framework, holding.resources))
    }

    /// Turns offers of one agent into tasks there; what the tasks leave is free again.
    ///
    /// All or nothing. The tasks may be none: then the offers are just given back.
    pub fn spend(&mut self, offers: &[OfferId], framework: &FrameworkId, tasks: &[(TaskId, Resources)]) -> Result<Spent, LedgerError> {
        let agent = self.agent_of(offers, framework)?;
        let mut names = BTreeSet::new();
        if let Some((task, _)) = tasks.iter().find(|(task, _)| self.tasks.contains_key(task) || !names.insert(task)) {
            return Err(LedgerError::TaskExists(task.clone()));
        }
        let account = self.accounts.get(&agent).expect(INDEXED);
        let mut rest = Resources::default();
        for offer in offers {
            add(&mut rest, &account.offers.get(offer).expect(INDEXED).resources);
        }
        // One task after the other, so that two which want the same port are not both satisfied.
        for (_, resources) in tasks {
            rest = rest.checked_sub(resources).ok_or_else(|| LedgerError::TooLarge { shortfalls: shortfalls(resources, &rest) })?;
        }
        for offer in offers {
            self.give_back(offer);
        }
        for (task, resources) in tasks {
            self.charge(&agent, task.clone(), framework.clone(), resources.clone()).expect("what the offers held is free now");
        }
        Ok(Spent { agent, rest })
    }

    /// Moves free resources of an agent into a task, as when an agent comes back with what it runs.
    ///
    /// Said twice it counts once. If it does not fit in what is free, give back offers of the agent and
    /// try again.
    pub fn charge(&mut self, agent: &AgentId, task: TaskId, framework: FrameworkId, resources: Resources) -> Result<(), LedgerError> {
        let holding = Holding { framework, resources };
        if let Some(place) = self.tasks.get(&task) {
            let same = place == agent && self.accounts.get(agent).and_then(|account| account.tasks.get(&task)).is_some_and(|known| **known == holding);
            return if same { Ok(()) } else { Err(LedgerError::TaskExists(task)) };
        }
        self.accounts
            .change(agent, |account| {
                account.withdraw(agent, &holding.resources)?;
                add(&mut account.used, &holding.resources);
                account.tasks.insert(task.clone(), Box::new(holding.clone()));
                Ok(())
            })
            .unwrap_or_else(|| Err(LedgerError::UnknownAgent(agent.clone())))?;
        self.free.sub(&holding.resources).expect(COUNTED);
        let stake = self.stakes.entry(holding.framework).or_default();
        stake.used.add(&holding.resources).expect(COUNTED);
        stake.tasks.insert(task.clone());
        self.tasks.insert(task, agent.clone());
        Ok(())
    }

    /// Ends a task: what it used is free again. None if there is no such task, so a repeated word of
    /// its end changes nothing.
    pub fn release(&mut self, task: &TaskId) -> Option<(AgentId, Resources)> {
        let agent = self.tasks.remove(task)?;
        let changed = self.accounts.change(&agent, |account| {
            let holding = account.tasks.remove(task).expect(INDEXED);
            take(&mut account.used, &holding.resources);
            add(&mut account.free, &holding.resources);
            holding
        });
        let holding = changed.expect(INDEXED);
        self.free.add(&holding.resources).expect(COUNTED);
        self.unstake_task(task, &holding);
        Some((agent, holding.resources))
    }

    /// The offer and the agent that it is of.
    pub fn find_offer(&self, offer: &OfferId) -> Option<(&AgentId, &Holding)> {
        let agent = self.offers.get(offer)?;
        Some((agent, &**self.accounts.get(agent)?.offers.get(offer)?))
    }

    /// The task and the agent that it runs on.
    pub fn find_task(&self, task: &TaskId) -> Option<(&AgentId, &Holding)> {
        let agent = self.tasks.get(task)?;
        Some((agent, &**self.accounts.get(agent)?.tasks.get(task)?))
    }

    /// All outstanding offers, in order of their ids.
    pub fn offers(&self) -> impl Iterator<Item = (&OfferId, &AgentId, &Holding)> {
        self.offers.iter().filter_map(|(offer, agent)| Some((offer, agent, &**self.accounts.get(agent)?.offers.get(offer)?)))
    }

    /// The outstanding offers of a framework.
    pub fn offers_of(&self, framework: &FrameworkId) -> impl Iterator<Item = &OfferId> {
        self.stakes.get(framework).into_iter().flat_map(|stake| &stake.offers)
    }

    /// The outstanding offers of an agent.
    pub fn offers_on(&self, agent: &AgentId) -> impl Iterator<Item = (&OfferId, &Holding)> {
        self.accounts.get(agent).into_iter().flat_map(|account| &account.offers).map(|(offer, holding)| (offer, &**holding))
    }

    /// The live tasks of a framework.
    pub fn tasks_of(&self, framework: &FrameworkId) -> impl Iterator<Item = &TaskId> {
        self.stakes.get(framework).into_iter().flat_map(|stake| &stake.tasks)
    }

    /// The live tasks of an agent.
    pub fn tasks_on(&self, agent: &AgentId) -> impl Iterator<Item = (&TaskId, &Holding)> {
        self.accounts.get(agent).into_iter().flat_map(|account| &account.tasks).map(|(task, holding)| (task, &**holding))
    }

    /// All accounts, in order of the agents' ids.
    pub fn agents(&self) -> impl Iterator<Item = (&AgentId, &Account)> {
        self.accounts.iter()
    }

    pub fn account(&self, agent: &AgentId) -> Option<&Account> {
        self.accounts.get(agent)
    }

    pub fn total(&self, agent: &AgentId) -> Option<&Resources> {
        self.accounts.get(agent).map(|account| &account.total)
    }

    pub fn free(&self, agent: &AgentId) -> Option<&Resources> {
        self.accounts.get(agent).map(|account| &account.free)
    }

    /// What no task of the agent uses: free or offered. It grows only when a task ends or the agent does.
    pub fn idle(&self, agent: &AgentId) -> Option<Resources> {
        self.accounts.get(agent).map(|account| account.free.checked_add(&account.offered).expect(BALANCED))
    }

    /// What the tasks of a framework use in the cluster.
    pub fn used_by(&self, framework: &FrameworkId) -> Quantities {
        self.stakes.get(framework).map(|stake| stake.used.clone()).unwrap_or_default()
    }

    /// What is offered to a framework in the cluster.
    pub fn offered_to(&self, framework: &FrameworkId) -> Quantities {
        self.stakes.get(framework).map(|stake| stake.offered.clone()).unwrap_or_default()
    }

    /// What a framework holds in the cluster, offered or used.
    pub fn held_by(&self, framework: &FrameworkId) -> Quantities {
        let Some(stake) = self.stakes.get(framework) else {
            return Quantities::default();
        };
        let mut held = stake.used.clone();
        for (kind, amount) in stake.offered.iter() {
            held.set(kind, held.get(kind).checked_add(amount).expect(COUNTED));
        }
        held
    }

    /// How many agents there are.
    pub fn agents_count(&self) -> usize {
        self.accounts.count()
    }

    /// How many agents may be offered from and have something free.
    pub fn ready_count(&self) -> usize {
        self.accounts.ready_count()
    }

    /// One of these, by its place in the order of their ids.
    pub fn ready_at(&self, place: usize) -> (&AgentId, &Account) {
        self.accounts.ready_at(place)
    }

    /// The first of them from a place on that has as much free; their count if none has.
    pub(crate) fn ready_with(&self, place: usize, least: &Amounts) -> usize {
        self.accounts.ready_with(place, least)
    }

    /// Where in that order an agent stands, if it does.
    pub fn ready_place(&self, agent: &AgentId) -> Option<usize> {
        self.accounts.ready_place(agent)
    }

    /// What all agents have together.
    pub fn cluster_total(&self) -> &Quantities {
        &self.total
    }

    /// What is free on all agents together.
    pub fn cluster_free(&self) -> &Quantities {
        &self.free
    }

    /// The dominant share of a framework: the largest part that it holds of any one resource.
    pub fn framework_share(&self, framework: &FrameworkId) -> Share {
        Share::dominant(&self.held_by(framework), &self.total)
    }

    fn known(&self, agent: &AgentId) -> Result<&Account, LedgerError> {
        self.accounts.get(agent).ok_or_else(|| LedgerError::UnknownAgent(agent.clone()))
    }

    /// The agent of all these offers, if they are there, of one agent, of this framework and named once.
    fn agent_of(&self, offers: &[OfferId], framework: &FrameworkId) -> Result<AgentId, LedgerError> {
        let mut seen = BTreeSet::new();
        let mut first: Option<(&OfferId, &AgentId)> = None;
        for offer in offers {
            let (agent, holding) = self.find_offer(offer).ok_or_else(|| LedgerError::UnknownOffer(offer.clone()))?;
            if holding.framework != *framework {
                return Err(LedgerError::NotYours(offer.clone()));
            }
            if !seen.insert(offer) {
                return Err(LedgerError::DuplicateOffer(offer.clone()));
            }
            match first {
                Some((one, place)) if place != agent => return Err(LedgerError::SeveralAgents(one.clone(), offer.clone())),
                _ => first = Some((offer, agent)),
            }
        }
        first.map(|(_, agent)| agent.clone()).ok_or(LedgerError::NoOffers)
    }

    fn unstake_offer(&mut self, offer: &OfferId, holding: &Holding) {
        let stake = self.stakes.get_mut(&holding.framework).expect(INDEXED);
        stake.offered.sub(&holding.resources).expect(COUNTED);
        stake.offers.remove(offer);
        self.forget_if_empty(&holding.framework);
    }

    fn unstake_task(&mut self, task: &TaskId, holding: &Holding) {
        let stake = self.stakes.get_mut(&holding.framework).expect(INDEXED);
        stake.used.sub(&holding.resources).expect(COUNTED);
        stake.tasks.remove(task);
        self.forget_if_empty(&holding.framework);
    }

    fn forget_if_empty(&mut self, framework: &FrameworkId) {
        if self.stakes.get(framework).is_some_and(|stake| stake.offers.is_empty() && stake.tasks.is_empty()) {
            self.stakes.remove(framework);
        }
    }

    /// Adds everything up from scratch and compares; says what does not agree.
    pub fn check(&self) -> Result<(), String> {
        let mut cluster = Quantities::default();
        let mut free = Quantities::default();
        let mut stakes: BTreeMap<FrameworkId, Stake> = BTreeMap::new();
        let mut offers = BTreeMap::new();
        let mut tasks = BTreeMap::new();
        for (agent, account) in self.accounts.iter() {
            account.check().map_err(|why| format!("agent {agent}: {why}"))?;
            let beyond = "the cluster is too large to count";
            cluster.add(&account.total).ok_or(beyond)?;
            free.add(&account.free).ok_or(beyond)?;
            for (offer, holding) in &account.offers {
                let stake = stakes.entry(holding.framework.clone()).or_default();
                stake.offered.add(&holding.resources).ok_or(beyond)?;
                stake.offers.insert(offer.clone());
                if let Some(other) = offers.insert(offer.clone(), agent.clone()) {
                    return Err(format!("offer {offer} is of agents {other} and {agent}"));
                }
            }
            for (task, holding) in &account.tasks {
                let stake = stakes.entry(holding.framework.clone()).or_default();
                stake.used.add(&holding.resources).ok_or(beyond)?;
                stake.tasks.insert(task.clone());
                if let Some(other) = tasks.insert(task.clone(), agent.clone()) {
                    return Err(format!("task {task} is on agents {other} and {agent}"));
                }
            }
        }
        let same = [
            ("the total of the cluster", cluster == self.total),
            ("the free resources of the cluster", free == self.free),
            ("the holdings of the frameworks", stakes == self.stakes),
            ("the index of offers", offers == self.offers),
            ("the index of tasks", tasks == self.tasks),
        ];
        same.iter().find(|(_, same)| !same).map_or(Ok(()), |(what, _)| Err(format!("{what} is not what the accounts add up to")))
    }
}

impl Account {
    /// Takes resources out of what is free; the caller puts them into an offer or a task.
    fn withdraw(&mut self, agent: &AgentId, resources: &Resources) -> Result<(), LedgerError> {
        match self.free.checked_sub(resources) {
            Some(free) => {
                self.free = free;
                Ok(())
            }
            None => Err(LedgerError::Overcommitted { agent: agent.clone(), shortfalls: shortfalls(resources, &self.free) }),
        }
    }

    /// Whether the total is used up to the last bit by free, the offers and the tasks, each port once.
    fn check(&self) -> Result<(), String> {
        let mut left = self.total.checked_sub(&self.free).ok_or("more is free than there is")?;
        for (sum, holdings, what) in [
            (&self.offered, self.offers.values().collect::<Vec<_>>(), "offered"),
            (&self.used, self.tasks.values().collect::<Vec<_>>(), "used"),
        ] {
            let mut parts = sum.clone();
            for holding in holdings {
                left = left.checked_sub(&holding.resources).ok_or_else(|| format!("{} is {what} beyond the total", holding.resources))?;
                parts = parts.checked_sub(&holding.resources).ok_or_else(|| format!("{} is {what} beyond the sum", holding.resources))?;
            }
            if !parts.is_empty() {
                return Err(format!("{parts} is {what} by nobody"));
            }
        }
        if left.is_empty() { Ok(()) } else { Err(format!("{left} is neither free nor offered nor used")) }
    }
}

fn add(sum: &mut Resources, part: &Resources) {
    *sum = sum.checked_add(part).expect(BALANCED);
}

fn take(sum: &mut Resources, part: &Resources) {
    *sum = sum.checked_sub(part).expect(BALANCED);
}

/// What is missing in `have` of `need`, by name.
fn shortfalls(need: &Resources, have: &Resources) -> Vec<Shortfall> {
    let Resources { cpus, mem, disk, gpus, ports, other } = need.clone();
    Request { cpus, mem, disk, gpus, ports: 0, port_ranges: ports, other }.shortfalls(have)
}

#[cfg(test)]
mod tests;
