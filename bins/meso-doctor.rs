//! meso-doctor: what is not well on this machine and in the cluster, and what mends it.

#[path = "doctor/agents.rs"]
mod agents;
#[path = "doctor/bus.rs"]
mod bus;
#[path = "doctor/cgroups.rs"]
mod cgroups;
#[path = "doctor/finding.rs"]
mod finding;
#[path = "doctor/machine.rs"]
mod machine;
#[path = "doctor/masters.rs"]
mod masters;
#[path = "doctor/sync.rs"]
mod sync;

use std::path::PathBuf;
use std::process::ExitCode;

use meso_cli::{BusArgs, Exit, Failure};
use meso_core::duration::parse_duration;

use finding::Report;

/// meso-master takes no less, milliseconds.
const BEAT_MS_MIN: u64 = 100;

/// Look whether this machine and the cluster are well, and say what mends what is not
///
/// One line for each check: ok, warn or FAIL, its name, what was seen. Below what is not well stands the next step. What cannot be looked at, because the bus or a leader is not there, is skipped.
/// Nothing is changed, nothing is asked of you, and no check takes longer than 5 s.
#[derive(clap::Parser)]
#[command(after_help = "Examples:\n  meso-doctor\n  meso-doctor --local && meso-agent\n  meso-doctor --json | jq -r 'select(.state == \"fail\") | .try'")]
struct Args {
    /// Look at this machine only
    #[arg(long, conflicts_with_all = ["agent_beat", "nats", "creds", "context", "cluster", "principal"])]
    local: bool,
    /// Print findings as JSON lines
    #[arg(long)]
    json: bool,
    /// Directory whose disk is looked at: that of an agent, a bus or meso-up
    ///
    /// Without it, those where they keep their state if nothing else is said.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How often agents say that they live, as for meso-master
    ///
    /// One that is silent for more than two of these is told.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_beat)]
    agent_beat: u64,
    #[command(flatten)]
    bus: BusArgs,
}

fn parse_beat(text: &str) -> Result<u64, String> {
    let beat_ms = parse_duration(text).map_err(|error| error.to_string())?;
    if beat_ms < BEAT_MS_MIN { Err(format!("a beat takes {BEAT_MS_MIN} ms at least")) } else { Ok(beat_ms) }
}

fn main() -> ExitCode {
    meso_cli::main(meso_cli::tool!(Judges), examine)
}

async fn examine(args: Args) -> Result<Exit, Failure> {
    let mut report = Report::new(args.json)?;
    if !args.local {
        let leader = bus::look(&args.bus, &mut report).await?;
        let rows = masters::look(leader.as_ref(), &mut report).await?;
        agents::look(rows.as_ref(), args.agent_beat, &mut report)?;
    }
    machine::look(args.state, &mut report).await?;
    Ok(report.exit())
}
