//! The outside of a master: its lease, its registry, its place on the bus.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meso_core::id::{AgentId, MasterId, Nonce};
use meso_core::lease::{self, Candidate, Lease, LeaseTimes, Why};
use meso_core::master::{AgentState, Config, Effect, Event, Master, RemovalRate};
use meso_core::resources::Quantities;
use meso_core::seed::Seed;

use crate::agents::AgentSite;
use crate::clock::Clock;
use crate::full::Closed;
use crate::net::{LeaseAsk, Msg, Site};
use crate::plant::Plant;
use crate::tally::Count;
use crate::world::{Item, World};

/// After how long a read or write of the lease is given up, milliseconds.
const LEASE_GIVE_UP_MS: u64 = 1_500;
/// How much the planted clock is slow, millionths.
const SLOW_PPM: i64 = -500_000;
/// After how long the registry is read again, milliseconds.
const DOCS_AGAIN_MS: u64 = 1_000;

/// A master's process and what it waits for.
#[derive(Debug)]
pub struct MasterSite {
    /// The number of its process.
    pub run: u64,
    /// Whether it runs.
    pub alive: bool,
    /// Its id, a fresh one for each run.
    pub id: MasterId,
    /// Whether it knows that it is connected.
    pub connected: bool,
    pub(crate) clock: Clock,
    pub(crate) nonce: Nonce,
    pub(crate) lease: Lease,
    /// What its lease named as its deadline when it was last stepped.
    lease_ms: Option<u64>,
    /// What the books held when they were last added up.
    pub(crate) added_up: Option<(Quantities, usize)>,
    pub(crate) machine: Master,
    /// The epoch of the last `Lead` of the lease for which the machine leads or will.
    pub(crate) epoch: Option<u64>,
    /// The registry is being read, and since when.
    pub(crate) reading: Option<u64>,
    pub(crate) revisions: BTreeMap<String, u64>,
    pub(crate) writes: u64,
    /// A document on its way, by which time it must be there, and what follows it.
    pub(crate) writing: Option<(u64, String, u64, VecDeque<Effect>)>,
    pub(crate) queue: VecDeque<Event>,
    /// What the lease waits for: reads, writes and pings with the time at which they are given up.
    pub(crate) asked: Vec<(u64, lease::Event)>,
    pub(crate) since_ms: u64,
    /// Agents that told it that they take nothing.
    pub(crate) closed: Closed,
    /// Agents that it told its epoch.
    pub(crate) welcomed: BTreeSet<AgentId>,
    /// Planted: it takes the epoch before its own.
    pub(crate) reuses: bool,
    /// Planted: the clock of its lease runs at half the rate.
    is_slow: bool,
}

impl MasterSite {
    /// A master that does not run yet.
    pub fn new(seed: &mut Seed) -> Self {
        let id = MasterId::fresh(seed.draw());
        let nonce = Nonce::fresh(seed.draw(), seed.draw());
        MasterSite {
            run: 0,
            alive: false,
            connected: false,
            clock: Clock::some(seed),
            lease: Lease::new(candidate(&id, &nonce), LeaseTimes::SINGLE, 0),
            lease_ms: None,
            added_up: None,
            machine: Master::new(Config::new(id.clone(), "sim".to_owned(), "sim".to_owned())),
            id,
            nonce,
            epoch: None,
            reading: None,
            revisions: BTreeMap::new(),
            writes: 0,
            writing: None,
            queue: VecDeque::new(),
            asked: Vec::new(),
            since_ms: 0,
            closed: Closed::default(),
            welcomed: BTreeSet::new(),
            reuses: false,
            is_slow: false,
        }
    }

    /// Whether it listens where the leader must.
    pub fn listens(&self) -> bool {
        self.alive && self.machine.epoch().is_some()
    }

    /// The clock by which it counts how long it may lead.
    pub(crate) fn lease_clock(&self) -> Clock {
        if self.is_slow { Clock { drift_ppm: SLOW_PPM, ..self.clock } } else { self.clock }
    }

    /// The epoch under which it may act now.
    pub(crate) fn acts(&self, now_ms: u64) -> Option<u64> {
        self.lease.leads(self.lease_clock().local_ms(now_ms)).map(|epoch| if self.reuses { epoch.saturating_sub(1).max(1) } else { epoch }).filter(|epoch| self.machine.epoch() == Some(*epoch))
    }

    /// When its machines want to be woken, true time.
    pub fn wants_ms(&self, now_ms: u64) -> Option<u64> {
        if !self.alive {
            return None;
        }
        let asked = self.asked.iter().map(|(at_ms, _)| *at_ms).min();
        let machine = if self.writing.is_none() && self.acts(now_ms).is_some() { self.machine.deadline() } else { None };
        let writing = self.writing.as_ref().map(|(_, _, by_ms, _)| *by_ms);
        let lease = self.lease_ms.map(|at_ms| self.lease_clock().true_ms(at_ms));
        let machine = machine.map(|at_ms| self.clock.true_ms(at_ms));
        [asked, writing, self.reading, lease, machine].into_iter().flatten().min()
    }

