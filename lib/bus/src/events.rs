//! Reading recorded events in order, from any point, without missing one

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::api::call;
use crate::shared::Link;
use crate::{Bus, BusError, Subscription};

/// Events asked for at once
const BATCH: u64 = 256;
/// The server ends an unanswered demand after this; then we ask again
const DEMAND_MS: u64 = 30_000;
/// The server says this often that it still works on our demand
const HEARTBEAT_MS: u64 = 5_000;
/// The same while something is still to come
const BEHIND_HEARTBEAT_MS: u64 = 1_000;
/// Without a word for this long, what reads for us on the server is gone
const SILENCE_MS_MAX: u64 = 12_000;
/// So often in a row the server says that it has nothing, while something is still to come: then that cannot be read
const IDLE_BEATS_MAX: u32 = 2;
/// So long nothing comes over a connection that is there, while something is still to come, before reading is given up
const STALLED_MS_MAX: u64 = 60_000;
/// The server forgets a reader that asked for nothing this long
const FORGET_MS: u64 = 60_000;
/// How far back reading begins when the store lost what we have read last: its clock may be off
const OVERLAP_MS: u64 = 10_000;
/// For so long a reading that cannot begin for now is tried again
const OPEN_MS_MAX: u64 = 30_000;
/// Pause between two attempts to go on after an interruption
const RETRY_MS: u64 = 250;
const NS_PER_MS: u64 = 1_000_000;

/// Where to begin
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what is recorded from now on.
    New,
    All,
    /// Behind the event of this sequence.
    After(u64),
    /// Behind this event, if it is still there; else with what was recorded since, as after a [`Item::Reset`].
    Behind { seq: u64, time_ms: u64 },
    /// With the last event of each subject.
    LastPerSubject,
    /// With the last event of all.
    Last,
}

/// One recorded event
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Grows from event to event, also across subjects; not dense in a filtered reading.
    pub seq: u64,
    pub subject: String,
    pub payload: Bytes,
    /// When the server recorded it, in Unix ms.
    pub time_ms: u64,
}

/// What reading yields
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Event(StoredEvent),
    /// Everything recorded before the reading began has been read; said once.
    CaughtUp,
    /// Something of what was recorded here is there and cannot be read: the store is damaged. Reading goes on behind it.
    Unreadable,
    /// The store lost what was read last, and gives its sequences anew. Reading goes on with what
    /// was recorded since then; some of it may have been read before.
    Reset,
}

/// Reads a stream through a short-lived consumer, which it makes anew whenever that is lost
pub struct EventReader {
    bus: Bus,
    stream: String,
    filter: String,
    begin: Begin,
    link: watch::Receiver<Link>,
    consumer: Option<Consumer>,
    caught_up: bool,
    /// Spent on attempts that brought nothing while the connection was there, since something last came.
    stalled: Duration,
    ready: VecDeque<Item>,
}

/// Where the next consumer begins
#[derive(Clone, Debug)]
enum Begin {
    At(Start),
    /// Behind this message, which we have read: it is asked for once more, and if it is not the
    /// same, the store lost it and gave its sequence to another.
    Behind { seq: u64, time_ns: u64 },
    /// With what was recorded from this moment on, by the clock of the server.
    Since(String),
}

struct Consumer {
    name: String,
    inbox: String,
    messages: Subscription,
    /// Number the server gave the last message it sent us.
    delivered: u64,
    /// Messages that the running demands still allow.
    demanded: u64,
    /// How often in a row the server said that it has nothing.
    idle_beats: u32,
    /// Connections lost when it was made.
    drops: u64,
    /// The message that must come first, sequence and time.
    known: Option<(u64, u64)>,
}

/// What a message says about its own place
struct Place {
    seq: u64,
    delivery: u64,
    time_ns: u64,
    pending: u64,
}

