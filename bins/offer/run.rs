//! The loop of meso-offer: the machine of `meso_core::offerer` between the bus, the output and the signals.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use meso_bus::driver::Clock;
use meso_bus::{Bus, BusError};
use meso_cli::client::{Absence, Leader, Seat};
use meso_cli::{Exit, Failure, complain, io_text, random};
use meso_core::id::{FrameworkId, Nonce};
use meso_core::offerer::{Effect, End, Event, Offerer};
use meso_core::role::Role;
use meso_core::wire::Wall;
use meso_core::wire::call::Call;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::exec::{self, Program, RESULTS_MAX, Restarts, Told};
use crate::jq::Jq;
use crate::hearing::{hear_leaders, hear_pushes, hear_statuses, snapshot};
use crate::output::{Output, Sent};
use crate::plan::Plan;
use crate::words::text_of;
use crate::Args;

/// How long one call may go unanswered before it is made again, milliseconds.
const CALL_MS: u64 = 5_000;
/// How long the end of the session may take, milliseconds: without an answer it lapses by itself.
const LEAVE_MS: u64 = 2_000;
/// How many events may wait to be handled.
const EVENTS_MAX: usize = 4_096;
/// How long to sleep if the machine names no deadline.
const IDLE: Duration = Duration::from_secs(60);
struct Head {
    args: Args,
    bus: Bus,
    leader: Leader,
    machine: Offerer,
    clock: Clock,
    output: Output,
    role: Role,
    to: mpsc::Sender<Event>,
    pushes: Option<JoinHandle<()>>,
    followed: Option<JoinHandle<()>>,
    /// Where statuses go, if not among the other lines; and whether the last found no room.
    updates: Option<Output>,
    updates_blocked: bool,
    /// The program of `--exec`, until the session has begun.
    program: Option<Program>,
    told_to: mpsc::Sender<Told>,
    /// Answers to the program's calls.
    results: VecDeque<String>,
    /// The seat of the program, once it has one.
    seat: Option<Seat>,
    /// Another program takes the seat of one that fails.
    may_fail: bool,
    /// What chooses among the lines.
    jq: Option<Jq>,
    /// The last line found no room.
    blocked: bool,
    absence: Absence,
    registered: bool,
    said_missed: Vec<&'static str>,
    said_dropped: bool,
    end: Option<End>,
}

