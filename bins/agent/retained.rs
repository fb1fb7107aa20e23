//! Whose container is which: for readers of output while a task runs, and for as long as its output is kept after.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
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
use crate::measure::bytes_of;

/// How many ended tasks' outputs and sandboxes are kept; the oldest go first.
pub const KEPT_MAX: usize = 2_000;
/// What has ended is kept so long at least, however full the disk is: its output may wait for its turn to be printed.
const KEPT_AT_LEAST: Duration = Duration::from_secs(600);
/// The same on a disk that takes nothing more, and where what is kept takes too much room: its output is still being read.
const KEPT_IN_NEED: Duration = Duration::from_secs(30);
/// The most that is removed at one go; the rest follows.
const REMOVED_AT_ONCE_MAX: usize = 100;
/// The most that is measured at one go; the rest follows.
const MEASURED_AT_ONCE_MAX: usize = 100;
/// Where outputs are, in the work directory.
pub const CONTAINERS: &str = "containers";
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
    /// How much room all of it may take together, bytes; the oldest go first.
    pub cap_bytes: u64,
}

impl Limits {
    /// How long something is kept on a disk as full as this.
    fn keep(&self, room: Option<Room>, is_faulty: bool) -> Duration {
        let used = room.filter(|room| room.all_bytes > 0).map_or(0.0, |room| 1.0 - room.free_bytes as f64 / room.all_bytes as f64);
        let part = if is_faulty { 0.0 } else { (1.0 - self.headroom - used).clamp(0.0, 1.0) };
        let at_least = if is_faulty { KEPT_IN_NEED } else { KEPT_AT_LEAST };
        self.delay.mul_f64(part).max(at_least.min(self.delay))
    }
}

/// What is kept of a task that ended.
struct Kept {
    /// When it ended.
    since: SystemTime,
    owner: Owner,
    /// The room that it takes: measured once, soon after its end, for nothing changes in it any more.
    bytes: Option<u64>,
}

