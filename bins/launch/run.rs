//! The loop of meso-launch: the machine of `meso_core::launcher` between the bus, the outputs and the signals.

mod endings;
mod interrupts;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use bytes::Bytes;
use meso_bus::driver::Clock;
use meso_bus::{Bus, BusEvent};
use meso_cli::client::{Absence, Follower, Leader, Seat, TaskIo, too_late};
use meso_cli::{Exit, Failure, Progress, complain, io_text, random, report, who};
use meso_core::id::{AgentId, FrameworkId, Nonce, TaskId};
use meso_core::launcher::{Config, Effect, Event, Failure as NoTask, Job, Launcher};
use meso_core::task::TaskState;
use meso_core::wire::call::{Answer, Call, Demand};
use meso_core::wire::io::Stream;
use meso_core::wire::{Offer, Task, Update};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use interrupts::interrupted;

use crate::Args;
use crate::hearing::Ear;
use crate::offers::{Offers, complain_of_line, own_seat};
use crate::overheard::mind_stdin;
use crate::output::{Order, Printed, copy, print};
use crate::plan::Plan;
use crate::signals::{USR1, USR2};
use crate::why::{TOLD_AFTER, why, with_reasons};
use crate::{signals, stdin};

/// How long one call may go unanswered before it is made again, milliseconds.
const CALL_MS: u64 = 5_000;
/// Pause before it is tried again to listen.
const LISTEN_AGAIN: Duration = Duration::from_millis(500);
/// How many jobs wait at the machine: more stay where they come from.
const JOBS_AHEAD_MAX: usize = 512;
/// How many ended tasks wait to be printed before no more are started: agents keep their outputs meanwhile.
const UNPRINTED_MAX: usize = 1_000;
/// How many things may wait to be handled.
const HAPPENED_MAX: usize = 4096;
/// For how long the tasks of a named framework live on without a session, milliseconds (contract: 7 days).
const FAILOVER_MS: u64 = 7 * 24 * 3_600_000;

/// What reaches the loop besides time and signals.
pub enum Happened {
    /// For the machine.
    Machine(Event),
    /// The output of one of several tasks was printed.
    Printed(Result<Printed, Failure>),
    /// The output of a single task came to its end.
    Followed(Result<Printed, Failure>),
    /// Our input came to its end.
    Fed(Result<(), Failure>),
    /// A line of offers could not be used.
    BadLine(u64, Failure),
    /// The leader said why there is no task yet, or said nothing.
    Why(Option<String>),
}

/// A job on its way.
struct Live {
    item: String,
    task: Option<(TaskId, TaskIo)>,
    /// What follows the outputs of a single task.
    followers: usize,
}

struct Run {
    args: Args,
    plan: Plan,
    bus: Bus,
    leader: Leader,
    launcher: Launcher,
    clock: Clock,
    to: mpsc::Sender<Happened>,
    ear: Ear,
    listening: Vec<JoinHandle<()>>,
    progress: Progress,
    jobs: BTreeMap<u64, Live>,
    order: Order,
    printing: bool,
    following: usize,
    report: Option<File>,
    exit: Exit,
    interrupted_by: Option<i32>,
    last_int: Option<Instant>,
    kill_at: Option<Instant>,
    reader_gone: bool,
    output_failed: bool,
    absence: Absence,
    registered: bool,
    left: bool,
    leaving: bool,
    last_update: Option<Update>,
    fed: bool,
    /// Whether a person still is to be told why nothing runs.
    tells_why: bool,
    /// What is said once the leader has told why no offer came.
    farewell: Option<Failure>,
}

/// Runs the plan to its end.
pub async fn run(args: Args, plan: Plan) -> Result<Exit, Failure> {
    let leader = Leader::connect(&plan.access).await?;
    let own = own_seat(plan.role.clone())?;
    if !args.quiet && !args.stdin && !args.each.iter().chain(&args.each0).any(|path| path.as_os_str() == "-") {
        tokio::task::spawn_local(mind_stdin());
    }
    run_in(args, plan, leader, own, None, signals::listen()?).await
}

