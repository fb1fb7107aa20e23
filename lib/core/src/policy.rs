//! Policies: what operators say of roles and frameworks: weight, priority, guarantee, limit
//!
//! A set of policies is changed as a whole or not at all: [`Policies::with`] hands out the set as it would be, checked
//! against itself. What depends on the cluster (is there as much, is more held already) is the leader's to check.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::id::{FrameworkId, Name, is_id};
use crate::json::quoted;
use crate::resources::{Milli, Quantities};
use crate::role::{BadRole, Role};

/// The most policies of a cluster, so that their document fits a message.
pub const POLICIES_MAX: usize = 1_000;
/// The most kinds of resources in one guarantee or limit.
pub const KINDS_MAX: usize = 16;
/// The highest priority, and the lowest with a minus: far from where JSON numbers lose digits.
pub const PRIORITY_MAX: i64 = 1_000_000_000;
/// The largest weight, in units.
pub const WEIGHT_MAX_UNITS: u64 = 100_000;

/// Whom a policy is for: a role with all below it, or one framework of a role, by its name or id.
///
/// As a text `eng/batch` or `eng/batch:nightly`. A framework need not be there: a guarantee waits for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A role.
    Role(Role),
    /// A framework of exactly this role.
    Framework(Role, Name),
}

/// Why a text names no role and no framework of one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadSubject {
    /// The part before the colon.
    #[error("{0}")]
    Role(String),
    /// The part behind it.
    #[error("{0} is no name or id of a framework")]
    Framework(String),
}

impl Subject {
    /// Reads `ROLE` or `ROLE:FRAMEWORK`.
    pub fn parse(text: &str) -> Result<Subject, BadSubject> {
        let (role, framework) = text.split_once(':').map_or((text, None), |(role, framework)| (role, Some(framework)));
        let role = Role::parse(role).map_err(|bad: BadRole| BadSubject::Role(bad.to_string()))?;
        match framework {
            None => Ok(Subject::Role(role)),
            Some(name) => Name::parse(name).map(|name| Subject::Framework(role, name)).map_err(|_| BadSubject::Framework(quoted(name))),
        }
    }

    /// The role itself, or the framework's.
    pub fn role(&self) -> &Role {
        match self {
            Subject::Role(role) | Subject::Framework(role, _) => role,
        }
    }

    /// The role just above; none for a role of the top.
    fn above(&self) -> Option<Subject> {
        match self {
            Subject::Role(role) => role.above().map(Subject::Role),
            Subject::Framework(role, _) => Some(Subject::Role(role.clone())),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Role(role) => role.fmt(f),
            Subject::Framework(role, name) => write!(f, "{role}:{name}"),
        }
    }
}

