//! Tasks found by what a person typed: those the leader knows, and those that only the record still knows
use crate::client::Leader;
use crate::{Candidate, Failure, NotOne, Selector, resolve};
use meso_bus::subjects::Address;
use meso_bus::{Item, Start, Store, StoredEvent};
use meso_core::id::{Nonce, TaskId};
use meso_core::wire::Update;
use meso_core::wire::query::TaskRow;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// So few are asked for one by one; more, as one table.
const ASKED_ALONE_MAX: usize = 4;
/// The record is read no longer than this.
const RECORD_MS: u64 = 20_000;
/// Tasks of the record held at most; older ones are passed over.
const RECORD_TASKS_MAX: usize = 1_000_000;

/// A task that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its latest status.
    pub update: Update,
    /// Opens its output, where we own it and the leader knows it.
    pub token: Option<Nonce>,
}

/// Finds the task that each selector means, in their order.
///
/// What the leader knows wins, living before ended; only then the record is looked at, so that a name in use is not made ambiguous by its past.
///
/// # Errors
/// Nobody leads within `limit`, or the bus fails; what concerns one selector only is its own result.
pub async fn find_tasks(leader: &Leader, selectors: &[Selector], limit: Duration) -> Result<Vec<Result<Found, NotOne>>, Failure> {
    let (rows, mut silence) = match known_to_leader(leader, selectors, limit).await {
        Ok(rows) => (rows, None),
        // What ended is in the record too: without a leader that much can still be told.
        Err(failure) => (Vec::new(), Some(failure)),
    };
    let (live, ended): (Vec<Found>, Vec<Found>) = rows.into_iter().map(|row| Found { update: row.update, token: row.token }).partition(|found| !found.update.is_final);
    let me = leader.principal().as_str();
    let shelves = [Shelf::of(live), Shelf::of(ended)];
    let mut record = None;
    let mut results = Vec::with_capacity(selectors.len());
    for selector in selectors {
        let mut result = match selector {
            Selector::Last => newest(&shelves, me),
            Selector::Text(_) => shelves[0].find(selector, me),
        };
        if is_nothing(&result) {
            result = shelves[1].find(selector, me);
        }
        if is_nothing(&result) {
            match (from_record(leader, selector, &mut record, me).await, silence.take()) {
                (Ok(found), None) => result = found,
                (Ok(found), Some(failure)) if !is_nothing(&found) => (result, silence) = (found, Some(failure)),
                // Nobody could have told: that is no "no".
                (_, Some(failure)) => return Err(failure),
                // The record is a second source only: without it the leader's word stands.
                (Err(_), None) => {}
            }
        }
        results.push(result);
    }
    Ok(results)
}

/// The latest status of every task that the record still knows, by id.
///
/// # Errors
/// Those of the bus, and `Unreachable` if reading takes too long.
pub async fn recorded_tasks(leader: &Leader) -> Result<BTreeMap<TaskId, Update>, Failure> {
    let bus = leader.bus();
    let deadline = Instant::now() + Duration::from_millis(RECORD_MS);
    let mut tasks: BTreeMap<TaskId, Update> = BTreeMap::new();
    let reading = async {
        let mut reader = Store::new(bus).events(Start::LastPerSubject, &bus.subjects().events()).await?;
        loop {
            match reader.next().await? {
                Item::CaughtUp => return Ok(()),
                Item::Reset => tasks.clear(),
                // Of what can be read the best is made; the leader knows more.
                Item::Unreadable => {}
                Item::Event(event) => {
                    if let Some(update) = read_status(leader, &event) {
                        if tasks.len() < RECORD_TASKS_MAX || tasks.contains_key(&update.task) {
                            keep_later(&mut tasks, update);
                        }
                    }
                }
            }
        }
    };
    match timeout_at(deadline, reading).await {
        Ok(Ok(())) => Ok(tasks),
        Ok(Err::<(), meso_bus::BusError>(error)) => Err(error.into()),
        Err(_) => Err(Failure::unreachable(format!("reading the record took more than {} s", RECORD_MS / 1000)).hint("the same again")),
    }
}

