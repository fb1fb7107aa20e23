//! meso-logs: what a task wrote, running or finished.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use meso_cli::client::{Found, LISTING_MS, Leader, Tagger, Watch, fate_unknown, find_tasks};
use meso_cli::{BusArgs, Exit, Failure, Selector, Written, report};
use meso_core::id::TaskId;
use meso_core::task::TaskState;
use meso_core::wire::Update;
use meso_core::wire::io::Stream;
use tokio::sync::watch;

#[path = "logs/pipe.rs"]
mod pipe;

use pipe::{Pipe, Wish, copy, ended, open};

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
    let wish = |stream: Stream| Wish { stream, to: if args.stderr { Stream::Stdout } else { stream }, lines: args.lines, follow: args.follow };
    let mut exit = Exit::DONE;
    if args.follow {
        let mut pipes = Vec::new();
        for found in &tasks {
            for stream in streams {
                pipes.extend(open(leader, found, wish(*stream), tag(found)).await?);
            }
        }
        return follow(leader, &tasks, pipes).await;
    }
    for found in &tasks {
        for stream in streams {
            let printed = async {
                match open(leader, found, wish(*stream), tag(found)).await? {
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
                // The outputs of the others are still worth having.
                Some(Ok(Err(failure))) if tasks.len() > 1 => {
                    exit = exit.max(failure.exit(meso_cli::ToolKind::Plain));
                    report(&failure);
                }
                Some(Ok(Err(failure))) => return Err(failure),
            },
            update = watch.next(), if !all_ended => match update? {
                Some(update) if update.state == TaskState::Unknown => {
                    report(&fate_unknown(&update.task));
                    exit = exit.max(Exit::OURS);
                    drop(ends.get(&update.task).map(|end| end.send_replace(Some(update))));
                }
                Some(update) => drop(ends.get(&update.task).map(|end| end.send_replace(Some(update)))),
                None => all_ended = true,
            }
        }
    }
}
