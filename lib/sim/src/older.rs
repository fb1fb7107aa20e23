//! Those of the release before among the others: what they do not know does not pass through them.
//!
//! The machines are of this release. At the border of one that plays the older, keys that it would not have read are
//! taken out, and a master refuses the newer protocol as the older one does.

use meso_core::master::Reply;
use meso_core::wire::agent::{Command, Held, Hello, Order, Welcome};
use meso_core::wire::call::{Answer, Call};
use meso_core::wire::{PROTOCOL_MIN, Refusal, RefusalCode};

use crate::net::Ask;
use crate::plan::Older;
use crate::tally::Count;
use crate::world::World;

impl World {
    fn is_older_master(&self, which: usize) -> bool {
        Older::has(self.plan.older.masters, which)
    }

    fn is_older_agent(&self, which: usize) -> bool {
        Older::has(self.plan.older.agents, which)
    }

    /// A registration as an agent sends it.
    pub(crate) fn hello_sent(&mut self, which: usize, hello: &mut Hello) {
        if self.is_older_agent(which) {
            self.tally.add(Count::OlderAgent);
            hello.v = PROTOCOL_MIN;
            // It remembers no end that is settled.
            hello.tasks.retain(|held| !held.settled);
            hello.tasks.iter_mut().for_each(forget);
        } else if hello.v == PROTOCOL_MIN {
            self.tally.add(Count::OlderSpoken);
        }
    }

    /// What an agent reads of the answer to it.
    pub(crate) fn welcome_read(&self, which: usize, welcome: &mut Welcome) {
        if let (true, Welcome::Welcome { timeout_ms, .. }) = (self.is_older_agent(which), welcome) {
            *timeout_ms = None;
        }
    }

    /// What an agent reads of a command.
    pub(crate) fn command_read(&self, which: usize, command: &mut Command) {
        if let (true, Order::Launch { launches }) = (self.is_older_agent(which), &mut command.order) {
            launches.iter_mut().for_each(|launch| launch.spec.on_unreachable = None);
        }
    }

    /// What a client says.
    pub(crate) fn call_made(&self, which: usize, call: &mut Call) {
        if let (true, Call::Subscribe(subscribe)) = (Older::has(self.plan.older.clients, which), call) {
            subscribe.v = PROTOCOL_MIN;
        }
    }

    /// What a master reads of a request; the refusal if it cannot work with who speaks so.
    pub(crate) fn ask_read(&mut self, which: usize, ask: &mut Ask) -> Option<Reply> {
        if !self.is_older_master(which) {
            return None;
        }
        let refusal = || Refusal::new(RefusalCode::Version, "the other speaks protocol 2, this master 1: run the same release on both");
        let refused = match ask {
            Ask::Hello(hello) if hello.v != PROTOCOL_MIN => Some(Reply::Welcome(Welcome::Refused(refusal()))),
            Ask::Hello(hello) => {
                hello.tasks.iter_mut().for_each(forget);
                None
            }
            Ask::Beat(beat) => {
                beat.closed = None;
                None
            }
            Ask::Call(_, call) => match &mut **call {
                Call::Subscribe(subscribe) if subscribe.v != PROTOCOL_MIN => Some(Reply::Answer(Answer::Refused(refusal()))),
                Call::Subscribe(subscribe) => {
                    subscribe.on_unreachable = None;
                    None
                }
                Call::Seen { recorded_ms, .. } => {
                    *recorded_ms = 0;
                    None
                }
                Call::Accept(accept) => {
                    accept.tasks.iter_mut().for_each(|one| one.task.on_unreachable = None);
                    None
                }
                _ => None,
            },
            _ => None,
        };
        if refused.is_some() {
            self.tally.add(Count::OlderRefused);
        }
        refused
    }

    /// What a master answers.
    pub(crate) fn reply_made(&self, which: usize, reply: &mut Reply) {
        match (self.is_older_master(which), reply) {
            (true, Reply::Welcome(Welcome::Welcome { timeout_ms, .. })) => *timeout_ms = None,
            (true, Reply::Answer(Answer::Subscribed { seen_ms, .. })) => *seen_ms = 0,
            _ => {}
        }
    }
}

fn forget(held: &mut Held) {
    held.launch.spec.on_unreachable = None;
    held.killing_reason = None;
}
