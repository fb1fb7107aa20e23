//! The leader lease: who may lead, under which epoch, and for how long
//!
//! One record in the bus's store says who leads. Its holder renews it by compare-and-set; everybody
//! else watches it change. Nobody compares clocks with anybody: the holder counts from before it
//! sent a renewal, the challenger from after it saw one, and the holder gives up
//! [`MARGIN_MS_MIN`] or more before a challenger may take. Only a successful compare-and-set proves
//! anything; a read is a hint, and silence means "unknown".
//!
//! Two shortcuts around the waiting. A holder that releases is followed at once. And when the bus
//! says for [`SILENCE_MS`] without interruption that nobody listens where the holder must, its
//! connection has ended; a holder that notices so itself stops acting in the same moment and only
//! goes on once the store confirms its record.

#[cfg(test)]
mod election;
mod record;
#[cfg(test)]
mod tests;

pub use record::{BadLeaseTimes, Candidate, EPOCH_MAX, LEASE_MS_MAX, LeaseTimes, MARGIN_MS_MIN, Record};

use crate::id::{MasterId, Nonce};

/// Uninterrupted "nobody listens" after which the holder counts as dead. A holder that merely
/// reconnects is away for up to 300 ms.
pub const SILENCE_MS: u64 = 1_000;
/// The same where no record exists at all: nobody can hold what is not there, except a leader whose
/// store was lost this instant, and that one finds out with its next renewal.
pub const SILENCE_WITHOUT_RECORD_MS: u64 = 250;
/// How often a standby asks whether the holder listens, and how often once it did not
const PING_MS: u64 = 300;
const SUSPICIOUS_PING_MS: u64 = 100;
/// Being called this much later than asked for means that the whole process was stopped
const PAUSE_MS: u64 = 500;
/// After we are connected again, others get this long to be so too before their silence counts
const RETURN_MS: u64 = 700;
/// A hint comes a little before the store shows what it is about
const EAGER_READ_MS: u64 = 15;
const EAGER_MS_MAX: u64 = 300;
/// Pause before trying again what failed
const RETRY_MS: u64 = 250;
/// Attempts to write the release before giving up; the lease runs out by itself then
const RELEASE_ATTEMPTS_MAX: u32 = 3;

/// What happened
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Tick,
    /// The answer to a [`Effect::Read`]: the record and its revision, 0 if there is none.
    Found { attempt: u64, revision: u64, record: Option<Record> },
    ReadFailed { attempt: u64 },
    /// The holder seems to have released; worth a look.
    Hint,
    /// Outcome of the one [`Effect::Cas`] under way.
    CasDone { attempt: u64, revision: u64 },
    /// The revision was not the expected one: certainly not stored.
    CasRefused { attempt: u64 },
    /// It may have been stored, or may yet be.
    CasUnknown { attempt: u64 },
    /// The bus says that nobody listens where the holder must.
    PingUnheard { attempt: u64 },
    /// Somebody listens; the incarnation that answered, if one did in time.
    PingHeard { attempt: u64, nonce: Option<Nonce> },
    /// Whether anybody listens could not be found out.
    PingFailed { attempt: u64 },
    /// To be said before anything that came in over the lost connection is.
    Disconnected,
    Connected,
    /// Epochs up to here were obeyed under another leader, or must not be used for another reason.
    RaiseAbove { epoch: u64 },
    /// Stop for good, and let the successor in.
    Release,
}

/// What must now become true outside, in this order
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Read { attempt: u64 },
    /// Store the record over exactly this revision, 0 for "there is none".
    Cas { attempt: u64, expect: u64, record: Record },
    /// Ask whether the holder listens, or whether any leader does.
    Ping { attempt: u64, holder: Option<MasterId> },
    /// We lead under this epoch, until then; repeated with each renewal.
    Lead { epoch: u64, valid_until_ms: u64 },
    /// We must not act now, but may go on leading later, under this epoch or a higher one.
    Suspend { epoch: u64 },
    /// We do not lead any more, and never again under this epoch.
    StepDown { epoch: u64, why: Why },
    /// Somebody else leads, as far as we saw.
    Standby { holder: MasterId, epoch: u64 },
    /// The end after [`Event::Release`].
    Released,
}

/// Why a leader stood down
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its own clock said so: no renewal succeeded for too long.
    Lapsed,
    /// Another incarnation holds the lease.
    Lost,
    /// The record is gone, the store was lost.
    StoreLost,
    Released,
}

