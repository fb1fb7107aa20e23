//! The grants of another policy, checked against the same snapshot: what the cluster's rules forbid does not pass
//!
//! Who is next is the other policy's to say. What holds whatever it says: nothing is given that is not free, or twice;
//! nobody is given what it does not want, refused, or excludes by its condition; a demand is served in whole tasks; no
//! limit is passed; and what is kept for others, or guaranteed to them, is not given away.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;

use super::pass::{Given, amount_of_request, cut};
use super::tree::{Tree, amount_of};
use super::{Demand, FrameworkView, Grant, Place, Snapshot, is_worth_offering};
use crate::id::{AgentId, FrameworkId};
use crate::resources::{Milli, Ports, Request, Resources, Shortfall, other_kinds, whole};

/// What another policy would give: in JSON the keys of `grant/1`, of which only the first two must be there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "ProposalShape")]
pub struct Proposal {
    /// To whom.
    pub framework: FrameworkId,
    /// Of which agent.
    pub agent: AgentId,
    /// What; as much as is free there if it says nothing. Ports may be named, or only counted.
    pub amounts: Request,
    /// How many tasks of the demand at most; 0 for as many as `amounts` has room for. Without a demand it means nothing.
    pub tasks: u32,
}

/// Why a proposal does not pass.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadProposal {
    /// Nobody of that id.
    #[error("framework {0} is not known")]
    NoFramework(FrameworkId),
    /// Suppressed, or served already by earlier proposals.
    #[error("framework {0} wants nothing more")]
    WantsNothing(FrameworkId),
    /// No agent of that id, or one of which nothing may be given, or has nothing free.
    #[error("agent {0} has nothing to give")]
    NoAgent(AgentId),
    /// Another agent was asked for.
    #[error("framework {0} wants no other agent than {1}")]
    Elsewhere(FrameworkId, String),
    /// It is all for another one now.
    #[error("agent {0} is kept for framework {1}")]
    Kept(AgentId, FrameworkId),
    /// Its condition does not hold there.
    #[error("the condition of framework {0} does not hold on agent {1}")]
    Condition(FrameworkId, AgentId),
    /// More than is left there.
    #[error("agent {0} has too little left: {1}")]
    TooMuch(AgentId, Shortfall),
    /// No room in it for a single task.
    #[error("what framework {0} is to get of agent {1} is not one task's worth")]
    NoTask(FrameworkId, AgentId),
    /// Less than is worth an offer.
    #[error("what framework {0} is to get of agent {1} is next to nothing")]
    Crumbs(FrameworkId, AgentId),
    /// Limits, or the guarantees of others.
    #[error("limits and guarantees leave framework {0} nothing of agent {1}")]
    NoQuota(FrameworkId, AgentId),
    /// It said so.
    #[error("framework {0} has refused as much of agent {1}")]
    Refused(FrameworkId, AgentId),
}

/// What came of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// What passed, at most one grant per framework and agent, in the order of the proposals.
    pub grants: Vec<Grant>,
    /// How many proposals did not pass.
    pub refused: u64,
    /// The first reason.
    pub why: Option<BadProposal>,
}

/// Takes, in their order, the proposals that pass; cuts a grant to whole tasks, to what is wanted, and to what limits
/// and guarantees leave.
pub fn check(snapshot: &Snapshot<'_>, proposals: &[Proposal]) -> Checked {
    let mut check = Check::new(snapshot);
    let mut checked = Checked::default();
    for proposal in proposals {
        if let Err(why) = check.take(proposal) {
            checked.refuse(why);
        }
    }
    // Only when all parts of a grant are together is it known whether it is no more than what was refused.
    for given in check.grants {
        let (framework, agent) = (&snapshot.frameworks[given.framework], snapshot.agents.place(given.agent).agent);
        if framework.refused.is_some_and(|refused| refused.covers(agent, &given.resources)) {
            checked.refuse(BadProposal::Refused(framework.framework.clone(), agent.clone()));
        } else {
            checked.grants.push(snapshot.named(given));
        }
    }
    checked
}

impl Checked {
    fn refuse(&mut self, why: BadProposal) {
        self.refused += 1;
        self.why.get_or_insert(why);
    }
}

