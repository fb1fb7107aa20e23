//! How an agent stands with its leader: it registers, in parts if need be, beats, and registers anew when that is not answered.

use std::collections::BTreeSet;

use crate::agent::entry::held;
use crate::agent::record::Record;
use crate::agent::{ANSWER_WAIT_MS, Agent, Effect, HELLO_WAIT_MS, HELLO_WAIT_MS_MAX, SETTLE_BEAT_MS};
use crate::id::TaskId;
use crate::lease::EPOCH_MAX;
use crate::wire::agent::{Beaten, Hello, Invitation, Welcome};
use crate::wire::{MESSAGE_BYTES_MAX, PROTOCOL, PROTOCOL_MIN, RefusalCode};

/// A part of a registration is closed when it is this large, bytes: half a message, so that one more task always fits.
const HELLO_PART_BYTES: usize = MESSAGE_BYTES_MAX / 2;

/// How it stands with its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody leads, or nobody answered yet: register at this time.
    Alone { hello_at_ms: u64 },
    /// A registration is on its way, this many tasks are told.
    Asking { until_ms: u64, told: usize },
    /// One of the cluster.
    Joined { beat_at_ms: u64, answer_by_ms: Option<u64> },
}

impl Agent {
    pub(super) fn on_invitation(&mut self, now_ms: u64, invitation: &Invitation) {
        // A beat to the new leader would be answered "unknown"; the invitation only makes that quicker.
        if invitation.epoch >= self.max_epoch && !matches!(self.standing, Standing::Asking { .. }) {
            let newer = invitation.epoch > self.max_epoch || !self.joined();
            self.invited = invitation.epoch;
            if newer {
                // Invitations are repeated: a later one does not put off what an earlier one began.
                let at_ms = match self.standing {
                    Standing::Alone { hello_at_ms } => hello_at_ms.min(now_ms + self.config.jitter_ms),
                    _ => now_ms + self.config.jitter_ms,
                };
                self.standing = Standing::Alone { hello_at_ms: at_ms };
            }
        }
    }

    pub(super) fn hello(&mut self, now_ms: u64, told: usize, out: &mut Vec<Effect>) {
        if told == 0 {
            // The leader of this epoch knows it already, and one of the release before would take it for a running task.
            let is_for_it = self.is_new_epoch && self.speaks > PROTOCOL_MIN;
            let settled = self.recent.tasks(now_ms).filter(|task| is_for_it && !self.tasks.contains_key(*task));
            self.told = self.tasks.keys().chain(settled).cloned().collect();
        } else {
            // What was launched since the first part is told as well, or the leader would take it as gone.
            let known: BTreeSet<&TaskId> = self.told.iter().collect();
            let since: Vec<TaskId> = self.tasks.keys().filter(|id| !known.contains(id)).cloned().collect();
            self.told.extend(since);
        }
        // Whoever leads under a new epoch asks for all of it once more when that is on our disk: until then a word will do.
        let is_asked_again = told == 0 && self.invited > self.max_epoch;
        self.hello_no += 1;
        let mut tasks = Vec::new();
        let mut bytes = 0;
        let mut next = told;
        for id in self.told.iter().skip(told) {
            if is_asked_again || bytes > HELLO_PART_BYTES {
                break;
            }
            next += 1;
            if let Some(one) = self.tasks.get(id).map(held).or_else(|| self.recent.get(id).cloned()) {
                bytes += serde_json::to_string(&one).map_or(0, |text| text.len());
                tasks.push(one);
            }
        }
        let hello = Hello {
            v: self.speaks,
            agent: self.config.agent.clone(),
            incarnation: self.config.incarnation.clone(),
            secret: self.config.secret.clone(),
            generation: self.config.generation,
            host: self.config.host.clone(),
            attrs: self.config.attrs.clone(),
            total: self.config.total.clone(),
            max_epoch: self.max_epoch,
            boot_id: self.config.boot_id.clone(),
            isolation: self.config.isolation.clone(),
            version: self.config.version.clone(),
            status_seq: self.status_seq,
            tasks,
            more: next < self.told.len(),
            continued: told > 0,
            no: self.hello_no,
        };
        self.admission.forget_told();
        self.alone.asked(now_ms);
        self.standing = Standing::Asking { until_ms: now_ms + ANSWER_WAIT_MS, told: next };
        out.push(Effect::Hello(Box::new(hello)));
    }

