//! The outside of a client: its jobs, its calls, the stream it reads.

use std::collections::BTreeSet;
use std::rc::Rc;

use meso_core::id::{FrameworkId, Name, Nonce, Principal, TaskId};
use meso_core::launcher::{Config, Effect, Event, Failure, Job, Launcher};
use meso_core::resources::{Request, parse_request};
use meso_core::seed::Seed;
use meso_core::task::OnUnreachable;
use meso_core::wire::call::{Answer, Call};
use meso_core::wire::{Refusal, RefusalCode, Span, Task};

use crate::clock::Clock;
use crate::judge::law;
use crate::net::{Ask, Msg, Site};
use crate::plant::Plant;
use crate::stream::Mark;
use crate::tally::Count;
use crate::world::{Item, Waiting, World};

/// After how long a call without an answer is given up, milliseconds.
const CALL_GIVE_UP_MS: u64 = 2_000;
/// How long a named framework's tasks live on without it, milliseconds.
pub const FAILOVER_MS: u64 = 40_000;

/// A client and its jobs.
#[derive(Debug)]
pub struct ClientSite {
    /// The number of its process.
    pub run: u64,
    /// The process.
    pub machine: Option<Launcher>,
    /// As whom it speaks.
    pub principal: Principal,
    /// Its durable name, if it has one.
    pub name: Option<Name>,
    /// The framework whose statuses it follows.
    pub framework: Option<FrameworkId>,
    /// When a call of it last reached a leader: which, and when.
    pub heard: Option<(usize, u64, u64)>,
    pub(crate) clock: Clock,
    /// Its place in the stream of its framework.
    place: usize,
    last: Option<Mark>,
    reading: bool,
    jobs: u64,
    given: u64,
    done: BTreeSet<u64>,
    leaving: bool,
    over: bool,
    request: Request,
    /// A second run of it may find its name held.
    second: bool,
    cancelled: bool,
    excused: bool,
}

impl ClientSite {
    /// A client that has not begun.
    pub fn new(which: usize, seed: &mut Seed) -> Self {
        ClientSite {
            run: 0,
            machine: None,
            principal: Principal::parse(&format!("p{which}")).expect("a plain name"),
            name: (seed.below(3) == 0).then(|| Name::parse(&format!("keeper{which}")).expect("a plain name")),
            framework: None,
            heard: None,
            clock: Clock::some(seed),
            place: 0,
            last: None,
            reading: false,
            jobs: 0,
            given: 0,
            done: BTreeSet::new(),
            leaving: false,
            over: false,
            request: Request::default(),
            second: false,
            cancelled: false,
            excused: false,
        }
    }

    /// When its machine wants to be woken, true time.
    pub fn wants_ms(&self) -> Option<u64> {
        self.machine.as_ref().and_then(Launcher::deadline).map(|at_ms| self.clock.true_ms(at_ms))
    }

    /// Whether it lives and never asked for the end of a task.
    pub fn lives(&self) -> bool {
        self.machine.is_some() && !self.excused
    }

    /// Its tasks may be ended from now on.
    pub fn excuse(&mut self) {
        self.excused = true;
    }

    /// What keeps it from having come to its end.
    pub fn unsettled(&self) -> Option<String> {
        let machine = self.machine.as_ref()?;
        let (waiting, flying) = (machine.waiting(), machine.flying());
        (!self.over).then(|| format!("has {} of {} jobs done, {waiting} waiting and {flying} flying", self.done.len(), self.jobs))
    }
}

