//! Pipelines: a head that begins a session, a filter, and tails that join it; each a process that can be killed alone.

use std::collections::VecDeque;

use meso_core::id::{FrameworkId, Name, Principal, TaskId};
use meso_core::launcher::Launcher;
use meso_core::offerer::Offerer;
use meso_core::seed::Seed;
use meso_core::wire::call::{Answer, Call};
use meso_core::wire::query::{Query, Table};

use crate::clients::FAILOVER_MS;
use crate::clock::Clock;
use crate::filter::{Filter, FilterLine};
use crate::judge::law;
use crate::masters::MasterSite;
use crate::net::{Ask, SEATS, Site};
use crate::plant::Plant;
use crate::stream::Mark;
use crate::tally::Count;
use crate::world::{Item, Waiting, World};

/// The number under which the judge knows the first member.
pub const MEMBERS_FROM: usize = 100;
/// After how long a call of a member without an answer is given up, milliseconds.
pub(crate) const CALL_GIVE_UP_MS: u64 = 2_000;
/// How long after the faults everybody is back, milliseconds.
const SETTLED_MS: u64 = 60_000;
/// After how long a framework without members is gone: a session's time, and what the ends of its tasks take, milliseconds.
const LEFT_OVER_MS: u64 = 15_000 + 20_000;

/// What a member waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Its machine's call of this number.
    Call(u64),
    /// What an offer is.
    Look,
    /// Which tasks live.
    Snapshot,
    /// Nothing: an acknowledgement is a tool of its own.
    Ack,
}

/// What a process of a pipeline is.
#[derive(Debug)]
pub enum Process {
    /// It does not run, or not any more.
    None,
    /// A head.
    Head(Box<Offerer>),
    /// A tail that has not read an offer yet.
    Reads,
    /// A tail that has joined.
    Tail(Box<Launcher>),
}

/// A process of a pipeline and what it knows of the bus.
#[derive(Debug)]
pub struct Member {
    /// The number of its process.
    pub run: u64,
    /// What it is now.
    pub process: Process,
    /// The framework whose statuses and pushes it follows.
    pub framework: Option<FrameworkId>,
    /// When a call of it last reached a leader: which, and when.
    pub heard: Option<(usize, u64, u64)>,
    /// Its tasks may be ended and its jobs may fail from now on.
    pub excused: bool,
    pub(crate) clock: Clock,
    /// Its place in the record of its framework.
    pub(crate) place: usize,
    pub(crate) last: Option<Mark>,
    pub(crate) follows: bool,
    pub(crate) reading: bool,
    /// The offer that it asks about.
    /// Answers to questions on their way into the lines of a head: they have no place in the order of the record.
    pub(crate) known: VecDeque<(TaskId, u64)>,
    pub(crate) looks: Option<meso_core::id::OfferId>,
    pub(crate) at_end: bool,
    pub(crate) jobs: VecDeque<u64>,
    pub(crate) given: u64,
    pub(crate) open: u64,
    pub(crate) leaving: bool,
    /// It has launched something.
    pub(crate) launched: bool,
}

impl Member {
    fn new(seed: &mut Seed) -> Self {
        Member {
            run: 0,
            process: Process::None,
            framework: None,
            heard: None,
            excused: false,
            clock: Clock::some(seed),
            place: 0,
            last: None,
            follows: false,
            reading: false,
            known: VecDeque::new(),
            looks: None,
            at_end: false,
            jobs: VecDeque::new(),
            given: 0,
            open: 0,
            leaving: false,
            launched: false,
        }
    }

    /// Whether its process runs.
    pub fn lives(&self) -> bool {
        !matches!(self.process, Process::None)
    }

    /// When its machine wants to be woken, true time.
    pub fn wants_ms(&self) -> Option<u64> {
        let at_ms = match &self.process {
            Process::Head(machine) => machine.deadline(),
            Process::Tail(machine) => machine.deadline(),
            Process::None | Process::Reads => None,
        };
        at_ms.map(|at_ms| self.clock.true_ms(at_ms))
    }
}

