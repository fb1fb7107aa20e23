//! Every JSON shape that crosses a pipe or the bus, once.
//!
//! The outside half (task, offer, update) is what people see in pipes and is kept to the contract: the first key is
//! `"meso":"<kind>/<major>"`, keys are only added within a major. The inside half (calls, agent messages, queries)
//! carries [`PROTOCOL`], the major of the wire.

pub mod ack;
pub mod agent;
pub mod call;
pub mod explain;
pub mod io;
pub mod line;
pub mod number;
pub mod operator;
pub mod pass;
pub mod query;
pub mod snapshot;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::condition::Attr;
use crate::duration::{parse_duration, rfc3339, show_duration};
use crate::id::{AgentId, FrameworkId, Name, Nonce, OfferId, Principal, TaskId};
use crate::resources::{Milli, Ports, Request, Resources};
use crate::role::Role;
use crate::task::{OnUnreachable, TaskState};
use crate::wire::number::uncounted;

/// The major number of the messages between masters, agents and tools; N and N-1 work together.
pub const PROTOCOL: u32 = 2;

/// The oldest major that this release works with.
pub const PROTOCOL_MIN: u32 = 1;

/// The largest message we send or take, in bytes; half of the server's own default limit.
pub const MESSAGE_BYTES_MAX: usize = 512 * 1024;

/// The largest task object, in bytes of JSON, so that a launch always fits a message.
pub const TASK_BYTES_MAX: usize = 256 * 1024;

/// The least share of a processor a task may ask for, thousandths (Mesos 1.1 and 1.16).
pub const CPUS_MIN_MILLI: i64 = 10;

/// The most tasks that one accept may launch, so that its message and the answer stay bounded.
pub const TASKS_PER_ACCEPT_MAX: usize = 256;

/// Why a master cannot work with one that speaks this major, if so: both versions, and what mends it.
pub fn protocol_fault(who: &str, v: u32) -> Option<String> {
    if (PROTOCOL_MIN..=PROTOCOL).contains(&v) {
        return None;
    }
    let old = if v < PROTOCOL_MIN { who } else { "the master" };
    Some(format!("{who} speaks protocol {v}, the master {PROTOCOL_MIN} to {PROTOCOL}: a newer release of {old} is needed"))
}

/// A point in time for people: RFC 3339 UTC whole seconds, and the same in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall(pub u64);

impl Wall {
    /// The text form, whole seconds.
    pub fn text(self) -> String {
        rfc3339(self.0)
    }

    /// What to add to a clock that shows `now_ms` to have this.
    pub fn offset_ms(self, now_ms: u64) -> i64 {
        let of = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        of(self.0) - of(now_ms)
    }

    /// So many milliseconds later; for display.
    pub fn later(self, ms: u64) -> u64 {
        self.0.saturating_add(ms)
    }
}

/// A span of time in milliseconds; in JSON a text such as `"30s"`, and a number is read as seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_duration(self.0))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(from)? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            _ => return Err(serde::de::Error::custom("a duration is a text such as \"30s\" or a number of seconds")),
        };
        parse_duration(&text).map(Span).map_err(serde::de::Error::custom)
    }
}

/// What a task is: the object people write in pipes, and what `meso-launch --dry-run -o json` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Task {
    /// The caller's own id; a fresh one is made where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<TaskId>,
    /// A name for people; need not be unique.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// A string for `/bin/sh -c`; exactly one of this and `argv` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<String>,
    /// The program and its arguments, no shell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// Processors.
    pub cpus: Milli,
    /// Memory in MiB; a hard limit where the agent has cgroups.
    pub mem: Milli,
    /// Disk in MiB.
    #[serde(skip_serializing_if = "is_nothing")]
    pub disk: Milli,
    /// Whole graphics processors.
    #[serde(skip_serializing_if = "is_nothing")]
    pub gpus: Milli,
    /// How many ports, any.
    #[serde(skip_serializing_if = "is_zero")]
    pub ports: u32,
    /// Named ports.
    #[serde(skip_serializing_if = "Ports::is_empty")]
    pub port_ranges: Ports,
    /// Resources of a site's own kinds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, Milli>,
    /// A hard limit on processors, above or at `cpus`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus_limit: Option<Milli>,
    /// What the task finds in its environment besides `MESO_*`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Where it starts; the sandbox where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// How long it may run before it is ended (exit 124).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Between TERM and KILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill_grace: Option<Span>,
    /// Whether somebody will feed its standard input; else it is `/dev/null`.
    #[serde(skip_serializing_if = "is_false")]
    pub stdin: bool,
    /// Whether a reader follows its output, so that output waits for the reader rather than be rotated away.
    #[serde(skip_serializing_if = "is_false")]
    pub attached: bool,
    /// Whether it lives on when its framework is gone.
    #[serde(skip_serializing_if = "is_false")]
    pub keep: bool,
    /// What becomes of it when no leader reaches its agent; as its framework says where absent, and else `keep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_unreachable: Option<OnUnreachable>,
}

