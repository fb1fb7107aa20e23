//! `--dry-run`: the task as it would be launched, and where it would fit now.

use meso_cli::client::{Leader, patience};
use meso_cli::{Exit, Failure, complain};
use meso_core::condition::{Condition, Facts};

use crate::Args;
use crate::plan::Plan;
use crate::run::shown;

/// Prints each task as one JSON line; exit 0 if one fits now, 75 if not now, 125 if it cannot be.
pub async fn preview(args: &Args, plan: Plan) -> Result<Exit, Failure> {
    let leader = Leader::connect(&plan.access).await?;
    let agents = leader.agents(patience()).await?;
    let mut source = plan.source().await?;
    while let Some((job, _)) = source.next(&plan).await? {
        let line = shown(&job.task)?;
        let mut out = std::io::stdout().lock();
        use std::io::Write;
        match out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Exit::DONE),
            outcome => outcome.map_err(|error| Failure::stdout(&error))?,
        }
    }
    let condition = args.condition.as_deref().map(Condition::parse).transpose().map_err(|error| Failure::usage(error.to_string()))?;
    let role = plan.role.to_string();
    let wanted = |row: &&meso_core::wire::query::AgentRow| {
        let here = args.on.as_deref().is_none_or(|on| on == row.host || on == row.id.as_str());
        let facts = Facts { resources: &row.free, host: &row.host, agent: row.id.as_str(), role: &role, attrs: &row.attrs, revocable: false };
        here && row.state == "active" && condition.as_ref().is_none_or(|condition| condition.holds(&facts))
    };
    let places: Vec<_> = agents.iter().filter(wanted).collect();
    let now = places.iter().find(|row| plan.request.fits(&row.free));
    match now {
        Some(row) => {
            if !args.quiet {
                complain(&format!("would run on {} ({})", row.host, row.id));
            }
            Ok(Exit::DONE)
        }
        None if places.is_empty() && !agents.is_empty() => Err(Failure::failed("no agent is where --where and --on want it").hint("meso-ps agents -o wide shows hosts and attributes")),
        None if places.iter().any(|row| plan.request.fits(&row.total)) => Err(Failure::not_now(format!("no agent has {} free now", plan.request))),
        None => Err(Failure::failed(format!("no agent has {} at all", plan.request)).hint("meso-ps agents shows what there is")),
    }
}