    /// What keeps the cluster from having come to its end, as the leader sees it.
    pub fn unsettled(&self, agents: &[AgentSite]) -> Option<String> {
        let Some(lead) = self.machine.lead() else { return Some("the leader has just stood down".to_owned()) };
        if let Some(task) = lead.tasks().keys().next() {
            return Some(format!("the leader believes that task {task} lives"));
        }
        if let Some((framework, _)) = lead.frameworks().iter().next() {
            return Some(format!("the leader still knows framework {framework}"));
        }
        for agent in agents {
            if lead.agents().get(&agent.id).is_none_or(|entry| entry.state != AgentState::Active) {
                return Some(format!("the leader does not have agent {} as active", agent.id));
            }
            let free = lead.ledger().free(&agent.id);
            if free != lead.ledger().total(&agent.id) || free.is_none() {
                return Some(format!("of agent {} only {} is free", agent.id, free.cloned().unwrap_or_default()));
            }
        }
        None
    }
}

fn candidate(id: &MasterId, nonce: &Nonce) -> Candidate {
    Candidate { id: id.clone(), nonce: nonce.clone(), host: "sim".to_owned(), since_ms: 0 }
}

impl World {
    pub(crate) fn start_master(&mut self, which: usize) {
        if self.masters[which].alive {
            return;
        }
        let run = self.masters[which].run + 1;
        let clock = self.masters[which].clock;
        let fresh = MasterSite::new(&mut self.seed);
        let mut config = Config::new(fresh.id.clone(), format!("master{which}"), "sim".to_owned());
        config.external = self.plan.program;
        config.agent_beat_ms = self.plan.agent_beat_ms;
        config.agent_timeout_ms = self.plan.agent_timeout_ms;
        config.agent_removal = self.plan.removal.map(|rate| RemovalRate::parse(rate).expect("a plain rate"));
        config.offer_timeout_ms = if self.plant.has(Plant::OffersStay) { 3_600_000 } else { self.plan.offer_ms };
        if self.plant.has(Plant::LapsedStays) {
            config.session_timeout_ms = 3_600_000;
        }
        let is_slow = which == 0 && self.plant.has(Plant::SlowLease);
        self.masters[which] = MasterSite { run, clock, is_slow, alive: true, connected: true, reuses: self.plant == Plant::EpochReused, machine: Master::new(config), ..fresh };
        self.story.tell(self.now_ms, || format!("master {which} starts"));
        if !self.wires[Site::Master(which).index()].is_whole() {
            self.lease_event(which, lease::Event::Disconnected);
            self.masters[which].connected = false;
        }
        self.lease_event(which, lease::Event::Tick);
    }

    pub(crate) fn crash_master(&mut self, which: usize) {
        let site = &mut self.masters[which];
        if !site.alive {
            return;
        }
        site.alive = false;
        site.run += 1;
        site.machine = Master::new(Config::new(site.id.clone(), "sim".to_owned(), "sim".to_owned()));
        self.wires[Site::Master(which).index()].outbox.clear();
        self.tally.add(Count::MasterCrash);
        self.story.tell(self.now_ms, || format!("master {which} crashes"));
        let back_ms = 200 + self.seed.below(12_000);
        self.agenda.enter(self.now_ms + back_ms, Item::Start(Site::Master(which)));
    }

    pub(crate) fn wake_master(&mut self, which: usize) {
        let now_ms = self.now_ms;
        while let Some(place) = self.masters[which].asked.iter().position(|(at_ms, _)| *at_ms <= now_ms) {
            let (_, event) = self.masters[which].asked.remove(place);
            let event = match event {
                lease::Event::CasUnknown { attempt } if self.plant == Plant::AmbiguousIsDone => lease::Event::CasDone { attempt, revision: self.store.lease().0 },
                other => other,
            };
            self.lease_event(which, event);
        }
        let local_ms = self.masters[which].clock.local_ms(now_ms);
        if self.masters[which].lease_ms.is_some_and(|at_ms| at_ms <= self.masters[which].lease_clock().local_ms(now_ms)) {
            self.lease_event(which, lease::Event::Tick);
        }
        if self.masters[which].writing.as_ref().is_some_and(|(_, _, by_ms, _)| *by_ms <= now_ms) {
            self.registry_failed(which);
        }
        if self.masters[which].reading.is_some_and(|at_ms| at_ms <= now_ms) {
            self.read_docs(which);
        }
        let site = &self.masters[which];
        if site.alive && site.writing.is_none() && site.acts(now_ms).is_some() && site.machine.deadline().is_some_and(|at_ms| at_ms <= local_ms) {
            self.master_event(which, Event::Tick);
        }
    }

