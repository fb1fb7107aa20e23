use std::collections::BTreeMap;

use super::*;
use crate::id::{AgentId, MasterId, Name, Principal};
use crate::resources::{Milli, Request, Resources};
use crate::role::Role;
use crate::task::TaskState;
use crate::wire::ack::AckId;
use crate::wire::call::{Answer, Push};
use crate::wire::{Offer, Refusal, RefusalCode, Update, Wall};

/// A machine with a clock and a pipe of its own.
struct Rig {
    machine: Offerer,
    now_ms: u64,
    /// Bytes in the pipe that nobody took.
    unread: u64,
    calls: Vec<(u64, Call)>,
    ends: Vec<End>,
    effects: Vec<Effect>,
}

const LINE_BYTES: u64 = 400;

/// A place in the record, and what was recorded there.
fn at(seq: u64) -> Place {
    Place { seq, recorded_ms: 10 * seq }
}

fn config() -> Config {
    Config {
        framework: FrameworkId::parse("fw_1").expect("an id"),
        session: Nonce::fresh(1, 2),
        name: None,
        takeover: false,
        standby: false,
        role: Role::default(),
        who: "ann@here:1".to_owned(),
        request: Request::default(),
        condition: String::new(),
            revocable: false,
        failover_ms: 0,
        on_unreachable: None,
        open_max: 16,
        grace_ms: 2_000,
        ordered: true,
        shows: Shows { offers: true, updates: true, tasks: true, rescinds: true, inverses: true, failures: true, heartbeats: false },
        statuses_apart: false,
        manual_acks: false,
        once: None,
    }
}

fn id(number: u64) -> OfferId {
    OfferId::parse(&format!("offer_{number}")).expect("an id")
}

fn offer(number: u64) -> Offer {
    Offer {
        id: id(number),
        agent: AgentId::parse(&format!("agent_{number}")).expect("an id"),
        host: "h".to_owned(),
        resources: Resources { cpus: Milli::units(1), ..Resources::default() },
        attrs: BTreeMap::new(),
        expires_ms: 0,
        lives_ms: 30_000,
            revocable: false,
    }
}

fn update(task: &str, seq: u64, state: TaskState) -> Update {
    Update {
        agent: Some(AgentId::parse("agent_1").expect("an id")),
        host: "h".to_owned(),
        state,
        is_final: state.is_final(),
        seq,
        agent_seq: seq,
        ..Update::blank(&TaskId::parse(task).expect("an id"), &FrameworkId::parse("fw_1").expect("an id"), &Principal::parse("ann").expect("a principal"), Wall(0))
    }
}

impl Rig {
    fn new(config: Config) -> Self {
        Rig { machine: Offerer::new(config, 0), now_ms: 0, unread: 0, calls: Vec::new(), ends: Vec::new(), effects: Vec::new() }
    }

    /// A session that has begun under a leader of epoch 1.
    fn begun(config: Config) -> Self {
        let mut rig = Rig::new(config);
        rig.tick();
        rig.answer_subscribe(1, false);
        rig.step(Event::Snapshot(Vec::new()));
        rig.take_lines(Some(0));
        rig
    }

    fn step(&mut self, event: Event) {
        for effect in self.machine.step(self.now_ms, event) {
            match effect {
                Effect::Call { no, call } => self.calls.push((no, *call)),
                Effect::End(end) => self.ends.push(end),
                other => self.effects.push(other),
            }
        }
    }

    fn tick(&mut self) {
        self.step(Event::Tick { unread: Some(self.unread) });
    }

    /// Lets time pass, deadline by deadline; every call but subscribe is answered with "done".
    fn pass(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        for _ in 0..100_000 {
            self.answer_done();
            let next = self.machine.deadline().filter(|at_ms| *at_ms <= until_ms);
            let Some(at_ms) = next else {
                self.now_ms = until_ms;
                return self.tick();
            };
            self.now_ms = at_ms.max(self.now_ms);
            self.tick();
        }
        panic!("the machine never comes to rest");
    }

