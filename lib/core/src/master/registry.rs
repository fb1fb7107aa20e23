//! What must outlive a leader, as documents of the registry: admitted agents in shards, named frameworks in one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, FrameworkId, Name, Principal};
use crate::master::roles::ROLES;
use crate::master::{AgentEntry, AgentState, Effect, Framework, Lead};
use crate::policy::Policies;
use crate::role::Role;

/// Into how many documents the agents are divided: of 50,000 agents each holds some 780, about 60 KiB.
pub const SHARDS: u32 = 64;

/// The generation of an agent that is gone. No agent reaches it, so that a master of the release before, which does not
/// know the mark and does not keep it, takes the agent for an old copy and refuses it too.
const GONE_GENERATION: u64 = u64::MAX;

/// The document of the named frameworks.
pub(super) const FRAMEWORKS: &str = "frameworks";

/// An admitted agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentDoc {
    /// Its host name.
    pub host: String,
    /// The highest generation seen: an older copy of its work directory is refused.
    pub generation: u64,
    /// Whether it was marked unreachable.
    #[serde(default)]
    pub unreachable: bool,
    /// Whether an operator declared it gone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gone: bool,
    /// When it was last heard of before it was away, milliseconds since 1970; 0 if it is not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub heard_ms: u64,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl AgentDoc {
    /// One that is there.
    pub(super) fn new(host: String, generation: u64) -> Self {
        AgentDoc { host, generation, unreachable: false, gone: false, heard_ms: 0 }
    }

    /// What a new leader takes it for.
    pub(super) fn state(&self) -> AgentState {
        match (self.gone || self.generation == GONE_GENERATION, self.unreachable) {
            (true, _) => AgentState::Gone,
            (false, true) => AgentState::Unreachable,
            (false, false) => AgentState::Recovering,
        }
    }
}

/// A named framework.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameworkDoc {
    /// Its id.
    pub framework: FrameworkId,
    /// Its name.
    pub name: Name,
    /// The principal that owns the name.
    pub principal: Principal,
    /// Its role.
    pub role: Role,
    /// How long its tasks live on without a session, milliseconds.
    pub failover_ms: u64,
    /// How many sessions it has had: who comes with a lower number was fenced.
    #[serde(default)]
    pub session_no: u64,
    /// Up to where in the event stream its statuses were seen.
    #[serde(default)]
    pub seen: u64,
    /// When what stood there was recorded, milliseconds since 1970: the stream may lose its end and give the place anew.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seen_ms: u64,
}

/// Which document an agent is in: FNV-1a over its id, so that every master agrees.
fn shard(agent: &AgentId) -> String {
    let hash = agent.as_str().bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("agents.{:02}", hash % SHARDS)
}

impl Lead {
    /// Takes what earlier leaders wrote. A document that cannot be read counts as lost: the agents tell it again.
    pub(super) fn read_registry(&mut self, registry: &BTreeMap<String, String>) {
        for (key, text) in registry {
            if key == FRAMEWORKS {
                for doc in serde_json::from_str::<Vec<FrameworkDoc>>(text).unwrap_or_default() {
                    self.names.insert((doc.principal.clone(), doc.name.clone()), doc.framework.clone());
                    let framework = Framework::recovered(&doc, self.now_ms);
                    self.frameworks.insert(doc.framework.clone(), framework);
                    self.arm_session(&doc.framework);
                }
            } else if key == ROLES {
                self.policies = Policies::read(text);
                self.note_absent();
            } else if key.starts_with("agents.") {
                for (agent, doc) in serde_json::from_str::<BTreeMap<AgentId, AgentDoc>>(text).unwrap_or_default() {
                    self.shards.entry(shard(&agent)).or_default().insert(agent.clone(), doc.clone());
                    let is_away = doc.state() != AgentState::Recovering;
                    let mut entry = AgentEntry::recovered(doc, self.now_ms);
                    if is_away && entry.heard_wall_ms == 0 {
                        entry.heard_wall_ms = self.wall.0;
                    }
                    self.agents.insert(agent.clone(), entry);
                    if is_away {
                        self.watch_away();
                    } else {
                        self.watch(&agent);
                    }
                }
            }
        }
    }

