"""The cluster under test: a bus of one or three servers, masters and agents, each in a place of its own"""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple

import net
from history import now
from processes import Daemon, Keeper, arguments, carrying, environment, kill_quietly, parent

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARIES = ["meso-master", "meso-agent", "meso-supervisor", "meso-offer", "meso-launch", "meso-kill", "meso-wait", "meso-ps", "meso-events", "meso-allocate"]
WORK_PREFIX = "meso-chaos."
# What each agent gives: more than there is, so that many tasks run, and little enough that they wait for room.
AGENT = {"cpus": 2, "mem": 512}
TMPFS = "size=400m,nr_inodes=100k"
# Which of the agents reaches the bus by way of a proxy, and where proxies listen who have a namespace for themselves.
PROXIED_AGENT = 1
PROXY_PORT = 4300
# A proxy does as it is told after so long at most.
PROXY_S = 5
# Who else there is on the bus beside `default`: what is said to them is overheard.
GUEST = "guest"
# A question to a cluster that may have no leader is given up after so long.
ASK_S = 10
START_S = 60
SWEEPS_MAX = 200
# What masters are told, so that what takes minutes by default takes seconds.
AGENT_BEAT_S, AGENT_TIMEOUT_S, SESSION_TIMEOUT_S, OFFER_TIMEOUT_S = 2, 10, 6, 10
Proxied = namedtuple("Proxied", "control url")
Extra = namedtuple("Extra", "words env")


def nats_server():
    """The server to use and its version."""
    program = os.environ.get("MESO_NATS_SERVER") or shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin")
    if not program:
        raise SystemExit("chaos: no nats-server found\n  try: ./setup, or MESO_NATS_SERVER=FILE")
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stdout
    return program, tuple(int(number) for number in re.findall(r"\d+", said)[:3])


