//! What the bus keeps: the event stream, the lease, the registry, the checkpoints
//!
//! The master makes them, with explicit limits each, so that no one of them can fill the disk under
//! the others. All survive a crash of the server. A power cut may lose them (see the design), and
//! then they are made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use meso_core::id::Name;
use serde_json::{Value, json};

use crate::api::{self, call};
use crate::bus::PAYLOAD_BYTES_MAX;
use crate::events::{EventReader, Item, Start, StoredEvent};
use crate::{Bus, BusError, Subjects};

/// How often and how long to look for a stream that another is just making
const MADE_LOOKS_MAX: u32 = 20;
const MADE_LOOK_MS: u64 = 50;
/// How long storing one message may take: a full disk shows itself as silence
pub const STORE_MS: u64 = 5_000;
/// What the streams may hold
pub const EVENT_BYTES_MAX: u64 = 512 * MIB;
pub const EVENT_AGE_MS_MAX: u64 = 7 * 24 * 3_600_000;
pub const LEASE_BYTES_MAX: u64 = MIB;
pub const REGISTRY_BYTES_MAX: u64 = 256 * MIB;
pub const CHECKPOINT_BYTES_MAX: u64 = 1_024 * MIB;
/// Within this time the same message id is stored once
pub const DUPLICATE_MS: u64 = 120_000;
/// Readings of a whole bucket that are interrupted before it is given up
const READINGS_MAX: u32 = 40;
/// Pause before a copy that was not whole is read again
const COPY_LOOK_MS: u64 = 250;
const MIB: u64 = 1024 * 1024;
const NS_PER_MS: u64 = 1_000_000;

const MESSAGE_ID: &str = "Nats-Msg-Id";
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
const OPERATION: &str = "KV-Operation";

/// The stores of one cluster
#[derive(Clone)]
pub struct Store {
    bus: Bus,
}

/// A bucket: keys with one current value each, and a revision that only grows
#[derive(Clone)]
pub struct Bucket {
    bus: Bus,
    name: String,
}

/// How much of a bucket there is
struct State {
    /// Keys, removed ones too.
    keys: usize,
    /// The revision of the latest value.
    last: u64,
    /// How many servers have it. What cannot be read of the only one is lost, and the rest is all that there is.
    copies: u64,
}

/// The value under a key and the revision it was stored as
pub type Revised = (Bytes, u64);

impl Store {
    pub fn new(bus: &Bus) -> Store {
        Store { bus: bus.clone() }
    }

    /// Makes what is missing and brings limits and copies of the rest to ours; changes nothing otherwise. Gives, in words
    /// for people, what cannot be as it should.
    ///
    /// `replicas` is 1, or 3 or 5 on a cluster of servers.
    pub async fn ensure(&self, replicas: u32) -> Result<Vec<String>, BusError> {
        let cluster = self.bus.subjects().cluster().clone();
        let mut notes = Vec::new();
        notes.extend(self.ensure_stream(event_stream(&self.bus, replicas)).await?);
        self.ensure_lease(replicas).await?;
        for (kind, bytes) in [("registry", REGISTRY_BYTES_MAX), ("checkpoint", CHECKPOINT_BYTES_MAX)] {
            notes.extend(self.ensure_stream(bucket_stream(&bucket_name(&cluster, kind), bytes, replicas)).await?);
        }
        Ok(notes)
    }

    /// Makes the lease's own bucket if it is missing.
    pub async fn ensure_lease(&self, replicas: u32) -> Result<(), BusError> {
        let name = bucket_name(self.bus.subjects().cluster(), "lease");
        self.ensure_stream(bucket_stream(&name, LEASE_BYTES_MAX, replicas)).await.map(drop)
    }

    /// Admitted agents, roles, durable names: what must outlive any master
    pub fn registry(&self) -> Bucket {
        self.bucket("registry")
    }

    /// Copies of what the agents keep, for a quick start of a new leader
    pub fn checkpoint(&self) -> Bucket {
        self.bucket("checkpoint")
    }

    /// The one record of the lease; `Leadership` writes it
    pub fn lease(&self) -> Bucket {
        self.bucket("lease")
    }

    /// Reads recorded events that match the subject or pattern, then waits for new ones.
    pub async fn events(&self, start: Start, filter: &str) -> Result<EventReader, BusError> {
        EventReader::open(&self.bus, &event_stream_name(self.bus.subjects()), start, filter).await
    }

    /// The last recorded event that matches the subject or pattern
    pub async fn last_event(&self, filter: &str) -> Result<Option<StoredEvent>, BusError> {
        let mut reader = self.events(Start::Last, filter).await?;
        match reader.next().await? {
            Item::Event(event) => Ok(Some(event)),
            Item::CaughtUp | Item::Reset => Ok(None),
            Item::Unreadable => Err(unreadable(format!("read the last event of {filter}"))),
        }
    }

