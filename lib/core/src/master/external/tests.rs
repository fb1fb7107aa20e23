use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::allocate::Rule;
use crate::master::Event;
use crate::master::testcluster::{Cluster, agent, framework, nonce};
use crate::policy::{Change, Subject};
use crate::resources::{Milli, Request};
use crate::wire::call::Call;
use crate::wire::operator::{Operation, Outcome};
use crate::wire::pass::{Pass, Said};

/// A leader with an allocation program that is played by the test.
struct Played {
    cluster: Cluster,
    /// The questions so far.
    asked: Vec<(u64, Snapshot)>,
    /// What was told, by its kind, with the message.
    told: Vec<(String, String)>,
}

/// So many tasks' worth of an agent.
fn tasks(who: u64, place: u64, tasks: u32) -> Proposal {
    Proposal { framework: framework(who), agent: agent(place), amounts: Request::default(), tasks }
}

impl Played {
    /// Two agents of 4 cpus and 1 GB, and nobody who wants anything.
    fn new() -> Played {
        let mut played = Played { cluster: Cluster::with(|config| config.external = true), asked: Vec::new(), told: Vec::new() };
        (0..2).for_each(|number| played.cluster.join(number, "cpus=4,mem=1G,ports=[1-9]"));
        played.settle();
        played
    }

    /// Feeds an event in; notes what comes of it.
    fn step(&mut self, event: Event) {
        for effect in self.cluster.step(event) {
            match effect {
                Effect::Ask { number, snapshot } => self.asked.push((number, *snapshot)),
                Effect::Tell(happening) => self.told.push((happening.kind, happening.message)),
                _ => {}
            }
        }
    }

    /// Lets everything that is due happen, as the driver does.
    fn settle(&mut self) {
        while self.cluster.master.deadline().is_some_and(|at| at <= self.cluster.now_ms) {
            self.step(Event::Tick);
        }
    }

    /// A framework of the role `eng` that wants so many tasks of 1 cpu and 256 MB.
    fn subscribe(&mut self, number: u64, count: u32) {
        self.cluster.subscribe(number, "eng");
        self.demand(number, count);
    }

    fn demand(&mut self, number: u64, count: u32) {
        self.cluster.demand(number, "cpus=1,mem=256", count);
        self.settle();
    }

    /// Gives all back that a framework holds.
    fn decline(&mut self, number: u64, refuse_ms: u64) {
        self.cluster.decline(number, refuse_ms);
        self.settle();
    }

    fn answer(&mut self, number: u64, grants: Vec<Proposal>) {
        self.step(Event::Granted { number, grants });
        self.settle();
    }

    fn fail(&mut self, number: Option<u64>) {
        self.step(Event::AllocatorFailed { number, why: "ended with code 1".to_owned() });
        self.settle();
    }

    /// Lets time pass, which the sessions outlive.
    fn wait(&mut self, ms: u64) {
        for number in 0..4 {
            self.cluster.call(Call::Beat { framework: framework(number), session: nonce(number), member: None, sated: false });
        }
        self.cluster.now_ms += ms;
        self.settle();
    }

    /// The number of the last question.
    fn last(&self) -> u64 {
        self.asked.last().map_or(0, |(number, _)| *number)
    }

    /// What a framework is offered: each agent with the cpus.
    fn held(&self, number: u64) -> Vec<(String, Milli)> {
        let offers = self.cluster.offers.get(&framework(number)).into_iter().flat_map(BTreeMap::values);
        let mut held: Vec<_> = offers.map(|offer| (offer.agent.to_string(), offer.resources.cpus)).collect();
        held.sort();
        held
    }

    /// How many cpus these are.
    fn sum(&self, number: u64) -> u64 {
        self.held(number).iter().map(|(_, cpus)| cpus.whole_units()).sum()
    }

    /// The kinds of what was told of the program.
    fn kinds(&self) -> Vec<&str> {
        self.told.iter().map(|(kind, _)| kind.as_str()).filter(|kind| kind.starts_with("allocator") || kind.starts_with("grant")).collect()
    }

    fn message(&self) -> &str {
        self.told.last().map_or("", |(_, message)| message)
    }

    fn lead(&self) -> &Lead {
        self.cluster.master.lead().expect("it leads")
    }
}

fn cpus(agent: &str, cpus: u64) -> (String, Milli) {
    (agent.to_owned(), Milli::units(cpus))
}

/// Shows that the program is asked with the whole cluster once somebody wants something, once at a time; that what it grants
/// is offered, and what it leaves free is nobody's; and that what changed meanwhile makes the next question.
#[test]
fn questions_and_answers() {
    let mut played = Played::new();
    assert!(played.asked.is_empty(), "nobody wants anything");
    played.subscribe(1, 3);
    let (number, snapshot) = played.asked.last().expect("it is asked").clone();
    assert_eq!((snapshot.agents.len(), snapshot.frameworks.len()), (2, 1));
    played.subscribe(2, 1);
    played.wait(ALLOCATE_DEADLINE_MS - 1);
    assert_eq!(played.asked.len(), 1, "one question at a time");
    played.answer(number, vec![tasks(1, 1, 2)]);
    assert_eq!(played.held(1), [cpus("a1", 2)]);
    assert_eq!(played.last(), number + 1, "the second framework came meanwhile");
    played.answer(number + 1, Vec::new());
    played.wait(ALLOCATE_DEADLINE_MS);
    assert_eq!((played.held(2).len(), played.asked.len()), (0, 2), "what it leaves free stays free");
    assert!(played.kinds().is_empty(), "{:?}", played.told);
}

