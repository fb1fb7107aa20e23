//! The session: what is said to the leader, what it answers, and what it sends by itself.

use crate::id::OfferId;
use crate::offerer::{AGAIN_MS, AGAIN_MS_MAX, Asked, DEMAND_AGAIN_MS, Effect, End, Offerer, Place, STANDBY_MS};
use crate::wire::call::{Answer, Call, Demand, Push, Subscribe};
use crate::wire::line::{FailureLine, HeartbeatLine, HelloLine, INVERSE_TASKS_MAX, InverseLine, Line, SessionName, SyncedLine, TaskLine, UpdateLine};
use crate::wire::number::counted;
use crate::wire::{Offer, PROTOCOL, PROTOCOL_MIN, RefusalCode, Update, Wall};

impl Offerer {
    fn demand(&self) -> Option<Demand> {
        self.wants().then(|| Demand { request: self.config.request.clone(), count: u32::MAX, open_max: self.config.open_max, condition: self.config.condition.clone(), on: None, revocable: self.config.revocable })
    }

    /// Gives offers back; for how long they are refused is the leader's to say where nobody says it.
    pub(super) fn decline(&mut self, offers: Vec<OfferId>, refuse_ms: Option<u64>, out: &mut Vec<Effect>) {
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

    pub(super) fn leave(&mut self, hold_ms: u64, end: End, out: &mut Vec<Effect>) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        self.end = end;
        if !self.subscribed && !self.subscribing {
            return self.finish(out);
        }
        let seen = self.statuses.seen();
        if seen != self.seen_told {
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

    pub(super) fn tell_seen(&mut self, upto: Place, out: &mut Vec<Effect>) {
        self.seeing = true;
        self.seen_told = upto;
        let call = Call::Seen { framework: self.framework.clone(), session: self.config.session.clone(), upto: upto.seq, recorded_ms: upto.recorded_ms };
        self.call(Asked::Seen, call, out);
    }

    pub(super) fn tell_demand(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if (!self.subscribed && !self.subscribing) || (self.told == Some(self.wants()) && self.demand_at_ms > now_ms) {
            return;
        }
        self.demanding = true;
        self.demand_at_ms = now_ms + DEMAND_AGAIN_MS;
        self.told = Some(self.wants());
        let call = Call::Demand { framework: self.framework.clone(), session: self.config.session.clone(), demand: self.demand() };
        self.call(Asked::Demand, call, out);
    }

    pub(super) fn subscribe(&mut self, out: &mut Vec<Effect>) {
        self.subscribing = true;
        self.subscribe_at_ms = None;
        // The id of a known name is told by the answer: offers before it would go unheard.
        let demand = self.demand().filter(|_| self.config.name.is_none() || self.session_no > 0);
        self.told = Some(demand.is_some());
        let call = Subscribe {
            v: self.speaks,
            framework: self.framework.clone(),
            session: self.config.session.clone(),
            session_no: self.session_no,
            member: None,
            guest: false,
            takeover: self.config.takeover && self.session_no == 0,
            name: self.config.name.clone(),
            role: self.config.role.clone(),
            who: self.config.who.clone(),
            demand,
            failover_ms: self.config.failover_ms,
            on_unreachable: self.config.on_unreachable,
            claims: Vec::new(),
        };
        self.call(Asked::Subscribe, Call::Subscribe(call), out);
    }

    fn lost_session(&mut self, now_ms: u64) {
        if !self.subscribing {
            self.speaks = PROTOCOL;
            self.subscribed = false;
            self.subscribe_at_ms = Some(now_ms + self.again_ms);
            self.again_ms = (self.again_ms * 2).min(AGAIN_MS_MAX);
        }
    }

    /// Somebody leads under this epoch. It is said again and again, and answered once: the session is begun with whoever it
    /// is, whatever call to the one before is still unanswered.
    pub(super) fn on_led(&mut self, now_ms: u64, epoch: u64) {
        if self.leaving || self.session_no == 0 || epoch <= self.epoch.max(self.heard) {
            return;
        }
        self.heard = epoch;
        self.calls.retain(|_, asked| *asked != Asked::Subscribe);
        self.subscribing = false;
        self.again_ms = 0;
        self.lost_session(now_ms);
        self.again_ms = AGAIN_MS;
    }

    /// All offers are void: the leader that made them is gone, or our session was.
    fn forget_offers(&mut self) {
        self.held.take_waiting();
        for id in self.held.take_written() {
            self.rescinded(id, "leader_changed");
        }
    }

    pub(super) fn on_answer(&mut self, now_ms: u64, asked: Asked, answer: Option<Answer>, out: &mut Vec<Effect>) {
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
                // Only what the leader answered is a sign of life; when it is written, it says when.
                if is_done && self.config.shows.heartbeats && !self.lines.iter().any(|line| matches!(line, Line::Heartbeat(_))) {
                    self.push_line(Line::Heartbeat(HeartbeatLine { meso: "heartbeat/1", ts: String::new(), ts_ms: 0 }));
                }
                self.beat_at_ms = now_ms + if is_done { self.beat_ms } else { AGAIN_MS_MAX.min(self.beat_ms) };
            }
            Asked::Seen => {
                self.seeing = false;
                if !is_done {
                    self.seen_told = Place::default();
                }
            }
            Asked::Subscribe | Asked::Decline | Asked::Leave => {}
        }
    }