impl World {
    pub(crate) fn start_client(&mut self, which: usize) {
        let reused = self.plant == Plant::IdsReused;
        let jobs = if self.clients[which].second { 1 + self.seed.below(3) } else { self.plan.jobs };
        let seed = if reused { [7, 7] } else { [self.seed.draw(), self.seed.draw()] };
        let framework = FrameworkId::fresh(self.seed.draw());
        let cpus = ["0.1", "0.5", "1", "1.5"][self.seed.below(4) as usize];
        let ports = self.seed.below(3).saturating_sub(1);
        let request = parse_request(&format!("cpus={cpus},mem=64{}", if ports > 0 { ",ports=1" } else { "" })).expect("a plain request");
        let site = &mut self.clients[which];
        site.run += 1;
        site.jobs = jobs;
        site.given = 0;
        site.done.clear();
        site.over = false;
        site.leaving = false;
        site.cancelled = false;
        site.excused = site.second;
        site.request = request.clone();
        (site.place, site.last) = (0, None);
        site.reading = false;
        site.framework = Some(framework.clone());
        let config = Config {
            framework,
            session: Nonce::fresh(self.seed.draw(), self.seed.draw()),
            session_no: 0,
            member: None,
            guest: false,
            per_offer_max: u32::MAX,
            name: site.name.clone(),
            role: Default::default(),
            who: format!("client {which}"),
            request,
            condition: String::new(),
            revocable: false,
            on: None,
            at_once_max: 1 + self.seed.below(8) as u32,
            retries: self.seed.below(3) as u32,
            retries_lost: self.seed.below(4) as u32,
            start_deadline_ms: None,
            failover_ms: if site.name.is_some() { FAILOVER_MS } else { 0 },
            seed,
        };
        let local_ms = site.clock.local_ms(self.now_ms);
        site.machine = Some(Launcher::new(config, local_ms));
        let run = site.run;
        for _ in 0..jobs {
            let wait_ms = match self.seed.below(3) {
                0 => 0,
                _ => self.seed.below(self.plan.chaos_ms),
            };
            self.agenda.enter(self.now_ms + wait_ms, Item::Job(which, run));
        }
    }

    pub(crate) fn client_job(&mut self, which: usize, run: u64) {
        let own_id = self.seed.below(6) == 0;
        let unkept = self.plan.unkept && self.seed.below(2) == 0;
        let id = TaskId::fresh(self.seed.draw());
        let grace_ms = self.seed.below(4_000);
        let site = &mut self.clients[which];
        if site.run != run || site.machine.is_none() || site.over {
            return;
        }
        site.given += 1;
        let index = site.given;
        let mut task = Task { argv: vec!["work".to_owned()], kill_grace: Some(Span(grace_ms)), ..Task::default() };
        if own_id {
            task.id = Some(id);
        }
        if unkept {
            task.on_unreachable = Some(OnUnreachable::Kill);
        }
        task.set_request(&site.request);
        self.client_event(which, Event::Job(Box::new(Job { index, task })));
    }

    pub(crate) fn wake_client(&mut self, which: usize) {
        let site = &self.clients[which];
        let local_ms = site.clock.local_ms(self.now_ms);
        if site.machine.as_ref().and_then(Launcher::deadline).is_some_and(|at_ms| at_ms <= local_ms) {
            self.client_event(which, Event::Tick);
        }
    }

    pub(crate) fn client_hears(&mut self, which: usize, msg: Msg) {
        match msg {
            Msg::Push(framework, push) if self.clients[which].framework.as_ref() == Some(&framework) => self.client_event(which, Event::Push(*push)),
            Msg::Live(update) => self.client_event(which, Event::Update(Box::new(Rc::unwrap_or_clone(update)))),
            _ => {}
        }
    }

    /// Something was stored for the client: it reads on soon.
    pub(crate) fn client_reads_soon(&mut self, which: usize) {
        let site = &mut self.clients[which];
        if !site.reading && site.machine.is_some() {
            site.reading = true;
            let run = site.run;
            let at_ms = self.now_ms + self.delay_ms();
            self.agenda.enter(at_ms, Item::Read(which, run));
        }
    }

    pub(crate) fn client_reads(&mut self, which: usize, run: u64) {
        let whole = self.wires[Site::Client(which).index()].is_whole();
        let site = &mut self.clients[which];
        if site.run != run {
            return;
        }
        site.reading = false;
        if !whole {
            return;
        }
        let Some(framework) = site.framework.clone() else { return };
        let place = self.stream.resume(&framework, site.place, site.last);
        let is_other = place != site.place;
        let news: Vec<_> = self.stream.after(&framework, place).to_vec();
        site.place = place + news.len();
        site.last = self.stream.mark(&framework, site.place);
        if is_other {
            self.tally.add(Count::StreamReset);
            self.client_event(which, Event::Gap);
        }
        for update in news {
            self.client_event(which, Event::Update(Box::new((*update).clone())));
        }
    }

