//! Filters: what a framework refused on an agent, and for how long not to offer it again
//!
//! A refusal hides resources from the framework that are contained in what it refused; a larger offer
//! passes. Nobody else is affected, and no refusal is stored: they are hints, and a new leader begins
//! without any.
//!
//! A refusal that nobody spoke out (an expired or a skipped offer) lasts a little, and twice as long
//! each time, until the agent has more to give. A framework has one role, so its id stands for both.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{AgentId, FrameworkId};
use crate::resources::Resources;

/// How long a decline refuses that does not say so (Mesos's default).
pub const REFUSE_MS_DEFAULT: u64 = 5_000;
/// The longest refusal; a longer one is cut to it (as in Mesos).
pub const REFUSE_MS_MAX: u64 = 365 * 24 * 3_600_000;
/// How long the first implicit refusal lasts; the next ones double.
pub const BACKOFF_MS_MIN: u64 = 5_000;
/// Where the doubling ends.
pub const BACKOFF_MS_MAX: u64 = 120_000;
/// How long after its end an implicit refusal is remembered, so that the next one is longer.
pub const BACKOFF_MEMORY_MS: u64 = 600_000;
/// Refusals of one framework on one agent; beyond it the one that ends first goes.
pub const REFUSALS_PER_AGENT_MAX: usize = 4;
/// Agents refused in all, counted per framework; beyond it the one that ends first goes.
pub const REFUSALS_MAX: usize = 500_000;

/// The refusals of all frameworks. Times are milliseconds of the caller's monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    frameworks: BTreeMap<FrameworkId, Refused>,
    /// When each entry next changes by itself.
    agenda: BTreeSet<(u64, FrameworkId, AgentId)>,
    /// Who has an entry for the agent.
    agents: BTreeMap<AgentId, BTreeSet<FrameworkId>>,
}

/// The refusals of one framework, agent by agent.
#[derive(Clone, Debug, Default)]
pub struct Refused {
    /// Under a digest of the agent's id: the allocator asks for thousands of agents, mostly in vain,
    /// and a number in the tree itself is compared without a look at an id elsewhere in memory.
    agents: BTreeMap<u64, Vec<(AgentId, Entry)>>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    refusals: Vec<Refusal>,
    backoff: Option<Backoff>,
}

#[derive(Clone, Debug)]
struct Refusal {
    resources: Resources,
    until_ms: u64,
    implicit: bool,
}

/// The last implicit refusal, by which the next one is measured.
#[derive(Clone, Debug)]
struct Backoff {
    length_ms: u64,
    /// What no task of the agent used then.
    idle: Resources,
    forget_ms: u64,
}

impl Refusals {
    /// Notes an outspoken refusal; of 0 milliseconds it is none.
    pub fn add(&mut self, framework: &FrameworkId, agent: &AgentId, resources: Resources, refuse_ms: u64, now_ms: u64) {
        let until_ms = now_ms.saturating_add(refuse_ms.min(REFUSE_MS_MAX));
        self.change(framework, agent, |entry| entry.note(Refusal { resources, until_ms, implicit: false }, now_ms));
    }

    /// Notes a refusal that nobody spoke out, and says for how many milliseconds.
    ///
    /// `idle` is what no task of the agent uses. What is free comes and goes with the offers to others;
    /// this grows only when there is truly more.
    pub fn add_implicit(&mut self, framework: &FrameworkId, agent: &AgentId, resources: Resources, idle: &Resources, now_ms: u64) -> u64 {
        let mut length_ms = BACKOFF_MS_MIN;
        self.change(framework, agent, |entry| {
            if let Some(last) = entry.backoff.as_ref().filter(|last| last.forget_ms > now_ms && last.idle.contains(idle)) {
                length_ms = (last.length_ms * 2).min(BACKOFF_MS_MAX);
            }
            let until_ms = now_ms.saturating_add(length_ms);
            entry.backoff = Some(Backoff { length_ms, idle: idle.clone(), forget_ms: until_ms.saturating_add(BACKOFF_MEMORY_MS) });
            entry.note(Refusal { resources, until_ms, implicit: true }, now_ms);
        });
        length_ms
    }

    /// Ends the implicit refusals of an agent that has more idle resources than when they were noted.
    pub fn grown(&mut self, agent: &AgentId, idle: &Resources) {
        for framework in self.agents.get(agent).cloned().unwrap_or_default() {
            self.change(&framework, agent, |entry| {
                if entry.backoff.as_ref().is_some_and(|last| !last.idle.contains(idle)) {
                    entry.forget_implicit();
                }
            });
        }
    }

