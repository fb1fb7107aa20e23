//! Why somebody waits: what is asked, and what the leader answers.

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, FrameworkId, Name, TaskId};
use crate::policy::Subject;
use crate::resources::{Milli, Quantities, Request, Shortfall};
use crate::role::Role;
use crate::wire::Refusal;
use crate::wire::call::Demand;

/// The most agents that one answer tells one by one; the rest are only counted.
pub const LINES_MAX: usize = 500;
/// The most JSON of these lines, bytes, so that the answer fits a message.
pub const LINES_BYTES_MAX: usize = 256 * 1024;
/// The most holders named for one agent or count, and the most subjects for whom something is kept back.
pub const NAMED_MAX: usize = 4;

/// The question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ask {
    /// Whose wait is explained; nobody's in particular where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub framework: Option<FrameworkId>,
    /// The role of a wish that is nobody's in particular.
    pub role: Role,
    /// What is wanted; what the framework itself said last where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demand: Option<Demand>,
    /// How many agents to tell one by one, at most [`LINES_MAX`].
    pub lines_max: u32,
}

/// The answer: what concerns the whole, how many agents fail for which reason, and agent by agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Always `explain/1`.
    pub meso: String,
    /// `framework` or `request`.
    pub about: String,
    /// Whose wait it is.
    pub framework: Option<FrameworkId>,
    /// Its durable name.
    pub name: Option<Name>,
    /// In which role.
    pub role: Role,
    /// What one task needs; all that an agent has free if it asks for nothing.
    pub request: Request,
    /// How many tasks more are wanted, beyond those that offers are out for.
    pub count: u32,
    /// Only agents of which this holds; empty for all.
    #[serde(rename = "where")]
    pub condition: String,
    /// Only this agent: id or host name.
    pub on: Option<String>,
    /// Whether what is launched may be ended at once when others need the room.
    pub revocable: bool,
    /// All of it but the agents one by one, for people, on one line.
    pub summary: String,
    /// What concerns the whole, the first to mend first.
    pub obstacles: Vec<Obstacle>,
    /// How many agents there are.
    pub agents_all: u32,
    /// How many agents fail for which reason, the most first; those on which it fits come last.
    pub counts: Vec<Count>,
    /// Agent by agent, in order of their ids.
    pub agents: Vec<AgentReason>,
    /// How many agents are counted and not told one by one.
    pub agents_left_out: u32,
}

/// The answer as it comes: one of both.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Told<T> {
    /// Why somebody waits: an [`Explanation`], or what one wants to know of it.
    pub explanation: Option<T>,
    /// Why that is not told.
    pub refusal: Option<Refusal>,
}

/// Of an [`Explanation`] only the line for people.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Summary {
    /// See there.
    pub summary: String,
}

/// What concerns the whole of a framework or a wish, whatever the agents have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Obstacle {
    /// No session speaks for the framework.
    NotConnected {
        /// Since when, milliseconds ago.
        age_ms: u64,
    },
    /// Its offers were turned off.
    Suppressed {},
    /// All who launch in its session said that they could launch no more now.
    Sated {},
    /// It said no wish, or has all that it wished.
    WantsNothing {
        /// How many tasks it has.
        tasks: u32,
    },
    /// All that it wants is offered to it, and it has not used that yet.
    Offered {
        /// How many offers.
        offers: u32,
        /// The oldest is out for so long, milliseconds.
        age_ms: u64,
    },
    /// It holds as many offers as it may.
    OpenMax {
        /// So many.
        offers: u32,
        /// The oldest is out for so long, milliseconds.
        age_ms: u64,
    },
    /// A role or framework is at its limit.
    Limit {
        /// Which; its own, or one above.
        subject: Subject,
        /// The kind of resource.
        name: String,
        /// What it holds with all below it, offered or used.
        held: Milli,
        /// The most that it may hold.
        limit: Milli,
        /// What one task needs.
        need: Milli,
    },
    /// What is free is kept back for what was guaranteed to others.
    Guaranteed {
        /// The kind of resource.
        name: String,
        /// What is free in the cluster.
        free: Milli,
        /// How much of it is kept back.
        kept_back: Milli,
        /// What one task needs.
        need: Milli,
        /// For whom, who lacks most first; at most [`NAMED_MAX`].
        subjects: Vec<Kept>,
    },
    /// There is no agent at all.
    NoAgents {},
    /// Nothing is wrong: there is room, and others are served first.
    Turn {
        /// Its dominant share of the cluster, from 0 to 1.
        share: Milli,
        /// The part that it could have if all who want shared fairly, from 0 to 1.
        fair_share: Milli,
    },
}

