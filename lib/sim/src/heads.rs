//! The outside of a pipeline's head: its calls, its pipe, the record it reads.

use meso_core::id::{FrameworkId, Nonce};
use meso_core::offerer::{Config, Effect, End, Event, Offerer, Place, Shows};
use meso_core::resources::{Request, parse_request};
use meso_core::task::OnUnreachable;
use meso_core::wire::Wall;
use meso_core::wire::call::{Answer, Call, Push};
use meso_core::wire::line::Line;

use crate::clients::FAILOVER_MS;
use crate::filter::{FilterLine, LINE_BYTES};
use crate::judge::law;
use crate::net::Site;
use crate::pipes::{CALL_GIVE_UP_MS, Process, Said, pipe_of, seat};
use crate::plant::Plant;
use crate::tally::Count;
use crate::world::{Waiting, World};

impl World {
    pub(crate) fn start_head(&mut self, pipe: usize) {
        let framework = FrameworkId::fresh(self.seed.draw());
        let here = &self.pipes[pipe];
        let config = Config {
            framework: framework.clone(),
            session: Nonce::fresh(self.seed.draw(), self.seed.draw()),
            name: here.name.clone(),
            takeover: here.takeover,
            standby: here.standby,
            role: Default::default(),
            who: format!("pipe {pipe}"),
            request: if self.seed.below(2) == 0 { Request::default() } else { parse_request("cpus=0.5,mem=64").expect("a plain request") },
            condition: String::new(),
            revocable: false,
            failover_ms: if here.name.is_some() { FAILOVER_MS } else { 0 },
            on_unreachable: if self.plan.unkept && pipe % 2 == 0 { Some(OnUnreachable::Kill) } else { None },
            open_max: [1, 4, 16][self.seed.below(3) as usize],
            grace_ms: 2_000,
            ordered: self.seed.below(4) > 0,
            shows: Shows { offers: true, updates: true, tasks: true, rescinds: true, inverses: true, failures: true, heartbeats: self.seed.below(2) == 0 },
            statuses_apart: false,
            manual_acks: here.manual_acks && self.plant != Plant::AcksForgotten,
            once: None,
        };
        let head = seat(pipe, 0);
        let site = &mut self.members[head];
        site.run += 1;
        site.framework = Some(framework.clone());
        let local_ms = site.clock.local_ms(self.now_ms);
        site.process = Process::Head(Box::new(Offerer::new(config, local_ms)));
        self.pipes[pipe].frameworks.push(framework);
        self.head_event(head, Event::Tick { unread: Some(0) });
    }

    pub(crate) fn head_event(&mut self, member: usize, event: Event) {
        let local_ms = self.members[member].clock.local_ms(self.now_ms);
        self.step(150 + member as u64);
        match &event {
            Event::Push(Push::Removed { reason, .. }) => self.tally.add(match reason.as_str() {
                "done" => Count::SessionDone,
                "lapsed" => Count::SessionsTailsLapsed,
                _ => Count::TakenOver,
            }),
            Event::Push(Push::Known { update }) => self.members[member].known.push_back((update.task.clone(), update.seq)),
            Event::Answer { answer: Some(Answer::Subscribed { recovered: true, session_no, .. }), .. } if *session_no > 1 => self.tally.add(Count::NameResumed),
            _ => {}
        }
        let Process::Head(machine) = &mut self.members[member].process else { return };
        let effects = machine.step(local_ms, event);
        for effect in effects {
            self.perform_head(member, effect);
        }
        self.head_writes(member);
        self.schedule(Site::Member(member));
    }