    /// Begins what the reader is told of the framework, if it wants to know.
    pub(super) fn greet(&mut self, out: &mut Vec<Effect>) {
        if self.config.shows.tasks {
            let session = SessionName::new(&self.config.session, self.session_no);
            let hello = HelloLine { meso: "hello/1", framework: self.framework.clone(), session, name: self.config.name.clone(), recovered: self.recovered, heartbeat_ms: self.beat_ms };
            self.push_line(Line::Hello(hello));
            self.unsynced = true;
            out.push(Effect::Snapshot);
        }
    }

    fn on_subscribed(&mut self, now_ms: u64, answer: Option<Answer>, out: &mut Vec<Effect>) {
        self.subscribing = false;
        match answer {
            Some(Answer::Subscribed { framework, epoch, beat_ms, agents, recovered, session_no, seen, seen_ms, .. }) => {
                let is_first = self.session_no == 0;
                if epoch != self.epoch {
                    self.forget_offers();
                }
                let is_new = epoch != self.greeted;
                self.greeted = epoch;
                self.subscribed = true;
                self.again_ms = AGAIN_MS;
                self.epoch = epoch;
                self.heard = epoch;
                self.session_no = session_no;
                self.recovered = if is_first { recovered } else { self.recovered };
                self.beat_ms = beat_ms.clamp(50, 3_600_000);
                self.beat_at_ms = now_ms + self.beat_ms;
                self.demand_at_ms = now_ms + DEMAND_AGAIN_MS;
                self.demanding = false;
                if framework != self.framework {
                    self.framework = framework.clone();
                    out.push(Effect::Framework(framework));
                    if std::mem::take(&mut self.following) {
                        // The registry lost our name, and it is another framework's by now.
                        self.statuses.reads_another();
                    }
                }
                out.push(Effect::Registered { agents });
                if is_new {
                    self.greet(out);
                }
                if self.config.shows.updates && !self.following {
                    self.following = true;
                    let seen = Place { seq: counted(seen), recorded_ms: counted(seen_ms) };
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
                RefusalCode::Version if self.speaks > PROTOCOL_MIN => {
                    self.speaks -= 1;
                    self.subscribe(out);
                }
                _ => {
                    self.end = End::Refused(refusal);
                    self.finish(out);
                }
            },
            _ => self.lost_session(now_ms),
        }
    }

    pub(super) fn on_push(&mut self, now_ms: u64, push: Push, out: &mut Vec<Effect>) {
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
            Push::Inverse { agent, host, tasks, deadline_ms, reason, .. } if self.config.shows.inverses => {
                for tasks in tasks.chunks(INVERSE_TASKS_MAX) {
                    let (agent, host, tasks, reason) = (agent.clone(), host.clone(), tasks.to_vec(), reason.clone());
                    self.push_line(Line::Inverse(InverseLine { meso: "inverse/1", agent, host, tasks, reason, deadline: Wall(deadline_ms).text(), deadline_ms }));
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
            // Late words of a leader that stood down, or the bus lost what it knew and counts anew: whoever leads says which.
            // Meanwhile the session goes on, as it does where they were late.
            if self.subscribed && !self.subscribing && !self.leaving && now_ms >= self.doubt_at_ms {
                self.doubt_at_ms = now_ms + AGAIN_MS_MAX;
                self.subscribe(out);
            }
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

    pub(super) fn on_snapshot(&mut self, tasks: Vec<Update>) {
        let mut told = 0;
        for update in tasks.iter().filter(|update| update.framework == self.framework && !update.is_final) {
            told += 1;
            // Told whole, however many there are: a part of it would be taken for all.
            self.lines.push_back(Line::Task(Box::new(TaskLine::new(update))));
        }
        self.unsynced = false;
        self.lines.push_back(Line::Synced(SyncedLine { meso: "synced/1", tasks: told }));
    }
}
