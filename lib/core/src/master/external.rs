//! An allocation policy that is a program: asked, checked, and stood in for while it fails
//!
//! The program is given the whole cluster and says grants. At most one question is open; what changes meanwhile makes
//! the next one. If it fails, or gives no answer in time, the built-in policy serves what the question was about, and
//! goes on until the program is ready again. What the program leaves free stays free until something changes.

use std::collections::BTreeSet;

use crate::allocate::{Proposal, check};
use crate::id::{AgentId, FrameworkId};
use crate::master::offers::Pool;
use crate::master::{Effect, Lead, Timer};
use crate::wire::snapshot::Snapshot;

/// How long the program may take to answer, milliseconds.
pub const ALLOCATE_DEADLINE_MS: u64 = 1_000;
/// How often at most it is told that grants were refused, milliseconds.
pub const TELL_REFUSED_EVERY_MS: u64 = 10_000;

/// What a leader knows of the program.
#[derive(Debug, Default)]
pub(super) struct External {
    /// The number of the last question.
    last: u64,
    /// What the open question is about, if one is open.
    asked: Option<Asked>,
    /// It failed, and is not ready again.
    is_failing: bool,
    /// When it was last told that grants were refused.
    told_refused_ms: Option<u64>,
    /// How many grants were refused since.
    refused: u64,
}

/// What changed before a question: the built-in policy needs to know if it has to answer.
#[derive(Debug)]
struct Asked {
    deadline_ms: u64,
    agents: BTreeSet<AgentId>,
    frameworks: BTreeSet<FrameworkId>,
}

impl External {
    /// Whether an answer is waited for: nothing is allocated until it comes.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }
}

impl Lead {
    /// Whether the program is to say who gets what, and not the built-in policy.
    pub(super) fn has_program(&self) -> bool {
        self.config.external && !self.external.is_failing
    }

    /// Asks the program, if anybody wants anything and anything is free.
    pub(super) fn ask_program(&mut self, agents: &BTreeSet<AgentId>, frameworks: &BTreeSet<FrameworkId>) {
        if self.with_change(Pool::Firm, agents, frameworks, 0, |_| ()).is_none() {
            return;
        }
        self.external.last += 1;
        let number = self.external.last;
        self.external.asked = Some(Asked { deadline_ms: self.now_ms + ALLOCATE_DEADLINE_MS, agents: agents.clone(), frameworks: frameworks.clone() });
        self.timer(ALLOCATE_DEADLINE_MS, Timer::Program(number));
        let snapshot = Box::new(self.whole_snapshot());
        self.out.push(Effect::Ask { number, snapshot });
    }

    /// The whole cluster as the program reads it: the very line that others can ask for.
    fn whole_snapshot(&self) -> Snapshot {
        let (mut whole, mut next) = self.snapshot_part("");
        while !next.is_empty() {
            let (part, after) = self.snapshot_part(&next);
            whole.extend(part);
            next = after;
        }
        whole
    }

    /// The program answered. An answer that comes too late gives nothing, but shows that it lives.
    pub(super) fn on_granted(&mut self, number: u64, proposals: &[Proposal]) {
        self.on_program_ready();
        if self.close_question(Some(number)).is_none() {
            return;
        }
        // Between question and answer the cluster may have changed: what counts is what is there now.
        let checked = self.with_all(|snapshot| check(snapshot, proposals));
        if let Some(why) = checked.why {
            self.tell_refused(checked.refused, &why.to_string());
        }
        self.make_offers(Pool::Firm, checked.grants);
    }

    /// The program is there, again or for the first time.
    pub(super) fn on_program_ready(&mut self) {
        if std::mem::take(&mut self.external.is_failing) {
            self.tell("allocator_back", self.config.master.to_string(), "the allocation program answers again".to_owned());
        }
    }

    /// The program failed; without a number that was not on a question.
    pub(super) fn on_program_failed(&mut self, number: Option<u64>, why: &str) {
        let asked = self.close_question(number);
        if number.is_some() && asked.is_none() {
            return;
        }
        if let Some(Asked { agents, frameworks, .. }) = asked {
            self.fresh_agents.extend(agents);
            self.fresh_frameworks.extend(frameworks);
        }
        if !std::mem::replace(&mut self.external.is_failing, true) {
            self.tell("allocator_failed", self.config.master.to_string(), format!("the allocation program {why}; the built-in policy serves until it is back"));
        }
    }

    pub(super) fn program_due(&mut self, number: u64) {
        self.on_program_failed(Some(number), &format!("gave no answer within {ALLOCATE_DEADLINE_MS} ms"));
    }

    /// Closes the open question if it has that number, or whatever number it has; what it was about.
    fn close_question(&mut self, number: Option<u64>) -> Option<Asked> {
        if number.is_some_and(|number| number != self.external.last) {
            return None;
        }
        let asked = self.external.asked.take()?;
        self.timers.remove(&(asked.deadline_ms, Timer::Program(self.external.last)));
        Some(asked)
    }

    fn tell_refused(&mut self, count: u64, why: &str) {
        self.external.refused += count;
        if self.external.told_refused_ms.is_some_and(|at_ms| self.now_ms < at_ms + TELL_REFUSED_EVERY_MS) {
            return;
        }
        self.external.told_refused_ms = Some(self.now_ms);
        let count = std::mem::take(&mut self.external.refused);
        let grants = if count == 1 { "1 grant".to_owned() } else { format!("{count} grants") };
        self.tell("grant_refused", self.config.master.to_string(), format!("{grants} of the allocation program refused: {why}"));
    }
}

#[cfg(test)]
mod tests;