/// Reads a recorded event as the status of a task; none if it is no such thing, or is not believed.
///
/// An agent may speak under its own name only, and of tasks that it says are its own; the master may speak of all.
pub fn read_status(leader: &Leader, event: &StoredEvent) -> Option<Update> {
    let Some(Address::Event { agent, framework: Some(framework), last }) = leader.bus().subjects().parse(&event.subject) else { return None };
    let update: Update = serde_json::from_slice(&event.payload).ok()?;
    let is_its_own = update.task.as_str() == last && update.framework == framework && (agent.is_none() || agent == update.agent);
    is_its_own.then_some(update)
}

/// Whether a status tells more than the one before: the first end of a launch stands, and else the later one.
pub fn is_later(update: &Update, than: &Update) -> bool {
    // An agent that was declared gone may still tell another end of what ended with it.
    let stands = than.is_final && update.launch == than.launch;
    !stands && (update.is_final, update.seq, update.ts_ms) > (than.is_final, than.seq, than.ts_ms)
}

fn keep_later(tasks: &mut BTreeMap<TaskId, Update>, update: Update) {
    match tasks.get_mut(&update.task) {
        Some(known) if !is_later(&update, known) => {}
        Some(known) => *known = update,
        None => drop(tasks.insert(update.task.clone(), update)),
    }
}

async fn known_to_leader(leader: &Leader, selectors: &[Selector], limit: Duration) -> Result<Vec<TaskRow>, Failure> {
    let texts: Vec<&str> = selectors.iter().filter_map(|selector| if let Selector::Text(text) = selector { Some(text.as_str()) } else { None }).collect();
    if texts.len() < selectors.len() || texts.len() > ASKED_ALONE_MAX {
        return leader.tasks("", limit).await;
    }
    let deadline = Instant::now() + limit;
    let mut rows = Vec::new();
    for text in texts {
        rows.extend(leader.tasks(text, deadline.saturating_duration_since(Instant::now())).await?);
    }
    Ok(rows)
}

async fn from_record(leader: &Leader, selector: &Selector, record: &mut Option<Shelf>, me: &str) -> Result<Result<Found, NotOne>, Failure> {
    if let Selector::Text(text) = selector {
        if let Some(update) = last_status(leader, text).await? {
            return Ok(Ok(Found { update, token: None }));
        }
    }
    let shelf = match record {
        Some(shelf) => shelf,
        None => {
            let tasks = recorded_tasks(leader).await?;
            record.insert(Shelf::of(tasks.into_values().map(|update| Found { update, token: None }).collect()))
        }
    };
    Ok(shelf.find(selector, me))
}

/// The latest recorded status of the task of that very id.
async fn last_status(leader: &Leader, id: &str) -> Result<Option<Update>, Failure> {
    let Ok(task) = TaskId::parse(id) else { return Ok(None) };
    let bus = leader.bus();
    let deadline = Instant::now() + Duration::from_millis(RECORD_MS);
    // Agent and master may each have had a last word.
    let reading = async {
        let mut tasks = BTreeMap::new();
        let mut reader = Store::new(bus).events(Start::LastPerSubject, &bus.subjects().events_of_any(&task)).await?;
        loop {
            match reader.next().await? {
                Item::CaughtUp => return Ok(tasks.remove(&task)),
                Item::Reset => tasks.clear(),
                Item::Unreadable => {}
                Item::Event(event) => drop(read_status(leader, &event).map(|update| keep_later(&mut tasks, update))),
            }
        }
    };
    match timeout_at(deadline, reading).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err::<_, meso_bus::BusError>(error)) => Err(error.into()),
        Err(_) => Err(Failure::unreachable(format!("reading the record took more than {} s", RECORD_MS / 1000)).hint("the same again")),
    }
}

fn is_nothing(result: &Result<Found, NotOne>) -> bool {
    matches!(result, Err(NotOne::NotFound(_) | NotOne::NoneIsMine))
}

/// The newest of one's own, wherever it lies: a task that has ended since is no less the newest.
fn newest(shelves: &[Shelf; 2], me: &str) -> Result<Found, NotOne> {
    let all: Vec<Candidate> = shelves.iter().flat_map(|shelf| shelf.candidates.iter().cloned()).collect();
    let chosen = resolve(&Selector::Last, &all, me)?;
    shelves.iter().find_map(|shelf| shelf.tasks.get(&chosen.id).cloned()).ok_or(NotOne::NoneIsMine)
}

/// Tasks to choose from.
struct Shelf {
    candidates: Vec<Candidate>,
    tasks: BTreeMap<String, Found>,
}

