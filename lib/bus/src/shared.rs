//! What the client's event callback and the connection share

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures::task::AtomicWaker;
use tokio::sync::{broadcast, watch};

use crate::event::{Denial, EVENTS_MAX, is_about_login, parse_denial};
use crate::pending::Pending;
use crate::{BusError, BusEvent};

/// What the client's event callback needs; it must not hold the client itself
pub(crate) struct Shared {
    pub pending: Pending,
    pub events: broadcast::Sender<BusEvent>,
    pub link: watch::Sender<Link>,
    pub subscriptions: Mutex<HashMap<u64, Arc<Watched>>>,
    pub answers_denied: OnceLock<BusError>,
    pub answers: String,
    pub reconnect: bool,
    /// Why the server does not take us in again.
    refusal: Mutex<Option<String>>,
    /// Never connect again, whatever happens.
    pub retired: AtomicBool,
    pub closed: AtomicBool,
    /// Something was published that no answer has yet proven to have arrived.
    pub unproven: AtomicBool,
}

/// State of the connection, as far as events told
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// How often the connection was lost.
    pub drops: u64,
    pub closed: bool,
    changes: u64,
}

pub(crate) struct Watched {
    pub subject: String,
    pub lost: AtomicU64,
    /// Messages were dropped since the reader last caught up.
    pub gap: AtomicBool,
    pub denied: AtomicBool,
    pub waker: AtomicWaker,
}

impl Shared {
    /// `answers` is the pattern of the inbox for answers.
    pub fn new(answers: String, reconnect: bool) -> Shared {
        Shared {
            pending: Pending::default(),
            events: broadcast::channel(EVENTS_MAX).0,
            link: watch::channel(Link::default()).0,
            subscriptions: Mutex::default(),
            answers_denied: OnceLock::new(),
            answers,
            reconnect,
            refusal: Mutex::default(),
            retired: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            unproven: AtomicBool::new(false),
        }
    }

    /// Takes in one event of the client.
    pub fn take(&self, event: async_nats::Event) {
        use async_nats::{ClientError, Event, ServerError};
        match event {
            Event::Connected => {
                *self.refusal() = None;
                self.link.send_modify(|link| link.changes += 1);
                self.tell(BusEvent::Connected);
            }
            Event::Disconnected => {
                self.link.send_modify(|link| {
                    link.drops += 1;
                    link.changes += 1;
                });
                self.tell(BusEvent::Disconnected);
                if !self.reconnect {
                    self.closed.store(true, Ordering::Release);
                    self.pending.fail(None, &BusError::Closed);
                    self.announce_end();
                }
            }
            Event::Closed => self.announce_end(),
            Event::LameDuckMode => self.tell(BusEvent::LameDuck),
            Event::Draining => {}
            Event::SlowConsumer(sid) => self.note_loss(sid),
            Event::ServerError(ServerError::AuthorizationViolation) => {
                self.note_refusal("authorization violation");
            }
            Event::ServerError(ServerError::SlowConsumer(sid)) => self.note_loss(sid),
            Event::ServerError(ServerError::Other(text)) => self.take_complaint(&text),
            Event::ClientError(ClientError::Other(text)) if is_about_login(&text) => self.note_refusal(&text),
            // A failed attempt to reconnect is no news: Disconnected was said, Connected will be.
            Event::ClientError(_) => {}
        }
    }

    fn take_complaint(&self, text: &str) {
        match parse_denial(text) {
            Some((what, subject)) => {
                let denied = BusError::Denied { subject: subject.to_owned() };
                match what {
                    Denial::Publish => {
                        // Proof of arrival by a message to ourselves waits under no subject.
                        let ours = subject.starts_with(self.answers.trim_end_matches('*'));
                        self.pending.fail(Some(if ours { "" } else { subject }), &denied);
                    }
                    Denial::Subscribe if subject == self.answers => {
                        let _ = self.answers_denied.set(denied.clone());
                        self.pending.fail(None, &denied);
                    }
                    Denial::Subscribe => {
                        for watched in self.subscriptions().values().filter(|w| w.subject == subject) {
                            watched.denied.store(true, Ordering::Release);
                            watched.waker.wake();
                        }
                    }
                }
                self.tell(BusEvent::Denied { subject: subject.to_owned(), what });
            }
            None if is_about_login(text) => self.note_refusal(text),
            None => self.tell(BusEvent::Complaint { text: text.to_owned() }),
        }
    }

    pub fn refusal(&self) -> MutexGuard<'_, Option<String>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_refusal(&self, why: &str) {
        *self.refusal() = Some(why.to_owned());
        self.tell(BusEvent::Credentials { why: why.to_owned() });
    }

    /// One message was dropped; tells it once until the reader has caught up.
    fn note_loss(&self, sid: u64) {
        let Some(watched) = self.subscriptions().get(&sid).cloned() else { return };
        let lost = watched.lost.fetch_add(1, Ordering::Relaxed) + 1;
        if !watched.gap.swap(true, Ordering::AcqRel) {
            self.tell(BusEvent::SlowConsumer { subject: watched.subject.clone(), lost });
        }
    }

    pub fn announce_end(&self) {
        self.link.send_modify(|link| {
            link.closed = true;
            link.changes += 1;
        });
        self.tell(BusEvent::Closed);
    }

    /// Nobody listening is fine.
    fn tell(&self, event: BusEvent) {
        let _ = self.events.send(event);
    }

    pub fn subscriptions(&self) -> MutexGuard<'_, HashMap<u64, Arc<Watched>>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    pub fn new(subject: &str) -> Watched {
        Watched {
            subject: subject.to_owned(),
            lost: AtomicU64::new(0),
            gap: AtomicBool::new(false),
            denied: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }
}
