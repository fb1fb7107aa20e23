//! The outside of a pipeline's tail: the lines it reads, the session it joins, its jobs.

use meso_core::id::Nonce;
use meso_core::launcher::{Config, Effect, Event, Failure, Job, Launcher};
use meso_core::resources::parse_request;
use meso_core::wire::call::{Answer, Call};
use meso_core::wire::{RefusalCode, Span, Task};

use crate::judge::law;
use crate::net::{SEATS, Site};
use crate::pipes::{MEMBERS_FROM, Process, Said, pipe_of};
use crate::plant::Plant;
use crate::tally::Count;
use crate::world::{Item, World};

/// Pause before a line is looked up again that nobody answered for, milliseconds.
const LOOK_AGAIN_MS: u64 = 500;

impl World {
    /// A line came, or the end of them.
    pub(crate) fn tail_reads_soon(&mut self, member: usize) {
        if self.members[member].lives() {
            let run = self.members[member].run;
            self.agenda.enter(self.now_ms + 1, Item::TailReads(member, run));
        }
    }

    /// Reads a line and asks what it is, one at a time.
    pub(crate) fn tail_reads(&mut self, member: usize, run: u64) {
        let pipe = pipe_of(member);
        if self.members[member].run != run || self.members[member].at_end {
            return;
        }
        if self.members[member].looks.is_none() {
            let reader = member % SEATS - 1;
            match self.pipes[pipe].filter.outputs[reader].pop_front() {
                Some(offer) => self.members[member].looks = Some(offer),
                None if !self.pipes[pipe].filter.alive => {
                    self.members[member].at_end = true;
                    if matches!(self.members[member].process, Process::Reads) {
                        // The offers ended before one was found that fits.
                        return self.end_member(member);
                    }
                    return self.tail_event(member, Event::NoMore);
                }
                None => return,
            }
            let offer = self.members[member].looks.clone().expect("it was set above");
            self.member_asks(member, Said::Look, Call::Look { offer });
        }
    }

    /// What an offer is that was asked about.
    pub(crate) fn tail_sees(&mut self, member: usize, answer: Option<Answer>) {
        let Some(offer) = self.members[member].looks.take() else { return };
        match answer {
            Some(Answer::Seat { framework, session, session_no, role, offer }) => {
                if matches!(self.members[member].process, Process::Reads) {
                    self.tail_joins(member, framework.clone(), session, session_no, role);
                }
                if self.members[member].framework.as_ref() == Some(&framework) {
                    self.tail_event(member, Event::Offer(Box::new(offer)));
                } else {
                    // The registry was lost with the name, and the head speaks for another framework now: no line is of use any more.
                    self.members[member].at_end = true;
                    return self.tail_event(member, Event::NoMore);
                }
            }
            Some(Answer::Refused(refusal)) if !matches!(refusal.code, RefusalCode::NotLeading | RefusalCode::Recovering | RefusalCode::Busy) => self.tally.add(Count::LineTooLate),
            _ => {
                // Asked again.
                let reader = member % SEATS - 1;
                self.pipes[pipe_of(member)].filter.outputs[reader].push_front(offer);
                let run = self.members[member].run;
                return self.agenda.enter(self.now_ms + LOOK_AGAIN_MS, Item::TailReads(member, run));
            }
        }
        self.tail_reads_soon(member);
    }

    fn tail_joins(&mut self, member: usize, framework: meso_core::id::FrameworkId, session: Nonce, session_no: u64, role: meso_core::role::Role) {
        self.tally.add(Count::Joined);
        let cpus = ["0.1", "0.5"][self.seed.below(2) as usize];
        let config = Config {
            framework: framework.clone(),
            session,
            session_no,
            member: Some(Nonce::fresh(self.seed.draw(), self.seed.draw())),
            guest: false,
            per_offer_max: [1, u32::MAX][self.seed.below(2) as usize],
            name: None,
            role,
            who: format!("member {member}"),
            request: parse_request(&format!("cpus={cpus},mem=64")).expect("a plain request"),
            condition: String::new(),
            revocable: false,
            on: None,
            at_once_max: 1 + self.seed.below(4) as u32,
            retries: 0,
            retries_lost: self.seed.below(4) as u32,
            start_deadline_ms: None,
            failover_ms: 0,
            seed: [self.seed.draw(), self.seed.draw()],
        };
        let request = config.request.clone();
        let site = &mut self.members[member];
        site.framework = Some(framework.clone());
        site.follows = true;
        let local_ms = site.clock.local_ms(self.now_ms);
        site.process = Process::Tail(Box::new(Launcher::new(config, local_ms)));
        let run = site.run;
        self.pipes[pipe_of(member)].frameworks.push(framework);
        self.member_reads_soon(member);
        let waits: Vec<u64> = self.members[member].jobs.drain(..).collect();
        self.members[member].open = waits.len() as u64;
        for wait_ms in waits {
            let grace_ms = self.seed.below(4_000);
            let mut task = Task { argv: vec!["work".to_owned()], kill_grace: Some(Span(grace_ms)), ..Task::default() };
            task.set_request(&request);
            self.agenda.enter(self.now_ms + wait_ms, Item::TailJob(member, run, Box::new(task)));
        }
    }

