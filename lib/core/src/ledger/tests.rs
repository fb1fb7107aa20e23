use proptest::prelude::*;

use super::*;
use crate::resources::parse_total;

fn some(text: &str) -> Resources {
    parse_total(text).expect(text)
}

fn agent(number: u8) -> AgentId {
    AgentId::parse(&format!("a{number}")).expect("an id")
}

fn framework(number: u8) -> FrameworkId {
    FrameworkId::parse(&format!("f{number}")).expect("an id")
}

fn offer(number: u8) -> OfferId {
    OfferId::parse(&format!("o{number}")).expect("an id")
}

fn task(number: u8) -> TaskId {
    TaskId::parse(&format!("t{number}")).expect("an id")
}

/// One agent with 4 cpus, 4 GiB and 10 ports, of which offer 1 holds half for framework 1; and a second agent.
fn half_offered() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.admit(agent(1), some("cpus=4,mem=4G,ports=[1-10]")).expect("a new agent");
    ledger.admit(agent(2), some("cpus=4,mem=4G,ports=[1-10]")).expect("a new agent");
    ledger.offer(&agent(1), offer(1), framework(1), some("cpus=2,mem=2G,ports=[1-5]")).expect("free");
    ledger.check().expect("balanced");
    ledger
}

/// Shows the whole walk of resources, free to offered to used to free, with the sums at each station.
#[test]
fn resources_walk_in_a_circle() {
    let mut ledger = half_offered();
    assert_eq!(ledger.free(&agent(1)), Some(&some("cpus=2,mem=2G,ports=[6-10]")));
    assert_eq!(ledger.offered_to(&framework(1)), Quantities::of(&some("cpus=2,mem=2G,ports=[1-5]")));

    let tasks = [(task(1), some("cpus=0.5,mem=1G,ports=[1-2]")), (task(2), some("cpus=0.5,ports=[3]"))];
    let spent = ledger.spend(&[offer(1)], &framework(1), &tasks).expect("it fits");
    assert_eq!(spent, Spent { agent: agent(1), rest: some("cpus=1,mem=1G,ports=[4-5]") });
    ledger.check().expect("balanced");
    assert_eq!(ledger.free(&agent(1)), Some(&some("cpus=3,mem=3G,ports=[4-10]")));
    assert_eq!(ledger.used_by(&framework(1)), Quantities::of(&some("cpus=1,mem=1G,ports=[1-3]")));
    assert_eq!(ledger.framework_share(&framework(1)).to_string(), "1/8");
    assert_eq!(ledger.cluster_total(), &Quantities::of(&some("cpus=8,mem=8G,ports=[1-20]")));

    assert_eq!(ledger.release(&task(1)), Some((agent(1), some("cpus=0.5,mem=1G,ports=[1-2]"))));
    assert_eq!(ledger.release(&task(1)), None, "a repeated end changes nothing");
    assert!(ledger.release(&task(2)).is_some());
    ledger.check().expect("balanced");
    assert_eq!(ledger.free(&agent(1)), ledger.total(&agent(1)));
    assert!(ledger.stakes.is_empty() && ledger.tasks.is_empty() && ledger.offers.is_empty());
}

/// Shows each refusal of an accept by its text, and that it changes nothing: nobody spends twice.
#[test]
fn wrong_accepts_are_refused() {
    let mut ledger = half_offered();
    ledger.offer(&agent(1), offer(2), framework(1), some("cpus=1")).expect("free");
    ledger.offer(&agent(2), offer(3), framework(1), some("cpus=1")).expect("free");
    ledger.offer(&agent(2), offer(4), framework(2), some("cpus=1")).expect("free");
    ledger.charge(&agent(2), task(9), framework(2), some("cpus=1")).expect("free");
    let small = |number| (task(number), some("cpus=0.1"));
    for (offers, tasks, why) in [
        (vec![], vec![small(1)], "no offer was named"),
        (vec![offer(8)], vec![small(1)], "offer o8 is gone"),
        (vec![offer(1), offer(8)], vec![small(1)], "offer o8 is gone"),
        (vec![offer(4)], vec![small(1)], "offer o4 was made to another framework"),
        (vec![offer(1), offer(2), offer(1)], vec![small(1)], "offer o1 is named twice"),
        (vec![offer(1), offer(3)], vec![small(1)], "offers o1 and o3 are of different agents"),
        (vec![offer(1)], vec![small(1), small(1)], "task t1 exists already"),
        (vec![offer(1)], vec![small(9)], "task t9 exists already"),
        (vec![offer(1)], vec![(task(1), some("cpus=2.001,mem=3G"))], "the tasks need more than was offered: cpus 2 of 2.001, mem 2048 of 3072"),
        (vec![offer(1)], vec![(task(1), some("ports=[1]")), (task(2), some("ports=[1]"))], "the tasks need more than was offered: port_ranges 0 of 1"),
        (vec![offer(1)], vec![(task(1), some("cpus=1.5")), (task(2), some("cpus=0.6"))], "the tasks need more than was offered: cpus 0.5 of 0.6"),
    ] {
        let before = ledger.clone();
        let refusal = ledger.spend(&offers, &framework(1), &tasks).expect_err(why);
        assert_eq!(refusal.to_string(), why);
        assert_eq!(ledger, before, "{why}");
    }
    let both = ledger.spend(&[offer(1), offer(2)], &framework(1), &[(task(1), some("cpus=3"))]);
    assert!(both.is_ok(), "two offers of one agent add up");
    assert_eq!(ledger.spend(&[offer(1)], &framework(1), &[]), Err(LedgerError::UnknownOffer(offer(1))));
    ledger.check().expect("balanced");
}

