//! meso-launch: runs a command on the cluster as if it ran here.

#[path = "launch/hearing.rs"]
mod hearing;
#[path = "launch/offers.rs"]
mod offers;
#[path = "launch/outcome.rs"]
mod outcome;
#[path = "launch/output.rs"]
mod output;
#[path = "launch/overheard.rs"]
mod overheard;
#[path = "launch/plan.rs"]
mod plan;
#[path = "launch/preview.rs"]
mod preview;
#[path = "launch/run.rs"]
mod run;
#[path = "launch/schedule.rs"]
mod schedule;
#[path = "launch/signals.rs"]
mod signals;
#[path = "launch/stdin.rs"]
mod stdin;
#[path = "launch/why.rs"]
mod why;

use std::path::PathBuf;

use meso_cli::{BusArgs, Exit, Failure};

/// Run a command on the cluster as if it ran here
///
/// The command runs on any machine that has room for it. Its output arrives live and byte for byte, signals go through
/// to it, and its exit code becomes that of meso-launch. With -n, --each or --each0 many tasks are run, and the highest
/// code counts. Standard input is read only with -i or where a file is given as -.
#[derive(clap::Parser)]
#[command(override_usage = "meso-launch [OPTIONS] -- CMD [ARG]...\n       meso-launch [OPTIONS] -c STRING\n       meso-launch -O[FILE] [OPTIONS] -- CMD [ARG]...\n       meso-launch -O[FILE]")]
pub struct Args {
    #[command(flatten)]
    bus: BusArgs,

    /// A string for /bin/sh -c in place of a command
    #[arg(short = 'c', value_name = "STRING", conflicts_with = "command")]
    shell: Option<String>,
    /// Run so many copies
    #[arg(short = 'n', value_name = "COUNT", conflicts_with_all = ["each", "each0"])]
    copies: Option<u64>,
    /// Run one task for each line of a file, - for standard input
    ///
    /// {} in the command is the line; {.} without its extension, {/} without its directory, {//} its directory, {/.}
    /// without both, {#} its number. Without any of these the line becomes the last argument. No shell reads it.
    #[arg(long, value_name = "FILE", conflicts_with = "each0")]
    each: Option<PathBuf>,
    /// The same for items that end in a NUL byte, as find -print0 prints them
    #[arg(long, value_name = "FILE")]
    each0: Option<PathBuf>,
    /// Launch on offers that are read, as meso-offer prints them, from a file or standard input
    ///
    /// With a command each offer is used for as many tasks as fit, up to -n in all. Without one each line is a call:
    /// an offer with "tasks" beside it, accept/1, decline/1, kill/1 and so on, and gets a result/1 line back.
    #[arg(short = 'O', long = "offers", value_name = "FILE", num_args = 0..=1, default_missing_value = "-", conflicts_with_all = ["each", "each0", "condition", "on", "framework", "role", "dry_run"], help_heading = "Offers")]
    offers: Option<PathBuf>,
    /// Launch on this offer
    #[arg(long, value_name = "ID", conflicts_with_all = ["offers", "each", "each0", "condition", "on", "framework", "role", "dry_run"], help_heading = "Offers")]
    offer: Option<String>,
    /// Use an offer for at most so many tasks; fill for as many as fit
    #[arg(long, value_name = "COUNT", value_parser = per_offer, requires = "offers", help_heading = "Offers")]
    per_offer: Option<u32>,
    /// End with 65 at a line that is not what is read
    #[arg(long, requires = "offers", help_heading = "Offers")]
    strict: bool,
    /// At most so many tasks at once
    #[arg(short = 'j', value_name = "COUNT")]
    at_once: Option<u32>,
    /// Print outputs in the order of the input, not of the ends
    #[arg(short = 'k', long)]
    keep_order: bool,
    /// Begin each line of output with the task's item and a tab
    #[arg(long)]
    tag: bool,
    /// Feed standard input to the task
    #[arg(short = 'i', long = "stdin")]
    stdin: bool,
    /// Print the task's id once it is accepted, and leave it to itself
    #[arg(short = 'd', long)]
    detach: bool,

    /// What each task needs: cpus=1,mem=512M,disk=1G,gpus=1,ports=2 (can be repeated)
    #[arg(short = 'R', long = "resources", value_name = "RESOURCES", help_heading = "Resources")]
    resources: Vec<String>,
    /// Processors
    #[arg(long, value_name = "COUNT", help_heading = "Resources")]
    cpus: Option<String>,
    /// Memory
    #[arg(long, value_name = "SIZE", help_heading = "Resources")]
    mem: Option<String>,
    /// Disk
    #[arg(long, value_name = "SIZE", help_heading = "Resources")]
    disk: Option<String>,
    /// Graphics processors
    #[arg(long, value_name = "COUNT", help_heading = "Resources")]
    gpus: Option<String>,
    /// Ports; the task finds them in PORT0, PORT1..
    #[arg(long, value_name = "COUNT", help_heading = "Resources")]
    ports: Option<String>,
    /// Let it use no more processors than this; --cpus is a share, not a limit
    #[arg(long, value_name = "COUNT", help_heading = "Resources")]
    cpus_limit: Option<String>,

