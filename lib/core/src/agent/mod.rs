//! The agent as a pure machine: what it takes, runs, reports and remembers.
//!
//! Order of effects: `Persist` before everything that follows from it. Recovery replays the records through
//! [`Agent::recover`] and then feeds what was found on the machine as ordinary container events.

mod admission;
mod alone;
mod leaving;
#[cfg(test)]
mod numbers;
mod recent;
pub mod record;
pub mod spawned;
#[cfg(test)]
mod testagent;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::agent::admission::Admission;
use crate::agent::alone::Alone;
use crate::agent::recent::Recent;
use crate::agent::record::{RECORD_VERSION, Record};
use crate::agent::spawned::Spawned;
use crate::agent::verdict::verdict;
use crate::condition::Attr;
use crate::duration::DURATION_MS_MAX;
use crate::id::{AgentId, Nonce, TaskId};
use crate::lease::EPOCH_MAX;
use crate::resources::Resources;
use crate::task::{OnUnreachable, TaskState};
use crate::wire::agent::{Beat, Beaten, Command, Held, Hello, Invitation, Order, Welcome};
use crate::wire::{Launch, MESSAGE_BYTES_MAX, PROTOCOL, Refusal, Span, Update, UpdateKind, Wall};

pub use leaving::LEAVE_WAIT_MS;

/// Between TERM and KILL where nobody says otherwise, milliseconds.
pub const KILL_GRACE_MS: u64 = 3_000;
/// The first wait before a registration is repeated, milliseconds; it doubles up to [`HELLO_WAIT_MS_MAX`].
pub const HELLO_WAIT_MS: u64 = 250;
/// The longest wait before a registration is repeated, milliseconds.
pub const HELLO_WAIT_MS_MAX: u64 = 5_000;
/// How long an unanswered registration or beat stays unanswered before it counts as lost, milliseconds.
pub const ANSWER_WAIT_MS: u64 = 5_000;
/// The first wait before a status is sent again, milliseconds; it doubles up to [`RESEND_MS_MAX`].
pub const RESEND_MS: u64 = 1_000;
/// The longest wait before a status is sent again, milliseconds.
pub const RESEND_MS_MAX: u64 = 60_000;
/// How soon to beat while ended tasks wait to be settled, milliseconds.
pub const SETTLE_BEAT_MS: u64 = 2_000;
/// A part of a registration is closed when it is this large, bytes: half a message, so that one more task always fits.
const HELLO_PART_BYTES: usize = MESSAGE_BYTES_MAX / 2;

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

/// One task on this agent.
#[derive(Clone, Debug)]
struct Entry {
    launch: Launch,
    /// The latest status made; a staging one before the first.
    update: Update,
    /// Statuses not yet stored, oldest first; the first is on its way or waits for its retry.
    unstored: VecDeque<Update>,
    resend_ms: u64,
    killing: Option<(u64, String)>,
    /// True once this process has passed the kill on to the container.
    kill_sent: bool,
    /// True while its resources count as used. A launch that clashes with what is held never does.
    charged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nobody leads, or nobody answered yet: register at this time.
    Alone { hello_at_ms: u64 },
    /// A registration is on its way, this many tasks are told.
    Asking { until_ms: u64, told: usize },
    /// One of the cluster.
    Joined { beat_at_ms: u64, answer_by_ms: Option<u64> },
}

/// The agent.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    wall_offset_ms: i64,
    max_epoch: u64,
    standing: Standing,
    hello_wait_ms: u64,
    beat_ms: u64,
    tasks: BTreeMap<TaskId, Entry>,
    admission: Admission,
    spawned: Spawned,
    status_seq: u64,
    seen: u64,
    ended_unsettled: usize,
    timers: BTreeSet<(u64, TaskId)>,
    told: Vec<TaskId>,
    /// The number of the last registration, or part of one.
    hello_no: u64,
    /// Ends that were asked for before this process began and are to be passed on again.
    unkilled: Vec<TaskId>,
    /// The protocol major that it speaks: the older one to a master that knows no other.
    speaks: u32,
    /// How often no protocol of its own was understood, since one was.
    not_understood: u32,
    alone: Alone,
    recent: Recent,
    /// It is gone by an operator's word: why, and until when it waits for the ends of its tasks.
    leaving: Option<(Refusal, u64)>,
    /// Commands of a lower epoch that were refused, for the operator and the tests.
    pub refused_stale: u64,
}

