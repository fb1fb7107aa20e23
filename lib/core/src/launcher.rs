//! A framework that runs jobs: the machine inside `meso-launch`.
//!
//! It subscribes with what one task needs and how many it would launch, accepts what is offered, follows the tasks,
//! retries, and survives a change of leader: accepts are repeated until answered, tasks are claimed until their fate is told.

mod event;
mod flights;
mod joined;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::id::{FrameworkId, OfferId, TaskId};
use crate::launcher::flights::Flight;
use crate::seed::Seed;
use crate::wire::call::{Accept, Answer, Call, Demand, Push, Subscribe};
use crate::wire::{Offer, PROTOCOL, PROTOCOL_MIN, RefusalCode};

pub use event::{Config, Effect, Event, Failure, Job};

/// How long to wait before a call that nobody answered is made again, milliseconds; doubles up to [`AGAIN_MS_MAX`].
pub const AGAIN_MS: u64 = 100;
/// See [`AGAIN_MS`].
pub const AGAIN_MS_MAX: u64 = 2_000;
/// How often the fate of all tasks is asked for, in case a status was lost unnoticed, milliseconds.
pub const RECONCILE_MS: u64 = 30_000;
/// How often what is wanted is said again while it is not met, in case it was lost or overtaken, milliseconds.
pub const DEMAND_AGAIN_MS: u64 = 30_000;
/// The most tasks asked for in one call.
pub const CLAIMS_PER_CALL_MAX: usize = 1_000;
/// The largest accept, in bytes of its tasks, so that it and the launches it causes fit a message.
pub const ACCEPT_BYTES_MAX: usize = 200 * 1024;
/// For how long an offer that came too late is refused, milliseconds.
pub const REFUSE_MS: u64 = 5_000;

#[derive(Clone, Debug)]
struct Pending {
    job: Job,
    attempt: u32,
    retries: u32,
    lost: u32,
    arrived_ms: u64,
}

#[derive(Clone, Debug)]
enum Asked {
    Subscribe,
    Demand,
    Accept(Accept),
    Decline,
    Kill,
    Beat,
    Reconcile,
    Leave,
}

/// The machine.
#[derive(Debug)]
pub struct Launcher {
    config: Config,
    seed: Seed,
    framework: FrameworkId,
    /// The protocol major that it speaks: the older one to a master that knows no other.
    speaks: u32,
    /// Which session of its name this is, as the leader said.
    session_no: u64,
    epoch: u64,
    subscribed: bool,
    subscribing: bool,
    subscribe_at_ms: Option<u64>,
    again_ms: u64,
    beat_ms: u64,
    beat_at_ms: Option<u64>,
    beating: bool,
    reconcile_at_ms: u64,
    /// How long to wait where nobody answered, milliseconds.
    reconcile_again_ms: u64,
    /// A part of what is asked for now was not answered.
    unreconciled: bool,
    call_no: u64,
    calls: BTreeMap<u64, Asked>,
    accepts_again: VecDeque<(u64, Accept)>,
    kill_again_at_ms: Option<u64>,
    kill_grace_ms: Option<u64>,
    /// Offers that came before the session was joined, or that are too small alone, and until when they live.
    aside: Vec<(u64, Offer)>,
    /// The leader was told that no more could be launched now.
    sated: bool,
    /// No more offers will come.
    dry: bool,
    pending: VecDeque<Pending>,
    deadlines: BTreeSet<(u64, u64)>,
    flights: BTreeMap<TaskId, Flight>,
    /// How many more tasks the leader believes we would launch.
    told: Option<u32>,
    demanding: bool,
    demand_at_ms: u64,
    cancelled: bool,
    leaving: bool,
    over: bool,
}

impl Launcher {
    /// A launcher without jobs.
    pub fn new(config: Config, now_ms: u64) -> Self {
        Launcher {
            seed: Seed::new(config.seed),
            framework: config.framework.clone(),
            session_no: config.session_no,
            speaks: PROTOCOL,
            config,
            epoch: 0,
            subscribed: false,
            subscribing: false,
            subscribe_at_ms: None,
            again_ms: AGAIN_MS,
            beat_ms: 5_000,
            beat_at_ms: None,
            beating: false,
            reconcile_at_ms: now_ms + RECONCILE_MS,
            reconcile_again_ms: AGAIN_MS_MAX,
            unreconciled: false,
            call_no: 0,
            calls: BTreeMap::new(),
            accepts_again: VecDeque::new(),
            kill_again_at_ms: None,
            kill_grace_ms: None,
            aside: Vec::new(),
            sated: false,
            dry: false,
            pending: VecDeque::new(),
            deadlines: BTreeSet::new(),
            flights: BTreeMap::new(),
            told: None,
            demanding: false,
            demand_at_ms: now_ms + DEMAND_AGAIN_MS,
            cancelled: false,
            leaving: false,
            over: false,
        }
    }

