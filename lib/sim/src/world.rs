//! A whole cluster in one thread: machines, bus, disks, clocks and processes, all driven by one seed.

use std::collections::HashMap;

use meso_core::id::MasterId;
use meso_core::master::{self, Caller};
use meso_core::offerer;
use meso_core::seed::Seed;
use meso_core::wire::Task;
use meso_core::wire::query::Rows;

use crate::agenda::Agenda;
use crate::agents::AgentSite;
use crate::clients::ClientSite;
use crate::clock::FAST_PPM;
use crate::judge::{Judge, Violation, law};
use crate::masters::MasterSite;
use crate::net::{Ask, Msg, SITES_MAX, Site, Wire};
use crate::pipes::{Member, Pipe, Said, pipe_of};
use crate::plan::Plan;
use crate::plant::Plant;
use crate::reverts::Saved;
use crate::sessions::Sessions;
use crate::store::SimStore;
use crate::story::Story;
use crate::stream::SimStream;
use crate::tally::{Count, Tally};

/// How long after the faults everything must have come to its end, or else after a job last did, milliseconds.
pub const CONVERGE_MS: u64 = 420_000;
/// How often convergence is looked for, milliseconds.
const PROBE_MS: u64 = 500;
/// So many steps at one moment are a machine that spins.
const STEPS_AT_ONCE_MAX: u64 = 20_000;
/// A master or a client crashes between two effects once in so many batches of them, where it crashes at all.
const CRASH_ONCE_IN: u64 = 500;
/// A slow message takes up to so long, milliseconds.
const SLOW_MS_MAX: u64 = 4_000;

/// What happens.
#[derive(Debug)]
pub enum Item {
    /// A machine named this time.
    Wake(Site),
    /// A message arrives at a run of a site.
    Deliver(Site, u64, Msg),
    /// A request is given up by its driver.
    GiveUp(Caller),
    /// A process starts.
    ProcStarts(usize, u64, meso_core::id::TaskId),
    /// A process ends, if this is still its time.
    ProcEnds(usize, u64, meso_core::id::TaskId),
    /// An event for one run of an agent, from its own machine.
    Local(usize, u64, Box<meso_core::agent::Event>),
    /// The allocation program of one run of a master answers, or fails.
    Program(usize, u64, Box<meso_core::master::Event>),
    /// A client reads on in the stream.
    Read(usize, u64),
    /// A client is given a job.
    Job(usize, u64),
    /// A member reads on in the record.
    MemberReads(usize, u64),
    /// A tail reads a line.
    TailReads(usize, u64),
    /// A tail is given a job.
    TailJob(usize, u64, Box<Task>),
    /// A head asks again which tasks live.
    AskTasks(usize, u64),
    /// The filter of a pipeline moves on.
    Filter(usize),
    /// What is left of a pipeline is killed.
    Doom(usize),
    /// A process starts.
    Start(Site),
    /// A master notices that its connection is gone or back.
    Notice(usize, u64, bool),
    /// A cut heals.
    Uncut(Site, u64),
    /// The store is back in service.
    StoreBack,
    /// The store's machine writes to its disk what it has.
    SaveStore,
    /// The disk of an agent has room again.
    DiskFree(usize),
    /// A run of an agent looks at its disk.
    DiskLook(usize, u64),
    /// The next fault.
    Fault,
    /// The end of the faults.
    Calm,
    /// Whether everything has come to its end.
    Probe,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// An agent for the answer to a registration.
    Hello(usize, u64),
    /// An agent for the answer to a beat.
    Beat(usize, u64),
    /// A client for the answer to this call.
    Call(usize, u64, u64),
    /// A member of a pipeline.
    Member(usize, u64, Said),
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first broken invariant.
    pub violation: Option<Violation>,
    /// Events handled by machines, with the messages that reach the store and the streams.
    pub steps: u64,
    /// Messages delivered; those to a machine are its events as well.
    pub delivered: u64,
    /// How long it took in simulated time, milliseconds.
    pub simulated_ms: u64,
    /// What happened how often.
    pub tally: Tally,
    /// How many launches agents refused because they did not fit; none while the books are right.
    pub refused_full: u64,
    /// A number that is the same for the same run.
    pub trace: u64,
}