/// One candidate's side of the lease
#[derive(Clone, Debug)]
pub struct Lease {
    me: Candidate,
    times: LeaseTimes,
    role: Role,
    /// Epochs up to here must not be used: seen on agents, or burnt.
    used_epoch: u64,
    connected: bool,
    seen: Option<Seen>,
    /// The one read whose answer counts.
    reading: Option<u64>,
    read_at_ms: u64,
    /// The record is about to change: until then, read it often.
    eager_until_ms: u64,
    cas: Option<InFlight>,
    /// After an unknown outcome the next write waits a little.
    write_at_ms: u64,
    attempts: u64,
    /// The one ping whose answer counts, and when it was sent.
    pinging: Option<(u64, u64)>,
    ping_at_ms: u64,
    /// When the holder, or any leader, was first and last found unheard, without interruption.
    silence: Option<(u64, u64)>,
    releasing: Option<u32>,
    announced: Option<(MasterId, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    Standby,
    Leader(Holding),
    Over,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Holding {
    epoch: u64,
    /// None while it is unknown which of our writes is the last.
    revision: Option<u64>,
    valid_until_ms: u64,
    renew_at_ms: u64,
    /// Suspended otherwise.
    acting: bool,
}

/// The record as last read
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    revision: u64,
    record: Option<Record>,
    /// When it was first read like this.
    since_ms: u64,
    /// Read since the store was last away, as far as we noticed. Revisions of one that was lost meanwhile begin again, and an
    /// old one may be valid by chance.
    confirmed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct InFlight {
    attempt: u64,
    sent_ms: u64,
    record: Record,
    is_claim: bool,
}

impl Lease {
    /// A candidate that knows nothing yet; feed it [`Event::Tick`] to begin.
    ///
    /// `used_epoch` is the highest epoch known to have been used, 0 if none: its own epochs will
    /// be higher.
    pub fn new(me: Candidate, times: LeaseTimes, used_epoch: u64) -> Lease {
        Lease {
            me,
            times,
            role: Role::Standby,
            used_epoch,
            connected: true,
            seen: None,
            reading: None,
            read_at_ms: 0,
            cas: None,
            write_at_ms: 0,
            attempts: 0,
            pinging: None,
            ping_at_ms: 0,
            silence: None,
            eager_until_ms: 0,
            releasing: None,
            announced: None,
        }
    }

    /// Takes one event in. `now_ms` never goes back.
    pub fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.role != Role::Over {
            self.lapse(now_ms, &mut effects);
            if self.deadline().is_some_and(|due_ms| now_ms > due_ms.saturating_add(PAUSE_MS)) {
                // We were stopped, and what waits for us to be read is as old as that.
                self.doubt(now_ms);
            }
            self.take(now_ms, event, &mut effects);
            self.plan(now_ms, &mut effects);
        }
        effects
    }

    /// When to feed [`Event::Tick`] if nothing else happens before.
    pub fn deadline(&self) -> Option<u64> {
        let mut at = Vec::new();
        match &self.role {
            Role::Over => return None,
            Role::Leader(holding) => {
                at.push(holding.valid_until_ms);
                if self.connected && self.cas.is_none() && self.reading.is_none() {
                    at.push(match holding.revision {
                        None => self.read_at_ms,
                        Some(_) => self.write_due_ms(holding),
                    });
                }
            }
            Role::Standby if self.connected => {
                if self.reading.is_none() {
                    at.push(self.read_at_ms);
                }
                if self.pinging.is_none() && self.is_foreign() {
                    at.push(self.ping_at_ms);
                }
                if self.cas.is_none() {
                    at.extend(self.seen.as_ref().filter(|seen| seen.confirmed).map(|seen| self.claimable_at_ms(seen).max(self.write_at_ms)));
                }
            }
            Role::Standby => {}
        }
        at.into_iter().min()
    }

    /// The epoch under which we may act at this moment.
    pub fn leads(&self, now_ms: u64) -> Option<u64> {
        match &self.role {
            Role::Leader(holding) if holding.acting && now_ms < holding.valid_until_ms => Some(holding.epoch),
            _ => None,
        }
    }

    /// Gives up when our own clock says so, before anything else is looked at.
    fn lapse(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if let Role::Leader(holding) = &self.role
            && now_ms >= holding.valid_until_ms
        {
            self.step_down(now_ms, Why::Lapsed, effects);
        }
    }

    fn take(&mut self, now_ms: u64, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick => {}
            Event::Hint => {
                if self.role == Role::Standby {
                    self.read_at_ms = now_ms + EAGER_READ_MS;
                    self.eager_until_ms = now_ms + EAGER_MS_MAX;
                }
            }
            Event::Found { attempt, revision, record } => {
                if self.reading.take_if(|reading| *reading == attempt).is_some() {
                    self.found(now_ms, revision, record, effects);
                }
            }
            Event::ReadFailed { attempt } => {
                if self.reading.take_if(|reading| *reading == attempt).is_some() {
                    self.read_at_ms = now_ms + RETRY_MS;
                    self.unconfirm();
                }
            }
            Event::CasDone { attempt, revision } => {
                if let Some(cas) = self.cas.take_if(|cas| cas.attempt == attempt) {
                    self.cas_done(now_ms, cas, revision, effects);
                }
            }
            Event::CasRefused { attempt } => {
                if self.cas.take_if(|cas| cas.attempt == attempt).is_some() {
                    // Perhaps somebody else's, perhaps an earlier write of ours: only reading tells.
                    self.suspend(effects);
                    self.seen = None;
                    self.forget_revision(now_ms);
                }
            }
            Event::CasUnknown { attempt } => {
                if self.cas.take_if(|cas| cas.attempt == attempt).is_some() {
                    self.write_at_ms = now_ms + RETRY_MS;
                    self.unconfirm();
                    self.forget_revision(now_ms);
                }
            }
            Event::PingUnheard { attempt } => self.pinged(now_ms, attempt, true),
            Event::PingHeard { attempt, nonce } => {
                // Whoever answers under the holder's name but is another incarnation proves that
                // the holder is gone.
                let holder = self.seen.as_ref().and_then(|seen| seen.record.as_ref()).map(|record| &record.nonce);
                let is_stranger = matches!((&nonce, holder), (Some(nonce), Some(holder)) if nonce != holder);
                self.pinged(now_ms, attempt, is_stranger);
            }
            Event::PingFailed { attempt } => self.pinged(now_ms, attempt, false),
            Event::Disconnected => {
                self.connected = false;
                self.silence = None;
                self.suspend(effects);
            }
            Event::Connected => {
                self.connected = true;
                self.doubt(now_ms);
                // The holder may be on its way back as well.
                self.ping_at_ms = now_ms + RETURN_MS;
            }
            Event::RaiseAbove { epoch } => self.raise_above(epoch, effects),
            Event::Release if self.releasing.is_some() => {}
            Event::Release => {
                self.releasing = Some(RELEASE_ATTEMPTS_MAX);
                if let Role::Leader(holding) = &mut self.role {
                    holding.acting = false;
                    let epoch = holding.epoch;
                    self.burn(epoch);
                    effects.push(Effect::StepDown { epoch, why: Why::Released });
                }
            }
        }
    }

