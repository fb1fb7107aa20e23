//! What is heard of our tasks: from the leader, from their agents, and from the record where these may be mistaken.

use meso_bus::{Bus, Store, Subscription};
use meso_core::launcher::Event;
use meso_core::wire::Update;
use meso_core::wire::call::Push;
use tokio::sync::mpsc;

use crate::run::Happened;

/// Hands on what the leader sends by itself.
pub async fn hear_pushes(bus: Bus, mut pushes: Subscription, to: mpsc::Sender<Happened>) {
    while let Some(message) = pushes.next().await {
        let event = match serde_json::from_slice(&message.payload) {
            Ok(Push::Known { update }) => told(&bus, *update).await,
            Ok(push) => Event::Push(push),
            Err(_) => continue,
        };
        if to.send(Happened::Machine(event)).await.is_err() {
            return;
        }
    }
}

/// Hands on statuses, and says when some may have been missed.
pub async fn hear_statuses(bus: Bus, mut statuses: Subscription, to: mpsc::Sender<Happened>) {
    while let Some(message) = statuses.next().await {
        if statuses.has_gap() {
            let _ = to.send(Happened::Machine(Event::Gap)).await;
        }
        let Ok(update) = serde_json::from_slice::<Update>(&message.payload) else { continue };
        // A status counts only on the subject of the agent it names; a master's own has no agent in its subject.
        let from = match bus.subjects().parse(&message.subject) {
            Some(meso_bus::Address::Event { agent, .. }) => agent,
            _ => continue,
        };
        let rightful = match &from {
            Some(agent) => update.agent.as_ref() == Some(agent) && update.agent_seq > 0,
            None => update.agent_seq == 0,
        };
        if rightful && to.send(Happened::Machine(told(&bus, update).await)).await.is_err() {
            return;
        }
    }
}

/// A status as an event. What a master says of a task that its agent does not know is checked against the record first:
/// the task may have ended, been settled and forgotten while we were away, under a leader that is gone. To run it again would be to run it twice.
async fn told(bus: &Bus, update: Update) -> Event {
    if let (true, 0, Some(agent)) = (update.is_final && update.state.is_lost(), update.agent_seq, &update.agent) {
        let subject = bus.subjects().status(agent, &update.framework, &update.task);
        match Store::new(bus).last_event(&subject).await {
            Ok(Some(event)) => {
                let said = serde_json::from_slice::<Update>(&event.payload).ok().filter(|said| said.agent.as_ref() == Some(agent) && said.is_final);
                return Event::Update(Box::new(said.unwrap_or(update)));
            }
            Ok(None) => {}
            // Asked again, rather than believed.
            Err(_) => return Event::Gap,
        }
    }
    Event::Update(Box::new(update))
}