    pub(super) fn on_welcome(&mut self, now_ms: u64, answer: Option<Welcome>, out: &mut Vec<Effect>) {
        let Standing::Asking { told, .. } = self.standing else { return };
        match answer {
            Some(Welcome::Refused(refusal)) if refusal.code == RefusalCode::AgentGone && told < self.told.len() => {
                // What it runs and nobody knew of ends by the leader's word, who can give it for what was told alone.
                self.invited = 0;
                self.hello(now_ms, told, out);
            }
            Some(Welcome::Refused(refusal)) => self.on_refused(now_ms, refusal, out),
            Some(Welcome::Welcome { epoch, beat_ms, timeout_ms, .. }) if (self.max_epoch..EPOCH_MAX).contains(&epoch) => {
                let fenced = epoch == self.max_epoch;
                self.invited = 0;
                self.alone.answered();
                self.hello_wait_ms = HELLO_WAIT_MS;
                self.beat_ms = beat_ms.clamp(100, 3_600_000);
                if !fenced {
                    // What was told before the fence may have changed by a command of the leader before. Only what is
                    // told from here on is the whole truth for the new one.
                    self.persist(Record::Epoch { epoch, timeout_ms }, out);
                    self.is_new_epoch = true;
                    self.hello(now_ms, 0, out);
                    return;
                }
                if timeout_ms != self.alone.limit_ms() {
                    self.persist(Record::Epoch { epoch, timeout_ms }, out);
                }
                if told < self.told.len() {
                    self.hello(now_ms, told, out);
                } else {
                    self.told.clear();
                    self.is_new_epoch = false;
                    self.speak(now_ms);
                    self.standing = Standing::Joined { beat_at_ms: now_ms + self.next_beat_ms(), answer_by_ms: None };
                }
            }
            // Nobody, or one that leads an epoch which this agent has already left behind, or none that there can be.
            _ => self.retry_hello(now_ms),
        }
    }

    pub(super) fn retry_hello(&mut self, now_ms: u64) {
        self.speaks = PROTOCOL;
        self.standing = Standing::Alone { hello_at_ms: now_ms + self.hello_wait_ms };
        self.hello_wait_ms = (self.hello_wait_ms * 2).min(HELLO_WAIT_MS_MAX);
    }

    /// What the leader has to hear at once does not wait for the next beat.
    pub(super) fn beat_if_pressed(&mut self, now_ms: u64) {
        if let Standing::Joined { beat_at_ms, .. } = &mut self.standing {
            if self.admission.is_pressed() {
                *beat_at_ms = now_ms;
            }
        }
    }

    fn next_beat_ms(&self) -> u64 {
        if self.admission.is_pressed() {
            return 0;
        }
        if self.ended_unsettled > 0 { self.beat_ms.min(SETTLE_BEAT_MS) } else { self.beat_ms }
    }

    pub(super) fn on_beaten(&mut self, now_ms: u64, answer: Option<Beaten>, out: &mut Vec<Effect>) {
        let Standing::Joined { .. } = self.standing else { return };
        match answer {
            Some(beaten) if beaten.epoch == self.max_epoch && beaten.known => {
                self.alone.answered();
                self.not_understood = 0;
                self.seen = self.seen.max(beaten.seen.min(self.status_seq));
                self.settle_all(now_ms, out);
                self.standing = Standing::Joined { beat_at_ms: now_ms + self.next_beat_ms(), answer_by_ms: None };
            }
            _ => {
                self.hello_wait_ms = HELLO_WAIT_MS;
                self.speaks = PROTOCOL;
                self.standing = Standing::Alone { hello_at_ms: now_ms };
            }
        }
    }
}
