//! What a leader hears and does: the outside of the master's machine while it leads.

use std::collections::VecDeque;
use std::rc::Rc;

use meso_core::id::TaskId;
use meso_core::task::TaskState;
use meso_core::lease;
use meso_core::master::{Effect, Event, Reply};
use meso_core::wire::agent::{Order, Welcome};
use meso_core::wire::call::{Answer, Call, Push};
use meso_core::wire::{Refusal, RefusalCode};

use crate::agents::UNREACHABLE;
use crate::clients::FAILOVER_MS;
use crate::clock::FAST_PPM;
use crate::full::told_of_disk;
use crate::judge::law;
use crate::masters::MasterSite;
use crate::net::{Ask, Msg, Site};
use crate::pipes::{MEMBERS_FROM, pipe_of};
use crate::plant::Plant;
use crate::tally::Count;
use crate::world::{Item, Waiting, World};

/// After how long a write to the registry without an answer is given up, milliseconds.
const WRITE_GIVE_UP_MS: u64 = 2_500;
/// Pause before a registry that was not read whole is read again, milliseconds.
const COPY_LOOK_MS: u64 = 250;
/// After how long without a call a session ends, milliseconds: the contract's, which masters are started with.
pub(crate) const SESSION_MS: u64 = 15_000;
/// One command in so many is delivered once more, or for the first time, this much later: by then another leader may lead.
const ECHO_ONCE_IN: u64 = 20;
/// See [`ECHO_ONCE_IN`].
const ECHO_MS_MIN: u64 = 2_000;
/// See [`ECHO_ONCE_IN`].
const ECHO_MS_MAX: u64 = 60_000;
/// What two clocks that drift may differ by over a failover, milliseconds.
pub(crate) const DRIFT_MS: u64 = 200;

impl World {
    pub(crate) fn master_hears(&mut self, which: usize, msg: Msg) {
        match msg {
            Msg::LeaseAnswer(run, event) => {
                if self.masters[which].run != run {
                    return;
                }
                self.lease_answered(which, *event);
            }
            Msg::Written(run, no, revision) => {
                let site = &mut self.masters[which];
                if site.run != run || site.writing.as_ref().is_none_or(|(writing, ..)| *writing != no) {
                    return;
                }
                let Some(revision) = revision else { return self.registry_failed(which) };
                let Some((_, key, _, rest)) = site.writing.take() else { return };
                site.revisions.insert(key, revision);
                self.tally.add(Count::RegistryWritten);
                self.perform_master(which, rest);
            }
            Msg::Docs(run, epoch, reading) => {
                let site = &mut self.masters[which];
                if site.run != run || site.epoch != Some(epoch) || site.reading.is_none() || site.lease.leads(site.lease_clock().local_ms(self.now_ms)).is_none() {
                    return;
                }
                let is_taken = self.plant == Plant::PartsTaken || (self.plant == Plant::OldTaken && reading.is_counted());
                if !is_taken && !reading.is_whole() {
                    self.tally.add(Count::RegistryReadAgain);
                    site.reading = Some(self.now_ms + COPY_LOOK_MS);
                    return self.schedule(Site::Master(which));
                }
                let docs = reading.docs;
                site.reading = None;
                site.revisions = docs.iter().map(|(key, revision, _)| (key.clone(), *revision)).collect();
                site.since_ms = self.now_ms;
                let registry = docs.into_iter().map(|(key, _, doc)| if key == "frameworks" { (key, self.found_registry(doc)) } else { (key, self.found_agents(doc)) }).collect();
                let seed = [self.seed.draw(), self.seed.draw()];
                self.story.tell(self.now_ms, || format!("master {which} leads under epoch {epoch}"));
                self.master_event(which, Event::Lead { epoch, seed, registry });
            }
            Msg::Request(caller, mut ask) => {
                if let Some(refusal) = self.ask_read(which, &mut ask) {
                    if self.masters[which].machine.epoch().is_some() && self.masters[which].acts(self.now_ms).is_some() {
                        self.reply(which, caller, refusal);
                    }
                    return;
                }
                let event = match ask {
                    Ask::Hello(mut hello) => {
                        if self.plant.has(Plant::TwiceTheBooks) {
                            hello.total.cpus = hello.total.cpus.checked_mul(2).expect("a small number");
                            hello.total.mem = hello.total.mem.checked_mul(2).expect("a small number");
                        }
                        self.story.tell(self.now_ms, || format!("master {which} hears {} register: number {}, {} tasks, epoch {}, statuses up to {}", hello.agent, hello.no, hello.tasks.len(), hello.max_epoch, hello.status_seq));
                        Event::Hello { caller, hello }
                    }
                    Ask::Beat(beat) => Event::Beat { caller, beat },
                    Ask::Call(principal, call) => Event::Call { caller, principal, call: self.as_planted(which, caller, call) },
                    Ask::Query(principal, query) => Event::Query { caller, principal, query },
                };
                self.master_event(which, event);
            }
            Msg::Status(update) => {
                if let Some(agent) = update.agent.clone() {
                    self.master_event(which, Event::Status { agent, update: Box::new(Rc::unwrap_or_clone(update)) });
                }
            }
            _ => {}
        }
    }

