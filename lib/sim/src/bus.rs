//! The bus's own part: the store of lease and registry, and the stream of statuses, with all their moods.

use std::rc::Rc;

use meso_core::lease;
use meso_core::wire::Update;

use crate::net::{LeaseAsk, Msg, Site};
use crate::store::{OLD_RECORDS_MAX, Reading};
use crate::tally::Count;
use crate::world::{Item, World};

/// While the store is moody, one write in so many is applied and its answer lost, one is applied late, one read is old.
const MOOD_ONCE_IN: u64 = 25;
/// While it is moody, the registry is read once in so many from a copy that is behind.
const BEHIND_ONCE_IN: u64 = 2;
/// How late a delayed write is applied, at most, milliseconds.
const LATE_MS_MAX: u64 = 7_000;

impl World {
    pub(crate) fn bus_hears(&mut self, msg: Msg) {
        self.step(300);
        match msg {
            Msg::Store(update) => self.bus_stores(update),
            Msg::Lease(which, run, ask) => self.bus_leases(which, run, ask),
            Msg::Write(which, run, no, key, expect, doc) => self.bus_writes(which, run, no, key, expect, doc),
            Msg::ReadDocs(which, run, epoch) => {
                if !self.store_down {
                    let reading = self.read_registry();
                    self.send(Site::Bus, Site::Master(which), Msg::Docs(run, epoch, reading));
                }
            }
            _ => {}
        }
    }

    /// True while the store of this run behaves as measured stores do: now and then.
    fn mood(&mut self) -> bool {
        self.plan.faults.store && self.chance(MOOD_ONCE_IN)
    }

    /// The registry as the server answers that is asked for it.
    fn read_registry(&mut self) -> Reading {
        if !(self.plan.faults.store && self.chance(BEHIND_ONCE_IN)) {
            return self.store.reading();
        }
        let is_filled = self.seed.below(2) == 0;
        let reading = self.store.reading_behind(is_filled, &mut self.seed);
        match (reading.is_counted(), reading.is_whole()) {
            (false, _) => self.tally.add(Count::RegistryInParts),
            (true, false) => self.tally.add(Count::RegistryOld),
            (true, true) => {}
        }
        reading
    }

    /// Sends a write to the store once more, much later; the writer has given up by then.
    fn delayed(&mut self, msg: Msg) {
        self.tally.add(Count::CasDelayed);
        let at_ms = self.now_ms + 2_000 + self.seed.below(LATE_MS_MAX);
        self.agenda.enter(at_ms, Item::Deliver(Site::Bus, 0, msg));
    }

    fn bus_leases(&mut self, which: usize, run: u64, ask: LeaseAsk) {
        let there = Site::Master(which);
        match ask {
            LeaseAsk::Read { attempt } => {
                if self.store_down {
                    if self.seed.below(2) == 0 {
                        self.send(Site::Bus, there, Msg::LeaseAnswer(run, Box::new(lease::Event::ReadFailed { attempt })));
                    }
                    return;
                }
                let (mut revision, mut record) = self.store.lease();
                if self.mood() {
                    let back = self.seed.below(OLD_RECORDS_MAX as u64 + 1) as usize;
                    if let Some(old) = self.store.old_lease(back) {
                        (revision, record) = old;
                        self.tally.add(Count::StaleRead);
                    }
                }
                self.send(Site::Bus, there, Msg::LeaseAnswer(run, Box::new(lease::Event::Found { attempt, revision, record })));
            }
            LeaseAsk::Cas { attempt, expect, record } => {
                if self.mood() {
                    return self.delayed(Msg::Lease(which, run, LeaseAsk::Cas { attempt, expect, record }));
                }
                if self.store_down {
                    if self.seed.below(3) == 0 && self.store.cas_lease(expect, *record).is_some() {
                        self.judge.renewed(which, run);
                        self.tally.add(Count::CasAmbiguous);
                    }
                    return;
                }
                let epoch = record.epoch;
                let event = match self.store.cas_lease(expect, *record) {
                    Some(revision) => {
                        self.judge.renewed(which, run);
                        lease::Event::CasDone { attempt, revision }
                    }
                    None => {
                        self.tally.add(Count::CasRefused);
                        lease::Event::CasRefused { attempt }
                    }
                };
                if matches!(event, lease::Event::CasRefused { .. }) {
                    self.story.tell(self.now_ms, || format!("lease write of master {which} for epoch {epoch} is refused"));
                }
                if self.mood() {
                    self.tally.add(Count::CasAmbiguous);
                    return;
                }
                self.send(Site::Bus, there, Msg::LeaseAnswer(run, Box::new(event)));
            }
            LeaseAsk::Ping { attempt, holder } => {
                let listener = match holder {
                    Some(holder) => self.master_of(&holder).filter(|master| self.is_subscribed(*master)),
                    None => (0..self.masters.len()).find(|master| self.masters[*master].listens() && self.is_subscribed(*master)),
                };
                let event = match listener {
                    None => lease::Event::PingUnheard { attempt },
                    Some(master) => {
                        let site = Site::Master(master).index();
                        let answers = self.frozen_ms[site] <= self.now_ms && self.wires[site].is_whole();
                        let nonce = answers.then(|| self.masters[master].nonce.clone());
                        lease::Event::PingHeard { attempt, nonce }
                    }
                };
                self.send(Site::Bus, there, Msg::LeaseAnswer(run, Box::new(event)));
            }
        }
    }

