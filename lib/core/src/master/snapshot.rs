//! The leader's cluster as the line that an allocation policy reads, part by part.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::Serialize;

use crate::allocate::FrameworkView;
use crate::filter::Refused;
use crate::id::AgentId;
use crate::ledger::Account;
use crate::master::offers::Pool;
use crate::master::{AgentEntry, AgentState, Lead};
use crate::wire::query::ROWS_MAX;
use crate::wire::snapshot::{Agent, Framework, Refusal, RolePolicy, Snapshot};

/// The most JSON in one part, bytes, its last entry left out: so that with it the part fits a message.
const PART_BYTES_MAX: usize = 128 * 1024;
/// The first word of a place among the agents; the second is an id.
const AGENTS: &str = "1";
/// The same among the frameworks, which follow; a third word is an agent that the framework refused.
const FRAMEWORKS: &str = "2";

/// A part as it fills.
#[derive(Default)]
struct Part {
    snapshot: Snapshot,
    entries: usize,
    bytes: usize,
    /// The place of the last entry.
    last: String,
}

impl Part {
    /// Counts an entry in; false if it is for the next part.
    fn takes(&mut self, place: String, entry: &impl Serialize) -> bool {
        let bytes = serde_json::to_string(entry).map_or(0, |text| text.len());
        if self.entries > 0 && (self.entries == ROWS_MAX || self.bytes + bytes > PART_BYTES_MAX) {
            return false;
        }
        self.entries += 1;
        self.bytes += bytes;
        self.last = place;
        true
    }
}

impl Lead {
    /// The part of the snapshot that follows `from`, and where the next one begins; empty if there is none.
    pub(super) fn snapshot_part(&self, from: &str) -> (Snapshot, String) {
        let mut part = Part::default();
        let mut words = from.split(' ');
        let (table, id, refused) = (words.next().unwrap_or_default(), words.next().unwrap_or_default(), words.next());
        part.snapshot.policy = self.config.rule.clone();
        if from.is_empty() {
            // At most so many that they fit beside the first agents.
            part.snapshot.roles = self.role_views().map(|view| RolePolicy::of(&view)).collect();
        }
        let is_whole = if table == FRAMEWORKS {
            self.frameworks_from(&mut part, Some((id, refused.unwrap_or_default())))
        } else {
            self.agents_after(&mut part, id) && self.frameworks_from(&mut part, None)
        };
        let next = if is_whole { String::new() } else { part.last };
        (part.snapshot, next)
    }

    /// Puts in the agents that follow an id; false if not all of them fit.
    fn agents_after(&self, part: &mut Part, id: &str) -> bool {
        for (agent, entry) in self.agents.range::<str, _>((Bound::Excluded(id), Bound::Unbounded)) {
            // One that has not registered with this leader yet is no part of the cluster's total either.
            let Some(account) = self.ledger.account(agent) else { continue };
            let line = self.agent_line(agent, entry, account);
            if !part.takes(format!("{AGENTS} {agent}"), &line) {
                return false;
            }
            part.snapshot.agents.push(line);
        }
        true
    }

    fn agent_line(&self, agent: &AgentId, entry: &AgentEntry, account: &Account) -> Agent {
        Agent {
            agent: agent.clone(),
            host: entry.host.clone(),
            total: account.total.clone(),
            free: account.free.clone(),
            attrs: entry.attrs.clone(),
            active: entry.state == AgentState::Active && entry.epoch == self.epoch,
            kept_for: self.kept.get(agent).cloned(),
        }
    }

