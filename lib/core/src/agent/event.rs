//! What an agent is told, and what it has done.

use std::collections::BTreeMap;

use crate::agent::record::Record;
use crate::condition::Attr;
use crate::id::{AgentId, Nonce, TaskId};
use crate::resources::Resources;
use crate::wire::agent::{Beat, Beaten, Command, Hello, Invitation, Welcome};
use crate::wire::{Launch, Refusal, Update};

/// What an agent is, fixed for the life of its process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its id.
    pub agent: AgentId,
    /// This process.
    pub incarnation: Nonce,
    /// The secret token of its command subject.
    pub secret: Nonce,
    /// Rises with each start.
    pub generation: u64,
    /// The host name.
    pub host: String,
    /// The operator's attributes.
    pub attrs: BTreeMap<String, Attr>,
    /// All it gives.
    pub total: Resources,
    /// The machine's boot id.
    pub boot_id: String,
    /// How tasks are contained.
    pub isolation: String,
    /// The program's version.
    pub version: String,
    /// Spreads a returning crowd: up to so many milliseconds are waited before an invitation is followed.
    pub jitter_ms: u64,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// The program ended by itself or by a signal.
    Exited {
        /// The exit code.
        code: Option<i32>,
        /// The signal.
        signal: Option<i32>,
    },
    /// Its `timeout` passed.
    Timeout {
        /// The exit code, if it ended in its grace.
        code: Option<i32>,
        /// The signal.
        signal: Option<i32>,
    },
    /// The kernel ended it for want of memory.
    MemoryLimit {
        /// The limit, bytes.
        limit_bytes: u64,
        /// The most it used, bytes.
        peak_bytes: u64,
    },
    /// It could not be started.
    NotStarted {
        /// 127 if the program was not found, 126 if it cannot be executed.
        code: Option<i32>,
        /// For people.
        message: String,
    },
    /// Its record is gone: the supervisor was killed, the machine started anew, or it never started.
    Lost {
        /// A stable word: `supervisor_lost`, `agent_rebooted`, `agent_restarted`, `agent_disk`, `agent_exhausted`.
        reason: &'static str,
    },
}

/// What a container used, known when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes written to standard output.
    pub stdout_bytes: u64,
    /// Bytes written to standard error.
    pub stderr_bytes: u64,
    /// The most memory, bytes.
    pub mem_peak_bytes: u64,
    /// Processor time, milliseconds.
    pub cpu_ms: u64,
}

/// What reaches the machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// A deadline passed.
    Tick,
    /// What the wall clock says now, for display only.
    Clock {
        /// Milliseconds since 1970.
        wall_ms: u64,
        /// What the clock of the events said at that moment: this event may have waited since.
        at_ms: u64,
    },
    /// The answer to a registration; none if nobody answered.
    Welcome(Option<Welcome>),
    /// The answer to a beat; none if nobody answered.
    Beaten(Option<Beaten>),
    /// A leader says that it leads.
    Invitation(Invitation),
    /// A leader's command.
    Command(Command),
    /// A container runs its program.
    Started {
        /// The task.
        task: TaskId,
    },
    /// A container is over, with all that was in it.
    Ended {
        /// The task.
        task: TaskId,
        /// How.
        ending: Ending,
        /// What it used.
        usage: Usage,
    },
    /// A status was stored by the bus, or was not.
    Stored {
        /// The task.
        task: TaskId,
        /// The status's number.
        seq: u64,
        /// Whether it is stored.
        ok: bool,
    },
    /// How much may be lent of what tasks hold and do not use.
    Lent {
        /// All of it, what is lent already included.
        resources: Resources,
    },
    /// Whether the disk takes what a task needs.
    Disk {
        /// What is wrong with it, for people; none where it is well.
        fault: Option<String>,
    },
    /// All tasks are to end, each with its own grace.
    EndAll {
        /// A stable word.
        reason: &'static str,
    },
}

/// What must become true outside, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// On the disk before anything that follows.
    Persist(Record),
    /// Register; the answer comes as `Welcome`.
    Hello(Box<Hello>),
    /// Beat; the answer comes as `Beaten`.
    Beat(Beat),
    /// Publish and have stored; the outcome comes as `Stored`.
    Send(Box<Update>),
    /// Make the container; what becomes of it comes as `Started` and `Ended`.
    Launch(Box<Launch>),
    /// End the container.
    Kill {
        /// The task.
        task: TaskId,
        /// Between TERM and KILL, milliseconds.
        grace_ms: u64,
    },
    /// The task is settled: its sandbox is kept only as long as the limits allow.
    Settled {
        /// The task.
        task: TaskId,
    },
    /// Something the operator should read once.
    Say(String),
    /// The leader refuses this agent: the process ends with this reason.
    Leave(Refusal),
}
