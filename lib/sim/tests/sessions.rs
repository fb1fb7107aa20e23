//! Sessions of frameworks at the leader: who may speak, who is fenced, what an offer becomes, when the work is done.

use std::collections::{BTreeMap, BTreeSet};

use meso_core::id::{AgentId, FrameworkId, MasterId, Name, Nonce, OfferId, Principal, TaskId};
use meso_core::master::{self, Effect, Event, Master, Reply};
use meso_core::resources::{parse_request, parse_total};
use meso_core::wire::agent::{Command, Hello, Held, Order};
use meso_core::wire::call::{Accept, Answer, Call, Demand, Push, Subscribe, TaskToken};
use meso_core::wire::{Offer, PROTOCOL, RefusalCode, Task};

const SESSION_MS: u64 = 15_000;

fn nonce(number: u64) -> Nonce {
    Nonce::fresh(number, number)
}

fn framework() -> FrameworkId {
    FrameworkId::fresh(1)
}

/// A leader with agents of 4 processors each.
struct Leader {
    master: Master,
    now_ms: u64,
    calls: u64,
    /// What the framework was pushed and the agents were commanded since it was last looked at.
    pushed: Vec<Push>,
    killed: BTreeSet<TaskId>,
    registry: BTreeMap<String, String>,
}

impl Leader {
    fn new(agents: u64) -> Self {
        Self::after(1, BTreeMap::new(), agents)
    }

    fn after(epoch: u64, registry: BTreeMap<String, String>, agents: u64) -> Self {
        let mut master = Master::new(master::Config::new(MasterId::fresh(9), "h".to_owned(), "test".to_owned()));
        master.step(0, Event::Lead { epoch, seed: [epoch, 2], registry: registry.clone() });
        let mut leader = Leader { master, now_ms: 0, calls: 0, pushed: Vec::new(), killed: BTreeSet::new(), registry };
        for number in 1..=agents {
            // Registered before and after it obeys the epoch.
            for (no, max_epoch) in [(1, 0), (2, epoch)] {
                leader.step(Event::Hello { caller: 1, hello: Box::new(hello(number, no, max_epoch)) });
            }
        }
        leader
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        self.now_ms += 1;
        let mut effects = self.master.step(self.now_ms, event);
        // As the driver does: again until nothing is left to be allocated.
        for _ in 0..10 {
            effects.extend(self.master.step(self.now_ms, Event::Tick));
        }
        for effect in &effects {
            match effect {
                Effect::Push { push, .. } => self.pushed.push(push.clone()),
                Effect::Command { command: Command { order: Order::Kill { task, .. }, .. }, .. } => drop(self.killed.insert(task.clone())),
                Effect::Registry { key, doc } => drop(self.registry.insert(key.clone(), doc.clone())),
                _ => {}
            }
        }
        effects
    }

    /// Lets time pass in steps of a second.
    fn wait(&mut self, ms: u64) {
        for _ in 0..ms / 1000 {
            self.now_ms += 999;
            self.step(Event::Tick);
        }
    }

    fn call(&mut self, call: Call) -> Answer {
        self.call_as("p", call)
    }

    fn call_as(&mut self, principal: &str, call: Call) -> Answer {
        self.calls += 1;
        let caller = self.calls;
        let effects = self.step(Event::Call { caller, principal: Principal::parse(principal).expect("a plain name"), call: Box::new(call) });
        let answer = effects.into_iter().find_map(|effect| match effect {
            Effect::Reply { caller: to, reply: Reply::Answer(answer) } if to == caller => Some(answer),
            _ => None,
        });
        answer.expect("a call is answered")
    }

    /// The head of a pipeline that takes whole agents.
    fn head(&mut self, open_max: u32) -> Vec<Offer> {
        self.pushed.clear();
        let demand = Demand { count: u32::MAX, open_max, ..Demand::default() };
        let answer = self.call(Call::Subscribe(Subscribe { demand: Some(demand), ..subscribe(50) }));
        assert!(matches!(answer, Answer::Subscribed { session_no: 1, .. }), "{answer:?}");
        self.offers()
    }