    /// What was recorded last on this very subject, by the word of the one server that knows it for sure.
    pub async fn last_recorded(&self, subject: &str) -> Result<Option<Bytes>, BusError> {
        let found = api::last_message(&self.bus, &event_stream_name(self.bus.subjects()), subject).await?;
        Ok(found.map(|(data, _)| Bytes::from(data)))
    }

    /// Whether the last of the recorded events can be read. Where it cannot, though the server keeps taking new ones, the
    /// stream is damaged and gives nothing any more; or somebody removed that very event.
    pub async fn can_read_last(&self) -> Result<bool, BusError> {
        let name = event_stream_name(self.bus.subjects());
        let what = format!("read stream {name}");
        let info = match call(&self.bus, &format!("STREAM.INFO.{name}"), &json!({})).await? {
            Ok(info) => info,
            Err(error) => return Err(error.into_error(&self.bus, &what)),
        };
        let state = |key: &str| info["state"][key].as_u64().ok_or_else(|| BusError::Protocol { what: format!("JetStream's answer to {what}") });
        if state("messages")? == 0 {
            return Ok(true);
        }
        match call(&self.bus, &format!("STREAM.MSG.GET.{name}"), &json!({ "seq": state("last_seq")? })).await? {
            Ok(_) => Ok(true),
            Err(error) if error.is_message_not_found() => Ok(false),
            Err(error) => Err(error.into_error(&self.bus, &what)),
        }
    }

    /// Removes the event stream with all that is recorded in it, and makes it again.
    pub async fn renew_events(&self, replicas: u32) -> Result<(), BusError> {
        let name = event_stream_name(self.bus.subjects());
        match call(&self.bus, &format!("STREAM.DELETE.{name}"), &json!({})).await? {
            Ok(_) => {}
            Err(error) if error.is_stream_not_found() => {}
            Err(error) => return Err(error.into_error(&self.bus, &format!("remove stream {name}"))),
        }
        self.ensure_stream(event_stream(&self.bus, replicas)).await.map(drop)
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    fn bucket(&self, kind: &str) -> Bucket {
        Bucket { bus: self.bus.clone(), name: bucket_name(self.bus.subjects().cluster(), kind) }
    }

    /// Says, for people, what of it cannot be as it should.
    async fn ensure_stream(&self, config: Value) -> Result<Option<String>, BusError> {
        let name = config["name"].as_str().expect("every config of ours has a name").to_owned();
        let what = format!("make stream {name}");
        match call(&self.bus, &format!("STREAM.CREATE.{name}"), &config).await? {
            Ok(_) => Ok(None),
            Err(error) if error.is_stream_differs() => self.update_stream(&name, config).await,
            // Two that make the same stream at the same moment may be told so of each other: then it is there.
            Err(error) if error.is_overlap() && self.has_stream(&name).await? => self.update_stream(&name, config).await,
            Err(error) => Err(error.into_error(&self.bus, &what)),
        }
    }

    /// Whether a stream is there, or will be in a moment
    async fn has_stream(&self, name: &str) -> Result<bool, BusError> {
        for _ in 0..MADE_LOOKS_MAX {
            if call(&self.bus, &format!("STREAM.INFO.{name}"), &json!({})).await?.is_ok() {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(MADE_LOOK_MS)).await;
        }
        Ok(false)
    }

    /// Lays our settings over what is there; what cannot be changed later stays as it is.
    async fn update_stream(&self, name: &str, ours: Value) -> Result<Option<String>, BusError> {
        const MADE_FOR_GOOD: [&str; 2] = ["persist_mode", "storage"];
        let what = format!("change stream {name}");
        let mut info = match call(&self.bus, &format!("STREAM.INFO.{name}"), &json!({})).await? {
            Ok(info) => info,
            Err(error) => return Err(error.into_error(&self.bus, &what)),
        };
        let mut config = info["config"].take();
        let before = config.clone();
        if let (Some(config), Value::Object(ours)) = (config.as_object_mut(), ours) {
            for (key, value) in ours {
                if !MADE_FOR_GOOD.contains(&key.as_str()) {
                    config.insert(key, value);
                }
            }
        }
        let mut note = None;
        if config["persist_mode"] == "async" && config["num_replicas"] != before["num_replicas"] {
            // Servers refuse copies of such a stream, and to make it another.
            note = Some(format!("{name} was made for one server and stays on one; nats stream rm {name}, and the next leader makes it anew: what it recorded is lost then, and nothing else"));
            config["num_replicas"] = before["num_replicas"].clone();
        }
        if config == before {
            return Ok(note);
        }
        match call(&self.bus, &format!("STREAM.UPDATE.{name}"), &config).await? {
            Ok(_) => Ok(note),
            Err(error) => Err(error.into_error(&self.bus, &what)),
        }
    }
}

impl Bus {
    /// Publishes and waits until the event stream has it; returns its sequence there.
    ///
    /// The same `message_id` again within [`DUPLICATE_MS`] is stored once and gets the first
    /// sequence. After a [`BusError::Timeout`] it may or may not be stored: send it again.
    pub async fn publish_stored(&self, subject: &str, payload: Bytes, message_id: &str) -> Result<u64, BusError> {
        let mut headers = HeaderMap::new();
        insert(&mut headers, MESSAGE_ID, message_id)?;
        self.store(subject, headers, payload, Duration::from_millis(STORE_MS)).await
    }

