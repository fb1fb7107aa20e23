//! The directory of a cluster on this machine: stores, work directories, logs, and who runs on it
use super::process::Process;
use crate::{exit::Failure, io_text, surroundings::Surroundings};
use rustix::process::Signal;
use std::{
    env,
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

const PREFIX: &str = "meso-up-";
/// A temporary directory that nobody holds is cleared once it is older: until then it may be on its way to being held.
const ABANDONED_S: u64 = 60;
/// What an earlier run left running may take so long to end before it is killed.
const LEFTOVER_MS: u64 = 10_000;
const LOOK_MS: u64 = 20;
/// How often a lock that is held is looked at again before another meso-up has it: two seconds in all.
const LOCK_LOOKS_MAX: u32 = 100;
/// A log that is larger when a process starts is set aside, and replaces the one that was set aside before.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
const FOLDERS: [&str; 2] = ["log", "run"];
/// What the kernel calls the process that stands over a task.
const SUPERVISOR: &str = "meso-supervisor";
/// How deep a directory tree may be when it is cleared of unwritable directories.
const DEPTH_MAX: usize = 256;

/// A directory that this process, and no other meso-up, uses.
#[derive(Debug)]
pub(super) struct StateDir {
    root: PathBuf,
    is_temporary: bool,
    /// Held for as long as this lives.
    _lock: File,
}

impl StateDir {
    /// One that stays; without a path, `~/.local/state/meso/up`, or for root without a home `/var/lib/meso/up`.
    ///
    /// # Errors
    /// `Config`: it cannot be made or is not ours. `NotNow`: another meso-up runs on it.
    pub(super) fn kept(path: Option<&Path>, surroundings: &Surroundings) -> Result<StateDir, Failure> {
        let root = match path {
            Some(path) => path.to_owned(),
            None => default_root(surroundings)?,
        };
        make_private(&root)?;
        let root = root.canonicalize().map_err(|e| unusable(&root, &e))?;
        StateDir::hold(root, false, LOCK_LOOKS_MAX)
    }

    /// One that goes with this value's [`close`](StateDir::close).
    ///
    /// # Errors
    /// `Config`: it cannot be made.
    pub(super) fn temporary() -> Result<StateDir, Failure> {
        let base = env::temp_dir();
        clear_abandoned(&base);
        let made = tempfile::Builder::new().prefix(PREFIX).permissions(fs::Permissions::from_mode(0o700)).tempdir_in(&base);
        let root = made.map_err(|e| unusable(&base, &e))?.keep();
        let root = root.canonicalize().map_err(|e| unusable(&root, &e))?;
        StateDir::hold(root, true, 0)
    }

    fn hold(root: PathBuf, is_temporary: bool, looks_max: u32) -> Result<StateDir, Failure> {
        let path = root.join("lock");
        let open = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut lock = open.map_err(|e| unusable(&path, &e))?;
        let mut tried = lock.try_lock();
        // One that was killed a moment ago may still be on its way out.
        for _ in 0..looks_max {
            if !matches!(tried, Err(TryLockError::WouldBlock)) {
                break;
            }
            thread::sleep(Duration::from_millis(LOOK_MS));
            tried = lock.try_lock();
        }
        match tried {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Whatever is in it: the holder may be just about to write.
                let _ = lock.read_to_string(&mut pid);
                let who = pid.trim().parse().ok().and_then(Process::of).map_or_else(|| "another meso-up".to_owned(), Process::shown);
                return Err(Failure::not_now(format!("{} is in use by {who}", root.display())).hint("another directory with --state DIR, or end that one"));
            }
            Err(TryLockError::Error(e)) => return Err(unusable(&path, &e)),
        }
        let write = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        write(&mut lock).map_err(|e| unusable(&path, &e))?;
        for folder in FOLDERS {
            make_private(&root.join(folder))?;
        }
        Ok(StateDir { root, is_temporary, _lock: lock })
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.is_temporary
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the configuration, store and ports file of a nats-server are: of one that is alone, or of one of several, counted from 1.
    pub(super) fn bus(&self, number: Option<usize>) -> PathBuf {
        self.root.join(number.map_or_else(|| "bus".to_owned(), |number| format!("bus-{number}")))
    }

    /// Makes the folders of the servers, which must not be those of another number of servers.
    ///
    /// # Errors
    /// `Config`: they are, or cannot be made.
    pub(super) fn make_bus(&self, servers: usize) -> Result<(), Failure> {
        let is_alone = servers == 1;
        let foreign = self.bus(is_alone.then_some(1)).join("store");
        if foreign.exists() {
            let (what, flag) = if is_alone { ("three servers", "--bus 3") } else { ("one server", "--bus 1") };
            return Err(Failure::config(format!("{} is of a bus of {what}", foreign.display())).hint(format!("{flag}, or another directory with --state DIR")));
        }
        let wanted = if is_alone { vec![None] } else { (1..=servers).map(Some).collect() };
        wanted.into_iter().try_for_each(|number| make_private(&self.bus(number)))
    }

    /// The work directory of an agent, counted from 1.
    pub(super) fn agent(&self, number: u32) -> PathBuf {
        self.root.join(format!("agent-{number}"))
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The log of a process; one that has become large is set aside first.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        let path = self.logs().join(format!("{name}.log"));
        if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            // If it cannot be, it grows on.
            let _ = fs::rename(&path, path.with_extension("log.old"));
        }
        path
    }

    /// Where the number of a process stands while it runs.
    pub(super) fn pid_file(&self, name: &str) -> PathBuf {
        self.root.join("run").join(format!("{name}.pid"))
    }

    /// Ends what an earlier meso-up on this directory left running; its tasks are the agents' to find again.
    pub(super) fn end_leftovers(&self) {
        let files: Vec<PathBuf> = fs::read_dir(self.root.join("run")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        let processes = files.iter().filter_map(|path| fs::read_to_string(path).ok()?.parse().ok()).collect();
        end(processes, Duration::from_millis(LEFTOVER_MS));
        for path in files {
            // A file that stays names a process that has gone, which the next start finds out again.
            let _ = fs::remove_file(path);
        }
    }

    /// Ends every task that still runs below this directory; for when no agent is left to do it.
    pub(super) fn kill_tasks(&self) {
        let supervisors = || processes_below(&self.root).filter(|process| name_of(*process).as_deref() == Some(SUPERVISOR)).collect::<Vec<_>>();
        // Killed, the kernel ends the container with it.
        end(supervisors(), Duration::ZERO);
    }

    /// Gives the directory up; a temporary one is removed.
    ///
    /// # Errors
    /// `Failed`: something of a temporary one could not be removed.
    pub(super) fn close(self) -> Result<(), Failure> {
        if !self.is_temporary {
            return Ok(());
        }
        let removed = remove_tree(&self.root);
        removed.map_err(|e| Failure::failed(format!("removing {}: {}", self.root.display(), io_text(&e))).hint(format!("rm -rf {}", self.root.display())))
    }
}

fn default_root(surroundings: &Surroundings) -> Result<PathBuf, Failure> {
    let state_home = surroundings.path("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let below_home = || surroundings.home().map(|home| home.join(".local/state"));
    if let Some(state) = state_home.or_else(below_home) {
        return Ok(state.join("meso/up"));
    }
    match rustix::process::geteuid().is_root() {
        true => Ok("/var/lib/meso/up".into()),
        false => Err(Failure::config("HOME is not set, so there is no place for the state of the cluster").hint("--state DIR")),
    }
}

/// Makes a directory that others cannot look into; one that is there must be ours.
fn make_private(path: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| unusable(path, &e))?;
    let facts = fs::metadata(path).map_err(|e| unusable(path, &e))?;
    if facts.uid() != rustix::process::geteuid().as_raw() {
        return Err(Failure::config(format!("{} belongs to somebody else", path.display())).hint("another directory with --state DIR"));
    }
    Ok(())
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::config(format!("cannot use {}: {}", path.display(), io_text(error))).hint("--state DIR with a directory that is yours and has room")
}

/// Asks processes to end, waits so long, and kills those that are left.
fn end(processes: Vec<Process>, patience: Duration) {
    for process in &processes {
        process.signal(if patience.is_zero() { Signal::KILL } else { Signal::TERM });
    }
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline && processes.iter().any(|process| process.lives()) {
        std::thread::sleep(Duration::from_millis(LOOK_MS));
    }
    for process in processes {
        process.signal(Signal::KILL);
    }
}

/// Our processes that work in a directory or have something below it open.
fn processes_below(root: &Path) -> impl Iterator<Item = Process> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter_map(Process::of).filter(move |process| {
        let folder = PathBuf::from(format!("/proc/{}", process.pid));
        let files = fs::read_dir(folder.join("fd")).into_iter().flatten().flatten().map(|file| file.path());
        files.chain([folder.join("cwd")]).filter_map(|link| fs::read_link(link).ok()).any(|target| target.starts_with(root))
    })
}