    fn join(&mut self, member: u64) -> Answer {
        self.call(Call::Subscribe(Subscribe { member: Some(nonce(member)), session_no: 1, ..subscribe(50) }))
    }

    fn launch(&mut self, offer: &Offer, task: u64, member: u64) -> Answer {
        let request = parse_request("cpus=1").expect("a plain request");
        let mut wanted = Task { id: Some(TaskId::fresh(task)), argv: vec!["work".to_owned()], ..Task::default() };
        wanted.set_request(&request);
        self.call(Call::Accept(Accept {
            framework: framework(),
            session: nonce(50),
            epoch: 1,
            offers: vec![offer.id.clone()],
            agent: offer.agent.clone(),
            tasks: vec![TaskToken { task: wanted, token: nonce(task) }],
            refuse_ms: 0,
            member: Some(nonce(member)),
        }))
    }

    /// Takes out what was offered since the last look.
    fn offers(&mut self) -> Vec<Offer> {
        let (offers, rest) = std::mem::take(&mut self.pushed).into_iter().partition::<Vec<_>, _>(|push| matches!(push, Push::Offers { .. }));
        self.pushed = rest;
        let lists = offers.into_iter().filter_map(|push| if let Push::Offers { offers, .. } = push { Some(offers) } else { None });
        lists.flatten().collect()
    }

    fn beat(&mut self, member: Option<u64>, sated: bool) -> Answer {
        self.call(Call::Beat { framework: framework(), session: nonce(50), member: member.map(nonce), sated })
    }

    fn leave(&mut self, member: Option<u64>, hold_ms: u64) {
        let answer = self.call(Call::Leave { framework: framework(), session: nonce(50), member: member.map(nonce), hold_ms });
        assert_eq!(answer, Answer::Done {});
    }

    fn held(&self) -> usize {
        let lead = self.master.lead().expect("it leads");
        lead.ledger().offers_of(&framework()).count()
    }
}

fn hello(number: u64, no: u64, max_epoch: u64) -> Hello {
    Hello {
        v: PROTOCOL,
        agent: AgentId::fresh(number),
        incarnation: nonce(number),
        secret: nonce(100 + number),
        generation: 1,
        host: format!("h{number}"),
        attrs: BTreeMap::new(),
        total: parse_total("cpus=4,mem=1024").expect("plain resources"),
        max_epoch,
        boot_id: "boot".to_owned(),
        isolation: "processes".to_owned(),
        version: "test".to_owned(),
        status_seq: 0,
        tasks: Vec::new(),
        more: false,
        continued: false,
        no,
    }
}

fn subscribe(session: u64) -> Subscribe {
    Subscribe {
        v: PROTOCOL,
        framework: framework(),
        session: nonce(session),
        session_no: 0,
        member: None,
        guest: false,
            takeover: false,
        name: None,
        role: Default::default(),
        who: format!("who-{session}"),
        demand: None,
        failover_ms: 0,
        on_unreachable: None,
        claims: Vec::new(),
    }
}

fn code(answer: &Answer) -> Option<RefusalCode> {
    if let Answer::Refused(refusal) = answer { Some(refusal.code) } else { None }
}

fn words(answer: Answer) -> String {
    if let Answer::Refused(refusal) = answer { refusal.message } else { format!("{answer:?}") }
}

/// Shows that a demand for nothing in particular is offered whole agents, as many as it wants to hold, and the next when one is used.
#[test]
fn whole_agents_up_to_a_limit() {
    let mut leader = Leader::new(5);
    let offers = leader.head(2);
    assert_eq!(offers.len(), 2);
    assert!(offers.iter().all(|offer| offer.resources.cpus == parse_total("cpus=4").expect("plain").cpus));
    leader.call(Call::Decline { framework: framework(), session: nonce(50), offers: vec![offers[0].id.clone()], refuse_ms: 60_000, member: None, implicit: false });
    assert_eq!((leader.offers().len(), leader.held()), (1, 2), "another agent in the place of the one that was declined");
}

