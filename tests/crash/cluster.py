"""A bus, a master and agents as processes, for the scripts beside this file; nothing but the standard library"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINS = pathlib.Path(os.environ.get("MESO_TEST_BINS", ROOT / "target" / "release"))
# How long anything may take that takes milliseconds where nothing else runs.
PATIENCE_S = 60.0
# How often it is looked again.
LOOK_S = 0.02


class Wrong(Exception):
    """What is not as it has to be"""


def until(what, is_so, patience_s=PATIENCE_S):
    """Waits until it is so, and says what was waited for if it never is"""
    end = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > end:
            raise Wrong(f"it never came: {what}")
        time.sleep(LOOK_S)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def nats_server():
    found = os.environ.get("MESO_NATS_SERVER") or shutil.which("nats-server", path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    if not found:
        raise Wrong("there is no nats-server; ./setup installs it")
    return found


def cgroup_trees():
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        return [pathlib.Path(line.split()[1]) for line in mounts if line.split()[2].startswith("cgroup")]


class Cluster:
    """A bus and a master; agents are started by those who use it. Ends all of it when left."""

    def __init__(self, name, master_args=(), bins=BINS):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"meso-{name}-"))
        self.port = free_port()
        self.master_args = list(master_args)
        self.bins = bins
        self.processes = []
        self.agents = []

    def __enter__(self):
        try:
            return self.begun()
        except BaseException:
            self.__exit__()
            raise

    def begun(self):
        self.start("nats", [nats_server(), "-js", "-a", "127.0.0.1", "-p", str(self.port), "-sd", str(self.dir / "store")])
        self.master = self.start_master("master", self.bins)
        until("a master leads", lambda: self.tool("meso-ps", "agents", "-q").returncode == 0)
        return self

    def __exit__(self, *_):
        for agent in self.agents:
            agent.end()
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def environment(self, **more):
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", "MESO_NATS_URL": f"nats://127.0.0.1:{self.port}", "HOME": str(self.dir), **more}

    def start_master(self, name, bins):
        return self.start(name, [str(bins / "meso-master"), "--host", name, *self.master_args])

    def start(self, name, command, **more):
        with open(self.dir / f"{name}.log", "ab") as log:
            process = subprocess.Popen(command, env=self.environment(**more), cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def tool(self, name, *args, bins=BINS):
        """Runs a tool to its end"""
        return subprocess.run([str(bins / name), *args], env=self.environment(), cwd=self.dir, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)

    def begin(self, name, *args, bins=BINS, **how):
        """Starts a tool"""
        return subprocess.Popen([str(bins / name), *args], env=self.environment(), cwd=self.dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)

    def ends(self):
        """The final states of each task in the record: what anybody may have seen"""
        found = {}
        for line in self.tool("meso-events", "--kind", "tasks").stdout.splitlines():
            event = json.loads(line)
            if event.get("final"):
                found.setdefault(event["task"], set()).add((event["seq"], event["state"], event["reason"], event["exit"]))
        return found


class Agent:
    """One agent on a work directory of its own, which outlives its processes"""

    def __init__(self, cluster, host, *args, work_dir=None, bins=BINS):
        self.cluster, self.host, self.args, self.bins = cluster, host, args, bins
        self.dir = cluster.dir / host
        self.dir.mkdir()
        self.work_dir = work_dir or self.dir / "work"
        self.log_path = self.dir / "log"
        self.process = None
        cluster.agents.append(self)

    def start(self, **environment):
        # One that never came so far as to be followed is still there.
        self.kill()
        command = [str(self.bins / "meso-agent"), "--work-dir", str(self.work_dir), "--host", self.host, *self.args]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, env=self.cluster.environment(**environment), cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self):
        """Ends its process as a crash does"""
        if self.process:
            self.process.kill()
            self.process.wait()

    def said(self):
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def journal(self):
        """What its log says"""
        return (self.work_dir / "journal").read_text(encoding="utf-8", errors="replace")

    def is_active(self):
        hosts = self.cluster.tool("meso-ps", "agents", "--state", "active", "-o", "tsv=host").stdout.split()
        return self.host in hosts

    def places(self):
        """The cgroups that it has to itself"""
        ids = {word for word in self.said().replace(";", " ").split() if word.startswith("agent_")}
        return [place for tree in cgroup_trees() for id in ids if (place := tree / "meso" / id).is_dir()]

    def containers(self, begin=""):
        """Cgroups that are there whose names begin so; those of tasks begin with an e"""
        return [str(path) for place in self.places() for path in place.iterdir() if path.is_dir() and path.name.startswith(begin)]

    def end(self):
        """Ends it with all that it runs, and leaves nothing of it"""
        if self.process is None:
            return
        self.kill()
        command = [str(BINS / "meso-agent"), "--work-dir", str(self.work_dir), "--host", self.host, *self.args, "--recover", "cleanup"]
        with open(self.log_path, "ab") as log:
            last = subprocess.Popen(command, env=self.cluster.environment(), cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until("the agent is back to end what it runs", lambda: last.poll() is not None or not self.containers())
            time.sleep(0.3)
        finally:
            last.terminate()
            last.wait()
        # One that was refused does not come so far as to give them up.
        for place in self.places():
            with contextlib.suppress(OSError):
                place.rmdir()
        link = self.work_dir / "containers" / ".control"
        if link.is_symlink():
            shutil.rmtree(os.readlink(link), ignore_errors=True)
