//! What is known of tasks, by leader and record together: the one rule for those that nobody knows any more
use crate::Failure;
use crate::client::{Leader, is_later, recorded_tasks};
use meso_bus::{Bus, BusError, Store};
use meso_core::id::{AgentId, TaskId};
use meso_core::task::TaskState;
use meso_core::wire::Update;
use std::collections::BTreeMap;
use std::time::Duration;

/// The latest status of every task that the leader or the record knows, by id. What lives by the record alone, though its
/// agent has told this leader all that it knows, is `unknown`: its end was lost with a store.
///
/// # Errors
/// Those of the bus; nobody leads within `limit`.
pub async fn known_tasks(leader: &Leader, limit: Duration) -> Result<BTreeMap<TaskId, Update>, Failure> {
    let recorded = recorded_tasks(leader).await?;
    // Asked in this order: a task of the record is known to the leader before, and one of a registered agent from then on.
    let agents: BTreeMap<AgentId, String> = leader.agents(limit).await?.into_iter().map(|row| (row.id, row.state)).collect();
    let rows = leader.tasks("", limit).await?;
    let mut tasks: BTreeMap<TaskId, Update> = rows.into_iter().map(|row| (row.update.task.clone(), row.update)).collect();
    for (id, update) in recorded {
        match tasks.get(&id) {
            // What lives is the leader's to say; of an end, whoever heard of it.
            Some(known) if update.is_final && is_later(&update, known) => drop(tasks.insert(id, update)),
            Some(_) => {}
            None if update.is_final || may_live(&update, &agents) => drop(tasks.insert(id, update)),
            None => drop(tasks.insert(id, unknown(update))),
        }
    }
    Ok(tasks)
}

/// Whether a task that the leader does not know may run on where the leader cannot look.
fn may_live(update: &Update, agents: &BTreeMap<AgentId, String>) -> bool {
    match update.agent.as_ref().and_then(|agent| agents.get(agent)) {
        Some(state) => !matches!(state.as_str(), "active" | "gone"),
        // An agent that the leader does not know is one that nobody has heard of since its registry was lost.
        None => agents.values().any(|state| state == "recovering"),
    }
}

fn unknown(update: Update) -> Update {
    let message = "neither the master nor an agent knows what became of it".to_owned();
    Update { state: TaskState::Unknown, reason: Some("not_known".to_owned()), message: Some(message), ..update }
}

/// The end of a task as its own agent told it and the record has it; none if it has none.
///
/// # Errors
/// Those of the bus; whether there is one is not known then.
pub async fn recorded_end(bus: &Bus, update: &Update) -> Result<Option<Update>, BusError> {
    let Some(agent) = &update.agent else { return Ok(None) };
    let subject = bus.subjects().status(agent, &update.framework, &update.task);
    let last = Store::new(bus).last_recorded(&subject).await?;
    let said = last.and_then(|payload| serde_json::from_slice::<Update>(&payload).ok());
    Ok(said.filter(|said| said.is_final && said.task == update.task && said.agent.as_ref() == Some(agent)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::sample::{agent, update};
    use crate::client::testleader::TestLeader;
    use meso_core::wire::query::{Rows, Table, TaskRow};
    use std::sync::{Arc, Mutex};

    const LIMIT: Duration = Duration::from_secs(10);

    /// Shows that what runs by the record alone is unknown once its agent is there, or gone, and not before; and that
    /// neither what ended nor what the leader knows is touched by that.
    #[tokio::test]
    async fn nobody_knows() {
        let cluster = TestLeader::with_record().await;
        for (seq, task, state) in [(1, "task_ended", TaskState::Finished), (2, "task_known", TaskState::Running), (3, "task_lost", TaskState::Running)] {
            cluster.record(&Update { seq, ..update(task, state) }).await;
        }
        let state = Arc::new(Mutex::new("recovering"));
        let of_agent = state.clone();
        cluster
            .answer_queries(move |query| match query.of {
                Table::Agents => Rows::Agents { page: vec![agent(&of_agent.lock().expect("nobody panics with it"))], next: String::new() },
                _ => Rows::Tasks { page: vec![TaskRow { update: update("task_known", TaskState::Running), token: None }], next: String::new() },
            })
            .await;
        for (word, lost) in [("recovering", TaskState::Running), ("unreachable", TaskState::Running), ("active", TaskState::Unknown), ("gone", TaskState::Unknown)] {
            *state.lock().expect("nobody panics with it") = word;
            let tasks = known_tasks(&cluster.leader(), LIMIT).await.expect("it leads");
            let states: Vec<TaskState> = tasks.values().map(|update| update.state).collect();
            assert_eq!(states, [TaskState::Finished, TaskState::Running, lost], "{word}");
            assert!(tasks.values().all(|update| update.state != TaskState::Unknown || !update.is_final));
        }
    }
}