    fn perform_head(&mut self, member: usize, effect: Effect) {
        let pipe = pipe_of(member);
        match effect {
            Effect::Call { no, call } => {
                match &*call {
                    Call::Decline { implicit: true, .. } => {
                        self.tally.add(Count::DeclinedUnspoken);
                        if self.plant.has(Plant::DeclinesUnsent) {
                            let waiting = Waiting::Member(member, self.members[member].run, Said::Call(no));
                            self.wait(waiting, CALL_GIVE_UP_MS);
                            return;
                        }
                    }
                    Call::Leave { .. } if self.plant.has(Plant::LeaveUnsent) => return self.end_member(member),
                    Call::Seen { framework, upto, recorded_ms, .. } => {
                        let record = self.stream.after(framework, 0);
                        // Of a place where something else stands by now nobody takes anything for seen.
                        let stands = self.stream.stands(framework, Place { seq: *upto, recorded_ms: *recorded_ms });
                        if let Err(why) = if stands { self.sessions.seen(framework, record, *upto) } else { Ok(()) } {
                            self.judge.fail(law::STATUSES, || format!("pipe {pipe}: {why}"));
                        }
                    }
                    _ => {}
                }
                self.member_asks(member, Said::Call(no), *call);
            }
            Effect::Framework(framework) => {
                self.members[member].framework = Some(framework.clone());
                self.pipes[pipe].frameworks.push(framework);
            }
            Effect::Follow { after } => {
                let Some(framework) = self.members[member].framework.clone() else { return };
                let record = self.stream.after(&framework, 0);
                let place = if self.plant == Plant::StatusesSkipped { record.len() } else { self.stream.begin(&framework, after) };
                if place as u64 != after.seq {
                    self.tally.add(Count::PlaceLost);
                }
                // A leader of the release before does not say when that place was recorded.
                let is_marked = after.recorded_ms > 0 || self.plan.older.masters == 0;
                if let Err(why) = self.sessions.begins(&framework, record, place as u64, is_marked) {
                    self.judge.fail(law::STATUSES, || format!("pipe {pipe}: {why}"));
                }
                self.members[member].place = place;
                self.members[member].last = self.stream.mark(&framework, self.members[member].place);
                self.members[member].follows = true;
                self.member_reads_soon(member);
            }
            Effect::Snapshot => self.member_asks_tasks(member),
            Effect::Registered { .. } => {}
            Effect::Waiting(_) => self.tally.add(Count::Standby),
            Effect::End(end) => {
                if matches!(end, End::Lost(_)) {
                    self.tally.add(Count::HeadLost);
                }
                self.story.tell(self.now_ms, || format!("head {member} ends: {end:?}"));
                self.end_member(member);
            }
        }
    }

    /// Hands out lines as long as there is room for them.
    fn head_writes(&mut self, member: usize) {
        let pipe = pipe_of(member);
        let local_ms = self.members[member].clock.local_ms(self.now_ms);
        while !self.pipes[pipe].blocked && self.pipes[pipe].filter.alive {
            let Process::Head(machine) = &mut self.members[member].process else { return };
            let Some(line) = machine.line(local_ms, Wall(local_ms)) else { break };
            if !self.pipes[pipe].filter.has_room() {
                self.pipes[pipe].blocked = true;
                self.tally.add(Count::PipeFull);
                return self.head_event(member, Event::Blocked);
            }
            let seen = match line {
                Line::Offer(offer) => match meso_core::id::OfferId::parse(&offer.id) {
                    Ok(id) => FilterLine::Offer(id),
                    Err(_) => FilterLine::Other,
                },
                // What answers a question comes before the statuses that wait, and is acknowledged by nobody.
                Line::Update(update) if !update.redelivered && self.members[member].known.front() == Some(&(update.task.clone(), update.seq)) => {
                    self.members[member].known.pop_front();
                    FilterLine::Known(update.ack)
                }
                Line::Update(update) => FilterLine::Status(update.ack, update.redelivered),
                Line::Rescind(rescind) => {
                    match rescind.reason.as_str() {
                        "skipped" => self.tally.add(Count::LineSkipped),
                        "dropped" => self.tally.add(Count::LineUntouched),
                        "expired" => self.tally.add(Count::LineExpired),
                        _ => {}
                    }
                    FilterLine::Other
                }
                _ => FilterLine::Other,
            };
            self.pipes[pipe].filter.input.push_back(seen);
            self.move_filter(pipe);
            let Process::Head(machine) = &mut self.members[member].process else { return };
            let effects = machine.step(local_ms, Event::Wrote { bytes: LINE_BYTES });
            for effect in effects {
                self.perform_head(member, effect);
            }
        }
    }

    /// The filter has read a line.
    pub(crate) fn head_has_room(&mut self, pipe: usize) {
        if std::mem::take(&mut self.pipes[pipe].blocked) {
            self.head_event(seat(pipe, 0), Event::Room);
        }
    }

    /// Nobody reads what the head writes.
    pub(crate) fn head_reader_gone(&mut self, pipe: usize) {
        let head = seat(pipe, 0);
        if !matches!(self.members[head].process, Process::Head(_)) || self.plant == Plant::RemovedUntoldPipeUnseen {
            return;
        }
        self.tally.add(Count::ReaderGone);
        let unread = Some(self.pipes[pipe].filter.unread());
        self.head_event(head, Event::Tick { unread });
        self.head_event(head, Event::ReaderGone);
    }
}
