use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use meso_bus::testserver::Server;
use meso_bus::{Bus, BusError, EventReader, Item, Start, Store};

use crate::{PATIENCE, SECOND, connect, daemon_options, eventually, server};

async fn store(server: &Server) -> (Bus, Store) {
    let bus = connect(&daemon_options(server, "m1")).await;
    let store = Store::new(&bus);
    store.ensure(1).await.expect("streams and buckets");
    (bus, store)
}

async fn record(bus: &Bus, task: &str, number: usize) -> u64 {
    let subject = format!("meso.c1.ev.agent_1.fw_1.{task}");
    bus.publish_stored(&subject, Bytes::from(number.to_string()), &format!("{task}.{number}")).await.expect("stored")
}

/// Reads up to the mark: numbers read, in order.
async fn backlog(reader: &mut EventReader) -> Vec<String> {
    let mut read = Vec::new();
    loop {
        match next(reader).await {
            Item::Event(event) => read.push(String::from_utf8_lossy(&event.payload).into_owned()),
            Item::CaughtUp => return read,
            Item::Reset => read.push("reset".into()),
            Item::Unreadable => read.push("unreadable".into()),
        }
    }
}

/// Reads until that number comes; all numbers read, in order.
async fn read_up_to(reader: &mut EventReader, last: usize) -> Vec<usize> {
    let mut read = Vec::new();
    while read.last() != Some(&last) {
        if let Item::Event(event) = next(reader).await {
            read.push(String::from_utf8_lossy(&event.payload).parse().expect("a number"));
        }
    }
    read
}

async fn next(reader: &mut EventReader) -> Item {
    tokio::time::timeout(PATIENCE, reader.next()).await.expect("in time").expect("an item")
}

fn payload(item: &Item) -> &[u8] {
    match item {
        Item::Event(event) => &event.payload,
        other => panic!("{other:?}"),
    }
}

async fn config_of(bus: &Bus, stream: &str) -> serde_json::Value {
    let info = bus.request(&format!("$JS.API.STREAM.INFO.{stream}"), Bytes::new(), PATIENCE).await.expect("info");
    serde_json::from_slice::<serde_json::Value>(&info).expect("JSON")["config"].clone()
}

/// Masters that start at the same moment on a new server all find their stores made.
#[tokio::test]
async fn made_by_many_at_once() {
    for _ in 0..5 {
        let server = server();
        let mut made = tokio::task::JoinSet::new();
        for number in 0..8 {
            let options = daemon_options(&server, &format!("m{number}"));
            made.spawn(async move { Store::new(&connect(&options).await).ensure(1).await });
        }
        for outcome in made.join_all().await {
            outcome.expect("streams and buckets");
        }
    }
}

/// The stores are made once, with their limits, and brought back to them when somebody changed them.
#[tokio::test]
async fn ensuring() {
    let server = server();
    let (bus, store) = store(&server).await;
    record(&bus, "task_1", 1).await;
    let made = config_of(&bus, "MESO_c1_EV").await;
    assert_eq!((&made["max_bytes"], &made["storage"], &made["discard"]), (&(512 << 20).into(), &"file".into(), &"old".into()));
    let mut changed = made.clone();
    changed["max_bytes"] = 1_000_000.into();
    let body = Bytes::from(changed.to_string());
    bus.request("$JS.API.STREAM.UPDATE.MESO_c1_EV", body, PATIENCE).await.expect("an answer");
    assert_eq!(config_of(&bus, "MESO_c1_EV").await["max_bytes"], 1_000_000);
    for _ in 0..2 {
        store.ensure(1).await.expect("streams and buckets");
        assert_eq!(config_of(&bus, "MESO_c1_EV").await, made);
    }
    let lease = config_of(&bus, "KV_meso_c1_lease").await;
    assert_eq!((&lease["max_msgs_per_subject"], &lease["storage"]), (&1.into(), &"file".into()));
    assert!(lease["allow_direct"] != true && lease["max_bytes"].as_i64().is_some_and(|bytes| bytes > 0));
    assert_eq!(store.last_event("meso.c1.ev.>").await.expect("read").map(|event| event.seq), Some(1));
}

