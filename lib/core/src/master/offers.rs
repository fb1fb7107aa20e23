//! Offers: made by the allocation policy, held for a while, given back, taken back.

use std::collections::{BTreeMap, VecDeque};

use crate::allocate::{Grant, allocate};
use crate::id::{AgentId, FrameworkId, OfferId, Principal};
use crate::master::frameworks::refused;
use crate::master::{GONE_OFFERS_MAX, Lead, Timer};
use crate::ledger::{Holding, Ledger};
use crate::resources::Resources;
use crate::wire::call::{Answer, Push};
use crate::wire::{Offer, Refusal, RefusalCode};

/// An offer that is out; what it holds is in the ledger.
#[derive(Clone, Debug)]
pub(super) struct OfferEntry {
    /// When it was made.
    pub(super) since_ms: u64,
    /// When it ends.
    expires_ms: u64,
    /// How many tasks of the framework's demand it was made for.
    pub(super) tasks: u32,
    /// Which resources these are.
    pub(super) pool: Pool,
    /// What runs on it may be ended at once.
    pub(super) revocable: bool,
}

/// Which resources of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    /// What it has.
    Firm,
    /// What others hold of that and do not use: it is lent to those whose tasks may be ended at once.
    Lent,
}

/// The most offers in one message, so that with their attributes it fits.
const OFFERS_PER_PUSH_MAX: usize = 64;

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted,
    Declined,
    Expired,
    Rescinded,
}

/// The offers that are no more, as far back as is remembered: whoever comes too late is told why.
#[derive(Debug, Default)]
pub(super) struct Gone {
    fates: BTreeMap<OfferId, (Fate, u64)>,
    order: VecDeque<OfferId>,
}

impl Gone {
    fn note(&mut self, offer: &OfferId, fate: Fate, now_ms: u64) {
        if self.fates.insert(offer.clone(), (fate, now_ms)).is_none() {
            self.order.push_back(offer.clone());
        }
        while self.order.len() > GONE_OFFERS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.fates.remove(&oldest);
            }
        }
    }
}

impl Lead {
    /// The books of a pool.
    pub(super) fn books(&self, pool: Pool) -> &Ledger {
        match pool {
            Pool::Firm => &self.ledger,
            Pool::Lent => &self.lent,
        }
    }

    pub(super) fn books_mut(&mut self, pool: Pool) -> &mut Ledger {
        match pool {
            Pool::Firm => &mut self.ledger,
            Pool::Lent => &mut self.lent,
        }
    }

    /// An offer, the agent that it is of, and what it holds there.
    pub(super) fn find_offer(&self, offer: &OfferId) -> Option<(&OfferEntry, &AgentId, &Holding)> {
        let entry = self.offers.get(offer)?;
        let (agent, holding) = self.books(entry.pool).find_offer(offer)?;
        Some((entry, agent, holding))
    }

    /// Why an offer cannot be used: how it went, and when.
    pub(super) fn offer_gone(&self, offer: &OfferId) -> Refusal {
        let how = match self.gone.fates.get(offer) {
            Some((fate, at_ms)) => {
                let how = match fate {
                    Fate::Accepted => "was accepted",
                    Fate::Declined => "was declined",
                    Fate::Expired => "expired",
                    Fate::Rescinded => "was taken back",
                };
                format!("{how} {} s ago", self.now_ms.saturating_sub(*at_ms) / 1000)
            }
            None => "is not known: it was used, given back or taken back long ago, or under an earlier leader".to_owned(),
        };
        Refusal::new(RefusalCode::OfferGone, format!("offer {offer} {how}"))
    }

    /// What an offer is, and the session in which it can be used.
    pub(super) fn look(&self, principal: &Principal, offer: &OfferId) -> Answer {
        let Some((entry, agent, holding)) = self.find_offer(offer) else {
            return Answer::Refused(self.offer_gone(offer));
        };
        let owner = self.frameworks.get(&holding.framework).filter(|owner| owner.principal == *principal);
        let Some((owner, session)) = owner.and_then(|owner| Some((owner, owner.session.as_ref()?))) else {
            return refused(RefusalCode::NotYours, format!("offer {offer} belongs to another principal"));
        };
        let there = &self.agents[agent];
        Answer::Seat {
            framework: holding.framework.clone(),
            session: session.nonce.clone(),
            session_no: session.no,
            role: owner.role.clone(),
            offer: Offer {
                id: offer.clone(),
                agent: agent.clone(),
                host: there.host.clone(),
                resources: holding.resources.clone(),
                attrs: there.attrs.clone(),
                expires_ms: self.wall.later(entry.expires_ms.saturating_sub(self.now_ms)),
                lives_ms: entry.expires_ms.saturating_sub(self.now_ms),
                revocable: entry.revocable,
            },
        }
    }

