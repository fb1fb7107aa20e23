//! Quantities: amounts by kind, without saying which ports

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Milli, OTHER_KINDS_MAX, Resources};
use crate::id::is_id;
use crate::json::quoted;

/// Amounts by name of kind: a cluster's total, a framework's use over agents, a guarantee, a limit
///
/// Ports are a number here, so quantities of several agents add up. Mem and disk are in MiB. A kind
/// that is absent is zero, and no entry is zero. In JSON: `{"cpus":4,"mem":1024}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantities(BTreeMap<String, Milli>);

impl Quantities {
    pub fn of(resources: &Resources) -> Quantities {
        resources
            .scalars()
            .map(|(name, amount)| (name.to_owned(), amount))
            .collect()
    }

    pub fn get(&self, kind: &str) -> Milli {
        self.0.get(kind).copied().unwrap_or_default()
    }

    pub fn set(&mut self, kind: &str, amount: Milli) {
        if amount.is_zero() {
            self.0.remove(kind);
        } else {
            self.0.insert(kind.to_owned(), amount);
        }
    }

    /// Each kind of which there is some, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Milli)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds; none, and nothing changed, if an amount overflows.
    #[must_use = "none means that nothing was added"]
    pub fn add(&mut self, resources: &Resources) -> Option<()> {
        self.merge(resources, Milli::checked_add)
    }

    /// Takes away; none, and nothing changed, unless all of it is here.
    #[must_use = "none means that nothing was taken away"]
    pub fn sub(&mut self, resources: &Resources) -> Option<()> {
        self.merge(resources, Milli::checked_sub)
    }

    fn merge(
        &mut self,
        resources: &Resources,
        merged: fn(Milli, Milli) -> Option<Milli>,
    ) -> Option<()> {
        for (name, amount) in resources.scalars() {
            merged(self.get(name), amount)?;
        }
        for (name, amount) in resources.scalars() {
            let amount = merged(self.get(name), amount).expect("the pass before checked it");
            self.set(name, amount);
        }
        Some(())
    }
}

impl FromIterator<(String, Milli)> for Quantities {
    fn from_iter<I: IntoIterator<Item = (String, Milli)>>(amounts: I) -> Quantities {
        Quantities(
            amounts
                .into_iter()
                .filter(|(_, amount)| !amount.is_zero())
                .collect(),
        )
    }
}

impl<'de> Deserialize<'de> for Quantities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Quantities, D::Error> {
        use serde::de::Error;
        let amounts = BTreeMap::<String, Milli>::deserialize(deserializer)?;
        if amounts.len() > OTHER_KINDS_MAX {
            return Err(D::Error::custom(format_args!(
                "more than {OTHER_KINDS_MAX} kinds of resources"
            )));
        }
        match amounts.keys().find(|name| !is_id(name)) {
            Some(name) => Err(D::Error::custom(format_args!(
                "{} cannot name a kind of resource",
                quoted(name)
            ))),
            None => Ok(amounts.into_iter().collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::resources::parse_total;
    use crate::resources::tests::some_resources;

    /// The same port numbers on two agents are two times as many ports.
    #[test]
    fn agents_add_up() {
        let agent = parse_total("cpus=2,ports=[31000-31009]").expect("resources");
        let mut cluster = Quantities::default();
        assert_eq!(
            cluster.add(&agent).and_then(|()| cluster.add(&agent)),
            Some(())
        );
        assert_eq!(
            serde_json::to_string(&cluster).expect("an object"),
            r#"{"cpus":4,"ports":20}"#
        );
        assert_eq!(
            serde_json::from_str::<Quantities>(r#"{"ports":20,"cpus":4,"mem":0}"#)
                .expect("amounts"),
            cluster
        );
    }

    /// A sum or difference that does not exist changes nothing.
    #[test]
    fn refused_changes_change_nothing() {
        let mut some = Quantities::of(&parse_total("cpus=2,mem=1").expect("resources"));
        let before = some.clone();
        assert_eq!(
            some.sub(&parse_total("cpus=1,mem=2").expect("resources")),
            None
        );
        assert_eq!(
            some.add(&Resources {
                cpus: Milli::units(1),
                mem: Milli::MAX,
                ..Resources::default()
            }),
            None
        );
        assert_eq!(some, before);
    }

    proptest! {
        /// What was added can be taken away again, and nothing remains.
        #[test]
        fn sums_come_apart_again(a in some_resources(), b in some_resources()) {
            let mut sum = Quantities::of(&a);
            prop_assert_eq!(sum.add(&b), Some(()));
            prop_assert_eq!(sum.sub(&a), Some(()));
            prop_assert_eq!(sum, Quantities::of(&b));
        }
    }
}
