use crate::allocate::Rule;
use crate::id::TaskId;
use crate::master::testcluster::{Cluster, framework};
use crate::master::{KEEP_AFTER_MS, KEEP_FOR_MS};
use crate::policy::{Change, Subject};
use crate::resources::{Quantities, parse_total};
use crate::task::TaskState;
use crate::wire::operator::{Operation, Outcome};

/// One agent of 8 cpus, all used by one-cpu tasks of framework 1; the newest last.
fn full() -> (Cluster, Vec<TaskId>) {
    full_with(|_| {})
}

fn full_with(set: impl FnOnce(&mut super::super::Config)) -> (Cluster, Vec<TaskId>) {
    let mut cluster = Cluster::with(set);
    cluster.join(1, "cpus=8,mem=8G");
    cluster.subscribe(1, "default");
    let mut tasks = Vec::new();
    for _ in 0..8 {
        cluster.demand(1, "cpus=1", 1);
        cluster.allocate();
        tasks.extend(cluster.accept(1, "cpus=1", 1));
        cluster.wait(1_000);
    }
    (cluster, tasks)
}

fn guarantee(cluster: &mut Cluster, subject: &str, amounts: &str) {
    let change = Change { guarantee: Some(Quantities::of(&parse_total(amounts).expect(amounts))), ..Change::default() };
    let operation = Operation::SetRole { subject: Subject::parse(subject).expect(subject), change, force: false, dry_run: false };
    let outcome = cluster.operate(operation);
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
}

/// Shows that whoever is below its share gets what is missing after 30 s and a notice, of the newest tasks and no more of
/// them than the one task needs, and that it is not offered to others.
#[test]
fn the_newest_tasks_make_room() {
    let (mut cluster, tasks) = full();
    cluster.subscribe(2, "default");
    cluster.demand(1, "cpus=1", 9);
    cluster.demand(2, "cpus=2", 1);
    cluster.wait(29_000);
    assert!(cluster.inverses.is_empty() && cluster.killed.is_empty(), "it is not 30 s yet");
    cluster.wait(2_000);
    let (victim, told, at_ms) = cluster.inverses[0].clone();
    assert_eq!(victim, framework(1));
    let mut newest = tasks[6..].to_vec();
    newest.sort();
    let mut told_sorted = told.clone();
    told_sorted.sort();
    assert_eq!(told_sorted, newest);
    assert!(cluster.killed.is_empty(), "the notice comes first");
    cluster.wait(5_000);
    assert!(cluster.killed.iter().all(|(task, reason)| told.contains(task) && reason == "revoked"), "{:?}", cluster.killed);
    assert_eq!((cluster.running.len(), cluster.now_ms >= at_ms + 5_000), (6, true));
    let offered: Vec<_> = cluster.offers[&framework(2)].values().map(|offer| offer.resources.to_string()).collect();
    assert_eq!(offered, ["cpus=2"], "it is the starving one's, whoever else wants it");
    assert_eq!(cluster.accept(2, "cpus=2", 1).len(), 1);
    assert_eq!(cluster.inverses.len(), 1, "once is enough");
    assert!(cluster.happened.contains(&"revoked".to_owned()));
}

/// Shows that a framework that ends its tasks itself on the notice is not ordered to.
#[test]
fn the_notice_is_a_chance() {
    let (mut cluster, _) = full();
    cluster.subscribe(2, "default");
    cluster.demand(2, "cpus=2", 1);
    cluster.wait(31_000);
    for task in cluster.inverses[0].1.clone() {
        cluster.end(&task, TaskState::Finished);
    }
    cluster.wait(10_000);
    assert!(cluster.killed.is_empty());
    assert_eq!(cluster.accept(2, "cpus=2", 1).len(), 1);
}

