//! The connection: requests, publishing, subscriptions, and a close that really delivers

use std::sync::{Arc, Mutex, PoisonError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{HeaderMap, ReconnectToServer, Server, ServerAddr, StatusCode};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::event::is_about_login;
use crate::options::plain_io;
use crate::pending::Place;
use crate::shared::{Link, Shared, Watched};
use crate::subjects::{Caller, any_inbox, is_publishable, is_subscribable, own_inbox};
use crate::{BusError, BusOptions, Events, Message, Subjects, Subscription};

/// Bytes of one message that is stored at most; half of what a server takes by default, so that
/// headers and a stricter server still have room
pub const PAYLOAD_BYTES_MAX: usize = 512 * 1024;
/// Bytes of any message at most: the output of a task travels in larger pieces than what is stored;
/// the server's default is 1 MiB, and its own limit is kept as well
pub const MESSAGE_BYTES_MAX: usize = 960 * 1024;
/// Handing a message to a connected client's queue takes no longer than this, or it is stuck
pub const SEND_MS: u64 = 5_000;
/// How long closing waits for the server to have everything
pub const CLOSE_MS: u64 = 2_000;
/// How long one of several servers may take to take us in, before another one is tried
pub(crate) const SERVER_MS: u64 = 2_000;
/// What is said of a server that takes the connection and says nothing
const SILENT: &str = "no answer in time";
/// First and longest pause between two attempts to reconnect
const RECONNECT_MS: u64 = 50;
const RECONNECT_MS_MAX: u64 = 1_000;
/// How often a waiting sender looks at the connection itself: events about it can get lost
const LINK_LOOK_MS: u64 = 50;
/// The same for who only wants to know how long it is away
const AWAY_LOOK_MS: u64 = 1_000;

/// A connection to the bus; clones share it
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    client: async_nats::Client,
    shared: Arc<Shared>,
    options: BusOptions,
    subjects: Subjects,
    /// `<inbox>.<nonce>.`; answers to our requests come in below it
    answers: String,
    answering: JoinHandle<()>,
    /// Subscriptions are made one at a time, to know the number the client gives each.
    subscribing: tokio::sync::Mutex<u64>,
    inboxes: AtomicU64,
}

impl Bus {
    /// Connects, or fails within `limit`; tries each server of the list once, and those that are silent again.
    ///
    /// With `reconnect`, a connection lost later is made again for ever; the first one is not.
    pub async fn connect(options: &BusOptions, limit: Duration) -> Result<Bus, BusError> {
        let servers = options.servers()?;
        let deadline = Instant::now() + limit;
        let first = if servers.len() > 1 { random_u64() as usize % servers.len() } else { 0 };
        let mut failure = None;
        let mut is_one_silent = false;
        for turn in 0.. {
            let mut order = servers.clone();
            order.rotate_left((first + turn) % servers.len());
            let until = if servers.len() > 1 { deadline.min(Instant::now() + Duration::from_millis(SERVER_MS)) } else { deadline };
            match timeout_at(until, Bus::connect_to(options, order)).await {
                Ok(Ok(bus)) => return Ok(bus),
                Ok(Err(error)) => {
                    is_one_silent |= matches!(&error, BusError::Unreachable { why, .. } if why == SILENT);
                    failure = Some(error);
                }
                Err(_) => {
                    is_one_silent = true;
                    failure.get_or_insert(BusError::Unreachable { url: options.shown_url(), why: SILENT.to_owned() });
                }
            }
            let is_round_over = (turn + 1) % servers.len() == 0;
            if Instant::now() >= deadline || (is_round_over && !std::mem::take(&mut is_one_silent)) {
                break;
            }
        }
        Err(failure.unwrap_or(BusError::Closed))
    }

    /// Connects as a daemon does: for ever, with growing pauses; `failed` hears each failure and the
    /// pause in ms that follows it. Returns an error only where trying again cannot help: wrong
    /// options or credentials.
    pub async fn connect_patiently(options: &BusOptions, mut failed: impl FnMut(&BusError, u64)) -> Result<Bus, BusError> {
        const ATTEMPT_MS: u64 = 5_000;
        let mut failures = 0;
        loop {
            match Bus::connect(options, Duration::from_millis(ATTEMPT_MS)).await {
                Err(error) if error.may_pass() => {
                    failures += 1;
                    let pause_ms = backoff_ms(failures);
                    failed(&error, pause_ms);
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                }
                done => return done,
            }
        }
    }

