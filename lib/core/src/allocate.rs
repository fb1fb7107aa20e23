//! The allocator: one snapshot of the cluster in, grants out
//!
//! It is one task's turn at a time. By the default rule, weighted dominant resource fairness over the tree of roles and
//! frameworks, whoever holds the smallest dominant share for its weight is served next; other [`Rule`]s choose the next
//! in another way, and nothing else. A framework that declared its demand gets whole tasks' worth, spread over the
//! agents; one that did not gets all that is left of an agent, as in Mesos.
//!
//! Whatever the rule: who is below its guarantee comes before all others, no limit is passed, and what others are
//! guaranteed is not given away.
//!
//! Nothing here reads a clock or draws a number: the same snapshot gives the same grants.

mod check;
mod fair;
mod hold;
mod pass;
mod share;
mod starve;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

pub use check::{BadProposal, Checked, Proposal, check};
pub use fair::{Standing, Standings, standings};
pub use hold::{HeldFor, held_from};
use pass::{Given, Pass};
pub use share::{Share, WEIGHT_MAX};
pub use starve::{Plan, Tenant, TenantKind, plan};

use crate::condition::{Attr, Condition, Facts};
use crate::filter::Refused;
use crate::id::{AgentId, FrameworkId};
use crate::resources::{Milli, Quantities, Request, Resources};
use crate::role::Role;

/// Less than this many cpus and less than [`MEM_MIN`] is not offered as the remainder of an agent.
pub const CPUS_MIN: Milli = match Milli::from_milli(10) {
    Some(amount) => amount,
    None => Milli::ZERO,
};

/// In MiB; see [`CPUS_MIN`].
pub const MEM_MIN: Milli = Milli::units(32);

/// The most turns of one pass, so that a demand for crumbs cannot hold up the master; the next pass goes on.
pub const TURNS_MAX: usize = 200_000;

/// How often a pass is made anew because it ended in grants that were refused; what is then still
/// refused is left out.
pub const PASSES_MAX: usize = 3;

/// How the next to be served is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// The smallest dominant share over its weight, at each level of the tree of roles (Ghodsi et al., NSDI 2011).
    #[default]
    Drf,
    /// The highest priority, to the end of its demand; among equals as [`Rule::Drf`].
    Priority,
    /// The smallest share of one kind of resource over its weight: weighted max-min.
    Fair {
        /// The kind, such as `cpus`.
        resource: String,
    },
    /// By lot, at each level in proportion to the weights, drawn from [`Snapshot::seed`].
    Random,
}

impl Rule {
    /// Its name: `drf`, `priority`, `fair` or `random`.
    pub fn name(&self) -> &'static str {
        match self {
            Rule::Drf => "drf",
            Rule::Priority => "priority",
            Rule::Fair { .. } => "fair",
            Rule::Random => "random",
        }
    }
}

/// The agents of a snapshot in order of their ids, each with something free. They are looked at one by one and only as
/// far as needed, so that an event in a large cluster costs what it touches.
pub trait Agents {
    /// How many there are.
    fn count(&self) -> usize;
    /// What one of them has, by its place.
    fn place(&self, at: usize) -> Place<'_>;
    /// What one of them is; asked only where somebody has conditions.
    fn about(&self, at: usize) -> About<'_>;
    /// The first place from `at` on, or one before it, whose agent has as much free as a task needs of cpus, memory, disk
    /// and gpus; the count if there is none. Who keeps its agents in order of what is free need not show those between.
    fn first_with(&self, at: usize, _needs: &[Milli; 4]) -> usize {
        at
    }
}

/// What an agent has.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub agent: &'a AgentId,
    pub total: &'a Resources,
    pub free: &'a Resources,
    /// Only this framework is given anything of it: see [`plan`].
    pub kept_for: Option<&'a FrameworkId>,
}

/// What an agent is.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    pub host: &'a str,
    pub attrs: &'a BTreeMap<String, Attr>,
}

/// Agents that are all there; whoever makes the list orders it, as by [`in_order`].
impl Agents for Vec<AgentView<'_>> {
    fn count(&self) -> usize {
        self.len()
    }

    fn place(&self, at: usize) -> Place<'_> {
        self[at].place
    }

    fn about(&self, at: usize) -> About<'_> {
        self[at].about
    }
}

