//! The settings of a master.

use crate::allocate::Rule;
use crate::id::MasterId;
use crate::master::RemovalRate;

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct Config {
    /// This master.
    pub master: MasterId,
    /// The machine it runs on.
    pub host: String,
    /// The program's version.
    pub version: String,
    /// How long an offer lives, milliseconds (contract: 30 s).
    pub offer_timeout_ms: u64,
    /// How often agents beat, milliseconds (Mesos: 15 s).
    pub agent_beat_ms: u64,
    /// After how long without a beat an agent is unreachable, milliseconds (Mesos: 5 x 15 s).
    pub agent_timeout_ms: u64,
    /// How fast silent agents are marked unreachable; all at once if there is none.
    pub agent_removal: Option<RemovalRate>,
    /// How often frameworks beat, milliseconds.
    pub session_beat_ms: u64,
    /// After how long without a beat a session ends, milliseconds (contract: 15 s).
    pub session_timeout_ms: u64,
    /// How the next to be served is chosen.
    pub rule: Rule,
    /// After how long without anything others have to make room for a framework below its share, milliseconds; never if
    /// there is none.
    pub revoke_after_ms: Option<u64>,
    /// How long before its tasks are revoked a framework hears of it, milliseconds.
    pub revoke_notice_ms: u64,
    /// Whether a program outside says who gets what.
    pub external: bool,
}

impl Config {
    /// The defaults of the contract.
    pub fn new(master: MasterId, host: String, version: String) -> Self {
        Config {
            master,
            host,
            version,
            offer_timeout_ms: 30_000,
            agent_beat_ms: 15_000,
            agent_timeout_ms: 75_000,
            agent_removal: Some(RemovalRate::DEFAULT),
            session_beat_ms: 5_000,
            session_timeout_ms: 15_000,
            rule: Rule::Priority,
            revoke_after_ms: Some(30_000),
            revoke_notice_ms: 5_000,
            external: false,
        }
    }
}
