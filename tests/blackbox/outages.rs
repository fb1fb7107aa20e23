//! Buses and masters that die under load: every task ends, none runs twice

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use meso_bus::testserver::ServerSpec;

use crate::cluster::{Cluster, Shape};
use crate::process::{Ran, Running, signal, until};

/// How many tasks are under way in each of these tests
const TASKS: usize = 300;
/// Faults after which a load that still runs is left in peace
const FAULTS_MAX: usize = 20;

/// Starts tasks that each leave a line in a file, in one write that no other can come between.
fn load(cluster: &Cluster) -> Running {
    let command = format!("echo $MESO_INDEX >>{}; echo $MESO_INDEX", cluster.text_path("witness"));
    cluster.launching(&["-n", &TASKS.to_string(), "-j", "20", "--retries-lost", "20", "-R", "cpus=0.2,mem=16M", "-c", &command])
}

/// Waits until some tasks have run.
fn until_ran(cluster: &Cluster, count: usize) {
    until("tasks run", || cluster.lines_of("witness").len() >= count);
}

/// The tasks that are not there exactly once.
fn twice_or_never(numbers: &[usize]) -> Vec<usize> {
    (1..=TASKS).filter(|number| numbers.iter().filter(|other| *other == number).count() != 1).collect()
}

/// Every task ran exactly once, and all its output came exactly once.
#[track_caller]
fn expect_each_once(cluster: &Cluster, run: Running) {
    let Ran { code, out, err } = run.finish();
    assert_eq!(code, 0, "{err}");
    let numbers = |lines: &[String]| lines.iter().map(|line| line.parse().expect("a number alone")).collect::<Vec<usize>>();
    let (ran, printed) = (numbers(&cluster.lines_of("witness")), numbers(&String::from_utf8_lossy(&out).lines().map(str::to_owned).collect::<Vec<_>>()));
    let told = || format!("{err}\n{}", cluster.tool("meso-ps", &["-a", "-o", "jsonl"]).text().lines().filter(|line| line.contains("dropped") || line.contains("gone")).collect::<Vec<_>>().join("\n"));
    assert_eq!(twice_or_never(&ran), Vec::<usize>::new(), "these ran twice or never; meso-launch said:\n{}", told());
    assert_eq!(twice_or_never(&printed), Vec::<usize>::new(), "these were printed twice or never; meso-launch said:\n{}", told());
    cluster.until_idle();
}

/// Shows that a bus which is killed and started again loses no task and repeats none.
#[test]
fn the_bus() {
    let mut cluster = Cluster::with(Shape { agents: vec!["cpus=2,mem=1G,disk=1G"; 2], ..Shape::default() });
    let run = load(&cluster);
    until_ran(&cluster, 40);
    cluster.bus.kill().expect("it runs");
    thread::sleep(Duration::from_millis(500));
    cluster.bus.restart().expect("it starts again");
    until_ran(&cluster, 120);
    cluster.bus.restart().expect("it starts again");
    expect_each_once(&cluster, run);
    cluster.expect_all_alive();
}

/// Shows that a record which is damaged while the bus is down keeps nobody waiting: what is launched afterwards is waited
/// for, ended and listed with its end, and what ended before is known still.
#[test]
fn a_damaged_record() {
    let mut cluster = Cluster::start();
    let before = cluster.launch(&["-d", "-c", "exit 3"]).text();
    cluster.tool("meso-wait", &["-q", before.trim()]).expect(3);
    cluster.launch(&["-n", "20", "--", "true"]).expect_silent(0);
    // Asked to stop it writes all that it holds, and killed it has to read that again.
    cluster.bus.stop().expect("it runs");
    cluster.bus.restart().expect("it starts again");
    cluster.bus.kill().expect("it runs");
    cluster.bus.damage("MESO_default_EV", "finished").expect("something is recorded");
    cluster.bus.restart().expect("it starts again");
    for _ in 0..3 {
        let task = cluster.launch(&["-d", "-c", "exit 4"]).text();
        cluster.tool("meso-wait", &["-q", task.trim()]).expect(4);
    }
    let task = cluster.launch(&["-d", "--", "sleep", "1000"]).text();
    cluster.tool("meso-kill", &["-w", "-q", task.trim()]).expect(0);
    let ended = cluster.tool("meso-ps", &["-a", "-o", "tsv=state"]).lines();
    let count = |state: &str| ended.iter().filter(|line| *line == state).count();
    assert_eq!((count("failed"), count("killed"), ended.len()), (4, 1, 25), "{ended:?}");
    cluster.tool("meso-wait", &["-q", before.trim()]).expect(3);
    cluster.expect_all_alive();
}

/// Shows that a bus which stands still for a while loses no task and repeats none.
#[test]
fn a_bus_that_stands_still() {
    let mut cluster = Cluster::start();
    let run = load(&cluster);
    until_ran(&cluster, 40);
    cluster.bus.pause().expect("it runs");
    thread::sleep(Duration::from_secs(3));
    cluster.bus.resume().expect("it is stopped");
    expect_each_once(&cluster, run);
    cluster.expect_all_alive();
}

