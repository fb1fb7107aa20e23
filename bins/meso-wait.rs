//! meso-wait: waits for tasks, and exits with their code.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use meso_cli::client::{Absence, Found, Leader, Watch, fate_unknown, find_tasks, patience, task_epitaph, task_exit};
use meso_cli::{BusArgs, Exit, Failure, LineOut, Selector, complain, report};
use meso_core::duration::show_duration;
use meso_core::task::TaskState;
use tokio::time::{Instant, sleep_until};

/// How many tasks that still run are named when the time is over.
const NAMED_MAX: usize = 4;

/// Wait for tasks and exit with their code
///
/// Of several tasks, the highest code. A task that has ended already is answered from the record.
#[derive(clap::Parser)]
#[command(after_help = "Examples:\n  meso-wait @last\n  meso-wait --timeout 10m task_7k3q9x2mfa web\n  meso-wait --any a b")]
struct Args {
    /// Task to wait for: id, the beginning of one, name or @last (can be repeated)
    #[arg(value_name = "TASK", required = true)]
    task: Vec<Selector>,
    /// End with the first that ends, and print its id
    #[arg(long)]
    any: bool,
    /// Give up after this long, with exit code 124
    #[arg(long, value_name = "DURATION", value_parser = meso_core::duration::parse_duration)]
    timeout: Option<u64>,
    /// Say nothing of tasks that did not end by themselves
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    bus: BusArgs,
}

fn main() -> ExitCode {
    meso_cli::main(meso_cli::tool!(Speaks), wait)
}

async fn wait(args: Args) -> Result<Exit, Failure> {
    let deadline = args.timeout.map(|timeout_ms| Instant::now() + Duration::from_millis(timeout_ms));
    let mut live = Vec::new();
    let over = async {
        match deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    let leader = Leader::connect(&args.bus.access()?).await?;
    let mut absence = Absence::of(&leader, args.quiet);
    tokio::select! {
        biased;
        exit = wait_for_all(&leader, &args, &mut live) => exit,
        // A leader is not needed to hear of the end of a task.
        gone = absence.over(false) => Err(match live.is_empty() {
            true => gone,
            false => gone.context(format!("still there: {}", named(&live))).hint("meso-wait with the same words, once it is back: what ends meanwhile is not lost"),
        }),
        () = over => {
            let who = if live.is_empty() { "no answer".to_owned() } else { format!("still there: {}", named(&live)) };
            Err(Failure::timed_out(format!("{who} after {}", show_duration(args.timeout.unwrap_or_default()))).hint("a longer --timeout, or meso-kill"))
        }
    }
}

/// A few of them by name, and how many more there are.
fn named(live: &[String]) -> String {
    let names: Vec<&str> = live.iter().take(NAMED_MAX).map(String::as_str).collect();
    let more = if live.len() > NAMED_MAX { format!(" and {} more", live.len() - NAMED_MAX) } else { String::new() };
    format!("{}{more}", names.join(" "))
}

/// Waits without a limit; `live` names those that are still waited for.
async fn wait_for_all(leader: &Leader, args: &Args, live: &mut Vec<String>) -> Result<Exit, Failure> {
    let tasks = known_tasks(leader, &args.task).await?;
    let mut watch = Watch::begin(leader, &tasks).await?;
    let mut highest = Exit::DONE;
    loop {
        *live = watch.live().map(|update| update.task.to_string()).collect();
        let Some(update) = watch.next().await? else { return Ok(highest) };
        if update.state == TaskState::Unknown {
            report(&fate_unknown(&update.task));
            highest = highest.max(Exit::OURS);
            continue;
        }
        if let Some(epitaph) = task_epitaph(&update).filter(|_| !args.quiet) {
            complain(&epitaph);
        }
        highest = highest.max(task_exit(&update));
        if args.any {
            // A reader who does not want the id may be gone; the code is what was asked for.
            let _ = LineOut::stdout()?.bytes(update.task.as_str().as_bytes())?;
            return Ok(highest);
        }
    }
}

/// The tasks, each once; nothing is waited for unless all are known.
async fn known_tasks(leader: &Leader, selectors: &[Selector]) -> Result<Vec<Found>, Failure> {
    let results = find_tasks(leader, selectors, patience()).await?;
    let mut seen = BTreeSet::new();
    let mut tasks = Vec::new();
    let mut unknown = Vec::new();
    for result in results {
        match result {
            Ok(found) => {
                if seen.insert(found.update.task.clone()) {
                    tasks.push(found);
                }
            }
            Err(not_one) => unknown.push(Failure::from(not_one)),
        }
    }
    match unknown.pop() {
        None => Ok(tasks),
        Some(last) => {
            unknown.iter().for_each(report);
            Err(last)
        }
    }
}
