//! An agent that is refused: it tries an older protocol, or ends what it runs, and then itself.

use crate::agent::{Agent, Effect, KILL_GRACE_MS, Standing};
use crate::duration::DURATION_MS_MAX;
use crate::id::TaskId;
use crate::wire::{PROTOCOL_MIN, Refusal, RefusalCode};

/// How long an agent that is gone waits for the ends of its tasks, beyond the longest grace, milliseconds.
pub const LEAVE_WAIT_MS: u64 = 10_000;
/// An agent whose protocols were refused so often, all of them, ends: a refusal may be the answer to an earlier question, and
/// a leader that is too new or too old may be on its way out.
pub const NOT_UNDERSTOOD_MAX: u32 = 3;

impl Agent {
    /// One who is refused ends, unless the master only knows an older protocol; one who is gone ends its tasks first.
    pub(super) fn on_refused(&mut self, now_ms: u64, refusal: Refusal, out: &mut Vec<Effect>) {
        match refusal.code {
            RefusalCode::Version if self.speaks > PROTOCOL_MIN => {
                self.speaks -= 1;
                self.standing = Standing::Alone { hello_at_ms: now_ms };
            }
            RefusalCode::Version if self.not_understood + 1 < NOT_UNDERSTOOD_MAX => {
                self.not_understood += 1;
                self.retry_hello(now_ms);
            }
            RefusalCode::AgentGone => {
                let live: Vec<(TaskId, u64)> = self.live().map(|launch| (launch.task.clone(), launch.spec.kill_grace.map_or(KILL_GRACE_MS, |grace| grace.0))).collect();
                let longest_ms = live.iter().map(|(_, grace_ms)| *grace_ms).max().unwrap_or(0).min(DURATION_MS_MAX);
                if !live.is_empty() {
                    out.push(Effect::Say(format!("{}: {} tasks that run here are ended", refusal.message, live.len())));
                }
                self.leaving = Some((refusal, now_ms + longest_ms + LEAVE_WAIT_MS));
                // Nobody asks what it still says of them: they ended as gone.
                self.timers.clear();
                for (task, _) in live {
                    self.kill(now_ms, &task, None, "agent_gone".to_owned(), out);
                }
            }
            _ => out.push(Effect::Leave(refusal)),
        }
    }

    /// Ends once nothing runs here any more, or what does will not end.
    pub(super) fn leave_when_done(&self, now_ms: u64, out: &mut Vec<Effect>) {
        if let Some((refusal, until_ms)) = &self.leaving {
            if *until_ms <= now_ms || self.live().next().is_none() {
                out.push(Effect::Leave(refusal.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Event, HELLO_WAIT_MS_MAX};
    use crate::agent::testagent::{TestAgent, killed, status};
    use crate::task::TaskState;
    use crate::wire::agent::{Order, Welcome};

    fn refused(code: RefusalCode) -> Event {
        Event::Welcome(Some(Welcome::Refused(Refusal::new(code, "agent a was declared gone"))))
    }

    fn leaves(effects: &[Effect]) -> bool {
        effects.iter().any(|effect| matches!(effect, Effect::Leave(_)))
    }

    /// Shows that an agent which is told that it is gone ends all it runs, says nothing more of it to anybody, takes
    /// nothing on, and ends with the last of its tasks.
    #[test]
    fn gone() {
        let mut agent = TestAgent::joined(Some(60_000));
        agent.run(1, None);
        agent.run(2, None);
        agent.alone();
        let effects = agent.step(refused(RefusalCode::AgentGone));
        assert_eq!(killed(&effects), [TaskId::fresh(1), TaskId::fresh(2)]);
        assert!(!leaves(&effects));
        assert!(agent.order(Order::Launch { launches: vec![TestAgent::launch(3, None)] }).is_empty());
        let effects = agent.end(1);
        assert!(!leaves(&effects) && !effects.iter().any(|effect| matches!(effect, Effect::Send(_))), "{effects:?}");
        assert_eq!(status(&effects), Some((TaskState::Killed, Some("agent_gone".to_owned()))));
        assert!(leaves(&agent.end(2)));
    }

    /// Shows that an agent which is gone and runs nothing ends at once, and that a task which does not end does not keep it
    /// for ever.
    #[test]
    fn gone_is_bounded() {
        let mut agent = TestAgent::joined(None);
        agent.alone();
        assert!(leaves(&agent.step(refused(RefusalCode::AgentGone))));

        let mut agent = TestAgent::joined(None);
        agent.run(1, None);
        agent.alone();
        assert!(!leaves(&agent.step(refused(RefusalCode::AgentGone))));
        let wait_ms = agent.agent.deadline().expect("it waits") - agent.now_ms;
        assert_eq!(wait_ms, KILL_GRACE_MS + LEAVE_WAIT_MS);
        assert!(!leaves(&agent.wait(wait_ms - 1)));
        assert!(leaves(&agent.wait(1)));
    }

    /// Shows that an agent speaks the older protocol to a master that knows no other, begins with the newer one again when it
    /// has lost its master, and ends if none helps for some rounds.
    #[test]
    fn an_older_master() {
        let mut agent = TestAgent::joined(None);
        let versions = |effects: &[Effect]| effects.iter().filter_map(|effect| if let Effect::Hello(hello) = effect { Some(hello.v) } else { None }).collect::<Vec<_>>();
        assert_eq!(versions(&agent.alone()), [2]);
        assert_eq!(versions(&agent.step(refused(RefusalCode::Version))), [1]);
        agent.welcomed(None);
        assert!(agent.agent.joined());
        assert_eq!(versions(&agent.alone()), [2]);
        for _ in 1..NOT_UNDERSTOOD_MAX {
            assert_eq!(versions(&agent.step(refused(RefusalCode::Version))), [1]);
            assert!(!leaves(&agent.step(refused(RefusalCode::Version))));
            assert_eq!(versions(&agent.wait(HELLO_WAIT_MS_MAX))[..1], [2]);
        }
        assert_eq!(versions(&agent.step(refused(RefusalCode::Version))), [1]);
        assert!(leaves(&agent.step(refused(RefusalCode::Version))));
    }

    /// Shows that an order of a later release is refused and said, and that the agent goes on.
    #[test]
    fn a_later_order() {
        let mut agent = TestAgent::joined(None);
        let order: Order = serde_json::from_str(r#"{"order":"freeze","task":"task_1","depth":3}"#).expect("it is read");
        assert_eq!(order, Order::Unknown);
        let effects = agent.order(order);
        assert!(matches!(effects.as_slice(), [Effect::Say(text)] if text.contains("later release")), "{effects:?}");
        assert!(agent.agent.joined());
    }
}