    /// Puts in the frameworks, of the first one only what follows the place; false if not all of them fit.
    fn frameworks_from(&self, part: &mut Part, place: Option<(&str, &str)>) -> bool {
        let (first, after) = place.unwrap_or_default();
        let there = self.frameworks.iter().map(|(framework, entry)| self.view(Pool::Firm, framework, entry)).chain(self.absent_views());
        let mut views: Vec<FrameworkView<'_>> = there.filter(|view| view.framework.as_str() >= first && (!view.suppressed || !view.used.is_empty() || view.guarantee.is_some())).collect();
        views.sort_by_key(|view| view.framework);
        for view in views {
            let framework = view.framework;
            let goes_on = place.is_some() && framework.as_str() == first;
            let line = Framework::of(&view);
            if !goes_on && !part.takes(format!("{FRAMEWORKS} {framework}"), &line) {
                return false;
            }
            part.snapshot.frameworks.push(line);
            let refused = view.refused.map(|refused| self.refused_by_agent(refused)).unwrap_or_default();
            let after = if goes_on { after } else { "" };
            for (agent, refusals) in refused.range::<str, _>((Bound::Excluded(after), Bound::Unbounded)) {
                if !part.takes(format!("{FRAMEWORKS} {framework} {agent}"), refusals) {
                    return false;
                }
                part.snapshot.frameworks.last_mut().expect("it was just put there").refused.extend(refusals.iter().cloned());
            }
        }
        true
    }

