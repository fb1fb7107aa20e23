//! Defects that the simulator or its making found, each as the shortest run of the real machines that showed it.

use std::collections::BTreeMap;

use meso_core::agent::record::Record;
use meso_core::agent::{self, Agent, Ending, Usage};
use meso_core::id::{AgentId, FrameworkId, MasterId, Nonce, OfferId, Principal, TaskId};
use meso_core::launcher::{self, Launcher};
use meso_core::master::{self, Effect, Event, Master, Reply};
use meso_core::resources::{Resources, parse_request, parse_total};
use meso_core::task::TaskState;
use meso_core::wire::agent::{Command, Hello, Invitation, Order, Welcome};
use meso_core::wire::call::{Accept, Answer, Call, Claim, Demand, Push, Subscribe, TaskToken};
use meso_core::wire::{Launch, LaunchId, Offer, RefusalCode, Task, Update};

fn nonce(number: u64) -> Nonce {
    Nonce::fresh(number, number)
}

fn agent_config(generation: u64) -> agent::Config {
    agent::Config {
        agent: AgentId::fresh(1),
        incarnation: nonce(generation),
        secret: nonce(100 + generation),
        generation,
        host: "h".to_owned(),
        attrs: BTreeMap::new(),
        total: parse_total("cpus=4,mem=1024,ports=[31000-31003]").expect("plain resources"),
        boot_id: "boot".to_owned(),
        isolation: "processes".to_owned(),
        version: "test".to_owned(),
        jitter_ms: 500,
    }
}

fn launch(epoch: u64, no: u64, resources: &str) -> Launch {
    let spec = Task { argv: vec!["work".to_owned()], cpus: parse_request("cpus=1").expect("a plain request").cpus, ..Task::default() };
    Launch {
        launch: LaunchId { epoch, offer: OfferId::fresh(no), index: 0 },
        no,
        cancelled: false,
        task: TaskId::fresh(no),
        framework: FrameworkId::fresh(1),
        framework_name: None,
        principal: Principal::parse("p").expect("a plain name"),
        role: Default::default(),
        resources: parse_total(resources).expect("plain resources"),
        token: nonce(no),
        revocable: false,
        lent: false,
        spec,
    }
}

fn records(effects: &[agent::Effect]) -> Vec<Record> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            agent::Effect::Persist(record) => Some(record.clone()),
            _ => None,
        })
        .collect()
}

fn hello_of(effects: &[agent::Effect]) -> Hello {
    let found = effects.iter().find_map(|effect| match effect {
        agent::Effect::Hello(hello) => Some((**hello).clone()),
        _ => None,
    });
    found.expect("it registers")
}

fn welcome(epoch: u64) -> agent::Event {
    agent::Event::Welcome(Some(Welcome::Welcome { epoch, master: MasterId::fresh(1), beat_ms: 5_000, timeout_ms: None }))
}

fn command(config: &agent::Config, epoch: u64, order: Order) -> agent::Event {
    agent::Event::Command(Command { epoch, incarnation: config.incarnation.clone(), order })
}

/// An agent that has joined under epoch 1.
fn joined() -> (Agent, agent::Config) {
    let config = agent_config(1);
    let mut agent = Agent::new(config.clone(), 0);
    agent.step(0, agent::Event::Tick);
    agent.step(1, welcome(1));
    agent.step(2, welcome(1));
    assert!(agent.joined());
    (agent, config)
}

/// Under epoch 1 an agent that reports nothing else is taken in; `hello` is what it says, fenced and numbered by the caller.
struct Leader {
    master: Master,
    now_ms: u64,
    calls: u64,
}

impl Leader {
    fn new(epoch: u64) -> Self {
        let mut master = Master::new(master::Config::new(MasterId::fresh(9), "h".to_owned(), "test".to_owned()));
        master.step(0, Event::Lead { epoch, seed: [1, 2], registry: BTreeMap::new() });
        Leader { master, now_ms: 0, calls: 0 }
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        self.now_ms += 1;
        let mut effects = self.master.step(self.now_ms, event);
        effects.extend(self.master.step(self.now_ms, Event::Tick));
        effects
    }