    /// The framework's id.
    pub fn framework(&self) -> &FrameworkId {
        &self.framework
    }

    /// How many jobs have no task yet.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// How many tasks are out.
    pub fn flying(&self) -> usize {
        self.flights.len()
    }

    /// The tasks that are out: the job of each, and whether its launch was confirmed.
    pub fn out(&self) -> impl Iterator<Item = (u64, &TaskId, bool)> {
        self.flights.iter().map(|(task, flight)| (flight.pending.job.index, task, flight.begun))
    }

    /// When to call again with `Tick` if nothing else happens.
    pub fn deadline(&self) -> Option<u64> {
        if self.over {
            return None;
        }
        let start = self.deadlines.first().map(|(at, _)| *at);
        // A time at which nothing would be done is not named: the driver would spin until the answer that is waited for.
        if self.leaving {
            return start;
        }
        if !self.subscribed {
            let idle = self.pending.is_empty() && self.flights.is_empty();
            let subscribe = self.subscribe_at_ms.filter(|_| !self.subscribing && !idle);
            return [start, subscribe].into_iter().flatten().min();
        }
        let accept = self.accepts_again.front().map(|(at, _)| *at);
        let reconcile = (!self.flights.is_empty()).then_some(self.reconcile_at_ms);
        let demand = (!self.demanding && self.config.member.is_none() && self.room() > 0).then_some(self.demand_at_ms);
        [start, accept, demand, reconcile, self.beat_at_ms.filter(|_| !self.beating), self.kill_again_at_ms].into_iter().flatten().min()
    }

