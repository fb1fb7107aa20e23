//! meso-ps: what there is in the cluster.

use std::process::ExitCode;

use clap::ValueEnum;
use meso_cli::client::{
    AGENT_COLUMNS, FRAMEWORK_COLUMNS, Leader, MASTER_COLUMNS, OFFER_COLUMNS, ROLE_COLUMNS, TASK_COLUMNS, agent_row, framework_row, known_tasks, master_row, offer_row, patience,
    role_row, snapshot_listings, task_row,
};
use meso_cli::{BusArgs, Column, Exit, Failure, Format, LineOut, Listing, Look, OutputArgs, Row, Written, json_text};
use meso_core::task::TaskState;
use meso_core::wire::Update;
use meso_core::wire::snapshot::Snapshot;
use std::time::Duration;

/// List what is in a cluster, or show its snapshot
///
/// Without a word, the tasks that live. A table for people; for programs, -o json, jsonl, tsv=FIELD,FIELD or name. The snapshot is what the
/// allocation policy sees; as jsonl it is the line that meso-allocate reads.
#[derive(clap::Parser)]
#[command(after_help = "Examples:\n  meso-ps                                  tasks that live\n  meso-ps -q --state failed | xargs meso-logs\n  meso-ps agents -o tsv=host,free.cpus\n  meso-ps frameworks                       who has how much, what is fair, who waits\n  meso-ps snapshot -o jsonl | meso-allocate --trace")]
struct Args {
    /// What to list
    #[arg(value_enum, default_value_t = What::Tasks)]
    what: What,
    /// Tasks that have ended too
    #[arg(short, long)]
    all: bool,
    /// Only what is in this state (can be repeated)
    ///
    /// A state after which nothing follows, such as failed, lists ended tasks without -a; so does unknown.
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// Only my own tasks or frameworks
    #[arg(long)]
    mine: bool,
    /// Only the ids, as -o name
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    bus: BusArgs,
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Tasks,
    Agents,
    Masters,
    Frameworks,
    Offers,
    Roles,
    Snapshot,
}

impl What {
    /// The states that what is listed can be in.
    fn states(self) -> Vec<&'static str> {
        match self {
            What::Tasks => TaskState::ALL.iter().map(|state| state.word()).collect(),
            What::Agents => vec!["active", "recovering", "unreachable", "gone"],
            What::Masters => vec!["leading", "standby"],
            What::Frameworks => vec!["connected", "disconnected"],
            What::Offers | What::Roles | What::Snapshot => vec![],
        }
    }
}

fn main() -> ExitCode {
    meso_cli::main(meso_cli::tool!(Plain), list)
}

async fn list(args: Args) -> Result<Exit, Failure> {
    check(&args)?;
    let leader = Leader::connect(&args.bus.access()?).await?;
    leader.patiently(print(&leader, &args)).await
}

async fn print(leader: &Leader, args: &Args) -> Result<Exit, Failure> {
    let now_ms = Look::of_stdout().now_ms;
    let limit = patience();
    let (columns, rows): (&[Column], Vec<Row>) = match args.what {
        What::Tasks => (&TASK_COLUMNS, tasks(leader, args, limit).await?.iter().map(task_row).collect()),
        What::Agents => (&AGENT_COLUMNS, leader.agents(limit).await?.iter().map(|agent| agent_row(agent, now_ms)).collect()),
        What::Masters => (&MASTER_COLUMNS, leader.masters(limit).await?.iter().map(|master| master_row(master, now_ms)).collect()),
        What::Frameworks => (&FRAMEWORK_COLUMNS, leader.frameworks(limit).await?.iter().map(|framework| framework_row(framework, now_ms)).collect()),
        What::Offers => (&OFFER_COLUMNS, leader.offers(limit).await?.iter().map(|offer| offer_row(offer, now_ms)).collect()),
        What::Roles => (&ROLE_COLUMNS, leader.roles(limit).await?.iter().map(role_row).collect()),
        What::Snapshot => return show(&leader.snapshot(limit).await?, &args.output.output),
    };
    let is = |row: &Row, key: &str, value: &str| row.field(key).and_then(|field| field.as_str()) == Some(value);
    let wanted = |row: &Row| {
        let in_state = args.state.is_empty() || args.state.iter().any(|state| is(row, "state", state));
        in_state && (!args.mine || is(row, "principal", leader.principal().as_str()))
    };
    let listing = Listing { columns: columns.to_vec(), rows: rows.into_iter().filter(wanted).collect() };
    let format = if args.quiet { &Format::Name } else { &args.output.output };
    // A reader who has seen enough is no failure.
    let _ = listing.print(format)?;
    Ok(Exit::DONE)
}

