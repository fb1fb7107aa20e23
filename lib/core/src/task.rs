//! The states of a task and the steps between them (Mesos SM-2 without its ambiguous "lost").

use std::fmt;

use serde::{Deserialize, Serialize};

/// What becomes of a task whose agent no leader can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnreachable {
    /// It runs on, and is taken up again when the agent is back.
    Keep,
    /// Its agent ends it once it has been out of reach for the agent timeout; at the latest when it is back.
    Kill,
}

impl OnUnreachable {
    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "keep" => Some(OnUnreachable::Keep),
            "kill" => Some(OnUnreachable::Kill),
            _ => None,
        }
    }
}

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Accepted by the master, not yet confirmed by the agent.
    Staging,
    /// On the agent's disk; its container is being made.
    Starting,
    /// The program runs.
    Running,
    /// It was asked to end and is given its grace.
    Killing,
    /// Its agent is silent; what it does there is not known.
    Unreachable,
    /// Ended by itself with exit code 0.
    Finished,
    /// Ended with another code, by a signal, by a limit, or could not be started.
    Failed,
    /// Ended because somebody asked for it.
    Killed,
    /// Was refused as wrong before it could start.
    Error,
    /// Never ran, or its agent lost it in a restart: it may be launched again.
    Dropped,
    /// Its agent is gone for good, by an operator's word.
    Gone,
    /// Only as an answer to a reconciliation: nobody knows such a task. A state of a later release is read as this one.
    #[serde(other)]
    Unknown,
}

impl TaskState {
    /// All states, in the order in which the manual lists them.
    pub const ALL: [TaskState; 12] = {
        use TaskState::{Dropped, Error, Failed, Finished, Gone, Killed, Killing, Running, Staging, Starting, Unknown, Unreachable};
        [Staging, Starting, Running, Killing, Unreachable, Finished, Failed, Killed, Error, Dropped, Gone, Unknown]
    };

    /// The word that crosses pipes and the bus.
    pub fn word(self) -> &'static str {
        match self {
            TaskState::Staging => "staging",
            TaskState::Starting => "starting",
            TaskState::Running => "running",
            TaskState::Killing => "killing",
            TaskState::Unreachable => "unreachable",
            TaskState::Finished => "finished",
            TaskState::Failed => "failed",
            TaskState::Killed => "killed",
            TaskState::Error => "error",
            TaskState::Dropped => "dropped",
            TaskState::Gone => "gone",
            TaskState::Unknown => "unknown",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        TaskState::ALL.into_iter().find(|state| state.word() == word)
    }

    /// True for a state after which nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, TaskState::Finished | TaskState::Failed | TaskState::Killed | TaskState::Error | TaskState::Dropped | TaskState::Gone)
    }

    /// True for a final state that is not the task's own doing, so that a retry is owed by `--retries-lost`.
    pub fn is_lost(self) -> bool {
        matches!(self, TaskState::Dropped | TaskState::Gone)
    }

    /// Whether `next` may follow. A final state is final; the first four only go forward; `unreachable` may return to any of them.
    pub fn may_become(self, next: TaskState) -> bool {
        use TaskState::{Killing, Running, Staging, Starting, Unknown, Unreachable};
        match (self, next) {
            (_, Unknown) | (Unknown, _) => false,
            (from, _) if from.is_final() => false,
            (from, to) if to.is_final() => from != to,
            (Unreachable, to) => to != Unreachable,
            (_, Unreachable) => true,
            (Staging, Starting | Running | Killing) | (Starting, Running | Killing) | (Running, Killing) => true,
            _ => false,
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::TaskState;

    /// Shows the whole relation at once, so that a change to it is seen as a change to this table.
    #[test]
    fn relation() {
        let table: String = TaskState::ALL
            .iter()
            .map(|from| {
                let row: String = TaskState::ALL.iter().map(|to| if from.may_become(*to) { 'x' } else { '.' }).collect();
                format!("{from:<12}{row}\n")
            })
            .collect();
        assert_eq!(
            table,
            "staging     .xxxxxxxxxx.\n\
             starting    ..xxxxxxxxx.\n\
             running     ...xxxxxxxx.\n\
             killing     ....xxxxxxx.\n\
             unreachable xxxx.xxxxxx.\n\
             finished    ............\n\
             failed      ............\n\
             killed      ............\n\
             error       ............\n\
             dropped     ............\n\
             gone        ............\n\
             unknown     ............\n"
        );
    }

    /// Shows that the words read back and that serde uses the same ones.
    #[test]
    fn words() {
        for state in TaskState::ALL {
            assert_eq!(TaskState::parse(state.word()), Some(state));
            assert_eq!(serde_json::to_string(&state).ok(), Some(format!("{:?}", state.word())));
        }
    }
}