    fn hello(&mut self, hello: Hello) -> Vec<Effect> {
        self.step(Event::Hello { caller: 1, hello: Box::new(hello) })
    }

    fn call(&mut self, call: Call) -> (Answer, Vec<Effect>) {
        self.calls += 1;
        let caller = self.calls;
        let effects = self.step(Event::Call { caller, principal: Principal::parse("p").expect("a plain name"), call: Box::new(call) });
        let answer = effects.iter().find_map(|effect| match effect {
            Effect::Reply { caller: to, reply: Reply::Answer(answer) } if *to == caller => Some(answer.clone()),
            _ => None,
        });
        (answer.expect("a call is answered"), effects)
    }

    /// A framework that wants one task; what it is offered.
    fn subscribe(&mut self) -> Vec<Offer> {
        let demand = Demand { request: parse_request("cpus=1").expect("a plain request"), count: 1, ..Demand::default() };
        let (answer, effects) = self.call(Call::Subscribe(Subscribe {
            v: meso_core::wire::PROTOCOL,
            framework: FrameworkId::fresh(1),
            session: nonce(50),
            session_no: 0,
            member: None,
            guest: false,
            takeover: false,
            name: None,
            role: Default::default(),
            who: "test".to_owned(),
            demand: Some(demand),
            failover_ms: 0,
            on_unreachable: None,
            claims: Vec::new(),
        }));
        assert!(matches!(answer, Answer::Subscribed { .. }));
        offers(&effects)
    }

    fn accept(&mut self, epoch: u64, offer: &OfferId, task: u64) -> (Answer, Vec<Effect>) {
        let mut wanted = launch(epoch, task, "cpus=1").spec;
        wanted.id = Some(TaskId::fresh(task));
        let accept = Accept {
            member: None,
            framework: FrameworkId::fresh(1),
            session: nonce(50),
            epoch,
            offers: vec![offer.clone()],
            agent: AgentId::fresh(1),
            tasks: vec![TaskToken { task: wanted, token: nonce(task) }],
            refuse_ms: 0,
        };
        self.call(Call::Accept(accept))
    }
}

fn offers(effects: &[Effect]) -> Vec<Offer> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Push { push: Push::Offers { offers, .. }, .. } => Some(offers.clone()),
            _ => None,
        })
        .flatten()
        .collect()
}

fn launches(effects: &[Effect]) -> Vec<Launch> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Command { command: Command { order: Order::Launch { launches }, .. }, .. } => Some(launches.clone()),
            _ => None,
        })
        .flatten()
        .collect()
}

fn published(effects: &[Effect]) -> Vec<Update> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Publish(update) | Effect::Settle { update, .. } => Some((**update).clone()),
            _ => None,
        })
        .collect()
}

/// A registration of an idle agent that obeys this epoch.
fn idle_hello(epoch: u64, no: u64) -> Hello {
    let mut agent = Agent::new(agent_config(1), 0);
    let mut hello = hello_of(&agent.step(0, agent::Event::Tick));
    hello.max_epoch = epoch;
    hello.no = no;
    hello
}

/// A leader of epoch 1 with one agent, and a framework with one running task on it.
fn running() -> (Leader, Launch) {
    let mut leader = Leader::new(1);
    leader.hello(idle_hello(0, 1));
    leader.hello(idle_hello(1, 2));
    let offer = leader.subscribe().pop().expect("the agent is offered");
    let (answer, effects) = leader.accept(1, &offer.id, 7);
    assert!(matches!(answer, Answer::Accepted { .. }));
    let ordered = launches(&effects).pop().expect("the task is ordered");
    (leader, ordered)
}

/// The first status of a launched task, as its agent makes it.
fn first_status(launch: &Launch) -> Update {
    let (mut agent, config) = joined();
    agent.step(10, command(&config, 1, Order::Launch { launches: vec![launch.clone()] }));
    let effects = agent.step(11, agent::Event::Started { task: launch.task.clone() });
    let sent = effects.iter().find_map(|effect| match effect {
        agent::Effect::Send(update) => Some((**update).clone()),
        _ => None,
    });
    sent.expect("a status is sent")
}

