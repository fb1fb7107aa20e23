//! The cgroups of one container
use crate::{error::LaunchError, spec::Spec};
use cgroups_rs::fs::{MaxValue, cpu::CpuController, memory::MemController, pid::PidController};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// A removed process stays in its cgroup for a moment longer; after this many looks we leave the leaf to the next cleanup
const REMOVE_TRIES: u32 = 100;
const REMOVE_PAUSE_US: u64 = 500;
/// The freezer needs a moment to stop everybody
const FREEZE_TRIES: u32 = 200;
const FREEZE_PAUSE_MS: u64 = 1;
/// The period over which the kernel counts a hard limit of processor time
const QUOTA_PERIOD_US: u64 = 100_000;
/// The kernel's own least
const QUOTA_US_MIN: u64 = 1_000;

/// The cgroups of one container; a path is there if the layout has that part
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// Version 2, for tracking and killing; on a pure version 2 machine also for limits
    pub unified: Option<PathBuf>,
    /// Where memory is limited and counted
    pub memory: Option<PathBuf>,
    pub memory_v2: bool,
    pub freezer: Option<PathBuf>,
    /// Every version 1 directory; a process joins each by writing to its `tasks`
    pub v1: Vec<PathBuf>,
}

impl Leaf {
    /// Makes the directories
    pub(crate) fn make(&self) -> Result<(), LaunchError> {
        for dir in self.dirs() {
            fs::create_dir(dir).map_err(|e| LaunchError::Cgroup { path: dir.to_owned(), why: e.to_string() })?;
        }
        Ok(())
    }

    /// Kills every process in it at once; false if the kernel offers no way to do that by cgroup
    pub(crate) fn kill(&self) -> bool {
        if let Some(dir) = &self.unified
            && fs::write(dir.join("cgroup.kill"), "1").is_ok()
        {
            return true;
        }
        self.freezer.as_deref().is_some_and(|dir| kill_frozen(dir).is_ok())
    }

    /// Whether a process is left in it; true if that cannot be known
    pub(crate) fn is_populated(&self) -> bool {
        let Some(dir) = self.unified.as_ref().or(self.freezer.as_ref()).or(self.v1.first()) else { return false };
        match fs::read_to_string(dir.join("cgroup.procs")) {
            Ok(procs) => !procs.is_empty(),
            Err(e) => e.kind() != io::ErrorKind::NotFound && e.raw_os_error() != Some(libc::ENODEV),
        }
    }

    /// Removes the directories, waiting a little for the last process to be gone from them
    pub(crate) fn remove(&self) {
        for dir in self.dirs() {
            for _ in 0..REMOVE_TRIES {
                match fs::remove_dir(dir) {
                    Err(e) if e.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(Duration::from_micros(REMOVE_PAUSE_US)),
                    _ => break,
                }
            }
        }
    }

    /// The most memory used at once, and how many processes died for want of it
    pub(crate) fn memory_used(&self, count_kills: bool) -> (Option<u64>, u64) {
        let Some(dir) = &self.memory else { return (None, 0) };
        let (peak, events) = if self.memory_v2 { ("memory.peak", "memory.events") } else { ("memory.max_usage_in_bytes", "memory.oom_control") };
        let peak = read_small(&dir.join(peak)).and_then(|t| crate::spec::parse_number(t.trim_ascii()));
        let kills = || {
            let text = read_small(&dir.join(events))?;
            text.split(|b| *b == b'\n').find_map(|l| crate::spec::parse_number(l.strip_prefix(b"oom_kill ")?))
        };
        (peak, if count_kills { kills().unwrap_or(0) } else { 0 })
    }

    fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().chain(&self.unified).map(PathBuf::as_path)
    }
}

/// Directories of one container in which a limit can be set; `None` where the controller is missing
pub(crate) struct Limits<'a> {
    pub cpu: Option<&'a Path>,
    pub memory: Option<&'a Path>,
    pub pids: Option<&'a Path>,
    pub v2: bool,
    /// Version 1 can limit swap
    pub swap: bool,
}

