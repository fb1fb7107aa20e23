//! What tasks hold and do not use is measured, so that it may be lent.

use std::rc::Rc;
use std::sync::Arc;

use meso_bus::driver::Clock;
use meso_cage::{Cage, machine};
use meso_cli::{Failure, complain, io_text};
use meso_core::agent::Event;
use meso_core::lend::{Lender, Reading, Sample};
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep};

use crate::containers::{Containers, Running};

/// Whether use can be measured here at all.
///
/// # Errors
/// `Config`, with what is missing.
pub fn check(cage: &Cage) -> Result<(), Failure> {
    if cage.counts_use() {
        return Ok(());
    }
    let why = match cage.isolation() {
        "processes" => "what tasks use is known only of cgroups, and there are none".to_owned(),
        other => format!("{other} do not count both the processor time and the memory of tasks here"),
    };
    Err(Failure::config(format!("cannot lend what tasks do not use: {why}")).hint("start meso-agent as root on a machine with cgroups, or without --oversubscribe"))
}

/// Measures for ever, and says what may be lent each time that changes.
pub async fn lend(cage: Arc<Cage>, containers: Rc<Containers>, clock: Clock, window_ms: u64, events: mpsc::Sender<Event>) {
    let mut lender = Lender::new(window_ms);
    let mut said = None;
    let mut has_complained = false;
    loop {
        let (cage, running) = (Arc::clone(&cage), containers.running());
        // The time is taken beside the numbers: a rate is made of both.
        match tokio::task::spawn_blocking(move || measure(&cage, running).map(|sample| (clock.now_ms(), sample))).await {
            Ok(Ok((now_ms, sample))) => {
                let lent = lender.sample(now_ms, &sample);
                if let Some(resources) = lent.filter(|lent| said.as_ref() != Some(lent)) {
                    said = Some(resources.clone());
                    if events.send(Event::Lent { resources }).await.is_err() {
                        return;
                    }
                }
            }
            Ok(Err(error)) if !has_complained => {
                has_complained = true;
                complain(&format!("cannot measure what is used: {}; what is lent stays as it is", io_text(&error)));
            }
            _ => {}
        }
        sleep(Duration::from_millis(lender.pace_ms())).await;
    }
}

fn measure(cage: &Cage, running: Vec<Running>) -> std::io::Result<Sample> {
    let (mut firm, mut mem_lent_bytes) = (Vec::new(), 0);
    for Running { container, held, lent } in running {
        let used = cage.in_use(&container);
        if lent {
            mem_lent_bytes += used.mem_bytes.unwrap_or(0);
        } else {
            firm.push(Reading { container, held, cpu_us: used.cpu_us, mem_bytes: used.mem_bytes });
        }
    }
    let (mem_total_bytes, mem_available_bytes) = machine::mem_bytes()?;
    Ok(Sample { firm, mem_total_bytes, mem_available_bytes, mem_lent_bytes })
}
