use std::time::Duration;

use bytes::Bytes;
use meso_bus::testserver::{Server, ServerSpec};
use meso_bus::{Bus, BusError, BusEvent, BusOptions, Denial};

use crate::{PATIENCE, SECOND, connect, daemon_options, eventually, options, server, server_with, wait_for};

/// Users `ann`, who may use her own subjects only, and `all`, who may do anything.
const USERS: &str = r#"
accounts { A { jetstream: enabled, users: [
  { user: all, password: open }
  { user: ann, password: "s3cret", permissions: {
      publish: { allow: ["meso.c1.q.ann.>", "meso.c1.f2m.ann.>"] }
      subscribe: { allow: ["meso.c1.m2f.ann.>", "_INBOX.ann.>"] } } }
  { user: mute, password: "s3cret", permissions: {
      publish: { allow: ["meso.c1.q.mute.>"] }
      subscribe: { allow: ["nothing"] } } }
] } }
"#;

fn login(options: BusOptions, user: &str, password: &str) -> BusOptions {
    BusOptions { user: Some(user.into()), password: Some(password.into()), ..options }
}

/// Echoes every message on the subject, for as long as the connection lives.
async fn echo(bus: &Bus, subject: &str) {
    let mut questions = bus.subscribe(subject).await.expect("a subscription");
    bus.settle(PATIENCE).await.expect("the server heard of it");
    let bus = bus.clone();
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            bus.answer(&question, question.payload.clone()).await.expect("an answer is sent");
        }
    });
}

/// Where nobody listens, one harmless line says so at once.
#[tokio::test]
async fn nobody_there() {
    let mut server = server();
    server.kill().expect("killed");
    let mut options = options(&server, "ann");
    options.url = options.url.replace("nats://", "nats://ann:s3cret@");
    let error = Bus::connect(&options, PATIENCE).await.err().expect("nobody there");
    assert!(matches!(&error, BusError::Unreachable { why, .. } if why == "connection refused"), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("s3c"), "{error}");
    let mut heard = 0;
    let patient = Bus::connect_patiently(&options, |error, pause_ms| {
        assert!(error.may_pass() && pause_ms > 0);
        heard += 1;
        if heard == 3 {
            server.restart().expect("a server");
        }
    });
    let bus = tokio::time::timeout(PATIENCE, patient).await.expect("in time").expect("a connection");
    assert!(bus.is_connected());
}

/// A server that accepts and says nothing costs the time allowed and no more.
#[tokio::test]
async fn silent_server() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = server();
    let mut options = options(&server, "ann");
    options.url = format!("nats://{}", listener.local_addr().expect("an address"));
    let error = Bus::connect(&options, Duration::from_millis(100)).await.err();
    assert!(matches!(error, Some(BusError::Unreachable { .. })), "{error:?}");
}

/// Of several servers the one that lives is found.
#[tokio::test]
async fn one_of_several() {
    let (mut dead, server) = (server(), server());
    dead.kill().expect("killed");
    for _ in 0..8 {
        let mut options = options(&server, "ann");
        options.url = format!("{},{}", dead.url(), server.url());
        assert!(connect(&options).await.is_connected());
    }
}

/// A question gets its answer; without anybody to answer that is known at once.
#[tokio::test]
async fn questions() {
    let server = server();
    let (master, ann) = (connect(&options(&server, "m1")).await, connect(&options(&server, "ann")).await);
    echo(&master, &master.subjects().queries()).await;
    for text in ["one", "two", ""] {
        let answer = ann.request("meso.c1.q.ann.tasks", Bytes::from(text), PATIENCE).await;
        assert_eq!(answer, Ok(Bytes::from(text)));
    }
    let nobody = ann.request("meso.c1.f2m.ann.accept", Bytes::new(), PATIENCE).await;
    assert!(matches!(nobody, Err(BusError::NoResponders { .. })), "{nobody:?}");
}

