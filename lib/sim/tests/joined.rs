//! The machine of meso-launch in a session that another process began: offers are handed in, and it says when that is enough.

use std::collections::BTreeMap;

use meso_core::id::{AgentId, FrameworkId, MasterId, Nonce, OfferId};
use meso_core::launcher::{Config, Effect, Event, Failure, Job, Launcher};
use meso_core::resources::{parse_request, parse_total};
use meso_core::wire::call::{Answer, Call, Subscribe};
use meso_core::wire::{Offer, Refusal, RefusalCode, Task};

fn nonce(number: u64) -> Nonce {
    Nonce::fresh(number, number)
}

/// A launcher that has joined, with so many jobs of two processors each; it has said nothing else yet.
fn joined(jobs: u64, per_offer_max: u32) -> (Launcher, Calls) {
    let request = parse_request("cpus=2").expect("a plain request");
    let config = Config {
        framework: FrameworkId::fresh(1),
        session: nonce(50),
        session_no: 3,
        member: Some(nonce(7)),
        guest: false,
        per_offer_max,
        name: None,
        role: Default::default(),
        who: "test".to_owned(),
        request: request.clone(),
        condition: String::new(),
        revocable: false,
        on: None,
        at_once_max: u32::MAX,
        retries: 0,
        retries_lost: 0,
        start_deadline_ms: None,
        failover_ms: 0,
        seed: [1, 2],
    };
    let mut launcher = Launcher::new(config, 0);
    let mut calls = Calls::default();
    for index in 1..=jobs {
        let mut task = Task { argv: vec!["work".to_owned()], ..Task::default() };
        task.set_request(&request);
        calls.take(launcher.step(0, Event::Job(Box::new(Job { index, task }))));
    }
    let subscribe = calls.all.pop().expect("it subscribes").1;
    assert!(matches!(&subscribe, Call::Subscribe(Subscribe { session_no: 3, member: Some(member), demand: None, .. }) if *member == nonce(7)), "{subscribe:?}");
    calls.answer(&mut launcher, Answer::Subscribed { framework: FrameworkId::fresh(1), epoch: 1, master: MasterId::fresh(1), beat_ms: 5_000, session_ms: 15_000, agents: 1, recovered: false, session_no: 3, seen: 0, seen_ms: 0 });
    (launcher, calls)
}

/// What it calls, and the number of the latest call.
#[derive(Default)]
struct Calls {
    all: Vec<(u64, Call)>,
    last: u64,
    failed: Vec<Failure>,
}

impl Calls {
    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Call { no, call } => {
                    self.last = no;
                    self.all.push((no, *call));
                }
                Effect::Failed { failure, .. } => self.failed.push(failure),
                _ => {}
            }
        }
    }

    fn answer(&mut self, launcher: &mut Launcher, answer: Answer) {
        let effects = launcher.step(1, Event::Answer { no: self.last, answer: Some(answer) });
        self.take(effects);
    }

    fn offer(&mut self, launcher: &mut Launcher, number: u64, agent: u64, cpus: u64) {
        let offer = Offer {
            id: OfferId::fresh(number),
            agent: AgentId::fresh(agent),
            host: "h".to_owned(),
            resources: parse_total(&format!("cpus={cpus},mem=64")).expect("plain resources"),
            attrs: BTreeMap::new(),
            expires_ms: 30_000,
            lives_ms: 30_000,
            revocable: false,
        };
        let effects = launcher.step(1, Event::Offer(Box::new(offer)));
        self.take(effects);
    }

    /// The accepts so far: their offers and how many tasks.
    fn accepts(&self) -> Vec<(Vec<OfferId>, usize)> {
        self.all.iter().filter_map(|(_, call)| if let Call::Accept(accept) = call { Some((accept.offers.clone(), accept.tasks.len())) } else { None }).collect()
    }
}

/// Shows that an offer is filled, or used for so many tasks as asked for, by a member and with the ids of its session.
#[test]
fn filled_or_counted() {
    for (per_offer_max, tasks) in [(u32::MAX, 3), (2, 2)] {
        let (mut launcher, mut calls) = joined(5, per_offer_max);
        calls.offer(&mut launcher, 1, 1, 7);
        assert_eq!(calls.accepts(), [(vec![OfferId::fresh(1)], tasks)]);
        assert!(matches!(&calls.all[0].1, Call::Accept(accept) if accept.member == Some(nonce(7)) && accept.session == nonce(50)));
    }
}

/// Shows that offers of one agent which are too small alone are used together, and those of others are not.
#[test]
fn small_offers_join() {
    let (mut launcher, mut calls) = joined(1, u32::MAX);
    calls.offer(&mut launcher, 1, 1, 1);
    calls.offer(&mut launcher, 2, 2, 1);
    assert_eq!(calls.accepts(), []);
    calls.offer(&mut launcher, 3, 1, 1);
    let (mut offers, tasks) = calls.accepts().pop().expect("they are enough");
    offers.sort();
    assert_eq!((offers, tasks), (vec![OfferId::fresh(1), OfferId::fresh(3)], 1));
}

/// Shows that with all jobs placed it says that it wants no more, gives back what comes still, and wants more when an accept failed.
#[test]
fn sated_and_hungry() {
    let (mut launcher, mut calls) = joined(1, u32::MAX);
    calls.offer(&mut launcher, 1, 1, 2);
    let Some((_, Call::Accept(accept))) = calls.all.last().cloned() else { panic!("{:?}", calls.all) };
    let tasks = accept.tasks.iter().filter_map(|one| one.task.id.clone()).collect();
    calls.answer(&mut launcher, Answer::Accepted { tasks });
    assert!(matches!(calls.all.last(), Some((_, Call::Beat { sated: true, member: Some(_), .. }))), "{:?}", calls.all);
    calls.offer(&mut launcher, 2, 1, 2);
    assert!(matches!(calls.all.last(), Some((_, Call::Decline { offers, member: Some(_), .. })) if *offers == [OfferId::fresh(2)]));

    let (mut launcher, mut calls) = joined(1, u32::MAX);
    calls.offer(&mut launcher, 1, 1, 2);
    calls.answer(&mut launcher, Answer::Refused(Refusal::new(RefusalCode::OfferGone, "too late")));
    assert_eq!(calls.all.len(), 1, "nobody is told that it wants no more");
    calls.offer(&mut launcher, 2, 1, 2);
    assert_eq!(calls.accepts().len(), 2);
}

/// Shows that the end of the offers is the end of the jobs that have none, but not before an accept on its way is answered.
#[test]
fn offers_come_to_their_end() {
    let (mut launcher, mut calls) = joined(2, 1);
    calls.offer(&mut launcher, 1, 1, 2);
    let effects = launcher.step(2, Event::NoMore);
    calls.take(effects);
    assert_eq!(calls.failed, []);
    calls.answer(&mut launcher, Answer::Refused(Refusal::new(RefusalCode::OfferGone, "too late")));
    assert_eq!(calls.failed, [Failure::NoOffer, Failure::NoOffer]);
}