    /// Ends the implicit refusals of a framework, as a new demand does.
    pub fn reset(&mut self, framework: &FrameworkId) {
        let agents: Vec<AgentId> = self.frameworks.get(framework).into_iter().flat_map(|refused| refused.entries().map(|(agent, _)| agent.clone())).collect();
        for agent in agents {
            self.change(framework, &agent, Entry::forget_implicit);
        }
    }

    /// Ends all refusals of a framework, as a revive, a new role or its removal does.
    pub fn clear(&mut self, framework: &FrameworkId) {
        let agents: Vec<AgentId> = self.frameworks.get(framework).into_iter().flat_map(|refused| refused.entries().map(|(agent, _)| agent.clone())).collect();
        for agent in agents {
            self.change(framework, &agent, |entry| *entry = Entry::default());
        }
    }

    /// Ends all refusals of an agent, as its removal or a change of its attributes does.
    pub fn clear_agent(&mut self, agent: &AgentId) {
        for framework in self.agents.get(agent).cloned().unwrap_or_default() {
            self.change(&framework, agent, |entry| *entry = Entry::default());
        }
    }

    /// Ends what has run out by now; says which agents may be offered again to somebody.
    pub fn expire(&mut self, now_ms: u64) -> BTreeSet<AgentId> {
        let mut agents = BTreeSet::new();
        while let Some((when_ms, framework, agent)) = self.agenda.first().cloned()
            && when_ms <= now_ms
        {
            self.change(&framework, &agent, |entry| {
                let before = entry.refusals.len();
                entry.expire(now_ms);
                if entry.refusals.len() < before {
                    agents.insert(agent.clone());
                }
            });
        }
        agents
    }

    /// When to call [`Refusals::expire`] next.
    pub fn next_expiry(&self) -> Option<u64> {
        self.agenda.first().map(|(when_ms, _, _)| *when_ms)
    }

    /// Whether the framework refused these resources of the agent, or more.
    pub fn refuses(&self, framework: &FrameworkId, agent: &AgentId, resources: &Resources, now_ms: u64) -> bool {
        let entry = self.frameworks.get(framework).and_then(|refused| refused.get(agent));
        entry.is_some_and(|entry| entry.refusals.iter().any(|refusal| refusal.until_ms > now_ms && refusal.resources.contains(resources)))
    }

    /// The refusals of a framework, for a snapshot; call [`Refusals::expire`] before.
    pub fn of(&self, framework: &FrameworkId) -> Option<&Refused> {
        self.frameworks.get(framework)
    }

    /// How many pairs of framework and agent have an entry.
    pub fn len(&self) -> usize {
        self.agenda.len()
    }

    pub fn is_empty(&self) -> bool {
        self.agenda.is_empty()
    }

    /// The one place where an entry is changed: it keeps the agenda and the index, and the bound.
    fn change(&mut self, framework: &FrameworkId, agent: &AgentId, how: impl FnOnce(&mut Entry)) {
        let refused = self.frameworks.entry(framework.clone()).or_default();
        let entry = refused.entry(agent);
        let before_ms = entry.next_ms();
        how(entry);
        let after_ms = entry.next_ms();
        if after_ms.is_none() {
            refused.forget(agent);
            if refused.agents.is_empty() {
                self.frameworks.remove(framework);
            }
        }
        if before_ms == after_ms {
            return;
        }
        if let Some(when_ms) = before_ms {
            self.agenda.remove(&(when_ms, framework.clone(), agent.clone()));
        }
        if let Some(when_ms) = after_ms {
            self.agenda.insert((when_ms, framework.clone(), agent.clone()));
            self.agents.entry(agent.clone()).or_default().insert(framework.clone());
            self.drop_beyond_bound();
        } else if let Some(frameworks) = self.agents.get_mut(agent) {
            frameworks.remove(framework);
            if frameworks.is_empty() {
                self.agents.remove(agent);
            }
        }
    }

    fn drop_beyond_bound(&mut self) {
        if self.agenda.len() > REFUSALS_MAX
            && let Some((_, framework, agent)) = self.agenda.first().cloned()
        {
            self.change(&framework, &agent, |entry| *entry = Entry::default());
        }
    }
}

impl Refused {
    /// Whether these resources of the agent, or more, were refused.
    pub fn covers(&self, agent: &AgentId, resources: &Resources) -> bool {
        self.get(agent).is_some_and(|entry| entry.refusals.iter().any(|refusal| refusal.resources.contains(resources)))
    }

    /// Whether anything of the agent was refused.
    pub fn knows(&self, agent: &AgentId) -> bool {
        self.get(agent).is_some_and(|entry| !entry.refusals.is_empty())
    }