    fn lease_answered(&mut self, which: usize, event: lease::Event) {
        use lease::Event as E;
        // Each attempt of the lease has a number of its own, whatever it is.
        let number = |event: &E| match event {
            E::Found { attempt, .. } | E::ReadFailed { attempt } | E::CasDone { attempt, .. } | E::CasRefused { attempt } | E::CasUnknown { attempt } => Some(*attempt),
            E::PingUnheard { attempt } | E::PingHeard { attempt, .. } | E::PingFailed { attempt } => Some(*attempt),
            _ => None,
        };
        let asked = &mut self.masters[which].asked;
        if let Some(place) = asked.iter().position(|(_, waiting)| number(waiting) == number(&event)) {
            asked.remove(place);
        }
        self.lease_event(which, event);
    }

    /// Feeds an event to a master's machine, after what it is writing has been written.
    pub(crate) fn master_event(&mut self, which: usize, event: Event) {
        let site = &mut self.masters[which];
        if !site.alive {
            return;
        }
        if site.writing.is_some() {
            site.queue.push_back(event);
            return;
        }
        let local_ms = site.clock.local_ms(self.now_ms);
        let leads = matches!(event, Event::Lead { .. } | Event::Raised { .. });
        // A leader that may not act at this moment is not asked: what it would say could not be said.
        if site.machine.epoch().is_some() && !leads && site.acts(self.now_ms).is_none() && !self.plant.has(Plant::NoSelfStop) {
            self.tally.add(Count::EffectsDropped);
            return;
        }
        if let Event::Call { principal, call, .. } = &event
            && !matches!(**call, Call::Kill { .. })
            && let Some(client) = self.clients.iter().position(|client| client.principal == *principal)
        {
            self.heard(which, client);
        }
        let speaker = match &event {
            // Whoever asks what an offer is does not say who it is.
            Event::Call { caller, call, .. } if !matches!(**call, Call::Look { .. }) && !self.sessions.is_fenced(*caller) => self.sessions.who(*caller).map(|member| (*caller, member)),
            _ => None,
        };
        let moves = moves(&event);
        let hello = matches!(event, Event::Hello { .. });
        self.step(400 + which as u64);
        let returns = self.returns(which, &event);
        let told = told_of_disk(&event);
        let mut event = self.as_forgotten(event);
        self.as_open(&mut event);
        self.as_believed(which, &mut event);
        let effects = self.masters[which].machine.step(local_ms, event);
        self.heard_of_disk(which, told, &effects);
        // Who is refused is none of those whom the leader has patience with.
        let is_refused = |caller: u64| effects.iter().any(|effect| matches!(effect, Effect::Reply { caller: to, reply: Reply::Answer(Answer::Refused(_)) } if *to == caller));
        if let Some((caller, member)) = speaker
            && !is_refused(caller)
        {
            self.heard_member(which, member);
        }
        if let Some((agent, unkept)) = returns {
            self.judge_return(which, &agent, &unkept, &effects);
        }
        // What an event that moves nothing leaves wrong is seen at the next one that does.
        if moves && !effects.is_empty() {
            self.check_books(which, hello);
        }
        self.check_sessions(which);
        if hello && effects.is_empty() {
            self.tally.add(Count::StaleHello);
        }
        if !effects.is_empty() {
            self.perform_master(which, effects.into());
        }
        self.schedule(Site::Master(which));
    }

