"""The faults: each knows what it needs, what it does, and how it is healed

A fault is a function `inject(world, rng) -> token` and one `heal(world, token)`; a token of none means that there was
nothing to do it to. `parts` names what of the cluster it takes for itself, so that two that last at the same time do not
fall over each other; rows are those of the fault matrix in README.md.
"""
import errno
import os
import resource
import shutil
import signal
import subprocess
import time
from collections import namedtuple

from cluster import AGENT_TIMEOUT_S
from processes import kill_quietly

Fault = namedtuple("Fault", "name rows parts hold needs inject heal")
FAULTS = {}
MASTERS, BUS, AGENTS, CLIENTS = "masters", "bus", "agents", "clients"
DISK_FULL_MIB = 512
# An agent that was declared gone must have heard of it and ended within so long of being back.
GONE_S = 120


def fault(name, rows, parts, hold, needs=(), heal=None):
    """Declares a fault: how long it lasts is drawn between the two seconds of `hold`."""
    def declare(inject):
        FAULTS[name] = Fault(name, rows, parts, hold, tuple(needs), inject, heal)
        return inject
    return declare


def nothing(_world, _token):
    """What heals by itself."""


def start_all(world, token):
    for name in token["names"]:
        world.daemons[name].start()


def go_on(world, token):
    for name in token["names"]:
        world.daemons[name].signal(signal.SIGCONT)


def rejoin(world, token):
    for name in token["names"]:
        world.net.join(name)


def leading(world, rng):
    return world.leader() or rng.choice(world.masters)


# Masters


@fault("master-kill", [1], [MASTERS], (1, 4), heal=start_all)
def master_kill(world, rng):
    name = leading(world, rng)
    world.daemons[name].strike(signal.SIGKILL, hold=True)
    return {"names": [name]}


@fault("master-term", [2], [MASTERS], (0, 3), heal=start_all)
def master_term(world, rng):
    name = leading(world, rng)
    world.daemons[name].strike(signal.SIGTERM, hold=True)
    return {"names": [name]}


def stops_master(seconds):
    def inject(world, rng):
        name = leading(world, rng)
        world.daemons[name].signal(signal.SIGSTOP)
        return {"names": [name]}
    fault(f"master-stop-{seconds}", [3], [MASTERS], (seconds, seconds), heal=go_on)(inject)


for each in (3, 9, 30):
    stops_master(each)


@fault("masters-kill-all", [5], [MASTERS], (2, 15), heal=start_all)
def masters_kill_all(world, _rng):
    for name in world.masters:
        world.daemons[name].strike(signal.SIGKILL, hold=True)
    return {"names": world.masters}


@fault("standby-crash-loop", [6], [MASTERS], (0, 0), needs=["masters"], heal=nothing)
def standby_crash_loop(world, _rng):
    leader = world.leader()
    names = [name for name in world.masters if name != leader]
    for _ in range(6):
        world.daemons[names[0]].strike(signal.SIGKILL)
        time.sleep(1.3)
    return {"names": names[:1]}


@fault("master-cut", [8], [MASTERS], (4, 20), needs=["net"], heal=rejoin)
def master_cut(world, rng):
    name = leading(world, rng)
    world.net.cut(name)
    return {"names": [name]}


@fault("master-mute", [9], [MASTERS], (4, 15), needs=["net"], heal=lambda world, token: world.net.unmute(token["names"][0], world.buses))
def master_mute(world, rng):
    name = leading(world, rng)
    world.net.mute(name, world.buses)
    return {"names": [name]}


def undeafen(world, token):
    for bus in world.buses:
        world.net.unmute(bus, token["names"])


@fault("master-deaf", [9], [MASTERS], (4, 15), needs=["net"], heal=undeafen)
def master_deaf(world, rng):
    name = leading(world, rng)
    for bus in world.buses:
        world.net.mute(bus, [name])
    return {"names": [name]}


# The bus


@fault("bus-kill", [15], [BUS], (0, 6), heal=start_all)
def bus_kill(world, rng):
    name = rng.choice(world.buses)
    world.daemons[name].strike(signal.SIGKILL, hold=True)
    return {"names": [name]}


@fault("bus-restart", [15, 23], [BUS], (0, 1), heal=start_all)
def bus_restart(world, rng):
    name = rng.choice(world.buses)
    world.daemons[name].strike(signal.SIGTERM, hold=True)
    return {"names": [name]}


@fault("bus-stop", [20], [BUS], (3, 12), heal=go_on)
def bus_stop(world, rng):
    name = rng.choice(world.buses)
    world.daemons[name].signal(signal.SIGSTOP)
    return {"names": [name]}


