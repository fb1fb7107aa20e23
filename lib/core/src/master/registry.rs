//! What must outlive a leader, as documents of the registry: admitted agents in shards, named frameworks in one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, FrameworkId, Name, Principal};
use crate::master::roles::ROLES;
use crate::master::{AgentEntry, AgentState, Effect, Framework, Lead};
use crate::role::Role;

/// Into how many documents the agents are divided: a document of 50,000 agents' 256th part stays below 64 KiB.
pub const SHARDS: u32 = 64;

/// The document of the named frameworks.
const FRAMEWORKS: &str = "frameworks";

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
                self.policies = serde_json::from_str(text).unwrap_or_default();
                self.note_absent();
            } else if key.starts_with("agents.") {
                for (agent, doc) in serde_json::from_str::<BTreeMap<AgentId, AgentDoc>>(text).unwrap_or_default() {
                    self.agents.insert(agent.clone(), AgentEntry::recovered(doc, self.now_ms));
                    self.watch(&agent);
                }
            }
        }
    }

    /// Writes the document that holds the agent.
    pub(super) fn register_agent(&mut self, agent: &AgentId) {
        let key = shard(agent);
        let docs: BTreeMap<&AgentId, AgentDoc> = self
            .agents
            .iter()
            .filter(|(id, _)| shard(id) == key)
            .map(|(id, entry)| (id, AgentDoc { host: entry.host.clone(), generation: entry.generation, unreachable: entry.state == AgentState::Unreachable }))
            .collect();
        let doc = serde_json::to_string(&docs).expect("a map of plain texts and numbers is JSON");
        self.out.push(Effect::Registry { key, doc });
    }

    /// Writes the document of the named frameworks.
    pub(super) fn register_frameworks(&mut self) {
        let docs: Vec<FrameworkDoc> = self
            .frameworks
            .iter()
            .filter_map(|(id, entry)| {
                let name = entry.name.clone()?;
                Some(FrameworkDoc { framework: id.clone(), name, principal: entry.principal.clone(), role: entry.role.clone(), failover_ms: entry.failover_ms, session_no: entry.session_no, seen: entry.seen })
            })
            .collect();
        let doc = serde_json::to_string(&docs).expect("a list of plain texts and numbers is JSON");
        self.out.push(Effect::Registry { key: FRAMEWORKS.to_owned(), doc });
    }
}
