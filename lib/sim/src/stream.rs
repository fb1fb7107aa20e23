//! The stream of statuses: stored once each, in one order for all readers.

use std::collections::HashMap;
use std::rc::Rc;

use meso_core::id::{FrameworkId, TaskId};
use meso_core::wire::Update;

/// Within this time a status sent again is recognised by its message id, milliseconds.
const DUPLICATE_WINDOW_MS: u64 = 120_000;

/// The stored statuses, framework by framework.
#[derive(Debug, Default)]
pub struct SimStream {
    frameworks: HashMap<FrameworkId, Vec<Rc<Update>>>,
    ids: HashMap<(TaskId, u64), u64>,
}

impl SimStream {
    /// Stores a status of an agent; false if it was recognised as stored already.
    pub fn store(&mut self, update: &Rc<Update>, now_ms: u64) -> bool {
        if update.agent_seq > 0 {
            let id = (update.task.clone(), update.seq);
            if self.ids.get(&id).is_some_and(|at_ms| at_ms + DUPLICATE_WINDOW_MS > now_ms) {
                return false;
            }
            self.ids.insert(id, now_ms);
        }
        self.frameworks.entry(update.framework.clone()).or_default().push(Rc::clone(update));
        true
    }

    /// What is stored of a framework from this place on.
    pub fn after(&self, framework: &FrameworkId, place: usize) -> &[Rc<Update>] {
        self.frameworks.get(framework).and_then(|all| all.get(place..)).unwrap_or_default()
    }
}
