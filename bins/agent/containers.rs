//! Containers for launches: made, watched, ended, found again after a restart.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use meso_cage::{Cage, CageError, Container, Exit, LaunchError, Recovered, Spec, Why};
use meso_cli::{complain, io_text};
use meso_core::agent::{Ending, Event, KILL_GRACE_MS, Usage};
use meso_core::id::TaskId;
use meso_core::resources::Resources;
use meso_core::wire::Launch;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Duration, sleep};

use crate::disk::Disk;
use crate::ready::register;
use crate::retained::Owner;

/// How many containers are made at once: set-up does not scale with threads (measured), and more only queue in the kernel.
const MAKING_MAX: usize = 4;
/// How soon it is tried again where the machine has no descriptors, threads or memory left; it doubles up to [`AGAIN_MAX`].
const AGAIN: Duration = Duration::from_millis(50);
/// See [`AGAIN`].
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// How often a kill that could not be passed on is tried again: for more than ten minutes.
const KILL_TRIES_MAX: u32 = 128;
/// The most processes and threads of one task.
const PIDS_MAX: u64 = 4096;

/// The name of the container of a launch: it can be made once, as the launch can.
pub fn container_id(launch: &Launch) -> String {
    format!("e{}-{}", launch.launch.epoch, launch.no)
}

/// What launching needs to know of the agent.
pub struct Settings {
    /// Holds the sandboxes.
    pub work_dir: PathBuf,
    /// The agent's id, for the task's environment.
    pub agent: String,
    /// The host name.
    pub host: String,
    /// How much of each output is kept, bytes.
    pub log_cap_bytes: u64,
}

/// A container that runs.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its name.
    pub container: String,
    /// What its task holds.
    pub held: Resources,
    /// Whether that is lent.
    pub lent: bool,
}

impl Running {
    fn of(launch: &Launch) -> Self {
        Running { container: container_id(launch), held: launch.resources.clone(), lent: launch.lent }
    }
}

/// All containers of the agent.
pub struct Containers {
    running: RefCell<BTreeMap<TaskId, Running>>,
    cage: Arc<Cage>,
    settings: Settings,
    events: mpsc::Sender<Event>,
    making: Arc<Semaphore>,
    disk: Rc<Disk>,
}

impl Containers {
    /// Over an open cage; what becomes of containers is sent as events.
    pub fn new(cage: Arc<Cage>, settings: Settings, events: mpsc::Sender<Event>, disk: Rc<Disk>) -> Rc<Self> {
        Rc::new(Containers { running: RefCell::default(), cage, settings, events, making: Arc::new(Semaphore::new(MAKING_MAX)), disk })
    }

    /// What runs now.
    pub fn running(&self) -> Vec<Running> {
        self.running.borrow().values().cloned().collect()
    }

    /// Where the task starts and finds its files.
    pub fn sandbox(&self, launch: &Launch) -> PathBuf {
        self.settings.work_dir.join("sandboxes").join(format!("{}-{}", launch.task, container_id(launch)))
    }

