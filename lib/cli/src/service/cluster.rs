//! The whole: a bus, masters and agents, brought up in order and taken down in order
use super::{
    kept::{Death, Kept, KeptSpec, last_words},
    nats_config::{NatsConfig, Peers},
    port, program,
    share::{AGENTS_MAX, Machine},
    state::StateDir,
};
use crate::{
    exit::Failure,
    io_text,
    say::{complain, report},
    surroundings::Surroundings,
};
use meso_bus::{Bus, BusOptions, inbox_of, testserver::version_of};
use meso_core::{
    id::{Name, Principal},
    resources::{BadResources, parse_total},
    wire::query::{AgentRow, Query, Rows, Table},
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

/// Masters on one machine at most; more than a few serve nobody.
const MASTERS_MAX: u32 = 9;
/// How many servers the bus may have: two would be worse than one, as neither could go on without the other.
const SERVERS: [usize; 2] = [1, 3];
/// How long the bus may take until it listens; a store of many messages takes a while to read.
const BUS_START_MS: u64 = 15_000;
/// How long the cluster may take until a master leads and every agent is registered.
const READY_MS: u64 = 30_000;
const LOOK_MS: u64 = 20;
const CONNECT_MS: u64 = 5_000;
const ASK_MS: u64 = 1_000;
/// How long an agent may take to end with all its tasks.
const AGENT_STOP_MS: u64 = 20_000;
const MASTER_STOP_MS: u64 = 5_000;
const BUS_STOP_MS: u64 = 5_000;
/// Deaths that wait to be told at most.
const DEATHS_MAX: usize = 64;
/// What dies so often before the cluster is up will not come up.
const EARLY_DEATHS_MAX: u32 = 3;
/// Codes with which a tool says that starting it again cannot help.
const HOPELESS: [i32; 5] = [2, 77, 78, 126, 127];
const TOKEN_BYTES: usize = 16;
const SERVER: &str = "nats-server";
/// They would lead a member of this cluster, or the command, to another bus.
const OTHER_BUS: [&str; 6] = ["MESO_NATS_CREDS", "NATS_CREDS", "MESO_CONTEXT", "NATS_CONTEXT", "NATS_URL", "MESO_NATS_SERVER"];

/// What cluster is wanted.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    pub name: Name,
    /// How many servers the bus has, and keep what masters store: 1 or 3.
    pub bus: usize,
    pub masters: u32,
    pub agents: u32,
    /// Further flags of the masters, such as their `--allocate CMD`.
    pub master_args: Vec<OsString>,
    /// What each agent has, as for its `-R`; without it, a fair part of the machine.
    pub resources: Option<String>,
    /// Over how long agents measure what they may lend, as for their `--oversubscribe`; without it they lend nothing.
    pub oversubscribe_ms: Option<u64>,
    pub state: StateWish,
    /// Of the first server; the others listen on those after it. None takes free ones.
    pub port: Option<u16>,
    /// None finds one.
    pub nats_server: Option<PathBuf>,
    /// Whether the bus asks for a secret, which then is in its address.
    pub is_private: bool,
}

/// Where the state of a cluster is.
#[derive(Clone, Debug)]
pub enum StateWish {
    /// In a directory that stays; the usual one if none is named.
    Kept(Option<PathBuf>),
    /// In one that goes with the cluster.
    Temporary,
}

/// A cluster on this machine.
#[derive(Debug)]
pub struct Cluster {
    spec: ClusterSpec,
    state: StateDir,
    server: PathBuf,
    server_version: (u64, u64, u64),
    master_program: PathBuf,
    agent_program: PathBuf,
    token: Option<String>,
    /// As soon as the bus listens.
    url: String,
    /// How agents hold their tasks, as they say it.
    isolation: String,
    bus: Vec<Kept>,
    masters: Vec<Kept>,
    agents: Vec<Kept>,
    deaths: mpsc::Receiver<Death>,
    tell_death: mpsc::Sender<Death>,
}