/// The same message again is stored once, and gets the place of the first.
#[tokio::test]
async fn duplicates() {
    let server = server();
    let (bus, store) = store(&server).await;
    let first = record(&bus, "task_1", 1).await;
    assert_eq!(record(&bus, "task_1", 1).await, first);
    assert!(record(&bus, "task_1", 2).await > first);
    let mut reader = store.events(Start::All, "meso.c1.ev.>").await.expect("a reader");
    assert_eq!(backlog(&mut reader).await, ["1", "2"]);
    let nowhere = bus.publish_stored("meso.c1.other", Bytes::new(), "x").await;
    assert!(matches!(nowhere, Err(BusError::Store { .. })), "{nowhere:?}");
}

/// A reader sees everything from where it began, in order, and knows when it has caught up.
#[tokio::test]
async fn reading() {
    const EVENTS: usize = 2_000;
    let server = server();
    let (bus, store) = store(&server).await;
    let empty = store.events(Start::All, "meso.c1.ev.>").await;
    assert_eq!(next(&mut empty.expect("a reader")).await, Item::CaughtUp);
    let mut new = store.events(Start::New, "meso.c1.ev.*.fw_1.*").await.expect("a reader");
    assert_eq!(next(&mut new).await, Item::CaughtUp);

    let numbers: Vec<String> = (1..=EVENTS).map(|number| number.to_string()).collect();
    for number in 1..=EVENTS {
        record(&bus, if number % 2 == 0 { "task_2" } else { "task_1" }, number).await;
    }
    let mut all = store.events(Start::All, "meso.c1.ev.>").await.expect("a reader");
    assert_eq!(backlog(&mut all).await, numbers);
    for number in &numbers {
        assert_eq!(payload(&next(&mut new).await), number.as_bytes());
    }
    let mut after = store.events(Start::After(1_990), "meso.c1.ev.>").await.expect("a reader");
    assert_eq!(backlog(&mut after).await, numbers[1_990..]);
    let mut of_task = store.events(Start::All, "meso.c1.ev.*.*.task_2").await.expect("a reader");
    assert_eq!(backlog(&mut of_task).await.len(), EVENTS / 2);
    let mut last = store.events(Start::LastPerSubject, "meso.c1.ev.>").await.expect("a reader");
    assert_eq!(backlog(&mut last).await, numbers[EVENTS - 2..]);

    record(&bus, "task_1", EVENTS + 1).await;
    for reader in [&mut all, &mut new, &mut after, &mut last] {
        match next(reader).await {
            Item::Event(event) => {
                assert_eq!(event.payload, Bytes::from((EVENTS + 1).to_string()));
                assert_eq!((event.seq, event.subject.as_str()), (EVENTS as u64 + 1, "meso.c1.ev.agent_1.fw_1.task_1"));
                assert!(event.time_ms > 1_600_000_000_000);
            }
            other => panic!("{other:?}"),
        }
    }
    let found = store.last_event("meso.c1.ev.*.*.task_2").await.expect("read");
    assert_eq!(found.map(|event| event.seq), Some(EVENTS as u64));
    assert_eq!(store.last_event("meso.c1.ev.*.*.task_3").await, Ok(None));
}

/// A restart of the server is bridged: nothing is missed and nothing comes twice.
#[tokio::test]
async fn restarts_are_bridged() {
    let mut server = server();
    let (bus, store) = store(&server).await;
    let mut reader = store.events(Start::New, "meso.c1.ev.>").await.expect("a reader");
    let mut idle = store.events(Start::New, "meso.c1.ev.>").await.expect("a reader");
    assert_eq!(next(&mut reader).await, Item::CaughtUp);
    assert_eq!(next(&mut idle).await, Item::CaughtUp);
    record(&bus, "task_1", 1).await;
    assert_eq!(payload(&next(&mut reader).await), b"1");
    server.stop().expect("stopped");
    server.restart().expect("a server");
    let again = Bytes::from("2");
    eventually("stored again", async || bus.publish_stored("meso.c1.ev.agent_1.fw_1.task_1", again.clone(), "task_1.2").await.is_ok()).await;
    record(&bus, "task_1", 3).await;
    for reader in [(&mut reader, ["2", "3"].as_slice()), (&mut idle, ["1", "2", "3"].as_slice())] {
        for number in reader.1 {
            assert_eq!(payload(&next(reader.0).await), number.as_bytes());
        }
    }
}