/// Shows that an agent which comes back with a task has its way only with what is free, and that the
/// master sees what to give back.
#[test]
fn a_returning_task_takes_from_free() {
    let mut ledger = half_offered();
    let big = some("cpus=3,mem=1G");
    let refusal = ledger.charge(&agent(1), task(1), framework(2), big.clone()).expect_err("half is offered");
    assert_eq!(refusal.to_string(), "agent a1 has too little free: cpus 2 of 3");
    let offers: Vec<OfferId> = ledger.offers_on(&agent(1)).map(|(offer, _)| offer.clone()).collect();
    assert_eq!(ledger.give_back(&offers[0]), Some((agent(1), framework(1), some("cpus=2,mem=2G,ports=[1-5]"))));
    assert_eq!(ledger.give_back(&offers[0]), None);
    assert_eq!(ledger.charge(&agent(1), task(1), framework(2), big.clone()), Ok(()));
    assert_eq!(ledger.charge(&agent(1), task(1), framework(2), big.clone()), Ok(()), "said twice");
    assert_eq!(ledger.charge(&agent(1), task(1), framework(2), some("cpus=1")), Err(LedgerError::TaskExists(task(1))));
    assert_eq!(ledger.charge(&agent(2), task(1), framework(2), big.clone()), Err(LedgerError::TaskExists(task(1))));
    assert_eq!(ledger.used_by(&framework(2)), Quantities::of(&big));
    ledger.check().expect("balanced");
}

/// Shows that an agent's total follows its word as far as what is held there allows, and that it takes
/// all it has along when it goes.
#[test]
fn agents_change_and_go() {
    let mut ledger = half_offered();
    ledger.charge(&agent(1), task(1), framework(1), some("cpus=1,ports=[10]")).expect("free");
    assert_eq!(ledger.admit(agent(1), some("cpus=9")), Err(LedgerError::AgentExists(agent(1))));
    assert_eq!(ledger.set_total(&agent(3), some("cpus=9")), Err(LedgerError::UnknownAgent(agent(3))));
    let refusal = ledger.set_total(&agent(1), some("cpus=2.5,mem=4G,ports=[1-9]")).expect_err("three cpus are held");
    assert_eq!(refusal.to_string(), "agent a1 has too little free: cpus 2.5 of 3, port_ranges 5 of 6");
    ledger.set_total(&agent(1), some("cpus=3,mem=8G,ports=[1-10],licenses=2")).expect("what is held still fits");
    assert_eq!(ledger.free(&agent(1)), Some(&some("mem=6G,ports=[6-9],licenses=2")));
    assert_eq!(ledger.idle(&agent(1)), Some(some("cpus=2,mem=8G,ports=[1-9],licenses=2")));
    ledger.check().expect("balanced");

    let account = ledger.remove(&agent(1)).expect("it was there");
    assert!(account.offers.contains_key(&offer(1)) && account.tasks.contains_key(&task(1)));
    assert_eq!(ledger.remove(&agent(1)), None);
    assert_eq!(ledger.give_back(&offer(1)), None);
    assert_eq!(ledger.release(&task(1)), None);
    assert_eq!(ledger.held_by(&framework(1)), Quantities::default());
    assert_eq!(ledger.cluster_total(), &Quantities::of(&some("cpus=4,mem=4G,ports=[1-10]")));
    ledger.check().expect("balanced");
}

/// Shows that a cluster which could not be counted is not let in, and the small one stays as it was.
#[test]
fn a_cluster_is_countable() {
    let mut ledger = half_offered();
    let before = ledger.clone();
    let huge = Resources { mem: crate::resources::Milli::MAX, ..Resources::default() };
    assert_eq!(ledger.admit(agent(3), huge.clone()), Err(LedgerError::TooMuch(agent(3))));
    let refusal = ledger.set_total(&agent(2), huge).expect_err("too much");
    assert_eq!(refusal.to_string(), "the resources of agent a2 make the cluster larger than can be counted");
    assert_eq!(ledger, before);
}