impl Cluster {
    /// Finds everything that is needed, and takes the state directory; nothing runs yet.
    ///
    /// What an earlier run left on the directory is ended.
    ///
    /// # Errors
    /// `Usage`: numbers or resources that cannot be. `Unreachable`: no nats-server. `Config`: a program or directory that cannot be used.
    /// `NotNow`: the directory or the port is in use.
    pub fn open(spec: ClusterSpec, surroundings: &Surroundings) -> Result<Cluster, Failure> {
        if !SERVERS.contains(&spec.bus) {
            return Err(Failure::usage(format!("--bus {}: one server, or three, of which one may be lost", spec.bus)).hint("--bus 3"));
        }
        if spec.port.is_some_and(|port| usize::from(u16::MAX - port) < spec.bus - 1) {
            return Err(Failure::usage("--port: the ports after it are for the other servers").hint("--port 4222"));
        }
        check_count("--masters", spec.masters, MASTERS_MAX)?;
        check_count("--agents", spec.agents, AGENTS_MAX)?;
        if let Some(text) = &spec.resources {
            parse_total(text).map_err(|e| bad_resources(&e))?;
        }
        let server = program::nats_server(spec.nats_server.as_deref(), surroundings)?;
        let server_version =
            version_of(&server).map_err(|e| Failure::config(format!("{}: {}", server.display(), io_text(&e))).hint("a nats-server that runs here, with --nats-server PATH"))?;
        let (master_program, agent_program) = (program::beside_own("meso-master")?, program::beside_own("meso-agent")?);
        let state = match &spec.state {
            StateWish::Kept(path) => StateDir::kept(path.as_deref(), surroundings)?,
            StateWish::Temporary => StateDir::temporary()?,
        };
        state.end_leftovers();
        let checked = state.make_bus(spec.bus).and_then(|()| (0u16..).zip(0..spec.bus).filter_map(|(after, _)| Some(spec.port? + after)).try_for_each(port::check_free));
        let token = if spec.is_private { random_token().map(Some) } else { Ok(None) };
        let token = match checked.and(token) {
            Ok(token) => token,
            Err(failure) => {
                // The first failure is the one to tell.
                let _ = state.close();
                return Err(failure);
            }
        };
        let (tell_death, deaths) = mpsc::channel(DEATHS_MAX);
        let (url, isolation) = (String::new(), String::new());
        Ok(Cluster { spec, state, server, server_version, master_program, agent_program, token, url, isolation, bus: Vec::new(), masters: Vec::new(), agents: Vec::new(), deaths, tell_death })
    }

    /// Starts the bus, the masters and the agents, and waits until every agent is registered with a leader.
    ///
    /// May be dropped half-way; [`take_down`](Cluster::take_down) ends whatever runs by then.
    ///
    /// # Errors
    /// `Config` or `Unreachable`: something did not come up, with what it said last.
    pub async fn bring_up(&mut self) -> Result<(), Failure> {
        let ports = self.start_bus().await?;
        let user = self.token.as_ref().map_or_else(String::new, |token| format!("{token}@"));
        self.url = ports.iter().map(|port| format!("nats://{user}127.0.0.1:{port}")).collect::<Vec<_>>().join(",");
        for number in 1..=self.spec.masters {
            let name = numbered("meso-master", number, self.spec.masters);
            let mut args: Vec<OsString> = vec!["--cluster".into(), self.spec.name.as_str().into()];
            if self.spec.bus > 1 {
                args.extend(["--replicas".into(), self.spec.bus.to_string().into()]);
            }
            args.extend(self.spec.master_args.iter().cloned());
            let spec = self.kept(&name, &self.master_program, args, MASTER_STOP_MS);
            self.masters.push(Kept::start(spec, self.tell_death.clone()));
        }
        let machine = Machine::here(self.state.root());
        for number in 1..=self.spec.agents {
            let name = numbered("meso-agent", number, self.spec.agents);
            let args = self.agent_args(number, &machine)?;
            // The rest is a cluster without it; without its bus or a master it would be none, so those are always tried again.
            let spec = KeptSpec { last_codes: &HOPELESS, ..self.kept(&name, &self.agent_program, args, AGENT_STOP_MS) };
            self.agents.push(Kept::start(spec, self.tell_death.clone()));
        }
        self.wait_ready().await
    }

