//! The monotonic clock of one machine: it began somewhere and runs a little fast or slow.

use meso_core::seed::Seed;

/// How much faster or slower than true time a plain clock runs, at most, millionths.
const DRIFT_PPM_MAX: u64 = 1_000;
/// How much faster than true time a bad clock runs, millionths.
pub const FAST_PPM: i64 = 50_000;

/// A local clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it said when the simulation began, milliseconds.
    pub start_ms: u64,
    /// How much faster than true time it runs, millionths; negative for slower.
    pub drift_ppm: i64,
}

impl Clock {
    /// A plain clock.
    pub fn some(seed: &mut Seed) -> Self {
        Clock { start_ms: seed.below(1 << 32), drift_ppm: seed.below(2 * DRIFT_PPM_MAX + 1) as i64 - DRIFT_PPM_MAX as i64 }
    }

    /// What it says at this true time.
    pub fn local_ms(&self, now_ms: u64) -> u64 {
        let drift = now_ms as i64 * self.drift_ppm / 1_000_000;
        self.start_ms + now_ms.saturating_add_signed(drift)
    }

    /// The first true time at which it says this or more.
    pub fn true_ms(&self, local_ms: u64) -> u64 {
        let since = local_ms.saturating_sub(self.start_ms);
        let guess = (since as i128 * 1_000_000 / i128::from(1_000_000 + self.drift_ppm)) as u64;
        let mut at = guess.saturating_sub(2);
        while self.local_ms(at) < local_ms {
            at += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that a wake-up computed from a local deadline is never early and late by less than a tick.
    #[test]
    fn there_and_back() {
        for drift_ppm in [ -1000, -1, 0, 1, 1000, FAST_PPM] {
            let clock = Clock { start_ms: 7_000, drift_ppm };
            for local_ms in [7_000, 7_001, 8_234, 500_000, 3_600_000] {
                let at = clock.true_ms(local_ms);
                assert!(clock.local_ms(at) >= local_ms);
                assert!(at == 0 || clock.local_ms(at - 1) < local_ms);
            }
        }
    }
}