    fn answer_done(&mut self) {
        let waiting: Vec<u64> = self.machine.calls.iter().filter(|(_, asked)| **asked != Asked::Subscribe).map(|(no, _)| *no).collect();
        for no in waiting {
            self.step(Event::Answer { no, answer: Some(Answer::Done {}) });
        }
    }

    fn subscribe_no(&self) -> u64 {
        *self.machine.calls.iter().find(|(_, asked)| **asked == Asked::Subscribe).expect("it subscribes").0
    }

    fn answer_subscribe(&mut self, epoch: u64, recovered: bool) {
        let answer = Answer::Subscribed {
            framework: FrameworkId::parse("fw_1").expect("an id"),
            epoch,
            master: MasterId::parse("master_1").expect("an id"),
            beat_ms: 5_000,
            session_ms: 15_000,
            agents: 1,
            recovered,
            session_no: 1,
            seen: 7,
            seen_ms: 70,
        };
        let no = self.subscribe_no();
        self.step(Event::Answer { no, answer: Some(answer) });
    }

    fn refuse_subscribe(&mut self, code: RefusalCode) {
        let no = self.subscribe_no();
        self.step(Event::Answer { no, answer: Some(Answer::Refused(Refusal::new(code, "why"))) });
    }

    fn offer(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let offers = numbers.into_iter().map(offer).collect();
        self.step(Event::Push(Push::Offers { epoch: self.machine.epoch, session: Nonce::fresh(1, 2), offers }));
    }

    /// Writes all lines that there are; the reader leaves so many bytes of them unread, or takes nothing.
    fn take_lines(&mut self, left: Option<u64>) -> Vec<Line> {
        let mut lines = Vec::new();
        while let Some(line) = self.machine.line(self.now_ms, Wall(1_000_000 + self.now_ms)) {
            lines.push(line);
            self.unread += LINE_BYTES;
            self.step(Event::Wrote { bytes: LINE_BYTES });
        }
        if let Some(left) = left {
            self.unread = left;
        }
        self.tick();
        lines
    }

    fn declined(&mut self) -> Vec<(OfferId, bool)> {
        let mut declined = Vec::new();
        for (_, call) in self.calls.drain(..) {
            if let Call::Decline { offers, implicit, .. } = call {
                declined.extend(offers.into_iter().map(|id| (id, implicit)));
            }
        }
        declined
    }

    /// What was last said of what is wanted.
    fn wants(&self) -> Option<bool> {
        self.calls.iter().rev().find_map(|(_, call)| match call {
            Call::Demand { demand, .. } => Some(demand.is_some()),
            Call::Subscribe(subscribe) => Some(subscribe.demand.is_some()),
            _ => None,
        })
    }
}

fn ids(lines: &[Line]) -> Vec<String> {
    lines.iter().filter_map(|line| match line { Line::Offer(offer) => Some(offer.id.clone()), _ => None }).collect()
}

fn rescinds(lines: &[Line]) -> Vec<(String, String)> {
    lines.iter().filter_map(|line| match line { Line::Rescind(line) => Some((line.id.to_string(), line.reason.clone())), _ => None }).collect()
}

fn states(lines: &[Line]) -> Vec<(String, u64, bool)> {
    lines.iter().filter_map(|line| match line { Line::Update(line) => Some((line.task.to_string(), line.seq, line.redelivered)), _ => None }).collect()
}

/// Shows that a session begins with what is wanted, and that offers become lines in their order, numbered.
#[test]
fn offers_become_lines() {
    let mut rig = Rig::new(config());
    rig.tick();
    assert_eq!(rig.wants(), Some(true));
    assert_eq!(rig.machine.line(0, Wall(0)), None);
    rig.answer_subscribe(1, false);
    rig.offer([1, 2]);
    rig.step(Event::Snapshot(Vec::new()));
    let lines = rig.take_lines(Some(0));
    assert!(matches!(&lines[..2], [Line::Hello(hello), Line::Synced(_)] if !hello.recovered), "{lines:?}");
    assert_eq!(ids(&lines), ["offer_1", "offer_2"]);
    assert!(matches!(&lines[3], Line::Offer(line) if line.seq == 2 && line.expires_ms == 1_030_000 && line.ts_ms == 1_000_000), "{lines:?}");
    assert_eq!(rig.effects, [Effect::Registered { agents: 1 }, Effect::Snapshot, Effect::Follow { after: at(7) }]);
}