    /// Tells the other members of a session which offers one of them used.
    pub(super) fn tell_used(&mut self, framework: &FrameworkId, offers: &[OfferId]) {
        let has_company = self.frameworks.get(framework).and_then(|entry| entry.session.as_ref()).is_some_and(|session| session.members.len() > 1);
        if has_company {
            self.push(framework, Push::Used { offers: offers.to_vec() });
        }
    }

    pub(super) fn wants_allocation(&self) -> bool {
        // While the allocation program is asked, what changes waits for the next question.
        !self.external.is_asked() && !(self.fresh_agents.is_empty() && self.fresh_frameworks.is_empty())
    }

    /// Offers what is free to those who want it. Only what changed is looked at: a changed agent is shown to everybody
    /// who wants, a framework with a new wish is shown every agent.
    pub(super) fn allocate(&mut self) {
        if !self.wants_allocation() {
            return;
        }
        let agents = std::mem::take(&mut self.fresh_agents);
        let frameworks = std::mem::take(&mut self.fresh_frameworks);
        let seed = self.seed.draw();
        if self.has_program() {
            self.ask_program(&agents, &frameworks);
        } else {
            let grants = self.with_change(Pool::Firm, &agents, &frameworks, seed, allocate).unwrap_or_default();
            self.make_offers(Pool::Firm, grants);
        }
        if !self.lent.cluster_total().is_empty() {
            let grants = self.with_change(Pool::Lent, &agents, &frameworks, seed, allocate).unwrap_or_default();
            self.make_offers(Pool::Lent, grants);
        }
        self.note_hunger(&frameworks);
    }

    /// Turns what a policy granted into offers. What is not free, or more than somebody may hold, is left out: the ledger
    /// is the second defence.
    pub(super) fn make_offers(&mut self, pool: Pool, grants: Vec<Grant>) {
        // By framework in the order in which they came first, so that each hears of all at once.
        let mut pushes: Vec<(FrameworkId, Vec<Offer>)> = Vec::new();
        let mut places: BTreeMap<FrameworkId, usize> = BTreeMap::new();
        for grant in grants {
            let Some(entry) = self.frameworks.get(&grant.framework).filter(|entry| entry.offers.len() < entry.open_max()) else {
                // The next pass gives it to others.
                self.fresh_agents.insert(grant.agent);
                continue;
            };
            let revocable = pool == Pool::Lent || entry.demand.as_ref().is_some_and(|demand| demand.revocable);
            let offer = OfferId::fresh(self.seed.draw());
            if self.offers.contains_key(&offer) || self.books_mut(pool).offer(&grant.agent, offer.clone(), grant.framework.clone(), grant.resources.clone()).is_err() {
                continue;
            }
            let lives_ms = self.config.offer_timeout_ms;
            self.offers.insert(offer.clone(), OfferEntry { since_ms: self.now_ms, expires_ms: self.now_ms + lives_ms, tasks: grant.tasks, pool, revocable });
            self.timer(lives_ms, Timer::Offer(offer.clone()));
            self.was_served(&grant.framework, &grant.agent);
            if let Some(entry) = self.frameworks.get_mut(&grant.framework) {
                entry.offers.insert(offer.clone());
            }
            let agent = &self.agents[&grant.agent];
            let line = Offer {
                id: offer,
                agent: grant.agent.clone(),
                host: agent.host.clone(),
                resources: grant.resources,
                attrs: agent.attrs.clone(),
                expires_ms: self.wall.later(lives_ms),
                lives_ms,
                revocable,
            };
            let place = *places.entry(grant.framework.clone()).or_insert_with(|| {
                pushes.push((grant.framework, Vec::new()));
                pushes.len() - 1
            });
            pushes[place].1.push(line);
        }
        for (framework, offers) in pushes {
            if let Some(session) = self.frameworks.get(&framework).and_then(|entry| entry.session.as_ref()).map(|session| session.nonce.clone()) {
                for offers in offers.chunks(OFFERS_PER_PUSH_MAX) {
                    self.push(&framework, Push::Offers { epoch: self.epoch, session: session.clone(), offers: offers.to_vec() });
                }
            }
        }
    }

    pub(super) fn forget_offers(&mut self, framework: &FrameworkId, offers: &[OfferId], fate: Fate) {
        for offer in offers {
            self.gone.note(offer, fate, self.now_ms);
            if let Some(entry) = self.offers.remove(offer) {
                self.timers.remove(&(entry.expires_ms, Timer::Offer(offer.clone())));
            }
            if let Some(owner) = self.frameworks.get_mut(framework) {
                if owner.offers.len() >= owner.open_max() {
                    // It may be offered more again.
                    self.fresh_frameworks.insert(framework.clone());
                }
                owner.offers.remove(offer);
            }
        }
    }

    /// Takes an offer out of the books; its resources are free again.
    fn give_back(&mut self, offer: &OfferId, fate: Fate) -> Option<(AgentId, FrameworkId, Resources)> {
        let pool = self.offers.get(offer)?.pool;
        let back = self.books_mut(pool).give_back(offer)?;
        self.forget_offers(&back.1.clone(), std::slice::from_ref(offer), fate);
        self.fresh_agents.insert(back.0.clone());
        Some(back)
    }