    /// Writes the document that holds the agent.
    pub(super) fn register_agent(&mut self, agent: &AgentId) {
        let Some(entry) = self.agents.get(agent) else { return };
        let stands = AgentDoc {
            unreachable: entry.state == AgentState::Unreachable,
            gone: entry.state == AgentState::Gone,
            heard_ms: entry.heard_wall_ms,
            ..AgentDoc::new(entry.host.clone(), if entry.state == AgentState::Gone { GONE_GENERATION } else { entry.generation })
        };
        let key = shard(agent);
        self.shards.entry(key.clone()).or_default().insert(agent.clone(), stands);
        self.register_shard(key);
    }

    /// Takes agents out of memory and registry.
    pub(super) fn forget_agents(&mut self, agents: &BTreeSet<AgentId>) {
        let mut keys = BTreeSet::new();
        for agent in agents {
            let key = shard(agent);
            self.agents.remove(agent);
            self.fenced.remove(agent);
            if let Some(docs) = self.shards.get_mut(&key) {
                docs.remove(agent);
            }
            keys.insert(key);
        }
        keys.into_iter().for_each(|key| self.register_shard(key));
    }

    fn register_shard(&mut self, key: String) {
        let docs = self.shards.entry(key.clone()).or_default();
        let doc = serde_json::to_string(docs).expect("a map of plain texts and numbers is JSON");
        self.out.push(Effect::Registry { key, doc });
    }

    /// Writes the document of the named frameworks.
    pub(super) fn register_frameworks(&mut self) {
        let docs: Vec<FrameworkDoc> = self
            .frameworks
            .iter()
            .filter_map(|(id, entry)| {
                let name = entry.name.clone()?;
                Some(FrameworkDoc { framework: id.clone(), name, principal: entry.principal.clone(), role: entry.role.clone(), failover_ms: entry.failover_ms, session_no: entry.session_no, seen: entry.seen.seq, seen_ms: entry.seen.recorded_ms })
            })
            .collect();
        let doc = serde_json::to_string(&docs).expect("a list of plain texts and numbers is JSON");
        self.out.push(Effect::Registry { key: FRAMEWORKS.to_owned(), doc });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MasterId;
    use crate::master::testcluster::{Cluster, EPOCH, agent};
    use crate::master::{Config, Event, Master};

    fn registered(registry: &BTreeMap<String, String>) -> Vec<AgentId> {
        let mut all: Vec<AgentId> = registry.values().flat_map(|text| serde_json::from_str::<BTreeMap<AgentId, AgentDoc>>(text).expect("a document").into_keys()).collect();
        all.sort();
        all
    }

    /// Shows that each agent stands in one document, that who comes back to a new leader as it is known has nothing
    /// written, and that whoever is written later does not drive out the others.
    #[test]
    fn documents() {
        const AGENTS: u64 = 300;
        let mut cluster = Cluster::new();
        (0..AGENTS).for_each(|number| cluster.join(number, "cpus=1"));
        let mut all: Vec<AgentId> = (0..AGENTS).map(agent).collect();
        all.sort();
        assert_eq!(registered(&cluster.registry), all);
        assert!(cluster.registry.len() > SHARDS as usize / 2);

        let mut next = Cluster::new();
        next.master = Master::new(Config::new(MasterId::parse("m2").expect("an id"), "host".to_owned(), "1".to_owned()));
        next.step(Event::Lead { epoch: EPOCH, seed: [3, 4], registry: cluster.registry.clone() });
        (0..AGENTS).for_each(|number| next.join(number, "cpus=1"));
        assert_eq!(next.registry, BTreeMap::new());
        (AGENTS..2 * AGENTS).for_each(|number| next.join(number, "cpus=1"));
        cluster.registry.extend(next.registry);
        assert_eq!(registered(&cluster.registry).len() as u64, 2 * AGENTS);
    }
}
