//! Finding containers again after the agent was away, and clearing what nobody knows
use crate::{
    cage::Cage,
    container::{Container, read_head},
    descendants,
    error::CageError,
    exit::Exit,
    leaf::Leaf,
    spec::{HEAD_BYTES, Order, is_id},
    sys,
};
use std::{
    fs::{self, File, TryLockError},
    io,
    os::fd::AsRawFd,
    path::Path,
    time::Duration,
};

/// How long another recovery of the same container may take before we give up
const RECOVER_WAIT_MS: u64 = 30_000;
/// How long a supervisor may take from its birth until it has written its number
const BIRTH_WAIT_MS: u64 = 10_000;
/// How long a container nobody knows may take to die when told to
const ORPHAN_WAIT_MS: i32 = 5_000;
/// How long a killed cgroup may take to be empty
const EMPTY_WAIT_MS: u64 = 5_000;
const PAUSE_MS: u64 = 5;

/// What has become of a container
#[derive(Debug)]
pub enum Recovered {
    /// It runs; its handle has no event pipe, the pidfd tells of its end
    Running(Container),
    /// It ended, and this is how
    Ended(Exit),
    /// The agent died while launching: the task never ran
    NeverStarted,
    /// Its supervisor died and left no record; everything of the container has been killed
    Lost,
    /// The machine was started anew meanwhile
    Reboot,
}

