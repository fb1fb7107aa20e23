//! The allocator: one snapshot of the cluster in, grants out
//!
//! Weighted dominant resource fairness over the tree of roles and frameworks. It is one task's turn at
//! a time: whoever holds the smallest dominant share for its weight is served next. A framework that
//! declared its demand gets whole tasks' worth, spread over the agents; one that did not gets all that
//! is left of an agent, as in Mesos.
//!
//! Nothing here reads a clock or draws a number: the same snapshot gives the same grants.

mod share;
mod tree;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use share::{Share, WEIGHT_MAX};
use tree::{Tree, amount_of};

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

/// All that the allocator may know.
#[derive(Clone, Debug, Default)]
pub struct Snapshot<'a> {
    /// What all agents of the cluster have together, also those not in `agents`.
    pub total: Quantities,
    /// What is free on all agents of the cluster together.
    pub free: Quantities,
    /// The agents that may be given from, best in order of their ids.
    pub agents: Vec<AgentView<'a>>,
    /// The roles that somebody gave a policy; others have weight 1 and nothing else.
    pub roles: Vec<RoleView<'a>>,
    /// All frameworks that want or hold something.
    pub frameworks: Vec<FrameworkView<'a>>,
    /// Where in the order of agents to begin, modulo their number; another one each time spreads the load.
    pub seed: u64,
}

/// One agent.
#[derive(Clone, Debug)]
pub struct AgentView<'a> {
    pub agent: &'a AgentId,
    pub host: &'a str,
    pub total: &'a Resources,
    pub free: &'a Resources,
    pub attrs: &'a BTreeMap<String, Attr>,
}

/// The policy of one role.
#[derive(Clone, Debug)]
pub struct RoleView<'a> {
    pub role: &'a Role,
    /// Against its siblings; 1 by default, at most [`WEIGHT_MAX`] thousandths.
    pub weight: Milli,
    /// The higher is served first, whatever the shares; 0 by default.
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
    /// The higher is served first within the role; 0 by default.
    pub priority: i64,
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
    /// It wants nothing now; what it holds still counts for its role.
    pub suppressed: bool,
}

/// A demand: so many tasks of one shape.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// One task's worth. One that asks for nothing is never served.
    pub request: &'a Request,
    /// How many more tasks it would launch beyond what it is offered already.
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
    /// The framework's dominant share over its weight, before the turn.
    pub before: Share,
    /// The same after it.
    pub after: Share,
}

impl<'a> Snapshot<'a> {
    /// A snapshot of a cluster that is all there: the sums are taken over the agents.
    ///
    /// None if the agents have more than can be counted.
    pub fn of(agents: Vec<AgentView<'a>>, roles: Vec<RoleView<'a>>, frameworks: Vec<FrameworkView<'a>>, seed: u64) -> Option<Snapshot<'a>> {
        let (mut total, mut free) = (Quantities::default(), Quantities::default());
        for view in &agents {
            total.add(view.total)?;
            free.add(view.free)?;
        }
        Some(Snapshot { total, free, agents, roles, frameworks, seed })
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

/// A grant before names: places in the snapshot.
struct Given {
    framework: usize,
    agent: usize,
    resources: Resources,
    tasks: u32,
}

impl Snapshot<'_> {
    /// Whether a grant that was put together task by task came to what was refused; a remainder is
    /// checked when it is found.
    fn refuses(&self, given: &Given) -> bool {
        given.tasks > 0 && self.frameworks[given.framework].refused.is_some_and(|refused| refused.covers(self.agents[given.agent].agent, &given.resources))
    }

    fn named(&self, given: Given) -> Grant {
        let framework = &self.frameworks[given.framework];
        Grant {
            framework: framework.framework.clone(),
            role: framework.role.clone(),
            agent: self.agents[given.agent].agent.clone(),
            resources: given.resources,
            tasks: given.tasks,
        }
    }

    /// The agents with anything left to give, by place, in order of their ids from the seed on.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.agents.len()).collect();
        if !self.agents.is_sorted_by_key(|view| view.agent) {
            order.sort_by_key(|&agent| self.agents[agent].agent);
        }
        let start = self.seed.checked_rem(order.len() as u64).unwrap_or_default();
        order.rotate_left(start as usize);
        order.retain(|&agent| !self.agents[agent].free.is_empty());
        order
    }
}

/// One pass over the snapshot.
struct Pass<'s, 'a> {
    /// Where to note each turn, if somebody wants to know.
    steps: Option<&'s mut Vec<Step>>,
    snapshot: &'s Snapshot<'a>,
    /// Pairs of framework and agent that an earlier pass found to be refused.
    banned: &'s BTreeSet<(usize, usize)>,
    tree: Tree,
    quota_kinds: Vec<String>,
    /// What is left of each agent.
    free: Vec<Cow<'a, Resources>>,
    shapes: Vec<Shape<'a>>,
    seekers: Vec<Seeker>,
    grants: Vec<Given>,
}

/// What somebody looks for. Frameworks that look for the same thing share the search, so that an agent
/// which has no room for one of them is not asked for each of the others.
struct Shape<'a> {
    request: Option<&'a Request>,
    condition: Option<&'a Condition>,
    /// Whose condition it is, as it may speak of the role.
    role: Option<&'a Role>,
    on: Option<&'a str>,
    /// Agents that may fit, the next one first. An agent that does not is dropped: within a pass
    /// nothing becomes free.
    ring: VecDeque<usize>,
}

