//! One pass over a snapshot: turn after turn, until nobody can be served

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::hold::Holds;
use super::share::thousandths;
use super::tree::{Tree, amount_of};
use super::{CPUS_MIN, MEM_MIN, Place, Snapshot, Step, TURNS_MAX, is_worth_offering};
use crate::condition::{Condition, Facts};
use crate::ledger::{Amounts, needs_of};
use crate::resources::{Milli, Request, Resources};
use crate::role::Role;

/// A grant before names: places in the snapshot.
pub(super) struct Given {
    pub(super) framework: usize,
    pub(super) agent: usize,
    pub(super) resources: Resources,
    pub(super) tasks: u32,
}

/// See the module.
pub(super) struct Pass<'s, 'a> {
    /// Where to note each turn, if somebody wants to know.
    steps: Option<&'s mut Vec<Step>>,
    snapshot: &'s Snapshot<'a>,
    /// Pairs of framework and agent that an earlier pass found to be refused.
    banned: &'s BTreeSet<(usize, usize)>,
    tree: Tree,
    quota_kinds: Vec<String>,
    rooms: Rooms<'a>,
    holds: Holds,
    shapes: Vec<Shape<'a>>,
    seekers: Vec<Seeker>,
    pub(super) grants: Vec<Given>,
}

/// What is left of the agents that were looked at.
struct Rooms<'a> {
    /// By an agent's place: where among `seen` it stands, from 1; 0 if it was not looked at.
    index: Vec<u32>,
    seen: Vec<Room<'a>>,
}

struct Room<'a> {
    place: Place<'a>,
    free: Cow<'a, Resources>,
}

/// What somebody looks for. Frameworks that look for the same thing share the search, so that an agent
/// which has no room for one of them is not asked for each of the others.
struct Shape<'a> {
    request: Option<&'a Request>,
    /// What it needs of the kinds that every agent has.
    needs: Option<Amounts>,
    condition: Option<&'a Condition>,
    /// Whose condition it is, as it may speak of the role.
    role: Option<&'a Role>,
    on: Option<&'a str>,
    /// Whether it is shown those agents only that changed.
    sees_changed: bool,
    /// How many agents of the order were looked at.
    looked: usize,
    /// Of these the ones that may fit still, the next one first. One that does not fit is dropped: within a pass
    /// nothing becomes free.
    again: VecDeque<usize>,
}

/// A framework that wants something.
#[derive(Clone, Default)]
struct Seeker {
    shape: usize,
    /// Where its grant of each agent stands among the grants.
    merged: BTreeMap<usize, usize>,
    /// How many more tasks; means nothing without a demand.
    tasks_left: u32,
    /// From how many more agents it may be given something.
    open: u32,
}

/// What became of looking at one agent.
enum Look {
    /// It has no room, and will have none within this pass.
    Never,
    /// Not for this framework now; for another, or for less, perhaps.
    NotNow,
    /// This part of it.
    Takes(Resources),
    /// All that is left of it.
    TakesAll,
}

impl<'s, 'a> Pass<'s, 'a> {
    pub(super) fn new(snapshot: &'s Snapshot<'a>, banned: &'s BTreeSet<(usize, usize)>, steps: Option<&'s mut Vec<Step>>) -> Self {
        let tree = Tree::new(snapshot);
        let mut pass = Pass {
            steps,
            snapshot,
            banned,
            quota_kinds: tree.quota_kinds().into_iter().collect(),
            tree,
            rooms: Rooms { index: Vec::new(), seen: Vec::new() },
            holds: Holds::default(),
            shapes: Vec::new(),
            seekers: vec![Seeker::default(); snapshot.frameworks.len()],
            grants: Vec::new(),
        };
        pass.gather();
        pass
    }

    /// Enters all who want something; without any, the agents are not even looked at.
    fn gather(&mut self) {
        let mut known: BTreeMap<Option<Amounts>, Vec<usize>> = BTreeMap::new();
        for (framework, view) in self.snapshot.frameworks.iter().enumerate() {
            let wants = view.open > 0 && view.demand.is_none_or(|demand| demand.count > 0 && !demand.request.is_empty());
            if view.suppressed || !wants {
                continue;
            }
            let request = view.demand.map(|demand| demand.request);
            let needs = request.map(needs_of);
            let alike = known.entry(needs).or_default();
            let role = view.condition.map(|_| view.role);
            let sees_changed = !view.is_new && self.snapshot.changed.is_some();
            let same = |&&shape: &&usize| {
                let shape: &Shape<'_> = &self.shapes[shape];
                shape.request == request && shape.condition == view.condition && shape.role == role && shape.on == view.on && shape.sees_changed == sees_changed
            };
            let shape = alike.iter().find(same).copied().unwrap_or_else(|| {
                alike.push(self.shapes.len());
                self.shapes.push(Shape { request, needs, condition: view.condition, role, on: view.on, sees_changed, looked: 0, again: VecDeque::new() });
                self.shapes.len() - 1
            });
            let tasks_left = view.demand.map_or(0, |demand| demand.count);
            self.seekers[framework] = Seeker { shape, merged: BTreeMap::new(), tasks_left, open: view.open };
            self.tree.open(framework);
        }
        if !self.shapes.is_empty() {
            self.rooms.index = vec![0; self.snapshot.agents.count()];
            self.holds = Holds::of(self.snapshot, &self.tree);
        }
    }

