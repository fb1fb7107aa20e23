//! meso-up as a shell sees it: what it starts, what it survives, and that nothing is left of it
use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// No wait of these tests is longer; a loaded machine takes a while to start five programs.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

fn up(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meso-up"));
    command.stdin(Stdio::null()).env("TMPDIR", folder).env_remove("MESO_CLUSTER");
    for name in ["MESO_NATS_URL", "NATS_URL", "MESO_CONTEXT", "NATS_CONTEXT"] {
        command.env_remove(name);
    }
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("meso-up can be started");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

/// A folder that is this test's alone; its name is found in whatever its processes are told.
fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("up-test-").tempdir().expect("a folder can be made")
}

/// The processes that have something to do with a folder: named in their arguments, or where they work.
fn processes_of(folder: &Path) -> Vec<(u32, String)> {
    let name = folder.to_str().expect("UTF-8");
    let all = fs::read_dir("/proc").expect("Linux has one").flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    all.filter_map(|pid| {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let args = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        (pid != std::process::id() && (args.contains(name) || cwd.starts_with(folder))).then_some((pid, args))
    })
    .collect()
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        thread::sleep(LOOK);
    }
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]).status().expect("a shell can be started");
    assert!(sent.success(), "cannot send {name} to {pid}");
}

/// A cluster that stays, and the variables that lead to it.
struct Kept {
    child: Child,
    variables: Vec<(String, String)>,
    state: PathBuf,
}

impl Kept {
    fn start(folder: &Path, state: &Path) -> Kept {
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("some port is free").port();
        let mut command = up(folder);
        command.arg("--state").arg(state).args(["--agents", "2", "-R", "cpus=1,mem=512M,disk=512M", "--private", "-q", "--port", &port.to_string()]);
        let said = fs::File::create(folder.join("said")).expect("it is ours");
        let mut child = command.stdout(Stdio::piped()).stderr(said).spawn().expect("meso-up can be started");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let variables = lines.map_while(Result::ok).filter_map(|line| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('\'').to_owned()))
        });
        // PATH is the last line; the pipe itself stays open.
        let mut found = Vec::new();
        for variable in variables {
            let is_last = variable.0 == "PATH";
            found.push(variable);
            if is_last {
                break;
            }
        }
        assert_eq!(found.len(), 3, "the cluster did not come up");
        Kept { child, variables: found, state: state.to_owned() }
    }

    fn launch(&self, args: &[&str]) -> (Option<i32>, String, String) {
        run(Command::new(env!("CARGO_BIN_EXE_meso-launch")).stdin(Stdio::null()).args(args).envs(self.variables.clone()))
    }

    fn pid_of(&self, name: &str) -> Option<u32> {
        fs::read_to_string(self.state.join(format!("run/{name}.pid"))).ok()?.split(' ').next()?.parse().ok()
    }

    /// Launches a task that nobody waits for, and gives its process once it runs.
    fn launch_steady(&self) -> u32 {
        let mark = self.state.join("alive").display().to_string();
        let (code, id, err) = self.launch(&["-d", "--framework", "steady", "--on-disconnect", "keep", "--", "sh", "-c", "echo $$ >\"$0\"; exec sleep 12345", &mark]);
        assert_eq!(code, Some(0), "{id}{err}");
        let task = || fs::read_to_string(&mark).ok()?.trim().parse::<u32>().ok();
        until("the task runs", || task().is_some());
        task().expect("it was just read")
    }

    /// Ends it with a signal and gives its exit code.
    fn end(mut self, name: &str) -> Option<i32> {
        signal(self.child.id(), name);
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // A test that failed half-way; the kernel ends the rest.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Shows that a command gets a cluster that works, that its exit code is passed on, and that nothing is left: not even a task
/// that was told to live on.
#[test]
fn a_command_gets_a_cluster_and_leaves_nothing() {
    let folder = folder();
    let script = "meso-launch -- echo from a task && meso-launch -d --on-disconnect keep --framework left -- sleep 12345 >/dev/null && exit 7";
    let (code, out, err) = run(up(folder.path()).args(["-q", "--", "sh", "-c", script]));
    assert_eq!((code, out.as_str()), (Some(7), "from a task\n"), "{err}");
    assert_eq!(processes_of(folder.path()), []);
    assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0);
}

/// Shows the codes of commands that die by a signal or are not there.
#[test]
fn codes_of_commands() {
    let folder = folder();
    for (command, code) in [(["sh", "-c", "kill -9 $$"].as_slice(), 137), (&["/nonexistent/command"], 127), (&["/etc/passwd"], 126)] {
        let (got, _, err) = run(up(folder.path()).args(["-q", "--agents", "1", "--"]).args(command));
        assert_eq!(got, Some(code), "{err}");
    }
}