    /// What must hold of the sessions that a leader knows, after every event.
    fn check_sessions(&mut self, which: usize) {
        let site = &self.masters[which];
        let Some(lead) = site.machine.lead() else { return };
        let local_ms = site.clock.local_ms(self.now_ms);
        if let Err(why) = self.sessions.check(which, local_ms, lead) {
            self.judge.fail(law::SESSIONS, || format!("master {which}: {why}"));
        }
        self.sessions.forget(lead);
    }

    /// A call as a leader with a planted bug takes it.
    fn as_planted(&self, which: usize, caller: u64, mut call: Box<Call>) -> Box<Call> {
        if self.plant != Plant::FencedSpeaks || !self.sessions.is_fenced(caller) {
            return call;
        }
        let live = |framework| Self::session_of(&self.masters[which], framework);
        match &mut *call {
            Call::Demand { framework, session, .. } | Call::Beat { framework, session, member: None, .. } => {
                if let Some(nonce) = live(framework) {
                    *session = nonce;
                }
            }
            Call::Accept(accept) => {
                if let Some(nonce) = live(&accept.framework) {
                    accept.session = nonce;
                    accept.member = None;
                }
            }
            _ => {}
        }
        call
    }

    /// Adds the books up from scratch, unless nothing has moved since that was done.
    fn check_books(&mut self, which: usize, anyway: bool) {
        let MasterSite { machine, added_up, .. } = &mut self.masters[which];
        let Some(lead) = machine.lead() else { return };
        let free = lead.ledger().cluster_free();
        let tasks = lead.tasks().len();
        if !anyway && added_up.as_ref().is_some_and(|(before, count)| before == free && *count == tasks) {
            return;
        }
        *added_up = Some((free.clone(), tasks));
        if let Err(why) = lead.ledger().check() {
            self.judge.fail(law::BOOKS, || format!("master {which}: {why}"));
            return;
        }
        for site in self.agents.iter().filter(|_| !self.plant.has(Plant::TwiceTheTotal) && !self.plant.has(Plant::TwiceTheBooks)) {
            if lead.ledger().total(&site.id).is_some_and(|total| *total != site.total) {
                self.judge.fail(law::BOOKS, || format!("master {which} believes in another total of agent {}", site.id));
                return;
            }
        }
    }

    /// Carries effects out in order; a document of the registry is waited for.
    pub(crate) fn perform_master(&mut self, which: usize, mut effects: VecDeque<Effect>) {
        if self.plant == Plant::AnswerBeforeRegistry {
            effects.make_contiguous().sort_by_key(|effect| !matches!(effect, Effect::Reply { .. }));
        }
        if self.plant == Plant::GoneBeforeRegistry {
            effects.make_contiguous().sort_by_key(|effect| !matches!(effect, Effect::Publish(update) if update.state == TaskState::Gone));
        }
        let mut crash_at = self.crash_at(self.plan.faults.master_crash, effects.len());
        while let Some(effect) = effects.pop_front() {
            if !self.masters[which].alive {
                return;
            }
            if crash_at == Some(0) {
                self.tally.add(Count::MasterBetweenEffects);
                return self.crash_master(which);
            }
            crash_at = crash_at.map(|left| left - 1);
            let Some(epoch) = self.masters[which].machine.epoch() else {
                // A standby only answers that it is not the one to ask.
                if let Effect::Reply { caller, reply } = effect {
                    self.reply(which, caller, reply);
                }
                continue;
            };
            if self.masters[which].acts(self.now_ms).is_none() && !self.plant.has(Plant::NoSelfStop) {
                self.tally.add(Count::EffectsDropped);
                effects.push_front(effect);
                if effects.iter().any(|effect| matches!(effect, Effect::Registry { .. })) {
                    self.registry_failed(which);
                }
                return;
            }
            if let Effect::Registry { key, doc } = effect {
                let site = &mut self.masters[which];
                site.writes += 1;
                let (no, run) = (site.writes, site.run);
                let expect = site.revisions.get(&key).copied().unwrap_or(0);
                site.writing = Some((no, key.clone(), self.now_ms + WRITE_GIVE_UP_MS, effects));
                self.send(Site::Master(which), Site::Bus, Msg::Write(which, run, no, key, expect, doc));
                self.schedule(Site::Master(which));
                return;
            }
            self.judge.leads(which, self.masters[which].run);
            self.perform_leader(which, epoch, effect);
        }
        while self.masters[which].writing.is_none() {
            let Some(event) = self.masters[which].queue.pop_front() else { break };
            self.master_event(which, event);
        }
        self.schedule(Site::Master(which));
    }

