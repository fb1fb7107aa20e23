//! What fair division promises (Ghodsi et al., NSDI 2011, section 3), on random clusters of one agent: the promises are
//! exact for what can be divided at will, and hold within a task for whole ones.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

/// The kinds of what is divided.
const KINDS: [&str; 3] = ["cpus", "mem", "disk"];
/// There is as much of each kind.
const WHOLE: u64 = 60;

/// What one task of each framework needs, by kind.
type Needs = Vec<[u64; 3]>;

fn some_needs() -> impl Strategy<Value = Needs> {
    proptest::collection::vec((0..6u64, 0..6u64, 0..6u64).prop_filter_map("a task needs something", |(a, b, c)| (a + b + c > 0).then_some([a, b, c])), 2..5)
}

fn text(need: &[u64; 3]) -> String {
    KINDS.iter().zip(need).map(|(kind, amount)| format!("{kind}={amount}")).collect::<Vec<_>>().join(",")
}

/// How many tasks each framework gets where all want any number.
fn divided(needs: &Needs) -> Vec<u64> {
    let mut world = World::default();
    world.read(&format!("agent a1 cpus={WHOLE},mem={WHOLE},disk={WHOLE}"));
    for (number, need) in needs.iter().enumerate() {
        world.read(&format!("framework f{number} demand={} count=1000", text(need)));
    }
    let grants = world.shown(allocate);
    (0..needs.len()).map(|number| grants.iter().filter(|grant| grant.framework.as_str() == format!("f{number}")).map(|grant| u64::from(grant.tasks)).sum()).collect()
}

/// The largest part of the whole that one task takes.
fn size(need: &[u64; 3]) -> u64 {
    need.iter().copied().max().unwrap_or_default()
}

/// How many tasks fit in so much of each kind.
fn fit(need: &[u64; 3], bundle: &[u64; 3]) -> u64 {
    need.iter().zip(bundle).filter(|(need, _)| **need > 0).map(|(need, have)| have / need).min().unwrap_or_default()
}

fn bundle(need: &[u64; 3], tasks: u64) -> [u64; 3] {
    need.map(|amount| amount * tasks)
}

proptest! {
    // What whole tasks are off by has no sharp bound: the same clusters each time.
    #![proptest_config(ProptestConfig { cases: 1_000, rng_seed: RngSeed::Fixed(1_000), ..ProptestConfig::default() })]

    /// Pareto efficiency: nobody could have one more task without another's loss.
    #[test]
    fn nothing_usable_is_left(needs in some_needs()) {
        let tasks = divided(&needs);
        let mut free = [WHOLE; 3];
        for (need, tasks) in needs.iter().zip(&tasks) {
            for (left, taken) in free.iter_mut().zip(bundle(need, *tasks)) {
                *left -= taken;
            }
        }
        for need in &needs {
            prop_assert_eq!(fit(need, &free), 0);
        }
    }

    /// Sharing incentive: nobody would have more of an even part of its own, but for what tasks are larger than nothing.
    #[test]
    fn nobody_is_better_off_alone(needs in some_needs()) {
        let tasks = divided(&needs);
        let parts = needs.len() as u64;
        for (need, tasks) in needs.iter().zip(&tasks) {
            let slack = needs.iter().map(size).sum::<u64>() + size(need);
            prop_assert!(parts * (size(need) * tasks) + slack >= WHOLE, "{:?} of {:?}", tasks, needs);
        }
    }

    /// Envy-freeness: nobody could do more with what another one has, but for a task, and the tasks of the other that
    /// one of its own is as large as.
    #[test]
    fn nobody_envies(needs in some_needs()) {
        let tasks = divided(&needs);
        for (mine, my_tasks) in needs.iter().zip(&tasks) {
            for (theirs, their_tasks) in needs.iter().zip(&tasks) {
                let with_theirs = fit(mine, &bundle(theirs, *their_tasks));
                let slack = 1 + size(theirs).div_ceil(size(mine));
                prop_assert!(with_theirs <= my_tasks + slack, "{with_theirs} tasks with another's part, {my_tasks} with its own: {needs:?}");
            }
        }
    }

    /// Strategy-proofness: whoever says that its tasks need something else gets no more of them done, but for a task and
    /// what two tasks of anybody, also of those it makes up, are larger than nothing.
    #[test]
    fn lying_does_not_pay(needs in some_needs(), lie in (0..8u64, 0..8u64, 0..8u64)) {
        let lie = [lie.0, lie.1, lie.2];
        prop_assume!(size(&lie) > 0);
        let honest = divided(&needs)[0];
        let truth = needs[0];
        let mut told = needs.clone();
        told[0] = lie;
        let got = bundle(&lie, divided(&told)[0]);
        let slack = 1 + 2 * told.iter().chain(&needs).map(size).max().unwrap_or_default().div_ceil(size(&truth));
        prop_assert!(fit(&truth, &got) <= honest + slack, "{} tasks by lying, {honest} honestly: {needs:?} {lie:?}", fit(&truth, &got));
    }

    /// Weights: who counts twice gets twice as much, within a task of each.
    #[test]
    fn weights_count(need in (1..4u64, 0..4u64), weight in 1..5u64) {
        let mut world = World::default();
        world.read("agent a1 cpus=120,mem=120");
        world.read(&format!("framework A demand=cpus={},mem={} count=1000 weight={weight}", need.0, need.1));
        world.read(&format!("framework B demand=cpus={},mem={} count=1000", need.0, need.1));
        let grants = world.shown(allocate);
        let of = |id: &str| grants.iter().filter(|grant| grant.framework.as_str() == id).map(|grant| u64::from(grant.tasks)).sum::<u64>();
        prop_assert!(of("A").abs_diff(of("B") * weight) <= weight, "{} and {}", of("A"), of("B"));
    }

    /// By lot: over many draws everybody is first in proportion to its weight.
    #[test]
    fn lots_are_weighed(weight in 1..5u64) {
        let mut world = World { rule: Rule::Random, ..World::default() };
        world.read("agent a1 cpus=1000");
        world.read(&format!("framework A demand=cpus=1 count=10000 weight={weight}"));
        world.read("framework B demand=cpus=1 count=10000");
        world.seed = weight * 7_919;
        let grants = world.shown(allocate);
        let first = f64::from(grants.iter().find(|grant| grant.framework.as_str() == "A").map_or(0, |grant| grant.tasks));
        let wanted = 1000.0 * weight as f64 / (weight + 1) as f64;
        // Five standard deviations of a thousand lots.
        prop_assert!((first - wanted).abs() < 80.0, "{first} for {wanted}");
    }
}