    async fn connect_to(options: &BusOptions, servers: Vec<ServerAddr>) -> Result<Bus, BusError> {
        let answers = format!("{}.{:016x}.", options.inbox, random_u64());
        let shared = Arc::new(Shared::new(format!("{answers}*"), options.reconnect));
        let on_event = Arc::clone(&shared);
        let on_connect = Arc::clone(&shared);
        let attempts = AtomicU64::new(0);
        let tried = Mutex::new(None);
        let client = options
            .connect_options()?
            .event_callback(move |event| {
                on_event.take(event);
                std::future::ready(())
            })
            // Choosing the server ourselves is also what skips the client's timer tick before the
            // first connection, more than a millisecond of every short command.
            .reconnect_to_server_callback(move |servers, _| {
                let again = attempts.fetch_add(1, Ordering::Relaxed) > 0;
                let server = choose(servers, &mut tried.lock().unwrap_or_else(PoisonError::into_inner));
                let over = on_connect.retired.load(Ordering::Acquire) || (again && !on_connect.reconnect);
                async move {
                    if over {
                        // There is no way to tell the client to give up; never answering is one.
                        std::future::pending::<()>().await;
                    }
                    server
                }
            })
            .connect(servers)
            .await
            .map_err(|error| connect_failure(options, &error))?;
        let messages = client
            .subscribe(shared.answers.clone())
            .await
            .map_err(|_| BusError::Closed)?;
        let answering = tokio::spawn(answer_requests(messages, Arc::clone(&shared), answers.len()));
        Ok(Bus {
            inner: Arc::new(Inner {
                client,
                shared,
                options: options.clone(),
                subjects: Subjects::new(&options.cluster),
                answers,
                answering,
                // The client counts from 1, and 1 is where our answers come in.
                subscribing: tokio::sync::Mutex::new(2),
                inboxes: AtomicU64::new(0),
            }),
        })
    }

    pub fn subjects(&self) -> &Subjects {
        &self.inner.subjects
    }

    pub fn options(&self) -> &BusOptions {
        &self.inner.options
    }

    /// What happens to this connection from now on
    pub fn events(&self) -> Events {
        Events::new(self.inner.shared.events.subscribe())
    }

    /// Version of the server we are connected to, as it says it
    pub fn server_version(&self) -> String {
        self.inner.client.server_info().version
    }

    pub(crate) fn server_info(&self) -> async_nats::ServerInfo {
        self.inner.client.server_info()
    }

    /// Whether the server is of this version or newer; an unreadable version counts as old
    pub fn server_is_at_least(&self, major: u64, minor: u64) -> bool {
        let version = self.server_version();
        let mut parts = version.split('.').map_while(|part| part.parse::<u64>().ok());
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (major, minor)
    }

    pub fn is_connected(&self) -> bool {
        !self.is_closed() && self.inner.client.connection_state() == State::Connected
    }

    /// Ready once the connection is away; never for one that was closed.
    pub async fn gone(&self) {
        let mut link = self.link();
        while self.is_closed() || self.is_connected() {
            // Whatever wakes us, the loop looks again.
            let _ = timeout(Duration::from_millis(AWAY_LOOK_MS), link.changed()).await;
        }
    }

    /// Ready once the connection is there; never for one that was closed.
    pub async fn back(&self) {
        let mut link = self.link();
        while !self.is_connected() {
            let _ = timeout(Duration::from_millis(LINK_LOOK_MS), link.changed()).await;
        }
    }

    /// Why the server refuses us, if it did since the connection was last there
    pub fn refusal(&self) -> Option<String> {
        self.inner.shared.refusal().clone()
    }

    /// Asks and waits for one answer.
    ///
    /// A [`BusError::Timeout`] leaves open whether the question arrived; every other error means
    /// that nobody heard it. While disconnected nothing is sent, and nothing is kept for later.
    pub async fn request(&self, subject: &str, payload: Bytes, limit: Duration) -> Result<Bytes, BusError> {
        Ok(self.exchange(subject, None, payload, limit).await?.payload)
    }