impl std::str::FromStr for Subject {
    type Err = BadSubject;
    fn from_str(text: &str) -> Result<Self, BadSubject> {
        Subject::parse(text)
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Subject::parse(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// Amounts by kind in which a zero says something: a kind that is absent is not limited.
pub type Limit = BTreeMap<String, Milli>;

/// What is said of one role or framework.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Against its siblings; above zero.
    pub weight: Milli,
    /// The higher is served first, where the allocation policy looks at priorities.
    pub priority: i64,
    /// What is kept back for it while it holds less; empty for nothing. Ports cannot be guaranteed.
    #[serde(default, skip_serializing_if = "Quantities::is_empty")]
    pub guarantee: Quantities,
    /// The most that it may hold with all below it; empty for no limit.
    #[serde(default, skip_serializing_if = "Limit::is_empty", deserialize_with = "limit")]
    pub limit: Limit,
}

/// The policy of who has none.
impl Default for Policy {
    fn default() -> Self {
        Policy { weight: Milli::units(1), priority: 0, guarantee: Quantities::default(), limit: Limit::new() }
    }
}

/// A change of one policy: what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// A new weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<Milli>,
    /// A new priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// A new guarantee in place of the whole old one; empty takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<Quantities>,
    /// A new limit in place of the whole old one; empty takes it away.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "some_limit")]
    pub limit: Option<Limit>,
}

/// Why a change is refused; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadPolicy {
    /// There is no such policy to remove.
    #[error("{0} has no policy")]
    Unknown(Subject),
    /// A weight that cannot be.
    #[error("the weight of {0} is {1}: a weight is above 0 and at most {WEIGHT_MAX_UNITS}")]
    Weight(Subject, Milli),
    /// A priority that cannot be.
    #[error("the priority of {0} is {1}: from -{PRIORITY_MAX} to {PRIORITY_MAX}")]
    Priority(Subject, i64),
    /// What is guaranteed cannot be had.
    #[error("{subject} is guaranteed {kind}={guarantee} and limited to {kind}={limit}")]
    GuaranteeAboveLimit {
        /// Whose guarantee, with what those below it are guaranteed.
        subject: Subject,
        /// The first kind of which that is so.
        kind: String,
        /// So much is guaranteed.
        guarantee: Milli,
        /// No more may be held.
        limit: Milli,
    },
    /// A limit that the role above makes pointless.
    #[error("{subject} is limited to {kind}={limit}, and {above} above it to {kind}={above_limit}")]
    LimitAboveParent {
        /// Whose limit.
        subject: Subject,
        /// The kind.
        kind: String,
        /// Its limit.
        limit: Milli,
        /// The role above.
        above: Subject,
        /// That one's limit.
        above_limit: Milli,
    },
    /// More is promised below a role than to it.
    #[error("{subject} is guaranteed {kind}={guarantee}, and those below it together {kind}={below}")]
    GuaranteesAboveParent {
        /// The role above.
        subject: Subject,
        /// The kind.
        kind: String,
        /// Its guarantee.
        guarantee: Milli,
        /// The sum below.
        below: Milli,
    },
    /// A kind of which no quota is kept.
    #[error("{0}: ports can be neither guaranteed nor limited")]
    Ports(Subject),
    /// Too many kinds in one policy.
    #[error("{0}: a guarantee or limit has at most {KINDS_MAX} kinds of resources")]
    Kinds(Subject),
    /// Too many policies.
    #[error("there are {POLICIES_MAX} policies, which is the limit")]
    TooMany,
    /// Sums of guarantees that cannot be counted.
    #[error("with {0} more is guaranteed than can be counted")]
    TooMuch(Subject),
}

/// All policies of a cluster; whoever has none has [`Policy::default`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Policies(BTreeMap<Subject, Policy>);

impl Policies {
    /// The set that a document tells. A policy that cannot be is left out, and policies that contradict each other are all:
    /// no leader wrote them, and nobody can tell which of them is meant.
    pub fn read(text: &str) -> Policies {
        let mut told: Policies = serde_json::from_str(text).unwrap_or_default();
        told.0.retain(|subject, policy| policy.check(subject).is_ok());
        if told.check().is_ok() { told } else { Policies::default() }
    }

    /// The policy of a subject, if it was given one.
    pub fn get(&self, subject: &Subject) -> Option<&Policy> {
        self.0.get(subject)
    }

    /// The policy of a framework: by its name, or else by its id.
    pub fn of_framework(&self, role: &Role, name: Option<&Name>, id: &FrameworkId) -> Option<&Policy> {
        if self.0.is_empty() {
            return None;
        }
        let by_name = name.and_then(|name| self.0.get(&Subject::Framework(role.clone(), name.clone())));
        by_name.or_else(|| self.0.get(&Subject::Framework(role.clone(), Name::parse(id.as_str()).ok()?)))
    }