/// A check as it goes on.
struct Check<'s, 'a> {
    snapshot: &'s Snapshot<'a>,
    tree: Tree,
    quota_kinds: Vec<String>,
    /// Places in the snapshot.
    frameworks: BTreeMap<&'a FrameworkId, usize>,
    /// What is left of an agent, by its place, once something of it was given.
    left: BTreeMap<usize, Resources>,
    /// How many tasks a framework was given, by its place, and of how many agents.
    served: BTreeMap<usize, (u32, u32)>,
    /// Where the grant for a framework of an agent stands.
    merged: BTreeMap<(usize, usize), usize>,
    grants: Vec<Given>,
}

impl<'s, 'a> Check<'s, 'a> {
    fn new(snapshot: &'s Snapshot<'a>) -> Self {
        let tree = Tree::new(snapshot);
        Check {
            snapshot,
            quota_kinds: tree.quota_kinds().into_iter().collect(),
            tree,
            frameworks: snapshot.frameworks.iter().enumerate().map(|(place, view)| (view.framework, place)).collect(),
            left: BTreeMap::new(),
            served: BTreeMap::new(),
            merged: BTreeMap::new(),
            grants: Vec::new(),
        }
    }

    fn take(&mut self, proposal: &Proposal) -> Result<(), BadProposal> {
        let framework = *self.frameworks.get(&proposal.framework).ok_or_else(|| BadProposal::NoFramework(proposal.framework.clone()))?;
        let view = &self.snapshot.frameworks[framework];
        let (agent, there) = self.find(&proposal.agent).ok_or_else(|| BadProposal::NoAgent(proposal.agent.clone()))?;
        let (tasks, agents) = self.served.get(&framework).copied().unwrap_or_default();
        let is_merged = self.merged.contains_key(&(framework, agent));
        if !view.wants_something() || (!is_merged && agents >= view.open) || view.demand.is_some_and(|demand| tasks >= demand.count) {
            return Err(BadProposal::WantsNothing(proposal.framework.clone()));
        }
        if let Some(other) = there.kept_for.filter(|other| *other != view.framework) {
            return Err(BadProposal::Kept(proposal.agent.clone(), other.clone()));
        }
        let free = self.left.get(&agent).unwrap_or(there.free);
        if view.on.is_some() || view.condition.is_some() {
            let about = self.snapshot.agents.about(agent);
            if let Some(on) = view.on.filter(|on| there.agent.as_str() != *on && about.host != *on) {
                return Err(BadProposal::Elsewhere(proposal.framework.clone(), on.to_owned()));
            }
            if !view.may_use(Place { free, ..there }, about) {
                return Err(BadProposal::Condition(proposal.framework.clone(), proposal.agent.clone()));
            }
        }
        let part = proposal.part_of(free)?;
        let (given, count) = match view.demand {
            Some(demand) => self.tasks_of(framework, proposal, &part, demand, demand.count - tasks)?,
            None => (self.remainder_of(framework, proposal, part)?, 0),
        };
        let rest = free.checked_sub(&given).ok_or_else(|| BadProposal::NoAgent(proposal.agent.clone()))?;
        self.left.insert(agent, rest);
        let leaf = self.tree.leaves[framework];
        self.tree.grant(leaf, &given);
        self.record(framework, agent, given, count);
        Ok(())
    }

    /// An agent of the snapshot by its id; they are in that order.
    fn find(&self, agent: &AgentId) -> Option<(usize, Place<'a>)> {
        let agents = self.snapshot.agents;
        let (mut from, mut to) = (0, agents.count());
        while from < to {
            let middle = from + (to - from) / 2;
            let place = agents.place(middle);
            match place.agent.cmp(agent) {
                Ordering::Equal => return Some((middle, place)),
                Ordering::Less => from = middle + 1,
                Ordering::Greater => to = middle,
            }
        }
        None
    }

