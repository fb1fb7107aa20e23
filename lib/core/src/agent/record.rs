//! What an agent writes to its log: the facts from which it is the same agent after a crash.

use serde::{Deserialize, Serialize};

use crate::agent::spawned::Spawned;
use crate::id::{AgentId, TaskId};
use crate::wire::agent::Held;
use crate::wire::{Launch, Update};

/// The version of the log's records; an agent refuses a newer one.
pub const RECORD_VERSION: u32 = 1;

/// One fact, in the order in which it became true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The first record of each log: whose it is.
    Head {
        /// [`RECORD_VERSION`].
        v: u32,
        /// The agent.
        agent: AgentId,
        /// Rises with each start.
        generation: u64,
        /// The boot under which the agent ran: another one means that no task of the log can still run.
        boot_id: String,
    },
    /// No command of a lower epoch is obeyed from here on.
    Epoch {
        /// The epoch.
        epoch: u64,
        /// After how long without a word its leader takes this agent for unreachable, milliseconds, if it said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// A launch was taken: it is spawned after this is on the disk, and never again.
    Launch {
        /// The launch.
        launch: Box<Launch>,
    },
    /// Somebody asked for the end of a task.
    Killing {
        /// The task.
        task: TaskId,
        /// Between TERM and KILL, milliseconds.
        grace_ms: u64,
        /// A stable word.
        reason: String,
    },
    /// A status, on the disk before anybody sees it.
    Status {
        /// The status.
        update: Box<Update>,
    },
    /// All statuses of an ended task were stored and seen: it is forgotten.
    Settled {
        /// The task.
        task: TaskId,
    },
    /// In place of all records before it: what a rewritten log begins with.
    Snapshot {
        /// The highest epoch obeyed.
        max_epoch: u64,
        /// The number of the last status.
        status_seq: u64,
        /// The launches taken.
        spawned: Spawned,
        /// As in `epoch`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// After a snapshot: a task that is not settled, or was a short while ago.
    Held {
        /// The task.
        held: Box<Held>,
    },
}