/// Shows that an agent which is welcomed under a new epoch writes it down and registers once more: what it told before
/// could still be changed by a command of the leader before.
#[test]
fn an_agent_obeys_before_it_is_believed() {
    let (mut agent, config) = joined();
    agent.step(10, agent::Event::Invitation(Invitation { epoch: 2, master: MasterId::fresh(2) }));
    let told = hello_of(&agent.step(510, agent::Event::Tick));
    assert_eq!((told.max_epoch, told.tasks.len()), (1, 0));
    let late = agent.step(511, command(&config, 1, Order::Launch { launches: vec![launch(1, 1, "cpus=1")] }));
    assert!(late.iter().any(|effect| matches!(effect, agent::Effect::Launch(_))), "epoch 1 is still obeyed");
    let effects = agent.step(512, welcome(2));
    assert_eq!(records(&effects), [Record::Epoch { epoch: 2, timeout_ms: None }]);
    let again = hello_of(&effects);
    assert_eq!((again.max_epoch, again.tasks.len()), (2, 1));
    let stale = agent.step(513, command(&config, 1, Order::Launch { launches: vec![launch(1, 2, "cpus=1")] }));
    assert!(records(&stale).is_empty() && agent.refused_stale == 1);
}

/// Shows that a leader believes no registration which was made under an earlier epoch, nor claims anything from it.
#[test]
fn a_leader_believes_only_who_obeys_it() {
    let mut leader = Leader::new(2);
    let claim = Claim { task: TaskId::fresh(7), agent: AgentId::fresh(1), epoch: 1, seq: 0 };
    let effects = leader.hello(idle_hello(1, 1));
    assert!(matches!(effects[..], [Effect::Reply { reply: Reply::Welcome(Welcome::Welcome { epoch: 2, .. }), .. }]), "{effects:?}");
    assert_eq!(leader.subscribe(), []);
    let reconcile = Call::Reconcile { framework: FrameworkId::fresh(1), session: nonce(50), tasks: vec![claim], member: None, asked: Vec::new() };
    let (_, effects) = leader.call(reconcile);
    assert_eq!(published(&effects), []);
    let effects = leader.hello(idle_hello(2, 2));
    assert_eq!(offers(&effects).len(), 1);
    let words: Vec<TaskState> = published(&effects).iter().map(|update| update.state).collect();
    assert_eq!(words, [TaskState::Dropped], "now it is certain, and it is said where all statuses are");
}

/// Shows that a leader whose epoch an agent obeys without having been told by it takes a higher one: the store was lost,
/// and the number was another leader's.
#[test]
fn a_number_of_another_leader_is_not_used() {
    let mut leader = Leader::new(1);
    let effects = leader.hello(idle_hello(1, 1));
    assert!(matches!(effects[..], [Effect::RaiseAbove { epoch: 1 }]), "{effects:?}");
    leader.step(Event::Raised { epoch: 2 });
    leader.hello(idle_hello(1, 2));
    assert!(leader.hello(idle_hello(2, 3)).iter().any(|effect| matches!(effect, Effect::Registry { .. })));
}

/// Shows that a registration which comes twice, or after a later one, drops no task that runs.
#[test]
fn a_repeated_registration_changes_nothing() {
    let (mut leader, ordered) = running();
    let update = first_status(&ordered);
    leader.step(Event::Status { agent: AgentId::fresh(1), update: Box::new(update) });
    for no in [1, 2] {
        let effects = leader.hello(idle_hello(1, no));
        assert_eq!(published(&effects), []);
    }
    assert_eq!(leader.master.lead().map(|lead| lead.tasks().len()), Some(1));
}

/// Shows that a status which overtook the registration made before it keeps its task.
#[test]
fn a_status_may_overtake_a_registration() {
    let (mut leader, ordered) = running();
    let update = first_status(&ordered);
    leader.step(Event::Status { agent: AgentId::fresh(1), update: Box::new(update) });
    let effects = leader.hello(idle_hello(1, 3));
    assert_eq!(published(&effects), []);
    assert_eq!(leader.master.lead().map(|lead| lead.tasks().len()), Some(1));
    assert_eq!(leader.master.lead().map(|lead| lead.ledger().check()), Some(Ok(())));
}