/// Orders agents by their ids and leaves out those of which nothing is free.
pub fn in_order(mut agents: Vec<AgentView<'_>>) -> Vec<AgentView<'_>> {
    agents.retain(|view| !view.place.free.is_empty());
    if !agents.is_sorted_by_key(|view| view.place.agent) {
        agents.sort_by_key(|view| view.place.agent);
    }
    agents
}

/// All that the allocator may know.
#[derive(Clone)]
pub struct Snapshot<'a> {
    /// How the next is chosen.
    pub rule: &'a Rule,
    /// What all agents of the cluster have together, also those of which nothing is free.
    pub total: Quantities,
    /// What is free on all agents of the cluster together.
    pub free: Quantities,
    /// The agents that may be given from and have something free.
    pub agents: &'a dyn Agents,
    /// Those that changed, by place and in rising order: whoever's wish is not new is shown only these. Without a list
    /// everybody is shown all.
    pub changed: Option<Vec<usize>>,
    /// The roles that somebody gave a policy; others have weight 1 and nothing else.
    pub roles: Vec<RoleView<'a>>,
    /// All frameworks that want or hold something, or are guaranteed something.
    pub frameworks: Vec<FrameworkView<'a>>,
    /// Whether it is of resources that others hold and do not use: see `revocable` in conditions.
    pub revocable: bool,
    /// Where in the order of agents to begin, modulo their number, as another one each time spreads the load; and where
    /// lots come from.
    pub seed: u64,
}

/// One agent.
#[derive(Clone, Copy, Debug)]
pub struct AgentView<'a> {
    pub place: Place<'a>,
    pub about: About<'a>,
}

/// The policy of one role.
#[derive(Clone, Debug)]
pub struct RoleView<'a> {
    pub role: &'a Role,
    /// Against its siblings; 1 by default, at most [`WEIGHT_MAX`] thousandths.
    pub weight: Milli,
    /// The higher is served first, by [`Rule::Priority`]; 0 by default.
    pub priority: i64,
    /// What is kept back for it while it holds less.
    pub guarantee: Option<&'a Quantities>,
    /// The most that it and its sub-roles may hold, by kind; a kind that is absent has no limit.
    pub limit: Option<&'a BTreeMap<String, Milli>>,
}

/// One framework.
#[derive(Clone, Debug)]
pub struct FrameworkView<'a> {
    pub framework: &'a FrameworkId,
    pub role: &'a Role,
    /// Against others of its role; 1 by default.
    pub weight: Milli,
    /// The higher is served first within the role, by [`Rule::Priority`]; 0 by default.
    pub priority: i64,
    /// As that of a role.
    pub guarantee: Option<&'a Quantities>,
    /// As that of a role.
    pub limit: Option<&'a BTreeMap<String, Milli>>,
    /// How often it was given something so far: among equals the one with fewer is next.
    pub served: u64,
    /// What it holds in the cluster, offered or used.
    pub used: Quantities,
    /// What it would launch; without, it is offered all that is left of an agent.
    pub demand: Option<Demand<'a>>,
    /// Only agents of which this holds, what is free there taken for the resources.
    pub condition: Option<&'a Condition>,
    /// Only the agent of this id or host name.
    pub on: Option<&'a str>,
    /// What it refused, agent by agent; whoever makes the snapshot has let the expired ones go.
    pub refused: Option<&'a Refused>,
    /// From how many agents it may be given something now.
    pub open: u32,
    /// It wants nothing now; what it holds still counts for its role.
    pub suppressed: bool,
    /// Its wish is new: it is shown every agent.
    pub is_new: bool,
}

/// A demand: so many tasks of one shape.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// One task's worth. One that asks for nothing is never served.
    pub request: &'a Request,
    /// How many more tasks it would launch beyond what it is offered already. With 0 it still says what its tasks are
    /// like, for what is guaranteed to it.
    pub count: u32,
}

/// Resources of one agent for one framework.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub framework: FrameworkId,
    pub role: Role,
    pub agent: AgentId,
    pub resources: Resources,
    /// How many tasks of the demand these are; 0 if there was none.
    pub tasks: u32,
}

