//! What is held on single agents so that what is guaranteed can be used
//!
//! A guarantee of so many cpus is worth nothing to somebody whose tasks need four at once if what is kept back is one
//! cpu on each of four agents. Where the tasks of a guaranteed role or framework are known, whole tasks' worth of what
//! it lacks is therefore held agent by agent, in order of their ids. What is over, and what nobody's tasks are known
//! of, is kept back by its sum alone (see [`super::tree`]).

use super::pass::amount_of_request;
use super::tree::Tree;
use super::{FrameworkView, Snapshot};
use crate::id::{AgentId, FrameworkId};
use crate::ledger::needs_of;
use crate::resources::{Request, Resources};
use crate::role::Role;

/// See the module.
#[derive(Default)]
pub(super) struct Holds(Vec<Hold>);

/// So many tasks' worth of one agent for whoever is below one node of the tree.
struct Hold {
    node: usize,
    /// Whose tasks it is made for, by its place in the snapshot.
    framework: usize,
    agent: usize,
    request: Request,
    tasks: u64,
}

/// A part of an agent that is held for what somebody is guaranteed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldFor {
    pub agent: AgentId,
    /// Whose tasks it is made for.
    pub framework: FrameworkId,
    /// How many of them.
    pub tasks: u64,
    pub resources: Resources,
}

/// What is held of single agents for others than one framework, or than those of one role; in order of the agents.
pub fn held_from(snapshot: &Snapshot<'_>, seeker: Option<&FrameworkId>, role: &Role) -> Vec<HeldFor> {
    let tree = Tree::new(snapshot);
    let leaf = snapshot.frameworks.iter().position(|view| seeker == Some(view.framework)).map(|framework| tree.leaf_of(framework));
    let place = leaf.or_else(|| tree.roles().find(|(path, _)| *path == role.as_str()).map(|(_, node)| node));
    let holds = Holds::of(snapshot, &tree).0.into_iter().filter(|hold| place.is_none_or(|place| !tree.is_within(place, hold.node)));
    let mut held: Vec<HeldFor> = holds
        .filter_map(|hold| {
            let agent = snapshot.agents.place(hold.agent);
            let resources = hold.request.times(hold.tasks)?.take(agent.free)?;
            Some(HeldFor { agent: agent.agent.clone(), framework: snapshot.frameworks[hold.framework].framework.clone(), tasks: hold.tasks, resources })
        })
        .collect();
    held.sort_by(|one, other| one.agent.cmp(&other.agent));
    held
}

impl Holds {
    /// Chooses the agents, before anybody is served.
    pub(super) fn of(snapshot: &Snapshot<'_>, tree: &Tree) -> Holds {
        let mut holds = Holds::default();
        for node in tree.lacking() {
            let tasks_of = |framework: &&FrameworkView<'_>| framework.demand.is_some_and(|demand| !demand.request.is_empty());
            let below = tree.frameworks_below(node).filter(|framework| tasks_of(&&snapshot.frameworks[*framework]));
            // Whoever wants something now comes first, then by name.
            let first = below.min_by_key(|framework| (snapshot.frameworks[*framework].suppressed, snapshot.frameworks[*framework].framework));
            let Some(framework) = first else { continue };
            holds.hold(snapshot, tree, node, framework);
        }
        holds
    }

    fn hold(&mut self, snapshot: &Snapshot<'_>, tree: &Tree, node: usize, framework: usize) {
        let view = &snapshot.frameworks[framework];
        let Some(request) = view.demand.map(|demand| demand.request) else { return };
        let held_below = |kind: &str| -> u64 {
            let within = self.0.iter().filter(|hold| tree.is_within(hold.node, node));
            within.map(|hold| amount_of_request(&hold.request, kind).saturating_mul(hold.tasks)).fold(0, u64::saturating_add)
        };
        let lacks = tree.lacks(node).filter_map(|(kind, lack)| lack.saturating_sub(held_below(kind)).checked_div(amount_of_request(request, kind)));
        let Some(mut left) = lacks.min() else { return };
        let needs = needs_of(request);
        let mut next = 0;
        while left > 0 {
            let agent = snapshot.agents.first_with(next, &needs);
            if agent >= snapshot.agents.count() {
                return;
            }
            next = agent + 1;
            let place = snapshot.agents.place(agent);
            if !request.fits(place.free) || place.kept_for.is_some_and(|other| other != view.framework) || !view.may_use(place, snapshot.agents.about(agent)) {
                continue;
            }
            let rest = self.taken(agent, place.free, |_| true);
            let tasks = request.room_in(rest.as_ref().unwrap_or(place.free), left);
            if tasks > 0 {
                self.0.push(Hold { node, framework, agent, request: request.clone(), tasks });
                left -= tasks;
            }
        }
    }

    /// What is left of an agent for a leaf without what is held there for others; none if that is all.
    pub(super) fn without(&self, tree: &Tree, leaf: usize, agent: usize, free: &Resources) -> Option<Resources> {
        if self.0.is_empty() {
            return None;
        }
        self.taken(agent, free, |node| !tree.is_within(leaf, node))
    }

    fn taken(&self, agent: usize, free: &Resources, is_others: impl Fn(usize) -> bool) -> Option<Resources> {
        let mut rest: Option<Resources> = None;
        for hold in self.0.iter().filter(|hold| hold.agent == agent && hold.tasks > 0 && is_others(hold.node)) {
            let left = rest.as_ref().unwrap_or(free);
            // Somebody it is held for may have taken it in another form.
            let tasks = hold.request.room_in(left, hold.tasks);
            let held = hold.request.times(tasks).and_then(|all| all.take(left));
            if let Some(less) = held.and_then(|held| left.checked_sub(&held)) {
                rest = Some(less);
            }
        }
        rest
    }

    /// Somebody was given something: as many tasks as that has room for need no longer be held for it, best where it got it.
    pub(super) fn granted(&mut self, tree: &Tree, leaf: usize, agent: usize, given: &Resources) {
        let mut mine = self.0.iter_mut().filter(|hold| hold.tasks > 0 && tree.is_within(leaf, hold.node)).collect::<Vec<_>>();
        let place = mine.iter().position(|hold| hold.agent == agent).unwrap_or(0);
        if let Some(hold) = mine.get_mut(place) {
            hold.tasks -= hold.request.room_in(given, hold.tasks);
        }
    }
}