/// Shows that a task under way is ordered again when its agent does not tell it, also after a word of the master's own
/// about it came back to the master.
#[test]
fn a_task_under_way_is_ordered_again() {
    let (mut leader, ordered) = running();
    let silent = leader.now_ms + 80_000;
    leader.now_ms = silent;
    let words = published(&leader.step(Event::Tick));
    assert_eq!(words.iter().map(|update| update.state).collect::<Vec<_>>(), [TaskState::Unreachable]);
    for word in words {
        leader.step(Event::Status { agent: AgentId::fresh(1), update: Box::new(word) });
    }
    let effects = leader.hello(idle_hello(1, 3));
    assert_eq!(published(&effects), []);
    assert_eq!(launches(&effects).iter().map(|launch| &launch.launch).collect::<Vec<_>>(), [&ordered.launch]);
}

/// Shows that an accept which is repeated after its answer was forgotten is not said to be gone while its task is known.
#[test]
fn a_late_repeated_accept_is_answered_yes() {
    let (mut leader, ordered) = running();
    leader.step(Event::Status { agent: AgentId::fresh(1), update: Box::new(first_status(&ordered)) });
    for _ in 0..40 {
        leader.now_ms += 5_000;
        let (answer, _) = leader.call(Call::Beat { framework: FrameworkId::fresh(1), session: nonce(50), member: None, sated: false });
        assert!(matches!(answer, Answer::Done {}));
    }
    let (answer, effects) = leader.accept(1, &ordered.launch.offer, 7);
    assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    assert_eq!(launches(&effects), []);
}

/// Shows that nothing is said of a task whose agent nobody knows: the registry was lost, and the task may run on.
#[test]
fn a_task_on_an_unknown_agent_is_not_given_up() {
    let mut leader = Leader::new(2);
    leader.subscribe();
    let claim = Claim { task: TaskId::fresh(7), agent: AgentId::fresh(1), epoch: 1, seq: 0 };
    leader.now_ms += 1_000_000;
    leader.subscribe();
    let (_, effects) = leader.call(Call::Reconcile { framework: FrameworkId::fresh(1), session: nonce(50), tasks: vec![claim], member: None, asked: Vec::new() });
    assert_eq!(published(&effects), []);
}

/// Shows that the tasks of a framework which speaks are not ended because no answer of a new leader reaches it.
#[test]
fn a_framework_that_speaks_is_not_gone() {
    let mut leader = Leader::new(2);
    leader.hello(idle_hello(1, 1));
    let mut hello = idle_hello(2, 2);
    let (mut agent, config) = joined();
    agent.step(10, command(&config, 1, Order::Launch { launches: vec![launch(1, 1, "cpus=1")] }));
    hello.tasks = hello_of(&agent.step(11, agent::Event::Beaten(None))).tasks;
    assert_eq!(hello.tasks.len(), 1);
    leader.hello(hello);
    let kills = |effects: &[Effect]| effects.iter().filter(|effect| matches!(effect, Effect::Command { command: Command { order: Order::Kill { .. }, .. }, .. })).count();
    for _ in 0..10 {
        leader.now_ms += 4_000;
        let (answer, effects) = leader.call(Call::Beat { framework: FrameworkId::fresh(1), session: nonce(50), member: None, sated: false });
        assert!(matches!(answer, Answer::Refused(_)));
        assert_eq!(kills(&effects), 0);
    }
    leader.now_ms += 16_000;
    assert_eq!(kills(&leader.step(Event::Tick)), 1, "silence ends it");
}

/// Shows that a master which stood down never leads again under that epoch.
#[test]
fn a_burnt_epoch_stays_burnt() {
    let mut leader = Leader::new(3);
    leader.step(Event::StepDown);
    leader.step(Event::Lead { epoch: 3, seed: [1, 2], registry: BTreeMap::new() });
    assert_eq!(leader.master.epoch(), None);
    leader.step(Event::Lead { epoch: 4, seed: [1, 2], registry: BTreeMap::new() });
    assert_eq!(leader.master.epoch(), Some(4));
}

