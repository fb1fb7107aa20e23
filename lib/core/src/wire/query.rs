//! What anybody may ask the leader about the cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::condition::Attr;
use crate::id::{AgentId, FrameworkId, MasterId, Name, Nonce, Principal};
use crate::policy::{Policy, Subject};
use crate::resources::{Milli, Quantities, Resources};
use crate::role::Role;
use crate::wire::explain::{Ask, Explanation};
use crate::wire::snapshot::Snapshot;
use crate::wire::{Refusal, Update};

/// The most rows in one answer; more come by asking from `next`.
pub const ROWS_MAX: usize = 500;

/// A question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// What is listed.
    pub of: Table,
    /// The `next` of the answer before; empty to begin.
    #[serde(default)]
    pub from: String,
    /// Only rows whose id or name begins with this.
    #[serde(default)]
    pub prefix: String,
    /// What is to be explained; only where an explanation is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<Box<Ask>>,
}

/// The tables that a leader keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// Live tasks, and those that ended lately.
    Tasks,
    /// Agents.
    Agents,
    /// Frameworks.
    Frameworks,
    /// Offers that are out.
    Offers,
    /// The leader and its standbys.
    Masters,
    /// The cluster as an allocation policy sees it.
    Snapshot,
    /// Roles: those somebody is in, those with a policy, and those above them.
    Roles,
    /// No table: why somebody waits.
    Explain,
}

/// The answer: one page of one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rows", rename_all = "snake_case")]
pub enum Rows {
    /// Tasks, told whole.
    Tasks {
        /// The page.
        page: Vec<TaskRow>,
        /// Ask from here for more; empty if there is none.
        next: String,
    },
    /// Agents.
    Agents {
        /// The page.
        page: Vec<AgentRow>,
        /// Ask from here for more.
        next: String,
    },
    /// Frameworks.
    Frameworks {
        /// The page.
        page: Vec<FrameworkRow>,
        /// Ask from here for more.
        next: String,
    },
    /// Offers.
    Offers {
        /// The page.
        page: Vec<OfferRow>,
        /// Ask from here for more.
        next: String,
    },
    /// Masters, the leader first.
    Masters {
        /// All of them.
        page: Vec<MasterRow>,
    },
    /// A part of the snapshot; [`Snapshot::extend`] puts the parts together.
    ///
    /// Each part is of its own moment: what moved meanwhile may be in two of them or in none.
    Snapshot {
        /// The page: agents first, then frameworks, of which a long one comes in several parts.
        page: Snapshot,
        /// Ask from here for more.
        next: String,
    },
    /// Roles, each followed by those of its frameworks that have a policy of their own.
    Roles {
        /// The page.
        page: Vec<RoleRow>,
        /// Ask from here for more.
        next: String,
    },
    /// Why somebody waits; who asks for it reads a [`Told`], so that tools which list need not know the words.
    ///
    /// [`Told`]: crate::wire::explain::Told
    #[serde(skip_deserializing)]
    Explain {
        /// All of it.
        explanation: Box<Explanation>,
    },
    /// No, and why.
    Refused {
        /// The reason.
        refusal: Refusal,
    },
}

/// A task as the leader knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRow {
    /// The latest status.
    pub update: Update,
    /// Opens its output, told to the principal that owns it.
    #[serde(default)]
    pub token: Option<Nonce>,
}

/// An agent as the leader knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentRow {
    /// Always `agent/1`.
    pub meso: String,
    /// Its id.
    pub id: AgentId,
    /// Its host name.
    pub host: String,
    /// `active`, `recovering` (known, not yet back under this leader), `unreachable` or `gone`.
    pub state: String,
    /// All it has.
    pub total: Resources,
    /// What is free.
    pub free: Resources,
    /// What is offered.
    pub offered: Resources,
    /// What tasks hold.
    pub used: Resources,
    /// All that may be lent of what tasks hold and do not use, what is lent already included.
    #[serde(default)]
    pub lent: Resources,
    /// What of that nobody was given or offered yet.
    #[serde(default)]
    pub lent_free: Resources,
    /// How many tasks it runs.
    pub tasks: u32,
    /// What the operator says of it.
    #[serde(default)]
    pub attrs: BTreeMap<String, Attr>,
    /// How it contains tasks.
    pub isolation: String,
    /// Its program's version.
    pub version: String,
    /// How long ago it was last heard of, milliseconds; of one that is away also by an earlier leader.
    pub silent_ms: u64,
}

/// A framework as the leader knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameworkRow {
    /// Always `framework/1`.
    pub meso: String,
    /// Its id.
    pub id: FrameworkId,
    /// Its durable name.
    pub name: Option<Name>,
    /// Its role.
    pub role: Role,
    /// The bus principal that owns it.
    pub principal: Principal,
    /// `connected` or `disconnected`.
    pub state: String,
    /// Who runs it.
    pub who: String,
    /// Its dominant share of the cluster, from 0 to 1.
    pub share: Milli,
    /// What its tasks hold.
    pub used: Quantities,
    /// What is offered to it.
    pub offered: Quantities,
    /// How many tasks it has.
    pub tasks: u32,
    /// How many more it wants.
    pub wants: u32,
    /// Since when it is known, milliseconds ago.
    pub age_ms: u64,
    /// The part of the cluster that it could have if all who want shared fairly, from 0 to 1.
    #[serde(default)]
    pub fair_share: Milli,
    /// What an operator says of it, or the default.
    #[serde(default)]
    pub policy: Policy,
    /// How long it has wanted something and got nothing, milliseconds; 0 if it does not wait.
    #[serde(default)]
    pub waits_ms: u64,
}

/// A role, or a framework that has a policy of its own, as the leader knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleRow {
    /// Always `role/1`.
    pub meso: String,
    /// Which.
    pub subject: Subject,
    /// What an operator says of it, or the default.
    pub policy: Policy,
    /// Whether an operator said anything.
    pub is_set: bool,
    /// How many frameworks there are in it and below.
    pub frameworks: u32,
    /// What their tasks hold.
    pub used: Quantities,
    /// What is offered to them.
    pub offered: Quantities,
    /// The dominant share of the cluster that both are, from 0 to 1.
    pub share: Milli,
    /// The part of the cluster that it could have if all who want shared fairly, from 0 to 1.
    pub fair_share: Milli,
}

/// An offer that is out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfferRow {
    /// Always `offer/1`.
    pub meso: String,
    /// Its id, shortened, as the whole is the right to use it.
    pub id: String,
    /// Who holds it.
    pub framework: FrameworkId,
    /// The agent.
    pub agent: AgentId,
    /// The agent's host name.
    pub host: String,
    /// What is offered.
    pub resources: Resources,
    /// How long it is out, milliseconds.
    pub age_ms: u64,
    /// The holder's durable name.
    #[serde(default)]
    pub framework_name: Option<Name>,
    /// Who runs the holder.
    #[serde(default)]
    pub who: String,
    /// Whether what runs on it may be ended at once.
    #[serde(default)]
    pub revocable: bool,
}

/// A master.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MasterRow {
    /// Always `master/1`.
    pub meso: String,
    /// Its id.
    pub id: MasterId,
    /// The machine it runs on.
    pub host: String,
    /// `leading` or `standby`.
    pub state: String,
    /// The leader's epoch.
    pub epoch: u64,
    /// Since when, milliseconds ago.
    pub age_ms: u64,
    /// Its program's version.
    pub version: String,
}