/// A framework that wants something.
#[derive(Clone, Default)]
struct Seeker {
    shape: usize,
    /// Where its grant of each agent stands among the grants; stays empty without a demand.
    merged: BTreeMap<usize, usize>,
    /// How many more tasks; means nothing without a demand.
    tasks_left: u32,
}

impl<'s, 'a> Pass<'s, 'a> {
    fn new(snapshot: &'s Snapshot<'a>, banned: &'s BTreeSet<(usize, usize)>, steps: Option<&'s mut Vec<Step>>) -> Self {
        let tree = Tree::new(snapshot);
        let mut pass = Pass {
            steps,
            snapshot,
            banned,
            quota_kinds: tree.quota_kinds().into_iter().collect(),
            tree,
            free: Vec::new(),
            shapes: Vec::new(),
            seekers: vec![Seeker::default(); snapshot.frameworks.len()],
            grants: Vec::new(),
        };
        pass.gather();
        pass
    }

    /// Enters all who want something; without any, the agents are not even looked at.
    fn gather(&mut self) {
        let mut known: BTreeMap<Option<[Milli; 4]>, Vec<usize>> = BTreeMap::new();
        for (framework, view) in self.snapshot.frameworks.iter().enumerate() {
            let wants = view.demand.is_none_or(|demand| demand.count > 0 && !demand.request.is_empty());
            if view.suppressed || !wants {
                continue;
            }
            let request = view.demand.map(|demand| demand.request);
            let alike = known.entry(request.map(|request| [request.cpus, request.mem, request.disk, request.gpus])).or_default();
            let role = view.condition.map(|_| view.role);
            let same = |&&shape: &&usize| {
                let shape: &Shape<'_> = &self.shapes[shape];
                shape.request == request && shape.condition == view.condition && shape.role == role && shape.on == view.on
            };
            let shape = alike.iter().find(same).copied().unwrap_or_else(|| {
                alike.push(self.shapes.len());
                self.shapes.push(Shape { request, condition: view.condition, role, on: view.on, ring: VecDeque::new() });
                self.shapes.len() - 1
            });
            self.seekers[framework] = Seeker { shape, merged: BTreeMap::new(), tasks_left: view.demand.map_or(0, |demand| demand.count) };
            self.tree.open(framework);
        }
        if self.shapes.is_empty() {
            return;
        }
        self.free = self.snapshot.agents.iter().map(|view| Cow::Borrowed(view.free)).collect();
        let order = self.snapshot.order();
        for shape in &mut self.shapes {
            let Some(on) = shape.on else {
                shape.ring = order.clone().into();
                continue;
            };
            let here = |&&agent: &&usize| self.snapshot.agents[agent].agent.as_str() == on || self.snapshot.agents[agent].host == on;
            shape.ring = order.iter().filter(here).copied().collect();
        }
    }

    fn run(&mut self) {
        for _ in 0..TURNS_MAX {
            let Some(leaf) = self.tree.next() else {
                return;
            };
            let wants_more = self.turn(leaf);
            self.tree.end_turn(leaf, wants_more);
        }
    }