    /// Makes the container and follows it to its end.
    pub fn launch(self: &Rc<Self>, launch: Launch) {
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let sandbox = this.sandbox(&launch);
            let spec = spec(&launch, &sandbox, &this.settings);
            let cage = Arc::clone(&this.cage);
            let Ok(permit) = Arc::clone(&this.making).acquire_owned().await else { return };
            let made = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                std::fs::create_dir_all(&sandbox).map_err(|source| LaunchError::File { what: "make", path: sandbox, source })?;
                cage.launch(&spec)
            })
            .await;
            match made {
                Ok(Ok(container)) => this.follow(launch, container).await,
                Ok(Err(error)) => this.not_made(launch, &error).await,
                Err(error) => this.ended(launch.task, Ending::NotStarted { code: None, message: format!("making the container failed: {error}") }, Usage::default()).await,
            }
        });
    }

    /// What the machine lacks is no fault of the task's: it may be launched again elsewhere.
    async fn not_made(&self, launch: Launch, error: &LaunchError) {
        let source = match error {
            LaunchError::File { source, .. } | LaunchError::Spawn { source } => source.raw_os_error().map(|number| (number, source)),
            _ => None,
        };
        let reason = match source {
            // ENOSPC, EROFS, EIO, EDQUOT.
            Some((28 | 30 | 5 | 122, source)) => {
                self.disk.fails(source);
                Some("agent_disk")
            }
            // EMFILE, ENFILE, EAGAIN, ENOMEM.
            Some((24 | 23 | 11 | 12, _)) => Some("agent_exhausted"),
            _ => None,
        };
        let ending = match reason {
            Some(reason) => {
                complain(&format!("task {} was not started: {error}", launch.task));
                Ending::Lost { reason }
            }
            None => Ending::NotStarted { code: None, message: error.to_string() },
        };
        self.ended(launch.task, ending, Usage::default()).await;
    }

    /// Follows a fresh container: its event pipe tells of its start and its end.
    async fn follow(&self, launch: Launch, mut container: Container) {
        let task = &launch.task;
        self.running.borrow_mut().insert(task.clone(), Running::of(&launch));
        let mut told_start = false;
        if let Some(pipe) = container.take_events().and_then(|pipe| register(File::from(pipe), Interest::READABLE).ok()) {
            let mut text = Vec::new();
            while let Ok(true) = read_more(&pipe, &mut text).await {
                if !told_start && text.starts_with(b"started") {
                    told_start = true;
                    let _ = self.events.send(Event::Started { task: task.clone() }).await;
                }
                if text.windows(5).any(|word| word == b"exit\n") {
                    break;
                }
            }
            if !told_start && text.starts_with(b"started") {
                let _ = self.events.send(Event::Started { task: task.clone() }).await;
            }
        }
        self.conclude(launch, container).await;
    }

    /// Follows a container that was found: only its supervisor's end can be waited for.
    pub fn adopt(self: &Rc<Self>, launch: Launch, container: Container) {
        let this = Rc::clone(self);
        self.running.borrow_mut().insert(launch.task.clone(), Running::of(&launch));
        tokio::task::spawn_local(async move {
            wait_for(&container).await;
            this.conclude(launch, container).await;
        });
    }

    /// The supervisor is through, or gone: what its record says, or what recovery finds.
    async fn conclude(&self, launch: Launch, mut container: Container) {
        let owner = Owner::of(&launch, self.sandbox(&launch));
        let cwd = directory(&launch, &owner.sandbox);
        let task = launch.task;
        let mut again = AGAIN;
        let found = loop {
            let (cage, owner) = (Arc::clone(&self.cage), owner.clone());
            let outcome = tokio::task::spawn_blocking(move || {
                let _ = container.reap();
                let found = match container.exit() {
                    Ok(Some(exit)) => Ok(Recovered::Ended(exit)),
                    Ok(None) => cage.recover(container.id()),
                    Err(error) => Err(error),
                };
                if !matches!(found, Ok(Recovered::Running(_)) | Err(_)) {
                    owner.write(&cage);
                }
                (container, found)
            })
            .await;
            // The process ends, and whoever follows it looks again.
            let Ok((same, found)) = outcome else { return };
            container = same;
            match found {
                // It could not be waited for.
                Ok(Recovered::Running(_)) => wait_for(&container).await,
                Err(CageError::NoContainer { .. }) => break Recovered::Lost,
                Err(error) => {
                    say_once(again, &task, &error);
                    sleep(again).await;
                    again = (again * 2).min(AGAIN_MAX);
                }
                Ok(found) => break found,
            }
        };
        match found {
            Recovered::Ended(exit) => self.ended(task, ending(&exit, &cwd), usage(&exit)).await,
            _ => self.ended(task, Ending::Lost { reason: "supervisor_lost" }, Usage::default()).await,
        }
    }

    async fn ended(&self, task: TaskId, ending: Ending, usage: Usage) {
        self.running.borrow_mut().remove(&task);
        let _ = self.events.send(Event::Ended { task, ending, usage }).await;
    }

    /// After a start: finds what has become of every container that should run. What ended meanwhile is told truly.
    pub async fn recover(self: &Rc<Self>, live: Vec<Launch>) -> BTreeMap<TaskId, &'static str> {
        let mut found = BTreeMap::new();
        for launch in live {
            let task = launch.task.clone();
            let word = match self.look_for(&launch).await {
                Ok(what) => self.found(launch, what).await,
                // Nothing may be said of it before that is known.
                Err(error) => {
                    say_once(AGAIN, &task, &error);
                    self.look_again(launch);
                    "unknown"
                }
            };
            found.insert(task, word);
        }
        found
    }

    async fn look_for(&self, launch: &Launch) -> Result<Recovered, CageError> {
        let (cage, owner) = (Arc::clone(&self.cage), Owner::of(launch, self.sandbox(launch)));
        let outcome = tokio::task::spawn_blocking(move || {
            let found = cage.recover(&owner.container);
            if matches!(found, Ok(Recovered::Ended(_))) {
                owner.write(&cage);
            }
            found
        })
        .await;
        match outcome {
            Ok(Err(CageError::NoContainer { .. })) => Ok(Recovered::NeverStarted),
            Ok(found) => found,
            Err(_) => Err(CageError::Busy { id: container_id(launch), why: "the search for it was cut short" }),
        }
    }

    fn look_again(self: &Rc<Self>, launch: Launch) {
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let mut again = AGAIN;
            loop {
                sleep(again).await;
                again = (again * 2).min(AGAIN_MAX);
                if let Ok(found) = this.look_for(&launch).await {
                    this.found(launch, found).await;
                    return;
                }
            }
        });
    }

    /// Tells the machine what was found; says it in a word.
    async fn found(self: &Rc<Self>, launch: Launch, found: Recovered) -> &'static str {
        let task = launch.task.clone();
        let lost = |reason| Ending::Lost { reason };
        match found {
            Recovered::Running(container) => {
                if container.task_pid().is_some() {
                    let _ = self.events.send(Event::Started { task }).await;
                }
                self.adopt(launch, container);
                "running"
            }
            Recovered::Ended(exit) => {
                if !matches!(exit.why, Why::LaunchError { .. }) {
                    let _ = self.events.send(Event::Started { task: task.clone() }).await;
                }
                let cwd = directory(&launch, &self.sandbox(&launch));
                self.ended(task, ending(&exit, &cwd), usage(&exit)).await;
                "ended"
            }
            Recovered::Lost => {
                self.ended(task, lost("supervisor_lost"), Usage::default()).await;
                "lost"
            }
            Recovered::Reboot => {
                self.ended(task, lost("agent_rebooted"), Usage::default()).await;
                "rebooted"
            }
            Recovered::NeverStarted => {
                self.ended(task, lost("agent_restarted"), Usage::default()).await;
                "never started"
            }
        }
    }

    /// Ends a container; it keeps its grace even if the agent dies.
    pub fn kill(&self, launch: &Launch, grace_ms: u64) {
        let (cage, id, task) = (Arc::clone(&self.cage), container_id(launch), launch.task.clone());
        tokio::task::spawn_local(async move {
            let mut again = AGAIN;
            for _ in 0..KILL_TRIES_MAX {
                let (cage, id) = (Arc::clone(&cage), id.clone());
                match tokio::task::spawn_blocking(move || cage.kill(&id, grace_ms)).await {
                    Ok(Err(error @ (CageError::File { .. } | CageError::Busy { .. }))) => say_once(again, &task, &error),
                    // A container that is only being made is killed when it says that it started: the machine orders it again.
                    _ => return,
                }
                sleep(again).await;
                again = (again * 2).min(AGAIN_MAX);
            }
        });
    }
}