impl Agent {
    /// An agent with an empty log.
    pub fn new(config: Config, now_ms: u64) -> Self {
        Agent {
            admission: Admission::new(config.total.clone()),
            config,
            wall_offset_ms: 0,
            max_epoch: 0,
            standing: Standing::Alone { hello_at_ms: now_ms },
            hello_wait_ms: HELLO_WAIT_MS,
            beat_ms: 15_000,
            tasks: BTreeMap::new(),
            spawned: Spawned::default(),
            status_seq: 0,
            seen: 0,
            ended_unsettled: 0,
            timers: BTreeSet::new(),
            told: Vec::new(),
            hello_no: 0,
            unkilled: Vec::new(),
            speaks: PROTOCOL,
            not_understood: 0,
            alone: Alone::new(now_ms),
            recent: Recent::default(),
            leaving: None,
            refused_stale: 0,
        }
    }

    /// An agent as its log tells. What runs is fed afterwards as `Started` and `Ended` events; see [`Agent::live`].
    pub fn recover(config: Config, now_ms: u64, records: impl IntoIterator<Item = Record>) -> Self {
        let mut agent = Agent::new(config, now_ms);
        for record in records {
            agent.apply(&record);
        }
        // What was not known to be stored is sent again; a status that was stored is dropped by its message id.
        let unstored: Vec<TaskId> = agent.tasks.iter().filter(|(_, entry)| !entry.unstored.is_empty()).map(|(id, _)| id.clone()).collect();
        agent.timers = unstored.into_iter().map(|id| (now_ms, id)).collect();
        // The process before may have died between writing a kill down and passing it on.
        agent.unkilled = agent.tasks.iter().filter(|(_, entry)| entry.killing.is_some() && !entry.update.is_final).map(|(id, _)| id.clone()).collect();
        agent
    }

    /// The record that a new log begins with.
    pub fn head(&self) -> Record {
        Record::Head { v: RECORD_VERSION, agent: self.config.agent.clone(), generation: self.config.generation, boot_id: self.config.boot_id.clone() }
    }

    /// All that has to be remembered: what a log that is begun anew holds.
    pub fn snapshot(&self) -> Vec<Record> {
        let all = Record::Snapshot { max_epoch: self.max_epoch, status_seq: self.status_seq, spawned: self.spawned.clone(), timeout_ms: self.alone.limit_ms() };
        let held = self.tasks.values().map(|entry| Record::Held { held: Box::new(held(entry)) });
        [self.head(), all].into_iter().chain(held).collect()
    }

    /// The tasks whose containers are to be looked for after a start.
    pub fn live(&self) -> impl Iterator<Item = &Launch> {
        self.tasks.values().filter(|entry| !entry.update.is_final).map(|entry| &entry.launch)
    }

    /// The launches of all tasks that are not settled yet, ended or not.
    pub fn unsettled(&self) -> impl Iterator<Item = &Launch> {
        self.tasks.values().map(|entry| &entry.launch)
    }

    /// The launch of a task that is not settled yet.
    pub fn launch_of(&self, task: &TaskId) -> Option<&Launch> {
        self.tasks.get(task).map(|entry| &entry.launch)
    }

    /// The highest epoch obeyed.
    pub fn max_epoch(&self) -> u64 {
        self.max_epoch
    }

    /// Whether a leader has taken it in.
    pub fn joined(&self) -> bool {
        matches!(self.standing, Standing::Joined { .. })
    }

    /// What the tasks here hold for good.
    pub fn used(&self) -> &Resources {
        self.admission.used()
    }

    /// What is lent to tasks here.
    pub fn lent_used(&self) -> &Resources {
        self.admission.lent_used()
    }