class Cluster:
    """All processes of a run. `net` is none where namespaces cannot be had: then all share the machine's."""

    def __init__(self, history, options):
        self.history, self.options = history, options
        self.run = str(os.getpid())
        self.work = os.path.join(os.environ.get("TMPDIR", "/tmp"), WORK_PREFIX + self.run)
        self.buses = [f"bus{at}" for at in range(1, options.bus + 1)]
        self.masters = [f"master{at}" for at in range(1, options.masters + 1)]
        self.agents = [f"host{at}" for at in range(1, options.agents + 1)]
        self.is_root = os.geteuid() == 0
        self.net = None
        self.daemons = {}
        # Who reaches the bus by way of a proxy: the file that tells the proxy what to do, and the addresses it listens at.
        self.proxies = {}
        # What a master or an agent is started with beside the usual: words and environment.
        self.extras = {}
        # Words that have an agent see another start of its machine, once there was one; there is no way back.
        self.boots = {}
        self.keeper = Keeper([])
        self.attrs = {name: 1 for name in self.agents}
        # Who listens to what is stored, and to what is said.
        self.tap = None
        self.live = []
        # The people; none before it is up.
        self.load = None
        self.over = threading.Event()

    def hosts(self):
        return {name: dict(AGENT) for name in self.agents}

    def start(self, with_proxies=False):
        """Brings all of it up; it has a leader and all agents when this returns."""
        os.makedirs(os.path.join(self.work, "bin"))
        with open(os.path.join(self.work, "owner"), "w", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n{self.history.folder}\n")
        for name in BINARIES:
            # Copies: what is built meanwhile is not what is tested.
            shutil.copy2(os.path.join(self.options.bins, name), os.path.join(self.work, "bin", name))
        if self.is_root and not self.options.no_net:
            try:
                self.net = net.Net(self.run, self.buses + self.masters + self.agents + ["client"])
                self.net.make()
            except net.CannotNet as error:
                self.net.remove()
                self.net = None
                print(f"chaos: no network namespaces here, so nothing is partitioned: {error}", flush=True)
        else:
            print("chaos: without root or namespaces nothing is partitioned", flush=True)
        self._ports()
        for name in self.buses:
            os.makedirs(self.store_dir(name))
            self._add(name, self._bus(name))
        if self.is_root:
            self._small_disk(self.store_dir(self.buses[0]))
        for name in [*self.masters, self.proxied_agent(), "client"] if with_proxies else ():
            self._proxy(name)
        for name in self.masters:
            self._add(name, self._master(name))
        for at, name in enumerate(self.agents):
            folder = self.agent_dir(name)
            os.makedirs(folder)
            if at == len(self.agents) - 1 and self.is_root:
                self._small_disk(folder)
            self._add(name, self._agent(name))
        self.keeper.daemons = list(self.daemons.values())
        for daemon in self.daemons.values():
            daemon.start()
        self.keeper.start()
        self.tap = threading.Thread(target=self._tap, name="tap", daemon=True)
        self.tap.start()
        self.live = [self._listen("live", "meso.default.ev.>"), self._listen("overheard", "--ids", "meso.default.m2f.>", f"_INBOX.{GUEST}.>")]
        return self.until(lambda: len(self.active()) == len(self.agents), START_S)

    def _listen(self, name, *words):
        """Has what is said on the bus written to a file of the run."""
        listener = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tap.py")
        at = 1 if words[0].startswith("--") else 0
        # Bytes of Python are not to be left in the checkout.
        command = self.inside("client") + [sys.executable, "-B", listener, *words[:at], self.url, *words[at:]]
        with open(self.history.path(f"{name}.jsonl"), "ab") as file:
            return subprocess.Popen(command, env=self.env(), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.DEVNULL)

    @staticmethod
    def _small_disk(folder):
        """A disk that can be filled without hurting anybody else."""
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"{TMPFS},mode=0700", "meso-chaos", folder], check=True)

    def _ports(self):
        """Addresses of the servers of the bus: a namespace each, or free ports of this machine."""
        self.listen = {}
        for name in self.buses:
            if self.net:
                self.listen[name] = (self.net.addresses[name], 4222, 6222)
            else:
                self.listen[name] = ("127.0.0.1", free_port(), free_port())
        self.url = ",".join(f"nats://{address}:{port}" for address, port, _ in self.listen.values())

    def _bin(self, name):
        return os.path.join(self.work, "bin", name)

    def agent_dir(self, name):
        return os.path.join(self.work, "agents", name)

    def store_dir(self, name):
        return os.path.join(self.work, "stores", name)

    def env(self, name=None, principal="default"):
        """The environment of a member, which says where the bus is, and who it is."""
        url = self.proxies[name].url if name in self.proxies else self.url
        return {"PATH": f"{self.work}/bin:/usr/local/bin:/usr/bin:/bin", "HOME": self.work, "MESO_NATS_URL": url, "MESO_PRINCIPAL": principal, "LANG": "C.UTF-8"}

    def _add(self, name, argv, member=None):
        self.daemons[name] = Daemon(self.history, name, self.inside(member or name) + argv, self.env(name), self.history.path("logs", name))

    def inside(self, name):
        """What a command line begins with to run where a member is."""
        return self.net.inside(name) if self.net else []

    def _proxy(self, name):
        """A proxy between a member and the bus, which lets all pass until it is told otherwise."""
        control = os.path.join(self.work, f"proxy-{name}.json")
        pairs, urls = [], []
        for at, (address, port, _) in enumerate(self.listen.values()):
            own = f"127.0.0.1:{PROXY_PORT + at}" if self.net else f"127.0.0.1:{free_port()}"
            pairs.append(f"{own}={address}:{port}")
            urls.append(f"nats://{own}")
        self._add(f"proxy-{name}", [sys.executable, "-B", os.path.join(os.path.dirname(os.path.abspath(__file__)), "proxy.py"), control, *pairs], name)
        self.proxies[name] = Proxied(control, ",".join(urls))

    def proxied_agent(self):
        return self.agents[PROXIED_AGENT]

    def tell_proxy(self, name, **mode):
        """Has a proxy do as `proxy.py` says of each mode."""
        control = self.proxies[name].control
        with open(control + ".new", "w", encoding="utf-8") as file:
            json.dump(mode, file)
        os.rename(control + ".new", control)

    def proxy_told(self, name):
        """Has a proxy let all pass again: how many messages it touched until now, or none if it does not say."""
        told = self.proxies[name].control + ".told"
        before = os.path.getsize(told) if os.path.exists(told) else 0
        self.tell_proxy(name, mode="pass")
        if self.until(lambda: os.path.exists(told) and os.path.getsize(told) > before, PROXY_S, 0.05) is None:
            return None
        with open(told, encoding="utf-8") as file:
            return json.loads(file.readlines()[-1])["touched"]

    def reboot(self, name, before):
        """Has an agent see another start of its machine from its next start on."""
        self.boots[name] = before
        self.dress(name)

    def dress(self, name, words=(), env=None):
        """Says what a master or an agent is started with beside the usual, from its next start on."""
        self.extras[name] = Extra(list(words), env or {})
        daemon = self.daemons[name]
        daemon.argv = self.inside(name) + (self._master(name) if name in self.masters else self._agent(name))
        daemon.env = {**self.env(name), **self.extras[name].env}

    def _dressed(self, name, argv):
        extra = self.extras.get(name, Extra([], {}))
        return self.boots.get(name, []) + argv + extra.words

    def _master(self, name):
        return self._dressed(name, [
            self._bin("meso-master"), "--host", name, "--lease", self.options.lease, "--agent-beat", f"{AGENT_BEAT_S}s", "--agent-timeout", f"{AGENT_TIMEOUT_S}s",
            "--session-timeout", f"{SESSION_TIMEOUT_S}s", "--offer-timeout", f"{OFFER_TIMEOUT_S}s", *(["--replicas", "3"] if self.options.bus == 3 else [])])

    def bus_config(self, name):
        return os.path.join(self.work, f"{name}.conf")

    def bus_lines(self, name):
        """What a server of the bus is told."""
        address, port, cluster_port = self.listen[name]
        lines = [f"server_name: {name}", f'listen: "{address}:{port}"', "max_payload: 1MB", "max_pending: 64MB", 'write_deadline: "10s"', 'ping_interval: "20s"', "ping_max: 2"]
        if self.options.bus == 3:
            routes = ", ".join(f'"nats://{other}:{its}"' for other, _, its in self.listen.values())
            lines += ["cluster {", "  name: meso", f'  listen: "{address}:{cluster_port}"', f"  routes: [ {routes} ]", "}"]
        sync = ["  sync_interval: always"] if nats_server()[1] >= (2, 10) else []
        lines += ["jetstream {", f'  store_dir: "{self.store_dir(name)}"', "  max_file_store: 10GB", "  max_memory_store: 256MB", *sync, "}"]
        return "\n".join(lines) + "\n"

    def _bus(self, name):
        with open(self.bus_config(name), "w", encoding="utf-8") as file:
            file.write(self.bus_lines(name))
        return [nats_server()[0], "-c", self.bus_config(name)]

    def _agent(self, name):
        at = self.agents.index(name)
        ports = f"ports=[{31000 + 100 * at}-{31099 + 100 * at}]"
        return self._dressed(name, [
            self._bin("meso-agent"), "--work-dir", self.agent_dir(name), "--host", name, "-R", f"cpus={AGENT['cpus']},mem={AGENT['mem']}M,disk=1G,{ports}",
            "--log-cap", "4M", "--attr", f"rack=r{at % 2},turn={self.attrs[name]}"])

    def agent_words(self, name):
        """How an agent is started, but for where."""
        return self._agent(name)[len(self.boots.get(name, [])):]

    @staticmethod
    def clean_controls(place):
        """Forgets where supervisors below a place were told what to do: it is in memory, with a link back."""
        _clean_controls(place)

    @staticmethod
    def clean_groups(agent):
        """Forgets the cgroups of an agent's tasks, once nothing runs in them; of an agent that is not known there are none."""
        if agent:
            _clean_groups("meso", agent)

    def change_attrs(self, name):
        """What an agent says of itself from its next start on."""
        self.attrs[name] += 1
        self.daemons[name].argv = self.inside(name) + self._agent(name)

    def command(self, name, *words):
        """The command line of a tool that a client runs."""
        return self.inside("client") + [self._bin(name), *words]

    def tool(self, name, *words, timeout=ASK_S):
        """Runs a tool to its end: its code, or none if it took too long, and its output."""
        try:
            ran = subprocess.run(self.command(name, *words), env=self.env(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            return None, ""
        return ran.returncode, ran.stdout

    def rows(self, what, *words):
        """What meso-ps lists; none if nobody answers."""
        code, out = self.tool("meso-ps", what, "-o", "jsonl", *words)
        if code != 0:
            return None
        return [json.loads(line) for line in out.splitlines()]

    def leader(self):
        """Name of the master that leads; none if nobody says so."""
        return next((row["host"] for row in self.rows("masters") or () if row["state"] == "leading"), None)

    def active(self):
        return [row for row in self.rows("agents") or () if row["state"] == "active"]

    def until(self, true, limit_s, pause_s=0.3):
        """Waits until something is so, at most so long: how long it took, or none."""
        began = now()
        while now() - began < limit_s and not self.over.is_set():
            if true():
                return now() - began
            time.sleep(pause_s)
        return None

    def _tap(self):
        """Writes down the event stream as it comes."""
        with open(self.history.path("statuses.jsonl"), "a", encoding="utf-8") as file:
            while not self.over.is_set():
                with subprocess.Popen(self.command("meso-events", "-f"), env=self.env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as self.tapped:
                    for line in self.tapped.stdout:
                        self._saw(file, line)
                self.over.wait(1)
            code, out = self.tool("meso-events", timeout=60)
            for line in out.splitlines() if code == 0 else ():
                self._saw(file, line)

    @staticmethod
    def _saw(file, line):
        try:
            seen = json.loads(line)
        except ValueError:
            seen = {"meso": "torn", "line": line}
        seen["seen"] = round(now(), 3)
        file.write(json.dumps(seen) + "\n")
        file.flush()

    def end_tap(self):
        self.over.set()
        kill_quietly(self.tapped.pid)
        self.tap.join(90)
        for listener in self.live:
            listener.terminate()
            listener.wait()

    def running(self, name):
        """Tasks that run on an agent now: the name of each launch, its supervisor, and its processes."""
        tasks = {}
        for pid, _ in carrying(self.agent_dir(name) + "/sandboxes/"):
            box = os.path.basename(environment(pid).get("MESO_SANDBOX", ""))
            if box:
                tasks.setdefault(box, [None, []])[1].append(pid)
        for found in tasks.values():
            for pid in found[1]:
                above = parent(pid)
                if above is not None and above not in found[1]:
                    found[0] = above
        # An orphan's parent is whoever collects orphans, which is nobody's supervisor.
        return {box: (supervisor, pids) for box, (supervisor, pids) in tasks.items() if supervisor and supervisor != 1 and arguments(supervisor).startswith("meso-supervisor")}

    def left(self):
        """What there is still of tasks, while the agents run."""
        groups = []
        for tree in cgroup_trees():
            for agent in agent_ids(self.history.folder):
                place = os.path.join(tree, "meso", agent)
                if os.path.isdir(place):
                    groups += [os.path.join(place, name) for name in os.listdir(place) if os.path.isdir(os.path.join(place, name)) and re.match(r"e\d+-\d+", name)]
        processes = [f"{pid} {words}" for pid, words in carrying(self.work + "/agents/") if f"{self.work}/bin/meso-agent" not in words]
        with open("/proc/mounts", encoding="utf-8") as file:
            mounts = [line.split()[1] for line in file if self.work in line and "/sandboxes/" in line]
        return groups, processes, mounts

    def stop(self):
        """Ends every process, also those that faults left stopped or tasks left behind."""
        self.over.set()
        self.keeper.over.set()
        if self.keeper.is_alive():
            self.keeper.join()
        for names in (self.agents, self.masters, self.buses, [f"proxy-{name}" for name in self.proxies]):
            threads = [threading.Thread(target=self.daemons[name].end) for name in names if name in self.daemons]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        clean(self.work, self.history.folder)
        if self.net:
            self.net.remove()


def free_port():
    """A port of this machine that nobody listens at; until now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def cgroup_trees():
    with open("/proc/self/mounts", encoding="utf-8") as file:
        return [words[1] for words in (line.split() for line in file) if words[2].startswith("cgroup")]


def agent_ids(out):
    """The ids of all agents there ever were in a run, as they said them."""
    ids = set()
    logs = os.path.join(out, "logs")
    for name in os.listdir(logs) if os.path.isdir(logs) else ():
        if name.startswith("host"):
            with open(os.path.join(logs, name), encoding="utf-8", errors="replace") as file:
                ids.update(re.findall(r"\bagent_[0-9a-z]{10}\b", file.read()))
    return ids


def clean(work, out):
    """Removes whatever a run has left on this machine: processes, mounts, cgroups, files. What it recorded stays."""
    for _ in range(SWEEPS_MAX):
        found = carrying(work)
        if not found:
            break
        for pid, _ in found:
            kill_quietly(pid)
        time.sleep(0.02)
    with open("/proc/mounts", encoding="utf-8") as file:
        mounts = [line.split()[1] for line in file if line.split()[1].startswith(work + "/")]
    for place in reversed(mounts):
        subprocess.run(["umount", "-l", place], check=False)
    for agent in agent_ids(out):
        _clean_groups("meso", agent)
    _clean_groups(f"meso-chaos-{work.rpartition('.')[2]}")
    _clean_controls(work + "/")
    _clean_clocks()
    shutil.rmtree(work, ignore_errors=True)


def _clean_clocks():
    """Removes what libfaketime shares in memory, by the process that began it, of processes that are gone."""
    for name in os.listdir("/dev/shm"):
        word, _, pid = name.rpartition("_")
        if word in ("faketime_shm", "sem.faketime_sem") and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            os.unlink(os.path.join("/dev/shm", name))


def _clean_groups(*names):
    """Removes a cgroup and all below it, in every tree."""
    for tree in cgroup_trees():
        for folder, _, _ in os.walk(os.path.join(tree, *names), topdown=False):
            try:
                os.rmdir(folder)
            except OSError as error:
                print(f"chaos: {folder} cannot be removed: {error.strerror}", flush=True)


def _clean_controls(place):
    """Where supervisors are told what to do: agents keep that in memory, with a link back to their work directory."""
    base = "/dev/shm/meso"
    for name in os.listdir(base) if os.access(base, os.R_OK) else ():
        folder = os.path.join(base, name)
        for link in os.listdir(folder) if os.access(folder, os.R_OK) else ():
            path = os.path.join(folder, link)
            if os.path.islink(path) and os.readlink(path).startswith(place):
                shutil.rmtree(folder, ignore_errors=True)
                break
