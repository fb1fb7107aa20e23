//! What is done for a framework that wants something and to which nothing comes
//!
//! Tasks end by themselves, but small ones are replaced by small ones, and a large task may wait for ever for room
//! enough on one agent. So one agent is chosen and *kept for* the framework: nobody else is given anything of it, what
//! ends there adds up, and in time the task fits. Of all agents it is the one on which the least is missing; as the
//! others take nothing there, what is missing on the best one never grows, so the choice only gets better.
//!
//! Where tasks may be revoked it goes faster: those that are on revocable resources end at once, and then, newest first,
//! those of frameworks that hold more than their fair share, for one that holds less than its own or than it is
//! guaranteed. No more of them than make the room; none that would bring anybody below its guarantee, counted anew after
//! each; and none that would only turn the tables: either the starving does not come above its fair share by it, or it
//! still holds less for its share than the victim afterwards.

use std::collections::BTreeMap;

use super::fair::{Standing, of_nodes};
use super::pass::amount_of_request;
use super::share::Tally;
use super::tree::{ROOT, Tree, amount_of};
use super::{AgentView, CPUS_MIN, Place, Snapshot};
use crate::id::{AgentId, OfferId, TaskId};
use crate::resources::{Request, Resources};

/// Somebody's part of an agent.
#[derive(Clone, Debug)]
pub struct Tenant<'a> {
    /// What it is.
    pub kind: TenantKind<'a>,
    /// Whose, by the place in the snapshot.
    pub framework: usize,
    /// What it holds there.
    pub resources: &'a Resources,
    /// The higher came later.
    pub age: u64,
    /// May be ended at once when others need the room.
    pub revocable: bool,
    /// On its way out already.
    pub ending: bool,
}

/// What holds a part of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TenantKind<'a> {
    /// An offer: taken back without harm.
    Offer(&'a OfferId),
    /// A task.
    Task(&'a TaskId),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The agent to be kept for the starving.
    pub agent: AgentId,
    /// Offers to be taken back.
    pub offers: Vec<OfferId>,
    /// Tasks to be revoked, those on revocable resources apart: these get no notice.
    pub tasks: Vec<TaskId>,
    /// Tasks on revocable resources, to be ended at once.
    pub revocable: Vec<TaskId>,
    /// What will still be missing there after all of these have gone, in millionths of what the task needs of the kind
    /// that is missing most; 0 if it fits.
    pub missing_ppm: u64,
}

/// Chooses for one framework of the snapshot among agents and those who hold them; none if there is no agent on which
/// it could ever fit, or if it may claim nothing.
///
/// With `may_revoke`, also tasks that are not on revocable resources may have to go.
pub fn plan(snapshot: &Snapshot<'_>, starving: usize, places: &[(AgentView<'_>, Vec<Tenant<'_>>)], may_revoke: bool) -> Option<Plan> {
    let tree = Tree::new(snapshot);
    let search = Search { snapshot, standings: of_nodes(snapshot, &tree), tree: &tree, starving, request: wanted(snapshot, starving), may_revoke };
    let best = places.iter().filter_map(|(view, tenants)| search.on(view, tenants)).min_by(|one, other| one.0.cmp(&other.0))?;
    let (cost, plan) = best;
    // Room that comes by itself is worth waiting for only to those who have a claim to more.
    (cost.missing_ppm == 0 || search.is_entitled()).then_some(plan)
}

/// What one task needs; of a framework that does not say, the least that is worth an offer.
fn wanted(snapshot: &Snapshot<'_>, framework: usize) -> Request {
    let demand = snapshot.frameworks[framework].demand.filter(|demand| !demand.request.is_empty());
    demand.map_or_else(|| Request { cpus: CPUS_MIN, ..Request::default() }, |demand| demand.request.clone())
}

/// What an agent costs; the least is best.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost<'a> {
    missing_ppm: u64,
    tasks: usize,
    revocable: usize,
    /// The part of the cluster that the tasks hold.
    share_ppm: u64,
    agent: &'a AgentId,
}

struct Search<'s, 'a> {
    snapshot: &'s Snapshot<'a>,
    tree: &'s Tree,
    standings: Vec<Standing>,
    starving: usize,
    request: Request,
    may_revoke: bool,
}