    /// When to call again with `Tick` if nothing else happens.
    pub fn deadline(&self) -> Option<u64> {
        let standing = match self.standing {
            Standing::Alone { hello_at_ms } => hello_at_ms,
            Standing::Asking { until_ms, .. } => until_ms,
            Standing::Joined { beat_at_ms, answer_by_ms } => answer_by_ms.unwrap_or(beat_at_ms),
        };
        if let Some((_, until_ms)) = &self.leaving {
            return Some(*until_ms);
        }
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.alone.due_ms()].into_iter().flatten().chain([standing]).min()
    }

    /// Feeds one event in; says, in order, what must now become true outside.
    pub fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Tick => {}
            Event::Clock { wall_ms } => self.wall_offset_ms = Wall(wall_ms).offset_ms(now_ms),
            Event::Welcome(answer) => self.on_welcome(now_ms, answer, &mut out),
            Event::Beaten(answer) => self.on_beaten(now_ms, answer, &mut out),
            Event::Invitation(invitation) => self.on_invitation(now_ms, &invitation),
            Event::Command(command) => self.on_command(now_ms, command, &mut out),
            Event::Started { task } => self.on_started(now_ms, &task, &mut out),
            Event::Ended { task, ending, usage } => self.on_ended(now_ms, &task, ending, usage, &mut out),
            Event::Stored { task, seq, ok } => self.on_stored(now_ms, &task, seq, ok, &mut out),
            Event::Lent { resources } => {
                self.admission.set_lent(resources);
                self.beat_if_pressed(now_ms);
            }
            Event::Disk { fault } => {
                self.admission.set_disk_fault(fault);
                self.beat_if_pressed(now_ms);
            }
            Event::EndAll { reason } => {
                let live: Vec<TaskId> = self.live().map(|launch| launch.task.clone()).collect();
                for task in live {
                    self.kill(now_ms, &task, None, reason.to_owned(), &mut out);
                }
            }
        }
        self.on_time(now_ms, &mut out);
        out
    }

    fn wall(&self, now_ms: u64) -> Wall {
        Wall(now_ms.saturating_add_signed(self.wall_offset_ms))
    }

    /// Makes a fact true in memory; the one place where records change the machine, alive or recovering.
    fn apply(&mut self, record: &Record) {
        match record {
            Record::Head { .. } => {}
            Record::Epoch { epoch, timeout_ms } => {
                self.max_epoch = self.max_epoch.max(*epoch);
                self.alone.set_limit(*timeout_ms);
            }
            Record::Launch { launch } => {
                self.spawned.insert(launch.launch.epoch, launch.no);
                let mut entry = Entry::new(launch, &self.config);
                entry.charged = self.admission.charge(launch);
                self.alone.watch(launch);
                self.tasks.insert(launch.task.clone(), entry);
            }
            Record::Killing { task, grace_ms, reason } => {
                self.alone.forget(task);
                if let Some(entry) = self.tasks.get_mut(task) {
                    entry.killing = Some((*grace_ms, reason.clone()));
                }
            }
            Record::Status { update } => {
                self.status_seq = self.status_seq.max(update.agent_seq);
                if let Some(entry) = self.tasks.get_mut(&update.task) {
                    if update.is_final && !entry.update.is_final {
                        if std::mem::take(&mut entry.charged) {
                            self.admission.refund(&entry.launch);
                        }
                        self.ended_unsettled += 1;
                        self.alone.forget(&update.task);
                    }
                    entry.update = (**update).clone();
                    entry.unstored.push_back((**update).clone());
                }
            }
            Record::Settled { task } => {
                if self.tasks.remove(task).is_some_and(|entry| entry.update.is_final) {
                    self.ended_unsettled -= 1;
                }
            }
            Record::Snapshot { max_epoch, status_seq, spawned, timeout_ms } => {
                self.max_epoch = *max_epoch;
                self.status_seq = *status_seq;
                self.spawned = spawned.clone();
                self.tasks.clear();
                self.admission.clear();
                self.alone.clear();
                self.alone.set_limit(*timeout_ms);
                self.ended_unsettled = 0;
            }
            Record::Held { held } => {
                let mut entry = Entry::new(&held.launch, &self.config);
                entry.update = held.update.clone();
                if held.killing {
                    let reason = held.killing_reason.clone().unwrap_or_else(|| "asked".to_owned());
                    entry.killing = Some((held.launch.spec.kill_grace.map_or(KILL_GRACE_MS, |grace| grace.0), reason));
                }
                if held.update.seq > 0 {
                    entry.unstored.push_back(held.update.clone());
                }
                if held.update.is_final {
                    self.ended_unsettled += 1;
                } else {
                    entry.charged = self.admission.charge(&held.launch);
                    if !held.killing {
                        self.alone.watch(&held.launch);
                    }
                }
                self.tasks.insert(held.launch.task.clone(), entry);
            }
        }
    }

    fn persist(&mut self, record: Record, out: &mut Vec<Effect>) {
        self.apply(&record);
        out.push(Effect::Persist(record));
    }

    fn on_invitation(&mut self, now_ms: u64, invitation: &Invitation) {
        // A beat to the new leader would be answered "unknown"; the invitation only makes that quicker.
        if invitation.epoch >= self.max_epoch && !matches!(self.standing, Standing::Asking { .. }) {
            let newer = invitation.epoch > self.max_epoch || !self.joined();
            if newer {
                // Invitations are repeated: a later one does not put off what an earlier one began.
                let at_ms = match self.standing {
                    Standing::Alone { hello_at_ms } => hello_at_ms.min(now_ms + self.config.jitter_ms),
                    _ => now_ms + self.config.jitter_ms,
                };
                self.standing = Standing::Alone { hello_at_ms: at_ms };
            }
        }
    }

    fn hello(&mut self, now_ms: u64, told: usize, out: &mut Vec<Effect>) {
        if told == 0 {
            let settled = self.recent.tasks(now_ms).filter(|task| !self.tasks.contains_key(*task));
            self.told = self.tasks.keys().chain(settled).cloned().collect();
        } else {
            // What was launched since the first part is told as well, or the leader would take it as gone.
            let known: BTreeSet<&TaskId> = self.told.iter().collect();
            let since: Vec<TaskId> = self.tasks.keys().filter(|id| !known.contains(id)).cloned().collect();
            self.told.extend(since);
        }
        self.hello_no += 1;
        let mut tasks = Vec::new();
        let mut bytes = 0;
        let mut next = told;
        for id in self.told.iter().skip(told) {
            if bytes > HELLO_PART_BYTES {
                break;
            }
            next += 1;
            if let Some(one) = self.tasks.get(id).map(held).or_else(|| self.recent.get(id).cloned()) {
                bytes += serde_json::to_string(&one).map_or(0, |text| text.len());
                tasks.push(one);
            }
        }
        let hello = Hello {
            v: self.speaks,
            agent: self.config.agent.clone(),
            incarnation: self.config.incarnation.clone(),
            secret: self.config.secret.clone(),
            generation: self.config.generation,
            host: self.config.host.clone(),
            attrs: self.config.attrs.clone(),
            total: self.config.total.clone(),
            max_epoch: self.max_epoch,
            boot_id: self.config.boot_id.clone(),
            isolation: self.config.isolation.clone(),
            version: self.config.version.clone(),
            status_seq: self.status_seq,
            tasks,
            more: next < self.told.len(),
            continued: told > 0,
            no: self.hello_no,
        };
        self.admission.forget_told();
        self.alone.asked(now_ms);
        self.standing = Standing::Asking { until_ms: now_ms + ANSWER_WAIT_MS, told: next };
        out.push(Effect::Hello(Box::new(hello)));
    }

    fn on_welcome(&mut self, now_ms: u64, answer: Option<Welcome>, out: &mut Vec<Effect>) {
        let Standing::Asking { told, .. } = self.standing else { return };
        match answer {
            Some(Welcome::Refused(refusal)) => self.on_refused(now_ms, refusal, out),
            Some(Welcome::Welcome { epoch, beat_ms, timeout_ms, .. }) if (self.max_epoch..EPOCH_MAX).contains(&epoch) => {
                let fenced = epoch == self.max_epoch;
                self.alone.answered();
                self.hello_wait_ms = HELLO_WAIT_MS;
                self.beat_ms = beat_ms.clamp(100, 3_600_000);
                if !fenced {
                    // What was told before the fence may have changed by a command of the leader before. Only what is
                    // told from here on is the whole truth for the new one.
                    self.persist(Record::Epoch { epoch, timeout_ms }, out);
                    self.hello(now_ms, 0, out);
                    return;
                }
                if timeout_ms != self.alone.limit_ms() {
                    self.persist(Record::Epoch { epoch, timeout_ms }, out);
                }
                if told < self.told.len() {
                    self.hello(now_ms, told, out);
                } else {
                    self.told.clear();
                    self.standing = Standing::Joined { beat_at_ms: now_ms + self.next_beat_ms(), answer_by_ms: None };
                }
            }
            // Nobody, or one that leads an epoch which this agent has already left behind, or none that there can be.
            _ => self.retry_hello(now_ms),
        }
    }

    fn retry_hello(&mut self, now_ms: u64) {
        self.speaks = PROTOCOL;
        self.standing = Standing::Alone { hello_at_ms: now_ms + self.hello_wait_ms };
        self.hello_wait_ms = (self.hello_wait_ms * 2).min(HELLO_WAIT_MS_MAX);
    }

    /// What the leader has to hear at once does not wait for the next beat.
    fn beat_if_pressed(&mut self, now_ms: u64) {
        if let Standing::Joined { beat_at_ms, .. } = &mut self.standing {
            if self.admission.is_pressed() {
                *beat_at_ms = now_ms;
            }
        }
    }

    fn next_beat_ms(&self) -> u64 {
        if self.admission.is_pressed() {
            return 0;
        }
        if self.ended_unsettled > 0 { self.beat_ms.min(SETTLE_BEAT_MS) } else { self.beat_ms }
    }

    fn on_beaten(&mut self, now_ms: u64, answer: Option<Beaten>, out: &mut Vec<Effect>) {
        let Standing::Joined { .. } = self.standing else { return };
        match answer {
            Some(beaten) if beaten.epoch == self.max_epoch && beaten.known => {
                self.alone.answered();
                self.not_understood = 0;
                self.seen = self.seen.max(beaten.seen.min(self.status_seq));
                self.settle_all(now_ms, out);
                self.standing = Standing::Joined { beat_at_ms: now_ms + self.next_beat_ms(), answer_by_ms: None };
            }
            _ => {
                self.hello_wait_ms = HELLO_WAIT_MS;
                self.speaks = PROTOCOL;
                self.standing = Standing::Alone { hello_at_ms: now_ms };
            }
        }
    }

    fn settle_all(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if self.ended_unsettled == 0 {
            return;
        }
        let seen = self.seen;
        let settled = |entry: &Entry| entry.update.is_final && entry.unstored.is_empty() && entry.update.agent_seq <= seen;
        let done: Vec<TaskId> = self.tasks.iter().filter(|(_, entry)| settled(entry)).map(|(id, _)| id.clone()).collect();
        for task in done {
            self.recent.settled(now_ms, Held { settled: true, ..held(&self.tasks[&task]) });
            self.persist(Record::Settled { task: task.clone() }, out);
            out.push(Effect::Settled { task });
        }
    }

    fn on_command(&mut self, now_ms: u64, command: Command, out: &mut Vec<Effect>) {
        if command.incarnation != self.config.incarnation || self.leaving.is_some() {
            return;
        }
        if command.epoch < self.max_epoch {
            self.refused_stale += 1;
            out.push(Effect::Say(format!("refused a command of epoch {}: epoch {} is obeyed here", command.epoch, self.max_epoch)));
            return;
        }
        if command.epoch > self.max_epoch {
            // A leader commands only whom it has taken in, and whom it takes in obeys its epoch by then.
            self.standing = Standing::Alone { hello_at_ms: now_ms };
            out.push(Effect::Say(format!("refused a command of epoch {}: this agent has not registered under it", command.epoch)));
            return;
        }
        match command.order {
            Order::Launch { launches } => {
                for launch in launches {
                    self.take(now_ms, launch, out);
                }
            }
            Order::Kill { task, grace_ms, reason } => self.kill(now_ms, &task, grace_ms, reason, out),
            Order::Hello => {
                if self.joined() {
                    self.standing = Standing::Alone { hello_at_ms: now_ms };
                }
            }
            Order::Unknown => out.push(Effect::Say("refused an order that a later release knows: run that release here, too".to_owned())),
        }
    }

    fn take(&mut self, now_ms: u64, launch: Launch, out: &mut Vec<Effect>) {
        if launch.launch.epoch > self.max_epoch {
            // Written down it would fence off the launches of the leader that is obeyed.
            out.push(Effect::Say(format!("refused task {}: its launch is of epoch {}, and epoch {} is obeyed here", launch.task, launch.launch.epoch, self.max_epoch)));
            return;
        }
        if let Some(fault) = launch.fault() {
            // Told at the next registration it would have the leader refuse this agent.
            out.push(Effect::Say(format!("refused task {}: {fault}", launch.task)));
            return;
        }
        if self.spawned.contains(launch.launch.epoch, launch.no) {
            // A repeated launch: the leader has not seen the first status. Say the latest one again.
            if let Some(entry) = self.tasks.get(&launch.task).filter(|entry| entry.launch.launch == launch.launch) {
                if entry.unstored.is_empty() && entry.update.seq > 0 {
                    out.push(Effect::Send(Box::new(entry.update.clone())));
                }
            }
            return;
        }
        let task = launch.task.clone();
        if self.tasks.contains_key(&task) {
            out.push(Effect::Say(format!("refused a second launch of task {task}: it is known here")));
            return;
        }
        let is_late = launch.spec.on_unreachable == Some(OnUnreachable::Kill) && self.alone.is_over(now_ms);
        let alone = || ("agent_unreachable", "no leader had answered its agent for too long when its launch arrived".to_owned());
        let why_not = if is_late { Some(alone()) } else { self.admission.why_not(&launch) };
        let fault = launch.spec.fault();
        let cancelled = launch.cancelled;
        self.persist(Record::Launch { launch: Box::new(launch.clone()) }, out);
        if cancelled {
            self.status(now_ms, &task, TaskState::Killed, Some(("killed_before_start", "its end was asked for before it started".to_owned())), out);
        } else if let Some(fault) = fault {
            self.status(now_ms, &task, TaskState::Error, Some(("task_invalid", fault)), out);
        } else if let Some((reason, message)) = why_not {
            self.status(now_ms, &task, TaskState::Dropped, Some((reason, message)), out);
        } else {
            out.push(Effect::Launch(Box::new(launch)));
        }
    }

    fn kill(&mut self, now_ms: u64, task: &TaskId, grace_ms: Option<u64>, reason: String, out: &mut Vec<Effect>) {
        let Some(entry) = self.tasks.get(task) else { return };
        if entry.update.is_final {
            return;
        }
        let grace_ms = grace_ms.or(entry.launch.spec.kill_grace.map(|grace| grace.0)).unwrap_or(KILL_GRACE_MS).min(DURATION_MS_MAX);
        let running = entry.update.state == TaskState::Running;
        match &entry.killing {
            // The same order again: it is under way. A shorter grace is a new order.
            Some((grace, _)) if *grace <= grace_ms && entry.kill_sent => return,
            Some((grace, _)) if *grace <= grace_ms => {
                let grace_ms = *grace;
                return self.pass_kill(task, grace_ms, out);
            }
            _ => {}
        }
        self.persist(Record::Killing { task: task.clone(), grace_ms, reason: reason.clone() }, out);
        if running {
            self.status(now_ms, task, TaskState::Killing, Some((reason.as_str(), format!("it has {} to end", Span(grace_ms)))), out);
        }
        self.pass_kill(task, grace_ms, out);
    }

    fn pass_kill(&mut self, task: &TaskId, grace_ms: u64, out: &mut Vec<Effect>) {
        if let Some(entry) = self.tasks.get_mut(task) {
            entry.kill_sent = true;
            out.push(Effect::Kill { task: task.clone(), grace_ms });
        }
    }

    fn on_started(&mut self, now_ms: u64, task: &TaskId, out: &mut Vec<Effect>) {
        let Some(entry) = self.tasks.get(task) else { return };
        if !entry.update.state.may_become(TaskState::Running) || entry.update.state == TaskState::Unreachable {
            return;
        }
        let killing = entry.killing.clone();
        self.status(now_ms, task, TaskState::Running, None, out);
        if let Some((grace_ms, _)) = killing {
            self.pass_kill(task, grace_ms, out);
        }
    }

    fn on_ended(&mut self, now_ms: u64, task: &TaskId, ending: Ending, usage: Usage, out: &mut Vec<Effect>) {
        let Some(entry) = self.tasks.get(task) else { return };
        if entry.update.is_final {
            return;
        }
        let asked = entry.killing.as_ref().map(|(_, reason)| reason.clone());
        let (state, why, exit, signal) = verdict(&ending, asked, &entry.launch.spec, &self.config.host);
        let mut update = self.make(now_ms, task, state, why);
        update.exit = exit;
        update.signal = signal;
        update.stdout_bytes = usage.stdout_bytes;
        update.stderr_bytes = usage.stderr_bytes;
        update.mem_peak_bytes = usage.mem_peak_bytes;
        update.cpu_ms = usage.cpu_ms;
        self.say(now_ms, update, out);
    }

    fn status(&mut self, now_ms: u64, task: &TaskId, state: TaskState, why: Option<(&str, String)>, out: &mut Vec<Effect>) {
        let why = why.map(|(reason, message)| (reason.to_owned(), message));
        let update = self.make(now_ms, task, state, why);
        self.say(now_ms, update, out);
    }

    fn make(&self, now_ms: u64, task: &TaskId, state: TaskState, why: Option<(String, String)>) -> Update {
        let wall = self.wall(now_ms);
        let entry = &self.tasks[task];
        let mut update = entry.update.clone();
        update.state = state;
        update.is_final = state.is_final();
        update.seq = update.seq.saturating_add(1);
        update.agent_seq = self.status_seq.saturating_add(1);
        (update.reason, update.message) = why.map_or((None, None), |(reason, message)| (Some(reason), Some(message)));
        if state == TaskState::Running {
            update.started_ms = wall.0;
        }
        update.ts_ms = wall.0;
        update.ts = wall.text();
        update
    }

    fn say(&mut self, now_ms: u64, update: Update, out: &mut Vec<Effect>) {
        let task = update.task.clone();
        let ends = update.is_final;
        self.persist(Record::Status { update: Box::new(update) }, out);
        let entry = self.tasks.get_mut(&task).expect("a status is made of a known task");
        if entry.unstored.len() == 1 && self.leaving.is_none() {
            entry.resend_ms = RESEND_MS;
            let at = now_ms + ANSWER_WAIT_MS;
            out.push(Effect::Send(Box::new(entry.unstored[0].clone())));
            self.timers.insert((at, task));
        }
        if ends {
            if let Standing::Joined { beat_at_ms, .. } = &mut self.standing {
                let wait_ms = if self.admission.is_pressed() { 0 } else { SETTLE_BEAT_MS };
                *beat_at_ms = (*beat_at_ms).min(now_ms + wait_ms);
            }
        }
    }

    fn on_stored(&mut self, now_ms: u64, task: &TaskId, seq: u64, ok: bool, out: &mut Vec<Effect>) {
        let Some(entry) = self.tasks.get_mut(task) else { return };
        if entry.unstored.front().is_none_or(|head| head.seq != seq) {
            return;
        }
        self.timers.retain(|(_, id)| id != task);
        if !ok {
            self.timers.insert((now_ms + entry.resend_ms, task.clone()));
            entry.resend_ms = (entry.resend_ms * 2).min(RESEND_MS_MAX);
            return;
        }
        entry.unstored.pop_front();
        entry.resend_ms = RESEND_MS;
        if let Some(next) = entry.unstored.front() {
            out.push(Effect::Send(Box::new(next.clone())));
            self.timers.insert((now_ms + ANSWER_WAIT_MS, task.clone()));
        } else if entry.update.is_final && entry.update.agent_seq <= self.seen {
            self.settle_all(now_ms, out);
        }
    }

    fn on_time(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        for task in std::mem::take(&mut self.unkilled) {
            let wanted = self.tasks.get(&task).filter(|entry| !entry.update.is_final && !entry.kill_sent).and_then(|entry| entry.killing.clone());
            if let Some((grace_ms, _)) = wanted {
                self.pass_kill(&task, grace_ms, out);
            }
        }
        if self.leaving.is_some() {
            return self.leave_when_done(now_ms, out);
        }
        for task in self.alone.take_due(now_ms) {
            self.kill(now_ms, &task, None, "agent_unreachable".to_owned(), out);
        }
        match self.standing {
            Standing::Alone { hello_at_ms } if hello_at_ms <= now_ms => self.hello(now_ms, 0, out),
            Standing::Asking { until_ms, .. } if until_ms <= now_ms => self.retry_hello(now_ms),
            Standing::Joined { answer_by_ms: Some(by), .. } if by <= now_ms => self.standing = Standing::Alone { hello_at_ms: now_ms },
            Standing::Joined { beat_at_ms, answer_by_ms: None } if beat_at_ms <= now_ms => {
                self.standing = Standing::Joined { beat_at_ms, answer_by_ms: Some(now_ms + ANSWER_WAIT_MS) };
                let (lent, closed) = (self.admission.tell_lent(), self.admission.tell_closed());
                self.alone.asked(now_ms);
                out.push(Effect::Beat(Beat { agent: self.config.agent.clone(), incarnation: self.config.incarnation.clone(), epoch: self.max_epoch, status_seq: self.status_seq, lent, closed }));
            }
            _ => {}
        }
        while let Some((at, task)) = self.timers.first().cloned() {
            if at > now_ms {
                break;
            }
            self.timers.remove(&(at, task.clone()));
            if let Some(entry) = self.tasks.get_mut(&task) {
                if let Some(head) = entry.unstored.front() {
                    out.push(Effect::Send(Box::new(head.clone())));
                    entry.resend_ms = (entry.resend_ms * 2).min(RESEND_MS_MAX);
                    self.timers.insert((now_ms + ANSWER_WAIT_MS.max(entry.resend_ms), task));
                }
            }
        }
    }
}