/// A pipeline.
#[derive(Debug)]
pub struct Pipe {
    /// As whom it speaks; pipelines of one name are of one principal.
    pub principal: Principal,
    /// The durable name of its framework.
    pub name: Option<Name>,
    pub(crate) takeover: bool,
    pub(crate) standby: bool,
    pub(crate) manual_acks: bool,
    /// How many tails it has.
    pub tails: usize,
    pub(crate) filter: Filter,
    pub(crate) blocked: bool,
    pub(crate) started: bool,
    /// Its processes are killed at this time, if they still run.
    pub(crate) doom_ms: Option<u64>,
    /// When the last of its processes ended.
    pub(crate) gone_ms: Option<u64>,
    /// The frameworks that it spoke for.
    pub(crate) frameworks: Vec<FrameworkId>,
}

impl Pipe {
    /// A pipeline that has not begun: the first of its group, or the one that comes second to its name.
    pub fn new(group: usize, is_second: bool, name: Option<Name>, seed: &mut Seed) -> Self {
        let tails = 1 + seed.below(2) as usize;
        let takeover = is_second && seed.below(2) == 0;
        Pipe {
            principal: Principal::parse(&format!("q{group}")).expect("a plain name"),
            name,
            takeover,
            standby: is_second && !takeover,
            manual_acks: seed.below(2) == 0,
            tails,
            filter: Filter::new(tails, seed),
            blocked: false,
            started: false,
            doom_ms: None,
            gone_ms: None,
            frameworks: Vec::new(),
        }
    }

    /// The pipelines of a run, two for each name, and their members.
    pub fn all(groups: usize, seed: &mut Seed) -> (Vec<Pipe>, Vec<Member>) {
        let mut pipes = Vec::new();
        for group in 0..groups {
            let name = (seed.below(2) == 0).then(|| Name::parse(&format!("pipe{group}")).expect("a plain name"));
            pipes.push(Pipe::new(group, false, name.clone(), seed));
            if name.is_some() {
                pipes.push(Pipe::new(group, true, name, seed));
            }
        }
        let members = (0..pipes.len() * SEATS).map(|_| Member::new(seed)).collect();
        (pipes, members)
    }
}

/// The member in a seat of a pipeline; the head has the first.
pub fn seat(pipe: usize, seat: usize) -> usize {
    pipe * SEATS + seat
}

/// The pipeline of a member.
pub fn pipe_of(member: usize) -> usize {
    member / SEATS
}

impl World {
    pub(crate) fn begin_pipes(&mut self) {
        for pipe in 0..self.pipes.len() {
            let is_second = self.pipes[pipe].takeover || self.pipes[pipe].standby;
            let at_ms = if is_second { 5_000 + self.seed.below(self.plan.chaos_ms) } else { self.seed.below(8_000) };
            self.agenda.enter(at_ms, Item::Start(Site::Member(seat(pipe, 0))));
        }
    }

    /// Starts a whole pipeline, as a shell does.
    pub(crate) fn start_pipe(&mut self, pipe: usize) {
        self.pipes[pipe].started = true;
        for tail in 1..=self.pipes[pipe].tails {
            let member = seat(pipe, tail);
            let jobs = 1 + self.seed.below(4);
            let chaos_ms = self.plan.chaos_ms;
            for _ in 0..jobs {
                let wait_ms = if self.seed.below(2) == 0 { 0 } else { self.seed.below(chaos_ms) };
                self.members[member].jobs.push_back(wait_ms);
            }
            self.members[member].run += 1;
            self.members[member].process = Process::Reads;
        }
        if self.plan.faults.pipe_kill && self.seed.below(4) == 0 {
            let at_ms = self.plan.chaos_ms + SETTLED_MS + self.seed.below(20_000);
            self.pipes[pipe].doom_ms = Some(at_ms);
            self.agenda.enter(at_ms, Item::Doom(pipe));
            // Work that keeps it alive until then.
            self.members[seat(pipe, 1)].jobs.push_back((at_ms + 10_000).saturating_sub(self.now_ms));
        }
        self.story.tell(self.now_ms, || format!("pipe {pipe} starts, {:?}", self.pipes[pipe].name));
        self.start_head(pipe);
    }