/// A server that crashes may lose the last events it acknowledged and give their sequences to others; a reader is told,
/// and misses nothing that is recorded afterwards.
#[tokio::test]
async fn crashes_are_survived() {
    let mut server = server();
    let (bus, store) = store(&server).await;
    let mut reader = store.events(Start::All, "meso.c1.ev.>").await.expect("a reader");
    for round in 0..3 {
        record(&bus, "task_1", 10 * round).await;
        read_up_to(&mut reader, 10 * round).await;
        server.kill().expect("killed");
        server.restart().expect("a server");
        let (subject, message) = ("meso.c1.ev.agent_1.fw_1.task_1", Bytes::from((10 * round + 1).to_string()));
        eventually("stored again", async || bus.publish_stored(subject, message.clone(), &format!("again.{round}")).await.is_ok()).await;
        record(&bus, "task_1", 10 * round + 2).await;
        let read = read_up_to(&mut reader, 10 * round + 2).await;
        assert!(read.contains(&(10 * round + 1)), "{read:?}");
    }
}

/// A lost store is told, and reading begins with what the new one has.
#[tokio::test]
async fn lost_stores_are_told() {
    let mut server = server();
    let (bus, store) = store(&server).await;
    for number in 1..=10 {
        record(&bus, "task_1", number).await;
    }
    let mut reader = store.events(Start::All, "meso.c1.ev.>").await.expect("a reader");
    assert_eq!(backlog(&mut reader).await.len(), 10);
    server.kill().expect("killed");
    server.wipe().expect("wiped");
    server.restart().expect("a server");
    eventually("made anew", async || store.ensure(1).await.is_ok()).await;
    record(&bus, "task_1", 11).await;
    assert_eq!(next(&mut reader).await, Item::Reset);
    assert_eq!(backlog(&mut reader).await, ["11"]);
}

/// Where a stored event is damaged, what can be read is read, and that something cannot is said: a reader comes to the end in
/// any case. A server that takes new events and gives none of them is told by reading back; made anew, the stream serves again.
#[tokio::test]
async fn damaged_stores() {
    const EVENTS: usize = 30;
    let mut server = server();
    let (bus, store) = store(&server).await;
    for number in 101..=100 + EVENTS {
        record(&bus, "task_1", number).await;
    }
    assert_eq!(store.can_read_last().await, Ok(true));
    // Asked to stop it writes all that it holds, and killed it has to read that again.
    server.stop().expect("stopped");
    server.restart().expect("a server");
    server.kill().expect("killed");
    server.damage("MESO_c1_EV", "115").expect("damaged");
    server.restart().expect("a server");
    eventually("stored again", async || bus.publish_stored("meso.c1.ev.agent_1.fw_1.task_2", Bytes::from("131"), "131").await.is_ok()).await;
    let mut reader = store.events(Start::All, "meso.c1.ev.>").await.expect("a reader");
    let read = backlog(&mut reader).await;
    assert!(read.starts_with(&(101..115).map(|number| number.to_string()).collect::<Vec<_>>()), "{read:?}");
    assert!(read.last().is_some_and(|last| last == "131" || last == "unreadable"), "{read:?}");
    assert_eq!(store.can_read_last().await.expect("answered"), read.contains(&"131".to_owned()));
    store.renew_events(1).await.expect("made anew");
    record(&bus, "task_1", 132).await;
    assert_eq!(store.can_read_last().await, Ok(true));
    assert_eq!(read_up_to(&mut reader, 132).await, [132]);
    assert_eq!(store.last_recorded("meso.c1.ev.agent_1.fw_1.task_1").await, Ok(Some(Bytes::from("132"))));
    assert_eq!(store.last_recorded("meso.c1.ev.agent_1.fw_1.task_2").await, Ok(None));
}

