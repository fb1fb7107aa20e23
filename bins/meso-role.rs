//! meso-role: shows and sets how roles and frameworks share the cluster.

use std::process::ExitCode;

use clap::ValueEnum;
use meso_cli::client::{Leader, ROLE_COLUMNS, patience, role_row};
use meso_cli::{BusArgs, Column, Exit, Failure, Format, Listing, OutputArgs, complain};
use meso_core::json::quoted;
use meso_core::policy::{Change, KINDS_MAX, Limit, PRIORITY_MAX, Subject, WEIGHT_MAX_UNITS};
use meso_core::resources::{Milli, Quantities, parse_amounts};
use meso_core::wire::operator::{Operation, Outcome};
use meso_core::wire::query::RoleRow;
use meso_core::wire::{Refusal, RefusalCode};

/// Takes a guarantee or a limit away.
const NONE: &str = "none";

/// Show and set weight, priority, guarantee and limit of roles and frameworks
///
/// Without a word, lists the roles: those somebody is in, those of which something is set, and those above them. What is set holds at once and
/// until it is set anew, whoever leads. Offers that contradict it are taken back; tasks are not touched by it.
#[derive(clap::Parser)]
#[command(after_help = "Examples:\n  meso-role set eng --weight 2 --guarantee cpus=8,mem=16G\n  meso-role set eng/batch --limit cpus=16,gpus=0\n  meso-role set eng/batch:nightly --priority 5\n  meso-role rm eng/batch:nightly")]
struct Args {
    /// What to do
    #[arg(value_enum, default_value_t = Verb::Ls)]
    verb: Verb,
    /// Role, such as eng/batch, or a framework of one by its name or id, such as eng/batch:nightly
    #[arg(value_name = "ROLE[:FRAMEWORK]")]
    subject: Option<Subject>,
    /// Against its siblings: twice the weight is twice the share; 1 if nothing was said
    #[arg(long, value_name = "WEIGHT", value_parser = weight, allow_hyphen_values = true, help_heading = "What is set")]
    weight: Option<Milli>,
    /// The higher is served first, where the policy looks at priorities; 0 if nothing was said
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(-PRIORITY_MAX..=PRIORITY_MAX), allow_hyphen_values = true, help_heading = "What is set")]
    priority: Option<i64>,
    /// Kept back for it while it holds less: cpus=4,mem=8G; none takes it away
    #[arg(long, value_name = "RESOURCES", value_parser = guarantee, allow_hyphen_values = true, help_heading = "What is set")]
    guarantee: Option<Quantities>,
    /// The most it may hold with all below it: cpus=16,gpus=0; what is not named is not limited; none takes it away
    #[arg(long, value_name = "RESOURCES", value_parser = limit, allow_hyphen_values = true, help_heading = "What is set")]
    limit: Option<Limit>,
    /// Guarantee more than the cluster has, or limit to less than is held
    #[arg(long)]
    force: bool,
    /// Change nothing; print the role as it would be, and how many offers would be taken back
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    bus: BusArgs,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verb {
    /// List roles, and frameworks of which something is set
    Ls,
    /// Set what is named; the rest stays as it is
    Set,
    /// Forget all that was set
    Rm,
}

fn main() -> ExitCode {
    meso_cli::main(meso_cli::tool!(Plain), run)
}

async fn run(args: Args) -> Result<Exit, Failure> {
    let Some(operation) = operation(&args)? else {
        let leader = Leader::connect(&args.bus.access()?).await?;
        let roles = leader.patiently(leader.roles(patience())).await?;
        let listing = Listing { columns: ROLE_COLUMNS.to_vec(), rows: roles.iter().map(role_row).collect() };
        // A reader who has seen enough is no failure.
        let _ = listing.print(&args.output.output)?;
        return Ok(Exit::DONE);
    };
    let leader = Leader::connect(&args.bus.access()?).await?;
    let patience = patience();
    match leader.patiently(leader.operate(&operation, patience)).await? {
        None => Err(leader.nobody(patience)),
        Some(Outcome::Refused(refusal)) => Err(refused(refusal)),
        Some(Outcome::Done { role, rescinded, notes }) => {
            notes.iter().for_each(|note| complain(note));
            if args.dry_run {
                show(role.as_deref(), rescinded, &args.output.output)?;
            }
            Ok(Exit::DONE)
        }
    }
}

