//! `snapshot/1`: all that an allocation policy may know, as one line
//!
//! The master shows its cluster in this form, and a policy that is a program reads it. Resources of one agent have
//! their own kinds under `other`, as everywhere; amounts that are sums over agents (`used`, `guarantee`, `limit`) have
//! a key for each kind.

use std::collections::{BTreeMap, BTreeSet};

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::allocate::{self, About, AgentView, FrameworkView, Place, RoleView, Rule, in_order};
use crate::condition::{Attr, Condition, deserialize_attrs};
use crate::filter::Refused;
use crate::id::{AgentId, FrameworkId};
use crate::json::{BadJson, Limits, quoted, read_within};
use crate::resources::{Milli, Ports, Quantities, Request, Resources, other_kinds, whole};
use crate::role::Role;

/// The longest snapshot that is read, in bytes: room for some 100,000 agents.
pub const SNAPSHOT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most JSON values in a snapshot, as [`Limits::elements`] counts them.
pub const SNAPSHOT_ELEMENTS_MAX: usize = 8_000_000;

/// The line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Always `snapshot/1`.
    pub meso: SnapshotKind,
    /// All agents of the cluster; shares are parts of what they have together.
    pub agents: Vec<Agent>,
    /// The roles that somebody gave a policy.
    #[serde(default)]
    pub roles: Vec<RolePolicy>,
    /// All frameworks that want or hold something.
    pub frameworks: Vec<Framework>,
    /// How the master that shows it chooses who is next; weighted dominant resource fairness where absent.
    #[serde(default, skip_serializing_if = "is_drf")]
    pub policy: Rule,
}

/// The tag of a snapshot line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotKind {
    /// The first major.
    #[default]
    V1,
}

const KIND: &str = "snapshot/1";

/// One agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "AgentShape", into = "AgentShape")]
pub struct Agent {
    /// Its id.
    pub agent: AgentId,
    /// Its host name; may be empty.
    pub host: String,
    /// All it has; in JSON `cpus`, `mem` and so on, beside the other keys.
    pub total: Resources,
    /// What nobody holds.
    pub free: Resources,
    /// What the operator says of it.
    pub attrs: BTreeMap<String, Attr>,
    /// False if nothing may be given of it now; it counts in the whole all the same.
    pub active: bool,
    /// Only this framework is given anything of it now.
    pub kept_for: Option<FrameworkId>,
}

/// The policy of one role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolePolicy {
    /// The role's path.
    pub role: Role,
    /// Against its siblings; above zero.
    #[serde(default = "one")]
    pub weight: Milli,
    /// The higher is served first.
    #[serde(default)]
    pub priority: i64,
    /// What is kept back for it while it holds less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<Quantities>,
    /// The most that it and its sub-roles may hold; a kind that is absent has no limit, one of 0 is barred.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "limit")]
    pub limit: Option<BTreeMap<String, Milli>>,
}

/// One framework.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Framework {
    /// Its id.
    pub framework: FrameworkId,
    /// The role its share counts in.
    #[serde(default)]
    pub role: Role,
    /// Against others of its role; above zero.
    #[serde(default = "one")]
    pub weight: Milli,
    /// The higher is served first within the role.
    #[serde(default)]
    pub priority: i64,
    /// What is kept back for it while it holds less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<Quantities>,
    /// The most that it may hold; a kind that is absent has no limit.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "limit")]
    pub limit: Option<BTreeMap<String, Milli>>,
    /// How often it was given something so far: among equals the one with fewer is next.
    #[serde(default, skip_serializing_if = "is_never")]
    pub served: u64,
    /// What it holds in the cluster, offered or used.
    #[serde(default)]
    pub used: Quantities,
    /// What it would launch; without, it is given all that is left of an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demand: Option<Demand>,
    /// Only agents of which this holds; empty for any.
    #[serde(default, rename = "where")]
    pub condition: Condition,
    /// Only the agent of this id or host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// What it refused and is not to be given again now; a larger part of the same agent passes.
    #[serde(default)]
    pub refused: Vec<Refusal>,
    /// From how many agents it may be given something now; any number where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<u32>,
    /// True if it wants nothing now; what it holds still counts.
    #[serde(default, skip_serializing_if = "is_false")]
    pub suppressed: bool,
}