/// Shows that when a line is used, untouched lines before it are given back and later ones are not, and that order can be turned off.
#[test]
fn a_used_line_declines_those_before_it() {
    for ordered in [true, false] {
        let mut rig = Rig::begun(Config { ordered, ..config() });
        rig.offer([1, 2, 3, 4]);
        rig.take_lines(Some(0));
        rig.calls.clear();
        rig.step(Event::Push(Push::Used { offers: vec![id(3)] }));
        let expected = if ordered { vec![(id(1), true), (id(2), true)] } else { vec![] };
        assert_eq!(rig.declined(), expected);
        assert_eq!(rig.machine.held(), if ordered { 1 } else { 3 });
        // The leader tells of our own decline too: that is no use.
        rig.step(Event::Push(Push::Used { offers: vec![id(1), id(2)] }));
        assert_eq!(rig.machine.held(), 1);
    }
}

/// Shows that a line that was read and left alone is given back after the grace, counted only while there was nothing else to read.
#[test]
fn a_dropped_line_is_declined() {
    let mut rig = Rig::begun(config());
    rig.offer([1, 2]);
    // The reader took the first line and works on it: the second is still in the pipe.
    rig.take_lines(Some(LINE_BYTES));
    rig.calls.clear();
    rig.pass(900);
    rig.unread = 0;
    rig.pass(1_500);
    assert_eq!(rig.declined(), vec![]);
    rig.pass(1_000);
    assert_eq!(rig.declined(), [(id(1), true), (id(2), true)]);
    assert_eq!(rescinds(&rig.take_lines(Some(0))), [("offer_1".to_owned(), "dropped".to_owned()), ("offer_2".to_owned(), "dropped".to_owned())]);
}

/// Shows that a reader that works on each line as it takes it is given time by how long it took for the last.
#[test]
fn a_slow_loop_is_given_time() {
    let mut rig = Rig::begun(config());
    rig.offer([1, 2]);
    rig.take_lines(Some(LINE_BYTES));
    rig.pass(3_000);
    // Three seconds for the first line; now it works on the second, and nothing else is there to read.
    rig.step(Event::Push(Push::Used { offers: vec![id(1)] }));
    rig.unread = 0;
    rig.pass(100);
    rig.calls.clear();
    rig.pass(4_000);
    assert_eq!(rig.declined(), vec![]);
    rig.pass(4_000);
    assert_eq!(rig.declined(), [(id(2), true)]);
}

/// Shows that statuses that come all the time do not put off that a dropped line is noticed.
#[test]
fn chatter_does_not_hold_offers() {
    let mut rig = Rig::begun(config());
    rig.offer([1]);
    rig.take_lines(Some(0));
    rig.calls.clear();
    for seq in 1..8 {
        rig.pass(300);
        rig.step(Event::Status { update: Box::new(update("t1", seq, TaskState::Running)), place: at(10 + seq) });
        rig.take_lines(Some(0));
    }
    rig.pass(100);
    assert_eq!(rig.declined(), [(id(1), true)]);
}

