//! The head of a pipeline: the machine inside `meso-offer`.
//!
//! It begins the session of a framework, hands out offers as lines, and finds out which of them nobody wants: a line
//! that was passed over when a later one was used, a line that was read and not used while the reader had nothing else
//! to do, a reader that takes nothing. All of these are given back, so that a filter may drop lines in silence.
//!
//! Lines are pulled: the outside asks for [`Offerer::line`] when its output has room, and says how that went.

mod held;
mod statuses;

use std::collections::{BTreeMap, VecDeque};

use crate::id::{FrameworkId, Name, Nonce, OfferId, TaskId};
use crate::resources::Request;
use crate::role::Role;
use crate::wire::call::{Answer, Call, Demand, Push, Subscribe};
use crate::wire::line::{FailureLine, HeartbeatLine, HelloLine, Line, OfferLine, RescindLine, SessionName, SyncedLine, TaskLine, UpdateLine};
use crate::wire::{Offer, PROTOCOL, Refusal, RefusalCode, Update, Wall};

pub use held::{HELD_MAX, LEFT_MS_MIN};
pub use statuses::{ENDED_MAX, UPDATES_MAX};

use held::Held;
use statuses::Statuses;

/// How long to wait before a call that nobody answered is made again, milliseconds; doubles up to [`AGAIN_MS_MAX`].
pub const AGAIN_MS: u64 = 100;
/// See [`AGAIN_MS`].
pub const AGAIN_MS_MAX: u64 = 2_000;
/// How often a standby asks whether the name is free, milliseconds.
pub const STANDBY_MS: u64 = 1_000;
/// How often what is wanted is said again, in case it was lost or overtaken, milliseconds.
pub const DEMAND_AGAIN_MS: u64 = 30_000;
/// An output that takes nothing for this long is blocked: what waits for it is given back, milliseconds.
pub const BLOCKED_MS: u64 = 1_000;
/// A reader that takes nothing for this long, though there is something to read, is offered nothing more, milliseconds.
pub const STALLED_MS: u64 = 10_000;
/// How often to look whether lines were read while some are unread, milliseconds; doubles up to [`LOOK_MS_MAX`] while nothing is.
pub const LOOK_MS: u64 = 50;
/// See [`LOOK_MS`].
pub const LOOK_MS_MAX: u64 = 800;
/// How long a batch waits for more offers once it has enough, milliseconds: those of one pass come one after the other.
pub const SETTLE_MS: u64 = 200;
/// The least time between two words on how far statuses were seen, milliseconds.
pub const SEEN_MS: u64 = 1_000;
/// How many lines other than offers and statuses wait; beyond it the oldest goes.
pub const LINES_MAX: usize = 10_000;

/// Which lines are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shows {
    /// `offer/1`; without, nothing is asked for.
    pub offers: bool,
    /// `update/1`.
    pub updates: bool,
    /// `hello/1`, `task/1` and `synced/1`.
    pub tasks: bool,
    /// `rescind/1`.
    pub rescinds: bool,
    /// `failure/1`.
    pub failures: bool,
    /// `heartbeat/1`.
    pub heartbeats: bool,
}

/// One batch in place of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Once {
    /// How many offers it has at least.
    pub min: usize,
    /// How long to wait for them, milliseconds.
    pub wait_ms: u64,
    /// How long the session waits for whoever uses them, milliseconds.
    pub hold_ms: u64,
}

