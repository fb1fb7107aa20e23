//! What a leader makes of numbers that nobody can have counted to.

use crate::duration::DURATION_MS_MAX;
use crate::id::{Name, TaskId};
use crate::lease::EPOCH_MAX;
use crate::master::testcluster::{Cluster, EPOCH, agent, framework, nonce, principal};
use crate::master::{Effect, Event, Reply};
use crate::policy::{Change, Subject};
use crate::resources::{Milli, Quantities, parse_total};
use crate::wire::agent::{Beat, Hello, Welcome};
use crate::wire::call::{Accept, Answer, Call, Claim, Subscribe, TaskToken};
use crate::wire::explain::Ask;
use crate::wire::number::EPOCH_TOLD_MAX;
use crate::wire::number::tests::at_their_ends;
use crate::wire::operator::Operation;
use crate::wire::query::{Query, Table};
use crate::wire::{RefusalCode, Task};

fn keeper() -> Option<Name> {
    Some(Name::parse("keeper").expect("a name"))
}

/// Agent 1 for all; agent 2 and the named framework 2 are those that say the numbers. It runs a task and holds offers.
fn scene() -> (Cluster, TaskId) {
    let mut cluster = Cluster::new();
    cluster.join(1, "cpus=4,mem=1G");
    cluster.join(2, "cpus=4,mem=1G");
    cluster.subscribe_as(2, "default", keeper());
    cluster.wish(2, "cpus=1", 1, |demand| demand.on = Some("a2".to_owned()));
    cluster.allocate();
    let task = cluster.accept(2, "cpus=1", 1).remove(0);
    cluster.demand(2, "cpus=1", 2);
    cluster.allocate();
    assert!(!cluster.offers[&framework(2)].is_empty());
    (cluster, task)
}

/// A role that is limited, and one below it that is guaranteed something.
fn operations() -> [Operation; 2] {
    let amounts = Quantities::of(&parse_total("cpus=1,mem=1").expect("resources"));
    let limit = amounts.iter().map(|(kind, amount)| (kind.to_owned(), amount)).collect();
    let limited = Change { weight: Some(Milli::units(2)), priority: Some(3), guarantee: None, limit: Some(limit) };
    let guaranteed = Change { guarantee: Some(amounts), ..Change::default() };
    [("other", limited), ("other/below", guaranteed)].map(|(role, change)| Operation::SetRole { subject: Subject::parse(role).expect("a role"), change, force: false, dry_run: false })
}

/// All that can be said with numbers, in the scene.
fn messages(cluster: &Cluster, task: &TaskId) -> Vec<Event> {
    let (framework, session) = (framework(2), nonce(2));
    let offers: Vec<_> = cluster.offers[&framework].keys().cloned().collect();
    let claim = Claim { task: TaskId::fresh(99), agent: agent(2), epoch: EPOCH, seq: 3 };
    let subscribe = Subscribe { failover_ms: 60_000, claims: vec![claim.clone()], ..Cluster::subscription(2, "default", keeper()) };
    let other = Subscribe { framework: super::testcluster::framework(3), session: nonce(3), takeover: true, ..subscribe.clone() };
    let demand = cluster.master.lead().expect("it leads").frameworks()[&framework].demand.clone();
    let mut work = Task { id: Some(TaskId::fresh(98)), cmd: Some("true".to_owned()), cpus_limit: Some(Milli::units(2)), ..Task::default() };
    work.cpus = Milli::units(1);
    let tasks = vec![TaskToken { task: work, token: nonce(9) }];
    let calls = [
        Call::Subscribe(subscribe),
        Call::Subscribe(other),
        Call::Demand { framework: framework.clone(), session: session.clone(), demand: demand.clone() },
        Call::Accept(Accept { framework: framework.clone(), session: session.clone(), epoch: EPOCH, offers: offers[..1].to_vec(), agent: agent(2), tasks, refuse_ms: 5_000, member: None }),
        Call::Decline { framework: framework.clone(), session: session.clone(), offers: offers.clone(), refuse_ms: 5_000, member: None, implicit: false },
        Call::Return { offers, refuse_ms: 5_000 },
        Call::Seen { framework: framework.clone(), session: session.clone(), upto: 7, recorded_ms: 7 },
        Call::Kill { tasks: vec![task.clone()], grace_ms: Some(5_000) },
        Call::Leave { framework: framework.clone(), session: session.clone(), member: None, hold_ms: 5_000 },
        Call::Reconcile { framework: framework.clone(), session, tasks: vec![claim], member: None, asked: Vec::new() },
    ];
    let mut all: Vec<Event> = calls.iter().flat_map(at_their_ends).map(|call| Event::Call { caller: 5, principal: principal(), call: Box::new(call) }).collect();
    let hello = Hello { max_epoch: EPOCH, no: 1, ..Cluster::hello(2, "cpus=4,mem=1G", vec![cluster.held(task)]) };
    let of_another = Hello { agent: agent(3), incarnation: nonce(3), ..hello.clone() };
    all.extend([hello, of_another].iter().flat_map(at_their_ends).map(|hello| Event::Hello { caller: 6, hello: Box::new(hello) }));
    let beat = Beat { agent: agent(2), incarnation: nonce(2), epoch: EPOCH, status_seq: 1, lent: Some(parse_total("cpus=1,mem=1").expect("resources")), closed: None };
    all.extend(at_their_ends(&beat).into_iter().map(|beat| Event::Beat { caller: 7, beat }));
    let update = cluster.held(task).update;
    all.extend(at_their_ends(&update).into_iter().map(|update| Event::Status { agent: agent(2), update: Box::new(update) }));
    all.extend(operations().iter().flat_map(at_their_ends).map(|operation| Event::Operation { caller: 8, operation: Box::new(operation) }));
    let ask = Ask { framework: None, demand, lines_max: 9, ..Ask::default() };
    let query = Query { of: Table::Explain, from: String::new(), prefix: String::new(), ask: Some(Box::new(ask)) };
    all.extend(at_their_ends(&query).into_iter().map(|query| Event::Query { caller: 9, principal: principal(), query }));
    all.extend(at_their_ends(&1_000_u64).into_iter().map(|wall_ms| Event::Clock { wall_ms }));
    all
}