@fault("bus-wipe", [16], [BUS], (0, 3), heal=start_all)
def bus_wipe(world, rng):
    """All of them come back with nothing; of three at once, as one alone would be filled by the others."""
    for name in world.buses:
        world.daemons[name].strike(signal.SIGKILL, hold=True)
    for name in world.buses:
        world.until(lambda name=name: world.daemons[name].pid is None, 10, 0.05)
        for each in os.listdir(world.store_dir(name)):
            shutil.rmtree(os.path.join(world.store_dir(name), each), ignore_errors=True)
    return {"names": world.buses, "loses_store": True}


@fault("bus-damage", [18], [BUS], (0, 1), needs=["bus1"], heal=start_all)
def bus_damage(world, rng):
    """Bytes of what it stored are others when it comes back."""
    name = world.buses[0]
    world.daemons[name].strike(signal.SIGKILL, hold=True)
    world.until(lambda: world.daemons[name].pid is None, 10, 0.05)
    blocks = sorted(os.path.join(folder, each) for folder, _, names in os.walk(world.store_dir(name)) for each in names if each.endswith(".blk"))
    hit = rng.sample(blocks, min(2, len(blocks)))
    for path in hit:
        size = os.path.getsize(path)
        if size:
            with open(path, "r+b") as file:
                file.seek(rng.randrange(size))
                file.write(bytes(rng.randrange(256) for _ in range(8)))
    return {"names": [name], "files": [os.path.relpath(path, world.work) for path in hit], "loses_store": True}


def free_store(world, token):
    """A server that could not write goes on as it should only once it is started again."""
    os.unlink(token["file"])
    for name in token["names"]:
        world.daemons[name].strike(signal.SIGTERM)


@fault("bus-disk-full", [24], [BUS], (3, 12), needs=["root"], heal=free_store)
def bus_disk_full(world, _rng):
    name = world.buses[0]
    path = os.path.join(world.store_dir(name), "chaos-filler")
    fill(path)
    return {"names": [name], "file": path, "loses_store": True}


@fault("bus-rolling", [23], [BUS], (0, 0), needs=["bus3"], heal=nothing)
def bus_rolling(world, _rng):
    for name in world.buses:
        world.daemons[name].strike(signal.SIGTERM)
        time.sleep(12)
    return {"names": world.buses}


@fault("bus-minority", [21], [BUS], (5, 20), needs=["bus3", "net"], heal=rejoin)
def bus_minority(world, rng):
    name = rng.choice(world.buses)
    world.net.cut(name)
    return {"names": [name]}


@fault("bus-majority-kill", [22], [BUS], (5, 25), needs=["bus3"], heal=start_all)
def bus_majority_kill(world, rng):
    names = rng.sample(world.buses, 2)
    for name in names:
        world.daemons[name].strike(signal.SIGKILL, hold=True)
    return {"names": names}


@fault("bus-majority-cut", [22], [BUS], (5, 25), needs=["bus3", "net"], heal=rejoin)
def bus_majority_cut(world, rng):
    names = rng.sample(world.buses, 2)
    for name in names:
        world.net.cut(name)
    return {"names": names}


# Agents


@fault("agent-kill", [32], [AGENTS], (0, 3), heal=start_all)
def agent_kill(world, rng):
    name = rng.choice(world.agents)
    world.daemons[name].strike(signal.SIGKILL, hold=True)
    return {"names": [name]}


@fault("agent-kill-loop", [32], [AGENTS], (0, 0), heal=nothing)
def agent_kill_loop(world, rng):
    name = rng.choice(world.agents)
    for _ in range(4):
        world.daemons[name].strike(signal.SIGKILL)
        time.sleep(1.2 + rng.random())
    return {"names": [name]}


@fault("agent-term", [32, 105], [AGENTS], (0, 3), heal=start_all)
def agent_term(world, rng):
    """Asked to end, it leaves its tasks running; it comes back saying something else of itself."""
    name = rng.choice(world.agents)
    world.daemons[name].strike(signal.SIGTERM, hold=True)
    world.change_attrs(name)
    return {"names": [name]}


@fault("agent-stop", [50], [AGENTS], (2, 8), heal=go_on)
def agent_stop(world, rng):
    name = rng.choice(world.agents)
    world.daemons[name].signal(signal.SIGSTOP)
    return {"names": [name]}


@fault("agent-stop-long", [50, 45], [AGENTS], (AGENT_TIMEOUT_S + 5, AGENT_TIMEOUT_S + 12), heal=go_on)
def agent_stop_long(world, rng):
    return agent_stop(world, rng)


