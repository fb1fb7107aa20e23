//! meso-offer: begins a framework's session and prints its offers and events as JSON lines.

#[path = "offer/calls.rs"]
mod calls;
#[path = "offer/exec.rs"]
mod exec;
#[path = "offer/hearing.rs"]
mod hearing;
#[path = "offer/jq.rs"]
mod jq;
#[path = "offer/output.rs"]
mod output;
#[path = "offer/peek.rs"]
mod peek;
#[path = "offer/plan.rs"]
mod plan;
#[path = "offer/run.rs"]
mod run;
#[path = "offer/words.rs"]
mod words;

use clap::{Subcommand, ValueEnum};
use meso_cli::{BusArgs, Exit, Failure, Format, stdout_is_terminal};
use meso_core::duration::parse_duration;

/// Print the offers of a framework as JSON lines
///
/// Each line is an offer: what of one agent may be used now. A filter keeps those that are wanted, meso-launch -O runs tasks on them. A line that
/// is dropped goes back to the cluster by itself. The pipeline is one session of one framework, and ends when its work is done. On a terminal,
/// what would be offered is shown as a table, and nothing is held.
#[derive(clap::Parser)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  meso-offer | jq -c --unbuffered 'select(.attrs.rack == \"r1\")' | meso-launch -O -- hostname\n  meso-offer --once --min 4 | jq -sc 'sort_by(-.mem)[:4][]' | meso-launch -O -n 4 -- hostname\n  meso-offer -e all --framework keeper --standby | ./scheduler | meso-launch -O"
)]
pub struct Args {
    #[command(subcommand)]
    call: Option<OneCall>,

    /// What each offer has room for: cpus=1,mem=512M (can be repeated); without, all that is free of an agent
    #[arg(short = 'R', long = "resources", value_name = "RESOURCES", help_heading = "What is offered")]
    resources: Vec<String>,
    /// Only where this holds: 'attr.rack == "r1" && cpus >= 4'
    #[arg(long = "where", value_name = "EXPR", help_heading = "What is offered")]
    condition: Option<String>,
    /// What runs on these offers may be ended at once when others need the room; for that, also what others hold and do not use
    #[arg(long, help_heading = "What is offered")]
    revocable: bool,
    /// Hold at most so many offers
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000), help_heading = "What is offered")]
    max_open: u32,
    /// Give an offer back whose line was read and that nobody used for this long, while there was nothing else to read
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration, help_heading = "What is offered")]
    grace: u64,
    /// Lines are used in any order: one that is used says nothing of those before it
    #[arg(long, help_heading = "What is offered")]
    unordered: bool,

    /// Print these kinds of lines (with commas, can be repeated); offers without, or with --exec all
    #[arg(short = 'e', long = "events", value_name = "KINDS", value_delimiter = ',', value_enum, help_heading = "Lines")]
    events: Vec<Kinds>,
    /// Form of the lines: jsonl, or tsv=FIELD,FIELD
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "jsonl", help_heading = "Lines")]
    output: Format,
    /// Print one batch of offers and end the output; the offers stay good for --hold
    #[arg(long, help_heading = "Lines")]
    once: bool,
    /// Of a batch, at least so many
    #[arg(long, value_name = "COUNT", default_value_t = 1, requires = "once", value_parser = clap::value_parser!(u32).range(1..=1000), help_heading = "Lines")]
    min: u32,
    /// Give up with 75 if a batch does not come together in this
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration, requires = "once", help_heading = "Lines")]
    wait: u64,
    /// Keep a batch for whoever uses it
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration, requires = "once", help_heading = "Lines")]
    hold: u64,
    /// Show what would be offered, as lines; hold nothing
    #[arg(long, help_heading = "Lines")]
    peek: bool,
    /// Print update lines to this file descriptor, apart from the others
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(u32).range(3..=65535), conflicts_with_all = ["once", "peek", "exec"], help_heading = "Lines")]
    updates_fd: Option<u32>,
    /// When a status counts as seen: as soon as it was read, or once it is acknowledged by ack/1 or meso-offer ack
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = ["auto", "manual"], help_heading = "Lines")]
    ack: String,

    /// Print what this jq expression makes of each line; an offer of which it makes nothing is declined at once
    #[arg(long, value_name = "EXPR", conflicts_with = "peek", help_heading = "Lines")]
    jq: Option<String>,
    /// Run a program by the shell: lines go to its standard input, and what it prints are calls, as meso-launch -O reads them
    ///
    /// Each call is answered by a line result/1 on its input. Its end ends the session, and its code is ours.
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["once", "peek"], help_heading = "Lines")]
    exec: Option<String>,
    /// With --exec: start the program again when it fails, so many times at most; the session goes on
    #[arg(long, value_name = "COUNT", default_value_t = 0, requires = "exec", help_heading = "Lines")]
    restarts: u32,

    /// A durable name: the framework and its tasks are found again under it
    #[arg(long, value_name = "NAME", help_heading = "Names")]
    framework: Option<String>,
    /// Wait until nobody holds the name
    #[arg(long, requires = "framework", help_heading = "Names")]
    standby: bool,
    /// Take the name from whoever holds it
    #[arg(long, requires = "framework", conflicts_with = "standby", help_heading = "Names")]
    takeover: bool,
    /// How long the tasks of a named framework live on when nobody holds its name
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_duration, requires = "framework", help_heading = "Names")]
    failover: u64,
    /// What becomes of its tasks that say nothing of it when no leader reaches their agent: they run on, or their agent ends them
    #[arg(long, value_name = "WHAT", value_parser = ["keep", "kill"], help_heading = "Names")]
    on_unreachable: Option<String>,
    /// Count in the share of this role
    #[arg(long, value_name = "ROLE", env = "MESO_ROLE", help_heading = "Names")]
    role: Option<String>,

    /// No remarks
    #[arg(short = 'q', long)]
    quiet: bool,
    #[command(flatten)]
    bus: BusArgs,
}