/// The cluster.
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) plant: Plant,
    pub(crate) now_ms: u64,
    pub(crate) calm: bool,
    pub(crate) agenda: Agenda<Item>,
    pub(crate) seed: Seed,
    pub(crate) wires: Vec<Wire>,
    pub(crate) frozen_ms: [u64; SITES_MAX],
    wakes: [Option<u64>; SITES_MAX],
    arrivals: Vec<u64>,
    pub(crate) masters: Vec<MasterSite>,
    pub(crate) agents: Vec<AgentSite>,
    pub(crate) clients: Vec<ClientSite>,
    pub(crate) pipes: Vec<Pipe>,
    pub(crate) members: Vec<Member>,
    pub(crate) sessions: Sessions,
    pub(crate) store: SimStore,
    pub(crate) store_down: bool,
    pub(crate) saved: Saved,
    pub(crate) stream: SimStream,
    pub(crate) waiting: HashMap<Caller, Waiting>,
    callers: Caller,
    pub(crate) judge: Judge,
    pub(crate) tally: Tally,
    /// What happened, told if asked for.
    pub story: Story,
    steps: u64,
    steps_here: u64,
    delivered: u64,
    pub(crate) refused_full: u64,
    trace: u64,
    converged: bool,
    /// When a job last ended.
    pub(crate) job_ended_ms: u64,
}

impl World {
    /// The cluster of a plan, with a planted bug or none; the last so many events are told.
    pub fn new(plan: Plan, plant: Plant, lines_max: usize) -> Self {
        let mut seed = Seed::new([plan.seed.wrapping_add(0x1234_5678_9abc), !plan.seed]);
        for _ in 0..4 {
            seed.draw();
        }
        let mut masters: Vec<MasterSite> = (0..plan.masters).map(|_| MasterSite::new(&mut seed)).collect();
        let mut agents: Vec<AgentSite> = (0..plan.agents).map(|which| AgentSite::new(which, &mut seed)).collect();
        let mut clients: Vec<ClientSite> = (0..plan.clients).map(|which| ClientSite::new(which, &mut seed)).collect();
        let mut tally = Tally::default();
        let fast = match plan.fast {
            Some(Site::Master(which)) => masters.get_mut(which).map(|site| &mut site.clock),
            Some(Site::Agent(which)) => agents.get_mut(which).map(|site| &mut site.clock),
            Some(Site::Client(which)) => clients.get_mut(which).map(|site| &mut site.clock),
            _ => None,
        };
        if let Some(clock) = fast {
            clock.drift_ppm = FAST_PPM;
            tally.add(Count::FastClock);
        }
        let (pipes, members) = Pipe::all(plan.pipes, &mut seed);
        World {
            judge: Judge::new(plan.agents),
            sessions: Sessions::new(plan.masters),
            calm: !plan.faults.any(),
            plan,
            plant,
            now_ms: 0,
            agenda: Agenda::default(),
            seed,
            wires: vec![Wire::default(); SITES_MAX],
            frozen_ms: [0; SITES_MAX],
            wakes: [None; SITES_MAX],
            arrivals: vec![0; SITES_MAX * SITES_MAX],
            masters,
            agents,
            clients,
            pipes,
            members,
            store: SimStore::default(),
            store_down: false,
            saved: Saved::default(),
            stream: SimStream::default(),
            waiting: HashMap::new(),
            callers: 0,
            tally,
            story: Story::new(lines_max),
            steps: 0,
            steps_here: 0,
            delivered: 0,
            refused_full: 0,
            trace: 0,
            converged: false,
            job_ended_ms: 0,
        }
    }