@fault("agent-cut", [44], [AGENTS], (2, AGENT_TIMEOUT_S - 4), needs=["net"], heal=rejoin)
def agent_cut(world, rng):
    name = rng.choice(world.agents)
    world.net.cut(name)
    return {"names": [name]}


@fault("agent-cut-long", [45], [AGENTS], (AGENT_TIMEOUT_S + 6, AGENT_TIMEOUT_S + 15), needs=["net"], heal=rejoin)
def agent_cut_long(world, rng):
    return agent_cut(world, rng)


@fault("agents-cut-all", [44, 45], [AGENTS], (3, AGENT_TIMEOUT_S + 6), needs=["net"], heal=rejoin)
def agents_cut_all(world, _rng):
    for name in world.agents:
        world.net.cut(name)
    return {"names": world.agents}


def heal_failover(world, token):
    world.daemons[token["master"]].start()
    rejoin(world, token)


@fault("agent-cut-failover", [46], [AGENTS, MASTERS], (AGENT_TIMEOUT_S + 4, AGENT_TIMEOUT_S + 10), needs=["net", "masters"], heal=heal_failover)
def agent_cut_failover(world, rng):
    """The leader goes while the agent is away: who comes back is judged by somebody new."""
    token = agent_cut(world, rng)
    time.sleep(2)
    token["master"] = leading(world, rng)
    world.daemons[token["master"]].strike(signal.SIGKILL, hold=True)
    return token


@fault("agent-mute", [9, 45], [AGENTS], (4, AGENT_TIMEOUT_S + 8), needs=["net"], heal=lambda world, token: world.net.unmute(token["names"][0], world.buses))
def agent_mute(world, rng):
    name = rng.choice(world.agents)
    world.net.mute(name, world.buses)
    return {"names": [name]}


def kill_supervisors(world, rng, count):
    name = rng.choice(world.agents)
    running = world.running(name)
    boxes = sorted(running)
    chosen = rng.sample(boxes, min(count, len(boxes)))
    for box in chosen:
        os.kill(running[box][0], signal.SIGKILL)
    return {"names": [name], "boxes": chosen}


@fault("supervisor-kill", [53], [AGENTS], (0, 0), needs=["root"], heal=nothing)
def supervisor_kill(world, rng):
    token = kill_supervisors(world, rng, 1)
    return token if token["boxes"] else None


@fault("agent-and-supervisors-kill", [54], [AGENTS], (0, 3), needs=["root"], heal=start_all)
def agent_and_supervisors_kill(world, rng):
    token = kill_supervisors(world, rng, 2)
    world.daemons[token["names"][0]].strike(signal.SIGKILL, hold=True)
    return token


def fill(path):
    """Fills the small disk that a file is on."""
    try:
        with open(path, "wb", buffering=0) as file:
            for _ in range(DISK_FULL_MIB * 16):
                file.write(bytes(65536))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def free_disk(world, token):
    os.unlink(token["file"])
    time.sleep(3)
    for name in token["names"]:
        world.daemons[name].excused = False


@fault("agent-disk-full", [35], [AGENTS], (3, 10), needs=["root"], heal=free_disk)
def agent_disk_full(world, _rng):
    name = world.agents[-1]
    path = os.path.join(world.agent_dir(name), "chaos-filler")
    # It may end, saying why; what it must not do is lie.
    world.daemons[name].excused = True
    fill(path)
    running = world.running(name)
    # What tasks write themselves may be lost to them with the disk.
    return {"names": [name], "file": path, "boxes": sorted(running)}