/// So many tasks of one shape; in JSON one object of the amounts of one task, and `count`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "DemandShape", into = "DemandShape")]
pub struct Demand {
    /// One task's worth.
    pub request: Request,
    /// How many more it would launch beyond what it is offered already.
    pub count: u32,
}

/// A refusal; in JSON one object of the agent and the amounts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "RefusalShape", into = "RefusalShape")]
pub struct Refusal {
    /// Of which agent.
    pub agent: AgentId,
    /// What was refused; a part of it is refused too.
    pub resources: Resources,
}

/// Why a line is no snapshot; says where, and fits a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadSnapshot {
    /// It is not the JSON that is wanted.
    #[error("{0}")]
    Json(BadJson),
    /// Two agents, roles or frameworks of one name.
    #[error("{what} {id} stands twice")]
    Twice {
        /// `agent`, `role` or `framework`.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// More is free than there is.
    #[error("agent {agent}: free is not a part of what it has: {kind} {free} of {total}")]
    FreeBeyondTotal {
        /// The agent.
        agent: AgentId,
        /// The first kind of which that is so.
        kind: String,
        /// So much is said to be free.
        free: String,
        /// So much it has.
        total: String,
    },
    /// A weight of zero.
    #[error("{what} {id}: a weight is above 0")]
    NoWeight {
        /// `role` or `framework`.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// A refusal of an agent that is not there.
    #[error("framework {framework} refused agent {agent}, which is not in the snapshot")]
    UnknownAgent {
        /// Who refused.
        framework: FrameworkId,
        /// What is not there.
        agent: AgentId,
    },
    /// The agents together have more than can be counted.
    #[error("with agent {0} the cluster is larger than can be counted: at most 1000000000000 of a kind")]
    TooMuch(AgentId),
}

impl Snapshot {
    /// Reads one line.
    ///
    /// Keys that are not known are ignored; a wrong type, an amount that cannot be, a key, agent, role or framework that
    /// stands twice is refused, and so is more that is free than there is.
    pub fn read(line: &[u8]) -> Result<Snapshot, BadSnapshot> {
        let limits = Limits { bytes: SNAPSHOT_BYTES_MAX, elements: SNAPSHOT_ELEMENTS_MAX, ..Limits::default() };
        let snapshot: Snapshot = read_within(line, limits).map_err(BadSnapshot::Json)?;
        snapshot.check()?;
        Ok(snapshot)
    }

    /// Why it cannot be of any cluster, if it cannot.
    pub fn check(&self) -> Result<(), BadSnapshot> {
        let agents = unique("agent", self.agents.iter().map(|agent| agent.agent.as_str()))?;
        unique("role", self.roles.iter().map(|role| role.role.as_str()))?;
        unique("framework", self.frameworks.iter().map(|framework| framework.framework.as_str()))?;
        let mut total = Quantities::default();
        for agent in &self.agents {
            agent.check()?;
            total.add(&agent.total).ok_or_else(|| BadSnapshot::TooMuch(agent.agent.clone()))?;
        }
        let roles = self.roles.iter().map(|role| ("role", role.role.as_str(), role.weight));
        let frameworks = self.frameworks.iter().map(|framework| ("framework", framework.framework.as_str(), framework.weight));
        if let Some((what, id, _)) = roles.chain(frameworks).find(|(_, _, weight)| weight.is_zero()) {
            return Err(BadSnapshot::NoWeight { what, id: id.to_owned() });
        }
        for framework in &self.frameworks {
            if let Some(refusal) = framework.refused.iter().find(|refusal| !agents.contains(refusal.agent.as_str())) {
                return Err(BadSnapshot::UnknownAgent { framework: framework.framework.clone(), agent: refusal.agent.clone() });
            }
        }
        Ok(())
    }

    /// What all agents have together.
    pub fn total(&self) -> Quantities {
        sum(self.agents.iter().map(|agent| &agent.total))
    }

    /// What is free on all agents together.
    pub fn free(&self) -> Quantities {
        sum(self.agents.iter().map(|agent| &agent.free))
    }

    /// Shows it as the allocator wants it; the function that runs is the master's own or another.
    ///
    /// `rule` says how the next is chosen, `seed` where in the order of the agents to begin.
    pub fn with_view<T>(&self, rule: &Rule, seed: u64, run: impl FnOnce(&allocate::Snapshot<'_>) -> T) -> T {
        let refused: Vec<Refused> = self.frameworks.iter().map(|framework| framework.refused.iter().map(|refusal| (refusal.agent.clone(), refusal.resources.clone())).collect()).collect();
        let usable = self.agents.iter().filter(|agent| agent.active);
        let agents = in_order(usable.map(Agent::view).collect());
        let roles = self.roles.iter().map(|role| RoleView { role: &role.role, weight: role.weight, priority: role.priority, guarantee: role.guarantee.as_ref(), limit: role.limit.as_ref() });
        let frameworks = self.frameworks.iter().zip(&refused).map(|(framework, refused)| FrameworkView {
            framework: &framework.framework,
            role: &framework.role,
            weight: framework.weight,
            priority: framework.priority,
            guarantee: framework.guarantee.as_ref(),
            limit: framework.limit.as_ref(),
            open: framework.open.unwrap_or(u32::MAX),
            served: framework.served,
            used: framework.used.clone(),
            demand: framework.demand.as_ref().map(|demand| allocate::Demand { request: &demand.request, count: demand.count }),
            condition: Some(&framework.condition).filter(|condition| !condition.is_empty()),
            on: framework.on.as_deref(),
            refused: Some(refused).filter(|_| !framework.refused.is_empty()),
            suppressed: framework.suppressed,
            is_new: true,
        });
        let (total, free) = (self.total(), self.free());
        run(&allocate::Snapshot { rule, total, free, agents: &agents, changed: None, roles: roles.collect(), frameworks: frameworks.collect(), revocable: false, seed })
    }

    /// Puts the next part behind this one: a framework that both have is one, with what it refused in both.
    pub fn extend(&mut self, more: Snapshot) {
        if self.agents.is_empty() {
            self.policy = more.policy;
        }
        self.agents.extend(more.agents);
        self.roles.extend(more.roles);
        for part in more.frameworks {
            match self.frameworks.last_mut().filter(|last| last.framework == part.framework) {
                Some(last) => last.refused.extend(part.refused),
                None => self.frameworks.push(part),
            }
        }
    }

    /// Drops refusals of agents that are not in it, as parts of different moments may have them.
    pub fn drop_strangers(&mut self) {
        let known: BTreeSet<&AgentId> = self.agents.iter().map(|agent| &agent.agent).collect();
        for framework in &mut self.frameworks {
            framework.refused.retain(|refusal| known.contains(&refusal.agent));
        }
    }
}

impl Agent {
    /// As the allocator sees it.
    fn view(&self) -> AgentView<'_> {
        AgentView {
            place: Place { agent: &self.agent, total: &self.total, free: &self.free, kept_for: self.kept_for.as_ref() },
            about: About { host: &self.host, attrs: &self.attrs },
        }
    }

    fn check(&self) -> Result<(), BadSnapshot> {
        if self.total.contains(&self.free) {
            return Ok(());
        }
        let total = Quantities::of(&self.total);
        let beyond = self.free.scalars().find(|(kind, free)| *free > total.get(kind));
        // If there are enough of each kind, it is other ports than it has.
        let (kind, free, total) = match beyond {
            Some((kind, free)) => (kind, free.to_string(), total.get(kind).to_string()),
            None => ("ports", self.free.ports.to_string(), self.total.ports.to_string()),
        };
        Err(BadSnapshot::FreeBeyondTotal { agent: self.agent.clone(), kind: kind.to_owned(), free, total })
    }
}

impl RolePolicy {
    /// As the allocator sees it.
    pub fn of(view: &RoleView<'_>) -> RolePolicy {
        RolePolicy { role: view.role.clone(), weight: view.weight, priority: view.priority, guarantee: view.guarantee.cloned(), limit: view.limit.cloned() }
    }
}

impl Framework {
    /// As the allocator sees it, without what it refused.
    pub fn of(view: &FrameworkView<'_>) -> Framework {
        Framework {
            framework: view.framework.clone(),
            role: view.role.clone(),
            weight: view.weight,
            priority: view.priority,
            guarantee: view.guarantee.cloned(),
            limit: view.limit.cloned(),
            served: view.served,
            open: Some(view.open).filter(|open| *open < u32::MAX),
            used: view.used.clone(),
            demand: view.demand.map(|demand| Demand { request: demand.request.clone(), count: demand.count }),
            condition: view.condition.cloned().unwrap_or_default(),
            on: view.on.map(str::to_owned),
            refused: Vec::new(),
            suppressed: view.suppressed,
        }
    }
}

fn unique<'a>(what: &'static str, ids: impl Iterator<Item = &'a str>) -> Result<BTreeSet<&'a str>, BadSnapshot> {
    let mut seen = BTreeSet::new();
    for id in ids {
        if !seen.insert(id) {
            return Err(BadSnapshot::Twice { what, id: id.to_owned() });
        }
    }
    Ok(seen)
}

/// Beyond what can be counted the sum stays as it is; a line with so much is refused when it is read.
fn sum<'a>(parts: impl Iterator<Item = &'a Resources>) -> Quantities {
    parts.fold(Quantities::default(), |mut sum, part| {
        sum.add(part).unwrap_or_default();
        sum
    })
}