impl Limits<'_> {
    /// Sets the limits, each through the typed controller of cgroups-rs and each answer checked: its `apply`
    /// passes over failures of the memory controller
    pub(crate) fn set(&self, spec: &Spec) -> Result<(), LaunchError> {
        let refused = |path: &Path, why: &dyn std::fmt::Display| LaunchError::Cgroup { path: path.to_owned(), why: why.to_string() };
        if let Some(dir) = self.cpu {
            let controller = CpuController::new(dir.to_owned(), PathBuf::new(), self.v2);
            // The kernel's own least: one that may be put out at any time runs when nobody else wants to.
            let share = if spec.yields {
                if self.v2 { 1 } else { 2 }
            } else if self.v2 {
                (spec.cpu_milli / 10).clamp(1, 10_000)
            } else {
                (spec.cpu_milli.saturating_mul(1024) / 1000).clamp(2, 262_144)
            };
            controller.set_shares(share).map_err(|e| refused(dir, &e))?;
            if let Some(limit) = spec.cpu_limit_milli {
                let quota_us = limit.saturating_mul(QUOTA_PERIOD_US / 1000).max(QUOTA_US_MIN);
                controller.set_cfs_period(QUOTA_PERIOD_US).map_err(|e| refused(dir, &e))?;
                controller.set_cfs_quota(signed(quota_us)).map_err(|e| refused(dir, &e))?;
            }
        }
        if let (Some(dir), Some(bytes)) = (self.memory, spec.mem_bytes) {
            let controller = MemController::new(dir.to_owned(), PathBuf::new(), self.v2);
            controller.set_limit(signed(bytes)).map_err(|e| refused(dir, &e))?;
            // No swap. Version 1 counts memory and swap together, so the same number says it; it may not be lower than
            // the memory limit and so comes second. A kernel built without swap has no such file in version 2.
            if if self.v2 { dir.join("memory.swap.max").exists() } else { self.swap } {
                controller.set_memswap_limit(if self.v2 { 0 } else { signed(bytes) }).map_err(|e| refused(dir, &e))?;
            }
            if self.v2 {
                // One out-of-memory death takes the whole container, so that no half of it goes on.
                fs::write(dir.join("memory.oom.group"), "1").map_err(|e| refused(dir, &e))?;
            }
        }
        if let (Some(dir), Some(max)) = (self.pids, spec.pids_max) {
            let controller = PidController::new(dir.to_owned(), PathBuf::new(), self.v2);
            controller.set_pid_max(MaxValue::Value(signed(max))).map_err(|e| refused(dir, &e))?;
        }
        Ok(())
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Whether an extended attribute is there and says `1`
pub(crate) fn attribute_is_one(path: &Path, name: &str) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let (Ok(path), Ok(name)) = (std::ffi::CString::new(path.as_os_str().as_bytes()), std::ffi::CString::new(name)) else { return false };
    crate::sys::attribute(&path, &name).as_deref() == Some(b"1")
}

/// Stops everybody, kills everybody, lets them die
fn kill_frozen(dir: &Path) -> io::Result<()> {
    let state = dir.join("freezer.state");
    fs::write(&state, "FROZEN")?;
    for _ in 0..FREEZE_TRIES {
        if fs::read(&state)?.starts_with(b"FROZEN") {
            break;
        }
        std::thread::sleep(Duration::from_millis(FREEZE_PAUSE_MS));
    }
    let procs = fs::read_to_string(dir.join("cgroup.procs"));
    for pid in procs.as_deref().unwrap_or_default().lines().filter_map(|l| l.parse().ok()).filter(|pid| *pid > 1) {
        // A process that is gone already is what we want.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    fs::write(&state, "THAWED")
}

/// Reads a file of the kernel's that is at most a page, without asking for its size first
pub(crate) fn read_small(path: &Path) -> Option<Vec<u8>> {
    let mut text = vec![0; 4096];
    let length = io::Read::read(&mut fs::File::open(path).ok()?, &mut text).ok()?;
    text.truncate(length);
    Some(text)
}
