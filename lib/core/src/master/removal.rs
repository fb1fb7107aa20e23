//! How fast silent agents are marked unreachable.
//!
//! One machine that dies is one mark. Many agents that fall silent at once are rather a network or a leader that cannot
//! hear: a bucket of marks, filled at a rate that an operator sets, keeps the frameworks of all of them from being told
//! so at once (Mesos `--agent_removal_rate_limit`). Who waits for its turn and is heard of meanwhile is not marked.

use std::collections::VecDeque;

use thiserror::Error;

use crate::duration::{parse_duration, show_duration};
use crate::id::AgentId;
use crate::master::{AgentState, Lead, Timer};

/// The most marks that a bucket holds.
pub const REMOVALS_MAX: u64 = 1_000_000;
/// The longest time that they may take, milliseconds.
pub const REMOVALS_MS_MAX: u64 = 86_400_000;

/// So many marks in so long a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemovalRate {
    agents: u64,
    per_ms: u64,
}

/// Why a text is no rate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("it is a number of agents, a slash and a time")]
pub struct BadRate;

impl RemovalRate {
    /// What holds where nobody says otherwise.
    pub const DEFAULT: RemovalRate = RemovalRate { agents: 20, per_ms: 60_000 };

    /// Reads `20/1m`.
    ///
    /// # Errors
    /// It is no such text, or beyond [`REMOVALS_MAX`] or [`REMOVALS_MS_MAX`].
    pub fn parse(text: &str) -> Result<Self, BadRate> {
        let (agents, time) = text.split_once('/').ok_or(BadRate)?;
        let agents: u64 = agents.parse().map_err(|_| BadRate)?;
        let per_ms = parse_duration(time).map_err(|_| BadRate)?;
        let is_sane = (1..=REMOVALS_MAX).contains(&agents) && (1..=REMOVALS_MS_MAX).contains(&per_ms);
        if is_sane { Ok(RemovalRate { agents, per_ms }) } else { Err(BadRate) }
    }
}

/// The bucket, and who waits for a mark.
#[derive(Debug, Default)]
pub(super) struct Removals {
    /// How much has been taken out and has not flowed back: a mark takes `per_ms`, and `agents` flow back a millisecond.
    taken: u64,
    at_ms: u64,
    waiting: VecDeque<AgentId>,
}

impl Removals {
    fn flow(&mut self, rate: RemovalRate, now_ms: u64) {
        let back = now_ms.saturating_sub(self.at_ms).saturating_mul(rate.agents);
        self.taken = self.taken.saturating_sub(back);
        self.at_ms = now_ms;
    }

    /// Takes a mark out, if there is one.
    fn take(&mut self, rate: RemovalRate, now_ms: u64) -> bool {
        self.flow(rate, now_ms);
        let is_there = self.taken + rate.per_ms <= rate.agents * rate.per_ms;
        if is_there {
            self.taken += rate.per_ms;
        }
        is_there
    }

    /// How long until there is a mark, milliseconds.
    fn wait_ms(&self, rate: RemovalRate) -> u64 {
        (self.taken + rate.per_ms).saturating_sub(rate.agents * rate.per_ms).div_ceil(rate.agents)
    }
}

impl Lead {
    /// An agent has been silent for too long: marks it, or has it wait for its turn.
    pub(super) fn remove_or_wait(&mut self, agent: &AgentId) {
        let Some(rate) = self.config.agent_removal else { return self.mark_unreachable(agent) };
        if self.removals.waiting.is_empty() && self.removals.take(rate, self.now_ms) {
            return self.mark_unreachable(agent);
        }
        if self.removals.waiting.is_empty() {
            let message = format!("many agents are silent at once: no more than {} in {} are marked unreachable; is it the network?", rate.agents, show_duration(rate.per_ms));
            self.tell("agents_silent", self.config.master.to_string(), message);
            self.timer(self.removals.wait_ms(rate), Timer::Removal);
        }
        // Whoever waits is looked at when its turn comes, and by no timer of its own.
        self.removals.waiting.push_back(agent.clone());
        if let Some(entry) = self.agents.get_mut(agent) {
            entry.watched = true;
        }
    }

    /// There may be a mark for those who wait: the ones that were heard of meanwhile need none.
    pub(super) fn removal_due(&mut self) {
        let Some(rate) = self.config.agent_removal else { return };
        while let Some(agent) = self.removals.waiting.pop_front() {
            let Some(entry) = self.agents.get_mut(&agent) else { continue };
            entry.watched = false;
            if matches!(entry.state, AgentState::Unreachable | AgentState::Gone) {
                continue;
            }
            if entry.heard_ms + self.config.agent_timeout_ms > self.now_ms {
                self.watch(&agent);
            } else if self.removals.take(rate, self.now_ms) {
                self.mark_unreachable(&agent);
            } else {
                entry.watched = true;
                self.removals.waiting.push_front(agent);
                return self.timer(self.removals.wait_ms(rate).max(1), Timer::Removal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::testcluster::{Cluster, agent};

    fn away(cluster: &Cluster) -> usize {
        cluster.master.lead().expect("it leads").agents().values().filter(|entry| entry.state == AgentState::Unreachable).count()
    }

    /// Shows what is a rate and what is none.
    #[test]
    fn rates() {
        assert_eq!(RemovalRate::parse("20/1m"), Ok(RemovalRate::DEFAULT));
        assert_eq!(RemovalRate::parse("1/500ms"), Ok(RemovalRate { agents: 1, per_ms: 500 }));
        for bad in ["", "20", "/1m", "20/", "0/1m", "-1/1m", "1.5/1m", "20/0s", "20/2d", "20/1m/1m", "1000001/1m"] {
            assert_eq!(RemovalRate::parse(bad), Err(BadRate), "{bad}");
        }
    }

    /// Shows that agents which fall silent at once are marked at the rate and not faster, that this is said once, that
    /// one which is heard of before its turn is spared, and that the next silence is an episode of its own.
    #[test]
    fn marks_are_paced() {
        let mut cluster = Cluster::with(|config| config.agent_removal = Some(RemovalRate { agents: 2, per_ms: 60_000 }));
        (1..=6).for_each(|number| cluster.join(number, "cpus=1"));
        (1..=6).for_each(|number| cluster.silence(number));
        cluster.wait(76_000);
        assert_eq!(away(&cluster), 2);
        cluster.wait(30_000);
        assert_eq!(away(&cluster), 3);
        cluster.join(5, "cpus=1");
        cluster.wait(300_000);
        assert_eq!(away(&cluster), 5);
        let state = |cluster: &Cluster| cluster.master.lead().expect("it leads").agents()[&agent(5)].state;
        assert_eq!(state(&cluster), AgentState::Active);
        let told = |cluster: &Cluster| cluster.happened.iter().filter(|kind| *kind == "agents_silent").count();
        assert_eq!(told(&cluster), 1);
        (1..=6).for_each(|number| cluster.join(number, "cpus=1"));
        (1..=6).for_each(|number| cluster.silence(number));
        cluster.wait(400_000);
        assert_eq!((away(&cluster), told(&cluster)), (6, 2));
    }

    /// Shows that without a rate all are marked at once.
    #[test]
    fn marks_without_a_rate() {
        let mut cluster = Cluster::with(|config| config.agent_removal = None);
        (1..=40).for_each(|number| cluster.join(number, "cpus=1"));
        (1..=40).for_each(|number| cluster.silence(number));
        cluster.wait(76_000);
        assert_eq!(away(&cluster), 40);
        assert!(!cluster.happened.iter().any(|kind| kind == "agents_silent"));
    }
}
