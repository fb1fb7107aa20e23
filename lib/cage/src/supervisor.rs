//! The supervisor: one process per task, its parent, its witness and its end
//!
//! It is started with the spec file, locked, as standard input, the agent's event pipe as standard output,
//! `/dev/null` as standard error, and the container's directory as working directory. It never needs the agent
//! again. It has one thread, no runtime, and sleeps unless something happens.
use crate::{
    birth::{self, Stage, Standard},
    descendants,
    exit::{Exit, Why, push_number},
    leaf::Leaf,
    output::Stream,
    pump::Pump,
    spec::{HEAD_BYTES, HEAD_TASK_AT, Order, SPEC_BYTES_MAX},
    stdin::Feed,
    sys::{self, SIG_FORWARD, SIG_KILL_GRACE, SIG_READ_STDERR, SIG_READ_STDOUT, Waited},
};
use nix::{
    fcntl::OFlag,
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        uio::{pread, pwrite},
    },
    unistd::{self, Pid},
};
use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::ExitCode,
    time::Duration,
};

/// How soon we strike again at what survived
const KILL_AGAIN_MS: u64 = 50;
/// After so long we report the end though something is left that the kernel will not let die
const STUCK_MS: u64 = 20_000;
/// A record that cannot be written (a full disk) is tried again so often
const EXIT_TRIES: u32 = 100;
const EXIT_PAUSE_MS: u64 = 100;
/// The agent gives the container's id, for the process list; nobody else has anything to start here
const USAGE: u8 = 2;

/// Runs the task the working directory's spec describes, to its end
pub fn main() -> ExitCode {
    if std::env::args_os().len() != 2 {
        return ExitCode::from(USAGE);
    }
    match supervise() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // There is no terminal and no log: the file is for the person who looks into the directory.
            let _ = std::fs::write("supervisor-error", format!("{why}\n"));
            ExitCode::FAILURE
        }
    }
}

fn supervise() -> io::Result<()> {
    sys::close_from(3);
    sys::default_signals();
    // Everything is blocked, so that nothing interrupts and what nobody expects is ignored.
    SigSet::all().thread_block()?;
    prctl::set_name(c"meso-supervisor")?;
    // A daemon of the task becomes our child when its parent dies.
    prctl::set_child_subreaper(true)?;
    // Fails only if we lead a group already, which serves as well.
    let _ = unistd::setsid();
    // The agent locked the file before it started us. If we are late, the agent that recovers holds it, and there is nothing to do.
    let spec = File::from(sys::own(0));
    spec.try_lock()?;
    let body = read_spec(&spec)?;
    let order = Order::decode(&body).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the spec is cut short or of another version"))?;
    write_head(&spec, 0, std::process::id())?;
    let mut run = Run::new(&order)?;
    // A kill that came before our signals were blocked lies here; from now on signals are heard.
    if unistd::access(c"kill", unistd::AccessFlags::F_OK).is_ok() {
        run.exit.why = Why::Killed;
    } else {
        match run.start(&spec) {
            Err(e) if run.task == 0 => run.exit.why = Why::LaunchError { stage: "preparation".to_owned(), errno: e.raw_os_error().unwrap_or(libc::EIO), text: String::new() },
            _ => run.watch(),
        }
    }
    run.finish()?;
    say(b"exit\n");
    Ok(())
}

/// The task and what stands around it
struct Run<'a> {
    order: &'a Order<'a>,
    leaf: Leaf,
    signals: SignalFd,
    exit: Exit,
    /// The main process; 0 before and after its life
    task: i32,
    pumps: Vec<Pump<'a>>,
    feed: Option<Feed>,
    began_ms: u64,
    /// When somebody first wanted its end
    killed_ms: Option<u64>,
    /// When everything is to be killed that is left by then
    strike_ms: Option<u64>,
    strikes: u32,
    ended_ms: Option<u64>,
    has_children: bool,
    cpu_us: u64,
}

