//! The head of a pipeline: the machine inside `meso-offer`.
//!
//! It begins the session of a framework, hands out offers as lines, and finds out which of them nobody wants: a line
//! that was passed over when a later one was used, a line that was read and not used while the reader had nothing else
//! to do, a reader that takes nothing. All of these are given back, so that a filter may drop lines in silence.
//!
//! Lines are pulled: the outside asks for [`Offerer::line`] when its output has room, and says how that went.

mod config;
mod exchange;
mod held;
mod reader;
mod session;
mod statuses;

use std::collections::{BTreeMap, VecDeque};

use crate::id::{FrameworkId, Nonce, OfferId, TaskId};
use crate::wire::{PROTOCOL, Wall};
use crate::wire::call::Call;
use crate::wire::line::{HeartbeatLine, Line, OfferLine, RescindLine, SessionName, UpdateLine};

pub use config::{Config, Once, Shows};
pub use exchange::{Effect, End, Event};
pub use held::{HELD_MAX, LEFT_MS_MIN};
pub use reader::{BLOCKED_MS, GRACE_MS_MAX, LOOK_MS, LOOK_MS_MAX, STALLED_MS};
pub use statuses::{ENDED_MAX, Place, UPDATES_MAX};

use held::Held;
use reader::Reader;
use statuses::Statuses;