impl EventReader {
    pub(crate) async fn open(bus: &Bus, stream: &str, start: Start, filter: &str) -> Result<EventReader, BusError> {
        let mut reader = EventReader {
            bus: bus.clone(),
            stream: stream.to_owned(),
            filter: filter.to_owned(),
            begin: match start {
                Start::Behind { seq, time_ms } => Begin::Behind { seq, time_ns: time_ms.saturating_mul(NS_PER_MS) },
                other => Begin::At(other),
            },
            link: bus.link(),
            consumer: None,
            caught_up: false,
            stalled: Duration::ZERO,
            ready: VecDeque::new(),
        };
        let deadline = Instant::now() + Duration::from_millis(OPEN_MS_MAX);
        loop {
            match reader.make_consumer().await {
                Ok(()) => return Ok(reader),
                // Servers that elect who speaks for the stream answer nobody for some seconds.
                Err(error) if error.may_pass() && reader.can_retry(&error) && Instant::now() < deadline => {
                    sleep_until(Instant::now() + Duration::from_millis(RETRY_MS)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The next event, in order. Interruptions are bridged for as long as the connection may come
    /// back; an error is final. Can be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Result<Item, BusError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(item);
            }
            let began = Instant::now();
            if self.consumer.is_none() {
                match self.make_consumer().await {
                    Ok(()) => continue,
                    Err(error) if self.can_retry(&error) => {
                        sleep_until(Instant::now() + Duration::from_millis(RETRY_MS)).await;
                        self.note_stall(began, error)?;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            self.read().await?;
            if self.consumer.is_none() && self.ready.is_empty() {
                self.note_stall(began, BusError::Timeout { what: format!("read stream {}", self.stream), ms: STALLED_MS_MAX })?;
            }
        }
    }

    /// Reads one message into `ready`, or gives the consumer up.
    async fn read(&mut self) -> Result<(), BusError> {
        let Some(consumer) = &mut self.consumer else { return Ok(()) };
        if self.link.borrow_and_update().drops != consumer.drops {
            self.consumer = None;
            return Ok(());
        }
        if consumer.demanded <= BATCH / 2 {
            // Asking before the last answer is used up keeps the stream flowing.
            let heartbeat_ms = if self.caught_up { HEARTBEAT_MS } else { BEHIND_HEARTBEAT_MS };
            if demand(&self.bus, &self.stream, consumer, heartbeat_ms).await.is_err() {
                self.consumer = None;
                return Ok(());
            }
        }
        let silence = Instant::now() + Duration::from_millis(SILENCE_MS_MAX);
        let message = tokio::select! {
            message = timeout_at(silence, consumer.messages.next_raw()) => message,
            _ = self.link.changed() => return self.check_open(),
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => {
                let denied = consumer.messages.denied();
                self.consumer = None;
                return denied.map_or_else(|| self.check_open(), Err);
            }
            Err(_) => {
                self.consumer = None;
                return Ok(());
            }
        };
        match message.status.map(|status| status.as_u16()) {
            None => self.take(message),
            Some(100) => self.take_beat(),
            // The demand ran out; ask again.
            Some(404 | 408) => consumer.demanded = 0,
            // Gone, or nobody there: begin again where we are.
            Some(_) => self.consumer = None,
        }
        Ok(())
    }

    /// The server is alive and has nothing. What it counted as still to come, and does not give, it cannot read: it has
    /// passed that over, and so do we.
    fn take_beat(&mut self) {
        let Some(consumer) = self.consumer.as_mut().filter(|_| !self.caught_up) else { return };
        consumer.idle_beats += 1;
        if consumer.idle_beats >= IDLE_BEATS_MAX {
            // The message that was to prove that the store is the same may be among them.
            consumer.known = None;
            self.ready.push_back(Item::Unreadable);
            self.say_caught_up();
        }
    }

    /// Gives up for good, with the error of the last attempt, what brings nothing though the connection is there. One that
    /// has caught up waits for ever: nothing may be what there is.
    fn note_stall(&mut self, began: Instant, error: BusError) -> Result<(), BusError> {
        if self.caught_up || !self.bus.is_connected() {
            self.stalled = Duration::ZERO;
            return Ok(());
        }
        self.stalled += began.elapsed();
        if self.stalled >= Duration::from_millis(STALLED_MS_MAX) { Err(error) } else { Ok(()) }
    }

    fn take(&mut self, message: async_nats::Message) {
        let Some(consumer) = &mut self.consumer else { return };
        let Some(place) = message.reply.as_ref().and_then(|reply| parse_place(reply)) else { return };
        if place.delivery != consumer.delivered + 1 {
            // Something between the server and us was dropped; read it again.
            self.consumer = None;
            return;
        }
        consumer.delivered = place.delivery;
        consumer.demanded = consumer.demanded.saturating_sub(1);
        consumer.idle_beats = 0;
        self.stalled = Duration::ZERO;
        match consumer.known.take() {
            // Whoever was told of it by another knows the millisecond only.
            Some((seq, time_ns)) if (seq, time_ns / NS_PER_MS) == (place.seq, place.time_ns / NS_PER_MS) => {}
            Some(_) => return self.begin_anew(),
            None => {
                self.begin = Begin::Behind { seq: place.seq, time_ns: place.time_ns };
                self.ready.push_back(Item::Event(StoredEvent {
                    seq: place.seq,
                    subject: message.subject.to_string(),
                    payload: message.payload,
                    time_ms: place.time_ns / NS_PER_MS,
                }));
            }
        }
        if place.pending == 0 {
            self.say_caught_up();
        }
    }

    /// The store is not the one we read: it was lost, or lost its end. Goes on with what was
    /// recorded since, and rather says something twice than not at all.
    fn begin_anew(&mut self) {
        self.begin = match &self.begin {
            Begin::Behind { time_ns, .. } => Begin::Since(rfc3339_ns(time_ns.saturating_sub(OVERLAP_MS * NS_PER_MS))),
            Begin::At(Start::New | Start::After(_)) => Begin::At(Start::All),
            other => other.clone(),
        };
        self.consumer = None;
        self.caught_up = false;
        self.ready.push_back(Item::Reset);
    }

    fn say_caught_up(&mut self) {
        if !self.caught_up {
            self.caught_up = true;
            self.ready.push_back(Item::CaughtUp);
        }
    }

    async fn make_consumer(&mut self) -> Result<(), BusError> {
        let drops = self.link.borrow_and_update().drops;
        let inbox = self.bus.new_inbox();
        let messages = self.bus.subscribe(&inbox).await?;
        let mut config = json!({
            "ack_policy": "none",
            "replay_policy": "instant",
            "filter_subject": self.filter,
            "mem_storage": true,
            "num_replicas": 1,
            "inactive_threshold": FORGET_MS * NS_PER_MS,
            "max_deliver": -1,
        });
        config["deliver_policy"] = json!(match &self.begin {
            Begin::At(Start::New) => "new",
            Begin::At(Start::All) => "all",
            Begin::At(Start::LastPerSubject) => "last_per_subject",
            Begin::At(Start::Last) => "last",
            Begin::At(Start::After(seq)) => {
                config["opt_start_seq"] = json!(seq + 1);
                "by_start_sequence"
            }
            Begin::At(Start::Behind { seq, .. }) | Begin::Behind { seq, .. } => {
                config["opt_start_seq"] = json!(seq);
                "by_start_sequence"
            }
            Begin::Since(time) => {
                config["opt_start_time"] = json!(time);
                "by_start_time"
            }
        });
        let what = format!("read stream {}", self.stream);
        let body = json!({ "stream_name": self.stream, "config": config });
        let made = match call(&self.bus, &format!("CONSUMER.CREATE.{}", self.stream), &body).await? {
            Ok(made) => made,
            Err(error) => return Err(error.into_error(&self.bus, &what)),
        };
        let wrong = || BusError::Protocol { what: format!("JetStream's answer to {what}") };
        let name = made.get("name").and_then(Value::as_str).ok_or_else(wrong)?.to_owned();
        let pending = made.get("num_pending").and_then(Value::as_u64).ok_or_else(wrong)?;
        let first = made.pointer("/delivered/stream_seq").and_then(Value::as_u64).map_or(0, |before| before + 1);
        let mut known = None;
        match &self.begin {
            // Now that there is a consumer, everything later is ours to read, whatever happens to it.
            Begin::At(Start::New) => {
                let created = made.get("created").and_then(Value::as_str).ok_or_else(wrong)?;
                self.begin = Begin::Since(created.to_owned());
            }
            Begin::At(Start::After(seq)) if *seq > 0 && pending == 0 => {
                if last_sequence(&self.bus, &self.stream).await? < *seq {
                    self.begin_anew();
                    return Ok(());
                }
            }
            // What was dropped for its age can be no proof.
            Begin::Behind { seq, .. } if first > *seq => {}
            Begin::Behind { .. } if pending == 0 => {
                self.begin_anew();
                return Ok(());
            }
            Begin::Behind { seq, time_ns } => known = Some((*seq, *time_ns)),
            Begin::At(_) | Begin::Since(_) => {}
        }
        self.consumer = Some(Consumer { name, inbox, messages, delivered: 0, demanded: 0, idle_beats: 0, drops, known });
        if pending == 0 {
            self.say_caught_up();
        }
        Ok(())
    }

    /// Whether the connection may come back, or the stream may be made again.
    fn can_retry(&self, error: &BusError) -> bool {
        self.bus.options().reconnect
            && !self.bus.is_closed()
            && (error.may_pass() || matches!(error, BusError::Store { .. } | BusError::NoJetStream { .. }))
    }

    fn check_open(&self) -> Result<(), BusError> {
        if self.bus.is_closed() { Err(BusError::Closed) } else { Ok(()) }
    }
}

/// Allows the server to send more.
async fn demand(bus: &Bus, stream: &str, consumer: &mut Consumer, heartbeat_ms: u64) -> Result<(), BusError> {
    let body = json!({
        "batch": BATCH,
        "expires": DEMAND_MS * NS_PER_MS,
        "idle_heartbeat": heartbeat_ms * NS_PER_MS,
    });
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", consumer.name);
    bus.publish_with_reply(&subject, &consumer.inbox, Bytes::from(body.to_string())).await?;
    consumer.demanded += BATCH;
    Ok(())
}

async fn last_sequence(bus: &Bus, stream: &str) -> Result<u64, BusError> {
    let what = format!("read stream {stream}");
    match call(bus, &format!("STREAM.INFO.{stream}"), &json!({})).await? {
        Ok(info) => info
            .pointer("/state/last_seq")
            .and_then(Value::as_u64)
            .ok_or_else(|| BusError::Protocol { what: format!("JetStream's answer to {what}") }),
        Err(error) => Err(error.into_error(bus, &what)),
    }
}

/// Unix ns as the server writes times
fn rfc3339_ns(time_ns: u64) -> String {
    let whole = meso_core::duration::rfc3339(time_ns / NS_PER_MS);
    format!("{}.{:09}Z", whole.trim_end_matches('Z'), time_ns % (1_000 * NS_PER_MS))
}

/// Reads `$JS.ACK.<stream>.<consumer>.<deliveries>.<seq>.<delivery>.<ns>.<pending>`, or the newer
/// form with domain and account in front of the stream.
fn parse_place(reply: &str) -> Option<Place> {
    let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let numbers = match tokens.len() {
        7 => &tokens[3..7],
        n if n >= 9 => &tokens[5..9],
        _ => return None,
    };
    let number = |at: usize| numbers[at].parse::<u64>().ok();
    Some(Place { seq: number(0)?, delivery: number(1)?, time_ns: number(2)?, pending: number(3)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times are written as the server reads them.
    #[test]
    fn times() {
        assert_eq!(rfc3339_ns(1_700_000_000_123_456_789), "2023-11-14T22:13:20.123456789Z");
    }

    /// Both forms of the server's note on a message are read; anything else is none.
    #[test]
    fn places() {
        for reply in ["$JS.ACK.S.c.1.42.7.1700000000123456789.3", "$JS.ACK._.acc.S.c.1.42.7.1700000000123456789.3.rnd"] {
            let place = parse_place(reply).expect("a place");
            assert_eq!((place.seq, place.delivery, place.time_ns, place.pending), (42, 7, 1_700_000_000_123_456_789, 3));
        }
        for reply in ["", "$JS.ACK.S.c.1.42", "_INBOX.a.b", "$JS.ACK.S.c.1.x.7.1.3"] {
            assert!(parse_place(reply).is_none(), "{reply}");
        }
    }
}