fn is_nothing(amount: &Milli) -> bool {
    amount.is_zero()
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Task {
    /// The resources it asks for.
    pub fn request(&self) -> Request {
        Request { cpus: self.cpus, mem: self.mem, disk: self.disk, gpus: self.gpus, ports: self.ports, port_ranges: self.port_ranges.clone(), other: self.other.clone() }
    }

    /// Sets the resources it asks for.
    pub fn set_request(&mut self, request: &Request) {
        self.cpus = request.cpus;
        self.mem = request.mem;
        self.disk = request.disk;
        self.gpus = request.gpus;
        self.ports = request.ports;
        self.port_ranges = request.port_ranges.clone();
        self.other = request.other.clone();
    }

    /// Why it cannot be run as it stands, if it cannot; the same check is made by tool, master and agent.
    pub fn fault(&self) -> Option<String> {
        match (&self.cmd, self.argv.is_empty()) {
            (None, true) => return Some("a task has a \"cmd\" string or an \"argv\" list".to_owned()),
            (Some(_), false) => return Some("a task has \"cmd\" or \"argv\", not both".to_owned()),
            _ => {}
        }
        if self.argv.first().is_some_and(String::is_empty) {
            return Some("the program's name is empty".to_owned());
        }
        let texts = self.argv.iter().chain(&self.cmd).chain(&self.workdir).chain(self.env.values());
        if texts.chain(self.env.keys()).any(|text| text.contains('\0')) {
            return Some("a command, directory or environment holds a NUL byte".to_owned());
        }
        if let Some(key) = self.env.keys().find(|key| key.is_empty() || key.contains('=')) {
            return Some(format!("{key:?} is no name of an environment variable"));
        }
        if self.cpus.as_milli() < CPUS_MIN_MILLI {
            return Some("a task needs at least 0.01 cpus".to_owned());
        }
        if self.cpus_limit.is_some_and(|limit| limit < self.cpus) {
            return Some("cpus_limit is below cpus".to_owned());
        }
        None
    }

    /// The command as people recognise it, at most 200 characters.
    pub fn summary(&self) -> String {
        let whole = match &self.cmd {
            Some(cmd) => cmd.clone(),
            None => self.argv.join(" "),
        };
        whole.chars().take(200).collect()
    }
}

/// What names one launch for ever: it can be spawned on one agent, once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LaunchId {
    /// The leader's epoch.
    pub epoch: u64,
    /// The first offer it was accepted on.
    pub offer: OfferId,
    /// Its place in the accept.
    pub index: u32,
}

/// One offer: what of one agent one framework may use until it expires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// The offer's id.
    pub id: OfferId,
    /// The agent whose resources these are.
    pub agent: AgentId,
    /// The agent's host name.
    pub host: String,
    /// What is offered.
    pub resources: Resources,
    /// The agent's attributes.
    #[serde(default)]
    pub attrs: BTreeMap<String, Attr>,
    /// The master's wall clock when it ends, milliseconds since 1970; for display.
    pub expires_ms: u64,
    /// How long it lives from when it is received, milliseconds.
    pub lives_ms: u64,
    /// Whether what runs on it may be ended at once when others need the room.
    #[serde(default, skip_serializing_if = "is_false")]
    pub revocable: bool,
}

/// What became of a task: the line a framework sees, what the stream keeps, and what the agent's log holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// Always `update/1`.
    pub meso: UpdateKind,
    /// The task.
    pub task: TaskId,
    /// Its name.
    #[serde(default)]
    pub name: Option<Name>,
    /// Whose it is.
    pub framework: FrameworkId,
    /// Under which bus principal.
    pub principal: Principal,
    /// In which role.
    #[serde(default)]
    pub role: Role,
    /// Where it runs; absent if it never got a place.
    #[serde(default)]
    pub agent: Option<AgentId>,
    /// The agent's host name.
    #[serde(default)]
    pub host: String,
    /// The state it is in now.
    pub state: TaskState,
    /// True if nothing follows.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// A stable word that says why.
    #[serde(default)]
    pub reason: Option<String>,
    /// The same for people.
    #[serde(default)]
    pub message: Option<String>,
    /// The exit code, if it exited by itself.
    #[serde(default)]
    pub exit: Option<i32>,
    /// The signal that ended it, if one did.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Rises by one with each status of this task.
    pub seq: u64,
    /// Rises by one with each status of this agent; 0 for a status that the master made.
    #[serde(default)]
    pub agent_seq: u64,
    /// The launch it speaks of.
    #[serde(default)]
    pub launch: Option<LaunchId>,
    /// What it holds.
    #[serde(default)]
    pub resources: Resources,
    /// The command, shortened.
    #[serde(default)]
    pub command: String,
    /// Bytes the task has written, known when it ended.
    #[serde(default)]
    pub stdout_bytes: u64,
    /// The same for standard error.
    #[serde(default)]
    pub stderr_bytes: u64,
    /// The most memory it used, bytes, where known.
    #[serde(default)]
    pub mem_peak_bytes: u64,
    /// Processor time used, milliseconds.
    #[serde(default)]
    pub cpu_ms: u64,
    /// When the task began to run, milliseconds since 1970; 0 if it has not.
    #[serde(default)]
    pub started_ms: u64,
    /// When this became true.
    pub ts: String,
    /// The same in milliseconds since 1970.
    pub ts_ms: u64,
}

