//! meso-sim: run simulated clusters by seed.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use meso_sim::story::STORY_LINES_MAX;
use meso_sim::{Plan, Plant, Tally, World};

/// Seeds of `--rate`: enough for some seconds.
const RATE_SEEDS: std::ops::Range<u64> = 0..400;
/// Seeds tried for each planted bug.
const PLANT_SEEDS: u64 = 400;

/// Of so many seeds one is run twice, and must give the same events.
const REPLAY_ONCE_IN: u64 = 100;

const USAGE: &str = "usage: meso-sim [--calm] [--all] [--plant BUG] [--lines N] (--seed N | --seeds FROM..TO | --rate | --plants)";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            let _ = writeln!(io::stderr(), "meso-sim: {why}\n  try: {USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(mut args: impl Iterator<Item = String>) -> Result<bool, String> {
    let mut plant = Plant::None;
    let mut calm = false;
    let mut all = false;
    let mut lines_max = STORY_LINES_MAX;
    let mut what = None;
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--calm" => calm = true,
            "--all" => all = true,
            "--plant" => {
                let word = value()?;
                plant = Plant::parse(&word).ok_or(format!("there is no planted bug {word:?}"))?;
            }
            "--lines" => lines_max = usize::try_from(number(&value()?)?).map_err(|error| error.to_string())?,
            "--seed" => {
                let seed = number(&value()?)?;
                what = Some(seed..seed + 1);
            }
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").ok_or(format!("{text:?} is not FROM..TO"))?;
                what = Some(number(from)?..number(to)?);
            }
            "--rate" => return rate().map_err(|error| error.to_string()),
            "--plants" => return plants().map_err(|error| error.to_string()),
            _ => return Err(format!("{arg:?} is not known")),
        }
    }
    let seeds = what.ok_or("no seed is given")?;
    if all {
        return sweep(seeds, calm, plant).map_err(|error| error.to_string());
    }
    many(seeds, calm, plant, lines_max).map_err(|error| error.to_string())
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

fn plan_of(seed: u64, calm: bool) -> Plan {
    if calm { Plan::calm(seed) } else { Plan::of(seed) }
}

/// Runs seeds until one breaks an invariant; tells its story.
fn many(seeds: std::ops::Range<u64>, calm: bool, plant: Plant, lines_max: usize) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    let mut tally = Tally::default();
    let (mut steps, mut simulated_ms) = (0, 0);
    for seed in seeds.clone() {
        let outcome = World::new(plan_of(seed, calm), plant, 0).run();
        steps += outcome.steps;
        simulated_ms += outcome.simulated_ms;
        tally.join(&outcome.tally);
        if seed % REPLAY_ONCE_IN == 0 && World::new(plan_of(seed, calm), plant, 0).run().trace != outcome.trace {
            writeln!(out, "seed {seed}: two runs of it differ")?;
            return Ok(false);
        }
        if let Some(violation) = outcome.violation {
            let mut world = World::new(plan_of(seed, calm), plant, lines_max);
            world.run();
            writeln!(out, "seed {seed}: {:?}", plan_of(seed, calm))?;
            for line in world.story.lines() {
                writeln!(out, "{line}")?;
            }
            writeln!(out, "seed {seed} at {:.3} s: {}: {}", violation.at_ms as f64 / 1000.0, violation.law, violation.what)?;
            return Ok(false);
        }
    }
    writeln!(out, "{tally}")?;
    writeln!(out, "seeds {seeds:?}: {steps} steps, {:.1} simulated hours, no invariant broken", simulated_ms as f64 / 3_600_000.0)?;
    Ok(true)
}

/// Runs all seeds; one line for each that breaks an invariant.
fn sweep(seeds: std::ops::Range<u64>, calm: bool, plant: Plant) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    let mut failed = 0;
    for seed in seeds.clone() {
        if let Some(violation) = World::new(plan_of(seed, calm), plant, 0).run().violation {
            failed += 1;
            writeln!(out, "seed {seed} at {:.3} s: {}: {}", violation.at_ms as f64 / 1000.0, violation.law, violation.what)?;
        }
    }
    writeln!(out, "seeds {seeds:?}: {failed} broke an invariant")?;
    Ok(failed == 0)
}

/// How many steps a second, every invariant checked, on one core.
fn rate() -> io::Result<bool> {
    let begun = Instant::now();
    let (mut steps, mut delivered, mut simulated_ms) = (0, 0, 0);
    for seed in RATE_SEEDS {
        let outcome = World::new(Plan::of(seed), Plant::None, 0).run();
        steps += outcome.steps;
        delivered += outcome.delivered;
        simulated_ms += outcome.simulated_ms;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let mut out = io::stdout().lock();
    let millions = |count: u64, seconds: f64| count as f64 / seconds / 1e6;
    writeln!(out, "{steps} events handled and {delivered} messages delivered in {seconds:.2} s, {:.0} times real time", simulated_ms as f64 / 1000.0 / seconds)?;
    writeln!(out, "{:.2} M events/s, {:.2} M steps/s with the messages", millions(steps, seconds), millions(steps + delivered, seconds))?;
    // On a machine that does other work as well, what one core does is seen by the time it was given.
    let on_core = std::fs::read_to_string("/proc/self/schedstat").ok().and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    if let Some(nanos) = on_core {
        let seconds = nanos / 1e9;
        writeln!(out, "{seconds:.2} s on the core: {:.2} M events/s, {:.2} M steps/s with the messages", millions(steps, seconds), millions(steps + delivered, seconds))?;
    }
    Ok(true)
}

/// The table of planted bugs.
fn plants() -> io::Result<bool> {
    let mut out = io::stdout().lock();
    let mut all = true;
    writeln!(out, "{:<22} {:>7} {:>6}  invariant", "planted bug", "failing", "first")?;
    for (plant, word) in Plant::ALL {
        let mut failing = 0;
        let mut first = None;
        for seed in 0..PLANT_SEEDS {
            if let Some(violation) = World::new(Plan::of(seed), *plant, 0).run().violation {
                failing += 1;
                first.get_or_insert((seed, violation.law));
            }
        }
        let (seed, law) = first.map_or(("-".to_owned(), "not caught"), |(seed, law)| (seed.to_string(), law));
        all &= failing > 0;
        writeln!(out, "{word:<22} {failing:>7} {seed:>6}  {law}")?;
    }
    Ok(all)
}