    fn reply(&mut self, which: usize, caller: u64, reply: Reply) {
        let to = match self.waiting.get(&caller) {
            Some(Waiting::Hello(agent, _) | Waiting::Beat(agent, _)) => Site::Agent(*agent),
            Some(Waiting::Call(client, ..)) => Site::Client(*client),
            Some(Waiting::Member(member, ..)) => Site::Member(*member),
            None => {
                self.tally.add(Count::LateAnswer);
                return;
            }
        };
        self.send(Site::Master(which), to, Msg::Reply(caller, Box::new(reply)));
    }

    fn perform_leader(&mut self, which: usize, epoch: u64, effect: Effect) {
        let here = Site::Master(which);
        let run = self.masters[which].run;
        match effect {
            Effect::Registry { .. } => {}
            Effect::Reply { caller, mut reply } => {
                self.reply_made(which, &mut reply);
                if let Reply::Answer(Answer::Refused(refusal)) = &reply {
                    self.story.tell(self.now_ms, || format!("master {which} refuses: {:?} {}", refusal.code, refusal.message));
                }
                if matches!(reply, Reply::Welcome(Welcome::Welcome { .. })) {
                    self.tally.add(Count::AgentJoined);
                    if let Some(Waiting::Hello(agent, of_run)) = self.waiting.get(&caller) {
                        // What an earlier process asked is nothing to the one that may be another agent by now.
                        let site = &self.agents[*agent];
                        if site.run == *of_run {
                            self.masters[which].welcomed.insert(site.id.clone());
                            self.judge.taken_in(which, &site.id);
                        }
                    }
                }
                if let Reply::Answer(answer) = &reply {
                    if let Err(why) = self.sessions.answered((which, run, epoch), caller, answer, self.plan.faults.forget()) {
                        self.judge.fail(law::SESSIONS, || format!("master {which}: {why}"));
                    }
                    if let Answer::Refused(refusal) = answer
                        && self.sessions.who(caller).is_some()
                    {
                        self.count_refused(caller, refusal);
                    }
                }
                self.reply(which, caller, reply);
            }
            Effect::Push { framework, push, principal } => {
                match &push {
                    Push::Offers { offers, session, .. } => {
                        let back_ms = self.masters[which].clock.local_ms(self.now_ms) + self.plan.offer_ms + 1;
                        for offer in offers {
                            self.judge_closed(which, &offer.agent);
                            self.sessions.offered(which, session, &offer.id, back_ms);
                        }
                        self.tally.add(Count::Offered);
                        self.story.tell(self.now_ms, || format!("master {which} offers {framework}: {:?}", offers.iter().map(|offer| format!("{} {} {}", offer.id, offer.agent, offer.resources)).collect::<Vec<_>>()));
                    }
                    Push::Rescind { reason, .. } => self.tally.add(if reason == "expired" { Count::Expired } else { Count::Rescinded }),
                    _ => {}
                }
                let is_untold = match &push {
                    Push::Used { .. } => self.plant.has(Plant::UsedUntold),
                    Push::Removed { .. } => self.plant.has(Plant::RemovedUntold),
                    _ => false,
                };
                let listens = |world: &Self, member: &usize| world.members[*member].lives() && world.members[*member].framework.as_ref() == Some(&framework) && world.pipes[pipe_of(*member)].principal == principal;
                let members: Vec<usize> = (0..self.members.len()).filter(|member| !is_untold && listens(self, member)).collect();
                for member in members {
                    self.send(here, Site::Member(member), Msg::Push(framework.clone(), Box::new(push.clone())));
                }
                if let Some(client) = self.clients.iter().position(|client| client.principal == principal) {
                    self.send(here, Site::Client(client), Msg::Push(framework, Box::new(push)));
                }
            }
            Effect::Command { agent, secret, command } => {
                if command.epoch != epoch {
                    let other = command.epoch;
                    self.judge.fail(law::EPOCH, || format!("master {which} leads under {epoch} and commands under {other}"));
                }
                if let Order::Kill { task, reason, .. } = &command.order {
                    self.story.tell(self.now_ms, || format!("master {which} orders the end of {task}: {reason}"));
                    if reason == "revoked" {
                        self.judge_revocation(which, task);
                    }
                    if reason == UNREACHABLE {
                        self.tally.add(Count::EndedOnReturn);
                    }
                    if reason == "framework_gone" {
                        self.judge_lapse(which, task);
                    }
                }
                if let Some(site) = self.agents.iter().position(|site| site.id == agent) {
                    self.judge.acts(which, run, epoch, site, self.plan.faults.forget());
                    if self.plan.faults.dup > 0 && self.chance(ECHO_ONCE_IN) {
                        let is_all = self.seed.below(2) == 0;
                        self.tally.add(if is_all { Count::Overdue } else { Count::Echoed });
                        let at_ms = self.now_ms + ECHO_MS_MIN + self.seed.below(ECHO_MS_MAX - ECHO_MS_MIN);
                        let echo = Msg::Command(agent.clone(), secret.clone(), Box::new(command.clone()));
                        self.agenda.enter(at_ms, Item::Deliver(Site::Agent(site), 0, echo));
                        if is_all {
                            return;
                        }
                    }
                    self.send(here, Site::Agent(site), Msg::Command(agent, secret, Box::new(command)));
                }
            }
            Effect::Settle { principal, update } => {
                let effect = match self.stream.end_of(&update.framework, &update.task) {
                    Some(end) => Effect::Push { principal, framework: update.framework.clone(), push: Push::Known { update: Box::new((**end).clone()) } },
                    None => Effect::Publish(update),
                };
                self.perform_leader(which, epoch, effect);
            }
            Effect::Publish(update) => {
                match (update.state, &update.agent) {
                    (TaskState::Unreachable, _) => self.tally.add(Count::AgentUnreachable),
                    (TaskState::Gone, Some(agent)) => self.judge.gone_told(agent),
                    _ => self.tally.add(Count::DroppedEarned),
                }
                self.story.tell(self.now_ms, || format!("master {which} says {} of {}: {:?}", update.state, update.task, update.reason));
                self.send(here, Site::Bus, Msg::Store(Rc::new(*update)));
            }
            Effect::Tell(happening) => {
                match happening.kind.as_str() {
                    "agent_back" => self.tally.add(Count::AgentBack),
                    "agent_gone" => self.tally.add(Count::DeclaredGone),
                    "agents_silent" => self.tally.add(Count::Paced),
                    _ => {}
                }
                self.story.tell(self.now_ms, || format!("master {which}: {} {}", happening.kind, happening.message));
            }
            // An invitation commands nothing: a leader whose store was lost learns by it that its epoch is an old one.
            Effect::Invite(invitation) => {
                for agent in 0..self.agents.len() {
                    self.send(here, Site::Agent(agent), Msg::Invite(invitation.clone()));
                }
            }
            Effect::RaiseAbove { epoch } => self.lease_event(which, lease::Event::RaiseAbove { epoch }),
            Effect::Ask { number, snapshot } => self.ask_program(which, run, number, &snapshot),
        }
    }

