"""Daemons of a run, kept alive as a service manager would, and processes found by what they carry"""
import os
import signal
import subprocess
import threading
import time

# A daemon that ended is started again after so long.
RESTART_S = 1.0
LOOK_S = 0.1
# A daemon is through with its start after so long, also where the bus is away.
SETTLED_S = 5
# How long a daemon has to end when asked to, before it is killed.
END_S = 15
SAID_BYTES = 600


class Daemon:
    """A server of the bus, a master or an agent: it is to run, or is held back by a fault."""

    def __init__(self, history, name, argv, env, log):
        self.history, self.name, self.argv, self.env, self.log = history, name, argv, env, log
        self.process = None
        self.wanted = False
        # Whether its next end is our doing, and whether one that is not is to be expected while a fault lasts.
        self.struck = False
        self.excused = False
        self.again_at = 0.0
        self.since = 0.0
        self.lock = threading.RLock()

    @property
    def pid(self):
        """Of the running process; none while there is none."""
        with self.lock:
            return self.process.pid if self.process and self.process.poll() is None else None

    def has_settled(self):
        """Whether it runs, and has for long enough to be through with its start."""
        with self.lock:
            return self.pid is not None and time.monotonic() - self.since > SETTLED_S

    def start(self):
        with self.lock:
            self.wanted = True
            if self.pid is not None:
                return
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen(self.argv, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            self.struck, self.since = False, time.monotonic()
            self.history.add("daemon", type="start", name=self.name, pid=self.process.pid)

    def look(self):
        """Notices an end, and starts again what is to run."""
        with self.lock:
            if self.process is not None and self.process.poll() is not None:
                code, self.process = self.process.returncode, None
                if not self.struck:
                    self.history.add("daemon", type="exit", name=self.name, code=code, excused=self.excused, said=self.said())
                self.again_at = time.monotonic() + RESTART_S
            if self.process is None and self.wanted and time.monotonic() >= self.again_at:
                self.start()

    def said(self):
        with open(self.log, "rb") as log:
            log.seek(max(0, os.path.getsize(self.log) - SAID_BYTES))
            return log.read().decode("utf-8", "replace")

    def strike(self, number, hold=False):
        """Sends a signal that is to end it; held back, it is not started again before `start`."""
        with self.lock:
            self.wanted = not hold and self.wanted
            pid = self.pid
            if pid is None:
                return None
            self.struck = True
            os.kill(pid, number)
            return pid

    def signal(self, number):
        """Sends a signal that does not end it."""
        with self.lock:
            pid = self.pid
            if pid is not None:
                os.kill(pid, number)
            return pid

    def end(self):
        """Ends it for good: asked first, then killed."""
        with self.lock:
            self.wanted, process, self.struck = False, self.process, True
        if process is None:
            return
        try:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Keeper(threading.Thread):
    """Looks after all daemons until it is ended."""

    def __init__(self, daemons):
        super().__init__(name="keeper", daemon=True)
        self.daemons = daemons
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(LOOK_S):
            for daemon in list(self.daemons):
                daemon.look()


def carrying(text):
    """Processes other than this one that name a text in their arguments or environment, or work below it: (pid, arguments)."""
    found = []
    needle = text.encode()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                arguments = file.read()
            with open(f"/proc/{name}/environ", "rb") as file:
                environ = file.read()
            cwd = os.readlink(f"/proc/{name}/cwd").encode()
        except OSError:
            continue
        if needle in arguments or needle in environ or cwd.startswith(needle):
            found.append((int(name), arguments.replace(b"\0", b" ").decode("utf-8", "replace").strip()))
    return found


def environment(pid):
    """The environment of a process, as far as it may be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = file.read().split(b"\0")
    except OSError:
        return {}
    return dict(pair.decode("utf-8", "replace").split("=", 1) for pair in pairs if b"=" in pair)


def arguments(pid):
    """What a process was started as, in one line."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def parent(pid):
    """The parent of a process; none if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def kill_quietly(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