    /// Each subject with its policy, roles first, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Subject, &Policy)> {
        self.0.iter()
    }

    /// Whether nobody was given a policy.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The set with one policy changed, or made.
    ///
    /// # Errors
    /// A value that cannot be, or a contradiction with another policy.
    pub fn with(&self, subject: &Subject, change: &Change) -> Result<Policies, BadPolicy> {
        let mut changed = self.clone();
        let policy = changed.0.entry(subject.clone()).or_default();
        if let Some(weight) = change.weight {
            policy.weight = weight;
        }
        if let Some(priority) = change.priority {
            policy.priority = priority;
        }
        if let Some(guarantee) = &change.guarantee {
            policy.guarantee = guarantee.clone();
        }
        if let Some(limit) = &change.limit {
            policy.limit = limit.clone();
        }
        changed.check()?;
        Ok(changed)
    }

    /// The set without one policy.
    ///
    /// # Errors
    /// There is none; or another policy hangs on it.
    pub fn without(&self, subject: &Subject) -> Result<Policies, BadPolicy> {
        let mut changed = self.clone();
        changed.0.remove(subject).ok_or_else(|| BadPolicy::Unknown(subject.clone()))?;
        changed.check()?;
        Ok(changed)
    }

    /// What is guaranteed to all together: of a role and those below it the larger of its own and their sum.
    pub fn guaranteed(&self) -> Quantities {
        let mut sums: BTreeMap<String, Milli> = BTreeMap::new();
        for ((subject, kind), amount) in self.rolled_up().unwrap_or_default() {
            if subject.above().is_none() {
                let sum = sums.entry(kind).or_default();
                *sum = sum.checked_add(amount).unwrap_or(Milli::MAX);
            }
        }
        sums.into_iter().collect()
    }

    fn check(&self) -> Result<(), BadPolicy> {
        if self.0.len() > POLICIES_MAX {
            return Err(BadPolicy::TooMany);
        }
        for (subject, policy) in &self.0 {
            policy.check(subject)?;
            for above in std::iter::successors(subject.above(), Subject::above) {
                let Some(theirs) = self.0.get(&above) else { continue };
                for (kind, &limit) in &policy.limit {
                    if let Some(&above_limit) = theirs.limit.get(kind).filter(|above_limit| **above_limit < limit) {
                        return Err(BadPolicy::LimitAboveParent { subject: subject.clone(), kind: kind.clone(), limit, above, above_limit });
                    }
                }
            }
        }
        // The deepest first, so that what is said is closest to what was asked.
        for ((subject, kind), guarantee) in self.rolled_up()?.into_iter().rev() {
            let Some(policy) = self.0.get(&subject) else { continue };
            let own = policy.guarantee.get(&kind);
            if !own.is_zero() && guarantee > own {
                return Err(BadPolicy::GuaranteesAboveParent { subject, kind, guarantee: own, below: guarantee });
            }
            if let Some(&limit) = policy.limit.get(&kind).filter(|limit| **limit < guarantee) {
                return Err(BadPolicy::GuaranteeAboveLimit { subject, kind, guarantee, limit });
            }
        }
        Ok(())
    }

    /// What each subject, and each role above one, is guaranteed by kind, with what those below it are.
    fn rolled_up(&self) -> Result<BTreeMap<(Subject, String), Milli>, BadPolicy> {
        let mut below: BTreeMap<(Subject, String), Milli> = BTreeMap::new();
        let mut all: BTreeMap<Subject, Vec<String>> = BTreeMap::new();
        for (subject, policy) in &self.0 {
            let kinds: Vec<String> = policy.guarantee.iter().map(|(kind, _)| kind.to_owned()).collect();
            for at in std::iter::successors(Some(subject.clone()), Subject::above) {
                all.entry(at).or_default().extend(kinds.iter().cloned());
            }
        }
        // The deepest first, so that a role is met after all below it.
        let depth = |subject: &Subject| std::iter::successors(subject.above(), Subject::above).count();
        let mut order: Vec<&Subject> = all.keys().collect();
        order.sort_by_key(|subject| std::cmp::Reverse(depth(subject)));
        for subject in order {
            let mut kinds = all[subject].clone();
            kinds.sort();
            kinds.dedup();
            for kind in kinds {
                let own = self.0.get(subject).map_or(Milli::ZERO, |policy| policy.guarantee.get(&kind));
                let sum = below.entry((subject.clone(), kind.clone())).or_default();
                *sum = own.max(*sum);
                let amount = *sum;
                if let Some(above) = subject.above() {
                    let theirs = below.entry((above, kind)).or_default();
                    *theirs = theirs.checked_add(amount).ok_or_else(|| BadPolicy::TooMuch(subject.clone()))?;
                }
            }
        }
        Ok(below)
    }
}