    /// The addresses of the bus with commas between them, with its secret if it has one.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What a command needs to reach this cluster, and to find its tools.
    ///
    /// # Errors
    /// `Config`: PATH cannot be made of what is there.
    pub fn environment(&self) -> Result<Vec<(&'static str, OsString)>, Failure> {
        let own = program::own_folder()?;
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let all = std::iter::once(own.clone()).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(all).map_err(|_| Failure::config(format!("{} cannot stand in PATH: it holds a colon", own.display())).hint("meso in another folder"))?;
        Ok(vec![("MESO_NATS_URL", self.url.clone().into()), ("MESO_CLUSTER", self.spec.name.as_str().into()), ("PATH", path)])
    }

    /// What must not reach the command, for it would lead it to another bus.
    pub fn foreign_variables() -> &'static [&'static str] {
        &OTHER_BUS
    }

    /// What people should know of this cluster: one sentence each.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let is_kept = !self.state.is_temporary();
        let (major, minor, patch) = self.server_version;
        if is_kept && !self.nats_config(Path::new(""), None).can_sync() {
            remarks.push(format!("nats-server {major}.{minor}.{patch} cannot be told to sync: a power cut may lose what the bus stores, not what the agents do; 2.12 and newer lose nothing"));
        }
        if self.isolation == "processes" {
            remarks.push("without cgroups: tasks are held to process groups and resource limits only, and memory is not enforced exactly".to_owned());
        }
        if is_kept && !self.spec.is_private && rustix::process::geteuid().is_root() {
            remarks.push("everybody on this machine can reach this bus and run tasks as root; --private asks for a secret".to_owned());
        }
        remarks
    }

    /// What runs, in one line.
    pub fn summary(&self) -> String {
        let (major, minor, patch) = self.server_version;
        let count = |number: u32, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        format!(
            "{} and {} on {}nats-server {major}.{minor}.{patch}; state in {}, logs in {}",
            count(self.spec.masters, "master"),
            count(self.spec.agents, "agent"),
            if self.spec.bus == 1 { String::new() } else { format!("{} times ", self.spec.bus) },
            self.state.root().display(),
            self.state.logs().display()
        )
    }

    /// Says each death as it happens; never ends.
    pub async fn watch(&mut self) {
        while let Some(death) = self.deaths.recv().await {
            match death.pause_ms {
                Some(pause_ms) => complain(&format!("{} {}; starting it again in {pause_ms} ms (log: {})", death.name, death.how, death.log.display())),
                None => report(&last_said(&death, "; it is left be, the others go on", || death.log.display().to_string())),
            }
        }
    }

    /// Ends the agents with their tasks, then the masters, then the bus, and gives up the state directory.
    ///
    /// When `hurry` is over, everything that still runs is killed.
    ///
    /// # Errors
    /// `Failed`: something is left, and where.
    pub async fn take_down(mut self, hurry: impl Future<Output = ()>) -> Result<(), Failure> {
        let groups = [std::mem::take(&mut self.agents), std::mem::take(&mut self.masters), std::mem::take(&mut self.bus)];
        let mut hurry = std::pin::pin!(hurry);
        let mut is_hurried = false;
        let tell = |kept: &Kept, is_hurried: bool| if is_hurried { kept.kill() } else { kept.stop() };
        for mut group in groups {
            group.iter().for_each(|kept| tell(kept, is_hurried));
            while let Some(kept) = group.last_mut() {
                tokio::select! {
                    () = kept.ended() => drop(group.pop()),
                    () = &mut hurry, if !is_hurried => {
                        is_hurried = true;
                        group.iter().for_each(|kept| tell(kept, true));
                    }
                }
            }
        }
        // An agent that had to be killed could not end its tasks.
        self.state.kill_tasks();
        self.state.close()
    }

    /// Starts the servers of the bus, and waits until each tells its port.
    async fn start_bus(&mut self) -> Result<Vec<u16>, Failure> {
        let servers = self.spec.bus;
        let numbers: Vec<Option<usize>> = if servers == 1 { vec![None] } else { (1..=servers).map(Some).collect() };
        // Those of several have to know each other before any of them runs.
        let for_each_other = if servers == 1 { Vec::new() } else { port::free_ones(servers)? };
        for (after, number) in (0u16..).zip(&numbers) {
            let peers = number.map(|number| Peers { number, ports: &for_each_other });
            let folder = self.state.bus(*number);
            remove_ports_files(&folder);
            let config = folder.join("nats.conf");
            self.write_config(&config, self.spec.port.map(|port| port + after), peers)?;
            let args = vec!["-c".into(), config.into(), "--ports_file_dir".into(), folder.into()];
            let spec = self.kept(&server_name(*number), &self.server, args, BUS_STOP_MS);
            self.bus.push(Kept::start(spec, self.tell_death.clone()));
        }
        let deadline = Instant::now() + Duration::from_millis(BUS_START_MS);
        let mut ports = Vec::with_capacity(servers);
        for number in numbers {
            let port = self.until_listens(number, deadline).await?;
            // When it has to be started again, those who are connected look for it there.
            let peers = number.map(|number| Peers { number, ports: &for_each_other });
            self.write_config(&self.state.bus(number).join("nats.conf"), Some(port), peers)?;
            ports.push(port);
        }
        Ok(ports)
    }

    /// Waits until a server tells its port.
    async fn until_listens(&mut self, number: Option<usize>, deadline: Instant) -> Result<u16, Failure> {
        let folder = self.state.bus(number);
        loop {
            if let Some(port) = told_port(&folder) {
                return Ok(port);
            }
            if let Ok(Some(death)) = timeout(Duration::from_millis(LOOK_MS), self.deaths.recv()).await {
                return Err(did_not_come_up(&death));
            }
            if Instant::now() >= deadline {
                let name = server_name(number);
                let (said, _) = last_words(&self.state.log(&name));
                let see = format!("{} -c {}, to see why", self.server.display(), folder.join("nats.conf").display());
                return Err(Failure::unreachable(format!("{name} does not listen after {BUS_START_MS} ms; it said last: {said}")).hint(see));
            }
        }
    }

    fn nats_config<'a>(&'a self, store: &'a Path, peers: Option<Peers<'a>>) -> NatsConfig<'a> {
        NatsConfig { port: self.spec.port, store, version: self.server_version, is_kept: !self.state.is_temporary(), token: self.token.as_deref(), peers }
    }

    fn write_config(&self, path: &Path, port: Option<u16>, peers: Option<Peers<'_>>) -> Result<(), Failure> {
        let store = path.with_file_name("store");
        let text = NatsConfig { port, ..self.nats_config(&store, peers) }.text();
        let write = || -> io::Result<()> {
            // Under its own name only when it is whole: the server may read it at any time.
            let new = path.with_extension("new");
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&new, path)
        };
        write().map_err(|e| Failure::config(format!("writing {}: {}", path.display(), io_text(&e))).hint("room on the disk, or another directory with --state DIR"))
    }

    fn kept(&self, name: &str, program: &Path, args: Vec<OsString>, stop_ms: u64) -> KeptSpec {
        KeptSpec {
            name: name.to_owned(),
            program: program.to_owned(),
            args,
            env: vec![("MESO_NATS_URL", self.url.clone().into())],
            env_removed: &OTHER_BUS,
            log: self.state.log(name),
            pid_file: self.state.pid_file(name),
            stop_ms,
            last_codes: &[],
        }
    }

    fn agent_args(&self, number: u32, machine: &Machine) -> Result<Vec<OsString>, Failure> {
        let mut args: Vec<OsString> = vec!["--cluster".into(), self.spec.name.as_str().into(), "--work-dir".into(), self.state.agent(number).into(), "--kill-tasks-on-exit".into()];
        if let Some(window_ms) = self.spec.oversubscribe_ms {
            args.push(format!("--oversubscribe={window_ms}ms").into());
        }
        match &self.spec.resources {
            // An agent alone finds the rest by itself.
            Some(wish) if self.spec.agents == 1 => args.extend(["-R".into(), wish.into()]),
            None if self.spec.agents == 1 => {}
            wish => {
                let share = machine.share(number, self.spec.agents, wish.as_deref()).map_err(|e| bad_resources(&e))?;
                // One machine has one name; agents that share it want to be told apart.
                args.extend(["-R".into(), share.to_string().into(), "--host".into(), format!("local-{number}").into()]);
            }
        }
        Ok(args)
    }

    /// Waits until a master leads and every agent is registered with it.
    async fn wait_ready(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + Duration::from_millis(READY_MS);
        let principal = Principal::parse("meso-up").map_err(|e| Failure::internal(e.to_string()))?;
        let options = BusOptions::new(&self.url, &self.spec.name, inbox_of(principal.as_str()), "meso-up");
        let bus = Bus::connect(&options, Duration::from_millis(CONNECT_MS)).await?;
        let subject = bus.subjects().query(&principal, "ask");
        let query = Query { of: Table::Agents, from: String::new(), prefix: String::new(), ask: None };
        let question = serde_json::to_vec(&query).map_err(|e| Failure::internal(e.to_string()))?;
        let mut deaths: BTreeMap<String, u32> = BTreeMap::new();
        let wanted = self.spec.agents as usize;
        let mut active = None;
        while active.unwrap_or(0) < wanted {
            tokio::select! {
                // A dead connection and a missing leader look alike here: both are asked again.
                answer = bus.request(&subject, question.clone().into(), Duration::from_millis(ASK_MS)) => {
                    let rows = answer.ok().and_then(|answer| active_agents(&answer));
                    active = rows.as_ref().map(Vec::len);
                    if let Some(first) = rows.and_then(|rows| rows.into_iter().next()) {
                        self.isolation = first.isolation;
                    }
                    if active.unwrap_or(0) < wanted {
                        sleep(Duration::from_millis(LOOK_MS)).await;
                    }
                }
                Some(death) = self.deaths.recv() => {
                    let count = deaths.entry(death.name.clone()).or_default();
                    *count += 1;
                    if *count >= EARLY_DEATHS_MAX || death.code.is_some_and(|code| HOPELESS.contains(&code)) {
                        return Err(did_not_come_up(&death));
                    }
                }
            }
            if Instant::now() >= deadline {
                return Err(self.not_ready(active));
            }
        }
        // All that was asked has been answered; nothing of it is worth a failure.
        let _ = bus.close().await;
        Ok(())
    }

    fn not_ready(&self, active: Option<usize>) -> Failure {
        let (what, name) = match active {
            None => ("no master leads".to_owned(), numbered("meso-master", 1, self.spec.masters)),
            Some(active) => (format!("only {active} of {} agents are registered", self.spec.agents), numbered("meso-agent", 1, self.spec.agents)),
        };
        let (said, hint) = last_words(&self.state.log(&name));
        let said = if said.is_empty() { "it said nothing".to_owned() } else { format!("it said last: {said}") };
        Failure::unreachable(format!("{what} after {READY_MS} ms; {name}: {said}")).hint(hint.unwrap_or_else(|| "meso-up --state DIR, and the logs in DIR/log".to_owned()))
    }
}