    pub(crate) fn doom(&mut self, pipe: usize) {
        for place in 0..SEATS {
            self.kill_member(seat(pipe, place));
        }
        self.end_filter(pipe);
    }

    /// `kill -9` of one process of a pipeline.
    pub(crate) fn kill_member(&mut self, member: usize) {
        if self.members[member].lives() {
            self.tally.add(Count::MemberKilled);
            self.story.tell(self.now_ms, || format!("member {member} is killed"));
            self.wires[Site::Member(member).index()].outbox.clear();
            self.end_member(member);
        }
    }

    /// A process of a pipeline is no more; its neighbours notice by their pipes.
    pub(crate) fn end_member(&mut self, member: usize) {
        let pipe = pipe_of(member);
        let site = &mut self.members[member];
        site.run += 1;
        site.process = Process::None;
        site.excused = true;
        self.story.tell(self.now_ms, || format!("member {member} has ended"));
        if member == seat(pipe, 0) {
            self.sessions.reader_gone(pipe);
            self.pipes[pipe].filter.at_end = true;
            self.move_filter(pipe);
        } else {
            self.pipes[pipe].filter.outputs[member % SEATS - 1].clear();
        }
        if (0..SEATS).all(|place| !self.members[seat(pipe, place)].lives()) {
            self.pipes[pipe].gone_ms = Some(self.now_ms);
        }
    }

    fn tails_live(&self, pipe: usize) -> bool {
        (1..SEATS).any(|tail| self.members[seat(pipe, tail)].lives())
    }

    /// The filter is no more: its writer has nobody who reads, its readers come to their end.
    pub(crate) fn end_filter(&mut self, pipe: usize) {
        if !self.pipes[pipe].filter.alive {
            return;
        }
        self.pipes[pipe].filter.alive = false;
        self.story.tell(self.now_ms, || format!("the filter of pipe {pipe} has ended"));
        self.sessions.reader_gone(pipe);
        for tail in 1..SEATS {
            self.tail_reads_soon(seat(pipe, tail));
        }
        self.head_reader_gone(pipe);
    }

    /// Enters the next move of the filter, if there is something to do.
    pub(crate) fn move_filter(&mut self, pipe: usize) {
        let filter = &mut self.pipes[pipe].filter;
        if filter.alive && !filter.moving && (!filter.input.is_empty() || filter.at_end) {
            filter.moving = true;
            let wait_ms = filter.works_ms(&mut self.seed, self.calm);
            self.agenda.enter(self.now_ms + wait_ms, Item::Filter(pipe));
        }
    }

    pub(crate) fn filter_moves(&mut self, pipe: usize) {
        self.pipes[pipe].filter.moving = false;
        if !self.pipes[pipe].filter.alive {
            return;
        }
        if !self.pipes[pipe].filter.is_held_up() || !self.tails_live(pipe) {
            match self.pipes[pipe].filter.input.pop_front() {
                None if self.pipes[pipe].filter.at_end => return self.end_filter(pipe),
                None => return,
                Some(FilterLine::Other) => {}
                // It may be told apart from the status itself by nobody; in its place in the order it has no part.
                Some(FilterLine::Known(ack)) if !self.pipes[pipe].manual_acks => self.sessions.acked(pipe, &ack),
                Some(FilterLine::Known(_)) => {}
                Some(FilterLine::Status(ack, again)) => self.reader_told(pipe, ack, again),
                Some(FilterLine::Offer(offer)) => {
                    let out = self.pipes[pipe].filter.judge(offer, &mut self.seed, self.calm);
                    if out.is_empty() {
                        self.tally.add(Count::LineDropped);
                    } else if !self.tails_live(pipe) {
                        // Nobody reads what it writes.
                        return self.end_filter(pipe);
                    }
                    for offer in out {
                        let readers = (0..self.pipes[pipe].tails).filter(|reader| self.members[seat(pipe, reader + 1)].lives()).collect();
                        for reader in self.pipes[pipe].filter.pass(&offer, readers) {
                            self.tail_reads_soon(seat(pipe, reader + 1));
                        }
                    }
                }
            }
            self.head_has_room(pipe);
        }
        self.move_filter(pipe);
    }

