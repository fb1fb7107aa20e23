//! The leader lease over the bus: carries out what the pure lease of `meso_core::lease` decides
//!
//! It has a connection of its own, so that no queue of the master's can delay a renewal, and so that
//! a term that ends can drop its connection with all that still waits in it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meso_core::id::{MasterId, Nonce};
use meso_core::lease::{Candidate, Effect, Event, Lease, LeaseTimes, Record};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::shared::Link;
use crate::store::Bucket;
use crate::{Bus, BusError, BusOptions, Message, Store, Subscription};

/// The one key of the lease's bucket
const KEY: &str = "leader";
/// How long a write, or a read, of the record may take before its outcome counts as unknown
const STORE_MS_MAX: u64 = 1_000;
/// How long a ping may take: slower answers prove nothing
const PING_MS_MAX: u64 = 250;
/// How long a release may take; the lease runs out by itself if it does not succeed
pub const RELEASE_MS_MAX: u64 = 3_000;
/// Pause before the lease's bucket is asked for again at the start
const RETRY_MS: u64 = 500;
/// Outcomes and calls that wait to be looked at: one read, one write, one ping, and some calls
const WAITING_MAX: usize = 64;

/// Who stands for election, and how
#[derive(Clone, Debug)]
pub struct LeadershipOptions {
    pub bus: BusOptions,
    pub candidate: Candidate,
    pub times: LeaseTimes,
    /// Copies of the lease's record, 1 or the servers of a cluster.
    pub replicas: u32,
    /// Highest epoch known to have been used, 0 if none.
    pub used_epoch: u64,
}

/// What the lease says we are
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Somebody else leads, or nobody.
    Standby,
    /// We lead under this epoch, until then if it is not renewed.
    Leading { epoch: u64, valid_until: Instant },
    /// We must not act now, but may go on leading, under this epoch or a higher one.
    Suspended { epoch: u64 },
    /// We gave it up for good.
    Released,
}

/// A candidacy that runs; dropping it ends it as a crash would
pub struct Leadership {
    standing: watch::Receiver<Standing>,
    holder: watch::Receiver<Option<(MasterId, u64)>>,
    trouble: watch::Receiver<Option<BusError>>,
    calls: mpsc::Sender<Call>,
    bus: Bus,
    running: JoinHandle<()>,
}

/// Raises the epoch from elsewhere in the master
#[derive(Clone)]
pub struct EpochRaiser {
    calls: mpsc::Sender<Call>,
}

enum Call {
    Outcome(Event),
    RaiseAbove(u64),
    Release,
}

impl Standing {
    /// The epoch under which we may act at this moment.
    pub fn leads(self) -> Option<u64> {
        match self {
            Standing::Leading { epoch, valid_until } if Instant::now() < valid_until => Some(epoch),
            _ => None,
        }
    }
}

impl Leadership {
    /// Connects and stands for election. Goes on trying while the bus cannot be reached; `failed`
    /// hears of each failure and the pause in ms that follows it.
    pub async fn start(options: LeadershipOptions, mut failed: impl FnMut(&BusError, u64)) -> Result<Leadership, BusError> {
        let mut bus_options = options.bus.clone();
        bus_options.reconnect = true;
        let bus = Bus::connect_patiently(&bus_options, &mut failed).await?;
        let store = Store::new(&bus);
        loop {
            match store.ensure_lease(options.replicas).await {
                Ok(()) => break,
                Err(error) if error.may_pass() => {
                    failed(&error, RETRY_MS);
                    tokio::time::sleep(Duration::from_millis(RETRY_MS)).await;
                }
                Err(error) => return Err(error),
            }
        }
        let (standing_to, standing) = watch::channel(Standing::Standby);
        let (holder_to, holder) = watch::channel(None);
        let (trouble_to, trouble) = watch::channel(None);
        let (calls_to, calls) = mpsc::channel(WAITING_MAX);
        let pings = bus.subscribe(&bus.subjects().lease_ping(&options.candidate.id)).await?;
        let record = store.lease();
        let changes = bus.subscribe(&record.subject(KEY)).await?;
        let driver = Driver {
            lease: Lease::new(options.candidate.clone(), options.times, options.used_epoch),
            start: Instant::now(),
            store_ms: options.times.renew_ms().clamp(PING_MS_MAX, STORE_MS_MAX),
            nonce: options.candidate.nonce,
            replicas: options.replicas,
            drops: bus.link().borrow().drops,
            is_linked: true,
            link: bus.link(),
            bus: bus.clone(),
            record,
            pings,
            leader_pings: None,
            changes,
            calls_to: calls_to.downgrade(),
            standing: standing_to,
            holder: holder_to,
            trouble: Arc::new(trouble_to),
        };
        let running = tokio::spawn(driver.run(calls));
        Ok(Leadership { standing, holder, trouble, calls: calls_to, bus, running })
    }

