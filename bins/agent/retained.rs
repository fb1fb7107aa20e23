//! Whose container is which: for readers of output while a task runs, and for as long as its output is kept after.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meso_cage::machine::Room;
use meso_cage::{Cage, clear};
use meso_cli::{complain, io_text};
use meso_core::id::{Nonce, Principal, TaskId};
use meso_core::wire::Launch;
use serde::{Deserialize, Serialize};

use crate::containers::container_id;

/// How many ended tasks' outputs and sandboxes are kept; the oldest go first.
pub const KEPT_MAX: usize = 2_000;
/// What has just ended is kept so long at least, however full the disk is: its output is still being read.
const KEPT_AT_LEAST: Duration = Duration::from_secs(30);
/// The most that is removed at one go; the rest follows.
const REMOVED_AT_ONCE_MAX: usize = 100;
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

/// How long what ended is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// On an empty disk.
    pub delay: Duration,
    /// The part of the disk that is to stay free, 0 to 1: the fuller it is, the sooner things go, and at once when only so much is left.
    pub headroom: f64,
}

impl Limits {
    /// How long something is kept on a disk as full as this.
    fn keep(&self, room: Option<Room>, is_faulty: bool) -> Duration {
        let used = room.filter(|room| room.all_bytes > 0).map_or(0.0, |room| 1.0 - room.free_bytes as f64 / room.all_bytes as f64);
        let part = if is_faulty { 0.0 } else { (1.0 - self.headroom - used).clamp(0.0, 1.0) };
        self.delay.mul_f64(part).max(KEPT_AT_LEAST.min(self.delay))
    }
}

/// The table of containers.
pub struct Retained {
    cage: Arc<Cage>,
    work_dir: PathBuf,
    limits: Limits,
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    by_task: BTreeMap<TaskId, Owner>,
    /// With when they ended, the oldest first.
    ended: VecDeque<(SystemTime, Owner)>,
    /// The containers of those.
    kept: BTreeSet<String>,
    /// Sandboxes that are nobody's: an agent before this one died while it removed them, or before it had made them known.
    strays: Vec<PathBuf>,
    is_removing: bool,
}

impl Retained {
    /// Reads what earlier runs left; of `unsettled` tasks somebody is still to hear the end, and may read the output then.
    pub fn read(cage: Arc<Cage>, work_dir: PathBuf, limits: Limits, unsettled: &[Launch]) -> Rc<Self> {
        let claimed: BTreeSet<String> = unsettled.iter().map(container_id).collect();
        let listed = cage.list();
        let mut ended: Vec<(SystemTime, Owner)> = Vec::new();
        for id in listed.iter().flatten().filter(|id| !claimed.contains(*id)) {
            let Ok(dir) = cage.dir(id) else { continue };
            let owner = fs::read(dir.join(OWNER_FILE)).ok().and_then(|bytes| serde_json::from_slice::<Owner>(&bytes).ok());
            let when = fs::metadata(&dir).and_then(|meta| meta.modified()).unwrap_or(UNIX_EPOCH);
            ended.extend(owner.map(|owner| (when, owner)));
        }
        ended.sort_by_key(|(when, _)| *when);
        // Nobody knows whose the others were: they are ended and removed with all that is in them.
        let known: Vec<&str> = claimed.iter().chain(ended.iter().map(|(_, owner)| &owner.container)).map(String::as_str).collect();
        match cage.orphans(&known) {
            Ok(orphans) if !orphans.is_empty() => complain(&format!("removed {} containers that belonged to nobody", orphans.len())),
            Ok(_) => {}
            Err(error) => complain(&format!("cannot remove what belongs to nobody: {error}")),
        }
        let has_all = listed.is_ok();
        let this = Rc::new(Retained { cage, work_dir, limits, inner: RefCell::default() });
        {
            let mut inner = this.inner.borrow_mut();
            for (when, owner) in ended {
                inner.by_task.insert(owner.task.clone(), owner.clone());
                inner.kept.insert(owner.container.clone());
                inner.ended.push_back((when, owner));
            }
        }
        for launch in unsettled {
            this.began(launch);
        }
        if has_all {
            this.find_strays();
        }
        this
    }

