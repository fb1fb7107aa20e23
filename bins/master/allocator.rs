//! The allocation policy as a program of its own: started, asked, ended, and started again.
//!
//! It is given one cluster as a line, says its grants, and closes them with `allocated/1`. It is first asked about an
//! empty cluster, so that it is known to answer before anybody waits for it. It has a process group of its own, which
//! ends with the term; if the master is killed outright, the end of its input tells it.

use std::io;
use std::process::Stdio;

use meso_cli::service::how_text;
use meso_cli::{LineIn, LineRead, Until, complain, io_text};
use meso_core::allocate::Proposal;
use meso_core::master::{ALLOCATE_DEADLINE_MS, Event};
use meso_core::wire::pass::{SAID_BYTES_MAX, Said};
use meso_core::wire::snapshot::Snapshot;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep_until, timeout};

/// How long the program may take from its start to its answer about an empty cluster.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to any later answer.
const DEADLINE: Duration = Duration::from_millis(ALLOCATE_DEADLINE_MS);
/// Pause before it is started again; it doubles with each failure that follows soon.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A program that lived so long was well: its next failure begins with the short pause again.
const STEADY: Duration = Duration::from_secs(60);
/// How long a program that closed its output may take to end, before it is said that it did not.
const END_LIMIT: Duration = Duration::from_millis(200);
/// Questions that wait at most. The machine has one open; those before it, whose time is over, are skipped.
const QUESTIONS_MAX: usize = 4;
/// Grants of one answer at most.
const GRANTS_MAX: usize = 100_000;
/// Lines of one answer at most, the turns of a trace among them.
const LINES_MAX: usize = 1_000_000;
/// Of what the program says on standard error: the longest line that is passed on, and how many in how long.
const ASIDE_BYTES_MAX: usize = 1_000;
const ASIDES_MAX: u32 = 100;
const ASIDES_EVERY: Duration = Duration::from_secs(10);

struct Question {
    number: u64,
    snapshot: Box<Snapshot>,
}

/// Where to put questions.
pub struct Allocator {
    questions: mpsc::Sender<Question>,
}

impl Allocator {
    /// The way to a program, and what runs it for as long as it is polled; answers and failures become events.
    pub fn new(command: String, to: mpsc::Sender<Event>) -> (Allocator, impl Future<Output = ()>) {
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        (Allocator { questions }, keep(command, asked, to))
    }

    /// Asks; the answer is an event.
    pub fn ask(&self, number: u64, snapshot: Box<Snapshot>) {
        // With so many unanswered the machine has long stopped waiting for this program.
        let _ = self.questions.try_send(Question { number, snapshot });
    }
}

/// Why a program does not go on, and while it was to answer which question.
struct Failed {
    number: Option<u64>,
    why: String,
}