/// Shows that when the output takes nothing for a second, what waits for it goes back to others, refused for no time, and is wanted again later.
#[test]
fn a_blocked_reader() {
    let mut rig = Rig::begun(config());
    rig.offer([1, 2, 3]);
    assert!(rig.machine.line(rig.now_ms, Wall(0)).is_some());
    rig.unread += LINE_BYTES;
    rig.step(Event::Wrote { bytes: LINE_BYTES });
    assert!(rig.machine.line(rig.now_ms, Wall(0)).is_some());
    rig.step(Event::Blocked);
    rig.calls.clear();
    rig.pass(900);
    assert_eq!(rig.wants(), None);
    rig.pass(200);
    assert_eq!(rig.wants(), Some(false));
    let order: Vec<bool> = rig.calls.iter().filter_map(|(_, call)| match call { Call::Demand { .. } => Some(true), Call::Decline { .. } => Some(false), _ => None }).collect();
    assert_eq!(order, [true, false], "first nothing is wanted, then it is given back");
    assert_eq!(rig.declined(), [(id(2), false), (id(3), false)]);
    rig.unread = 0;
    rig.pass(1_000);
    assert_eq!(rig.wants(), Some(true));
}

/// Shows that a reader that takes nothing at all is offered nothing more after a while, and again once it reads.
#[test]
fn a_reader_that_never_reads() {
    let mut rig = Rig::begun(config());
    rig.offer([1]);
    rig.take_lines(None);
    rig.calls.clear();
    rig.pass(9_000);
    assert_eq!(rig.wants(), None);
    rig.pass(2_000);
    assert_eq!(rig.wants(), Some(false));
    rig.pass(20_000);
    assert_eq!(rig.machine.held(), 0);
    rig.unread = 0;
    rig.pass(1_000);
    assert_eq!(rig.wants(), Some(true));
}

/// Shows that no line is written of an offer that ends within a second.
#[test]
fn no_stale_offers() {
    let mut rig = Rig::begun(config());
    rig.offer([1]);
    rig.calls.clear();
    rig.now_ms += 29_500;
    rig.tick();
    assert_eq!(ids(&rig.take_lines(Some(0))), Vec::<String>::new());
    assert_eq!(rig.declined(), [(id(1), false)]);
}

/// Shows that an offer taken back is told if its line was written, and never becomes a line if not.
#[test]
fn rescinds_are_told() {
    let mut rig = Rig::begun(config());
    rig.offer([1]);
    rig.take_lines(Some(0));
    rig.offer([2]);
    for number in [1, 2] {
        rig.step(Event::Push(Push::Rescind { id: id(number), reason: "agent_lost".to_owned() }));
    }
    let lines = rig.take_lines(Some(0));
    assert_eq!(rescinds(&lines), [("offer_1".to_owned(), "agent_lost".to_owned())]);
    assert_eq!(ids(&lines), Vec::<String>::new());
}

/// Shows that under a new leader all offers are void, that the session comes back with its number, and says hello again.
#[test]
fn a_new_leader() {
    let mut rig = Rig::begun(config());
    rig.offer([1, 2]);
    rig.take_lines(Some(0));
    rig.now_ms += 5_000;
    rig.tick();
    let beat = *rig.machine.calls.iter().find(|(_, asked)| **asked == Asked::Beat).expect("it beats").0;
    rig.step(Event::Answer { no: beat, answer: Some(Answer::Refused(Refusal::new(RefusalCode::UnknownFramework, "who"))) });
    assert_eq!(rig.machine.held(), 0);
    rig.pass(200);
    let again = rig.calls.iter().rev().find_map(|(_, call)| match call { Call::Subscribe(subscribe) => Some(subscribe.clone()), _ => None }).expect("it subscribes again");
    assert_eq!((again.session_no, again.takeover, again.demand.is_some()), (1, false, true));
    rig.answer_subscribe(2, true);
    let lines = rig.take_lines(Some(0));
    assert_eq!(rescinds(&lines).len(), 2);
    assert!(lines.iter().any(|line| matches!(line, Line::Hello(_))), "{lines:?}");
    assert_eq!(rig.effects.iter().filter(|effect| matches!(effect, Effect::Follow { .. })).count(), 1, "the record is read on, not again");
}