    /// Feeds one event in; says, in order, what must now become true outside.
    pub fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        if self.over && !matches!(event, Event::Job(_)) {
            // What comes now is for a session that has ended; an answer to it would keep the session alive.
            return out;
        }
        match event {
            Event::Tick => {}
            Event::Job(job) => self.on_job(now_ms, *job, &mut out),
            Event::Answer { no, answer } => {
                if let Some(asked) = self.calls.remove(&no) {
                    self.on_answer(now_ms, asked, answer, &mut out);
                }
            }
            Event::Push(push) => self.on_push(now_ms, push, &mut out),
            Event::Update(update) => self.on_update(now_ms, *update, &mut out),
            Event::Gap => self.reconcile_at_ms = now_ms,
            Event::Offer(offer) => self.on_offer(now_ms, *offer, &mut out),
            Event::NoMore => self.dry = true,
            Event::Cancel => self.cancel(Failure::Interrupted, &mut out),
            Event::Kill { grace_ms } => {
                self.cancel(Failure::Interrupted, &mut out);
                self.kill_grace_ms = grace_ms;
                self.kill_again_at_ms = Some(now_ms);
            }
            Event::Leave => self.leaving = true,
        }
        self.on_time(now_ms, &mut out);
        out
    }

    fn call(&mut self, asked: Asked, call: Call, out: &mut Vec<Effect>) {
        self.call_no += 1;
        self.calls.insert(self.call_no, asked);
        out.push(Effect::Call { no: self.call_no, call: Box::new(call) });
    }

    fn on_job(&mut self, now_ms: u64, job: Job, out: &mut Vec<Effect>) {
        if self.cancelled || self.over {
            out.push(Effect::Failed { index: job.index, failure: Failure::Interrupted });
            return;
        }
        if let Some(after_ms) = self.config.start_deadline_ms {
            self.deadlines.insert((now_ms + after_ms, job.index));
        }
        self.pending.push_back(Pending { job, attempt: 1, retries: self.config.retries, lost: self.config.retries_lost, arrived_ms: now_ms });
    }

    /// How many more tasks could be launched now.
    fn room(&self) -> u32 {
        let free = (self.config.at_once_max as usize).saturating_sub(self.flights.len());
        u32::try_from(free.min(self.pending.len())).unwrap_or(u32::MAX)
    }

    fn demand(&self) -> Option<Demand> {
        let count = if self.config.member.is_some() { 0 } else { self.room() };
        (count > 0).then(|| Demand { request: self.config.request.clone(), count, open_max: 0, condition: self.config.condition.clone(), on: self.config.on.clone(), revocable: self.config.revocable })
    }

    fn subscribe(&mut self, out: &mut Vec<Effect>) {
        self.subscribing = true;
        self.subscribe_at_ms = None;
        let demand = self.demand();
        self.told = Some(demand.as_ref().map_or(0, |demand| demand.count));
        let call = Subscribe {
            v: self.speaks,
            framework: self.framework.clone(),
            session: self.config.session.clone(),
            session_no: self.session_no,
            member: self.config.member.clone(),
            guest: self.config.guest,
            takeover: false,
            name: self.config.name.clone(),
            role: self.config.role.clone(),
            who: self.config.who.clone(),
            // The id of a known name is told by the answer: offers before it would go unheard.
            demand: demand.filter(|_| self.config.name.is_none() || self.epoch > 0),
            failover_ms: self.config.failover_ms,
            on_unreachable: None,
            claims: Vec::new(),
        };
        if call.demand.is_none() {
            self.told = Some(0);
        }
        self.call(Asked::Subscribe, Call::Subscribe(call), out);
    }

    fn on_answer(&mut self, now_ms: u64, asked: Asked, answer: Option<Answer>, out: &mut Vec<Effect>) {
        if let Some(Answer::Refused(refusal)) = &answer {
            if refusal.code == RefusalCode::UnknownFramework && !matches!(asked, Asked::Subscribe | Asked::Leave) {
                // A new leader, or a session that lapsed while we were away.
                self.lost_session(now_ms);
            }
        }
        match asked {
            Asked::Subscribe => self.on_subscribed(now_ms, answer, out),
            Asked::Demand => {
                self.demanding = false;
                if !matches!(answer, Some(Answer::Done {})) {
                    self.told = None;
                    if answer.is_none() {
                        self.lost_session(now_ms);
                    }
                }
                if let Some(Answer::Refused(refusal)) = answer {
                    if refusal.code == RefusalCode::BadRequest {
                        self.cancel(Failure::Refused(refusal), out);
                    }
                }
            }
            Asked::Accept(accept) => self.on_accepted(now_ms, accept, answer, out),
            Asked::Beat => {
                self.beating = false;
                let wait_ms = if matches!(answer, Some(Answer::Done {})) { self.beat_ms } else { AGAIN_MS_MAX.min(self.beat_ms) };
                self.beat_at_ms = Some(now_ms + wait_ms);
                if let Some(Answer::Refused(refusal)) = answer {
                    if refusal.code == RefusalCode::NameHeld {
                        self.removed(refusal.message, out);
                    }
                }
            }
            Asked::Kill => self.kill_again_at_ms = (!self.flights.is_empty()).then_some(now_ms + AGAIN_MS_MAX),
            Asked::Leave => {
                // Without an answer the session lapses by itself; that is the same end, later.
                self.over = true;
                out.push(Effect::Left);
            }
            Asked::Reconcile => self.on_reconciled(now_ms, matches!(answer, Some(Answer::Done {}))),
            Asked::Decline => {}
        }
    }

    /// One part of the tasks was asked for. Where nobody could answer, as right after a bus was back, what was missed is not
    /// left until the next time: all is asked for again, later each time.
    fn on_reconciled(&mut self, now_ms: u64, is_done: bool) {
        self.unreconciled |= !is_done;
        if self.calls.values().any(|asked| matches!(asked, Asked::Reconcile)) {
            return;
        }
        if std::mem::take(&mut self.unreconciled) {
            self.reconcile_at_ms = self.reconcile_at_ms.min(now_ms + self.reconcile_again_ms);
            self.reconcile_again_ms = (2 * self.reconcile_again_ms).min(RECONCILE_MS);
        } else {
            self.reconcile_again_ms = AGAIN_MS_MAX;
        }
    }

    fn lost_session(&mut self, now_ms: u64) {
        if !self.subscribing {
            self.speaks = PROTOCOL;
            self.subscribed = false;
            self.subscribe_at_ms = Some(now_ms + self.again_ms);
            self.again_ms = (self.again_ms * 2).min(AGAIN_MS_MAX);
        }
    }

    fn on_subscribed(&mut self, now_ms: u64, answer: Option<Answer>, out: &mut Vec<Effect>) {
        self.subscribing = false;
        match answer {
            Some(Answer::Subscribed { framework, epoch, beat_ms, agents, session_no, .. }) => {
                self.session_no = session_no;
                let again = self.epoch > 0;
                self.subscribed = true;
                self.again_ms = AGAIN_MS;
                self.epoch = epoch;
                self.beat_ms = beat_ms.clamp(50, 3_600_000);
                self.beat_at_ms = Some(now_ms + self.beat_ms);
                if framework != self.framework {
                    self.framework = framework.clone();
                    out.push(Effect::Framework(framework));
                }
                if again {
                    self.reconcile_at_ms = now_ms;
                }
                out.push(Effect::Registered { agents });
            }
            Some(Answer::Refused(refusal)) if matches!(refusal.code, RefusalCode::Busy | RefusalCode::Recovering | RefusalCode::NotLeading) => self.lost_session(now_ms),
            Some(Answer::Refused(refusal)) if refusal.code == RefusalCode::Version && self.speaks > PROTOCOL_MIN => {
                self.speaks -= 1;
                self.subscribe(out);
            }
            Some(Answer::Refused(refusal)) => self.cancel(Failure::Refused(refusal), out),
            _ => self.lost_session(now_ms),
        }
    }

    fn on_push(&mut self, now_ms: u64, push: Push, out: &mut Vec<Effect>) {
        match push {
            Push::Offers { epoch, session, offers } if session == self.config.session && self.config.member.is_none() => {
                self.epoch = self.epoch.max(epoch);
                let mut spare = Vec::new();
                for offer in offers {
                    if !self.use_offers(epoch, std::slice::from_ref(&offer), out) {
                        spare.push(offer.id);
                    }
                }
                if !spare.is_empty() {
                    self.give_back(spare, out);
                }
            }
            Push::Known { update } => self.on_update(now_ms, *update, out),
            Push::Removed { session, reason } if session == self.config.session => self.removed(reason, out),
            _ => {}
        }
    }

    /// Gives back what is of no use.
    fn give_back(&mut self, offers: Vec<OfferId>, out: &mut Vec<Effect>) {
        let call = Call::Decline {
            framework: self.framework.clone(),
            session: self.config.session.clone(),
            offers,
            refuse_ms: REFUSE_MS,
            member: self.config.member.clone(),
            implicit: false,
        };
        self.call(Asked::Decline, call, out);
    }

    fn fail(&mut self, index: u64, failure: Failure, out: &mut Vec<Effect>) {
        self.deadlines.retain(|(_, waiting)| *waiting != index);
        out.push(Effect::Failed { index, failure });
    }

    /// Launches no more. A task whose accept is not answered yet is ended once it is known.
    fn cancel(&mut self, failure: Failure, out: &mut Vec<Effect>) {
        self.cancelled = true;
        for pending in std::mem::take(&mut self.pending) {
            self.fail(pending.job.index, failure.clone(), out);
        }
    }

    fn removed(&mut self, reason: String, out: &mut Vec<Effect>) {
        self.cancel(Failure::Removed(reason.clone()), out);
        for (_, flight) in std::mem::take(&mut self.flights) {
            self.fail(flight.pending.job.index, Failure::Removed(reason.clone()), out);
        }
        self.over = true;
        out.push(Effect::Left);
    }

    fn on_time(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if self.over {
            return;
        }
        while let Some((at, index)) = self.deadlines.first().copied() {
            if at > now_ms {
                break;
            }
            self.deadlines.remove(&(at, index));
            if let Some(place) = self.pending.iter().position(|pending| pending.job.index == index) {
                self.pending.remove(place);
                self.fail(index, Failure::StartDeadline, out);
            }
        }
        if self.leaving {
            if self.calls.values().any(|asked| matches!(asked, Asked::Leave)) {
                return;
            }
            if self.call_no == 0 {
                self.over = true;
                out.push(Effect::Left);
            } else {
                let call = Call::Leave { framework: self.framework.clone(), session: self.config.session.clone(), member: self.config.member.clone(), hold_ms: 0 };
                self.call(Asked::Leave, call, out);
            }
            return;
        }
        let idle = self.pending.is_empty() && self.flights.is_empty();
        let due = self.subscribe_at_ms.is_none_or(|at| at <= now_ms);
        if !self.subscribed && !self.subscribing && due && !idle {
            self.subscribe(out);
        }
        if !self.subscribed {
            return;
        }
        while self.accepts_again.front().is_some_and(|(at, _)| *at <= now_ms) {
            if let Some((_, accept)) = self.accepts_again.pop_front() {
                self.call(Asked::Accept(accept.clone()), Call::Accept(accept), out);
            }
        }
        if self.beat_at_ms.is_some_and(|at| at <= now_ms) && !self.beating {
            self.beating = true;
            self.call(Asked::Beat, Call::Beat { framework: self.framework.clone(), session: self.config.session.clone(), member: self.config.member.clone(), sated: self.sated }, out);
        }
        if self.kill_again_at_ms.is_some_and(|at| at <= now_ms) {
            self.kill_again_at_ms = None;
            self.kill_flights(out);
        }
        if self.reconcile_at_ms <= now_ms && !self.flights.is_empty() {
            self.reconcile_at_ms = now_ms + RECONCILE_MS;
            self.reconcile(out);
        }
        if self.config.member.is_some() {
            return self.on_time_joined(now_ms, out);
        }
        let room = self.room();
        if room > 0 && self.demand_at_ms <= now_ms {
            self.told = None;
        }
        if !self.demanding && self.told.is_none_or(|told| told < room || (room == 0 && told > 0)) {
            self.demanding = true;
            self.demand_at_ms = now_ms + DEMAND_AGAIN_MS;
            self.told = Some(room);
            let call = Call::Demand { framework: self.framework.clone(), session: self.config.session.clone(), demand: self.demand() };
            self.call(Asked::Demand, call, out);
        }
    }
}