    /// Each refusal with its agent, and when it ends; in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&AgentId, &Resources, u64)> {
        self.entries().flat_map(|(agent, entry)| entry.refusals.iter().map(move |refusal| (agent, &refusal.resources, refusal.until_ms)))
    }

    fn entries(&self) -> impl Iterator<Item = (&AgentId, &Entry)> {
        self.agents.values().flatten().map(|(agent, entry)| (agent, entry))
    }

    fn get(&self, agent: &AgentId) -> Option<&Entry> {
        self.agents.get(&digest(agent))?.iter().find(|(one, _)| one == agent).map(|(_, entry)| entry)
    }

    /// The entry of an agent, made if it is not there.
    fn entry(&mut self, agent: &AgentId) -> &mut Entry {
        let alike = self.agents.entry(digest(agent)).or_default();
        let place = alike.iter().position(|(one, _)| one == agent).unwrap_or_else(|| {
            alike.push((agent.clone(), Entry::default()));
            alike.len() - 1
        });
        &mut alike[place].1
    }

    fn forget(&mut self, agent: &AgentId) {
        if let Some(alike) = self.agents.get_mut(&digest(agent)) {
            alike.retain(|(one, _)| one != agent);
            if alike.is_empty() {
                self.agents.remove(&digest(agent));
            }
        }
    }
}