/// What the leader is asked to do; none if it is only asked what there is.
fn operation(args: &Args) -> Result<Option<Operation>, Failure> {
    let change = Change { weight: args.weight, priority: args.priority, guarantee: args.guarantee.clone(), limit: args.limit.clone() };
    let says_nothing = change == Change::default();
    let wrong = |what: &str, hint: &str| Err(Failure::usage(what).hint(hint));
    if args.verb != Verb::Set && (!says_nothing || args.force) {
        return wrong("--weight, --priority, --guarantee, --limit and --force are for set", "meso-role set ROLE, with one of them");
    }
    if args.verb == Verb::Ls {
        return match (&args.subject, args.dry_run) {
            (None, false) => Ok(None),
            (Some(_), _) => wrong("ls lists all roles", "meso-role -o jsonl | jq, for one of them"),
            (None, true) => wrong("ls changes nothing: --dry-run is for set and rm", "meso-role ls"),
        };
    }
    let Some(subject) = args.subject.clone() else {
        return wrong("set and rm need a role, or ROLE:FRAMEWORK", "meso-role ls, for those there are");
    };
    if args.verb == Verb::Set && says_nothing {
        return Err(Failure::usage(format!("nothing is said of what to set for {subject}")).hint("--weight, --priority, --guarantee or --limit"));
    }
    if !args.dry_run && args.output.output != Format::Table {
        return wrong("set and rm print nothing, so there is no -o without --dry-run", "meso-role ls, afterwards");
    }
    Ok(Some(match args.verb {
        Verb::Rm => Operation::RemoveRole { subject, dry_run: args.dry_run },
        Verb::Ls | Verb::Set => Operation::SetRole { subject, change, force: args.force, dry_run: args.dry_run },
    }))
}

/// Prints a role as it would be; nothing but the heading if it would no longer be listed.
fn show(role: Option<&RoleRow>, rescinded: u32, format: &Format) -> Result<(), Failure> {
    let columns = ROLE_COLUMNS.into_iter().chain([Column::number("RESCINDED", "rescinded")]).collect();
    let listing = Listing { columns, rows: role.iter().map(|role| role_row(role).with("rescinded", rescinded)).collect() };
    let _ = listing.print(format)?;
    Ok(())
}

fn refused(refusal: Refusal) -> Failure {
    match refusal.code {
        RefusalCode::NotYours => Failure::denied(refusal.message).hint("ask who runs the cluster"),
        RefusalCode::Overcommits => Failure::failed(refusal.message).hint("the same with --force, where the cluster is to grow or what is held to shrink"),
        _ => Failure::failed(refusal.message).hint("meso-role ls, for what is set"),
    }
}

fn weight(text: &str) -> Result<Milli, String> {
    let weight = Milli::parse(text).map_err(|bad| bad.why().to_owned())?;
    if weight.is_zero() || weight > Milli::units(WEIGHT_MAX_UNITS) {
        return Err(format!("a weight is above 0 and at most {WEIGHT_MAX_UNITS}"));
    }
    Ok(weight)
}

fn guarantee(text: &str) -> Result<Quantities, String> {
    let amounts = amounts(text)?;
    match amounts.iter().find(|(_, amount)| amount.is_zero()) {
        Some((kind, _)) => Err(format!("a guarantee of no {kind} says nothing; leave it out, or write {NONE} for no guarantee")),
        None => Ok(amounts.into_iter().collect()),
    }
}

fn limit(text: &str) -> Result<Limit, String> {
    amounts(text)
}

fn amounts(text: &str) -> Result<Limit, String> {
    if text == NONE {
        return Ok(Limit::new());
    }
    let amounts = parse_amounts(text).map_err(|bad| bad.to_string())?;
    if let Some(kind) = amounts.keys().nth(KINDS_MAX) {
        return Err(format!("{} is one kind of resources more than the {KINDS_MAX} there may be", quoted(kind)));
    }
    Ok(amounts)
}
