//! The benchmark of failover: thousands of emulated agents on a real bus, real masters, and a leader that is lost
//!
//! `cargo bench -p meso-bus --bench failover -- [--agents N]... [--tasks N] [--rounds N]` prints two tables and one line
//! of JSON; without sizes it takes 1, 1,000 and 10,000 agents of 10 tasks. The agents are emulated: the agent's own logic
//! speaks the real protocol over the real bus, many agents on a connection, and their containers do nothing. nats-server,
//! the leader, its standby and the framework that waits for an offer (meso-offer) are real processes; `cargo build
//! --release` makes those of ours. The floor is the takeover of the lease, seen in the same run: sooner nobody may lead.

mod agent;
mod crowd;
mod framework;
mod line;
mod masters;
mod onlooker;
mod story;

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use story::{Joined, Lost};

/// Agents, where nobody says otherwise.
const AGENTS: [usize; 3] = [1, 1_000, 10_000];
/// Tasks of each.
const TASKS: usize = 10;
/// How often a leader is lost by each signal.
const ROUNDS: usize = 5;

const USAGE: &str = "cargo bench -p meso-bus --bench failover -- [--agents N].. [--tasks N] [--rounds N]";

struct Args {
    agents: Vec<usize>,
    tasks: usize,
    rounds: usize,
}

fn main() -> ExitCode {
    match args(env::args().skip(1)).and_then(|args| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(io::stderr(), "failover: {why}\n  try: {USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn args(mut words: impl Iterator<Item = String>) -> Result<Args, Box<dyn Error>> {
    let mut args = Args { agents: Vec::new(), tasks: TASKS, rounds: ROUNDS };
    while let Some(word) = words.next() {
        let mut value = || -> Result<usize, Box<dyn Error>> { Ok(words.next().ok_or(format!("{word} needs a value"))?.parse()?) };
        match word.as_str() {
            // Cargo says so to every benchmark.
            "--bench" => {}
            "--agents" => args.agents.push(value()?.max(1)),
            "--tasks" => args.tasks = value()?,
            "--rounds" => args.rounds = value()?,
            _ => return Err(format!("{word:?} is not known").into()),
        }
    }
    if args.agents.is_empty() {
        args.agents.extend(AGENTS);
    }
    Ok(args)
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut stories = Vec::new();
    for agents in &args.agents {
        let local = tokio::task::LocalSet::new();
        stories.push(local.block_on(&runtime, async {
            tokio::select! {
                told = story::tell(*agents, args.tasks, args.rounds) => told,
                ended = asked_to_end() => Err(ended.err().map_or("it was asked to end".into(), Into::into)),
            }
        })?);
    }
    writeln!(out, "agents that register all at once with a leader that knows none; memory of the leader, KiB each; answer: the slowest meanwhile\n")?;
    writeln!(out, "{:>8} {:>9} {:>9} {:>8} {:>9} {:>9} {:>9} {:>6} {:>11} {:>10}", "agents", "first ms", "all ms", "hellos", "floor ms", "cpu ms", "answer ms", "KiB", "tasks in ms", "with tasks")?;
    for story in &stories {
        joined_line(&mut out, &story.joined)?;
    }
    writeln!(out, "\na leader that is lost, ms from the signal: lease: another has it; known: all agents and their tasks are; offer: the first; leader, bus, crowd: processor time until known\n")?;
    writeln!(
        out,
        "{:>8} {:>7} {:>5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>11} {:>11} {:>7} {:>7} {:>7} {:>8} {:>7}",
        "agents", "tasks", "by", "lease", "worst", "known", "worst", "offer", "worst", "known-lease", "known/lease", "leader", "bus", "crowd", "hellos", "MiB"
    )?;
    for story in &stories {
        for lost in &story.lost {
            lost_line(&mut out, &story.joined, lost)?;
        }
    }
    writeln!(out, "\n{}", json!({ "bench": "failover", "stories": stories }))?;
    Ok(())
}

/// Ready when the process is asked to end: what it started has to end with it.
async fn asked_to_end() -> io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

fn joined_line(out: &mut impl Write, row: &Joined) -> io::Result<()> {
    writeln!(
        out,
        "{:>8} {:>9.0} {:>9.0} {:>8} {:>9.0} {:>9} {:>9.0} {:>6.1} {:>11.0} {:>10.1}",
        row.agents, row.first_ms, row.all_ms, row.registrations, row.floor_ms, row.cpu_ms, row.slowest_ms, row.agent_kib, row.fill_ms, row.filled_agent_kib
    )
}

fn lost_line(out: &mut impl Write, joined: &Joined, row: &Lost) -> io::Result<()> {
    writeln!(
        out,
        "{:>8} {:>7} {:>5} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>11.0} {:>11.2} {:>7.0} {:>7.0} {:>7.0} {:>8.0} {:>7.0}",
        joined.agents,
        joined.tasks,
        row.by,
        row.lease.median,
        row.lease.worst,
        row.known.median,
        row.known.worst,
        row.offer.median,
        row.offer.worst,
        row.after_lease.median,
        row.ratio.median,
        row.cpu.median,
        row.bus_cpu.median,
        row.crowd_cpu.median,
        row.registrations.median,
        row.resident_mib.worst
    )
}
