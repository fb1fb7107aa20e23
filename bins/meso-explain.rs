//! meso-explain: why a framework or a task waits, agent by agent.

use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use meso_cli::client::{Leader, explanation_text, find_tasks, patience, standing_text, task_standing};
use meso_cli::{Access, BusArgs, Candidate, Exit, Failure, LineOut, Look, NotOne, Selector, resolve};
use meso_core::condition::Condition;
use meso_core::id::FrameworkId;
use meso_core::resources::parse_request;
use meso_core::role::Role;
use meso_core::wire::call::Demand;
use meso_core::wire::explain::{Ask, Explanation, LINES_MAX};
use meso_core::wire::query::FrameworkRow;

/// Say why a framework or a task waits
///
/// Says what concerns the whole (a limit, a guarantee to others, offers it holds), how many agents fail for which reason, and why each one does. With
/// -R, what a task that needs so much would meet. A task that has a place does not wait; then its state is told. @last is my newest framework that wants something, or else my newest task.
#[derive(clap::Parser)]
#[command(
    override_usage = "meso-explain [OPTIONS] TASK|FRAMEWORK\n       meso-explain [OPTIONS] -R RESOURCES",
    after_help = "Examples:\n  meso-explain @last\n  meso-explain -R cpus=4,mem=64G --where 'attr.rack == \"r1\"'\n  meso-explain -o json keeper | jq -r '.counts[] | [.agents, .reason] | @tsv'"
)]
struct Args {
    /// Whose wait is explained: id, the beginning of one, name or @last
    #[arg(value_name = "TASK|FRAMEWORK", required_unless_present = "resources", conflicts_with = "resources")]
    whom: Option<Selector>,
    /// What a task would need: cpus=4,mem=64G,disk=1G,gpus=1,ports=2
    #[arg(short = 'R', long, value_name = "RESOURCES")]
    resources: Option<String>,
    /// Only where this holds: 'attr.rack == "r1" && cpus >= 4'
    #[arg(long = "where", value_name = "EXPR", requires = "resources", conflicts_with = "whom")]
    condition: Option<String>,
    /// In the share of this role
    #[arg(long, value_name = "ROLE", env = "MESO_ROLE")]
    role: Option<String>,
    /// Only on this agent, by id or host name
    #[arg(long, value_name = "AGENT", requires = "resources", conflicts_with = "whom")]
    on: Option<String>,
    /// A task that may be ended at once when others need the room
    #[arg(long, requires = "resources", conflicts_with = "whom")]
    revocable: bool,
    /// Form of the output
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Form,
    #[command(flatten)]
    bus: BusArgs,
}

/// The forms of an explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Lines for people
    Text,
    /// One JSON object on one line
    Json,
}

fn main() -> ExitCode {
    meso_cli::main(meso_cli::tool!(Plain), tell)
}

async fn tell(args: Args) -> Result<Exit, Failure> {
    let access = args.bus.access()?;
    let wish = wish(&args, &access)?;
    let leader = Leader::connect(&access).await?;
    leader.patiently(explain(&leader, &args, wish)).await
}

async fn explain(leader: &Leader, args: &Args, wish: Option<Ask>) -> Result<Exit, Failure> {
    let limit = patience();
    let ask = match (wish, &args.whom) {
        (Some(ask), _) => ask,
        (None, Some(whom)) => match find_framework(leader, whom, limit).await? {
            Some(framework) => Ask { framework: Some(framework), ..Ask::default() },
            None => return tell_of_task(leader, whom, args.output, limit).await,
        },
        (None, None) => return Err(Failure::usage("nobody is named and nothing is asked for").hint("meso-explain @last, or meso-explain -R cpus=4,mem=64G")),
    };
    let lines_max = u32::try_from(LINES_MAX).unwrap_or(u32::MAX);
    let explanation: Explanation = leader.explain(Ask { lines_max, ..ask }, limit).await?;
    let mut out = LineOut::stdout()?;
    // A reader who has seen enough is no failure.
    let _ = match args.output {
        Form::Json => out.object(&explanation)?,
        Form::Text => out.bytes(explanation_text(&explanation, Look::of_stdout())?.trim_end().as_bytes())?,
    };
    Ok(Exit::DONE)
}

/// What -R and the flags beside it ask, checked before the bus is spoken to.
fn wish(args: &Args, access: &Access) -> Result<Option<Ask>, Failure> {
    let Some(text) = &args.resources else { return Ok(None) };
    let request = parse_request(text).map_err(|error| Failure::usage(format!("-R: {error}")).hint("-R cpus=4,mem=64G"))?;
    let role = match args.role.as_ref().or(access.config.role.as_ref()) {
        Some(role) => Role::parse(role).map_err(|error| Failure::usage(format!("--role: {error}")))?,
        None => Role::default(),
    };
    if args.on.as_deref().is_some_and(|on| on.is_empty() || on.chars().any(char::is_control)) {
        return Err(Failure::usage("--on: that is no agent's id or host name"));
    }
    let condition = args.condition.clone().unwrap_or_default();
    Condition::parse(&condition).map_err(|error| Failure::usage(format!("--where: {error}")).hint("--where 'attr.rack == \"r1\" && cpus >= 4'"))?;
    let demand = Demand { request, count: 1, condition, on: args.on.clone(), revocable: args.revocable, ..Demand::default() };
    Ok(Some(Ask { role, demand: Some(demand), ..Ask::default() }))
}

/// The framework that is meant; none if no framework is.
async fn find_framework(leader: &Leader, whom: &Selector, limit: Duration) -> Result<Option<FrameworkId>, Failure> {
    let mut frameworks = leader.frameworks(limit).await?;
    if *whom == Selector::Last {
        frameworks.retain(|row| row.wants > 0);
    }
    let candidate = |row: &FrameworkRow| Candidate {
        id: row.id.to_string(),
        name: row.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        principal: row.principal.to_string(),
        // Only their order counts.
        ts_ms: u64::MAX - row.age_ms,
    };
    let candidates: Vec<Candidate> = frameworks.iter().map(candidate).collect();
    match resolve(whom, &candidates, leader.principal().as_str()) {
        Ok(chosen) => Ok(frameworks.iter().find(|row| row.id.as_str() == chosen.id).map(|row| row.id.clone())),
        Err(NotOne::NotFound(_) | NotOne::NoneIsMine) => Ok(None),
        Err(not_one) => Err(not_one.into()),
    }
}

async fn tell_of_task(leader: &Leader, whom: &Selector, form: Form, limit: Duration) -> Result<Exit, Failure> {
    for found in find_tasks(leader, std::slice::from_ref(whom), limit).await? {
        let standing = task_standing(&found?);
        let mut out = LineOut::stdout()?;
        // A reader who has seen enough is no failure.
        let _ = match form {
            Form::Json => out.object(&standing)?,
            Form::Text => out.bytes(standing_text(&standing).as_bytes())?,
        };
    }
    Ok(Exit::DONE)
}