impl Kept {
    /// A clock that was set back makes things young again, not old.
    fn is_older(&self, than: Duration) -> bool {
        self.since.elapsed().is_ok_and(|age| age >= than)
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
    /// The oldest first.
    ended: VecDeque<Kept>,
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
        let mut unread: Vec<&String> = Vec::new();
        for id in listed.iter().flatten().filter(|id| !claimed.contains(*id)) {
            let Ok(dir) = cage.dir(id) else { continue };
            let owner = match fs::read(dir.join(OWNER_FILE)) {
                Ok(bytes) => serde_json::from_slice::<Owner>(&bytes).ok(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(_) => {
                    // That it cannot be read now does not mean that it is nobody's: a later process looks again.
                    unread.push(id);
                    None
                }
            };
            let when = fs::metadata(&dir).and_then(|meta| meta.modified()).unwrap_or(UNIX_EPOCH);
            ended.extend(owner.map(|owner| (when, owner)));
        }
        ended.sort_by_key(|(when, _)| *when);
        // Nobody knows whose the others were: they are ended and removed with all that is in them.
        let known: Vec<&str> = claimed.iter().chain(ended.iter().map(|(_, owner)| &owner.container)).chain(unread.iter().copied()).map(String::as_str).collect();
        let has_all = listed.is_ok() && unread.is_empty();
        match if listed.is_ok() { cage.orphans(&known) } else { Ok(Vec::new()) } {
            Ok(orphans) if !orphans.is_empty() => complain(&format!("removed {} containers that belonged to nobody", orphans.len())),
            Ok(_) => {}
            Err(error) => complain(&format!("cannot remove what belongs to nobody: {error}")),
        }
        let this = Rc::new(Retained { cage, work_dir, limits, inner: RefCell::default() });
        {
            let mut inner = this.inner.borrow_mut();
            for (since, owner) in ended {
                inner.by_task.insert(owner.task.clone(), owner.clone());
                inner.kept.insert(owner.container.clone());
                inner.ended.push_back(Kept { since, owner, bytes: None });
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
        let known: BTreeSet<&Path> = inner.by_task.values().chain(inner.ended.iter().map(|kept| &kept.owner)).map(|owner| owner.sandbox.as_path()).collect();
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
                inner.ended.push_back(Kept { since: SystemTime::now(), owner: owner.clone(), bytes: None });
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

    /// Removes what has been kept for long enough, on a disk as full as this, and what is more than may be kept; measures
    /// what has ended since.
    pub fn collect(self: &Rc<Self>, room: Option<Room>, is_faulty: bool) {
        let keep = self.limits.keep(room, is_faulty);
        let (old, strays, unmeasured) = {
            let mut inner = self.inner.borrow_mut();
            if inner.is_removing {
                return;
            }
            let count = inner.ended.iter().take_while(|kept| kept.is_older(keep)).count().max(inner.beyond(&self.limits)).min(REMOVED_AT_ONCE_MAX);
            let strays = std::mem::take(&mut inner.strays);
            let old = inner.forget(count);
            let unmeasured: Vec<Owner> = inner.ended.iter().filter(|kept| kept.bytes.is_none()).map(|kept| kept.owner.clone()).take(MEASURED_AT_ONCE_MAX).collect();
            inner.is_removing = !old.is_empty() || !strays.is_empty() || !unmeasured.is_empty();
            (old, strays, unmeasured)
        };
        if old.is_empty() && strays.is_empty() && unmeasured.is_empty() {
            return;
        }
        let (this, cage) = (Rc::clone(self), Arc::clone(&self.cage));
        let outputs = self.work_dir.join(CONTAINERS);
        tokio::task::spawn_local(async move {
            let measured = tokio::task::spawn_blocking(move || {
                for gone in old {
                    remove(&cage, &gone.container, &gone.sandbox);
                }
                strays.iter().for_each(|sandbox| remove_sandbox(sandbox));
                unmeasured.into_iter().map(|owner| (bytes_of(&outputs.join(&owner.container)).saturating_add(bytes_of(&owner.sandbox)), owner.container)).collect()
            })
            .await;
            let mut inner = this.inner.borrow_mut();
            inner.is_removing = false;
            inner.measured(measured.unwrap_or_default());
        });
    }
}

impl Inner {
    /// How many of the oldest have to go for the rest to take no more room than they may.
    fn beyond(&self, limits: &Limits) -> usize {
        let all = self.ended.iter().filter_map(|kept| kept.bytes).fold(0_u64, u64::saturating_add);
        let mut over = all.saturating_sub(limits.cap_bytes);
        let goes = |kept: &&Kept| {
            let is_over = over > 0;
            over = over.saturating_sub(kept.bytes.unwrap_or(0));
            is_over && kept.is_older(KEPT_IN_NEED.min(limits.delay))
        };
        self.ended.iter().take_while(goes).count()
    }

    /// What these containers were found to take, bytes.
    fn measured(&mut self, found: Vec<(u64, String)>) {
        let found: BTreeMap<String, u64> = found.into_iter().map(|(bytes, container)| (container, bytes)).collect();
        for kept in &mut self.ended {
            if let Some(bytes) = found.get(&kept.owner.container) {
                kept.bytes = Some(*bytes);
            }
        }
    }

    /// Takes the oldest out of the table.
    fn forget(&mut self, count: usize) -> Vec<Owner> {
        let old: Vec<Owner> = self.ended.drain(..count).map(|kept| kept.owner).collect();
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
        let limits = Limits { delay: Duration::from_secs(1000), headroom: 0.1, cap_bytes: u64::MAX };
        let room = |free: u64| Some(Room { all_bytes: 1000, free_bytes: free, free_files: None, is_read_only: false });
        let keep = |room, is_faulty| limits.keep(room, is_faulty).as_secs_f64().round();
        assert_eq!([keep(room(1000), false), keep(room(600), false), keep(room(100), false), keep(room(0), false)], [900.0, 600.0, 600.0, 600.0]);
        assert_eq!([keep(room(1000), true), keep(None, false)], [30.0, 900.0]);
        let short = Limits { delay: Duration::from_secs(2), ..limits };
        assert_eq!(short.keep(room(1000), false).as_secs(), 2);
    }

    /// What ended so many seconds ago, and takes so many bytes, the oldest first.
    fn ended(all: &[(u64, Option<u64>)]) -> Inner {
        let owner = |number: usize| Owner {
            task: TaskId::fresh(number as u64),
            container: format!("e1-{number}"),
            principal: Principal::parse("p").expect("a plain name"),
            token: Nonce::fresh(1, 1),
            sandbox: PathBuf::from("/nonexistent"),
            attached: false,
        };
        let kept = |(number, (ago_s, bytes)): (usize, &(u64, Option<u64>))| Kept { since: SystemTime::now() - Duration::from_secs(*ago_s), owner: owner(number), bytes: *bytes };
        Inner { ended: all.iter().enumerate().map(kept).collect(), ..Inner::default() }
    }

    /// Shows that as many of the oldest go as make the rest fit, that what was not measured yet counts as nothing, and that
    /// what has just ended stays, however large it is.
    #[test]
    fn kept_by_size() {
        let limits = |cap_bytes| Limits { delay: Duration::from_secs(1000), headroom: 0.1, cap_bytes };
        let mut inner = ended(&[(500, Some(10)), (400, Some(0)), (300, Some(20)), (200, None), (10, Some(100))]);
        assert_eq!([130, 129, 121, 120, 119, 100, 50, 0].map(|cap_bytes| inner.beyond(&limits(cap_bytes))), [0, 1, 1, 1, 3, 3, 4, 4]);
        inner.measured(vec![(1000, "e1-3".to_owned()), (7, "e1-9".to_owned())]);
        assert_eq!([1130, 1129, 1000, 0].map(|cap_bytes| inner.beyond(&limits(cap_bytes))), [0, 1, 4, 4]);
        assert_eq!(inner.forget(4).len(), 4);
        assert_eq!(inner.beyond(&limits(0)), 0);
    }
}
