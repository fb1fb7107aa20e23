//! Offers: made by the allocation policy, held for a while, given back, taken back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::allocate::{AgentView, Demand, FrameworkView, Snapshot, allocate};
use crate::id::{AgentId, FrameworkId, OfferId, Principal};
use crate::master::frameworks::refused;
use crate::master::{AgentState, GONE_OFFERS_MAX, Lead, Timer};
use crate::resources::{Milli, Resources};
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
    tasks: u32,
}

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
        let (Some(entry), Some((agent, holding))) = (self.offers.get(offer), self.ledger.find_offer(offer)) else {
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
                expires_ms: self.wall.0 + entry.expires_ms.saturating_sub(self.now_ms),
                lives_ms: entry.expires_ms.saturating_sub(self.now_ms),
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
        !self.fresh_agents.is_empty() || !self.fresh_frameworks.is_empty()
    }

    /// Offers what is free to those who want it. Only what changed is looked at: a changed agent is shown to everybody
    /// who wants, a framework with a new wish is shown every agent.
    pub(super) fn allocate(&mut self) {
        if !self.wants_allocation() {
            return;
        }
        let agents = std::mem::take(&mut self.fresh_agents);
        let frameworks = std::mem::take(&mut self.fresh_frameworks);
        let grants = {
            let seed = self.seed.draw();
            let Some(snapshot) = self.snapshot(&agents, &frameworks, seed) else { return };
            allocate(&snapshot)
        };
        let mut pushes: Vec<(FrameworkId, Vec<Offer>)> = Vec::new();
        for grant in grants {
            if self.frameworks.get(&grant.framework).is_none_or(|entry| entry.offers.len() >= entry.open_max()) {
                // It holds as many as it wants by now: the next pass gives the rest to others.
                self.fresh_agents.insert(grant.agent);
                continue;
            }
            let offer = OfferId::fresh(self.seed.draw());
            if self.offers.contains_key(&offer) || self.ledger.offer(&grant.agent, offer.clone(), grant.framework.clone(), grant.resources.clone()).is_err() {
                // The policy granted what is not free: the ledger is the second defence, nothing moved.
                continue;
            }
            let lives_ms = self.config.offer_timeout_ms;
            self.offers.insert(offer.clone(), OfferEntry { since_ms: self.now_ms, expires_ms: self.now_ms + lives_ms, tasks: grant.tasks });
            self.timer(lives_ms, Timer::Offer(offer.clone()));
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
                expires_ms: self.wall.0 + lives_ms,
                lives_ms,
            };
            match pushes.last_mut() {
                Some((framework, offers)) if *framework == grant.framework => offers.push(line),
                _ => pushes.push((grant.framework, vec![line])),
            }
        }
        for (framework, offers) in pushes {
            if let Some(session) = self.frameworks.get(&framework).and_then(|entry| entry.session.as_ref()).map(|session| session.nonce.clone()) {
                self.push(&framework, Push::Offers { epoch: self.epoch, session, offers });
            }
        }
    }

    /// The cluster as the policy sees it; none if nobody wants anything or nothing is free.
    fn snapshot(&self, fresh: &BTreeSet<AgentId>, frameworks: &BTreeSet<FrameworkId>, seed: u64) -> Option<Snapshot<'_>> {
        let mut somebody_wants = false;
        let mut new_wish = false;
        let mut views: Vec<FrameworkView<'_>> = Vec::new();
        for (id, entry) in &self.frameworks {
            let view = self.view(id, entry);
            if !view.suppressed {
                somebody_wants = true;
                new_wish |= frameworks.contains(id);
            } else if view.used.is_empty() {
                continue;
            }
            views.push(view);
        }
        if !somebody_wants {
            return None;
        }
        let all = self.agents.keys().filter(|_| new_wish);
        let some = fresh.iter().filter(|_| !new_wish);
        let agents: Vec<AgentView<'_>> = all
            .chain(some)
            .filter_map(|id| {
                let (agent, entry) = self.agents.get_key_value(id)?;
                let account = self.ledger.account(id).filter(|account| !account.free.is_empty())?;
                let usable = entry.state == AgentState::Active && entry.epoch == self.epoch;
                usable.then_some(AgentView { agent, host: &entry.host, total: &account.total, free: &account.free, attrs: &entry.attrs })
            })
            .collect();
        if agents.is_empty() {
            return None;
        }
        let (total, free) = (self.ledger.cluster_total().clone(), self.ledger.cluster_free().clone());
        Some(Snapshot { total, free, agents, roles: Vec::new(), frameworks: views, seed })
    }

    pub(super) fn view<'a>(&'a self, id: &'a FrameworkId, entry: &'a super::Framework) -> FrameworkView<'a> {
        let wish = entry.demand.as_ref().filter(|_| entry.is_hungry());
        // Whoever says nothing of a task's needs is offered whole agents.
        let whole = wish.is_some_and(|demand| demand.request.is_empty());
        let demand = wish.filter(|_| !whole).and_then(|demand| {
            let offered: u32 = entry.offers.iter().filter_map(|offer| self.offers.get(offer)).map(|offer| offer.tasks).sum();
            let count = demand.count.saturating_sub(offered);
            (count > 0).then_some(Demand { request: &demand.request, count })
        });
        FrameworkView {
            framework: id,
            role: &entry.role,
            weight: Milli::units(1),
            priority: 0,
            used: self.ledger.held_by(id),
            demand,
            condition: entry.condition.as_ref(),
            on: entry.demand.as_ref().and_then(|demand| demand.on.as_deref()),
            refused: self.refusals.of(id),
            suppressed: demand.is_none() && !whole,
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
        let back = self.ledger.give_back(offer)?;
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
            if self.ledger.find_offer(offer).is_none_or(|(_, holding)| holding.framework != *framework) {
                continue;
            }
            let Some((agent, _, resources)) = self.give_back(offer, Fate::Declined) else { continue };
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
            self.refuse_implicitly(&framework, &agent, resources);
            self.push(&framework, Push::Rescind { id: offer.clone(), reason: "expired".to_owned() });
        }
    }

    /// Gives back all that a framework holds without using it.
    pub(super) fn return_offers(&mut self, framework: &FrameworkId) {
        let offers: Vec<OfferId> = self.ledger.offers_of(framework).cloned().collect();
        for offer in offers {
            self.give_back(&offer, Fate::Declined);
        }
    }

    /// Takes back all offers of an agent and says so to their holders.
    pub(super) fn rescind_on(&mut self, agent: &AgentId, reason: &str) {
        let offers: Vec<OfferId> = self.ledger.offers_on(agent).map(|(offer, _)| offer.clone()).collect();
        for offer in offers {
            if let Some((_, framework, _)) = self.give_back(&offer, Fate::Rescinded) {
                self.push(&framework, Push::Rescind { id: offer, reason: reason.to_owned() });
            }
        }
    }
}