fn name_of(process: Process) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{}/comm", process.pid)).ok()?.trim().to_owned())
}

/// Removes temporary directories of ours whose meso-up was killed, with what may still run on them.
fn clear_abandoned(base: &Path) {
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let is_named_so = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // Not through links: in a folder that all may write to, anybody can make one.
        let Ok(facts) = fs::symlink_metadata(entry.path()) else { continue };
        let age_s = facts.modified().ok().and_then(|then| then.elapsed().ok()).map_or(0, |age| age.as_secs());
        if !is_named_so || !facts.is_dir() || facts.uid() != own || age_s < ABANDONED_S {
            continue;
        }
        if let Ok(state) = StateDir::hold(entry.path(), true, 0) {
            state.end_leftovers();
            state.kill_tasks();
            // It is not of this run: what cannot be removed now is tried again by the next.
            let _ = state.close();
        }
    }
}

/// Removes a directory and all below it, also directories that a task made unwritable.
fn remove_tree(root: &Path) -> io::Result<()> {
    match fs::remove_dir_all(root) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(root, DEPTH_MAX);
            fs::remove_dir_all(root)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn make_writable(folder: &Path, depth: usize) {
    // Removing tells of whatever is left.
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path(), depth - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ToolKind;
    use std::process::{Command, Stdio};

    fn none() -> Surroundings {
        Surroundings::of([], "/x")
    }

    /// Shows that a directory which is let go a moment later is waited for.
    #[test]
    fn one_that_ends_is_outwaited() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let first = StateDir::kept(Some(folder.path()), &none()).expect("it is free");
        StateDir::hold(folder.path().to_owned(), false, 0).expect_err("without waiting it is refused");
        let ending = thread::spawn(move || {
            thread::sleep(Duration::from_millis(3 * LOOK_MS));
            drop(first);
        });
        StateDir::kept(Some(folder.path()), &none()).expect("the first one ends");
        ending.join().expect("it does not panic");
    }

    /// Shows that two cannot use one directory at a time, that the second is told who the first is, and that it stays afterwards.
    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let root = folder.path().join("deep/state");
        let first = StateDir::kept(Some(&root), &none()).expect("it is free");
        let mode = fs::metadata(&root).expect("it was made").mode() & 0o777;
        assert_eq!(mode, 0o700);
        let second = StateDir::kept(Some(&root), &none()).expect_err("it is held");
        assert_eq!(second.exit(ToolKind::Plain).code(), 75);
        assert!(second.what().contains(&format!("(process {})", std::process::id())), "{second}");
        first.close().expect("nothing is to be removed");
        assert!(root.join("log").is_dir());
        StateDir::kept(Some(&root), &none()).expect("it is free again");
    }

    /// Shows that what cannot be a directory of ours is refused by name.
    #[test]
    fn a_wrong_place_is_refused() {
        let failure = StateDir::kept(Some(Path::new("/dev/null/x")), &none()).expect_err("it is no directory");
        assert_eq!(failure.exit(ToolKind::Plain).code(), 78);
        assert!(failure.what().contains("/dev/null"), "{failure}");
    }

    /// Shows that a temporary directory goes with all that is in it, unwritable directories too.
    #[test]
    fn a_temporary_one_leaves_nothing() {
        let state = StateDir::temporary().expect("it can be made");
        let root = state.root().to_owned();
        let deep = state.agent(1).join("a/b");
        fs::create_dir_all(&deep).expect("it is ours");
        fs::write(deep.join("file"), "x").expect("it is ours");
        fs::set_permissions(&deep, fs::Permissions::from_mode(0o555)).expect("it is ours");
        state.close().expect("it can be removed");
        assert!(!root.exists());
    }

    /// Shows that a process that an earlier run left is ended by its number, and that a stale number ends nobody.
    #[test]
    fn leftovers_are_ended() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let state = StateDir::kept(Some(folder.path()), &none()).expect("it is free");
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep is there");
        let process = Process::of(child.id()).expect("it was just started");
        fs::write(state.pid_file("meso-agent-1"), process.to_string()).expect("it is ours");
        fs::write(state.pid_file("meso-agent-2"), format!("{} 1", std::process::id())).expect("it is ours");
        fs::write(state.pid_file("meso-agent-3"), "nonsense").expect("it is ours");
        state.end_leftovers();
        assert!(!child.wait().expect("it ended").success());
        assert!(fs::read_dir(folder.path().join("run")).expect("it is there").next().is_none());
    }
}
