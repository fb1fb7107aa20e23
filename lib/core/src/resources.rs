//! Resources: what an agent has, what a task asks for, and exact arithmetic on both
//!
//! Amounts are fixed point ([`Milli`]), ports are sets of ranges ([`Ports`]), and every sum and
//! difference is checked: there is no negative amount, no residue, and no port counted twice.

mod milli;
mod notation;
mod ports;
mod quantities;
mod request;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::is_id;
use crate::json::quoted;

pub use milli::Milli;
pub use notation::{parse_amounts, parse_request, parse_size, parse_total};
pub use ports::Ports;
pub use quantities::Quantities;
pub use request::{Request, Shortfall};

/// A text that says no resources; names the piece that is wrong, and the way out where it is known
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{token}: {why}")]
pub struct BadResources {
    /// Quoted, escaped and shortened, fit for a terminal.
    token: String,
    why: String,
}

impl BadResources {
    fn new(token: &str, why: impl Into<String>) -> BadResources {
        BadResources {
            token: quoted(token),
            why: why.into(),
        }
    }

    /// The reason alone, for a caller that names the piece itself.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// The same reason, said of the larger piece that a person typed.
    fn about(self, token: &str) -> BadResources {
        BadResources {
            token: quoted(token),
            ..self
        }
    }
}

/// Kinds of resources beyond the built-in five that one set may have
pub const OTHER_KINDS_MAX: usize = 64;

/// Concrete resources of one agent: its total, a free part, an offer, a task's holdings
///
/// In JSON every key has a default of nothing; the ports stand under `port_ranges`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub cpus: Milli,
    /// MiB
    pub mem: Milli,
    /// MiB
    pub disk: Milli,
    /// Whole.
    #[serde(deserialize_with = "whole")]
    pub gpus: Milli,
    #[serde(rename = "port_ranges")]
    pub ports: Ports,
    /// What the operator declared beyond the built-in kinds, such as licenses. Never an entry of zero.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "other_kinds"
    )]
    pub other: BTreeMap<String, Milli>,
}

impl Resources {
    pub fn is_empty(&self) -> bool {
        *self == Resources::default()
    }

    /// Puts both together; none if an amount overflows or a port is in both.
    ///
    /// A port in both is one port handed out twice, which no ledger may accept. To add up over
    /// several agents, where the same number is another port on each, use [`Quantities`].
    pub fn checked_add(&self, other: &Resources) -> Option<Resources> {
        if self.ports.intersects(&other.ports) {
            return None;
        }
        Some(Resources {
            cpus: self.cpus.checked_add(other.cpus)?,
            mem: self.mem.checked_add(other.mem)?,
            disk: self.disk.checked_add(other.disk)?,
            gpus: self.gpus.checked_add(other.gpus)?,
            ports: self.ports.union(&other.ports),
            other: add_kinds(&self.other, &other.other)?,
        })
    }

    /// Takes `other` away; none unless all of it is here.
    pub fn checked_sub(&self, other: &Resources) -> Option<Resources> {
        Some(Resources {
            cpus: self.cpus.checked_sub(other.cpus)?,
            mem: self.mem.checked_sub(other.mem)?,
            disk: self.disk.checked_sub(other.disk)?,
            gpus: self.gpus.checked_sub(other.gpus)?,
            ports: self.ports.subtract(&other.ports)?,
            other: sub_kinds(&self.other, &other.other)?,
        })
    }

    /// Whether all of `other` is here.
    pub fn contains(&self, other: &Resources) -> bool {
        self.cpus >= other.cpus
            && self.mem >= other.mem
            && self.disk >= other.disk
            && self.gpus >= other.gpus
            && self.ports.contains_all(&other.ports)
            && other
                .other
                .iter()
                .all(|(name, amount)| self.kind(name) >= *amount)
    }

    /// Each kind with its amount, zeros included for the built-in five; ports by their number.
    pub fn scalars(&self) -> impl Iterator<Item = (&str, Milli)> {
        [
            ("cpus", self.cpus),
            ("mem", self.mem),
            ("disk", self.disk),
            ("gpus", self.gpus),
            ("ports", Milli::units(self.ports.len().into())),
        ]
        .into_iter()
        .chain(
            self.other
                .iter()
                .map(|(name, amount)| (name.as_str(), *amount)),
        )
    }

    /// How much there is of a kind beyond the built-in five.
    fn kind(&self, name: &str) -> Milli {
        self.other.get(name).copied().unwrap_or_default()
    }
}