/// Runs the plan on offers that are read, in the session that they belong to.
pub async fn run_on(args: Args, plan: Plan) -> Result<Exit, Failure> {
    let mut signals = signals::listen()?;
    let leader = Leader::connect(&plan.access).await?;
    let mut offers = Offers::open(&args, leader.clone()).await?;
    let deadline = plan.start_deadline_ms.map(Duration::from_millis);
    let mut absence = Absence::of(&leader, args.quiet);
    let late = sleep(deadline.unwrap_or(Duration::MAX));
    tokio::pin!(late);
    let (seat, first) = loop {
        tokio::select! {
            biased;
            Some(signal) = signals.recv() => return Ok(Exit::signal(u8::try_from(signal).unwrap_or(127))),
            () = &mut late, if deadline.is_some() => return Err(Failure::not_now("no offer came by the start deadline").hint("meso-ps agents shows what is free")),
            line = offers.next() => match line? {
                Some(Ok(found)) => break found,
                Some(Err((number, failure))) => {
                    complain_of_line(number, &failure);
                    if args.strict {
                        return Ok(Exit::BAD_INPUT);
                    }
                }
                None => return Err(no_offer()),
            },
            gone = absence.over(false) => return Err(gone),
        }
    };
    run_in(args, plan, leader, seat, Some((offers, first)), signals).await
}

/// What to say when offers ended before a task had one.
pub fn no_offer() -> Failure {
    Failure::not_now("the offers ended before one was found that fits").hint("meso-ps agents shows what is free; a filter may have let nothing pass")
}

async fn run_in(args: Args, plan: Plan, leader: Leader, seat: Seat, offers: Option<(Offers, Offer)>, mut signals: mpsc::Receiver<i32>) -> Result<Exit, Failure> {
    let report = args.report.as_ref().map(|path| File::create(path).map_err(|error| Failure::failed(format!("cannot write {}: {}", path.display(), io_text(&error))))).transpose()?;
    let mut source = plan.source().await?;
    let bus = leader.bus().clone();
    let framework = seat.framework.clone();
    let clock = Clock::default();
    let (to, mut happened) = mpsc::channel(HAPPENED_MAX);
    let launcher = Launcher::new(
        Config {
            framework: framework.clone(),
            session: seat.session.clone(),
            session_no: seat.session_no,
            member: seat.member.clone(),
            guest: args.offer.is_some(),
            per_offer_max: args.per_offer.unwrap_or(u32::MAX),
            name: plan.framework.clone(),
            role: seat.role.clone(),
            who: who(),
            request: plan.request.clone(),
            condition: args.condition.clone().unwrap_or_default(),
            revocable: args.revocable,
            on: args.on.clone(),
            at_once_max: args.at_once.unwrap_or(u32::MAX),
            retries: args.retries,
            retries_lost: if args.detach { 0 } else { args.retries_lost },
            start_deadline_ms: plan.start_deadline_ms,
            failover_ms: if plan.framework.is_some() { FAILOVER_MS } else { 0 },
            seed: [random()?, random()?],
        },
        clock.now_ms(),
    );
    let progress = if plan.is_many && !args.detach { Progress::bar(plan.count.unwrap_or(0), args.quiet) } else { Progress::spinner(&format!("waiting for an offer ({})", plan.request), args.quiet) };
    let order = Order::new(args.keep_order);
    let absence = Absence::of(&leader, args.quiet);
    let tells_why = offers.is_none() && !args.quiet && std::io::stderr().is_terminal();
    let ear = Ear::new(bus.clone(), to.clone());
    let mut run = Run {
        args,
        plan,
        bus,
        leader,
        launcher,
        clock,
        to,
        ear,
        listening: Vec::new(),
        progress,
        jobs: BTreeMap::new(),
        order,
        printing: false,
        following: 0,
        report,
        exit: Exit::DONE,
        interrupted_by: None,
        last_int: None,
        kill_at: None,
        reader_gone: false,
        output_failed: false,
        absence,
        registered: false,
        left: false,
        leaving: false,
        last_update: None,
        fed: false,
        tells_why,
        farewell: None,
    };
    run.listen(&framework).await?;
    if let Some((offers, first)) = offers {
        tokio::task::spawn_local(offers.hand_in(first, run.launcher.framework().clone(), run.to.clone()));
    }
    let begun = Instant::now();
    let mut more = true;
    loop {
        // Items that are read come one by one below: whoever waits at a pipe for the next does not hold up those that are here.
        while more && run.plan.count.is_some() && run.wants_jobs() {
            match source.next(&run.plan).await? {
                Some((job, item)) => run.take(job, item)?,
                None => more = false,
            }
        }
        if more && run.plan.count.is_none() {
            run.progress.set_total(run.jobs.len() as u64);
        }
        if run.is_done(more) {
            break;
        }
        let wait = run.launcher.deadline().map_or(Duration::from_secs(60), |at| Duration::from_millis(at.saturating_sub(run.clock.now_ms())));
        let kill_at = run.kill_at;
        let needs_leader = run.needs_leader();
        let tells_why = run.tells_why && run.registered;
        let feeding = more && run.wants_jobs() && run.plan.count.is_none();
        tokio::select! {
            biased;
            // What cannot be reached can neither be told nor waited for. A task that runs is told by its agent, without any master.
            Some(signal) = signals.recv() => match run.absence.is_away() && signal != USR1 && signal != USR2 && !run.can_be_told() {
                true => return run.give_up(&interrupted(), Exit::signal(u8::try_from(signal).unwrap_or(127))),
                false => run.on_signal(signal).await?,
            },
            Some(what) = happened.recv() => run.on_happened(what)?,
            job = source.next(&run.plan), if feeding => match job? {
                Some((job, item)) => run.take(job, item)?,
                None => more = false,
            },
            () = sleep(wait) => run.step(Event::Tick)?,
            () = sleep(until(kill_at)), if kill_at.is_some() => run.escalate()?,
            () = sleep(TOLD_AFTER.saturating_sub(begun.elapsed())), if tells_why => {
                run.tells_why = false;
                run.ask_why();
            }
            gone = run.absence.over(needs_leader) => return run.give_up(&gone, Exit::OURS),
        }
    }
    run.end(&source)
}