    /// As many whole tasks as the part has room for, the framework still wants, and its quota allows.
    fn tasks_of(&self, framework: usize, proposal: &Proposal, part: &Resources, demand: Demand<'_>, wanted: u32) -> Result<(Resources, u32), BadProposal> {
        let most = if proposal.tasks == 0 { wanted } else { proposal.tasks.min(wanted) };
        let names = || (proposal.framework.clone(), proposal.agent.clone());
        let no_task = || BadProposal::NoTask(names().0, names().1);
        let room = demand.request.room_in(part, most.into());
        if room == 0 {
            return Err(no_task());
        }
        let leaf = self.tree.leaves[framework];
        let allowed = self.quota_kinds.iter().fold(room, |room, kind| {
            let one = amount_of_request(demand.request, kind);
            self.tree.allowance(leaf, kind, one.saturating_mul(room)).checked_div(one).map_or(room, |tasks| tasks.min(room))
        });
        if allowed == 0 {
            return Err(BadProposal::NoQuota(names().0, names().1));
        }
        let given = demand.request.times(allowed).and_then(|tasks| tasks.take(part)).ok_or_else(no_task)?;
        Ok((given, u32::try_from(allowed).unwrap_or(wanted)))
    }

    /// What the quota allows of the part, if that is worth an offer.
    fn remainder_of(&self, framework: usize, proposal: &Proposal, mut part: Resources) -> Result<Resources, BadProposal> {
        let names = (proposal.framework.clone(), proposal.agent.clone());
        if !is_worth_offering(&part) {
            return Err(BadProposal::Crumbs(names.0, names.1));
        }
        let leaf = self.tree.leaves[framework];
        for kind in &self.quota_kinds {
            let have = amount_of(&part, kind);
            let allowed = self.tree.allowance(leaf, kind, have);
            if allowed < have {
                cut(&mut part, kind, allowed);
            }
        }
        if is_worth_offering(&part) { Ok(part) } else { Err(BadProposal::NoQuota(names.0, names.1)) }
    }

    fn record(&mut self, framework: usize, agent: usize, resources: Resources, tasks: u32) {
        let (all_tasks, agents) = self.served.entry(framework).or_default();
        *all_tasks += tasks;
        match self.merged.get(&(framework, agent)) {
            Some(&place) => {
                let given = &mut self.grants[place];
                given.resources = given.resources.checked_add(&resources).expect("both were free on the agent, and each apart");
                given.tasks += tasks;
            }
            None => {
                *agents += 1;
                self.merged.insert((framework, agent), self.grants.len());
                self.grants.push(Given { framework, agent, resources, tasks });
            }
        }
    }
}

impl FrameworkView<'_> {
    fn wants_something(&self) -> bool {
        !self.suppressed && self.open > 0 && self.demand.is_none_or(|demand| demand.count > 0 && !demand.request.is_empty())
    }
}

impl Proposal {
    /// The very resources it speaks of, out of what is free.
    fn part_of(&self, free: &Resources) -> Result<Resources, BadProposal> {
        if self.amounts.is_empty() {
            return Ok(free.clone());
        }
        self.amounts.take(free).ok_or_else(|| {
            let short = self.amounts.shortfalls(free).into_iter().next();
            short.map_or_else(|| BadProposal::NoAgent(self.agent.clone()), |short| BadProposal::TooMuch(self.agent.clone(), short))
        })
    }
}

/// How a [`Proposal`] stands in JSON.
#[derive(Deserialize)]
struct ProposalShape {
    framework: FrameworkId,
    agent: AgentId,
    #[serde(default)]
    cpus: Milli,
    #[serde(default)]
    mem: Milli,
    #[serde(default)]
    disk: Milli,
    #[serde(default, deserialize_with = "whole")]
    gpus: Milli,
    #[serde(default)]
    ports: u32,
    #[serde(default)]
    port_ranges: Ports,
    #[serde(default, deserialize_with = "other_kinds")]
    other: BTreeMap<String, Milli>,
    #[serde(default)]
    tasks: u32,
}

impl From<ProposalShape> for Proposal {
    fn from(shape: ProposalShape) -> Proposal {
        let ProposalShape { framework, agent, cpus, mem, disk, gpus, ports, port_ranges, other, tasks } = shape;
        // An offer line has both, and there the number is of the very ports that are named.
        let ports = if port_ranges.is_empty() { ports } else { 0 };
        Proposal { framework, agent, amounts: Request { cpus, mem, disk, gpus, ports, port_ranges, other }, tasks }
    }
}

#[cfg(test)]
mod tests;