/// Shows that the built-in policy serves what a question was about when the program fails on it, and goes on without asking
/// until the program is ready; and that this is told once each.
#[test]
fn a_program_that_dies() {
    let mut played = Played::new();
    played.subscribe(1, 3);
    played.fail(Some(played.last()));
    assert_eq!(played.sum(1), 3);
    played.fail(None);
    played.subscribe(2, 2);
    assert_eq!((played.asked.len(), played.sum(2)), (1, 2));
    played.step(Event::AllocatorReady);
    played.step(Event::AllocatorReady);
    played.subscribe(3, 1);
    played.answer(played.last(), vec![tasks(3, 0, 1)]);
    assert_eq!((played.asked.len(), played.held(3)), (2, vec![cpus("a0", 1)]));
    assert_eq!(played.kinds(), ["allocator_failed", "allocator_back"]);
    let said = "the allocation program ended with code 1; the built-in policy serves until it is back";
    assert!(played.told.iter().any(|(_, message)| message == said), "{:?}", played.told);
    // It dies while nobody asks: nothing waits for it.
    played.fail(None);
    assert_eq!(played.kinds().last(), Some(&"allocator_failed"));
    played.subscribe(4, 1);
    assert_eq!(played.held(4).len(), 1);
}

/// Shows that a program that hangs delays one pass by the deadline; that its late answer gives nothing but shows that it
/// lives; and that numbers which nobody asked mean nothing.
#[test]
fn a_program_that_hangs() {
    let mut played = Played::new();
    played.subscribe(1, 2);
    let number = played.last();
    played.answer(number + 7, vec![tasks(1, 1, 2)]);
    played.fail(Some(number + 7));
    assert!(played.held(1).is_empty());
    played.wait(ALLOCATE_DEADLINE_MS);
    assert_eq!(played.sum(1), 2);
    assert_eq!(played.message(), "the allocation program gave no answer within 1000 ms; the built-in policy serves until it is back");
    played.subscribe(2, 1);
    assert_eq!((played.asked.len(), played.held(2).len()), (1, 1), "nobody waits for it again");
    let before = played.held(1);
    played.answer(number, vec![tasks(1, 1, 2)]);
    assert_eq!((played.held(1), played.kinds()), (before, vec!["allocator_failed", "allocator_back"]));
    played.subscribe(3, 1);
    assert_eq!(played.last(), number + 1);
    played.answer(number + 1, vec![tasks(3, 0, 1)]);
    assert_eq!(played.held(3), [cpus("a0", 1)]);
}

/// Shows that what was free when the program was asked, and is no more, is not offered; that refusals are told with their
/// number and first reason, at most every ten seconds; and that they lead to no further question.
#[test]
fn a_program_that_grants_too_much() {
    let mut played = Played::new();
    played.subscribe(1, 9);
    played.answer(played.last(), vec![tasks(1, 0, 9), tasks(1, 0, 9), tasks(2, 0, 1), tasks(1, 5, 1)]);
    assert_eq!((played.held(1), played.asked.len()), (vec![cpus("a0", 4)], 1));
    assert_eq!(played.message(), "3 grants of the allocation program refused: what framework fw1 is to get of agent a0 is not one task's worth");
    played.demand(1, 10);
    played.answer(played.last(), vec![tasks(1, 0, 1)]);
    assert_eq!(played.kinds(), ["grant_refused"]);
    played.wait(TELL_REFUSED_EVERY_MS);
    played.demand(1, 11);
    played.answer(played.last(), vec![tasks(1, 0, 1), tasks(8, 0, 1)]);
    assert_eq!(played.kinds(), ["grant_refused", "grant_refused"]);
    assert!(played.message().starts_with("3 grants "), "{:?}", played.told.last());
    let asked = played.asked.len();
    played.demand(1, 12);
    played.cluster.offers.clear();
    played.answer(played.last(), vec![tasks(1, 1, 4)]);
    assert_eq!((played.held(1), played.asked.len()), (vec![cpus("a1", 4)], asked + 1));
}

/// What happens to a leader with a program.
#[derive(Clone, Debug)]
enum Move {
    Demand { who: u64, count: u32 },
    Decline { who: u64, refuse_ms: u64 },
    Wait { ms: u64 },
    /// An answer; the number is so far from the right one.
    Answer { off: u64, said: Vec<(u64, u64, u32, u32)> },
    /// What the built-in policy would say to the line.
    Honest,
    Fail { is_asked: bool },
    Ready,
    Join { place: u64 },
}