/// Questions that are never answered leave nothing behind.
#[tokio::test]
async fn timeouts_leave_nothing() {
    let server = server();
    let (master, ann) = (connect(&options(&server, "m1")).await, connect(&options(&server, "ann")).await);
    let _listening = master.subscribe(&master.subjects().queries()).await.expect("a subscription");
    master.settle(PATIENCE).await.expect("the server heard of it");
    let asking = (0..500).map(|_| ann.request("meso.c1.q.ann.tasks", Bytes::new(), Duration::from_millis(50)));
    for answer in futures::future::join_all(asking).await {
        assert!(matches!(&answer, Err(BusError::Timeout { .. })), "{answer:?}");
        assert!(answer.is_err_and(|error| error.is_ambiguous()));
    }
    assert_eq!(ann.requests_waiting(), 0);
}

/// What a short-lived tool publishes arrives, although it closes at once.
#[tokio::test]
async fn closing_delivers() {
    const TOOLS: usize = 50;
    let server = server();
    let master = connect(&options(&server, "m1")).await;
    let mut seen = master.subscribe("meso.c1.lead").await.expect("a subscription");
    master.settle(PATIENCE).await.expect("the server heard of it");
    for _ in 0..TOOLS {
        let tool = connect(&options(&server, "ann")).await;
        tool.publish("meso.c1.lead", Bytes::from("x")).await.expect("published");
        tool.close().await.expect("closed");
        assert_eq!(tool.publish("meso.c1.lead", Bytes::new()).await, Err(BusError::Closed));
    }
    for _ in 0..TOOLS {
        tokio::time::timeout(PATIENCE, seen.next()).await.expect("in time").expect("a message");
    }
}

/// An answer goes into the caller's own inbox or nowhere.
#[tokio::test]
async fn foreign_replies() {
    let server = server();
    let (master, ann) = (connect(&options(&server, "m1")).await, connect(&options(&server, "ann")).await);
    let mut questions = master.subscribe(&master.subjects().queries()).await.expect("a subscription");
    master.settle(PATIENCE).await.expect("the server heard of it");
    for reply in ["meso.c1.m2a.agent_1.x.cmd", "_INBOX.bob.x", "_INBOX.ann"] {
        ann.publish_with_reply("meso.c1.q.ann.tasks", reply, Bytes::new()).await.expect("published");
        let question = questions.next().await.expect("a question");
        let refused = master.answer(&question, Bytes::new()).await;
        assert!(matches!(&refused, Err(BusError::ForeignReply { .. })), "{reply}: {refused:?}");
        assert_eq!(master.respond(&question, "ann", Bytes::new()).await, refused);
    }
    let inbox = ann.new_inbox();
    let mut answers = ann.subscribe(&inbox).await.expect("a subscription");
    ann.publish_with_reply("meso.c1.q.ann.tasks", &inbox, Bytes::new()).await.expect("published");
    let question = questions.next().await.expect("a question");
    for part in ["1", "2"] {
        master.answer(&question, Bytes::from(part)).await.expect("answered");
        assert_eq!(answers.next().await.map(|answer| answer.payload), Some(Bytes::from(part)));
    }
}

/// What is forbidden is refused at once where an answer is awaited, and told as an event elsewhere.
#[tokio::test]
async fn permissions() {
    let server = server_with(USERS);
    let ann = connect(&login(options(&server, "ann"), "ann", "s3cret")).await;
    let mut events = ann.events();
    let denied = ann.request("meso.c1.q.bob.tasks", Bytes::new(), PATIENCE).await;
    assert_eq!(denied, Err(BusError::Denied { subject: "meso.c1.q.bob.tasks".into() }));
    ann.publish("meso.c1.lead", Bytes::new()).await.expect("the refusal comes later");
    let expected = BusEvent::Denied { subject: "meso.c1.lead".into(), what: Denial::Publish };
    wait_for(&mut events, "denied publish", |event| *event == expected).await;
    let mut foreign = ann.subscribe("meso.c1.m2f.bob.>").await.expect("the refusal comes later");
    assert_eq!(foreign.next().await, None);
    assert_eq!(foreign.denied(), Some(BusError::Denied { subject: "meso.c1.m2f.bob.>".into() }));
    ann.close().await.expect("nothing is lost that was permitted");

    // Without permission for the own inbox no request can ever be answered.
    let mute = connect(&login(options(&server, "mute"), "mute", "s3cret")).await;
    let denied = mute.request("meso.c1.q.mute.tasks", Bytes::new(), PATIENCE).await;
    assert!(matches!(&denied, Err(BusError::Denied { subject }) if subject.starts_with("_INBOX.mute.")), "{denied:?}");
}

