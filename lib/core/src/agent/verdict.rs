//! What an ending means for the task: its last state, and why.

use crate::agent::Ending;
use crate::task::TaskState;
use crate::wire::Task;

/// The state, why, the exit code and the signal.
pub(super) type Verdict = (TaskState, Option<(String, String)>, Option<i32>, Option<i32>);

/// What an ending means for the task. `asked` is the reason of a kill, if one was asked for.
pub(super) fn verdict(ending: &Ending, asked: Option<String>, spec: &Task, host: &str) -> Verdict {
    let why = |reason: &str, message: String| Some((reason.to_owned(), message));
    match ending {
        Ending::Exited { code, signal } => match asked {
            Some(reason) => {
                let message = match reason.as_str() {
                    "revoked" => "others needed its room",
                    "agent_unreachable" => "its agent was out of reach, and it was not to run on there",
                    "agent_gone" => "its agent was declared gone",
                    _ => "its end was asked for",
                };
                (TaskState::Killed, why(&reason, message.to_owned()), *code, *signal)
            }
            None if *code == Some(0) => (TaskState::Finished, None, *code, *signal),
            None => match (code, signal) {
                (_, Some(signal)) => (TaskState::Failed, why("signal", format!("ended by signal {signal}")), *code, Some(*signal)),
                (code, None) => (TaskState::Failed, why("exit", format!("exited with {}", code.unwrap_or(-1))), *code, None),
            },
        },
        Ending::Timeout { code, signal } => (TaskState::Failed, why("timeout", "its time was over".to_owned()), *code, *signal),
        Ending::MemoryLimit { limit_bytes, peak_bytes } => {
            let message = format!("used {} of {}", size(*peak_bytes), size(*limit_bytes));
            (TaskState::Failed, why("memory_limit", message), None, Some(9))
        }
        Ending::NotStarted { code, message } => {
            let program = spec.argv.first().map_or("/bin/sh", String::as_str);
            let (reason, message) = match code {
                Some(127) => ("command_not_found", format!("{program}: not found on {host}")),
                Some(126) => ("command_not_executable", format!("{program}: cannot be executed on {host}: {message}")),
                _ => ("launch_failed", message.clone()),
            };
            (TaskState::Failed, why(reason, message), *code, None)
        }
        Ending::Lost { reason } => {
            let message = match *reason {
                "agent_rebooted" => "the agent's machine started anew",
                "agent_restarted" => "the agent restarted before the task was started",
                "agent_disk" => "the agent's disk did not take what the task needs; it was not started",
                "agent_exhausted" => "the agent's machine had no descriptors, processes or memory left for the task; it was not started",
                _ => "the task's supervisor was killed; nothing of the task is left",
            };
            (TaskState::Dropped, why(reason, message.to_owned()), None, None)
        }
    }
}

/// Bytes as people write them: `256M`, or `1.5M` where it is no whole number.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];
    for (unit, factor) in UNITS {
        if bytes >= factor {
            let tenths = (u128::from(bytes) * 10 / u128::from(factor)) as u64;
            return if tenths % 10 == 0 { format!("{}{unit}", tenths / 10) } else { format!("{}.{}{unit}", tenths / 10, tenths % 10) };
        }
    }
    format!("{bytes}")
}

