//! What operators say of roles and frameworks: checked against the cluster, made durable, and effective at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::allocate::{Standings, standings};
use crate::id::{FrameworkId, OfferId};
use crate::master::{Effect, Framework, Lead};
use crate::policy::{BadPolicy, Change, Policies, Policy, Subject};
use crate::resources::{Milli, Quantities};
use crate::role::Role;
use crate::wire::operator::{Operation, Outcome};
use crate::wire::query::RoleRow;
use crate::wire::{Refusal, RefusalCode};

/// The document of the policies.
pub(super) const ROLES: &str = "roles";

impl Lead {
    /// Does what an operator asks.
    pub(super) fn operate(&mut self, operation: Operation) -> Outcome {
        let done = match operation {
            Operation::SetRole { subject, change, force, dry_run } => self.set_role(&subject, &change, force, dry_run),
            Operation::RemoveRole { subject, dry_run } => self.remove_role(&subject, dry_run),
            Operation::MarkGone { agent, force } => self.mark_gone(&agent, force),
        };
        done.unwrap_or_else(Outcome::Refused)
    }

    fn set_role(&mut self, subject: &Subject, change: &Change, force: bool, dry_run: bool) -> Result<Outcome, Refusal> {
        let policies = self.policies.with(subject, change).map_err(contradicts)?;
        if !force {
            self.check_capacity(&policies, change)?;
            self.check_holdings(subject, &policies)?;
        }
        Ok(self.apply(subject, policies, dry_run))
    }

    fn remove_role(&mut self, subject: &Subject, dry_run: bool) -> Result<Outcome, Refusal> {
        let policies = self.policies.without(subject).map_err(|bad| match bad {
            BadPolicy::Unknown(_) => Refusal::new(RefusalCode::UnknownFramework, bad.to_string()),
            bad => contradicts(bad),
        })?;
        Ok(self.apply(subject, policies, dry_run))
    }

    /// Whether the cluster has what would be guaranteed; asked only if guarantees change.
    fn check_capacity(&self, policies: &Policies, change: &Change) -> Result<(), Refusal> {
        if change.guarantee.is_none() {
            return Ok(());
        }
        let there_is = self.ledger.cluster_total();
        for (kind, sum) in policies.guaranteed().iter() {
            let has = there_is.get(kind);
            // A cluster that has too little for what it promised before is not made worse by promising less.
            if sum > has && sum > self.policies.guaranteed().get(kind) {
                let message = format!("{kind}={sum} would be guaranteed in all, and the cluster has {kind}={has}");
                return Err(Refusal::new(RefusalCode::Overcommits, message));
            }
        }
        Ok(())
    }

    /// Whether tasks hold more than would be allowed: a limit ends no task.
    fn check_holdings(&self, subject: &Subject, policies: &Policies) -> Result<(), Refusal> {
        let Some(policy) = policies.get(subject) else { return Ok(()) };
        let before = self.policies.get(subject).map(|policy| &policy.limit);
        let used = self.sum_below(subject, |framework| self.ledger.used_by(framework));
        for (kind, limit) in &policy.limit {
            let is_new = before.is_none_or(|before| before.get(kind) != Some(limit));
            if is_new && used.get(kind) > *limit {
                let message = format!("the tasks of {subject} hold {kind}={}, more than the limit of {kind}={limit}", used.get(kind));
                return Err(Refusal::new(RefusalCode::Overcommits, message));
            }
        }
        Ok(())
    }

    fn apply(&mut self, subject: &Subject, policies: Policies, dry_run: bool) -> Outcome {
        let before = std::mem::replace(&mut self.policies, policies);
        self.note_absent();
        let contradicted = self.contradicted(subject);
        let rescinded = u32::try_from(contradicted.len()).unwrap_or(u32::MAX);
        let role = self.role_row(subject, &self.with_all(standings)).map(Box::new);
        let notes = self.notes(subject);
        if dry_run {
            self.policies = before;
            self.note_absent();
            return Outcome::Done { role, rescinded, notes };
        }
        if self.policies != before {
            self.register_policies();
            for offer in contradicted {
                self.rescind(&offer, "policy_changed");
            }
            self.tell("role_changed", subject.to_string(), format!("the policy of {subject} was changed"));
            self.fresh_frameworks.extend(self.frameworks.iter().filter(|(_, entry)| entry.is_hungry()).map(|(id, _)| id.clone()));
        }
        Outcome::Done { role, rescinded, notes }
    }

