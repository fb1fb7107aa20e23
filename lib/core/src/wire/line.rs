//! The lines that `meso-offer` prints, as programs read them: keys in this order, within a major only ever more of them.
//!
//! A number that is missing is 0 and never absent, so that a filter may compare it without a look whether it is there.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::condition::Attr;
use crate::duration::rfc3339;
use crate::id::{AgentId, FrameworkId, Name, Nonce, OfferId, TaskId};
use crate::resources::{Milli, Ports};
use crate::role::Role;
use crate::task::TaskState;
use crate::wire::ack::AckId;
use crate::wire::{Offer, Update, Wall};

/// The longest line, in bytes with its end: what a pipe takes whole, whoever else writes to it.
pub const OUT_BYTES_MAX: usize = 4096;
/// How much of a session's own number its name in lines shows: enough to tell two apart, too little to speak for it.
const SESSION_CHARS: usize = 10;
/// How much of a long message is kept, in characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// Resources of one agent.
    Offer(Box<OfferLine>),
    /// The session has begun, or a new leader knows it.
    Hello(HelloLine),
    /// A task that lives.
    Task(Box<TaskLine>),
    /// All tasks were told.
    Synced(SyncedLine),
    /// What became of a task.
    Update(Box<UpdateLine>),
    /// An offer is no more.
    Rescind(RescindLine),
    /// Tasks have to make room.
    Inverse(InverseLine),
    /// An agent is not to be reached or is gone.
    Failure(FailureLine),
    /// Nothing happens, and the connection lives.
    Heartbeat(HeartbeatLine),
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Line::Offer(line) => line.serialize(out),
            Line::Hello(line) => line.serialize(out),
            Line::Task(line) => line.serialize(out),
            Line::Synced(line) => line.serialize(out),
            Line::Update(line) => line.serialize(out),
            Line::Rescind(line) => line.serialize(out),
            Line::Inverse(line) => line.serialize(out),
            Line::Failure(line) => line.serialize(out),
            Line::Heartbeat(line) => line.serialize(out),
        }
    }
}

impl Line {
    /// Makes a line that is too long shorter by what can best be missed; says what that was, or none if nothing is left to miss.
    pub fn shorten(&mut self) -> Option<&'static str> {
        match self {
            Line::Offer(line) if !line.attrs.is_empty() => {
                line.attrs.clear();
                Some("attrs")
            }
            Line::Offer(line) if !line.port_ranges.is_empty() => {
                line.port_ranges = Ports::default();
                Some("port_ranges")
            }
            Line::Offer(line) if !line.other.is_empty() => {
                line.other.clear();
                Some("other")
            }
            Line::Update(line) => cut(&mut line.message),
            Line::Task(line) => cut(&mut line.message),
            _ => None,
        }
    }
}

fn cut(message: &mut Option<String>) -> Option<&'static str> {
    let text = message.as_mut()?;
    let (end, _) = text.char_indices().nth(MESSAGE_CHARS_MAX)?;
    text.truncate(end);
    Some("message")
}

/// A session as lines name it: `s_<the beginning of its number>.<which session of its framework>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionName(String);

impl SessionName {
    /// The name of a session.
    pub fn new(session: &Nonce, session_no: u64) -> Self {
        let beginning: String = session.as_str().chars().take(SESSION_CHARS).collect();
        SessionName(format!("s_{beginning}.{session_no}"))
    }
}

impl Serialize for SessionName {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.0)
    }
}

/// `offer/1`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfferLine {
    /// Always `offer/1`.
    pub meso: &'static str,
    /// The offer; empty where it is only peeked at.
    pub id: String,
    /// The number of the offer in its session, from 1.
    pub seq: u64,
    /// Whose it is; empty where it is only peeked at.
    pub framework: String,
    /// In which session; none where it is only peeked at.
    pub session: Option<SessionName>,
    /// The role that what is used counts for.
    pub role: Role,
    /// The agent.
    pub agent: AgentId,
    /// Its host name.
    pub host: String,
    /// Processors.
    pub cpus: Milli,
    /// MiB.
    pub mem: Milli,
    /// MiB.
    pub disk: Milli,
    /// Graphics processors.
    pub gpus: Milli,
    /// How many ports.
    pub ports: u32,
    /// Which.
    pub port_ranges: Ports,
    /// What a site declares beyond these.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, Milli>,
    /// Whether it may be taken back from a running task.
    pub revocable: bool,
    /// What the operator says of the agent.
    pub attrs: BTreeMap<String, Attr>,
    /// Reservations among it: there are none yet.
    pub reservations: [(); 0],
    /// Volumes among it: there are none yet.
    pub volumes: [(); 0],
    /// When it ends.
    pub expires: String,
    /// The same in milliseconds since 1970.
    pub expires_ms: u64,
    /// When the line was written.
    pub ts: String,
    /// The same in milliseconds since 1970.
    pub ts_ms: u64,
    /// True where nothing is held: it cannot be accepted.
    #[serde(skip_serializing_if = "is_false")]
    pub peek: bool,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

