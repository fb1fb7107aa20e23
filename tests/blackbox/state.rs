//! What is on an agent's disk, and what a bus must have: wrong, missing, damaged, held by another

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use meso_bus::testserver::{Server, ServerSpec};

use crate::cluster::{Cluster, Contained, Shape};
use crate::process::{Ran, Running, until};

/// What is said is one line of what happened and one of what to do next.
#[track_caller]
fn expect_said(ran: &Ran, tool: &str, words: &[&str]) {
    let lines: Vec<&str> = ran.err.lines().collect();
    assert!(lines[0].starts_with(&format!("{tool}: ")), "{}", ran.err);
    assert!(lines.len() == 2 && lines[1].starts_with("  try: "), "{}", ran.err);
    assert!(words.iter().all(|word| lines[0].contains(word)), "it does not say {words:?}: {}", ran.err);
}

/// Shows that a second agent on a work directory is refused and told who has it.
#[test]
fn two_on_one_directory() {
    let mut cluster = Cluster::start();
    let ran = Running::start(&mut cluster.agent_command(0)).finish().expect(78);
    expect_said(&ran, "meso-agent", &[cluster.work_dir(0).to_str().expect("the name is ours"), &cluster.agent_pid(0).to_string()]);
    cluster.launch(&["--", "true"]).expect_silent(0);
    cluster.expect_all_alive();
}

/// Shows that a log which is damaged before its end is refused with file and place, and left as it is.
#[test]
fn a_damaged_log() {
    let mut cluster = Cluster::start();
    cluster.launch(&["-n", "8", "--", "true"]).expect_silent(0);
    cluster.kill_agent(0);
    let path = cluster.work_dir(0).join("journal");
    let sound = fs::read(&path).expect("it is there");
    for at in [0, sound.len() / 3, sound.len() / 2] {
        let mut damaged = sound.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).expect("it is ours");
        let ran = Running::start(&mut cluster.agent_command(0)).finish().expect(78);
        expect_said(&ran, "meso-agent", &[path.to_str().expect("the name is ours"), "damaged at byte "]);
        let said: usize = ran.err.split("damaged at byte ").nth(1).and_then(|rest| rest.split(':').next()?.parse().ok()).expect("a number");
        assert!(said <= at, "the frame begins before the flaw: {said}, {at}");
        assert!(fs::read(&path).expect("it is there") == damaged, "the log was touched");
    }
    fs::write(&path, &sound).expect("it is ours");
    cluster.start_agent(0);
    cluster.launch(&["--", "true"]).expect(0);
}

/// Shows that what a crash left half written at the end is cut and said, wherever it broke off.
#[test]
fn a_torn_log() {
    let mut cluster = Cluster::start();
    cluster.launch(&["-n", "4", "--", "true"]).expect_silent(0);
    for (cut, more) in [(1, &b""[..]), (20, b""), (0, b"00000000 12 {\"rec"), (0, b"\0\0\0\0\0\0\0\0"), (3, b"\n")] {
        cluster.kill_agent(0);
        let path = cluster.work_dir(0).join("journal");
        let mut torn = fs::read(&path).expect("it is there");
        torn.truncate(torn.len() - cut);
        torn.extend_from_slice(more);
        fs::write(&path, &torn).expect("it is ours");
        cluster.start_agent(0);
        until("it says what it cut", || cluster.agent_log(0).contains("were cut"));
        cluster.launch(&["--", "true"]).expect(0);
    }
}

/// Shows that a work directory which cannot be made or written is refused with its name.
#[test]
fn no_place_to_work() {
    let cluster = Cluster::start();
    fs::write(cluster.path("file"), "in the way").expect("it is ours");
    for dir in ["/proc/nowhere", "/dev/null/x", &cluster.text_path("file"), &cluster.text_path("file/x")] {
        let ran = cluster.tool("meso-agent", &["--work-dir", dir]).expect(78);
        expect_said(&ran, "meso-agent", &[dir]);
    }
    if Contained::Nobody.is_possible() {
        let nobody = Cluster::contained(Contained::Nobody).expect("it is possible");
        let closed = nobody.path("closed");
        fs::create_dir(&closed).and_then(|()| fs::set_permissions(&closed, fs::Permissions::from_mode(0o755))).expect("it is ours");
        let mut command = nobody.agent_command(0);
        let ran = Running::start(command.env("MESO_WORK_DIR", &closed).args(["--work-dir"]).arg(&closed)).finish();
        assert!(ran.code == 2 || ran.code == 78, "{}", ran.err);
    }
}

/// A small file system of a test's own, gone with it.
struct Mount(PathBuf);