/// FNV-1a; two agents of one digest are told apart by their ids.
fn digest(agent: &AgentId) -> u64 {
    agent.as_str().bytes().fold(0xCBF2_9CE4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

/// Refusals without an end, as a snapshot from outside lists them.
impl FromIterator<(AgentId, Resources)> for Refused {
    fn from_iter<I: IntoIterator<Item = (AgentId, Resources)>>(refusals: I) -> Refused {
        let mut refused = Refused::default();
        for (agent, resources) in refusals {
            refused.entry(&agent).refusals.push(Refusal { resources, until_ms: u64::MAX, implicit: false });
        }
        refused
    }
}

impl Entry {
    /// Adds a refusal, in place of those that it makes pointless.
    fn note(&mut self, new: Refusal, now_ms: u64) {
        if new.until_ms <= now_ms {
            return;
        }
        self.refusals.retain(|old| old.until_ms > new.until_ms || !new.resources.contains(&old.resources));
        self.refusals.push(new);
        if self.refusals.len() > REFUSALS_PER_AGENT_MAX {
            let first = self.refusals.iter().enumerate().min_by_key(|(_, refusal)| refusal.until_ms).map(|(place, _)| place);
            self.refusals.remove(first.expect("there are more than the bound"));
        }
    }

    fn expire(&mut self, now_ms: u64) {
        self.refusals.retain(|refusal| refusal.until_ms > now_ms);
        self.backoff = self.backoff.take().filter(|last| last.forget_ms > now_ms);
    }

    fn forget_implicit(&mut self) {
        self.refusals.retain(|refusal| !refusal.implicit);
        self.backoff = None;
    }

    /// When it next changes by itself; none if there is nothing in it.
    fn next_ms(&self) -> Option<u64> {
        let ends = self.refusals.iter().map(|refusal| refusal.until_ms);
        ends.chain(self.backoff.as_ref().map(|last| last.forget_ms)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::parse_total;

    fn some(text: &str) -> Resources {
        parse_total(text).expect(text)
    }

    fn framework(text: &str) -> FrameworkId {
        FrameworkId::parse(text).expect(text)
    }

    fn agent(text: &str) -> AgentId {
        AgentId::parse(text).expect(text)
    }

    /// Shows that a refusal hides what it contains from its framework on its agent, and no more.
    #[test]
    fn a_larger_offer_passes() {
        let (f1, f2, a1, a2) = (framework("f1"), framework("f2"), agent("a1"), agent("a2"));
        let mut refusals = Refusals::default();
        refusals.add(&f1, &a1, some("cpus=1,mem=1G"), 60_000, 1_000);
        for (who, place, what, now_ms, refused) in [
            (&f1, &a1, "cpus=1,mem=1G", 1_000, true),
            (&f1, &a1, "cpus=0.5", 60_999, true),
            (&f1, &a1, "cpus=1,mem=1G", 61_000, false),
            (&f1, &a1, "cpus=1.001,mem=1G", 1_000, false),
            (&f1, &a1, "cpus=0.1,gpus=1", 1_000, false),
            (&f2, &a1, "cpus=0.5", 1_000, false),
            (&f1, &a2, "cpus=0.5", 1_000, false),
        ] {
            assert_eq!(refusals.refuses(who, place, &some(what), now_ms), refused, "{who} {place} {what} at {now_ms}");
        }
        assert_eq!(refusals.next_expiry(), Some(61_000));
        assert!(refusals.expire(60_999).is_empty());
        assert_eq!(refusals.expire(61_000), BTreeSet::from([a1]));
        assert!(refusals.is_empty() && refusals.next_expiry().is_none() && refusals.of(&f1).is_none());
    }

    /// Shows the bounds: 0 is no refusal, a year is the most, and time does not overflow.
    #[test]
    fn lengths_are_bounded() {
        let (f1, a1) = (framework("f1"), agent("a1"));
        let mut refusals = Refusals::default();
        refusals.add(&f1, &a1, some("cpus=1"), 0, 7);
        assert!(refusals.is_empty());
        refusals.add(&f1, &a1, some("cpus=1"), u64::MAX, 7);
        assert_eq!(refusals.next_expiry(), Some(7 + REFUSE_MS_MAX));
        refusals.add(&f1, &a1, some("cpus=2"), u64::MAX, u64::MAX - 1);
        assert!(refusals.refuses(&f1, &a1, &some("cpus=2"), u64::MAX - 1));
        for count in 1..=10 {
            refusals.add(&f1, &a1, Resources { mem: crate::resources::Milli::units(count), ..some("cpus=2") }, 1_000 * (20 - count), 7);
        }
        assert!(refusals.of(&f1).expect("refusals").iter().count() <= REFUSALS_PER_AGENT_MAX);
    }

    /// Shows the back-off of unspoken refusals: it doubles to its bound while the agent has no more to
    /// give, and begins anew when it has, when it was long ago, and on a new demand.
    #[test]
    fn implicit_refusals_back_off() {
        let (f1, a1) = (framework("f1"), agent("a1"));
        let mut refusals = Refusals::default();
        let idle = some("cpus=4");
        let mut now_ms = 0;
        for want_s in [5, 10, 20, 40, 80, 120, 120] {
            let length_ms = refusals.add_implicit(&f1, &a1, some("cpus=1"), &idle, now_ms);
            assert_eq!(length_ms, want_s * 1000);
            now_ms += length_ms;
            assert_eq!(refusals.expire(now_ms), BTreeSet::from([a1.clone()]));
        }
        refusals.grown(&a1, &some("cpus=3"));
        assert_eq!(refusals.add_implicit(&f1, &a1, some("cpus=1"), &idle, now_ms), BACKOFF_MS_MAX);
        refusals.grown(&a1, &some("cpus=4,mem=1"));
        assert!(!refusals.refuses(&f1, &a1, &some("cpus=1"), now_ms), "the agent has more");
        assert_eq!(refusals.add_implicit(&f1, &a1, some("cpus=1"), &idle, now_ms), BACKOFF_MS_MIN);
        assert_eq!(refusals.add_implicit(&f1, &a1, some("cpus=1"), &some("cpus=5"), now_ms), BACKOFF_MS_MIN);
        refusals.add(&f1, &a1, some("gpus=1"), 1_000, now_ms);
        refusals.reset(&f1);
        assert!(refusals.refuses(&f1, &a1, &some("gpus=1"), now_ms), "what was spoken out stays");
        assert!(!refusals.refuses(&f1, &a1, &some("cpus=1"), now_ms));
        now_ms += BACKOFF_MS_MIN + BACKOFF_MEMORY_MS;
        refusals.expire(now_ms);
        assert!(refusals.is_empty(), "nothing is remembered for ever");
    }

    /// Shows that a framework and an agent take their refusals with them.
    #[test]
    fn clearing() {
        let (f1, f2, a1, a2) = (framework("f1"), framework("f2"), agent("a1"), agent("a2"));
        let mut refusals = Refusals::default();
        for who in [&f1, &f2] {
            for place in [&a1, &a2] {
                refusals.add(who, place, some("cpus=1"), 1_000, 0);
                refusals.add_implicit(who, place, some("cpus=2"), &some("cpus=2"), 0);
            }
        }
        assert_eq!(refusals.len(), 4);
        refusals.clear(&f1);
        refusals.clear(&framework("stranger"));
        assert_eq!(refusals.len(), 2);
        refusals.clear_agent(&a1);
        assert!(refusals.refuses(&f2, &a2, &some("cpus=2"), 0) && !refusals.refuses(&f2, &a1, &some("cpus=1"), 0));
        refusals.clear_agent(&a2);
        assert!(refusals.is_empty() && refusals.agents.is_empty() && refusals.frameworks.is_empty());
    }
}
