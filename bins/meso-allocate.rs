//! meso-allocate: the allocation policy as a filter.

use std::process::ExitCode;

use clap::ValueEnum;
use meso_cli::{Column, Exit, Failure, Format, LineIn, LineOut, LineRead, Listing, Look, PolicyArgs, Row, Until, Written, complain, mib_text};
use meso_core::resources::{Milli, Quantities};
use meso_core::wire::pass::{GrantLine, Pass, StepLine};
use meso_core::wire::snapshot::{SNAPSHOT_BYTES_MAX, Snapshot};

/// Say who is to be offered what, by the policies that a master runs
///
/// Reads snapshot/1 lines, one cluster each, and prints for each of them its grant/1 lines and a closing allocated/1. It asks neither a bus nor
/// a clock: the same line gives the same grants. Without --policy it is the one that the snapshot names, or drf. A line that is no snapshot is said on
/// standard error, and the others are still served.
#[derive(clap::Parser)]
#[command(after_help = "Examples:\n  meso-ps snapshot -o jsonl | meso-allocate\n  meso-ps snapshot -o jsonl | meso-allocate --trace -o table\n  meso-allocate < clusters.jsonl | jq -c 'select(.tasks > 1)'")]
struct Args {
    #[command(flatten)]
    policy: PolicyArgs,
    /// Where in the order of the agents to begin, modulo their number, and where lots come from
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print each turn too, before the grants: who was served where with what, and the shares
    #[arg(long)]
    trace: bool,
    /// Form of the output
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Form::Jsonl)]
    output: Form,
}

/// The forms of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// One JSON object per line
    Jsonl,
    /// Tables for people
    Table,
}

const STEP_COLUMNS: [Column; 10] = [
    Column::number("STEP", "step"),
    Column::id("FRAMEWORK", "framework"),
    Column::id("AGENT", "agent"),
    Column::text("GIVEN", "given"),
    Column::text("CPUS", "cpus"),
    Column::text("MEM", "mem"),
    Column::text("SHARE", "share"),
    Column::text("OF", "dominant"),
    Column::text("ALL CPUS", "all_cpus"),
    Column::text("ALL MEM", "all_mem"),
];

const GRANT_COLUMNS: [Column; 5] =
    [Column::id("FRAMEWORK", "framework"), Column::text("ROLE", "role"), Column::id("AGENT", "agent"), Column::number("TASKS", "tasks"), Column::text("RESOURCES", "resources")];

fn main() -> ExitCode {
    meso_cli::main(meso_cli::tool!(Plain), allocate)
}

async fn allocate(args: Args) -> Result<Exit, Failure> {
    let rule = args.policy.rule()?;
    let mut lines = LineIn::stdin(Until::Newline).up_to(SNAPSHOT_BYTES_MAX);
    let mut out = LineOut::stdout()?;
    let mut exit = Exit::DONE;
    let mut passes = 0;
    while let Some(line) = lines.next().await? {
        let (number, snapshot) = match line {
            LineRead::Line { bytes, .. } if bytes.trim_ascii().is_empty() => continue,
            LineRead::Line { number, bytes } => (number, Snapshot::read(&bytes).map_err(|bad| bad.to_string())),
            LineRead::TooLong { number, bytes } => (number, Err(format!("{bytes} bytes, and a snapshot has at most {SNAPSHOT_BYTES_MAX}"))),
        };
        let snapshot = match snapshot {
            Ok(snapshot) => snapshot,
            Err(why) => {
                complain(&format!("line {number}: {why}"));
                exit = Exit::BAD_INPUT;
                continue;
            }
        };
        let pass = Pass::run(&snapshot, rule.as_ref().unwrap_or(&snapshot.policy), args.seed, args.trace);
        let written = match args.output {
            Form::Jsonl => print_lines(&mut out, &pass)?,
            Form::Table => print_tables(&mut out, &pass, args.trace, passes > 0)?,
        };
        // A reader who has seen enough is no failure.
        if written == Written::ReaderGone {
            return Ok(exit);
        }
        passes += 1;
    }
    Ok(exit)
}

fn print_lines(out: &mut LineOut, pass: &Pass) -> Result<Written, Failure> {
    for step in &pass.steps {
        if out.object(step)? == Written::ReaderGone {
            return Ok(Written::ReaderGone);
        }
    }
    for grant in &pass.grants {
        if out.object(grant)? == Written::ReaderGone {
            return Ok(Written::ReaderGone);
        }
    }
    out.object(&pass.closing)
}

/// The turns, if they were wanted, as the paper on dominant resource fairness draws them, and then the grants.
fn print_tables(out: &mut LineOut, pass: &Pass, with_steps: bool, follows: bool) -> Result<Written, Failure> {
    let steps = Listing { columns: STEP_COLUMNS.to_vec(), rows: pass.steps.iter().map(step_row).collect() };
    let grants = Listing { columns: GRANT_COLUMNS.to_vec(), rows: pass.grants.iter().map(grant_row).collect() };
    let look = Look::of_stdout();
    let mut text = if follows { "\n".to_owned() } else { String::new() };
    if with_steps {
        text.push_str(&steps.render(&Format::Table, look)?);
        text.push('\n');
    }
    text.push_str(&grants.render(&Format::Table, look)?);
    out.bytes(text.trim_end_matches('\n').as_bytes())
}

fn step_row(step: &StepLine) -> Row {
    let of = |held: &Quantities, kind: &str, show: fn(Milli) -> String| format!("{}/{}", show(held.get(kind)), show(step.total.get(kind)));
    let number: fn(Milli) -> String = |amount| amount.to_string();
    let mib: fn(Milli) -> String = |amount| mib_text(amount.as_f64());
    Row::default()
        .with("step", step.step)
        .with("framework", &step.framework)
        .with("agent", &step.agent)
        .with("given", step.resources.to_string())
        .with("cpus", of(&step.after.used, "cpus", number))
        .with("mem", of(&step.after.used, "mem", mib))
        .with("share", &step.after.weighted)
        .with("dominant", &step.after.dominant)
        .with("all_cpus", of(&step.allocated, "cpus", number))
        .with("all_mem", of(&step.allocated, "mem", mib))
}

fn grant_row(line: &GrantLine) -> Row {
    let GrantLine(grant) = line;
    Row::default().with("framework", &grant.framework).with("role", &grant.role).with("agent", &grant.agent).with("tasks", grant.tasks).with("resources", grant.resources.to_string())
}