    fn found(&mut self, now_ms: u64, revision: u64, record: Option<Record>, effects: &mut Vec<Effect>) {
        if let Role::Leader(holding) = &mut self.role {
            if holding.revision.is_some() {
                return;
            }
            match &record {
                Some(record) if record.nonce == self.me.nonce && record.epoch >= holding.epoch => {
                    holding.revision = Some(revision);
                    holding.renew_at_ms = now_ms;
                    // A raise of which we do not know when it was sent is not acted under.
                    if record.epoch > holding.epoch {
                        self.used_epoch = self.used_epoch.max(record.epoch);
                    }
                    return;
                }
                Some(_) => self.step_down(now_ms, Why::Lost, effects),
                None => self.step_down(now_ms, Why::StoreLost, effects),
            }
        }
        let is_eager = now_ms < self.eager_until_ms;
        self.read_at_ms = now_ms + if is_eager { EAGER_READ_MS } else { self.times.renew_ms() };
        let is_same = self.seen.as_ref().is_some_and(|seen| seen.revision == revision && seen.record == record);
        if is_same {
            self.seen.iter_mut().for_each(|seen| seen.confirmed = true);
        } else {
            let nonce = |record: &Option<Record>| record.as_ref().map(|record| record.nonce.clone());
            if self.seen.as_ref().is_none_or(|seen| nonce(&seen.record) != nonce(&record)) {
                // What is still under way asks about somebody else.
                self.pinging = None;
            }
            self.seen = Some(Seen { revision, record, since_ms: now_ms, confirmed: true });
            self.silence = None;
            self.ping_at_ms = self.ping_at_ms.min(now_ms + PING_MS);
        }
        let holder = self.seen.as_ref().and_then(|seen| seen.record.as_ref());
        if let Some(record) = holder.filter(|record| record.nonce != self.me.nonce && !record.released) {
            let now = (record.holder.clone(), record.epoch);
            if self.announced.as_ref() != Some(&now) {
                effects.push(Effect::Standby { holder: now.0.clone(), epoch: now.1 });
                self.announced = Some(now);
            }
        }
    }