fn is_never(count: &u64) -> bool {
    *count == 0
}

fn is_drf(rule: &Rule) -> bool {
    *rule == Rule::Drf
}

fn one() -> Milli {
    Milli::units(1)
}

fn is_true(flag: &bool) -> bool {
    *flag
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

fn yes() -> bool {
    true
}

fn is_none(amount: &Milli) -> bool {
    amount.is_zero()
}

fn no_ports(count: &u32) -> bool {
    *count == 0
}

/// As its name; [`Rule::Fair`] with its resource behind a colon.
impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Rule::Fair { resource } => out.collect_str(&format_args!("fair:{resource}")),
            rule => out.serialize_str(rule.name()),
        }
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        match name.split_once(':').unwrap_or((&name, "")) {
            ("drf", "") => Ok(Rule::Drf),
            ("priority", "") => Ok(Rule::Priority),
            ("random", "") => Ok(Rule::Random),
            ("fair", "") => Ok(Rule::Fair { resource: "cpus".to_owned() }),
            ("fair", resource) if crate::id::is_id(resource) => Ok(Rule::Fair { resource: resource.to_owned() }),
            _ => Err(serde::de::Error::custom(format_args!("the policy {} is none of drf, priority, fair:KIND and random", quoted(&name)))),
        }
    }
}