/// What one run of the tool is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The framework's id, fresh.
    pub framework: FrameworkId,
    /// This process.
    pub session: Nonce,
    /// A durable name, if asked for.
    pub name: Option<Name>,
    /// Whether to take the name from whoever holds it.
    pub takeover: bool,
    /// Whether to wait until nobody holds the name.
    pub standby: bool,
    /// The role its share counts in.
    pub role: Role,
    /// Who runs it, for people.
    pub who: String,
    /// What each offer has room for; all that is left of an agent if it asks for nothing.
    pub request: Request,
    /// A `--where` expression, or empty.
    pub condition: String,
    /// How long a named framework's tasks live on without a session, milliseconds.
    pub failover_ms: u64,
    /// How many offers to hold at once.
    pub open_max: u32,
    /// How long a line that was read may go untouched while the reader has nothing else to read, milliseconds.
    pub grace_ms: u64,
    /// Whether lines are used in their order.
    pub ordered: bool,
    /// Which lines are wanted.
    pub shows: Shows,
    /// Whether statuses are acknowledged by hand.
    pub manual_acks: bool,
    /// One batch in place of a stream.
    pub once: Option<Once>,
}

/// What reaches the machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed; so many bytes of our output are unread, where that can be told.
    Tick {
        /// None if the output is nothing of which that is known.
        unread: Option<u64>,
    },
    /// The answer to a call; none if nobody answered in time.
    Answer {
        /// The number of the call.
        no: u64,
        /// The answer.
        answer: Option<Answer>,
    },
    /// The leader sends something.
    Push(Push),
    /// A status from the record.
    Status {
        /// The status.
        update: Box<Update>,
        /// Its place in the record.
        stream_seq: u64,
    },
    /// Something else of the record.
    Passed {
        /// Its place in the record.
        stream_seq: u64,
    },
    /// The framework's tasks that live, as asked for by [`Effect::Snapshot`].
    Snapshot(Vec<Update>),
    /// The line that was given out last went out whole.
    Wrote {
        /// Its bytes, with its end.
        bytes: u64,
    },
    /// The line that was given out last found no room.
    Blocked,
    /// There is room again.
    Room,
    /// Nobody reads our output any more.
    ReaderGone,
    /// End the session, as whoever runs us says.
    Leave,
}

/// How it all ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The work is done, or the reader has gone.
    Done,
    /// The name is held by another, or was taken by another; or the framework was torn down.
    Lost(String),
    /// There were too few offers in time for a batch.
    TooFew {
        /// How many there were.
        got: usize,
    },
    /// The leader refused us.
    Refused(Refusal),
}

/// What must become true outside, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Call the leader; the answer comes as `Answer`.
    Call {
        /// Its number.
        no: u64,
        /// The call.
        call: Box<Call>,
    },
    /// The framework's id is another one than proposed: listen for its pushes before anything else.
    Framework(FrameworkId),
    /// Read the framework's statuses in the record, behind this place.
    Follow {
        /// Where earlier sessions ended.
        after: u64,
    },
    /// Ask which tasks of the framework live; they come as `Snapshot`.
    Snapshot,
    /// The leader knows us; so many agents are there.
    Registered {
        /// How many.
        agents: u32,
    },
    /// The name is held by another, and we wait; said once.
    Waiting(String),
    /// The session is over.
    End(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Subscribe,
    Demand,
    Decline,
    Beat,
    Seen,
    Leave,
}

/// What was given out last to be written.
#[derive(Clone, Debug)]
enum Given {
    Plain,
    Status(TaskId),
    Offer(OfferId),
}

/// The machine.
#[derive(Debug)]
pub struct Offerer {
    config: Config,
    framework: FrameworkId,
    session_no: u64,
    epoch: u64,
    /// The epoch of the leader whose welcome was told.
    greeted: u64,
    recovered: bool,
    subscribed: bool,
    subscribing: bool,
    subscribe_at_ms: Option<u64>,
    again_ms: u64,
    waits: bool,
    beat_ms: u64,
    beat_at_ms: u64,
    beating: bool,
    call_no: u64,
    calls: BTreeMap<u64, Asked>,
    /// What the leader was told last: whether we want offers.
    told: Option<bool>,
    demanding: bool,
    demand_at_ms: u64,
    /// Somebody said that we want nothing.
    suppressed: bool,
    held: Held,
    lines: VecDeque<Line>,
    statuses: Statuses,
    following: bool,
    seen_told: u64,
    seen_at_ms: u64,
    seeing: bool,
    heartbeat_at_ms: u64,
    given: Option<Given>,
    /// Bytes written, and how many of them the reader took.
    wrote: u64,
    consumed: u64,
    /// How long in all the output was empty when looked at, milliseconds.
    idle_ms: u64,
    looked_ms: u64,
    look_ms: u64,
    progress_ms: u64,
    blocked_ms: Option<u64>,
    blocked: bool,
    stalled: bool,
    reader_gone: bool,
    last_offer_ms: u64,
    once_until_ms: Option<u64>,
    releasing: bool,
    leaving: bool,
    end: End,
    over: bool,
}