fn until(at: Option<Instant>) -> Duration {
    at.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()))
}

impl Run {
    async fn listen(&mut self, framework: &FrameworkId) -> Result<(), Failure> {
        for old in self.listening.drain(..) {
            old.abort();
        }
        let subjects = self.bus.subjects();
        let pushes = self.bus.subscribe(&subjects.push(self.leader.principal(), framework)).await?;
        let statuses = self.bus.subscribe(&subjects.events_of_framework(framework)).await?;
        self.listening.push(tokio::task::spawn_local(self.ear.clone().hear_pushes(pushes)));
        self.listening.push(tokio::task::spawn_local(self.ear.clone().hear_statuses(statuses)));
        let to = self.to.clone();
        let mut events = self.bus.events();
        self.listening.push(tokio::task::spawn_local(async move {
            while let Some(event) = events.next().await {
                // What happened while the connection was away was not heard.
                if let BusEvent::Connected | BusEvent::Missed { .. } = event {
                    let _ = to.send(Happened::Machine(Event::Gap)).await;
                }
            }
        }));
        Ok(())
    }

    /// Takes a job on.
    fn take(&mut self, job: Job, item: String) -> Result<(), Failure> {
        self.jobs.insert(job.index, Live { item, task: None, followers: 0 });
        self.step(Event::Job(Box::new(job)))
    }

    fn wants_jobs(&self) -> bool {
        self.launcher.waiting() < JOBS_AHEAD_MAX && self.order.waiting() < UNPRINTED_MAX && self.interrupted_by.is_none() && !self.reader_gone
    }

    fn is_done(&mut self, more: bool) -> bool {
        if self.left {
            return self.following == 0 && !self.printing && self.order.waiting() == 0;
        }
        let idle = self.jobs.is_empty() && (!more || self.interrupted_by.is_some() || self.reader_gone);
        let is_told = self.farewell.is_none() || self.interrupted_by.is_some();
        if idle && is_told && self.following == 0 && !self.printing && self.order.waiting() == 0 && !self.leaving {
            self.leaving = true;
            // A failure to leave is the leader's to find out: the session lapses.
            let _ = self.step(Event::Leave);
        }
        // Whoever was never registered has left at once, and nothing more will happen.
        self.left
    }

    /// Whether a signal reaches a task, and none has before.
    fn can_be_told(&self) -> bool {
        self.bus.is_connected() && self.interrupted_by.is_none() && self.launcher.out().any(|(_, _, begun)| begun)
    }

    fn step(&mut self, event: Event) -> Result<(), Failure> {
        for effect in self.launcher.step(self.clock.now_ms(), event) {
            self.perform(effect)?;
        }
        Ok(())
    }

    fn on_happened(&mut self, what: Happened) -> Result<(), Failure> {
        match what {
            Happened::Machine(event) => {
                match &event {
                    Event::Answer { answer: Some(_), .. } => self.absence.answered(),
                    Event::Answer { answer: None, .. } => self.absence.unanswered(),
                    _ => {}
                }
                self.step(event)
            }
            Happened::Printed(outcome) => {
                self.printing = false;
                self.on_printed(outcome)?;
                self.print_next();
                Ok(())
            }
            Happened::Followed(outcome) => {
                // Whoever left its task to itself follows nothing any more.
                self.following = self.following.saturating_sub(1);
                self.on_printed(outcome)
            }
            Happened::BadLine(number, failure) => {
                complain_of_line(number, &failure);
                if self.args.strict && self.interrupted_by.is_none() {
                    self.exit = self.exit.max(Exit::BAD_INPUT);
                    return self.step(Event::NoMore);
                }
                Ok(())
            }
            Happened::Why(reasons) => {
                self.tell_why(reasons);
                Ok(())
            }
            Happened::Fed(outcome) => {
                if let Err(failure) = outcome {
                    report(&failure);
                    self.exit = self.exit.max(Exit::OURS);
                }
                Ok(())
            }
        }
    }

