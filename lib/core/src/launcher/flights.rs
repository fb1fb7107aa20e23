//! Tasks that are out: launched on what was offered, followed to their ends, and tried again.

use crate::id::{AgentId, Nonce, TaskId};
use crate::launcher::{ACCEPT_BYTES_MAX, AGAIN_MS, Asked, CLAIMS_PER_CALL_MAX, Effect, Failure, Launcher, Pending};
use crate::task::TaskState;
use crate::wire::call::{Accept, Answer, Call, Claim, TaskToken};
use crate::wire::{Offer, RefusalCode, TASKS_PER_ACCEPT_MAX, Update};

/// A task that was launched, or of which that is not known yet.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) pending: Pending,
    pub(super) agent: AgentId,
    pub(super) host: String,
    pub(super) epoch: u64,
    pub(super) token: Nonce,
    pub(super) begun: bool,
    pub(super) seq: u64,
    pub(super) state: TaskState,
    pub(super) killing: bool,
}

impl Launcher {
    /// Launches as many jobs on offers of one agent as fit; false if none.
    pub(super) fn use_offers(&mut self, epoch: u64, offers: &[Offer], out: &mut Vec<Effect>) -> bool {
        let Some(offer) = offers.first() else { return false };
        let mut there = offer.resources.clone();
        for more in &offers[1..] {
            match there.checked_add(&more.resources) {
                Some(sum) => there = sum,
                None => return false,
            }
        }
        let most = (self.room().min(self.config.per_offer_max) as usize).min(TASKS_PER_ACCEPT_MAX);
        let fits = self.config.request.room_in(&there, most as u64) as usize;
        let mut tasks = Vec::new();
        let mut bytes = 0;
        while tasks.len() < fits && bytes < ACCEPT_BYTES_MAX {
            let Some(pending) = self.pending.pop_front() else { break };
            let mut task = pending.job.task.clone();
            let own = task.id.clone().filter(|_| pending.attempt == 1);
            let id = own.unwrap_or_else(|| TaskId::fresh(self.seed.draw()));
            task.id = Some(id.clone());
            task.env.insert("MESO_ATTEMPT".to_owned(), pending.attempt.to_string());
            bytes += task.argv.iter().map(String::len).sum::<usize>() + task.env.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() + 256;
            let token = Nonce::fresh(self.seed.draw(), self.seed.draw());
            let flight = Flight {
                pending,
                agent: offer.agent.clone(),
                host: offer.host.clone(),
                epoch,
                token: token.clone(),
                begun: false,
                seq: 0,
                state: TaskState::Staging,
                killing: false,
            };
            self.flights.insert(id, flight);
            tasks.push(TaskToken { task, token });
        }
        if tasks.is_empty() {
            return false;
        }
        if let Some(told) = &mut self.told {
            *told = told.saturating_sub(u32::try_from(tasks.len()).unwrap_or(u32::MAX));
        }
        let accept = Accept {
            framework: self.framework.clone(),
            session: self.config.session.clone(),
            epoch,
            offers: offers.iter().map(|offer| offer.id.clone()).collect(),
            agent: offer.agent.clone(),
            tasks,
            refuse_ms: 0,
            member: self.config.member.clone(),
        };
        self.call(Asked::Accept(accept.clone()), Call::Accept(accept), out);
        true
    }

    pub(super) fn on_accepted(&mut self, now_ms: u64, accept: Accept, answer: Option<Answer>, out: &mut Vec<Effect>) {
        let again = |launcher: &mut Self, accept| launcher.accepts_again.push_back((now_ms + AGAIN_MS, accept));
        match answer {
            Some(Answer::Accepted { .. }) => {
                for id in accept.tasks.iter().filter_map(|one| one.task.id.as_ref()) {
                    self.begun(id, out);
                }
            }
            Some(Answer::Refused(refusal)) => match refusal.code {
                RefusalCode::Recovering | RefusalCode::Busy | RefusalCode::NotLeading | RefusalCode::UnknownFramework => again(self, accept),
                RefusalCode::OfferGone => {
                    self.take_back(&accept);
                    if self.config.member.is_some() {
                        out.push(Effect::TooLate(refusal));
                    }
                }
                _ => {
                    for id in accept.tasks.iter().filter_map(|one| one.task.id.as_ref()) {
                        if let Some(flight) = self.flights.remove(id).filter(|flight| !flight.begun) {
                            self.fail(flight.pending.job.index, Failure::Refused(refusal.clone()), out);
                        }
                    }
                }
            },
            _ => again(self, accept),
        }
    }