/// Shows that a session is begun with a new leader as soon as that one is heard of, once, although a call to the one before is
/// still unanswered; and that nobody who led before is taken for new.
#[test]
fn a_leader_that_is_heard_of() {
    let mut rig = Rig::begun(config());
    let subscribed = |rig: &Rig| rig.calls.iter().filter(|(_, call)| matches!(call, Call::Subscribe(_))).count();
    rig.now_ms += 5_000;
    rig.tick();
    for epoch in [0, 1] {
        rig.step(Event::Led { epoch });
    }
    assert_eq!(subscribed(&rig), 1);
    for _ in 0..3 {
        rig.step(Event::Led { epoch: 2 });
    }
    assert_eq!(subscribed(&rig), 2);
    rig.step(Event::Led { epoch: 3 });
    assert_eq!(subscribed(&rig), 3, "the one before has not answered, and will not");
    rig.answer_subscribe(3, true);
    assert!(rig.machine.subscribed);
    rig.step(Event::Led { epoch: 3 });
    assert_eq!(subscribed(&rig), 3);
}

/// Shows that offers of an epoch below the session's are not told, and that the session is begun anew with whoever leads, who may count
/// from an older state of a bus that lost the newer one.
#[test]
fn an_epoch_below() {
    let mut rig = Rig::new(config());
    rig.tick();
    rig.answer_subscribe(5, false);
    rig.step(Event::Snapshot(Vec::new()));
    rig.take_lines(Some(0));
    let subscribed = |rig: &Rig| rig.calls.iter().filter(|(_, call)| matches!(call, Call::Subscribe(_))).count();
    let offers = |number| Event::Push(Push::Offers { epoch: 4, session: config().session, offers: vec![offer(number)] });
    rig.step(offers(1));
    rig.step(offers(2));
    assert!(ids(&rig.take_lines(Some(0))).is_empty());
    assert_eq!(subscribed(&rig), 2, "once, however many come");
    assert!(rig.machine.subscribed, "what is declined meanwhile is said");
    rig.answer_subscribe(4, true);
    rig.step(Event::Snapshot(Vec::new()));
    rig.step(offers(3));
    assert_eq!(ids(&rig.take_lines(Some(0))), ["offer_3"]);
}

/// Shows that statuses are told in order and once each, the next of a task when the one before was read, and how far they were seen is said.
#[test]
fn statuses_are_told_once() {
    let mut rig = Rig::begun(config());
    for (task, seq, state, stream_seq) in [("t1", 1, TaskState::Starting, 8), ("t1", 2, TaskState::Running, 9), ("t2", 1, TaskState::Starting, 10), ("t1", 2, TaskState::Running, 11)] {
        rig.step(Event::Status { update: Box::new(update(task, seq, state)), place: at(stream_seq) });
    }
    assert_eq!(states(&rig.take_lines(None)), [("t1".to_owned(), 1, false), ("t2".to_owned(), 1, false)]);
    rig.pass(20_000);
    assert_eq!(states(&rig.take_lines(None)), [], "what lies in the pipe is not written again");
    assert!(!rig.calls.iter().any(|(_, call)| matches!(call, Call::Seen { upto, .. } if *upto > 7)));
    rig.unread = 0;
    rig.pass(1_000);
    assert_eq!(states(&rig.take_lines(Some(0))), [("t1".to_owned(), 2, false)]);
    rig.pass(2_000);
    let seen = rig.calls.iter().rev().find_map(|(_, call)| match call { Call::Seen { upto, .. } => Some(*upto), _ => None });
    assert_eq!(seen, Some(11));
}

/// Shows that statuses for a reader of their own do not come among the other lines, and that each counts as read once written.
#[test]
fn statuses_apart() {
    let mut rig = Rig::begun(Config { statuses_apart: true, ..config() });
    for (seq, state) in [(1, TaskState::Running), (2, TaskState::Failed)] {
        rig.step(Event::Status { update: Box::new(update("t1", seq, state)), place: at(8 + seq) });
    }
    assert_eq!(rig.take_lines(None), []);
    for expected in [1, 2] {
        let (task, line) = rig.machine.status_line().expect("there is one");
        assert_eq!(states(&[line]), [("t1".to_owned(), expected, false)]);
        rig.step(Event::WroteStatus { task });
    }
    assert!(rig.machine.status_line().is_none());
}