impl Serialize for SnapshotKind {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(KIND)
    }
}

impl<'de> Deserialize<'de> for SnapshotKind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let kind = String::deserialize(from)?;
        if kind == KIND { Ok(SnapshotKind::V1) } else { Err(serde::de::Error::custom(format_args!("the kind {} is not {KIND}", quoted(&kind)))) }
    }
}

/// The names are checked as those of [`Quantities`] are; unlike there, a kind of zero says something.
fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeMap<String, Milli>>, D::Error> {
    let Some(amounts) = Option::<BTreeMap<String, Milli>>::deserialize(from)? else { return Ok(None) };
    match amounts.keys().find(|kind| !crate::id::is_id(kind)) {
        Some(kind) => Err(serde::de::Error::custom(format_args!("{} cannot name a kind of resource", quoted(kind)))),
        None => Ok(Some(amounts)),
    }
}

/// Writes resources without the kinds of which there is none; cpus and mem always.
pub(super) fn lean_entries<M: SerializeMap>(map: &mut M, resources: &Resources) -> Result<(), M::Error> {
    map.serialize_entry("cpus", &resources.cpus)?;
    map.serialize_entry("mem", &resources.mem)?;
    for (kind, amount) in [("disk", resources.disk), ("gpus", resources.gpus)] {
        if !amount.is_zero() {
            map.serialize_entry(kind, &amount)?;
        }
    }
    if !resources.ports.is_empty() {
        map.serialize_entry("port_ranges", &resources.ports)?;
    }
    if !resources.other.is_empty() {
        map.serialize_entry("other", &resources.other)?;
    }
    Ok(())
}

fn lean<S: Serializer>(resources: &Resources, out: S) -> Result<S::Ok, S::Error> {
    let mut map = out.serialize_map(None)?;
    lean_entries(&mut map, resources)?;
    map.end()
}