/// Shows that an offer tells how to join its session, to its own principal only.
#[test]
fn an_offer_tells_its_session() {
    let mut leader = Leader::new(1);
    let offer = leader.head(16).pop().expect("an agent is offered");
    match leader.call(Call::Look { offer: offer.id.clone() }) {
        Answer::Seat { session, session_no, framework: of, offer: same, .. } => assert_eq!((session, session_no, of, same.resources), (nonce(50), 1, framework(), offer.resources)),
        other => panic!("{other:?}"),
    }
    assert_eq!(code(&leader.call_as("q", Call::Look { offer: offer.id.clone() })), Some(RefusalCode::NotYours));
    assert_eq!(code(&leader.call(Call::Look { offer: OfferId::fresh(99) })), Some(RefusalCode::OfferGone));
}

/// Shows that the head hears what a member used, and that the session is done when the last that joined leaves.
#[test]
fn the_tail_ends_the_pipeline() {
    let mut leader = Leader::new(2);
    let offers = leader.head(16);
    assert!(matches!(leader.join(7), Answer::Subscribed { .. }));
    assert!(matches!(leader.join(8), Answer::Subscribed { .. }));
    assert!(matches!(leader.launch(&offers[0], 1, 7), Answer::Accepted { .. }));
    assert!(leader.pushed.contains(&Push::Used { offers: vec![offers[0].id.clone()] }));
    leader.leave(Some(7), 0);
    assert!(leader.pushed.iter().all(|push| !matches!(push, Push::Removed { .. })), "one that joined is still there");
    leader.leave(Some(8), 0);
    assert!(leader.pushed.contains(&Push::Removed { session: nonce(50), reason: "done".to_owned() }));
    assert_eq!((leader.held(), leader.killed.len()), (0, 1), "what was held is free, and what an unnamed framework left running ends");
    assert_eq!(code(&leader.beat(None, false)), Some(RefusalCode::UnknownFramework));
}

/// Shows that one who came for a single launch leaves the session as it is.
#[test]
fn a_guest_ends_nothing() {
    let mut leader = Leader::new(2);
    let offers = leader.head(16);
    leader.call(Call::Subscribe(Subscribe { member: Some(nonce(7)), guest: true, session_no: 1, ..subscribe(50) }));
    assert!(matches!(leader.launch(&offers[0], 1, 7), Answer::Accepted { .. }));
    leader.beat(Some(7), true);
    leader.call(Call::Return { offers: vec![offers[1].id.clone()], refuse_ms: 0 });
    assert!(!leader.offers().is_empty(), "that a guest wants no more says nothing of the session");
    leader.leave(Some(7), 0);
    assert_eq!(leader.beat(None, false), Answer::Done {});
    assert!(leader.held() > 0 && leader.killed.is_empty());
}

/// Shows that a session lives while one member beats, that a member that is silent is not one any more, and that what it launched ends.
#[test]
fn members_lapse_one_by_one() {
    let mut leader = Leader::new(2);
    let offers = leader.head(16);
    leader.join(7);
    leader.join(8);
    leader.launch(&offers[0], 1, 7);
    leader.launch(&offers[1], 2, 8);
    for _ in 0..4 {
        leader.wait(SESSION_MS / 3);
        assert_eq!(leader.beat(Some(8), false), Answer::Done {});
    }
    assert_eq!(leader.killed, BTreeSet::from([TaskId::fresh(1)]), "the one of the member that fell silent");
    assert_eq!(code(&leader.beat(Some(7), false)), Some(RefusalCode::UnknownFramework), "it has to join again");
    leader.wait(SESSION_MS + 1_000);
    assert_eq!(code(&leader.beat(Some(8), false)), Some(RefusalCode::UnknownFramework));
    assert!(leader.killed.contains(&TaskId::fresh(2)));
}

