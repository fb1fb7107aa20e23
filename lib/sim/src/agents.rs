//! The outside of an agent: its disk, its processes, its place on the bus.

use std::collections::VecDeque;
use std::rc::Rc;

use meso_core::agent::record::Record;
use meso_core::agent::{Agent, Config, Effect, Event, Usage};
use meso_core::id::{AgentId, Nonce, TaskId};
use meso_core::resources::Resources;
use meso_core::seed::Seed;
use meso_core::task::OnUnreachable;
use meso_core::wire::agent::{Beaten, Command, Order, Welcome};
use meso_core::wire::Launch;

use crate::clients::ClientSite;
use crate::clock::Clock;
use crate::disk::SimDisk;
use crate::judge::law;
use crate::net::{Ask, Msg, Site};
use crate::plan::Older;
use crate::plant::Plant;
use crate::procs::SimProcs;
use crate::tally::Count;
use crate::world::{Item, Waiting, World};

/// After how long a beat without an answer is given up, milliseconds.
const BEAT_GIVE_UP_MS: u64 = 3_000;
/// How long an end on the machine takes to reach the agent's process, at most, milliseconds.
const LOCAL_MS_MAX: u64 = 20;
/// How late a task that is not to run on out of reach may end, beyond its grace, milliseconds.
const UNKEPT_SLACK_MS: u64 = 2_000;
/// An agent crashes between two effects once in so many batches that are written to its disk.
const CRASH_ONCE_IN: u64 = 40;

/// The reason of an end for being out of reach.
pub(crate) const UNREACHABLE: &str = "agent_unreachable";

/// An agent's machine, with or without the agent's process.
#[derive(Debug)]
pub struct AgentSite {
    /// The number of its process; 0 before the first.
    pub run: u64,
    /// The process.
    pub machine: Option<Agent>,
    /// Its id.
    pub id: AgentId,
    /// What it really has.
    pub total: Resources,
    /// What runs.
    pub procs: SimProcs,
    pub(crate) clock: Clock,
    pub(crate) disk: SimDisk,
    /// Its process saw that the disk is full.
    pub(crate) saw_full: bool,
    /// It told a leader that it takes nothing.
    is_closed: bool,
    secret: Option<Nonce>,
    boot: u64,
    refused_stale: u64,
    /// When its latest question was sent, and when the latest that a leader answered; the start of its process before.
    asked_ms: u64,
    answered_ms: u64,
    /// It wrote down after how long it counts as out of reach.
    is_told: bool,
}

impl AgentSite {
    /// A machine on which nothing ever ran.
    pub fn new(which: usize, seed: &mut Seed) -> Self {
        let cpus = 2 + seed.below(7);
        let total = format!("cpus={cpus},mem={},disk=10G,ports=[31000-{}]", cpus * 512, 31000 + seed.below(6));
        AgentSite {
            run: 0,
            machine: None,
            id: AgentId::parse(&format!("agent_{which}")).expect("a plain id"),
            total: meso_core::resources::parse_total(&total).expect("plain resources"),
            procs: SimProcs::default(),
            clock: Clock::some(seed),
            disk: SimDisk::default(),
            saw_full: false,
            is_closed: false,
            secret: None,
            boot: 1,
            refused_stale: 0,
            asked_ms: 0,
            answered_ms: 0,
            is_told: false,
        }
    }

    /// The machine is given out anew, with an empty disk; what still runs there ends by itself.
    pub fn begin_anew(&mut self, id: AgentId) {
        self.machine = None;
        self.run += 1;
        self.id = id;
        self.disk = SimDisk::default();
        self.secret = None;
        self.is_told = false;
    }

    /// When its machine wants to be woken, true time.
    pub fn wants_ms(&self) -> Option<u64> {
        self.machine.as_ref().and_then(Agent::deadline).map(|at_ms| self.clock.true_ms(at_ms))
    }