/// Shows that the check is not blind: a ledger whose books are cooked by hand does not pass.
#[test]
fn the_check_finds_cooked_books() {
    let cooks: [(fn(&mut Account), &str); 5] = [
        (|account| account.free = some("cpus=9"), "agent a1: more is free than there is"),
        (|account| account.free = some("cpus=1.9,mem=2G,ports=[6-10]"), "agent a1: cpus=0.1 is neither free nor offered nor used"),
        (|account| account.free.ports = crate::resources::Ports::parse("[5-10]").expect("ports"), "agent a1: cpus=2,mem=2048,ports=[1-5] is offered beyond the total"),
        (|account| account.offered = some("cpus=2,mem=3G,ports=[1-5]"), "agent a1: mem=1024 is offered by nobody"),
        (|account| account.offers.clear(), "agent a1: cpus=2,mem=2048,ports=[1-5] is offered by nobody"),
    ];
    for (cook, why) in cooks {
        let mut ledger = half_offered();
        ledger.accounts.change(&agent(1), cook).expect("it is there");
        assert_eq!(ledger.check(), Err(why.to_owned()));
    }
    let mut ledger = half_offered();
    ledger.free = Quantities::default();
    assert_eq!(ledger.check(), Err("the free resources of the cluster is not what the accounts add up to".to_owned()));
    let mut ledger = half_offered();
    ledger.offers.clear();
    assert_eq!(ledger.check(), Err("the index of offers is not what the accounts add up to".to_owned()));
}

#[derive(Clone, Debug)]
enum Op {
    Admit(u8, Resources),
    SetTotal(u8, Resources),
    Remove(u8),
    Offer(u8, u8, u8, Resources),
    GiveBack(u8),
    Spend(Vec<u8>, u8, Vec<(u8, Resources)>),
    Charge(u8, u8, u8, Resources),
    Release(u8),
}

/// Small amounts and few ids, so that operations meet each other.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let part = || (0..4u64, 0..3u64, 1..6u16, 0..3u16, 0..2u64).prop_map(|(cpus, mem, from, more, licenses)| {
        some(&format!("cpus={cpus},mem={mem},ports=[{from}-{}],licenses={licenses}", from + more))
    });
    let total = || (2..9u64, 2..9u64, 4..9u16).prop_map(|(cpus, mem, ports)| some(&format!("cpus={cpus},mem={mem},ports=[1-{ports}],licenses=2")));
    let (agents, frameworks, offers, tasks) = (|| 0..3u8, || 0..3u8, || 0..8u8, || 0..8u8);
    let op = prop_oneof![
        2 => (agents(), total()).prop_map(|(agent, total)| Op::Admit(agent, total)),
        1 => (agents(), total()).prop_map(|(agent, total)| Op::SetTotal(agent, total)),
        1 => agents().prop_map(Op::Remove),
        6 => (agents(), offers(), frameworks(), part()).prop_map(|(agent, offer, framework, part)| Op::Offer(agent, offer, framework, part)),
        2 => offers().prop_map(Op::GiveBack),
        4 => (proptest::collection::vec(offers(), 1..3), frameworks(), proptest::collection::vec((tasks(), part()), 0..3))
            .prop_map(|(offers, framework, tasks)| Op::Spend(offers, framework, tasks)),
        2 => (agents(), tasks(), frameworks(), part()).prop_map(|(agent, task, framework, part)| Op::Charge(agent, task, framework, part)),
        3 => tasks().prop_map(Op::Release),
    ];
    proptest::collection::vec(op, 0..60)
}

/// Does one operation; true if the ledger refused it.
fn apply(ledger: &mut Ledger, op: Op) -> bool {
    match op {
        Op::Admit(a, total) => ledger.admit(agent(a), total).is_err(),
        Op::SetTotal(a, total) => ledger.set_total(&agent(a), total).is_err(),
        Op::Remove(a) => ledger.remove(&agent(a)).is_none(),
        Op::Offer(a, o, f, part) => ledger.offer(&agent(a), offer(o), framework(f), part).is_err(),
        Op::GiveBack(o) => ledger.give_back(&offer(o)).is_none(),
        Op::Spend(offers, f, tasks) => {
            let offers: Vec<OfferId> = offers.into_iter().map(offer).collect();
            let tasks: Vec<(TaskId, Resources)> = tasks.into_iter().map(|(t, part)| (task(t), part)).collect();
            ledger.spend(&offers, &framework(f), &tasks).is_err()
        }
        Op::Charge(a, t, f, part) => ledger.charge(&agent(a), task(t), framework(f), part).is_err(),
        Op::Release(t) => ledger.release(&task(t)).is_none(),
    }
}

proptest! {
    /// Shows that any run of operations leaves the books balanced after each one, that a refused
    /// operation changes nothing, and that ending everything leaves all free.
    #[test]
    fn books_balance_after_every_operation(ops in ops()) {
        let mut ledger = Ledger::default();
        for op in ops {
            let before = ledger.clone();
            let said = format!("{op:?}");
            if apply(&mut ledger, op) {
                prop_assert_eq!(&ledger, &before, "refused, yet changed: {}", said);
            }
            prop_assert_eq!(ledger.check(), Ok(()), "after {}", said);
        }
        for number in 0..8 {
            ledger.give_back(&offer(number));
            ledger.release(&task(number));
        }
        prop_assert_eq!(ledger.check(), Ok(()));
        prop_assert!(ledger.agents().all(|(_, account)| account.free == account.total));
        prop_assert!(ledger.stakes.is_empty());
    }
}
