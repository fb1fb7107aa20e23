//! The one driver loop: events in, effects out, for master and agent alike
//!
//! All events that wait are fed in before any effect is carried out, and all effects of the batch are handed to the
//! outside at once: so one fsync, or one write to the registry, serves the whole batch.
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::time;

/// The most events of one batch: so many share one fsync, and no deadline waits longer than they take.
pub const BATCH_EVENTS_MAX: usize = 256;
/// How long the loop sleeps if the machine names no deadline.
const IDLE_MS: u64 = 60_000;

/// A pure machine of `meso_core`
pub trait Machine {
    /// What reaches it.
    type Event;
    /// What must become true outside.
    type Effect;
    /// Feeds one event in; says, in order, what must now become true outside.
    fn step(&mut self, now_ms: u64, event: Self::Event) -> Vec<Self::Effect>;
    /// When to step with [`Machine::tick`] if nothing else happens.
    fn deadline(&self) -> Option<u64>;
    /// The event of a passed deadline.
    fn tick() -> Self::Event;
}

/// What carries effects out
pub trait Outside<M: Machine> {
    /// Why the process cannot go on.
    type Fatal;
    /// Carries out the effects in their order. What comes of them comes back as events by a channel.
    ///
    /// # Errors
    /// What cannot be made durable: the rest of the batch is dropped and the loop ends.
    fn perform(&mut self, machine: &mut M, effects: Vec<M::Effect>) -> impl Future<Output = Result<(), Self::Fatal>>;
}

/// Milliseconds that only go forward, from an arbitrary start
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { start: Instant::now() }
    }
}

impl Clock {
    /// Now.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Runs the machine until `stop` is ready or the outside cannot go on
///
/// # Errors
/// The outside's fatal one.
pub async fn drive<M: Machine, O: Outside<M>>(
    clock: Clock,
    machine: &mut M,
    outside: &mut O,
    events: &mut mpsc::Receiver<M::Event>,
    stop: impl Future<Output = ()>,
) -> Result<(), O::Fatal> {
    tokio::pin!(stop);
    loop {
        let wait_ms = machine.deadline().map_or(IDLE_MS, |at| at.saturating_sub(clock.now_ms()).min(IDLE_MS));
        let first = tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            event = events.recv() => match event {
                Some(event) => Some(event),
                None => return Ok(()),
            },
            () = time::sleep(time::Duration::from_millis(wait_ms)), if wait_ms > 0 => None,
            // A deadline that has passed is not slept for: a timer would cost a millisecond.
            () = std::future::ready(()), if wait_ms == 0 => None,
        };
        let mut effects = Vec::new();
        match first {
            Some(event) => {
                effects.extend(machine.step(clock.now_ms(), event));
                for _ in 1..BATCH_EVENTS_MAX {
                    match events.try_recv() {
                        Ok(event) => effects.extend(machine.step(clock.now_ms(), event)),
                        Err(_) => break,
                    }
                }
            }
            None => effects.extend(machine.step(clock.now_ms(), M::tick())),
        }
        // What is due already, such as an allocation, joins the batch.
        if machine.deadline().is_some_and(|at| at <= clock.now_ms()) {
            effects.extend(machine.step(clock.now_ms(), M::tick()));
        }
        if !effects.is_empty() {
            outside.perform(machine, effects).await?;
        }
    }
}

impl Machine for meso_core::agent::Agent {
    type Event = meso_core::agent::Event;
    type Effect = meso_core::agent::Effect;
    fn step(&mut self, now_ms: u64, event: Self::Event) -> Vec<Self::Effect> {
        self.step(now_ms, event)
    }
    fn deadline(&self) -> Option<u64> {
        self.deadline()
    }
    fn tick() -> Self::Event {
        meso_core::agent::Event::Tick
    }
}

impl Machine for meso_core::master::Master {
    type Event = meso_core::master::Event;
    type Effect = meso_core::master::Effect;
    fn step(&mut self, now_ms: u64, event: Self::Event) -> Vec<Self::Effect> {
        self.step(now_ms, event)
    }
    fn deadline(&self) -> Option<u64> {
        self.deadline()
    }
    fn tick() -> Self::Event {
        meso_core::master::Event::Tick
    }
}
