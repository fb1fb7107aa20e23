//! Sessions: a framework is connected while one member of its session lives.
//!
//! A lone tool is its session's only member. A pipeline has a head that begins the session and hears the offers, and
//! members that join by the session's nonce and launch on them. Of a name, the session with the highest number is the
//! one that counts; the number is in the registry before anybody is told of it, so that a new leader knows it too.

use std::collections::BTreeMap;

use crate::id::{FrameworkId, Name, Nonce, Principal, TaskId};
use crate::master::frameworks::{Framework, parse_condition, refused};
use crate::master::{FRAMEWORKS_MAX, Lead, Timer};
use crate::wire::call::{Answer, Push, Subscribe};
use crate::wire::{RefusalCode, protocol_fault};

/// The most members of one session.
pub const MEMBERS_MAX: usize = 64;
/// The longest that a session waits for others after a member left, milliseconds.
pub const HOLD_MS_MAX: u64 = 3_600_000;
/// Of who runs a session, so many characters are kept.
const WHO_CHARS_MAX: usize = 200;

/// A live connection of a framework.
#[derive(Clone, Debug)]
pub struct Session {
    /// What its members prove themselves by; also the first member's own number.
    pub nonce: Nonce,
    /// Which session of the framework this is, from 1.
    pub no: u64,
    /// Who began it, for people.
    pub who: String,
    pub(super) since_ms: u64,
    /// Who speaks for it.
    pub(super) members: BTreeMap<Nonce, Member>,
}

/// A process that speaks for a session.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Until when it counts as alive.
    until_ms: u64,
    /// It could launch no more now.
    sated: bool,
    /// It came for one launch, and the session goes on without it.
    guest: bool,
    /// It has left, and its seat is kept for those who have not found a new leader yet.
    has_left: bool,
}

impl Session {
    /// Whether anybody joined to stay.
    fn is_joined(&self) -> bool {
        self.joined().next().is_some()
    }

    fn joined(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|(member, seat)| **member != self.nonce && !seat.guest).map(|(_, seat)| seat)
    }

    /// Whether somebody joined and nobody of them could launch more.
    pub(super) fn is_sated(&self) -> bool {
        self.is_joined() && self.joined().all(|member| member.sated)
    }
}

impl Lead {
    /// Runs `then` if the session is the framework's own; any call of a member is a sign of its life.
    pub(super) fn in_session(&mut self, principal: &Principal, framework: &FrameworkId, session: &Nonce, member: Option<&Nonce>, then: impl FnOnce(&mut Self) -> Answer) -> Answer {
        let now_ms = self.now_ms;
        let until_ms = now_ms + self.config.session_timeout_ms;
        let Some(entry) = self.frameworks.get_mut(framework) else {
            return refused(RefusalCode::UnknownFramework, format!("framework {framework} is not registered"));
        };
        if entry.principal != *principal {
            return refused(RefusalCode::NotYours, format!("framework {framework} belongs to another principal"));
        }
        match &mut entry.session {
            Some(live) if live.nonce == *session => match live.members.get_mut(member.unwrap_or(session)) {
                Some(seat) => seat.until_ms = until_ms.max(seat.until_ms),
                None if member.is_some() => return refused(RefusalCode::UnknownFramework, format!("this process has not joined the session of framework {framework}")),
                // The head is gone and what it said last comes late; or somebody speaks for the session without a seat.
                None => {}
            },
            Some(other) => {
                let who = other.who.clone();
                return refused(RefusalCode::NameHeld, format!("framework {framework} is held by {who}"));
            }
            None => {
                // It lives and does not know yet that it has to subscribe again: its answers may not reach it.
                entry.gone_ms = now_ms;
                return refused(RefusalCode::UnknownFramework, format!("the session of framework {framework} has ended"));
            }
        }
        then(self)
    }

