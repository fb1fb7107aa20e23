//! Port numbers as a set of ranges

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::BadResources;

/// A set of ports from 1 to 65535, kept as sorted inclusive ranges that neither overlap nor touch
///
/// Equal sets are equal values. In JSON it is `[[31000,31005],[31010,31010]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports(Vec<(u16, u16)>);

impl Ports {
    pub const EMPTY: Ports = Ports(Vec::new());

    /// The ports from `lo` to `hi`, both included; none if there is no such range.
    pub fn range(lo: u16, hi: u16) -> Option<Ports> {
        (lo >= 1 && lo <= hi).then(|| Ports(vec![(lo, hi)]))
    }

    /// Reads `[31000-31005,31010]`; `[]` is the empty set. Ranges may come in any order and overlap.
    pub fn parse(text: &str) -> Result<Ports, BadResources> {
        let refuse = |why: &str| BadResources::new(text, why);
        let inner = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .ok_or_else(|| refuse("port ranges stand in brackets, such as [31000-31005,31010]"))?;
        if inner.trim().is_empty() {
            return Ok(Ports::EMPTY);
        }
        let mut ranges = Vec::new();
        for range in inner.split(',') {
            let (lo, hi) = range.split_once('-').unwrap_or((range, range));
            match (port(lo.trim()), port(hi.trim())) {
                (Some(lo), Some(hi)) if lo <= hi => ranges.push((lo, hi)),
                (Some(_), Some(_)) => return Err(refuse("a port range runs from low to high")),
                _ => return Err(refuse("a port is a number from 1 to 65535")),
            }
        }
        Ok(Ports::coalesced(ranges))
    }

    /// Sorted inclusive ranges with gaps between them.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// How many ports, not how many ranges.
    pub fn len(&self) -> u32 {
        self.0.iter().map(|&(lo, hi)| u32::from(hi - lo) + 1).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, port: u16) -> bool {
        let after = self.0.partition_point(|&(lo, _)| lo <= port);
        after > 0 && self.0[after - 1].1 >= port
    }

    /// Whether every port of `other` is here too.
    pub fn contains_all(&self, other: &Ports) -> bool {
        // As ranges never touch, a range of `other` lies in one of ours or is not covered.
        other.0.iter().all(|&(lo, hi)| {
            let after = self.0.partition_point(|&(start, _)| start <= lo);
            after > 0 && self.0[after - 1].1 >= hi
        })
    }

    pub fn intersects(&self, other: &Ports) -> bool {
        !self.intersection(other).is_empty()
    }

    pub fn union(&self, other: &Ports) -> Ports {
        Ports::coalesced(self.0.iter().chain(&other.0).copied().collect())
    }

    pub fn intersection(&self, other: &Ports) -> Ports {
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(&&(a_lo, a_hi)), Some(&&(b_lo, b_hi))) = (mine.peek(), theirs.peek()) {
            let (lo, hi) = (a_lo.max(b_lo), a_hi.min(b_hi));
            if lo <= hi {
                both.push((lo, hi));
            }
            if a_hi < b_hi {
                mine.next()
            } else {
                theirs.next()
            };
        }
        Ports(both)
    }

    /// The ports of `self` that are not in `other`, whether or not `other` has more.
    pub fn difference(&self, other: &Ports) -> Ports {
        let mut rest = Vec::new();
        let mut cuts = other.0.iter().copied().peekable();
        for &(lo, hi) in &self.0 {
            // Wider than a port, because the place after 65535 must be expressible.
            let (mut from, hi) = (u32::from(lo), u32::from(hi));
            while let Some(&(cut_lo, cut_hi)) = cuts.peek() {
                let (cut_lo, cut_hi) = (u32::from(cut_lo), u32::from(cut_hi));
                if cut_lo > hi {
                    break;
                }
                if cut_hi >= from {
                    if cut_lo > from {
                        rest.push((from as u16, (cut_lo - 1) as u16));
                    }
                    from = cut_hi + 1;
                }
                if cut_hi > hi {
                    break;
                }
                cuts.next();
            }
            if from <= hi {
                rest.push((from as u16, hi as u16));
            }
        }
        Ports(rest)
    }

    /// Takes `other` away; none unless all of it is here.
    pub fn subtract(&self, other: &Ports) -> Option<Ports> {
        self.contains_all(other).then(|| self.difference(other))
    }

    /// The `count` lowest ports; none if there are fewer.
    pub fn take_lowest(&self, count: u32) -> Option<Ports> {
        let mut missing = count;
        let mut taken = Vec::new();
        for &(lo, hi) in &self.0 {
            if missing == 0 {
                break;
            }
            let some = missing.min(u32::from(hi - lo) + 1);
            taken.push((lo, lo + (some - 1) as u16));
            missing -= some;
        }
        (missing == 0).then_some(Ports(taken))
    }

    /// Every port, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().flat_map(|&(lo, hi)| lo..=hi)
    }

    fn coalesced(mut ranges: Vec<(u16, u16)>) -> Ports {
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (lo, hi) in ranges {
            match merged.last_mut() {
                Some(last) if u32::from(lo) <= u32::from(last.1) + 1 => last.1 = last.1.max(hi),
                _ => merged.push((lo, hi)),
            }
        }
        Ports(merged)
    }
}

fn port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port >= 1)
}