    pub(super) fn run(&mut self) {
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
        let request = self.shapes[self.seekers[framework].shape].request;
        if !self.has_quota(leaf, request) {
            return false;
        }
        let Some((agent, resources)) = self.find(leaf, framework, request) else {
            return false;
        };
        let before = self.tree.share(leaf);
        self.tree.grant(leaf, &resources);
        self.holds.granted(&self.tree, leaf, agent, &resources);
        if let Some(steps) = &mut self.steps {
            let names = (self.snapshot.frameworks[framework].framework.clone(), self.snapshot.agents.place(agent).agent.clone());
            steps.push(Step { framework: names.0, agent: names.1, resources: resources.clone(), before, after: self.tree.share(leaf) });
        }
        self.record(framework, agent, resources)
    }

    /// Whether limits, and what is kept back for others, leave it anything worth looking for.
    ///
    /// Neither gets wider within a pass: once no means for good.
    fn has_quota(&self, leaf: usize, request: Option<&Request>) -> bool {
        let Some(request) = request else {
            // Not even crumbs of cpus or memory would be allowed, on any agent.
            let below = |kind, least| self.tree.allowance(leaf, kind, u64::MAX) < thousandths(least);
            return self.quota_kinds.is_empty() || !(below("cpus", CPUS_MIN) && below("mem", MEM_MIN));
        };
        self.quota_kinds.iter().all(|kind| {
            let amount = amount_of_request(request, kind);
            self.tree.allowance(leaf, kind, amount) == amount
        })
    }

    /// The next agent with room for one more task, or of which something is left, and what of it that takes.
    fn find(&mut self, leaf: usize, framework: usize, request: Option<&Request>) -> Option<(usize, Resources)> {
        let shape = self.seekers[framework].shape;
        let (mut put_off, mut found) = (Vec::new(), None);
        while let Some(agent) = self.next_place(shape) {
            match self.look(leaf, framework, agent, request) {
                Look::Never => {}
                Look::NotNow => put_off.push(agent),
                Look::Takes(part) => {
                    self.withdraw(agent, &part);
                    // To the end, so that the next task goes elsewhere and the load spreads.
                    put_off.push(agent);
                    found = Some((agent, part));
                    break;
                }
                Look::TakesAll => {
                    let all = std::mem::replace(&mut self.room(agent).free, Cow::Owned(Resources::default()));
                    found = Some((agent, all.into_owned()));
                    break;
                }
            }
        }
        self.shapes[shape].again.extend(put_off);
        found
    }

    /// The next agent for a shape: first in the order, from the seed on, then those that may be used again.
    fn next_place(&mut self, shape: usize) -> Option<usize> {
        let shape = &mut self.shapes[shape];
        let only = self.snapshot.changed.as_ref().filter(|_| shape.sees_changed);
        let all = only.map_or(self.snapshot.agents.count(), Vec::len);
        let start = self.snapshot.seed.checked_rem(all as u64).unwrap_or_default() as usize;
        while shape.looked < all {
            let at = (start + shape.looked) % all;
            if let Some(only) = only {
                shape.looked += 1;
                return Some(only[at]);
            }
            // From the seed to the end, then from the beginning to the seed.
            let next = shape.needs.map_or(at, |needs| self.snapshot.agents.first_with(at, &needs));
            shape.looked += next - at;
            if next < all && shape.looked < all {
                shape.looked += 1;
                return Some(next);
            }
        }
        shape.again.pop_front()
    }

    fn look(&mut self, leaf: usize, framework: usize, agent: usize, request: Option<&Request>) -> Look {
        let shape = self.seekers[framework].shape;
        if let Some(on) = self.shapes[shape].on {
            if self.snapshot.agents.place(agent).agent.as_str() != on && self.snapshot.agents.about(agent).host != on {
                return Look::Never;
            }
        }
        let room = self.room(agent);
        let is_large_enough = match request {
            Some(request) => request.fits(&room.free),
            None => is_worth_offering(&room.free),
        };
        let is_kept = room.place.kept_for.is_some_and(|other| other != self.snapshot.frameworks[framework].framework);
        if !is_large_enough || !self.condition_holds(shape, framework, agent) {
            return Look::Never;
        }
        if is_kept {
            return Look::NotNow;
        }
        let is_new = !self.seekers[framework].merged.contains_key(&agent);
        // Who takes all there is takes it at once: what is let go of there later in the pass is for the next one.
        let had_all = !is_new && request.is_none();
        if had_all || is_new && self.seekers[framework].open == 0 {
            return Look::NotNow;
        }
        match request {
            Some(request) => self.look_for_task(leaf, framework, agent, request),
            None => self.look_for_remainder(leaf, framework, agent),
        }
    }

