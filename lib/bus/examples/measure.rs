//! Measures what the bus costs a short command, and what a crash of the server costs an event
//!
//! `cargo run --release -p meso-bus --example measure` starts a server of its own.

use std::time::{Duration, Instant};

use bytes::Bytes;
use meso_bus::testserver::{Server, ServerSpec};
use meso_bus::{Bus, BusError, BusOptions, Store, inbox_of};
use meso_core::id::Name;

const PATIENCE: Duration = Duration::from_secs(10);
const ROUNDS: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<(), Box<dyn std::error::Error>> {
    let mut server = Server::start(ServerSpec::default())?;
    let (major, minor, patch) = server.version();
    println!("nats-server {major}.{minor}.{patch}");
    let options = BusOptions::new(&server.url(), &Name::parse("c1")?, inbox_of("ann"), "measure");
    let answering = Bus::connect(&options, PATIENCE).await?;
    let mut questions = answering.subscribe("meso.c1.q.ann.x").await?;
    answering.settle(PATIENCE).await?;
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            let _ = answering.answer(&question, Bytes::new()).await;
        }
    });
    let (mut connecting, mut asking, mut closing) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let bus = Bus::connect(&options, PATIENCE).await?;
        connecting.push(start.elapsed());
        let start = Instant::now();
        bus.request("meso.c1.q.ann.x", Bytes::new(), PATIENCE).await?;
        asking.push(start.elapsed());
        let start = Instant::now();
        bus.close().await?;
        closing.push(start.elapsed());
    }
    for (what, mut times) in [("connect", connecting), ("request", asking), ("close", closing)] {
        times.sort();
        println!("{what}: p50 {:?} p99 {:?}", times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
    }
    for wait_ms in [0, 1, 10, 100, 1_000, 3_000] {
        println!("an event acknowledged {wait_ms} ms before a crash is {}", crash(&mut server, &options, wait_ms).await?);
    }
    Ok(())
}

async fn crash(server: &mut Server, options: &BusOptions, wait_ms: u64) -> Result<&'static str, Box<dyn std::error::Error>> {
    let bus = Bus::connect(options, PATIENCE).await?;
    Store::new(&bus).ensure(1).await?;
    let subject = format!("meso.c1.ev.agent_1.fw_1.after_{wait_ms}");
    bus.publish_stored(&subject, Bytes::from("x"), &subject).await?;
    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    server.kill()?;
    server.restart()?;
    let bus = Bus::connect(options, PATIENCE).await?;
    let found = match Store::new(&bus).last_event(&subject).await {
        Ok(found) => found.is_some(),
        Err(BusError::Store { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    Ok(if found { "kept" } else { "lost" })
}
