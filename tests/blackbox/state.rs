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

    /// The directory over itself, for reading; none where this user may not mount.
    fn read_only(dir: &Path) -> Option<Mount> {
        let mount = |args: &[&str]| Command::new("mount").args(args).arg(dir).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        let dir_text = dir.to_str().expect("the name is ours");
        let mounted = mount(&["--bind", dir_text]).then(|| Mount(dir.to_owned()))?;
        mount(&["-o", "remount,bind,ro"]).then_some(mounted)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Whoever still works there keeps it until its end.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Shows that an agent whose disk is full launches nothing and says so, that what runs is reported truly nevertheless,
/// also by an agent that starts then, and that it serves again by itself when there is room.
#[test]
fn a_full_disk() {
    let mut cluster = Cluster::start();
    cluster.kill_agent(0);
    // It stays the agent it was, only on another file system.
    let (dir, aside) = (cluster.work_dir(0), cluster.path("aside"));
    fs::rename(&dir, &aside).expect("it is ours");
    let Some(_mount) = Mount::new(&cluster.work_dir(0), 16 << 20) else {
        return eprintln!("left out: this user may not mount");
    };
    assert!(Command::new("cp").arg("-a").arg(aside.join(".")).arg(&dir).status().expect("cp is everywhere").success());
    cluster.start_agent(0);
    let waiting = |code: u32| cluster.launching(&["-R", "cpus=0.5,mem=16M", "-c", &format!("trap 'exit {code}' USR1; echo ready; while :; do sleep 0.05; done")]);
    let (first, second) = (waiting(15), waiting(16));
    until("they run", || first.out() == "ready\n" && second.out() == "ready\n");

    let filler = cluster.work_dir(0).join("filler");
    let filled = fs::write(&filler, vec![0; 20 << 20]).expect_err("it does not fit");
    assert_eq!(filled.raw_os_error(), Some(28), "{filled}");
    until("it says so", || cluster.agent_log(0).contains("takes no tasks for now: its disk is full"));
    let others = cluster.launching(&["-n", "50", "-R", "cpus=0.5,mem=16M", "-c", &format!("echo $MESO_INDEX >>{}", cluster.text_path("witness"))]);
    first.signal("USR1");
    first.finish().expect(15);
    cluster.kill_agent(0);
    cluster.start_agent(0);
    until("it found the other one, and says so again", || ["found 1 tasks of before: 1 run on", "takes no tasks for now"].iter().all(|words| cluster.agent_log(0).contains(words)));
    second.signal("USR1");
    second.finish().expect(16);
    assert_eq!(cluster.lines_of("witness").len(), 0, "nothing was launched");
    fs::remove_file(&filler).expect("it is ours");
    others.finish().expect(0);
    assert_eq!(cluster.lines_of("witness").iter().collect::<std::collections::BTreeSet<_>>().len(), 50);
    assert_eq!(cluster.lines_of("witness").len(), 50, "none ran twice");
    cluster.expect_all_alive();
}

/// Shows that an agent whose disk becomes read-only launches nothing and says so, that what runs goes on, and that it serves
/// again by itself when the disk may be written.
#[test]
fn a_read_only_disk() {
    let cluster = Cluster::start();
    let run = cluster.launching(&["-R", "cpus=0.5,mem=16M", "-c", "trap 'exit 15' USR1; echo ready; while :; do sleep 0.05; done"]);
    until("it runs", || run.out() == "ready\n");
    let dir = cluster.work_dir(0);
    // What is open for writing keeps a file system from being made read-only as a whole: only what is opened from now on is.
    let Some(mount) = Mount::read_only(&dir) else {
        return eprintln!("left out: this user may not mount");
    };
    until("it says so", || cluster.agent_log(0).contains("takes no tasks for now: its disk is mounted read-only"));
    let others = cluster.launching(&["-n", "20", "-R", "cpus=0.5,mem=16M", "-c", &format!("echo $MESO_INDEX >>{}", cluster.text_path("witness"))]);
    until("they wait", || cluster.tool("meso-ps", &["frameworks", "-q"]).text().lines().count() == 2);
    assert!(cluster.lines_of("witness").is_empty(), "nothing was launched");
    drop(mount);
    others.finish().expect(0);
    assert_eq!(cluster.lines_of("witness").len(), 20, "each ran once");
    run.signal("USR1");
    run.finish().expect(15);
    let log = cluster.agent_log(0);
    assert_eq!((log.matches("takes no tasks for now").count(), log.matches("takes tasks again").count()), (1, 1), "{log}");
}

/// Shows that an agent may be given something else as long as what runs fits, and is told which kind does not; and that
/// with `--recover cleanup` it ends what runs and serves under its own id.
#[test]
fn given_something_else() {
    let mut cluster = Cluster::with(Shape { agents: vec!["cpus=4,mem=1G,disk=1G,ports=[31000-31009]"], ..Shape::default() });
    let run = cluster.launching(&["-R", "cpus=3,mem=64M,ports=1", "-c", "trap 'exit 12' USR1; echo ready; while :; do sleep 0.05; done"]);
    until("it runs", || run.out() == "ready\n");
    let id = cluster.tool("meso-ps", &["agents", "-q"]).text();
    let agent = |cluster: &Cluster, args: &[&str]| {
        let mut command = cluster.command("meso-agent", args);
        command.args(["--host", "host0", "--work-dir"]).arg(cluster.work_dir(0));
        Running::start(&mut command)
    };
    cluster.kill_agent(0);
    let ran = agent(&cluster, &["-R", "cpus=2,mem=1G,disk=1G,ports=[31005-31009]"]).finish().expect(78);
    expect_said(&ran, "meso-agent", &["cpus 3 used, 2 given", "ports [31000] used, not given"]);
    assert!(ran.err.contains("--recover cleanup") && !ran.err.contains("mem 64 used"), "{}", ran.err);

    let other = agent(&cluster, &["-R", "cpus=3,mem=512,disk=1G,ports=[31000]", "--attr", "rack=r7"]);
    until("it serves", || cluster.tool("meso-ps", &["agents", "-o", "tsv=cpus,attrs.rack,state"]).text() == "3\tr7\tactive\n");
    until("it found the task", || other.said().contains("found 1 tasks of before: 1 run on"));
    other.signal("KILL");
    other.finish();

    let last = agent(&cluster, &["-R", "cpus=2,mem=512,disk=1G", "--recover", "cleanup"]);
    let ran = run.finish();
    assert_eq!(ran.code, 143, "{}", ran.err);
    until("it serves", || cluster.tool("meso-ps", &["agents", "-o", "tsv=cpus,state"]).text() == "2\tactive\n");
    assert_eq!(cluster.tool("meso-ps", &["agents", "-q"]).text(), id);
    cluster.launch(&["-R", "cpus=2", "--", "true"]).expect_silent(0);
    last.signal("TERM");
    last.finish().expect(0);
}

/// Shows that a work directory in which others could have written, or that is not as an agent leaves it, is refused with what is wrong.
#[test]
fn a_strange_directory() {
    let cluster = Cluster::start();
    let refused = |dir: &Path, words: &[&str]| expect_said(&cluster.tool("meso-agent", &["--work-dir", dir.to_str().expect("the name is ours")]).expect(78), "meso-agent", words);
    let make = |name: &str| {
        let dir = cluster.path(name);
        fs::create_dir(&dir).expect("it is ours");
        dir
    };
    let open = make("open");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).expect("it is ours");
    refused(&open, &["may be written by everybody (mode 1777)"]);
    assert_eq!(fs::metadata(&open).expect("it is there").permissions().mode() & 0o7777, 0o1777, "it was left as it is");

    for (name, kind) in [("journal", "a link"), ("sandboxes", "a link"), ("containers", "of another kind")] {
        let dir = make(&format!("with-{name}"));
        match kind {
            "a link" => std::os::unix::fs::symlink("/etc", dir.join(name)),
            _ => fs::write(dir.join(name), ""),
        }
        .expect("it is ours");
        refused(&dir, &[dir.join(name).to_str().expect("the name is ours"), kind]);
    }

    let newer = make("newer");
    let head = "{\"record\":\"head\",\"v\":99,\"agent\":\"agent_7k3q9x2mfa\",\"era\":3}";
    fs::write(newer.join("journal"), meso_core::wal::encode(head.as_bytes())).expect("it is ours");
    refused(&newer, &[newer.join("journal").to_str().expect("the name is ours"), "newer release (format 99"]);

    let (whole, other) = (make("whole"), meso_core::wal::encode(b"{\"record\":\"dance\"}"));
    let head = "{\"record\":\"head\",\"v\":1,\"agent\":\"agent_7k3q9x2mfa\",\"generation\":3,\"boot_id\":\"b\"}";
    let head = meso_core::wal::encode(head.as_bytes());
    fs::write(whole.join("journal"), [&head[..], &other].concat()).expect("it is ours");
    // The record begins behind its frame's checksum and length.
    refused(&whole, &[&format!("damaged at byte {}: a record is not one of ours", head.len() + "00000000 18 ".len())]);

    if fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0) {
        let foreign = make("foreign");
        std::os::unix::fs::chown(&foreign, Some(65_534), None).expect("root may do so");
        refused(&foreign, &["belongs to user 65534", "runs as user 0"]);
    }
}

