//! A cage in a temporary directory, and what tests do with it
use meso_cage::{Cage, CgroupUse, Container, Exit, Options, Spec, StdinReply, Stream};
use std::{
    fs,
    io::{self, Read},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// No single thing a test waits for takes so long, on however busy a machine
const PATIENCE_MS: u64 = 60_000;

pub struct World {
    pub cage: Cage,
    dir: Option<TempDir>,
    place: PathBuf,
    parent: String,
    cgroups: CgroupUse,
}

/// Runs a test with cgroups and without
pub fn both_ways(test: impl Fn(&World)) {
    for cgroups in [CgroupUse::Auto, CgroupUse::Off] {
        let world = World::new(cgroups);
        test(&world);
        // A record is there a moment before the last cgroup is gone: who only reads it does not wait for the supervisor.
        patiently(|| world.leaves().is_empty());
    }
}

impl World {
    pub fn new(cgroups: CgroupUse) -> World {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let parent = format!("meso-test/{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        World { cage: open(dir.path(), cgroups, &parent), place: dir.path().to_owned(), dir: Some(dir), parent, cgroups }
    }

    /// The agent again, after it was away
    pub fn again(&self) -> World {
        World { cage: open(&self.place, self.cgroups, &self.parent), place: self.place.clone(), dir: None, parent: self.parent.clone(), cgroups: self.cgroups }
    }

    pub fn has_cgroups(&self) -> bool {
        self.cage.isolation() != "processes"
    }

    /// A file in the tasks' working directory
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.join("work").join(name)
    }

    pub fn spec(&self, id: &str, argv: &[&str]) -> Spec {
        Spec {
            id: id.into(),
            argv: argv.iter().map(|a| a.to_string()).collect(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd: self.path(""),
            stdin: false,
            attached: false,
            user: None,
            cpu_milli: 1000,
            yields: false,
            cpu_limit_milli: None,
            mem_bytes: Some(256 << 20),
            pids_max: Some(500),
            timeout_ms: None,
            kill_grace_ms: 1000,
            log_cap_bytes: 10 << 20,
            rlimit_nofile: None,
            rlimit_core: None,
        }
    }

    pub fn launch(&self, spec: &Spec) -> Container {
        self.cage.launch(spec).expect("the launch succeeds")
    }

    /// Launches, and waits until the task has printed something
    pub fn start(&self, id: &str, argv: &[&str]) -> Container {
        let container = self.launch(&self.spec(id, argv));
        let mut reader = self.cage.output(id, Stream::Stdout).expect("it is there");
        patiently(|| !reader.read_at(0, 1).expect("readable").bytes.is_empty());
        container
    }

    /// Waits for the end and for the supervisor to be gone
    pub fn finish(&self, mut container: Container) -> Exit {
        if let Some(events) = container.take_events() {
            let mut events = fs::File::from(events);
            let mut said = String::new();
            while let Err(e) = events.read_to_string(&mut said) {
                assert_eq!(e.kind(), io::ErrorKind::WouldBlock, "{e}");
                wait_readable(&events, PATIENCE_MS);
            }
            assert!(said.ends_with("exit\n"), "{said:?}; {:?}", fs::read_to_string(container.dir().join("supervisor-error")));
        }
        wait_readable(&container.pidfd(), PATIENCE_MS);
        let exit = container.exit().expect("readable").expect("the record is there before the supervisor ends");
        self.reap(container);
        exit
    }

    pub fn reap(&self, mut container: Container) {
        container.reap().expect("it is our child");
    }

    pub fn run(&self, id: &str, argv: &[&str]) -> Exit {
        self.finish(self.launch(&self.spec(id, argv)))
    }

    pub fn run_out(&self, id: &str, argv: &[&str]) -> (Exit, Vec<u8>) {
        let exit = self.run(id, argv);
        (exit, self.read(id, Stream::Stdout))
    }

    /// Everything that is kept of a stream that has ended
    pub fn read(&self, id: &str, stream: Stream) -> Vec<u8> {
        let mut all = Vec::new();
        self.each_chunk(id, stream, |bytes| all.extend_from_slice(bytes));
        all
    }

    pub fn each_chunk(&self, id: &str, stream: Stream, mut each: impl FnMut(&[u8])) {
        let mut reader = self.cage.output(id, stream).expect("it is there");
        let mut offset = 0;
        loop {
            let chunk = reader.read_at(offset, 256 << 10).expect("readable");
            each(&chunk.bytes);
            offset = chunk.offset + chunk.bytes.len() as u64;
            if chunk.end {
                return;
            }
            assert!(!chunk.bytes.is_empty(), "an ended stream has an end");
        }
    }

    /// Sends all of the input, as it is accepted; true if the task closed its side first
    pub fn feed(&self, id: &str, input: &[u8]) -> bool {
        let mut socket = None;
        patiently(|| {
            socket = self.cage.stdin(id).ok();
            socket.is_some()
        });
        let socket = socket.expect("just seen");
        let (mut sent, mut accepted) = (0, 0);
        while accepted < input.len() {
            let result = if sent < input.len() { socket.send(sent as u64, &input[sent..]) } else { Err(io::ErrorKind::WouldBlock.into()) };
            match result {
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => wait_readable(&socket, 100),
                Err(_) => return true,
            }
            // What is sent twice does no harm.
            let _ = socket.send((sent / 2) as u64, &input[sent / 2..sent]);
            // Nor does what comes too early.
            let _ = socket.send(sent as u64 + 1000, b"early");
            loop {
                match socket.recv() {
                    Ok(StdinReply::Accepted { offset }) => accepted = offset as usize,
                    Ok(StdinReply::Closed) => return true,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return true,
                }
            }
        }
        // Packets sent twice may still fill the socket.
        patiently(|| socket.send_eof(accepted as u64).is_ok());
        false
    }

    /// The cgroups of containers that are there
    pub fn leaves(&self) -> Vec<PathBuf> {
        let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
        roots.extend(fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path()));
        let inside = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir()).map(|e| e.path()).collect::<Vec<_>>();
        roots.iter().flat_map(|root| inside(&root.join(&self.parent))).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.dir.is_some() {
            // Whatever a failed test has left.
            let _ = self.cage.orphans(&[]);
            self.cage.release();
        }
    }
}

fn open(place: &Path, cgroups: CgroupUse, parent: &str) -> Cage {
    fs::create_dir_all(place.join("work")).expect("the directory is ours");
    let options = Options { run_dir: place.join("run"), supervisor: supervisor(), cgroups, cgroup_parent: parent.into() };
    Cage::open(options).expect("the cage opens")
}

/// The supervisor program beside this test
pub fn supervisor() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.parent().and_then(Path::parent).expect("a test lies in deps");
    profile.join("examples/supervisor")
}

/// Looks again and again until it is so
pub fn patiently(mut so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < Duration::from_millis(PATIENCE_MS), "it never became so");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn wait_readable(fd: &impl AsFd, timeout_ms: u64) {
    let timeout = nix::poll::PollTimeout::try_from(timeout_ms as i32).expect("a short time");
    let mut fds = [nix::poll::PollFd::new(fd.as_fd(), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, timeout).expect("it can be waited for");
}

/// Whether a process is there and not just a corpse
pub fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

pub fn kill_hard(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("it is our child");
}
