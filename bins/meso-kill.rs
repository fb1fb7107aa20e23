//! meso-kill: ends tasks or a framework, with grace, and declares agents gone.

#[path = "kill/gone.rs"]
mod gone;
#[path = "kill/killing.rs"]
mod killing;
#[path = "kill/teardown.rs"]
mod teardown;

use std::process::ExitCode;
use std::str::FromStr;

use meso_cli::client::{Leader, Signal};
use meso_cli::{BusArgs, Exit, Failure, NotOne, Selector};

use killing::{BATCH_MAX, Killing, Manner};

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

async fn kill_all(args: Args, leader: Leader) -> Result<Exit, Failure> {
    if args.gone.is_some() {
        return gone::mark_gone(&leader, &args.agents(), args.force, args.quiet).await;
    }
    if let Some(framework) = &args.framework {
        return teardown::teardown(&leader, framework.as_str(), args.quiet).await;
    }
    let manner = Manner { signal: args.signal, grace_ms: args.grace, waits: args.wait, is_quiet: args.quiet };
    let mut killing = Killing::new(leader, manner)?;
    let mut named = Vec::new();
    let mut reads_stdin = false;
    for target in args.task {
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
    killing.finish().await
}

fn not_understood() -> Failure {
    Failure::failed("the answer is not understood").hint("the same version of meso everywhere")
}
