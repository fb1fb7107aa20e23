//! An operator who declares agents gone, and the machines of those that are, given out anew.

use std::collections::BTreeMap;

use meso_core::id::{AgentId, TaskId};
use meso_core::master::{AgentDoc, AgentState, Effect, Event};
use meso_core::task::OnUnreachable;
use meso_core::wire::agent::{Command, Held, Order};
use meso_core::wire::operator::Operation;
use meso_core::wire::{Refusal, RefusalCode};

use crate::judge::law;
use crate::net::Site;
use crate::plant::Plant;
use crate::tally::Count;
use crate::world::{Item, World};

/// How long it takes until the machine of an agent that left is given out anew, at most, milliseconds.
const ANEW_MS_MAX: u64 = 10_000;
/// The same where an agent of the release before left its tasks behind: until they have ended by themselves, milliseconds.
const ANEW_LATE_MS: u64 = 75_000;

impl World {
    /// Asks whoever leads to declare an agent gone, mostly only if it is away.
    pub(crate) fn declare_gone(&mut self, which: usize) {
        let force = self.seed.below(3) == 0;
        let caller = self.next_caller();
        let Some(leader) = (0..self.masters.len()).find(|master| self.masters[*master].listens()) else { return };
        let agent = self.agents[which].id.clone();
        self.judge.declare(&agent);
        self.story.tell(self.now_ms, || format!("an operator asks master {leader} to declare agent {which} gone, force {force}"));
        self.master_event(leader, Event::Operation { caller, operation: Box::new(Operation::MarkGone { agent, force }) });
    }

    /// An agent that was refused is no more. Only one that was declared gone may be, and then nothing of it runs on.
    pub(crate) fn agent_leaves(&mut self, which: usize, refusal: &Refusal) {
        let alive = self.agents[which].procs.alive();
        if !self.judge.is_declared(&self.agents[which].id) {
            return self.judge.fail(law::LIVENESS, || format!("agent {which} was refused: {}", refusal.message));
        }
        if refusal.code == RefusalCode::AgentGone {
            if alive > 0 {
                return self.judge.fail(law::GONE, || format!("agent {which} leaves and {alive} of its tasks run on"));
            }
            self.tally.add(Count::LeftGone);
        }
        self.story.tell(self.now_ms, || format!("agent {which} leaves: {}", refusal.message));
        let wait_ms = if alive > 0 { ANEW_LATE_MS } else { 1 + self.seed.below(ANEW_MS_MAX) };
        let anew = AgentId::fresh(self.seed.draw());
        self.agents[which].begin_anew(anew);
        self.judge.begins_anew(which);
        self.wires[Site::Agent(which).index()].outbox.clear();
        self.agenda.enter(self.now_ms + wait_ms, Item::Start(Site::Agent(which)));
    }
}

impl World {
    /// The registry as a leader with a planted bug finds it.
    pub(crate) fn found_agents(&self, doc: String) -> String {
        if self.plant != Plant::GoneForgotten {
            return doc;
        }
        let Ok(mut docs) = serde_json::from_str::<BTreeMap<AgentId, AgentDoc>>(&doc) else { return doc };
        for agent in docs.values_mut().filter(|agent| agent.gone) {
            (agent.gone, agent.generation) = (false, 0);
        }
        serde_json::to_string(&docs).expect("a map of plain texts and numbers is JSON")
    }

    /// A registration as a leader with a planted bug hears it.
    pub(crate) fn as_forgotten(&self, mut event: Event) -> Event {
        if let (Plant::UnkeptForgotten, Event::Hello { hello, .. }) = (self.plant, &mut event) {
            hello.tasks.iter_mut().for_each(|held| held.launch.spec.on_unreachable = None);
        }
        event
    }

    /// An agent that a leader took for unreachable registers: which, and its tasks that were not to run on.
    pub(crate) fn returns(&self, which: usize, event: &Event) -> Option<(AgentId, Vec<TaskId>)> {
        let Event::Hello { hello, .. } = event else { return None };
        let lead = self.masters[which].machine.lead()?;
        lead.agents().get(&hello.agent).filter(|entry| entry.state == AgentState::Unreachable)?;
        let is_unkept = |held: &&Held| held.launch.spec.on_unreachable == Some(OnUnreachable::Kill) && !held.update.is_final;
        Some((hello.agent.clone(), hello.tasks.iter().filter(is_unkept).map(|held| held.launch.task.clone()).collect()))
    }

    /// If it was taken in, the end of each of them is ordered, whoever wanted it.
    pub(crate) fn judge_return(&mut self, which: usize, agent: &AgentId, unkept: &[TaskId], effects: &[Effect]) {
        let Some(lead) = self.masters[which].machine.lead() else { return };
        if lead.agents().get(agent).is_none_or(|entry| entry.state != AgentState::Active) {
            return;
        }
        let ordered = |task: &TaskId| effects.iter().any(|effect| matches!(effect, Effect::Command { command: Command { order: Order::Kill { task: ended, .. }, .. }, .. } if ended == task));
        if let Some(task) = unkept.iter().find(|task| lead.tasks().contains_key(*task) && !ordered(task)) {
            self.judge.fail(law::UNKEPT, || format!("master {which} takes agent {agent} in again and lets task {task} run on"));
        }
    }
}
