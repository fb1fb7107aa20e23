//! What the leader tells those who ask why somebody waits.

use crate::allocate::{held_from, standings};
use crate::explain::{Books, Case, Place, Seeker, Stake, explain};
use crate::id::{FrameworkId, Name, OfferId, TaskId};
use crate::master::frameworks::parse_condition;
use crate::master::offers::Pool;
use crate::master::{AgentState, Framework, Lead};
use crate::resources::Milli;
use crate::wire::explain::{Ask, Explanation, Reason};
use crate::wire::query::Rows;
use crate::wire::{Refusal, RefusalCode};

/// Millionths in a thousandth: shares are told to the thousandth.
const PPM_PER_MILLI: u64 = 1_000;

impl Lead {
    /// The explanation, or why there is none.
    pub(super) fn explain(&self, ask: Option<&Ask>) -> Rows {
        match self.explanation(ask) {
            Ok(explanation) => Rows::Explain { explanation: Box::new(explanation) },
            Err(refusal) => Rows::Refused { refusal },
        }
    }

    fn explanation(&self, ask: Option<&Ask>) -> Result<Explanation, Refusal> {
        let ask = ask.ok_or_else(|| Refusal::new(RefusalCode::BadRequest, "it does not say what is to be explained"))?;
        let of = match &ask.framework {
            Some(id) => Some(self.frameworks.get_key_value(id).ok_or_else(|| Refusal::new(RefusalCode::UnknownFramework, format!("framework {id} is not registered")))?),
            None => None,
        };
        let condition = match (&ask.demand, of) {
            (Some(demand), _) => parse_condition(demand)?,
            (None, of) => of.and_then(|(_, entry)| entry.condition.clone()),
        };
        let case = Case {
            now_ms: self.now_ms,
            role: of.map_or(&ask.role, |(_, entry)| &entry.role),
            demand: ask.demand.as_ref().or(of.and_then(|(_, entry)| entry.demand.as_ref())),
            condition: condition.as_ref(),
            seeker: of.map(|(id, entry)| self.seeker(id, entry)),
            agents: self.places(),
            policies: &self.policies,
            stakes: if self.policies.is_empty() { Vec::new() } else { self.stakes() },
            held: if self.policies.is_empty() { Vec::new() } else { self.with_all(|snapshot| held_from(snapshot, of.map(|(id, _)| id), of.map_or(&ask.role, |(_, entry)| &entry.role))) },
            free: self.ledger.cluster_free(),
            books: self,
        };
        Ok(explain(&case, ask.lines_max as usize))
    }

    fn seeker<'a>(&'a self, framework: &'a FrameworkId, entry: &'a Framework) -> Seeker<'a> {
        let offers = entry.offers.iter().filter_map(|offer| self.offers.get(offer));
        Seeker {
            framework,
            name: entry.name.as_ref(),
            gone_ms: (!entry.is_connected()).then(|| self.now_ms.saturating_sub(entry.gone_ms)),
            is_suppressed: entry.suppressed,
            is_sated: entry.session.as_ref().is_some_and(|session| session.is_sated()),
            tasks: u32::try_from(entry.tasks.len()).unwrap_or(u32::MAX),
            offers: u32::try_from(entry.offers.len()).unwrap_or(u32::MAX),
            offers_max: u32::try_from(entry.open_max()).unwrap_or(u32::MAX),
            offered_tasks: offers.clone().map(|offer| offer.tasks).fold(0, u32::saturating_add),
            offer_age_ms: offers.map(|offer| self.now_ms.saturating_sub(offer.since_ms)).max().unwrap_or_default(),
            refused: self.refusals.of(framework),
        }
    }

    fn places(&self) -> Vec<Place<'_>> {
        let place = |(agent, entry)| {
            let entry: &super::AgentEntry = entry;
            let away = match entry.state {
                AgentState::Unreachable | AgentState::Gone => Some(Reason::Unreachable),
                AgentState::Active if entry.epoch == self.epoch => None,
                AgentState::Active | AgentState::Recovering => Some(Reason::Recovering),
            };
            let (account, lent) = (self.books(Pool::Firm).account(agent), self.books(Pool::Lent).account(agent));
            Place { agent, host: &entry.host, away, account, lent, attrs: &entry.attrs, kept_for: self.kept.get(agent) }
        };
        self.agents.iter().map(place).collect()
    }

    fn stakes(&self) -> Vec<Stake<'_>> {
        self.frameworks.iter().map(|(framework, entry)| Stake { framework, name: entry.name.as_ref(), role: &entry.role, held: self.ledger.held_by(framework) }).collect()
    }
}