    /// Only where this holds: 'attr.rack == "r1" && cpus >= 4'
    #[arg(long = "where", value_name = "EXPR", help_heading = "Placement")]
    condition: Option<String>,
    /// May be ended at once when others need the room; for that it may use what others hold and do not use
    #[arg(long, help_heading = "Placement")]
    revocable: bool,
    /// Only on this agent, by id or host name
    #[arg(long, value_name = "AGENT", help_heading = "Placement")]
    on: Option<String>,

    /// Set a variable of the task's environment; without a value it is taken from here (can be repeated)
    #[arg(short = 'e', long = "env", value_name = "K=V", help_heading = "Environment of the task")]
    env: Vec<String>,
    /// Read variables from a file, one K=V a line (can be repeated)
    #[arg(long, value_name = "FILE", help_heading = "Environment of the task")]
    env_file: Vec<PathBuf>,
    /// Directory to start in; its sandbox without
    #[arg(short = 'w', long, value_name = "DIR", help_heading = "Environment of the task")]
    workdir: Option<String>,

    /// End the task when it has run so long, and exit 124
    #[arg(long, value_name = "TIME", help_heading = "Time and trouble")]
    timeout: Option<String>,
    /// Give up with 75 if it could not start within this
    #[arg(long, value_name = "TIME", help_heading = "Time and trouble")]
    start_deadline: Option<String>,
    /// Time between TERM and KILL, for the task and for a second Ctrl-C
    #[arg(long, value_name = "TIME", help_heading = "Time and trouble")]
    kill_grace: Option<String>,
    /// Run a failed task again up to so often
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "Time and trouble")]
    retries: u32,
    /// Run a lost task again up to so often: its agent was lost, or others needed its room, not its own fault
    #[arg(long, value_name = "COUNT", default_value_t = 3, help_heading = "Time and trouble")]
    retries_lost: u32,
    /// What becomes of the task if this process dies
    #[arg(long, value_name = "WHAT", default_value = "kill", value_parser = ["kill", "keep"], help_heading = "Time and trouble")]
    on_disconnect: String,
    /// What becomes of the task if no leader reaches its agent: it runs on, or its agent ends it
    #[arg(long, value_name = "WHAT", value_parser = ["keep", "kill"], help_heading = "Time and trouble")]
    on_unreachable: Option<String>,

    /// Name the task
    #[arg(long, value_name = "NAME", help_heading = "Names")]
    name: Option<String>,
    /// Run under this durable framework name
    #[arg(long, value_name = "NAME", help_heading = "Names")]
    framework: Option<String>,
    /// Count in the share of this role
    #[arg(long, value_name = "ROLE", env = "MESO_ROLE", help_heading = "Names")]
    role: Option<String>,

    /// Write what became of each task to a file, one JSON object a line
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    report: Option<PathBuf>,
    /// Run nothing: print the task, say where it would run; exit 0 if it fits now, 75 if not now, 125 if never
    #[arg(long, help_heading = "Reports")]
    dry_run: bool,
    /// Form of --dry-run: json
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_parser = ["json"], default_value = "json", requires = "dry_run", help_heading = "Reports")]
    format: String,
    /// No bar, no spinner, no remarks
    #[arg(short = 'q', long, help_heading = "Reports")]
    quiet: bool,

    /// The command and its arguments; no shell reads them
    #[arg(trailing_var_arg = true, allow_hyphen_values = false, value_name = "CMD")]
    command: Vec<String>,
}

/// How many tasks an offer is used for at most.
fn per_offer(text: &str) -> Result<u32, String> {
    match text.parse() {
        _ if text == "fill" => Ok(u32::MAX),
        Ok(count) if count > 0 => Ok(count),
        _ => Err("that is no number from 1 and not fill".to_owned()),
    }
}

fn main() -> std::process::ExitCode {
    meso_cli::main(meso_cli::tool!(Speaks), launch)
}

async fn launch(args: Args) -> Result<Exit, Failure> {
    if args.offers.is_some() && args.command.is_empty() && args.shell.is_none() {
        return tokio::task::LocalSet::new().run_until(schedule::schedule(args)).await;
    }
    let plan = plan::Plan::from_args(&args)?;
    if args.offers.is_some() || args.offer.is_some() {
        return tokio::task::LocalSet::new().run_until(run::run_on(args, plan)).await;
    }
    if args.dry_run {
        return preview::preview(&args, plan).await;
    }
    tokio::task::LocalSet::new().run_until(run::run(args, plan)).await
}
