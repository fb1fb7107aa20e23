//! meso-logs: what a task wrote, running or finished.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use meso_cli::client::{Follower, Found, LISTING_MS, Leader, Outlet, Tagger, TaskIo, Watch, extent, fate_unknown, find_tasks, patience, tail_offset};
use meso_cli::{BusArgs, Exit, Failure, Selector, Written, report};
use meso_core::id::TaskId;
use meso_core::task::TaskState;
use meso_core::wire::Update;
use meso_core::wire::io::Stream;
use tokio::sync::watch;

/// So long an agent may be away while its task lives: as long as a person would leave this running.
const AWAY_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// Print or follow the output of tasks
///
/// Standard output and standard error go to ours, byte for byte; one of them alone goes to standard output. Of several tasks, each line stands
/// behind the task's name. With -f it ends when the tasks end.
#[derive(clap::Parser)]
#[command(after_help = "Examples:\n  meso-logs @last\n  meso-logs -f -n 10 web\n  meso-logs --stderr task_7k3q9x2mfa | grep -i error")]
struct Args {
    /// Task: id, the beginning of one, name or @last (can be repeated)
    #[arg(value_name = "TASK", required = true)]
    task: Vec<Selector>,
    /// Go on with what is written, until the task ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last LINES of each output
    #[arg(short = 'n', long, value_name = "LINES")]
    lines: Option<u64>,
    /// Only standard output
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Only standard error
    #[arg(long)]
    stderr: bool,
    #[command(flatten)]
    bus: BusArgs,
}

/// One output of one task on its way to ours.
struct Pipe {
    task: TaskId,
    follower: Follower,
    stream: Stream,
    /// Which of our own it goes to.
    to: Stream,
    tagger: Option<Tagger>,
}

fn main() -> ExitCode {
    meso_cli::main(meso_cli::tool!(Plain), print)
}

async fn print(args: Args) -> Result<Exit, Failure> {
    let leader = Leader::connect(&args.bus.access()?).await?;
    leader.patiently(print_all(&leader, &args)).await
}

async fn print_all(leader: &Leader, args: &Args) -> Result<Exit, Failure> {
    let mut tasks = Vec::new();
    let mut unknown = Vec::new();
    for result in find_tasks(leader, &args.task, Duration::from_millis(LISTING_MS)).await? {
        match result {
            Ok(found) => tasks.push(found),
            Err(not_one) => unknown.push(Failure::from(not_one)),
        }
    }
    if let Some(last) = unknown.pop() {
        unknown.iter().for_each(report);
        return Err(last);
    }
    let streams: &[Stream] = match (args.stdout, args.stderr) {
        (true, _) => &[Stream::Stdout],
        (_, true) => &[Stream::Stderr],
        _ => &[Stream::Stdout, Stream::Stderr],
    };
    let tag = |found: &Found| (tasks.len() > 1).then(|| Tagger::new(&label(found, &tasks)));
    let mut exit = Exit::DONE;
    if args.follow {
        let mut pipes = Vec::new();
        for found in &tasks {
            for stream in streams {
                pipes.extend(open(leader, found, *stream, args, tag(found)).await?);
            }
        }
        return follow(leader, &tasks, pipes).await;
    }
    for found in &tasks {
        for stream in streams {
            let printed = async {
                match open(leader, found, *stream, args, tag(found)).await? {
                    Some(pipe) => copy(pipe, ended(&found.update)).await,
                    None => Ok(Written::Yes),
                }
            };
            match printed.await {
                Ok(Written::Yes) => {}
                Ok(Written::ReaderGone) => return Ok(exit),
                // The outputs of the others are still worth having.
                Err(failure) if tasks.len() > 1 => {
                    exit = exit.max(failure.exit(meso_cli::ToolKind::Plain));
                    report(&failure);
                }
                Err(failure) => return Err(failure),
            }
        }
    }
    Ok(exit)
}

/// What a task's lines stand behind: its name, unless another task here has it too.
fn label(found: &Found, tasks: &[Found]) -> String {
    let name = found.update.name.as_ref();
    let is_alone = tasks.iter().filter(|other| other.update.name.as_ref() == name).count() == 1;
    name.filter(|_| is_alone).map_or_else(|| found.update.task.to_string(), ToString::to_string)
}