    /// What keeps it from having come to its end.
    pub fn unsettled(&self) -> Option<String> {
        let Some(machine) = &self.machine else { return Some("does not run".to_owned()) };
        if self.procs.alive() > 0 {
            return Some(format!("runs {} processes", self.procs.alive()));
        }
        if !machine.used().is_empty() {
            return Some(format!("believes that {} are used", machine.used()));
        }
        if !machine.joined() {
            return Some("is not one of the cluster".to_owned());
        }
        machine.live().next().map(|launch| format!("believes that task {} lives", launch.task))
    }
}

impl World {
    pub(crate) fn start_agent(&mut self, which: usize) {
        let site = &mut self.agents[which];
        if site.machine.is_some() {
            return;
        }
        site.run += 1;
        let found = match site.disk.recover() {
            Ok(found) => found,
            Err(why) => return self.judge.fail(law::DURABLE, || format!("agent {which} cannot read its log: {why}")),
        };
        let mut records = found.records;
        for record in &records {
            match record {
                Record::Status { update } => self.judge.found(which, update),
                Record::Killing { task, reason, .. } => {
                    self.judge.kill_ordered(task);
                    if reason == UNREACHABLE && unkept_in(&records, task) {
                        self.judge.unkept(task);
                    }
                }
                Record::Launch { launch } if launch.cancelled => self.judge.kill_ordered(&launch.task),
                _ => {}
            }
        }
        site.is_told = records.iter().any(|record| matches!(record, Record::Epoch { .. } | Record::Snapshot { max_epoch: 1.., .. }));
        (site.asked_ms, site.answered_ms) = (self.now_ms, self.now_ms);
        let (generation, boot_before) = records.iter().rev().find_map(|record| match record {
            Record::Head { generation, boot_id, .. } => Some((*generation, boot_id.clone())),
            _ => None,
        }).unwrap_or((0, String::new()));
        if self.plant == Plant::ForgetEpoch {
            records.retain(|record| !matches!(record, Record::Epoch { .. }));
        }
        let boot_id = format!("boot{}", site.boot);
        let secret = Nonce::fresh(self.seed.draw(), self.seed.draw());
        let mut total = site.total.clone();
        if self.plant.has(Plant::TwiceTheTotal) {
            total.cpus = total.cpus.checked_mul(2).expect("a small number");
            total.mem = total.mem.checked_mul(2).expect("a small number");
        }
        let config = Config {
            agent: site.id.clone(),
            incarnation: Nonce::fresh(self.seed.draw(), self.seed.draw()),
            secret: secret.clone(),
            generation: generation + 1,
            host: format!("host{which}"),
            attrs: Default::default(),
            total,
            boot_id: boot_id.clone(),
            isolation: "processes".to_owned(),
            version: "sim".to_owned(),
            jitter_ms: self.seed.below(1_000),
        };
        let local_ms = site.clock.local_ms(self.now_ms);
        let machine = Agent::recover(config, local_ms, records);
        site.secret = Some(secret);
        (site.saw_full, site.is_closed) = (false, false);
        if found.torn {
            self.tally.add(Count::TornLog);
        }
        if found.zeroed {
            self.tally.add(Count::ZeroedLog);
        }
        if site.disk.is_long() && self.plant != Plant::NoSync && site.disk.renew(&machine.snapshot()) {
            self.judge.rewritten(which);
            self.tally.add(Count::LogRewritten);
        } else if !site.disk.put(&[machine.head()], true) {
            return self.agent_cannot_begin(which);
        }
        site.refused_stale = 0;
        let live: Vec<Launch> = machine.live().cloned().collect();
        site.machine = Some(machine);
        let rebooted = !boot_before.is_empty() && boot_before != boot_id;
        self.story.tell(self.now_ms, || format!("agent {which} starts, generation {}, {} tasks live", generation + 1, live.len()));
        self.look_at_disk_soon(which);
        self.readopt(which, &live, rebooted);
        self.agent_event(which, Event::Tick);
    }