impl Shelf {
    fn of(tasks: Vec<Found>) -> Self {
        let tasks: BTreeMap<String, Found> = tasks.into_iter().map(|found| (found.update.task.to_string(), found)).collect();
        let candidates = tasks
            .values()
            .map(|Found { update, .. }| Candidate {
                id: update.task.to_string(),
                name: update.name.as_ref().map(ToString::to_string).unwrap_or_default(),
                principal: update.principal.to_string(),
                ts_ms: if update.started_ms > 0 { update.started_ms } else { update.ts_ms },
            })
            .collect();
        Self { candidates, tasks }
    }

    fn find(&self, selector: &Selector, me: &str) -> Result<Found, NotOne> {
        let chosen = resolve(selector, &self.candidates, me)?;
        self.tasks.get(&chosen.id).cloned().ok_or_else(|| NotOne::NotFound(chosen.id.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::sample::update;
    use crate::client::testleader::TestLeader;
    use meso_core::id::AgentId;
    use meso_core::task::TaskState;
    use meso_core::wire::query::Rows;

    const LIMIT: Duration = Duration::from_secs(10);

    fn row(id: &str, name: &str, state: TaskState) -> TaskRow {
        let mut update = update(id, state);
        update.name = Some(name.parse().expect("a name"));
        TaskRow { update, token: None }
    }

    async fn find(cluster: &TestLeader, text: &str) -> Result<String, String> {
        let selectors = [text.parse().expect("it could be an id or a name")];
        match find_tasks(&cluster.leader(), &selectors, LIMIT).await.expect("it leads").remove(0) {
            Ok(found) => Ok(format!("{} {}", found.update.task, found.update.state)),
            Err(not_one) => Err(not_one.to_string()),
        }
    }

    /// Shows who wins: a living task over an ended one of its name, the leader over the record, the end over what came before it.
    #[tokio::test]
    async fn living_ended_recorded() {
        let cluster = TestLeader::with_record().await;
        let mut rows = vec![row("task_live", "web", TaskState::Running), row("task_past", "web", TaskState::Failed), row("task_twin1", "twin", TaskState::Killed), row("task_twin2", "twin", TaskState::Killed)];
        rows[3].update.started_ms = rows[0].update.started_ms + 1;
        cluster
            .answer_queries(move |query| {
                let fits = |row: &&TaskRow| row.update.task.as_str().starts_with(&query.prefix) || row.update.name.as_ref().is_some_and(|name| name.as_str().starts_with(&query.prefix));
                Rows::Tasks { page: rows.iter().filter(fits).cloned().collect(), next: String::new() }
            })
            .await;
        let mut old = row("task_old", "ancient", TaskState::Running).update;
        cluster.record(&old).await;
        (old.state, old.is_final, old.exit, old.seq) = (TaskState::Finished, true, Some(0), 4);
        cluster.record(&old).await;
        // Another agent speaks of the same task: it may publish that, and is not believed.
        let mut lie = old.clone();
        (lie.state, lie.seq) = (TaskState::Failed, 9);
        cluster.record_as(&AgentId::parse("agent_2").expect("an id"), &lie).await;

        assert_eq!(find(&cluster, "web").await.as_deref(), Ok("task_live running"));
        assert_eq!(find(&cluster, "task_past").await.as_deref(), Ok("task_past failed"));
        assert_eq!(find(&cluster, "@last").await.as_deref(), Ok("task_twin2 killed"), "an ended task that is newer than a living one");
        assert!(find(&cluster, "twin").await.is_err_and(|why| why.starts_with("twin may be any of 2: task_twin1")));
        for text in ["task_old", "ancient", "task_ol"] {
            assert_eq!(find(&cluster, text).await.as_deref(), Ok("task_old finished"), "{text}");
        }
        assert_eq!(find(&cluster, "nobody").await, Err("there is no nobody".to_owned()));
    }

    /// Shows that without a leader the record still tells of the ended, and that silence is never taken for "no such task".
    #[tokio::test]
    async fn without_a_leader() {
        let cluster = TestLeader::with_record().await;
        cluster.record(&update("task_old", TaskState::Finished)).await;
        let ask = async |text: &str| find_tasks(&cluster.leader(), &[text.parse().expect("an id")], Duration::from_millis(300)).await;
        assert!(ask("task_old").await.expect("the record tells").remove(0).is_ok());
        assert!(ask("task_new").await.is_err_and(|failure| failure.what().starts_with("no master answered on nats://")));
    }
}