    /// Serves one framework once; says whether it may want another turn.
    fn turn(&mut self, leaf: usize) -> bool {
        let framework = self.tree.framework(leaf);
        let found = match self.shapes[self.seekers[framework].shape].request {
            Some(request) => self.find_task(leaf, framework, request),
            None => self.find_remainder(leaf, framework),
        };
        let Some((agent, resources)) = found else {
            return false;
        };
        let before = self.tree.share(leaf);
        self.tree.grant(leaf, &resources);
        if let Some(steps) = &mut self.steps {
            let names = (self.snapshot.frameworks[framework].framework.clone(), self.snapshot.agents[agent].agent.clone());
            steps.push(Step { framework: names.0, agent: names.1, resources: resources.clone(), before, after: self.tree.share(leaf) });
        }
        self.record(framework, agent, resources)
    }

    /// An agent with room for one more task, and what of it that takes.
    fn find_task(&mut self, leaf: usize, framework: usize, request: &Request) -> Option<(usize, Resources)> {
        let whole = |kind: &String| {
            let amount = amount_of_request(request, kind);
            self.tree.allowance(leaf, kind, amount) == amount
        };
        // Neither a limit nor what is kept back for others gets wider within a pass: once means for good.
        if !self.quota_kinds.iter().all(whole) {
            return None;
        }
        let shape = self.seekers[framework].shape;
        for _ in 0..self.shapes[shape].ring.len() {
            let agent = self.shapes[shape].ring.pop_front()?;
            if !request.fits(&self.free[agent]) || !self.condition_holds(shape, framework, agent) {
                continue;
            }
            // To the end of the ring, so that the next task goes elsewhere and the load spreads.
            self.shapes[shape].ring.push_back(agent);
            if !self.refuses_tasks(framework, agent, request) {
                let taken = request.take(&self.free[agent]).expect("it fits");
                self.withdraw(agent, &taken);
                return Some((agent, taken));
            }
        }
        None
    }

    /// An agent of which something worth an offer is left, and that remainder.
    fn find_remainder(&mut self, leaf: usize, framework: usize) -> Option<(usize, Resources)> {
        if self.has_no_quota_left(leaf) {
            return None;
        }
        let shape = self.seekers[framework].shape;
        for _ in 0..self.shapes[shape].ring.len() {
            let agent = self.shapes[shape].ring.pop_front()?;
            if !is_worth_offering(&self.free[agent]) || !self.condition_holds(shape, framework, agent) {
                continue;
            }
            let part = self.within_quota(leaf, &self.free[agent]);
            if !is_worth_offering(part.as_ref().unwrap_or(&self.free[agent])) || self.refuses(framework, agent, part.as_ref().unwrap_or(&self.free[agent])) {
                self.shapes[shape].ring.push_back(agent);
                continue;
            }
            let Some(part) = part else {
                let all = std::mem::replace(&mut self.free[agent], Cow::Owned(Resources::default()));
                return Some((agent, all.into_owned()));
            };
            self.withdraw(agent, &part);
            self.shapes[shape].ring.push_back(agent);
            return Some((agent, part));
        }
        None
    }

    /// Takes what is given out of what is free.
    fn withdraw(&mut self, agent: usize, resources: &Resources) {
        let free = self.free[agent].to_mut();
        if resources.ports.is_empty() && resources.other.is_empty() {
            // By far the most common task, and most turns of a pass: spare the copy of the rest.
            for (have, part) in [(&mut free.cpus, resources.cpus), (&mut free.mem, resources.mem), (&mut free.disk, resources.disk), (&mut free.gpus, resources.gpus)] {
                *have = have.checked_sub(part).expect(WAS_FREE);
            }
        } else {
            *free = free.checked_sub(resources).expect(WAS_FREE);
        }
    }

