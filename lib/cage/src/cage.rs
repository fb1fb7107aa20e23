//! The agent's way to containers: open once, then launch, find, signal and remove them
use crate::{
    container::{Container, leave_kill},
    error::{CageError, LaunchError},
    layout::Layout,
    leaf::Leaf,
    machine,
    output::{OutputReader, Stream},
    place::Place,
    spec::{Spec, Surroundings, is_id},
    stdin::StdinSocket,
    sys,
    watch::OutputWatch,
};
use nix::{
    fcntl::OFlag,
    sys::memfd::{MFdFlags, memfd_create},
    unistd,
};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, OpenOptionsExt},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// How often, and how soon again, a process that was started is opened; another thread may have been quicker to take the
/// descriptor that was spared for it
const OPEN_TRIES: u32 = 200;
const OPEN_PAUSE: Duration = Duration::from_millis(10);

/// Whether containers get cgroups
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupUse {
    /// If the machine has them and lets us; otherwise a notice says why not
    Auto,
    Off,
}

/// How to open a [`Cage`]
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds the output of containers, and all that is known of them unless there is a better place for that; made if missing
    pub run_dir: PathBuf,
    /// The supervisor's program file
    pub supervisor: PathBuf,
    pub cgroups: CgroupUse,
    /// The path of cgroups under which containers get theirs, such as `meso/agent_x`; nobody else may use it
    pub cgroup_parent: String,
}

/// All containers of one agent
#[derive(Debug)]
pub struct Cage {
    pub(crate) place: Place,
    pub(crate) layout: Option<Layout>,
    pub(crate) boot_id: String,
    notices: Vec<String>,
    supervisor: OwnedFd,
    null: OwnedFd,
    oom_reset: bool,
}

impl Cage {
    /// Opens the directory, the supervisor's program and the cgroups
    ///
    /// The program is copied into memory: whatever becomes of its file, every container of this agent gets
    /// the same one.
    pub fn open(options: Options) -> Result<Cage, CageError> {
        let place = Place::open(&options.run_dir)?;
        let supervisor = hold_program(&options.supervisor).map_err(|e| CageError::file("open the supervisor", &options.supervisor, e))?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(|e| CageError::file("open", "/dev/null", e))?;
        let (layout, notices) = match options.cgroups {
            CgroupUse::Off => (None, vec!["cgroups are off: tasks are held to process groups and resource limits only".to_owned()]),
            CgroupUse::Auto => match Layout::open(&options.cgroup_parent) {
                Ok(layout) => {
                    let notices = layout.notices.clone();
                    (Some(layout), notices)
                }
                Err(e) => (None, vec![format!("{e}: tasks are held to process groups and resource limits only")]),
            },
        };
        let oom_adjustment = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
        Ok(Cage {
            place,
            layout,
            boot_id: machine::boot_id().map_err(|e| CageError::file("read", "/proc/sys/kernel/random/boot_id", e))?,
            notices,
            supervisor,
            null: null.into(),
            oom_reset: oom_adjustment.trim() != "0",
        })
    }

