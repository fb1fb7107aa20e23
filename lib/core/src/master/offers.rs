//! Offers: made by the allocation policy, held for a while, given back, taken back.

use std::collections::BTreeSet;

use crate::allocate::{AgentView, Demand, FrameworkView, Snapshot, allocate};
use crate::id::{AgentId, FrameworkId, OfferId};
use crate::master::{AgentState, Lead, OFFERS_PER_FRAMEWORK_MAX, Timer};
use crate::resources::{Milli, Resources};
use crate::wire::Offer;
use crate::wire::call::Push;

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

impl Lead {
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
            if view.demand.is_some() {
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

    fn view<'a>(&'a self, id: &'a FrameworkId, entry: &'a super::Framework) -> FrameworkView<'a> {
        let demand = entry.demand.as_ref().filter(|_| entry.session.is_some() && entry.offers.len() < OFFERS_PER_FRAMEWORK_MAX).and_then(|demand| {
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
            // A framework without a demand is offered nothing yet: only those who say what they want are served.
            suppressed: demand.is_none(),
        }
    }

    pub(super) fn forget_offers(&mut self, framework: &FrameworkId, offers: &[OfferId]) {
        for offer in offers {
            if let Some(entry) = self.offers.remove(offer) {
                self.timers.remove(&(entry.expires_ms, Timer::Offer(offer.clone())));
            }
            if let Some(owner) = self.frameworks.get_mut(framework) {
                owner.offers.remove(offer);
            }
        }
    }

    /// Takes an offer out of the books; its resources are free again.
    fn give_back(&mut self, offer: &OfferId) -> Option<(AgentId, FrameworkId, Resources)> {
        let back = self.ledger.give_back(offer)?;
        self.forget_offers(&back.1.clone(), std::slice::from_ref(offer));
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

    pub(super) fn decline(&mut self, framework: &FrameworkId, offers: &[OfferId], refuse_ms: u64) {
        for offer in offers {
            if self.ledger.find_offer(offer).is_some_and(|(_, holding)| holding.framework == *framework) {
                if let Some((agent, _, resources)) = self.give_back(offer) {
                    if refuse_ms > 0 {
                        self.refuse(framework, &agent, resources, refuse_ms);
                    }
                }
            }
        }
    }

    /// An offer's time is over: that is a decline which nobody spoke.
    pub(super) fn expire(&mut self, offer: &OfferId) {
        if let Some((agent, framework, resources)) = self.give_back(offer) {
            let idle = self.ledger.idle(&agent).unwrap_or_default();
            self.refusals.add_implicit(&framework, &agent, resources, &idle, self.now_ms);
            self.arm_refusals();
            self.push(&framework, Push::Rescind { id: offer.clone(), reason: "expired".to_owned() });
        }
    }

    /// Gives back all that a framework holds without using it.
    pub(super) fn return_offers(&mut self, framework: &FrameworkId) {
        let offers: Vec<OfferId> = self.ledger.offers_of(framework).cloned().collect();
        for offer in offers {
            self.give_back(&offer);
        }
    }

    /// Takes back all offers of an agent and says so to their holders.
    pub(super) fn rescind_on(&mut self, agent: &AgentId, reason: &str) {
        let offers: Vec<OfferId> = self.ledger.offers_on(agent).map(|(offer, _)| offer.clone()).collect();
        for offer in offers {
            if let Some((_, framework, _)) = self.give_back(&offer) {
                self.push(&framework, Push::Rescind { id: offer, reason: reason.to_owned() });
            }
        }
    }
}