    /// Begins a session, joins one, or comes back to a leader that does not know it.
    pub(super) fn subscribe(&mut self, principal: &Principal, call: Subscribe) -> Answer {
        if let Some(message) = protocol_fault("the tool", call.v) {
            return refused(RefusalCode::Version, message);
        }
        let condition = match call.demand.as_ref().map(parse_condition).transpose() {
            Ok(condition) => condition.flatten(),
            Err(refusal) => return Answer::Refused(refusal),
        };
        let named = call.name.as_ref().and_then(|name| self.names.get(&(principal.clone(), name.clone())).cloned());
        let framework = named.clone().unwrap_or_else(|| call.framework.clone());
        let fresh = !self.frameworks.contains_key(&framework);
        if fresh && self.frameworks.len() >= FRAMEWORKS_MAX {
            return refused(RefusalCode::Busy, format!("{FRAMEWORKS_MAX} frameworks are registered, which is the limit"));
        }
        if let Some(answer) = self.held_by_another(principal, &framework, &call) {
            return answer;
        }
        let recovered = named.is_some();
        let (now_ms, until_ms) = (self.now_ms, self.now_ms + self.config.session_timeout_ms);
        // Whoever comes anew, and again and again, is not next before those who are there.
        let served = self.frameworks.values().filter(|entry| entry.is_connected()).map(|entry| entry.served).min().unwrap_or(0);
        let entry = self
            .frameworks
            .entry(framework.clone())
            .or_insert_with(|| Framework { served, ..Framework::new(call.name.clone(), principal.clone(), call.role.clone(), call.failover_ms, now_ms) });
        let same = entry.session.as_ref().filter(|session| session.nonce == call.session);
        let (same_no, since_ms) = same.map_or((None, now_ms), |session| (Some(session.no), session.since_ms));
        let joins = call.member.is_some() && same.is_some();
        let member = call.member.clone().unwrap_or_else(|| call.session.clone());
        let mut members = same.map(|session| session.members.clone()).unwrap_or_default();
        if members.len() >= MEMBERS_MAX && !members.contains_key(&member) {
            return refused(RefusalCode::Busy, format!("a session has at most {MEMBERS_MAX} members"));
        }
        members.entry(member).and_modify(|seat| seat.until_ms = until_ms.max(seat.until_ms)).or_insert(Member { until_ms, sated: false, guest: call.guest && call.member.is_some(), has_left: false });
        let no = same_no.unwrap_or(if call.session_no > 0 { call.session_no } else { entry.session_no + 1 });
        let who = match same {
            Some(session) if joins => session.who.clone(),
            _ => call.who.chars().take(WHO_CHARS_MAX).collect(),
        };
        let mut to_register = false;
        if !joins {
            if call.name.is_some() {
                to_register = !recovered || entry.role != call.role || entry.failover_ms != call.failover_ms;
                entry.name = call.name.clone();
            }
            // What a head said of its framework stands, also where a tail is the first to find a new leader.
            if call.member.is_none() {
                entry.role = call.role.clone();
                entry.failover_ms = call.failover_ms;
                entry.on_unreachable = call.on_unreachable;
            }
            entry.demand = call.demand;
            entry.condition = condition;
            if same_no.is_none() {
                entry.suppressed = false;
            }
        }
        // What is armed may be for the end of the failover time, which is no matter of a session that lives.
        entry.armed &= same_no.is_some();
        to_register |= entry.name.is_some() && no != entry.session_no;
        entry.session_no = no;
        entry.session = Some(Session { nonce: call.session.clone(), no, who, since_ms, members });
        if let (Some(name), false) = (call.name.clone(), recovered) {
            self.names.insert((principal.clone(), name), framework.clone());
        }
        if to_register {
            self.register_frameworks();
        }
        if fresh && call.name.is_some() {
            self.tell("framework_added", framework.to_string(), format!("framework {framework} of {principal} registered"));
        }
        if !joins {
            self.refusals.clear(&framework);
            self.fresh_frameworks.insert(framework.clone());
        }
        self.arm_session(&framework);
        // Those that registered and are heard of have an account.
        let agents = self.ledger.agents_count();
        if !call.claims.is_empty() {
            self.claim(&framework, call.claims);
        }
        let seen = self.frameworks[&framework].seen;
        Answer::Subscribed {
            framework,
            epoch: self.epoch,
            master: self.config.master.clone(),
            beat_ms: self.config.session_beat_ms,
            session_ms: self.config.session_timeout_ms,
            agents: u32::try_from(agents).unwrap_or(u32::MAX),
            recovered,
            session_no: no,
            seen: seen.seq,
            seen_ms: seen.recorded_ms,
        }
    }

