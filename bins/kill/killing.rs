//! Tasks on their way down, one after the other, with what becomes of each.

use std::time::Duration;

use meso_cli::client::{Found, LISTING_MS, Leader, Signal, TaskIo, Watch, fate_unknown, find_tasks, patience};
use meso_cli::{Exit, Failure, LineIn, LineOut, LineRead, Selector, Until, complain, report};
use meso_core::id::TaskId;
use meso_core::task::TaskState;
use meso_core::wire::call::{Answer, Call};
use meso_core::wire::io::{Told, What};
use meso_core::wire::{Refusal, RefusalCode};
use tokio::time::{Instant, sleep, timeout};

use crate::not_understood;

/// Tasks in one call at most.
pub const BATCH_MAX: usize = 256;
/// So long a batch of lines waits for the next line.
const BATCH_MS: u64 = 5;
/// Between two calls about tasks that a new leader does not know yet.
const RETRY_MS: u64 = 500;
/// With --wait, how much longer than the grace a task may take to end.
const END_MS: u64 = 60_000;

/// How they are to end.
#[derive(Clone, Copy)]
pub struct Manner {
    /// This signal instead, and nothing else.
    pub signal: Option<Signal>,
    /// Between TERM and KILL in place of each task's own grace, milliseconds.
    pub grace_ms: Option<u64>,
    /// Whether their ends are waited for.
    pub waits: bool,
    /// Whether no ids are printed.
    pub is_quiet: bool,
}

/// The work so far.
pub struct Killing {
    manner: Manner,
    leader: Leader,
    out: LineOut,
    exit: Exit,
    killed: Vec<Found>,
}

impl Killing {
    pub fn new(leader: Leader, manner: Manner) -> Result<Killing, Failure> {
        Ok(Killing { manner, leader, out: LineOut::stdout()?, exit: Exit::DONE, killed: Vec::new() })
    }

    /// Waits for the ends of what was killed, if that is wanted; says how all of it went.
    pub async fn finish(mut self) -> Result<Exit, Failure> {
        if self.manner.waits {
            self.wait().await?;
        }
        Ok(self.exit)
    }

    /// Kills what stands on the lines of stdin, a batch at a time, and does not wait for the end of a slow writer.
    pub async fn kill_lines(&mut self) -> Result<(), Failure> {
        let mut lines = LineIn::stdin(Until::Newline);
        let mut batch = Vec::new();
        loop {
            let next = if batch.is_empty() {
                Some(lines.next().await?)
            } else if batch.len() >= BATCH_MAX {
                None
            } else {
                timeout(Duration::from_millis(BATCH_MS), lines.next()).await.ok().transpose()?
            };
            match next {
                Some(Some(line)) => self.take_line(line, &mut batch),
                Some(None) => return self.kill(&batch).await,
                None => {
                    self.kill(&batch).await?;
                    batch.clear();
                }
            }
        }
    }

    fn take_line(&mut self, line: LineRead, batch: &mut Vec<Selector>) {
        let (number, parsed) = match &line {
            LineRead::Line { bytes, .. } if bytes.trim_ascii().is_empty() => return,
            LineRead::Line { number, bytes } => (*number, Selector::parse(String::from_utf8_lossy(bytes.trim_ascii()).as_ref()).map_err(|e| e.to_string())),
            LineRead::TooLong { number, bytes } => (*number, Err(format!("{bytes} bytes are too many for an id"))),
        };
        match parsed {
            Ok(selector) => batch.push(selector),
            Err(why) => self.refuse(&format!("line {number}: {why}")),
        }
    }

    /// Kills those that are found; of the others it says why not.
    pub async fn kill(&mut self, selectors: &[Selector]) -> Result<(), Failure> {
        let mut tasks: Vec<Found> = Vec::new();
        for result in find_tasks(&self.leader, selectors, patience()).await? {
            match result {
                Ok(found) if found.update.is_final => self.refuse(&format!("{} has ended already: {}", found.update.task, found.update.state)),
                // Named twice is still one task.
                Ok(found) if tasks.iter().any(|other| other.update.task == found.update.task) => {}
                Ok(found) => tasks.push(found),
                Err(not_one) => {
                    self.exit = self.exit.max(Exit::NO);
                    report(&not_one.into());
                }
            }
        }
        match self.manner.signal {
            Some(signal) => self.signal(tasks, signal).await,
            None => self.call(tasks).await,
        }
    }

