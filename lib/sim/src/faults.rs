//! What goes wrong, and how it is put right again.

use crate::net::Site;
use crate::pipes::seat;
use crate::tally::Count;
use crate::world::{Item, World};

/// How long a cut lasts, at most, milliseconds: longer than any session, offer or agent's silence.
const CUT_MS_MAX: u64 = 50_000;
/// How long a process stands still, at most, milliseconds.
const FREEZE_MS_MAX: u64 = 12_000;
/// How long a process of a pipeline stands still, at most, milliseconds: longer than its seat in the session lasts.
const PIPE_FREEZE_MS_MAX: u64 = 25_000;
/// How long the store is out of service, at most, milliseconds.
const STORE_MS_MAX: u64 = 12_000;
/// How long a client library takes to notice that its connection is gone, at most, milliseconds.
const NOTICE_MS_MAX: u64 = 3_000;

impl World {
    /// One fault of those that this run has, and the time of the next one.
    pub(crate) fn fault(&mut self) {
        if self.calm {
            return;
        }
        let wait_ms = 1 + self.seed.below(2 * self.plan.fault_every_ms);
        self.agenda.enter(self.now_ms + wait_ms, Item::Fault);
        let (masters, agents, clients) = (self.masters.len() as u64, self.agents.len() as u64, self.clients.len() as u64);
        let master = self.seed.below(masters) as usize;
        let agent = self.seed.below(agents) as usize;
        let client = self.seed.below(clients) as usize;
        let faults = self.plan.faults.clone();
        if !self.pipes.is_empty() && self.seed.below(3) == 0 {
            return self.pipe_fault();
        }
        if (faults.disk || faults.supervisor || faults.store_revert) && self.seed.below(4) == 0 {
            return self.machine_fault(agent);
        }
        match self.seed.below(if faults.gone { 14 } else { 12 }) {
            0 | 1 if faults.master_crash => self.crash_master(master),
            2 if faults.agent_crash => self.crash_agent(agent),
            3 if faults.reboot => self.reboot_agent(agent),
            4 if faults.client_crash && self.seed.below(4) == 0 => self.crash_client(client),
            5 if faults.client_kill && self.seed.below(2) == 0 => self.interrupt_client(client),
            6..=8 if faults.cut => {
                let site = self.some_site(master, agent, client);
                self.cut(site);
            }
            9 if faults.freeze => {
                let site = self.some_site(master, agent, client);
                let until_ms = self.now_ms + 100 + self.seed.below(FREEZE_MS_MAX);
                self.frozen_ms[site.index()] = until_ms;
                self.tally.add(Count::Frozen);
                self.story.tell(self.now_ms, || format!("{site:?} stands still until {until_ms}"));
            }
            10 if faults.store => {
                self.store_down = true;
                self.tally.add(Count::StoreDown);
                let back_ms = 100 + self.seed.below(STORE_MS_MAX);
                self.story.tell(self.now_ms, || format!("the store is out of service for {back_ms} ms"));
                self.agenda.enter(self.now_ms + back_ms, Item::StoreBack);
            }
            11 if faults.store_loss && self.seed.below(3) == 0 => {
                self.store.lose();
                self.tally.add(Count::StoreLost);
                self.story.tell(self.now_ms, || "lease and registry are lost".to_owned());
                if self.seed.below(2) == 0 {
                    // The whole control plane starts anew with an empty store.
                    for which in 0..self.masters.len() {
                        self.crash_master(which);
                    }
                }
            }
            12 | 13 if faults.gone => self.declare_gone(agent),
            _ => {}
        }
    }

    /// A fault of the machine of an agent, or of the store.
    fn machine_fault(&mut self, agent: usize) {
        let faults = &self.plan.faults;
        match self.seed.below(6) {
            0 | 1 if faults.disk => self.disk_fault(agent),
            2 | 3 if faults.supervisor => self.kill_supervisor(agent),
            4 | 5 if faults.store_revert => self.revert_store(),
            _ => {}
        }
    }