/// Keeps the program running until nobody listens.
async fn keep(command: String, mut asked: mpsc::Receiver<Question>, to: mpsc::Sender<Event>) {
    let mut pause = PAUSE;
    loop {
        let began = Instant::now();
        let Some(failed) = serve(&command, &mut asked, &to).await else { return };
        if began.elapsed() >= STEADY {
            pause = PAUSE;
        }
        let why = format!("{}, and is started again in {} s", failed.why, pause.as_secs());
        if to.send(Event::AllocatorFailed { number: failed.number, why }).await.is_err() {
            return;
        }
        sleep_until(Instant::now() + pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Runs the program until it fails; none if nobody listens any more.
async fn serve(command: &str, asked: &mut mpsc::Receiver<Question>, to: &mpsc::Sender<Event>) -> Option<Failed> {
    let mut program = match Program::start(command) {
        Ok(program) => program,
        Err(error) => return Some(Failed { number: None, why: format!("cannot be started: {}", io_text(&error)) }),
    };
    if let Err(why) = program.ask_within(START_LIMIT, &Snapshot::default()).await {
        return Some(Failed { number: None, why });
    }
    to.send(Event::AllocatorReady).await.ok()?;
    loop {
        let question = tokio::select! {
            question = asked.recv() => question,
            why = program.idle() => return Some(Failed { number: None, why }),
        };
        let mut question = question?;
        while let Ok(newer) = asked.try_recv() {
            question = newer;
        }
        let number = question.number;
        match program.ask_within(DEADLINE, &question.snapshot).await {
            Ok(grants) => to.send(Event::Granted { number, grants }).await.ok()?,
            Err(why) => return Some(Failed { number: Some(number), why }),
        }
    }
}

/// The program as it runs. Dropping it ends its process group.
struct Program {
    child: Child,
    input: ChildStdin,
    output: LineIn,
    asides: JoinHandle<()>,
    group: Option<Pid>,
}

impl Program {
    fn start(command: &str) -> io::Result<Program> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shell.process_group(0).kill_on_drop(true).spawn()?;
        let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("it has no pipes"));
        };
        let output = LineIn::of(Box::new(output), "the allocation program", Until::Newline).up_to(SAID_BYTES_MAX);
        Ok(Program { child, input, output, asides: tokio::task::spawn_local(pass_on(errors)), group })
    }

    /// Asks one question; why that failed, for people.
    async fn ask_within(&mut self, limit: Duration, snapshot: &Snapshot) -> Result<Vec<Proposal>, String> {
        let mut line = serde_json::to_vec(snapshot).expect("wire types are plain data");
        line.push(b'\n');
        let (input, output) = (&mut self.input, &mut self.output);
        let asked = async {
            // If it reads no more, its output says how it ended.
            let _ = input.write_all(&line).await;
            Ok(())
        };
        let answer = timeout(limit, async { tokio::try_join!(asked, read_answer(output)) }).await;
        match answer {
            Ok(Ok(((), grants))) => Ok(grants),
            Ok(Err(Unread::Nonsense(why))) => Err(why),
            Ok(Err(Unread::End)) => Err(self.end().await),
            Err(_) => Err(format!("gave no answer within {} ms", limit.as_millis())),
        }
    }

    /// Waits until it does what it must not do while it is not asked; what that was, for people. May be dropped.
    async fn idle(&mut self) -> String {
        loop {
            match self.output.next().await {
                Ok(Some(LineRead::Line { bytes, .. })) if bytes.trim_ascii().is_empty() => {}
                Ok(Some(LineRead::Line { .. } | LineRead::TooLong { .. })) => return "spoke without being asked".to_owned(),
                Ok(None) => return self.end().await,
                Err(failure) => return format!("cannot be read: {}", failure.what()),
            }
        }
    }

    /// How it ended, once it said nothing more.
    async fn end(&mut self) -> String {
        let ended = timeout(END_LIMIT, self.child.wait()).await;
        // It is its last words that people want to read.
        let _ = timeout(END_LIMIT, &mut self.asides).await;
        match ended {
            Ok(Ok(status)) => how_text(status),
            Ok(Err(error)) => format!("was lost: {}", io_text(&error)),
            Err(_) => "closed its output".to_owned(),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.asides.abort();
        if let Some(group) = self.group {
            // There may be nobody left in it.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Why there is no answer.
enum Unread {
    /// Nothing more is said.
    End,
    /// Something that is no answer; for people.
    Nonsense(String),
}

async fn read_answer(output: &mut LineIn) -> Result<Vec<Proposal>, Unread> {
    let mut grants = Vec::new();
    let nonsense = |what: String| Unread::Nonsense(format!("talks nonsense: {what}"));
    for _ in 0..LINES_MAX {
        let bytes = match output.next().await {
            Ok(Some(LineRead::Line { bytes, .. })) => bytes,
            Ok(Some(LineRead::TooLong { bytes, .. })) => return Err(nonsense(format!("a line of {bytes} bytes, of at most {SAID_BYTES_MAX}"))),
            Ok(None) => return Err(Unread::End),
            Err(failure) => return Err(nonsense(failure.what().to_owned())),
        };
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        match Said::read(&bytes).map_err(|bad| nonsense(bad.to_string()))? {
            Said::Closed => return Ok(grants),
            Said::Step => {}
            Said::Grant(_) if grants.len() == GRANTS_MAX => return Err(nonsense(format!("more than {GRANTS_MAX} grants"))),
            Said::Grant(grant) => grants.push(grant),
        }
    }
    Err(nonsense(format!("more than {LINES_MAX} lines")))
}

/// Says on our standard error what the program says on its own, but no more than people can read.
async fn pass_on(errors: ChildStderr) {
    let mut lines = LineIn::of(Box::new(errors), "the allocation program", Until::Newline).up_to(ASIDE_BYTES_MAX);
    let (mut since, mut count) = (Instant::now(), 0);
    while let Ok(Some(line)) = lines.next().await {
        if since.elapsed() >= ASIDES_EVERY {
            (since, count) = (Instant::now(), 0);
        }
        count += 1;
        match line {
            _ if count > ASIDES_MAX => {}
            _ if count == ASIDES_MAX => complain(&format!("allocator: more than {ASIDES_MAX} lines in {} s; the rest is left out", ASIDES_EVERY.as_secs())),
            LineRead::Line { bytes, .. } => complain(&format!("allocator: {}", String::from_utf8_lossy(&bytes))),
            LineRead::TooLong { bytes, .. } => complain(&format!("allocator: a line of {bytes} bytes")),
        }
    }
}