/// Shows that with acknowledgements by hand a status is written again, later each time, until it is acknowledged.
#[test]
fn statuses_are_told_again() {
    let mut rig = Rig::begun(Config { manual_acks: true, ..config() });
    rig.step(Event::Status { update: Box::new(update("t1", 1, TaskState::Starting)), place: at(8) });
    rig.step(Event::Status { update: Box::new(update("t1", 2, TaskState::Running)), place: at(9) });
    assert_eq!(states(&rig.take_lines(Some(0))), [("t1".to_owned(), 1, false)]);
    rig.pass(9_000);
    assert_eq!(states(&rig.take_lines(Some(0))), []);
    rig.pass(1_500);
    assert_eq!(states(&rig.take_lines(Some(0))), [("t1".to_owned(), 1, true)]);
    rig.pass(18_000);
    assert_eq!(states(&rig.take_lines(Some(0))), []);
    rig.pass(3_000);
    assert_eq!(states(&rig.take_lines(Some(0))), [("t1".to_owned(), 1, true)]);
    let ack = |seq| AckId { framework: FrameworkId::parse("fw_1").expect("an id"), task: TaskId::parse("t1").expect("an id"), seq };
    rig.step(Event::Push(Push::Acked { acks: vec![ack(1)] }));
    assert_eq!(states(&rig.take_lines(Some(0))), [("t1".to_owned(), 2, false)]);
    rig.step(Event::Push(Push::Acked { acks: vec![ack(2), ack(2)] }));
    rig.pass(700_000);
    assert_eq!(states(&rig.take_lines(Some(0))), []);
}

/// Shows that an offer which comes twice is one offer: one line, one decline, and nothing to do at once for ever.
#[test]
fn an_offer_that_comes_twice() {
    let mut rig = Rig::begun(config());
    rig.offer([1]);
    rig.offer([1]);
    assert_eq!(rig.take_lines(Some(0)).len(), 1);
    rig.offer([1]);
    assert_eq!((rig.take_lines(Some(0)).len(), rig.machine.held()), (0, 1));
    rig.calls.clear();
    rig.pass(10_000);
    let declines = rig.calls.iter().filter(|(_, call)| matches!(call, Call::Decline { .. })).count();
    assert_eq!((declines, rig.machine.held()), (1, 0));
}

/// Shows that the statuses kept for a reader that acknowledges none have a bound, and that of each task the last word stays.
#[test]
fn kept_statuses_have_a_bound() {
    let mut rig = Rig::begun(Config { manual_acks: true, ..config() });
    for number in 0..UPDATES_MAX as u64 {
        rig.step(Event::Status { update: Box::new(update(&format!("t{number}"), 1, TaskState::Running)), place: at(10 + 2 * number) });
        rig.step(Event::Status { update: Box::new(update(&format!("t{number}"), 2, TaskState::Failed)), place: at(11 + 2 * number) });
    }
    assert_eq!(rig.machine.dropped_statuses(), UPDATES_MAX as u64);
    let lines = states(&rig.take_lines(Some(0)));
    assert_eq!(lines.len(), UPDATES_MAX);
    assert!(lines.iter().all(|(_, seq, _)| *seq == 2));
}

/// Shows that a batch goes out whole once there are enough and no more come, with no more wanted, and that the session then waits for a tail.
#[test]
fn one_batch() {
    let once = Some(Once { min: 2, wait_ms: 30_000, hold_ms: 15_000 });
    let mut rig = Rig::begun(Config { once, shows: Shows { offers: true, ..Shows::default() }, ..config() });
    rig.offer([1]);
    rig.pass(5_000);
    assert_eq!(ids(&rig.take_lines(Some(0))), Vec::<String>::new());
    rig.offer([2, 3]);
    rig.pass(300);
    assert_eq!(rig.wants(), Some(false));
    assert_eq!(ids(&rig.take_lines(Some(0))), ["offer_1", "offer_2", "offer_3"]);
    rig.answer_done();
    assert_eq!(rig.declined(), vec![]);
    assert_eq!(rig.ends, [End::Done]);
}