/// One call in place of a session, for shell loops.
#[derive(Subcommand)]
pub enum OneCall {
    /// Give offers back
    Decline {
        /// Offer, by its id (can be repeated)
        #[arg(value_name = "OFFER", required = true)]
        offer: Vec<String>,
        /// Do not offer the same again for this long
        #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
        refuse: u64,
    },
    /// Want no offers for now
    Suppress {
        /// Framework, by its name or id
        #[arg(value_name = "FRAMEWORK")]
        framework: String,
    },
    /// Want offers again, also those that were refused
    Revive {
        /// Framework, by its name or id
        #[arg(value_name = "FRAMEWORK")]
        framework: String,
    },
    /// Acknowledge statuses
    Ack {
        /// The ack of an update line (can be repeated)
        #[arg(value_name = "ACK", required = true)]
        ack: Vec<String>,
    },
}

/// Kinds of lines that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kinds {
    /// Lines offer/1
    Offers,
    /// Lines update/1
    Updates,
    /// Lines hello/1, task/1 and synced/1
    Tasks,
    /// Lines rescind/1
    Rescinds,
    /// Lines inverse/1
    Inverses,
    /// Lines failure/1
    Failures,
    /// Lines heartbeat/1
    Heartbeats,
    /// All of them
    All,
}

fn main() -> std::process::ExitCode {
    meso_cli::main(meso_cli::tool!(Plain), offer)
}

async fn offer(args: Args) -> Result<Exit, Failure> {
    if let Some(call) = &args.call {
        return calls::make(call, &args.bus).await;
    }
    let plan = plan::Plan::from_args(&args)?;
    if args.peek || (stdout_is_terminal() && !args.once && args.exec.is_none()) {
        return peek::peek(&args, &plan).await;
    }
    tokio::task::LocalSet::new().run_until(run::run(args, plan)).await
}