impl FromIterator<u16> for Ports {
    /// Port 0 is nobody's and left out.
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Ports {
        Ports::coalesced(
            ports
                .into_iter()
                .filter(|&port| port >= 1)
                .map(|port| (port, port))
                .collect(),
        )
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, (lo, hi)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if lo == hi {
                write!(f, "{comma}{lo}")?
            } else {
                write!(f, "{comma}{lo}-{hi}")?
            }
        }
        f.write_str("]")
    }
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ports, D::Error> {
        let ranges = Vec::<(u16, u16)>::deserialize(deserializer)?;
        match ranges.iter().find(|(lo, hi)| *lo == 0 || lo > hi) {
            Some((lo, hi)) => Err(D::Error::custom(format_args!(
                "[{lo},{hi}] is not a range of ports from 1 to 65535"
            ))),
            None => Ok(Ports::coalesced(ranges)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Few, close ports, so that ranges meet, overlap and touch; now and then the far end.
    pub fn some_ports() -> impl Strategy<Value = Ports> {
        let port = prop_oneof![9 => 1..40u16, 1 => 65530..=u16::MAX];
        proptest::collection::btree_set(port, 0..30).prop_map(Ports::from_iter)
    }

    fn ports(text: &str) -> Ports {
        Ports::parse(text).expect(text)
    }

    /// Ranges are read in any order and shown sorted and merged.
    #[test]
    fn ranges_are_read_and_shown() {
        for (text, shown, len) in [
            ("[]", "[]", 0),
            ("[31000-31005,31010]", "[31000-31005,31010]", 7),
            ("[ 31010 , 31000 - 31005 ]", "[31000-31005,31010]", 7),
            ("[5,6,7]", "[5-7]", 3),
            ("[1-10,5-20,21]", "[1-21]", 21),
            ("[1-65535]", "[1-65535]", 65535),
            ("[65535,65534]", "[65534-65535]", 2),
        ] {
            assert_eq!(
                (ports(text).to_string().as_str(), ports(text).len()),
                (shown, len),
                "{text}"
            );
        }
    }

    /// What is not a set of ports is refused with its reason.
    #[test]
    fn other_texts_are_refused() {
        for (text, why) in [
            ("", "brackets"),
            ("31000", "brackets"),
            ("[31000", "brackets"),
            ("[0]", "1 to 65535"),
            ("[65536]", "1 to 65535"),
            ("[1-70000]", "1 to 65535"),
            ("[5-1]", "low to high"),
            ("[1,]", "1 to 65535"),
            ("[-5]", "1 to 65535"),
            ("[1-2-3]", "1 to 65535"),
            ("[+1]", "1 to 65535"),
            ("[a]", "1 to 65535"),
        ] {
            let refusal = Ports::parse(text).expect_err(text).to_string();
            assert!(refusal.contains(why), "{refusal}");
        }
    }

    /// The lowest ports are taken across gaps, and never more than there are.
    #[test]
    fn lowest_ports_are_taken() {
        let free = ports("[5-6,9,20-30]");
        assert_eq!(free.take_lowest(0), Some(Ports::EMPTY));
        assert_eq!(free.take_lowest(4), Some(ports("[5-6,9,20]")));
        assert_eq!(free.take_lowest(14), Some(free.clone()));
        assert_eq!(free.take_lowest(15), None);
        assert_eq!(
            ports("[1-65535]").take_lowest(65535),
            Some(ports("[1-65535]"))
        );
    }

    /// JSON is a list of pairs, and nonsense in it is refused.
    #[test]
    fn json_is_checked() {
        let json = serde_json::to_string(&ports("[31000-31005,31010]")).expect("pairs");
        assert_eq!(json, "[[31000,31005],[31010,31010]]");
        assert_eq!(
            serde_json::from_str::<Ports>("[[7,9],[1,6]]").expect("pairs"),
            ports("[1-9]")
        );
        for bad in [
            "[[0,5]]",
            "[[9,7]]",
            "[[1]]",
            "[[1,2,3]]",
            "[[1,65536]]",
            "[[-1,5]]",
            "[[1.5,2]]",
            "[1,2]",
            "{}",
            "\"[1-2]\"",
            "null",
        ] {
            assert!(serde_json::from_str::<Ports>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Every set operation does what it does on plain sets of numbers.
        #[test]
        fn operations_are_those_of_sets(a in some_ports(), b in some_ports(), port in 1..45u16) {
            let (plain_a, plain_b): (BTreeSet<u16>, BTreeSet<u16>) = (a.iter().collect(), b.iter().collect());
            let set = |ports: &Ports| ports.iter().collect::<BTreeSet<u16>>();
            prop_assert_eq!(set(&a.union(&b)), &plain_a | &plain_b);
            prop_assert_eq!(set(&a.intersection(&b)), &plain_a & &plain_b);
            prop_assert_eq!(set(&a.difference(&b)), &plain_a - &plain_b);
            prop_assert_eq!(a.contains_all(&b), plain_b.is_subset(&plain_a));
            prop_assert_eq!(a.intersects(&b), !plain_a.is_disjoint(&plain_b));
            prop_assert_eq!(a.contains(port), plain_a.contains(&port));
            prop_assert_eq!(a.len() as usize, plain_a.len());
            prop_assert_eq!(a.subtract(&b).is_some(), plain_b.is_subset(&plain_a));
        }

        /// Equal sets are equal values however they came about, so results are always coalesced.
        #[test]
        fn results_are_canonical(a in some_ports(), b in some_ports()) {
            for result in [a.union(&b), a.intersection(&b), a.difference(&b)] {
                prop_assert_eq!(&Ports::from_iter(result.iter()), &result);
            }
            let both = a.union(&b);
            let rest = both.subtract(&a);
            prop_assert_eq!(rest.map(|rest| rest.union(&a)), Some(both));
        }

        /// Showing and reading are inverse, as text and as JSON.
        #[test]
        fn shown_ports_read_back(a in some_ports()) {
            prop_assert_eq!(Ports::parse(&a.to_string()), Ok(a.clone()));
            let json = serde_json::to_string(&a).expect("pairs");
            prop_assert_eq!(serde_json::from_str::<Ports>(&json).expect("own output"), a);
        }
    }
}