impl<'a> Run<'a> {
    fn new(order: &'a Order<'a>) -> io::Result<Run<'a>> {
        let wanted = sys::signal_set(&[libc::SIGCHLD, libc::SIGTERM, SIG_KILL_GRACE, SIG_FORWARD, SIG_READ_STDOUT, SIG_READ_STDERR]);
        let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let mut exit = Exit::new(sys::unix_ms());
        exit.mem_limit_bytes = order.mem_bytes;
        Ok(Run {
            order,
            leaf: order.leaf(),
            signals,
            exit,
            task: 0,
            pumps: Vec::new(),
            feed: None,
            began_ms: sys::boot_ms(),
            killed_ms: None,
            strike_ms: None,
            strikes: 0,
            ended_ms: None,
            has_children: false,
            cpu_us: 0,
        })
    }

    fn start(&mut self, spec: &File) -> io::Result<()> {
        let (out, task_out) = pipe()?;
        let (err, task_err) = pipe()?;
        let task_in = if self.order.stdin {
            let (task_in, ours) = pipe()?;
            set_nonblocking(&ours)?;
            self.feed = Some(Feed::new(ours)?);
            Some(task_in)
        } else {
            None
        };
        if let Some((uid, gid)) = self.order.user {
            // So that the task may open /dev/stdout, which opens the pipe anew.
            for fd in [Some(&task_out), Some(&task_err), task_in.as_ref()].into_iter().flatten() {
                unistd::fchown(fd, Some(uid.into()), Some(gid.into()))?;
            }
        }
        let standard = Standard { stdin: task_in.as_ref().map(AsRawFd::as_raw_fd), stdout: task_out.as_raw_fd(), stderr: task_err.as_raw_fd() };
        match birth::start(self.order, &standard) {
            Ok(pid) => {
                self.task = pid;
                self.has_children = true;
                let _ = write_head(spec, HEAD_TASK_AT, pid as u32);
                let mut line = b"started ".to_vec();
                push_number(&mut line, i64::from(pid));
                line.push(b'\n');
                say(&line);
                for (stream, pipe) in [(Stream::Stdout, out), (Stream::Stderr, err)] {
                    set_nonblocking(&pipe)?;
                    self.pumps.push(Pump::new(stream, pipe, self.order, self.began_ms));
                }
            }
            Err((stage, errno)) => {
                debug_assert!(stage != Stage::Born);
                self.exit.why = Why::LaunchError { stage: stage.name().to_owned(), errno, text: String::new() };
            }
        }
        Ok(())
    }

    /// Sleeps and acts until nothing of the container is left
    fn watch(&mut self) {
        let mut fds = Vec::with_capacity(8);
        while self.has_children {
            let now = sys::boot_ms();
            self.keep_time(now);
            fds.clear();
            fds.push(libc::pollfd { fd: self.signals.as_raw_fd(), events: libc::POLLIN, revents: 0 });
            for pump in &self.pumps {
                // A place that is not wanted stays, with the descriptor -1, which poll passes over.
                let fd = pump.wants(now).map_or(-1, AsRawFd::as_raw_fd);
                fds.push(libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
            }
            if let Some(feed) = &self.feed {
                feed.wants(&mut fds);
            }
            let timeout_ms = self.next_ms(now).map_or(-1, |at| i32::try_from(at.saturating_sub(now)).unwrap_or(i32::MAX));
            sys::poll(&mut fds, timeout_ms);
            let now = sys::boot_ms();
            for (pump, ready) in self.pumps.iter_mut().zip(&fds[1..]) {
                if ready.revents & libc::POLLIN != 0 {
                    pump.turn(now);
                } else if ready.revents != 0 {
                    pump.hang_up();
                }
            }
            if let Some(feed) = &mut self.feed {
                feed.turn(&fds);
            }
            if fds[0].revents != 0 {
                self.hear(now);
            }
            if self.ended_ms.is_some_and(|at| now >= at + STUCK_MS) {
                self.exit.stuck = true;
                break;
            }
        }
    }

    /// Acts on what is due
    fn keep_time(&mut self, now: u64) {
        if self.timeout_at().is_some_and(|at| now >= at) {
            self.begin_kill(Why::Timeout, self.order.kill_grace_ms, now);
        }
        if self.strike_ms.is_some_and(|at| now >= at) {
            self.strike(now);
        }
    }

    fn next_ms(&self, now: u64) -> Option<u64> {
        let pumps = self.pumps.iter().filter_map(|p| p.deadline_ms(now));
        self.timeout_at().into_iter().chain(self.strike_ms).chain(pumps).min()
    }

    fn timeout_at(&self) -> Option<u64> {
        self.order.timeout_ms.filter(|_| self.killed_ms.is_none() && self.ended_ms.is_none()).map(|t| self.began_ms.saturating_add(t))
    }

    fn hear(&mut self, now: u64) {
        let mut has_died = false;
        while let Ok(Some(heard)) = self.signals.read_signal() {
            let (number, value) = (heard.ssi_signo as i32, heard.ssi_ptr);
            // Only a queued signal carries a number; who else may signal us may as well kill the task.
            let value = (heard.ssi_code == libc::SI_QUEUE).then_some(value);
            match (number, value) {
                (libc::SIGCHLD, _) => has_died = true,
                (SIG_KILL_GRACE, Some(grace_ms)) => self.begin_kill(Why::Killed, grace_ms, now),
                (libc::SIGTERM, _) => self.begin_kill(Why::Killed, self.order.kill_grace_ms, now),
                (SIG_FORWARD, Some(signal)) => self.forward(signal as i32),
                (SIG_READ_STDOUT, Some(offset)) => self.pumps[0].reader_at(offset, now),
                (SIG_READ_STDERR, Some(offset)) => self.pumps[1].reader_at(offset, now),
                _ => {}
            }
        }
        if has_died {
            self.reap(now);
        }
    }

    /// Asks the task to end, and notes by when it must have; a later wish can only make that sooner
    fn begin_kill(&mut self, why: Why, grace_ms: u64, now: u64) {
        if self.ended_ms.is_some() {
            return;
        }
        if self.killed_ms.is_none() {
            self.killed_ms = Some(now);
            self.exit.why = why;
        }
        let at = now.saturating_add(grace_ms);
        self.strike_ms = Some(self.strike_ms.map_or(at, |before| before.min(at)));
        self.forward(libc::SIGTERM);
        // A stopped process hears nothing else.
        self.forward(libc::SIGCONT);
    }

    fn forward(&self, signal: i32) {
        if self.task != 0
            && let Ok(signal) = Signal::try_from(signal)
        {
            let _ = kill(Pid::from_raw(-self.task), signal);
        }
    }

    /// Kills everything that is left, and comes back to see
    fn strike(&mut self, now: u64) {
        // The cgroup takes all at once. One who left it, or who was never in one, is found by descent.
        if !self.leaf.kill() || self.strikes > 0 {
            descendants::kill_all();
        }
        self.strikes += 1;
        self.strike_ms = Some(now + KILL_AGAIN_MS);
    }

    fn reap(&mut self, now: u64) {
        loop {
            match sys::reap_any() {
                Waited::Died { pid, status, cpu_us } => {
                    self.cpu_us += cpu_us;
                    if pid == self.task {
                        self.task = 0;
                        self.ended_ms = Some(now);
                        self.exit.ended_ms = sys::unix_ms();
                        self.exit.code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
                        self.exit.signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
                    }
                }
                Waited::Living => break,
                Waited::Childless => {
                    self.has_children = false;
                    break;
                }
            }
        }
        if self.has_children && self.ended_ms.is_some() && self.strikes == 0 {
            // What outlives the main process was not asked for.
            self.strike(now);
        }
    }

    /// Leaves the record, and nothing else
    fn finish(&mut self) -> io::Result<()> {
        let now = sys::boot_ms();
        for pump in &mut self.pumps {
            pump.drain(now);
        }
        if self.ended_ms.is_none() {
            self.exit.ended_ms = sys::unix_ms();
        }
        self.exit.cpu_ms = self.cpu_us / 1000;
        let has_failed = self.exit.code != Some(0);
        let (peak, oom_kills) = self.leaf.memory_used(has_failed);
        (self.exit.mem_peak_bytes, self.exit.oom_kills) = (peak, oom_kills);
        let is_kill = self.exit.signal == Some(libc::SIGKILL) || self.exit.code == Some(128 + libc::SIGKILL);
        if oom_kills > 0 && is_kill && self.killed_ms.is_none() {
            self.exit.why = Why::MemoryLimit;
        }
        if let [out, err] = &self.pumps[..] {
            (self.exit.stdout_bytes, self.exit.stdout_dropped_bytes) = out.counts();
            (self.exit.stderr_bytes, self.exit.stderr_dropped_bytes) = err.counts();
        }
        let record = self.exit.print();
        for _ in 0..EXIT_TRIES {
            match leave(&record) {
                Ok(()) => break,
                Err(_) => std::thread::sleep(Duration::from_millis(EXIT_PAUSE_MS)),
            }
        }
        self.leaf.remove();
        Ok(())
    }
}