    fn find_strays(&self) {
        let mut inner = self.inner.borrow_mut();
        let known: BTreeSet<&Path> = inner.by_task.values().chain(inner.ended.iter().map(|(_, owner)| owner)).map(|owner| owner.sandbox.as_path()).collect();
        let there = fs::read_dir(self.work_dir.join("sandboxes")).into_iter().flatten().flatten().map(|entry| entry.path());
        let strays: Vec<PathBuf> = there.filter(|path| !known.contains(path.as_path())).collect();
        inner.strays = strays;
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

    /// The task is forgotten by the machine: its output is kept until there are too many, or it is too old.
    pub async fn settled(&self, task: &TaskId) {
        let Some(owner) = self.owner(task) else { return };
        let surplus = {
            let mut inner = self.inner.borrow_mut();
            // A task that ended under an earlier process of this agent was found by its output already.
            if inner.kept.insert(owner.container.clone()) {
                inner.ended.push_back((SystemTime::now(), owner.clone()));
            }
            let over = inner.ended.len().saturating_sub(KEPT_MAX);
            inner.forget(over)
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

    /// Removes what has been kept for long enough, on a disk as full as this.
    pub fn collect(self: &Rc<Self>, room: Option<Room>, is_faulty: bool) {
        let keep = self.limits.keep(room, is_faulty);
        let (old, strays) = {
            let mut inner = self.inner.borrow_mut();
            if inner.is_removing {
                return;
            }
            // A clock that was set back makes things young again, not old.
            let is_old = |(when, _): &&(SystemTime, Owner)| when.elapsed().is_ok_and(|age| age >= keep);
            let count = inner.ended.iter().take_while(is_old).take(REMOVED_AT_ONCE_MAX).count();
            let strays = std::mem::take(&mut inner.strays);
            inner.is_removing = count > 0 || !strays.is_empty();
            (inner.forget(count), strays)
        };
        if old.is_empty() && strays.is_empty() {
            return;
        }
        let (this, cage) = (Rc::clone(self), Arc::clone(&self.cage));
        tokio::task::spawn_local(async move {
            let _ = tokio::task::spawn_blocking(move || {
                for gone in old {
                    remove(&cage, &gone.container, &gone.sandbox);
                }
                strays.iter().for_each(|sandbox| remove_sandbox(sandbox));
            })
            .await;
            this.inner.borrow_mut().is_removing = false;
        });
    }
}

impl Inner {
    /// Takes the oldest out of the table.
    fn forget(&mut self, count: usize) -> Vec<Owner> {
        let old: Vec<Owner> = self.ended.drain(..count).map(|(_, owner)| owner).collect();
        for gone in &old {
            self.kept.remove(&gone.container);
            // The id may have been used again since: only its own entry goes.
            if self.by_task.get(&gone.task).is_some_and(|known| known.container == gone.container) {
                self.by_task.remove(&gone.task);
            }
        }
        old
    }
}

fn remove(cage: &Cage, container: &str, sandbox: &Path) {
    if let Err(error) = cage.remove(container) {
        complain(&format!("cannot remove what is kept of container {container}: {error}"));
    }
    remove_sandbox(sandbox);
}

fn remove_sandbox(sandbox: &Path) {
    if let Err(error) = clear(sandbox) {
        complain(&format!("cannot remove all of {}: {}", sandbox.display(), io_text(&error)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that things are kept for less time the fuller the disk is, and that what has just ended is kept in any case.
    #[test]
    fn kept_by_room() {
        let limits = Limits { delay: Duration::from_secs(1000), headroom: 0.1 };
        let room = |free: u64| Some(Room { all_bytes: 1000, free_bytes: free, free_files: None, is_read_only: false });
        let keep = |room, is_faulty| limits.keep(room, is_faulty).as_secs_f64().round();
        assert_eq!([keep(room(1000), false), keep(room(600), false), keep(room(100), false), keep(room(0), false)], [900.0, 500.0, 30.0, 30.0]);
        assert_eq!([keep(room(1000), true), keep(None, false)], [30.0, 900.0]);
        let short = Limits { delay: Duration::from_secs(2), ..limits };
        assert_eq!(short.keep(room(1000), false).as_secs(), 2);
    }
}