    fn cas_done(&mut self, now_ms: u64, cas: InFlight, revision: u64, effects: &mut Vec<Effect>) {
        if cas.record.released {
            self.role = Role::Over;
            effects.push(Effect::Released);
            return;
        }
        let valid_until_ms = cas.sent_ms + self.times.stop_ms();
        match &mut self.role {
            Role::Standby if cas.is_claim => {
                self.seen = None;
                if now_ms >= valid_until_ms {
                    // Too late to be of use.
                    self.burn(cas.record.epoch);
                    self.forget_revision(now_ms);
                    return;
                }
                self.announced = None;
                self.role = Role::Leader(Holding {
                    epoch: cas.record.epoch,
                    revision: Some(revision),
                    valid_until_ms,
                    renew_at_ms: cas.sent_ms + self.times.renew_ms(),
                    acting: false,
                });
                self.lead(effects);
            }
            Role::Leader(holding) if !cas.is_claim => {
                holding.revision = Some(revision);
                holding.valid_until_ms = holding.valid_until_ms.max(valid_until_ms);
                holding.renew_at_ms = cas.sent_ms + self.times.renew_ms();
                if cas.record.epoch > holding.epoch {
                    holding.epoch = cas.record.epoch;
                    holding.acting = false;
                }
                self.lead(effects);
            }
            // A late success of a renewal, after standing down: that epoch is burnt.
            Role::Standby | Role::Leader(_) | Role::Over => {}
        }
    }

    /// Acts, or goes on acting, if nothing speaks against this epoch.
    fn lead(&mut self, effects: &mut Vec<Effect>) {
        let (used_epoch, connected, releasing) = (self.used_epoch, self.connected, self.releasing.is_some());
        if let Role::Leader(holding) = &mut self.role
            && connected
            && !releasing
            && holding.epoch > used_epoch
        {
            holding.acting = true;
            effects.push(Effect::Lead { epoch: holding.epoch, valid_until_ms: holding.valid_until_ms });
        }
    }

    fn pinged(&mut self, now_ms: u64, attempt: u64, is_silent: bool) {
        let Some((_, sent_ms)) = self.pinging.take_if(|(pinging, _)| *pinging == attempt) else { return };
        // Between slow answers a holder can come and go unnoticed.
        let is_silent = is_silent && now_ms - sent_ms <= PING_MS;
        if is_silent && self.connected {
            let (first_ms, _) = self.silence.unwrap_or((now_ms, now_ms));
            self.silence = Some((first_ms, now_ms));
            self.ping_at_ms = now_ms + SUSPICIOUS_PING_MS;
        } else {
            self.silence = None;
            self.ping_at_ms = now_ms + PING_MS;
        }
    }

    fn raise_above(&mut self, epoch: u64, effects: &mut Vec<Effect>) {
        if epoch >= EPOCH_MAX {
            return;
        }
        match &mut self.role {
            Role::Leader(holding) if epoch >= holding.epoch => {
                self.used_epoch = self.used_epoch.max(epoch);
                self.suspend(effects);
            }
            Role::Leader(_) => {}
            Role::Standby | Role::Over => self.used_epoch = self.used_epoch.max(epoch),
        }
    }

    /// Starts what is due.
    fn plan(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        match &self.role {
            Role::Over => {}
            Role::Leader(holding) => {
                if !self.connected || self.cas.is_some() {
                    return;
                }
                match holding.revision {
                    None => self.read_if_due(now_ms, effects),
                    Some(revision) => {
                        let epoch = if holding.epoch > self.used_epoch || self.releasing.is_some() {
                            holding.epoch
                        } else {
                            self.used_epoch + 1
                        };
                        if now_ms >= self.write_due_ms(holding) {
                            self.write(now_ms, revision, epoch, false, effects);
                        }
                    }
                }
            }
            Role::Standby => self.plan_standby(now_ms, effects),
        }
    }

    fn plan_standby(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.releasing.is_some() && self.cas.is_none() {
            self.role = Role::Over;
            effects.push(Effect::Released);
            return;
        }
        if !self.connected {
            return;
        }
        self.read_if_due(now_ms, effects);
        let Some(seen) = &self.seen else { return };
        let may_write = self.cas.is_none() && self.releasing.is_none() && seen.confirmed;
        if may_write && now_ms >= self.claimable_at_ms(seen).max(self.write_at_ms) {
            let (revision, epoch) = (seen.revision, seen.record.as_ref().map_or(0, |record| record.epoch));
            self.write(now_ms, revision, 1 + epoch.max(self.used_epoch), true, effects);
        } else if self.pinging.is_none() && now_ms >= self.ping_at_ms && self.is_foreign() {
            self.attempts += 1;
            self.pinging = Some((self.attempts, now_ms));
            let holder = self.seen.as_ref().and_then(|seen| seen.record.as_ref()).map(|record| record.holder.clone());
            effects.push(Effect::Ping { attempt: self.attempts, holder });
        }
    }