impl Search<'_, '_> {
    /// The cheapest way to make room on one agent, or to wait for it.
    fn on<'v>(&self, view: &AgentView<'v>, tenants: &[Tenant<'_>]) -> Option<(Cost<'v>, Plan)> {
        let (place, about) = (view.place, view.about);
        let framework = &self.snapshot.frameworks[self.starving];
        let is_wrong = place.kept_for.is_some_and(|other| other != framework.framework)
            || framework.on.is_some_and(|on| on != place.agent.as_str() && on != about.host)
            || !self.request.fits(place.total)
            || framework.refused.is_some_and(|refused| refused.knows(place.agent));
        if is_wrong {
            return None;
        }
        let mut gone = Gone { room: place.free.clone(), taken: Vec::new(), less: BTreeMap::new() };
        for tenant in tenants.iter().filter(|tenant| tenant.ending) {
            self.let_go(tenant, &mut gone);
        }
        let mut order: Vec<&Tenant<'_>> = tenants.iter().filter(|tenant| !tenant.ending).collect();
        order.sort_by_key(|tenant| (self.class(tenant), std::cmp::Reverse(self.excess(tenant.framework)), std::cmp::Reverse(tenant.age), tenant.kind));
        for tenant in order {
            if self.request.fits(&gone.room) {
                break;
            }
            if self.may_go(tenant, &gone) {
                self.take(tenant, &mut gone);
            }
        }
        let missing_ppm = self.missing(&gone.room);
        if missing_ppm == 0 {
            self.spare_the_needless(&mut gone);
            let comes = tenants.iter().any(|tenant| tenant.ending) || !gone.taken.is_empty();
            // What is there already is withheld for a reason, and so would be what others give up for it.
            if !comes || !self.is_within_quota(&gone) {
                return None;
            }
        } else {
            // It cannot be had by force: what ends by itself has to be waited for, and nobody is hurt for nothing.
            gone.taken.clear();
            gone.less.clear();
            if !self.is_below_limits(&gone) {
                return None;
            }
        }
        // What is free is in conditions too: as it would be then, or as it could be at best.
        let resources = if missing_ppm == 0 { &gone.room } else { place.total };
        if !framework.may_use(Place { free: resources, ..place }, about) {
            return None;
        }
        let missing_ppm = if missing_ppm > 0 { self.missing(&ending_room(place, tenants)) } else { 0 };
        let mut plan = Plan { agent: place.agent.clone(), offers: Vec::new(), tasks: Vec::new(), revocable: Vec::new(), missing_ppm };
        let mut share_ppm = 0;
        for tenant in &gone.taken {
            match tenant.kind {
                TenantKind::Offer(offer) => plan.offers.push(offer.clone()),
                TenantKind::Task(task) if tenant.revocable => plan.revocable.push(task.clone()),
                TenantKind::Task(task) => plan.tasks.push(task.clone()),
            }
            let mut tally = Tally::default();
            tally.add(tenant.resources);
            share_ppm += tally.share(&self.tree.total, 1000).ppm();
        }
        Some((Cost { missing_ppm, tasks: plan.tasks.len(), revocable: plan.revocable.len(), share_ppm, agent: place.agent }, plan))
    }

    /// Whether limits, and what is kept back for others, would let the starving have a task once those have gone.
    fn is_within_quota(&self, gone: &Gone<'_>) -> bool {
        let leaf = self.tree.leaves[self.starving];
        let leaves_what_is_promised = self.tree.kinds.iter().enumerate().all(|(place, kind)| {
            let amount = amount_of_request(&self.request, kind);
            let free = i128::from(self.tree.free_of(place)) + i128::from(gone.amount(ROOT, kind));
            // As the pass itself counts: no less than before may be free for what is promised.
            let short = |given: u64| i128::from(self.tree.kept_back_after(leaf, place, given)) - (free - i128::from(given));
            amount == 0 || short(amount) <= short(0).max(0)
        });
        leaves_what_is_promised && self.is_below_limits(gone)
    }

    fn is_below_limits(&self, gone: &Gone<'_>) -> bool {
        std::iter::successors(Some(self.tree.leaves[self.starving]), |&at| self.tree.nodes[at].parent).all(|node| {
            let one = &self.tree.nodes[node];
            one.limit.iter().all(|(kind, limit)| {
                let amount = amount_of_request(&self.request, kind);
                amount == 0 || one.held.get(kind).saturating_sub(gone.amount(node, kind)).saturating_add(amount) <= *limit
            })
        })
    }