    fn count_refused(&mut self, caller: u64, refusal: &Refusal) {
        match refusal.code {
            RefusalCode::NameHeld if self.sessions.is_fenced(caller) => self.tally.add(Count::FencedCall),
            RefusalCode::UnknownFramework if refusal.message.contains("has not joined") => self.tally.add(Count::MemberLapsed),
            _ => {}
        }
    }

    /// How long a leader has not heard of a client, and how long it must have patience with it, milliseconds.
    fn silence(&self, which: usize, client: usize) -> (u64, u64) {
        let site = &self.masters[which];
        let heard_ms = match self.clients[client].heard {
            Some((master, run, at_ms)) if (master, run) == (which, site.run) => at_ms.max(site.since_ms),
            _ => site.since_ms,
        };
        // What names a framework is in the registry, and may be lost with it.
        let named = self.clients[client].name.is_some() && !self.plan.faults.forget();
        (self.by_its_clock(which, self.now_ms - heard_ms), if named { FAILOVER_MS } else { SESSION_MS })
    }

    /// How long a time may be at most by the clock of a master, milliseconds.
    pub(crate) fn by_its_clock(&self, which: usize, true_ms: u64) -> u64 {
        let fast_ms = if self.plan.fast == Some(Site::Master(which)) { true_ms * FAST_PPM as u64 / 1_000_000 } else { 0 };
        true_ms + fast_ms + DRIFT_MS
    }