    fn on_printed(&mut self, outcome: Result<Printed, Failure>) -> Result<(), Failure> {
        match outcome {
            Ok(Printed::Whole) => Ok(()),
            Ok(Printed::ReaderGone) => {
                // Nobody reads any more: what runs for this output ends, and that is no failure.
                if !self.reader_gone {
                    self.reader_gone = true;
                    self.step(Event::Kill { grace_ms: self.plan.kill_grace_ms })?;
                }
                Ok(())
            }
            Err(failure) => {
                self.cannot_write(&failure);
                self.reader_gone = true;
                self.step(Event::Kill { grace_ms: self.plan.kill_grace_ms })
            }
        }
    }

    /// Said once, however many outputs it meets.
    fn cannot_write(&mut self, failure: &Failure) {
        if !self.output_failed {
            self.output_failed = true;
            report(failure);
        }
    }

    fn perform(&mut self, effect: Effect) -> Result<(), Failure> {
        match effect {
            Effect::Call { no, call } => self.call(no, *call),
            Effect::Framework(framework) => {
                // The name was known: its id is another. Hear it before anything is said.
                self.relisten(framework);
            }
            Effect::Registered { .. } => self.registered = true,
            Effect::Begun { index, task, agent, token, attempt, host } => self.begun(index, task, agent, token, attempt, &host),
            Effect::News { index, update } => self.news(index, &update),
            Effect::Again { index, update } => {
                if let Some(live) = self.jobs.get_mut(&index) {
                    live.task = None;
                    live.followers = 0;
                }
                if !self.args.quiet {
                    let why = update.message.clone().unwrap_or_default();
                    let why = meso_core::json::escape_for_terminal(&why);
                    self.progress.println(&format!("meso-launch: {} {}: {why}; running it again", update.task, update.state));
                }
            }
            Effect::Ended { index, update, attempts } => self.ended(index, *update, attempts)?,
            Effect::Failed { index, failure } => self.failed(index, &failure)?,
            Effect::TooLate(refusal) => report(&too_late(&refusal)),
            Effect::Left => {
                self.left = true;
                for index in self.jobs.keys().copied().collect::<Vec<_>>() {
                    self.failed(index, &NoTask::Interrupted)?;
                }
            }
        }
        Ok(())
    }

    fn relisten(&mut self, framework: FrameworkId) {
        let (bus, principal, ear, to) = (self.bus.clone(), self.leader.principal().clone(), self.ear.clone(), self.to.clone());
        tokio::task::spawn_local(async move {
            let subjects = bus.subjects().clone();
            // Whoever does not listen is offered everything and places nothing.
            let (pushes, statuses) = loop {
                match (bus.subscribe(&subjects.push(&principal, &framework)).await, bus.subscribe(&subjects.events_of_framework(&framework)).await) {
                    (Ok(pushes), Ok(statuses)) => break (pushes, statuses),
                    _ if bus.is_closed() => return,
                    _ => sleep(LISTEN_AGAIN).await,
                }
            };
            let _ = to.send(Happened::Machine(Event::Gap)).await;
            tokio::join!(ear.clone().hear_pushes(pushes), ear.hear_statuses(statuses));
        });
    }

    fn call(&self, no: u64, call: Call) {
        let (bus, to) = (self.bus.clone(), self.to.clone());
        let subject = bus.subjects().framework_call(self.leader.principal(), "call");
        tokio::task::spawn_local(async move {
            let payload = Bytes::from(serde_json::to_vec(&call).expect("a call is plain data"));
            let answer: Option<Answer> = match bus.request(&subject, payload, Duration::from_millis(CALL_MS)).await {
                Ok(bytes) => serde_json::from_slice(&bytes).ok(),
                Err(error) => {
                    if let meso_bus::BusError::Denied { .. } = &error {
                        complain(&error.to_string());
                    }
                    None
                }
            };
            let _ = to.send(Happened::Machine(Event::Answer { no, answer })).await;
        });
    }