fn some_move() -> impl Strategy<Value = Move> {
    let said = proptest::collection::vec((0..5u64, 0..4u64, 0..7u32, 0..6u32), 0..12);
    prop_oneof![
        4 => (0..4u64, 0..6u32).prop_map(|(who, count)| Move::Demand { who, count }),
        2 => (0..4u64, prop_oneof![Just(0u64), Just(5_000)]).prop_map(|(who, refuse_ms)| Move::Decline { who, refuse_ms }),
        1 => (0..1_500u64).prop_map(|ms| Move::Wait { ms }),
        4 => (prop_oneof![4 => Just(0u64), 1 => 1..4u64], said).prop_map(|(off, said)| Move::Answer { off, said }),
        2 => Just(Move::Honest),
        1 => any::<bool>().prop_map(|is_asked| Move::Fail { is_asked }),
        1 => Just(Move::Ready),
        1 => (0..3u64).prop_map(|place| Move::Join { place }),
    ]
}

proptest! {
    /// Shows that whatever the program says, and whenever it fails, the books are right, no limit is passed, an honest
    /// answer is offered as it is, at most one question is open, and in the end those who want something are served.
    #[test]
    fn whatever_the_program_does(moves in proptest::collection::vec(some_move(), 1..40), limit in 1..9u64) {
        let mut played = Played::new();
        let change = Change { limit: Some(BTreeMap::from([("cpus".to_owned(), Milli::units(limit))])), ..Change::default() };
        let limited = played.cluster.operate(Operation::SetRole { subject: Subject::parse("eng").expect("a role"), change, force: true, dry_run: false });
        prop_assert!(matches!(limited, Outcome::Done { .. }), "{:?}", limited);
        (0..4).for_each(|number| played.subscribe(number, 0));
        for one in moves {
            match one {
                Move::Demand { who, count } => played.demand(who, count),
                Move::Decline { who, refuse_ms } => played.decline(who, refuse_ms),
                Move::Wait { ms } => played.wait(ms),
                Move::Answer { off, said } => {
                    let amounts = |cpus: u32| Request { cpus: Milli::units(cpus.into()), mem: Milli::units(u64::from(cpus) * 256), ..Request::default() };
                    let grants = said.into_iter().map(|(who, place, cpus, count)| Proposal { amounts: amounts(cpus), ..tasks(who, place, count) }).collect();
                    played.answer(played.last().saturating_sub(off), grants);
                }
                Move::Honest => {
                    let Some((number, snapshot)) = played.asked.last().cloned() else { continue };
                    let line = serde_json::to_string(&snapshot).expect("it has a JSON form");
                    let read = Snapshot::read(line.as_bytes()).expect("the leader's own line is a snapshot");
                    prop_assert_eq!(&read, &snapshot);
                    let is_current = played.lead().external.is_asked() && played.lead().whole_snapshot() == snapshot;
                    let pass = Pass::run(&read, &Rule::Drf, 0, false);
                    let said: Vec<Proposal> = pass.grants.iter().filter_map(|grant| match Said::read(serde_json::to_string(grant).expect("it has a JSON form").as_bytes()) {
                        Ok(Said::Grant(proposal)) => Some(proposal),
                        _ => None,
                    }).collect();
                    let told = played.kinds().iter().filter(|kind| **kind == "grant_refused").count();
                    let before: Milli = played.lead().ledger().cluster_free().get("cpus");
                    let given = pass.grants.iter().fold(Milli::ZERO, |sum, grant| sum.checked_add(grant.0.resources.cpus).expect("small amounts"));
                    played.answer(number, said);
                    if is_current {
                        prop_assert_eq!(played.kinds().iter().filter(|kind| **kind == "grant_refused").count(), told);
                        prop_assert_eq!(before.checked_sub(given), Some(played.lead().ledger().cluster_free().get("cpus")));
                    }
                }
                Move::Fail { is_asked } => {
                    let number = is_asked.then(|| played.last());
                    played.fail(number);
                }
                Move::Ready => played.step(Event::AllocatorReady),
                Move::Join { place } => played.cluster.join(place, "cpus=3,mem=1G"),
            }
            played.settle();
            prop_assert_eq!(played.lead().ledger().check(), Ok(()));
            let held = played.lead().frameworks().keys().fold(Milli::ZERO, |sum, framework| sum.checked_add(played.lead().ledger().held_by(framework).get("cpus")).expect("small amounts"));
            prop_assert!(held <= Milli::units(limit), "{} of {}", held, limit);
        }
        (0..4).for_each(|number| played.demand(number, 0));
        (0..4).for_each(|number| played.decline(number, 0));
        played.fail(None);
        // Past what was refused for 5 s.
        (0..4).for_each(|_| played.wait(1_500));
        played.demand(0, 7);
        prop_assert!(!played.held(0).is_empty(), "the built-in policy serves: {:?}", played.told);
    }
}