/// An output from where it is wanted; none if nothing was or will be written.
async fn open(leader: &Leader, found: &Found, stream: Stream, args: &Args, tagger: Option<Tagger>) -> Result<Option<Pipe>, Failure> {
    let update = &found.update;
    let total = update.is_final.then(|| bytes_of(update, stream));
    let Some(agent) = update.agent.clone().filter(|_| total != Some(0)) else { return Ok(None) };
    let io = TaskIo { bus: leader.bus().clone(), principal: leader.principal().clone(), agent, task: update.task.clone(), token: found.token.clone() };
    let patience = Duration::from_millis(LISTING_MS);
    let (from, until) = if args.lines.is_some() || (total.is_none() && !args.follow) {
        let extent = extent(&io, stream, patience).await?;
        let from = match args.lines {
            Some(lines) => tail_offset(&io, stream, extent, lines, patience).await?,
            None => 0,
        };
        (from, total.or((!args.follow).then_some(extent.last)))
    } else {
        (0, total)
    };
    let mut follower = Follower::new(io, stream, from).with_patience(if total.is_none() && args.follow { Duration::from_millis(AWAY_MS_MAX) } else { patience });
    if let Some(until) = until {
        follower.expect(until);
    }
    Ok(Some(Pipe { task: update.task.clone(), follower, stream, to: if args.stderr { Stream::Stdout } else { stream }, tagger }))
}

fn bytes_of(update: &Update, stream: Stream) -> u64 {
    match stream {
        Stream::Stdout => update.stdout_bytes,
        Stream::Stderr => update.stderr_bytes,
    }
}

/// The news of a task that has ended, or of one whose end is not waited for.
fn ended(update: &Update) -> watch::Receiver<Option<Update>> {
    watch::channel(Some(update.clone()).filter(|update| update.is_final)).1
}

/// Copies an output to its end, which the task's end makes known.
async fn copy(mut pipe: Pipe, mut end: watch::Receiver<Option<Update>>) -> Result<Written, Failure> {
    let mut outlet = Outlet::of(pipe.to)?;
    loop {
        let bytes = tokio::select! {
            bytes = pipe.follower.next() => bytes?,
            Ok(()) = end.changed() => {
                if let Some(update) = end.borrow_and_update().as_ref() {
                    pipe.follower.expect(bytes_of(update, pipe.stream));
                    pipe.follower.set_patience(patience());
                }
                continue;
            }
        };
        let is_end = bytes.is_none();
        let bytes = match (&mut pipe.tagger, bytes) {
            (Some(tagger), Some(bytes)) => tagger.lines(&bytes).into(),
            (Some(tagger), None) => tagger.end().into(),
            (None, bytes) => bytes.unwrap_or_default(),
        };
        if outlet.write(&bytes)? == Written::ReaderGone {
            return Ok(Written::ReaderGone);
        }
        if is_end {
            return Ok(Written::Yes);
        }
    }
}

/// Copies all outputs as they come, until the tasks have ended and all of it is out.
async fn follow(leader: &Leader, tasks: &[Found], pipes: Vec<Pipe>) -> Result<Exit, Failure> {
    let mut watch = Watch::begin(leader, tasks).await?;
    let ends: BTreeMap<TaskId, watch::Sender<Option<Update>>> = tasks.iter().map(|found| (found.update.task.clone(), watch::channel(None).0)).collect();
    let mut copies = tokio::task::JoinSet::new();
    for pipe in pipes {
        if let Some(end) = ends.get(&pipe.task) {
            copies.spawn(copy(pipe, end.subscribe()));
        }
    }
    let mut all_ended = false;
    let mut exit = Exit::DONE;
    loop {
        tokio::select! {
            copied = copies.join_next() => match copied {
                None => return Ok(exit),
                Some(Err(_)) => return Err(Failure::internal("an output was lost")),
                // Who has enough of one output may still read the other.
                Some(Ok(Ok(_))) => {}
                Some(Ok(Err(failure))) => return Err(failure),
            },
            update = watch.next(), if !all_ended => match update? {
                Some(update) if update.state == TaskState::Unknown => {
                    report(&fate_unknown(&update.task));
                    exit = Exit::OURS;
                    drop(ends.get(&update.task).map(|end| end.send_replace(Some(update))));
                }
                Some(update) => drop(ends.get(&update.task).map(|end| end.send_replace(Some(update)))),
                None => all_ended = true,
            }
        }
    }
}