/// How long to wait before a call that nobody answered is made again, milliseconds; doubles up to [`AGAIN_MS_MAX`].
pub const AGAIN_MS: u64 = 100;
/// See [`AGAIN_MS`].
pub const AGAIN_MS_MAX: u64 = 2_000;
/// How often a standby asks whether the name is free, milliseconds.
pub const STANDBY_MS: u64 = 1_000;
/// How often what is wanted is said again, in case it was lost or overtaken, milliseconds.
pub const DEMAND_AGAIN_MS: u64 = 30_000;
/// How long a batch waits for more offers once it has enough, milliseconds: those of one pass come one after the other.
pub const SETTLE_MS: u64 = 200;
/// The least time between two words on how far statuses were seen, milliseconds.
pub const SEEN_MS: u64 = 1_000;
/// How many lines other than offers and statuses wait; beyond it the oldest goes.
pub const LINES_MAX: usize = 10_000;


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
    /// The protocol major that it speaks: the older one to a master that knows no other.
    speaks: u32,
    epoch: u64,
    /// The epoch of the leader whose welcome was told.
    greeted: u64,
    /// The latest epoch of which it was heard that somebody leads under it.
    heard: u64,
    /// From when on an offer under a lower epoch has us ask who leads.
    doubt_at_ms: u64,
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
    /// The tasks that live are asked for and not told yet: whoever acted on an offer now could launch them twice.
    unsynced: bool,
    held: Held,
    lines: VecDeque<Line>,
    statuses: Statuses,
    following: bool,
    seen_told: Place,
    seen_at_ms: u64,
    seeing: bool,
    given: Option<Given>,
    reader: Reader,
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
            speaks: PROTOCOL,
            epoch: 0,
            greeted: 0,
            heard: 0,
            doubt_at_ms: 0,
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
            unsynced: false,
            held: Held::default(),
            lines: VecDeque::new(),
            following: false,
            seen_told: Place::default(),
            seen_at_ms: now_ms,
            seeing: false,
            given: None,
            reader: Reader::new(now_ms),
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

    /// Our session, and which of its framework it is.
    pub fn session(&self) -> (&Nonce, u64) {
        (&self.config.session, self.session_no)
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
        let dropped_in_ms = self.held.dropped_in_ms(self.reader.idle_ms(), self.grace_ms()).filter(|_| self.config.once.is_none());
        let reader = self.reader.deadline(dropped_in_ms);
        let demand = (!self.demanding).then_some(self.demand_at_ms);
        let beat = (!self.beating).then_some(self.beat_at_ms);
        let seen = (!self.seeing && self.statuses.seen() != self.seen_told).then_some(self.seen_at_ms);
        let settled = (self.once_until_ms.is_some() && self.has_enough()).then_some(self.last_offer_ms + SETTLE_MS);
        let once = self.once_until_ms.filter(|_| !self.has_enough());
        [reader, demand, beat, seen, settled, once, self.held.deadline(), self.statuses.deadline()].into_iter().flatten().min()
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
        if let Some((update, again)) = self.statuses.next().filter(|_| !self.config.statuses_apart) {
            self.given = Some(Given::Status(update.task.clone()));
            return Some(Line::Update(Box::new(UpdateLine::new(update, again))));
        }
        if !self.may_offer() {
            return None;
        }
        let session = SessionName::new(&self.config.session, self.session_no);
        let (offer, number, ends_ms) = self.held.next()?;
        self.given = Some(Given::Offer(offer.id.clone()));
        let line = OfferLine::new(offer, number, &self.config.role, wall.later(ends_ms.saturating_sub(now_ms)), wall);
        Some(Line::Offer(Box::new(line.of(&self.framework, session))))
    }

    /// The next status for a reader of its own; it counts as written once [`Event::WroteStatus`] says so.
    pub fn status_line(&self) -> Option<(TaskId, Line)> {
        let (update, again) = self.statuses.next().filter(|_| self.config.statuses_apart && !self.over)?;
        Some((update.task.clone(), Line::Update(Box::new(UpdateLine::new(update, again)))))
    }

    /// Feeds one event in; says, in order, what must now become true outside.
    pub fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        if self.over {
            return out;
        }
        match event {
            Event::Tick { unread } => {
                self.reader.look(now_ms, unread);
                self.statuses.consumed(now_ms, self.reader.consumed());
            }
            Event::Answer { no, answer } => {
                if let Some(asked) = self.calls.remove(&no) {
                    self.on_answer(now_ms, asked, answer, &mut out);
                }
            }
            Event::Led { epoch } => self.on_led(now_ms, epoch),
            Event::Push(push) => self.on_push(now_ms, push, &mut out),
            Event::Status { update, place } => {
                self.statuses.passed(place);
                if self.config.shows.updates {
                    self.statuses.hear(*update, place.seq);
                }
            }
            Event::Passed { place } => self.statuses.passed(place),
            Event::Snapshot(tasks) => self.on_snapshot(tasks),
            Event::Wrote { bytes } => self.on_wrote(now_ms, bytes),
            Event::WroteStatus { task } => {
                self.statuses.wrote(&task, 0);
                self.statuses.consumed(now_ms, 0);
            }
            Event::Unwanted => self.on_unwanted(&mut out),
            Event::Blocked => {
                self.given = None;
                self.reader.is_full(now_ms);
            }
            Event::Room => self.reader.has_room(),
            Event::NewReader => self.on_new_reader(now_ms, &mut out),
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
        self.subscribed && !self.unsynced && (self.config.once.is_none() || self.releasing)
    }

    fn has_enough(&self) -> bool {
        self.config.once.is_some_and(|once| self.held.len() >= once.min)
    }

    fn wants(&self) -> bool {
        self.config.shows.offers && !self.suppressed && !self.reader.is_behind() && !self.reader_gone && !self.releasing && !self.leaving
    }

    fn grace_ms(&self) -> u64 {
        self.reader.grace_ms(self.config.grace_ms)
    }

    fn on_unwanted(&mut self, out: &mut Vec<Effect>) {
        match self.given.take() {
            Some(Given::Plain) => drop(self.lines.pop_front()),
            // Whoever chose has seen it.
            Some(Given::Status(task)) => self.statuses.wrote(&task, self.reader.end()),
            Some(Given::Offer(id)) => {
                self.held.remove(&id);
                self.decline(vec![id], None, out);
            }
            None => {}
        }
    }

    fn on_wrote(&mut self, now_ms: u64, bytes: u64) {
        self.reader.wrote(now_ms, bytes);
        match self.given.take() {
            Some(Given::Plain) => {
                self.lines.pop_front();
            }
            Some(Given::Status(task)) => self.statuses.wrote(&task, self.reader.end()),
            Some(Given::Offer(id)) => self.held.wrote(&id, self.reader.end(), self.reader.idle_ms()),
            None => {}
        }
    }

    /// The new one is told what one is told that resumes the framework: the tasks, and what nobody acknowledged. Offers are
    /// made anew.
    fn on_new_reader(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        self.given = None;
        self.lines.clear();
        self.reader = Reader::new(now_ms);
        self.statuses.tell_again();
        let mut back = self.held.take_waiting();
        back.extend(self.held.take_written());
        self.decline(back, Some(0), out);
        self.recovered = true;
        if self.subscribed {
            self.greet(out);
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
        back.extend(self.held.take_unread(self.reader.consumed()));
        self.decline(back, None, out);
        // What was read may be on its way through the pipeline to somebody who will use it.
        let hold_ms = if self.held.is_empty() { 0 } else { self.config.grace_ms };
        self.leave(hold_ms, End::Done, out);
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
        if !self.seeing && seen != self.seen_told && self.seen_at_ms <= now_ms {
            self.seen_at_ms = now_ms + SEEN_MS;
            self.tell_seen(seen, out);
        }
    }

    /// Gives back what nobody will use.
    fn give_back(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        for id in self.held.take_expired(now_ms) {
            self.rescinded(id, "expired");
        }
        let stale = self.held.take_stale(now_ms);
        self.decline(stale, Some(0), out);
        if self.reader.is_blocked() && self.config.once.is_none() {
            // Refused for no time at all: the reader may be back in a moment, and others are served meanwhile.
            let waiting = self.held.take_waiting();
            self.decline(waiting, Some(0), out);
        }
        if self.config.once.is_none() {
            let dropped = self.held.take_dropped(self.reader.consumed(), self.reader.idle_ms(), self.grace_ms());
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
}

#[cfg(test)]
mod tests;