/// One turn of a pass: who was served, where, with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub framework: FrameworkId,
    pub agent: AgentId,
    pub resources: Resources,
    /// The framework's share over its weight, before the turn: the dominant one, or that of the rule's resource.
    pub before: Share,
    /// The same after it.
    pub after: Share,
}

impl<'a> Snapshot<'a> {
    /// A snapshot of a cluster that is all there: the sums are taken over the agents.
    ///
    /// None if the agents have more than can be counted.
    pub fn of(rule: &'a Rule, agents: &'a Vec<AgentView<'a>>, roles: Vec<RoleView<'a>>, frameworks: Vec<FrameworkView<'a>>, seed: u64) -> Option<Snapshot<'a>> {
        let (mut total, mut free) = (Quantities::default(), Quantities::default());
        for view in agents {
            total.add(view.place.total)?;
            free.add(view.place.free)?;
        }
        Some(Snapshot { rule, total, free, agents, changed: None, roles, frameworks, revocable: false, seed })
    }
}

/// Says who is to be offered what, in the order in which it was decided.
///
/// There is at most one grant per framework and agent. On every agent the grants together are part of
/// what is free there, and no port is in two of them.
pub fn allocate(snapshot: &Snapshot<'_>) -> Vec<Grant> {
    passes(snapshot, None)
}

/// The same grants, and each turn on the way to them.
pub fn trace(snapshot: &Snapshot<'_>) -> (Vec<Grant>, Vec<Step>) {
    let mut steps = Vec::new();
    let grants = passes(snapshot, Some(&mut steps));
    (grants, steps)
}

/// Makes a pass, and makes it anew without those who would refuse what it came to.
fn passes(snapshot: &Snapshot<'_>, mut steps: Option<&mut Vec<Step>>) -> Vec<Grant> {
    let mut banned = BTreeSet::new();
    let mut grants = Vec::new();
    for _ in 0..PASSES_MAX {
        if let Some(steps) = &mut steps {
            steps.clear();
        }
        let mut pass = Pass::new(snapshot, &banned, steps.as_deref_mut());
        pass.run();
        grants = pass.grants;
        // A framework that was to get more than it refused, but was overtaken, ends with what it refused.
        let refused: Vec<(usize, usize)> = grants.iter().filter(|given| snapshot.refuses(given)).map(|given| (given.framework, given.agent)).collect();
        if refused.is_empty() {
            break;
        }
        banned.extend(refused);
    }
    grants.retain(|given| !snapshot.refuses(given));
    grants.into_iter().map(|given| snapshot.named(given)).collect()
}

impl Snapshot<'_> {
    /// Whether a grant that was put together task by task came to what was refused; a remainder is
    /// checked when it is found.
    fn refuses(&self, given: &Given) -> bool {
        given.tasks > 0 && self.frameworks[given.framework].refused.is_some_and(|refused| refused.covers(self.agents.place(given.agent).agent, &given.resources))
    }

    fn named(&self, given: Given) -> Grant {
        let framework = &self.frameworks[given.framework];
        Grant {
            framework: framework.framework.clone(),
            role: framework.role.clone(),
            agent: self.agents.place(given.agent).agent.clone(),
            resources: given.resources,
            tasks: given.tasks,
        }
    }
}

impl FrameworkView<'_> {
    /// Whether an agent is where the framework wants to be: the one it names, if it does, and its condition holds there.
    fn may_use(&self, place: Place<'_>, about: About<'_>) -> bool {
        let facts = Facts { resources: place.free, host: about.host, agent: place.agent.as_str(), role: self.role.as_str(), revocable: false, attrs: about.attrs };
        self.on.is_none_or(|on| on == place.agent.as_str() || on == about.host) && self.condition.is_none_or(|condition| condition.holds(&facts))
    }
}

/// The smallest remainder of an agent that Mesos offers, too.
pub fn is_worth_offering(free: &Resources) -> bool {
    free.cpus >= CPUS_MIN || free.mem >= MEM_MIN
}

#[cfg(test)]
mod tests;