    async fn store(&self, subject: &str, headers: HeaderMap, payload: Bytes, limit: Duration) -> Result<u64, BusError> {
        let what = || format!("store {subject}");
        let answer = match self.exchange(subject, Some(headers), payload, limit).await {
            Ok(answer) => answer.payload,
            Err(BusError::NoResponders { .. }) => {
                return Err(BusError::Store { what: what(), why: "no stream keeps this subject".into() });
            }
            Err(error) => return Err(error),
        };
        match api::split(&answer)? {
            Ok(stored) => match stored.get("seq").and_then(Value::as_u64) {
                Some(sequence) => Ok(sequence),
                None => Err(BusError::Protocol { what: format!("the answer to {}", what()) }),
            },
            Err(error) if error.is_wrong_revision() => Err(BusError::WrongRevision { key: subject.to_owned() }),
            Err(error) => Err(error.into_error(self, &what())),
        }
    }
}

impl Bucket {
    /// Every key with its value and revision.
    pub async fn get_all(&self) -> Result<BTreeMap<String, Revised>, BusError> {
        for _ in 0..READINGS_MAX {
            if let Some(all) = self.read_all().await? {
                return Ok(all);
            }
        }
        Err(BusError::Store { what: format!("read bucket {}", self.name), why: "it changes under the reading".into() })
    }

    /// One reading from the first key to the last; none if it was interrupted.
    async fn read_all(&self) -> Result<Option<BTreeMap<String, Revised>>, BusError> {
        let state = self.state().await?;
        let prefix = self.subject("");
        let mut reader = EventReader::open(&self.bus, &self.stream(), Start::LastPerSubject, &format!("{prefix}>")).await?;
        let mut all = BTreeMap::new();
        let mut keys = BTreeSet::new();
        let mut last = 0;
        loop {
            match reader.next().await? {
                Item::Event(event) => {
                    keys.insert(event.subject.clone());
                    last = last.max(event.seq);
                    let Some(key) = event.subject.strip_prefix(&prefix) else { continue };
                    // No value of ours is empty; the marker of a removed key is.
                    if event.payload.is_empty() {
                        all.remove(key);
                    } else {
                        all.insert(key.to_owned(), (event.payload, event.seq));
                    }
                }
                Item::CaughtUp if state.copies > 1 && (keys.len() < state.keys || last < state.last) => {
                    // A copy that is behind, or still being filled, was read: it believes to be whole.
                    tokio::time::sleep(Duration::from_millis(COPY_LOOK_MS)).await;
                    return Ok(None);
                }
                Item::CaughtUp => return Ok(Some(all)),
                Item::Reset => return Ok(None),
                Item::Unreadable if state.copies <= 1 => {}
                // Another server has what this one cannot read: a part of it is never taken for the whole.
                Item::Unreadable => return Err(unreadable(format!("read bucket {}", self.name))),
            }
        }
    }

    /// What there is at least, by the word of the one server that knows it for sure.
    async fn state(&self) -> Result<State, BusError> {
        match call(&self.bus, &format!("STREAM.INFO.{}", self.stream()), &json!({})).await? {
            Ok(info) => {
                let number = |name: &str| info.pointer(&format!("/state/{name}")).and_then(Value::as_u64).unwrap_or(0);
                let copies = info.pointer("/config/num_replicas").and_then(Value::as_u64).unwrap_or(1);
                Ok(State { keys: usize::try_from(number("num_subjects")).unwrap_or(usize::MAX), last: number("last_seq"), copies })
            }
            Err(error) => Err(error.into_error(&self.bus, &format!("read bucket {}", self.name))),
        }
    }

