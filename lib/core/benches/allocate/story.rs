//! What is measured of a leader, in an order that leaves each measurement a cluster of the same kind

use std::fs;

use serde::{Deserialize, Serialize};

use crate::clock::median;
use crate::leader::{Leader, Wish};
use crate::prepared::Roles;

/// How often each event is measured.
const EVENTS: u64 = 101;
/// How often the one that takes long is.
const LONG_ROUNDS: u64 = 9;
/// The number of the first framework that comes later.
const LATER: u64 = 1_000_000;
/// A wish for whole agents without an end.
const REMAINDERS: Wish = Wish { request: "", count: u32::MAX };
/// A wish for one task.
const TASK: Wish = Wish { request: "cpus=1,mem=128", count: 1 };
/// A wish that no agent is large enough for.
const TOO_LARGE: Wish = Wish { request: "cpus=64,mem=128", count: 1 };
/// A refusal that outlives everything here, milliseconds.
const LONG_MS: u64 = 24 * 3_600_000;
/// Up to how many refusals the case is measured that everybody refused everything: fewer than a leader keeps.
const REFUSALS_MAX: u64 = 400_000;

/// What a leader took; passes in milliseconds, events in microseconds, medians.
#[derive(Serialize, Deserialize)]
pub struct Live {
    pub agents: u64,
    pub frameworks: u64,
    pub roles: String,
    /// All registrations of agents together.
    pub join_ms: f64,
    /// The first pass after everybody demanded, and the JSON of what it sent.
    pub pass_ms: f64,
    pub json_ms: f64,
    pub json_bytes: usize,
    pub offers: usize,
    /// A tick when nothing changed.
    pub idle_us: f64,
    /// Everything is offered or used. Each with the tick after it.
    pub decline_us: f64,
    pub accept_us: f64,
    pub end_us: f64,
    /// A new framework, and no agent has anything left.
    pub full_us: f64,
    /// A new framework, all agents are free, and nobody else wants anything.
    pub free_us: f64,
    /// The same for a task that fits nowhere.
    pub nowhere_us: f64,
    /// A new framework as in `free_us`, while all others wait for what fits nowhere.
    pub among_waiting_us: f64,
    /// Everybody refused every agent for long: a tick that shows all to all, milliseconds.
    pub refused_ms: Option<f64>,
    /// Memory that registered agents, registered frameworks, and the offers of a full pass took, bytes each.
    pub agent_bytes: f64,
    pub framework_bytes: f64,
    pub offer_bytes: f64,
}

/// Measures all of it. Meant for a fresh process, as memory once taken is seldom given back.
pub fn tell(agents: u64, frameworks: u64, roles: Roles) -> Live {
    let mut leader = Leader::new(roles);
    let empty = resident_bytes();
    let join_ms = (0..agents).map(|number| leader.join(number)).sum();
    leader.tick();
    let with_agents = resident_bytes();
    for number in 0..frameworks {
        leader.subscribe(number, None);
    }
    let with_frameworks = resident_bytes();
    all_wish(&mut leader, frameworks, Some(REMAINDERS));
    let pass_ms = leader.tick();
    let (json_ms, json_bytes) = leader.json;
    let offers = leader.offered();
    assert_eq!(offers as u64, agents, "everything is offered");
    let with_offers = resident_bytes();
    let each = |more: f64, less: f64, count: u64| (more - less).max(0.0) / count as f64;

    let idle_us = many(|_| Some(leader.tick()));
    let decline_us = many(|no| Some(leader.decline(no % frameworks)? + leader.tick()));
    let accept_us = many(|no| {
        let us = leader.accept(no % frameworks)? + leader.tick();
        leader.runs();
        leader.tick();
        Some(us)
    });
    let end_us = many(|_| Some(leader.ends()? + leader.tick()));
    let full_us = many(|no| newcomer(&mut leader, LATER + no, TASK));

    // Whoever came first wants nothing more, and holds nothing.
    all_wish(&mut leader, frameworks, None);
    (0..frameworks).for_each(|number| leader.decline_all(number, 0));
    leader.tick();
    let free_us = many(|no| newcomer(&mut leader, 2 * LATER + no, TASK));
    let nowhere_us = many(|no| newcomer(&mut leader, 3 * LATER + no, TOO_LARGE));
    all_wish(&mut leader, frameworks, Some(TOO_LARGE));
    leader.tick();
    let among_waiting_us = many(|no| newcomer(&mut leader, 4 * LATER + no, TASK));

    Live {
        agents,
        frameworks,
        roles: roles.name().to_owned(),
        join_ms,
        pass_ms,
        json_ms,
        json_bytes,
        offers,
        idle_us,
        decline_us,
        accept_us,
        end_us,
        full_us,
        free_us,
        nowhere_us,
        among_waiting_us,
        refused_ms: (agents * frameworks <= REFUSALS_MAX).then(|| everything_refused(&mut leader, frameworks)),
        agent_bytes: each(with_agents, empty, agents),
        framework_bytes: each(with_frameworks, with_agents, frameworks),
        offer_bytes: each(with_offers, with_frameworks, agents),
    }
}

/// Everybody wants this from now on.
fn all_wish(leader: &mut Leader, frameworks: u64, wish: Option<Wish>) {
    for number in 0..frameworks {
        leader.wish(number, wish);
    }
}

/// A framework comes with a wish; then it goes again, unmeasured.
fn newcomer(leader: &mut Leader, number: u64, wish: Wish) -> Option<f64> {
    let ms = leader.subscribe(number, Some(wish)) + leader.tick();
    leader.teardown(number);
    leader.tick();
    Some(ms)
}

/// Everybody refuses every agent for long; then a newcomer's wish lets the leader show all agents to everybody.
fn everything_refused(leader: &mut Leader, frameworks: u64) -> f64 {
    all_wish(leader, frameworks, Some(REMAINDERS));
    loop {
        leader.tick();
        if leader.offered() == 0 {
            break;
        }
        (0..frameworks).for_each(|number| leader.decline_all(number, LONG_MS));
    }
    median((0..LONG_ROUNDS).filter_map(|no| newcomer(leader, 5 * LATER + no, TOO_LARGE)).collect())
}

/// The median of many times, milliseconds in and microseconds out.
fn many(mut one: impl FnMut(u64) -> Option<f64>) -> f64 {
    let times: Vec<f64> = (0..EVENTS).filter_map(&mut one).collect();
    assert_eq!(times.len() as u64, EVENTS, "each event found what it is about");
    median(times) * 1e3
}

/// The memory of this process that is in use, bytes; 0 where the system does not say.
fn resident_bytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib: f64 = line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default();
    kib * 1024.0
}
