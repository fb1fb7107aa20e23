//! The tree of roles and frameworks in which the next to be served is found
//!
//! A role path `eng/batch` is the node `eng` and below it the node `eng/batch`; the frameworks of a
//! role are leaves below it. A role that has both sub-roles and frameworks keeps its frameworks under
//! a node of their own, so that together they compete as one sibling of the sub-roles (Mesos SM-8).
//!
//! Every node keeps a heap of those children below which somebody still wants something. Only the
//! nodes on the way to whom was served change, and these are out of their heaps meanwhile: the heaps
//! hold no stale key.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::share::{Share, Tally, thousandths};
use super::{FrameworkView, RoleView, Rule, Snapshot};
use crate::resources::{Milli, Quantities, Resources};
use crate::seed::Seed;

/// The order among siblings, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Who is below its guarantee goes before all others.
    satisfied: bool,
    /// Everybody has the same where the rule does not look at priorities.
    priority: Reverse<i64>,
    /// Everybody has the same where the rule draws lots.
    share: Share,
    /// Everybody has the same where it does not.
    lot: u64,
    /// How often it was served, before this pass and in it.
    grants: u64,
    /// Place among all nodes in order of their names.
    rank: usize,
}

pub(super) struct Node {
    pub(super) parent: Option<usize>,
    /// Of a leaf: which framework of the snapshot it is.
    pub(super) framework: Option<usize>,
    name: String,
    rank: usize,
    pub(super) weight: u64,
    priority: i64,
    /// What the whole subtree holds.
    pub(super) held: Tally,
    share: Share,
    grants: u64,
    /// When it is drawn next, on the clock of its siblings' race.
    lot: u64,
    pub(super) guarantee: Vec<Guarantee>,
    pub(super) limit: Vec<(String, u64)>,
    /// Children below which somebody still wants something.
    open: BinaryHeap<Reverse<(Key, usize)>>,
}

/// What one kind of a guarantee still asks to be kept back, here and below.
pub(super) struct Guarantee {
    pub(super) amount: u64,
    /// Sum over the children.
    below: u64,
}

/// See the module.
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) leaves: Vec<usize>,
    pub(super) total: Tally,
    rule: Rule,
    lots: Seed,
    /// Kinds in which anybody has a guarantee; the places in [`Node::guarantee`].
    pub(super) kinds: Vec<String>,
    /// Of each such kind, what is free in the cluster.
    free: Vec<u64>,
    roles: BTreeMap<String, usize>,
}

pub(super) const ROOT: usize = 0;

impl Tree {
    /// Builds the tree of all frameworks of the snapshot; nobody is in a heap yet.
    pub(super) fn new(snapshot: &Snapshot<'_>) -> Tree {
        let guarantees = snapshot.roles.iter().filter_map(|view| view.guarantee).chain(snapshot.frameworks.iter().filter_map(|view| view.guarantee));
        let kinds: BTreeSet<String> = guarantees.flat_map(|amounts| amounts.iter()).map(|(kind, _)| kind.to_owned()).collect();
        let kinds = Vec::from_iter(kinds);
        let free = kinds.iter().map(|kind| thousandths(snapshot.free.get(kind))).collect();
        let mut tree = Tree {
            nodes: Vec::new(),
            leaves: Vec::new(),
            total: Tally::of(&snapshot.total),
            rule: snapshot.rule.clone(),
            // Where to begin among the agents is drawn from the same number.
            lots: Seed::new([snapshot.seed, !snapshot.seed]),
            kinds,
            free,
            roles: BTreeMap::new(),
        };
        tree.push(None, String::new());

        let mut roles: BTreeMap<&str, usize> = BTreeMap::new();
        for view in &snapshot.roles {
            let node = tree.role(&mut roles, view.role.as_str());
            tree.policy(node, view);
        }
        for view in &snapshot.frameworks {
            tree.role(&mut roles, view.role.as_str());
        }
        // Known only now that every role stands: which of those with frameworks have sub-roles.
        let mut crowds: BTreeMap<usize, usize> = BTreeMap::new();
        let parents: BTreeSet<usize> = tree.nodes.iter().filter_map(|node| node.parent).collect();
        for view in &snapshot.frameworks {
            let role = roles[view.role.as_str()];
            let above = if parents.contains(&role) { *crowds.entry(role).or_insert_with(|| tree.push(Some(role), ".".to_owned())) } else { role };
            let leaf = tree.leaf(above, view);
            tree.leaves.push(leaf);
        }
        tree.roles = roles.into_iter().map(|(role, node)| (role.to_owned(), node)).collect();
        tree.settle();
        tree
    }