    /// The reader is told a status: it acknowledges most of them, by a tool of its own where that is asked for.
    fn reader_told(&mut self, pipe: usize, ack: meso_core::wire::ack::AckId, again: bool) {
        if again {
            self.tally.add(Count::StatusResent);
        }
        if let Err(why) = self.sessions.told(pipe, &ack, self.now_ms) {
            self.judge.fail(law::STATUSES, || format!("pipe {pipe}: {why}"));
        }
        if !self.pipes[pipe].manual_acks {
            return self.sessions.acked(pipe, &ack);
        }
        if self.seed.below(3) > 0 {
            self.sessions.acked(pipe, &ack);
            self.tally.add(Count::StatusAcked);
            self.member_asks(seat(pipe, 0), Said::Ack, Call::Ack { acks: vec![ack] });
        }
    }

    pub(crate) fn member_asks(&mut self, member: usize, said: Said, call: Call) {
        if !matches!(call, Call::Beat { .. }) {
            self.story.tell(self.now_ms, || format!("member {member} calls {said:?}: {}", crate::clients::shown(&call)));
        }
        let principal = self.pipes[pipe_of(member)].principal.clone();
        let run = self.members[member].run;
        self.sessions.asks(self.next_caller(), member, &call);
        self.ask(Site::Member(member), Waiting::Member(member, run, said), Ask::Call(principal, Box::new(call)), CALL_GIVE_UP_MS);
    }

    pub(crate) fn member_asks_tasks(&mut self, member: usize) {
        let principal = self.pipes[pipe_of(member)].principal.clone();
        let run = self.members[member].run;
        let query = Query { of: Table::Tasks, from: String::new(), prefix: String::new(), ask: None };
        self.ask(Site::Member(member), Waiting::Member(member, run, Said::Snapshot), Ask::Query(principal, query), CALL_GIVE_UP_MS);
    }

    pub(crate) fn member_answered(&mut self, member: usize, said: Said, answer: Option<Answer>) {
        match (said, &self.members[member].process) {
            (Said::Call(no), Process::Head(_)) => self.head_event(member, meso_core::offerer::Event::Answer { no, answer }),
            (Said::Call(no), Process::Tail(_)) => self.tail_event(member, meso_core::launcher::Event::Answer { no, answer }),
            (Said::Look, Process::Reads | Process::Tail(_)) => self.tail_sees(member, answer),
            (Said::Snapshot, Process::Head(_)) => {
                let run = self.members[member].run;
                self.agenda.enter(self.now_ms + 1_000, Item::AskTasks(member, run));
            }
            _ => {}
        }
    }

    pub(crate) fn wake_member(&mut self, member: usize) {
        let site = &self.members[member];
        let local_ms = site.clock.local_ms(self.now_ms);
        match &site.process {
            Process::Head(machine) if machine.deadline().is_some_and(|at_ms| at_ms <= local_ms) => {
                let unread = Some(self.pipes[pipe_of(member)].filter.unread());
                self.head_event(member, meso_core::offerer::Event::Tick { unread });
            }
            Process::Tail(machine) if machine.deadline().is_some_and(|at_ms| at_ms <= local_ms) => self.tail_event(member, meso_core::launcher::Event::Tick),
            _ => {}
        }
    }