impl Entry {
    fn new(launch: &Launch, config: &Config) -> Self {
        let update = Update {
            meso: UpdateKind::V1,
            task: launch.task.clone(),
            name: launch.spec.name.clone(),
            framework: launch.framework.clone(),
            principal: launch.principal.clone(),
            role: launch.role.clone(),
            agent: Some(config.agent.clone()),
            host: config.host.clone(),
            state: TaskState::Staging,
            is_final: false,
            reason: None,
            message: None,
            exit: None,
            signal: None,
            seq: 0,
            agent_seq: 0,
            launch: Some(launch.launch.clone()),
            resources: launch.resources.clone(),
            command: launch.spec.summary(),
            stdout_bytes: 0,
            stderr_bytes: 0,
            mem_peak_bytes: 0,
            cpu_ms: 0,
            started_ms: 0,
            ts: String::new(),
            ts_ms: 0,
        };
        Entry { launch: launch.clone(), update, unstored: VecDeque::new(), resend_ms: RESEND_MS, killing: None, kill_sent: false, charged: false }
    }
}

fn held(entry: &Entry) -> Held {
    Held { launch: entry.launch.clone(), update: entry.update.clone(), killing: entry.killing.is_some(), killing_reason: entry.killing.as_ref().map(|(_, reason)| reason.clone()), settled: false }
}
