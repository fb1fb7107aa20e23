//! What an agent may lend: the part of its resources that tasks hold and have not used for a while.
//!
//! Samples in, resources out. A task is trusted to leave idle what it held and did not use over a whole window, at its
//! worst moment in it; one that has not been seen for so long counts as using all that it holds. So what is lent shrinks
//! with the first sample in which a task uses more, and grows again no sooner than a window later.
//!
//! Processors and memory alone are lent. What nobody holds is none of this: it is offered as it is.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use crate::duration::{parse_duration, show_duration};
use crate::resources::{Milli, Resources};

/// How far back a task's use counts, unless the operator says otherwise, milliseconds.
pub const WINDOW_MS: u64 = 60_000;
/// The shortest window that may be chosen, milliseconds: in less than that nothing can be measured.
pub const WINDOW_MS_MIN: u64 = 1_000;
/// The longest window that may be chosen, milliseconds.
pub const WINDOW_MS_MAX: u64 = 86_400_000;
/// In how many parts a window is looked at: with the usual one, a sample every 5 seconds.
pub const SAMPLES: u64 = 12;
/// A window is remembered in at most so many parts, and one; more samples than that are not kept apart.
const PARTS_MAX: u64 = 64;
/// One part of so many of what tasks hold is never lent.
const MARGIN_PART: u64 = 10;
/// Processors are lent in steps of so many thousandths.
const CPU_STEP_MILLI: u64 = 100;
/// Memory is lent in steps of so many bytes.
const MEM_STEP_BYTES: u64 = 16 << 20;
/// So much of the machine's memory is never lent, bytes, whoever holds it: the system wants some when many wake at once.
const MEM_RESERVE_BYTES: u64 = 512 << 20;

/// Reads a window, in milliseconds.
///
/// # Errors
/// What is no time, or is not between [`WINDOW_MS_MIN`] and [`WINDOW_MS_MAX`].
pub fn parse_window(text: &str) -> Result<u64, String> {
    let window_ms = parse_duration(text).map_err(|error| error.to_string())?;
    if (WINDOW_MS_MIN..=WINDOW_MS_MAX).contains(&window_ms) {
        return Ok(window_ms);
    }
    Err(format!("{text} is not between {} and {}", show_duration(WINDOW_MS_MIN), show_duration(WINDOW_MS_MAX)))
}

/// What is measured at one moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Each container of a task that holds resources for good.
    pub firm: Vec<Reading>,
    /// All memory of the machine, bytes.
    pub mem_total_bytes: u64,
    /// What the machine could give to a new program, bytes.
    pub mem_available_bytes: u64,
    /// What is used by those to whom memory is lent, bytes: it is not available, and is theirs already.
    pub mem_lent_bytes: u64,
}

/// One container at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Its name; another one after it has another.
    pub container: String,
    /// What its task holds.
    pub held: Resources,
    /// Processor time since it began, microseconds; none where it cannot be read: then it counts as using all it holds.
    pub cpu_us: Option<u64>,
    /// Memory that cannot be taken from it, bytes; none where it cannot be read.
    pub mem_bytes: Option<u64>,
}

/// The estimator of one agent.
#[derive(Debug)]
pub struct Lender {
    window_ms: u64,
    began_ms: Option<u64>,
    histories: BTreeMap<String, History>,
    /// Memory in all hands but theirs to whom it is lent.
    mem_taken: Peaks,
}

/// One container over the window.
#[derive(Debug)]
struct History {
    since_ms: u64,
    /// When its processor time was last read, and what it was.
    last: Option<(u64, u64)>,
    cpu_milli: Peaks,
    mem_bytes: Peaks,
}

impl Lender {
    /// One that has seen nothing. The window is kept between [`WINDOW_MS_MIN`] and [`WINDOW_MS_MAX`].
    pub fn new(window_ms: u64) -> Self {
        Lender { window_ms: window_ms.clamp(WINDOW_MS_MIN, WINDOW_MS_MAX), began_ms: None, histories: BTreeMap::new(), mem_taken: Peaks::default() }
    }

    /// How long to wait between samples, milliseconds.
    pub fn pace_ms(&self) -> u64 {
        self.window_ms / SAMPLES
    }