    pub(crate) fn tail_job(&mut self, member: usize, run: u64, task: Task) {
        let site = &mut self.members[member];
        if site.run != run {
            return;
        }
        site.given += 1;
        let index = site.given;
        self.tail_event(member, Event::Job(Box::new(Job { index, task })));
    }

    pub(crate) fn tail_event(&mut self, member: usize, event: Event) {
        let local_ms = self.members[member].clock.local_ms(self.now_ms);
        self.step(150 + member as u64);
        if let Event::Answer { answer: Some(Answer::Accepted { .. }), .. } = &event {
            self.tally.add(Count::AcceptedByMember);
            self.members[member].launched = true;
        }
        let Process::Tail(machine) = &mut self.members[member].process else { return };
        let effects = machine.step(local_ms, event);
        for effect in effects {
            self.perform_tail(member, effect);
        }
        let site = &self.members[member];
        if site.open == 0 && !site.leaving && matches!(site.process, Process::Tail(_)) {
            self.members[member].leaving = true;
            self.tail_event(member, Event::Leave);
        }
        self.schedule(Site::Member(member));
    }

    fn perform_tail(&mut self, member: usize, effect: Effect) {
        let told_as = MEMBERS_FROM + member;
        match effect {
            Effect::Call { no, call } => {
                if let Call::Accept(accept) = &*call {
                    for id in accept.tasks.iter().filter_map(|one| one.task.id.as_ref()) {
                        self.judge.wanted(told_as, id);
                    }
                }
                if matches!(*call, Call::Leave { .. }) && self.plant.has(Plant::LeaveUnsent) {
                    return self.end_member(member);
                }
                self.member_asks(member, Said::Call(no), *call);
            }
            Effect::News { update, .. } => self.judge.told(told_as, &update),
            Effect::Again { update, .. } => {
                self.tally.add(Count::Retried);
                self.judge.told(told_as, &update);
            }
            Effect::Ended { update, .. } => {
                self.job_ended_ms = self.now_ms;
                self.judge.told(told_as, &update);
                self.tail_done(member);
            }
            Effect::Failed { index, failure } => {
                let fair = match &failure {
                    Failure::NoOffer => self.members[member].at_end,
                    Failure::Refused(refusal) => refusal.code == RefusalCode::NameHeld || self.members[member].excused,
                    // The work of the others was done before this one had any; or it could not speak for a while.
                    Failure::Removed(reason) => self.members[member].excused || self.pipes[pipe_of(member)].name.is_some() || (reason == "done" && !self.members[member].launched) || self.is_lossy(),
                    Failure::Interrupted => self.members[member].leaving || self.members[member].excused || self.pipes[pipe_of(member)].name.is_some(),
                    Failure::StartDeadline => false,
                };
                self.story.tell(self.now_ms, || format!("member {member}: job {index} failed, {failure:?}"));
                if !fair {
                    self.judge.fail(law::TRUTH, || format!("job {index} of member {member} failed: {failure:?}"));
                }
                self.tail_done(member);
            }
            Effect::TooLate(_) => self.tally.add(Count::LineTooLate),
            // All is over, also for jobs that would have come later.
            Effect::Left => self.end_member(member),
            Effect::Framework(_) | Effect::Begun { .. } | Effect::Registered { .. } => {}
        }
    }

    /// Whether something may keep a process from being heard.
    fn is_lossy(&self) -> bool {
        let faults = &self.plan.faults;
        faults.loss > 0 || faults.slow > 0 || faults.cut || faults.freeze || faults.store || faults.master_crash || faults.forget()
    }

    fn tail_done(&mut self, member: usize) {
        self.members[member].open -= 1;
    }
}
