//! What agents and the leader say to one another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::condition::Attr;
use crate::id::{AgentId, MasterId, Nonce, TaskId};
use crate::resources::Resources;
use crate::wire::number::uncounted;
use crate::wire::{Launch, Refusal, Update};

/// An agent's registration: all that it is and all that it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol major of the agent.
    pub v: u32,
    /// Its id, kept in its work directory.
    pub agent: AgentId,
    /// This process, not its name: 128 random bits made at start.
    pub incarnation: Nonce,
    /// The secret token of its command subject, new with each process.
    pub secret: Nonce,
    /// Rises with each start on the same work directory, so that a restored copy is noticed.
    pub generation: u64,
    /// The host name.
    pub host: String,
    /// What the operator says of it.
    #[serde(default)]
    pub attrs: BTreeMap<String, Attr>,
    /// All it has to give.
    pub total: Resources,
    /// The highest epoch on its disk.
    pub max_epoch: u64,
    /// The machine's boot id.
    pub boot_id: String,
    /// How tasks are contained: `cgroups-v2`, `cgroups-hybrid`, `cgroups-v1`, `processes`.
    pub isolation: String,
    /// The program's version.
    pub version: String,
    /// The number of the last status it made.
    pub status_seq: u64,
    /// What it runs, and what ended and is not settled yet.
    pub tasks: Vec<Held>,
    /// True if more parts follow: a message holds what fits, each part is a registration of its own.
    #[serde(default)]
    pub more: bool,
    /// True for all parts but the first.
    #[serde(default)]
    pub continued: bool,
    /// Rises by one with each registration, and each part of one, of this process: one that was overtaken is noticed.
    #[serde(default)]
    pub no: u64,
}

impl Hello {
    /// Why its numbers cannot be taken, if they cannot; whether its epoch can is for the leader to say.
    pub fn fault(&self) -> Option<String> {
        let of_task = |held: &Held| held.launch.fault().or_else(|| held.update.fault());
        uncounted("generation", self.generation).or_else(|| uncounted("status_seq", self.status_seq)).or_else(|| self.tasks.iter().find_map(of_task))
    }
}

/// A task on an agent's disk: the launch and the latest status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// What was launched.
    pub launch: Launch,
    /// The latest status.
    pub update: Update,
    /// True once somebody asked for its end.
    #[serde(default)]
    pub killing: bool,
    /// The stable word of who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killing_reason: Option<String>,
    /// True where an earlier leader has seen the end: told for a leader that lost all it had, and to nobody else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settled: bool,
}

/// The leader's answer to a registration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "meso")]
pub enum Welcome {
    /// It is one of the cluster.
    #[serde(rename = "welcome/1")]
    Welcome {
        /// The epoch; the agent obeys no lower one from here on.
        epoch: u64,
        /// Which master leads.
        master: MasterId,
        /// How often to beat, milliseconds.
        beat_ms: u64,
        /// After how long without a word the leader takes it for unreachable, milliseconds; a master that speaks
        /// protocol 1 does not say it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// It may not join; it says so and ends.
    #[serde(rename = "refused/1")]
    Refused(Refusal),
}

/// The regular sign of life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// The agent.
    pub agent: AgentId,
    /// Its process.
    pub incarnation: Nonce,
    /// The epoch it obeys.
    pub epoch: u64,
    /// The number of the last status it made.
    pub status_seq: u64,
    /// What its tasks hold and do not use, as far as it may be lent; absent where it lends nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lent: Option<Resources>,
    /// Why it takes no tasks for now, a stable word: `agent_disk`; absent where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
}

/// The leader's answer to a beat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beaten {
    /// The leader's epoch.
    pub epoch: u64,
    /// False asks the agent to register again.
    pub known: bool,
    /// All statuses up to this number have been seen: they are settled.
    pub seen: u64,
}

/// A command of the leader to one process of one agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The epoch it is given under; a lower one than the agent's is refused.
    pub epoch: u64,
    /// The process it is meant for.
    pub incarnation: Nonce,
    /// What is to be done.
    pub order: Order,
}

/// What a leader may order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Run a task. Repeated until a status of it arrives.
    Launch {
        /// The launches, of one accept or several.
        launches: Vec<Launch>,
    },
    /// End a task. Repeated until it ended.
    Kill {
        /// The task.
        task: TaskId,
        /// Between TERM and KILL, milliseconds; the task's own where absent.
        #[serde(default)]
        grace_ms: Option<u64>,
        /// A stable word for the status.
        reason: String,
    },
    /// Say again what you are: the leader saw a gap.
    Hello,
    /// An order of a later release, which is refused.
    #[serde(other)]
    Unknown,
}

/// The leader's word to all agents that it leads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Invitation {
    /// Its epoch.
    pub epoch: u64,
    /// Which master.
    pub master: MasterId,
}