    /// Takes a sample; says what may be lent from now on, or nothing before a whole window was seen.
    pub fn sample(&mut self, now_ms: u64, sample: &Sample) -> Option<Resources> {
        let window_ms = self.window_ms;
        let began_ms = *self.began_ms.get_or_insert(now_ms);
        let mut old = std::mem::take(&mut self.histories);
        let (mut cpu, mut mem) = (Sum::default(), Sum::default());
        for reading in &sample.firm {
            let mut history = old.remove(&reading.container).unwrap_or_else(|| History::new(now_ms));
            history.note(now_ms, window_ms, reading);
            let is_known = now_ms.saturating_sub(history.since_ms) >= window_ms;
            cpu.add(cpu_milli(&reading.held), history.cpu_milli.most(), is_known);
            mem.add(mem_bytes(&reading.held), history.mem_bytes.most(), is_known);
            self.histories.insert(reading.container.clone(), history);
        }
        let taken = sample.mem_total_bytes.saturating_sub(sample.mem_available_bytes).saturating_sub(sample.mem_lent_bytes);
        self.mem_taken.push(now_ms, window_ms, taken);
        if now_ms.saturating_sub(began_ms) < window_ms {
            return None;
        }
        let room = sample.mem_total_bytes.saturating_sub(self.mem_taken.most()).saturating_sub(MEM_RESERVE_BYTES);
        Some(Resources { cpus: cpus_of(cpu.idle()), mem: mem_of(mem.idle().min(room)), ..Resources::default() })
    }
}

impl History {
    fn new(now_ms: u64) -> Self {
        History { since_ms: now_ms, last: None, cpu_milli: Peaks::default(), mem_bytes: Peaks::default() }
    }

    /// What cannot be read counts as all that is held, and for a window after that.
    fn note(&mut self, now_ms: u64, window_ms: u64, reading: &Reading) {
        let used_milli = match (reading.cpu_us, self.last) {
            (Some(cpu_us), Some((then_ms, then_us))) if now_ms > then_ms => cpu_us.saturating_sub(then_us).div_ceil(now_ms - then_ms),
            // The first reading is only where the next one starts from.
            (Some(_), _) => 0,
            (None, _) => cpu_milli(&reading.held),
        };
        self.last = reading.cpu_us.map(|cpu_us| (now_ms, cpu_us));
        self.cpu_milli.push(now_ms, window_ms, used_milli);
        self.mem_bytes.push(now_ms, window_ms, reading.mem_bytes.unwrap_or_else(|| mem_bytes(&reading.held)));
    }
}

/// What all tasks hold of one kind, and use of it at most.
#[derive(Debug, Default)]
struct Sum {
    held: u64,
    used: u64,
}

impl Sum {
    fn add(&mut self, held: u64, used: u64, is_known: bool) {
        self.held = self.held.saturating_add(held);
        self.used = self.used.saturating_add(if is_known { used } else { used.max(held) });
    }

    /// Whoever uses more than it holds uses what others leave idle: that is not lent again.
    fn idle(&self) -> u64 {
        self.held.saturating_sub(self.used).saturating_sub(self.held.div_ceil(MARGIN_PART))
    }
}

/// Numbers of the last window, of which only the largest matters.
#[derive(Debug, Default)]
struct Peaks(VecDeque<Peak>);

/// The largest of the numbers that came close together.
#[derive(Debug)]
struct Peak {
    first_ms: u64,
    last_ms: u64,
    most: u64,
}

impl Peaks {
    fn push(&mut self, now_ms: u64, window_ms: u64, number: u64) {
        // What was seen exactly a window ago spoke of the time before it.
        while self.0.front().is_some_and(|peak| peak.last_ms + window_ms <= now_ms) {
            self.0.pop_front();
        }
        match self.0.back_mut().filter(|peak| now_ms < peak.first_ms + window_ms.div_ceil(PARTS_MAX)) {
            Some(peak) => (peak.last_ms, peak.most) = (now_ms, peak.most.max(number)),
            None => self.0.push_back(Peak { first_ms: now_ms, last_ms: now_ms, most: number }),
        }
    }

    fn most(&self) -> u64 {
        self.0.iter().map(|peak| peak.most).max().unwrap_or(0)
    }
}

fn cpu_milli(held: &Resources) -> u64 {
    held.cpus.as_milli().unsigned_abs()
}

fn mem_bytes(held: &Resources) -> u64 {
    u64::try_from((u128::from(held.mem.as_milli().unsigned_abs()) << 20) / 1000).unwrap_or(u64::MAX)
}

/// Whole steps of so many thousandths.
fn cpus_of(milli: u64) -> Milli {
    i64::try_from(milli - milli % CPU_STEP_MILLI).ok().and_then(Milli::from_milli).unwrap_or(Milli::MAX)
}

/// Whole steps of so many bytes, in MiB.
fn mem_of(bytes: u64) -> Milli {
    Milli::units((bytes - bytes % MEM_STEP_BYTES) >> 20)
}