    /// In which order tenants go: what harms nobody first.
    fn class(&self, tenant: &Tenant<'_>) -> u8 {
        match tenant.kind {
            TenantKind::Offer(_) => 0,
            TenantKind::Task(_) if tenant.revocable => 1,
            TenantKind::Task(_) => 2,
        }
    }

    /// How far a framework is above its fair share, in millionths of it.
    fn excess(&self, framework: usize) -> u64 {
        let standing = self.standings[self.tree.leaves[framework]];
        (u128::from(standing.share_ppm) * 1_000_000).checked_div(u128::from(standing.fair_ppm)).map_or(u64::MAX, |excess| u64::try_from(excess).unwrap_or(u64::MAX))
    }

    /// Whether the starving holds less than it is guaranteed, or than its fair share, it and all above it.
    fn is_entitled(&self) -> bool {
        let leaf = self.tree.leaves[self.starving];
        self.is_guaranteed_more(leaf) || self.standings[leaf].is_under()
    }

    fn is_guaranteed_more(&self, leaf: usize) -> bool {
        let mut above = std::iter::successors(Some(leaf), |&at| self.tree.nodes[at].parent);
        above.any(|node| self.own_lack(node, &self.tree.nodes[node].held))
    }

    /// Whether somebody who holds this lacks some of what the node itself is guaranteed and the starving asks for.
    fn own_lack(&self, node: usize, held: &Tally) -> bool {
        let kinds = self.tree.kinds.iter().zip(&self.tree.nodes[node].guarantee);
        let mut asked = kinds.filter(|(kind, _)| amount_of_request(&self.request, kind) > 0);
        asked.any(|(kind, guarantee)| held.get(kind) < guarantee.amount)
    }

    /// Whether a tenant may have to make room, after those that are gone already.
    fn may_go(&self, tenant: &Tenant<'_>, gone: &Gone<'_>) -> bool {
        let is_harmless = matches!(tenant.kind, TenantKind::Offer(_)) || tenant.revocable;
        if tenant.framework == self.starving {
            // Its own offers were not enough, and its own tasks are what it wants more of.
            return tenant.revocable && matches!(tenant.kind, TenantKind::Task(_));
        }
        if is_harmless && tenant.revocable {
            return true;
        }
        if matches!(tenant.kind, TenantKind::Offer(_)) {
            return self.is_entitled() && self.standings[self.tree.leaves[tenant.framework]].is_over();
        }
        self.may_revoke && self.may_revoke_of(tenant, gone)
    }

    fn may_revoke_of(&self, tenant: &Tenant<'_>, gone: &Gone<'_>) -> bool {
        let (leaf, other) = (self.tree.leaves[self.starving], self.tree.leaves[tenant.framework]);
        let mine: Vec<usize> = std::iter::successors(Some(leaf), |&at| self.tree.nodes[at].parent).collect();
        let theirs: Vec<usize> = std::iter::successors(Some(other), |&at| self.tree.nodes[at].parent).take_while(|node| !mine.contains(node)).collect();
        let mine: Vec<usize> = mine.into_iter().take_while(|&node| !self.tree.is_within(other, node)).collect();
        let is_promised = mine.iter().any(|&node| self.own_lack(node, &self.tree.nodes[node].held));
        let after = |node: usize| {
            let mut held = self.tree.nodes[node].held.clone();
            gone.less.get(&node).iter().for_each(|less| held.sub(less));
            held.sub(tenant.resources);
            held
        };
        let keeps_guarantee = theirs.iter().all(|&node| {
            let held = after(node);
            self.tree.kinds.iter().zip(&self.tree.nodes[node].guarantee).all(|(kind, guarantee)| held.get(kind) >= guarantee.amount || amount_of(tenant.resources, kind) == 0)
        });
        if !keeps_guarantee {
            return false;
        }
        if is_promised {
            return true;
        }
        let is_under = mine.iter().all(|&node| self.standings[node].is_under());
        let is_over = theirs.iter().all(|&node| {
            let held = held_before(&self.tree.nodes[node].held, gone.less.get(&node));
            held.share(&self.tree.total, 1000).ppm() > self.standings[node].fair_ppm
        });
        is_under && is_over && mine.iter().zip(theirs.iter()).all(|(&node, &theirs)| self.is_no_mere_turn(node, theirs, &after(theirs)))
    }

