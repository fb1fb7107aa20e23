//! Whose container is which: for readers of output while a task runs, and for as long as its output is kept after.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use meso_cage::Cage;
use meso_core::id::{Nonce, Principal, TaskId};
use meso_core::wire::Launch;
use serde::{Deserialize, Serialize};

use crate::containers::container_id;

/// How many ended tasks' outputs and sandboxes are kept; the oldest go first.
pub const KEPT_MAX: usize = 2_000;
/// The file beside an ended container's output that says whose it was.
const OWNER_FILE: &str = "owner";

/// Whose a container is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Owner {
    /// The task.
    pub task: TaskId,
    /// The container's name.
    pub container: String,
    /// Who may read it.
    pub principal: Principal,
    /// What opens it to others.
    pub token: Nonce,
    /// Where its sandbox is.
    pub sandbox: PathBuf,
    /// Whether its output waits for its reader.
    pub attached: bool,
}

impl Owner {
    /// The owner of a launch's container.
    pub fn of(launch: &Launch, sandbox: PathBuf) -> Self {
        Owner {
            task: launch.task.clone(),
            container: container_id(launch),
            principal: launch.principal.clone(),
            token: launch.token.clone(),
            sandbox,
            attached: launch.spec.attached,
        }
    }

    /// Writes it beside the output of a container that ended: before anybody hears of the end, for from then on the agent
    /// may forget the task, and one that starts again knows by this alone that the output is to be kept.
    pub fn write(&self, cage: &Cage) {
        // Without it the output goes with the agent's process; the end itself is told nevertheless.
        if let Ok(dir) = cage.dir(&self.container) {
            let _ = fs::write(dir.join(OWNER_FILE), serde_json::to_vec(self).unwrap_or_default());
        }
    }
}

/// The table of containers.
pub struct Retained {
    cage: Arc<Cage>,
    work_dir: PathBuf,
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    by_task: BTreeMap<TaskId, Owner>,
    ended: VecDeque<Owner>,
    /// The containers of those.
    kept: BTreeSet<String>,
}

impl Retained {
    /// Reads what earlier runs left; `live` are the tasks that still belong to somebody.
    pub fn read(cage: Arc<Cage>, work_dir: PathBuf, live: &[Launch]) -> Rc<Self> {
        let known: Vec<String> = live.iter().map(container_id).collect();
        let mut ended: Vec<(std::time::SystemTime, Owner)> = Vec::new();
        for id in cage.list().unwrap_or_default() {
            if known.contains(&id) {
                continue;
            }
            let Ok(dir) = cage.dir(&id) else { continue };
            let owner = fs::read(dir.join(OWNER_FILE)).ok().and_then(|bytes| serde_json::from_slice::<Owner>(&bytes).ok());
            let when = fs::metadata(&dir).and_then(|meta| meta.modified()).unwrap_or(std::time::UNIX_EPOCH);
            match owner {
                Some(owner) => ended.push((when, owner)),
                // Nobody knows whose it was: an orphan. It is ended and removed with all that is in it.
                None => {
                    let _ = cage.recover(&id);
                    let _ = cage.remove(&id);
                }
            }
        }
        ended.sort_by_key(|(when, _)| *when);
        let this = Rc::new(Retained { cage, work_dir, inner: RefCell::default() });
        {
            let mut inner = this.inner.borrow_mut();
            for (_, owner) in ended {
                inner.by_task.insert(owner.task.clone(), owner.clone());
                inner.kept.insert(owner.container.clone());
                inner.ended.push_back(owner);
            }
        }
        for launch in live {
            this.began(launch);
        }
        this
    }

    /// A container is made for this launch.
    pub fn began(&self, launch: &Launch) {
        let container = container_id(launch);
        let owner = Owner::of(launch, self.work_dir.join("sandboxes").join(format!("{}-{container}", launch.task)));
        self.inner.borrow_mut().by_task.insert(launch.task.clone(), owner);
    }

    /// Whose the task's container is.
    pub fn owner(&self, task: &TaskId) -> Option<Owner> {
        self.inner.borrow().by_task.get(task).cloned()
    }

    /// The task is forgotten by the machine: its output is kept until there are too many.
    pub async fn settled(&self, task: &TaskId) {
        let Some(owner) = self.owner(task) else { return };
        let surplus = {
            let mut inner = self.inner.borrow_mut();
            // A task that ended under an earlier process of this agent was found by its output already.
            if inner.kept.insert(owner.container.clone()) {
                inner.ended.push_back(owner.clone());
            }
            let over = inner.ended.len().saturating_sub(KEPT_MAX);
            let old: Vec<Owner> = inner.ended.drain(..over).collect();
            for gone in &old {
                inner.kept.remove(&gone.container);
                // The id may have been used again since: only its own entry goes.
                if inner.by_task.get(&gone.task).is_some_and(|known| known.container == gone.container) {
                    inner.by_task.remove(&gone.task);
                }
            }
            old
        };
        let cage = Arc::clone(&self.cage);
        let _ = tokio::task::spawn_blocking(move || {
            // A task that wrote nothing into its sandbox leaves none.
            let _ = fs::remove_dir(&owner.sandbox);
            for gone in surplus {
                remove(&cage, &gone.container, &gone.sandbox);
            }
        })
        .await;
    }
}

fn remove(cage: &Cage, container: &str, sandbox: &Path) {
    let _ = cage.remove(container);
    let _ = fs::remove_dir_all(sandbox);
}