    fn look_for_task(&self, leaf: usize, framework: usize, agent: usize, request: &Request) -> Look {
        let free = self.free_for(leaf, agent);
        if !request.fits(&free) || self.refuses_tasks(framework, agent, request, &free) {
            return Look::NotNow;
        }
        Look::Takes(request.take(&free).expect("it fits"))
    }

    fn look_for_remainder(&self, leaf: usize, framework: usize, agent: usize) -> Look {
        let free = self.free_for(leaf, agent);
        let is_all = matches!(free, Cow::Borrowed(_));
        let part = self.within_quota(leaf, &free);
        let is_cut = part.is_some() || !is_all;
        let given = part.as_ref().unwrap_or(&free);
        if !is_worth_offering(given) || self.refuses(framework, agent, given) {
            return Look::NotNow;
        }
        if is_cut { Look::Takes(given.clone()) } else { Look::TakesAll }
    }

    fn room(&mut self, agent: usize) -> &mut Room<'a> {
        if self.rooms.index[agent] == 0 {
            let place = self.snapshot.agents.place(agent);
            self.rooms.seen.push(Room { free: Cow::Borrowed(place.free), place });
            self.rooms.index[agent] = u32::try_from(self.rooms.seen.len()).expect("fewer agents than that");
        }
        &mut self.rooms.seen[self.rooms.index[agent] as usize - 1]
    }

    /// An agent that was looked at.
    fn seen(&self, agent: usize) -> &Room<'a> {
        &self.rooms.seen[self.rooms.index[agent] as usize - 1]
    }

    /// What is left of an agent for one framework: without what is held there for others that are guaranteed it.
    fn free_for(&self, leaf: usize, agent: usize) -> Cow<'_, Resources> {
        let free = &self.seen(agent).free;
        self.holds.without(&self.tree, leaf, agent, free).map_or(Cow::Borrowed(&**free), Cow::Owned)
    }

    /// Takes what is given out of what is free.
    fn withdraw(&mut self, agent: usize, resources: &Resources) {
        let free = self.room(agent).free.to_mut();
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
        let seeker = &mut self.seekers[framework];
        if self.snapshot.frameworks[framework].demand.is_none() {
            seeker.merged.insert(agent, self.grants.len());
            self.grants.push(Given { framework, agent, resources, tasks: 0 });
            seeker.open -= 1;
            return seeker.open > 0;
        }
        match seeker.merged.get(&agent) {
            Some(&place) => {
                let given = &mut self.grants[place];
                given.resources = given.resources.checked_add(&resources).expect("both were free on the agent, and each apart");
                given.tasks += 1;
            }
            None => {
                seeker.merged.insert(agent, self.grants.len());
                seeker.open -= 1;
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
        let (room, about) = (self.seen(agent), self.snapshot.agents.about(agent));
        let role = self.snapshot.frameworks[framework].role.as_str();
        condition.holds(&Facts { resources: &room.free, host: about.host, agent: room.place.agent.as_str(), role, revocable: self.snapshot.revocable, attrs: about.attrs })
    }

    fn refuses(&self, framework: usize, agent: usize, resources: &Resources) -> bool {
        self.snapshot.frameworks[framework].refused.is_some_and(|refused| refused.covers(self.seen(agent).place.agent, resources))
    }

    /// Whether it refused as many tasks as it could get there now, or more.
    fn refuses_tasks(&self, framework: usize, agent: usize, request: &Request, free: &Resources) -> bool {
        if self.banned.contains(&(framework, agent)) {
            return true;
        }
        let place = self.seen(agent).place.agent;
        let Some(refused) = self.snapshot.frameworks[framework].refused.filter(|refused| refused.knows(place)) else {
            return false;
        };
        let room = request.room_in(free, self.seekers[framework].tasks_left.into());
        let most = request.times(room).and_then(|tasks| tasks.take(free));
        let before = self.seekers[framework].merged.get(&agent).map(|&place| &self.grants[place].resources);
        match (most, before) {
            (Some(most), Some(before)) => most.checked_add(before).is_some_and(|all| refused.covers(place, &all)),
            (Some(most), None) => refused.covers(place, &most),
            (None, _) => false,
        }
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

pub(super) fn amount_of_request(request: &Request, kind: &str) -> u64 {
    thousandths(match kind {
        "cpus" => request.cpus,
        "mem" => request.mem,
        "disk" => request.disk,
        "gpus" => request.gpus,
        _ => request.other.get(kind).copied().unwrap_or_default(),
    })
}

/// Lowers a kind to so many thousandths; gpus to whole ones.
pub(super) fn cut(resources: &mut Resources, kind: &str, thousandths: u64) {
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
