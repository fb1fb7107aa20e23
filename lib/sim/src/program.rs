//! The allocation program of a run that has one: honest in what it says first, greedy after that, and at times late or dead.

use meso_core::allocate::{Proposal, Rule, allocate};
use meso_core::id::{AgentId, FrameworkId};
use meso_core::master::{ALLOCATE_DEADLINE_MS, Event};
use meso_core::resources::{Milli, Request};
use meso_core::wire::snapshot::Snapshot;

use crate::tally::Count;
use crate::world::{Item, World};

/// How long an answer takes at most, milliseconds.
const ANSWER_MS_MAX: u64 = 60;
/// How long an answer takes at most that comes too late, milliseconds.
const LATE_MS_MAX: u64 = 5_000;
/// How long a program that failed takes until it is ready again, milliseconds: the first pause of the host.
const AGAIN_MS: u64 = 1_000;
/// While things go wrong, one question in so many is answered too late, and one on average is not at all.
const BAD_ONCE_IN: u64 = 12;

impl World {
    /// What the program of a master does with a question.
    pub(crate) fn ask_program(&mut self, which: usize, run: u64, number: u64, snapshot: &Snapshot) {
        let grants = self.proposals(snapshot);
        let soon_ms = 1 + self.seed.below(ANSWER_MS_MAX);
        let mut enter = |after_ms: u64, event: Event| self.agenda.enter(self.now_ms + after_ms, Item::Program(which, run, Box::new(event)));
        match if self.calm { BAD_ONCE_IN } else { self.seed.below(BAD_ONCE_IN) } {
            0 => {
                self.tally.add(Count::ProgramFailed);
                enter(soon_ms, Event::AllocatorFailed { number: Some(number), why: "ended".to_owned() });
                enter(soon_ms + AGAIN_MS, Event::AllocatorReady);
            }
            1 => {
                self.tally.add(Count::ProgramLate);
                enter(ALLOCATE_DEADLINE_MS + self.seed.below(LATE_MS_MAX), Event::Granted { number, grants });
            }
            _ => {
                self.tally.add(Count::Granted);
                enter(soon_ms, Event::Granted { number, grants });
            }
        }
    }

    /// What the built-in policy would give, as it would be said; and behind it too much, twice, and what is not there.
    fn proposals(&mut self, snapshot: &Snapshot) -> Vec<Proposal> {
        let grants = snapshot.with_view(&Rule::Drf, self.seed.draw(), allocate);
        let mut proposals: Vec<Proposal> = grants.iter().map(|grant| Proposal { framework: grant.framework.clone(), agent: grant.agent.clone(), amounts: Request::default(), tasks: grant.tasks }).collect();
        let agents: Vec<&AgentId> = snapshot.agents.iter().map(|agent| &agent.agent).collect();
        let frameworks: Vec<&FrameworkId> = snapshot.frameworks.iter().map(|framework| &framework.framework).collect();
        for _ in 0..self.seed.below(6) {
            let (Some(agent), Some(framework)) = (self.pick(&agents), self.pick(&frameworks)) else { break };
            let cpus = Milli::units([0, 1, 1_000_000][self.seed.below(3) as usize]);
            proposals.push(Proposal { framework: framework.clone(), agent: agent.clone(), amounts: Request { cpus, ..Request::default() }, tasks: self.seed.below(3) as u32 * 1_000 });
        }
        proposals
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> Option<T> {
        if among.is_empty() { None } else { Some(among[self.seed.below(among.len() as u64) as usize]) }
    }
}