/// Puts the record into place: whoever sees the file sees all of it
fn leave(record: &[u8]) -> io::Result<()> {
    let mut file = File::create("exit.new")?;
    file.write_all(record)?;
    std::fs::rename("exit.new", "exit")
}

fn read_spec(file: &File) -> io::Result<Vec<u8>> {
    let mut body = vec![0; 4096];
    let mut length = 0;
    loop {
        match pread(file, &mut body[length..], (HEAD_BYTES + length) as i64)? {
            0 => break,
            n => length += n,
        }
        if length == body.len() {
            if length > SPEC_BYTES_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            body.resize(length * 2, 0);
        } else {
            // A short reading of a plain file is its end.
            break;
        }
    }
    body.truncate(length);
    Ok(body)
}

fn write_head(file: &File, at: usize, pid: u32) -> io::Result<()> {
    let mut text = Vec::with_capacity(16);
    push_number(&mut text, i64::from(pid));
    pwrite(file, &text, at as i64)?;
    Ok(())
}

/// Tells the agent, if it is still there
fn say(line: &[u8]) {
    let _ = unistd::write(io::stdout().as_fd(), line);
}

fn pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    unistd::pipe2(OFlag::O_CLOEXEC)
}

fn set_nonblocking(fd: &OwnedFd) -> nix::Result<()> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}