/// Runs a session to its end.
pub async fn run(args: Args, plan: Plan) -> Result<Exit, Failure> {
    let mut signals = Signals::listen()?;
    let leader = Leader::connect(&plan.access).await?;
    let (program, output) = match &args.exec {
        Some(command) => {
            let (program, stdin) = Program::start(command)?;
            (Some(program), Output::of_program(stdin)?)
        }
        None => (None, Output::stdout()?),
    };
    let jq = match &args.jq {
        Some(expression) => Some(Jq::start(expression).await?),
        None => None,
    };
    let updates = args.updates_fd.map(Output::of_fd).transpose()?;
    let mut pid = program.as_ref().and_then(Program::pid);
    let mut restarts = Restarts::new(args.restarts);
    let (told_to, mut told) = mpsc::channel(RESULTS_MAX);
    let bus = leader.bus().clone();
    let clock = Clock::default();
    let (to, mut events) = mpsc::channel(EVENTS_MAX);
    let absence = Absence::of(&leader, args.quiet);
    let machine = Offerer::new(plan.config(&args)?, clock.now_ms());
    let mut head = Head {
        args,
        bus,
        leader,
        machine,
        clock,
        output,
        role: plan.role.clone(),
        to,
        pushes: None,
        followed: None,
        updates,
        updates_blocked: false,
        program,
        seat: None,
        may_fail: restarts.are_left(),
        told_to,
        results: VecDeque::new(),
        jq,
        blocked: false,
        absence,
        registered: false,
        said_missed: Vec::new(),
        said_dropped: false,
        end: None,
    };
    let framework = head.machine.framework().clone();
    head.listen(&framework).await?;
    tokio::task::spawn_local(hear_leaders(head.bus.clone(), head.to.clone()));
    head.step(Event::Tick { unread: head.output.unread() }).await?;
    let mut interrupted = None;
    let mut gone = false;
    let mut ended = None;
    let mut leave_at = None;
    loop {
        head.write_lines().await?;
        head.write_statuses().await?;
        if let Some(end) = head.end.take() {
            if pid.is_some() && ended.is_none() {
                if end != End::Done || interrupted.is_some() {
                    exec::ask_to_end(pid);
                }
                ended = last_word(&mut told).await;
                if ended.is_none() {
                    exec::ask_to_end(pid);
                }
            }
            return match (interrupted, ended) {
                (Some(signal), _) => Ok(Exit::signal(signal)),
                (None, Some(exit)) => Ok(exit),
                (None, None) => exit_of(end, &head),
            };
        }
        let wait = head.machine.deadline().map_or(IDLE, |at_ms| Duration::from_millis(at_ms.saturating_sub(head.clock.now_ms())));
        tokio::select! {
            biased;
            signal = signals.next() => {
                interrupted = interrupted.or(Some(signal));
                // Nobody is there to be told: the session lapses.
                let wait_ms = if head.absence.is_away() { 0 } else { LEAVE_MS };
                leave_at.get_or_insert(Instant::now() + Duration::from_millis(wait_ms));
                head.step(Event::Leave).await?;
            }
            () = head.output.gone(), if !gone && pid.is_some() => gone = true,
            () = head.output.gone(), if !gone => {
                gone = true;
                leave_at.get_or_insert(Instant::now() + Duration::from_millis(LEAVE_MS));
                head.reader_gone().await?;
            }
            Some(event) = events.recv() => {
                match &event {
                    Event::Answer { answer: Some(_), .. } => head.absence.answered(),
                    Event::Answer { answer: None, .. } => head.absence.unanswered(),
                    _ => {}
                }
                head.step(event).await?;
            }
            Some(what) = told.recv(), if head.results.len() < RESULTS_MAX => match what {
                Told::Result(line) => head.results.push_back(line),
                Told::Ended(exit) if interrupted.is_none() && restarts.take(exit) => {
                    pid = None;
                    gone = true;
                    head.results.clear();
                    head.step(Event::Blocked).await?;
                }
                Told::Ended(exit) => {
                    ended = Some(exit);
                    leave_at.get_or_insert(Instant::now() + Duration::from_millis(LEAVE_MS));
                    head.step(Event::Leave).await?;
                }
                Told::Over(failure) => return Err(failure),
            },
            () = head.output.room(), if head.blocked => {
                head.blocked = false;
                head.step(Event::Room).await?;
            }
            () = restarts.due() => {
                head.may_fail = restarts.are_left();
                pid = head.start_again().await?;
                gone = false;
            }
            () = room_in(&head.updates), if head.updates_blocked => head.updates_blocked = false,
            () = sleep(wait) => head.step(Event::Tick { unread: head.output.unread() }).await?,
            gone = head.absence.over(true) => return Err(gone),
            () = sleep_until(leave_at.unwrap_or_else(Instant::now)), if leave_at.is_some() => head.end = Some(End::Done),
        }
    }
}

async fn room_in(output: &Option<Output>) {
    match output {
        Some(output) => output.room().await,
        None => std::future::pending().await,
    }
}

/// How the program of `--exec` ended, if it does so soon: its session is over.
async fn last_word(told: &mut mpsc::Receiver<Told>) -> Option<Exit> {
    let ended = async {
        loop {
            match told.recv().await? {
                Told::Ended(exit) => return Some(exit),
                Told::Result(_) => {}
                Told::Over(_) => return None,
            }
        }
    };
    timeout(Duration::from_millis(LEAVE_MS), ended).await.ok().flatten()
}

fn exit_of(end: End, head: &Head) -> Result<Exit, Failure> {
    match end {
        End::Done => Ok(Exit::DONE),
        End::Lost(why) => Err(Failure::not_now(why).hint("--standby waits for the name, --takeover takes it")),
        End::TooFew { got } => Err(Failure::not_now(format!("{got} of {} offers in {}", head.args.min, meso_core::duration::show_duration(head.args.wait))).hint("a longer --wait, or meso-ps agents for what is free")),
        End::Refused(refusal) => Err(Failure::failed(refusal.message)),
    }
}