    pub(super) fn refuse(&mut self, framework: &FrameworkId, agent: &AgentId, resources: Resources, refuse_ms: u64) {
        self.refusals.add(framework, agent, resources, refuse_ms, self.now_ms);
        self.arm_refusals();
    }

    fn arm_refusals(&mut self) {
        let next = self.refusals.next_expiry();
        if next != self.refusals_at_ms {
            if let Some(old) = self.refusals_at_ms {
                self.timers.remove(&(old, Timer::Refusals));
            }
            if let Some(at) = next {
                self.timers.insert((at, Timer::Refusals));
            }
            self.refusals_at_ms = next;
        }
    }

    pub(super) fn refusals_due(&mut self) {
        self.refusals_at_ms = None;
        let again = self.refusals.expire(self.now_ms);
        self.fresh_agents.extend(again);
        self.arm_refusals();
    }

    /// Gives offers back; for how long they are refused is said, or is the leader's to say where nobody spoke it out.
    pub(super) fn decline(&mut self, framework: &FrameworkId, offers: &[OfferId], refuse_ms: Option<u64>) {
        let mut declined = Vec::new();
        for offer in offers {
            if self.find_offer(offer).is_none_or(|(_, _, holding)| holding.framework != *framework) {
                continue;
            }
            let Some((agent, _, resources)) = self.give_back(offer, Fate::Declined) else { continue };
            self.was_turned_down(framework, &agent);
            declined.push(offer.clone());
            match refuse_ms {
                Some(0) => {}
                Some(refuse_ms) => self.refuse(framework, &agent, resources, refuse_ms),
                None => self.refuse_implicitly(framework, &agent, resources),
            }
        }
        if !declined.is_empty() {
            self.tell_used(framework, &declined);
        }
    }

    /// A refusal that nobody spoke: short at first, longer each time until the agent has more.
    fn refuse_implicitly(&mut self, framework: &FrameworkId, agent: &AgentId, resources: Resources) {
        let idle = self.ledger.idle(agent).unwrap_or_default();
        self.refusals.add_implicit(framework, agent, resources, &idle, self.now_ms);
        self.arm_refusals();
    }

    /// An offer's time is over: that is a decline which nobody spoke.
    pub(super) fn expire(&mut self, offer: &OfferId) {
        if let Some((agent, framework, resources)) = self.give_back(offer, Fate::Expired) {
            self.was_turned_down(&framework, &agent);
            self.refuse_implicitly(&framework, &agent, resources);
            self.push(&framework, Push::Rescind { id: offer.clone(), reason: "expired".to_owned() });
        }
    }

    /// Gives back all that a framework holds without using it.
    pub(super) fn return_offers(&mut self, framework: &FrameworkId) {
        let offers: Vec<OfferId> = self.ledger.offers_of(framework).chain(self.lent.offers_of(framework)).cloned().collect();
        for offer in offers {
            self.give_back(&offer, Fate::Declined);
        }
    }

    /// Takes back all offers of an agent and says so to their holders.
    pub(super) fn rescind_on(&mut self, agent: &AgentId, reason: &str) {
        let offers: Vec<OfferId> = self.ledger.offers_on(agent).chain(self.lent.offers_on(agent)).map(|(offer, _)| offer.clone()).collect();
        for offer in offers {
            self.rescind(&offer, reason);
        }
    }

    /// Takes an offer back and says so to its holder.
    pub(super) fn rescind(&mut self, offer: &OfferId, reason: &str) {
        if let Some((_, framework, _)) = self.give_back(offer, Fate::Rescinded) {
            self.push(&framework, Push::Rescind { id: offer.clone(), reason: reason.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::testcluster::{Cluster, framework};
    use crate::master::{Effect, Event};

    /// Shows that an offer which was accepted or declined is not taken back when its time is over, and that one of which
    /// nobody said anything is.
    #[test]
    fn a_word_is_the_last() {
        for (says, expires) in [("accept", false), ("decline", false), ("nothing", true)] {
            let mut cluster = Cluster::new();
            cluster.join(1, "cpus=4,mem=1G");
            cluster.subscribe(1, "default");
            cluster.demand(1, "cpus=4", 1);
            cluster.allocate();
            let offers: Vec<OfferId> = cluster.offers[&framework(1)].keys().cloned().collect();
            match says {
                "accept" => drop(cluster.accept(1, "cpus=4", 1)),
                "decline" => cluster.decline(1, 600_000),
                _ => {}
            }
            cluster.wait(29_000);
            cluster.now_ms += 2_000;
            let effects = cluster.step(Event::Tick);
            let rescinded: Vec<OfferId> = effects.iter().filter_map(|effect| if let Effect::Push { push: Push::Rescind { id, .. }, .. } = effect { Some(id.clone()) } else { None }).collect();
            assert_eq!(rescinded, if expires { offers } else { Vec::new() }, "{says}");
        }
    }
}
