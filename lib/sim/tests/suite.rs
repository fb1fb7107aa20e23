//! Many seeds under every fault: no invariant breaks, every fault really happened, and planted bugs are found.

use std::fmt::Write;
use std::thread;

use meso_sim::story::STORY_LINES_MAX;
use meso_sim::{Outcome, Plan, Plant, Tally, World};

/// Seeds of the suite, by thread; a long run is `meso-sim --seeds 0..1000000`.
const SUITE: [std::ops::Range<u64>; 2] = [0..10_000, 10_000..20_000];
/// Of so many seeds one is run twice.
const REPLAY_ONCE_IN: usize = 100;
/// Seeds without faults.
const CALM: std::ops::Range<u64> = 0..300;
/// A planted bug is found within so many seeds.
const PLANT_SEEDS_MAX: u64 = 4_000;
/// A bug that a second defence holds is tried with so many seeds.
const HELD_SEEDS: u64 = 300;

fn run(plan: Plan, plant: Plant) -> Outcome {
    World::new(plan, plant, 0).run()
}

fn told(seed: u64, outcome: &Outcome) -> Result<(), String> {
    match &outcome.violation {
        None => Ok(()),
        Some(violation) => Err(format!("{}: {}\n  replay: cargo run --release -p meso-sim -- --seed {seed}", violation.law, violation.what)),
    }
}

/// Shows that a cluster in which nothing goes wrong does all its work, and that no fault is simulated there.
#[test]
fn without_faults() {
    let mut tally = Tally::default();
    for seed in CALM {
        let outcome = run(Plan::calm(seed), Plant::None);
        assert_eq!(told(seed, &outcome), Ok(()));
        assert_eq!(outcome.refused_full, 0, "seed {seed}");
        tally.join(&outcome.tally);
    }
    assert_eq!(tally.of(meso_sim::Count::Lost) + tally.of(meso_sim::Count::AgentUnreachable) + tally.of(meso_sim::Count::DroppedEarned), 0);
    assert!(tally.of(meso_sim::Count::Finished) > 1_000);
}

/// Shows that under all faults no invariant breaks and everything comes to its end, and that each kind of fault and
/// each branch of the protocol was really met.
#[test]
fn under_all_faults() {
    let runs = SUITE.map(|seeds| {
        thread::spawn(move || {
            let mut tally = Tally::default();
            for seed in seeds {
                let outcome = run(Plan::of(seed), Plant::None);
                told(seed, &outcome)?;
                tally.join(&outcome.tally);
            }
            Ok::<Tally, String>(tally)
        })
    });
    let mut tally = Tally::default();
    for run in runs {
        let part = run.join().expect("a run does not panic");
        match part {
            Ok(part) => tally.join(&part),
            Err(why) => panic!("{why}"),
        }
    }
    assert_eq!(tally.missing(), Vec::<&str>::new(), "never met; all counts:\n{tally}");
}

/// Shows that a seed is a whole run: of all of the suite one in a hundred gives the same events, counts and end once more.
#[test]
fn a_seed_replays() {
    for seed in SUITE.into_iter().flatten().step_by(REPLAY_ONCE_IN) {
        let (one, other) = (run(Plan::of(seed), Plant::None), run(Plan::of(seed), Plant::None));
        assert_eq!((one.trace, one.steps, one.tally), (other.trace, other.steps, other.tally), "seed {seed}");
    }
}

/// Shows that each planted protocol bug breaks an invariant within a bounded number of seeds.
#[test]
fn planted_bugs_are_found() {
    let half = Plant::ALL.len() / 2;
    let parts = [&Plant::ALL[..half], &Plant::ALL[half..]].map(|plants| thread::spawn(move || plants.iter().map(|(plant, word)| found(*plant, word)).collect::<Vec<_>>()));
    let mut table = String::new();
    let mut missed = Vec::new();
    for part in parts {
        for (word, first) in part.join().expect("a run does not panic") {
            match first {
                Some((seed, law)) => writeln!(table, "{word:<24} seed {seed:>4}  {law}").expect("a string takes text"),
                None => missed.push(word),
            }
        }
    }
    assert!(missed.is_empty(), "not found in {PLANT_SEEDS_MAX} seeds: {missed:?}\n{table}");
}

fn found(plant: Plant, word: &'static str) -> (&'static str, Option<(u64, &'static str)>) {
    let first = (0..PLANT_SEEDS_MAX).find_map(|seed| run(Plan::of(seed), plant).violation.map(|violation| (seed, violation.law)));
    (word, first)
}

/// Shows that where there are two defences the second is enough: wrong books harm nobody while agents admit what fits, and
/// what a head is not told it finds out by itself.
#[test]
fn second_defences_hold() {
    for (plant, word, _) in Plant::HELD {
        let mut refused = 0;
        for seed in 0..HELD_SEEDS {
            let outcome = run(Plan::of(seed), *plant);
            assert_eq!(told(seed, &outcome), Ok(()), "{word}");
            refused += outcome.refused_full;
        }
        assert!(refused > 0 || *plant != Plant::TwiceTheBooks, "the agents' own admission was never needed");
    }
}

/// Shows that of each bug that a second defence holds there is the pair with that defence gone, and that it is one of
/// those that are found.
#[test]
fn pairs_are_found() {
    for (plant, word, pair) in Plant::HELD {
        assert!(pair.has(*plant) && pair != plant, "{word}");
        assert!(Plant::ALL.iter().any(|(found, _)| found == pair), "{word}");
    }
}

/// Shows that a broken run tells a short story which ends with the same violation.
#[test]
fn a_broken_run_tells_its_story() {
    let (seed, violation) = (0..PLANT_SEEDS_MAX)
        .find_map(|seed| run(Plan::of(seed), Plant::HelloWithoutTasks).violation.map(|violation| (seed, violation)))
        .expect("the bug is found");
    let mut world = World::new(Plan::of(seed), Plant::HelloWithoutTasks, STORY_LINES_MAX);
    assert_eq!(world.run().violation, Some(violation));
    let lines: Vec<&str> = world.story.lines().collect();
    assert!(lines.len() > 10 && lines.len() <= STORY_LINES_MAX && lines.len() < 60, "{} lines", lines.len());
}