fn bad_resources(error: &BadResources) -> Failure {
    Failure::usage(format!("-R: {error}")).hint("-R cpus=1,mem=1G")
}

fn check_count(flag: &str, count: u32, max: u32) -> Result<(), Failure> {
    match (1..=max).contains(&count) {
        true => Ok(()),
        false => Err(Failure::usage(format!("{flag} {count}: from 1 to {max}")).hint(format!("{flag} 1"))),
    }
}

/// `nats-server`, or `nats-server-2` where there are several.
fn server_name(number: Option<usize>) -> String {
    number.map_or_else(|| SERVER.to_owned(), |number| format!("{SERVER}-{number}"))
}

/// `meso-agent`, or `meso-agent-2` where there are several.
fn numbered(name: &str, number: u32, count: u32) -> String {
    if count == 1 { name.to_owned() } else { format!("{name}-{number}") }
}

/// The failure of a process that died before the cluster was up.
fn did_not_come_up(death: &Death) -> Failure {
    last_said(death, "", || "meso-up --state DIR, and the logs in DIR/log".to_owned())
}

/// How a process ended: what it said, what becomes of it, and what it said to try, or what else there is to try.
fn last_said(death: &Death, and: &str, or_try: impl FnOnce() -> String) -> Failure {
    let (said, hint) = last_words(&death.log);
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    Failure::config(format!("{} {}{said}{and}", death.name, death.how)).hint(hint.unwrap_or_else(or_try))
}

