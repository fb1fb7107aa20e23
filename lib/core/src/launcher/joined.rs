//! A launcher in a session that another process began: offers are handed in, and it says when that is enough.

use super::{Asked, Effect, Failure, Launcher};
use crate::wire::Offer;
use crate::wire::call::Call;

/// The most offers that are put aside.
pub const ASIDE_MAX: usize = 1_024;

impl Launcher {
    /// An offer that was read: used, given back, or put aside until others of its agent make it large enough.
    pub(super) fn on_offer(&mut self, now_ms: u64, offer: Offer, out: &mut Vec<Effect>) {
        self.aside.retain(|(until_ms, aside)| *until_ms > now_ms && aside.id != offer.id);
        let until_ms = now_ms.saturating_add(offer.lives_ms);
        if !self.subscribed {
            if self.aside.len() < ASIDE_MAX {
                self.aside.push((until_ms, offer));
            }
            return;
        }
        if self.room() == 0 {
            return self.give_back(vec![offer.id], out);
        }
        if self.use_offers(self.epoch, std::slice::from_ref(&offer), out) {
            return;
        }
        let agent = offer.agent.clone();
        let (mut of_agent, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.aside).into_iter().partition(|(_, aside)| aside.agent == agent);
        of_agent.push((until_ms, offer));
        self.aside = others;
        let together: Vec<Offer> = of_agent.iter().map(|(_, offer)| offer.clone()).collect();
        if !self.use_offers(self.epoch, &together, out) {
            self.aside.extend(of_agent);
            if self.aside.len() > ASIDE_MAX {
                let (_, oldest) = self.aside.remove(0);
                self.give_back(vec![oldest.id], out);
            }
        }
    }

    /// Who joined a session asks for nothing: it uses what is handed in, and says when that is enough.
    pub(super) fn on_time_joined(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if self.room() > 0 {
            for (_, offer) in std::mem::take(&mut self.aside).into_iter().filter(|(until_ms, _)| *until_ms > now_ms) {
                self.on_offer(now_ms, offer, out);
            }
        } else if !self.aside.is_empty() {
            let spare = std::mem::take(&mut self.aside).into_iter().map(|(_, offer)| offer.id).collect();
            self.give_back(spare, out);
        }
        // While an accept is out nobody knows what else is needed.
        let is_undecided = self.flights.values().any(|flight| !flight.begun);
        if self.dry && !is_undecided {
            for pending in std::mem::take(&mut self.pending) {
                self.fail(pending.job.index, Failure::NoOffer, out);
            }
        }
        let sated = self.room() == 0;
        if sated != self.sated && !is_undecided && !self.beating {
            self.sated = sated;
            self.beating = true;
            let call = Call::Beat { framework: self.framework.clone(), session: self.config.session.clone(), member: self.config.member.clone(), sated };
            self.call(Asked::Beat, call, out);
        }
    }
}
