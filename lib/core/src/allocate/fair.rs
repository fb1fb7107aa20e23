//! Fair shares: the part of the cluster that everybody could have if all who want shared by weights and guarantees
//!
//! What the whole has goes down the tree. At each level everybody gets in proportion to its weight, at least what it is
//! guaranteed, and at most what it holds and wants; what somebody leaves goes to the others (max-min with least
//! amounts). Whoever holds more than its fair share has what others could claim; whoever holds less may claim it.

use std::collections::BTreeMap;

use super::share::{Share, Tally};
use super::tree::{ROOT, Tree};
use super::{FrameworkView, Snapshot};
use crate::id::FrameworkId;
use crate::role::Role;

/// One, in the parts that fair shares are counted in.
pub const WHOLE_PPM: u64 = 1_000_000;

/// How often the common level is halved until it is found: levels are 64-bit numbers.
const HALVINGS: u32 = 64;

/// How somebody stands, in millionths of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The largest part that it holds of any one kind of resource.
    pub share_ppm: u64,
    /// What it could have.
    pub fair_ppm: u64,
}

impl Standing {
    /// Whether it holds more than it could if all shared.
    pub fn is_over(self) -> bool {
        self.share_ppm > self.fair_ppm
    }

    /// Whether it may claim more.
    pub fn is_under(self) -> bool {
        self.share_ppm < self.fair_ppm
    }
}

/// How everybody stands.
#[derive(Clone, Debug, Default)]
pub struct Standings {
    /// Every framework of the snapshot.
    pub by_framework: BTreeMap<FrameworkId, Standing>,
    /// Every role of the snapshot or of a framework, and each above one of these.
    pub roles: BTreeMap<Role, Standing>,
}

/// Says how everybody stands.
pub fn standings(snapshot: &Snapshot<'_>) -> Standings {
    let tree = Tree::new(snapshot);
    let nodes = of_nodes(snapshot, &tree);
    let by_framework = snapshot.frameworks.iter().zip(&tree.leaves).map(|(view, &leaf)| (view.framework.clone(), nodes[leaf])).collect();
    let roles = tree.roles().filter_map(|(path, node)| Some((Role::parse(path).ok()?, nodes[node]))).collect();
    Standings { by_framework, roles }
}

/// How each node of the tree stands.
pub(super) fn of_nodes(snapshot: &Snapshot<'_>, tree: &Tree) -> Vec<Standing> {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); tree.nodes.len()];
    for (node, parent) in tree.nodes.iter().enumerate().filter_map(|(node, one)| Some((node, one.parent?))) {
        children[parent].push(node);
    }
    let mut claims: Vec<Tally> = vec![Tally::default(); tree.nodes.len()];
    let mut floors: Vec<u64> = vec![0; tree.nodes.len()];
    let mut mosts: Vec<u64> = vec![0; tree.nodes.len()];
    // A child stands after its parent.
    for node in (0..tree.nodes.len()).rev() {
        let one = &tree.nodes[node];
        match one.framework {
            Some(framework) => claims[node] = claim(&snapshot.frameworks[framework], &one.held, &tree.total),
            None => {
                for &child in &children[node] {
                    let below = claims[child].clone();
                    claims[node].add_tally(&below);
                    floors[node] = floors[node].saturating_add(floors[child]);
                    mosts[node] = mosts[node].saturating_add(mosts[child]).min(WHOLE_PPM);
                }
            }
        }
        claims[node].at_most(&tree.total);
        for (kind, limit) in &one.limit {
            // What is held already stays, also above a limit that was lowered.
            claims[node].cap(kind, (*limit).max(one.held.get(kind)));
        }
        // The parts of several are of different kinds, and add up to more than the part that they are together.
        if one.framework.is_some() || !one.limit.is_empty() {
            let most = ppm(claims[node].share(&tree.total, 1000));
            mosts[node] = if one.framework.is_some() { most } else { mosts[node].min(most) };
        }
        let own = tree.kinds.iter().zip(&one.guarantee).map(|(kind, guarantee)| part(guarantee.amount, tree.total.get(kind))).max().unwrap_or(0);
        floors[node] = floors[node].max(own).min(mosts[node]);
    }
    let mut standings: Vec<Standing> = tree.nodes.iter().map(|one| Standing { share_ppm: ppm(one.held.share(&tree.total, 1000)), fair_ppm: 0 }).collect();
    standings[ROOT].fair_ppm = WHOLE_PPM;
    for node in 0..tree.nodes.len() {
        let parts: Vec<Part> = children[node]
            .iter()
            .map(|&child| Part { weight: tree.nodes[child].weight, least_ppm: floors[child], most_ppm: mosts[child] })
            .collect();
        let level = level(&parts, standings[node].fair_ppm);
        for (&child, part) in children[node].iter().zip(&parts) {
            standings[child].fair_ppm = part.at(level);
        }
    }
    standings
}