    /// The connection is back: statuses may have been missed.
    pub(crate) fn client_back(&mut self, which: usize) {
        self.client_reads_soon(which);
        self.client_event(which, Event::Gap);
    }

    pub(crate) fn client_answered(&mut self, which: usize, no: u64, answer: Option<Answer>) {
        if let Some(Answer::Refused(refusal)) = &answer {
            let count = match refusal.code {
                RefusalCode::OfferGone => Some(Count::OfferGone),
                RefusalCode::Recovering => Some(Count::Recovering),
                RefusalCode::UnknownFramework => Some(Count::UnknownFramework),
                RefusalCode::NameHeld => Some(Count::NameHeld),
                RefusalCode::NotLeading => Some(Count::NotLeading),
                _ => None,
            };
            if let Some(count) = count {
                self.tally.add(count);
            }
        }
        if matches!(answer, Some(Answer::Accepted { .. })) {
            self.tally.add(Count::Accepted);
        }
        let answer = match answer {
            None if self.plant == Plant::UnknownIsRefused => Some(Answer::Refused(Refusal::new(RefusalCode::OfferGone, "planted"))),
            other => other,
        };
        self.client_event(which, Event::Answer { no, answer });
    }

    pub(crate) fn client_event(&mut self, which: usize, event: Event) {
        let local_ms = self.clients[which].clock.local_ms(self.now_ms);
        self.step(100 + which as u64);
        let Some(machine) = self.clients[which].machine.as_mut() else { return };
        let effects = machine.step(local_ms, event);
        let crash_at = self.crash_at(self.plan.faults.client_crash && !self.clients[which].over, effects.len());
        for (place, effect) in effects.into_iter().enumerate() {
            if crash_at == Some(place) {
                self.tally.add(Count::ClientBetweenEffects);
                return self.crash_client(which);
            }
            self.perform_client(which, effect);
        }
        let site = &self.clients[which];
        let all = site.done.len() as u64 == site.jobs || (site.cancelled && site.done.len() as u64 == site.given);
        if all && !site.over && !site.leaving {
            self.clients[which].leaving = true;
            self.clients[which].excused = true;
            self.client_event(which, Event::Leave);
        }
        self.schedule(Site::Client(which));
    }

    fn perform_client(&mut self, which: usize, effect: Effect) {
        match effect {
            Effect::Call { no, mut call } => {
                self.call_made(which, &mut call);
                if let Call::Accept(accept) = &*call {
                    for one in &accept.tasks {
                        if let Some(id) = &one.task.id {
                            self.judge.wanted(which, id);
                        }
                    }
                }
                if matches!(*call, Call::Decline { .. }) {
                    self.tally.add(Count::Declined);
                }
                if matches!(*call, Call::Leave { .. }) {
                    self.tally.add(Count::ClientLeft);
                }
                if !matches!(*call, Call::Beat { .. }) {
                    self.story.tell(self.now_ms, || format!("client {which} calls {no}: {}", shown(&call)));
                }
                let site = &self.clients[which];
                let (principal, run) = (site.principal.clone(), site.run);
                self.ask(Site::Client(which), Waiting::Call(which, run, no), Ask::Call(principal, call), CALL_GIVE_UP_MS);
            }
            Effect::Framework(framework) => {
                let site = &mut self.clients[which];
                site.framework = Some(framework);
                (site.place, site.last) = (0, None);
                self.client_reads_soon(which);
            }
            // Nobody here joins a session that another began.
            Effect::TooLate(_) => {}
            Effect::News { update, .. } => self.judge.told(which, &update),
            Effect::Again { update, .. } => {
                self.tally.add(Count::Retried);
                self.judge.told(which, &update);
            }
            Effect::Ended { index, update, .. } => {
                use meso_core::task::TaskState;
                match update.state {
                    TaskState::Finished => self.tally.add(Count::Finished),
                    TaskState::Failed => self.tally.add(Count::Failed),
                    TaskState::Killed => self.tally.add(Count::Killed),
                    TaskState::Dropped => self.tally.add(Count::Dropped),
                    TaskState::Gone => self.tally.add(Count::Gone),
                    _ => {}
                }
                self.story.tell(self.now_ms, || format!("client {which}: job {index} ended, {} {} {:?}", update.task, update.state, update.reason));
                self.judge.told(which, &update);
                self.client_done(which, index);
            }
            Effect::Failed { index, failure } => {
                let site = &self.clients[which];
                let fair = match &failure {
                    Failure::Interrupted => site.cancelled,
                    Failure::Refused(refusal) => site.second && refusal.code == RefusalCode::NameHeld,
                    _ => false,
                };
                self.story.tell(self.now_ms, || format!("client {which}: job {index} failed, {failure:?}"));
                if !fair {
                    self.judge.fail(law::TRUTH, || format!("job {index} of client {which} failed: {failure:?}"));
                } else if matches!(failure, Failure::Refused(_)) {
                    self.clients[which].cancelled = true;
                }
                self.client_done(which, index);
            }
            Effect::Left => self.clients[which].over = true,
            Effect::Begun { .. } | Effect::Registered { .. } => {}
        }
    }