impl OfferLine {
    /// The line of an offer that ends at `expires_ms` of the reader's own wall clock.
    pub fn new(offer: &Offer, seq: u64, role: &Role, expires_ms: u64, now: Wall) -> Self {
        let resources = &offer.resources;
        OfferLine {
            meso: "offer/1",
            id: offer.id.to_string(),
            seq,
            framework: String::new(),
            session: None,
            role: role.clone(),
            agent: offer.agent.clone(),
            host: offer.host.clone(),
            cpus: resources.cpus,
            mem: resources.mem,
            disk: resources.disk,
            gpus: resources.gpus,
            ports: resources.ports.len(),
            port_ranges: resources.ports.clone(),
            other: resources.other.clone(),
            revocable: offer.revocable,
            attrs: offer.attrs.clone(),
            reservations: [],
            volumes: [],
            expires: rfc3339(expires_ms),
            expires_ms,
            ts: now.text(),
            ts_ms: now.0,
            peek: false,
        }
    }

    /// The same in a session.
    pub fn of(mut self, framework: &FrameworkId, session: SessionName) -> Self {
        self.framework = framework.to_string();
        self.session = Some(session);
        self
    }

    /// The same as something to look at.
    pub fn peeked(mut self) -> Self {
        self.id.clear();
        self.peek = true;
        self
    }
}

/// `hello/1`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HelloLine {
    /// Always `hello/1`.
    pub meso: &'static str,
    /// The framework.
    pub framework: FrameworkId,
    /// Its session.
    pub session: SessionName,
    /// Its durable name.
    pub name: Option<Name>,
    /// Whether it was known before, with its tasks.
    pub recovered: bool,
    /// How often a heartbeat comes.
    pub heartbeat_ms: u64,
}

/// `task/1`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskLine {
    /// Always `task/1`.
    pub meso: &'static str,
    /// The task.
    pub task: TaskId,
    /// Its name.
    pub name: Option<Name>,
    /// Whose it is.
    pub framework: FrameworkId,
    /// In which role.
    pub role: Role,
    /// Where it runs.
    pub agent: Option<AgentId>,
    /// The agent's host name.
    pub host: String,
    /// The state it is in.
    pub state: TaskState,
    /// Always false: it lives.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// A stable word that says why.
    pub reason: Option<String>,
    /// The same for people.
    pub message: Option<String>,
    /// The number of its last status.
    pub seq: u64,
    /// Processors it holds.
    pub cpus: Milli,
    /// MiB it holds.
    pub mem: Milli,
    /// MiB it holds.
    pub disk: Milli,
    /// Graphics processors it holds.
    pub gpus: Milli,
    /// How many ports it holds.
    pub ports: u32,
    /// Which.
    pub port_ranges: Ports,
    /// When it began to run, milliseconds since 1970; 0 if it has not.
    pub started_ms: u64,
    /// When its last status became true.
    pub ts: String,
    /// The same in milliseconds since 1970.
    pub ts_ms: u64,
}

impl TaskLine {
    /// The line of a task by its last status.
    pub fn new(update: &Update) -> Self {
        TaskLine {
            meso: "task/1",
            task: update.task.clone(),
            name: update.name.clone(),
            framework: update.framework.clone(),
            role: update.role.clone(),
            agent: update.agent.clone(),
            host: update.host.clone(),
            state: update.state,
            is_final: update.is_final,
            reason: update.reason.clone(),
            message: update.message.clone(),
            seq: update.seq,
            cpus: update.resources.cpus,
            mem: update.resources.mem,
            disk: update.resources.disk,
            gpus: update.resources.gpus,
            ports: update.resources.ports.len(),
            port_ranges: update.resources.ports.clone(),
            started_ms: update.started_ms,
            ts: update.ts.clone(),
            ts_ms: update.ts_ms,
        }
    }
}

/// `synced/1`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SyncedLine {
    /// Always `synced/1`.
    pub meso: &'static str,
    /// How many tasks were told.
    pub tasks: usize,
}

/// `update/1`, as a framework reads it; what the record keeps of a status has more.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UpdateLine {
    /// Always `update/1`.
    pub meso: &'static str,
    /// The task.
    pub task: TaskId,
    /// Its name.
    pub name: Option<Name>,
    /// Whose it is.
    pub framework: FrameworkId,
    /// Where it runs; absent if it never got a place.
    pub agent: Option<AgentId>,
    /// The agent's host name.
    pub host: String,
    /// The state it is in now.
    pub state: TaskState,
    /// True if nothing follows.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// A stable word that says why.
    pub reason: Option<String>,
    /// The same for people.
    pub message: Option<String>,
    /// The exit code, if it exited by itself.
    pub exit: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Rises with each status of this task.
    pub seq: u64,
    /// By which it is acknowledged.
    pub ack: AckId,
    /// True if it was written before and nobody acknowledged it.
    #[serde(skip_serializing_if = "is_false")]
    pub redelivered: bool,
    /// When this became true.
    pub ts: String,
    /// The same in milliseconds since 1970.
    pub ts_ms: u64,
}