/// Shows that a copy of a work directory is refused, while the original runs and when it is older than that.
#[test]
fn a_copied_directory() {
    let mut cluster = Cluster::start();
    let copy = |cluster: &Cluster, from: &Path, to: &Path| {
        let _ = cluster;
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp is everywhere").success());
    };
    let (original, twin, old) = (cluster.work_dir(0), cluster.path("twin"), cluster.path("old"));
    cluster.kill_agent(0);
    copy(&cluster, &original, &old);
    copy(&cluster, &original, &twin);
    cluster.start_agent(0);
    until("it serves", || cluster.tool("meso-ps", &["agents", "--state", "active", "-q"]).lines().len() == 1);
    let ran = cluster.tool("meso-agent", &["--work-dir", twin.to_str().expect("the name is ours")]).expect(78);
    assert!(ran.err.contains("this work directory is a copy"), "{}", ran.err);
    cluster.kill_agent(0);
    cluster.start_agent(0);
    cluster.kill_agent(0);
    cluster.start_agent(0);
    cluster.launch(&["--", "true"]).expect_silent(0);
    cluster.kill_agent(0);
    let ran = cluster.tool("meso-agent", &["--work-dir", old.to_str().expect("the name is ours")]).expect(78);
    assert!(ran.err.contains("it is an old copy"), "{}", ran.err);
    cluster.start_agent(0);
    cluster.launch(&["--", "true"]).expect_silent(0);
}

/// A bus without masters, and a tool that looks for it.
fn alone(server: &Server, name: &str, args: &[&str], url: &str) -> Running {
    let dir = server.log_path().parent().expect("a file is in a directory").join("agent");
    let mut command = Command::new(crate::cluster::program(name));
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin").env("MESO_NATS_URL", url).env("MESO_WORK_DIR", dir).env("MESO_PATIENCE", "4s");
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
