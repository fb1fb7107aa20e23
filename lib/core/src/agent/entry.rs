//! One task of an agent: its launch, its latest status, and what of it is not stored yet.

use std::collections::VecDeque;

use crate::agent::{Config, RESEND_MS};
use crate::wire::agent::Held;
use crate::wire::{Launch, Update, Wall};

/// One task on this agent.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) launch: Launch,
    /// The latest status made; a staging one before the first.
    pub(super) update: Update,
    /// Statuses not yet stored, oldest first; the first is on its way or waits for its retry.
    pub(super) unstored: VecDeque<Update>,
    pub(super) resend_ms: u64,
    pub(super) killing: Option<(u64, String)>,
    /// True once this process has passed the kill on to the container.
    pub(super) kill_sent: bool,
    /// True while its resources count as used. A launch that clashes with what is held never does.
    pub(super) charged: bool,
}

impl Entry {
    pub(super) fn new(launch: &Launch, config: &Config) -> Self {
        // Each status says itself when it became true.
        let update = Update { ts: String::new(), ..Update::staging(launch, &config.agent, &config.host, Wall(0)) };
        Entry { launch: launch.clone(), update, unstored: VecDeque::new(), resend_ms: RESEND_MS, killing: None, kill_sent: false, charged: false }
    }
}

/// The task as its log and its leader know it.
pub(super) fn held(entry: &Entry) -> Held {
    Held { launch: entry.launch.clone(), update: entry.update.clone(), killing: entry.killing.is_some(), killing_reason: entry.killing.as_ref().map(|(_, reason)| reason.clone()), settled: false }
}