    /// Whether the starving would not just become the next victim.
    fn is_no_mere_turn(&self, mine: usize, theirs: usize, they_hold: &Tally) -> bool {
        let mut held = self.tree.nodes[mine].held.clone();
        held.add_times(&self.request, 1);
        let (mine_ppm, their_ppm) = (held.share(&self.tree.total, 1000).ppm(), they_hold.share(&self.tree.total, 1000).ppm());
        let (my_fair, their_fair) = (self.standings[mine].fair_ppm, self.standings[theirs].fair_ppm);
        mine_ppm <= my_fair || u128::from(their_ppm) * u128::from(my_fair) >= u128::from(mine_ppm) * u128::from(their_fair)
    }

    fn take<'t>(&self, tenant: &'t Tenant<'t>, gone: &mut Gone<'t>) {
        self.let_go(tenant, gone);
        gone.taken.push(tenant);
    }

    fn let_go(&self, tenant: &Tenant<'_>, gone: &mut Gone<'_>) {
        gone.frees(tenant.resources);
        for node in std::iter::successors(Some(self.tree.leaves[tenant.framework]), |&at| self.tree.nodes[at].parent) {
            let less = gone.less.entry(node).or_default();
            *less = less.checked_add(&without_ports(tenant.resources)).unwrap_or_default();
        }
    }

    /// Lets those stay without whom there is room enough, the largest class of harm first.
    fn spare_the_needless(&self, gone: &mut Gone<'_>) {
        for place in (0..gone.taken.len()).rev() {
            let Some(room) = gone.room.checked_sub(gone.taken[place].resources) else { continue };
            if self.request.fits(&room) {
                gone.room = room;
                let tenant = gone.taken.remove(place);
                for node in std::iter::successors(Some(self.tree.leaves[tenant.framework]), |&at| self.tree.nodes[at].parent) {
                    let less = gone.less.entry(node).or_default();
                    *less = less.checked_sub(&without_ports(tenant.resources)).unwrap_or_default();
                }
            }
        }
    }

    /// What is missing for one task, in millionths of what it needs of the kind that is missing most.
    fn missing(&self, room: &Resources) -> u64 {
        if self.request.fits(room) {
            return 0;
        }
        let kinds = ["cpus", "mem", "disk", "gpus"].into_iter().chain(self.request.other.keys().map(String::as_str));
        let most = kinds.filter_map(|kind| {
            let (need, have) = (amount_of_request(&self.request, kind), amount_of(room, kind));
            (u128::from(need.saturating_sub(have)) * 1_000_000).checked_div(u128::from(need)).map(|part| part as u64)
        });
        // If none of these is missing, it is ports.
        most.max().filter(|part| *part > 0).unwrap_or(1)
    }
}

/// What is free on an agent once those have gone who are on their way.
fn ending_room(place: Place<'_>, tenants: &[Tenant<'_>]) -> Resources {
    let ending = tenants.iter().filter(|tenant| tenant.ending);
    ending.fold(place.free.clone(), |room, tenant| room.checked_add(tenant.resources).unwrap_or(room))
}

fn held_before(held: &Tally, less: Option<&Resources>) -> Tally {
    let mut held = held.clone();
    less.into_iter().for_each(|less| held.sub(less));
    held
}

/// Amounts alone: the same port of two agents is two ports.
fn without_ports(resources: &Resources) -> Resources {
    Resources { ports: Default::default(), ..resources.clone() }
}

/// Those that would go, and the room that makes.
struct Gone<'t> {
    room: Resources,
    taken: Vec<&'t Tenant<'t>>,
    /// By node of the tree, how much less it would hold.
    less: BTreeMap<usize, Resources>,
}

impl Gone<'_> {
    /// How much less of a kind a node would hold.
    fn amount(&self, node: usize, kind: &str) -> u64 {
        self.less.get(&node).map_or(0, |less| amount_of(less, kind))
    }

    fn frees(&mut self, resources: &Resources) {
        if let Some(room) = self.room.checked_add(resources) {
            self.room = room;
        }
    }
}

