//! What a task's end means: an exit code, a remark, a line of the report.

use meso_cli::client::task_exit;
use meso_cli::{Exit, Failure};
use meso_core::id::TaskId;
use meso_core::launcher::Failure as NoTask;
use meso_core::wire::{RefusalCode, Update};
use serde::Serialize;

use crate::run::no_offer;

/// The code and the words for a job that ended without a task.
pub fn failure_of(failure: &NoTask, interrupted_by: Option<i32>) -> (Exit, Option<Failure>) {
    match failure {
        NoTask::StartDeadline => (Exit::NOT_NOW, Some(Failure::not_now("no offer fitted by the start deadline").hint("meso-ps agents shows what is free"))),
        NoTask::NoOffer => (Exit::NOT_NOW, Some(no_offer())),
        NoTask::Interrupted => (interrupted_by.map_or(Exit::OURS, |signal| Exit::signal(u8::try_from(signal).unwrap_or(127))), None),
        NoTask::Refused(refusal) if refusal.code == RefusalCode::NameHeld => (Exit::NOT_NOW, Some(Failure::not_now(refusal.message.clone()))),
        NoTask::Refused(refusal) => (Exit::OURS, Some(Failure::failed(format!("refused: {}", refusal.message)))),
        NoTask::Removed(why) if why == "taken_over" => (Exit::NOT_NOW, Some(Failure::not_now("another session took the framework over"))),
        NoTask::Removed(why) => (Exit::OURS, Some(Failure::failed(format!("the framework is over: {why}")))),
    }
}

/// What to say of a task that is left while nobody can be reached.
pub fn left_behind(task: &TaskId, begun: bool, lives: bool) -> String {
    let state = if begun { "runs on" } else { "may have been launched" };
    match lives {
        true => format!("{task} {state}: meso-wait {task} waits for it, meso-logs -f {task} shows what it writes"),
        false => format!("{task} {state}, and is ended once a master misses us (--on-disconnect kill); meso-wait {task} tells how it ends, meso-logs {task} what it wrote"),
    }
}

/// A line of `--report`.
#[derive(Serialize)]
pub struct Report<'a> {
    meso: &'static str,
    index: u64,
    item: &'a str,
    task: Option<&'a str>,
    name: Option<&'a str>,
    agent: Option<&'a str>,
    host: &'a str,
    state: &'a str,
    reason: Option<&'a str>,
    message: Option<&'a str>,
    exit: Option<i32>,
    signal: Option<i32>,
    code: u8,
    attempts: u32,
    stdout_bytes: u64,
    stderr_bytes: u64,
    mem_peak_bytes: u64,
    cpu_ms: u64,
    started_ms: u64,
    ended_ms: u64,
}

impl<'a> Report<'a> {
    /// Of a task's last status.
    pub fn of_task(index: u64, item: &'a str, update: &'a Update, attempts: u32) -> Self {
        Report {
            meso: "report/1",
            index,
            item,
            task: Some(update.task.as_str()),
            name: update.name.as_ref().map(|name| name.as_str()),
            agent: update.agent.as_ref().map(|agent| agent.as_str()),
            host: &update.host,
            state: update.state.word(),
            reason: update.reason.as_deref(),
            message: update.message.as_deref(),
            exit: update.exit,
            signal: update.signal,
            code: task_exit(update).code(),
            attempts,
            stdout_bytes: update.stdout_bytes,
            stderr_bytes: update.stderr_bytes,
            mem_peak_bytes: update.mem_peak_bytes,
            cpu_ms: update.cpu_ms,
            started_ms: update.started_ms,
            ended_ms: update.ts_ms,
        }
    }

    /// Of a job that was left while nobody could be reached, and of its task if it may have one.
    pub fn of_left(index: u64, item: &'a str, task: Option<&'a TaskId>, code: Exit) -> Self {
        Report { task: task.map(TaskId::as_str), state: if task.is_some() { "unknown" } else { "error" }, ..Report::of_failure(index, item, "unreachable", code) }
    }

    /// Of a job that had no task.
    pub fn of_failure(index: u64, item: &'a str, reason: &'a str, code: Exit) -> Self {
        Report {
            meso: "report/1",
            index,
            item,
            task: None,
            name: None,
            agent: None,
            host: "",
            state: "error",
            reason: Some(reason),
            message: None,
            exit: None,
            signal: None,
            code: code.code(),
            attempts: 0,
            stdout_bytes: 0,
            stderr_bytes: 0,
            mem_peak_bytes: 0,
            cpu_ms: 0,
            started_ms: 0,
            ended_ms: 0,
        }
    }
}

/// The stable word of a job's failure.
pub fn reason_of(failure: &NoTask) -> &'static str {
    match failure {
        NoTask::StartDeadline => "start_deadline",
        NoTask::NoOffer => "no_offer",
        NoTask::Interrupted => "interrupted",
        NoTask::Refused(_) => "refused",
        NoTask::Removed(_) => "removed",
    }
}