    /// Runs it to its end.
    pub fn run(&mut self) -> Outcome {
        self.begin();
        let chaos_ms = self.plan.chaos_ms;
        while self.judge.violation.is_none() && !self.converged {
            let Some((at_ms, item)) = self.agenda.next() else { break };
            // Jobs that all need the one port there is take their time, one after the other.
            if at_ms > self.job_ended_ms.max(chaos_ms) + CONVERGE_MS {
                break;
            }
            if at_ms > self.now_ms {
                self.now_ms = at_ms;
                self.steps_here = 0;
                self.judge.at(at_ms);
            }
            self.happen(item);
        }
        if !self.converged {
            for (which, master) in self.masters.iter().enumerate() {
                self.story.tell(self.now_ms, || format!("master {which}: alive {}, listens {}, {:?}", master.alive, master.listens(), master.lease));
            }
            let why = self.unsettled().unwrap_or_else(|| "nothing is left to happen".to_owned());
            self.judge.fail(law::LIVENESS, || format!("nothing ended for {} s after the faults: {why}", CONVERGE_MS / 1000));
        }
        Outcome { violation: self.judge.violation.clone(), steps: self.steps, delivered: self.delivered, simulated_ms: self.now_ms, tally: self.tally.clone(), refused_full: self.refused_full, trace: self.trace }
    }

    fn begin(&mut self) {
        for which in 0..self.masters.len() {
            let at_ms = self.seed.below(1_000);
            self.agenda.enter(at_ms, Item::Start(Site::Master(which)));
        }
        for which in 0..self.agents.len() {
            let at_ms = self.seed.below(3_000);
            self.agenda.enter(at_ms, Item::Start(Site::Agent(which)));
        }
        for which in 0..self.clients.len() {
            let at_ms = self.seed.below(5_000);
            self.agenda.enter(at_ms, Item::Start(Site::Client(which)));
        }
        self.begin_pipes();
        if self.plan.faults.any() {
            self.agenda.enter(1_000, Item::Fault);
            self.agenda.enter(1_000, Item::SaveStore);
        }
        self.agenda.enter(self.plan.chaos_ms, Item::Calm);
        self.agenda.enter(self.plan.chaos_ms, Item::Probe);
    }

    /// Counts a step and mixes it into the trace.
    pub(crate) fn step(&mut self, what: u64) {
        self.steps += 1;
        self.steps_here += 1;
        self.trace = (self.trace ^ what ^ self.now_ms).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
        if self.steps_here > STEPS_AT_ONCE_MAX {
            self.judge.fail(law::LIVENESS, || "a machine asks to be woken at once, again and again".to_owned());
        }
    }