/// Shows that a head that leaves may have its offers wait for a tail, for so long and no longer.
#[test]
fn a_session_may_wait_for_a_tail() {
    for comes in [true, false] {
        let mut leader = Leader::new(2);
        let offer = leader.head(1).pop().expect("an agent is offered");
        leader.leave(None, 5_000);
        leader.wait(3_000);
        assert_eq!((leader.held(), leader.offers().len()), (1, 0), "what was handed on stays good, and no more comes");
        if comes {
            leader.join(7);
            leader.wait(6_000);
            assert!(matches!(leader.launch(&offer, 1, 7), Answer::Accepted { .. }));
        } else {
            leader.wait(3_000);
            assert_eq!(code(&leader.launch(&offer, 1, 7)), Some(RefusalCode::UnknownFramework));
            assert_eq!(leader.held(), 0);
        }
    }
}

/// Shows that nothing is offered while nobody could launch more, and that it is offered again when somebody can.
#[test]
fn the_sated_are_offered_nothing() {
    let mut leader = Leader::new(3);
    let offers = leader.head(1);
    leader.join(7);
    leader.beat(Some(7), true);
    leader.launch(&offers[0], 1, 7);
    assert_eq!(leader.offers(), []);
    leader.beat(Some(7), false);
    assert_eq!(leader.offers().len(), 1);
}

/// Shows that a suppressed framework is offered nothing until it is revived, and that a revive forgets what was refused.
#[test]
fn suppress_and_revive() {
    let mut leader = Leader::new(1);
    let offer = leader.head(16).pop().expect("an agent is offered");
    let shelve = |on| Call::Suppress { framework: framework().to_string(), on };
    assert_eq!(code(&leader.call_as("q", shelve(true))), Some(RefusalCode::NotYours));
    assert_eq!(leader.call(shelve(true)), Answer::Done {});
    assert_eq!(leader.call_as("q", Call::Return { offers: vec![offer.id.clone()], refuse_ms: 0 }), leader.call_as("q", Call::Return { offers: vec![offer.id.clone()], refuse_ms: 0 }));
    assert_eq!(leader.held(), 1, "another principal gives nothing back");
    assert_eq!(leader.call(Call::Return { offers: vec![offer.id.clone()], refuse_ms: 3_600_000 }), Answer::Done {});
    assert!(leader.pushed.contains(&Push::Used { offers: vec![offer.id] }), "the holder is told");
    leader.wait(2_000);
    assert_eq!((leader.offers().len(), leader.held()), (0, 0));
    leader.call(shelve(false));
    assert_eq!(leader.offers().len(), 1);
    assert!(leader.pushed.contains(&Push::Suppressed { on: true }) && leader.pushed.contains(&Push::Suppressed { on: false }));
}

/// Shows that whoever comes too late is told how the offer went.
#[test]
fn how_an_offer_went() {
    let mut leader = Leader::new(3);
    let offers = leader.head(16);
    leader.join(7);
    leader.launch(&offers[0], 1, 7);
    leader.call(Call::Return { offers: vec![offers[1].id.clone()], refuse_ms: 3_600_000 });
    for _ in 0..7 {
        leader.wait(5_000);
        leader.beat(Some(7), false);
        leader.beat(None, false);
    }
    let mut fate = |offer: &Offer| words(leader.call(Call::Look { offer: offer.id.clone() }));
    assert_eq!(fate(&offers[0]), format!("offer {} was accepted 35 s ago", offers[0].id));
    assert_eq!(fate(&offers[1]), format!("offer {} was declined 35 s ago", offers[1].id));
    assert_eq!(fate(&offers[2]), format!("offer {} expired 5 s ago", offers[2].id));
}

