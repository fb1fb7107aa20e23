//! The masters as processes: started, signalled, looked at from outside.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// Where the release binaries are, if not beside this program.
const BINS_VARIABLE: &str = "MESO_TEST_BINS";
/// How long a master may take until it stands by.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How often it is looked again.
const LOOK: Duration = Duration::from_millis(20);
/// Ticks of the processor times in /proc: a hundred a second, on every Linux.
const MS_PER_TICK: u64 = 10;

/// Ways to lose a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Term,
    Kill,
    Stop,
}

impl Signal {
    pub const ALL: [Signal; 3] = [Signal::Term, Signal::Kill, Signal::Stop];

    pub fn name(self) -> &'static str {
        match self {
            Signal::Term => "TERM",
            Signal::Kill => "KILL",
            Signal::Stop => "STOP",
        }
    }
}

/// One master's process; dropping it kills it.
pub struct Master {
    pub host: String,
    child: Child,
    log: PathBuf,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    pub cpu_ms: u64,
    pub resident_kib: u64,
    pub resident_max_kib: u64,
}

/// The release binary of this name.
pub fn program(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let dir = match std::env::var_os(BINS_VARIABLE) {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release"),
    };
    let path = dir.join(name);
    if path.is_file() { Ok(path) } else { Err(format!("{} is missing: cargo build --release makes it", path.display()).into()) }
}

impl Master {
    /// Starts one and waits until it stands by.
    pub async fn start(url: &str, dir: &Path, number: usize) -> Result<Master, Box<dyn Error>> {
        let host = format!("m{number}");
        let log = dir.join(&host);
        let file = File::create(&log)?;
        let child = Command::new(program("meso-master")?).args(["--nats", url, "--host", &host]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn()?;
        let mut master = Master { host, child, log };
        let until = Instant::now() + START_LIMIT;
        while !master.said().contains("stands by") {
            if Instant::now() > until || master.child.try_wait()?.is_some() {
                return Err(format!("{} does not stand by: {}", master.host, master.said()).into());
            }
            sleep(LOOK).await;
        }
        Ok(master)
    }

    /// What it wrote on standard error.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends it a signal. A shell's own `kill` is everywhere, and takes a millisecond.
    pub fn signal(&mut self, name: &str) -> io::Result<()> {
        if name == Signal::Kill.name() {
            return self.child.kill();
        }
        let sent = Command::new("/bin/sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &self.child.id().to_string()]).status()?;
        if sent.success() { Ok(()) } else { Err(io::Error::other(format!("cannot send {name} to {}", self.host))) }
    }

    /// Its processor time and memory.
    pub fn used(&self) -> Used {
        used(self.child.id())
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        // A stopped one dies of it as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has used; nothing if it is no more.
pub fn used(pid: u32) -> Used {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or_default();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name in brackets; user and system time are the 14th and 15th of all.
    let ticks: u64 = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    Used { cpu_ms: ticks * MS_PER_TICK, resident_kib: kib("VmRSS:"), resident_max_kib: kib("VmHWM:") }
}