    /// Asks the leader to end tasks, and again those that a new leader does not know yet.
    async fn call(&mut self, mut tasks: Vec<Found>) -> Result<(), Failure> {
        let limit = patience();
        let deadline = Instant::now() + limit;
        while !tasks.is_empty() {
            let ids: Vec<TaskId> = tasks.iter().map(|found| found.update.task.clone()).collect();
            let left = deadline.saturating_duration_since(Instant::now());
            let verdicts = match self.leader.call(&Call::Kill { tasks: ids, grace_ms: self.manner.grace_ms }, left).await? {
                Some(Answer::Killing { refused }) if refused.len() == tasks.len() => refused,
                Some(Answer::Refused(refusal)) => vec![Some(refusal); tasks.len()],
                Some(_) => return Err(not_understood()),
                None => return Err(self.leader.nobody(limit)),
            };
            let mut again = Vec::new();
            for (found, verdict) in tasks.into_iter().zip(verdicts) {
                match verdict {
                    None => self.accept(found)?,
                    Some(Refusal { code: RefusalCode::Recovering | RefusalCode::Busy, .. }) if Instant::now() < deadline => again.push(found),
                    Some(refusal) => self.refuse(&format!("{}: {}", found.update.task, refusal.message)),
                }
            }
            if !again.is_empty() {
                sleep(Duration::from_millis(RETRY_MS)).await;
            }
            tasks = again;
        }
        Ok(())
    }

    async fn signal(&mut self, tasks: Vec<Found>, signal: Signal) -> Result<(), Failure> {
        for found in tasks {
            let Some(agent) = found.update.agent.clone() else {
                self.refuse(&format!("{} has no place yet", found.update.task));
                continue;
            };
            let io = TaskIo { bus: self.leader.bus().clone(), principal: self.leader.principal().clone(), agent, task: found.update.task.clone(), token: found.token.clone() };
            match io.ask(&What::Signal { signal: signal.number() }, &[], Duration::from_millis(LISTING_MS)).await {
                Ok((Told::Taken { .. }, _)) => self.accept(found)?,
                Ok(_) => return Err(not_understood()),
                Err(failure) => {
                    self.exit = self.exit.max(Exit::NO);
                    report(&failure);
                }
            }
        }
        Ok(())
    }

    /// Prints a task that is on its way down. A reader who is gone changes nothing: the rest is still to be ended.
    fn accept(&mut self, found: Found) -> Result<(), Failure> {
        if !self.manner.is_quiet {
            let _ = self.out.bytes(found.update.task.as_str().as_bytes())?;
        }
        if self.manner.waits {
            self.killed.push(found);
        }
        Ok(())
    }

    fn refuse(&mut self, why: &str) {
        self.exit = self.exit.max(Exit::NO);
        complain(why);
    }

    async fn wait(&mut self) -> Result<(), Failure> {
        let mut watch = Watch::begin(&self.leader, &self.killed).await?;
        let limit = Duration::from_millis(END_MS.saturating_add(self.manner.grace_ms.unwrap_or_default()));
        let ends = async {
            let mut exit = Exit::DONE;
            while let Some(update) = watch.next().await? {
                if update.state == TaskState::Unknown {
                    report(&fate_unknown(&update.task));
                    exit = Exit::OURS;
                }
            }
            Ok::<Exit, Failure>(exit)
        };
        match timeout(limit, ends).await {
            Ok(outcome) => {
                self.exit = self.exit.max(outcome?);
                Ok(())
            }
            Err(_) => Err(Failure::failed(format!("not all have ended after {} s", limit.as_secs())).hint("meso-ps -o wide")),
        }
    }
}