    pub(crate) fn crash_agent(&mut self, which: usize) {
        let site = &mut self.agents[which];
        if site.machine.take().is_none() {
            return;
        }
        site.run += 1;
        site.secret = None;
        site.disk.crash(&mut self.seed);
        self.wires[Site::Agent(which).index()].outbox.clear();
        self.tally.add(Count::AgentCrash);
        self.story.tell(self.now_ms, || format!("agent {which} crashes"));
        let back_ms = 50 + self.seed.below(8_000);
        self.agenda.enter(self.now_ms + back_ms, Item::Start(Site::Agent(which)));
    }

    pub(crate) fn reboot_agent(&mut self, which: usize) {
        self.crash_agent(which);
        self.agents[which].boot += 1;
        self.tally.add(Count::Reboot);
        for task in self.agents[which].procs.reboot(self.now_ms, &mut self.seed) {
            self.judge.lost(&task);
        }
    }

    pub(crate) fn wake_agent(&mut self, which: usize) {
        let site = &self.agents[which];
        let local_ms = site.clock.local_ms(self.now_ms);
        if site.machine.as_ref().and_then(Agent::deadline).is_some_and(|at_ms| at_ms <= local_ms) {
            self.agent_event(which, Event::Tick);
        }
    }

    pub(crate) fn agent_hears(&mut self, which: usize, msg: Msg) {
        match msg {
            Msg::Invite(invitation) => self.agent_event(which, Event::Invitation(invitation)),
            Msg::Stored(update, ok) => self.agent_event(which, Event::Stored { task: update.task.clone(), seq: update.seq, ok }),
            _ => {}
        }
    }

    pub(crate) fn agent_beaten(&mut self, which: usize, beaten: Option<Beaten>) {
        self.agent_event(which, Event::Beaten(beaten));
    }

    pub(crate) fn agent_commanded(&mut self, which: usize, secret: &Nonce, mut command: Command) {
        self.command_read(which, &mut command);
        let site = &self.agents[which];
        let Some(machine) = &site.machine else { return };
        if site.secret.as_ref() != Some(secret) {
            self.tally.add(Count::FormerCommand);
            // The subject is another one now; now and then the message gets through all the same.
            if self.seed.below(2) == 0 {
                return;
            }
        }
        let epoch = command.epoch;
        if self.plant.has(Plant::NoFence) {
            command.epoch = command.epoch.max(machine.max_epoch());
        }
        let repeated: Vec<Launch> = match &command.order {
            Order::Launch { launches } => launches.clone(),
            _ => Vec::new(),
        };
        let ordered = !matches!(command.order, Order::Hello);
        let local_ms = site.clock.local_ms(self.now_ms);
        self.step(which as u64);
        let site = &mut self.agents[which];
        let Some(machine) = site.machine.as_mut() else { return };
        let effects = machine.step(local_ms, Event::Command(command));
        if machine.refused_stale > site.refused_stale {
            site.refused_stale = machine.refused_stale;
            self.tally.add(Count::StaleCommand);
        }
        let obeyed = effects.iter().any(|effect| matches!(effect, Effect::Persist(Record::Launch { .. } | Record::Killing { .. }) | Effect::Launch(_) | Effect::Kill { .. }));
        if ordered && obeyed {
            self.judge.obeyed(which, epoch);
        }
        for launch in repeated {
            if effects.iter().any(|effect| matches!(effect, Effect::Persist(Record::Launch { launch: taken }) if taken.launch == launch.launch)) {
                continue;
            }
            self.tally.add(Count::RepeatedLaunch);
            if self.plant == Plant::SpawnRepeated && self.agents[which].machine.as_ref().is_some_and(|machine| machine.launch_of(&launch.task).is_some()) {
                self.spawn(which, &launch);
            }
        }
        self.perform_agent(which, effects);
    }