    fn notes(&self, subject: &Subject) -> Vec<String> {
        let Some(policy) = self.policies.get(subject) else { return Vec::new() };
        let mut notes = Vec::new();
        if policy.priority != 0 && self.config.rule != crate::allocate::Rule::Priority {
            notes.push(format!("the leader allocates by {}, which does not look at priorities: meso-master --policy priority does", self.config.rule.name()));
        }
        notes
    }

    /// The offers that the policy of a subject does not allow: its own above its limit, and those of others of what it is
    /// guaranteed and lacks. The newest go first, and no more than need to.
    fn contradicted(&self, subject: &Subject) -> Vec<OfferId> {
        let Some(policy) = self.policies.get(subject) else { return Vec::new() };
        let mut offers: Vec<(&OfferId, u64, &FrameworkId)> = Vec::new();
        for (id, entry) in &self.offers {
            if let Some((_, holding)) = self.ledger.find_offer(id) {
                offers.push((id, entry.since_ms, &holding.framework));
            }
        }
        offers.sort_by_key(|(id, since_ms, _)| (std::cmp::Reverse(*since_ms), *id));
        let mut gone: BTreeSet<OfferId> = BTreeSet::new();
        let held = self.sum_below(subject, |framework| self.ledger.held_by(framework));
        let amount = |offer: &OfferId, kind: &str| self.ledger.find_offer(offer).map_or(Milli::ZERO, |(_, holding)| Quantities::of(&holding.resources).get(kind));
        for (kind, limit) in &policy.limit {
            let mut over = held.get(kind).checked_sub(*limit).unwrap_or_default();
            for (offer, _, framework) in &offers {
                let part = amount(offer, kind);
                if over.is_zero() {
                    break;
                }
                if !part.is_zero() && self.is_below(subject, framework) {
                    over = over.checked_sub(part).unwrap_or_default();
                    gone.insert((*offer).clone());
                }
            }
        }
        for (kind, guarantee) in policy.guarantee.iter() {
            let lacks = guarantee.checked_sub(held.get(kind)).unwrap_or_default();
            let mut short = lacks.checked_sub(self.ledger.cluster_free().get(kind)).unwrap_or_default();
            for (offer, _, framework) in &offers {
                let part = amount(offer, kind);
                if short.is_zero() {
                    break;
                }
                if !part.is_zero() && !self.is_below(subject, framework) {
                    short = short.checked_sub(part).unwrap_or_default();
                    gone.insert((*offer).clone());
                }
            }
        }
        gone.into_iter().collect()
    }

    /// Whether a framework is a subject or below it.
    fn is_below(&self, subject: &Subject, framework: &FrameworkId) -> bool {
        self.frameworks.get(framework).is_some_and(|entry| is_within(subject, framework, entry))
    }

    fn sum_below(&self, subject: &Subject, amounts: impl Fn(&FrameworkId) -> Quantities) -> Quantities {
        let mut sums: BTreeMap<String, Milli> = BTreeMap::new();
        for (id, _) in self.frameworks.iter().filter(|(id, entry)| is_within(subject, id, entry)) {
            for (kind, amount) in amounts(id).iter() {
                let sum = sums.entry(kind.to_owned()).or_default();
                *sum = sum.checked_add(amount).unwrap_or(Milli::MAX);
            }
        }
        sums.into_iter().collect()
    }

