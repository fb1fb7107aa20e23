//! What a task's end means for whoever speaks for it
use crate::Exit;
use meso_core::task::TaskState;
use meso_core::wire::Update;

/// The exit code of a task that ended: its own, 128 + the signal, 124 for its time limit, 125 where it has none.
pub fn task_exit(update: &Update) -> Exit {
    let code = update.exit.map(|code| Exit::task((code & 0xff) as u8));
    let signal = update.signal.map(|signal| Exit::signal(u8::try_from(signal).unwrap_or(u8::MAX)));
    match (update.state, update.reason.as_deref()) {
        (TaskState::Finished, _) => Exit::DONE,
        // It may have ended by a signal of ours, or even well; the limit is what happened to it.
        (TaskState::Failed, Some("timeout")) => Exit::TIMED_OUT,
        _ => code.or(signal).unwrap_or(Exit::OURS),
    }
}

/// What to say of an end that is not a plain exit; `None` where the code says it all.
pub fn task_epitaph(update: &Update) -> Option<String> {
    let shown = match &update.name {
        Some(name) => format!("{} ({name})", update.task),
        None => update.task.to_string(),
    };
    let message = update.message.as_deref().unwrap_or_default();
    let with_message = |text: &str| Some(if message.is_empty() { format!("{shown} {text}") } else { format!("{shown} {text}: {message}") });
    match (update.state, update.reason.as_deref()) {
        (TaskState::Failed, Some("memory_limit")) => with_message("ran out of memory"),
        (TaskState::Failed, Some("timeout")) => Some(format!("{shown} hit its time limit")),
        (TaskState::Finished, _) => None,
        (TaskState::Failed, Some("exit" | "signal")) if update.exit.or(update.signal).is_some() => None,
        (TaskState::Killed, _) if update.exit.or(update.signal).is_some() => None,
        (TaskState::Failed, _) => with_message("failed"),
        (TaskState::Killed, _) => with_message("was killed before it ran"),
        (state, _) => with_message(&format!("is {state}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::sample::update;

    /// Shows the code, and whether more is said, of every way to end.
    #[test]
    fn every_end() {
        use TaskState::{Dropped, Error, Failed, Finished, Gone, Killed};
        let table = [
            (Finished, None, Some(0), None, 0, false),
            (Failed, Some("exit"), Some(3), None, 3, false),
            (Failed, Some("exit"), Some(255), None, 255, false),
            (Failed, Some("signal"), None, Some(11), 139, false),
            (Failed, Some("memory_limit"), None, Some(9), 137, true),
            (Failed, Some("timeout"), None, Some(15), 124, true),
            (Failed, Some("command_not_found"), Some(127), None, 127, true),
            (Failed, Some("launch_failed"), None, None, 125, true),
            (Killed, Some("kill_requested"), None, Some(15), 143, false),
            (Killed, Some("kill_requested"), Some(0), None, 0, false),
            (Killed, Some("kill_requested"), None, None, 125, true),
            (Error, Some("bad_task"), None, None, 125, true),
            (Dropped, Some("agent_restarted"), None, None, 125, true),
            (Gone, Some("agent_gone"), None, None, 125, true),
        ];
        for (state, reason, exit, signal, code, said) in table {
            let mut update = update("task_1", state);
            (update.reason, update.exit, update.signal) = (reason.map(str::to_owned), exit, signal);
            assert_eq!(task_exit(&update).code(), code, "{state} {reason:?}");
            assert_eq!(task_epitaph(&update).is_some(), said, "{state} {reason:?}");
        }
    }
}