/// Shows that a name has one holder, who is said; that it can be taken; and that the one before is fenced, also at a later leader.
#[test]
fn a_name_has_one_holder() {
    let name = Some(Name::parse("keeper").expect("a plain name"));
    let named = |session, no, takeover| {
        let framework = FrameworkId::fresh(session);
        Call::Subscribe(Subscribe { framework, name: name.clone(), session_no: no, takeover, failover_ms: 3_600_000, ..subscribe(session) })
    };
    let mut leader = Leader::new(1);
    let Answer::Subscribed { framework: id, session_no: 1, recovered: false, .. } = leader.call(named(50, 0, false)) else { panic!("it is free") };
    leader.wait(3_000);
    leader.call(Call::Beat { framework: id.clone(), session: nonce(50), member: None, sated: false });
    let refused = leader.call(named(60, 0, false));
    assert_eq!(code(&refused), Some(RefusalCode::NameHeld));
    assert!(words(refused).starts_with("keeper is held by who-50 since 3 s"));
    let Answer::Subscribed { framework: same, session_no: 2, recovered: true, .. } = leader.call(named(60, 0, true)) else { panic!("it is taken") };
    assert_eq!(same, id);
    assert!(leader.pushed.contains(&Push::Removed { session: nonce(50), reason: "taken_over".to_owned() }));
    let beat = |session| Call::Beat { framework: id.clone(), session: nonce(session), member: None, sated: false };
    assert_eq!(code(&leader.call(beat(50))), Some(RefusalCode::NameHeld));
    assert_eq!(leader.call(beat(60)), Answer::Done {});
    // The fenced one is the first to find the next leader: the registry knows better, and so does the number if that is lost.
    for registry in [leader.registry.clone(), BTreeMap::new()] {
        let is_kept = !registry.is_empty();
        let mut next = Leader::after(2, registry, 1);
        let old = next.call(named(50, 1, false));
        assert_eq!(code(&old), is_kept.then_some(RefusalCode::NameHeld), "{old:?}");
        assert!(matches!(next.call(named(60, 2, false)), Answer::Subscribed { session_no: 2, .. }));
        assert_eq!(code(&next.call(named(50, 1, false))), Some(RefusalCode::NameHeld));
    }
}

/// Shows that acknowledgements reach the session whose statuses they are, that what was seen outlives a leader, also
/// where that is further back as the record lost its end, and what cannot be known is said.
#[test]
fn statuses_seen() {
    let mut leader = Leader::new(1);
    let name = Some(Name::parse("keeper").expect("a plain name"));
    leader.call(Call::Subscribe(Subscribe { name: name.clone(), failover_ms: 60_000, ..subscribe(50) }));
    let ack = format!("u_{}.task_1.4", framework()).parse::<meso_core::wire::ack::AckId>().expect("a mark");
    assert_eq!(leader.call(Call::Ack { acks: vec![ack.clone()] }), Answer::Done {});
    assert!(leader.pushed.contains(&Push::Acked { acks: vec![ack.clone()] }));
    assert_eq!(code(&leader.call_as("q", Call::Ack { acks: vec![ack] })), Some(RefusalCode::NotYours));
    leader.call(Call::Seen { framework: framework(), session: nonce(50), upto: 41, recorded_ms: 410 });
    leader.call(Call::Seen { framework: framework(), session: nonce(50), upto: 17, recorded_ms: 170 });
    let asked = vec![TaskId::fresh(5)];
    leader.call(Call::Reconcile { framework: framework(), session: nonce(50), tasks: Vec::new(), member: None, asked });
    let told = leader.pushed.iter().find_map(|push| if let Push::Known { update } = push { Some(update.state.word()) } else { None });
    assert_eq!(told, Some("unknown"));
    let mut next = Leader::after(2, leader.registry.clone(), 1);
    let answer = next.call(Call::Subscribe(Subscribe { name, session_no: 1, failover_ms: 60_000, ..subscribe(50) }));
    assert!(matches!(answer, Answer::Subscribed { seen: 17, seen_ms: 170, recovered: true, .. }), "{answer:?}");
}