/// How an [`Agent`] stands in JSON.
#[derive(Serialize, Deserialize)]
struct AgentShape {
    agent: AgentId,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    host: String,
    #[serde(default)]
    cpus: Milli,
    #[serde(default)]
    mem: Milli,
    #[serde(default, skip_serializing_if = "is_none")]
    disk: Milli,
    #[serde(default, skip_serializing_if = "is_none", deserialize_with = "whole")]
    gpus: Milli,
    #[serde(default, skip_serializing_if = "Ports::is_empty")]
    port_ranges: Ports,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "other_kinds")]
    other: BTreeMap<String, Milli>,
    #[serde(serialize_with = "lean")]
    free: Resources,
    #[serde(default, deserialize_with = "deserialize_attrs")]
    attrs: BTreeMap<String, Attr>,
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    active: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kept_for: Option<FrameworkId>,
}

impl From<AgentShape> for Agent {
    fn from(shape: AgentShape) -> Agent {
        let total = Resources { cpus: shape.cpus, mem: shape.mem, disk: shape.disk, gpus: shape.gpus, ports: shape.port_ranges, other: shape.other };
        Agent { agent: shape.agent, host: shape.host, total, free: shape.free, attrs: shape.attrs, active: shape.active, kept_for: shape.kept_for }
    }
}

impl From<Agent> for AgentShape {
    fn from(agent: Agent) -> AgentShape {
        let Resources { cpus, mem, disk, gpus, ports, other } = agent.total;
        AgentShape { agent: agent.agent, host: agent.host, cpus, mem, disk, gpus, port_ranges: ports, other, free: agent.free, attrs: agent.attrs, active: agent.active, kept_for: agent.kept_for }
    }
}

/// How a [`Demand`] stands in JSON.
#[derive(Serialize, Deserialize)]
struct DemandShape {
    #[serde(default)]
    cpus: Milli,
    #[serde(default)]
    mem: Milli,
    #[serde(default, skip_serializing_if = "is_none")]
    disk: Milli,
    #[serde(default, skip_serializing_if = "is_none", deserialize_with = "whole")]
    gpus: Milli,
    #[serde(default, skip_serializing_if = "no_ports")]
    ports: u32,
    #[serde(default, skip_serializing_if = "Ports::is_empty")]
    port_ranges: Ports,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "other_kinds")]
    other: BTreeMap<String, Milli>,
    count: u32,
}

impl From<DemandShape> for Demand {
    fn from(shape: DemandShape) -> Demand {
        let DemandShape { cpus, mem, disk, gpus, ports, port_ranges, other, count } = shape;
        Demand { request: Request { cpus, mem, disk, gpus, ports, port_ranges, other }, count }
    }
}

impl From<Demand> for DemandShape {
    fn from(demand: Demand) -> DemandShape {
        let Request { cpus, mem, disk, gpus, ports, port_ranges, other } = demand.request;
        DemandShape { cpus, mem, disk, gpus, ports, port_ranges, other, count: demand.count }
    }
}

/// How a [`Refusal`] stands in JSON.
#[derive(Serialize, Deserialize)]
struct RefusalShape {
    agent: AgentId,
    #[serde(default)]
    cpus: Milli,
    #[serde(default)]
    mem: Milli,
    #[serde(default, skip_serializing_if = "is_none")]
    disk: Milli,
    #[serde(default, skip_serializing_if = "is_none", deserialize_with = "whole")]
    gpus: Milli,
    #[serde(default, skip_serializing_if = "Ports::is_empty")]
    port_ranges: Ports,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "other_kinds")]
    other: BTreeMap<String, Milli>,
}

impl From<RefusalShape> for Refusal {
    fn from(shape: RefusalShape) -> Refusal {
        let RefusalShape { agent, cpus, mem, disk, gpus, port_ranges, other } = shape;
        Refusal { agent, resources: Resources { cpus, mem, disk, gpus, ports: port_ranges, other } }
    }
}

impl From<Refusal> for RefusalShape {
    fn from(refusal: Refusal) -> RefusalShape {
        let Resources { cpus, mem, disk, gpus, ports, other } = refusal.resources;
        RefusalShape { agent: refusal.agent, cpus, mem, disk, gpus, port_ranges: ports, other }
    }
}

#[cfg(test)]
mod tests;
