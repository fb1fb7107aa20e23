//! How tasks end, and how meso-launch itself does: reports, words and the exit code.

use std::io::Write;

use meso_cli::client::{task_epitaph, task_exit};
use meso_cli::{Exit, Failure, Progress, complain, io_text, report};
use meso_core::id::TaskId;
use meso_core::launcher::Failure as NoTask;
use meso_core::wire::Update;
use serde::Serialize;

use super::Run;
use crate::outcome::{Report, failure_of, left_behind, reason_of};
use crate::output::Ended;
use crate::plan::Source;

impl Run {
    pub(super) fn ended(&mut self, index: u64, update: Update, attempts: u32) -> Result<(), Failure> {
        let code = task_exit(&update);
        if self.args.detach && !update.state.is_lost() {
            self.let_go(index, &update.task);
        }
        if self.args.detach && !self.jobs.contains_key(&index) {
            return Ok(());
        }
        if self.plan.is_many {
            let live = self.jobs.remove(&index);
            let tag = self.args.tag.then(|| live.as_ref().map(|live| live.item.clone()).unwrap_or_default());
            self.write_report(&Report::of_task(index, live.as_ref().map_or("", |live| &live.item), &update, attempts))?;
            let ended = live.and_then(|live| live.task).filter(|_| !self.reader_gone && update.stdout_bytes + update.stderr_bytes > 0).map(|(_, io)| Ended {
                io,
                stdout_bytes: update.stdout_bytes,
                stderr_bytes: update.stderr_bytes,
                tag,
            });
            self.order.ended(index, ended);
            self.progress.advance(1);
            self.print_next();
        } else {
            self.follow(index, Some(&update));
            let live = self.jobs.remove(&index);
            self.write_report(&Report::of_task(index, live.as_ref().map_or("", |live| &live.item), &update, attempts))?;
        }
        if let Some(text) = task_epitaph(&update) {
            if !self.reader_gone {
                self.progress.println(&format!("meso-launch: {}", meso_core::json::escape_for_terminal(&text)));
            }
        }
        // Whoever left early did not want to know how it ended.
        if !self.reader_gone {
            self.exit = self.exit.max(code);
        }
        self.last_update = Some(update);
        Ok(())
    }

    pub(super) fn failed(&mut self, index: u64, failure: &NoTask) -> Result<(), Failure> {
        let Some(live) = self.jobs.remove(&index) else { return Ok(()) };
        let (code, words) = failure_of(failure, self.interrupted_by);
        self.write_report(&Report::of_failure(index, &live.item, reason_of(failure), code))?;
        if !self.reader_gone {
            self.exit = self.exit.max(code);
            if let Some(words) = words.filter(|_| !self.plan.is_many || self.jobs.is_empty() || index == 1) {
                self.progress = Progress::none();
                let offers_are_read = self.args.offers.is_some() || self.args.offer.is_some();
                if matches!(failure, NoTask::StartDeadline) && self.registered && !offers_are_read {
                    if self.farewell.is_none() {
                        self.farewell = Some(words);
                        self.ask_why();
                    }
                } else {
                    report(&words);
                }
            }
        }
        self.order.ended(index, None);
        self.print_next();
        Ok(())
    }

    pub(super) fn write_report(&mut self, line: &impl Serialize) -> Result<(), Failure> {
        let Some(file) = &mut self.report else { return Ok(()) };
        let mut text = serde_json::to_string(line).map_err(|error| Failure::internal(format!("the report: {error}")))?;
        text.push('\n');
        file.write_all(text.as_bytes()).map_err(|error| Failure::failed(format!("cannot write the report: {}", io_text(&error))))
    }

    /// Ends before the tasks do: says why, and of each that is left what becomes of it.
    pub(super) fn give_up(mut self, why: &Failure, code: Exit) -> Result<Exit, Failure> {
        self.progress = Progress::none();
        report(why);
        let lives = self.args.on_disconnect == "keep" || self.plan.framework.is_some() || self.args.detach;
        let left: Vec<(u64, TaskId, bool)> = self.launcher.out().map(|(index, task, begun)| (index, task.clone(), begun)).collect();
        for (_, task, begun) in &left {
            complain(&left_behind(task, *begun, lives));
        }
        if let Some(update) = self.last_update.as_ref().filter(|_| self.following > 0) {
            complain(&format!("{} has ended, and not all of its output is here: meso-logs {} has it", update.task, update.task));
        }
        let unprinted = self.order.waiting() + usize::from(self.printing);
        if unprinted > 0 {
            complain(&format!("the output of {unprinted} tasks that have ended is not here: meso-ps -a names them, meso-logs has it"));
        }
        match self.launcher.waiting() {
            0 => {}
            1 if !self.plan.is_many => {}
            1 => complain("one task was not launched"),
            count => complain(&format!("{count} tasks were not launched")),
        }
        let jobs = std::mem::take(&mut self.jobs);
        for (index, live) in jobs {
            let task = left.iter().find(|(other, _, _)| *other == index).map(|(_, task, _)| task);
            self.write_report(&Report::of_left(index, &live.item, task, code))?;
        }
        Ok(self.exit.max(code))
    }

    /// Everything came to its end.
    pub(super) fn end(self, source: &Source) -> Result<Exit, Failure> {
        drop(self.progress);
        if let Some(words) = &self.farewell {
            report(words);
        }
        let mut exit = self.exit;
        if source.skipped() > 0 {
            exit = exit.max(Exit::OURS);
        }
        // A reader who left had enough; output that was lost is another matter.
        Ok(match (self.output_failed, self.reader_gone) {
            (true, _) => exit.max(Exit::OURS),
            (false, true) => Exit::DONE,
            (false, false) => exit,
        })
    }
}