impl fmt::Display for Resources {
    /// The notation of `-R`: `cpus=7.5,mem=15360,ports=[31000-31063]`; nothing at all is `cpus=0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scalars = [
            ("cpus", self.cpus),
            ("mem", self.mem),
            ("disk", self.disk),
            ("gpus", self.gpus),
        ];
        let mut items = shown_scalars(&scalars);
        if !self.ports.is_empty() {
            items.push(format!("ports={}", self.ports));
        }
        items.extend(shown_kinds(&self.other));
        f.write_str(&joined(items))
    }
}

fn shown_scalars(scalars: &[(&str, Milli)]) -> Vec<String> {
    scalars
        .iter()
        .filter(|(_, amount)| !amount.is_zero())
        .map(|(name, amount)| format!("{name}={amount}"))
        .collect()
}

fn shown_kinds(kinds: &BTreeMap<String, Milli>) -> impl Iterator<Item = String> + '_ {
    kinds
        .iter()
        .map(|(name, amount)| format!("{name}={amount}"))
}

fn joined(items: Vec<String>) -> String {
    if items.is_empty() {
        "cpus=0".to_owned()
    } else {
        items.join(",")
    }
}

fn add_kinds(
    a: &BTreeMap<String, Milli>,
    b: &BTreeMap<String, Milli>,
) -> Option<BTreeMap<String, Milli>> {
    let mut sum = a.clone();
    for (name, amount) in b {
        let entry = sum.entry(name.clone()).or_default();
        *entry = entry.checked_add(*amount)?;
    }
    sum.retain(|_, amount| !amount.is_zero());
    Some(sum)
}

fn sub_kinds(
    a: &BTreeMap<String, Milli>,
    b: &BTreeMap<String, Milli>,
) -> Option<BTreeMap<String, Milli>> {
    let mut rest = a.clone();
    for (name, amount) in b.iter().filter(|(_, amount)| !amount.is_zero()) {
        let entry = rest.get_mut(name)?;
        *entry = entry.checked_sub(*amount)?;
    }
    rest.retain(|_, amount| !amount.is_zero());
    Some(rest)
}

/// Names that mean something already and cannot be a kind of the operator's own
const BUILT_IN: [&str; 6] = ["cpus", "mem", "disk", "gpus", "ports", "port_ranges"];

fn is_other_kind(name: &str) -> bool {
    is_id(name) && !BUILT_IN.contains(&name)
}

pub(crate) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Milli, D::Error> {
    let amount = Milli::deserialize(deserializer)?;
    if amount.is_whole() {
        Ok(amount)
    } else {
        Err(D::Error::custom(format_args!(
            "gpus are whole, not {amount}"
        )))
    }
}