    /// The client library of a master says that its connection is gone or back.
    pub(crate) fn master_notices(&mut self, which: usize, cuts: u64, connected: bool) {
        let site = &mut self.masters[which];
        if !site.alive || site.connected == connected || self.wires[Site::Master(which).index()].cuts != cuts {
            return;
        }
        site.connected = connected;
        self.lease_event(which, if connected { lease::Event::Connected } else { lease::Event::Disconnected });
    }

    pub(crate) fn lease_event(&mut self, which: usize, event: lease::Event) {
        let local_ms = self.masters[which].lease_clock().local_ms(self.now_ms);
        if !self.masters[which].alive {
            return;
        }
        self.step(200 + which as u64);
        let site = &mut self.masters[which];
        let effects = site.lease.step(local_ms, event);
        site.lease_ms = site.lease.deadline();
        for effect in effects {
            self.perform_lease(which, effect);
        }
        self.schedule(Site::Master(which));
    }

    fn perform_lease(&mut self, which: usize, effect: lease::Effect) {
        let here = Site::Master(which);
        let give_up = self.now_ms + LEASE_GIVE_UP_MS;
        let run = self.masters[which].run;
        match effect {
            lease::Effect::Read { attempt } => {
                self.masters[which].asked.push((give_up, lease::Event::ReadFailed { attempt }));
                self.send(here, Site::Bus, Msg::Lease(which, run, LeaseAsk::Read { attempt }));
            }
            lease::Effect::Cas { attempt, expect, record } => {
                self.masters[which].asked.push((give_up, lease::Event::CasUnknown { attempt }));
                if self.masters[which].epoch != Some(record.epoch) {
                    self.story.tell(self.now_ms, || format!("master {which} would lead under epoch {} over revision {expect}", record.epoch));
                }
                self.send(here, Site::Bus, Msg::Lease(which, run, LeaseAsk::Cas { attempt, expect, record: Box::new(record) }));
            }
            lease::Effect::Ping { attempt, holder } => {
                self.masters[which].asked.push((give_up, lease::Event::PingFailed { attempt }));
                self.send(here, Site::Bus, Msg::Lease(which, run, LeaseAsk::Ping { attempt, holder }));
            }
            lease::Effect::Lead { epoch, .. } => {
                let epoch = if self.plant == Plant::EpochReused { epoch.saturating_sub(1).max(1) } else { epoch };
                match self.masters[which].epoch {
                    Some(before) if before == epoch => {}
                    Some(_) if self.masters[which].machine.epoch().is_some() => {
                        self.masters[which].epoch = Some(epoch);
                        self.tally.add(Count::EpochRaised);
                        self.master_event(which, Event::Raised { epoch });
                    }
                    _ => {
                        self.masters[which].epoch = Some(epoch);
                        self.tally.add(Count::LeaseClaimed);
                        self.read_docs(which);
                    }
                }
            }
            lease::Effect::Suspend { .. } => self.tally.add(Count::LeaseSuspended),
            lease::Effect::StepDown { why, epoch } => {
                self.tally.add(match why {
                    Why::Lapsed => Count::LeaseLapsed,
                    Why::Released => Count::LeaseReleased,
                    _ => Count::LeaseLost,
                });
                self.story.tell(self.now_ms, || format!("master {which} stands down from epoch {epoch}: {why:?}"));
                if !self.plant.has(Plant::NoSelfStop) {
                    self.step_down(which);
                }
            }
            lease::Effect::Standby { .. } => {}
            // What asked for the release has ended the process already, as a service manager would start it anew.
            lease::Effect::Released => {
                let site = &mut self.masters[which];
                site.alive = false;
                site.run += 1;
                let at_ms = self.now_ms + 500;
                self.agenda.enter(at_ms, Item::Start(Site::Master(which)));
            }
        }
    }

    /// Forgets all that a leader knows; its connection is dropped with all that waits in it.
    pub(crate) fn step_down(&mut self, which: usize) {
        let local_ms = self.masters[which].clock.local_ms(self.now_ms);
        let site = &mut self.masters[which];
        site.epoch = None;
        site.reading = None;
        site.writing = None;
        site.queue.clear();
        site.closed.clear();
        site.welcomed.clear();
        site.machine.step(local_ms, Event::StepDown);
        self.wires[Site::Master(which).index()].outbox.clear();
    }

    /// A document of the registry could not be written: what followed it never happens, and neither does this leader.
    pub(crate) fn registry_failed(&mut self, which: usize) {
        self.tally.add(Count::RegistryFailed);
        self.story.tell(self.now_ms, || format!("master {which} cannot write the registry"));
        self.step_down(which);
        self.lease_event(which, lease::Event::Release);
    }

    fn read_docs(&mut self, which: usize) {
        let Some(epoch) = self.masters[which].epoch else { return };
        self.masters[which].reading = Some(self.now_ms + DOCS_AGAIN_MS);
        self.send(Site::Master(which), Site::Bus, Msg::ReadDocs(which, self.masters[which].run, epoch));
        self.schedule(Site::Master(which));
    }
}