impl Policy {
    fn check(&self, subject: &Subject) -> Result<(), BadPolicy> {
        if self.weight.is_zero() || self.weight > Milli::units(WEIGHT_MAX_UNITS) {
            return Err(BadPolicy::Weight(subject.clone(), self.weight));
        }
        if self.priority.checked_abs().is_none_or(|size| size > PRIORITY_MAX) {
            return Err(BadPolicy::Priority(subject.clone(), self.priority));
        }
        if self.limit.len() > KINDS_MAX || self.guarantee.iter().count() > KINDS_MAX {
            return Err(BadPolicy::Kinds(subject.clone()));
        }
        if self.limit.contains_key("ports") || !self.guarantee.get("ports").is_zero() {
            return Err(BadPolicy::Ports(subject.clone()));
        }
        Ok(())
    }
}

/// The names of kinds are checked as those of [`Quantities`] are.
fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<Limit, D::Error> {
    let amounts = Limit::deserialize(from)?;
    match amounts.keys().find(|kind| !is_id(kind)) {
        Some(kind) => Err(serde::de::Error::custom(format_args!("{} cannot name a kind of resource", quoted(kind)))),
        None => Ok(amounts),
    }
}

fn some_limit<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Limit>, D::Error> {
    limit(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::parse_total;

    fn subject(text: &str) -> Subject {
        Subject::parse(text).expect(text)
    }

    fn guarantee(text: &str) -> Change {
        Change { guarantee: Some(Quantities::of(&parse_total(text).expect(text))), ..Change::default() }
    }

    fn limited(text: &str) -> Change {
        let amounts = Quantities::of(&parse_total(text).expect(text));
        Change { limit: Some(amounts.iter().map(|(kind, amount)| (kind.to_owned(), amount)).collect()), ..Change::default() }
    }

    /// Builds a set out of changes that all go through.
    fn set(changes: &[(&str, Change)]) -> Policies {
        changes.iter().fold(Policies::default(), |set, (who, change)| set.with(&subject(who), change).expect("no contradiction"))
    }

    /// Shows that roles and frameworks of roles are named, and what is no name of either.
    #[test]
    fn subjects() {
        for text in ["eng", "eng/batch", "eng/batch:nightly", "default:fw_9d2kx0q4ht"] {
            assert_eq!(subject(text).to_string(), text);
        }
        for bad in ["", ":", "eng:", ":f", "eng/..", "eng//x", "eng:a:b", "eng:a/b", "../x", "eng: a"] {
            assert!(Subject::parse(bad).is_err(), "{bad:?} was taken for a role");
        }
    }

    /// Shows that a change touches what it speaks of and nothing else, and that nothing changes where it is refused.
    #[test]
    fn changes() {
        let set = set(&[("eng", guarantee("cpus=4")), ("eng", Change { weight: Some(Milli::units(2)), ..Change::default() })]);
        let policy = set.get(&subject("eng")).expect("it was set");
        assert_eq!((policy.weight, policy.guarantee.get("cpus")), (Milli::units(2), Milli::units(4)));
        let before = set.clone();
        assert!(set.with(&subject("eng"), &Change { weight: Some(Milli::ZERO), ..Change::default() }).is_err());
        assert_eq!(set, before);
        let gone = set.with(&subject("eng"), &Change { guarantee: Some(Quantities::default()), ..Change::default() }).expect("it is taken away");
        assert!(gone.get(&subject("eng")).expect("the weight stays").guarantee.is_empty());
        assert!(gone.without(&subject("eng")).expect("it is there").is_empty());
        assert_eq!(gone.without(&subject("ops")), Err(BadPolicy::Unknown(subject("ops"))));
    }

    /// Shows every contradiction with the words that name both sides.
    #[test]
    fn contradictions() {
        let base = set(&[("eng", limited("cpus=8")), ("vip", guarantee("cpus=4")), ("vip/a", guarantee("cpus=3"))]);
        for (who, change, said) in [
            ("eng", guarantee("cpus=9"), "eng is guaranteed cpus=9 and limited to cpus=8"),
            ("eng/x", guarantee("cpus=9"), "eng is guaranteed cpus=9 and limited to cpus=8"),
            ("eng/x", limited("cpus=9"), "eng/x is limited to cpus=9, and eng above it to cpus=8"),
            ("eng/x:f", limited("cpus=9"), "eng/x:f is limited to cpus=9, and eng above it to cpus=8"),
            ("vip/b", guarantee("cpus=2"), "vip is guaranteed cpus=4, and those below it together cpus=5"),
            ("vip/a:f", guarantee("cpus=5"), "vip/a is guaranteed cpus=3, and those below it together cpus=5"),
            ("vip", guarantee("cpus=2"), "vip is guaranteed cpus=2, and those below it together cpus=3"),
            ("x", guarantee("ports=[1-2]"), "x: ports can be neither guaranteed nor limited"),
            ("x", Change { weight: Some(Milli::units(100_001)), ..Change::default() }, "the weight of x is 100001: a weight is above 0 and at most 100000"),
            ("x", Change { priority: Some(i64::MIN), ..Change::default() }, "the priority of x is -9223372036854775808: from -1000000000 to 1000000000"),
        ] {
            assert_eq!(base.with(&subject(who), &change).map_err(|bad| bad.to_string()), Err(said.to_owned()));
        }
    }

    /// Shows that what is guaranteed below a role counts within what is guaranteed to it.
    #[test]
    fn sums() {
        let set = set(&[("vip", guarantee("cpus=4,mem=1G")), ("vip/a", guarantee("cpus=3")), ("ops/x", guarantee("cpus=1")), ("ops:f", guarantee("cpus=2"))]);
        let sum = set.guaranteed();
        assert_eq!((sum.get("cpus"), sum.get("mem")), (Milli::units(7), Milli::units(1024)));
    }

    /// Shows that a set survives being written and read.
    #[test]
    fn json() {
        let set = set(&[("eng", limited("cpus=8")), ("eng:f", guarantee("cpus=2")), ("eng", Change { priority: Some(-3), ..Change::default() })]);
        let text = serde_json::to_string(&set).expect("it has a JSON form");
        assert_eq!(Policies::read(&text), set);
    }

    /// Shows that of a document which nobody checked, a policy that cannot be is left out, and that policies which contradict
    /// each other are none.
    #[test]
    fn an_unchecked_document() {
        let read = |text: &str| Policies::read(text).iter().map(|(subject, _)| subject.to_string()).collect::<Vec<_>>();
        assert_eq!(read(r#"{"a":{"weight":0,"priority":0},"b":{"weight":1,"priority":9223372036854775807},"c":{"weight":2,"priority":1},"d":{"weight":1000000000,"priority":0}}"#), ["c"]);
        assert_eq!(read(r#"{"a":{"weight":1,"priority":0,"limit":{"cpus":1}},"a/b":{"weight":1,"priority":0,"limit":{"cpus":2}}}"#), Vec::<String>::new());
        assert_eq!(read("nonsense"), Vec::<String>::new());
    }
}