    pub(crate) fn member_hears(&mut self, member: usize, msg: crate::net::Msg) {
        use crate::net::Msg;
        match (msg, &self.members[member].process) {
            (Msg::Push(framework, push), Process::Head(_)) if self.members[member].framework.as_ref() == Some(&framework) => {
                self.head_event(member, meso_core::offerer::Event::Push(*push));
            }
            (Msg::Push(framework, push), Process::Tail(_)) if self.members[member].framework.as_ref() == Some(&framework) => {
                self.tail_event(member, meso_core::launcher::Event::Push(*push));
            }
            (Msg::Live(update), Process::Tail(_)) => self.tail_event(member, meso_core::launcher::Event::Update(Box::new((*update).clone()))),
            _ => {}
        }
    }

    /// Something was recorded for the member, or its connection is back: it reads on soon.
    pub(crate) fn member_reads_soon(&mut self, member: usize) {
        let site = &mut self.members[member];
        if site.follows && !site.reading && site.lives() {
            site.reading = true;
            let run = site.run;
            let at_ms = self.now_ms + self.delay_ms();
            self.agenda.enter(at_ms, Item::MemberReads(member, run));
        }
    }

    pub(crate) fn member_reads(&mut self, member: usize, run: u64) {
        let whole = self.wires[Site::Member(member).index()].is_whole();
        let site = &mut self.members[member];
        if site.run != run {
            return;
        }
        site.reading = false;
        if !whole {
            return;
        }
        let Some(framework) = site.framework.clone() else { return };
        let place = self.stream.resume(&framework, site.place, site.last);
        let is_other = place != site.place;
        let news: Vec<_> = self.stream.after(&framework, place).to_vec();
        let from = place as u64;
        site.place = place + news.len();
        site.last = self.stream.mark(&framework, site.place);
        if is_other {
            self.tally.add(Count::StreamReset);
            if matches!(self.members[member].process, Process::Tail(_)) {
                self.tail_event(member, meso_core::launcher::Event::Gap);
            }
        }
        for (place, update) in news.iter().enumerate() {
            match &self.members[member].process {
                Process::Head(_) => {
                    let seq = from + place as u64 + 1;
                    self.story.tell(self.now_ms, || format!("member {member} reads {} of {} ({}) in place {seq}", update.state, update.task, update.seq));
                    let place = self.stream.place(&framework, seq as usize);
                    let status = meso_core::offerer::Event::Status { update: Box::new((**update).clone()), place };
                    self.head_event(member, status);
                }
                Process::Tail(_) => self.tail_event(member, meso_core::launcher::Event::Update(Box::new((**update).clone()))),
                Process::None | Process::Reads => {}
            }
        }
    }

    pub(crate) fn member_back(&mut self, member: usize) {
        self.member_reads_soon(member);
        if matches!(self.members[member].process, Process::Tail(_)) {
            self.tail_event(member, meso_core::launcher::Event::Gap);
        }
    }

    /// A leader hears of a member; after too long a silence it has taken it as gone.
    pub(crate) fn heard_member(&mut self, which: usize, member: usize) {
        let silent_ms = self.member_silence(which, member);
        if silent_ms >= crate::leading::SESSION_MS {
            self.members[member].excused = true;
        }
        self.members[member].heard = Some((which, self.masters[which].run, self.now_ms));
    }

    pub(crate) fn member_silence(&self, which: usize, member: usize) -> u64 {
        let site = &self.masters[which];
        let heard_ms = match self.members[member].heard {
            Some((master, run, at_ms)) if (master, run) == (which, site.run) => at_ms.max(site.since_ms),
            _ => site.since_ms,
        };
        self.by_its_clock(which, self.now_ms - heard_ms)
    }

