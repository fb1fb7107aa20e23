//! What limits and guarantees say to a wish: the sums of the allocator's tree, told with their names

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Case, Stake};
use crate::allocate::{CPUS_MIN, MEM_MIN};
use crate::id::Name;
use crate::policy::Subject;
use crate::resources::Milli;
use crate::role::Role;
use crate::wire::explain::{Kept, NAMED_MAX, Obstacle};

/// The limits that one more task would pass, the narrowest first, and what is kept back for others.
pub(super) fn obstacles(case: &Case<'_>) -> Vec<Obstacle> {
    let Some(demand) = case.demand.filter(|_| !case.policies.is_empty()) else { return Vec::new() };
    let quota = Quota { case, own: own_subjects(case) };
    let request = &demand.request;
    if request.is_empty() {
        // Whoever takes what there is can do with either of both.
        let least = [("cpus", CPUS_MIN), ("mem", MEM_MIN)].map(|(name, need)| quota.of_kind(name, need));
        return if least.iter().any(Vec::is_empty) { Vec::new() } else { least.into_iter().flatten().collect() };
    }
    let built_in = [("cpus", request.cpus), ("mem", request.mem), ("disk", request.disk), ("gpus", request.gpus)];
    let others = request.other.iter().map(|(name, need)| (name.as_str(), *need));
    built_in.into_iter().chain(others).filter(|(_, need)| !need.is_zero()).flat_map(|(name, need)| quota.of_kind(name, need)).collect()
}

/// The framework itself, its role, and the roles above, as far as they have a policy.
fn own_subjects(case: &Case<'_>) -> Vec<Subject> {
    let mut own = Vec::new();
    if let Some(seeker) = &case.seeker {
        let ids = [seeker.name.cloned(), Name::parse(seeker.framework.as_str()).ok()];
        // What was said of its name goes before what was said of its id.
        own.extend(ids.into_iter().flatten().map(|name| Subject::Framework(case.role.clone(), name)).find(|subject| case.policies.get(subject).is_some()));
    }
    own.extend(std::iter::successors(Some(case.role.clone()), Role::above).map(Subject::Role));
    own
}

struct Quota<'c, 'a> {
    case: &'c Case<'a>,
    own: Vec<Subject>,
}

impl Quota<'_, '_> {
    fn of_kind(&self, name: &str, need: Milli) -> Vec<Obstacle> {
        let mut obstacles = self.limits(name, need);
        obstacles.extend(self.guaranteed(name, need));
        obstacles
    }

    fn limits(&self, name: &str, need: Milli) -> Vec<Obstacle> {
        let limited = self.own.iter().filter_map(|subject| Some((subject, *self.case.policies.get(subject)?.limit.get(name)?)));
        let reached = limited.map(|(subject, limit)| (subject, limit, self.held(subject, name))).filter(|(_, limit, held)| held.checked_add(need).is_none_or(|sum| sum > *limit));
        reached.map(|(subject, limit, held)| Obstacle::Limit { subject: subject.clone(), name: name.to_owned(), held, limit, need }).collect()
    }

    /// What a subject holds with all below it.
    fn held(&self, subject: &Subject, name: &str) -> Milli {
        self.case.stakes.iter().filter(|stake| is_within(stake, subject)).fold(Milli::ZERO, |sum, stake| sum.checked_add(stake.held.get(name)).unwrap_or(Milli::MAX))
    }

    /// Says so if one more task would take of what is kept back for others.
    fn guaranteed(&self, name: &str, need: Milli) -> Option<Obstacle> {
        let (before, after) = (self.lacking(name, Milli::ZERO), self.lacking(name, need));
        let free = self.case.free.get(name);
        let short = |lacking: &BTreeMap<Subject, Milli>, given: Milli| thousandths(kept_back(lacking)) - (thousandths(free) - thousandths(given));
        let is_short = short(&after, need) > short(&before, Milli::ZERO).max(0);
        // Where nothing is kept back for anybody it is the agents that are too small or busy.
        if !is_short || kept_back(&after).is_zero() {
            return None;
        }
        // A role speaks for all below it, unless the one who waits is below it too.
        let is_other = |subject: &Subject| !self.own.contains(subject) && above(subject).is_none_or(|above| self.own.contains(&above));
        let mut subjects: Vec<Kept> = after.iter().filter(|(subject, _)| is_other(subject)).map(|(subject, amount)| Kept { subject: subject.clone(), amount: *amount }).collect();
        subjects.retain(|kept| !kept.amount.is_zero());
        subjects.sort_by_key(|kept| Reverse(kept.amount));
        subjects.truncate(NAMED_MAX);
        Some(Obstacle::Guaranteed { name: name.to_owned(), free, kept_back: kept_back(&after), need, subjects })
    }

    /// What each subject that is guaranteed something of a kind, and each role above one, lacks of it once the one who
    /// waits was given so much.
    fn lacking(&self, name: &str, given: Milli) -> BTreeMap<Subject, Milli> {
        let guarantees = self.case.policies.iter().filter(|(_, policy)| !policy.guarantee.get(name).is_zero());
        let mut order: Vec<Subject> = guarantees.flat_map(|(subject, _)| std::iter::successors(Some(subject.clone()), above)).collect();
        // The deepest first, so that a role is met after all below it.
        order.sort_by_key(|subject| (Reverse(std::iter::successors(above(subject), above).count()), subject.clone()));
        order.dedup();
        let mut lacking: BTreeMap<Subject, Milli> = BTreeMap::new();
        for subject in order {
            let guarantee = self.case.policies.get(&subject).map_or(Milli::ZERO, |policy| policy.guarantee.get(name));
            let more = if self.own.contains(&subject) { given } else { Milli::ZERO };
            let held = self.held(&subject, name).checked_add(more).unwrap_or(Milli::MAX);
            let below = sum(lacking.iter().filter(|(part, _)| above(part).as_ref() == Some(&subject)).map(|(_, amount)| *amount));
            lacking.insert(subject, guarantee.saturating_sub(held).max(below));
        }
        lacking
    }
}

/// What is kept back in all: what the subjects of the top lack.
fn kept_back(lacking: &BTreeMap<Subject, Milli>) -> Milli {
    sum(lacking.iter().filter(|(subject, _)| above(subject).is_none()).map(|(_, amount)| *amount))
}

fn sum(amounts: impl Iterator<Item = Milli>) -> Milli {
    amounts.fold(Milli::ZERO, |sum, amount| sum.checked_add(amount).unwrap_or(Milli::MAX))
}

fn thousandths(amount: Milli) -> i128 {
    i128::from(amount.as_milli())
}

/// The role just above a subject.
fn above(subject: &Subject) -> Option<Subject> {
    match subject {
        Subject::Role(role) => role.above().map(Subject::Role),
        Subject::Framework(role, _) => Some(Subject::Role(role.clone())),
    }
}

fn is_within(stake: &Stake<'_>, subject: &Subject) -> bool {
    match subject {
        Subject::Role(role) => stake.role.as_str().strip_prefix(role.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        Subject::Framework(role, name) => stake.role == role && (stake.name == Some(name) || stake.framework.as_str() == name.as_str()),
    }
}