    /// Enters a framework, by its place in the snapshot, among those that want something.
    pub(super) fn open(&mut self, framework: usize) {
        let mut node = self.leaves[framework];
        while let Some(parent) = self.nodes[node].parent {
            let waiting = !self.nodes[parent].open.is_empty();
            self.enter(node, parent);
            if waiting {
                return;
            }
            node = parent;
        }
    }

    /// Whose turn it is, from the root down: the lowest key at each level. It is then out of the heaps.
    pub(super) fn next(&mut self) -> Option<usize> {
        let mut node = ROOT;
        while let Some(Reverse((_, child))) = self.nodes[node].open.pop() {
            node = child;
        }
        (node != ROOT).then_some(node)
    }

    /// The share of a leaf, weighed.
    pub(super) fn share(&self, leaf: usize) -> Share {
        self.nodes[leaf].share
    }

    /// Counts a grant to the leaf whose turn it was.
    pub(super) fn grant(&mut self, leaf: usize, resources: &Resources) {
        for place in 0..self.kinds.len() {
            let amount = amount_of(resources, &self.kinds[place]);
            self.free[place] = self.free[place].saturating_sub(amount);
            self.carry(leaf, place, amount);
        }
        let mut at = Some(leaf);
        while let Some(node) = at {
            let node = &mut self.nodes[node];
            node.held.add(resources);
            at = node.parent;
            if at.is_some() {
                node.grants = node.grants.saturating_add(1);
                node.share = shown_share(&self.rule, node, &self.total);
            }
        }
    }

    /// Ends a turn: the leaf waits for its next one, or wants nothing more.
    pub(super) fn end_turn(&mut self, leaf: usize, wants_more: bool) {
        let mut node = leaf;
        let mut stays = wants_more;
        while let Some(parent) = self.nodes[node].parent {
            if stays {
                self.enter(node, parent);
            }
            stays = !self.nodes[parent].open.is_empty();
            node = parent;
        }
    }

    /// The leaf of a framework, by its place in the snapshot.
    pub(super) fn leaf_of(&self, framework: usize) -> usize {
        self.leaves[framework]
    }

    /// Which framework of the snapshot a leaf is.
    pub(super) fn framework(&self, leaf: usize) -> usize {
        self.nodes[leaf].framework.expect("only frameworks are leaves, and only leaves have turns")
    }

    /// How much of a kind the leaf may be given on top, up to `amount`: as far as the limits of its roles
    /// reach, and without touching what is kept back for the guarantees of others.
    pub(super) fn allowance(&self, leaf: usize, kind: &str, amount: u64) -> u64 {
        let mut allowed = amount;
        let mut at = Some(leaf);
        while let Some(node) = at {
            let node = &self.nodes[node];
            if let Some((_, limit)) = node.limit.iter().find(|(name, _)| name == kind) {
                allowed = allowed.min(limit.saturating_sub(node.held.get(kind)));
            }
            at = node.parent;
        }
        match self.kinds.iter().position(|name| name == kind) {
            Some(place) => self.unreserved(leaf, place, allowed),
            None => allowed,
        }
    }

    /// Kinds of which a limit or a guarantee speaks; none if there is neither, and then none need be asked for.
    pub(super) fn quota_kinds(&self) -> BTreeSet<String> {
        let limits = self.nodes.iter().flat_map(|node| &node.limit).map(|(kind, _)| kind);
        self.kinds.iter().chain(limits).cloned().collect()
    }

    /// The most up to `amount` after which as much is free as is still guaranteed, or no less than before.
    fn unreserved(&self, leaf: usize, place: usize, amount: u64) -> u64 {
        let short = |given: u64| {
            let kept_back = i128::from(self.kept_back_after(leaf, place, given));
            kept_back - (i128::from(self.free[place]) - i128::from(given))
        };
        let bound = short(0).max(0);
        // The shortage never falls as more is given: the last amount within the bound is found by halving.
        let (mut fits, mut beyond) = (0, amount.saturating_add(1));
        while beyond - fits > 1 {
            let middle = fits + (beyond - fits) / 2;
            if short(middle) <= bound { fits = middle } else { beyond = middle }
        }
        fits
    }

    /// What is free in the cluster of a kind in which anybody has a guarantee.
    pub(super) fn free_of(&self, place: usize) -> u64 {
        self.free[place]
    }

    /// What the whole tree asks to be kept back of a kind once the leaf holds `given` more.
    pub(super) fn kept_back_after(&self, leaf: usize, place: usize, given: u64) -> u64 {
        let kind = &self.kinds[place];
        let (mut was, mut will_be) = (0, 0);
        let mut at = Some(leaf);
        while let Some(index) = at {
            let node = &self.nodes[index];
            let guarantee = &node.guarantee[place];
            let below = guarantee.below.saturating_sub(was).saturating_add(will_be);
            let held = node.held.get(kind);
            was = kept_back(guarantee.amount, held, guarantee.below);
            will_be = kept_back(guarantee.amount, held.saturating_add(given), below);
            at = node.parent;
        }
        will_be
    }

