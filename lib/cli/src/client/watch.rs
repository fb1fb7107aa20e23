//! The ends of tasks, as they come
use crate::Failure;
use crate::client::{Found, Leader, is_later, known_tasks, read_status};
use meso_bus::{EventReader, Item, Start, Store};
use meso_core::id::TaskId;
use meso_core::task::TaskState;
use meso_core::wire::Update;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How often the leader is asked what became of the tasks, should an event have been lost.
const LOOK_MS: u64 = 30_000;
/// How long such a look may take; the next one comes anyway.
const LOOK_MS_MAX: u64 = 5_000;
/// After so many looks in a row at which nobody knew what became of a task, nobody will.
const UNKNOWN_LOOKS_MAX: u32 = 4;

/// What to say of a task that is told as unknown.
pub fn fate_unknown(task: &TaskId) -> Failure {
    let what = format!("nobody knows what became of {task}: neither the master nor an agent has it any more, and the record of the bus does not tell its end");
    Failure::failed(what).hint("meso-logs may still have its output")
}

/// Watches tasks until each has ended.
pub struct Watch {
    leader: Leader,
    reader: EventReader,
    /// The tasks that live, each with its latest status.
    live: BTreeMap<TaskId, Update>,
    ended: VecDeque<Update>,
    look_at: Instant,
    /// At how many looks in a row each of those that live was unknown.
    unknown: BTreeMap<TaskId, u32>,
}

impl Watch {
    /// Begins with tasks as they were found; one that has ended is among the first to be told.
    ///
    /// # Errors
    /// Those of the bus.
    pub async fn begin(leader: &Leader, tasks: &[Found]) -> Result<Self, Failure> {
        let subjects = leader.bus().subjects();
        let filter = match tasks {
            [only] => subjects.events_of_any(&only.update.task),
            _ => subjects.events(),
        };
        let reader = Store::new(leader.bus()).events(Start::New, &filter).await?;
        let mut watch = Self { leader: leader.clone(), reader, live: BTreeMap::new(), ended: VecDeque::new(), look_at: Instant::now(), unknown: BTreeMap::new() };
        for found in tasks {
            let update = found.update.clone();
            if update.is_final {
                watch.ended.push_back(update);
            } else {
                watch.live.insert(update.task.clone(), update);
            }
        }
        // What ended since the tasks were found was told before we listened.
        watch.look().await;
        Ok(watch)
    }

    /// The latest status of each task that lives.
    pub fn live(&self) -> impl Iterator<Item = &Update> {
        self.live.values()
    }

    /// The final status of the next task that ends; `None` once all have. One that nobody knows any more, as after a bus lost
    /// its record of one that had ended, is told as [`TaskState::Unknown`] and waited for no longer; the others are.
    ///
    /// Can be dropped while it waits: nothing is lost. A bus that goes away is waited for.
    ///
    /// # Errors
    /// Those of the bus that waiting cannot mend.
    pub async fn next(&mut self) -> Result<Option<Update>, Failure> {
        loop {
            if let Some(update) = self.ended.pop_front() {
                return Ok(Some(update));
            }
            if self.live.is_empty() {
                return Ok(None);
            }
            let look_at = self.look_at;
            let item = tokio::select! {
                item = self.reader.next() => Some(item?),
                () = sleep_until(look_at) => None,
            };
            match item {
                Some(Item::Event(event)) => {
                    if let Some(update) = read_status(&self.leader, &event) {
                        self.take(update);
                    }
                }
                Some(Item::CaughtUp) => {}
                // The record was lost, or a part of it: what it would have told, the leader knows.
                Some(Item::Reset | Item::Unreadable) => self.look_at = Instant::now(),
                None => self.look().await,
            }
        }
    }

    /// Asks leader and record; whoever does not answer is asked again later.
    async fn look(&mut self) {
        // Moved on first, so that a look that is dropped half way is not repeated at once.
        self.look_at = Instant::now() + Duration::from_millis(LOOK_MS);
        if self.live.is_empty() {
            return;
        }
        let prefix = match self.live.first_key_value() {
            Some((only, _)) if self.live.len() == 1 => only.to_string(),
            _ => String::new(),
        };
        let Ok(rows) = self.leader.tasks(&prefix, Duration::from_millis(LOOK_MS_MAX)).await else { return };
        let mut unknown: BTreeSet<TaskId> = self.live.keys().cloned().collect();
        for row in rows {
            unknown.remove(&row.update.task);
            self.take(row.update);
        }
        if !unknown.is_empty() {
            let Ok(known) = known_tasks(&self.leader, Duration::from_millis(LOOK_MS_MAX)).await else { return };
            for update in known.into_values().filter(|update| update.state != TaskState::Unknown) {
                unknown.remove(&update.task);
                self.take(update);
            }
        }
        self.unknown = unknown.into_iter().map(|task| (task.clone(), self.unknown.get(&task).unwrap_or(&0) + 1)).collect();
        let lost: Vec<TaskId> = self.unknown.iter().filter(|(_, looks)| **looks >= UNKNOWN_LOOKS_MAX).map(|(task, _)| task.clone()).collect();
        for task in lost {
            self.unknown.remove(&task);
            self.ended.extend(self.live.remove(&task).map(|last| Update { state: TaskState::Unknown, ..last }));
        }
    }

    fn take(&mut self, update: Update) {
        let Some(known) = self.live.get_mut(&update.task) else { return };
        // Nobody but its own agent, or the master, is believed about a task.
        let is_its_own = known.agent.is_none() || known.agent == update.agent;
        if !is_its_own || known.framework != update.framework || !is_later(&update, known) {
            return;
        }
        if update.is_final {
            self.live.remove(&update.task);
            self.ended.push_back(update);
        } else {
            *known = update;
        }
    }
}