/// All that a framework holds and wants.
fn claim(view: &FrameworkView<'_>, held: &Tally, total: &Tally) -> Tally {
    let mut claim = held.clone();
    if view.suppressed {
        return claim;
    }
    match view.demand {
        None => claim = total.clone(),
        Some(demand) => claim.add_times(demand.request, demand.count.into()),
    }
    claim
}

/// One of several that share.
struct Part {
    /// In thousandths; above zero.
    weight: u64,
    least_ppm: u64,
    most_ppm: u64,
}

impl Part {
    /// What it gets where everybody gets `level` millionths for each unit of weight.
    fn at(&self, level: u64) -> u64 {
        let by_weight = u128::from(level) * u128::from(self.weight) / 1000;
        u64::try_from(by_weight).unwrap_or(u64::MAX).max(self.least_ppm).min(self.most_ppm)
    }
}

/// The highest level at which all together get no more than there is.
fn level(parts: &[Part], there_is_ppm: u64) -> u64 {
    let sum = |level: u64| parts.iter().map(|part| u128::from(part.at(level))).sum::<u128>();
    let (mut fits, mut beyond) = (0, u64::MAX);
    if sum(u64::MAX) <= u128::from(there_is_ppm) {
        return u64::MAX;
    }
    for _ in 0..HALVINGS {
        let middle = fits + (beyond - fits) / 2;
        if sum(middle) <= u128::from(there_is_ppm) { fits = middle } else { beyond = middle }
    }
    fits
}

fn part(amount: u64, of: u64) -> u64 {
    let parts = (u128::from(amount) * u128::from(WHOLE_PPM)).checked_div(u128::from(of)).unwrap_or(0);
    u64::try_from(parts).unwrap_or(u64::MAX).min(WHOLE_PPM)
}

fn ppm(share: Share) -> u64 {
    share.ppm()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(parts: &[(u64, u64, u64)], there_is: u64) -> Vec<u64> {
        let parts: Vec<Part> = parts.iter().map(|&(weight, least_ppm, most_ppm)| Part { weight: weight * 1000, least_ppm, most_ppm }).collect();
        let level = level(&parts, there_is);
        parts.iter().map(|part| part.at(level)).collect()
    }

    /// Shows max-min with weights, least and most amounts; what rounding leaves is less than the number of parts.
    #[test]
    fn water_is_filled_to_one_level() {
        for (parts, there_is, wanted) in [
            (vec![(1, 0, 100), (1, 0, 100)], 100, vec![50, 50]),
            (vec![(2, 0, 100), (1, 0, 100)], 90, vec![60, 30]),
            // Demands of 2, 3, 4 and 5 of 10.
            (vec![(1, 0, 200), (1, 0, 300), (1, 0, 400), (1, 0, 500)], 1000, vec![200, 266, 266, 266]),
            (vec![(1, 60, 100), (1, 0, 100), (1, 0, 100)], 100, vec![60, 20, 20]),
            (vec![(1, 0, 10), (1, 0, 20)], 100, vec![10, 20]),
            (vec![(1, 60, 100), (1, 70, 100)], 100, vec![60, 70]),
            (vec![], 100, vec![]),
        ] {
            assert_eq!(shares(&parts, there_is), wanted);
        }
    }
}