/// Wrong credentials end a first connection, and are told when they become wrong later.
#[tokio::test]
async fn credentials() {
    let mut server = server_with(USERS);
    let wrong = Bus::connect(&login(options(&server, "ann"), "ann", "wr0ng"), PATIENCE).await.err();
    assert!(matches!(&wrong, Some(error @ BusError::Credentials { .. }) if !error.may_pass()), "{wrong:?}");
    let mut in_url = options(&server, "ann");
    in_url.url = in_url.url.replace("nats://", "nats://ann:s3cret@");
    assert!(connect(&in_url).await.is_connected());

    let ann = connect(&login(daemon_options(&server, "ann"), "ann", "s3cret")).await;
    let mut events = ann.events();
    server.kill().expect("killed");
    server.set_config(&USERS.replace("s3cret", "changed"));
    server.restart().expect("a server");
    wait_for(&mut events, "credentials", |event| matches!(event, BusEvent::Credentials { .. })).await;
    let missing = BusOptions { creds: Some("/nonexistent/creds".into()), ..options(&server, "ann") };
    let missing = Bus::connect(&missing, PATIENCE).await.err();
    assert!(matches!(&missing, Some(BusError::Credentials { why }) if why.contains("/nonexistent/creds")), "{missing:?}");
}

/// A reader that is too slow is told which subject has a gap, once until it has caught up.
#[tokio::test]
async fn slow_consumers() {
    let server = server();
    let sender = connect(&options(&server, "ann")).await;
    let slow_options = BusOptions { subscription_messages_max: 10, ..options(&server, "m1") };
    let slow = connect(&slow_options).await;
    let mut events = slow.events();
    let _other = slow.subscribe("meso.c1.other").await.expect("a subscription");
    let mut reader = slow.subscribe("meso.c1.lead").await.expect("a subscription");
    slow.settle(PATIENCE).await.expect("the server heard of it");
    for round in 1..=2 {
        for _ in 0..100 {
            sender.publish("meso.c1.lead", Bytes::new()).await.expect("published");
        }
        sender.settle(PATIENCE).await.expect("delivered");
        let event = wait_for(&mut events, "slow consumer", |event| matches!(event, BusEvent::SlowConsumer { .. })).await;
        assert!(matches!(&event, BusEvent::SlowConsumer { subject, .. } if subject == "meso.c1.lead"), "{round}: {event:?}");
        while tokio::time::timeout(Duration::from_millis(300), reader.next()).await.is_ok() {}
    }
}

/// Messages over the limit, and subjects that are none, are refused before they are sent.
#[tokio::test]
async fn unsendable() {
    let server = server_with("max_payload: 100000\n");
    let ann = connect(&options(&server, "ann")).await;
    let ours = ann.publish("meso.c1.lead", Bytes::from(vec![0; 2_000_000])).await;
    assert!(matches!(ours, Err(BusError::TooBig { bytes: 2_000_000, .. })), "{ours:?}");
    let theirs = ann.request("meso.c1.lead", Bytes::from(vec![0; 200_000]), PATIENCE).await;
    assert_eq!(theirs, Err(BusError::TooBig { bytes: 200_000, limit: 100_000 }));
    for subject in ["", "a..b", "a.*", "a b", "a\r\nPUB b 0"] {
        let refused = ann.publish(subject, Bytes::new()).await;
        assert!(matches!(refused, Err(BusError::Protocol { .. })), "{subject:?}: {refused:?}");
    }
    ann.settle(PATIENCE).await.expect("the connection took no harm");
}