/// Shows who may not be revoked: with `off` nobody, who is at its guarantee, who is not above its share; and for whom
/// nobody is: who holds its share, and who asks for more than its share at once.
#[test]
fn nobody_is_revoked_unfairly() {
    let (mut cluster, _) = full_with(|config| config.revoke_after_ms = None);
    cluster.subscribe(2, "default");
    cluster.demand(2, "cpus=2", 1);
    cluster.wait(200_000);
    assert!(cluster.inverses.is_empty() && cluster.killed.is_empty(), "revocation is off");

    let (mut cluster, _) = full();
    guarantee(&mut cluster, "default:fw1", "cpus=7");
    cluster.subscribe(2, "default");
    cluster.demand(2, "cpus=1", 9);
    cluster.wait(40_000);
    assert_eq!(cluster.killed.len(), 1, "one of eight is above the guarantee of seven");
    assert_eq!(cluster.accept(2, "cpus=1", 9).len(), 1);
    cluster.wait(200_000);
    assert_eq!((cluster.cpus(1), cluster.cpus(2)), (7, 1));

    let (mut cluster, _) = full();
    cluster.subscribe(2, "default");
    cluster.demand(1, "cpus=1", 9);
    cluster.demand(2, "cpus=6", 1);
    cluster.wait(100_000);
    assert!(cluster.killed.is_empty(), "with six of eight it would be the next victim itself");
}

/// Shows that nobody makes room, and no agent is kept, for who would not be given it: who is at its limit, and who wants
/// what is promised to another.
#[test]
fn room_is_made_for_who_may_use_it() {
    let (mut cluster, tasks) = full();
    let limit = Change { limit: Some([("cpus".to_owned(), crate::resources::Milli::units(1))].into()), ..Change::default() };
    let operation = Operation::SetRole { subject: Subject::parse("small").expect("a role"), change: limit, force: false, dry_run: false };
    assert!(matches!(cluster.operate(operation), Outcome::Done { .. }));
    cluster.subscribe(2, "small");
    cluster.demand(2, "cpus=2", 1);
    cluster.wait(100_000);
    assert!(cluster.killed.is_empty(), "it is at its limit");
    guarantee(&mut cluster, "vip", "cpus=2");
    cluster.subscribe(3, "other");
    cluster.demand(3, "cpus=1", 1);
    cluster.wait(100_000);
    assert!(cluster.killed.is_empty(), "what would come free is promised to another");
    cluster.end(&tasks[0], TaskState::Finished);
    cluster.end(&tasks[1], TaskState::Finished);
    cluster.end(&tasks[2], TaskState::Finished);
    cluster.wait(1_000);
    assert_eq!(cluster.accept(3, "cpus=1", 1).len(), 1, "and what is more than that is given without");
}

/// Shows that shares become even and stay so: two that want all there is end at half each, and nothing goes back and forth.
#[test]
fn it_ends_at_even_shares() {
    let (mut cluster, _) = full();
    cluster.subscribe(2, "default");
    cluster.demand(1, "cpus=1", 99);
    cluster.demand(2, "cpus=1", 99);
    for _ in 0..600 {
        cluster.wait(1_000);
        cluster.accept(2, "cpus=1", 99);
        cluster.accept(1, "cpus=1", 99);
    }
    assert_eq!((cluster.cpus(1), cluster.cpus(2)), (4, 4));
    assert_eq!(cluster.killed.len(), 4, "no more than it takes");
}

/// Shows that a guarantee is kept against who is within its fair share, too.
#[test]
fn a_guarantee_is_more_than_a_share() {
    let (mut cluster, _) = full();
    guarantee(&mut cluster, "vip", "cpus=6");
    cluster.subscribe(2, "vip");
    cluster.demand(1, "cpus=1", 99);
    cluster.demand(2, "cpus=3", 99);
    for _ in 0..300 {
        cluster.wait(1_000);
        cluster.accept(2, "cpus=3", 99);
        cluster.accept(1, "cpus=1", 99);
    }
    assert_eq!((cluster.cpus(1), cluster.cpus(2)), (2, 6));
}