impl Update {
    /// A task of which nothing is known but whose it is: `staging`, with the number 0.
    pub fn blank(task: &TaskId, framework: &FrameworkId, principal: &Principal, wall: Wall) -> Update {
        Update {
            meso: UpdateKind::V1,
            task: task.clone(),
            name: None,
            framework: framework.clone(),
            principal: principal.clone(),
            role: Role::default(),
            agent: None,
            host: String::new(),
            state: TaskState::Staging,
            is_final: false,
            reason: None,
            message: None,
            exit: None,
            signal: None,
            seq: 0,
            agent_seq: 0,
            launch: None,
            resources: Resources::default(),
            command: String::new(),
            stdout_bytes: 0,
            stderr_bytes: 0,
            mem_peak_bytes: 0,
            cpu_ms: 0,
            started_ms: 0,
            ts: wall.text(),
            ts_ms: wall.0,
        }
    }

    /// The status that a launched task has before its agent says anything.
    pub fn staging(launch: &Launch, agent: &AgentId, host: &str, wall: Wall) -> Update {
        Update {
            name: launch.spec.name.clone(),
            role: launch.role.clone(),
            agent: Some(agent.clone()),
            host: host.to_owned(),
            launch: Some(launch.launch.clone()),
            resources: launch.resources.clone(),
            command: launch.spec.summary(),
            ..Update::blank(&launch.task, &launch.framework, &launch.principal, wall)
        }
    }

    /// Why its numbers cannot be taken, if they cannot.
    pub fn fault(&self) -> Option<String> {
        uncounted("the seq of a status", self.seq).or_else(|| uncounted("the agent_seq of a status", self.agent_seq))
    }
}

/// The tag of an update line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateKind {
    /// The first major.
    #[default]
    #[serde(rename = "update/1")]
    V1,
}

/// What the agent is to run: a task with its place, owner and concrete resources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Names this launch for ever.
    pub launch: LaunchId,
    /// Its place among this agent's launches of this epoch, from 1: settled ones are remembered as ranges.
    pub no: u64,
    /// True if its end was asked for before it was confirmed: it is recorded and reported as killed, never spawned.
    #[serde(default)]
    pub cancelled: bool,
    /// The task.
    pub task: TaskId,
    /// Whose it is.
    pub framework: FrameworkId,
    /// The framework's durable name, if it has one.
    #[serde(default)]
    pub framework_name: Option<Name>,
    /// The bus principal that owns the framework.
    pub principal: Principal,
    /// The role whose share it counts in.
    pub role: Role,
    /// Concrete resources, ports chosen.
    pub resources: Resources,
    /// Opens the task's output and input to whoever shows it.
    pub token: Nonce,
    /// Whether it may be ended at once when others need the room.
    #[serde(default, skip_serializing_if = "is_false")]
    pub revocable: bool,
    /// Whether its resources are of what the agent has beyond its total: what others hold and do not use.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lent: bool,
    /// The task itself.
    pub spec: Task,
}

impl Launch {
    /// Why its numbers cannot be taken, if they cannot.
    pub fn fault(&self) -> Option<String> {
        uncounted("the no of a launch", self.no)
    }
}

/// A stable word for each way to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The offer was used, declined, rescinded or has expired.
    OfferGone,
    /// It belongs to another framework or principal.
    NotYours,
    /// The tasks need more than is offered.
    TooLarge,
    /// A task of that id lives.
    TaskExists,
    /// No such task.
    UnknownTask,
    /// No such framework or session.
    UnknownFramework,
    /// The name is held by another.
    NameHeld,
    /// The message is not what we read.
    BadRequest,
    /// A limit is reached; later it may go through.
    Busy,
    /// A new leader does not know yet; ask again.
    Recovering,
    /// Another major of the protocol.
    Version,
    /// The answer is no longer the master's to give: it is not leading.
    NotLeading,
    /// It contradicts what an operator set.
    Contradicts,
    /// The cluster has too little for it, or tasks hold too much; an operator may force it.
    Overcommits,
    /// No such agent.
    UnknownAgent,
    /// An operator declared the agent gone: it ends what it runs, and does not come back.
    AgentGone,
    /// The agent is not away; an operator may force it.
    AgentThere,
    /// A word of a later release: a refusal all the same, and its message says why.
    #[serde(other)]
    Other,
}

/// A refusal with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The stable word.
    pub code: RefusalCode,
    /// The reason for people.
    pub message: String,
}

impl Refusal {
    /// Makes one.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Refusal { code, message: message.into() }
    }
}

#[cfg(test)]
mod tests;