    /// Sends without proof of arrival: for what is repeated anyway. Fails at once while disconnected,
    /// so that nothing old goes out late.
    pub async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        self.send(subject, None, None, payload).await
    }

    /// As [`Bus::publish`], asking that answers go to `reply`, an inbox of ours.
    pub async fn publish_with_reply(&self, subject: &str, reply: &str, payload: Bytes) -> Result<(), BusError> {
        self.send(subject, Some(reply), None, payload).await
    }

    /// A subject in our own inbox that was never used: subscribe to it, then name it as a reply.
    pub fn new_inbox(&self) -> String {
        let number = self.inner.inboxes.fetch_add(1, Ordering::Relaxed);
        // Answers to requests are one number after the nonce; this is never one number.
        format!("{}in.{number}", self.inner.answers)
    }

    /// Answers a message of this principal, but only into the principal's own inbox.
    ///
    /// No reply subject is no error: who asks for no answer gets none.
    pub async fn respond(&self, to: &Message, principal: &str, payload: Bytes) -> Result<(), BusError> {
        match &to.reply {
            Some(reply) if own_inbox(principal, reply) => self.publish(reply, payload).await,
            Some(reply) => Err(BusError::ForeignReply { reply: reply.clone(), principal: principal.to_owned() }),
            None => Ok(()),
        }
    }

    /// Answers a message; whose inbox it may go to is read from the subject it came on.
    pub async fn answer(&self, to: &Message, payload: Bytes) -> Result<(), BusError> {
        let foreign = |reply: &str, principal: &str| {
            Err(BusError::ForeignReply { reply: reply.to_owned(), principal: principal.to_owned() })
        };
        match (&to.reply, self.inner.subjects.caller(&to.subject)) {
            (None, _) => Ok(()),
            (Some(_), Some(Caller::Principal(principal))) => self.respond(to, &principal, payload).await,
            (Some(reply), Some(Caller::Master)) if any_inbox(reply) => self.publish(reply, payload).await,
            (Some(reply), Some(Caller::Master)) => foreign(reply, "a master"),
            (Some(reply), None) => foreign(reply, "anybody"),
        }
    }

    /// Listens on a subject or pattern.
    ///
    /// Up to `subscription_messages_max` messages wait for their reader; more are dropped and told
    /// by [`BusEvent::SlowConsumer`]. What is sent later over this same connection is heard by
    /// others after they can see the subscription.
    pub async fn subscribe(&self, subject: &str) -> Result<Subscription, BusError> {
        if !is_subscribable(subject) {
            return Err(BusError::Protocol { what: format!("{subject:?} is not a subject") });
        }
        self.check_open()?;
        let mut next = self.inner.subscribing.lock().await;
        let sid = *next;
        let watched = Arc::new(Watched::new(subject));
        // The client has given out the number once it is asked, whether or not it succeeds.
        *next += 1;
        self.inner.shared.subscriptions().insert(sid, Arc::clone(&watched));
        let made = timeout(Duration::from_millis(SEND_MS), self.inner.client.subscribe(subject.to_owned())).await;
        match made {
            Ok(Ok(messages)) => Ok(Subscription { sid, messages, watched, shared: Arc::clone(&self.inner.shared) }),
            failed => {
                self.inner.shared.subscriptions().remove(&sid);
                Err(match failed {
                    Err(_) => BusError::Timeout { what: format!("subscribing to {subject}"), ms: SEND_MS },
                    _ => BusError::Closed,
                })
            }
        }
    }

    /// Waits until the server has handled all that was sent on this connection.
    pub async fn settle(&self, limit: Duration) -> Result<(), BusError> {
        let deadline = Instant::now() + limit;
        self.wait_for_link(deadline).await?;
        let mut place = self.inner.shared.pending.open("")?;
        let subject = format!("{}{}", self.inner.answers, place.key);
        self.hand_over(&subject, None, None, Bytes::new(), deadline).await?;
        match wait_for_answer(&mut place, deadline).await {
            Some(Ok(_)) | Some(Err(BusError::Denied { .. })) => {
                self.inner.shared.unproven.store(false, Ordering::Release);
                Ok(())
            }
            Some(Err(error)) => Err(error),
            None => Err(BusError::Timeout { what: "what was sent".into(), ms: limit.as_millis() as u64 }),
        }
    }

    /// Ends the connection; what was published before has reached the server when this returns Ok.
    pub async fn close(&self) -> Result<(), BusError> {
        let shared = &self.inner.shared;
        if shared.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        let limit = Duration::from_millis(CLOSE_MS);
        let settled = if shared.unproven.load(Ordering::Acquire) {
            if self.is_connected() { self.settle(limit).await } else { Err(self.unreachable()) }
        } else {
            Ok(())
        };
        self.abandon().await;
        let mut link = shared.link.subscribe();
        // When the client does not say that it is done, there is nothing left to wait for.
        let _ = timeout(limit, link.wait_for(|link| link.closed)).await;
        settled
    }

    /// Ends the connection without waiting for anything: what a deposed leader does. It never
    /// connects again, so nothing that still waits can go out late.
    pub async fn abandon(&self) {
        let shared = &self.inner.shared;
        shared.retired.store(true, Ordering::Release);
        shared.closed.store(true, Ordering::Release);
        shared.pending.fail(None, &BusError::Closed);
        if self.inner.client.connection_state() == State::Connected {
            let _ = timeout(Duration::from_millis(CLOSE_MS), self.inner.client.drain()).await;
        } else {
            shared.announce_end();
        }
        self.inner.answering.abort();
    }

    pub fn is_closed(&self) -> bool {
        self.inner.shared.closed.load(Ordering::Acquire)
    }

    /// Requests of this connection that wait for an answer right now
    pub fn requests_waiting(&self) -> usize {
        self.inner.shared.pending.len()
    }

    pub(crate) fn link(&self) -> watch::Receiver<Link> {
        self.inner.shared.link.subscribe()
    }

    /// A request with headers, answered by the whole message
    pub(crate) async fn exchange(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
        limit: Duration,
    ) -> Result<async_nats::Message, BusError> {
        check(subject, payload.len())?;
        let deadline = Instant::now() + limit;
        self.wait_for_link(deadline).await?;
        if let Some(denied) = self.inner.shared.answers_denied.get() {
            return Err(denied.clone());
        }
        let mut place = self.inner.shared.pending.open(subject)?;
        let reply = format!("{}{}", self.inner.answers, place.key);
        self.hand_over(subject, Some(&reply), headers, payload, deadline).await?;
        match wait_for_answer(&mut place, deadline).await {
            Some(Ok(message)) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                self.inner.shared.unproven.store(false, Ordering::Release);
                Err(BusError::NoResponders { subject: subject.to_owned() })
            }
            Some(Ok(message)) => {
                self.inner.shared.unproven.store(false, Ordering::Release);
                Ok(message)
            }
            Some(Err(error)) => Err(error),
            None => Err(BusError::Timeout { what: subject.to_owned(), ms: limit.as_millis() as u64 }),
        }
    }

    /// Publishes, at once or not at all
    pub(crate) async fn send(
        &self,
        subject: &str,
        reply: Option<&str>,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<(), BusError> {
        check(subject, payload.len())?;
        self.check_open()?;
        if !self.is_connected() {
            return Err(self.unreachable());
        }
        self.inner.shared.unproven.store(true, Ordering::Release);
        let deadline = Instant::now() + Duration::from_millis(SEND_MS);
        self.hand_over(subject, reply, headers, payload, deadline).await
    }

    async fn hand_over(
        &self,
        subject: &str,
        reply: Option<&str>,
        headers: Option<HeaderMap>,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<(), BusError> {
        let bytes = payload.len();
        let subject = subject.to_owned();
        let client = &self.inner.client;
        let sending = async {
            match (reply.map(str::to_owned), headers) {
                (None, None) => client.publish(subject, payload).await,
                (None, Some(headers)) => client.publish_with_headers(subject, headers, payload).await,
                (Some(reply), None) => client.publish_with_reply(subject, reply, payload).await,
                (Some(reply), Some(headers)) => {
                    client.publish_with_reply_and_headers(subject, reply, headers, payload).await
                }
            }
        };
        match timeout_at(deadline, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(match error.kind() {
                async_nats::client::PublishErrorKind::MaxPayloadExceeded => {
                    BusError::TooBig { bytes, limit: self.inner.client.max_payload() }
                }
                async_nats::client::PublishErrorKind::InvalidSubject => {
                    BusError::Protocol { what: "a subject that is none".into() }
                }
                async_nats::client::PublishErrorKind::Send => BusError::Closed,
            }),
            Err(_) => Err(self.unreachable()),
        }
    }

    /// Waits for the connection, if it will come back at all.
    async fn wait_for_link(&self, deadline: Instant) -> Result<(), BusError> {
        let mut link = self.inner.shared.link.subscribe();
        loop {
            self.check_open()?;
            if self.is_connected() {
                return Ok(());
            }
            if !self.inner.options.reconnect || Instant::now() >= deadline {
                return Err(self.unreachable());
            }
            let look = Instant::now() + Duration::from_millis(LINK_LOOK_MS);
            // Whatever wakes us, the loop looks again.
            let _ = timeout_at(look.min(deadline), link.changed()).await;
        }
    }

    fn check_open(&self) -> Result<(), BusError> {
        if self.is_closed() { Err(BusError::Closed) } else { Ok(()) }
    }

    fn unreachable(&self) -> BusError {
        BusError::Unreachable { url: self.inner.options.shown_url(), why: "disconnected".into() }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.retired.store(true, Ordering::Release);
        self.shared.closed.store(true, Ordering::Release);
        self.answering.abort();
    }
}

async fn answer_requests(mut messages: async_nats::Subscriber, shared: Arc<Shared>, prefix_bytes: usize) {
    while let Some(message) = messages.next().await {
        if let Some(key) = message.subject.get(prefix_bytes..).and_then(|key| key.parse().ok()) {
            shared.pending.answer(key, message);
        }
    }
    shared.pending.fail(None, &BusError::Closed);
}

/// None when the deadline passed first
async fn wait_for_answer(place: &mut Place<'_>, deadline: Instant) -> Option<Result<async_nats::Message, BusError>> {
    match timeout_at(deadline, &mut place.answer).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(_)) => Some(Err(BusError::Closed)),
        Err(_) => None,
    }
}