impl Offerer {
    /// A machine that has not said anything yet.
    pub fn new(config: Config, now_ms: u64) -> Self {
        Offerer {
            framework: config.framework.clone(),
            statuses: Statuses::new(config.manual_acks),
            once_until_ms: config.once.map(|once| now_ms + once.wait_ms),
            config,
            session_no: 0,
            epoch: 0,
            greeted: 0,
            recovered: false,
            subscribed: false,
            subscribing: false,
            subscribe_at_ms: None,
            again_ms: AGAIN_MS,
            waits: false,
            beat_ms: 5_000,
            beat_at_ms: now_ms,
            beating: false,
            call_no: 0,
            calls: BTreeMap::new(),
            told: None,
            demanding: false,
            demand_at_ms: now_ms,
            suppressed: false,
            held: Held::default(),
            lines: VecDeque::new(),
            following: false,
            seen_told: 0,
            seen_at_ms: now_ms,
            seeing: false,
            heartbeat_at_ms: now_ms,
            given: None,
            wrote: 0,
            consumed: 0,
            idle_ms: 0,
            looked_ms: now_ms,
            look_ms: LOOK_MS,
            progress_ms: now_ms,
            blocked_ms: None,
            blocked: false,
            stalled: false,
            reader_gone: false,
            last_offer_ms: now_ms,
            releasing: false,
            leaving: false,
            end: End::Done,
            over: false,
        }
    }

    /// The framework's id.
    pub fn framework(&self) -> &FrameworkId {
        &self.framework
    }

    /// How many offers are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// How many statuses were given up, since nobody acknowledged them.
    pub fn dropped_statuses(&self) -> u64 {
        self.statuses.dropped()
    }

    /// When to call again with `Tick` if nothing else happens.
    pub fn deadline(&self) -> Option<u64> {
        if self.over || self.leaving {
            return None;
        }
        if !self.subscribed {
            return self.subscribe_at_ms.filter(|_| !self.subscribing);
        }
        let unread = self.wrote > self.consumed;
        let look = unread.then_some(self.looked_ms + self.look_ms);
        let dropped = self.held.dropped_in_ms(self.idle_ms, self.config.grace_ms).filter(|_| !unread && self.config.once.is_none()).map(|left_ms| self.looked_ms + left_ms);
        let blocked = self.blocked_ms.filter(|_| !self.blocked).map(|since_ms| since_ms + BLOCKED_MS);
        let demand = (!self.demanding).then_some(self.demand_at_ms);
        let beat = (!self.beating).then_some(self.beat_at_ms);
        let heartbeat = self.config.shows.heartbeats.then_some(self.heartbeat_at_ms);
        let seen = (!self.seeing && self.statuses.seen() > self.seen_told).then_some(self.seen_at_ms);
        let settled = (self.once_until_ms.is_some() && self.has_enough()).then_some(self.last_offer_ms + SETTLE_MS);
        let once = self.once_until_ms.filter(|_| !self.has_enough());
        [look, dropped, blocked, demand, beat, heartbeat, seen, settled, once, self.held.deadline(), self.statuses.deadline()].into_iter().flatten().min()
    }