    /// The current value, from the one server that knows it for sure.
    pub async fn get(&self, key: &str) -> Result<Option<Revised>, BusError> {
        check_key(key)?;
        let found = api::last_message(&self.bus, &self.stream(), &self.subject(key)).await?;
        // A deleted key reads as its marker, which has no body; no value of ours is empty.
        Ok(found.filter(|(data, _)| !data.is_empty()).map(|(data, revision)| (Bytes::from(data), revision)))
    }

    /// Stores a value over exactly the revision named, 0 for a key that has none yet; returns the
    /// new revision. [`BusError::WrongRevision`] means that nothing was stored,
    /// [`BusError::Timeout`] that it may have been: read again.
    pub async fn put(&self, key: &str, value: Bytes, expected_revision: u64) -> Result<u64, BusError> {
        self.put_within(key, value, expected_revision, Duration::from_millis(STORE_MS)).await
    }

    pub(crate) async fn put_within(&self, key: &str, value: Bytes, expected_revision: u64, limit: Duration) -> Result<u64, BusError> {
        check_key(key)?;
        if value.is_empty() {
            return Err(BusError::Protocol { what: format!("an empty value for {key}") });
        }
        let mut headers = HeaderMap::new();
        insert(&mut headers, EXPECTED, &expected_revision.to_string())?;
        let stored = self.bus.store(&self.subject(key), headers, value, limit).await;
        stored.map_err(|error| named(error, key))
    }

    /// Removes a key at exactly the revision named.
    pub async fn delete(&self, key: &str, expected_revision: u64) -> Result<u64, BusError> {
        check_key(key)?;
        let mut headers = HeaderMap::new();
        insert(&mut headers, EXPECTED, &expected_revision.to_string())?;
        insert(&mut headers, OPERATION, "DEL")?;
        let limit = Duration::from_millis(STORE_MS);
        self.bus.store(&self.subject(key), headers, Bytes::new(), limit).await.map_err(|error| named(error, key))
    }

    pub(crate) fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.name)
    }

    pub(crate) fn stream(&self) -> String {
        format!("KV_{}", self.name)
    }
}

pub(crate) fn event_stream_name(subjects: &Subjects) -> String {
    format!("MESO_{}_EV", subjects.cluster())
}

fn bucket_name(cluster: &Name, kind: &str) -> String {
    format!("meso_{cluster}_{kind}")
}

fn event_stream(bus: &Bus, replicas: u32) -> Value {
    let mut config = stream(&event_stream_name(bus.subjects()), &bus.subjects().events(), EVENT_BYTES_MAX, replicas);
    config["discard"] = json!("old");
    config["max_age"] = json!(EVENT_AGE_MS_MAX * NS_PER_MS);
    config["duplicate_window"] = json!(DUPLICATE_MS * NS_PER_MS);
    config["allow_direct"] = json!(true);
    // Servers refuse it for a stream of several copies, which this one may be some day where there are several servers.
    if replicas == 1 && bus.server_is_at_least(2, 12) && bus.server_info().cluster.is_none() {
        // Agents can refill this stream, so it need not wait for the disk message by message.
        config["persist_mode"] = json!("async");
    }
    config
}

fn bucket_stream(bucket: &str, bytes_max: u64, replicas: u32) -> Value {
    let mut config = stream(&format!("KV_{bucket}"), &format!("$KV.{bucket}.>"), bytes_max, replicas);
    config["discard"] = json!("new");
    config["max_msgs_per_subject"] = json!(1);
    config["allow_rollup_hdrs"] = json!(true);
    config["deny_delete"] = json!(true);
    // A direct read may be answered by a server that is behind.
    config["allow_direct"] = json!(false);
    config
}

fn stream(name: &str, subjects: &str, bytes_max: u64, replicas: u32) -> Value {
    json!({
        "name": name,
        "subjects": [subjects],
        "storage": "file",
        "retention": "limits",
        "num_replicas": replicas,
        "max_bytes": bytes_max,
        "max_msg_size": PAYLOAD_BYTES_MAX,
        "max_msgs": -1,
        "max_consumers": -1,
    })
}

/// Keys are bus tokens joined by dots.
fn check_key(key: &str) -> Result<(), BusError> {
    if crate::subjects::is_publishable(key) {
        Ok(())
    } else {
        Err(BusError::Protocol { what: format!("{key:?} is not a key") })
    }
}

fn unreadable(what: String) -> BusError {
    BusError::Store { what, why: "its store is damaged".into() }
}

fn named(error: BusError, key: &str) -> BusError {
    match error {
        BusError::WrongRevision { .. } => BusError::WrongRevision { key: key.to_owned() },
        other => other,
    }
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), BusError> {
    let value: async_nats::HeaderValue =
        value.parse().map_err(|_| BusError::Protocol { what: format!("{value:?} cannot stand in a header") })?;
    headers.insert(name, value);
    Ok(())
}
