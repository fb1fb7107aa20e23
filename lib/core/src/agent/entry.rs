//! One task of an agent: its launch, its latest status, and what of it is not stored yet.

use std::collections::VecDeque;

use crate::agent::{Config, RESEND_MS};
use crate::task::TaskState;
use crate::wire::agent::Held;
use crate::wire::{Launch, Update, UpdateKind};

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
        let update = Update {
            meso: UpdateKind::V1,
            task: launch.task.clone(),
            name: launch.spec.name.clone(),
            framework: launch.framework.clone(),
            principal: launch.principal.clone(),
            role: launch.role.clone(),
            agent: Some(config.agent.clone()),
            host: config.host.clone(),
            state: TaskState::Staging,
            is_final: false,
            reason: None,
            message: None,
            exit: None,
            signal: None,
            seq: 0,
            agent_seq: 0,
            launch: Some(launch.launch.clone()),
            resources: launch.resources.clone(),
            command: launch.spec.summary(),
            stdout_bytes: 0,
            stderr_bytes: 0,
            mem_peak_bytes: 0,
            cpu_ms: 0,
            started_ms: 0,
            ts: String::new(),
            ts_ms: 0,
        };
        Entry { launch: launch.clone(), update, unstored: VecDeque::new(), resend_ms: RESEND_MS, killing: None, kill_sent: false, charged: false }
    }
}

/// The task as its log and its leader know it.
pub(super) fn held(entry: &Entry) -> Held {
    Held { launch: entry.launch.clone(), update: entry.update.clone(), killing: entry.killing.is_some(), killing_reason: entry.killing.as_ref().map(|(_, reason)| reason.clone()), settled: false }
}