impl Books for Lead {
    fn shares_of(&self, framework: &FrameworkId) -> (Milli, Milli) {
        let share = |ppm: u64| i64::try_from(ppm / PPM_PER_MILLI).ok().and_then(Milli::from_milli).unwrap_or(Milli::MAX);
        let standing = self.with_all(|snapshot| {
            standings(snapshot).by_framework.get(framework).copied()
        });
        standing.map_or((Milli::ZERO, Milli::ZERO), |standing| (share(standing.share_ppm), share(standing.fair_ppm)))
    }

    fn name_of(&self, framework: &FrameworkId) -> Option<Name> {
        self.frameworks.get(framework).and_then(|entry| entry.name.clone())
    }

    fn offer_age_ms(&self, offer: &OfferId) -> u64 {
        self.offers.get(offer).map_or(0, |entry| self.now_ms.saturating_sub(entry.since_ms))
    }

    fn task_age_ms(&self, task: &TaskId) -> u64 {
        let since_ms = |entry: &super::TaskEntry| if entry.update.started_ms > 0 { entry.update.started_ms } else { entry.update.ts_ms };
        self.tasks.get(task).map_or(0, |entry| self.wall.0.saturating_sub(since_ms(entry)))
    }
}

#[cfg(test)]
mod tests {
    use crate::master::testcluster::{Cluster, agent, framework};
    use crate::policy::{Change, Subject};
    use crate::resources::{Quantities, parse_total};
    use crate::wire::explain::{Ask, Reason};
    use crate::wire::operator::Operation;
    use crate::wire::query::Rows;

    /// Shows that an agent which is held for tasks of somebody who is guaranteed them is not told as one with room, but
    /// for whom it is held; and that to the one it is held for it has room.
    #[test]
    fn what_is_held_by_shape() {
        let mut cluster = Cluster::new();
        for (number, total) in [(1, "cpus=2,mem=1G"), (2, "cpus=4,mem=1G"), (3, "cpus=2,mem=1G")] {
            cluster.join(number, total);
        }
        let guarantee = Some(Quantities::of(&parse_total("cpus=4").expect("resources")));
        cluster.operate(Operation::SetRole { subject: Subject::parse("vip").expect("a role"), change: Change { guarantee, ..Change::default() }, force: false, dry_run: false });
        cluster.subscribe(2, "vip");
        cluster.demand(2, "cpus=4", 0);
        cluster.subscribe(1, "default");
        cluster.demand(1, "cpus=2", 4);
        cluster.allocate();
        assert_eq!(cluster.accept(1, "cpus=2", 4).len(), 2, "not those of the agent in the middle");

        let lines = |cluster: &Cluster, number| {
            let ask = Ask { framework: Some(framework(number)), lines_max: 9, ..Ask::default() };
            let Rows::Explain { explanation } = cluster.master.lead.as_ref().expect("it leads").explain(Some(&ask)) else { panic!("it is there") };
            explanation.agents
        };
        let mine = lines(&cluster, 1);
        assert_eq!(mine.iter().map(|line| line.reason).collect::<Vec<_>>(), [Reason::Busy, Reason::Guaranteed, Reason::Busy]);
        assert_eq!((&mine[1].agent, &mine[1].holders[0].framework, mine[1].holders[0].count), (&agent(2), &framework(2), 1));
        cluster.demand(2, "cpus=4", 1);
        assert_eq!(lines(&cluster, 2)[1].reason, Reason::Fits);
    }
}