fn check(subject: &str, bytes: usize) -> Result<(), BusError> {
    if !is_publishable(subject) {
        return Err(BusError::Protocol { what: format!("{subject:?} is not a subject") });
    }
    if bytes > MESSAGE_BYTES_MAX {
        return Err(BusError::TooBig { bytes, limit: MESSAGE_BYTES_MAX });
    }
    Ok(())
}

/// The server that failed least, but rather another than the one that was tried last: it may stand still, and has not failed by that.
/// The client keeps our order, so the first of equals was put first.
fn choose(servers: Vec<Server>, tried: &mut Option<ServerAddr>) -> Option<ReconnectToServer> {
    let server = servers.into_iter().min_by_key(|server| (server.failed_attempts, tried.as_ref() == Some(&server.addr)))?;
    let delay = match server.failed_attempts {
        0 => Duration::ZERO,
        failures => Duration::from_millis(backoff_ms(failures)),
    };
    *tried = Some(server.addr.clone());
    Some(ReconnectToServer { addr: server.addr, delay: Some(delay) })
}

/// Doubles from the shortest to the longest pause, a quarter of it random: a crowd spreads out.
fn backoff_ms(failures: usize) -> u64 {
    let doublings = failures.saturating_sub(1).min(16) as u32;
    let pause_ms = RECONNECT_MS.saturating_mul(1 << doublings).min(RECONNECT_MS_MAX);
    pause_ms - random_u64() % (pause_ms / 4)
}