    fn happen(&mut self, item: Item) {
        if let Some(site) = target(&item) {
            let until_ms = self.frozen_ms[site.index()];
            if until_ms > self.now_ms {
                if matches!(item, Item::Wake(_)) {
                    let wake = &mut self.wakes[site.index()];
                    if *wake != Some(self.now_ms) {
                        return;
                    }
                    *wake = Some(until_ms);
                }
                self.agenda.enter(until_ms, item);
                return;
            }
        }
        match item {
            Item::Wake(site) => {
                if self.wakes[site.index()] == Some(self.now_ms) {
                    self.wakes[site.index()] = None;
                    match site {
                        Site::Master(which) => self.wake_master(which),
                        Site::Agent(which) => self.wake_agent(which),
                        Site::Client(which) => self.wake_client(which),
                        Site::Member(which) => self.wake_member(which),
                        Site::Bus => {}
                    }
                    self.schedule(site);
                }
            }
            Item::Deliver(site, run, msg) => self.deliver(site, run, msg),
            Item::GiveUp(caller) => {
                if let Some(waiting) = self.waiting.remove(&caller) {
                    self.tally.add(Count::TimedOut);
                    self.answer(waiting, None);
                }
            }
            Item::ProcStarts(which, run, task) => self.proc_starts(which, run, task),
            Item::ProcEnds(which, boot, task) => self.proc_ends(which, boot, task),
            Item::Local(which, run, event) => {
                if self.agents[which].run == run {
                    self.agent_event(which, *event);
                }
            }
            Item::Program(which, run, event) => {
                if self.masters[which].run == run {
                    self.master_event(which, *event);
                }
            }
            Item::Read(which, run) => self.client_reads(which, run),
            Item::Job(which, run) => self.client_job(which, run),
            Item::MemberReads(which, run) => self.member_reads(which, run),
            Item::TailReads(which, run) => self.tail_reads(which, run),
            Item::TailJob(which, run, task) => self.tail_job(which, run, *task),
            Item::AskTasks(which, run) => {
                if self.members[which].run == run {
                    self.member_asks_tasks(which);
                }
            }
            Item::Filter(pipe) => self.filter_moves(pipe),
            Item::Doom(pipe) => self.doom(pipe),
            Item::Start(Site::Master(which)) => self.start_master(which),
            Item::Start(Site::Agent(which)) => self.start_agent(which),
            Item::Start(Site::Client(which)) => self.start_client(which),
            Item::Start(Site::Member(which)) => self.start_pipe(pipe_of(which)),
            Item::Start(Site::Bus) => {}
            Item::Notice(which, cuts, connected) => self.master_notices(which, cuts, connected),
            Item::Uncut(site, cuts) => self.uncut(site, cuts),
            Item::StoreBack => self.store_down = false,
            Item::SaveStore => self.save_store(),
            Item::DiskFree(which) => self.disk_free(which),
            Item::DiskLook(which, run) => self.look_at_disk(which, run),
            Item::Fault => self.fault(),
            Item::Calm => self.heal_all(),
            Item::Probe => {
                self.check_pipes();
                match self.unsettled() {
                    None => self.converged = true,
                    Some(_) => self.agenda.enter(self.now_ms + PROBE_MS, Item::Probe),
                }
            }
        }
    }

    /// Enters the next wake-up of a site, if it is earlier than the one that is entered.
    pub(crate) fn schedule(&mut self, site: Site) {
        let at_ms = match site {
            Site::Master(which) => self.masters[which].wants_ms(self.now_ms),
            Site::Agent(which) => self.agents[which].wants_ms(),
            Site::Client(which) => self.clients[which].wants_ms(),
            Site::Member(which) => self.members[which].wants_ms(),
            Site::Bus => None,
        };
        let Some(at_ms) = at_ms.map(|at_ms| at_ms.max(self.now_ms)) else { return };
        let wake = &mut self.wakes[site.index()];
        if wake.is_none_or(|entered| at_ms < entered) {
            *wake = Some(at_ms);
            self.agenda.enter(at_ms, Item::Wake(site));
        }
    }

    /// True once in so many, while things go wrong.
    pub(crate) fn chance(&mut self, once_in: u64) -> bool {
        !self.calm && self.seed.below(once_in) == 0
    }

    /// Before which effect of so many a process crashes, now and then, if it is one of those that do.
    pub(crate) fn crash_at(&mut self, does: bool, effects: usize) -> Option<usize> {
        (does && effects > 0 && self.chance(CRASH_ONCE_IN)).then(|| self.seed.below(effects as u64) as usize)
    }

    /// True for so many of a thousand, while things go wrong.
    fn per_mille(&mut self, so_many: u64) -> bool {
        so_many > 0 && !self.calm && self.seed.below(1_000) < so_many
    }

    fn run_of(&self, site: Site) -> u64 {
        match site {
            Site::Master(which) => self.masters[which].run,
            Site::Agent(which) => self.agents[which].run,
            Site::Client(which) => self.clients[which].run,
            Site::Member(which) => self.members[which].run,
            Site::Bus => 0,
        }
    }

    /// Sends a message; requests go to the bus, which finds the leader.
    pub(crate) fn send(&mut self, from: Site, to: Site, msg: Msg) {
        let wire = &mut self.wires[from.index()];
        if wire.out_cut {
            // The client library keeps what is published while it is away, and sends it when it is back.
            wire.outbox.push((to, msg));
            return;
        }
        match (to, msg) {
            (Site::Bus, Msg::Request(caller, ask)) => self.route(from, caller, ask),
            (to, msg) => self.carry(from, to, msg),
        }
    }

