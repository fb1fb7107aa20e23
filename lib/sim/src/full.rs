//! Disks of agents that take nothing more for a while, or fail once: what an agent does that cannot write things down.

use std::collections::BTreeSet;

use meso_core::agent::{Ending, Event, Usage};
use meso_core::id::AgentId;
use meso_core::master::{self, Effect, Reply};
use meso_core::wire::Launch;
use meso_core::wire::agent::Beaten;

use crate::judge::law;
use crate::plant::Plant;
use crate::tally::Count;
use crate::world::{Item, World};

/// How long a disk is full, at most, milliseconds.
const FULL_MS_MAX: u64 = 30_000;
/// How often an agent looks at its disk, milliseconds.
const LOOK_MS: u64 = 1_000;
/// How much room a full disk still has for what runs, at most, bytes: there may be none.
const RESERVE_BYTES_MAX: u64 = 16 * 1024;
/// How soon the service manager starts an agent again that could not begin, at most, milliseconds.
const AGAIN_MS_MAX: u64 = 5_000;

impl World {
    /// A disk fails at its next write, or is full for a while.
    pub(crate) fn disk_fault(&mut self, which: usize) {
        if self.seed.below(3) == 0 {
            self.story.tell(self.now_ms, || format!("the next write of agent {which} will fail"));
            return self.agents[which].disk.fail_once();
        }
        if self.agents[which].disk.is_full() {
            return;
        }
        let reserve_bytes = if self.seed.below(2) == 0 { 0 } else { self.seed.below(RESERVE_BYTES_MAX) };
        let back_ms = 100 + self.seed.below(FULL_MS_MAX);
        self.agents[which].disk.fill(reserve_bytes as usize);
        self.tally.add(Count::DiskFull);
        self.story.tell(self.now_ms, || format!("the disk of agent {which} is full for {back_ms} ms, {reserve_bytes} bytes are left"));
        self.agenda.enter(self.now_ms + back_ms, Item::DiskFree(which));
        self.look_at_disk_soon(which);
    }

    /// There is room again.
    pub(crate) fn disk_free(&mut self, which: usize) {
        if self.agents[which].disk.is_full() {
            self.agents[which].disk.free();
            self.story.tell(self.now_ms, || format!("the disk of agent {which} has room again"));
            self.look_at_disk_soon(which);
        }
    }

    pub(crate) fn look_at_disk_soon(&mut self, which: usize) {
        let at_ms = self.now_ms + self.seed.below(LOOK_MS);
        let run = self.agents[which].run;
        self.agenda.enter(at_ms, Item::DiskLook(which, run));
    }

    /// The agent's process looks at its disk.
    pub(crate) fn look_at_disk(&mut self, which: usize, run: u64) {
        let site = &mut self.agents[which];
        let is_full = site.disk.is_full();
        if site.run != run || site.machine.is_none() || site.saw_full == is_full {
            return;
        }
        site.saw_full = is_full;
        self.agent_event(which, Event::Disk { fault: is_full.then(|| "its disk is full".to_owned()) });
    }

    /// A launch for which the disk has no room: nothing of it is made.
    pub(crate) fn is_not_made(&mut self, which: usize, launch: &Launch) -> bool {
        if !self.agents[which].disk.is_full() || self.seed.below(4) == 0 {
            return false;
        }
        self.tally.add(Count::DiskNotMade);
        let run = self.agents[which].run;
        let ended = Event::Ended { task: launch.task.clone(), ending: Ending::Lost { reason: "agent_disk" }, usage: Usage::default() };
        self.agenda.enter(self.now_ms + 1, Item::Local(which, run, Box::new(ended)));
        true
    }

    /// The disk refused what an agent must not forget, and a new log as well: the process ends, and nothing of the batch is
    /// shown to anybody.
    pub(crate) fn agent_gives_up(&mut self, which: usize) {
        self.tally.add(Count::WriteRefused);
        self.story.tell(self.now_ms, || format!("agent {which} cannot write its log"));
        self.crash_agent(which);
    }

    /// There is not even room for the head of a log.
    pub(crate) fn agent_cannot_begin(&mut self, which: usize) {
        self.tally.add(Count::StartRefused);
        self.agents[which].machine = None;
        self.agents[which].disk.crash(&mut self.seed);
        let at_ms = self.now_ms + 1 + self.seed.below(AGAIN_MS_MAX);
        self.agenda.enter(at_ms, Item::Start(crate::net::Site::Agent(which)));
    }
}

impl World {
    /// What a leader was told of disks by this event, once it has taken it in.
    pub(crate) fn heard_of_disk(&mut self, which: usize, heard: Option<(AgentId, bool)>, effects: &[Effect]) {
        let Some((agent, is_closed)) = heard else { return };
        let is_taken = effects.iter().any(|effect| matches!(effect, Effect::Reply { reply: Reply::Beaten(Beaten { known: true, .. }) | Reply::Welcome(_), .. }));
        if is_taken {
            let closed = &mut self.masters[which].closed;
            if is_closed { closed.insert(agent) } else { closed.remove(&agent) };
        }
    }

    /// A leader makes an offer: of no agent that told it that it takes nothing.
    pub(crate) fn judge_closed(&mut self, which: usize, agent: &AgentId) {
        if self.masters[which].closed.contains(agent) {
            self.judge.fail(law::CLOSED, || format!("master {which} offers what agent {agent} has, which told it that its disk is full"));
        }
    }

    /// A beat as a leader with a planted bug hears it.
    pub(crate) fn as_open(&self, event: &mut master::Event) {
        if let (Plant::ClosedUnheard, master::Event::Beat { beat, .. }) = (self.plant, event) {
            beat.closed = None;
        }
    }
}

/// What an event says of an agent's disk: whose, and whether it takes nothing.
pub(crate) fn told_of_disk(event: &master::Event) -> Option<(AgentId, bool)> {
    match event {
        master::Event::Beat { beat, .. } => Some((beat.agent.clone(), beat.closed.is_some())),
        master::Event::Hello { hello, .. } => Some((hello.agent.clone(), false)),
        _ => None,
    }
}

/// The agents that told a leader that they take nothing.
pub(crate) type Closed = BTreeSet<AgentId>;