    /// Why the framework is not the caller's to speak for, if it is not; a holder that has to give way is fenced here.
    fn held_by_another(&mut self, principal: &Principal, framework: &FrameworkId, call: &Subscribe) -> Option<Answer> {
        let entry = self.frameworks.get(framework)?;
        if entry.principal != *principal {
            return Some(refused(RefusalCode::NotYours, format!("framework {framework} belongs to another principal")));
        }
        let what = call.name.as_ref().map_or_else(|| framework.to_string(), Name::to_string);
        let holder = entry.session.as_ref().filter(|holder| holder.nonce != call.session);
        let Some(holder) = holder else {
            // A session that was taken over under an earlier leader comes back to a new one.
            let is_fenced = entry.session.is_none() && call.session_no > 0 && call.session_no < entry.session_no;
            return is_fenced.then(|| refused(RefusalCode::NameHeld, format!("{what} was taken over by a later session")));
        };
        let comes_later = call.session_no > holder.no;
        if !comes_later && (!call.takeover || call.member.is_some() || call.session_no > 0) {
            let held_s = self.now_ms.saturating_sub(holder.since_ms) / 1000;
            return Some(refused(RefusalCode::NameHeld, format!("{what} is held by {} since {held_s} s", holder.who)));
        }
        let session = holder.nonce.clone();
        self.push(framework, Push::Removed { session, reason: "taken_over".to_owned() });
        self.return_offers(framework);
        if let Some(entry) = self.frameworks.get_mut(framework) {
            entry.session = None;
            entry.gone_ms = self.now_ms;
        }
        None
    }

    /// Sees to it that the session is looked at when a member could have lapsed; one timer a framework.
    pub(super) fn arm_session(&mut self, framework: &FrameworkId) {
        let timeout_ms = self.config.session_timeout_ms;
        let Some(entry) = self.frameworks.get_mut(framework) else { return };
        if entry.armed {
            return;
        }
        entry.armed = true;
        let at_ms = match &entry.session {
            Some(session) => session.members.values().map(|member| member.until_ms).min().unwrap_or(self.now_ms),
            // After a failover the holder has one session's time to come back, whatever its own deadline.
            None => entry.gone_ms.saturating_add(entry.failover_ms.max(timeout_ms)),
        };
        let wait_ms = at_ms.saturating_sub(self.now_ms);
        self.timer(wait_ms, Timer::Session(framework.clone()));
    }

    pub(super) fn session_due(&mut self, framework: &FrameworkId) {
        let timeout_ms = self.config.session_timeout_ms;
        let now_ms = self.now_ms;
        let Some(entry) = self.frameworks.get_mut(framework) else { return };
        entry.armed = false;
        let Some(session) = &entry.session else {
            if entry.gone_ms.saturating_add(entry.failover_ms.max(timeout_ms)) <= now_ms {
                return self.lapse(framework);
            }
            return self.arm_session(framework);
        };
        let due: Vec<(Nonce, bool)> = session.members.iter().filter(|(_, seat)| seat.until_ms <= now_ms).map(|(member, seat)| (member.clone(), seat.has_left)).collect();
        for (member, has_left) in due {
            self.member_gone(framework, &member, if has_left { "done" } else { "lapsed" });
        }
        self.arm_session(framework);
    }

    /// A member says that it is done. The head may have the session wait for others to join.
    pub(super) fn leave(&mut self, framework: &FrameworkId, member: &Nonce, hold_ms: u64) {
        let is_awaited = self.is_awaited(framework);
        if hold_ms == 0 && is_awaited {
            return self.leave_later(framework, member);
        }
        let found_ms = if is_awaited { self.since_ms + self.config.session_timeout_ms } else { 0 };
        let at_ms = found_ms.max(self.now_ms + hold_ms.min(HOLD_MS_MAX));
        let session = self.frameworks.get_mut(framework).and_then(|entry| entry.session.as_mut());
        if let Some(session) = session.filter(|session| hold_ms > 0 && session.nonce == *member) {
            session.members.insert(member.clone(), Member { until_ms: at_ms, sated: false, guest: false, has_left: false });
            self.stop_offering(framework);
            // What is armed may be for a later time.
            return self.timer(at_ms - self.now_ms, Timer::Session(framework.clone()));
        }
        self.member_gone(framework, member, "done");
    }