    /// Whether the server still has a master's subscriptions: it takes them away when the connection ends, and not while one
    /// direction of it is merely silent. A connection that was given up never comes to life again.
    pub(crate) fn is_subscribed(&self, master: usize) -> bool {
        let wire = &self.wires[Site::Master(master).index()];
        !(wire.in_cut && wire.out_cut)
    }

    /// A request goes to every master that listens as the leader.
    fn route(&mut self, from: Site, caller: Caller, ask: Ask) {
        let listens = |which: &usize| self.masters[*which].listens() && self.is_subscribed(*which);
        let Some(last) = (0..self.masters.len()).rfind(listens) else {
            self.tally.add(Count::Unheard);
            return self.carry(Site::Bus, from, Msg::NoResponders(caller));
        };
        for which in 0..last {
            if self.masters[which].listens() && self.is_subscribed(which) {
                self.carry(from, Site::Master(which), Msg::Request(caller, ask.clone()));
            }
        }
        self.carry(from, Site::Master(last), Msg::Request(caller, ask));
    }

    pub(crate) fn delay_ms(&mut self) -> u64 {
        if self.calm {
            return 1 + self.seed.below(3);
        }
        if self.per_mille(self.plan.faults.slow) {
            return 1 + self.seed.below(SLOW_MS_MAX);
        }
        1 + self.seed.below(self.plan.delay_ms)
    }

    fn carry(&mut self, from: Site, to: Site, msg: Msg) {
        if self.per_mille(self.plan.faults.loss) {
            self.tally.add(Count::Lost);
            return;
        }
        let run = self.run_of(to);
        if self.per_mille(self.plan.faults.dup) {
            self.tally.add(Count::Duplicated);
            let at_ms = self.now_ms + self.delay_ms();
            self.agenda.enter(at_ms, Item::Deliver(to, run, msg.clone()));
        }
        let mut at_ms = self.now_ms + self.delay_ms();
        let last = &mut self.arrivals[from.index() * SITES_MAX + to.index()];
        let last_ms = *last;
        if last_ms > at_ms && !self.calm && self.plan.faults.reorder > 0 && self.seed.below(1_000) < self.plan.faults.reorder {
            self.tally.add(Count::Reordered);
        } else {
            at_ms = at_ms.max(last_ms);
            self.arrivals[from.index() * SITES_MAX + to.index()] = at_ms;
        }
        self.agenda.enter(at_ms, Item::Deliver(to, run, msg));
    }

    fn deliver(&mut self, site: Site, run: u64, msg: Msg) {
        if self.wires[site.index()].in_cut {
            self.tally.add(Count::Lost);
            return;
        }
        self.delivered += 1;
        let of_run = run == self.run_of(site);
        match (site, msg) {
            (_, Msg::Reply(caller, reply)) => match self.waiting.remove(&caller) {
                Some(waiting) => self.answer(waiting, Some(*reply)),
                None => {
                    self.step(500);
                    self.tally.add(Count::LateAnswer);
                }
            },
            (_, Msg::NoResponders(caller)) => {
                if let Some(waiting) = self.waiting.remove(&caller) {
                    self.answer(waiting, None);
                }
            }
            (Site::Agent(which), Msg::Command(_, secret, command)) => self.agent_commanded(which, &secret, *command),
            (Site::Agent(which), msg) if of_run => self.agent_hears(which, msg),
            (Site::Master(which), msg) if of_run => self.master_hears(which, msg),
            (Site::Client(which), msg) if of_run => self.client_hears(which, msg),
            (Site::Member(which), msg) if of_run => self.member_hears(which, msg),
            (Site::Bus, msg) => self.bus_hears(msg),
            _ => {}
        }
    }

