//! Shares: how much of the cluster somebody holds, as an exact fraction

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use crate::resources::{Milli, Quantities, Request, Resources};

/// The largest weight that counts, in thousandths: 100,000 units. Larger ones count as this.
///
/// With amounts of at most 10^15 thousandths the products of a comparison then stay within 128 bits.
pub const WEIGHT_MAX: u64 = 100_000_000;

/// A part of the whole, divided by a weight; compared by cross-multiplication, never by division.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Held, in thousandths.
    held: u64,
    /// There is, in thousandths; above zero.
    total: u64,
    /// In thousandths; above zero.
    weight: u64,
}

impl Share {
    /// The share of who holds nothing.
    pub const NONE: Share = Share { held: 0, total: 1, weight: 1000 };

    /// The largest part that is held of any one kind of resource, at weight 1.
    ///
    /// A kind of which there is nothing does not count, nor do ports: Mesos takes shares of scalars only.
    pub fn dominant(held: &Quantities, total: &Quantities) -> Share {
        Tally::of(held).share(&Tally::of(total), 1000)
    }

    /// The same, divided by a weight above zero in place of its own.
    pub fn over(self, weight: Milli) -> Share {
        Share { weight: thousandths(weight).clamp(1, WEIGHT_MAX), ..self }
    }

    /// The same before weighing, in millionths, rounded down.
    pub fn ppm(self) -> u64 {
        (u128::from(self.held) * 1_000_000 / u128::from(self.total)) as u64
    }

    /// The same as a double between 0 and 1 and before weighing, for showing.
    pub fn as_f64(self) -> f64 {
        self.held as f64 / self.total as f64
    }

    /// Both sides of `self <=> other` without a fraction.
    fn cross(self, other: Share) -> (u128, u128) {
        let side = |one: Share, two: Share| u128::from(one.held) * u128::from(two.total) * u128::from(two.weight);
        (side(self, other), side(other, self))
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Share) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Share {}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Share) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Share {
    fn cmp(&self, other: &Share) -> Ordering {
        if self.total == other.total && self.weight == other.weight {
            return self.held.cmp(&other.held);
        }
        let (mine, theirs) = self.cross(*other);
        mine.cmp(&theirs)
    }
}

impl fmt::Display for Share {
    /// As a reduced fraction with the weight in it, such as `2/9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (up, down) = (u128::from(self.held) * 1000, u128::from(self.total) * u128::from(self.weight));
        let divisor = gcd(up, down);
        match (up / divisor, down / divisor) {
            (up, 1) => write!(f, "{up}"),
            (up, down) => write!(f, "{up}/{down}"),
        }
    }
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Sums by kind, in thousandths, quick to add to: the pass does it for every grant. Ports left out.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    built_in: [u64; 4],
    other: BTreeMap<String, u64>,
}

/// The kinds of [`Tally::built_in`].
const BUILT_IN: [&str; 4] = ["cpus", "mem", "disk", "gpus"];

impl Tally {
    pub(super) fn of(amounts: &Quantities) -> Tally {
        let mut tally = Tally::default();
        tally.add_quantities(amounts);
        tally
    }

    pub(super) fn add_quantities(&mut self, amounts: &Quantities) {
        for (kind, amount) in amounts.iter().filter(|(kind, _)| *kind != "ports") {
            match BUILT_IN.iter().position(|name| *name == kind) {
                Some(place) => raise(&mut self.built_in[place], amount),
                None => raise(self.other.entry(kind.to_owned()).or_default(), amount),
            }
        }
    }

    pub(super) fn add(&mut self, resources: &Resources) {
        for (sum, amount) in self.built_in.iter_mut().zip([resources.cpus, resources.mem, resources.disk, resources.gpus]) {
            raise(sum, amount);
        }
        for (kind, amount) in &resources.other {
            match self.other.get_mut(kind) {
                Some(sum) => raise(sum, *amount),
                None => drop(self.other.insert(kind.clone(), thousandths(*amount))),
            }
        }
    }