/// Shows that a bus which loses all that it stored is filled again, and loses no task and repeats none.
#[test]
fn a_bus_without_memory() {
    let mut cluster = Cluster::start();
    let run = load(&cluster);
    until_ran(&cluster, 40);
    cluster.bus.kill().expect("it runs");
    cluster.bus.wipe().expect("it is ours");
    cluster.bus.restart().expect("it starts again");
    expect_each_once(&cluster, run);
    cluster.expect_all_alive();
}

/// The files in which the bus keeps messages, the largest first.
fn blocks(cluster: &Cluster) -> Vec<PathBuf> {
    let mut folders = vec![cluster.bus.store()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("it is ours").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.extension().is_some_and(|end| end == "blk") => files.push(path),
                _ => {}
            }
        }
    }
    files.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).map_or(0, |file| file.len())));
    files
}

/// Shows that a bus whose files were damaged while it was down, by bits that turned and by ends that are missing, loses no task and repeats none.
#[test]
fn a_bus_with_a_damaged_store() {
    let mut cluster = Cluster::start();
    let run = load(&cluster);
    for (round, upto) in [(0, 40), (1, 120)] {
        until_ran(&cluster, upto);
        let epoch = cluster.epoch();
        cluster.bus.kill().expect("it runs");
        let files = blocks(&cluster);
        assert!(files.len() >= 2, "{files:?}");
        for file in &files {
            let mut bytes = fs::read(file).expect("it is ours");
            match round {
                0 => bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x10),
                _ => bytes.truncate(bytes.len() / 2),
            }
            fs::write(file, bytes).expect("it is ours");
        }
        cluster.bus.restart().expect("it starts again");
        // What is left of the lease may be enough to lead on under it; a lower one would be obeyed by nobody.
        until("somebody leads", || cluster.epoch() >= epoch);
    }
    expect_each_once(&cluster, run);
    cluster.expect_all_alive();
}