    /// Whether somebody whose tasks an earlier leader launched may still be on the way to this one.
    fn is_awaited(&self, framework: &FrameworkId) -> bool {
        let is_young = self.now_ms < self.since_ms + self.config.session_timeout_ms;
        let is_foreign = |id: &TaskId| self.tasks.get(id).is_some_and(|task| task.launch.launch.epoch < self.epoch && task.member.is_none() && !task.launch.spec.keep);
        is_young && self.frameworks.get(framework).is_some_and(|entry| entry.tasks.iter().any(is_foreign))
    }

    /// Lets a member's leaving count once everybody has had the time to find this leader: with it the session could end,
    /// and with the session the tasks of one who lives.
    fn leave_later(&mut self, framework: &FrameworkId, member: &Nonce) {
        let until_ms = self.since_ms + self.config.session_timeout_ms;
        let Some(session) = self.frameworks.get_mut(framework).and_then(|entry| entry.session.as_mut()) else { return };
        if let Some(seat) = session.members.get_mut(member) {
            *seat = Member { until_ms, sated: true, guest: seat.guest, has_left: true };
            // What is armed may be for a later time.
            self.timer(until_ms - self.now_ms, Timer::Session(framework.clone()));
        }
    }

    /// A member says whether it could launch more.
    pub(super) fn set_sated(&mut self, framework: &FrameworkId, member: &Nonce, sated: bool) {
        let Some(session) = self.frameworks.get_mut(framework).and_then(|entry| entry.session.as_mut()) else { return };
        let before = session.is_sated();
        if let Some(seat) = session.members.get_mut(member) {
            seat.sated = sated;
        }
        if before && !session.is_sated() {
            self.fresh_frameworks.insert(framework.clone());
        }
    }

    /// A member is no more. The session ends with its last member, and with the last that joined: then the work is done.
    fn member_gone(&mut self, framework: &FrameworkId, member: &Nonce, reason: &str) {
        let Some(session) = self.frameworks.get_mut(framework).and_then(|entry| entry.session.as_mut()) else { return };
        let Some(seat) = session.members.remove(member) else { return };
        let joined = *member != session.nonce;
        if session.members.is_empty() {
            // Nobody is left to be told; one who was only out of reach comes back and subscribes.
            return self.disconnect(framework);
        }
        if joined && !seat.guest && !session.is_joined() {
            let session = session.nonce.clone();
            self.push(framework, Push::Removed { session, reason: reason.to_owned() });
            return self.disconnect(framework);
        }
        if !joined {
            self.stop_offering(framework);
        }
        if joined && reason == "lapsed" && self.frameworks[framework].name.is_none() {
            // Nobody follows what it launched.
            let orphans: Vec<TaskId> = self.tasks.iter().filter(|(_, task)| task.member.as_ref() == Some(member) && !task.launch.spec.keep).map(|(id, _)| id.clone()).collect();
            for task in orphans {
                self.want_killed(&task, None, "framework_gone");
            }
        }
    }

    /// Nobody hands offers on any more; those that were handed on stay good.
    fn stop_offering(&mut self, framework: &FrameworkId) {
        if let Some(entry) = self.frameworks.get_mut(framework) {
            entry.demand = None;
        }
    }

    /// The session is over. A named framework's tasks live on until its failover deadline, an unnamed one's end now.
    pub(super) fn disconnect(&mut self, framework: &FrameworkId) {
        let now_ms = self.now_ms;
        let Some(entry) = self.frameworks.get_mut(framework) else { return };
        entry.session = None;
        entry.demand = None;
        entry.condition = None;
        entry.gone_ms = now_ms;
        entry.claims.clear();
        self.forget_hunger(framework);
        self.return_offers(framework);
        self.refusals.clear(framework);
        if self.frameworks[framework].name.is_none() {
            self.lapse(framework);
        } else {
            self.arm_session(framework);
        }
    }
}