    /// What we are, now and whenever it changes; each renewal is a change
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Who else was last seen to lead, and under which epoch
    pub fn holder(&self) -> watch::Receiver<Option<(MasterId, u64)>> {
        self.holder.clone()
    }

    /// Why the record could not be written last, if it could not
    pub fn trouble(&self) -> watch::Receiver<Option<BusError>> {
        self.trouble.clone()
    }

    /// The lease's own connection, for its events
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    pub fn raiser(&self) -> EpochRaiser {
        EpochRaiser { calls: self.calls.clone() }
    }

    /// Gives the lease up, so that a standby leads at once. True if the store knows of it.
    pub async fn release(&self) -> bool {
        let mut standing = self.standing.clone();
        let released = async {
            // Who released already takes no more calls.
            let _ = self.calls.send(Call::Release).await;
            standing.wait_for(|standing| *standing == Standing::Released).await.is_ok()
        };
        timeout(Duration::from_millis(RELEASE_MS_MAX), released).await.unwrap_or(false)
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl EpochRaiser {
    /// Epochs up to this one must not be used any more: an agent obeyed it under another leader, or
    /// a term of ours under it ended. If we lead under such a one, we are suspended until the store
    /// has a higher one.
    pub async fn raise_above(&self, epoch: u64) {
        // With the candidacy gone there is nothing to raise.
        let _ = self.calls.send(Call::RaiseAbove(epoch)).await;
    }
}

struct Driver {
    lease: Lease,
    /// Zero of the lease's clock.
    start: Instant,
    store_ms: u64,
    nonce: Nonce,
    replicas: u32,
    bus: Bus,
    record: Bucket,
    link: watch::Receiver<Link>,
    drops: u64,
    is_linked: bool,
    pings: Subscription,
    /// There only while we hold the lease.
    leader_pings: Option<Subscription>,
    changes: Subscription,
    /// Weak, so that the candidacy ends with its owner.
    calls_to: mpsc::WeakSender<Call>,
    standing: watch::Sender<Standing>,
    holder: watch::Sender<Option<(MasterId, u64)>>,
    trouble: Arc<watch::Sender<Option<BusError>>>,
}

impl Driver {
    async fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        let mut event = Event::Tick;
        loop {
            // What came over a connection is not believed before its loss is known.
            self.watch_link().await;
            self.step(event).await;
            if *self.standing.borrow() == Standing::Released {
                return;
            }
            event = match self.next(&mut calls).await {
                Some(event) => event,
                None => return,
            };
        }
    }

    /// Waits for the next event; none when nobody owns this candidacy any more.
    async fn next(&mut self, calls: &mut mpsc::Receiver<Call>) -> Option<Event> {
        loop {
            let due = self.lease.deadline().map(|due_ms| self.start + Duration::from_millis(due_ms));
            let far = self.start + Duration::from_secs(u64::from(u32::MAX));
            tokio::select! {
                call = calls.recv() => return Some(match call? {
                    Call::Outcome(event) => event,
                    Call::RaiseAbove(epoch) => Event::RaiseAbove { epoch },
                    Call::Release => Event::Release,
                }),
                changed = self.link.changed() => return changed.ok().map(|()| Event::Tick),
                Some(message) = self.pings.next() => self.answer(&message).await,
                Some(message) = next_of(&mut self.leader_pings) => self.answer(&message).await,
                Some(message) = self.changes.next() => {
                    let record = Record::decode(&message.payload);
                    if record.is_some_and(|record| record.released && record.nonce != self.nonce) {
                        return Some(Event::Hint);
                    }
                }
                () = sleep_until(due.unwrap_or(far)) => return Some(Event::Tick),
            }
        }
    }

    /// Tells the lease of a lost or found connection, however little of it was noticed.
    async fn watch_link(&mut self) {
        let drops = self.link.borrow_and_update().drops;
        let is_linked = self.bus.is_connected();
        if self.is_linked && (!is_linked || drops != self.drops) {
            self.is_linked = false;
            self.step(Event::Disconnected).await;
        }
        self.drops = drops;
        if !self.is_linked && is_linked {
            self.is_linked = true;
            self.step(Event::Connected).await;
        }
    }

    async fn step(&mut self, event: Event) {
        let now_ms = self.start.elapsed().as_millis() as u64;
        for effect in self.lease.step(now_ms, event) {
            self.perform(effect).await;
        }
    }

    async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Read { attempt } => {
                let (bus, record, replicas, limit) = (self.bus.clone(), self.record.clone(), self.replicas, self.store_limit());
                self.spawn(async move {
                    match timeout(limit, record.get(KEY)).await {
                        Ok(Ok(Some((bytes, revision)))) => {
                            Event::Found { attempt, revision, record: Record::decode(&bytes) }
                        }
                        Ok(Ok(None)) => Event::Found { attempt, revision: 0, record: None },
                        Ok(Err(BusError::Store { .. })) => {
                            // The bucket is gone; whoever wants to lead makes it again.
                            let _ = timeout(limit, Store::new(&bus).ensure_lease(replicas)).await;
                            Event::ReadFailed { attempt }
                        }
                        Ok(Err(_)) | Err(_) => Event::ReadFailed { attempt },
                    }
                });
            }
            Effect::Cas { attempt, expect, record } => {
                let (bucket, limit, trouble) = (self.record.clone(), self.store_limit(), Arc::clone(&self.trouble));
                self.spawn(async move {
                    let written = bucket.put_within(KEY, Bytes::from(record.encode()), expect, limit).await;
                    let why = written.as_ref().err().filter(|error| !matches!(error, BusError::WrongRevision { .. }));
                    trouble.send_if_modified(|known| {
                        let is_news = known.is_some() != why.is_some();
                        *known = why.cloned();
                        is_news
                    });
                    match written {
                        Ok(revision) => Event::CasDone { attempt, revision },
                        Err(BusError::WrongRevision { .. }) => Event::CasRefused { attempt },
                        Err(_) => Event::CasUnknown { attempt },
                    }
                });
            }
            Effect::Ping { attempt, holder } => {
                let bus = self.bus.clone();
                let subject = match &holder {
                    Some(holder) => bus.subjects().lease_ping(holder),
                    None => bus.subjects().leader_ping(),
                };
                self.spawn(async move {
                    match bus.request(&subject, Bytes::new(), Duration::from_millis(PING_MS_MAX)).await {
                        Ok(answer) => {
                            let nonce = std::str::from_utf8(&answer).ok().and_then(|text| Nonce::parse(text).ok());
                            Event::PingHeard { attempt, nonce }
                        }
                        Err(BusError::NoResponders { .. }) => Event::PingUnheard { attempt },
                        Err(_) => Event::PingFailed { attempt },
                    }
                });
            }
            Effect::Lead { epoch, valid_until_ms } => {
                let valid_until = self.start + Duration::from_millis(valid_until_ms);
                self.say(Standing::Leading { epoch, valid_until });
                if self.leader_pings.is_none() {
                    // Without it only the quick start of others after a lost store is affected.
                    self.leader_pings = self.bus.subscribe(&self.bus.subjects().leader_ping()).await.ok();
                }
            }
            Effect::Suspend { epoch } => self.say(Standing::Suspended { epoch }),
            Effect::StepDown { .. } => {
                self.leader_pings = None;
                self.say(Standing::Standby);
            }
            Effect::Standby { holder, epoch } => {
                self.holder.send_replace(Some((holder, epoch)));
            }
            Effect::Released => {
                self.leader_pings = None;
                self.say(Standing::Released);
            }
        }
    }

    fn say(&self, standing: Standing) {
        self.standing.send_replace(standing);
    }

    fn store_limit(&self) -> Duration {
        Duration::from_millis(self.store_ms)
    }

    /// Runs one exchange beside the loop and feeds its outcome back in.
    fn spawn(&self, exchange: impl Future<Output = Event> + Send + 'static) {
        let calls = self.calls_to.clone();
        tokio::spawn(async move {
            let event = exchange.await;
            if let Some(calls) = calls.upgrade() {
                let _ = calls.send(Call::Outcome(event)).await;
            }
        });
    }

    /// Answers with our incarnation; who asks without an inbox gets nothing.
    async fn answer(&self, ping: &Message) {
        let _ = self.bus.answer(ping, Bytes::from(self.nonce.to_string())).await;
    }
}

async fn next_of(subscription: &mut Option<Subscription>) -> Option<Message> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}