/// Shows that a kill which was written down and not passed on before a crash is passed on by the next process.
#[test]
fn a_kill_survives_a_crash() {
    let (mut agent, config) = joined();
    let mut log = records(&agent.step(10, command(&config, 1, Order::Launch { launches: vec![launch(1, 1, "cpus=1")] })));
    log.extend(records(&agent.step(20, agent::Event::Started { task: TaskId::fresh(1) })));
    let kill = Order::Kill { task: TaskId::fresh(1), grace_ms: Some(700), reason: "kill_requested".to_owned() };
    log.extend(records(&agent.step(30, command(&config, 1, kill.clone()))));
    let config = agent_config(2);
    let mut agent = Agent::recover(config.clone(), 0, log);
    let kills = |effects: &[agent::Effect]| effects.iter().filter(|effect| matches!(effect, agent::Effect::Kill { grace_ms: 700, .. })).count();
    assert_eq!(kills(&agent.step(0, agent::Event::Tick)), 1);
    agent.step(1, welcome(1));
    assert_eq!(kills(&agent.step(2, command(&config, 1, kill))), 0, "it is under way");
}

/// Shows that a refused launch whose ports clash leaves what the agent counts as used as it was.
#[test]
fn a_clash_of_ports_frees_nothing() {
    let (mut agent, config) = joined();
    let held = "cpus=3,ports=[31000-31001]";
    agent.step(10, command(&config, 1, Order::Launch { launches: vec![launch(1, 1, held)] }));
    let refused = agent.step(11, command(&config, 1, Order::Launch { launches: vec![launch(1, 2, "cpus=1,ports=[31001]")] }));
    assert!(!refused.iter().any(|effect| matches!(effect, agent::Effect::Launch(_))));
    assert_eq!(*agent.used(), parse_total(held).expect("plain resources"));
    agent.step(12, agent::Event::Ended { task: TaskId::fresh(1), ending: Ending::Exited { code: Some(0), signal: None }, usage: Usage::default() });
    assert_eq!(*agent.used(), Resources::default());
}

/// Shows that invitations which are repeated do not put a registration off.
#[test]
fn repeated_invitations_do_not_put_off() {
    let (mut agent, _) = joined();
    for at_ms in (1_000..1_500).step_by(100) {
        let effects = agent.step(at_ms, agent::Event::Invitation(Invitation { epoch: 2, master: MasterId::fresh(2) }));
        assert!(effects.is_empty());
    }
    assert_eq!(agent.deadline(), Some(1_500));
}

fn launcher() -> Launcher {
    let config = launcher::Config {
        framework: FrameworkId::fresh(1),
        session: nonce(50),
        session_no: 0,
        member: None,
        guest: false,
        per_offer_max: u32::MAX,
        name: None,
        role: Default::default(),
        who: "test".to_owned(),
        request: parse_request("cpus=1").expect("a plain request"),
        condition: String::new(),
        revocable: false,
        on: None,
        at_once_max: 4,
        retries: 0,
        retries_lost: 0,
        start_deadline_ms: None,
        failover_ms: 0,
        seed: [3, 4],
    };
    let mut launcher = Launcher::new(config, 0);
    launcher.step(0, launcher::Event::Job(Box::new(launcher::Job { index: 1, task: launch(1, 1, "cpus=1").spec })));
    launcher
}

fn subscribed() -> Answer {
    Answer::Subscribed { session_no: 1, seen: 0, seen_ms: 0, framework: FrameworkId::fresh(1), epoch: 1, master: MasterId::fresh(1), beat_ms: 5_000, session_ms: 15_000, agents: 1, recovered: false }
}

fn offered() -> Push {
    let offer = Offer {
        id: OfferId::fresh(1),
        agent: AgentId::fresh(1),
        host: "h".to_owned(),
        resources: parse_total("cpus=1").expect("plain resources"),
        attrs: BTreeMap::new(),
        expires_ms: 0,
        lives_ms: 1,
        revocable: false,
    };
    Push::Offers { epoch: 1, session: nonce(50), offers: vec![offer] }
}