    pub(super) fn add_tally(&mut self, part: &Tally) {
        for (sum, amount) in self.built_in.iter_mut().zip(part.built_in) {
            *sum = sum.saturating_add(amount);
        }
        for (kind, amount) in &part.other {
            let sum = self.other.entry(kind.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Adds so many times what a task asks for.
    pub(super) fn add_times(&mut self, request: &Request, count: u64) {
        for (sum, amount) in self.built_in.iter_mut().zip([request.cpus, request.mem, request.disk, request.gpus]) {
            *sum = sum.saturating_add(thousandths(amount).saturating_mul(count));
        }
        for (kind, amount) in &request.other {
            let sum = self.other.entry(kind.clone()).or_default();
            *sum = sum.saturating_add(thousandths(*amount).saturating_mul(count));
        }
    }

    /// Takes away, down to nothing.
    pub(super) fn sub(&mut self, resources: &Resources) {
        for (sum, amount) in self.built_in.iter_mut().zip([resources.cpus, resources.mem, resources.disk, resources.gpus]) {
            *sum = sum.saturating_sub(thousandths(amount));
        }
        for (kind, amount) in &resources.other {
            if let Some(sum) = self.other.get_mut(kind) {
                *sum = sum.saturating_sub(thousandths(*amount));
            }
        }
    }

    /// Lowers each kind to what another one has of it.
    pub(super) fn at_most(&mut self, most: &Tally) {
        for (sum, most) in self.built_in.iter_mut().zip(most.built_in) {
            *sum = (*sum).min(most);
        }
        for (kind, sum) in &mut self.other {
            *sum = (*sum).min(most.other.get(kind).copied().unwrap_or_default());
        }
    }

    /// Lowers one kind.
    pub(super) fn cap(&mut self, kind: &str, most: u64) {
        match BUILT_IN.iter().position(|name| *name == kind) {
            Some(place) => self.built_in[place] = self.built_in[place].min(most),
            None => drop(self.other.get_mut(kind).map(|sum| *sum = (*sum).min(most))),
        }
    }

    pub(super) fn get(&self, kind: &str) -> u64 {
        match BUILT_IN.iter().position(|name| *name == kind) {
            Some(place) => self.built_in[place],
            None => self.other.get(kind).copied().unwrap_or_default(),
        }
    }

    /// The share of one kind of `total` that this is, at a weight in thousandths.
    pub(super) fn share_of(&self, kind: &str, total: &Tally, weight: u64) -> Share {
        let (held, total) = (self.get(kind), total.get(kind));
        if total == 0 { Share { weight: weight.clamp(1, WEIGHT_MAX), ..Share::NONE } } else { Share { held: held.min(total), total, weight: weight.clamp(1, WEIGHT_MAX) } }
    }

    /// The dominant share of `total` that this is, at a weight in thousandths.
    pub(super) fn share(&self, total: &Tally, weight: u64) -> Share {
        let weight = weight.clamp(1, WEIGHT_MAX);
        let mut most = Share { weight, ..Share::NONE };
        let mut see = |held: u64, total: u64| {
            if total > 0 && u128::from(held.min(total)) * u128::from(most.total) > u128::from(most.held) * u128::from(total) {
                (most.held, most.total) = (held.min(total), total);
            }
        };
        for (held, total) in self.built_in.into_iter().zip(total.built_in) {
            see(held, total);
        }
        for (kind, held) in &self.other {
            see(*held, total.other.get(kind).copied().unwrap_or_default());
        }
        most
    }
}

/// A snapshot from outside may claim more than can be; a share stops at the whole anyway.
fn raise(sum: &mut u64, amount: Milli) {
    *sum = sum.saturating_add(thousandths(amount));
}

/// Amounts are never negative.
pub(super) fn thousandths(amount: Milli) -> u64 {
    amount.as_milli().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::parse_total;

    fn quantities(text: &str) -> Quantities {
        Quantities::of(&parse_total(text).expect(text))
    }

    /// Shows dominant shares as fractions: the largest part wins, what there is nothing of and ports do not count.
    #[test]
    fn dominant_shares() {
        let total = quantities("cpus=9,mem=18G,licenses=10,ports=[1-10]");
        for (held, share) in [
            ("cpus=1,mem=4G", "2/9"),
            ("cpus=3,mem=1G", "1/3"),
            ("cpus=9,mem=18G", "1"),
            ("licenses=4,cpus=0.9", "2/5"),
            ("ports=[1-10]", "0"),
            ("gpus=1", "0"),
            ("cpus=0.1", "1/90"),
        ] {
            assert_eq!(Share::dominant(&quantities(held), &total).to_string(), share, "{held}");
        }
    }

    /// Shows that comparison is exact where doubles are not, weighs, and does not overflow at the bounds.
    #[test]
    fn comparison_is_exact() {
        let big = thousandths(Milli::MAX);
        let share = |held, total, weight| Share { held, total, weight };
        assert!(share(big - 1, big, 1000) < share(big, big, 1000));
        assert!(share(big - 2, big - 1, WEIGHT_MAX) < share(big - 1, big, WEIGHT_MAX));
        assert_eq!(share(1, 3, 1000), share(2, 6, 1000));
        assert_eq!(share(2, 3, 2000), share(1, 3, 1000));
        assert_eq!(share(2, 3, 2000).to_string(), "1/3");
    }
}