    /// Feeds an event to an agent and performs what comes of it.
    pub(crate) fn agent_event(&mut self, which: usize, mut event: Event) {
        match &mut event {
            Event::Welcome(Some(welcome)) => {
                self.welcome_read(which, welcome);
                if let (Plant::AloneRunsOn, Welcome::Welcome { timeout_ms, .. }) = (self.plant, welcome) {
                    *timeout_ms = None;
                }
                self.agents[which].answered_ms = self.agents[which].asked_ms;
            }
            Event::Beaten(Some(beaten)) if beaten.known => self.agents[which].answered_ms = self.agents[which].asked_ms,
            _ => {}
        }
        let local_ms = self.agents[which].clock.local_ms(self.now_ms);
        self.step(which as u64);
        let Some(machine) = self.agents[which].machine.as_mut() else { return };
        let obeyed = machine.max_epoch();
        let welcomed = matches!(event, Event::Welcome(_));
        let effects = machine.step(local_ms, event);
        if welcomed && machine.max_epoch() > obeyed {
            self.tally.add(Count::FencedFirst);
        }
        if effects.iter().any(|effect| matches!(effect, Effect::Persist(Record::Killing { reason, .. }) if reason == UNREACHABLE)) {
            self.tally.add(Count::EndedAlone);
        }
        self.perform_agent(which, effects);
    }

    fn perform_agent(&mut self, which: usize, mut effects: Vec<Effect>) {
        if let Some(machine) = &self.agents[which].machine {
            self.judge.fence(which, machine.max_epoch());
        }
        match self.plant {
            Plant::SpawnBeforePersist => effects.sort_by_key(|effect| !matches!(effect, Effect::Launch(_))),
            Plant::SendBeforePersist => effects.sort_by_key(|effect| !matches!(effect, Effect::Send(_))),
            _ => {}
        }
        let mut unwritten: VecDeque<Record> = effects.iter().filter_map(|effect| if let Effect::Persist(record) = effect { Some(record.clone()) } else { None }).collect();
        let mut count = 0;
        let crash_at = if self.plan.faults.agent_crash && effects.iter().any(|effect| matches!(effect, Effect::Persist(_))) && self.chance(CRASH_ONCE_IN) {
            self.tally.add(Count::CrashBetweenEffects);
            Some(self.seed.below(effects.len() as u64 + 1))
        } else {
            None
        };
        for (place, effect) in effects.into_iter().enumerate() {
            if crash_at == Some(place as u64) {
                let batch: Vec<Record> = unwritten.drain(..count.min(unwritten.len())).collect();
                if !batch.is_empty() {
                    self.tally.add(Count::CrashInWrite);
                    self.agents[which].disk.append(&batch);
                }
                return self.crash_agent(which);
            }
            if matches!(effect, Effect::Persist(_)) {
                count += 1;
                continue;
            }
            if !self.write(which, &mut unwritten, std::mem::take(&mut count)) {
                return self.agent_gives_up(which);
            }
            self.perform_agent_effect(which, effect);
        }
        if !self.write(which, &mut unwritten, count) {
            return self.agent_gives_up(which);
        }
        self.schedule(Site::Agent(which));
    }

    /// Writes down the next so many facts that an agent must not forget; false if the disk refuses them. Where the log is
    /// begun anew it holds the later ones as well: the machine knows them already.
    fn write(&mut self, which: usize, unwritten: &mut VecDeque<Record>, count: usize) -> bool {
        let site = &mut self.agents[which];
        let mut batch: Vec<Record> = unwritten.drain(..count.min(unwritten.len())).collect();
        if batch.is_empty() {
            return true;
        }
        if !site.disk.put(&batch, self.plant != Plant::NoSync) {
            if self.plant == Plant::FullIgnored {
                return true;
            }
            if !site.machine.as_ref().is_some_and(|machine| site.disk.renew(&machine.snapshot())) {
                return false;
            }
            batch.extend(unwritten.drain(..));
            self.judge.rewritten(which);
            self.tally.add(Count::LogAbandoned);
        }
        for record in batch {
            match record {
                Record::Status { update } => self.judge.written(which, &update),
                Record::Killing { task, reason, .. } => {
                    self.judge.kill_ordered(&task);
                    let site = &self.agents[which];
                    let launch = site.machine.as_ref().and_then(|machine| machine.launch_of(&task));
                    if reason == UNREACHABLE && launch.is_some_and(is_unkept) {
                        self.judge.unkept(&task);
                    }
                }
                Record::Epoch { epoch, .. } => {
                    self.agents[which].is_told = true;
                    self.judge.obeyed(which, epoch);
                }
                Record::Launch { launch } if launch.cancelled => {
                    self.judge.kill_ordered(&launch.task);
                    self.tally.add(Count::KilledBeforeStart);
                }
                _ => {}
            }
        }
        true
    }