    /// Carries the change of what is kept back, once the leaf holds `given` more, up to the root.
    fn carry(&mut self, leaf: usize, place: usize, given: u64) {
        let kind = &self.kinds[place];
        let (mut was, mut will_be) = (0, 0);
        let mut at = Some(leaf);
        while let Some(index) = at {
            let node = &mut self.nodes[index];
            let held = node.held.get(kind);
            let guarantee = &mut node.guarantee[place];
            let before = kept_back(guarantee.amount, held, guarantee.below);
            guarantee.below = guarantee.below.saturating_sub(was).saturating_add(will_be);
            was = before;
            will_be = kept_back(guarantee.amount, held.saturating_add(given), guarantee.below);
            at = node.parent;
        }
    }

    /// Sums what the leaves hold and what is guaranteed up the tree, and ranks the names.
    fn settle(&mut self) {
        // A child stands after its parent, so the walk from the end meets every child before it.
        for index in (1..self.nodes.len()).rev() {
            let (held, grants) = (self.nodes[index].held.clone(), self.nodes[index].grants);
            let kept_back: Vec<u64> =
                self.kinds.iter().zip(&self.nodes[index].guarantee).map(|(kind, guarantee)| kept_back(guarantee.amount, held.get(kind), guarantee.below)).collect();
            let parent = self.nodes[index].parent.expect("every node but the root has a parent");
            let parent = &mut self.nodes[parent];
            parent.held.add_tally(&held);
            parent.grants = parent.grants.saturating_add(grants);
            for (guarantee, amount) in parent.guarantee.iter_mut().zip(kept_back) {
                guarantee.below = guarantee.below.saturating_add(amount);
            }
        }
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by(|&a, &b| self.nodes[a].name.cmp(&self.nodes[b].name));
        for (rank, node) in order.into_iter().enumerate() {
            let node = &mut self.nodes[node];
            node.rank = rank;
            node.share = shown_share(&self.rule, node, &self.total);
        }
    }

    fn enter(&mut self, node: usize, parent: usize) {
        if self.rule == Rule::Random {
            // A race of memoryless runners: whoever waits need not draw again, and each wins in proportion to its weight.
            let wait = waiting_time(self.lots.draw()) / self.nodes[node].weight;
            self.nodes[node].lot = self.nodes[node].lot.saturating_add(wait.max(1));
        }
        let key = self.key(node);
        self.nodes[parent].open.push(Reverse((key, node)));
    }

    fn key(&self, index: usize) -> Key {
        let node = &self.nodes[index];
        let satisfied = self.kinds.is_empty() || self.lacks(index).next().is_none();
        let priority = Reverse(if self.rule == Rule::Priority { node.priority } else { 0 });
        let (share, lot) = if self.rule == Rule::Random { (Share::NONE, node.lot) } else { (node.share, 0) };
        Key { satisfied, priority, share, lot, grants: node.grants, rank: node.rank }
    }

    /// What a node and those below it lack of what they are guaranteed, by kind; only kinds of which that is something.
    pub(super) fn lacks(&self, node: usize) -> impl Iterator<Item = (&str, u64)> {
        let node = &self.nodes[node];
        let kinds = self.kinds.iter().zip(&node.guarantee);
        kinds.map(|(kind, guarantee)| (kind.as_str(), kept_back(guarantee.amount, node.held.get(kind), guarantee.below))).filter(|(_, lack)| *lack > 0)
    }

    /// The nodes that lack something, the deepest first, then by name.
    pub(super) fn lacking(&self) -> Vec<usize> {
        let nodes = if self.kinds.is_empty() { 0 } else { self.nodes.len() };
        let mut lacking: Vec<usize> = (1..nodes).filter(|&node| self.lacks(node).next().is_some()).collect();
        let depth = |node: usize| std::iter::successors(Some(node), |&at| self.nodes[at].parent).count();
        lacking.sort_by_key(|&node| (Reverse(depth(node)), self.nodes[node].rank));
        lacking
    }

    /// Whether a node is another one or below it.
    pub(super) fn is_within(&self, node: usize, above: usize) -> bool {
        std::iter::successors(Some(node), |&at| self.nodes[at].parent).any(|at| at == above)
    }

