//! The agent as a pure machine: what it takes, runs, reports and remembers.
//!
//! Order of effects: `Persist` before everything that follows from it. Recovery replays the records through
//! [`Agent::recover`] and then feeds what was found on the machine as ordinary container events.

mod admission;
mod alone;
mod entry;
mod event;
mod leaving;
#[cfg(test)]
mod numbers;
mod recent;
pub mod record;
pub mod spawned;
mod standing;
mod statuses;
#[cfg(test)]
mod testagent;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};

use crate::agent::admission::Admission;
use crate::agent::alone::Alone;
use crate::agent::entry::{Entry, held};
use crate::agent::recent::Recent;
use crate::agent::record::{RECORD_VERSION, Record};
use crate::agent::spawned::Spawned;
use crate::agent::standing::Standing;
use crate::duration::DURATION_MS_MAX;
use crate::id::TaskId;
use crate::resources::Resources;
use crate::task::{OnUnreachable, TaskState};
use crate::wire::agent::{Beat, Command, Held, Order};
use crate::wire::{Launch, PROTOCOL, Refusal, Span, Wall};

pub use event::{Config, Effect, Ending, Event, Usage};
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

/// For so long an agent that recovers waits for a leader to take it in before it says what it found, milliseconds: where
/// nobody leads, the bus is told all the same.
pub const QUIET_MS: u64 = 30_000;

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
    /// The leader of its epoch has not taken it in yet.
    is_new_epoch: bool,
    /// Under which epoch somebody said to lead, until a leader welcomes us.
    invited: u64,
    /// Until when it sends nothing, unless it is taken in before.
    quiet_until_ms: Option<u64>,
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
            is_new_epoch: false,
            invited: 0,
            quiet_until_ms: None,
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
            agent.remember(now_ms, &record);
            agent.apply(&record);
        }
        // What was not known to be stored is sent again; a status that was stored is dropped by its message id. Not at once:
        // this may be a copy of the work directory of an agent that runs on, which the leader finds out.
        let quiet_until_ms = now_ms.saturating_add(QUIET_MS);
        agent.quiet_until_ms = Some(quiet_until_ms);
        // The process before may have died before it had told the leader all.
        agent.is_new_epoch = true;
        let unstored: Vec<TaskId> = agent.tasks.iter().filter(|(_, entry)| !entry.unstored.is_empty()).map(|(id, _)| id.clone()).collect();
        agent.timers = unstored.into_iter().map(|id| (quiet_until_ms, id)).collect();
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
        let held = self.tasks.values().map(held).chain(self.recent.all().cloned()).map(|held| Record::Held { held: Box::new(held) });
        [self.head(), all].into_iter().chain(held).collect()
    }

    /// What a record tells of tasks that were settled under the process before; how long ago, nobody knows.
    fn remember(&mut self, now_ms: u64, record: &Record) {
        let settled = match record {
            Record::Settled { task } => self.tasks.get(task).map(|entry| Held { settled: true, ..held(entry) }),
            Record::Held { held } if held.settled => Some((**held).clone()),
            _ => None,
        };
        if let Some(held) = settled {
            self.recent.settled(now_ms, held);
        }
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
            Event::Clock { wall_ms, at_ms } => self.wall_offset_ms = Wall(wall_ms).offset_ms(at_ms),
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
            Record::Held { held } if held.settled => {}
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
