//! A cluster of real processes for one test alone: a bus, masters and agents on free ports, in a temporary directory

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use meso_bus::testserver::{Server, ServerSpec};
use tempfile::TempDir;

use crate::process::{Ran, Running, is_alive, processes_of, signal, until};

/// The user and group that may nothing
const NOBODY: u32 = 65_534;
/// Lines of each log that a failed test shows
const LOG_LINES: usize = 15;
/// How often what is left is killed before that is a failure
const SWEEPS_MAX: usize = 500;

/// A program of ours: one just built, or of the directory that `MESO_TEST_BINS` names.
pub fn program(name: &str) -> PathBuf {
    match std::env::var_os("MESO_TEST_BINS") {
        Some(dir) => Path::new(&dir).join(name),
        None => Path::new(env!("CARGO_BIN_EXE_meso-launch")).with_file_name(name),
    }
}

/// How agents hold their tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contained {
    /// In cgroups, as root.
    Cgroups,
    /// In process groups, as whoever runs the tests.
    Processes,
    /// In process groups, as a user who may nothing.
    Nobody,
}

impl Contained {
    /// Whether this machine and user can have it so.
    pub fn is_possible(self) -> bool {
        let is_root = fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
        let possible = match self {
            Contained::Processes => true,
            Contained::Nobody => is_root && Path::new("/usr/bin/setpriv").exists(),
            Contained::Cgroups => is_root && std::env::var("MESO_TEST_CGROUPS").as_deref() != Ok("off") && has_cgroups(),
        };
        if !possible {
            eprintln!("left out: this machine or user cannot have tasks contained as {self:?}");
        }
        possible
    }
}

fn has_cgroups() -> bool {
    let probe = format!("meso-test-probe-{}", std::process::id());
    cgroup_trees().iter().any(|tree| {
        let dir = tree.join(&probe);
        fs::create_dir(&dir).is_ok() && fs::remove_dir(&dir).is_ok()
    })
}

/// Where hierarchies of cgroups are mounted.
fn cgroup_trees() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup"))).filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from).collect()
}

/// What a cluster is to be.
#[derive(Clone)]
pub struct Shape {
    pub masters: usize,
    pub master_args: Vec<&'static str>,
    /// What each agent gives.
    pub agents: Vec<&'static str>,
    pub agent_args: Vec<&'static str>,
    pub contained: Contained,
    pub bus: ServerSpec,
}

impl Default for Shape {
    fn default() -> Self {
        let contained = if Contained::Cgroups.is_possible() { Contained::Cgroups } else { Contained::Processes };
        Shape { masters: 1, master_args: Vec::new(), agents: vec!["cpus=8,mem=2G,disk=1G"], agent_args: Vec::new(), contained, bus: ServerSpec::default() }
    }
}

/// A master or an agent.
struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The cluster; dropping it ends all of it, and shows its logs if the test has failed.
pub struct Cluster {
    pub bus: Server,
    shape: Shape,
    masters: Vec<Option<Daemon>>,
    agents: Vec<Option<Daemon>>,
    /// Daemons ever started, for the names of their logs.
    started: usize,
    dir: TempDir,
}

impl Cluster {
    /// One master and one agent with room for eight tasks.
    pub fn start() -> Cluster {
        Cluster::with(Shape::default())
    }

    /// The same, with tasks contained in a certain way; none if that cannot be had here.
    pub fn contained(contained: Contained) -> Option<Cluster> {
        contained.is_possible().then(|| Cluster::with(Shape { contained, ..Shape::default() }))
    }