impl Mount {
    /// None where this user may not mount.
    fn new(dir: &Path, bytes: u32) -> Option<Mount> {
        fs::create_dir_all(dir).expect("it is ours");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=755"), "meso-test"]).arg(dir).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Mount(dir.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Whoever still works there keeps it until its end.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Shows that an agent whose disk is full says so and ends, that its tasks run on, and that it finds them when there is room.
#[test]
fn a_full_disk() {
    let mut cluster = Cluster::start();
    cluster.kill_agent(0);
    // It stays the agent it was, only on another file system.
    let (dir, aside) = (cluster.work_dir(0), cluster.path("aside"));
    fs::rename(&dir, &aside).expect("it is ours");
    let Some(_mount) = Mount::new(&cluster.work_dir(0), 1 << 20) else {
        return eprintln!("left out: this user may not mount");
    };
    assert!(Command::new("cp").arg("-a").arg(aside.join(".")).arg(&dir).status().expect("cp is everywhere").success());
    cluster.start_agent(0);
    let steady = cluster.launching(&["-c", "trap 'exit 15' USR1; echo ready; while :; do sleep 0.05; done"]);
    until("it runs", || steady.out() == "ready\n");

    let filler = cluster.work_dir(0).join("filler");
    let filled = fs::write(&filler, vec![0; 2 << 20]).expect_err("it does not fit");
    assert_eq!(filled.raw_os_error(), Some(28), "{filled}");
    // A line may still fit where the log's last block has room.
    let others = cluster.launching(&["-n", "50", "-R", "cpus=0.5,mem=16M", "-c", &format!("echo $MESO_INDEX >>{}", cluster.text_path("witness"))]);
    assert_eq!(cluster.agent_code(0), Some(78));
    let said = cluster.agent_log(0);
    assert!(said.contains("journal: no space left on device") && said.contains("  try: "), "{said}");
    fs::remove_file(&filler).expect("it is ours");
    cluster.start_agent(0);
    others.finish().expect(0);
    assert_eq!(cluster.lines_of("witness").iter().collect::<std::collections::BTreeSet<_>>().len(), 50);
    assert_eq!(cluster.lines_of("witness").len(), 50, "none ran twice");
    steady.signal("USR1");
    steady.finish().expect(15);
}

/// Shows that tasks which hold more than an agent is now to give keep it from starting, with what to do.
#[test]
fn less_than_runs() {
    let mut cluster = Cluster::with(Shape { agents: vec!["cpus=4,mem=1G,disk=1G"], ..Shape::default() });
    let run = cluster.launching(&["-R", "cpus=3,mem=64M", "-c", "trap 'exit 12' USR1; echo ready; while :; do sleep 0.05; done"]);
    until("it runs", || run.out() == "ready\n");
    cluster.kill_agent(0);
    let mut less = cluster.command("meso-agent", &["-R", "cpus=2,mem=1G,disk=1G", "--host", "host0", "--work-dir"]);
    let ran = Running::start(less.arg(cluster.work_dir(0))).finish().expect(78);
    assert!(ran.err.contains("cpus=3") && ran.err.contains("try: "), "{}", ran.err);
    cluster.start_agent(0);
    until("it found the task", || cluster.agent_log(0).contains("found 1 tasks of before: 1 run on"));
    run.signal("USR1");
    run.finish().expect(12);
}

/// A bus without masters, and a tool that looks for it.
fn alone(server: &Server, name: &str, args: &[&str], url: &str) -> Running {
    let dir = server.log_path().parent().expect("a file is in a directory").join("agent");
    let mut command = Command::new(crate::cluster::program(name));
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin").env("MESO_NATS_URL", url).env("MESO_WORK_DIR", dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(&mut command)
}

/// Shows that a bus with nobody who leads is told apart from no bus.
#[test]
fn a_bus_without_a_master() {
    let server = Server::start(ServerSpec::default()).expect("nats-server starts");
    for (tool, args, code) in [("meso-launch", &["--", "true"][..], 125), ("meso-ps", &[], 69)] {
        let ran = alone(&server, tool, args, &server.url()).finish().expect(code);
        expect_said(&ran, tool, &["master"]);
    }
}

/// Shows that a bus which stores nothing is named as such by a master.
#[test]
fn a_bus_without_jetstream() {
    let server = Server::start(ServerSpec { without_store: true, ..ServerSpec::default() }).expect("nats-server starts");
    let ran = alone(&server, "meso-master", &[], &server.url()).finish();
    assert!(ran.code == 69 || ran.code == 78, "{}: {}", ran.code, ran.err);
    assert!(ran.err.contains("JetStream") && ran.err.contains("  try: "), "{}", ran.err);
}

/// Shows that wrong credentials are named with their own code by every tool, and never repeated.
#[test]
fn wrong_credentials() {
    let config = "authorization { users: [ { user: ann, password: right } ] }".to_owned();
    let server = Server::start(ServerSpec { config, ..ServerSpec::default() }).expect("nats-server starts");
    let urls = [server.url(), server.url().replace("nats://", "nats://ann:hunter2@")];
    for url in &urls {
        for (tool, args, code) in [("meso-launch", &["--", "true"][..], 125), ("meso-ps", &[], 77), ("meso-agent", &[], 77), ("meso-master", &[], 77)] {
            let ran = alone(&server, tool, args, url).finish();
            assert_eq!(ran.code, code, "{tool}: {}", ran.err);
            assert!(!ran.err.contains("hunter2") && ran.err.contains("  try: "), "{tool}: {}", ran.err);
        }
    }
}
