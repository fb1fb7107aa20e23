//! All tasks of before are ended, and their ends written down, before the agent speaks to anybody.

use std::rc::Rc;

use meso_bus::driver::{Clock, Outside, drive};
use meso_cli::{Failure, complain};
use meso_core::agent::{Agent, Effect, Event, KILL_GRACE_MS};
use meso_core::wire::Launch;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep};

use crate::containers::Containers;
use crate::keeper::Keeper;

/// How long tasks have to end beyond their own grace.
const END_WAIT: Duration = Duration::from_secs(20);
/// How often it is looked whether all have ended.
const TURN: Duration = Duration::from_millis(20);
/// The reason in the statuses of what is ended.
const REASON: &str = "agent_cleanup";

struct Cleanup<'a> {
    keeper: &'a mut Keeper,
    containers: Rc<Containers>,
}

impl Outside<Agent> for Cleanup<'_> {
    type Fatal = Failure;

    /// What is for the bus is left out: it is said by the agent that follows, which knows it from the log.
    async fn perform(&mut self, machine: &mut Agent, effects: Vec<Effect>) -> Result<(), Failure> {
        self.keeper.persist(machine, &effects).await?;
        for effect in effects {
            if let Effect::Kill { task, grace_ms } = effect {
                if let Some(launch) = machine.launch_of(&task) {
                    self.containers.kill(launch, grace_ms);
                }
            }
        }
        Ok(())
    }
}

/// Ends what runs.
///
/// # Errors
/// Some task does not end, whatever is done to it, or nothing can be written.
pub async fn clean_up(
    clock: Clock,
    machine: &mut Agent,
    keeper: &mut Keeper,
    containers: &Rc<Containers>,
    sender: &mpsc::Sender<Event>,
    events: &mut mpsc::Receiver<Event>,
) -> Result<(), Failure> {
    let live: Vec<Launch> = machine.live().cloned().collect();
    if live.is_empty() {
        return Ok(());
    }
    let (count, longest_ms) = (live.len(), live.iter().map(|launch| launch.spec.kill_grace.map_or(KILL_GRACE_MS, |span| span.0)).max().unwrap_or(0));
    let until = Instant::now() + END_WAIT + Duration::from_millis(longest_ms);
    let mut outside = Cleanup { keeper, containers: Rc::clone(containers) };
    let find = {
        let (containers, sender) = (Rc::clone(containers), sender.clone());
        async move {
            containers.recover(live).await;
            let _ = sender.send(Event::EndAll { reason: REASON }).await;
        }
    };
    tokio::task::spawn_local(find);
    while machine.live().next().is_some() {
        if Instant::now() >= until {
            let left: Vec<String> = machine.live().map(|launch| launch.task.to_string()).collect();
            return Err(Failure::failed(format!("{} tasks do not end: {}", left.len(), left.join(", "))).hint("see with ps what they wait for; a process that the kernel holds goes with the machine"));
        }
        drive(clock, machine, &mut outside, events, sleep(TURN)).await?;
    }
    complain(&format!("ended {count} tasks of before"));
    Ok(())
}