pub(crate) fn other_kinds<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Milli>, D::Error> {
    let mut kinds = BTreeMap::<String, Milli>::deserialize(deserializer)?;
    if kinds.len() > OTHER_KINDS_MAX {
        return Err(D::Error::custom(format_args!(
            "more than {OTHER_KINDS_MAX} kinds of resources"
        )));
    }
    if let Some(name) = kinds.keys().find(|name| !is_other_kind(name)) {
        return Err(D::Error::custom(format_args!(
            "{} cannot name a kind of resource here",
            quoted(name)
        )));
    }
    // An entry of zero and no entry are the same resources and must be equal.
    kinds.retain(|_, amount| !amount.is_zero());
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ports::tests::some_ports;
    use super::*;

    pub fn some_kinds() -> impl Strategy<Value = BTreeMap<String, Milli>> {
        let name = prop_oneof![
            Just("licenses".to_owned()),
            Just("fpga".to_owned()),
            Just("x-1".to_owned())
        ];
        proptest::collection::btree_map(name, (1..5000i64).prop_map(milli), 0..3)
    }

    prop_compose! {
        pub fn some_resources()(
            cpus in 0..5000i64, mem in 0..5000i64, disk in 0..5000i64, gpus in 0..4u64,
            ports in some_ports(), other in some_kinds(),
        ) -> Resources {
            Resources { cpus: milli(cpus), mem: milli(mem), disk: milli(disk), gpus: Milli::units(gpus), ports, other }
        }
    }

    fn milli(thousandths: i64) -> Milli {
        Milli::from_milli(thousandths).expect("a small amount")
    }

    fn total(text: &str) -> Resources {
        parse_total(text).expect(text)
    }

    /// Resources are shown in the notation of `-R`, without what there is none of.
    #[test]
    fn resources_are_shown() {
        let shown = total("ports=[31000-31063],licenses=3,mem=15G,cpus=7.5").to_string();
        assert_eq!(shown, "cpus=7.5,mem=15360,ports=[31000-31063],licenses=3");
        assert_eq!(Resources::default().to_string(), "cpus=0");
    }

    /// Nothing is added that would hand a port out twice, nothing taken that is not there.
    #[test]
    fn impossible_sums_are_none() {
        let some = total("cpus=1,ports=[5-9],licenses=1");
        assert_eq!(some.checked_add(&total("ports=[9]")), None);
        assert_eq!(
            some.checked_add(&Resources {
                mem: Milli::MAX,
                ..some.clone()
            }),
            None
        );
        for more in [
            "cpus=1.001",
            "mem=0.001",
            "ports=[4-5]",
            "licenses=1.5",
            "fpga=1",
            "gpus=1",
        ] {
            assert_eq!(some.checked_sub(&total(more)), None, "{more}");
            assert!(!some.contains(&total(more)), "{more}");
        }
        let rest = some.checked_sub(&total("ports=[6],licenses=1"));
        assert_eq!(rest, Some(total("cpus=1,ports=[5,7-9]")));
    }

    /// The scalars are what shares are made of: every kind, ports as their number.
    #[test]
    fn scalars_count_ports() {
        let some = total("cpus=2,mem=4G,ports=[1-10,20],licenses=3");
        let scalars: Vec<(&str, Milli)> = some.scalars().collect();
        let units = Milli::units;
        assert_eq!(
            scalars,
            [
                ("cpus", units(2)),
                ("mem", units(4096)),
                ("disk", units(0)),
                ("gpus", units(0)),
                ("ports", units(11)),
                ("licenses", units(3))
            ]
        );
    }

    /// The JSON form has every built-in key, and reads back with any of them missing.
    #[test]
    fn json_form() {
        let some = total("cpus=7.5,mem=15360,ports=[31000-31063]");
        let json = serde_json::to_string(&some).expect("an object");
        assert_eq!(
            json,
            r#"{"cpus":7.5,"mem":15360,"disk":0,"gpus":0,"port_ranges":[[31000,31063]]}"#
        );
        assert_eq!(
            serde_json::from_str::<Resources>(&json).expect("own output"),
            some
        );
        let few: Resources =
            serde_json::from_str(r#"{"cpus":"0.5","unknown":[]}"#).expect("defaults");
        assert_eq!(few, total("cpus=0.5"));
        let zero: Resources =
            serde_json::from_str(r#"{"other":{"licenses":0}}"#).expect("no licenses");
        assert!(zero.is_empty());
    }

    /// What no agent can have is refused when read from JSON.
    #[test]
    fn bad_json_is_refused() {
        for bad in [
            r#"{"cpus":-1}"#,
            r#"{"cpus":null}"#,
            r#"{"gpus":0.5}"#,
            r#"{"mem":1e308}"#,
            r#"{"port_ranges":[[0,1]]}"#,
            r#"{"other":{"cpus":1}}"#,
            r#"{"other":{"a.b":1}}"#,
            r#"{"other":{"":1}}"#,
            r#"{"other":{"licenses":-1}}"#,
        ] {
            assert!(serde_json::from_str::<Resources>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Whatever is put together comes apart again, exactly, in either order.
        #[test]
        fn sums_come_apart_again(a in some_resources(), b in some_resources()) {
            prop_assert_eq!(a.checked_add(&b), b.checked_add(&a));
            match a.checked_add(&b) {
                Some(sum) => {
                    prop_assert_eq!(sum.checked_sub(&b), Some(a.clone()));
                    prop_assert!(sum.contains(&a) && sum.contains(&b));
                }
                None => prop_assert!(a.ports.intersects(&b.ports)),
            }
            prop_assert_eq!(a.checked_sub(&b).is_some(), a.contains(&b));
        }

        /// What was taken away, put back, is the whole again; all taken away is nothing.
        #[test]
        fn differences_add_up_again(a in some_resources(), b in some_resources()) {
            if let Some(rest) = a.checked_sub(&b) {
                prop_assert_eq!(rest.checked_add(&b), Some(a.clone()));
            }
            prop_assert!(a.checked_sub(&a).expect("all of itself").is_empty());
        }

        /// Showing and reading are inverse, as text and as JSON.
        #[test]
        fn shown_resources_read_back(a in some_resources()) {
            prop_assert_eq!(parse_total(&a.to_string()), Ok(a.clone()));
            let json = serde_json::to_string(&a).expect("an object");
            prop_assert_eq!(serde_json::from_str::<Resources>(&json).expect("own output"), a);
        }
    }
}