/// Prints the snapshot: one line of JSON, or for people a table of its agents, one of its roles, one of its frameworks.
fn show(snapshot: &Snapshot, format: &Format) -> Result<Exit, Failure> {
    let mut out = LineOut::stdout()?;
    // A reader who has seen enough is no failure.
    match format {
        Format::Jsonl => {
            let _ = out.object(snapshot)?;
        }
        Format::Json => {
            let _ = out.bytes(format!("[\n{}\n]", json_text(snapshot)?).as_bytes())?;
        }
        _ => {
            let look = Look::of_stdout();
            for (place, listing) in snapshot_listings(snapshot).iter().enumerate() {
                let gap = if place > 0 { "\n" } else { "" };
                let text = format!("{gap}{}", listing.render(format, look)?);
                if out.bytes(text.trim_end_matches('\n').as_bytes())? == Written::ReaderGone {
                    break;
                }
            }
        }
    }
    Ok(Exit::DONE)
}

fn check(args: &Args) -> Result<(), Failure> {
    if args.what == What::Snapshot {
        let has_filter = args.all || args.mine || args.quiet || !args.state.is_empty();
        let has_fields = matches!(args.output.output, Format::Tsv(_) | Format::Name);
        if has_filter || has_fields {
            let what = if has_filter { "the snapshot is shown whole: -a, -q, --state and --mine are for the other tables" } else { "the snapshot is no table of fields or ids" };
            return Err(Failure::usage(what).hint("meso-ps snapshot, or with -o jsonl"));
        }
        return Ok(());
    }
    let word = args.what.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    if args.all && args.what != What::Tasks {
        return Err(Failure::usage(format!("-a is for tasks, not for {word}")).hint(format!("meso-ps {word}")));
    }
    if args.mine && !matches!(args.what, What::Tasks | What::Frameworks) {
        return Err(Failure::usage(format!("{word} are nobody's own, so there is no --mine")).hint(format!("meso-ps {word}")));
    }
    let states = args.what.states();
    match args.state.iter().find(|state| !states.contains(&state.as_str())) {
        Some(_) if states.is_empty() => Err(Failure::usage(format!("{word} have no state")).hint(format!("meso-ps {word}"))),
        Some(wrong) => Err(Failure::usage(format!("{} is no state of {word}", meso_core::json::quoted(wrong))).hint(states.join(", "))),
        None => Ok(()),
    }
}

/// Tasks, the newest last: those the leader knows, and with the ended ones those of the record.
async fn tasks(leader: &Leader, args: &Args, limit: Duration) -> Result<Vec<Update>, Failure> {
    let is_past = |state: TaskState| state.is_final() || state == TaskState::Unknown;
    let past_too = args.all || args.state.iter().any(|state| TaskState::parse(state).is_some_and(is_past));
    let mut tasks: Vec<Update> = if past_too {
        known_tasks(leader, limit).await?.into_values().collect()
    } else {
        leader.tasks("", limit).await?.into_iter().map(|row| row.update).filter(|update| !update.is_final).collect()
    };
    tasks.sort_by_key(|update| if update.started_ms > 0 { update.started_ms } else { update.ts_ms });
    Ok(tasks)
}
