//! meso-kill: ends tasks or a framework, with grace, and declares agents gone.

#[path = "kill/gone.rs"]
mod gone;

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use meso_cli::client::{Found, LISTING_MS, Leader, Signal, TaskIo, Watch, find_tasks, patience};
use meso_cli::{BusArgs, Exit, Failure, LineIn, LineOut, LineRead, NotOne, Selector, Until, complain, report};
use meso_core::id::TaskId;
use meso_core::wire::call::{Answer, Call};
use meso_core::wire::io::{Told, What};
use meso_core::wire::{Refusal, RefusalCode};
use tokio::time::{Instant, sleep, timeout};

/// Tasks in one call at most.
const BATCH_MAX: usize = 256;
/// So long a batch of lines waits for the next line.
const BATCH_MS: u64 = 5;
/// Between two calls about tasks that a new leader does not know yet.
const RETRY_MS: u64 = 500;
/// With --wait, how much longer than the grace a task may take to end.
const END_MS: u64 = 60_000;

/// End tasks or a framework, or declare an agent gone
///
/// A task is sent TERM, and KILL when its grace is over. Prints the id of each task that is on its way down; a task that is refused is said on
/// standard error, and the rest are still tried.
///
/// With --gone, what is named are agents that will not come back: their tasks end as gone, and whoever launched them may launch them elsewhere.
/// An agent that comes back all the same is refused: it ends what it runs, and itself.
#[derive(clap::Parser)]
#[command(after_help = "Examples:\n  meso-kill @last\n  meso-kill --grace 30s web db\n  meso-ps -q --state running | meso-kill -\n  meso-kill --framework keeper\n  meso-kill --gone node3")]
struct Args {
    /// Task: id, the beginning of one, name or @last; - reads them from standard input, one per line (can be repeated)
    #[arg(value_name = "TASK", required_unless_present_any = ["framework", "gone"])]
    task: Vec<Target>,
    /// End the framework of this name or id, with all its tasks
    #[arg(long, value_name = "NAME", conflicts_with_all = ["task", "signal", "grace", "wait"], value_parser = meso_core::id::Name::parse)]
    framework: Option<meso_core::id::Name>,
    /// Declare an agent gone for good, by host name, id or the beginning of one (can be repeated)
    #[arg(long, value_name = "AGENT", num_args = 0.., conflicts_with_all = ["framework", "signal", "grace", "wait"])]
    gone: Option<Vec<String>>,
    /// With --gone: also an agent that is not unreachable
    #[arg(long, requires = "gone")]
    force: bool,
    /// Send this signal instead, and leave it at that
    #[arg(short, long, value_name = "SIGNAL", conflicts_with = "grace")]
    signal: Option<Signal>,
    /// Between TERM and KILL, in place of the task's own grace
    #[arg(long, value_name = "DURATION", value_parser = meso_core::duration::parse_duration)]
    grace: Option<u64>,
    /// Wait until the tasks have ended
    #[arg(short, long)]
    wait: bool,
    /// Print no ids
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    bus: BusArgs,
}

impl Args {
    /// The agents that are named with --gone, also behind another flag.
    fn agents(&self) -> Vec<String> {
        let behind = self.task.iter().map(|target| match target {
            Target::Task(selector) => selector.to_string(),
            Target::Stdin => "-".to_owned(),
        });
        self.gone.iter().flatten().cloned().chain(behind).collect()
    }
}

/// What a word on the command line stands for.
#[derive(Clone, Debug)]
enum Target {
    Task(Selector),
    Stdin,
}

impl FromStr for Target {
    type Err = NotOne;

    fn from_str(word: &str) -> Result<Self, NotOne> {
        if word == "-" { Ok(Target::Stdin) } else { Selector::parse(word).map(Target::Task) }
    }
}

/// The work so far.
struct Killing {
    args: Args,
    leader: Leader,
    out: LineOut,
    exit: Exit,
    killed: Vec<Found>,
}

fn main() -> ExitCode {
    meso_cli::main(meso_cli::tool!(Plain), kill)
}

async fn kill(args: Args) -> Result<Exit, Failure> {
    if args.gone.is_some() && args.agents().is_empty() {
        return Err(Failure::usage("no agent is named").hint("meso-kill --gone HOST, or an agent's id"));
    }
    let leader = Leader::connect(&args.bus.access()?).await?;
    leader.clone().patiently(kill_all(args, leader)).await
}

async fn kill_all(mut args: Args, leader: Leader) -> Result<Exit, Failure> {
    if args.gone.is_some() {
        return gone::mark_gone(&leader, &args.agents(), args.force, args.quiet).await;
    }
    if let Some(framework) = &args.framework {
        return teardown(&leader, framework.as_str(), args.quiet).await;
    }
    let targets = std::mem::take(&mut args.task);
    let mut killing = Killing { args, leader, out: LineOut::stdout()?, exit: Exit::DONE, killed: Vec::new() };
    let mut named = Vec::new();
    let mut reads_stdin = false;
    for target in targets {
        match target {
            Target::Task(selector) => named.push(selector),
            Target::Stdin => reads_stdin = true,
        }
    }
    for batch in named.chunks(BATCH_MAX) {
        killing.kill(batch).await?;
    }
    if reads_stdin {
        killing.kill_lines().await?;
    }
    if killing.args.wait {
        killing.wait().await?;
    }
    Ok(killing.exit)
}

async fn teardown(leader: &Leader, framework: &str, quiet: bool) -> Result<Exit, Failure> {
    let limit = patience();
    match leader.call(&Call::Teardown { framework: framework.to_owned() }, limit).await? {
        None => Err(leader.nobody(limit)),
        Some(Answer::Done {}) => {
            if !quiet {
                let _ = LineOut::stdout()?.bytes(framework.as_bytes())?;
            }
            Ok(Exit::DONE)
        }
        Some(Answer::Refused(refusal)) if refusal.code == RefusalCode::NotYours => Err(Failure::denied(refusal.message).hint("--principal NAME of its owner")),
        Some(Answer::Refused(refusal)) => Err(Failure::failed(refusal.message).hint("meso-ps frameworks")),
        Some(_) => Err(not_understood()),
    }
}

impl Killing {
    /// Kills what stands on the lines of stdin, a batch at a time, and does not wait for the end of a slow writer.
    async fn kill_lines(&mut self) -> Result<(), Failure> {
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

    async fn kill(&mut self, selectors: &[Selector]) -> Result<(), Failure> {
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
        match self.args.signal {
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
            let verdicts = match self.leader.call(&Call::Kill { tasks: ids, grace_ms: self.args.grace }, left).await? {
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
        if !self.args.quiet {
            let _ = self.out.bytes(found.update.task.as_str().as_bytes())?;
        }
        if self.args.wait {
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
        let limit = Duration::from_millis(END_MS.saturating_add(self.args.grace.unwrap_or_default()));
        let ends = async {
            while watch.next().await?.is_some() {}
            Ok(())
        };
        match timeout(limit, ends).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::failed(format!("not all have ended after {} s", limit.as_secs())).hint("meso-ps -o wide")),
        }
    }
}

fn not_understood() -> Failure {
    Failure::failed("the answer is not understood").hint("the same version of meso everywhere")
}
