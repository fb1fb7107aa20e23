//! The head of a pipeline on a record of statuses that lost its end, or that is another framework's now.

use std::rc::Rc;

use meso_core::id::{AgentId, FrameworkId, MasterId, Nonce, Principal, TaskId};
use meso_core::offerer::{Config, Effect, Event, Offerer, Place, Shows};
use meso_core::resources::Request;
use meso_core::task::TaskState;
use meso_core::wire::ack::AckId;
use meso_core::wire::call::{Answer, Call, Push};
use meso_core::wire::{Refusal, RefusalCode, Update, Wall};
use meso_sim::stream::SimStream;

const BEAT_MS: u64 = 60_000;

fn framework(number: u64) -> FrameworkId {
    FrameworkId::fresh(number)
}

/// A status as an agent says it.
fn status(task: u64, seq: u64, state: TaskState) -> Update {
    Update {
        agent: Some(AgentId::fresh(1)),
        state,
        is_final: state.is_final(),
        seq,
        agent_seq: seq,
        ..Update::blank(&TaskId::fresh(task), &framework(1), &Principal::parse("p").expect("a plain name"), Wall(0))
    }
}

/// A head whose reader takes every line at once and acknowledges by hand.
struct Head {
    machine: Offerer,
    now_ms: u64,
    /// What was told to the leader last: up to where all is seen.
    seen: Option<u64>,
    follows: Vec<u64>,
    subscribes: u64,
    /// The leader does not know the framework.
    is_unknown: bool,
}

impl Head {
    fn new() -> Self {
        let config = Config {
            framework: framework(1),
            session: Nonce::fresh(1, 1),
            name: None,
            takeover: false,
            standby: false,
            role: Default::default(),
            who: "test".to_owned(),
            request: Request::default(),
            condition: String::new(),
            revocable: false,
            failover_ms: 0,
            on_unreachable: None,
            open_max: 4,
            grace_ms: 2_000,
            ordered: true,
            shows: Shows { offers: false, updates: true, tasks: false, rescinds: false, inverses: false, failures: false, heartbeats: false },
            statuses_apart: false,
            manual_acks: true,
            once: None,
        };
        let mut head = Head { machine: Offerer::new(config, 0), now_ms: 0, seen: None, follows: Vec::new(), subscribes: 0, is_unknown: false };
        head.step(Event::Tick { unread: Some(0) });
        head
    }

    fn step(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.machine.step(self.now_ms, event) {
                match effect {
                    Effect::Call { no, call } => match *call {
                        Call::Subscribe(_) => self.subscribes = no,
                        Call::Seen { upto, .. } => {
                            self.seen = Some(upto);
                            events.push(Event::Answer { no, answer: Some(Answer::Done {}) });
                        }
                        Call::Beat { .. } if self.is_unknown => {
                            let refusal = Refusal::new(RefusalCode::UnknownFramework, "not registered");
                            events.push(Event::Answer { no, answer: Some(Answer::Refused(refusal)) });
                        }
                        _ => events.push(Event::Answer { no, answer: Some(Answer::Done {}) }),
                    },
                    Effect::Follow { after } => self.follows.push(after.seq),
                    _ => {}
                }
            }
            while self.machine.line(self.now_ms, Wall(self.now_ms)).is_some() {
                self.machine.step(self.now_ms, Event::Wrote { bytes: 100 });
            }
        }
    }

    /// The leader takes the registration in.
    fn subscribed(&mut self, framework: FrameworkId, epoch: u64, seen: u64) {
        let answer = Answer::Subscribed { session_no: 1, seen, seen_ms: 0, framework, epoch, master: MasterId::fresh(1), beat_ms: BEAT_MS, session_ms: 15_000, agents: 1, recovered: false };
        self.step(Event::Answer { no: self.subscribes, answer: Some(answer) });
    }

    fn reads(&mut self, place: u64, update: Update) {
        self.step(Event::Status { update: Box::new(update), place: Place { seq: place, recorded_ms: self.now_ms } });
    }

    fn acks(&mut self, task: u64, seq: u64) {
        let ack = AckId { framework: framework(1), task: TaskId::fresh(task), seq };
        self.step(Event::Push(Push::Acked { acks: vec![ack] }));
    }

    /// Some seconds later, what it says is how far all was seen.
    fn seen(&mut self) -> Option<u64> {
        self.now_ms += 5_000;
        self.step(Event::Tick { unread: Some(0) });
        self.seen
    }
}

/// Shows that places which a record gives anew count as seen only once what is there now was acknowledged, and that the
/// leader is told of them though they are further back.
#[test]
fn a_record_that_lost_its_end() {
    let mut head = Head::new();
    head.subscribed(framework(1), 1, 0);
    head.reads(1, status(1, 1, TaskState::Running));
    head.reads(2, status(2, 1, TaskState::Running));
    head.reads(3, status(3, 1, TaskState::Running));
    head.acks(1, 1);
    head.acks(2, 1);
    assert_eq!(head.seen(), Some(2));
    // Places 2 and 3 are lost, and given to others.
    head.reads(2, status(2, 2, TaskState::Finished));
    head.acks(3, 1);
    assert_eq!(head.seen(), Some(1));
    head.acks(2, 2);
    assert_eq!(head.seen(), Some(2));
    // What is still there, and is read once more, is where it was.
    head.reads(3, status(4, 1, TaskState::Running));
    head.reads(3, status(4, 1, TaskState::Running));
    assert_eq!(head.seen(), Some(2));
    head.acks(4, 1);
    assert_eq!(head.seen(), Some(3));
}

/// Shows that a head whose name is another framework's by now reads the record of that one, from where that one was seen.
#[test]
fn another_frameworks_record() {
    let mut head = Head::new();
    head.subscribed(framework(1), 1, 0);
    head.reads(7, status(1, 1, TaskState::Running));
    head.acks(1, 1);
    assert_eq!((head.seen(), head.follows.clone()), (Some(7), vec![0]));
    head.is_unknown = true;
    for _ in 0..3 {
        head.now_ms += BEAT_MS;
        head.step(Event::Tick { unread: Some(0) });
    }
    head.is_unknown = false;
    head.subscribed(framework(2), 2, 4);
    assert_eq!(head.follows, [0, 4]);
    head.seen = None;
    assert_eq!(head.seen(), None, "nothing of that record was read");
}

/// Shows that a session which is told a place where something else stands by now reads what nobody has seen.
#[test]
fn a_place_that_was_given_anew() {
    let mut record = SimStream::default();
    let store = |record: &mut SimStream, task, at_ms| assert!(record.store(&Rc::new(status(task, 1, TaskState::Running)), at_ms));
    store(&mut record, 1, 1_000);
    let kept = record.upto();
    store(&mut record, 2, 29_000);
    store(&mut record, 3, 30_000);
    let seen = record.place(&framework(1), 3);
    assert_eq!(record.begin(&framework(1), seen), 3);
    record.revert(kept);
    for task in 4..=6 {
        store(&mut record, task, 40_000 + task);
    }
    let begins = record.begin(&framework(1), seen);
    let read: Vec<TaskId> = record.after(&framework(1), begins).iter().map(|update| update.task.clone()).collect();
    assert_eq!(read, [4, 5, 6].map(TaskId::fresh));
}
