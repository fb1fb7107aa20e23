//! What an agent says of its tasks: written down, sent until it is stored, forgotten once it is seen.

use crate::agent::entry::{Entry, held};
use crate::agent::record::Record;
use crate::agent::standing::Standing;
use crate::agent::verdict::verdict;
use crate::agent::{ANSWER_WAIT_MS, Agent, Effect, Ending, RESEND_MS, RESEND_MS_MAX, SETTLE_BEAT_MS, Usage};
use crate::id::TaskId;
use crate::task::TaskState;
use crate::wire::{Update, Wall};

impl Agent {
    pub(super) fn on_started(&mut self, now_ms: u64, task: &TaskId, out: &mut Vec<Effect>) {
        let Some(entry) = self.tasks.get(task) else { return };
        if !entry.update.state.may_become(TaskState::Running) || entry.update.state == TaskState::Unreachable {
            return;
        }
        let killing = entry.killing.clone();
        self.status(now_ms, task, TaskState::Running, None, out);
        if let Some((grace_ms, _)) = killing {
            self.pass_kill(task, grace_ms, out);
        }
    }

    pub(super) fn on_ended(&mut self, now_ms: u64, task: &TaskId, ending: Ending, usage: Usage, out: &mut Vec<Effect>) {
        let Some(entry) = self.tasks.get(task) else { return };
        if entry.update.is_final {
            return;
        }
        let asked = entry.killing.as_ref().map(|(_, reason)| reason.clone());
        let (state, why, exit, signal) = verdict(&ending, asked, &entry.launch.spec, &self.config.host);
        let mut update = self.make(now_ms, task, state, why);
        update.exit = exit;
        update.signal = signal;
        update.stdout_bytes = usage.stdout_bytes;
        update.stderr_bytes = usage.stderr_bytes;
        update.mem_peak_bytes = usage.mem_peak_bytes;
        update.cpu_ms = usage.cpu_ms;
        self.say(now_ms, update, out);
    }

    pub(super) fn on_stored(&mut self, now_ms: u64, task: &TaskId, seq: u64, ok: bool, out: &mut Vec<Effect>) {
        let Some(entry) = self.tasks.get_mut(task) else { return };
        if entry.unstored.front().is_none_or(|head| head.seq != seq) {
            return;
        }
        self.timers.retain(|(_, id)| id != task);
        if !ok {
            self.timers.insert((now_ms + entry.resend_ms, task.clone()));
            entry.resend_ms = (entry.resend_ms * 2).min(RESEND_MS_MAX);
            return;
        }
        entry.unstored.pop_front();
        entry.resend_ms = RESEND_MS;
        if let Some(next) = entry.unstored.front() {
            out.push(Effect::Send(Box::new(next.clone())));
            self.timers.insert((now_ms + ANSWER_WAIT_MS, task.clone()));
        } else if entry.update.is_final && entry.update.agent_seq <= self.seen {
            self.settle_all(now_ms, out);
        }
    }

    pub(super) fn settle_all(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if self.ended_unsettled == 0 {
            return;
        }
        let seen = self.seen;
        let settled = |entry: &Entry| entry.update.is_final && entry.unstored.is_empty() && entry.update.agent_seq <= seen;
        let done: Vec<TaskId> = self.tasks.iter().filter(|(_, entry)| settled(entry)).map(|(id, _)| id.clone()).collect();
        for task in done {
            self.recent.settled(now_ms, held(&self.tasks[&task]));
            self.persist(Record::Settled { task: task.clone() }, out);
            out.push(Effect::Settled { task });
        }
    }

    pub(super) fn status(&mut self, now_ms: u64, task: &TaskId, state: TaskState, why: Option<(&str, String)>, out: &mut Vec<Effect>) {
        let why = why.map(|(reason, message)| (reason.to_owned(), message));
        let update = self.make(now_ms, task, state, why);
        self.say(now_ms, update, out);
    }

    fn make(&self, now_ms: u64, task: &TaskId, state: TaskState, why: Option<(String, String)>) -> Update {
        let wall = self.wall(now_ms);
        let entry = &self.tasks[task];
        let mut update = entry.update.clone();
        update.state = state;
        update.is_final = state.is_final();
        update.seq = update.seq.saturating_add(1);
        update.agent_seq = self.status_seq.saturating_add(1);
        (update.reason, update.message) = why.map_or((None, None), |(reason, message)| (Some(reason), Some(message)));
        if state == TaskState::Running {
            update.started_ms = wall.0;
        }
        update.ts_ms = wall.0;
        update.ts = wall.text();
        update
    }

    fn say(&mut self, now_ms: u64, update: Update, out: &mut Vec<Effect>) {
        let task = update.task.clone();
        let ends = update.is_final;
        self.persist(Record::Status { update: Box::new(update) }, out);
        let entry = self.tasks.get_mut(&task).expect("a status is made of a known task");
        if entry.unstored.len() == 1 && self.leaving.is_none() {
            entry.resend_ms = RESEND_MS;
            match self.quiet_until_ms.filter(|until_ms| *until_ms > now_ms) {
                Some(until_ms) => self.timers.insert((until_ms, task)),
                None => {
                    out.push(Effect::Send(Box::new(entry.unstored[0].clone())));
                    self.timers.insert((now_ms + ANSWER_WAIT_MS, task))
                }
            };
        }
        if ends {
            if let Standing::Joined { beat_at_ms, .. } = &mut self.standing {
                let wait_ms = if self.admission.is_pressed() { 0 } else { SETTLE_BEAT_MS };
                *beat_at_ms = (*beat_at_ms).min(now_ms + wait_ms);
            }
        }
    }

    /// It was taken in: what it found when it began may be said.
    pub(super) fn speak(&mut self, now_ms: u64) {
        if self.quiet_until_ms.take().is_some() {
            let unstored = self.tasks.iter().filter(|(_, entry)| !entry.unstored.is_empty());
            self.timers = unstored.map(|(id, _)| (now_ms, id.clone())).collect();
        }
    }

    fn wall(&self, now_ms: u64) -> Wall {
        Wall(now_ms.saturating_add_signed(self.wall_offset_ms))
    }
}

#[cfg(test)]
mod tests {
    use crate::agent::testagent::TestAgent;
    use crate::agent::{ANSWER_WAIT_MS, Effect, Event, QUIET_MS};

    fn sends(effects: &[Effect]) -> usize {
        effects.iter().filter(|effect| matches!(effect, Effect::Send(_))).count()
    }

    /// An agent with a task that ended, which was started again before anybody had heard of that.
    fn recovered() -> TestAgent {
        let mut agent = TestAgent::joined(None);
        agent.run(1, None);
        let mut agent = agent.restarted();
        agent.end(1);
        agent
    }

    /// Shows that an agent which recovers says nothing of what it found before it is taken in, and all of it then.
    #[test]
    fn silent_until_taken_in() {
        let mut agent = recovered();
        agent.now_ms += ANSWER_WAIT_MS - 1;
        assert_eq!(sends(&agent.step(Event::Tick)), 0);
        assert_eq!(sends(&agent.welcomed(None)), 1);
    }

    /// Shows that where nobody leads it says so all the same after a while.
    #[test]
    fn not_silent_for_ever() {
        let mut agent = recovered();
        agent.now_ms += QUIET_MS;
        assert_eq!(sends(&agent.step(Event::Tick)), 1);
    }
}
