//! Processes: started, watched, signalled, waited for with a limit

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// No single thing a test waits for takes so long, on however busy a machine
pub const LIMIT: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(10);

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        thread::sleep(LOOK);
    }
}

/// Sends a signal by name; false if there is no such process. The shell's own `kill` is everywhere.
pub fn signal(pid: u32, name: &str) -> bool {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
    shell.status().expect("a shell can be started").success()
}

/// Whether a process is there and not only waits to be reaped.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next()).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The parent of a process.
pub fn parent_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
    parent.expect("the kernel tells the parent")
}

/// The processes that have to do with a directory: by their arguments, where they work, or what they were told.
pub fn processes_of(dir: &Path) -> Vec<u32> {
    let name = dir.to_str().expect("the name is ours");
    let all = std::fs::read_dir("/proc").expect("Linux has one").flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: u32, file: &str| std::fs::read(format!("/proc/{pid}/{file}")).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(name));
    let works_there = |pid: u32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
    all.filter(|pid| *pid != std::process::id() && is_alive(*pid) && (has(*pid, "cmdline") || has(*pid, "environ") || works_there(*pid))).collect()
}

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; 128 + the signal that ended it.
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Ran {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Its lines.
    pub fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }

    /// Checks the code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "it wrote {:?} and said:\n{}", self.text().chars().take(2_000).collect::<String>(), self.err);
        self
    }

    /// Checks the code, and that nothing was said.
    #[track_caller]
    pub fn expect_silent(self, code: i32) -> Ran {
        assert_eq!((self.code, self.err.as_str()), (code, ""), "it wrote {:?}", self.text().chars().take(2_000).collect::<String>());
        self
    }
}

/// What a pipe has brought so far.
struct Sink {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Sink {
    fn new(pipe: Option<impl Read + Send + 'static>) -> Sink {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let reader = pipe.map(|mut pipe| {
            let bytes = Arc::clone(&bytes);
            thread::spawn(move || {
                let mut buffer = [0; 65_536];
                while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                    bytes.lock().expect("nobody panics with it").extend_from_slice(&buffer[..count]);
                }
            })
        });
        Sink { bytes, reader }
    }

    fn so_far(&self) -> Vec<u8> {
        self.bytes.lock().expect("nobody panics with it").clone()
    }

    fn whole(&mut self) -> Vec<u8> {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading does not panic");
        }
        self.so_far()
    }
}

/// A program that runs; killed when dropped.
pub struct Running {
    what: String,
    child: Child,
    out: Sink,
    err: Sink,
}

impl Running {
    /// Starts it; whatever of its outputs is not already led elsewhere is collected.
    pub fn start(command: &mut Command) -> Running {
        let what = format!("{command:?}").chars().take(500).collect();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
        let (out, err) = (Sink::new(child.stdout.take()), Sink::new(child.stderr.take()));
        Running { what, child, out, err }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        assert!(signal(self.pid(), name), "{} is not there to be sent {name}; it said:\n{}", self.what, self.said());
    }

    /// What it has written to standard output.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.out.so_far()).into_owned()
    }

    /// What it has said on standard error.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.err.so_far()).into_owned()
    }

    /// Waits until standard output has a line.
    pub fn until_line(&mut self, line: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.out().lines().any(|got| got == line) {
            let ended = self.child.try_wait().expect("it is our child");
            assert!(ended.is_none() && Instant::now() < deadline, "{} did not print {line:?} (ended: {ended:?}); it said:\n{}", self.what, self.said());
            thread::sleep(LOOK);
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Waits for its end and for that of its outputs.
    pub fn finish(mut self) -> Ran {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            assert!(Instant::now() < deadline, "{} did not end within {LIMIT:?}; it wrote {} bytes and said:\n{}", self.what, self.out.so_far().len(), self.said());
            thread::sleep(LOOK);
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ran { code, out: self.out.whole(), err: String::from_utf8_lossy(&self.err.whole()).into_owned() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