    /// How tasks are kept apart: `cgroups-v1`, `cgroups-hybrid`, `cgroups-v2` or `processes`
    pub fn isolation(&self) -> &'static str {
        self.layout.as_ref().map_or("processes", Layout::name)
    }

    /// What the operator should be told, once
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The directory of a container, whether it is there or not
    pub fn dir(&self, id: &str) -> Result<PathBuf, CageError> {
        if is_id(id) { Ok(self.place.control.join(id)) } else { Err(CageError::BadId { id: id.to_owned() }) }
    }

    /// Starts a task under a supervisor of its own
    ///
    /// Returns when the supervisor runs; [`Container::events`] tells of the task. A command that cannot be executed is
    /// told by the exit record.
    ///
    /// # Errors
    /// Nothing was started, and nothing is left.
    pub fn launch(&self, spec: &Spec) -> Result<Container, LaunchError> {
        spec.check()?;
        let dir = self.place.control.join(&spec.id);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(LaunchError::Exists { id: spec.id.clone() }),
            Err(e) => return Err(LaunchError::file("make", &dir, e)),
        }
        self.launch_in(spec, &dir).inspect_err(|_| {
            // As far as it got. What cannot be removed now is found by the next cleanup.
            let _ = fs::remove_dir_all(&dir);
        })
    }

    fn launch_in(&self, spec: &Spec, dir: &Path) -> Result<Container, LaunchError> {
        let leaf = match &self.layout {
            Some(layout) => layout.make(spec)?,
            None => Leaf::default(),
        };
        self.spawn(spec, dir, &leaf).inspect_err(|_| leaf.remove())
    }

    fn spawn(&self, spec: &Spec, dir: &Path, leaf: &Leaf) -> Result<Container, LaunchError> {
        let output_dir = self.place.output_dir(&spec.id);
        let around = Surroundings { boot_id: &self.boot_id, container_dir: dir, leaf, output_dir: output_dir.as_deref(), oom_reset: self.oom_reset };
        let body = spec.encode(&around)?;
        let path = dir.join("spec");
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(|e| LaunchError::file("make", &path, e))?;
        // The lock belongs to the open file and so passes to the supervisor with it: there is no moment without a holder.
        file.try_lock().map_err(|e| LaunchError::file("lock", &path, e))?;
        (&file).write_all(&body).map_err(|e| LaunchError::file("write", &path, e))?;
        let spawn_error = |source: io::Error| LaunchError::Spawn { source };
        let (events, their_events) = unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| spawn_error(e.into()))?;
        set_nonblocking(&events).map_err(spawn_error)?;
        // Given back when the process is to be opened: once it runs, there is no way back that does not end it.
        let spare = self.null.try_clone().map_err(spawn_error)?;
        // No `pre_exec` here, ever: with one, the standard library forks this whole process instead of borrowing its memory
        // for the moment, a hundred times as slow in a large agent.
        let mut child = Command::new(format!("/proc/self/fd/{}", self.supervisor.as_raw_fd()))
            .arg0("meso-supervisor")
            .arg(&spec.id)
            .env_clear()
            .current_dir(dir)
            .stdin(Stdio::from(file))
            .stdout(Stdio::from(their_events))
            .stderr(Stdio::from(self.null.try_clone().map_err(spawn_error)?))
            .spawn()
            .map_err(spawn_error)?;
        let pid = child.id() as i32;
        drop(spare);
        // It is our child and nobody has waited for it, so the number is still its own.
        let mut opened = sys::pidfd_open(pid);
        for _ in 1..OPEN_TRIES {
            if opened.is_ok() {
                break;
            }
            thread::sleep(OPEN_PAUSE);
            opened = sys::pidfd_open(pid);
        }
        let pidfd = opened.map_err(|e| {
            let _ = child.kill();
            let _ = child.wait();
            // It may have begun its task by now.
            self.end(leaf, Some(dir));
            spawn_error(e)
        })?;
        Ok(Container::launched(spec.id.clone(), dir.to_owned(), pid, pidfd, events))
    }

    /// Sends a signal to the task's process group
    pub fn signal(&self, id: &str, signal: i32) -> Result<(), CageError> {
        match self.running(id)? {
            Some(container) => container.signal(signal),
            None => Err(CageError::Busy { id: id.to_owned(), why: "it is only starting" }),
        }
    }

    /// Ends a container: SIGTERM now, and after the grace whatever is left of it is killed
    ///
    /// The supervisor keeps the time, so the agent may end meanwhile.
    pub fn kill(&self, id: &str, grace_ms: u64) -> Result<(), CageError> {
        if let Some(container) = self.running(id)? {
            return container.kill(grace_ms);
        }
        leave_kill(&self.dir(id)?, grace_ms)?;
        self.running(id)?.map_or(Ok(()), |container| container.kill(grace_ms))
    }

    /// Says how far somebody who reads along has come; see [`Container::reader_at`]
    pub fn reader_at(&self, id: &str, stream: Stream, offset: u64) -> Result<(), CageError> {
        self.running(id)?.map_or(Ok(()), |container| container.reader_at(stream, offset))
    }

    /// Connects to the task's standard input, which `Spec::stdin` asked for
    pub fn stdin(&self, id: &str) -> Result<StdinSocket, CageError> {
        let dir = self.dir(id)?;
        StdinSocket::connect(&dir).map_err(|e| CageError::file("connect to the standard input in", dir, e))
    }

    /// Opens one of the task's output streams, running or ended
    pub fn output(&self, id: &str, stream: Stream) -> Result<OutputReader, CageError> {
        let dir = self.dir(id)?;
        OutputReader::open(&dir, stream).map_err(|e| CageError::file("read the output in", dir, e))
    }

    /// Watches for more output and for the end
    pub fn watch(&self, id: &str) -> Result<OutputWatch, CageError> {
        let dir = self.dir(id)?;
        OutputWatch::new(&dir).map_err(|e| CageError::file("watch", dir, e))
    }

    /// Removes what is ours and empty outside the run directory, so that an agent that will not come back leaves nothing
    pub fn release(&self) {
        self.place.release();
        for dir in self.layout.iter().flat_map(Layout::own_dirs) {
            // One that still holds a container, or another agent's, stays.
            let _ = fs::remove_dir(dir);
        }
    }

    /// The ids of all containers of which something is left
    pub fn list(&self) -> Result<Vec<String>, CageError> {
        let mut ids = Vec::new();
        for dir in [&self.place.control, &self.place.output] {
            for entry in fs::read_dir(dir).map_err(|e| CageError::file("list", dir, e))? {
                let entry = entry.map_err(|e| CageError::file("list", dir, e))?;
                ids.extend(entry.file_name().to_str().filter(|name| is_id(name)).map(str::to_owned));
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

/// Copies the program into sealed memory, or, where programs may not run from there, keeps its file open
fn hold_program(path: &Path) -> io::Result<OwnedFd> {
    let mut file = File::open(path)?;
    let memory = memfd_create(c"meso-supervisor", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut copy = File::from(memory);
    io::copy(&mut file, &mut copy)?;
    let seals = nix::fcntl::SealFlag::F_SEAL_SEAL | nix::fcntl::SealFlag::F_SEAL_SHRINK | nix::fcntl::SealFlag::F_SEAL_GROW | nix::fcntl::SealFlag::F_SEAL_WRITE;
    nix::fcntl::fcntl(&copy, nix::fcntl::FcntlArg::F_ADD_SEALS(seals))?;
    // Executing needs a descriptor that is not open for writing.
    let copy = File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    // Without an argument it ends at once: this only shows whether programs may be executed from memory.
    let is_runnable = Command::new(format!("/proc/self/fd/{}", copy.as_raw_fd()))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    Ok(if is_runnable { copy.into() } else { file.into() })
}

pub(crate) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}