pub(crate) fn random_u64() -> u64 {
    getrandom::u64().expect("the kernel has had randomness since it started")
}

fn connect_failure(options: &BusOptions, error: &async_nats::ConnectError) -> BusError {
    use async_nats::ConnectErrorKind as Kind;
    let unreachable = |why: String| BusError::Unreachable { url: options.shown_url(), why };
    match error.kind() {
        Kind::AuthorizationViolation => BusError::Credentials { why: "authorization violation".into() },
        Kind::Authentication => BusError::Credentials { why: "the key cannot sign the server's challenge".into() },
        Kind::Dns => unreachable("no such host".into()),
        Kind::TimedOut => unreachable(SILENT.into()),
        Kind::ServerParse => BusError::Options { what: "the bus address is not an address".into() },
        Kind::MaxReconnects => unreachable("gave up".into()),
        Kind::Tls | Kind::Io => {
            let mut cause: &dyn std::error::Error = error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            let text = match cause.downcast_ref::<std::io::Error>() {
                Some(io) => plain_io(io),
                None => cause.to_string(),
            };
            let text = options.scrubbed(&text);
            if is_about_login(&text) {
                BusError::Credentials { why: text }
            } else if error.kind() == Kind::Tls {
                unreachable(format!("no secure connection: {text}"))
            } else {
                unreachable(text)
            }
        }
    }
}