    fn client_done(&mut self, which: usize, index: u64) {
        self.job_ended_ms = self.now_ms;
        if !self.clients[which].done.insert(index) {
            self.judge.fail(law::TRUTH, || format!("job {index} of client {which} ended twice"));
        }
    }

    pub(crate) fn crash_client(&mut self, which: usize) {
        let site = &mut self.clients[which];
        if site.machine.is_none() || site.over {
            return;
        }
        site.machine = None;
        site.run += 1;
        site.excused = true;
        self.tally.add(Count::ClientCrash);
        self.story.tell(self.now_ms, || format!("client {which} crashes"));
        self.wires[Site::Client(which).index()].outbox.clear();
        if self.seed.below(2) == 0 {
            self.clients[which].second = true;
            let at_ms = self.now_ms + 500 + self.seed.below(30_000);
            self.agenda.enter(at_ms, Item::Start(Site::Client(which)));
        }
    }

    /// The person at the client has had enough.
    pub(crate) fn interrupt_client(&mut self, which: usize) {
        let grace_ms = if self.seed.below(2) == 0 { Some(self.seed.below(3_000)) } else { None };
        let kill = self.seed.below(2) == 0;
        let site = &mut self.clients[which];
        if site.machine.is_none() || site.over {
            return;
        }
        site.cancelled = true;
        if kill {
            site.excused = true;
            self.tally.add(Count::KillAsked);
            self.client_event(which, Event::Kill { grace_ms });
        } else {
            self.tally.add(Count::Cancelled);
            self.client_event(which, Event::Cancel);
        }
    }
}

pub(crate) fn shown(call: &Call) -> String {
    match call {
        Call::Subscribe(subscribe) => format!("subscribe {}", subscribe.framework),
        Call::Demand { demand, .. } => format!("demand {:?}", demand.as_ref().map(|demand| demand.count)),
        Call::Accept(accept) => format!("accept {} on {} with {:?}", accept.offers[0], accept.agent, accept.tasks.iter().filter_map(|one| one.task.id.as_ref()).map(ToString::to_string).collect::<Vec<_>>()),
        Call::Decline { offers, .. } => format!("decline {offers:?}"),
        Call::Kill { tasks, .. } => format!("kill {tasks:?}"),
        Call::Look { offer } => format!("look {offer}"),
        Call::Return { offers, .. } => format!("return {offers:?}"),
        Call::Suppress { framework, on } => format!("suppress {framework} {on}"),
        Call::Ack { acks } => format!("ack {} statuses", acks.len()),
        Call::Seen { upto, .. } => format!("seen up to {upto}"),
        Call::Beat { .. } => "beat".to_owned(),
        Call::Leave { .. } => "leave".to_owned(),
        Call::Teardown { framework } => format!("teardown {framework}"),
        Call::Reconcile { tasks, .. } => format!("reconcile {} tasks", tasks.len()),
    }
}