impl Head {
    async fn listen(&mut self, framework: &FrameworkId) -> Result<(), Failure> {
        if let Some(old) = self.pushes.take() {
            old.abort();
        }
        let pushes = self.bus.subscribe(&self.bus.subjects().push(self.leader.principal(), framework)).await?;
        self.pushes = Some(tokio::task::spawn_local(hear_pushes(pushes, self.to.clone())));
        Ok(())
    }

    async fn step(&mut self, event: Event) -> Result<(), Failure> {
        for effect in self.machine.step(self.clock.now_ms(), event) {
            self.perform(effect).await?;
        }
        Ok(())
    }

    async fn perform(&mut self, effect: Effect) -> Result<(), Failure> {
        match effect {
            Effect::Call { no, call } => self.call(no, *call),
            Effect::Framework(framework) => self.listen(&framework).await?,
            Effect::Follow { after } => {
                let hears = hear_statuses(self.leader.clone(), self.machine.framework().clone(), after, self.to.clone());
                if let Some(before) = self.followed.replace(tokio::task::spawn_local(hears)) {
                    before.abort();
                }
            }
            Effect::Snapshot => {
                tokio::task::spawn_local(snapshot(self.leader.clone(), self.to.clone()));
            }
            Effect::Registered { agents } => {
                if !self.registered && agents == 0 && !self.args.quiet {
                    complain("no agent is in service yet; waiting for one");
                }
                self.registered = true;
                self.serve_program()?;
            }
            Effect::Waiting(why) => {
                self.registered = true;
                if !self.args.quiet {
                    complain(&format!("{why}; waiting for it"));
                }
            }
            Effect::End(end) => self.end = Some(end),
        }
        Ok(())
    }

    /// Gives the program of `--exec` a seat in the session, once there is one.
    fn serve_program(&mut self) -> Result<(), Failure> {
        let Some(program) = self.program.take() else { return Ok(()) };
        let seat = match &self.seat {
            Some(seat) => seat.clone(),
            None => self.take_seat()?,
        };
        tokio::task::spawn_local(program.serve(self.leader.clone(), seat, self.may_fail, self.told_to.clone()));
        Ok(())
    }

    fn take_seat(&mut self) -> Result<Seat, Failure> {
        let (session, session_no) = self.machine.session();
        let seat = Seat {
            framework: self.machine.framework().clone(),
            session: session.clone(),
            session_no,
            member: Some(Nonce::fresh(random()?, random()?)),
            role: self.role.clone(),
        };
        let (leader, keeper) = (self.leader.clone(), seat.clone());
        tokio::task::spawn_local(async move {
            let refusal = keeper.keep(&leader).await;
            complain(&refusal.message);
        });
        self.seat = Some(seat.clone());
        Ok(seat)
    }

    /// Starts the program of `--exec` anew, in the seat of the one that failed.
    async fn start_again(&mut self) -> Result<Option<rustix::process::Pid>, Failure> {
        let Some(command) = &self.args.exec else { return Ok(None) };
        let (program, stdin) = Program::start(command)?;
        let pid = program.pid();
        self.output = Output::of_program(stdin)?;
        self.program = Some(program);
        self.blocked = false;
        self.step(Event::NewReader).await?;
        self.serve_program()?;
        Ok(pid)
    }

    fn call(&self, no: u64, call: Call) {
        let (bus, to) = (self.bus.clone(), self.to.clone());
        let subject = bus.subjects().framework_call(self.leader.principal(), "call");
        tokio::task::spawn_local(async move {
            let payload = Bytes::from(serde_json::to_vec(&call).expect("a call is plain data"));
            let answer = match bus.request(&subject, payload, Duration::from_millis(CALL_MS)).await {
                Ok(bytes) => serde_json::from_slice(&bytes).ok(),
                Err(error) => {
                    if let BusError::Denied { .. } = &error {
                        complain(&error.to_string());
                    }
                    None
                }
            };
            let _ = to.send(Event::Answer { no, answer }).await;
        });
    }