    /// A cluster of a shape; it has a leader and all agents when this returns.
    pub fn with(shape: Shape) -> Cluster {
        let bus = Server::start(shape.bus.clone()).expect("nats-server starts");
        let dir = tempfile::Builder::new().prefix("meso-test-").tempdir().expect("a temporary directory");
        for (name, mode) in [("", 0o755), ("bin", 0o755), ("logs", 0o755), ("files", 0o777), ("here", 0o755)] {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode))).expect("it is ours");
        }
        if shape.contained == Contained::Nobody {
            // The checkout may stand where others cannot look.
            for name in ["meso-agent", "meso-supervisor"] {
                fs::copy(program(name), dir.path().join("bin").join(name)).expect("it was built");
            }
        }
        let (masters, agents) = (shape.masters, shape.agents.len());
        let mut cluster = Cluster { bus, shape, masters: Vec::new(), agents: Vec::new(), started: 0, dir };
        for at in 0..masters {
            cluster.masters.push(None);
            cluster.start_master(at);
        }
        for at in 0..agents {
            cluster.agents.push(None);
            cluster.start_agent(at);
        }
        cluster.until_agents(agents);
        cluster
    }

    /// Waits until so many agents are in service.
    pub fn until_agents(&self, count: usize) {
        until("all agents are in service", || self.tool("meso-ps", &["agents", "--state", "active", "-q"]).lines().len() == count);
    }

    /// Where tests and tasks keep files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("files").join(name)
    }

    /// The same as text.
    pub fn text_path(&self, name: &str) -> String {
        self.path(name).to_str().expect("the name is ours").to_owned()
    }

    /// The lines of a file that tasks write; none if there is no file yet.
    pub fn lines_of(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// A tool in a directory of its own, knowing nothing but the bus and PATH.
    pub fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        command.args(args).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("MESO_NATS_URL", self.bus.url());
        command.current_dir(self.dir.path().join("here")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a tool to its end.
    pub fn tool(&self, name: &str, args: &[&str]) -> Ran {
        Running::start(&mut self.command(name, args)).finish()
    }

    /// Runs `meso-launch` to its end.
    pub fn launch(&self, args: &[&str]) -> Ran {
        self.tool("meso-launch", args)
    }

    /// Starts `meso-launch`.
    pub fn launching(&self, args: &[&str]) -> Running {
        Running::start(&mut self.command("meso-launch", args))
    }

    /// Asks an agent to end, and waits for it.
    pub fn stop_agent(&mut self, at: usize) {
        let mut agent = self.agents[at].take().expect("it was started");
        assert!(signal(agent.child.id(), "TERM"), "it runs");
        until("the agent ends when asked to", || agent.child.try_wait().expect("it is our child").is_some());
    }

    /// How an agent ended by itself.
    pub fn agent_code(&mut self, at: usize) -> Option<i32> {
        let agent = self.agents[at].as_mut().expect("it was started");
        let mut status = None;
        until("the agent ends", || {
            status = agent.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status?.code()
    }

    /// Directories of cgroups that an agent made and that are still there.
    pub fn cgroups_left(&self) -> Vec<PathBuf> {
        let ids = self.agent_ids();
        cgroup_trees().iter().flat_map(|tree| ids.iter().map(|id| tree.join("meso").join(id))).filter(|dir| dir.exists()).collect()
    }

    /// Waits until no task lives and no framework is known.
    pub fn until_idle(&self) {
        until("no task is left", || self.tool("meso-ps", &["-q"]).expect(0).out.is_empty());
        until("no framework is left", || self.tool("meso-ps", &["frameworks", "-q"]).expect(0).out.is_empty());
    }

    /// The command line of a master.
    pub fn master_command(&self, at: usize) -> Command {
        let mut command = self.command("meso-master", &["--host", &format!("master{at}")]);
        command.args(&self.shape.master_args);
        command
    }

    /// The command line of an agent, on its own work directory.
    pub fn agent_command(&self, at: usize) -> Command {
        let work_dir = self.work_dir(at);
        let mut command = match self.shape.contained {
            Contained::Nobody => {
                if !work_dir.exists() {
                    fs::create_dir(&work_dir).and_then(|()| chown(&work_dir, Some(NOBODY), Some(NOBODY))).expect("root may do so");
                }
                let mut command = self.command("meso-agent", &[]);
                let (variables, here): (Vec<_>, _) = (command.get_envs().map(|(key, value)| (key.to_owned(), value.map(ToOwned::to_owned))).collect(), self.dir.path().join("here"));
                command = Command::new("/usr/bin/setpriv");
                command.args(["--reuid", &NOBODY.to_string(), "--regid", &NOBODY.to_string(), "--clear-groups"]).arg(self.dir.path().join("bin/meso-agent"));
                command.env_clear().envs(variables.into_iter().filter_map(|(key, value)| Some((key, value?)))).current_dir(here);
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
                command
            }
            _ => self.command("meso-agent", &[]),
        };
        command.arg("--work-dir").arg(&work_dir).args(["-R", self.shape.agents[at], "--host", &format!("host{at}")]);
        if self.shape.contained == Contained::Processes {
            command.args(["--cgroups", "off"]);
        }
        command.args(&self.shape.agent_args);
        command
    }

    pub fn work_dir(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("agent{at}"))
    }

    /// Where an agent's containers and their supervisors work: its directory leads there.
    pub fn containers_dir(&self, at: usize) -> PathBuf {
        let dir = self.work_dir(at).join("containers");
        fs::read_link(dir.join(".control")).unwrap_or(dir)
    }

    pub fn start_master(&mut self, at: usize) {
        let command = self.master_command(at);
        self.masters[at] = Some(self.start_daemon(&format!("master{at}"), command));
    }

    pub fn start_agent(&mut self, at: usize) {
        let command = self.agent_command(at);
        self.agents[at] = Some(self.start_daemon(&format!("agent{at}"), command));
    }

    fn start_daemon(&mut self, name: &str, mut command: Command) -> Daemon {
        self.started += 1;
        let log = self.dir.path().join("logs").join(format!("{:02}-{name}", self.started));
        let file = File::create(&log).expect("it is ours");
        command.stdout(file.try_clone().expect("it is open")).stderr(file);
        Daemon { child: command.spawn().expect("it was built"), log }
    }

    pub fn master_pid(&self, at: usize) -> u32 {
        self.masters[at].as_ref().expect("it was started").child.id()
    }

    pub fn agent_pid(&self, at: usize) -> u32 {
        self.agents[at].as_ref().expect("it was started").child.id()
    }

    /// What an agent's last process has said.
    pub fn agent_log(&self, at: usize) -> String {
        fs::read_to_string(&self.agents[at].as_ref().expect("it was started").log).expect("it is ours")
    }

    /// What all masters and agents have said.
    pub fn logs(&self) -> String {
        let mut logs: Vec<_> = fs::read_dir(self.dir.path().join("logs")).expect("it is ours").flatten().map(|entry| entry.path()).collect();
        logs.sort();
        logs.iter().map(|path| fs::read_to_string(path).unwrap_or_default()).collect()
    }

    /// Ends an agent as a crash does.
    pub fn kill_agent(&mut self, at: usize) {
        self.agents[at].take().expect("it was started").kill();
    }

    /// Ends a master as a crash does.
    pub fn kill_master(&mut self, at: usize) {
        self.masters[at].take().expect("it was started").kill();
    }

    /// Asks a master to end, and waits for it.
    pub fn stop_master(&mut self, at: usize) {
        let mut master = self.masters[at].take().expect("it was started");
        assert!(signal(master.child.id(), "TERM"), "it runs");
        until("the master ends when asked to", || master.child.try_wait().expect("it is our child").is_some());
    }

    /// Which master leads.
    pub fn leader(&self) -> usize {
        let mut leader = None;
        until("a master leads", || {
            let hosts = self.tool("meso-ps", &["masters", "--state", "leading", "-o", "tsv=host"]).lines();
            leader = hosts.iter().find_map(|line| line.strip_prefix("master")?.parse().ok());
            leader.is_some()
        });
        leader.expect("it was just found")
    }

    /// The epoch of whoever leads; 0 while nobody does.
    pub fn epoch(&self) -> u64 {
        let told = self.tool("meso-ps", &["masters", "--state", "leading", "-o", "tsv=epoch"]).lines();
        told.first().and_then(|epoch| epoch.parse().ok()).unwrap_or(0)
    }

    /// Whether all masters and agents that were started still run.
    #[track_caller]
    pub fn expect_all_alive(&mut self) {
        for daemon in self.masters.iter_mut().chain(&mut self.agents).flatten() {
            let ended = daemon.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "{} ended with {ended:?}", daemon.log.display());
        }
    }

    /// The ids of all agents there ever were, as they said them: what they are called in cgroups.
    fn agent_ids(&self) -> BTreeSet<String> {
        self.logs().split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("agent_")).map(str::to_owned).collect()
    }

    fn show_logs(&self) {
        eprintln!("the cluster at {} in {}:", self.bus.url(), self.dir.path().display());
        let mut logs: Vec<_> = fs::read_dir(self.dir.path().join("logs")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        logs.sort();
        for log in logs {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {} ({} lines)", log.display(), lines.len());
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        for daemon in self.masters.iter_mut().chain(&mut self.agents).flatten() {
            daemon.kill();
        }
        for _ in 0..SWEEPS_MAX {
            let mut left = processes_of(self.dir.path());
            left.extend((0..self.agents.len()).flat_map(|at| processes_of(&self.containers_dir(at))));
            if left.is_empty() {
                break;
            }
            for pid in left {
                // Whoever has just ended need not be killed; the stopped are continued by the end itself.
                let _ = is_alive(pid) && signal(pid, "KILL");
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        for dir in self.cgroups_left() {
            remove_cgroup(&dir);
        }
        for at in 0..self.agents.len() {
            let _ = fs::remove_dir_all(self.containers_dir(at));
        }
    }
}

/// Removes a cgroup and all below it; there may be none.
fn remove_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&entry.path());
    }
    let _ = fs::remove_dir(dir);
}

/// A door that tasks wait at, without doing anything: `: <gate` in a shell goes on once it is open.
pub struct Gate {
    path: PathBuf,
    open: Option<File>,
}

impl Gate {
    pub fn new(cluster: &Cluster, name: &str) -> Gate {
        let path = cluster.path(name);
        assert!(Command::new("mkfifo").args(["-m", "666"]).arg(&path).status().expect("mkfifo is everywhere").success());
        Gate { path, open: None }
    }

    /// The name for a shell's command line.
    pub fn text(&self) -> &str {
        self.path.to_str().expect("the name is ours")
    }

    /// Opens it, for those who wait and for all who come.
    pub fn open(&mut self) {
        self.open = Some(File::options().read(true).write(true).open(&self.path).expect("it is ours"));
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // A failed test must not leave tasks waiting; the cluster may be gone already.
        let _ = File::options().read(true).write(true).open(&self.path);
    }
}
