//! An agent that starts looks for the processes of its tasks, among those of others.

use meso_core::agent::{Ending, Event, Usage};
use meso_core::id::TaskId;
use meso_core::wire::Launch;

use crate::judge::law;
use crate::plant::Plant;
use crate::procs::{Found, Look};
use crate::tally::Count;
use crate::world::{Item, World};

/// How long the end of a supervisor takes to reach the agent's process, at most, milliseconds.
const NOTICE_MS_MAX: u64 = 2_000;

impl World {
    /// Looks for the containers of the tasks that the log tells of.
    pub(crate) fn readopt(&mut self, which: usize, live: &[Launch], rebooted: bool) {
        for launch in live {
            let task = launch.task.clone();
            let lost = |reason| Event::Ended { task: task.clone(), ending: Ending::Lost { reason }, usage: Usage::default() };
            let event = match self.agents[which].procs.find(&task, self.look()) {
                Some(Found::Made) => continue,
                Some(Found::Runs { is_its }) => {
                    if !is_its {
                        self.judge.fail(law::STRANGERS, || format!("agent {which} takes a process of others for that of task {task}"));
                        return;
                    }
                    self.tally.add(Count::RestartAdopted);
                    if self.plant == Plant::KillOnRestart {
                        self.kill_proc(which, &task, 0);
                    }
                    Event::Started { task: task.clone() }
                }
                Some(Found::Ended(ending)) => {
                    self.tally.add(Count::EndedWhileDown);
                    if self.plant == Plant::EndedReportedLost { lost("supervisor_lost") } else { Event::Ended { task: task.clone(), ending, usage: Usage::default() } }
                }
                Some(Found::Vanished { rebooted, replaced }) => {
                    self.tally.add(if rebooted { Count::LostInReboot } else { Count::SupervisorMissed });
                    if replaced {
                        self.tally.add(if rebooted { Count::StrangerAfterBoot } else { Count::StrangerFound });
                    }
                    lost(if rebooted { "agent_rebooted" } else { "supervisor_lost" })
                }
                None if rebooted => lost("agent_rebooted"),
                None => {
                    self.tally.add(Count::NeverSpawned);
                    lost("agent_restarted")
                }
            };
            self.agent_event(which, event);
        }
    }

    /// By what processes are known again.
    pub(crate) fn look(&self) -> Look {
        Look { by_birth: self.plant != Plant::AdoptByNumber, by_boot: self.plant != Plant::BootIgnored }
    }

    /// The supervisor of a task is killed, and with it all that it looked after.
    pub(crate) fn kill_supervisor(&mut self, which: usize) {
        let Some(task) = self.agents[which].procs.vanish(&mut self.seed) else { return };
        let ending = Ending::Lost { reason: "supervisor_lost" };
        self.judge.ended(&task, ending.clone());
        self.tally.add(Count::SupervisorKilled);
        self.story.tell(self.now_ms, || format!("agent {which}: the supervisor of {task} is killed"));
        let at_ms = self.now_ms + self.seed.below(NOTICE_MS_MAX);
        let run = self.agents[which].run;
        self.agenda.enter(at_ms, Item::Local(which, run, Box::new(Event::Ended { task, ending, usage: Usage::default() })));
        self.number_is_free(which);
        if self.plan.faults.agent_crash && self.seed.below(3) == 0 {
            // Whoever looks for room in memory takes more than one.
            self.crash_agent(which);
        }
    }

    /// A process has ended: its number may soon be that of another.
    pub(crate) fn number_is_free(&mut self, which: usize) {
        if self.seed.below(2) == 0 {
            self.agents[which].procs.begin_stranger(self.now_ms);
        }
    }

    /// Whom the signal of an agent reaches that ends a task: nobody but the task.
    pub(crate) fn signalled(&mut self, which: usize, task: &TaskId) {
        match self.agents[which].procs.find(task, self.look()) {
            Some(Found::Runs { is_its: false }) => self.judge.fail(law::STRANGERS, || format!("agent {which} ends a process of others in place of task {task}")),
            Some(Found::Vanished { replaced: true, .. }) => self.tally.add(Count::StrangerSpared),
            _ => {}
        }
    }
}