    /// A leader hears of a client. If that took too long it has taken it as gone, and its tasks end even now.
    fn heard(&mut self, which: usize, client: usize) {
        let (silent_ms, patience_ms) = self.silence(which, client);
        if silent_ms >= patience_ms {
            self.clients[client].excuse();
        }
        self.clients[client].heard = Some((which, self.masters[which].run, self.now_ms));
    }

    /// A task ends to make room for others: counted without the policy's own arithmetic, its framework holds more than its
    /// even part of the cluster, with as many parts as there are frameworks.
    fn judge_revocation(&mut self, which: usize, task: &TaskId) {
        if self.judge.is_revoked(task) {
            return;
        }
        self.tally.add(Count::Revoked);
        let Some(lead) = self.masters[which].machine.lead() else { return };
        let Some((_, holding)) = lead.ledger().find_task(task) else { return };
        let held = lead.ledger().used_by(&holding.framework);
        let total = lead.ledger().cluster_total();
        let parts = lead.frameworks().len() as f64;
        let share = total.iter().filter(|(kind, _)| *kind != "ports").map(|(kind, all)| held.get(kind).as_f64() / all.as_f64()).fold(0.0, f64::max);
        if share * parts <= 1.0 {
            self.judge.fail(law::REVOKED, || format!("master {which} revokes task {task} of a framework that holds {share:.3} of the cluster, one of {parts}"));
        }
        self.judge.revoked(task);
    }

    /// The tasks of a framework end because it is gone: it must have been silent for as long as the contract says.
    fn judge_lapse(&mut self, which: usize, task: &TaskId) {
        self.tally.add(Count::SessionLapsed);
        let Some(client) = self.judge.client_of(task) else { return };
        if let Some(member) = client.checked_sub(MEMBERS_FROM) {
            return self.judge_member_lapse(which, task, member);
        }
        if !self.clients[client].lives() {
            return;
        }
        let (silent_ms, patience_ms) = self.silence(which, client);
        let faults = &self.plan.faults;
        let kept_silent = faults.loss > 0 || faults.slow > 0 || faults.cut || faults.freeze || faults.store || faults.master_crash || faults.forget();
        if silent_ms < patience_ms {
            self.judge.fail(law::LIVES, || format!("master {which} ends task {task}: its framework is gone, which was heard {silent_ms} ms ago"));
        } else if !kept_silent {
            self.judge.fail(law::LIVES, || format!("master {which} ends task {task}: its framework is gone, yet nothing kept it from speaking"));
        } else {
            self.clients[client].excuse();
        }
    }
}

/// Whether an event can move resources.
fn moves(event: &Event) -> bool {
    match event {
        Event::Beat { .. } | Event::Query { .. } | Event::Clock { .. } | Event::Standby { .. } => false,
        Event::Status { update, .. } => update.is_final,
        Event::Call { call, .. } => matches!(**call, Call::Accept(_) | Call::Decline { .. } | Call::Leave { .. } | Call::Teardown { .. } | Call::Subscribe(_)),
        _ => true,
    }
}