    /// Notes what was given; says whether the framework may want more.
    fn record(&mut self, framework: usize, agent: usize, resources: Resources) -> bool {
        if self.snapshot.frameworks[framework].demand.is_none() {
            self.grants.push(Given { framework, agent, resources, tasks: 0 });
            return true;
        }
        let seeker = &mut self.seekers[framework];
        match seeker.merged.get(&agent) {
            Some(&place) => {
                let given = &mut self.grants[place];
                given.resources = given.resources.checked_add(&resources).expect("both were free on the agent, and each apart");
                given.tasks += 1;
            }
            None => {
                seeker.merged.insert(agent, self.grants.len());
                self.grants.push(Given { framework, agent, resources, tasks: 1 });
            }
        }
        seeker.tasks_left -= 1;
        seeker.tasks_left > 0
    }

    fn condition_holds(&self, shape: usize, framework: usize, agent: usize) -> bool {
        let Some(condition) = self.shapes[shape].condition else {
            return true;
        };
        let view = &self.snapshot.agents[agent];
        let role = self.snapshot.frameworks[framework].role.as_str();
        condition.holds(&Facts { resources: &self.free[agent], host: view.host, agent: view.agent.as_str(), role, revocable: false, attrs: view.attrs })
    }

    fn refuses(&self, framework: usize, agent: usize, resources: &Resources) -> bool {
        self.snapshot.frameworks[framework].refused.is_some_and(|refused| refused.covers(self.snapshot.agents[agent].agent, resources))
    }

    /// Whether it refused as many tasks as it could get there now, or more.
    fn refuses_tasks(&self, framework: usize, agent: usize, request: &Request) -> bool {
        if self.banned.contains(&(framework, agent)) {
            return true;
        }
        let Some(refused) = self.snapshot.frameworks[framework].refused.filter(|refused| refused.knows(self.snapshot.agents[agent].agent)) else {
            return false;
        };
        let room = request.room_in(&self.free[agent], self.seekers[framework].tasks_left.into());
        let most = request.times(room).and_then(|tasks| tasks.take(&self.free[agent]));
        let before = self.seekers[framework].merged.get(&agent).map(|&place| &self.grants[place].resources);
        match (most, before) {
            (Some(most), Some(before)) => most.checked_add(before).is_some_and(|all| refused.covers(self.snapshot.agents[agent].agent, &all)),
            (Some(most), None) => refused.covers(self.snapshot.agents[agent].agent, &most),
            (None, _) => false,
        }
    }

    /// Whether not even crumbs of cpus or memory would be allowed, on any agent.
    fn has_no_quota_left(&self, leaf: usize) -> bool {
        let below = |kind, least| self.tree.allowance(leaf, kind, u64::MAX) < share::thousandths(least);
        !self.quota_kinds.is_empty() && below("cpus", CPUS_MIN) && below("mem", MEM_MIN)
    }

    /// The part of what is free that limits and guarantees let the framework have; none if all of it.
    fn within_quota(&self, leaf: usize, free: &Resources) -> Option<Resources> {
        let mut part: Option<Resources> = None;
        for kind in &self.quota_kinds {
            let have = amount_of(free, kind);
            let allowed = self.tree.allowance(leaf, kind, have);
            if allowed < have {
                cut(part.get_or_insert_with(|| free.clone()), kind, allowed);
            }
        }
        part
    }
}

const WAS_FREE: &str = "what is given was found in what is free";

/// The smallest remainder of an agent that Mesos offers, too.
fn is_worth_offering(free: &Resources) -> bool {
    free.cpus >= CPUS_MIN || free.mem >= MEM_MIN
}

fn amount_of_request(request: &Request, kind: &str) -> u64 {
    share::thousandths(match kind {
        "cpus" => request.cpus,
        "mem" => request.mem,
        "disk" => request.disk,
        "gpus" => request.gpus,
        _ => request.other.get(kind).copied().unwrap_or_default(),
    })
}

/// Lowers a kind to so many thousandths; gpus to whole ones.
fn cut(resources: &mut Resources, kind: &str, thousandths: u64) {
    let amount = i64::try_from(thousandths).ok().and_then(Milli::from_milli).expect("less than there was");
    match kind {
        "cpus" => resources.cpus = amount,
        "mem" => resources.mem = amount,
        "disk" => resources.disk = amount,
        "gpus" => resources.gpus = Milli::units(amount.whole_units()),
        _ if amount.is_zero() => drop(resources.other.remove(kind)),
        _ => drop(resources.other.insert(kind.to_owned(), amount)),
    }
}

#[cfg(test)]
mod tests;