    /// A fault of one process of a pipeline.
    fn pipe_fault(&mut self) {
        let pipe = self.seed.below(self.pipes.len() as u64) as usize;
        let member = seat(pipe, self.seed.below(1 + self.pipes[pipe].tails as u64) as usize);
        let faults = self.plan.faults.clone();
        match self.seed.below(8) {
            0 | 1 if faults.pipe_kill => self.kill_member(member),
            2 if faults.pipe_kill && self.seed.below(2) == 0 && self.pipes[pipe].started => self.end_filter(pipe),
            3..=5 if faults.cut => self.cut(Site::Member(member)),
            6 if faults.freeze => {
                let until_ms = self.now_ms + 100 + self.seed.below(PIPE_FREEZE_MS_MAX);
                self.frozen_ms[Site::Member(member).index()] = until_ms;
                self.tally.add(Count::Frozen);
                self.story.tell(self.now_ms, || format!("member {member} stands still until {until_ms}"));
            }
            _ => {}
        }
    }

    fn some_site(&mut self, master: usize, agent: usize, client: usize) -> Site {
        match self.seed.below(3) {
            0 => Site::Master(master),
            1 => Site::Agent(agent),
            _ => Site::Client(client),
        }
    }

    fn cut(&mut self, site: Site) {
        let way = self.seed.below(4);
        let length_ms = match self.seed.below(3) {
            0 => 50 + self.seed.below(1_000),
            1 => 500 + self.seed.below(8_000),
            _ => 1_000 + self.seed.below(CUT_MS_MAX),
        };
        self.cut_off(site, way, length_ms);
    }

    /// A connection is gone for as long as this, in both directions.
    pub(crate) fn cut_wholly(&mut self, site: Site, length_ms: u64) {
        self.cut_off(site, 0, length_ms);
    }

    fn cut_off(&mut self, site: Site, way: u64, length_ms: u64) {
        let notice_ms = self.seed.below(NOTICE_MS_MAX);
        let wire = &mut self.wires[site.index()];
        if !wire.is_whole() {
            return;
        }
        wire.cuts += 1;
        let cuts = wire.cuts;
        // One direction only: for the library that is no cut at all.
        wire.out_cut = way != 1;
        wire.in_cut = way != 2;
        self.tally.add(if wire.out_cut && wire.in_cut { Count::Cut } else { Count::CutOneWay });
        self.story.tell(self.now_ms, || format!("{site:?} is cut off for {length_ms} ms ({})", ["wholly", "inbound", "outbound", "wholly"][way as usize]));
        if let (Site::Master(which), false) = (site, way == 1 || way == 2) {
            self.agenda.enter(self.now_ms + notice_ms, Item::Notice(which, cuts, false));
        }
        self.agenda.enter(self.now_ms + length_ms, Item::Uncut(site, cuts));
    }

    /// The connection is back: the library first tells that it was gone, then flushes what waited.
    pub(crate) fn uncut(&mut self, site: Site, cuts: u64) {
        let wire = &mut self.wires[site.index()];
        if wire.cuts != cuts || wire.is_whole() {
            return;
        }
        let one_way = !(wire.out_cut && wire.in_cut);
        wire.out_cut = false;
        wire.in_cut = false;
        self.story.tell(self.now_ms, || format!("{site:?} is connected again"));
        if let Site::Master(which) = site {
            // What was still to be noticed of the cut is noticed now, or when the process moves again.
            let wire = &mut self.wires[site.index()];
            wire.cuts += 1;
            let cuts = wire.cuts;
            if !one_way {
                self.agenda.enter(self.now_ms, Item::Notice(which, cuts, false));
            }
            self.agenda.enter(self.now_ms, Item::Notice(which, cuts, true));
        }
        let waited = std::mem::take(&mut self.wires[site.index()].outbox);
        for (to, msg) in waited {
            self.tally.add(Count::Late);
            self.send(site, to, msg);
        }
        match site {
            Site::Client(which) => self.client_back(which),
            Site::Member(which) => self.member_back(which),
            _ => {}
        }
    }

    /// The end of the faults: everything is connected and will run again.
    pub(crate) fn heal_all(&mut self) {
        self.calm = true;
        self.story.tell(self.now_ms, || "the faults are over".to_owned());
        self.store_down = false;
        (0..self.agents.len()).for_each(|which| self.disk_free(which));
        for which in 0..self.masters.len() {
            self.uncut(Site::Master(which), self.wires[Site::Master(which).index()].cuts);
        }
        for which in 0..self.agents.len() {
            self.uncut(Site::Agent(which), self.wires[Site::Agent(which).index()].cuts);
        }
        for which in 0..self.clients.len() {
            self.uncut(Site::Client(which), self.wires[Site::Client(which).index()].cuts);
        }
        for which in 0..self.members.len() {
            self.uncut(Site::Member(which), self.wires[Site::Member(which).index()].cuts);
        }
    }
}