    fn bus_writes(&mut self, which: usize, run: u64, no: u64, key: String, expect: u64, doc: String) {
        if self.mood() {
            return self.delayed(Msg::Write(which, run, no, key, expect, doc));
        }
        if self.store_down && self.seed.below(3) > 0 {
            return;
        }
        let revision = self.store.cas_doc(&key, expect, doc);
        if revision.is_none() {
            self.tally.add(Count::CasRefused);
        }
        if self.store_down || self.mood() {
            self.tally.add(Count::CasAmbiguous);
            return;
        }
        self.send(Site::Bus, Site::Master(which), Msg::Written(run, no, revision));
    }

    /// A status reaches the bus: whoever listens hears it, the stream stores it, its sender is told.
    fn bus_stores(&mut self, update: Rc<Update>) {
        for which in 0..self.masters.len() {
            if self.masters[which].listens() && update.agent_seq > 0 {
                self.send(Site::Bus, Site::Master(which), Msg::Status(Rc::clone(&update)));
            }
        }
        let reader = self.clients.iter().position(|client| client.machine.is_some() && client.framework.as_ref() == Some(&update.framework));
        if let (true, Some(client), true) = (self.plan.live, reader, update.agent_seq > 0) {
            self.send(Site::Bus, Site::Client(client), Msg::Live(Rc::clone(&update)));
        }
        let members: Vec<usize> = (0..self.members.len()).filter(|member| self.members[*member].lives() && self.members[*member].framework.as_ref() == Some(&update.framework)).collect();
        for member in &members {
            if self.plan.live && update.agent_seq > 0 {
                self.send(Site::Bus, Site::Member(*member), Msg::Live(Rc::clone(&update)));
            }
        }
        let sender = update.agent.as_ref().and_then(|agent| self.agents.iter().position(|site| site.id == *agent)).filter(|_| update.agent_seq > 0);
        if self.store_down {
            self.tally.add(Count::StatusUnstored);
            if let (Some(agent), true) = (sender, self.seed.below(2) == 0) {
                self.send(Site::Bus, Site::Agent(agent), Msg::Stored(update, false));
            }
            return;
        }
        if self.stream.store(&update, self.now_ms) {
            self.tally.add(Count::StatusStored);
            self.judge.stored(&update, sender);
            if let Some(client) = reader {
                self.client_reads_soon(client);
            }
            for member in members {
                self.member_reads_soon(member);
            }
        } else {
            self.tally.add(Count::StatusRepeated);
        }
        if let Some(agent) = sender {
            self.send(Site::Bus, Site::Agent(agent), Msg::Stored(update, true));
        }
    }
}