    /// The next line, if there is one; it counts as given out once [`Event::Wrote`] says that it went out.
    pub fn line(&mut self, now_ms: u64, wall: Wall) -> Option<Line> {
        if self.over || self.reader_gone {
            return None;
        }
        if let Some(line) = self.lines.front() {
            self.given = Some(Given::Plain);
            return Some(match line {
                // It says when it is written, not when it was due.
                Line::Heartbeat(_) => Line::Heartbeat(HeartbeatLine { meso: "heartbeat/1", ts: wall.text(), ts_ms: wall.0 }),
                line => line.clone(),
            });
        }
        if let Some((update, again)) = self.statuses.next() {
            self.given = Some(Given::Status(update.task.clone()));
            return Some(Line::Update(Box::new(UpdateLine::new(update, again))));
        }
        if !self.may_offer() {
            return None;
        }
        let session = SessionName::new(&self.config.session, self.session_no);
        let (offer, number, ends_ms) = self.held.next()?;
        self.given = Some(Given::Offer(offer.id.clone()));
        let line = OfferLine::new(offer, number, &self.config.role, wall.0 + ends_ms.saturating_sub(now_ms), wall);
        Some(Line::Offer(Box::new(line.of(&self.framework, session))))
    }

    /// Feeds one event in; says, in order, what must now become true outside.
    pub fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        if self.over {
            return out;
        }
        match event {
            Event::Tick { unread } => self.look(now_ms, unread),
            Event::Answer { no, answer } => {
                if let Some(asked) = self.calls.remove(&no) {
                    self.on_answer(now_ms, asked, answer, &mut out);
                }
            }
            Event::Push(push) => self.on_push(now_ms, push, &mut out),
            Event::Status { update, stream_seq } => {
                self.statuses.passed(stream_seq);
                if self.config.shows.updates {
                    self.statuses.hear(*update, stream_seq);
                }
            }
            Event::Passed { stream_seq } => self.statuses.passed(stream_seq),
            Event::Snapshot(tasks) => self.on_snapshot(tasks),
            Event::Wrote { bytes } => self.on_wrote(now_ms, bytes),
            Event::Blocked => {
                self.given = None;
                self.blocked_ms.get_or_insert(now_ms);
            }
            Event::Room => self.unblock(),
            Event::ReaderGone => self.on_reader_gone(&mut out),
            Event::Leave => self.leave(0, End::Done, &mut out),
        }
        self.on_time(now_ms, &mut out);
        out
    }

    fn call(&mut self, asked: Asked, call: Call, out: &mut Vec<Effect>) {
        self.call_no += 1;
        self.calls.insert(self.call_no, asked);
        out.push(Effect::Call { no: self.call_no, call: Box::new(call) });
    }

    fn push_line(&mut self, line: Line) {
        if self.lines.len() >= LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn rescinded(&mut self, id: OfferId, reason: &str) {
        if self.config.shows.rescinds {
            self.push_line(Line::Rescind(RescindLine { meso: "rescind/1", id, reason: reason.to_owned() }));
        }
    }

    /// Whether offers may be handed out: of a batch, only once it is whole.
    fn may_offer(&self) -> bool {
        self.subscribed && (self.config.once.is_none() || self.releasing)
    }

    fn has_enough(&self) -> bool {
        self.config.once.is_some_and(|once| self.held.len() >= once.min)
    }

    fn wants(&self) -> bool {
        self.config.shows.offers && !self.suppressed && !self.blocked && !self.stalled && !self.reader_gone && !self.releasing && !self.leaving
    }

    fn demand(&self) -> Option<Demand> {
        self.wants().then(|| Demand { request: self.config.request.clone(), count: u32::MAX, open_max: self.config.open_max, condition: self.config.condition.clone(), on: None })
    }

    /// Takes in how much of the output is unread.
    fn look(&mut self, now_ms: u64, unread: Option<u64>) {
        let was_empty = self.wrote == self.consumed;
        let consumed = self.wrote.saturating_sub(unread.unwrap_or(0)).max(self.consumed);
        let is_empty = consumed == self.wrote;
        if was_empty && is_empty {
            self.idle_ms += now_ms.saturating_sub(self.looked_ms);
        }
        if consumed > self.consumed || is_empty {
            self.progress_ms = now_ms;
            self.look_ms = LOOK_MS;
            self.stalled = false;
        } else {
            self.look_ms = (self.look_ms * 2).min(LOOK_MS_MAX);
        }
        if is_empty && !was_empty {
            self.unblock();
        }
        self.looked_ms = now_ms;
        self.consumed = consumed;
        self.statuses.consumed(now_ms, consumed);
        if !is_empty && now_ms.saturating_sub(self.progress_ms) >= STALLED_MS {
            self.stalled = true;
        }
    }

    fn unblock(&mut self) {
        self.blocked = false;
        self.blocked_ms = None;
    }

    fn on_wrote(&mut self, now_ms: u64, bytes: u64) {
        if self.wrote == self.consumed {
            // Up to now there was nothing to read.
            self.idle_ms += now_ms.saturating_sub(self.looked_ms);
            self.looked_ms = now_ms;
            self.progress_ms = now_ms;
        }
        self.look_ms = LOOK_MS;
        self.wrote += bytes;
        self.unblock();
        match self.given.take() {
            Some(Given::Plain) => {
                self.lines.pop_front();
            }
            Some(Given::Status(task)) => self.statuses.wrote(&task, self.wrote),
            Some(Given::Offer(id)) => self.held.wrote(&id, self.wrote, self.idle_ms),
            None => {}
        }
    }

    fn on_reader_gone(&mut self, out: &mut Vec<Effect>) {
        if self.reader_gone {
            return;
        }
        self.reader_gone = true;
        self.lines.clear();
        self.tell_demand(0, out);
        let mut back = self.held.take_waiting();
        back.extend(self.held.take_unread(self.consumed));
        self.decline(back, None, out);
        // What was read may be on its way through the pipeline to somebody who will use it.
        let hold_ms = if self.held.is_empty() { 0 } else { self.config.grace_ms };
        self.leave(hold_ms, End::Done, out);
    }

    /// Gives offers back; for how long they are refused is the leader's to say where nobody says it.
    fn decline(&mut self, offers: Vec<OfferId>, refuse_ms: Option<u64>, out: &mut Vec<Effect>) {
        if offers.is_empty() || !self.subscribed {
            return;
        }
        let call = Call::Decline {
            framework: self.framework.clone(),
            session: self.config.session.clone(),
            offers,
            refuse_ms: refuse_ms.unwrap_or(0),
            member: None,
            implicit: refuse_ms.is_none(),
        };
        self.call(Asked::Decline, call, out);
    }

    fn leave(&mut self, hold_ms: u64, end: End, out: &mut Vec<Effect>) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        self.end = end;
        if !self.subscribed && !self.subscribing {
            return self.finish(out);
        }
        let seen = self.statuses.seen();
        if seen > self.seen_told {
            self.tell_seen(seen, out);
        }
        if hold_ms > 0 {
            self.tell_demand(0, out);
        }
        let call = Call::Leave { framework: self.framework.clone(), session: self.config.session.clone(), member: None, hold_ms };
        self.call(Asked::Leave, call, out);
    }

    fn finish(&mut self, out: &mut Vec<Effect>) {
        self.over = true;
        out.push(Effect::End(self.end.clone()));
    }

    fn lost(&mut self, why: String, out: &mut Vec<Effect>) {
        self.end = End::Lost(why);
        self.finish(out);
    }

    fn tell_seen(&mut self, upto: u64, out: &mut Vec<Effect>) {
        self.seeing = true;
        self.seen_told = upto;
        let call = Call::Seen { framework: self.framework.clone(), session: self.config.session.clone(), upto };
        self.call(Asked::Seen, call, out);
    }

    fn tell_demand(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if (!self.subscribed && !self.subscribing) || (self.told == Some(self.wants()) && self.demand_at_ms > now_ms) {
            return;
        }
        self.demanding = true;
        self.demand_at_ms = now_ms + DEMAND_AGAIN_MS;
        self.told = Some(self.wants());
        let call = Call::Demand { framework: self.framework.clone(), session: self.config.session.clone(), demand: self.demand() };
        self.call(Asked::Demand, call, out);
    }

    fn on_time(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if self.over || self.leaving {
            return;
        }
        if !self.subscribed {
            let is_due = self.subscribe_at_ms.is_none_or(|at_ms| at_ms <= now_ms);
            if !self.subscribing && is_due {
                self.subscribe(out);
            }
            return self.mind_batch(now_ms, out);
        }
        if self.blocked_ms.is_some_and(|since_ms| since_ms + BLOCKED_MS <= now_ms) {
            self.blocked = true;
        }
        self.mind_batch(now_ms, out);
        if self.leaving || self.over {
            return;
        }
        if !self.demanding && (self.told != Some(self.wants()) || self.demand_at_ms <= now_ms) {
            self.demand_at_ms = now_ms;
            self.tell_demand(now_ms, out);
        }
        self.give_back(now_ms, out);
        if !self.beating && self.beat_at_ms <= now_ms {
            self.beating = true;
            let call = Call::Beat { framework: self.framework.clone(), session: self.config.session.clone(), member: None, sated: false };
            self.call(Asked::Beat, call, out);
        }
        self.statuses.due(now_ms);
        let seen = self.statuses.seen();
        if !self.seeing && seen > self.seen_told && self.seen_at_ms <= now_ms {
            self.seen_at_ms = now_ms + SEEN_MS;
            self.tell_seen(seen, out);
        }
        if self.config.shows.heartbeats && self.heartbeat_at_ms <= now_ms {
            self.heartbeat_at_ms = now_ms + self.beat_ms;
            if !self.lines.iter().any(|line| matches!(line, Line::Heartbeat(_))) {
                self.push_line(Line::Heartbeat(HeartbeatLine { meso: "heartbeat/1", ts: String::new(), ts_ms: 0 }));
            }
        }
    }

    /// Gives back what nobody will use.
    fn give_back(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        for id in self.held.take_expired(now_ms) {
            self.rescinded(id, "expired");
        }
        let stale = self.held.take_stale(now_ms);
        self.decline(stale, Some(0), out);
        if self.blocked && self.config.once.is_none() {
            // Refused for no time at all: the reader may be back in a moment, and others are served meanwhile.
            let waiting = self.held.take_waiting();
            self.decline(waiting, Some(0), out);
        }
        if self.config.once.is_none() {
            let dropped = self.held.take_dropped(self.consumed, self.idle_ms, self.config.grace_ms);
            self.decline(dropped.clone(), None, out);
            for id in dropped {
                self.rescinded(id, "dropped");
            }
        }
    }

    /// A batch goes out once it is whole and nothing more comes; it is given up when its time is over.
    fn mind_batch(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let Some(once) = self.config.once else { return };
        if self.releasing {
            if self.held.waiting() == 0 && self.lines.is_empty() {
                self.leave(once.hold_ms, End::Done, out);
            }
            return;
        }
        let is_late = self.once_until_ms.is_some_and(|until_ms| until_ms <= now_ms);
        let settled = now_ms >= self.last_offer_ms + SETTLE_MS;
        if self.has_enough() && (settled || is_late) {
            self.releasing = true;
            self.once_until_ms = None;
        } else if is_late {
            self.leave(0, End::TooFew { got: self.held.len() }, out);
        }
    }

    fn subscribe(&mut self, out: &mut Vec<Effect>) {
        self.subscribing = true;
        self.subscribe_at_ms = None;
        // The id of a known name is told by the answer: offers before it would go unheard.
        let demand = self.demand().filter(|_| self.config.name.is_none() || self.session_no > 0);
        self.told = Some(demand.is_some());
        let call = Subscribe {
            v: PROTOCOL,
            framework: self.framework.clone(),
            session: self.config.session.clone(),
            session_no: self.session_no,
            member: None,
            takeover: self.config.takeover && self.session_no == 0,
            name: self.config.name.clone(),
            role: self.config.role.clone(),
            who: self.config.who.clone(),
            demand,
            failover_ms: self.config.failover_ms,
            claims: Vec::new(),
        };
        self.call(Asked::Subscribe, Call::Subscribe(call), out);
    }

    fn lost_session(&mut self, now_ms: u64) {
        if !self.subscribing {
            self.subscribed = false;
            self.subscribe_at_ms = Some(now_ms + self.again_ms);
            self.again_ms = (self.again_ms * 2).min(AGAIN_MS_MAX);
        }
    }

    /// All offers are void: the leader that made them is gone, or our session was.
    fn forget_offers(&mut self) {
        self.held.take_waiting();
        for id in self.held.take_written() {
            self.rescinded(id, "leader_changed");
        }
    }

    fn on_answer(&mut self, now_ms: u64, asked: Asked, answer: Option<Answer>, out: &mut Vec<Effect>) {
        if self.leaving {
            if asked == Asked::Leave {
                // Without an answer the session lapses by itself; that is the same end, later.
                self.finish(out);
            }
            return;
        }
        match (&answer, asked) {
            (_, Asked::Subscribe) => return self.on_subscribed(now_ms, answer, out),
            (Some(Answer::Refused(refusal)), _) => match refusal.code {
                RefusalCode::UnknownFramework => {
                    // A new leader, or a session that lapsed while we were away.
                    self.forget_offers();
                    self.lost_session(now_ms);
                }
                RefusalCode::NameHeld => return self.lost(refusal.message.clone(), out),
                RefusalCode::BadRequest if asked == Asked::Demand => return self.leave(0, End::Refused(refusal.clone()), out),
                _ => {}
            },
            (None, Asked::Demand | Asked::Decline) => self.lost_session(now_ms),
            _ => {}
        }
        let is_done = matches!(answer, Some(Answer::Done {}));
        match asked {
            Asked::Demand => {
                self.demanding = false;
                if !is_done {
                    self.told = None;
                    self.demand_at_ms = now_ms + AGAIN_MS_MAX;
                }
            }
            Asked::Beat => {
                self.beating = false;
                self.beat_at_ms = now_ms + if is_done { self.beat_ms } else { AGAIN_MS_MAX.min(self.beat_ms) };
            }
            Asked::Seen => {
                self.seeing = false;
                if !is_done {
                    self.seen_told = 0;
                }
            }
            Asked::Subscribe | Asked::Decline | Asked::Leave => {}
        }
    }

    fn on_subscribed(&mut self, now_ms: u64, answer: Option<Answer>, out: &mut Vec<Effect>) {
        self.subscribing = false;
        match answer {
            Some(Answer::Subscribed { framework, epoch, beat_ms, agents, recovered, session_no, seen, .. }) => {
                let is_first = self.session_no == 0;
                if epoch != self.epoch {
                    self.forget_offers();
                }
                let is_new = epoch != self.greeted;
                self.greeted = epoch;
                self.subscribed = true;
                self.again_ms = AGAIN_MS;
                self.epoch = epoch;
                self.session_no = session_no;
                self.recovered = if is_first { recovered } else { self.recovered };
                self.beat_ms = beat_ms.clamp(50, 3_600_000);
                self.beat_at_ms = now_ms + self.beat_ms;
                self.demand_at_ms = now_ms + DEMAND_AGAIN_MS;
                self.demanding = false;
                if framework != self.framework {
                    self.framework = framework.clone();
                    out.push(Effect::Framework(framework));
                }
                out.push(Effect::Registered { agents });
                if is_new && self.config.shows.tasks {
                    let session = SessionName::new(&self.config.session, self.session_no);
                    let hello = HelloLine { meso: "hello/1", framework: self.framework.clone(), session, name: self.config.name.clone(), recovered: self.recovered, heartbeat_ms: self.beat_ms };
                    self.push_line(Line::Hello(hello));
                    out.push(Effect::Snapshot);
                }
                if self.config.shows.updates && !self.following {
                    self.following = true;
                    self.seen_told = seen;
                    self.statuses.passed(seen);
                    out.push(Effect::Follow { after: seen });
                }
            }
            Some(Answer::Refused(refusal)) => match refusal.code {
                RefusalCode::Busy | RefusalCode::Recovering | RefusalCode::NotLeading => self.lost_session(now_ms),
                RefusalCode::NameHeld if self.config.standby && self.session_no == 0 => {
                    if !self.waits {
                        self.waits = true;
                        out.push(Effect::Waiting(refusal.message));
                    }
                    self.subscribe_at_ms = Some(now_ms + STANDBY_MS);
                }
                RefusalCode::NameHeld => self.lost(refusal.message, out),
                _ => {
                    self.end = End::Refused(refusal);
                    self.finish(out);
                }
            },
            _ => self.lost_session(now_ms),
        }
    }

    fn on_push(&mut self, now_ms: u64, push: Push, out: &mut Vec<Effect>) {
        match push {
            Push::Offers { epoch, session, offers } if session == self.config.session => self.on_offers(now_ms, epoch, offers, out),
            Push::Rescind { id, reason } => {
                if self.held.remove(&id) {
                    self.rescinded(id, &reason);
                }
            }
            Push::Used { offers } => {
                let skipped = self.held.used(&offers, self.config.ordered && self.config.once.is_none());
                self.decline(skipped.clone(), None, out);
                for id in skipped {
                    self.rescinded(id, "skipped");
                }
            }
            Push::Acked { acks } => {
                for ack in acks.iter().filter(|ack| ack.framework == self.framework) {
                    self.statuses.acked(ack);
                }
            }
            Push::Failure { agent, host, reason } if self.config.shows.failures => self.push_line(Line::Failure(FailureLine { meso: "failure/1", agent, host, reason })),
            Push::Suppressed { on } => self.suppressed = on,
            // An answer to somebody's question: told as it is, and acknowledged by nobody.
            Push::Known { update } if self.config.shows.updates => self.push_line(Line::Update(Box::new(UpdateLine::new(&update, false)))),
            Push::Removed { session, reason } if session == self.config.session => match reason.as_str() {
                "done" | "lapsed" => {
                    self.end = End::Done;
                    self.finish(out);
                }
                "taken_over" => self.lost("another took the name over".to_owned(), out),
                "torn_down" => self.lost("the framework was torn down".to_owned(), out),
                _ => self.lost(format!("the session was ended: {reason}"), out),
            },
            _ => {}
        }
    }

    fn on_offers(&mut self, now_ms: u64, epoch: u64, offers: Vec<Offer>, out: &mut Vec<Effect>) {
        if epoch > self.epoch {
            // The answer to our subscribing is on its way, and so is what the leader before offered.
            self.forget_offers();
            self.epoch = epoch;
        }
        if epoch < self.epoch {
            return;
        }
        if self.leaving || self.releasing || self.reader_gone {
            let late = offers.into_iter().map(|offer| offer.id).collect();
            return self.decline(late, Some(0), out);
        }
        self.last_offer_ms = now_ms;
        let beyond = self.held.add(now_ms, offers);
        self.decline(beyond, Some(0), out);
    }

    fn on_snapshot(&mut self, tasks: Vec<Update>) {
        let mut told = 0;
        for update in tasks.iter().filter(|update| update.framework == self.framework && !update.is_final) {
            told += 1;
            // Told whole, however many there are: a part of it would be taken for all.
            self.lines.push_back(Line::Task(Box::new(TaskLine::new(update))));
        }
        self.lines.push_back(Line::Synced(SyncedLine { meso: "synced/1", tasks: told }));
    }
}

#[cfg(test)]
mod tests;