    /// Who the next to ask will be.
    pub(crate) fn next_caller(&self) -> Caller {
        self.callers + 1
    }

    /// Notes who waits for an answer, until that is given up.
    pub(crate) fn wait(&mut self, waiting: Waiting, give_up_ms: u64) -> Caller {
        self.callers += 1;
        self.waiting.insert(self.callers, waiting);
        self.agenda.enter(self.now_ms + give_up_ms, Item::GiveUp(self.callers));
        self.callers
    }

    /// Makes a request to the leader and notes who waits for its answer.
    pub(crate) fn ask(&mut self, from: Site, waiting: Waiting, ask: Ask, give_up_ms: u64) {
        let caller = self.wait(waiting, give_up_ms);
        self.send(from, Site::Bus, Msg::Request(caller, ask));
    }

    /// Gives an answer, or the lack of one, to whoever waits.
    fn answer(&mut self, waiting: Waiting, reply: Option<master::Reply>) {
        use meso_core::agent;
        match (waiting, reply) {
            (Waiting::Hello(which, run), reply) if self.agents[which].run == run => {
                let welcome = match reply {
                    Some(master::Reply::Welcome(welcome)) => Some(welcome),
                    _ => None,
                };
                self.agent_event(which, agent::Event::Welcome(welcome));
            }
            (Waiting::Beat(which, run), reply) if self.agents[which].run == run => {
                let beaten = match reply {
                    Some(master::Reply::Beaten(beaten)) => Some(beaten),
                    _ => None,
                };
                self.agent_beaten(which, beaten);
            }
            (Waiting::Call(which, run, no), reply) if self.clients[which].run == run => {
                let answer = match reply {
                    Some(master::Reply::Answer(answer)) => Some(answer),
                    _ => None,
                };
                self.client_answered(which, no, answer);
            }
            (Waiting::Member(which, run, _), Some(master::Reply::Rows(rows))) if self.members[which].run == run => match *rows {
                Rows::Tasks { page, .. } => self.head_event(which, offerer::Event::Snapshot(page.into_iter().map(|row| row.update).collect())),
                _ => self.member_answered(which, Said::Snapshot, None),
            },
            (Waiting::Member(which, run, said), reply) if self.members[which].run == run => {
                let answer = match reply {
                    Some(master::Reply::Answer(answer)) => Some(answer),
                    _ => None,
                };
                self.member_answered(which, said, answer);
            }
            _ => {}
        }
    }

    /// Which master runs under this id.
    pub(crate) fn master_of(&self, id: &MasterId) -> Option<usize> {
        self.masters.iter().position(|master| master.alive && master.id == *id)
    }

    /// What keeps the cluster from having come to its end.
    fn unsettled(&self) -> Option<String> {
        for (which, client) in self.clients.iter().enumerate() {
            if let Some(why) = client.unsettled() {
                return Some(format!("client {which} {why}"));
            }
        }
        if let Some(why) = self.unsettled_pipes() {
            return Some(why);
        }
        for (which, agent) in self.agents.iter().enumerate() {
            if let Some(why) = agent.unsettled() {
                return Some(format!("agent {which} {why}"));
            }
        }
        let Some(leader) = self.masters.iter().find(|master| master.listens()) else { return Some("nobody leads".to_owned()) };
        leader.unsettled(&self.agents)
    }
}

fn target(item: &Item) -> Option<Site> {
    match item {
        Item::Wake(site) | Item::Deliver(site, ..) => Some(*site),
        Item::Local(which, ..) | Item::DiskLook(which, _) => Some(Site::Agent(*which)),
        Item::Notice(which, ..) | Item::Program(which, ..) => Some(Site::Master(*which)),
        Item::Read(which, _) | Item::Job(which, _) => Some(Site::Client(*which)),
        Item::MemberReads(which, _) | Item::TailReads(which, _) | Item::TailJob(which, ..) | Item::AskTasks(which, _) => Some(Site::Member(*which)),
        _ => None,
    }
}