/// Shows that a port, a directory or a server that cannot be had is said with a next step and its code, and starts nothing.
#[test]
fn what_cannot_be_had() {
    let folder = folder();
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("some port is free");
    let port = taken.local_addr().expect("it listens").port().to_string();
    let kept = folder.path().join("kept");
    let (code, _, err) = run(up(folder.path()).args(["-q", "--agents", "1", "--state"]).arg(&kept).args(["--", "true"]));
    assert_eq!(code, Some(0), "{err}");
    let kept = kept.to_str().expect("UTF-8");
    let table: [(&[&str], i32, &str); 9] = [
        (&["--bus", "2", "--", "true"], 2, "--bus 2"),
        (&["--bus", "3", "--state", kept, "--", "true"], 78, "is of a bus of one server"),
        (&["--port", &port, "--", "true"], 75, "in use by"),
        (&["--nats-server", "/nonexistent/server", "--", "true"], 78, "/nonexistent/server"),
        (&["--nats-server", "/bin/true", "--", "true"], 78, "/bin/true"),
        (&["--state", "/proc/nowhere", "--", "true"], 78, "/proc/nowhere"),
        (&["--agents", "0", "--", "true"], 2, "--agents"),
        (&["-R", "cpus=-1", "--", "true"], 2, "-R"),
        (&["--cluster", "a b", "--", "true"], 2, "--cluster"),
    ];
    for (args, code, word) in table {
        let (got, out, err) = run(up(folder.path()).args(args));
        assert_eq!((got, out.as_str()), (Some(code), ""), "{args:?}: {err}");
        let lines: Vec<&str> = err.lines().collect();
        assert!(lines.len() == 2 && lines[0].starts_with("meso-up: ") && lines[0].contains(word) && lines[1].starts_with("  try: "), "{args:?}: {err}");
    }
    assert_eq!(processes_of(folder.path()), []);
}

/// Shows that masters, agents and the bus are started again when they die, that a task lives through all of it, and that the
/// end of the cluster is the end of the task.
#[test]
fn what_dies_is_started_again() {
    let folder = folder();
    let cluster = Kept::start(folder.path(), &folder.path().join("state"));
    let task = cluster.launch_steady();

    let second = Command::new(env!("CARGO_BIN_EXE_meso-up")).arg("--state").arg(&cluster.state).stderr(Stdio::null()).status().expect("it can be started");
    assert_eq!(second.code(), Some(75), "two on one directory");

    for name in ["meso-agent-1", "meso-agent-2", "meso-master", "nats-server"] {
        let before = cluster.pid_of(name).expect("it runs");
        signal(before, "KILL");
        until(name, || cluster.pid_of(name).is_some_and(|now| now != before));
    }
    // A process that was just started does not listen yet.
    until("the cluster works again", || cluster.launch(&["--", "echo", "again"]).1 == "again\n");
    assert!(Path::new(&format!("/proc/{task}")).exists(), "the task lived through it");

    assert_eq!(cluster.end("TERM"), Some(0));
    until("the task ends with the cluster", || !Path::new(&format!("/proc/{task}")).exists());
    until("all end with the cluster", || processes_of(folder.path()).is_empty());
}

/// Shows that an agent which was declared gone is left be, that this is said once with what there is to do, and that the
/// others go on.
#[test]
fn what_is_gone_is_left_be() {
    let folder = folder();
    let cluster = Kept::start(folder.path(), &folder.path().join("state"));
    let (code, _, err) = run(Command::new(env!("CARGO_BIN_EXE_meso-kill")).args(["--gone", "local-2", "--force"]).envs(cluster.variables.clone()));
    assert_eq!(code, Some(0), "{err}");
    let said = || fs::read_to_string(folder.path().join("said")).expect("it is ours");
    until("it is left be", || said().contains("left be"));
    let text = said();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("meso-up: meso-agent-2 ended with code 78: ") && lines[0].contains("declared gone") && lines[1].starts_with("  try: "), "{text}");
    let log = fs::read_to_string(cluster.state.join("log/meso-agent-2.log")).expect("it has a log");
    assert_eq!(log.matches("refuses this agent").count(), 1, "it was not started again: {log}");
    assert_eq!(cluster.pid_of("meso-agent-2"), None);
    let (code, out, err) = cluster.launch(&["--", "echo", "again"]);
    assert_eq!((code, out.as_str()), (Some(0), "again\n"), "{err}");
    assert_eq!(cluster.end("TERM"), Some(0));
    until("all end with the cluster", || processes_of(folder.path()).is_empty());
}

/// Shows that everything ends with a meso-up that is killed, and that the next one on the same directory works.
#[test]
fn a_killed_one_leaves_no_process() {
    let folder = folder();
    let state = folder.path().join("state");
    let cluster = Kept::start(folder.path(), &state);
    let task = cluster.launch_steady();
    assert_eq!(cluster.end("KILL"), None);
    until("its task ends", || !Path::new(&format!("/proc/{task}")).exists());
    until("its processes end", || processes_of(folder.path()).is_empty());
    let cluster = Kept::start(folder.path(), &state);
    let (code, out, err) = cluster.launch(&["--", "echo", "again"]);
    assert_eq!((code, out.as_str()), (Some(0), "again\n"), "{err}");
    assert_eq!(cluster.end("INT"), Some(0));
    until("all end with the cluster", || processes_of(folder.path()).is_empty());
}
