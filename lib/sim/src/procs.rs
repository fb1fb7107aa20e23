//! The processes of one machine: they outlive the agent and end when they will, or with the machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meso_core::agent::Ending;
use meso_core::id::TaskId;
use meso_core::resources::Resources;
use meso_core::seed::Seed;
use meso_core::wire::Launch;

/// From TERM to the end of a process that obeys it, at most, milliseconds.
const OBEY_MS_MAX: u64 = 200;
/// What one spawn takes at most, milliseconds.
const SPAWN_MS_MAX: u64 = 60;
/// So many process numbers are given out while they suffice, so that each is soon given to another.
const NUMBERS: u32 = 12;
/// The most processes of others on a machine; of more the oldest ends.
const STRANGERS_MAX: usize = 4;
/// How long a tick is in which the machine says when a process was begun, milliseconds.
const TICK_MS: u64 = 10;

/// Where a process is.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Its container is being made.
    Made,
    /// It runs.
    Running,
    /// It is over; nothing of it is left but this.
    Over(Ending),
    /// It is over and left no record: its supervisor was killed, or its machine went down.
    Vanished,
}

/// By what a process is told from a later one of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its number.
    pub number: u32,
    /// When it was begun, ticks of its boot.
    pub born: u64,
    /// Under which boot.
    pub boot: u64,
}

/// What looking for a task's process finds.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Its container is being made.
    Made,
    /// A process bears its mark.
    Runs {
        /// Whether it is the task's.
        is_its: bool,
    },
    /// Its record says how it ended.
    Ended(Ending),
    /// Nothing of it is left.
    Vanished {
        /// With the boot under which it ran.
        rebooted: bool,
        /// Its number is another's by now.
        replaced: bool,
    },
}

/// Whoever looks for a process: by what it knows it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// By when it was begun.
    pub by_birth: bool,
    /// By the boot.
    pub by_boot: bool,
}

/// Who has a process number now.
#[derive(Clone, Debug)]
struct Seat {
    born: u64,
    /// The task; none if it is a process of others.
    task: Option<TaskId>,
}

/// A process tree in its container.
#[derive(Clone, Debug)]
pub struct Proc {
    /// Where it is.
    pub phase: Phase,
    /// What it holds.
    pub resources: Resources,
    /// When it ends by what is known now; an entry of the agenda for another time is void.
    pub ends_ms: u64,
    /// What ends it then.
    how: Ending,
    ignores_term: bool,
    mark: Mark,
}

/// The process table of a machine.
#[derive(Clone, Debug, Default)]
pub struct SimProcs {
    procs: BTreeMap<TaskId, Proc>,
    used: Resources,
    seats: BTreeMap<u32, Seat>,
    /// The numbers of processes of others, the oldest first.
    strangers: VecDeque<u32>,
    /// Numbers that were given out before, the latest of them last.
    given: BTreeSet<u32>,
    freed: Option<u32>,
    boot: u64,
    booted_ms: u64,
}

/// When a spawned process starts and ends, milliseconds of true time.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When it runs its program; none if it never will.
    pub starts_ms: Option<u64>,
    /// When it ends.
    pub ends_ms: u64,
    /// Its number was another's before.
    pub is_reused: bool,
}

impl SimProcs {
    /// Starts a process; says when it will have started and when it ends if nobody ends it before.
    ///
    /// # Errors
    /// What all processes then hold, if it cannot be held together.
    pub fn spawn(&mut self, launch: &Launch, now_ms: u64, seed: &mut Seed) -> Result<Times, String> {
        let starts_ms = now_ms + 1 + seed.below(SPAWN_MS_MAX);
        let fate = fate(seed);
        let lasts_ms = match seed.below(8) {
            0 => 1,
            1..=4 => 1 + seed.below(2_000),
            5 | 6 => 1 + seed.below(15_000),
            _ => 1 + seed.below(60_000),
        };
        let runs = !matches!(fate, Ending::NotStarted { .. });
        let ends_ms = if runs { starts_ms + lasts_ms } else { starts_ms };
        let ignores_term = seed.below(5) == 0;
        let used = self.used.checked_add(&launch.resources).ok_or_else(|| format!("{} and {} overlap", self.used, launch.resources))?;
        self.used = used;
        let number = self.free_number(seed);
        let mark = Mark { number, born: self.ticks(now_ms), boot: self.boot };
        let is_reused = !self.given.insert(number);
        self.seats.insert(number, Seat { born: mark.born, task: Some(launch.task.clone()) });
        let proc = Proc { phase: Phase::Made, resources: launch.resources.clone(), how: fate, ends_ms, ignores_term, mark };
        self.procs.insert(launch.task.clone(), proc);
        Ok(Times { starts_ms: runs.then_some(starts_ms), ends_ms, is_reused })
    }

    fn ticks(&self, now_ms: u64) -> u64 {
        (now_ms - self.booted_ms) / TICK_MS
    }

    fn free_number(&self, seed: &mut Seed) -> u32 {
        let free: Vec<u32> = (1..=NUMBERS).filter(|number| !self.seats.contains_key(number)).collect();
        if free.is_empty() {
            return (NUMBERS + 1..).find(|number| !self.seats.contains_key(number)).expect("there are more numbers than processes");
        }
        free[seed.below(free.len() as u64) as usize]
    }

    /// Somebody else's process begins, under the number that became free last if it still is.
    pub fn begin_stranger(&mut self, now_ms: u64) {
        let Some(number) = self.freed.take().filter(|number| !self.seats.contains_key(number)) else { return };
        self.seats.insert(number, Seat { born: self.ticks(now_ms), task: None });
        self.strangers.push_back(number);
        if self.strangers.len() > STRANGERS_MAX {
            let oldest = self.strangers.pop_front().expect("there are more than none");
            self.vacate(oldest);
        }
    }

