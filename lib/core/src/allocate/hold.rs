//! What is held on single agents so that what is guaranteed can be used
//!
//! A guarantee of so many cpus is worth nothing to somebody whose tasks need four at once if what is kept back is one
//! cpu on each of four agents. Where the tasks of a guaranteed role or framework are known, whole tasks' worth of what
//! it lacks is therefore held agent by agent, in order of their ids. What is over, and what nobody's tasks are known
//! of, is kept back by its sum alone (see [`super::tree`]).

use super::pass::amount_of_request;
use super::tree::Tree;
use super::{FrameworkView, Snapshot};
use crate::resources::{Request, Resources};

/// See the module.
#[derive(Default)]
pub(super) struct Holds(Vec<Hold>);

/// So many tasks' worth of one agent for whoever is below one node of the tree.
struct Hold {
    node: usize,
    agent: usize,
    request: Request,
    tasks: u64,
}

impl Holds {
    /// Chooses the agents, before anybody is served.
    pub(super) fn of(snapshot: &Snapshot<'_>, tree: &Tree) -> Holds {
        let mut holds = Holds::default();
        for node in tree.lacking() {
            let tasks_of = |framework: &&FrameworkView<'_>| framework.demand.is_some_and(|demand| !demand.request.is_empty());
            let below: Vec<&FrameworkView<'_>> = tree.frameworks_below(node).map(|framework| &snapshot.frameworks[framework]).filter(tasks_of).collect();
            // Whoever wants something now comes first, then by name.
            let Some(framework) = below.iter().min_by_key(|view| (view.suppressed, view.framework)) else { continue };
            holds.hold(snapshot, tree, node, framework);
        }
        holds
    }

    fn hold(&mut self, snapshot: &Snapshot<'_>, tree: &Tree, node: usize, framework: &FrameworkView<'_>) {
        let Some(request) = framework.demand.map(|demand| demand.request) else { return };
        let held_below = |kind: &str| -> u64 {
            let within = self.0.iter().filter(|hold| tree.is_within(hold.node, node));
            within.map(|hold| amount_of_request(&hold.request, kind).saturating_mul(hold.tasks)).fold(0, u64::saturating_add)
        };
        let lacks = tree.lacks(node).filter_map(|(kind, lack)| lack.saturating_sub(held_below(kind)).checked_div(amount_of_request(request, kind)));
        let Some(mut left) = lacks.min() else { return };
        for agent in 0..snapshot.agents.count() {
            if left == 0 {
                return;
            }
            let place = snapshot.agents.place(agent);
            if !request.fits(place.free) || place.kept_for.is_some_and(|other| other != framework.framework) || !framework.may_use(place, snapshot.agents.about(agent)) {
                continue;
            }
            let rest = self.taken(agent, place.free, |_| true);
            let tasks = request.room_in(rest.as_ref().unwrap_or(place.free), left);
            if tasks > 0 {
                self.0.push(Hold { node, agent, request: request.clone(), tasks });
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

    /// Somebody was given a task's worth: as much less is to be held for it, best where it got it.
    pub(super) fn granted(&mut self, tree: &Tree, leaf: usize, agent: usize) {
        let mut mine = self.0.iter_mut().filter(|hold| hold.tasks > 0 && tree.is_within(leaf, hold.node)).collect::<Vec<_>>();
        let place = mine.iter().position(|hold| hold.agent == agent).unwrap_or(0);
        if let Some(hold) = mine.get_mut(place) {
            hold.tasks -= 1;
        }
    }
}