/// Lets everything that can be armed be due, and shows that a framework which does no harm is served.
fn serves(cluster: &mut Cluster) {
    for span_ms in [1_000, 100_000, DURATION_MS_MAX] {
        cluster.wait(100_000.min(span_ms));
        cluster.now_ms += span_ms;
        cluster.wait(1_000);
    }
    cluster.join(1, "cpus=4,mem=1G");
    cluster.subscribe(1, "eng");
    cluster.demand(1, "cpus=1", 1);
    cluster.allocate();
    assert_eq!(cluster.accept(1, "cpus=1", 1).len(), 1);
}

/// Shows that no number in any message ends the leader: it goes on over all deadlines and serves those who do no harm, and
/// so does the next leader, which reads what was registered.
#[test]
fn numbers_at_their_end() {
    let (cluster, task) = scene();
    let messages = messages(&cluster, &task);
    assert!(messages.len() > 500, "{} messages are tried", messages.len());
    for event in messages {
        let (mut cluster, _) = scene();
        cluster.step(event);
        // Whatever was told before, these are the next of their kind.
        cluster.step(Event::Hello { caller: 6, hello: Box::new(Hello { max_epoch: EPOCH, no: 7, continued: true, ..Cluster::hello(2, "cpus=4,mem=1G", Vec::new()) }) });
        cluster.call(Call::Subscribe(Subscribe { framework: framework(4), session: nonce(4), takeover: true, ..Cluster::subscription(4, "default", keeper()) }));
        serves(&mut cluster);
        serves(&mut Cluster::next(&cluster.registry));
    }
}

/// Shows that a document of the registry, written by a release that did not look at numbers, ends no leader either: its
/// framework can be subscribed by its name.
#[test]
fn documents_at_their_end() {
    let (mut cluster, _) = scene();
    for operation in operations() {
        cluster.step(Event::Operation { caller: 8, operation: Box::new(operation) });
    }
    assert!(["frameworks", "roles"].iter().all(|key| cluster.registry.contains_key(*key)));
    for (key, text) in cluster.registry.iter().filter(|(_, text)| !text.contains("\"a1\"")) {
        let doc: serde_json::Value = serde_json::from_str(text).expect("a document");
        for changed in at_their_ends(&doc) {
            let mut registry = cluster.registry.clone();
            registry.insert(key.clone(), changed.to_string());
            let mut next = Cluster::next(&registry);
            let answer = next.subscribe_as(2, "default", keeper());
            assert!(matches!(&answer, Some(Answer::Subscribed { .. })), "{answer:?} with {changed}");
            serves(&mut next);
        }
    }
}

/// Shows that an agent which says that it obeyed an epoch of no leader is refused, and that one is followed which leaves
/// room for the leaders to come.
#[test]
fn an_epoch_of_nobody() {
    let said = |max_epoch: u64| {
        let mut cluster = Cluster::new();
        let hello = Hello { max_epoch, ..Cluster::hello(1, "cpus=4,mem=1G", Vec::new()) };
        cluster.step(Event::Hello { caller: 6, hello: Box::new(hello) })
    };
    for max_epoch in [EPOCH_TOLD_MAX + 1, EPOCH_MAX - 1, EPOCH_MAX, u64::MAX] {
        let effects = said(max_epoch);
        let is_refused = |effect: &Effect| matches!(effect, Effect::Reply { reply: Reply::Welcome(Welcome::Refused(refusal)), .. } if refusal.code == RefusalCode::BadRequest);
        assert!(effects.len() == 1 && is_refused(&effects[0]), "{effects:?}");
    }
    assert_eq!(said(EPOCH_TOLD_MAX), [Effect::RaiseAbove { epoch: EPOCH_TOLD_MAX }]);
}
