//! What a framework says to the leader, what it is answered, and what is pushed to it.

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, FrameworkId, MasterId, Name, Nonce, OfferId, TaskId};
use crate::resources::Request;
use crate::role::Role;
use crate::wire::{Offer, Refusal, Task, Update};

/// What one task of a framework needs and how many more it would launch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Demand {
    /// One task's worth.
    pub request: Request,
    /// How many more tasks it would launch now.
    pub count: u32,
    /// A `--where` expression; empty for anywhere.
    #[serde(rename = "where")]
    pub condition: String,
    /// Only this agent: id or host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
}

/// A task that a framework believes to live, told to a leader that may not know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The task.
    pub task: TaskId,
    /// Where it was launched.
    pub agent: AgentId,
    /// The epoch it was accepted under.
    pub epoch: u64,
    /// The last status seen.
    #[serde(default)]
    pub seq: u64,
}

/// A call to the leader. Each may be repeated: the same call gets the same answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "meso")]
pub enum Call {
    /// Registers the framework, or comes back to a leader that does not know the session.
    #[serde(rename = "subscribe/1")]
    Subscribe(Subscribe),
    /// Says what is wanted now; replaces what was said before.
    #[serde(rename = "demand/1")]
    Demand {
        /// The framework.
        framework: FrameworkId,
        /// Its session.
        session: Nonce,
        /// Nothing wanted if absent.
        #[serde(default)]
        demand: Option<Demand>,
    },
    /// Launches tasks on offers, all or nothing.
    #[serde(rename = "accept/1")]
    Accept(Accept),
    /// Gives offers back.
    #[serde(rename = "decline/1")]
    Decline {
        /// The framework.
        framework: FrameworkId,
        /// Its session.
        session: Nonce,
        /// The offers.
        offers: Vec<OfferId>,
        /// For how long not to be offered the same again, milliseconds.
        refuse_ms: u64,
    },
    /// Ends tasks.
    #[serde(rename = "kill/1")]
    Kill {
        /// The tasks.
        tasks: Vec<TaskId>,
        /// Between TERM and KILL; the task's own grace where absent.
        #[serde(default)]
        grace_ms: Option<u64>,
    },
    /// Keeps the session alive.
    #[serde(rename = "beat/1")]
    Beat {
        /// The framework.
        framework: FrameworkId,
        /// Its session.
        session: Nonce,
    },
    /// Ends the session. An unnamed framework's tasks end, except those to keep.
    #[serde(rename = "leave/1")]
    Leave {
        /// The framework.
        framework: FrameworkId,
        /// Its session.
        session: Nonce,
    },
    /// Ends a framework and all its tasks.
    #[serde(rename = "teardown/1")]
    Teardown {
        /// Its id or its name.
        framework: String,
    },
    /// Asks what became of tasks; the answers come as updates.
    #[serde(rename = "reconcile/1")]
    Reconcile {
        /// The framework.
        framework: FrameworkId,
        /// Its session.
        session: Nonce,
        /// The tasks; all of the framework's if empty.
        #[serde(default)]
        tasks: Vec<Claim>,
    },
}

/// The registration of a framework.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscribe {
    /// The protocol major of the caller.
    pub v: u32,
    /// The framework's id, made by its first session.
    pub framework: FrameworkId,
    /// This process's incarnation.
    pub session: Nonce,
    /// A durable name; the framework is unnamed without.
    #[serde(default)]
    pub name: Option<Name>,
    /// The role its share counts in.
    pub role: Role,
    /// Who runs it, for people: user@host:pid.
    pub who: String,
    /// What it wants at once.
    #[serde(default)]
    pub demand: Option<Demand>,
    /// How long its tasks live on without a session, milliseconds; for named ones.
    #[serde(default)]
    pub failover_ms: u64,
    /// The tasks it believes to live.
    #[serde(default)]
    pub claims: Vec<Claim>,
}

/// An accept: ordered, all or nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accept {
    /// The framework.
    pub framework: FrameworkId,
    /// Its session.
    pub session: Nonce,
    /// The epoch the offers were made under.
    pub epoch: u64,
    /// The offers, all of one agent.
    pub offers: Vec<OfferId>,
    /// The agent, so that a later leader can tell what became of a launch.
    pub agent: AgentId,
    /// The tasks with ids and tokens.
    pub tasks: Vec<TaskToken>,
    /// For how long not to be offered the rest again, milliseconds.
    #[serde(default)]
    pub refuse_ms: u64,
}

/// A task to launch, and the caller's secret that opens its output and input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskToken {
    /// The task; its id is set.
    pub task: Task,
    /// 128 random bits of the caller.
    pub token: Nonce,
}

/// The leader's answer to a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "meso")]
pub enum Answer {
    /// To `subscribe/1`.
    #[serde(rename = "subscribed/1")]
    Subscribed {
        /// The framework's id; another than asked for if its name is known.
        framework: FrameworkId,
        /// The epoch of the answering leader.
        epoch: u64,
        /// Which master leads.
        master: MasterId,
        /// How often to beat, milliseconds.
        beat_ms: u64,
        /// After how long without a beat the session ends, milliseconds.
        session_ms: u64,
        /// How many agents are known, so that a client can say why it waits.
        agents: u32,
        /// Whether the name was known before, with its tasks.
        recovered: bool,
    },
    /// To `accept/1`: all tasks are on their way.
    #[serde(rename = "accepted/1")]
    Accepted {
        /// The tasks in order.
        tasks: Vec<TaskId>,
    },
    /// To `kill/1`: one verdict for each task, in order; absent means it is on its way.
    #[serde(rename = "killing/1")]
    Killing {
        /// A refusal in place of each task that is not ended.
        refused: Vec<Option<Refusal>>,
    },
    /// To the other calls: done.
    #[serde(rename = "done/1")]
    Done {},
    /// No, and why; nothing was changed.
    #[serde(rename = "refused/1")]
    Refused(Refusal),
}

/// What the leader sends a framework by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "meso")]
pub enum Push {
    /// New offers.
    #[serde(rename = "offers/1")]
    Offers {
        /// The epoch they are made under.
        epoch: u64,
        /// The session they are made to.
        session: Nonce,
        /// The offers.
        offers: Vec<Offer>,
    },
    /// An offer is taken back.
    #[serde(rename = "rescind/1")]
    Rescind {
        /// The offer.
        id: OfferId,
        /// A stable word.
        reason: String,
    },
    /// A status that the framework may have missed.
    #[serde(rename = "known/1")]
    Known {
        /// The status.
        update: Box<Update>,
    },
    /// The framework is over: torn down, or its name taken by another session.
    #[serde(rename = "removed/1")]
    Removed {
        /// The session that is over.
        session: Nonce,
        /// A stable word.
        reason: String,
    },
}