/// Shows that a tail which is the first to find a new leader changes nothing of what the head said of its framework.
#[test]
fn a_tail_speaks_for_itself_only() {
    let name = Some(Name::parse("keeper").expect("a plain name"));
    let mut leader = Leader::new(1);
    leader.call(Call::Subscribe(Subscribe { name: name.clone(), failover_ms: 3_600_000, ..subscribe(50) }));
    let mut next = Leader::after(2, leader.registry.clone(), 1);
    assert!(matches!(next.join(7), Answer::Subscribed { session_no: 1, .. }));
    next.wait(60_000);
    let lead = next.master.lead().expect("it leads");
    let framework = lead.frameworks().get(&framework()).expect("a durable name outlives its session");
    assert_eq!((framework.is_connected(), &framework.name), (false, &name));
}

/// Shows that a session which begins while its name waits for a failover lapses like any other, not at the end of the failover time.
#[test]
fn a_resumed_name_lapses_in_time() {
    let name = Some(Name::parse("keeper").expect("a plain name"));
    let named = |session| Call::Subscribe(Subscribe { name: name.clone(), failover_ms: 3_600_000, ..subscribe(session) });
    let mut leader = Leader::new(1);
    leader.call(named(50));
    for (session, no) in [(60, 2), (70, 3)] {
        leader.wait(SESSION_MS + 1_000);
        assert!(matches!(leader.call(named(session)), Answer::Subscribed { session_no, .. } if session_no == no));
    }
    let mut next = Leader::after(2, leader.registry.clone(), 1);
    next.call(Call::Subscribe(Subscribe { name: name.clone(), session_no: 3, failover_ms: 3_600_000, ..subscribe(70) }));
    next.wait(SESSION_MS + 1_000);
    assert!(matches!(next.call(named(80)), Answer::Subscribed { session_no: 4, .. }));
}

/// A new leader under which an agent runs what member 8 launched, who is still on the way to it.
fn awaiting() -> Leader {
    let mut leader = Leader::after(2, BTreeMap::new(), 0);
    // What the one that is on the way launched under an earlier leader: the agent tells it when it registers.
    let mut before = Leader::new(1);
    let offers = before.head(16);
    before.join(8);
    before.launch(&offers[0], 5, 8);
    let launched = before.master.lead().and_then(|lead| lead.tasks().get(&TaskId::fresh(5)).cloned()).expect("it was accepted");
    let held = Held { launch: launched.launch, update: launched.update, killing: false, killing_reason: None, settled: false };
    for (no, max_epoch) in [(1, 1), (2, 2)] {
        leader.step(Event::Hello { caller: 1, hello: Box::new(Hello { tasks: vec![held.clone()], ..hello(1, no, max_epoch) }) });
    }
    leader
}

/// Shows that a head which leaves a new leader at once, and has the session wait a moment for others, does not end the tasks
/// of one that finds that leader later.
#[test]
fn a_head_waits_for_who_is_on_the_way() {
    let mut leader = awaiting();
    leader.head(16);
    leader.leave(None, 2_000);
    leader.wait(3_000);
    assert!(leader.killed.is_empty());
    leader.join(8);
    for _ in 0..4 {
        leader.wait(5_000);
        assert_eq!(leader.beat(Some(8), false), Answer::Done {});
    }
    assert!(leader.killed.is_empty());
}

/// Shows that a tail which leaves a new leader at once does not end the tasks of another that has not found that leader yet.
#[test]
fn a_leaver_does_not_end_who_is_on_the_way() {
    let mut leader = awaiting();
    leader.join(7);
    leader.leave(Some(7), 0);
    leader.wait(2_000);
    assert!(leader.killed.is_empty());
    assert!(matches!(leader.join(8), Answer::Subscribed { session_no: 1, .. }));
    for _ in 0..4 {
        leader.wait(5_000);
        assert_eq!(leader.beat(Some(8), false), Answer::Done {});
    }
    leader.leave(Some(8), 0);
    assert_eq!(leader.killed, BTreeSet::from([TaskId::fresh(5)]));
}