impl Cage {
    /// Finds out what has become of a container
    ///
    /// Several may ask at once; they get their answers one after the other.
    pub fn recover(&self, id: &str) -> Result<Recovered, CageError> {
        let dir = self.dir(id)?;
        let held = match File::open(&dir) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.place.is_new_boot => return Ok(Recovered::Reboot),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(CageError::NoContainer { id: id.to_owned() }),
            Err(e) => return Err(CageError::file("open", dir, e)),
        };
        // Recoveries exclude each other by the directory, so that the spec's lock means a supervisor and nobody else.
        if !wait_lock(&held).map_err(|e| CageError::file("lock", &dir, e))? {
            return Err(CageError::Busy { id: id.to_owned(), why: "another recovery of it goes on" });
        }
        if let Some(exit) = read_exit(&dir)? {
            return Ok(Recovered::Ended(exit));
        }
        let spec = dir.join("spec");
        let body = match fs::read(&spec) {
            Ok(body) => body,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return self.never_started(id, &dir),
            Err(e) => return Err(CageError::file("read", spec, e)),
        };
        let Some(order) = body.get(HEAD_BYTES..).and_then(Order::decode) else { return self.never_started(id, &dir) };
        if order.boot_id.to_bytes() != self.boot_id.as_bytes() {
            return Ok(Recovered::Reboot);
        }
        for _ in 0..BIRTH_WAIT_MS / PAUSE_MS {
            let file = File::options().read(true).write(true).open(&spec).map_err(|e| CageError::file("open", &spec, e))?;
            if file.try_lock().is_ok() {
                // Nobody lives here, and as long as we hold the lock nobody moves in.
                return self.dead(id, &dir, &order.leaf(), read_head(&spec, 0).is_some());
            }
            if let Some(pid) = read_head(&spec, 0)
                && let Ok(pidfd) = sys::pidfd_open(pid)
                && file.try_lock().is_err()
            {
                // The lock was held after we had opened the process: it is the holder, not a later one of the same number.
                return Ok(Recovered::Running(Container::found(id.to_owned(), dir, pid, pidfd)));
            }
            // It is just being born, or has just died.
            std::thread::sleep(Duration::from_millis(PAUSE_MS));
        }
        Err(CageError::Busy { id: id.to_owned(), why: "its supervisor holds the lock and does not say who it is" })
    }

    /// The container if its supervisor lives and listens; `None` if it is only being born
    pub(crate) fn running(&self, id: &str) -> Result<Option<Container>, CageError> {
        let dir = self.dir(id)?;
        let spec = dir.join("spec");
        let file = match File::open(&spec) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(CageError::NoContainer { id: id.to_owned() }),
            Err(e) => return Err(CageError::file("open", spec, e)),
        };
        let pidfd = read_head(&spec, 0).map(|pid| (pid, sys::pidfd_open(pid)));
        if file.try_lock().is_ok() {
            return Err(CageError::Ended { id: id.to_owned() });
        }
        match pidfd {
            Some((pid, Ok(pidfd))) => Ok(Some(Container::found(id.to_owned(), dir, pid, pidfd))),
            Some((_, Err(e))) if e.raw_os_error() == Some(libc::ESRCH) => Err(CageError::Ended { id: id.to_owned() }),
            Some((_, Err(e))) => Err(CageError::file("open the supervisor of", spec, e)),
            None => Ok(None),
        }
    }

    /// Removes what is left of a container that has ended
    pub fn remove(&self, id: &str) -> Result<(), CageError> {
        let dir = self.dir(id)?;
        if read_exit(&dir).ok().flatten().is_none()
            && let Ok(spec) = File::open(dir.join("spec"))
            && spec.try_lock().is_err()
        {
            return Err(CageError::Busy { id: id.to_owned(), why: "it still runs" });
        }
        self.leaf(id).remove();
        // The control directory last: as long as it is there, so is the name.
        for dir in self.place.output_dir(id).into_iter().chain([dir]) {
            match fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(CageError::file("remove", dir, e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends and removes every container that is not among the known, directories and cgroups alike
    ///
    /// Touches nothing outside our run directory and our parent cgroup. Returns the ids it removed.
    pub fn orphans(&self, known: &[&str]) -> Result<Vec<String>, CageError> {
        let mut unknown = self.list()?;
        for parent in self.layout.iter().flat_map(|l| l.parents()) {
            let leaves = fs::read_dir(parent).map_err(|e| CageError::file("list", parent, e))?;
            let leaves = leaves.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
            unknown.extend(leaves.filter_map(|e| e.file_name().into_string().ok()).filter(|name| is_id(name)));
        }
        unknown.sort_unstable();
        unknown.dedup();
        unknown.retain(|id| !known.contains(&id.as_str()));
        for id in &unknown {
            match self.recover(id) {
                Ok(Recovered::Running(container)) => {
                    let _ = container.kill(0);
                    let fd = container.pidfd().as_raw_fd();
                    sys::poll(&mut [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }], ORPHAN_WAIT_MS);
                    if sys::poll_now(fd, libc::POLLIN) == 0 {
                        let _ = sys::pidfd_kill(container.pidfd());
                        sys::poll(&mut [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }], ORPHAN_WAIT_MS);
                        self.recover(id)?;
                    }
                }
                Ok(Recovered::Ended(_) | Recovered::NeverStarted | Recovered::Lost) => {}
                // A cgroup without a directory.
                Err(CageError::NoContainer { .. }) | Ok(Recovered::Reboot) => self.end(&self.leaf(id), None),
                Err(e) => return Err(e),
            }
            self.remove(id)?;
        }
        Ok(unknown)
    }

    fn leaf(&self, id: &str) -> Leaf {
        self.layout.as_ref().map(|l| l.leaf(id)).unwrap_or_default()
    }

    fn never_started(&self, id: &str, dir: &Path) -> Result<Recovered, CageError> {
        self.leaf(id).remove();
        mark_lost(dir)?;
        Ok(Recovered::NeverStarted)
    }

    /// Nobody holds the lock: it ended in this moment, or its supervisor died
    fn dead(&self, id: &str, dir: &Path, leaf: &Leaf, was_supervised: bool) -> Result<Recovered, CageError> {
        if let Some(exit) = read_exit(dir)? {
            return Ok(Recovered::Ended(exit));
        }
        if !was_supervised {
            return self.never_started(id, dir);
        }
        self.end(leaf, Some(dir));
        mark_lost(dir)?;
        Ok(Recovered::Lost)
    }

    /// Kills all that is in the cgroups, or else all that carries the container's mark
    pub(crate) fn end(&self, leaf: &Leaf, dir: Option<&Path>) {
        let is_killed = leaf.kill();
        for _ in 0..EMPTY_WAIT_MS / PAUSE_MS {
            if !leaf.is_populated() {
                break;
            }
            std::thread::sleep(Duration::from_millis(PAUSE_MS));
        }
        if let Some(dir) = dir.filter(|_| !is_killed) {
            descendants::kill_marked(dir);
        }
        leaf.remove();
    }
}

/// Tells readers of the output that there will be no more and no record
fn mark_lost(dir: &Path) -> Result<(), CageError> {
    let path = dir.join("lost");
    fs::write(&path, "").map_err(|e| CageError::file("write", path, e))
}

fn read_exit(dir: &Path) -> Result<Option<Exit>, CageError> {
    Exit::read(dir).map_err(|e| CageError::file("read the exit record in", dir, e))
}

/// Locks within the time allowed; false if somebody else holds it all along
fn wait_lock(file: &File) -> io::Result<bool> {
    for _ in 0..RECOVER_WAIT_MS / PAUSE_MS {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(PAUSE_MS)),
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
    Ok(false)
}