    /// The frameworks, by their places in the snapshot, that are a node or below it.
    pub(super) fn frameworks_below(&self, node: usize) -> impl Iterator<Item = usize> {
        (0..self.leaves.len()).filter(move |&framework| self.is_within(self.leaves[framework], node))
    }

    /// The node of each role that is in the tree, by its path.
    pub(super) fn roles(&self) -> impl Iterator<Item = (&str, usize)> {
        self.roles.iter().map(|(role, node)| (role.as_str(), *node))
    }

    /// The node of a role path, made with all above it if it is not there.
    fn role<'a>(&mut self, roles: &mut BTreeMap<&'a str, usize>, path: &'a str) -> usize {
        if let Some(&node) = roles.get(path) {
            return node;
        }
        let parent = path.rsplit_once('/').map_or(ROOT, |(above, _)| self.role(roles, above));
        let node = self.push(Some(parent), path.to_owned());
        roles.insert(path, node);
        node
    }

    fn policy(&mut self, node: usize, view: &RoleView<'_>) {
        self.nodes[node].weight = weight_of(view.weight);
        self.nodes[node].priority = view.priority;
        self.quota(node, view.guarantee, view.limit);
    }

    fn quota(&mut self, node: usize, guarantee: Option<&Quantities>, limit: Option<&BTreeMap<String, Milli>>) {
        let kinds = &self.kinds;
        let node = &mut self.nodes[node];
        node.limit = limit.into_iter().flatten().map(|(kind, amount)| (kind.clone(), thousandths(*amount))).collect();
        for (kind, kept) in kinds.iter().zip(&mut node.guarantee) {
            kept.amount = guarantee.map_or(0, |amounts| thousandths(amounts.get(kind)));
        }
    }

    fn leaf(&mut self, parent: usize, view: &FrameworkView<'_>) -> usize {
        let leaf = self.push(Some(parent), view.framework.as_str().to_owned());
        let node = &mut self.nodes[leaf];
        node.weight = weight_of(view.weight);
        node.priority = view.priority;
        node.held = Tally::of(&view.used);
        node.framework = Some(self.leaves.len());
        node.grants = view.served;
        self.quota(leaf, view.guarantee, view.limit);
        leaf
    }

    fn push(&mut self, parent: Option<usize>, name: String) -> usize {
        let guarantee = self.kinds.iter().map(|_| Guarantee { amount: 0, below: 0 }).collect();
        self.nodes.push(Node {
            parent,
            framework: None,
            name,
            rank: 0,
            weight: 1000,
            priority: 0,
            held: Tally::default(),
            share: Share::NONE,
            grants: 0,
            lot: 0,
            guarantee,
            limit: Vec::new(),
            open: BinaryHeap::new(),
        });
        self.nodes.len() - 1
    }
}

/// What is kept back for a node: what it lacks of its guarantee, or what those below it lack of theirs.
fn kept_back(guarantee: u64, held: u64, below: u64) -> u64 {
    guarantee.saturating_sub(held).max(below)
}

fn weight_of(weight: Milli) -> u64 {
    thousandths(weight).max(1)
}

/// The share by which a rule chooses, or at least shows how somebody stands.
fn shown_share(rule: &Rule, node: &Node, total: &Tally) -> Share {
    match rule {
        Rule::Fair { resource } => node.held.share_of(resource, total, node.weight),
        Rule::Drf | Rule::Priority | Rule::Random => node.held.share(total, node.weight),
    }
}

/// How many bits of the fraction of a logarithm are computed.
const LOG_BITS: u32 = 16;

/// An exponential variate of a drawn number, in a fine unit: minus its binary logarithm, by repeated squaring, so that
/// every machine gets the same.
fn waiting_time(drawn: u64) -> u64 {
    let drawn = drawn | 1;
    let whole = drawn.leading_zeros();
    let mut mantissa = u128::from(drawn) << whole;
    let mut fraction = 0u64;
    for _ in 0..LOG_BITS {
        mantissa = (mantissa * mantissa) >> 63;
        fraction <<= 1;
        if mantissa >= 1 << 64 {
            fraction |= 1;
            mantissa >>= 1;
        }
    }
    let log = (u64::from(63 - whole) << LOG_BITS) | fraction;
    // From 64 down to a little above nothing; shifted so that dividing by the largest weight leaves something.
    ((64u64 << LOG_BITS) - log) << 24
}

/// How much of a kind there is, in thousandths; ports are of no quota.
pub(super) fn amount_of(resources: &Resources, kind: &str) -> u64 {
    thousandths(match kind {
        "cpus" => resources.cpus,
        "mem" => resources.mem,
        "disk" => resources.disk,
        "gpus" => resources.gpus,
        _ => resources.other.get(kind).copied().unwrap_or_default(),
    })
}
