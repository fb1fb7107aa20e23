//! What ended here a short while ago and is settled.
//!
//! A status that the bus has stored and the leader has seen is settled, and the agent forgets it. If then both are lost,
//! the next leader is asked by whoever launched the task and has nobody to ask but its agent: one that knew nothing would
//! make it say that the task never ran, and it would be launched again. An agent that restarts finds them in its log.

use std::collections::VecDeque;

use crate::id::TaskId;
use crate::wire::Task;
use crate::wire::agent::Held;

/// How many are remembered: each is told with the first registration under an epoch.
const RECENT_MAX: usize = 64;
/// For how long, milliseconds: a bus and a leader that were lost are back by then.
const RECENT_MS: u64 = 600_000;

/// See the module; the oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<(u64, Held)>);

impl Recent {
    /// A task is settled now. Of its launch only what names it is kept: nobody launches it again.
    pub(super) fn settled(&mut self, now_ms: u64, mut held: Held) {
        held.settled = true;
        held.launch.spec = Task::default();
        held.update.command = String::new();
        if self.0.len() == RECENT_MAX {
            self.0.pop_front();
        }
        self.0.push_back((now_ms, held));
    }

    /// All that were not forgotten yet.
    pub(super) fn all(&self) -> impl Iterator<Item = &Held> {
        self.0.iter().map(|(_, held)| held)
    }

    /// The tasks that are remembered now.
    pub(super) fn tasks(&mut self, now_ms: u64) -> impl Iterator<Item = &TaskId> {
        while self.0.front().is_some_and(|(since_ms, _)| since_ms.saturating_add(RECENT_MS) <= now_ms) {
            self.0.pop_front();
        }
        self.0.iter().map(|(_, held)| &held.launch.task)
    }

    pub(super) fn get(&self, task: &TaskId) -> Option<&Held> {
        self.all().find(|held| held.launch.task == *task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testagent::TestAgent;
    use crate::agent::{Effect, Event};
    use crate::task::TaskState;
    use crate::wire::agent::Beaten;

    fn told(effects: &[Effect]) -> Vec<(TaskId, TaskState)> {
        let hello = effects.iter().rev().find_map(|effect| if let Effect::Hello(hello) = effect { Some(hello) } else { None });
        hello.into_iter().flat_map(|hello| hello.tasks.iter().map(|held| (held.launch.task.clone(), held.update.state))).collect()
    }

    /// An agent of which so many tasks ran, ended and were settled.
    fn settled(count: u64) -> TestAgent {
        let mut agent = TestAgent::joined(None);
        for no in 1..=count {
            agent.run(no, None);
            agent.end(no);
            for seq in 1..=2 {
                agent.step(Event::Stored { task: TaskId::fresh(no), seq, ok: true });
            }
            agent.wait(crate::agent::SETTLE_BEAT_MS);
            agent.step(Event::Beaten(Some(Beaten { epoch: 1, known: true, seen: 2 * no })));
        }
        assert_eq!(agent.agent.unsettled().count(), 0);
        agent
    }

    /// Shows that a leader which lost everything is told how a task ended that was settled under the one before, and not
    /// for ever.
    #[test]
    fn a_leader_that_knows_nothing() {
        let mut agent = settled(1);
        assert_eq!(told(&agent.alone()), [], "the leader of this epoch has seen it");
        agent.welcomed(None);
        assert_eq!(told(&agent.led(2)), [(TaskId::fresh(1), TaskState::Failed)]);
        agent.now_ms += RECENT_MS;
        assert_eq!(told(&agent.led(3)), []);
    }

    /// Shows that an agent which restarts tells it as well, also where its log was rewritten, and takes no such task for its own.
    #[test]
    fn an_agent_that_restarts() {
        for mut agent in [settled(1).restarted(), settled(1).rewritten(), settled(1).rewritten().rewritten()] {
            assert_eq!(told(&agent.wait(10_000)), [(TaskId::fresh(1), TaskState::Failed)]);
            assert_eq!(agent.agent.unsettled().count(), 0);
        }
    }

    /// Shows that only the latest are remembered.
    #[test]
    fn the_latest() {
        let mut agent = settled(RECENT_MAX as u64 + 1);
        let told = told(&agent.led(2));
        assert_eq!(told.len(), RECENT_MAX);
        assert!(!told.iter().any(|(task, _)| *task == TaskId::fresh(1)));
    }
}