    /// Roles that somebody is in or that have a policy, and those above them, each followed by its frameworks with one.
    pub(super) fn role_rows(&self) -> Vec<(String, RoleRow)> {
        let mut subjects: BTreeSet<Subject> = self.policies.iter().map(|(subject, _)| subject.clone()).collect();
        let roles = self.frameworks.values().map(|entry| entry.role.clone()).chain(self.policies.iter().map(|(subject, _)| subject.role().clone()));
        for role in roles.collect::<BTreeSet<Role>>() {
            subjects.extend(std::iter::successors(Some(role), Role::above).map(Subject::Role));
        }
        let standings = self.with_all(standings);
        // As texts: `eng` before `eng/x`, and a role's frameworks behind its colon, after what is below its slash.
        let mut rows: Vec<(String, RoleRow)> = subjects.iter().filter_map(|subject| Some((subject.to_string(), self.role_row(subject, &standings)?))).collect();
        rows.sort_by(|one, other| one.0.cmp(&other.0));
        rows
    }

    fn role_row(&self, subject: &Subject, standings: &Standings) -> Option<RoleRow> {
        let within: Vec<&FrameworkId> = self.frameworks.iter().filter(|(id, entry)| is_within(subject, id, entry)).map(|(id, _)| id).collect();
        let policy = self.policies.get(subject);
        let is_above = |other: &Subject| matches!(subject, Subject::Role(role) if std::iter::successors(Some(other.role().clone()), Role::above).any(|above| above == *role));
        if within.is_empty() && policy.is_none() && !self.policies.iter().any(|(other, _)| is_above(other)) {
            return None;
        }
        let standing = match subject {
            Subject::Role(role) => standings.roles.get(role).copied(),
            Subject::Framework(..) => within.first().and_then(|id| standings.by_framework.get(*id).copied()),
        };
        let standing = standing.unwrap_or_default();
        Some(RoleRow {
            meso: "role/1".to_owned(),
            subject: subject.clone(),
            is_set: policy.is_some(),
            policy: policy.cloned().unwrap_or_default(),
            frameworks: u32::try_from(within.len()).unwrap_or(u32::MAX),
            used: self.sum_below(subject, |framework| self.ledger.used_by(framework)),
            offered: self.sum_below(subject, |framework| self.ledger.offered_to(framework)),
            share: part(standing.share_ppm),
            fair_share: part(standing.fair_ppm),
        })
    }

    /// What an operator says of a framework, or the default.
    pub(super) fn policy_of(&self, id: &FrameworkId, entry: &Framework) -> Policy {
        self.policies.of_framework(&entry.role, entry.name.as_ref(), id).cloned().unwrap_or_default()
    }

    /// Which frameworks are guaranteed something by their names, whether they are there or not.
    pub(super) fn note_absent(&mut self) {
        let guaranteed = self.policies.iter().filter(|(_, policy)| !policy.guarantee.is_empty());
        self.absent = guaranteed
            .filter_map(|(subject, _)| match subject {
                Subject::Framework(_, name) => Some((subject.clone(), FrameworkId::parse(name.as_str()).ok()?)),
                Subject::Role(_) => None,
            })
            .collect();
    }

    fn register_policies(&mut self) {
        let doc = serde_json::to_string(&self.policies).expect("a map of plain texts and numbers is JSON");
        self.out.push(Effect::Registry { key: ROLES.to_owned(), doc });
    }
}

fn is_within(subject: &Subject, id: &FrameworkId, entry: &Framework) -> bool {
    match subject {
        Subject::Role(role) => std::iter::successors(Some(entry.role.clone()), Role::above).any(|above| above == *role),
        Subject::Framework(role, name) => entry.role == *role && (entry.name.as_ref() == Some(name) || id.as_str() == name.as_str()),
    }
}

fn contradicts(bad: BadPolicy) -> Refusal {
    Refusal::new(RefusalCode::Contradicts, bad.to_string())
}

/// Millionths as a part of one, with three decimals.
pub(super) fn part(ppm: u64) -> Milli {
    i64::try_from((ppm + 500) / 1000).ok().and_then(Milli::from_milli).unwrap_or(Milli::ZERO)
}