    fn vacate(&mut self, number: u32) {
        self.seats.remove(&number);
        self.freed = Some(number);
    }

    /// What an agent finds that looks for the process of a task in this way; none if none was ever made.
    pub fn find(&self, task: &TaskId, look: Look) -> Option<Found> {
        let proc = self.procs.get(task)?;
        let Mark { number, born, boot } = proc.mark;
        Some(match &proc.phase {
            Phase::Over(ending) => Found::Ended(ending.clone()),
            Phase::Made => Found::Made,
            _ => match self.seats.get(&number) {
                Some(seat) if (seat.born == born || !look.by_birth) && (boot == self.boot || !look.by_boot) => Found::Runs { is_its: seat.task.as_ref() == Some(task) },
                seat => Found::Vanished { rebooted: boot != self.boot, replaced: seat.is_some() },
            },
        })
    }

    /// The supervisor of a running task is killed: nothing of it is left, and no record. Says which.
    pub fn vanish(&mut self, seed: &mut Seed) -> Option<TaskId> {
        let running: Vec<&TaskId> = self.procs.iter().filter(|(_, proc)| proc.phase == Phase::Running).map(|(task, _)| task).collect();
        if running.is_empty() {
            return None;
        }
        let task = running[seed.below(running.len() as u64) as usize].clone();
        let proc = self.procs.get_mut(&task).expect("it was just found");
        proc.phase = Phase::Vanished;
        let number = proc.mark.number;
        self.used = self.used.checked_sub(&proc.resources).unwrap_or_default();
        self.vacate(number);
        Some(task)
    }

    /// What all live processes hold.
    pub fn used(&self) -> &Resources {
        &self.used
    }

    /// How many are alive.
    pub fn alive(&self) -> usize {
        self.procs.values().filter(|proc| proc.lives()).count()
    }

    /// The program runs now; false if the process is over already.
    pub fn start(&mut self, task: &TaskId) -> bool {
        match self.procs.get_mut(task) {
            Some(proc) if proc.phase == Phase::Made => {
                proc.phase = Phase::Running;
                true
            }
            _ => false,
        }
    }

    /// Its time has come; how it ended, if this was its time.
    pub fn end(&mut self, task: &TaskId, now_ms: u64) -> Option<Ending> {
        let proc = self.procs.get_mut(task)?;
        if !proc.lives() || proc.ends_ms != now_ms {
            return None;
        }
        let how = proc.how.clone();
        proc.phase = Phase::Over(how.clone());
        let number = proc.mark.number;
        self.used = self.used.checked_sub(&proc.resources).unwrap_or_default();
        self.vacate(number);
        Some(how)
    }

    /// TERM, and KILL after the grace; says when it ends now, if that is earlier, and whether it ignores TERM.
    pub fn kill(&mut self, task: &TaskId, grace_ms: u64, now_ms: u64, seed: &mut Seed) -> Option<(u64, bool)> {
        let proc = self.procs.get_mut(task)?;
        if !proc.lives() {
            return None;
        }
        let (at_ms, how) = if proc.ignores_term {
            (now_ms + grace_ms.max(1), Ending::Exited { code: None, signal: Some(9) })
        } else {
            (now_ms + 1 + seed.below(OBEY_MS_MAX), Ending::Exited { code: None, signal: Some(15) })
        };
        if at_ms >= proc.ends_ms {
            return None;
        }
        proc.ends_ms = at_ms;
        proc.how = how;
        Some((at_ms, proc.ignores_term))
    }

    /// The machine starts anew: what ran is gone, what had ended left its record. Says which tasks were lost.
    ///
    /// A boot goes as the one before: where a task was, there may be a process of others, begun at the very same tick.
    pub fn reboot(&mut self, now_ms: u64, seed: &mut Seed) -> Vec<TaskId> {
        self.seats.clear();
        self.strangers.clear();
        (self.boot, self.booted_ms) = (self.boot + 1, now_ms);
        self.used = Resources::default();
        let mut lost = Vec::new();
        for (task, proc) in self.procs.iter_mut().filter(|(_, proc)| proc.lives()) {
            proc.phase = Phase::Vanished;
            lost.push(task.clone());
            if seed.below(2) == 0 && self.strangers.len() < STRANGERS_MAX {
                self.seats.insert(proc.mark.number, Seat { born: proc.mark.born, task: None });
                self.strangers.push_back(proc.mark.number);
            }
        }
        lost
    }

    /// The record of an ended process is no longer needed.
    pub fn forget(&mut self, task: &TaskId) {
        if self.procs.get(task).is_some_and(|proc| !proc.lives()) {
            self.procs.remove(task);
        }
    }
}

impl Proc {
    fn lives(&self) -> bool {
        matches!(self.phase, Phase::Made | Phase::Running)
    }
}

/// What a process will do if it is left alone.
fn fate(seed: &mut Seed) -> Ending {
    match seed.below(40) {
        0 => Ending::NotStarted { code: Some(127), message: "no such program".to_owned() },
        1 => Ending::NotStarted { code: Some(126), message: "not executable".to_owned() },
        2 => Ending::Exited { code: None, signal: Some(11) },
        3 => Ending::Timeout { code: None, signal: Some(15) },
        4 => Ending::MemoryLimit { limit_bytes: 256 << 20, peak_bytes: 256 << 20 },
        5..=9 => Ending::Exited { code: Some(1 + seed.below(255) as i32), signal: None },
        _ => Ending::Exited { code: Some(0), signal: None },
    }
}
