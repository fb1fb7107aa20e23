//! The processes of one machine: they outlive the agent and end when they will, or with the machine.

use std::collections::BTreeMap;

use meso_core::agent::Ending;
use meso_core::id::TaskId;
use meso_core::resources::Resources;
use meso_core::seed::Seed;
use meso_core::wire::Launch;

/// From TERM to the end of a process that obeys it, at most, milliseconds.
const OBEY_MS_MAX: u64 = 200;
/// What one spawn takes at most, milliseconds.
const SPAWN_MS_MAX: u64 = 60;

/// Where a process is.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Its container is being made.
    Made,
    /// It runs.
    Running,
    /// It is over; nothing of it is left but this.
    Over(Ending),
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
}

/// The process table of a machine.
#[derive(Clone, Debug, Default)]
pub struct SimProcs {
    procs: BTreeMap<TaskId, Proc>,
    used: Resources,
}

/// When a spawned process starts and ends, milliseconds of true time.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When it runs its program; none if it never will.
    pub starts_ms: Option<u64>,
    /// When it ends.
    pub ends_ms: u64,
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
        let proc = Proc { phase: Phase::Made, resources: launch.resources.clone(), how: fate, ends_ms, ignores_term: seed.below(5) == 0 };
        let used = self.used.checked_add(&launch.resources).ok_or_else(|| format!("{} and {} overlap", self.used, launch.resources))?;
        self.used = used;
        self.procs.insert(launch.task.clone(), proc);
        Ok(Times { starts_ms: runs.then_some(starts_ms), ends_ms })
    }

    /// What all live processes hold.
    pub fn used(&self) -> &Resources {
        &self.used
    }

    /// How many are alive.
    pub fn alive(&self) -> usize {
        self.procs.values().filter(|proc| !matches!(proc.phase, Phase::Over(_))).count()
    }

    /// The process of a task.
    pub fn of(&self, task: &TaskId) -> Option<&Proc> {
        self.procs.get(task)
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
        if matches!(proc.phase, Phase::Over(_)) || proc.ends_ms != now_ms {
            return None;
        }
        let how = proc.how.clone();
        proc.phase = Phase::Over(how.clone());
        self.used = self.used.checked_sub(&proc.resources).unwrap_or_default();
        Some(how)
    }

    /// TERM, and KILL after the grace; says when it ends now, if that is earlier, and whether it ignores TERM.
    pub fn kill(&mut self, task: &TaskId, grace_ms: u64, now_ms: u64, seed: &mut Seed) -> Option<(u64, bool)> {
        let proc = self.procs.get_mut(task)?;
        if matches!(proc.phase, Phase::Over(_)) {
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
    pub fn reboot(&mut self) -> Vec<TaskId> {
        let lost: Vec<TaskId> = self.procs.iter().filter(|(_, proc)| !matches!(proc.phase, Phase::Over(_))).map(|(task, _)| task.clone()).collect();
        for task in &lost {
            self.procs.remove(task);
        }
        self.used = Resources::default();
        lost
    }

    /// The record of an ended process is no longer needed.
    pub fn forget(&mut self, task: &TaskId) {
        if self.procs.get(task).is_some_and(|proc| matches!(proc.phase, Phase::Over(_))) {
            self.procs.remove(task);
        }
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
