//! What the store holds about the leader, and how long a lease is

use serde::{Deserialize, Serialize};

use crate::id::{MasterId, Nonce};

/// What lies between a holder's giving up and a challenger's taking, at least
pub const MARGIN_MS_MIN: u64 = 2_000;
/// Longest lease that a record may claim; a longer one is damage
pub const LEASE_MS_MAX: u64 = 300_000;
/// No epoch is higher: JSON readers of other languages keep integers exact up to here. At a
/// thousand elections a second it is reached in 285,000 years.
pub const EPOCH_MAX: u64 = 1 << 53;

/// Lengths of a lease, in ms
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    lease_ms: u64,
    renew_ms: u64,
    stop_ms: u64,
}

/// Times that cannot keep two holders apart
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLeaseTimes {
    #[error("a lease of {lease_ms} ms and a self-stop at {stop_ms} ms are not {MARGIN_MS_MIN} ms apart")]
    Margin { lease_ms: u64, stop_ms: u64 },
    #[error("renewing every {renew_ms} ms is not within the self-stop at {stop_ms} ms")]
    Renewal { renew_ms: u64, stop_ms: u64 },
    #[error("a lease of {lease_ms} ms is over the limit of {LEASE_MS_MAX}")]
    TooLong { lease_ms: u64 },
}

/// What is stored
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub v: u32,
    pub holder: MasterId,
    /// The holder's incarnation; a name is no proof.
    pub nonce: Nonce,
    pub epoch: u64,
    /// How long a challenger must have seen this record unchanged.
    pub lease_ms: u64,
    /// The holder has stopped acting and wants a successor.
    #[serde(default)]
    pub released: bool,
    /// For people: where the holder runs and since when, in Unix ms.
    #[serde(default)]
    pub host: String,
    #[serde(default)]
    pub since_ms: u64,
}

/// Who wants to lead
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub id: MasterId,
    /// Fresh for every run of the machine.
    pub nonce: Nonce,
    pub host: String,
    /// Wall clock, only for people.
    pub since_ms: u64,
}

impl LeaseTimes {
    /// On one server, which is down only as long as its restart takes
    pub const SINGLE: LeaseTimes = LeaseTimes { lease_ms: 6_000, renew_ms: 1_000, stop_ms: 4_000 };
    /// On a cluster of servers, whose election of a new store leader must fit in
    pub const REPLICATED: LeaseTimes = LeaseTimes { lease_ms: 12_000, renew_ms: 1_000, stop_ms: 10_000 };

    /// `lease_ms` is what a challenger waits, `stop_ms` when the holder gives up.
    pub fn new(lease_ms: u64, renew_ms: u64, stop_ms: u64) -> Result<LeaseTimes, BadLeaseTimes> {
        if lease_ms > LEASE_MS_MAX {
            return Err(BadLeaseTimes::TooLong { lease_ms });
        }
        if lease_ms < stop_ms.saturating_add(MARGIN_MS_MIN) {
            return Err(BadLeaseTimes::Margin { lease_ms, stop_ms });
        }
        if renew_ms == 0 || renew_ms >= stop_ms {
            return Err(BadLeaseTimes::Renewal { renew_ms, stop_ms });
        }
        Ok(LeaseTimes { lease_ms, renew_ms, stop_ms })
    }

    /// For the test that shows what the margin is for.
    #[cfg(test)]
    pub(super) fn unchecked(lease_ms: u64, renew_ms: u64, stop_ms: u64) -> LeaseTimes {
        LeaseTimes { lease_ms, renew_ms, stop_ms }
    }

    pub fn lease_ms(&self) -> u64 {
        self.lease_ms
    }

    pub fn renew_ms(&self) -> u64 {
        self.renew_ms
    }

    pub fn stop_ms(&self) -> u64 {
        self.stop_ms
    }
}

impl Record {
    pub const VERSION: u32 = 1;

    /// Reads a stored record; what is damaged or of another version is none.
    pub fn decode(bytes: &[u8]) -> Option<Record> {
        let record: Record = serde_json::from_slice(bytes).ok()?;
        let is_sane = record.v == Record::VERSION && record.epoch < EPOCH_MAX && record.lease_ms <= LEASE_MS_MAX;
        is_sane.then_some(record)
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record is strings and numbers, which JSON can hold")
    }
}