/// Shows that the fate of tasks is asked for again within seconds where nobody answered, and then no sooner than usual.
#[test]
fn fates_are_asked_for_until_answered() {
    let mut launcher = launcher();
    launcher.step(1, launcher::Event::Answer { no: 1, answer: Some(subscribed()) });
    let is_reconcile = |call: &Call| matches!(call, Call::Reconcile { .. });
    let accept = launcher.step(2, launcher::Event::Push(offered())).into_iter().find_map(|effect| match effect {
        launcher::Effect::Call { no, call } => match *call {
            Call::Accept(accept) => Some((no, accept.tasks[0].task.id.clone().expect("it has one"))),
            _ => None,
        },
        _ => None,
    });
    let (no, task) = accept.expect("it takes the offer");
    launcher.step(3, launcher::Event::Answer { no, answer: Some(Answer::Accepted { tasks: vec![task] }) });
    let mut asked = Vec::new();
    let mut event = launcher::Event::Gap;
    for at_ms in (10..70_000).step_by(10) {
        for effect in launcher.step(at_ms, event) {
            let launcher::Effect::Call { no, call } = effect else { continue };
            asked.extend(is_reconcile(&call).then_some(at_ms));
            let answer = if is_reconcile(&call) && asked.len() <= 2 { None } else { Some(Answer::Done {}) };
            launcher.step(at_ms, launcher::Event::Answer { no, answer });
        }
        event = launcher::Event::Tick;
    }
    assert_eq!(asked, [10, 2_010, 6_010, 36_010, 66_010]);
}

/// Shows that a launcher which waits for an answer names no time that has passed, so that its driver does not spin.
#[test]
fn a_launcher_that_waits_does_not_spin() {
    let mut launcher = launcher();
    assert_eq!(launcher.deadline(), None, "its registration is under way");
    launcher.step(1, launcher::Event::Answer { no: 1, answer: Some(subscribed()) });
    let beat_ms = launcher.deadline().expect("it beats");
    let refused = Answer::Refused(meso_core::wire::Refusal::new(RefusalCode::UnknownFramework, "gone"));
    let effects = launcher.step(beat_ms, launcher::Event::Tick);
    let no = effects.iter().find_map(|effect| match effect {
        launcher::Effect::Call { no, .. } => Some(*no),
        _ => None,
    });
    launcher.step(beat_ms + 1, launcher::Event::Answer { no: no.expect("the beat"), answer: Some(refused) });
    let again_ms = launcher.deadline().expect("it registers again");
    launcher.step(again_ms, launcher::Event::Tick);
    assert!(launcher.deadline().is_none_or(|at_ms| at_ms > again_ms));
}

/// Shows that an unmet demand is said again, in case the one before was lost or overtaken.
#[test]
fn a_demand_is_said_again() {
    let mut launcher = launcher();
    launcher.step(1, launcher::Event::Answer { no: 1, answer: Some(subscribed()) });
    let mut said = 0;
    for at_ms in (1_000..100_000).step_by(1_000) {
        for effect in launcher.step(at_ms, launcher::Event::Tick) {
            if let launcher::Effect::Call { no, call } = effect {
                said += u32::from(matches!(*call, Call::Demand { .. }));
                launcher.step(at_ms, launcher::Event::Answer { no, answer: Some(Answer::Done {}) });
            }
        }
    }
    assert!((2..=4).contains(&said), "{said}");
}

/// Shows that a launcher which leaves ends the session though it never had an answer, and is silent afterwards.
#[test]
fn a_launcher_leaves_what_it_may_have_begun() {
    let mut launcher = launcher();
    launcher.step(1, launcher::Event::Cancel);
    let effects = launcher.step(2, launcher::Event::Leave);
    let no = effects.iter().find_map(|effect| match effect {
        launcher::Effect::Call { no, call } if matches!(**call, Call::Leave { .. }) => Some(*no),
        _ => None,
    });
    let no = no.expect("it says that it leaves");
    assert!(launcher.step(3, launcher::Event::Answer { no, answer: None }).contains(&launcher::Effect::Left));
    assert_eq!(launcher.step(4, launcher::Event::Push(offered())), []);
}
