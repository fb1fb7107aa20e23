//! Looking without holding: what would be offered now, as a table that stays on the screen, or as lines.

use std::collections::BTreeMap;
use std::time::Duration;

use meso_cli::client::{Leader, patience};
use meso_cli::{Column, Exit, Failure, Listing, LineOut, Look, Row, Written, stdout_is_terminal};
use meso_core::condition::Facts;
use meso_core::id::{AgentId, OfferId};
use meso_core::resources::Resources;
use meso_core::wire::Offer;
use meso_core::wire::line::{Line, OfferLine};
use meso_core::wire::query::AgentRow;
use serde_json::Value;
use tokio::time::sleep;

use crate::Args;
use crate::plan::Plan;
use crate::run::wall;
use crate::words::text_of;

/// How often to look again.
const LOOK: Duration = Duration::from_secs(1);
/// To the upper left corner, and everything below it blank.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

const COLUMNS: [Column; 7] = [
    Column::id("AGENT", "agent"),
    Column::text("HOST", "host"),
    Column::number("CPUS", "cpus"),
    Column::mib("MEM", "mem"),
    Column::mib("DISK", "disk"),
    Column::number("GPUS", "gpus"),
    Column::number("PORTS", "ports"),
];

/// Shows what is free where it would be offered: again and again, or once.
pub async fn peek(args: &Args, plan: &Plan) -> Result<Exit, Failure> {
    let leader = Leader::connect(&plan.access).await?;
    let mut out = LineOut::stdout()?;
    let mut shown: BTreeMap<AgentId, Resources> = BTreeMap::new();
    let as_table = stdout_is_terminal() && !args.once;
    let mut seq = 0;
    loop {
        let agents: Vec<AgentRow> = leader.agents(patience()).await?.into_iter().filter(|agent| would_be_offered(agent, plan)).collect();
        if as_table {
            let text = table(&agents, plan)?;
            if out.bytes(format!("{CLEAR}{}", text.trim_end_matches('\n')).as_bytes())? == Written::ReaderGone {
                return Ok(Exit::DONE);
            }
        } else {
            shown.retain(|id, _| agents.iter().any(|agent| agent.id == *id));
            for agent in &agents {
                if shown.get(&agent.id) == Some(&agent.free) {
                    continue;
                }
                shown.insert(agent.id.clone(), agent.free.clone());
                seq += 1;
                let text = text_of(line(agent, plan, seq)?, &args.output, &mut Vec::new())?;
                if out.bytes(text.trim_end_matches('\n').as_bytes())? == Written::ReaderGone {
                    return Ok(Exit::DONE);
                }
            }
        }
        if args.once {
            return Ok(Exit::DONE);
        }
        sleep(LOOK).await;
    }
}

fn would_be_offered(agent: &AgentRow, plan: &Plan) -> bool {
    let facts = Facts { resources: &agent.free, host: &agent.host, agent: agent.id.as_str(), role: plan.role.as_str(), revocable: false, attrs: &agent.attrs };
    agent.state == "active" && !agent.free.is_empty() && plan.request.fits(&agent.free) && plan.condition.holds(&facts)
}

fn line(agent: &AgentRow, plan: &Plan, seq: u64) -> Result<Line, Failure> {
    let id = OfferId::parse("peek").map_err(|error| Failure::internal(error.to_string()))?;
    let offer = Offer { id, agent: agent.id.clone(), host: agent.host.clone(), resources: agent.free.clone(), attrs: agent.attrs.clone(), expires_ms: 0, lives_ms: 0, revocable: false };
    let now = wall();
    Ok(Line::Offer(Box::new(OfferLine::new(&offer, seq, &plan.role, now.0, now).peeked())))
}

fn table(agents: &[AgentRow], plan: &Plan) -> Result<String, Failure> {
    let mut rows = Vec::with_capacity(agents.len());
    for agent in agents {
        let value = serde_json::to_value(line(agent, plan, 0)?).map_err(|error| Failure::internal(format!("writing a line: {error}")))?;
        if let Value::Object(object) = value {
            rows.push(Row::from(object));
        }
    }
    let text = Listing { columns: COLUMNS.to_vec(), rows }.render(&meso_cli::Format::Table, Look::of_stdout())?;
    Ok(format!("{text}\n{} of what is free would be offered; nothing is held. Ctrl-C ends.\n", if agents.len() == 1 { "1 part".to_owned() } else { format!("{} parts", agents.len()) }))
}