@fault("agent-twice", [42], [AGENTS], (0, 0), heal=nothing)
def agent_twice(world, rng):
    """A second process on a work directory ends at once, and says why."""
    name = rng.choice(world.agents)
    daemon = world.daemons[name]
    if daemon.pid is None:
        return None
    ran = subprocess.run(daemon.argv, env=daemon.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    if ran.returncode != 78:
        world.history.add("wrong", rule="S15", text=f"a second agent on the work directory of {name} ended with {ran.returncode}", said=ran.stderr[-300:])
    return {"names": [name]}


def few_again(world, token):
    try:
        resource.prlimit(token["pid"], resource.RLIMIT_NOFILE, (token["soft"], token["hard"]))
    except ProcessLookupError:
        # Another fault has ended it; the next process has its own limits.
        pass


@fault("agent-few-files", [48], [AGENTS], (3, 10), heal=few_again)
def agent_few_files(world, rng):
    """It may open no more files than it has open."""
    name = rng.choice(world.agents)
    pid = world.daemons[name].pid
    if pid is None:
        return None
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")) + 1, hard))
    return {"names": [name], "pid": pid, "soft": soft, "hard": hard}


def heal_gone(world, token):
    """It comes back, hears that it is gone, ends what it runs and itself; then it is a new agent."""
    name = token["names"][0]
    daemon = world.daemons[name]
    daemon.start()
    daemon.wanted = False
    if token["is_gone"]:
        if world.until(lambda: daemon.pid is None, GONE_S) is None:
            world.history.add("wrong", rule="S15", text=f"{name} was declared gone and did not end within {GONE_S} s of being back", said=daemon.said())
            daemon.strike(signal.SIGKILL)
        daemon.look()
        shutil.rmtree(world.agent_dir(name))
        os.makedirs(world.agent_dir(name))
    daemon.start()
    daemon.excused = False


@fault("agent-gone", [45], [AGENTS], (1, 5), heal=heal_gone)
def agent_gone(world, rng):
    """It is lost for so long that an operator gives it up, while its tasks run on."""
    name = rng.choice(world.agents[:-1])
    daemon = world.daemons[name]
    daemon.strike(signal.SIGKILL, hold=True)
    daemon.excused = True
    code = None
    for _ in range(3):
        # Refused as long as it may come back.
        world.until(lambda: any(row["host"] == name and row["state"] == "unreachable" for row in world.rows("agents") or ()), AGENT_TIMEOUT_S * 2)
        boxes = sorted(world.running(name))
        code, _ = world.tool("meso-kill", "-q", "--gone", name, timeout=20)
        if code == 0:
            break
        time.sleep(2)
    return {"names": [name], "boxes": boxes, "is_gone": code == 0}


# Tasks


@fault("task-stop", [64], [], (1, 5), needs=["root"], heal=lambda _world, token: [kill_quietly(pid, signal.SIGCONT) for pid in token["pids"]])
def task_stop(world, rng):
    name = rng.choice(world.agents)
    running = world.running(name)
    if not running:
        return None
    box = rng.choice(sorted(running))
    pids = running[box][1]
    for pid in pids:
        kill_quietly(pid, signal.SIGSTOP)
    return {"names": [name], "stopped": box, "pids": pids}


def hog(name, rows, words, body):
    """A task that takes more than it may: a load of its own beside the others', ended by the clock."""
    def inject(world, _rng):
        command = world.command("meso-launch", "-q", "--timeout", "6s", *words, "-c", body)
        process = subprocess.Popen(command, env=world.env(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        return {"names": [], "pid": process.pid, "process": process}

    def heal(world, token):
        try:
            code = token["process"].wait(90)
        except subprocess.TimeoutExpired:
            token["process"].kill()
            code = token["process"].wait()
        world.history.add("hog", name=name, code=code)
    fault(name, rows, [], (0, 0), heal=heal)(inject)


hog("task-forks", [57], ["-R", "cpus=0.2,mem=64M"], "i=0; while [ $i -lt 300 ]; do sleep 60 & i=$((i+1)); done; wait")
hog("task-floods", [59], ["-R", "cpus=0.2,mem=32M"], "exec timeout 3 head -c 60000000 /dev/zero")
hog("task-eats-memory", [58], ["-R", "cpus=0.2,mem=32M"], "exec tail -c 400000000 /dev/zero")


# Clients


@fault("client-kill", [66], [CLIENTS], (0, 0), heal=nothing)
def client_kill(world, rng):
    live = world.load.killable()
    if not live:
        return None
    operation = rng.choice(live)
    operation.kill(len(operation.stages) - 1)
    return {"names": [], "op": operation.op}


@fault("stage-kill", [66], [CLIENTS], (0, 0), heal=nothing)
def stage_kill(world, rng):
    live = [operation for operation in world.load.killable() if len(operation.stages) > 1]
    if not live:
        return None
    operation, stage = rng.choice(live), rng.randint(0, 1)
    operation.kill(stage)
    return {"names": [], "op": operation.op, "stage": stage}


@fault("stage-stop", [30, 65], [CLIENTS], (3, 12), heal=lambda _world, token: [kill_quietly(pid, signal.SIGCONT) for pid in token["pids"]])
def stage_stop(world, rng):
    """A reader that stands still: its framework waits, nobody else does."""
    live = [operation for operation in world.load.killable() if len(operation.stages) > 1]
    if not live:
        return None
    operation = rng.choice(live)
    process = operation.stages[rng.randint(0, 2)]
    kill_quietly(process.pid, signal.SIGSTOP)
    return {"names": [], "op": operation.op, "pids": [process.pid]}