    fn perform_agent_effect(&mut self, which: usize, effect: Effect) {
        let run = self.agents[which].run;
        let here = Site::Agent(which);
        match effect {
            Effect::Persist(_) => {}
            Effect::Hello(mut hello) => {
                if self.plant == Plant::HelloWithoutTasks {
                    hello.tasks.clear();
                }
                if self.plant == Plant::TwiceTheBooksAdmitted {
                    hello.total = self.agents[which].total.clone();
                }
                self.hello_sent(which, &mut hello);
                self.agents[which].asked_ms = self.now_ms;
                self.story.tell(self.now_ms, || format!("agent {which} registers with {} tasks, epoch {}", hello.tasks.len(), hello.max_epoch));
                let give_up_ms = self.plan.agent_request_ms;
                self.ask(here, Waiting::Hello(which, run), Ask::Hello(hello), give_up_ms);
            }
            Effect::Beat(beat) => {
                let was_closed = std::mem::replace(&mut self.agents[which].is_closed, beat.closed.is_some());
                match (was_closed, beat.closed.is_some()) {
                    (false, true) => self.tally.add(Count::DiskClosed),
                    (true, false) => self.tally.add(Count::DiskReopened),
                    _ => {}
                }
                self.agents[which].asked_ms = self.now_ms;
                self.ask(here, Waiting::Beat(which, run), Ask::Beat(beat), BEAT_GIVE_UP_MS);
            }
            Effect::Send(update) => {
                self.judge.sent(which, &update);
                self.story.tell(self.now_ms, || format!("agent {which} says {} of {} ({})", update.state, update.task, update.seq));
                match update.reason.as_deref() {
                    Some("agent_full") => self.refused_full += 1,
                    Some("agent_disk") => self.tally.add(Count::DiskRefused),
                    _ => {}
                }
                if self.plant == Plant::AckBeforeStored {
                    let event = Event::Stored { task: update.task.clone(), seq: update.seq, ok: true };
                    self.agenda.enter(self.now_ms, Item::Local(which, run, Box::new(event)));
                }
                self.send(here, Site::Bus, Msg::Store(Rc::new(*update)));
            }
            Effect::Launch(launch) => {
                self.story.tell(self.now_ms, || format!("agent {which} spawns {} ({})", launch.task, launch.resources));
                self.spawn(which, &launch);
            }
            Effect::Kill { task, grace_ms } => self.kill_proc(which, &task, grace_ms),
            Effect::Settled { task } => self.agents[which].procs.forget(&task),
            Effect::Say(text) => self.story.tell(self.now_ms, || format!("agent {which}: {text}")),
            Effect::Leave(refusal) => self.agent_leaves(which, &refusal),
        }
    }

    fn spawn(&mut self, which: usize, launch: &Launch) {
        if self.is_not_made(which, launch) {
            return;
        }
        self.judge.spawn(which, launch);
        let site = &mut self.agents[which];
        match site.procs.spawn(launch, self.now_ms, &mut self.seed) {
            Ok(times) => {
                let boot = site.boot;
                if !site.total.contains(site.procs.used()) {
                    let (used, total) = (site.procs.used().clone(), site.total.clone());
                    return self.judge.fail(law::ROOM, || format!("agent {which} runs {used} and has {total}"));
                }
                if times.is_reused {
                    self.tally.add(Count::NumberReused);
                }
                if let Some(starts_ms) = times.starts_ms {
                    self.agenda.enter(starts_ms, Item::ProcStarts(which, boot, launch.task.clone()));
                }
                self.agenda.enter(times.ends_ms, Item::ProcEnds(which, boot, launch.task.clone()));
            }
            Err(why) => self.judge.fail(law::ROOM, || format!("agent {which}: {why}")),
        }
    }