    /// What still holds of what was refused, of agents that are there.
    fn refused_by_agent<'a>(&self, refused: &'a Refused) -> BTreeMap<&'a str, Vec<Refusal>> {
        let mut by_agent: BTreeMap<&str, Vec<Refusal>> = BTreeMap::new();
        for (agent, resources, until_ms) in refused.iter() {
            if until_ms > self.now_ms && self.ledger.account(agent).is_some() {
                by_agent.entry(agent.as_str()).or_default().push(Refusal { agent: agent.clone(), resources: resources.clone() });
            }
        }
        by_agent
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::allocate::allocate;
    use crate::id::FrameworkId;
    use crate::master::testcluster::{Cluster, framework, nonce, principal};
    use crate::master::{Effect, Event, Reply};
    use crate::wire::call::Call;
    use crate::wire::query::{Query, Rows, Table};

    /// The snapshot as a tool gets it: asked for part by part, put together, written and read as a line.
    fn line(cluster: &mut Cluster) -> (Snapshot, usize) {
        let mut whole = Snapshot::default();
        let (mut from, mut parts) = (String::new(), 0);
        loop {
            let query = Query { of: Table::Snapshot, from: from.clone(), prefix: String::new(), ask: None };
            let effects = cluster.step(Event::Query { caller: 7, principal: principal(), query });
            let answer = effects.into_iter().find_map(|effect| match effect {
                Effect::Reply { reply: Reply::Rows(rows), .. } => Some(*rows),
                _ => None,
            });
            let Some(Rows::Snapshot { page, next }) = answer else { panic!("{answer:?} is no part of the snapshot") };
            whole.extend(page);
            parts += 1;
            if next.is_empty() {
                break;
            }
            assert!(next > from, "{next} after {from}");
            from = next;
        }
        let line = serde_json::to_string(&whole).expect("it has a JSON form");
        let read = Snapshot::read(line.as_bytes()).expect("the leader's own line is a snapshot");
        assert_eq!(read, whole);
        (read, parts)
    }

    fn subscribe(cluster: &mut Cluster, number: u64) {
        cluster.subscribe(number, ["default", "eng", "eng/x"][number as usize % 3]);
    }

    /// What happens between two passes.
    #[derive(Clone, Debug)]
    enum Move {
        Demand { who: u64, cpus: u64, mem: u64, count: u32, condition: &'static str },
        Decline { who: u64, refuse_ms: u64 },
        Wait { ms: u64 },
    }

    fn some_move() -> impl Strategy<Value = Move> {
        let condition = prop_oneof![4 => Just(""), 1 => Just("cpus >= 2"), 1 => Just("host != h1")];
        prop_oneof![
            4 => (0..4u64, 0..4u64, 0..4u64, 0..6u32, condition).prop_map(|(who, cpus, mem, count, condition)| Move::Demand { who, cpus, mem, count, condition }),
            2 => (0..4u64, prop_oneof![Just(0u64), Just(5_000), Just(600_000)]).prop_map(|(who, refuse_ms)| Move::Decline { who, refuse_ms }),
            1 => (0..14_000u64).prop_map(|ms| Move::Wait { ms }),
        ]
    }

    proptest! {
        /// Shows that whoever runs the policy on the line that the leader shows gets the leader's own grants, in its order,
        /// whatever was offered, declined, refused and expired before.
        #[test]
        fn the_line_says_what_the_leader_does(moves in proptest::collection::vec(some_move(), 1..25)) {
            let mut cluster = Cluster::new();
            for (number, total) in ["cpus=4,mem=256,ports=[1-9]", "cpus=2,mem=512", "cpus=9,mem=1G,licenses=2"].into_iter().enumerate() {
                cluster.join(number as u64, total);
            }
            (0..5).for_each(|number| subscribe(&mut cluster, number));
            cluster.allocate();
            let mut wishes: BTreeMap<u64, (String, u32, &'static str)> = BTreeMap::new();
            for one in moves {
                match one {
                    Move::Demand { who, cpus, mem, count, condition } => drop(wishes.insert(who, (format!("cpus={cpus},mem={}", mem * 64), count, condition))),
                    Move::Decline { who, refuse_ms } => cluster.decline(who, refuse_ms),
                    Move::Wait { ms } => cluster.now_ms += ms,
                }
                // Sessions stay, and time is noticed before anybody looks.
                (0..5).for_each(|number| drop(cluster.call(Call::Beat { framework: framework(number), session: nonce(number), member: None, sated: false })));
                cluster.decline(4, 0);
                wishes.insert(4, ("cpus=0.5,mem=16".to_owned(), 1_000, ""));
                // Wishes that are said anew let the leader look at all agents, as one who reads the line does.
                for (who, (request, count, condition)) in &wishes {
                    cluster.wish(*who, request, *count, |demand| demand.condition = (*condition).to_owned());
                }
                let (snapshot, _) = line(&mut cluster);
                let seed = cluster.master.lead().expect("it leads").seed.clone().draw();
                let mut wanted: Vec<_> = snapshot.with_view(&snapshot.policy, seed, allocate).into_iter().map(|grant| (grant.framework, grant.agent, grant.resources)).collect();
                // Each hears of all that is its own at once.
                let first: Vec<FrameworkId> = wanted.iter().map(|(framework, ..)| framework.clone()).collect();
                wanted.sort_by_key(|(framework, ..)| first.iter().position(|other| other == framework));
                prop_assert_eq!(cluster.allocate(), wanted);
            }
        }
    }

    /// Shows that a large cluster comes in parts that each fit a message, also one framework that refused every agent, and
    /// that nothing is lost between them.
    #[test]
    fn parts() {
        let mut cluster = Cluster::new();
        (0..1_200).for_each(|number| cluster.join(number, "cpus=4,mem=256,ports=[1-9]"));
        (0..2).for_each(|number| subscribe(&mut cluster, number));
        // As many as one framework may be offered at a time.
        cluster.demand(0, "cpus=1", 5_000);
        cluster.allocate();
        cluster.decline(0, 600_000);
        cluster.demand(1, "cpus=3", 1);
        let (snapshot, parts) = line(&mut cluster);
        assert_eq!((snapshot.agents.len(), snapshot.frameworks.len()), (1_200, 2));
        let refused: BTreeSet<&AgentId> = snapshot.frameworks[0].refused.iter().map(|refusal| &refusal.agent).collect();
        assert!(refused.len() > ROWS_MAX && refused.len() == snapshot.frameworks[0].refused.len(), "{} of {}", refused.len(), snapshot.frameworks[0].refused.len());
        assert!(parts >= 4, "{parts} parts");
        let lead = cluster.master.lead().expect("it leads");
        let first = serde_json::to_string(&lead.snapshot_part("").0).expect("it has a JSON form");
        assert!(first.len() < 2 * PART_BYTES_MAX && first.len() < crate::wire::MESSAGE_BYTES_MAX / 2);
    }
}