/// Shows that a batch that does not come together in time is given up.
#[test]
fn no_batch() {
    let once = Some(Once { min: 2, wait_ms: 3_000, hold_ms: 15_000 });
    let mut rig = Rig::begun(Config { once, shows: Shows { offers: true, ..Shows::default() }, ..config() });
    rig.offer([1]);
    rig.pass(4_000);
    rig.answer_done();
    assert_eq!(rig.ends, [End::TooFew { got: 1 }]);
    assert!(rig.calls.iter().any(|(_, call)| matches!(call, Call::Leave { hold_ms: 0, .. })));
}

/// Shows that when the reader has gone, what it did not read goes back, and the session waits a moment for what it did.
#[test]
fn the_reader_has_gone() {
    for (left, hold_ms) in [(2 * LINE_BYTES, 0), (LINE_BYTES, 2_000)] {
        let mut rig = Rig::begun(config());
        rig.offer([1, 2]);
        rig.take_lines(Some(left));
        rig.calls.clear();
        rig.step(Event::ReaderGone);
        assert_eq!(rig.wants(), Some(false));
        let left_with = rig.calls.iter().find_map(|(_, call)| match call { Call::Leave { hold_ms, .. } => Some(*hold_ms), _ => None });
        assert_eq!(left_with, Some(hold_ms));
        assert_eq!(rig.declined().len(), (left / LINE_BYTES) as usize);
        rig.answer_done();
        assert_eq!(rig.ends, [End::Done]);
        assert_eq!(rig.machine.deadline(), None);
    }
}

/// Shows each way in which the leader ends a session, and that nothing is said afterwards.
#[test]
fn ends_by_the_leader() {
    for (reason, is_done) in [("done", true), ("lapsed", true), ("torn_down", false), ("taken_over", false)] {
        let mut rig = Rig::begun(config());
        rig.step(Event::Push(Push::Removed { session: Nonce::fresh(9, 9), reason: reason.to_owned() }));
        assert_eq!(rig.ends, [], "another session's end");
        rig.step(Event::Push(Push::Removed { session: Nonce::fresh(1, 2), reason: reason.to_owned() }));
        assert_eq!(rig.ends.len(), 1);
        assert_eq!(rig.ends[0] == End::Done, is_done, "{reason}");
        rig.calls.clear();
        rig.pass(60_000);
        assert!(rig.calls.is_empty());
    }
}

/// Shows that a name held by another ends the tool, or with standby is asked for again until it is free, said once.
#[test]
fn a_held_name() {
    let name = Some(Name::parse("keeper").expect("a name"));
    let mut rig = Rig::new(Config { name: name.clone(), ..config() });
    rig.tick();
    assert_eq!(rig.wants(), Some(false), "the id of a known name is not known yet");
    rig.refuse_subscribe(RefusalCode::NameHeld);
    assert_eq!(rig.ends, [End::Lost("why".to_owned())]);

    let mut rig = Rig::new(Config { name, standby: true, ..config() });
    rig.tick();
    for _ in 0..3 {
        rig.refuse_subscribe(RefusalCode::NameHeld);
        rig.pass(1_000);
    }
    assert_eq!(rig.effects, [Effect::Waiting("why".to_owned())]);
    rig.answer_subscribe(1, true);
    assert_eq!(rig.wants(), Some(true));
    rig.offer([1]);
    assert!(matches!(rig.take_lines(Some(0))[..], [Line::Hello(_)]), "no offer before it is known what lives");
    rig.step(Event::Snapshot(vec![update("t1", 1, TaskState::Running), update("t2", 3, TaskState::Failed)]));
    let lines = rig.take_lines(Some(0));
    assert!(matches!(&lines[..], [Line::Task(task), Line::Synced(synced), Line::Offer(_)] if task.task.as_str() == "t1" && synced.tasks == 1), "{lines:?}");
}