    fn read_if_due(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.reading.is_none() && now_ms >= self.read_at_ms {
            self.attempts += 1;
            self.reading = Some(self.attempts);
            effects.push(Effect::Read { attempt: self.attempts });
        }
    }

    /// When the holder writes next: at once if it must not act before it has
    fn write_due_ms(&self, holding: &Holding) -> u64 {
        let is_urgent = self.releasing.is_some() || holding.epoch <= self.used_epoch;
        if is_urgent { self.write_at_ms } else { holding.renew_at_ms.max(self.write_at_ms) }
    }

    /// From when on the record as seen may be claimed
    fn claimable_at_ms(&self, seen: &Seen) -> u64 {
        let (lease_ms, silence_ms) = match &seen.record {
            Some(record) if record.released || record.nonce == self.me.nonce => return seen.since_ms,
            Some(record) => (record.lease_ms.min(LEASE_MS_MAX), SILENCE_MS),
            None => (self.times.lease_ms(), SILENCE_WITHOUT_RECORD_MS),
        };
        match self.silence {
            Some((first_ms, last_ms)) if last_ms - first_ms >= silence_ms => last_ms,
            _ => seen.since_ms + lease_ms,
        }
    }

    /// Whether there is somebody whose life matters: not we ourselves, and not one who released.
    fn is_foreign(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| match &seen.record {
            Some(record) => record.nonce != self.me.nonce && !record.released,
            None => true,
        })
    }

    fn write(&mut self, now_ms: u64, expect: u64, epoch: u64, is_claim: bool, effects: &mut Vec<Effect>) {
        let released = match &mut self.releasing {
            Some(0) => {
                // The lease will run out by itself.
                self.role = Role::Over;
                effects.push(Effect::Released);
                return;
            }
            Some(attempts_left) => {
                *attempts_left -= 1;
                true
            }
            None => false,
        };
        self.attempts += 1;
        let record = Record {
            v: Record::VERSION,
            holder: self.me.id.clone(),
            nonce: self.me.nonce.clone(),
            epoch,
            lease_ms: self.times.lease_ms(),
            released,
            host: self.me.host.clone(),
            since_ms: self.me.since_ms,
        };
        self.cas = Some(InFlight { attempt: self.attempts, sent_ms: now_ms, record: record.clone(), is_claim });
        effects.push(Effect::Cas { attempt: self.attempts, expect, record });
    }

    fn suspend(&mut self, effects: &mut Vec<Effect>) {
        if let Role::Leader(holding) = &mut self.role
            && holding.acting
        {
            holding.acting = false;
            effects.push(Effect::Suspend { epoch: holding.epoch });
        }
    }

    fn step_down(&mut self, now_ms: u64, why: Why, effects: &mut Vec<Effect>) {
        if let Role::Leader(holding) = &self.role {
            let epoch = holding.epoch;
            let was_told = self.releasing.is_some();
            self.burn(epoch);
            self.role = Role::Standby;
            self.seen = None;
            self.silence = None;
            self.read_at_ms = now_ms;
            if !was_told {
                effects.push(Effect::StepDown { epoch, why });
            }
        }
    }

    fn burn(&mut self, epoch: u64) {
        self.used_epoch = self.used_epoch.max(epoch);
    }

    /// After an interruption: nothing seen before it is the ground for a write, until read again.
    fn doubt(&mut self, now_ms: u64) {
        self.reading = None;
        self.pinging = None;
        self.silence = None;
        self.unconfirm();
        self.forget_revision(now_ms);
    }

    /// What was seen is no ground for a write until it is read again: a store that was away may have lost what it had
    /// written last, and its revisions count anew from there.
    fn unconfirm(&mut self) {
        // Two absences look alike, whatever was between them.
        self.seen.take_if(|seen| seen.record.is_none());
        self.seen.iter_mut().for_each(|seen| seen.confirmed = false);
    }

    /// Reads at once; a leader writes nothing more before it knows which write of it was the last.
    fn forget_revision(&mut self, now_ms: u64) {
        if let Role::Leader(holding) = &mut self.role {
            holding.revision = None;
        }
        self.read_at_ms = now_ms;
    }
}