/// What a role or framework lacks of its guarantee.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Which.
    pub subject: Subject,
    /// How much.
    pub amount: Milli,
}

/// Why one agent does not serve, by the first that applies; in the order in which they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Known from an earlier leader, and not back yet.
    Recovering,
    /// Silent for too long.
    Unreachable,
    /// Another agent is asked for.
    OtherAgent,
    /// A clause of the condition does not hold.
    Condition,
    /// It has too little even when nobody else holds anything.
    TooSmall,
    /// It would have room if what is offered to others came back.
    Offered,
    /// Tasks hold what is needed.
    Busy,
    /// The framework refused what it could be offered there.
    Refused,
    /// What is free is kept for a large task of another.
    KeptFor,
    /// What is free is held for tasks of others, to whom it is guaranteed.
    Guaranteed,
    /// It has room: it would be offered.
    Fits,
}

/// How many agents fail for one reason, and how nearly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// The reason.
    pub reason: Reason,
    /// How many agents.
    pub agents: u32,
    /// The clause that does not hold, one count for each; else empty.
    pub clause: String,
    /// What is missing, the kind that most of them lack first.
    pub lacks: Vec<Miss>,
    /// Who holds what is missing, who holds most first; at most [`NAMED_MAX`].
    pub holders: Vec<Holder>,
    /// After how long the first of the refusals ends, milliseconds; else 0.
    pub refused_ms: u64,
}

/// The nearest miss among several agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Miss {
    /// The kind of resource.
    pub name: String,
    /// How many of the agents lack it.
    pub agents: u32,
    /// What one task needs.
    pub need: Milli,
    /// The most that one of these agents has.
    pub most: Milli,
    /// Which.
    pub agent: AgentId,
    /// Its host name.
    pub host: String,
}

/// Why one agent does not serve, or that it would.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentReason {
    /// The agent.
    pub agent: AgentId,
    /// Its host name.
    pub host: String,
    /// The first reason that applies.
    pub reason: Reason,
    /// The clause that does not hold; else empty.
    pub clause: String,
    /// What is missing: of all that it has, or of what is free now.
    pub lacks: Vec<Shortfall>,
    /// Who holds what is missing, or for whom it is kept, who holds most first; at most [`NAMED_MAX`].
    pub holders: Vec<Holder>,
    /// After how long the refusal ends, milliseconds; else 0.
    pub refused_ms: u64,
}

/// Who holds something of an agent, or of several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// Which framework.
    pub framework: FrameworkId,
    /// Its durable name.
    pub name: Option<Name>,
    /// Whether it is offers that hold it; else it is tasks.
    pub offered: bool,
    /// How many offers or tasks.
    pub count: u32,
    /// What they hold of the kinds that are missing.
    pub held: Quantities,
    /// Since when the oldest holds it, milliseconds ago.
    pub age_ms: u64,
}

/// The same line for a task, which does not wait: it has a place, or is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskStanding {
    /// Always `explain/1`.
    pub meso: String,
    /// Always `task`.
    pub about: String,
    /// The task.
    pub task: TaskId,
    /// Its name.
    pub name: Option<Name>,
    /// Whose it is.
    pub framework: FrameworkId,
    /// The state that it is in.
    pub state: String,
    /// Whether nothing follows.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// A stable word that says why.
    pub reason: Option<String>,
    /// The same for people.
    pub message: Option<String>,
    /// Where it runs or ran.
    pub agent: Option<AgentId>,
    /// The agent's host name.
    pub host: String,
    /// Since when, milliseconds since 1970.
    pub ts_ms: u64,
}