    /// A task of a pipeline ends because its framework is gone: nobody of those who could speak for it may have spoken lately.
    pub(crate) fn judge_member_lapse(&mut self, which: usize, task: &TaskId, member: usize) {
        let pipe = pipe_of(member);
        if self.pipes[pipe].name.is_some() && !self.plan.faults.forget() {
            let name = self.pipes[pipe].name.clone();
            let speaks = |other: &usize| self.pipes[pipe_of(*other)].name == name && self.members[*other].heard.is_some();
            let silent_ms = (0..self.members.len()).filter(speaks).map(|other| self.member_silence(which, other)).min().unwrap_or(u64::MAX);
            if silent_ms < FAILOVER_MS {
                self.judge.fail(law::LIVES, || format!("master {which} ends task {task} of a named framework, of which it heard {silent_ms} ms ago"));
            }
            return;
        }
        let site = &self.members[member];
        if site.lives() && !site.excused && !site.leaving {
            let silent_ms = self.member_silence(which, member);
            if silent_ms < crate::leading::SESSION_MS {
                self.judge.fail(law::LIVES, || format!("master {which} ends task {task} of member {member}, of which it heard {silent_ms} ms ago"));
            } else {
                self.members[member].excused = true;
            }
        }
    }

    /// What the leader must hold of pipelines that are gone, and of statuses that nobody acknowledged.
    pub(crate) fn check_pipes(&mut self) {
        let settled_ms = self.plan.chaos_ms + SETTLED_MS;
        for pipe in 0..self.pipes.len() {
            if self.pipes[pipe].filter.alive && self.now_ms > settled_ms && self.pipes[pipe].manual_acks {
                if let Err(why) = self.sessions.told_again(pipe, settled_ms, self.now_ms) {
                    self.judge.fail(law::STATUSES, || format!("pipe {pipe}: {why}"));
                }
            }
            let here = &self.pipes[pipe];
            let Some(lead) = self.masters.iter().find(|master| master.listens()).and_then(|master| master.machine.lead()) else { continue };
            // Whoever shares its name speaks for its framework as well.
            let kin = |(other, it): &(usize, &Pipe)| *other == pipe || (it.name.is_some() && it.name == here.name && it.started);
            let gone: Option<Vec<u64>> = self.pipes.iter().enumerate().filter(kin).map(|(_, it)| it.gone_ms).collect();
            let Some(gone_ms) = gone.and_then(|gone| gone.into_iter().max()) else { continue };
            if self.now_ms < gone_ms.max(settled_ms) + LEFT_OVER_MS {
                continue;
            }
            for framework in &here.frameworks {
                let Some(entry) = lead.frameworks().get(framework) else { continue };
                if entry.is_connected() || (here.name.is_none() && entry.name.is_none()) {
                    let since_ms = self.now_ms - gone_ms;
                    let held = entry.tasks.len();
                    self.judge.fail(law::SESSIONS, || format!("framework {framework} is left over with {held} tasks, {since_ms} ms after the last of its members"));
                    return;
                }
            }
        }
    }

    /// What keeps pipelines from having come to their end.
    pub(crate) fn unsettled_pipes(&self) -> Option<String> {
        let (pipe, _) = self.pipes.iter().enumerate().find(|(_, pipe)| !pipe.started || pipe.gone_ms.is_none())?;
        let members: Vec<String> = (0..SEATS)
            .map(|place| &self.members[seat(pipe, place)])
            .map(|member| match &member.process {
                Process::None => "has ended".to_owned(),
                Process::Reads => "reads".to_owned(),
                Process::Head(machine) => format!("holds {} offers", machine.held()),
                Process::Tail(machine) => format!("{} wait and {} fly", machine.waiting(), machine.flying()),
            })
            .collect();
        Some(format!("pipe {pipe} still runs: {members:?}"))
    }

    /// The planted bugs of a leader's side that concern sessions: what it finds in the registry.
    pub(crate) fn found_registry(&self, doc: String) -> String {
        if self.plant != Plant::FenceForgotten {
            return doc;
        }
        let Ok(serde_json::Value::Array(mut docs)) = serde_json::from_str(&doc) else { return doc };
        for framework in &mut docs {
            if let Some(no) = framework.get_mut("session_no") {
                *no = 0.into();
            }
        }
        serde_json::Value::Array(docs).to_string()
    }

    pub(crate) fn session_of(site: &MasterSite, framework: &FrameworkId) -> Option<meso_core::id::Nonce> {
        Some(site.machine.lead()?.frameworks().get(framework)?.session.as_ref()?.nonce.clone())
    }
}