/// The agents that a leader counts with; none if no leader answered so.
fn active_agents(answer: &[u8]) -> Option<Vec<AgentRow>> {
    match serde_json::from_slice(answer).ok()? {
        Rows::Agents { page, .. } => Some(page.into_iter().filter(|agent| agent.state == "active").collect()),
        _ => None,
    }
}

/// The port in the ports file that nats-server writes once it listens: `{"nats":["nats://127.0.0.1:4222"],...}`.
fn told_port(folder: &Path) -> Option<u16> {
    let path = ports_files(folder).next()?;
    let ports: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
    ports.get("nats")?.get(0)?.as_str()?.rsplit_once(':')?.1.parse().ok()
}

/// A server that was killed leaves its file.
fn remove_ports_files(folder: &Path) {
    for path in ports_files(folder) {
        // What cannot be removed would be believed; the connection then fails and says so.
        let _ = fs::remove_file(path);
    }
}

fn ports_files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|extension| extension == "ports"))
}

fn random_token() -> Result<String, Failure> {
    let mut bytes = [0u8; TOKEN_BYTES];
    let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    read.map_err(|e| Failure::config(format!("reading /dev/urandom: {}", io_text(&e))).hint("a machine with a /dev"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that only agents a leader counts with make a cluster ready, and that a refusal is no answer.
    #[test]
    fn only_active_agents_count() {
        assert!(active_agents(br#"{"rows":"agents","page":[],"next":""}"#).is_some_and(|page| page.is_empty()));
        assert!(active_agents(br#"{"rows":"refused","refusal":{"code":"recovering","message":"x"}}"#).is_none());
        assert!(active_agents(b"nonsense").is_none());
    }

    /// Shows that the port is read from whatever name the server gives its file, and that old files are cleared.
    #[test]
    fn the_port_is_told() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        assert_eq!(told_port(folder.path()), None);
        fs::write(folder.path().join("nats-server-2.15_77.ports"), r#"{"nats":["nats://127.0.0.1:40123"]}"#).expect("it is ours");
        assert_eq!(told_port(folder.path()), Some(40123));
        remove_ports_files(folder.path());
        assert_eq!(told_port(folder.path()), None);
    }

    /// Shows that numbers of masters and agents that make no cluster are refused as wrong usage.
    #[test]
    fn counts_have_limits() {
        for (bus, masters, agents, resources) in [(1, 0, 1, None), (1, 1, 0, None), (1, 10, 1, None), (1, 1, 65, None), (1, 1, 1, Some("cpus=-1")), (2, 1, 1, None), (0, 1, 1, None)] {
            let spec = ClusterSpec {
                name: Name::parse("default").expect("a name"),
                bus,
                masters,
                agents,
                master_args: Vec::new(),
                resources: resources.map(str::to_owned),
                oversubscribe_ms: None,
                state: StateWish::Temporary,
                port: None,
                nats_server: None,
                is_private: false,
            };
            let failure = Cluster::open(spec, &Surroundings::of([], "/x")).expect_err("it makes no cluster");
            assert_eq!(failure.kind(), crate::FailureKind::Usage, "{failure}");
        }
    }
}