/// A daemon survives a restart of the server; nothing is sent, or kept for later, while it is away.
#[tokio::test]
async fn restarts() {
    let mut server = server();
    let (master, ann) = (connect(&daemon_options(&server, "m1")).await, connect(&daemon_options(&server, "ann")).await);
    let tool = connect(&options(&server, "tool")).await;
    echo(&master, &master.subjects().queries()).await;
    let mut events = ann.events();
    server.kill().expect("killed");
    wait_for(&mut events, "disconnected", |event| *event == BusEvent::Disconnected).await;
    let refused = ann.publish("meso.c1.lead", Bytes::new()).await;
    assert!(matches!(refused, Err(BusError::Unreachable { .. })), "{refused:?}");
    let refused = ann.request("meso.c1.q.ann.x", Bytes::new(), Duration::from_millis(100)).await;
    assert!(matches!(refused, Err(BusError::Unreachable { .. })), "{refused:?}");
    server.restart().expect("a server");
    wait_for(&mut events, "connected", |event| *event == BusEvent::Connected).await;
    eventually("an answer again", async || ann.request("meso.c1.q.ann.x", Bytes::new(), SECOND).await.is_ok()).await;
    assert_eq!(tool.request("meso.c1.q.tool.x", Bytes::new(), SECOND).await, Err(BusError::Closed));
}

/// A one-shot's request ends the moment its server does, not when its time is up.
#[tokio::test]
async fn lost_while_waiting() {
    let mut server = server();
    let (master, ann) = (connect(&options(&server, "m1")).await, connect(&options(&server, "ann")).await);
    let _listening = master.subscribe(&master.subjects().queries()).await.expect("a subscription");
    master.settle(PATIENCE).await.expect("the server heard of it");
    let asking = tokio::spawn(async move { ann.request("meso.c1.q.ann.x", Bytes::new(), 20 * PATIENCE).await });
    eventually("the question is under way", async || tokio::time::sleep(Duration::from_millis(50)).await == ()).await;
    server.kill().expect("killed");
    let answer = tokio::time::timeout(PATIENCE, asking).await.expect("in time").expect("no panic");
    assert_eq!(answer, Err(BusError::Closed));
}

/// A server that hangs is noticed by its silence.
#[tokio::test]
async fn frozen_server() {
    let server = server();
    let ann = connect(&daemon_options(&server, "ann")).await;
    let mut events = ann.events();
    server.pause().expect("paused");
    wait_for(&mut events, "disconnected", |event| *event == BusEvent::Disconnected).await;
    server.resume().expect("resumed");
    wait_for(&mut events, "connected", |event| *event == BusEvent::Connected).await;
}

/// A deposed leader's connection never comes back.
#[tokio::test]
async fn abandoned() {
    let mut server = server();
    let master = connect(&daemon_options(&server, "m1")).await;
    let mut events = master.events();
    server.kill().expect("killed");
    wait_for(&mut events, "disconnected", |event| *event == BusEvent::Disconnected).await;
    master.abandon().await;
    server.restart().expect("a server");
    let watching = async {
        while let Some(event) = events.next().await {
            assert!(event != BusEvent::Connected);
        }
    };
    assert!(tokio::time::timeout(2 * SECOND, watching).await.is_err(), "the connection outlives its last event");
    assert_eq!(master.publish("meso.c1.lead", Bytes::new()).await, Err(BusError::Closed));
}

/// Without JetStream the stores say so, and name what is missing.
#[tokio::test]
async fn without_jetstream() {
    let server = Server::start(ServerSpec { without_store: true, ..ServerSpec::default() }).expect("a nats-server");
    let master = connect(&options(&server, "m1")).await;
    let error = meso_bus::Store::new(&master).ensure(1).await.err();
    assert_eq!(error, Some(BusError::NoJetStream { url: server.url() }));
}

/// A crowd whose server was away comes back whole, all at once, and each of it is answered again.
#[tokio::test]
async fn a_crowd_comes_back() {
    const CROWD: usize = 200;
    let mut server = server();
    let mut crowd = Vec::with_capacity(CROWD);
    for number in 0..CROWD {
        crowd.push(connect(&daemon_options(&server, &format!("one{number}"))).await);
    }
    server.kill().expect("it runs");
    for bus in &crowd {
        tokio::time::timeout(PATIENCE, bus.gone()).await.expect("each misses it");
    }
    server.restart().expect("a server");
    for bus in &crowd {
        tokio::time::timeout(PATIENCE, bus.back()).await.expect("each comes back");
        bus.settle(PATIENCE).await.expect("each is heard");
    }
}