    /// What the reader took before it went counts: that may still be used.
    async fn reader_gone(&mut self) -> Result<(), Failure> {
        if self.args.exec.is_some() {
            // A program that reads no more may still make calls; its end is what counts.
            self.results.clear();
            return self.step(Event::Blocked).await;
        }
        self.step(Event::Tick { unread: self.output.unread() }).await?;
        self.step(Event::ReaderGone).await
    }

    /// Hands out lines as long as there is room for them.
    async fn write_lines(&mut self) -> Result<(), Failure> {
        if self.blocked || self.output.flush()? != Sent::Yes {
            return Ok(());
        }
        while let Some(text) = self.results.front() {
            let bytes = text.len() as u64;
            match self.output.line(text)? {
                Sent::Yes => {
                    self.results.pop_front();
                    self.step(Event::Wrote { bytes }).await?;
                }
                Sent::NoRoom => {
                    self.blocked = true;
                    return self.step(Event::Blocked).await;
                }
                Sent::ReaderGone => return self.reader_gone().await,
            }
        }
        loop {
            let now_ms = self.clock.now_ms();
            let Some(line) = self.machine.line(now_ms, wall()) else { break };
            let mut missed = Vec::new();
            let mut text = text_of(line, &self.args.output, &mut missed)?;
            if let Some(jq) = &mut self.jq {
                text = jq.lines(&text).await?;
                if text.is_empty() {
                    self.step(Event::Unwanted).await?;
                    continue;
                }
            }
            let sent = self.output.line(&text)?;
            match sent {
                Sent::Yes => {
                    self.say_missed(missed);
                    self.step(Event::Wrote { bytes: text.len() as u64 }).await?;
                }
                Sent::NoRoom => {
                    self.blocked = true;
                    return self.step(Event::Blocked).await;
                }
                Sent::ReaderGone => return self.reader_gone().await,
            }
        }
        if self.machine.dropped_statuses() > 0 && !self.said_dropped {
            self.said_dropped = true;
            complain("more statuses wait for an acknowledgement than are kept: of each task only the last is told from now on");
        }
        Ok(())
    }

    /// Hands out statuses to a reader of their own.
    async fn write_statuses(&mut self) -> Result<(), Failure> {
        while let (Some(updates), false) = (&mut self.updates, self.updates_blocked) {
            if updates.flush()? != Sent::Yes {
                self.updates_blocked = true;
                break;
            }
            let Some((task, line)) = self.machine.status_line() else { break };
            let mut missed = Vec::new();
            let text = text_of(line, &self.args.output, &mut missed)?;
            match updates.line(&text)? {
                Sent::Yes => self.step(Event::WroteStatus { task }).await?,
                Sent::NoRoom => self.updates_blocked = true,
                // Nobody would know what becomes of the tasks: that is the end of the work.
                Sent::ReaderGone => {
                    self.updates = None;
                    return self.step(Event::ReaderGone).await;
                }
            }
            self.say_missed(missed);
        }
        Ok(())
    }

    /// Says once of each part that lines had to lose.
    fn say_missed(&mut self, missed: Vec<&'static str>) {
        for what in missed {
            if !self.said_missed.contains(&what) && !self.args.quiet {
                self.said_missed.push(what);
                complain(&format!("a line would be longer than a pipe takes whole: it is without {what}, and so will others be"));
            }
        }
    }
}

/// The wall clock.
pub fn wall() -> Wall {
    Wall(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

/// The signals that end us.
struct Signals {
    all: [(u8, Signal); 4],
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let one = |kind: SignalKind| {
            let number = u8::try_from(kind.as_raw_value()).unwrap_or_default();
            signal(kind).map(|signal| (number, signal)).map_err(|error| Failure::failed(format!("cannot listen for signals: {}", io_text(&error))))
        };
        Ok(Signals { all: [one(SignalKind::interrupt())?, one(SignalKind::terminate())?, one(SignalKind::hangup())?, one(SignalKind::quit())?] })
    }

    async fn next(&mut self) -> u8 {
        let [interrupt, terminate, hangup, quit] = &mut self.all;
        tokio::select! {
            _ = interrupt.1.recv() => interrupt.0,
            _ = terminate.1.recv() => terminate.0,
            _ = hangup.1.recv() => hangup.0,
            _ = quit.1.recv() => quit.0,
        }
    }
}
