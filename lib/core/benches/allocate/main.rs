//! The allocator's benchmark: passes over made-up clusters, a leader event by event, and the floor beside them
//!
//! `cargo bench -p meso-core --bench allocate -- [--quick] [--floor PROGRAM]` prints two tables and one line of JSON.
//! The floor is a program that does the same division without roles, limits, demands and filters, and prints its times
//! as one line of JSON; `MESO_ALLOCFLOOR` names it, too. What it has no time for is shown without a ratio.

mod clock;
mod leader;
mod prepared;
mod story;

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

use prepared::{Passes, Prepared, Roles};
use story::Live;

/// Agents and frameworks of the passes.
const PASSES: [(u64, u64); 9] =
    [(1_000, 1), (1_000, 50), (1_000, 200), (5_000, 200), (10_000, 200), (10_000, 1_000), (20_000, 2_000), (50_000, 200), (50_000, 2_000)];
/// The same of leaders.
const LEADERS: [(u64, u64); 6] = [(1_000, 50), (1_000, 200), (10_000, 200), (10_000, 1_000), (20_000, 2_000), (50_000, 200)];
/// With `--quick` only clusters up to so many agents.
const QUICK_AGENTS_MAX: u64 = 10_000;

const USAGE: &str = "cargo bench -p meso-core --bench allocate -- [--quick] [--floor PROGRAM]";

struct Args {
    quick: bool,
    floor: Option<String>,
    /// Only a leader with so many agents and frameworks, as a line of JSON: what this program asks of itself.
    leader: Option<(u64, u64, Roles)>,
}

fn main() -> ExitCode {
    match args(env::args().skip(1)).and_then(|args| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(io::stderr(), "allocate: {why}\n  try: {USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn args(mut words: impl Iterator<Item = String>) -> Result<Args, Box<dyn Error>> {
    let mut args = Args { quick: false, floor: env::var("MESO_ALLOCFLOOR").ok(), leader: None };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            // Cargo says so to every benchmark.
            "--bench" => {}
            "--quick" => args.quick = true,
            "--floor" => args.floor = Some(value()?),
            "--leader" => {
                let (agents, frameworks, roles) = (value()?.parse()?, value()?.parse()?, value()?);
                args.leader = Some((agents, frameworks, if roles == Roles::Each.name() { Roles::Each } else { Roles::One }));
            }
            _ => return Err(format!("{word:?} is not known").into()),
        }
    }
    Ok(args)
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    if let Some((agents, frameworks, roles)) = args.leader {
        return Ok(writeln!(out, "{}", serde_json::to_string(&story::tell(agents, frameworks, roles))?)?);
    }
    let wanted = |sizes: &[(u64, u64)]| -> Vec<(u64, u64)> { sizes.iter().copied().filter(|(agents, _)| !args.quick || *agents <= QUICK_AGENTS_MAX).collect() };
    let floor = args.floor.as_deref().map(floor).transpose()?;
    writeln!(out, "one pass, ms; json: the grants as lines; ratio: pass and json to the floor's{}\n", if floor.is_some() { "" } else { ", floor not given" })?;
    writeln!(out, "{:>15} {:>5} {:>8} {:>8} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8}", "", "roles", "pass", "json", "ratio", "ratio", "10 tasks", "endless", "tasks", "refused")?;
    let mut passes = Vec::new();
    for (agents, frameworks) in wanted(&PASSES) {
        for roles in [Roles::One, Roles::Each] {
            let row = Prepared::new(agents, frameworks, roles).measure(roles);
            pass_line(&mut out, &row, floor.as_ref())?;
            passes.push(row);
        }
    }
    writeln!(out, "\na leader: the first pass with its messages, ms; events, each with its tick, us; memory, bytes each\n")?;
    writeln!(
        out,
        "{:>15} {:>5} {:>8} {:>8} {:>8} {:>6} {:>7} {:>7} {:>6} {:>6} {:>6} {:>7} {:>7} {:>8} {:>6} {:>9} {:>6}",
        "", "roles", "join", "pass", "json", "idle", "decline", "accept", "end", "full", "free", "nowhere", "waiting", "refused", "agent", "framework", "offer"
    )?;
    let mut leaders = Vec::new();
    for (agents, frameworks) in wanted(&LEADERS) {
        for roles in [Roles::One, Roles::Each] {
            let row = in_a_process(agents, frameworks, roles)?;
            live_line(&mut out, &row)?;
            leaders.push(row);
        }
    }
    writeln!(out, "\n{}", json!({ "bench": "allocate", "passes": passes, "leaders": leaders, "floor": floor }))?;
    Ok(())
}

/// Runs the floor.
fn floor(program: &str) -> Result<Value, Box<dyn Error>> {
    let output = Command::new(program).output().map_err(|error| format!("{program}: {error}"))?;
    Ok(serde_json::from_slice(&output.stdout).map_err(|error| format!("{program} said no line of JSON: {error}"))?)
}

/// Measures a leader in a process of its own, so that its memory begins with nothing.
fn in_a_process(agents: u64, frameworks: u64, roles: Roles) -> Result<Live, Box<dyn Error>> {
    let output = Command::new(env::current_exe()?).args(["--leader", &agents.to_string(), &frameworks.to_string(), roles.name()]).output()?;
    if !output.status.success() {
        return Err(format!("a leader with {agents} agents failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn pass_line(out: &mut impl Write, row: &Passes, floor: Option<&Value>) -> io::Result<()> {
    let size = format!("{} x {}", row.agents, row.frameworks);
    let beside = |key: &str, ms: f64| {
        let floor_ms = floor.and_then(|floor| floor[format!("{}x{}", row.agents, row.frameworks)][key].as_f64());
        floor_ms.filter(|floor_ms| *floor_ms > 0.0).map_or("-".to_owned(), |floor_ms| format!("{:.1}", ms / floor_ms))
    };
    let (pass_ratio, json_ratio) = (beside("cycle_ms", row.pass_ms), beside("json_ms", row.json_ms));
    let refused = row.refused_ms.map_or("-".to_owned(), |ms| format!("{ms:.2}"));
    writeln!(
        out,
        "{size:>15} {:>5} {:>8.2} {:>8.2} {pass_ratio:>7} {json_ratio:>7} {:>8.2} {:>8.2} {:>8} {refused:>8}",
        row.roles, row.pass_ms, row.json_ms, row.backlog_ms, row.endless_ms, row.endless_tasks
    )
}

fn live_line(out: &mut impl Write, row: &Live) -> io::Result<()> {
    let size = format!("{} x {}", row.agents, row.frameworks);
    let refused = row.refused_ms.map_or("-".to_owned(), |ms| format!("{ms:.2}"));
    writeln!(
        out,
        "{size:>15} {:>5} {:>8.0} {:>8.2} {:>8.2} {:>6.1} {:>7.1} {:>7.1} {:>6.1} {:>6.1} {:>6.1} {:>7.1} {:>7.1} {refused:>8} {:>6.0} {:>9.0} {:>6.0}",
        row.roles,
        row.join_ms,
        row.pass_ms,
        row.json_ms,
        row.idle_us,
        row.decline_us,
        row.accept_us,
        row.end_us,
        row.full_us,
        row.free_us,
        row.nowhere_us,
        row.among_waiting_us,
        row.agent_bytes,
        row.framework_bytes,
        row.offer_bytes
    )
}