    /// What one task needs, and how many have no place yet.
    fn demand(&self) -> Demand {
        let count = u32::try_from(self.launcher.waiting()).unwrap_or(u32::MAX).max(1);
        Demand { request: self.plan.request.clone(), count, condition: self.args.condition.clone().unwrap_or_default(), on: self.args.on.clone(), revocable: self.args.revocable, ..Demand::default() }
    }

    fn ask_why(&self) {
        let (leader, framework, demand, to) = (self.leader.clone(), self.launcher.framework().clone(), self.demand(), self.to.clone());
        tokio::task::spawn_local(async move {
            let _ = to.send(Happened::Why(why(leader, framework, demand).await)).await;
        });
    }

    fn tell_why(&mut self, reasons: Option<String>) {
        let is_waiting = self.launcher.waiting() > 0 && self.launcher.flying() == 0;
        match (self.farewell.take(), reasons) {
            (Some(words), reasons) => report(&with_reasons(words, reasons, &self.plan.role, &self.demand())),
            (None, Some(reasons)) if is_waiting => complain(&format!("still waiting: {reasons}")),
            (None, _) => {}
        }
    }

    fn begun(&mut self, index: u64, task: TaskId, agent: AgentId, token: Nonce, _attempt: u32, _host: &str) {
        self.tells_why = false;
        let io = TaskIo { bus: self.bus.clone(), principal: self.leader.principal().clone(), agent, task: task.clone(), token: Some(token) };
        if self.args.detach {
            return;
        }
        if !self.plan.is_many {
            self.progress = Progress::none();
            if self.args.stdin && !self.fed {
                self.fed = true;
                let (io, to) = (io.clone(), self.to.clone());
                tokio::task::spawn_local(async move {
                    let outcome = stdin::feed(io, stdin::read()).await;
                    let _ = to.send(Happened::Fed(outcome)).await;
                });
            }
        }
        if let Some(live) = self.jobs.get_mut(&index) {
            live.task = Some((task, io));
        }
    }

    /// Prints the id of a task that is left to itself, once.
    pub(super) fn let_go(&mut self, index: u64, task: &TaskId) {
        if self.jobs.remove(&index).is_none() {
            return;
        }
        self.progress.advance(1);
        if let Err(error) = print_line(task.as_str()) {
            self.reader_gone = true;
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                self.cannot_write(&Failure::stdout(&error));
            }
        }
    }

    fn news(&mut self, index: u64, update: &Update) {
        // Its agent has it on its disk: from here on nobody has to stand by it.
        if self.args.detach && update.agent_seq > 0 {
            self.let_go(index, &update.task);
        }
        if self.plan.is_many || self.args.detach {
            return;
        }
        match update.state {
            TaskState::Running => self.follow(index, None),
            TaskState::Unreachable => complain(&format!("{}: {}; waiting for it", update.task, update.message.clone().unwrap_or_default())),
            _ => {}
        }
    }

    /// Follows both outputs of a single task.
    fn follow(&mut self, index: u64, ended: Option<&Update>) {
        let Some(live) = self.jobs.get_mut(&index) else { return };
        let Some((_, io)) = live.task.clone() else { return };
        if live.followers > 0 {
            return;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let total = ended.map(|update| if stream == Stream::Stdout { update.stdout_bytes } else { update.stderr_bytes });
            live.followers += 1;
            if total == Some(0) {
                continue;
            }
            let mut follower = Follower::new(io.clone(), stream, 0).holding_output();
            if let Some(total) = total {
                follower.expect(total);
            }
            self.following += 1;
            let to = self.to.clone();
            tokio::task::spawn_local(async move {
                let outcome = copy(follower, stream).await;
                let _ = to.send(Happened::Followed(outcome)).await;
            });
        }
    }

    fn print_next(&mut self) {
        if self.printing {
            return;
        }
        while let Some(ended) = self.order.take() {
            if self.reader_gone {
                continue;
            }
            self.printing = true;
            let to = self.to.clone();
            tokio::task::spawn_local(async move {
                let outcome = print(ended).await;
                let _ = to.send(Happened::Printed(outcome)).await;
            });
            return;
        }
    }

    /// Whether anything waits for whoever leads; tasks that run need nobody.
    fn needs_leader(&self) -> bool {
        // Nothing is looked through while somebody answers.
        self.absence.is_silent() && (!self.registered || self.launcher.waiting() > 0 || self.launcher.out().any(|(_, _, begun)| !begun))
    }

}

fn print_line(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{text}\n").as_bytes())?;
    out.flush()
}

/// A task as `--dry-run` prints it.
pub fn shown(task: &Task) -> Result<String, Failure> {
    serde_json::to_string(task).map_err(|error| Failure::internal(format!("the task: {error}")))
}