/// Ready when the container's supervisor has ended, or where that cannot be waited for, after a while.
async fn wait_for(container: &Container) {
    match container.pidfd().try_clone_to_owned().and_then(|fd| register(fd, Interest::READABLE)) {
        Ok(fd) => drop(fd.readable().await),
        Err(_) => sleep(AGAIN_MAX).await,
    }
}

/// The first failure of a row of them is said.
fn say_once(again: Duration, task: &TaskId, error: &CageError) {
    if again == AGAIN {
        complain(&format!("task {task} cannot be looked after: {error}; trying again"));
    }
}

/// Reads what the pipe has; false at its end.
async fn read_more(pipe: &AsyncFd<File>, text: &mut Vec<u8>) -> std::io::Result<bool> {
    loop {
        let mut ready = pipe.readable().await?;
        let mut buffer = [0u8; 256];
        match ready.try_io(|pipe| pipe.get_ref().read(&mut buffer)) {
            Ok(Ok(count)) => {
                text.extend_from_slice(&buffer[..count]);
                return Ok(count > 0);
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
}

fn ending(exit: &Exit, cwd: &Path) -> Ending {
    match &exit.why {
        Why::Exited | Why::Killed => Ending::Exited { code: exit.code, signal: exit.signal },
        Why::Timeout => Ending::Timeout { code: exit.code, signal: exit.signal },
        Why::MemoryLimit => Ending::MemoryLimit { limit_bytes: exit.mem_limit_bytes.unwrap_or(0), peak_bytes: exit.mem_peak_bytes.unwrap_or(0) },
        Why::LaunchError { stage, errno, .. } => {
            let why = io_text(&std::io::Error::from_raw_os_error(*errno));
            let code = match (stage.as_str(), *errno) {
                // ENOENT and ENOTDIR; everything else of exec is "cannot be executed", as a shell has it.
                ("exec", 2 | 20) => Some(127),
                ("exec", _) => Some(126),
                _ => None,
            };
            let message = match stage.as_str() {
                "exec" => why,
                "directory" => format!("cannot enter {}: {why}", cwd.display()),
                stage => format!("cannot set up its {stage}: {why}"),
            };
            Ending::NotStarted { code, message }
        }
    }
}

fn usage(exit: &Exit) -> Usage {
    Usage { stdout_bytes: exit.stdout_bytes, stderr_bytes: exit.stderr_bytes, mem_peak_bytes: exit.mem_peak_bytes.unwrap_or(0), cpu_ms: exit.cpu_ms }
}

/// Where a task starts.
fn directory(launch: &Launch, sandbox: &Path) -> PathBuf {
    match &launch.spec.workdir {
        // An absolute path replaces what it is joined to.
        Some(dir) => sandbox.join(dir),
        None => sandbox.to_owned(),
    }
}

fn spec(launch: &Launch, sandbox: &Path, settings: &Settings) -> Spec {
    let task = &launch.spec;
    let argv = match &task.cmd {
        Some(cmd) => vec!["/bin/sh".to_owned(), "-c".to_owned(), cmd.clone()],
        None => task.argv.clone(),
    };
    Spec {
        id: container_id(launch),
        argv,
        env: environment(launch, sandbox, settings),
        cwd: directory(launch, sandbox),
        stdin: task.stdin,
        attached: task.attached,
        user: None,
        cpu_milli: launch.resources.cpus.as_milli().unsigned_abs(),
        yields: launch.revocable,
        cpu_limit_milli: task.cpus_limit.map(|limit| limit.as_milli().unsigned_abs()),
        mem_bytes: (!launch.resources.mem.is_zero()).then(|| (launch.resources.mem.as_milli().unsigned_abs() << 20) / 1000),
        pids_max: Some(PIDS_MAX),
        timeout_ms: task.timeout.map(|span| span.0),
        kill_grace_ms: task.kill_grace.map_or(KILL_GRACE_MS, |span| span.0),
        log_cap_bytes: settings.log_cap_bytes,
        rlimit_nofile: None,
        rlimit_core: Some(0),
    }
}

/// The environment of the contract: the task's own, ours over it, and the few that every program expects.
fn environment(launch: &Launch, sandbox: &Path, settings: &Settings) -> Vec<(String, String)> {
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    env.insert("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    env.insert("HOME".to_owned(), sandbox.display().to_string());
    env.insert("LANG".to_owned(), "C.UTF-8".to_owned());
    env.extend(launch.spec.env.clone());
    let name = launch.spec.name.as_ref().map_or_else(|| launch.task.to_string(), ToString::to_string);
    let framework = launch.framework_name.as_ref().map_or_else(|| launch.framework.to_string(), ToString::to_string);
    let ours = [
        ("MESO_TASK_ID", launch.task.to_string()),
        ("MESO_TASK_NAME", name),
        ("MESO_FRAMEWORK", framework),
        ("MESO_ROLE", launch.role.to_string()),
        ("MESO_AGENT", settings.agent.clone()),
        ("MESO_HOST", settings.host.clone()),
        ("MESO_SANDBOX", sandbox.display().to_string()),
        ("MESO_CPUS", launch.resources.cpus.to_string()),
        ("MESO_MEM", launch.resources.mem.to_string()),
    ];
    env.extend(ours.map(|(key, value)| (key.to_owned(), value)));
    for (number, port) in launch.resources.ports.iter().enumerate() {
        env.insert(format!("PORT{number}"), port.to_string());
    }
    env.into_iter().collect()
}