/// Shows that what is on revocable resources goes at once, without notice and before anything else, and only for who is
/// not revocable itself.
#[test]
fn revocable_tasks_go_at_once() {
    let mut cluster = Cluster::new();
    cluster.join(1, "cpus=4,mem=4G");
    cluster.subscribe(1, "default");
    cluster.wish(1, "cpus=1", 4, |demand| demand.revocable = true);
    cluster.allocate();
    assert!(cluster.offers[&framework(1)].values().all(|offer| offer.revocable));
    assert_eq!(cluster.accept(1, "cpus=1", 4).len(), 4);
    cluster.subscribe(3, "default");
    cluster.wish(3, "cpus=1", 1, |demand| demand.revocable = true);
    cluster.wait(40_000);
    assert!(cluster.killed.is_empty());
    cluster.subscribe(2, "default");
    cluster.demand(2, "cpus=2", 1);
    cluster.wait(10);
    assert_eq!(cluster.killed.len(), 2);
    assert!(cluster.inverses.is_empty());
    assert_eq!(cluster.accept(2, "cpus=2", 1).len(), 1);
    cluster.wait(100_000);
    assert_eq!((cluster.cpus(1), cluster.cpus(2)), (2, 2), "and nobody goes for who is revocable itself");
}

/// Shows that what is lent goes to those only whose tasks may be ended at once, apart from what the agent has, and is
/// taken back, the newest first, when there is less of it.
#[test]
fn what_is_lent_is_taken_back() {
    let (mut cluster, _) = full();
    cluster.subscribe(2, "default");
    cluster.wish(2, "cpus=1", 9, |demand| demand.revocable = true);
    cluster.wait(1_000);
    assert!(cluster.offers.get(&framework(2)).is_none_or(|offers| offers.is_empty()));
    cluster.lend(1, "cpus=3,mem=1G");
    cluster.allocate();
    let tasks = cluster.accept(2, "cpus=1", 9);
    assert_eq!((tasks.len(), cluster.running.len()), (3, 11));
    assert!(tasks.iter().all(|task| cluster.running[task].0.lent && cluster.running[task].0.revocable));
    cluster.subscribe(3, "default");
    cluster.demand(3, "cpus=1", 1);
    cluster.lend(1, "cpus=4,mem=1G");
    cluster.wait(1_000);
    assert_eq!(cluster.accept(2, "cpus=1", 9).len(), 1);
    cluster.lend(1, "cpus=2,mem=1G");
    assert_eq!(cluster.killed.len(), 2);
    cluster.wait(1_000);
    assert_eq!(cluster.cpus(2), 2);
    cluster.lend(1, "cpus=0,mem=0");
    assert_eq!((cluster.cpus(2), cluster.cpus(1)), (0, 8), "what others hold is not touched by it");
}

/// Shows that a large task is not starved by small ones that come and go, without anything being revoked: an agent is kept
/// for it until enough has ended there.
#[test]
fn a_large_task_saves_up() {
    let (mut cluster, _) = full_with(|config| config.revoke_after_ms = None);
    cluster.subscribe(2, "default");
    cluster.demand(1, "cpus=1", 99);
    cluster.demand(2, "cpus=8", 1);
    let mut waited_s = 0;
    while cluster.cpus(2) == 0 {
        // A small task ends each second, and its framework would launch the next one.
        let oldest = cluster.running.iter().min_by_key(|(_, (_, _, since_ms))| *since_ms).map(|(task, _)| task.clone());
        if let Some(oldest) = oldest {
            cluster.end(&oldest, TaskState::Finished);
        }
        cluster.wait(1_000);
        cluster.accept(1, "cpus=1", 99);
        cluster.accept(2, "cpus=8", 1);
        waited_s += 1;
        assert!(waited_s < 120, "it waits for ever");
    }
    assert!(waited_s >= KEEP_AFTER_MS / 1_000, "nothing is kept before it has waited");
    cluster.wait(1_000);
    let task = cluster.running.keys().next().expect("the large one").clone();
    cluster.end(&task, TaskState::Finished);
    cluster.wait(1_000);
    assert_eq!(cluster.accept(1, "cpus=1", 99).len(), 8, "then it is everybody's again");
}