impl UpdateLine {
    /// The line of a status.
    pub fn new(update: &Update, redelivered: bool) -> Self {
        UpdateLine {
            meso: "update/1",
            task: update.task.clone(),
            name: update.name.clone(),
            framework: update.framework.clone(),
            agent: update.agent.clone(),
            host: update.host.clone(),
            state: update.state,
            is_final: update.is_final,
            reason: update.reason.clone(),
            message: update.message.clone(),
            exit: update.exit,
            signal: update.signal,
            seq: update.seq,
            ack: AckId { framework: update.framework.clone(), task: update.task.clone(), seq: update.seq },
            redelivered,
            ts: update.ts.clone(),
            ts_ms: update.ts_ms,
        }
    }
}

/// `rescind/1`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RescindLine {
    /// Always `rescind/1`.
    pub meso: &'static str,
    /// The offer.
    pub id: OfferId,
    /// A stable word: the leader's, or `skipped`, `dropped`, `leader_changed`.
    pub reason: String,
}

/// `inverse/1`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InverseLine {
    /// Always `inverse/1`.
    pub meso: &'static str,
    /// The agent.
    pub agent: AgentId,
    /// Its host name.
    pub host: String,
    /// Which of our tasks there; at most [`INVERSE_TASKS_MAX`], more come in further lines.
    pub tasks: Vec<TaskId>,
    /// A stable word.
    pub reason: String,
    /// Until when they may be ended by us.
    pub deadline: String,
    /// The same in milliseconds since 1970.
    pub deadline_ms: u64,
}

/// The most tasks in one `inverse/1`, so that it fits a line.
pub const INVERSE_TASKS_MAX: usize = 100;

/// `failure/1`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailureLine {
    /// Always `failure/1`.
    pub meso: &'static str,
    /// The agent.
    pub agent: AgentId,
    /// Its host name.
    pub host: String,
    /// A stable word.
    pub reason: String,
}

/// `heartbeat/1`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeartbeatLine {
    /// Always `heartbeat/1`.
    pub meso: &'static str,
    /// Now.
    pub ts: String,
    /// The same in milliseconds since 1970.
    pub ts_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::Resources;

    fn offer() -> Offer {
        let attrs = [("rack".to_owned(), Attr::Text("r1".to_owned())), ("ssd".to_owned(), Attr::Flag(true))];
        Offer {
            id: OfferId::parse("offer_7k3q9x2mfa").expect("an id"),
            agent: AgentId::parse("agent_2m8vq0xk7c").expect("an id"),
            host: "node3".to_owned(),
            resources: Resources { cpus: Milli::parse("7.5").expect("an amount"), mem: Milli::units(15360), disk: Milli::units(204_800), ports: Ports::range(31000, 31063).expect("a range"), ..Resources::default() },
            attrs: attrs.into_iter().collect(),
            expires_ms: 0,
            lives_ms: 30_000,
            revocable: false,
        }
    }

    fn line() -> Line {
        let framework = FrameworkId::parse("fw_9d2kx0q4ht").expect("an id");
        let session = SessionName::new(&Nonce::fresh(0x4_2297_9a8b, 1), 3);
        Line::Offer(Box::new(OfferLine::new(&offer(), 17, &Role::parse("batch").expect("a role"), 1_795_328_191_000, Wall(1_795_328_161_000)).of(&framework, session)))
    }

    /// Shows an offer's line to the byte: the order of its keys, times with their twins, zeros in place of nothing.
    #[test]
    fn an_offer() {
        let text = serde_json::to_string(&line()).expect("plain data");
        let expected = concat!(
            r#"{"meso":"offer/1","id":"offer_7k3q9x2mfa","seq":17,"framework":"fw_9d2kx0q4ht","session":"s_0000000422.3","role":"batch","#,
            r#""agent":"agent_2m8vq0xk7c","host":"node3","cpus":7.5,"mem":15360,"disk":204800,"gpus":0,"ports":64,"port_ranges":[[31000,31063]],"#,
            r#""revocable":false,"attrs":{"rack":"r1","ssd":true},"reservations":[],"volumes":[],"#,
            r#""expires":"2026-11-22T06:16:31Z","expires_ms":1795328191000,"ts":"2026-11-22T06:16:01Z","ts_ms":1795328161000}"#
        );
        assert_eq!(text, expected);
    }

    /// Shows what a line that is too long loses, in which order, and that it comes to an end.
    #[test]
    fn too_long() {
        let mut line = line();
        assert_eq!((line.shorten(), line.shorten(), line.shorten()), (Some("attrs"), Some("port_ranges"), None));
        let text = serde_json::to_string(&line).expect("plain data");
        assert!(text.contains(r#""ports":64,"port_ranges":[]"#) && text.contains(r#""attrs":{}"#), "{text}");
    }

    /// Shows that what is only peeked at says so and names no offer.
    #[test]
    fn a_peek() {
        let text = serde_json::to_string(&OfferLine::new(&offer(), 1, &Role::default(), 0, Wall(0)).peeked()).expect("plain data");
        assert!(text.starts_with(r#"{"meso":"offer/1","id":"","seq":1,"framework":"","session":null"#) && text.ends_with(r#","peek":true}"#), "{text}");
    }
}