    pub(crate) fn kill_proc(&mut self, which: usize, task: &TaskId, grace_ms: u64) {
        // Whether a member's task may end is judged where its end is ordered.
        let spared = self.judge.client_of(task).and_then(|client| self.clients.get(client)).is_some_and(ClientSite::lives);
        if spared && !self.judge.may_end(task) && !self.judge.is_declared(&self.agents[which].id) {
            self.judge.fail(law::LIVES, || format!("agent {which} ends task {task}, whose framework lives and did not ask for it"));
        }
        self.signalled(which, task);
        let site = &mut self.agents[which];
        if let Some((ends_ms, ignored)) = site.procs.kill(task, grace_ms, self.now_ms, &mut self.seed) {
            if ignored {
                self.tally.add(Count::TermIgnored);
            }
            let boot = site.boot;
            self.agenda.enter(ends_ms, Item::ProcEnds(which, boot, task.clone()));
        }
    }

    pub(crate) fn proc_starts(&mut self, which: usize, boot: u64, task: TaskId) {
        let site = &mut self.agents[which];
        if site.boot == boot && site.procs.start(&task) {
            let at_ms = self.now_ms + self.seed.below(LOCAL_MS_MAX);
            let run = self.agents[which].run;
            self.agenda.enter(at_ms, Item::Local(which, run, Box::new(Event::Started { task })));
        }
    }

    pub(crate) fn proc_ends(&mut self, which: usize, boot: u64, task: TaskId) {
        let site = &mut self.agents[which];
        if site.boot != boot {
            return;
        }
        if let Some(ending) = site.procs.end(&task, self.now_ms) {
            self.judge_unkept(which, &task);
            self.judge.ended(&task, ending.clone());
            self.story.tell(self.now_ms, || format!("agent {which}: {task} ends, {ending:?}"));
            let at_ms = self.now_ms + self.seed.below(LOCAL_MS_MAX);
            let run = self.agents[which].run;
            let event = Event::Ended { task, ending, usage: Usage::default() };
            self.agenda.enter(at_ms, Item::Local(which, run, Box::new(event)));
            self.number_is_free(which);
        }
    }

    /// A task that is not to run on out of reach ended: not much later than when its agent, which was there all the time,
    /// had been alone for too long.
    fn judge_unkept(&mut self, which: usize, task: &TaskId) {
        let site = &self.agents[which];
        let Some(launch) = site.machine.as_ref().and_then(|machine| machine.launch_of(task)).filter(|launch| is_unkept(launch)) else { return };
        let due_ms = site.answered_ms + self.plan.agent_timeout_ms;
        let grace_ms = launch.spec.kill_grace.map_or(meso_core::agent::KILL_GRACE_MS, |grace| grace.0);
        let was_frozen = self.frozen_ms[Site::Agent(which).index()] >= due_ms;
        // A master of the release before does not say for how long.
        let applies = site.is_told && !was_frozen && self.plan.older.masters == 0 && !Older::has(self.plan.older.agents, which);
        if applies && self.now_ms > due_ms + grace_ms + UNKEPT_SLACK_MS {
            let late_ms = self.now_ms - due_ms;
            self.judge.fail(law::UNKEPT, || format!("task {task} ran on for {late_ms} ms on agent {which}, which was out of reach for too long"));
        }
    }
}

/// Whether a task is not to run on out of reach.
fn is_unkept(launch: &Launch) -> bool {
    launch.spec.on_unreachable == Some(OnUnreachable::Kill)
}

fn unkept_in(records: &[Record], task: &TaskId) -> bool {
    records.iter().any(|record| match record {
        Record::Launch { launch } => launch.task == *task && is_unkept(launch),
        Record::Held { held } => held.launch.task == *task && is_unkept(&held.launch),
        _ => false,
    })
}