    /// The offer is gone: its jobs wait for another one, first in line.
    fn take_back(&mut self, accept: &Accept) {
        for id in accept.tasks.iter().rev().filter_map(|one| one.task.id.as_ref()) {
            if self.flights.get(id).is_some_and(|flight| !flight.begun) {
                if let Some(flight) = self.flights.remove(id) {
                    self.pending.push_front(flight.pending);
                }
            }
        }
        self.told = None;
    }

    fn begun(&mut self, id: &TaskId, out: &mut Vec<Effect>) {
        let Some(flight) = self.flights.get_mut(id).filter(|flight| !flight.begun) else { return };
        flight.begun = true;
        self.deadlines.retain(|(_, index)| *index != flight.pending.job.index);
        out.push(Effect::Begun {
            index: flight.pending.job.index,
            task: id.clone(),
            agent: flight.agent.clone(),
            host: flight.host.clone(),
            token: flight.token.clone(),
            attempt: flight.pending.attempt,
        });
    }

    pub(super) fn on_update(&mut self, now_ms: u64, update: Update, out: &mut Vec<Effect>) {
        let task = update.task.clone();
        let Some(flight) = self.flights.get(&task) else { return };
        // Only the agent that was given the task speaks of it; the master's own words have no number.
        if update.agent.as_ref().is_some_and(|agent| *agent != flight.agent) {
            return;
        }
        let by_master = update.agent_seq == 0;
        let news = if by_master { flight.state != update.state && update.state != TaskState::Staging } else { update.seq > flight.seq };
        if !news {
            if !flight.begun {
                self.begun(&task, out);
            }
            return;
        }
        if !(update.is_final && update.state.is_lost() && !flight.begun) {
            self.begun(&task, out);
        }
        let Some(flight) = self.flights.get_mut(&task) else { return };
        flight.seq = flight.seq.max(update.seq);
        flight.state = update.state;
        let index = flight.pending.job.index;
        if !update.is_final {
            out.push(Effect::News { index, update: Box::new(update) });
            return;
        }
        let Some(flight) = self.flights.remove(&task) else { return };
        let mut pending = flight.pending;
        let lost = update.state.is_lost() || is_taken_away(&update);
        let left = if lost { &mut pending.lost } else { &mut pending.retries };
        let retry = (lost || update.state == TaskState::Failed) && *left > 0 && !self.cancelled && !flight.killing;
        if retry {
            *left -= 1;
            pending.attempt += 1;
            if let Some(after_ms) = self.config.start_deadline_ms {
                self.deadlines.insert((now_ms + after_ms, index));
            }
            pending.arrived_ms = now_ms;
            self.pending.push_front(pending);
            out.push(Effect::Again { index, update: Box::new(update) });
        } else {
            self.deadlines.retain(|(_, waiting)| *waiting != index);
            out.push(Effect::Ended { index, update: Box::new(update), attempts: pending.attempt });
        }
    }

    pub(super) fn kill_flights(&mut self, out: &mut Vec<Effect>) {
        for flight in self.flights.values_mut() {
            flight.killing = true;
        }
        let ids: Vec<TaskId> = self.flights.keys().cloned().collect();
        for tasks in ids.chunks(CLAIMS_PER_CALL_MAX) {
            self.call(Asked::Kill, Call::Kill { tasks: tasks.to_vec(), grace_ms: self.kill_grace_ms }, out);
        }
    }

    pub(super) fn reconcile(&mut self, out: &mut Vec<Effect>) {
        // A task whose accept is still unanswered is not claimed: the accept itself is repeated until it is answered.
        let claims: Vec<Claim> = self
            .flights
            .iter()
            .filter(|(_, flight)| flight.begun)
            .map(|(id, flight)| Claim { task: id.clone(), agent: flight.agent.clone(), epoch: flight.epoch, seq: flight.seq })
            .collect();
        for tasks in claims.chunks(CLAIMS_PER_CALL_MAX) {
            let call = Call::Reconcile { framework: self.framework.clone(), session: self.config.session.clone(), tasks: tasks.to_vec(), member: self.config.member.clone(), asked: Vec::new() };
            self.call(Asked::Reconcile, call, out);
        }
    }
}

/// Whether a task was ended for others who needed its room, or for its agent being out of reach, which is neither its own
/// doing nor its owner's.
fn is_taken_away(update: &Update) -> bool {
    update.state == TaskState::Killed && matches!(update.reason.as_deref(), Some("revoked" | "agent_unreachable" | "agent_gone"))
}