/// A reader that was told by another what was read last goes on behind it, and begins before its moment if something else
/// stands in its place.
#[tokio::test]
async fn told_by_another() {
    let server = server();
    let (bus, store) = store(&server).await;
    for number in 1..=4 {
        record(&bus, "task_1", number).await;
    }
    let mut all = store.events(Start::All, "meso.c1.ev.>").await.expect("a reader");
    let mut times = Vec::new();
    while let Item::Event(event) = next(&mut all).await {
        times.push(event.time_ms);
    }
    let behind = async |seq: u64, time_ms| store.events(Start::Behind { seq, time_ms }, "meso.c1.ev.>").await.expect("a reader");
    assert_eq!(backlog(&mut behind(2, times[1]).await).await, ["3", "4"]);
    assert_eq!(next(&mut behind(4, times[3]).await).await, Item::CaughtUp);
    for (seq, time_ms) in [(2, times[1] - 1), (5, times[3])] {
        let mut reader = behind(seq, time_ms).await;
        assert_eq!(next(&mut reader).await, Item::Reset);
        assert_eq!(backlog(&mut reader).await, ["1", "2", "3", "4"]);
    }
}

/// A bucket stores over the expected revision only, and tells that apart from everything else.
#[tokio::test]
async fn buckets() {
    let server = server();
    let (bus, store) = store(&server).await;
    let registry = store.registry();
    assert_eq!(registry.get("a").await, Ok(None));
    assert_eq!(registry.get_all().await, Ok(BTreeMap::new()));
    let first = registry.put("a", Bytes::from("1"), 0).await.expect("stored");
    let wrong = Err(BusError::WrongRevision { key: "a".into() });
    assert_eq!(registry.put("a", Bytes::from("2"), 0).await, wrong);
    assert_eq!(registry.put("a", Bytes::from("2"), first + 1).await, wrong);
    assert_eq!(registry.get("a").await, Ok(Some((Bytes::from("1"), first))));
    let second = registry.put("a", Bytes::from("2"), first).await.expect("stored");
    let other = registry.put("b.c", Bytes::from("3"), 0).await.expect("stored");
    let all = BTreeMap::from([("a".into(), (Bytes::from("2"), second)), ("b.c".into(), (Bytes::from("3"), other))]);
    assert_eq!(registry.get_all().await, Ok(all));
    assert_eq!(registry.delete("a", first).await, wrong);
    let deleted = registry.delete("a", second).await.expect("deleted");
    assert_eq!(registry.get("a").await, Ok(None));
    assert_eq!(registry.get_all().await.map(|all| all.len()), Ok(1));
    registry.put("a", Bytes::from("4"), deleted).await.expect("stored over the deletion");
    assert_eq!(store.checkpoint().get_all().await, Ok(BTreeMap::new()));
    for key in ["", "a..b", "a.*", ">", "a b"] {
        assert!(matches!(registry.put(key, Bytes::from("1"), 0).await, Err(BusError::Protocol { .. })), "{key:?}");
    }
    assert_eq!(bus.requests_waiting(), 0);
}

/// More keys than one answer of the server can list are all read.
#[tokio::test]
async fn many_keys() {
    const KEYS: usize = 1_500;
    let server = server();
    let (_bus, store) = store(&server).await;
    let checkpoint = store.checkpoint();
    let writing = (0..KEYS).map(|number| {
        let checkpoint = checkpoint.clone();
        async move { checkpoint.put(&format!("k{number}"), Bytes::from(number.to_string()), 0).await }
    });
    for stored in futures::future::join_all(writing).await {
        stored.expect("stored");
    }
    let all = checkpoint.get_all().await.expect("read");
    assert_eq!(all.len(), KEYS);
    assert!(all.iter().all(|(key, (value, _))| key[1..].as_bytes() == value));
}

/// While the server hangs the outcome of a write is unknown, and the write may still happen.
#[tokio::test]
async fn unknown_outcomes() {
    let server = server();
    let bus = connect(&meso_bus::BusOptions { ping_ms: 60_000, ..daemon_options(&server, "m1") }).await;
    let store = Store::new(&bus);
    store.ensure(1).await.expect("streams and buckets");
    server.pause().expect("paused");
    let registry = store.registry();
    let stored = tokio::time::timeout(2 * PATIENCE, registry.put("a", Bytes::from("1"), 0)).await.expect("a limit of its own");
    assert!(matches!(&stored, Err(error @ BusError::Timeout { .. }) if error.is_ambiguous()), "{stored:?}");
    server.resume().expect("resumed");
    eventually("it happened after all", async || matches!(registry.get("a").await, Ok(Some(_)))).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(bus.settle(10 * SECOND).await.is_ok());
}