/// Shows that an agent on which nothing ends is not kept for ever.
#[test]
fn what_is_kept_in_vain_is_let_go() {
    let mut cluster = Cluster::with(|config| config.revoke_after_ms = None);
    cluster.join(1, "cpus=8,mem=8G");
    cluster.subscribe(1, "default");
    cluster.demand(1, "cpus=1", 1);
    cluster.allocate();
    cluster.accept(1, "cpus=1", 1);
    cluster.subscribe(2, "default");
    cluster.demand(2, "cpus=8", 1);
    cluster.wait(KEEP_AFTER_MS + 1_000);
    cluster.demand(1, "cpus=1", 9);
    cluster.wait(1_000);
    assert!(cluster.offers.get(&framework(1)).is_none_or(|offers| offers.is_empty()), "it is kept for the large one");
    let mut waited_ms = 0;
    while cluster.accept(1, "cpus=1", 9).is_empty() {
        cluster.wait(1_000);
        waited_ms += 1_000;
        assert!(waited_ms <= KEEP_FOR_MS + KEEP_AFTER_MS, "it is kept for ever");
    }
    assert_eq!(cluster.cpus(1), 8);
}

/// Shows that nobody makes room twice for who turned down what it got that way.
#[test]
fn room_is_not_made_to_be_wasted() {
    let (mut cluster, _) = full();
    cluster.subscribe(2, "default");
    cluster.demand(2, "cpus=1", 1);
    cluster.wait(36_000);
    assert_eq!(cluster.killed.len(), 1);
    cluster.decline(2, 1);
    cluster.demand(1, "cpus=1", 1);
    cluster.wait(10);
    assert_eq!(cluster.accept(1, "cpus=1", 1).len(), 1);
    cluster.wait(300_000);
    assert_eq!(cluster.killed.len(), 1);
}

/// Shows that those who come again and again under new names do not push out who waits.
#[test]
fn the_flapping_do_not_starve_the_others() {
    let mut cluster = Cluster::new();
    cluster.join(1, "cpus=4,mem=4G");
    cluster.subscribe(1, "default");
    cluster.demand(1, "", 99);
    let (mut served, mut last) = (0, 100);
    for round in 0..200 {
        if round % 3 == 0 {
            cluster.forget(last);
            last += 1;
            cluster.subscribe(last, "default");
            cluster.demand(last, "", 99);
        }
        cluster.wait(5_000);
        if cluster.offers.get(&framework(1)).is_some_and(|offers| !offers.is_empty()) {
            cluster.decline(1, 0);
            cluster.demand(1, "", 99);
            served += 1;
        }
    }
    assert!(served >= 15, "it was served {served} times in 1,000 s");
}

/// Shows that one who does not answer costs the others no more than the life of an offer, and less each time.
#[test]
fn the_silent_do_not_starve_the_others() {
    let mut cluster = Cluster::with(|config| config.rule = Rule::Drf);
    cluster.join(1, "cpus=4,mem=4G");
    for number in 1..=5 {
        cluster.subscribe(number, "default");
        cluster.demand(number, "", 99);
    }
    // All but the last take what they get and say nothing.
    let mut longest_ms = 0;
    let mut waited_ms = 0;
    for _ in 0..600 {
        cluster.wait(1_000);
        waited_ms += 1_000;
        if cluster.offers.get(&framework(5)).is_some_and(|offers| !offers.is_empty()) {
            cluster.decline(5, 1_000);
            longest_ms = longest_ms.max(waited_ms);
            waited_ms = 0;
        }
    }
    assert!(longest_ms > 0 && longest_ms <= 5 * 30_000, "{longest_ms} ms");
}