/// Shows that an offer that a filter of our own drops goes back at once, and that other lines of it are just not there.
#[test]
fn unwanted_at_once() {
    let mut rig = Rig::begun(config());
    rig.offer([1, 2]);
    assert!(matches!(rig.machine.line(0, Wall(0)), Some(Line::Offer(_))));
    rig.step(Event::Unwanted);
    assert_eq!((rig.declined(), rig.machine.held()), (vec![(id(1), true)], 1));
    assert_eq!(ids(&rig.take_lines(Some(0))), ["offer_2"]);
}

/// Shows that a suppressed framework tells a new leader so, and that a revived one wants again.
#[test]
fn suppressed_and_revived() {
    let mut rig = Rig::begun(config());
    rig.step(Event::Push(Push::Suppressed { on: true }));
    rig.answer_done();
    assert_eq!(rig.wants(), Some(false));
    rig.step(Event::Push(Push::Suppressed { on: false }));
    assert_eq!(rig.wants(), Some(true));
}

/// Shows that another reader is told what one is told that resumes the framework: the tasks, and the statuses that nobody
/// acknowledged; and that it is offered anew what the one before it held.
#[test]
fn another_reader() {
    let mut rig = Rig::begun(Config { manual_acks: true, ..config() });
    rig.offer([1, 2]);
    rig.step(Event::Status { update: Box::new(update("t1", 1, TaskState::Running)), place: at(8) });
    rig.step(Event::Status { update: Box::new(update("t1", 2, TaskState::Failed)), place: at(9) });
    assert_eq!(states(&rig.take_lines(Some(0))), [("t1".to_owned(), 1, false)]);
    rig.effects.clear();
    rig.step(Event::NewReader);
    rig.unread = 0;
    assert_eq!((rig.declined(), rig.machine.held()), (vec![(id(1), false), (id(2), false)], 0));
    assert_eq!(rig.effects, [Effect::Snapshot]);
    rig.step(Event::Snapshot(Vec::new()));
    let lines = rig.take_lines(Some(0));
    assert!(matches!(&lines[..2], [Line::Hello(hello), Line::Synced(_)] if hello.recovered), "{lines:?}");
    assert_eq!(states(&lines), [("t1".to_owned(), 1, true)]);
    rig.step(Event::Push(Push::Acked { acks: vec![AckId { framework: FrameworkId::parse("fw_1").expect("an id"), task: TaskId::parse("t1").expect("an id"), seq: 1 }] }));
    assert_eq!(states(&rig.take_lines(Some(0))), [("t1".to_owned(), 2, false)]);
    rig.offer([3]);
    assert_eq!(ids(&rig.take_lines(Some(0))), ["offer_3"]);
}

/// Shows that a heartbeat is told when the leader answered, with the time at which it is written, and never without an answer.
#[test]
fn heartbeats() {
    let mut rig = Rig::begun(Config { shows: Shows { heartbeats: true, ..Shows::default() }, ..config() });
    rig.answer_done();
    rig.now_ms += 5_000;
    rig.tick();
    assert_eq!(rig.take_lines(Some(0)), []);
    rig.answer_done();
    let lines = rig.take_lines(Some(0));
    assert!(matches!(&lines[..], [Line::Heartbeat(line)] if line.ts_ms == 1_005_000 && !line.ts.is_empty()), "{lines:?}");
    rig.now_ms += 5_000;
    rig.tick();
    let beat = *rig.machine.calls.iter().find(|(_, asked)| **asked == Asked::Beat).expect("it beats").0;
    rig.step(Event::Answer { no: beat, answer: None });
    assert_eq!(rig.take_lines(Some(0)), []);
}