/// A file system of its own; unmounted when dropped.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// JetStream gives out three quarters of what it finds, and what we ask it to keep is 1.8 GB at most; it is memory only once it is used.
    const SIZE: &str = "8g";

    /// None if we may not mount.
    fn new() -> Option<Disk> {
        let disk = Disk { dir: tempfile::Builder::new().prefix("meso-disk-").tempdir().expect("a temporary directory") };
        disk.mount(&format!("size={}", Disk::SIZE)).then_some(disk)
    }

    fn mount(&self, options: &str) -> bool {
        Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(self.dir.path()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// Leaves no room at all, or all of it again.
    fn fill(&self, is_full: bool) {
        let filler = self.dir.path().join("filler");
        if !is_full {
            assert!(self.mount(&format!("remount,size={}", Disk::SIZE)));
            return fs::remove_file(filler).expect("it was made");
        }
        // As large as what is there by then, which grows meanwhile.
        until("it has become as small as what it holds", || {
            let told = Command::new("du").arg("-sk").arg(self.dir.path()).output().expect("coreutils are there");
            let used: u64 = String::from_utf8_lossy(&told.stdout).split_whitespace().next().and_then(|used| used.parse().ok()).expect("du says it");
            self.mount(&format!("remount,size={}k", used + 16))
        });
        let mut file = File::create(filler).expect("it is ours");
        while file.write_all(&[1; 1024]).is_ok() {}
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(self.dir.path()).status();
    }
}

/// Shows that a bus whose disk is full stops what would be launched and nothing that runs, and that all goes on once it has room and is started again.
#[test]
fn a_bus_without_room() {
    let Some(disk) = Disk::new() else { return eprintln!("left out: only root may mount") };
    let bus = ServerSpec { store: Some(disk.dir.path().join("store")), ..ServerSpec::default() };
    let mut cluster = Cluster::with(Shape { bus, ..Shape::default() });
    let mut gate = crate::cluster::Gate::new(&cluster, "gate");
    let steady = cluster.launching(&["-c", &format!("echo ready; : <{}; echo end; exit 11", gate.text())]);
    until("it runs", || steady.out() == "ready\n");
    let run = load(&cluster);
    until_ran(&cluster, 40);
    disk.fill(true);
    until("the master says so", || cluster.logs().contains("the bus does not take the lease"));
    disk.fill(false);
    cluster.bus.restart().expect("it starts again");
    expect_each_once_beside(&cluster, run);
    gate.open();
    assert_eq!(steady.finish().expect(11).text(), "ready\nend\n");
    cluster.until_idle();
    cluster.expect_all_alive();
}

/// A cluster whose standby takes over as soon as it may.
fn with_standby() -> Cluster {
    Cluster::with(Shape { masters: 2, agents: vec!["cpus=2,mem=1G,disk=1G"; 2], master_args: vec!["--lease", "4s"], ..Shape::default() })
}

/// Shows that a standby takes over from a leader that is killed, and that no task is lost or repeated.
#[test]
fn a_killed_leader() {
    let mut cluster = with_standby();
    let leader = cluster.leader();
    let run = load(&cluster);
    until_ran(&cluster, 40);
    cluster.kill_master(leader);
    expect_each_once(&cluster, run);
    assert_eq!(cluster.leader(), 1 - leader);
    cluster.expect_all_alive();
}

/// Shows that a leader which is asked to end hands over, and that no task is lost or repeated.
#[test]
fn a_leader_that_hands_over() {
    let mut cluster = with_standby();
    let leader = cluster.leader();
    let run = load(&cluster);
    until_ran(&cluster, 40);
    cluster.stop_master(leader);
    until_ran(&cluster, 120);
    cluster.start_master(leader);
    until("there are two again", || cluster.tool("meso-ps", &["masters", "-q"]).lines().len() == 2);
    expect_each_once(&cluster, run);
    assert_eq!(cluster.leader(), 1 - leader);
}

/// Shows that a leader which stands still and comes back to find another one does no harm.
#[test]
fn a_leader_that_stands_still() {
    let mut cluster = with_standby();
    let leader = cluster.leader();
    let run = load(&cluster);
    until_ran(&cluster, 40);
    let pid = cluster.master_pid(leader);
    assert!(signal(pid, "STOP"));
    until_ran(&cluster, 150);
    assert!(signal(pid, "CONT"));
    expect_each_once(&cluster, run);
    assert_eq!(cluster.leader(), 1 - leader);
    cluster.expect_all_alive();
}

/// Shows that tasks run on without any master, and that one which is started again finds them all.
#[test]
fn a_master_alone() {
    let mut cluster = Cluster::with(Shape { master_args: vec!["--lease", "4s"], ..Shape::default() });
    let steady = cluster.launching(&["-c", "trap 'exit 11' USR1; echo ready; while :; do sleep 0.05; done"]);
    until("it runs", || steady.out() == "ready\n");
    let run = load(&cluster);
    until_ran(&cluster, 40);
    cluster.kill_master(0);
    thread::sleep(Duration::from_millis(300));
    cluster.start_master(0);
    expect_each_once_beside(&cluster, run);
    steady.signal("USR1");
    steady.finish().expect(11);
    cluster.until_idle();
}

/// The same while another task runs on.
#[track_caller]
fn expect_each_once_beside(cluster: &Cluster, run: Running) {
    let Ran { code, err, .. } = run.finish();
    assert_eq!(code, 0, "{err}");
    let numbers: Vec<usize> = cluster.lines_of("witness").iter().map(|line| line.parse().expect("a number alone")).collect();
    assert_eq!(twice_or_never(&numbers), Vec::<usize>::new(), "these ran twice or never; meso-launch said:\n{err}");
}

/// Shows that no task is lost or repeated whatever dies or stands still, in whatever order.
#[test]
fn one_after_the_other() {
    let mut cluster = with_standby();
    let seed = std::env::var("MESO_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("MESO_TEST_SEED={seed}");
    let mut state = seed;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut run = load(&cluster);
    until_ran(&cluster, 20);
    for _ in 0..FAULTS_MAX {
        if run.has_ended() {
            break;
        }
        let one = random(2) as usize;
        let pause = Duration::from_millis(100 + random(900));
        match random(6) {
            0 => {
                eprintln!("the bus is killed for {pause:?}");
                cluster.bus.kill().expect("it runs");
                thread::sleep(pause);
                cluster.bus.restart().expect("it starts again");
            }
            1 => {
                eprintln!("master {one} is killed for {pause:?}");
                cluster.kill_master(one);
                thread::sleep(pause);
                cluster.start_master(one);
            }
            2 => {
                eprintln!("agent {one} is killed for {pause:?}");
                cluster.kill_agent(one);
                thread::sleep(pause);
                cluster.start_agent(one);
            }
            stands_still => {
                let pid = match stands_still {
                    3 => cluster.bus.pid().expect("it runs"),
                    4 => cluster.master_pid(one),
                    _ => cluster.agent_pid(one),
                };
                eprintln!("process {pid} stands still for {pause:?}");
                assert!(signal(pid, "STOP"));
                thread::sleep(pause);
                assert!(signal(pid, "CONT"));
            }
        }
        thread::sleep(Duration::from_millis(random(1_500)));
    }
    expect_each_once(&cluster, run);
    cluster.expect_all_alive();
}

/// Shows that agents, a master and a launcher come one after the other in any order, also before there is a bus.
#[test]
fn before_the_bus() {
    let mut cluster = Cluster::start();
    cluster.kill_agent(0);
    cluster.kill_master(0);
    cluster.bus.kill().expect("it runs");
    cluster.start_agent(0);
    cluster.start_master(0);
    until("the agent says that there is no bus", || cluster.agent_log(0).contains("no bus at "));
    cluster.bus.restart().expect("it starts again");
    cluster.launch(&["--", "true"]).expect(0);
    cluster.expect_all_alive();
}
