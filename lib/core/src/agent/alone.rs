//! How long no leader has answered this agent, and which tasks must not run on when that is too long.

use std::collections::BTreeSet;

use crate::id::TaskId;
use crate::task::OnUnreachable;
use crate::wire::Launch;

/// The count of one process. It begins anew with each start: what was answered before is not known to the clock.
#[derive(Debug)]
pub(super) struct Alone {
    /// When the latest question to a leader was sent.
    asked_ms: u64,
    /// When the latest question that was answered was sent. Counted from the question, as the leader counts from when it
    /// heard it: so what is to end here begins to end before the leader says that it cannot see it.
    since_ms: u64,
    /// For how long it may last, milliseconds, if a leader ever said so.
    limit_ms: Option<u64>,
    /// Tasks that are to end then, and whose end nobody has asked for.
    unkept: BTreeSet<TaskId>,
}

impl Alone {
    pub(super) fn new(now_ms: u64) -> Self {
        Alone { asked_ms: now_ms, since_ms: now_ms, limit_ms: None, unkept: BTreeSet::new() }
    }

    /// A question is on its way to whoever leads.
    pub(super) fn asked(&mut self, now_ms: u64) {
        self.asked_ms = now_ms;
    }

    /// A leader answered the latest question.
    pub(super) fn answered(&mut self) {
        self.since_ms = self.asked_ms;
    }

    /// For how long it may last, milliseconds.
    pub(super) fn limit_ms(&self) -> Option<u64> {
        self.limit_ms
    }

    pub(super) fn set_limit(&mut self, limit_ms: Option<u64>) {
        self.limit_ms = limit_ms;
    }

    /// A task that runs here from now on.
    pub(super) fn watch(&mut self, launch: &Launch) {
        if launch.spec.on_unreachable == Some(OnUnreachable::Kill) {
            self.unkept.insert(launch.task.clone());
        }
    }

    /// It ended, or is asked to.
    pub(super) fn forget(&mut self, task: &TaskId) {
        self.unkept.remove(task);
    }

    /// When tasks are to end if nobody answers until then.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.limit_ms.filter(|_| !self.unkept.is_empty()).map(|limit_ms| self.since_ms.saturating_add(limit_ms))
    }

    /// Whether it has lasted too long: then nothing that would have to end is begun either.
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        self.limit_ms.is_some_and(|limit_ms| self.since_ms.saturating_add(limit_ms) <= now_ms)
    }

    /// The tasks that are to end now.
    pub(super) fn take_due(&mut self, now_ms: u64) -> BTreeSet<TaskId> {
        match self.due_ms() {
            Some(due_ms) if due_ms <= now_ms => std::mem::take(&mut self.unkept),
            _ => BTreeSet::new(),
        }
    }

    /// Nothing runs here.
    pub(super) fn clear(&mut self) {
        self.unkept.clear();
    }
}

#[cfg(test)]
mod tests {
    use crate::agent::Effect;
    use crate::agent::testagent::{BEAT_MS, TestAgent, killed, status};
    use crate::id::TaskId;
    use crate::task::{OnUnreachable, TaskState};
    use crate::wire::agent::Order;

    const TIMEOUT_MS: u64 = 60_000;

    /// An agent that runs task 1, which is not to run on out of reach, and task 2, of which nothing is said.
    fn agent(timeout_ms: Option<u64>) -> TestAgent {
        let mut agent = TestAgent::joined(timeout_ms);
        agent.run(1, Some(OnUnreachable::Kill));
        agent.run(2, None);
        agent
    }

    /// Shows that such a task is ended once nobody has answered for the timeout, counted from the last question that was
    /// answered; that no other is; and that its statuses come in order, the last one with the reason.
    #[test]
    fn ended_when_alone() {
        let mut agent = agent(Some(TIMEOUT_MS));
        assert_eq!(killed(&agent.wait(BEAT_MS)), []);
        let asked_ms = agent.now_ms;
        agent.now_ms += 700;
        agent.beaten();
        assert_eq!(killed(&agent.wait(asked_ms + TIMEOUT_MS - 1 - agent.now_ms)), []);
        let effects = agent.wait(1);
        assert_eq!(killed(&effects), [TaskId::fresh(1)]);
        assert_eq!(status(&effects), Some((TaskState::Killing, Some("agent_unreachable".to_owned()))));
        assert_eq!(status(&agent.end(1)), Some((TaskState::Killed, Some("agent_unreachable".to_owned()))));
        assert_eq!(killed(&agent.wait(10 * TIMEOUT_MS)), [], "it is ended once");
    }

    /// Shows that a launch which arrives when nobody has answered for too long is not begun if it is not to run on out of
    /// reach, and another is.
    #[test]
    fn launched_when_alone() {
        let mut agent = TestAgent::joined(Some(TIMEOUT_MS));
        agent.wait(TIMEOUT_MS);
        for (no, policy, state) in [(1, Some(OnUnreachable::Kill), Some((TaskState::Dropped, Some("agent_unreachable".to_owned())))), (2, Some(OnUnreachable::Keep), None)] {
            let effects = agent.order(Order::Launch { launches: vec![TestAgent::launch(no, policy)] });
            assert_eq!((status(&effects), effects.iter().any(|effect| matches!(effect, Effect::Launch(_)))), (state.clone(), state.is_none()));
        }
    }

    /// Shows that an agent which was never told how long ends nothing, nor one whose next master does not say it.
    #[test]
    fn never_without_a_word() {
        assert_eq!(killed(&agent(None).wait(100 * TIMEOUT_MS)), []);
        let mut agent = agent(Some(TIMEOUT_MS));
        agent.alone();
        agent.welcomed(None);
        assert_eq!(killed(&agent.wait(100 * TIMEOUT_MS)), []);
    }

    /// Shows that the count begins anew with a restart, that the limit and the word are kept through it, also by a log that
    /// was rewritten, and that an end which was under way goes on for the same reason.
    #[test]
    fn after_a_restart() {
        for again in [TestAgent::restarted, TestAgent::rewritten] {
            let mut before = agent(Some(TIMEOUT_MS));
            before.wait(TIMEOUT_MS / 2);
            let mut agent = again(before);
            assert_eq!(killed(&agent.wait(TIMEOUT_MS - 1)), []);
            assert_eq!(killed(&agent.wait(1)), [TaskId::fresh(1)]);
            let mut agent = again(agent);
            assert_eq!(killed(&agent.wait(0)), [TaskId::fresh(1)], "it is passed on again");
            assert_eq!(status(&agent.end(1)), Some((TaskState::Killed, Some("agent_unreachable".to_owned()))));
        }
    }
}
